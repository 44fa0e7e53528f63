//! The configuration as a document: what a reviewer of a container's walls would look at.

use std::path::PathBuf;

use super::*;

fn security(add: &[&str], drop: &[&str]) -> SecuritySpec {
    let parse = |names: &[&str]| names.iter().map(|n| n.parse().expect("a capability")).collect();
    SecuritySpec { cap_add: parse(add), cap_drop: parse(drop), ..SecuritySpec::default() }
}

fn sandbox() -> SandboxSpec {
    SandboxSpec {
        id: "c1".into(),
        argv: vec!["sh".into()],
        hostname: "box".into(),
        rootfs: PathBuf::from("/data/c1/rootfs"),
        cgroup_path: "/wharfage/c1".into(),
        ..SandboxSpec::default()
    }
}

fn document(sandbox: &SandboxSpec) -> Value {
    let host = HostCgroups::probe();
    let spec = build(sandbox, &ResolvedUser::default(), Vec::new(), &host, &mut Vec::new()).expect("builds");
    serde_json::to_value(spec).expect("is JSON")
}

#[test]
fn the_default_set_is_dockers_fourteen() {
    let got = capabilities(&SecuritySpec::default()).expect("is valid");
    assert_eq!(got, DEFAULT_CAPABILITIES);
}

#[test]
fn drop_all_then_add_one_leaves_one() {
    assert_eq!(capabilities(&security(&["CAP_CHOWN"], &["ALL"])).expect("is valid"), ["CHOWN"]);
    assert!(capabilities(&security(&[], &["ALL"])).expect("is valid").is_empty());
    assert!(!capabilities(&security(&["ALL"], &["MKNOD"])).expect("is valid").contains(&"MKNOD".to_owned()));
}

#[test]
fn a_capability_beyond_the_grantable_is_refused_here_too() {
    assert!(matches!(capabilities(&security(&["SYS_ADMIN"], &[])), Err(Error::Invalid(_))));
}

#[test]
fn nothing_is_inheritable_or_ambient() {
    let caps = &document(&sandbox())["process"]["capabilities"];
    assert_eq!(caps["inheritable"].as_array().map_or(0, Vec::len), 0);
    assert_eq!(caps["ambient"].as_array().map_or(0, Vec::len), 0);
    assert_eq!(caps["bounding"].as_array().map(Vec::len), Some(14));
}

#[test]
fn every_namespace_is_its_own() {
    let document = document(&sandbox());
    let mut kinds: Vec<_> =
        document["linux"]["namespaces"].as_array().expect("a list").iter().map(|n| n["type"].to_string()).collect();
    kinds.sort();
    assert_eq!(kinds, ["\"cgroup\"", "\"ipc\"", "\"mount\"", "\"network\"", "\"pid\"", "\"uts\""]);
}

#[test]
fn every_mount_of_the_kernels_denies_what_docker_denies() {
    let document = document(&sandbox());
    for mount in document["mounts"].as_array().expect("a list") {
        let options = mount["options"].to_string();
        assert!(options.contains("nosuid"), "{mount}");
        let writable = ["/sys", "/sys/fs/cgroup"].iter().all(|p| mount["destination"] != *p);
        assert!(writable || options.contains("\"ro\""), "{mount}");
    }
}

#[test]
fn the_environment_is_dockers_with_later_values_winning() {
    let mut sandbox = sandbox();
    sandbox.tty = true;
    sandbox.env = ["A=1", "PATH=/bin", "A=2", "TERM"].map(str::to_owned).to_vec();
    assert_eq!(environment(&sandbox), ["PATH=/bin", "HOSTNAME=box", "A=2"]);
}

