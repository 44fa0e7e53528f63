//! Which networks a container shall be on, and how: what create and connect take of it.

use std::{collections::BTreeMap, net::Ipv4Addr};

use model::{ContainerId, Error, MacAddress, NETWORKS_PER_CONTAINER, Result, parse_link};
use serde_json::{Value, json};
use store::{NetworkRecord, NewEndpoint, ProjectTx};

use super::body::{CreateBody, EndpointConfig};
use crate::docker::networks;

/// Options of an endpoint that dockerd's own drivers know, of any prefix: they would have an effect there.
const KNOWN_OPTIONS: [&str; 2] = ["com.docker.network.", "com.docker.lb."];
/// Names of one container on one network.
const ALIASES_MAX: usize = 64;
const ALIAS_BYTES_MAX: usize = 255;

/// A network by reference, with what is asked of it.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    reference: String,
    config: EndpointConfig,
}

/// The body with networks that are only named (`"n1": null`) as if nothing were asked of them: a null
/// is as good as absent everywhere else.
pub(super) fn with_every_network(mut body: Value) -> Value {
    let given = body.get_mut("NetworkingConfig").and_then(|config| config.get_mut("EndpointsConfig"));
    for config in given.and_then(Value::as_object_mut).into_iter().flat_map(|given| given.values_mut()) {
        if config.is_null() {
            *config = json!({});
        }
    }
    body
}

/// The networks create asks for: those named, or else the one of `NetworkMode`. That one comes first,
/// as `eth0`. None for `--network none`.
pub(super) fn wanted(body: &CreateBody) -> Result<Vec<Wanted>> {
    let mode = match body.host_config.network_mode.as_str() {
        "" | "default" => "bridge",
        written => written,
    };
    let given = &body.networking_config.endpoints_config;
    if mode == "none" || body.config.network_disabled {
        return match given.keys().find(|name| *name != "none") {
            Some(name) => Err(Error::InvalidArgument(format!(
                "container cannot be connected to network {name} and to none at once"
            ))),
            None => Ok(Vec::new()),
        };
    }
    if let Some(other) = mode.strip_prefix("container:") {
        // Clients name the mode among the networks, too.
        let is_mode = |(name, config): &(&String, &EndpointConfig)| *name == mode && is_empty(config);
        return match given.iter().find(|one| !is_mode(one)) {
            Some((name, _)) if *name != mode => Err(shared()),
            Some(_) => Err(Error::InvalidArgument(format!(
                "conflicting options: the network of container {other} is that one's; nothing can be asked of it"
            ))),
            None => Ok(Vec::new()),
        };
    }
    if given.len() > usize::from(NETWORKS_PER_CONTAINER) {
        return Err(Error::InvalidArgument(format!("a container may be on {NETWORKS_PER_CONTAINER} networks")));
    }
    let mut wanted: Vec<Wanted> = given
        .iter()
        .map(|(name, config)| {
            let reference = if name == "default" { "bridge" } else { name };
            Wanted { reference: reference.to_owned(), config: config.clone() }
        })
        .collect();
    if wanted.is_empty() {
        wanted.push(Wanted { reference: mode.to_owned(), config: EndpointConfig::default() });
    }
    wanted.sort_by_key(|one| one.reference != mode);
    // On a network of users they are names of that network, whichever way they are given.
    let links = body.host_config.links.iter().flatten().filter(|_| mode != store::DEFAULT_NETWORK);
    if let Some(main) = wanted.first_mut().filter(|one| one.reference == mode) {
        let known = main.config.links.clone();
        main.config.links.extend(links.filter(|link| !known.contains(link)).cloned());
    }
    for one in &wanted {
        let known = one.config.driver_opts.keys().find(|key| KNOWN_OPTIONS.iter().any(|known| key.starts_with(known)));
        if let Some(option) = known {
            return Err(unbuilt(&one.reference, &format!("DriverOpts {option:?}")));
        }
        // No driver knows the others, here as with dockerd.
        check(&one.reference, &EndpointConfig { driver_opts: BTreeMap::new(), ..one.config.clone() })?;
    }
    Ok(wanted)
}

/// Options that no driver here or of dockerd's knows, network by network: shown, and without effect.
pub(super) fn without_effect(wanted: &[Wanted], warnings: &mut Vec<String>) -> BTreeMap<String, Value> {
    let given = wanted.iter().filter(|one| !one.config.driver_opts.is_empty());
    given
        .map(|one| {
            let names: Vec<&str> = one.config.driver_opts.keys().map(String::as_str).collect();
            warnings.push(format!("EndpointsConfig.{}.DriverOpts: {} has no effect", one.reference, names.join(", ")));
            (one.reference.clone(), json!(one.config.driver_opts))
        })
        .collect()
}

