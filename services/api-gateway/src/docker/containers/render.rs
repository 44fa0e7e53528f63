//! A container as Docker's inspect and list show it, per requested version. Pure: a record in, JSON
//! out; nothing here decides anything.

mod endpoints;
mod line;

use model::{ContainerSpec, Health, HealthProbe, HealthStatus, PublishedPort};
use serde_json::{Map, Value, json};
use store::ContainerRecord;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use endpoints::{EndpointSettings, Networks};
pub(crate) use line::Line;

use super::{
    host_config::HostConfig,
    state::{self, State},
    translate, volumes,
};
use crate::docker::version::RequestedVersion;

/// Go's zero time.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// What the runtime hides from every container.
const MASKED_PATHS: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
/// What it lets nobody write.
const READONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// RFC 3339 with as many digits as there are, as Go writes it.
pub(crate) fn instant(at: Option<OffsetDateTime>) -> String {
    at.and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_else(|| NEVER.into())
}

/// The answer of inspect.
pub(crate) fn inspect(container: &ContainerRecord, version: RequestedVersion) -> Value {
    let (path, args) = state::program(&container.spec);
    let id = container.id.as_str();
    let mut shown = json!({
        "Id": id,
        "Created": instant(Some(container.created_at)),
        "Path": path,
        "Args": args,
        "State": state_object(container),
        "Image": container.image_id,
        "ResolvConfPath": "",
        "HostnamePath": "",
        "HostsPath": "",
        "LogPath": "",
        "Name": format!("/{}", container.name),
        "RestartCount": container.observed.progress.restart,
        "Driver": "overlay2",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": null,
        "HostConfig": host_config(&container.spec),
        "GraphDriver": {"Data": null, "Name": "overlay2"},
        "Mounts": volumes::mount_points(&container.spec),
        "Config": config(container),
        "NetworkSettings": network_settings(container, version),
    });
    if !version.at_least(44) {
        // Since then it is the endpoints' alone.
        let main = container.endpoints.iter().min_by_key(|e| e.interface);
        let mac = main.and_then(|e| e.mac).map(|mac| mac.to_string()).unwrap_or_default();
        shown["Config"]["MacAddress"] = json!(mac);
    }
    if !version.at_least(46) {
        // A null map breaks clients that were made when there always was one.
        shown["GraphDriver"]["Data"] = json!({});
    }
    shown
}

fn state_object(container: &ContainerRecord) -> Value {
    let state = state::of(container);
    let observed = &container.observed;
    let exit = observed.exit.as_ref();
    let over = !state.is_alive();
    let error = exit.filter(|_| over).map_or("", |e| e.error.as_str());
    let error = if error.is_empty() { observed.prepare_error.as_deref().unwrap_or_default() } else { error };
    let mut shown = json!({
        "Status": state.as_str(),
        "Running": state.is_running(),
        "Paused": state == State::Paused,
        "Restarting": state == State::Restarting,
        "OOMKilled": if over { exit.is_some_and(|e| e.oom_killed) } else { observed.oom_kills > 0 },
        "Dead": false,
        "Pid": observed.pid.filter(|_| state.is_alive()).unwrap_or(0),
        "ExitCode": exit.filter(|_| over).map_or(0, |e| e.code),
        "Error": error,
        "StartedAt": instant(observed.started_at),
        "FinishedAt": instant(exit.map(|e| e.finished_at)),
    });
    if let Some((status, health)) = state::health(container) {
        shown["Health"] = health_object(status, health);
    }
    shown
}

fn health_object(status: HealthStatus, health: &Health) -> Value {
    let probe = |probe: &HealthProbe| {
        json!({
            "Start": instant(Some(probe.started_at)),
            "End": instant(Some(probe.finished_at)),
            "ExitCode": probe.exit_code,
            "Output": probe.output,
        })
    };
    let log: Vec<Value> = health.log.iter().map(probe).collect();
    json!({"Status": status.as_str(), "FailingStreak": health.failing_streak, "Log": log})
}

