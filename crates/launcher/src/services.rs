//! The suite's own processes: which binary, which configuration file of `compose/config`, and what
//! this machine says differently (addresses, paths) through the environment, as an operator would.

use std::{collections::BTreeMap, fs, net::IpAddr, path::Path, process::Command};

use anyhow::{Result, bail};

use crate::{
    demo::Demo,
    infrastructure::{base_env, redis_url, service_url},
    layout::{Addresses, Layout},
    supervise::ServiceSpec,
    up::wait_until,
};

/// Environment of one service: `WHARFAGE_<SECTION>__<FIELD>`.
struct Settings(BTreeMap<String, String>);

impl Settings {
    fn new() -> Self {
        let mut env = base_env();
        // A collector, if the operator has one.
        if let Ok(endpoint) = std::env::var("OTEL_EXPORTER_OTLP_ENDPOINT") {
            env.insert("WHARFAGE_COMMON__OTLP_ENDPOINT".into(), endpoint);
        }
        Self(env)
    }

    /// What the environment of this program says about these settings: for a load that the defaults refuse,
    /// and to measure one way of doing a thing beside the other.
    fn inherit(mut self, fields: &[&str]) -> Self {
        for name in fields.iter().map(|field| format!("WHARFAGE_{field}")) {
            if let Ok(value) = std::env::var(&name) {
                self.0.insert(name, value);
            }
        }
        self
    }

    fn set(mut self, field: &str, value: impl ToString) -> Self {
        self.0.insert(format!("WHARFAGE_{field}"), value.to_string());
        self
    }

    fn file(self, field: &str, path: &Path) -> Self {
        self.set(field, path.display())
    }
}

fn service(layout: &Layout, name: &str, binary: &str, settings: Settings) -> ServiceSpec {
    ServiceSpec {
        name: name.to_owned(),
        program: layout.binary(binary),
        args: vec!["--config".into(), layout.config(binary).display().to_string()],
        env: settings.0,
        netns: None,
        user: None,
        stop_signal: nix::libc::SIGTERM,
    }
}

/// scheduler, image-svc, api-gateway.
pub(crate) fn control_plane(layout: &Layout, addresses: &Addresses) -> Result<Vec<ServiceSpec>> {
    let control = addresses.control;
    let at = |port: u16| format!("{control}:{port}");
    let ops = |port: u16| format!("127.0.0.1:{}", Layout::ops_port(port));
    let pki = layout.pki();
    let files = |settings: Settings, section: &str, name: &str| {
        settings
            .file(&format!("{section}__CERT"), &pki.join(format!("{name}.pem")))
            .file(&format!("{section}__KEY"), &pki.join(format!("{name}.key")))
    };
    let scheduler = files(Settings::new(), "TLS", "scheduler")
        .file("TLS__CA", &pki.join("ca.pem"))
        .file("AUTHORITY__CERT", &pki.join("ca.pem"))
        .file("AUTHORITY__KEY", &pki.join("ca.key"))
        .set("_LISTEN", at(layout.scheduler_port()))
        .set("_DATABASE_URL", service_url(layout, "wharfage_scheduler"))
        .set("_REDIS_URL", redis_url(layout))
        .set("COMMON__OPS_LISTEN", ops(layout.scheduler_port()));
    let upstream = format!("http://{}", layout.upstream());
    let image = files(Settings::new(), "TLS", "image")
        .file("TLS__CA", &pki.join("ca.pem"))
        .set("_LISTEN", at(layout.image_port()))
        .set("_DATABASE_URL", service_url(layout, "wharfage_image"))
        .set("_REDIS_URL", redis_url(layout))
        .file("_DATA_DIR", &layout.state.join("images"))
        // Docker Hub is what the seeded registry stands for; nothing else private may be reached.
        .set(
            "_UPSTREAMS",
            format!("[{{ registry = \"docker.io\", mirrors = [\"{upstream}\"], mirrors_only = true, search = true }}]"),
        )
        .set("EGRESS__ALLOWED_PRIVATE", format!("[\"{}\"]", layout.upstream()))
        // The gateway's own address: what is pulled from there is here already.
        .set("REGISTRY__NAMES", serde_json::to_string(&layout.registry_names())?)
        .set("COMMON__OPS_LISTEN", ops(layout.image_port()));
    let gateway = files(files(Settings::new(), "TLS", "gateway"), "INTERNAL_TLS", "gateway")
        .file("INTERNAL_TLS__CA", &pki.join("ca.pem"))
        .set("_LISTEN", format!("127.0.0.1:{}", layout.gateway_port()))
        .set("TLS__LISTEN", format!("127.0.0.1:{}", layout.gateway_tls_port()))
        .set("_HOSTS_LISTEN", at(layout.gateway_hosts_port()))
        .set("DATABASE__URL", service_url(layout, "wharfage_gateway"))
        .set("REDIS__URL", redis_url(layout))
        .set("_SCHEDULER", format!("https://{}", at(layout.scheduler_port())))
        .set("_IMAGE", format!("https://{}", at(layout.image_port())))
        // One machine: blobs are sent from where image-svc keeps them.
        .file("REGISTRY__BLOBS_DIR", &layout.state.join("images"))
        .set("COMMON__OPS_LISTEN", format!("127.0.0.1:{}", Layout::ops_port(layout.gateway_port())))
        .inherit(&["RATE_LIMIT__PER_SECOND", "RATE_LIMIT__BURST"]);
    fs::create_dir_all(layout.state.join("images"))?;
    Ok(vec![
        service(layout, "10-scheduler", "scheduler", scheduler),
        service(layout, "11-image-svc", "image-svc", image),
        service(layout, "12-api-gateway", "api-gateway", gateway),
    ])
}

