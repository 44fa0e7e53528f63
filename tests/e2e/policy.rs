//! The policy matrix (A30 to A69), a test a row: what a tenant writes to get at a host is refused with the
//! field's name and leaves nothing; what an honest one writes into the same field is taken, the control.

use serde_json::{Value, json};
use tests::{Rest, Suite, unique};

/// What is written into one field: by an attacker, each refused; by somebody honest, taken.
struct Row<'a> {
    refused: Vec<Value>,
    /// One of these is in the answer.
    names: &'a [&'a str],
    taken: Value,
}

fn created(rest: &Rest, name: &str, body: &Value) -> tests::Reply {
    let mut whole = json!({"Image": "busybox", "Cmd": ["true"]});
    for (field, value) in body.as_object().expect("an object") {
        whole[field] = value.clone();
    }
    rest.post(&format!("/containers/create?name={name}"), &whole)
}

impl Row<'_> {
    fn holds(self) {
        let rest = Suite::here().rest();
        for body in &self.refused {
            let name = unique("refused");
            let reply = created(&rest, &name, body);
            let message = reply.json()["message"].as_str().unwrap_or_default().to_lowercase();
            assert!([400, 403, 404, 409, 501].contains(&reply.status), "{body}: {reply:?}");
            let named = self.names.iter().any(|name| message.contains(&name.to_lowercase()));
            assert!(named, "{body} is refused without its name: {message}");
            assert_eq!(rest.get(&format!("/containers/{name}/json")).status, 404, "{body} left something");
        }
        let name = unique("taken");
        let reply = created(&rest, &name, &self.taken);
        assert_eq!(reply.status, 201, "{}: {reply:?}", self.taken);
        assert_eq!(rest.send("DELETE", &format!("/containers/{name}?force=1&v=1"), None).status, 204);
    }
}

/// A row of one field of `HostConfig`.
fn host(field: &str, refused: &[Value], taken: Value) {
    host_named(field, &[field.trim_end_matches('s')], refused, taken);
}

fn host_named(field: &str, names: &[&str], refused: &[Value], taken: Value) {
    let body = |value: &Value| json!({"HostConfig": {field: value}});
    Row { refused: refused.iter().map(body).collect(), names, taken: body(&taken) }.holds();
}

/// Values in an array each, as lists of strings are attacked.
fn each(values: &[&str]) -> Vec<Value> {
    values.iter().map(|value| json!([value])).collect()
}

#[test]
fn a30_privileged() {
    host("Privileged", &[json!(true)], json!(false));
}

#[test]
fn a31_pid_mode_of_the_host() {
    host("PidMode", &[json!("host"), json!("host:x")], json!(""));
}

#[test]
fn a32_ipc_mode_of_the_host() {
    host("IpcMode", &[json!("host")], json!("private"));
}

#[test]
fn a33_uts_mode_of_the_host() {
    host("UTSMode", &[json!("host")], json!(""));
}

#[test]
fn a34_user_namespace_of_the_host() {
    host("UsernsMode", &[json!("host")], json!(""));
}

#[test]
fn a35_cgroup_namespace_of_the_host() {
    host("CgroupnsMode", &[json!("host")], json!("private"));
}

#[test]
fn a36_network_of_the_host() {
    host("NetworkMode", &[json!("host")], json!("bridge"));
}

/// A container of the other project, gone with the test.
struct Foreign {
    rest: Rest,
    name: String,
    id: String,
}

impl Foreign {
    fn new() -> Self {
        let (rest, name) = (Suite::here().rest_2(), unique("foreign"));
        let reply = created(&rest, &name, &json!({"Volumes": {"/data": {}}}));
        let id = reply.json()["Id"].as_str().expect("an id").to_owned();
        Self { rest, name, id }
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = self.rest.send("DELETE", &format!("/containers/{}?force=1&v=1", self.id), None);
    }
}

#[test]
fn a37_namespaces_of_a_foreign_container() {
    let foreign = Foreign::new();
    for field in ["PidMode", "IpcMode", "NetworkMode"] {
        let of = |who: &str| json!(format!("container:{who}"));
        let names = [field, &foreign.id, &foreign.name, "No such container"];
        host_named(field, &names, &[of(&foreign.id), of(&foreign.name)], json!(""));
    }
}