/// dockerd's text for a container that has no network of its own.
pub(crate) fn shared() -> Error {
    let text =
        "container sharing network namespace with another container or host cannot be connected to any other network";
    Error::InvalidArgument(text.into())
}

fn is_empty(config: &EndpointConfig) -> bool {
    is_plain(config) && config.driver_opts.is_empty()
}

fn unbuilt(network: &str, field: &str) -> Error {
    Error::NotImplemented(format!("EndpointsConfig.{network}.{field} is not built yet on Wharfage"))
}

/// Refuses by name what no network here has.
pub(crate) fn check(network: &str, config: &EndpointConfig) -> Result<()> {
    if !config.driver_opts.is_empty() {
        return Err(unbuilt(network, "DriverOpts"));
    }
    mac(config)?;
    if config.links.len() > ALIASES_MAX {
        return Err(Error::InvalidArgument(format!("EndpointsConfig.{network}.Links: more than {ALIASES_MAX}")));
    }
    config.links.iter().try_for_each(|link| parse_link(link).map(drop))?;
    let bad =
        |alias: &&String| alias.is_empty() || alias.len() > ALIAS_BYTES_MAX || alias.contains(char::is_whitespace);
    if config.aliases.len() > ALIASES_MAX || config.aliases.iter().any(|alias| bad(&alias)) {
        return Err(Error::InvalidArgument(format!("EndpointsConfig.{network}.Aliases: too many, or one is no name")));
    }
    i32::try_from(config.gw_priority)
        .map(drop)
        .map_err(|_| Error::InvalidArgument(format!("EndpointsConfig.{network}.GwPriority is out of range")))
}

fn mac(config: &EndpointConfig) -> Result<Option<MacAddress>> {
    if config.mac_address.is_empty() {
        return Ok(None);
    }
    let mac: MacAddress = config.mac_address.parse()?;
    if mac.is_of_a_link() {
        Ok(Some(mac))
    } else {
        Err(Error::InvalidArgument(format!("invalid MAC address {mac}: it is a group's, or none")))
    }
}

/// Takes a MAC address that is given for the container as that of its first network, and says what
/// dockerd says to it.
///
/// # Errors
/// The network has another one; or it has none, or is somebody else's.
pub(super) fn adopt_mac(body: &mut CreateBody) -> Result<Option<&'static str>> {
    let mode = match body.host_config.network_mode.as_str() {
        "" | "default" => store::DEFAULT_NETWORK,
        "none" => return conflict_with_mac(body),
        other if other.starts_with("container:") => return conflict_with_mac(body),
        written => written,
    };
    if body.config.mac_address.is_empty() {
        return Ok(None);
    }
    let given = &mut body.networking_config.endpoints_config;
    if given.is_empty() {
        given.insert(mode.to_owned(), EndpointConfig::default());
    }
    let name = if mode == store::DEFAULT_NETWORK && given.contains_key("default") { "default" } else { mode };
    let Some(main) = given.get_mut(name) else {
        return Err(Error::InvalidArgument(
            "if a container-wide MAC address is supplied, HostConfig.NetworkMode must match the identity of a network \
             in NetworkSettings.Networks"
                .into(),
        ));
    };
    let wide = std::mem::take(&mut body.config.mac_address);
    if !main.mac_address.is_empty() && main.mac_address != wide {
        return Err(Error::InvalidArgument(
            "the container-wide MAC address must match the endpoint-specific MAC address for the main network, or be \
             left empty"
                .into(),
        ));
    }
    main.mac_address = wide;
    Ok(Some(
        "The container-wide MacAddress field is now deprecated. It should be specified in EndpointsConfig instead.",
    ))
}

fn conflict_with_mac(body: &CreateBody) -> Result<Option<&'static str>> {
    if body.config.mac_address.is_empty() {
        return Ok(None);
    }
    Err(Error::InvalidArgument("conflicting options: mac-address and the network mode".into()))
}

/// Puts a new container on the networks it asks for.
pub(super) async fn attach_all(tx: &mut ProjectTx, container: &ContainerId, wanted: &[Wanted]) -> Result<()> {
    for (one, interface) in wanted.iter().zip(0..) {
        if one.reference == store::DEFAULT_NETWORK && is_plain(&one.config) {
            tx.allocate_endpoint(container, &NewEndpoint { interface, ..NewEndpoint::default() }).await?;
            continue;
        }
        let network = networks::resolve(tx, &one.reference).await?;
        attach(tx, container, &network, &one.config, interface).await?;
    }
    Ok(())
}

