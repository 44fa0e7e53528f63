//! The policy matrix (A30–A69): every field of `HostConfig` and `Config`, each with what an attacker
//! or a user would write there and what becomes of it. A field without a row fails the test, so a new
//! one is decided on before it is taken.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use utoipa::PartialSchema as _;

use super::{
    super::{
        body::{ContainerConfig, CreateBody, typed},
        host_config::HostConfig,
    },
    *,
};

/// What becomes of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Taken.
    Honoured,
    /// Taken, and the user is told what of it has no effect.
    Warned,
    /// 403, naming the field.
    Forbidden,
    /// 400.
    Invalid,
    /// Honoured or 501 saying so: in no case dropped.
    Open,
}
use Fate::{Forbidden, Honoured, Invalid, Open, Warned};

fn fate(document: Value) -> (Fate, String) {
    let body = match typed::<CreateBody>(document) {
        Ok(body) => body,
        Err(error) => return (Invalid, error.to_string()),
    };
    match translate(&body, &ImageConfig { cmd: vec!["sh".into()], ..ImageConfig::default() }) {
        Ok(done) if done.warnings.is_empty() => (Honoured, String::new()),
        Ok(done) => (Warned, done.warnings.join("; ")),
        Err(Error::Forbidden(text)) => (Forbidden, text),
        Err(Error::InvalidArgument(text) | Error::NotFound(text)) => (Invalid, text),
        Err(Error::NotImplemented(text)) => (Open, text),
        Err(other) => panic!("{other:?}"),
    }
}

fn check(rows: &[(&str, Value, Fate)], at: impl Fn(&str, &Value) -> Value) {
    for (field, value, expected) in rows {
        let (got, text) = fate(at(field, value));
        let as_expected = got == *expected || (*expected == Open && got == Honoured);
        assert!(as_expected, "{field} = {value}: {got:?} instead of {expected:?}: {text}");
        // The field, or what was written into it.
        let field_named = text.to_lowercase().contains(field.to_lowercase().trim_end_matches('s'));
        let named = field_named || words(value).iter().any(|w| w.len() > 2 && text.contains(&**w));
        assert!(got != Forbidden || named, "{field} = {value} is refused without its name: {text}");
    }
}

/// Every text of a value, keys included, as far as an error would quote it.
fn words(value: &Value) -> Vec<String> {
    let cut = |text: &str| text.chars().take(24).collect::<String>().replace('"', "\\\"");
    match value {
        Value::String(text) => vec![cut(text)],
        Value::Array(items) => items.iter().flat_map(words).collect(),
        Value::Object(fields) => fields.iter().flat_map(|(k, v)| [vec![cut(k)], words(v)].concat()).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) => Vec::new(),
    }
}

fn fields_of(schema: &utoipa::openapi::RefOr<utoipa::openapi::Schema>) -> BTreeSet<String> {
    let document = serde_json::to_value(schema).expect("a schema is JSON");
    document["properties"].as_object().expect("an object").keys().cloned().collect()
}

fn rows_cover(rows: &[(&str, Value, Fate)], schema: &utoipa::openapi::RefOr<utoipa::openapi::Schema>) {
    let rows: BTreeSet<String> = rows.iter().map(|(field, _, _)| (*field).to_owned()).collect();
    assert_eq!(rows, fields_of(schema), "rows on the left, fields on the right");
}

#[test]
fn every_field_of_the_host_configuration_is_honoured_refused_or_warned_about() {
    let rows = [namespaces(), host_access(), kernel(), resources(), security(), rest()].concat();
    check(&rows, |field, value| json!({"Image": "i", "HostConfig": {field: value}}));
    rows_cover(&rows, &HostConfig::schema());
}

#[test]
fn all_exposed_ports_are_published_up_to_as_many_as_may_be_bound_one_by_one() {
    let exposing = |count: u16, publish_all: bool| {
        let ports: serde_json::Map<String, Value> = (1..=count).map(|n| (n.to_string(), json!({}))).collect();
        fate(json!({"Image": "i", "ExposedPorts": ports, "HostConfig": {"PublishAllPorts": publish_all}}))
    };
    assert_eq!(exposing(256, true).0, Honoured);
    assert_eq!(exposing(257, false).0, Honoured);
    let (got, text) = exposing(257, true);
    assert_eq!((got, text.as_str()), (Invalid, "PublishAllPorts: at most 256 ports can be published"));
}