#[test]
fn a38_volumes_and_links_of_a_foreign_container() {
    let foreign = Foreign::new();
    let own = unique("own");
    let rest = Suite::here().rest();
    assert_eq!(created(&rest, &own, &json!({"Volumes": {"/data": {}}})).status, 201);
    let refused = each(&[&foreign.id, &foreign.name, &foreign.id[..12]]);
    host_named("VolumesFrom", &["No such container"], &refused, json!([own]));
    let linked = each(&[&format!("{}:db", foreign.name)]);
    host_named("Links", &["Links", &foreign.name], &linked, json!([]));
    assert_eq!(rest.send("DELETE", &format!("/containers/{own}?v=1"), None).status, 204);
}

#[test]
fn a39_paths_of_the_host() {
    let paths = ["/", "/proc", "/var/run", "/etc/shadow", "/sys/fs/cgroup", "/dev", "/root/../etc"];
    let binds: Vec<Value> = paths.iter().map(|path| json!([format!("{path}:/x")])).collect();
    host_named(
        "Binds",
        &["path of a host", "host path", "path of the host", "docker cp"],
        &binds,
        json!(["/anonymous"]),
    );
    let mounts: Vec<Value> =
        paths.iter().map(|path| json!([{"Type": "bind", "Source": path, "Target": "/x"}])).collect();
    host_named("Mounts", &["docker cp", "bind"], &mounts, json!([{"Type": "volume", "Target": "/x"}]));
}

#[test]
fn a40_volumes_that_name_a_device_or_reach_into_a_network() {
    let rest = Suite::here().rest();
    let create = |options: &Value| {
        let name = unique("vol");
        let reply = rest.post("/volumes/create", &json!({"Name": name, "DriverOpts": options}));
        let left = rest.get(&format!("/volumes/{name}")).status;
        let _ = rest.send("DELETE", &format!("/volumes/{name}"), None);
        (reply, left)
    };
    for (options, named) in [
        (json!({"type": "none", "o": "bind", "device": "/"}), "bind"),
        (json!({"o": "rbind", "device": "/etc"}), "bind"),
        (json!({"type": "nfs", "o": "addr=169.254.169.254,rw", "device": ":/x"}), "nfs"),
        (json!({"type": "cifs", "o": "addr=127.0.0.1", "device": "//x/y"}), "cifs"),
        (json!({"type": "ext4", "device": "/dev/vda"}), "/dev/vda"),
        (json!({"type": "tmpfs", "o": "dev"}), "o=dev"),
        (json!({"type": "tmpfs", "o": "suid"}), "o=suid"),
        (json!({"type": "overlay", "o": "lowerdir=/"}), "overlay"),
    ] {
        let (reply, left) = create(&options);
        assert!(matches!(reply.status, 400 | 403) && reply.body.contains(named), "{options}: {reply:?}");
        assert_eq!(left, 404, "{options}");
    }
    let (taken, _) = create(&json!({"type": "tmpfs", "device": "tmpfs", "o": "size=1m,nosuid,nodev"}));
    assert_eq!(taken.status, 201, "{taken:?}");
}

#[test]
fn a41_parts_of_a_volume_that_climb() {
    let mount = |subpath: &str| {
        let options = json!({"Subpath": subpath});
        json!([{"Type": "volume", "Source": "policy-sub", "Target": "/x", "VolumeOptions": options}])
    };
    let climbing = ["..", "../x", "a/../../x", "/etc", "a/../..", "/"].map(mount);
    host_named("Mounts", &["subpath"], &climbing, mount("inside/it"));
    // A link in the volume is met at the start, with real links, in the tests of volumes.
    let _ = Suite::here().rest().send("DELETE", "/volumes/policy-sub?force=1", None);
}