#[test]
fn an_exec_has_the_containers_walls_and_its_own_command() {
    let config = document(&sandbox());
    let walls = config["process"]["capabilities"].clone();
    let exec = ExecProcess {
        argv: vec!["id".into()],
        env: vec!["X=1".into()],
        cwd: "tmp".into(),
        tty: true,
        console_size: Some((24, 80)),
        ..ExecProcess::default()
    };
    let process = exec_process(config, &exec).expect("builds");
    assert_eq!(process["args"], json!(["id"]));
    assert_eq!(process["cwd"], "/tmp");
    assert_eq!(process["capabilities"], walls);
    assert_eq!(process["consoleSize"], json!({"height": 24, "width": 80}));
    assert!(process["env"].to_string().contains("X=1") && process["env"].to_string().contains("TERM=xterm"));
}

#[test]
fn an_empty_command_is_refused() {
    let mut sandbox = sandbox();
    sandbox.argv.clear();
    let host = HostCgroups::probe();
    let got = build(&sandbox, &ResolvedUser::default(), Vec::new(), &host, &mut Vec::new());
    assert!(matches!(got, Err(Error::Invalid(_))));
}

#[test]
fn a_container_of_a_project_joins_its_user_namespace_first() {
    let userns = crate::UserNamespace { path: "/run/ns/p".into(), first_id: 1_048_576, ids: 65_536 };
    let sysctls = [("net.ipv4.ping_group_range".to_owned(), "0 2147483647".to_owned())].into();
    let uts = Some("/run/c/uts".into());
    let sandbox = SandboxSpec { userns: Some(userns), uts, domainname: "a.b".into(), sysctls, ..sandbox() };
    let document = document(&sandbox);
    let linux = &document["linux"];
    assert_eq!(linux["namespaces"][0], json!({"type": "user", "path": "/run/ns/p"}));
    let mapping = json!([{"containerID": 0, "hostID": 1_048_576, "size": 65_536}]);
    assert_eq!((&linux["uidMappings"], &linux["gidMappings"]), (&mapping, &mapping));
    // The kernel takes no group the namespace does not have, and no domain name from its root.
    assert_eq!(linux["sysctl"]["net.ipv4.ping_group_range"], "0 65535");
    assert!(linux["sysctl"].get("kernel.domainname").is_none());
    let kinds: Vec<_> = linux["namespaces"].as_array().into_iter().flatten().map(|n| n["type"].clone()).collect();
    assert_eq!(kinds, ["user", "mount", "uts", "pid", "ipc", "cgroup", "network"]);
}

#[test]
fn without_shared_memory_there_is_no_place_for_it() {
    let document = document(&SandboxSpec { ipc: model::IpcMode::None, ..sandbox() });
    let shm = document["mounts"].as_array().into_iter().flatten().any(|m| m["destination"] == "/dev/shm");
    assert!(!shm);
}

#[test]
fn the_init_is_put_before_the_command() {
    let mut sandbox = sandbox();
    sandbox.init = Some("/usr/lib/wharfage-shim".into());
    let document = document(&sandbox);
    assert_eq!(document["process"]["args"], json!(["/dev/init", "init", "--", "sh"]));
}

#[test]
fn volumes_are_bound_without_suid_or_devices_and_the_outer_before_the_inner() {
    let bind = |path: &str, read_only| crate::BindMount { source: "/run/v/0".into(), path: path.into(), read_only };
    let tmpfs = model::TmpfsMount { path: "/a/b".into(), ..model::TmpfsMount::default() };
    let volumes = vec![bind("/a/b/c", true), bind("/a", false)];
    let document = document(&SandboxSpec { volumes, tmpfs: vec![tmpfs], ..sandbox() });
    let mounts = document["mounts"].as_array().expect("a list");
    let at = |path: &str| mounts.iter().position(|m| m["destination"] == path).expect("is mounted");
    assert!(at("/a") < at("/a/b") && at("/a/b") < at("/a/b/c") && at("/dev/shm") < at("/a"));
    let options = |path: &str| mounts[at(path)]["options"].to_string();
    for path in ["/a", "/a/b/c"] {
        assert!(options(path).contains("nosuid") && options(path).contains("nodev"), "{}", options(path));
    }
    assert!(options("/a").contains("\"rw\"") && options("/a/b/c").contains("\"ro\""));
}