/// Puts a container on a network.
pub(crate) async fn attach(
    tx: &mut ProjectTx,
    container: &ContainerId,
    network: &NetworkRecord,
    config: &EndpointConfig,
    interface: u8,
) -> Result<()> {
    if !network.named && !config.aliases.is_empty() {
        return Err(Error::InvalidArgument(
            "invalid config for network bridge: invalid endpoint settings:\nnetwork-scoped aliases are only supported for user-defined networks".into(),
        ));
    }
    if !network.named && !config.links.is_empty() {
        return Err(Error::InvalidArgument(
            "invalid config for network bridge: invalid endpoint settings:\nlinks are only supported for user-defined networks".into(),
        ));
    }
    let new = NewEndpoint {
        mac: mac(config)?,
        links: &config.links,
        network: Some(&network.id),
        interface,
        aliases: &config.aliases,
        ip: address(network, config)?,
        gw_priority: i32::try_from(config.gw_priority).unwrap_or_default(),
    };
    tx.allocate_endpoint(container, &new).await?;
    Ok(())
}

/// The address asked for, if it can be had on this network at all.
fn address(network: &NetworkRecord, config: &EndpointConfig) -> Result<Option<Ipv4Addr>> {
    let Some(asked) = &config.ipam_config else { return Ok(None) };
    let fields = [("IPv6Address", asked.ipv6_address.is_empty()), ("LinkLocalIPs", asked.link_local_ips.is_empty())];
    if let Some((field, _)) = fields.into_iter().find(|(_, is_empty)| !is_empty) {
        let why = if field == "IPv6Address" {
            "networks are IPv4 only"
        } else {
            "a link has the one address that its network gives it"
        };
        return Err(Error::NotImplemented(format!(
            "EndpointsConfig.{}.IPAMConfig.{field} is not built yet on Wharfage: {why}",
            network.name
        )));
    }
    if asked.ipv4_address.is_empty() {
        return Ok(None);
    }
    let invalid = |text: &str| {
        Error::InvalidArgument(format!(
            "invalid config for network {}: invalid endpoint settings:\n{text}",
            network.name
        ))
    };
    if !network.named {
        return Err(invalid("user specified IP address is supported on user defined networks only"));
    }
    if !network.chosen {
        return Err(invalid(
            "user specified IP address is supported only when connecting to networks with user configured subnets",
        ));
    }
    let ip: Ipv4Addr =
        asked.ipv4_address.parse().map_err(|_| invalid(&format!("invalid IPv4 address: {}", asked.ipv4_address)))?;
    if network.subnet.contains(&ip) {
        Ok(Some(ip))
    } else {
        Err(invalid(&format!("no configured subnet contains IP address {ip}")))
    }
}

fn is_plain(config: &EndpointConfig) -> bool {
    let no_address = config.ipam_config.as_ref().is_none_or(|asked| {
        asked.ipv4_address.is_empty() && asked.ipv6_address.is_empty() && asked.link_local_ips.is_empty()
    });
    let named = [config.aliases.len(), config.links.len(), config.mac_address.len()];
    no_address && named == [0; 3] && config.gw_priority == 0
}

#[cfg(test)]
mod tests {
    use super::{super::body::typed, *};

    fn references(body: Value) -> Result<Vec<String>> {
        let body: CreateBody = typed(with_every_network(body)).expect("parses");
        Ok(wanted(&body)?.into_iter().map(|one| one.reference).collect())
    }