#[test]
fn a42_propagation_of_mounts() {
    let bind = |propagation: &str| json!([{"Type": "bind", "Source": "/srv", "Target": "/x", "BindOptions": {"Propagation": propagation}}]);
    let on_volume =
        json!([{"Type": "volume", "Source": "v", "Target": "/x", "BindOptions": {"Propagation": "shared"}}]);
    let mounts = [bind("shared"), bind("rslave"), on_volume];
    host_named(
        "Mounts",
        &["path of the host", "propagation", "BindOptions"],
        &mounts,
        json!([{"Type": "volume", "Target": "/x"}]),
    );
    let modes = ["v:/x:shared", "v:/x:rshared", "v:/x:slave", "v:/x:rslave"];
    host_named("Binds", &["mode"], &each(&modes), json!(["/x"]));
}

#[test]
fn a43_devices_of_the_host() {
    let device = |path: &str| json!([{"PathOnHost": path, "PathInContainer": "/dev/x", "CgroupPermissions": "rwm"}]);
    let paths =
        ["/dev/vda", "/dev/kmsg", "/dev/mem", "/dev/fuse", "/dev/net/tun", "/dev/kvm", "/dev/../dev/vda", "/dev"];
    host("Devices", &paths.map(device), json!([{"PathOnHost": "/dev/zero", "PathInContainer": "/dev/zero"}]));
}

#[test]
fn a44_requests_for_devices() {
    let refused = [json!([{"Driver": "nvidia", "Count": -1}]), json!([{"Driver": "cdi", "DeviceIDs": ["v.com/d=0"]}])];
    host("DeviceRequests", &refused, json!([]));
}

#[test]
fn a45_rules_of_the_device_cgroup() {
    host("DeviceCgroupRules", &each(&["a *:* rwm", "c 1:1 r", "b 254:0 rwm"]), json!([]));
    let limits = [json!([{"Path": "/dev/vda", "Rate": 1}])];
    for field in ["BlkioDeviceReadBps", "BlkioDeviceWriteBps", "BlkioDeviceReadIOps", "BlkioDeviceWriteIOps"] {
        host(field, &limits, json!([]));
    }
}

#[test]
fn a46_capabilities_beyond_the_list() {
    let beyond = each(&[
        "SYS_ADMIN",
        "SYS_PTRACE",
        "SYS_MODULE",
        "NET_ADMIN",
        "DAC_READ_SEARCH",
        "BPF",
        "PERFMON",
        "SYS_RAWIO",
        "SYSLOG",
        "SYS_BOOT",
        "SYS_TIME",
        "CHECKPOINT_RESTORE",
        "cap_sys_admin",
        "CAP_NOT_ONE",
    ]);
    host("CapAdd", &beyond, json!(["NET_BIND_SERVICE", "ALL"]));
}

fn security(refused: &[&str], taken: &[&str]) {
    host_named("SecurityOpt", &["SecurityOpt"], &each(refused), json!(taken));
}

#[test]
fn a47_a_filter_of_ones_own() {
    let wider = r#"seccomp={"defaultAction":"SCMP_ACT_ALLOW"}"#;
    security(&["seccomp=unconfined", "seccomp:unconfined", wider], &["seccomp=builtin"]);
}

#[test]
fn a48_labels_and_profiles_of_other_modules() {
    security(&["apparmor=unconfined", "apparmor=docker-default", "label=disable", "label=type:spc_t"], &[]);
}

#[test]
fn a49_system_paths_unconfined() {
    security(&["systempaths=unconfined"], &[]);
}

#[test]
fn a50_new_privileges() {
    security(&["no-new-privileges=false", "no-new-privileges:false"], &["no-new-privileges"]);
}

#[test]
fn a51_writable_cgroups() {
    security(&["writable-cgroups=true", "writable-cgroups"], &["writable-cgroups=false"]);
}

#[test]
fn a52_paths_that_are_masked_or_read_only() {
    host("MaskedPaths", &[json!([]), json!(["/proc/kcore"])], json!(model::MASKED_PATHS));
    host("ReadonlyPaths", &[json!([]), json!(["/proc/sys"])], json!(model::READONLY_PATHS));
}