/// The client's own `HostConfig`, every field of it, with the defaults that were applied.
fn host_config(spec: &ContainerSpec) -> Value {
    let stored = spec.shown.get("HostConfig").cloned().unwrap_or_else(|| json!({}));
    let mut host: HostConfig = serde_json::from_value(stored).unwrap_or_default();
    let default = |field: &mut String, value: &str| {
        if field.is_empty() {
            value.clone_into(field);
        }
    };
    default(&mut host.runtime, "runc");
    default(&mut host.cgroupns_mode, "private");
    default(&mut host.ipc_mode, "private");
    if host.shm_size == 0 {
        host.shm_size = 64 << 20;
    }
    host.masked_paths = Some(MASKED_PATHS.map(str::to_owned).to_vec());
    host.readonly_paths = Some(READONLY_PATHS.map(str::to_owned).to_vec());
    serde_json::to_value(host).unwrap_or_default()
}

/// The portable part, as it was asked for.
pub(super) fn config(container: &ContainerRecord) -> Value {
    let spec = &container.spec;
    let list = |words: &[String]| if words.is_empty() { Value::Null } else { json!(words) };
    let mut config = Map::new();
    let mut put = |key: &str, value: Value| config.insert(key.to_owned(), value);
    let hostname = if spec.hostname.is_empty() { container.id.short() } else { &spec.hostname };
    put("Hostname", json!(hostname));
    put("Domainname", json!(spec.domainname));
    put("User", json!(spec.user));
    put("AttachStdin", json!(spec.attach.stdin));
    put("AttachStdout", json!(spec.attach.stdout));
    put("AttachStderr", json!(spec.attach.stderr));
    if !spec.exposed_ports.is_empty() {
        put("ExposedPorts", spec.exposed_ports.iter().map(|port| (port.clone(), json!({}))).collect());
    }
    put("Tty", json!(spec.tty));
    put("OpenStdin", json!(spec.open_stdin));
    put("StdinOnce", json!(spec.stdin_once));
    put("Env", json!(spec.env));
    put("Cmd", list(&spec.cmd));
    put("Image", json!(spec.image));
    put("Volumes", Value::Null);
    put("WorkingDir", json!(spec.working_dir));
    put("Entrypoint", list(&spec.entrypoint));
    put("OnBuild", Value::Null);
    put("Labels", json!(spec.labels));
    if let Some(signal) = &spec.stop_signal {
        put("StopSignal", json!(signal));
    }
    if let Some(seconds) = spec.stop_timeout_s {
        put("StopTimeout", json!(seconds));
    }
    if let Some(Value::Object(rest)) = spec.shown.get("Config") {
        config.extend(rest.clone());
    }
    Value::Object(config)
}

fn network_settings(container: &ContainerRecord, version: RequestedVersion) -> Value {
    // What lives in another one's namespace has none of its own.
    let running = state::of(container).is_alive() && container.spec.network_of.is_none();
    let mut settings = Map::new();
    let mut put = |key: &str, value: Value| settings.insert(key.to_owned(), value);
    let legacy = !version.at_least(52);
    if legacy {
        put("Bridge", json!(""));
    }
    put("SandboxID", json!(if running { container.id.as_str() } else { "" }));
    let key = if running { format!("/var/run/docker/netns/{}", container.id.short()) } else { String::new() };
    put("SandboxKey", json!(key));
    put("Ports", if running { port_map(container) } else { json!({}) });
    if legacy {
        // As dockerd: what it says of the project's own bridge, and nothing of other networks.
        let endpoint = EndpointSettings::of(container, container.endpoints.iter().find(|e| !e.named), running);
        put("HairpinMode", json!(false));
        put("LinkLocalIPv6Address", json!(""));
        put("LinkLocalIPv6PrefixLen", json!(0));
        put("SecondaryIPAddresses", Value::Null);
        put("SecondaryIPv6Addresses", Value::Null);
        put("EndpointID", json!(endpoint.endpoint_id));
        put("Gateway", json!(endpoint.gateway));
        put("GlobalIPv6Address", json!(""));
        put("GlobalIPv6PrefixLen", json!(0));
        put("IPAddress", json!(endpoint.ip_address));
        put("IPPrefixLen", json!(endpoint.ip_prefix_len));
        put("IPv6Gateway", json!(""));
        put("MacAddress", json!(endpoint.mac_address));
    }
    put("Networks", json!(Networks::of(container, running)));
    Value::Object(settings)
}