    #[test]
    fn the_network_of_the_mode_comes_first_and_others_replace_the_default() {
        assert_eq!(references(json!({})).expect("fine"), ["bridge"]);
        assert_eq!(references(json!({"HostConfig": {"NetworkMode": "n1"}})).expect("fine"), ["n1"]);
        let several = json!({"HostConfig": {"NetworkMode": "z"}, "NetworkingConfig": {"EndpointsConfig": {"a": {}, "z": null, "m": {}}}});
        assert_eq!(references(several).expect("fine"), ["z", "a", "m"], "a null asks for nothing more");
        let several =
            json!({"HostConfig": {"NetworkMode": "z"}, "NetworkingConfig": {"EndpointsConfig": {"a": {}, "z": {}}}});
        assert_eq!(references(several).expect("fine"), ["z", "a"]);
        let only = json!({"NetworkingConfig": {"EndpointsConfig": {"n1": {"Aliases": ["x"]}}}});
        assert_eq!(references(only).expect("fine"), ["n1"]);
        assert!(references(json!({"HostConfig": {"NetworkMode": "none"}})).expect("fine").is_empty());
        let of = |networks: Value| {
            references(
                json!({"HostConfig": {"NetworkMode": "container:x"}, "NetworkingConfig": {"EndpointsConfig": networks}}),
            )
        };
        for nothing in [json!({}), json!({"container:x": null}), json!({"container:x": {}})] {
            assert!(of(nothing).expect("fine").is_empty());
        }
        assert!(of(json!({"n1": {}})).expect_err("refused").to_string().starts_with("container sharing network"));
        assert!(
            of(json!({"container:x": {"Aliases": ["a"]}})).expect_err("refused").to_string().starts_with("conflicting")
        );
        let both = json!({"HostConfig": {"NetworkMode": "none"}, "NetworkingConfig": {"EndpointsConfig": {"n1": {}}}});
        assert!(references(both).is_err());
    }

    #[test]
    fn options_that_no_driver_knows_are_named_and_shown_and_those_of_dockers_are_refused() {
        let of = |option: &str| {
            let body = json!({"NetworkingConfig": {"EndpointsConfig": {"n1": {"DriverOpts": {option: "on"}}}}});
            wanted(&typed::<CreateBody>(body).expect("parses"))
        };
        let mut warnings = Vec::new();
        let shown = without_effect(&of("org.example.x").expect("taken"), &mut warnings);
        assert_eq!(warnings, ["EndpointsConfig.n1.DriverOpts: org.example.x has no effect"]);
        assert_eq!(shown["n1"], json!({"org.example.x": "on"}));
        let refused = of("com.docker.network.endpoint.sysctls").expect_err("refused").to_string();
        assert!(refused.contains("com.docker.network.endpoint.sysctls"), "{refused}");
    }

    #[test]
    fn a_mac_address_of_the_container_is_that_of_its_first_network() {
        let of = |document: Value| {
            let mut body: CreateBody = typed(with_every_network(document)).expect("parses");
            let said = adopt_mac(&mut body)?;
            Ok::<_, Error>((wanted(&body)?.first().map(|one| one.config.mac_address.clone()), said.is_some()))
        };
        let mac = "02:42:ac:11:00:0a";
        let text = |document: Value| of(document).expect_err("refused").to_string();
        assert_eq!(of(json!({})).expect("none"), (Some(String::new()), false));
        assert_eq!(of(json!({"MacAddress": mac})).expect("taken"), (Some(mac.into()), true));
        let named = |networks: Value| json!({"MacAddress": mac, "HostConfig": {"NetworkMode": "n1"}, "NetworkingConfig": {"EndpointsConfig": networks}});
        for networks in [json!({}), json!({"n1": null, "a": {}}), json!({"n1": {"MacAddress": mac}})] {
            assert_eq!(of(named(networks)).expect("taken"), (Some(mac.into()), true));
        }
        assert!(text(named(json!({"n2": {}}))).contains("must match the identity of a network"));
        assert!(
            text(named(json!({"n1": {"MacAddress": "02:42:ac:11:00:0b"}})))
                .contains("must match the endpoint-specific")
        );
        assert_eq!(
            text(json!({"MacAddress": mac, "HostConfig": {"NetworkMode": "none"}})),
            "conflicting options: mac-address and the network mode"
        );
        assert_eq!(text(json!({"MacAddress": "x"})), "invalid MAC address x");
        assert!(text(json!({"MacAddress": "01:00:5e:00:00:01"})).contains("a group's"));
    }

    #[test]
    fn links_belong_to_the_first_network_whichever_way_they_are_given() {
        let body = json!({"HostConfig": {"NetworkMode": "n1", "Links": ["a:b", "c"]}, "NetworkingConfig": {"EndpointsConfig": {"n1": {"Links": ["a:b"]}}}});
        let all = wanted(&typed::<CreateBody>(body).expect("parses")).expect("taken");
        assert_eq!(all[0].config.links, ["a:b", "c"]);
        let bad = json!({"NetworkingConfig": {"EndpointsConfig": {"n1": {"Links": ["a:b:c"]}}}});
        let refused = wanted(&typed::<CreateBody>(bad).expect("parses")).expect_err("refused").to_string();
        assert_eq!(refused, "bad format for links: a:b:c");
    }
}