#[test]
fn a53_a_parent_among_the_hosts_cgroups() {
    host("CgroupParent", &[json!("/"), json!("docker.slice"), json!("../..")], json!(""));
}

#[test]
fn a54_a_runtime_that_is_not_listed() {
    let refused = [json!("sysbox"), json!("/bin/sh"), json!("io.containerd.kata.v2"), json!("nvidia")];
    host_named("Runtime", &["runtime name"], &refused, json!("runc"));
}

#[test]
fn a55_settings_of_the_hosts_kernel() {
    let setting = |name: &str| json!({name: "1"});
    let hosts = [
        "kernel.core_pattern",
        "kernel.modprobe",
        "kernel.sysrq",
        "kernel.panic",
        "vm.overcommit_memory",
        "fs.file-max",
        "kernel.hostname",
        "user.max_user_namespaces",
        "net..x",
        "net/ipv4/ip_forward",
        "kernel.shmmaxx",
    ];
    let names: Vec<&str> = hosts.iter().copied().chain(["sysctl"]).collect();
    host_named("Sysctls", &names, &hosts.map(setting), json!({"net.core.somaxconn": "128", "kernel.shmmni": "1000"}));
}

#[test]
fn a56_no_oom_killer() {
    host("OomKillDisable", &[json!(true)], json!(false));
}

#[test]
fn a57_before_others_in_the_oom_killers_queue() {
    host_named("OomScoreAdj", &["OomScoreAdj", "oom score adj"], &[json!(-1), json!(-1000), json!(1001)], json!(500));
}

#[test]
fn a58_limits_above_the_cap() {
    let limit = |name: &str, hard: i64| json!([{"Name": name, "Soft": 1, "Hard": hard}]);
    let refused = [limit("nofile", i64::MAX), limit("rtprio", 99), limit("everything", 1)];
    host("Ulimits", &refused, limit("nofile", 2048));
    host("PidsLimit", &[json!(i64::MAX), json!(-2)], json!(100));
}

#[test]
fn a59_memory_file_systems_above_the_cap() {
    host_named("ShmSize", &["ShmSize", "shm size"], &[json!(i64::MAX), json!(-1)], json!(64 << 20));
    let tmpfs = |options: &str| json!({"/x": options});
    let refused = [tmpfs("size=17g"), tmpfs("dev"), tmpfs("suid"), json!({"/proc/x": ""}), json!({"/dev": ""})];
    host_named("Tmpfs", &["tmpfs", "mount", "size"], &refused, tmpfs("size=1m"));
}

#[test]
fn a60_logs_that_go_to_a_path_or_an_address() {
    let log = |driver: &str, option: &str, value: &str| json!({"Type": driver, "Config": {option: value}});
    let refused = [
        log("gelf", "gelf-address", "udp://169.254.169.254:1"),
        log("syslog", "syslog-address", "unix:///dev/log"),
        log("fluentd", "fluentd-address", "127.0.0.1:1"),
        log("splunk", "splunk-url", "http://127.0.0.1"),
        log("json-file", "path", "/etc/cron.d/x"),
        log("plugin/of-mine", "x", "y"),
    ];
    let names = ["log", "driver", "plugin"];
    host_named("LogConfig", &names, &refused, log("json-file", "max-size", "1m"));
}

#[test]
fn a61_more_ports_than_a_container_may_publish() {
    let many: serde_json::Map<String, Value> = (1..=1_000).map(|n| (format!("{n}/tcp"), json!({}))).collect();
    let few = json!({"80/tcp": {}, "443/tcp": {}});
    let body = |ports: Value| json!({"ExposedPorts": ports, "HostConfig": {"PublishAllPorts": true}});
    Row { refused: vec![body(Value::Object(many))], names: &["PublishAllPorts"], taken: body(few) }.holds();
}

#[test]
fn a62_addresses_and_ports_that_are_not_the_tenants() {
    let bind = |ip: &str, port: &str| json!({"80/tcp": [{"HostIp": ip, "HostPort": port}]});
    let refused = [bind("127.0.0.1", ""), bind("10.0.0.1", "8080"), bind("::1", ""), bind("", "22"), bind("", "70000")];
    let names = ["PortBindings", "HostIp", "port", "address"];
    host_named("PortBindings", &names, &refused, bind("0.0.0.0", ""));
}

