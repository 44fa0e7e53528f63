//! Where this service may connect. Tenants choose registries, and registries choose redirects and
//! token realms, so every address is checked: public ones only, but for what the operator listed.
//! A name is resolved once, by the resolver below, and the connection goes to an address it passed.

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use ipnet::IpNet;
use reqwest::{
    Url,
    dns::{Addrs, Name, Resolve, Resolving},
};

/// The policy.
#[derive(Clone, Debug, Default)]
pub(crate) struct EgressPolicy {
    allowed_private: HashSet<String>,
    denied: Vec<IpNet>,
}

/// How a request may go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// To public addresses only.
    Public,
    /// The operator named this very host and port.
    Listed,
}

/// The policy says no. The text is for the tenant and tells nothing about what is there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Refused(pub(crate) String);

impl EgressPolicy {
    /// A policy that lets `host:port`s of `allowed_private` through and refuses `denied` on top of
    /// everything private.
    pub(crate) fn new(allowed_private: &[String], denied: &[IpNet]) -> Self {
        let allowed_private = allowed_private.iter().map(|a| a.to_ascii_lowercase()).collect();
        Self { allowed_private, denied: denied.to_vec() }
    }

    /// Whether the operator lets tenants name this private `host:port`.
    pub(crate) fn lists(&self, authority: &str) -> bool {
        self.allowed_private.contains(&authority.to_ascii_lowercase())
    }

    /// Decides about one request; `operators` is an authority the operator configured for it.
    pub(crate) fn route(&self, url: &Url, operators: Option<&str>) -> Result<Route, Refused> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Refused(format!("a registry may not send requests to {}: addresses", url.scheme())));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Refused("a registry address may not carry credentials".into()));
        }
        let authority = authority(url);
        if operators == Some(authority.as_str()) || self.lists(&authority) {
            return Ok(Route::Listed);
        }
        match literal_ip(url) {
            Some(ip) if !self.permits(ip) => Err(refused(&authority)),
            Some(_) | None => Ok(Route::Public),
        }
    }

    /// Whether a connection to this address is within the policy.
    pub(crate) fn permits(&self, ip: IpAddr) -> bool {
        is_public(ip) && !self.denied.iter().any(|net| net.contains(&ip))
    }
}

/// `host:port`, the port always written.
pub(crate) fn authority(url: &Url) -> String {
    format!("{}:{}", url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or_default())
}

fn refused(who: &str) -> Refused {
    Refused(format!("{who} is not a public address; this platform does not reach out to it"))
}

/// The URL parser has already turned decimal, octal and hexadecimal spellings into an address.
fn literal_ip(url: &Url) -> Option<IpAddr> {
    url.host_str()?.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// Globally reachable unicast, seen through every way of writing a v4 address inside a v6 one.
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let special = ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_broadcast()
        || ip.is_documentation()
        || ip.is_multicast()
        || a == 0
        || a >= 240
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (18..20).contains(&b));
    !special
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let s = ip.segments();
    if let Some(v4) = ip.to_ipv4_mapped() {
        return is_public_v4(v4);
    }
    let v4_at = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    match s {
        // NAT64 and 6to4 lead to the v4 address within.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => is_public_v4(v4_at(high, low)),
        [0x2002, high, low, ..] => is_public_v4(v4_at(high, low)),
        // Teredo, ORCHID and the other protocol assignments of 2001::/23; documentation.
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => false,
        [first, ..] => (0x2000..0x4000).contains(&first),
    }
}

/// Resolves a name and hands out only addresses within the policy.
pub(crate) struct PublicResolver(pub(crate) EgressPolicy);

impl Resolve for PublicResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let policy = self.0.clone();
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let found: Vec<SocketAddr> = tokio::net::lookup_host((host.as_str(), 0)).await?.collect();
            let permitted: Vec<SocketAddr> = found.into_iter().filter(|a| policy.permits(a.ip())).collect();
            if permitted.is_empty() {
                return Err(refused(&host).into());
            }
            Ok(Box::new(permitted.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(policy: &EgressPolicy, url: &str) -> Result<Route, Refused> {
        policy.route(&url.parse().expect(url), None)
    }

    #[test]
    fn every_spelling_of_a_private_address_is_refused() {
        let policy = EgressPolicy::default();
        for host in [
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f000001",
            "0177.0.0.1",
            "0.0.0.0",
            "10.0.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "240.0.0.1",
            "[::1]",
            "[::]",
            "[::ffff:127.0.0.1]",
            "[::ffff:a9fe:a9fe]",
            "[::127.0.0.1]",
            "[fe80::1]",
            "[fc00::1]",
            "[fd12::1]",
            "[ff02::1]",
            "[64:ff9b::7f00:1]",
            "[64:ff9b:1::1]",
            "[2002:7f00:1::]",
            "[2001::1]",
            "[2001:db8::1]",
        ] {
            let url = format!("http://{host}/v2/");
            assert!(route(&policy, &url).is_err(), "{url} was let through");
        }
        for host in ["1.1.1.1", "registry.example", "[2606:4700::1111]", "[64:ff9b::101:101]"] {
            assert_eq!(route(&policy, &format!("https://{host}/v2/")), Ok(Route::Public), "{host}");
        }
    }

    #[test]
    fn a_listed_address_is_let_through_at_its_port_only() {
        let policy = EgressPolicy::new(&["127.0.0.1:5000".into()], &[]);
        assert_eq!(route(&policy, "http://127.0.0.1:5000/v2/"), Ok(Route::Listed));
        assert!(route(&policy, "http://127.0.0.1:5432/v2/").is_err());
        assert!(route(&policy, "http://127.0.0.1/v2/").is_err());
    }

    #[test]
    fn a_mirror_is_the_operators_choice_for_its_own_requests_only() {
        let policy = EgressPolicy::default();
        let url: Url = "http://127.0.0.1:5000/v2/".parse().expect("url");
        assert_eq!(policy.route(&url, Some("127.0.0.1:5000")), Ok(Route::Listed));
        assert!(policy.route(&url, Some("127.0.0.1:5001")).is_err());
    }

    #[test]
    fn other_schemes_and_credentials_in_an_address_are_refused() {
        let policy = EgressPolicy::default();
        assert!(route(&policy, "file:///etc/passwd").is_err());
        assert!(route(&policy, "gopher://registry.example/").is_err());
        assert!(route(&policy, "https://user:secret@registry.example/").is_err());
    }

    #[test]
    fn the_fleets_own_public_network_can_be_denied() {
        let policy = EgressPolicy::new(&[], &["203.0.114.0/24".parse().expect("net")]);
        assert!(route(&policy, "https://203.0.114.9/v2/").is_err());
        assert!(route(&policy, "https://203.0.115.9/v2/").is_ok());
    }

    #[tokio::test]
    async fn a_name_that_resolves_inward_gets_no_connection() {
        let client = reqwest::Client::builder()
            .no_proxy()
            .dns_resolver(std::sync::Arc::new(PublicResolver(EgressPolicy::default())));
        let client = crate::upstream::with_tls(client, None).expect("client");
        let error = client.get("http://localhost:1/v2/").send().await.expect_err("loopback");
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        let mut said = String::new();
        while let Some(at) = cause {
            said.push_str(&at.to_string());
            cause = at.source();
        }
        assert!(said.contains("localhost is not a public address"), "{said}");
    }
}