fn shown_address(port: &PublishedPort) -> String {
    port.host_ip.map_or_else(|| "0.0.0.0".to_owned(), |ip| ip.to_string())
}

/// Exposed ports with `null`, published ones with where they answer.
fn port_map(container: &ContainerRecord) -> Value {
    if container.spec.network_of.is_some() {
        return json!({});
    }
    let mut ports: Map<String, Value> =
        container.spec.exposed_ports.iter().map(|port| (port.clone(), Value::Null)).collect();
    for port in &container.ports {
        let key = format!("{}/{}", port.container_port, port.protocol.as_str());
        let place = json!({"HostIp": shown_address(port), "HostPort": port.host_port.to_string()});
        match ports.get_mut(&key) {
            Some(Value::Array(places)) => places.push(place),
            _ => {
                ports.insert(key, json!([place]));
            }
        }
    }
    Value::Object(ports)
}

/// The port and transport of `80/tcp`, for filters.
pub(crate) fn parse_port(written: &str) -> Option<(u16, model::PortProtocol)> {
    translate::port(written).ok()
}

#[cfg(test)]
pub(crate) mod tests {
    use model::{Desired, Exit, Observed, Phase, PortProtocol, Progress};
    use store::EndpointRecord;
    use time::macros::datetime;

    use super::*;
    use crate::docker::version::ApiVersion;

    const NOW: OffsetDateTime = datetime!(2026-11-23 12:00:00 UTC);

    pub(crate) fn running() -> ContainerRecord {
        ContainerRecord {
            id: "3d5b904da4250c455058fbb6fedcde2deb4d02d24b45ef0867cef20d7db214aa".parse().expect("id"),
            name: "s1".parse().expect("name"),
            image_id: format!("sha256:{}", "8".repeat(64)).parse().expect("digest"),
            spec: std::sync::Arc::new(ContainerSpec {
                image: "alpine:latest".into(),
                cmd: vec!["sh".into(), "-c".into(), "sleep 600".into()],
                exposed_ports: vec!["80/tcp".into(), "53/udp".into()],
                ..ContainerSpec::default()
            }),
            created_at: NOW - time::Duration::seconds(30),
            desired: Desired::Running { run: 1 },
            run: 1,
            host: None,
            observed: Observed {
                pid: Some(77),
                started_at: Some(NOW - time::Duration::seconds(21)),
                ..Observed::at(Progress { run: 1, restart: 0, phase: Phase::Running })
            },
            endpoints: vec![EndpointRecord {
                network: "d".repeat(64).parse().expect("id"),
                network_name: "bridge".into(),
                driver: "bridge".into(),
                subnet: "10.128.16.0/20".parse().expect("subnet"),
                gateway: "10.128.16.1".parse().expect("ip"),
                internal: false,
                named: false,
                ip: "10.128.16.5".parse().expect("ip"),
                interface: 0,
                aliases: Vec::new(),
                fixed_ip: false,
                gw_priority: 0,
                mac: None,
                links: Vec::new(),
            }],
            ports: vec![PublishedPort {
                container_port: 80,
                protocol: PortProtocol::Tcp,
                host_ip: None,
                host_port: 18080,
            }],
            removed_at: None,
        }
    }

    fn shown_line(container: &ContainerRecord, version: RequestedVersion) -> Value {
        json!(Line::of(container, version, NOW))
    }

    fn version(minor: u16) -> RequestedVersion {
        RequestedVersion(ApiVersion::one(minor))
    }

    #[test]
    fn the_legacy_address_fields_end_with_1_52() {
        let old = inspect(&running(), version(51));
        assert_eq!(old["NetworkSettings"]["IPAddress"], "10.128.16.5");
        assert_eq!(old["NetworkSettings"]["Gateway"], "10.128.16.1");
        let new = inspect(&running(), version(52));
        assert!(new["NetworkSettings"].get("IPAddress").is_none());
        assert_eq!(new["NetworkSettings"]["Networks"]["bridge"]["MacAddress"], "02:42:0a:80:10:05");
    }

