//! Which configurations are understood, and that anything else in one is not.

use serde_json::json;

use super::*;

/// What `runtime::write_bundle` writes, as the shim's tests find it too.
fn document() -> Value {
    let mount = |at: &str, kind: &str, source: &str, options: &[&str]| json!({"destination": at, "type": kind, "source": source, "options": options});
    let namespace = |kind: &str| json!({"type": kind});
    json!({
        "ociVersion": "1.0.2",
        "root": {"path": "/r/fs", "readonly": false},
        "hostname": "box",
        "mounts": [
            mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
            mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "ro"]),
            mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=67108864"]),
            mount("/data", "bind", "/v/1", &["bind", "rprivate", "nosuid", "nodev", "ro"]),
        ],
        "process": {"terminal": false, "user": {"uid": 0, "gid": 0}, "args": ["true"], "env": [], "cwd": "/",
            "capabilities": {"bounding": ["CAP_CHOWN"], "effective": ["CAP_CHOWN"], "permitted": ["CAP_CHOWN"]}},
        "linux": {
            "uidMappings": [{"containerID": 0, "hostID": 7, "size": 9}],
            "sysctl": {"net.ipv4.ping_group_range": "0 9"},
            "resources": {"pids": {"limit": 9}},
            "cgroupsPath": "/wharfage/c",
            "namespaces": [{"type": "user", "path": "/ns/user"}, namespace("mount"), namespace("uts"), namespace("pid"),
                namespace("ipc"), namespace("cgroup"), {"type": "network", "path": "/ns/net"}],
            "maskedPaths": ["/proc/kcore", "/sys/firmware"],
            "readonlyPaths": ["/proc/sys"],
        },
    })
}

fn is_known(document: &Value) -> bool {
    known(document).is_some()
}

#[test]
fn a_container_as_tenants_have_them_is_understood() {
    if runtime::cgroup::is_unified() {
        assert!(!is_known(&document()), "its device list is a program");
        return;
    }
    let (sandbox, process, _) = known(&document()).expect("understood");
    assert_eq!((sandbox.network, sandbox.names), (Some("/ns/net".into()), None));
    assert_eq!(process.args, ["true"]);
    let data = sandbox.mounts.last().expect("has mounts");
    assert_eq!((data.kind, data.at.as_path()), (Kind::Bind, Path::new("/data")));
    assert_eq!(data.attributes, libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV);
    assert_eq!(sandbox.masked[1], Kernels::Sys("firmware".into()));
    assert_eq!(sandbox.sysctls[0].path, Path::new("sys/net/ipv4/ping_group_range"));
}

#[test]
fn what_is_not_understood_is_left_to_the_runtime() {
    for (path, value) in [
        ("/linux/namespaces/0", json!({"type": "user"})),
        ("/linux/namespaces/1", json!({"type": "mount", "path": "/ns/mnt"})),
        ("/linux/namespaces/3", json!({"type": "time"})),
        ("/linux/namespaces/3", json!({"type": "ipc"})),
        ("/linux/sysctl", json!({"kernel.core_pattern": "|/x"})),
        ("/linux/sysctl", json!({"net.ipv4/../../kernel.core_pattern": "|/x"})),
        ("/linux/sysctl", json!({"net..ipv4": "1"})),
        ("/linux/sysctl", json!({"kernel.domainname": "x"})),
        ("/linux/resources", json!({"hugepageLimits": []})),
        ("/linux/maskedPaths", json!(["/etc/shadow"])),
        ("/linux/maskedPaths", json!(["/proc/../etc/shadow"])),
        ("/linux/readonlyPaths", json!(["/proc"])),
        ("/mounts/0/options", json!(["nosuid", "hidepid=2"])),
        ("/mounts/0/destination", json!("/proc2")),
        ("/mounts/1/options", json!(["mode=755", "huge=always"])),
        ("/mounts/6/options", json!(["tmpcopyup"])),
        ("/mounts/7/options", json!(["rbind", "rprivate"])),
        ("/mounts/7/options", json!(["bind", "rshared"])),
        ("/mounts/7/options", json!(["bind", "rprivate", "idmap"])),
        ("/mounts/7/options", json!(["bind"])),
        ("/mounts/7/destination", json!("/")),
        ("/mounts/7/destination", json!("/a/../b")),
        ("/mounts/7/destination", json!("data")),
        ("/mounts/7/type", json!("ext4")),
        ("/process/capabilities/bounding", json!(["CAP_OF_TOMORROW"])),
        ("/root/path", json!("fs")),
    ] {
        let mut document = document();
        *document.pointer_mut(path).expect("is there") = value.clone();
        assert!(!is_known(&document), "{path} {value}");
    }
    for (within, field, value) in [
        ("", "hooks", json!({})),
        ("", "domainname", json!("x")),
        ("/root", "more", json!(1)),
        ("/mounts/7", "uidMappings", json!([])),
        ("/process", "apparmorProfile", json!("docker-default")),
        ("/linux", "rootfsPropagation", json!("shared")),
        ("/linux", "mountLabel", json!("x")),
        ("/linux", "intelRdt", json!({})),
        ("/linux", "personality", json!({})),
        ("/linux", "devices", json!([{"path": "/dev/fuse"}])),
        ("/linux", "seccomp", json!({"defaultAction": "SCMP_ACT_LOG"})),
    ] {
        let mut document = document();
        document.pointer_mut(within).expect("is there")[field] = value.clone();
        assert!(!is_known(&document), "{within} {field}");
    }
}