type Rows = Vec<(&'static str, Value, Fate)>;

fn namespaces() -> Rows {
    let mut rows = Vec::new();
    for field in ["PidMode", "IpcMode", "UTSMode", "UsernsMode", "CgroupnsMode", "NetworkMode"] {
        rows.push((field, json!("host"), Forbidden));
        rows.push((field, json!(""), Honoured));
        rows.push((field, json!("nonsense:\u{0}"), if field == "NetworkMode" { Open } else { Invalid }));
    }
    rows.extend([
        ("CgroupnsMode", json!("private"), Honoured),
        ("IpcMode", json!("private"), Honoured),
        ("IpcMode", json!("shareable"), Honoured),
        ("IpcMode", json!("none"), Honoured),
        ("IpcMode", json!("container:x"), Honoured),
        ("IpcMode", json!("container:"), Invalid),
        ("PidMode", json!("container:x"), Honoured),
        ("PidMode", json!("container:"), Invalid),
        ("UTSMode", json!("container:x"), Invalid),
        ("NetworkMode", json!("container:x"), Open),
        ("NetworkMode", json!("none"), Honoured),
        ("NetworkMode", json!("bridge"), Honoured),
        ("NetworkMode", json!("default"), Honoured),
        ("Cgroup", json!("container:x"), Open),
        ("CgroupParent", json!("/"), Forbidden),
        ("CgroupParent", json!("docker.slice"), Forbidden),
    ]);
    rows
}

fn host_access() -> Rows {
    let bind = |source: &str| json!([{"Type": "bind", "Source": source, "Target": "/x"}]);
    let mut rows = vec![
        ("Privileged", json!(true), Forbidden),
        ("Privileged", json!("true"), Invalid),
        ("Privileged", json!(false), Honoured),
        ("Binds", json!(["data:/data"]), Open),
        ("Mounts", json!([{"Type": "volume", "Source": "vol", "Target": "/x"}]), Open),
        ("Mounts", json!([{"Type": "npipe", "Source": "vol", "Target": "/x"}]), Invalid),
        ("Mounts", json!([{"Type": "tmpfs", "Target": "/x"}]), Honoured),
        ("Mounts", json!([{"Type": "tmpfs", "Target": "/proc/x"}]), Forbidden),
        ("Tmpfs", json!({"/x": "size=1m"}), Honoured),
        ("Tmpfs", json!({"/x": "dev"}), Forbidden),
        ("Tmpfs", json!({"/x": "size=16g"}), Honoured),
        ("Tmpfs", json!({"/x": "size=17g"}), Forbidden),
        ("Mounts", json!([{"Type": "tmpfs", "Target": "/x", "TmpfsOptions": {"SizeBytes": 17_i64 << 30}}]), Forbidden),
        ("Tmpfs", json!({"/sys": ""}), Forbidden),
        ("VolumesFrom", json!(["other"]), Open),
        ("VolumeDriver", json!("local"), Honoured),
        ("VolumeDriver", json!("nfs"), Honoured),
        ("Links", json!(["db:db"]), Open),
        ("ContainerIDFile", json!("/etc/x"), Honoured),
        (
            "Devices",
            json!([{"PathOnHost": "/dev/null", "PathInContainer": "/dev/null", "CgroupPermissions": "rwm"}]),
            Honoured,
        ),
        ("Devices", json!([{"PathOnHost": "/dev/zero"}]), Honoured),
        ("Devices", json!([{"PathOnHost": "/dev/null", "CgroupPermissions": "x"}]), Invalid),
        ("DeviceCgroupRules", json!(["a *:* rwm"]), Forbidden),
        ("DeviceRequests", json!([{"Driver": "nvidia", "Count": -1}]), Forbidden),
        ("DeviceRequests", json!([{"Driver": "cdi", "DeviceIDs": ["vendor.com/d=0"]}]), Forbidden),
    ];
    for device in
        ["/dev/sda", "/dev/kmsg", "/dev/mem", "/dev/fuse", "/dev/net/tun", "/dev/kvm", "/dev/../dev/sda", "/dev"]
    {
        rows.push(("Devices", json!([{"PathOnHost": device, "PathInContainer": "/dev/null"}]), Forbidden));
    }
    for path in ["/", "/proc", "/var/run", "/etc/shadow", "/sys/fs/cgroup", "/dev"] {
        rows.push(("Binds", json!([format!("{path}:/x")]), Forbidden));
        rows.push(("Mounts", bind(path), Forbidden));
    }
    for field in [
        "BlkioWeightDevice",
        "BlkioDeviceReadBps",
        "BlkioDeviceWriteBps",
        "BlkioDeviceReadIOps",
        "BlkioDeviceWriteIOps",
    ] {
        rows.push((field, json!([{"Path": "/dev/vda", "Rate": 1}]), Forbidden));
    }
    rows
}

fn kernel() -> Rows {
    let mut rows = vec![
        ("OomKillDisable", json!(true), Forbidden),
        ("OomScoreAdj", json!(-1), Forbidden),
        ("OomScoreAdj", json!(-1000), Forbidden),
        ("OomScoreAdj", json!(1000), Honoured),
        ("OomScoreAdj", json!(1001), Invalid),
        ("OomScoreAdj", json!(i64::MIN), Invalid),
        ("CpuRealtimePeriod", json!(1000), Forbidden),
        ("CpuRealtimeRuntime", json!(1000), Forbidden),
        ("MaskedPaths", json!([]), Forbidden),
        ("MaskedPaths", json!(["/proc/kcore"]), Forbidden),
        ("MaskedPaths", json!(model::MASKED_PATHS), Honoured),
        ("MaskedPaths", Value::Null, Honoured),
        ("ReadonlyPaths", json!([]), Forbidden),
        ("ReadonlyPaths", json!(model::READONLY_PATHS), Honoured),
        ("Sysctls", json!({"net.ipv4.ip_local_port_range": "1024 65000"}), Honoured),
        ("Sysctls", json!({"net.core.somaxconn": "1024"}), Honoured),
        ("Sysctls", json!({"fs.mqueue.msg_max": "20"}), Honoured),
    ];
    for own in ["msgmax", "sem", "shmmax", "shm_rmid_forced"] {
        rows.push(("Sysctls", json!({format!("kernel.{own}"): "1"}), Honoured));
    }
    for hosts in [
        "kernel.core_pattern",
        "kernel.modprobe",
        "kernel.sysrq",
        "vm.overcommit_memory",
        "fs.file-max",
        "kernel.hostname",
        "user.max_user_namespaces",
        "kernel.shmx",
    ] {
        rows.push(("Sysctls", json!({hosts: "1"}), Forbidden));
    }
    for odd in ["net/ipv4/ip_forward", "net..ipv4", "net.ipv4.\n", "", "net.ipv4.ip_forward=1"] {
        rows.push(("Sysctls", json!({odd: "1"}), Invalid));
    }
    rows
}

fn resources() -> Rows {
    vec![
        ("Memory", json!(6 << 20), Honoured),
        ("Memory", json!(-1), Invalid),
        ("Memory", json!(1e300), Invalid),
        ("Memory", json!("1g"), Invalid),
        ("MemorySwap", json!(-1), Warned),
        ("MemorySwap", json!(-2), Invalid),
        ("MemoryReservation", json!(1), Invalid),
        ("MemorySwappiness", json!(-1), Honoured),
        ("MemorySwappiness", json!(60), Honoured),
        ("MemorySwappiness", json!(101), Invalid),
        ("KernelMemory", json!(1 << 20), Warned),
        ("KernelMemoryTCP", json!(1 << 20), Warned),
        ("NanoCpus", json!(500_000_000), Honoured),
        ("NanoCpus", json!(1), Invalid),
        ("CpuShares", json!(1), Invalid),
        ("CpuShares", json!(512), Honoured),
        ("CpuPeriod", json!(1), Invalid),
        ("CpuQuota", json!(1), Invalid),
        ("CpuQuota", json!(-1), Honoured),
        ("CpusetCpus", json!("0"), Honoured),
        ("CpusetCpus", json!("0;reboot"), Invalid),
        ("CpusetMems", json!("0"), Honoured),
        ("CpusetMems", json!("x"), Invalid),
        ("CpuCount", json!(1), Warned),
        ("CpuPercent", json!(1), Warned),
        ("IOMaximumIOps", json!(1), Warned),
        ("IOMaximumBandwidth", json!(1), Warned),
        ("BlkioWeight", json!(9), Invalid),
        ("BlkioWeight", json!(500), Honoured),
        ("PidsLimit", json!(-1), Honoured),
        ("PidsLimit", json!(100), Honoured),
        ("PidsLimit", json!(i64::MAX), Forbidden),
        ("PidsLimit", json!(-2), Invalid),
        ("ShmSize", json!(1 << 30), Honoured),
        ("ShmSize", json!(i64::MAX), Forbidden),
        ("Ulimits", json!([{"Name": "nofile", "Soft": 1024, "Hard": 2048}]), Honoured),
        ("Ulimits", json!([{"Name": "nofile", "Soft": 1, "Hard": i64::MAX}]), Forbidden),
        ("Ulimits", json!([{"Name": "rtprio", "Soft": 99, "Hard": 99}]), Forbidden),
        ("Ulimits", json!([{"Name": "everything", "Soft": 1, "Hard": 1}]), Invalid),
        ("Ulimits", json!([{"Name": "memlock", "Soft": -1, "Hard": -1}]), Honoured),
        ("StorageOpt", json!({"size": "1G"}), Open),
    ]
}

fn security() -> Rows {
    let mut rows = vec![
        ("CapAdd", json!(["NET_BIND_SERVICE"]), Honoured),
        ("CapAdd", json!(["CAP_CHOWN", "ALL"]), Honoured),
        ("CapAdd", json!(["SUPERPOWER"]), Invalid),
        ("CapDrop", json!(["ALL"]), Honoured),
        ("CapDrop", json!(["SYS_ADMIN"]), Honoured),
        ("CapDrop", json!(["SUPERPOWER"]), Invalid),
        ("SecurityOpt", json!(["no-new-privileges"]), Honoured),
        ("SecurityOpt", json!(["no-new-privileges:true"]), Honoured),
        ("SecurityOpt", json!(["seccomp=builtin"]), Honoured),
        ("ReadonlyRootfs", json!(true), Honoured),
        ("GroupAdd", json!(["audio", "65535"]), Honoured),
        ("GroupAdd", json!(["65536"]), Invalid),
        ("GroupAdd", json!(["a b"]), Invalid),
        ("Annotations", json!({"run.oci.hooks.stderr": "/x"}), Forbidden),
        ("Annotations", json!({"io.katacontainers.config.hypervisor.path": "/bin/sh"}), Forbidden),
        ("Runtime", json!(""), Honoured),
        ("Runtime", json!("runc"), Honoured),
        ("Runtime", json!("io.containerd.runc.v2"), Honoured),
        ("Runtime", json!("/bin/sh"), Invalid),
        ("Runtime", json!("sysbox"), Invalid),
        ("Isolation", json!("default"), Honoured),
        ("Isolation", json!("hyperv"), Invalid),
    ];
    for capability in [
        "SYS_ADMIN",
        "SYS_PTRACE",
        "SYS_MODULE",
        "NET_ADMIN",
        "DAC_READ_SEARCH",
        "BPF",
        "PERFMON",
        "SYS_RAWIO",
        "cap_sys_boot",
        "CHECKPOINT_RESTORE",
        "SYSLOG",
        "SYS_TIME",
        "MAC_ADMIN",
    ] {
        rows.push(("CapAdd", json!([capability]), Forbidden));
    }
    for option in [
        "seccomp=unconfined",
        "seccomp={\"defaultAction\":\"SCMP_ACT_ALLOW\"}",
        "apparmor=unconfined",
        "apparmor=docker-default",
        "label=disable",
        "label=type:spc_t",
        "systempaths=unconfined",
        "no-new-privileges=false",
        "writable-cgroups=true",
        "credentialspec=file://x",
    ] {
        rows.push(("SecurityOpt", json!([option]), Forbidden));
    }
    rows
}

fn rest() -> Rows {
    vec![
        ("AutoRemove", json!(true), Honoured),
        ("ConsoleSize", json!([24, 80]), Honoured),
        ("ConsoleSize", json!([70_000, 1]), Invalid),
        ("Dns", json!(["10.0.0.1"]), Honoured),
        ("Dns", json!(["a\nnameserver 1.1.1.1"]), Invalid),
        ("DnsOptions", json!(["ndots:5"]), Honoured),
        ("DnsSearch", json!(["a.example"]), Honoured),
        ("DnsSearch", json!(["a\nnameserver 1.1.1.1"]), Invalid),
        ("ExtraHosts", json!(["db:10.0.0.9"]), Honoured),
        ("ExtraHosts", json!(["db:10.0.0.9\n1.1.1.1 google.com"]), Invalid),
        ("Init", json!(true), Honoured),
        ("LogConfig", json!({"Type": "none"}), Honoured),
        ("LogConfig", json!({"Type": "json-file", "Config": {"max-size": "1m"}}), Honoured),
        ("LogConfig", json!({"Type": "gelf", "Config": {"gelf-address": "udp://169.254.169.254:1"}}), Forbidden),
        ("LogConfig", json!({"Type": "json-file", "Config": {"path": "/etc/cron.d/x"}}), Invalid),
        ("PortBindings", json!({"80/tcp": [{"HostPort": "8080"}]}), Honoured),
        ("PortBindings", json!({"80/tcp": [{"HostIp": "127.0.0.1"}]}), Forbidden),
        ("PortBindings", json!({"80/tcp": [{"HostPort": "22"}]}), Forbidden),
        ("PortBindings", json!({"0/tcp": []}), Invalid),
        ("PublishAllPorts", json!(true), Honoured),
        ("RestartPolicy", json!({"Name": "always"}), Honoured),
        ("RestartPolicy", json!({"Name": "on-failure", "MaximumRetryCount": -1}), Invalid),
    ]
}

#[test]
fn every_field_of_the_container_configuration_is_honoured_refused_or_warned_about() {
    let long = "x".repeat(300);
    let rows: Rows = vec![
        ("Hostname", json!("web"), Honoured),
        ("Hostname", json!("a b"), Invalid),
        ("Hostname", json!(long), Invalid),
        ("Domainname", json!("a.example"), Honoured),
        ("Domainname", json!("../x"), Invalid),
        ("User", json!("1000:1000"), Honoured),
        ("User", json!(long), Invalid),
        ("AttachStdin", json!(true), Honoured),
        ("AttachStdout", json!(true), Honoured),
        ("AttachStderr", json!(true), Honoured),
        ("ExposedPorts", json!({"80/tcp": {}}), Honoured),
        ("ExposedPorts", json!({"nonsense": {}}), Invalid),
        ("Tty", json!(true), Honoured),
        ("OpenStdin", json!(true), Honoured),
        ("StdinOnce", json!(true), Honoured),
        ("Env", json!(["A=b"]), Honoured),
        ("Env", json!(["A\u{0}=b"]), Invalid),
        ("Cmd", json!(["true"]), Honoured),
        ("Cmd", json!(["x".repeat(2 << 20)]), Invalid),
        ("Healthcheck", json!({"Test": ["CMD", "true"]}), Honoured),
        ("Healthcheck", json!({"Test": ["NONE"], "Interval": 7}), Invalid),
        ("Healthcheck", json!({"Test": ["CMD", "true"], "Interval": 1_000_000}), Warned),
        ("Healthcheck", json!({"Test": ["EXEC", "true"]}), Warned),
        ("ArgsEscaped", json!(true), Honoured),
        ("Image", json!("busybox"), Honoured),
        ("Volumes", json!({"/data": {}}), Open),
        ("WorkingDir", json!("/srv"), Honoured),
        ("WorkingDir", json!("/proc/self/fd/7"), Honoured),
        ("Entrypoint", json!(["sh"]), Honoured),
        ("NetworkDisabled", json!(true), Honoured),
        ("MacAddress", json!("02:42:ac:11:00:02"), Open),
        ("OnBuild", json!(["RUN true"]), Honoured),
        ("Labels", json!({"a": "b"}), Honoured),
        ("Labels", json!({"io.wharfage.role": "root"}), Forbidden),
        ("StopSignal", json!("SIGINT"), Honoured),
        ("StopSignal", json!("SIGSEGFAULT"), Invalid),
        ("StopTimeout", json!(5), Honoured),
        ("Shell", json!(["bash", "-c"]), Honoured),
    ];
    check(&rows, |field, value| json!({"Image": "i", field: value}));
    rows_cover(&rows, &ContainerConfig::schema());
}

#[test]
fn fields_are_decided_on_once_however_they_are_written() {
    // Another case is another field to us, as it is not to Go: it must not be honoured by anybody later.
    let (got, _) = fate(json!({"Image": "i", "HostConfig": {"Privileged": false, "privileged": true}}));
    assert_eq!(got, Honoured);
    let (got, text) = fate(json!({"Image": "i", "HostConfig": {"CapAdd": "SYS_ADMIN"}}));
    assert_eq!(got, Forbidden, "one word is a list of one: {text}");
}