    #[test]
    fn health_is_shown_of_what_has_a_check_and_ends_with_the_run() {
        let mut container = running();
        assert!(inspect(&container, version(53))["State"].get("Health").is_none());
        let health = |status| {
            let probe = HealthProbe { started_at: NOW, finished_at: NOW, exit_code: 1, output: "no".into() };
            Some(Health { status, failing_streak: 1, log: vec![probe] })
        };
        for (status, text) in [
            (HealthStatus::Starting, "Up 21 seconds (health: starting)"),
            (HealthStatus::Healthy, "Up 21 seconds (healthy)"),
            (HealthStatus::Unhealthy, "Up 21 seconds (unhealthy)"),
        ] {
            container.observed.health = health(status);
            let line = shown_line(&container, version(53));
            assert_eq!(line["Status"], text);
            assert_eq!(line["Health"], json!({"Status": status.as_str(), "FailingStreak": 1}));
            assert!(shown_line(&container, version(51)).get("Health").is_none());
        }
        container.observed.health = health(HealthStatus::Healthy);
        let shown = &inspect(&container, version(53))["State"]["Health"];
        let at = "2026-11-23T12:00:00Z";
        assert_eq!(shown["Log"], json!([{"Start": at, "End": at, "ExitCode": 1, "Output": "no"}]));
        container.observed.paused = true;
        assert_eq!(shown_line(&container, version(53))["Status"], "Up 21 seconds (Paused)");
        assert_eq!(inspect(&container, version(53))["State"]["Health"]["Status"], "unhealthy");
    }

    #[test]
    fn ports_are_shown_while_it_runs() {
        let shown = inspect(&running(), version(53));
        assert_eq!(
            shown["NetworkSettings"]["Ports"],
            json!({"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "18080"}], "53/udp": null})
        );
        let line = shown_line(&running(), version(53));
        assert_eq!(line["Ports"][0], json!({"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 18080, "Type": "tcp"}));
        assert_eq!(line["Ports"][1], json!({"PrivatePort": 53, "Type": "udp"}));
        assert_eq!(line["Status"], "Up 21 seconds");
        assert_eq!(line["Command"], "sh -c 'sleep 600'");
    }

    #[test]
    fn a_stopped_one_has_its_exit_and_no_address() {
        let mut container = running();
        container.observed.progress.phase = Phase::Exited;
        container.observed.exit = Some(Exit {
            code: 3,
            oom_killed: true,
            error: String::new(),
            finished_at: NOW - time::Duration::seconds(120),
        });
        let shown = inspect(&container, version(51));
        assert_eq!(shown["State"]["ExitCode"], 3);
        assert_eq!(shown["State"]["OOMKilled"], true);
        assert_eq!((&shown["State"]["Pid"], &shown["State"]["Status"]), (&json!(0), &json!("exited")));
        assert_eq!(shown["NetworkSettings"]["IPAddress"], "");
        assert_eq!(shown_line(&container, version(53))["Status"], "Exited (3) 2 minutes ago");
    }

    #[test]
    fn every_field_of_dockerds_inspect_is_there() {
        let sample: Value = json!({"Id":0,"Created":0,"Path":0,"Args":0,"State":0,"Image":0,"ResolvConfPath":0,"HostnamePath":0,
            "HostsPath":0,"LogPath":0,"Name":0,"RestartCount":0,"Driver":0,"Platform":0,"MountLabel":0,"ProcessLabel":0,
            "AppArmorProfile":0,"ExecIDs":0,"HostConfig":0,"GraphDriver":0,"Mounts":0,"Config":0,"NetworkSettings":0});
        let shown = inspect(&running(), version(53));
        for key in sample.as_object().expect("object").keys() {
            assert!(shown.get(key).is_some(), "{key}");
        }
        assert_eq!(shown["HostConfig"]["ShmSize"], 67_108_864);
        assert_eq!(shown["HostConfig"]["CapAdd"], Value::Null);
        assert_eq!(shown["HostConfig"]["Dns"], json!([]));
        assert_eq!(shown["State"]["FinishedAt"], NEVER);
    }
}