/// Waits until the gateway, and what it needs, is ready.
pub(crate) fn wait_ready(layout: &Layout, _addresses: &Addresses) -> Result<()> {
    for port in [layout.scheduler_port(), layout.image_port(), layout.gateway_port()] {
        let url = format!("127.0.0.1:{}", Layout::ops_port(port));
        wait_until(&format!("{url}/readyz answers"), || is_ready(&url))?;
    }
    Ok(())
}

fn is_ready(address: &str) -> bool {
    use std::io::{Read, Write};
    let ask = || -> std::io::Result<String> {
        let mut stream = std::net::TcpStream::connect(address)?;
        stream.set_read_timeout(Some(std::time::Duration::from_secs(2)))?;
        stream.write_all(b"GET /readyz HTTP/1.0\r\nHost: ops\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    ask().is_ok_and(|text| text.split(' ').nth(1) == Some("200"))
}

/// netd and node-agent of every host. A host that has no identity yet gets a fresh join token.
pub(crate) async fn hosts(layout: &Layout, addresses: &Addresses, demo: &Demo) -> Result<Vec<ServiceSpec>> {
    let mut specs = Vec::new();
    for (node, address) in (1u8..).zip(&addresses.hosts) {
        let token_file = layout.run().join(format!("join-token-{node}"));
        if !layout.host_data(node).join("identity").exists() || !token_file.exists() {
            demo.write_join_token(layout, &token_file).await?;
        }
        let volatile = layout.host_volatile(node);
        fs::create_dir_all(&volatile)?;
        let netns = (addresses.hosts.len() > 1).then(|| layout.host_netns(node));
        let mut netd =
            service(layout, &format!("2{node}-netd-{node}"), "netd", netd_settings(layout, addresses, node, *address)?);
        let mut agent = service(
            layout,
            &format!("3{node}-node-agent-{node}"),
            "node-agent",
            agent_settings(layout, addresses, node, *address)?,
        );
        netd.netns.clone_from(&netns);
        agent.netns = netns;
        specs.extend([netd, agent]);
    }
    Ok(specs)
}

fn netd_settings(layout: &Layout, addresses: &Addresses, node: u8, address: IpAddr) -> Result<Settings> {
    let volatile = layout.host_volatile(node);
    let pool = fs::read_to_string(layout.run().join("network-pool"))?;
    let mut protected = vec![pool.trim().to_owned()];
    if let IpAddr::V4(control) = addresses.control
        && !control.is_loopback()
    {
        protected.push(ipnet::Ipv4Net::new(control, 24)?.trunc().to_string());
    }
    Ok(Settings::new()
        .file("_SOCKET_PATH", &volatile.join("netd.sock"))
        .file("_RUN_DIR", &volatile.join("net"))
        .set("_HOST_ADDRESS", address)
        .set("_PROTECTED", serde_json::to_string(&protected)?))
}

fn agent_settings(layout: &Layout, addresses: &Addresses, node: u8, address: IpAddr) -> Result<Settings> {
    let volatile = layout.host_volatile(node);
    let control = addresses.control;
    Ok(Settings::new()
        .set("_LISTEN", format!("{address}:{}", layout.agent_port()))
        .set("_ADVERTISE_ADDRESS", address)
        .set("_NAME", format!("node-{node}"))
        .set("_SCHEDULER_URL", format!("https://{control}:{}", layout.scheduler_port()))
        .set("_IMAGE_URL", format!("https://{control}:{}", layout.image_port()))
        .set("_GATEWAY_URL", format!("https://{control}:{}", layout.gateway_hosts_port()))
        .file("_JOIN_TOKEN_FILE", &layout.run().join(format!("join-token-{node}")))
        .file("_CA", &layout.pki().join("ca.pem"))
        .file("_DATA_DIR", &layout.host_data(node))
        .file("_RUN_DIR", &volatile.join("agent"))
        .file("_NETD_SOCKET", &volatile.join("netd.sock"))
        .file("_SHIM_PATH", &layout.binary("wharfage-shim"))
        .set("_CGROUP_PARENT", format!("/{}/n{node}", layout.tag))
        .set("CAPACITY__CONTAINERS", 4000)
        .set("COMMON__OPS_LISTEN", format!("{address}:{}", Layout::ops_port(layout.agent_port())))
        .inherit(&["_LAYERS_AS", "_START_BY"]))
}

/// What clears a host of everything its agent and netd made, once both are stopped.
pub(crate) fn purge_commands(layout: &Layout, node: u8) -> Result<Vec<Command>> {
    let netns = layout.host_netns(node);
    let several = netns.exists();
    let addresses =
        if several { Addresses { control: [0, 0, 0, 0].into(), hosts: vec![] } } else { Addresses::loopback() };
    let address: IpAddr = [127, 0, 0, 1].into();
    if !layout.binary("node-agent").exists() {
        bail!("target/release/node-agent is missing; `make build` first");
    }
    let command = |binary: &str, settings: Settings| {
        let mut command = if several {
            let mut command = Command::new("nsenter");
            command.arg(format!("--net={}", netns.display())).arg(layout.binary(binary));
            command
        } else {
            Command::new(layout.binary(binary))
        };
        command.arg("purge").arg("--config").arg(layout.config(binary)).env_clear().envs(settings.0);
        command
    };
    Ok(vec![
        command("node-agent", agent_settings(layout, &addresses, node, address)?),
        command("netd", netd_settings(layout, &addresses, node, address)?),
    ])
}