/// A network, gone with the test.
struct Network(String);

impl Network {
    fn new() -> Self {
        let name = unique("policy-net");
        let pool = json!({"Config": [{"Subnet": "172.29.77.0/24", "Gateway": "172.29.77.254"}]});
        let made = Suite::here().rest().post("/networks/create", &json!({"Name": name, "IPAM": pool}));
        assert_eq!(made.status, 201, "{made:?}");
        Self(name)
    }

    fn endpoint(&self, settings: &Value) -> Value {
        json!({"HostConfig": {"NetworkMode": self.0}, "NetworkingConfig": {"EndpointsConfig": {&self.0: settings}}})
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = Suite::here().rest().send("DELETE", &format!("/networks/{}", self.0), None);
    }
}

#[test]
fn a63_a64_addresses_that_are_somebody_elses() {
    let network = Network::new();
    let address = |ip: &str| network.endpoint(&json!({"IPAMConfig": {"IPv4Address": ip}}));
    let ips =
        ["172.29.77.254", "172.29.77.0", "172.29.77.255", "172.29.78.1", "127.0.0.1", "169.254.169.254", "1.2.3.4.5"];
    Row { refused: ips.map(address).into(), names: &["address", "172.29", "ip"], taken: address("172.29.77.9") }
        .holds();
    let mac = |mac: &str| network.endpoint(&json!({"MacAddress": mac}));
    let macs = ["01:00:5e:00:00:01", "ff:ff:ff:ff:ff:ff", "nonsense"];
    Row { refused: macs.map(mac).into(), names: &["mac"], taken: network.endpoint(&json!({})) }.holds();
}

#[test]
fn a65_groups_the_range_does_not_have() {
    host("GroupAdd", &each(&["65536", "4294967295", "a b"]), json!(["audio", "1000"]));
}

#[test]
fn a66_writable_layers_above_the_quota() {
    host("StorageOpt", &[json!({"size": "999999G"}), json!({"overlay2.x": "1"})], json!({}));
}

#[test]
fn a67_isolation_of_another_system() {
    host("Isolation", &[json!("hyperv"), json!("process")], json!("default"));
}

#[test]
fn a68_an_init_of_ones_own() {
    host_named("Init", &["init", "bool"], &[json!("/sbin/init"), json!({"Path": "/x"})], json!(true));
}

#[test]
fn a69_annotations_for_the_runtime() {
    let annotation = |name: &str| json!({name: "/x"});
    let names = ["run.oci.hooks.stderr", "io.katacontainers.config.hypervisor.path", "anything"];
    host("Annotations", &names.map(annotation), json!({}));
}

#[test]
fn a_container_that_runs_gets_none_of_it_by_an_update_either() {
    let rest = Suite::here().rest();
    let name = unique("updated");
    assert_eq!(created(&rest, &name, &json!({})).status, 201);
    let update = |body: &Value| rest.post(&format!("/containers/{name}/update"), body);
    for (field, value) in [
        ("Devices", json!([{"PathOnHost": "/dev/vda"}])),
        ("DeviceCgroupRules", json!(["a *:* rwm"])),
        ("DeviceRequests", json!([{"Driver": "nvidia"}])),
        ("CgroupParent", json!("/")),
        ("OomKillDisable", json!(true)),
        ("PidsLimit", json!(i64::MAX)),
        ("BlkioDeviceReadBps", json!([{"Path": "/dev/vda", "Rate": 1}])),
        ("CpuRealtimeRuntime", json!(1000)),
    ] {
        let reply = update(&json!({field: value}));
        assert!(matches!(reply.status, 400 | 403), "{field}: {reply:?}");
        assert!(reply.body.contains(field.trim_end_matches('s')), "{field}: {reply:?}");
    }
    assert_eq!(update(&json!({"PidsLimit": 100})).status, 200, "the control");
    assert_eq!(rest.send("DELETE", &format!("/containers/{name}?force=1"), None).status, 204);
}
