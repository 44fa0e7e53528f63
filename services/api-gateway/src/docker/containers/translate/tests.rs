//! The policy matrix and the merges, row by row.

use serde_json::{Value, json};

use super::*;
use crate::docker::containers::body::typed;

fn image() -> ImageConfig {
    ImageConfig {
        env: vec!["PATH=/bin".into(), "A=image".into()],
        cmd: vec!["sh".into()],
        labels: [("x".to_owned(), "image".to_owned()), ("io.wharfage.role".to_owned(), "root".to_owned())].into(),
        exposed_ports: vec!["80/tcp".into()],
        ..ImageConfig::default()
    }
}

fn create(document: Value) -> Result<Translated> {
    translate(&typed::<CreateBody>(document).expect("a body"), &image())
}

fn host(field: &str, value: Value) -> Result<Translated> {
    create(json!({"Image": "i", "HostConfig": {field: value}}))
}

#[test]
fn the_policy_matrix_is_refused_by_name() {
    let refused = [
        ("Privileged", json!(true)),
        ("PidMode", json!("host")),
        ("IpcMode", json!("host")),
        ("UTSMode", json!("host")),
        ("UsernsMode", json!("host")),
        ("CgroupnsMode", json!("host")),
        ("NetworkMode", json!("host")),
        ("Devices", json!([{"PathOnHost": "/dev/sda"}])),
        ("DeviceCgroupRules", json!(["c 1:1 rwm"])),
        ("DeviceRequests", json!([{"Driver": "nvidia"}])),
        ("CapAdd", json!(["SYS_ADMIN"])),
        ("CapAdd", json!(["CAP_NET_ADMIN"])),
        ("CgroupParent", json!("/x")),
        ("OomKillDisable", json!(true)),
        ("OomScoreAdj", json!(-500)),
        ("MaskedPaths", json!([])),
        ("ReadonlyPaths", json!([])),
        ("PidsLimit", json!(4_000_000)),
        ("ShmSize", json!(1_i64 << 50)),
        ("PortBindings", json!({"80/tcp": [{"HostIp": "10.0.0.1", "HostPort": "8080"}]})),
        ("PortBindings", json!({"80/tcp": [{"HostPort": "22"}]})),
    ];
    for (field, value) in refused {
        let error = host(field, value.clone()).expect_err(field);
        assert!(matches!(error, Error::Forbidden(_)), "{field}={value}: {error:?}");
        assert!(error.to_string().contains(field), "{field}: {error}");
    }
    for option in [
        "seccomp=unconfined",
        "apparmor=unconfined",
        "label=disable",
        "systempaths=unconfined",
        "no-new-privileges=false",
    ] {
        let error = host("SecurityOpt", json!([option])).expect_err(option);
        assert!(matches!(&error, Error::Forbidden(text) if text.contains(option)), "{error:?}");
    }
    assert!(matches!(host("Sysctls", json!({"kernel.core_pattern": "|x"})), Err(Error::Forbidden(_))));
    assert!(matches!(host("Annotations", json!({"run.oci.hooks": "x"})), Err(Error::Forbidden(_))));
}

#[test]
fn what_is_not_built_says_so() {
    for (field, value) in
        [("Mounts", json!([{"Type": "image", "Source": "v", "Target": "/x"}])), ("Cgroup", json!("container:abc"))]
    {
        assert!(matches!(host(field, value), Err(Error::NotImplemented(_))), "{field}");
    }
}

#[test]
fn ranges_have_dockerds_texts() {
    let text = |field: &str, value: Value| host(field, value).expect_err(field).to_string();
    assert_eq!(text("Memory", json!(1)), "Minimum memory limit allowed is 6MB");
    assert_eq!(text("Memory", json!(-1)), "Minimum memory limit allowed is 6MB");
    assert_eq!(text("ShmSize", json!(-1)), "SHM size can not be less than 0");
    assert_eq!(text("BlkioWeight", json!(5)), "Range of blkio weight is from 10 to 1000");
    assert_eq!(text("Runtime", json!("kata")), "unknown or invalid runtime name: kata");
    assert!(host("NanoCpus", json!(i64::MIN)).is_err());
    assert!(host("Ulimits", json!([{"Name": "nofile", "Soft": 10, "Hard": 5}])).is_err());
    assert!(host("CpusetCpus", json!("0-x")).is_err());
    assert!(host("CapDrop", json!(["NOPE"])).is_err());
}

#[test]
fn the_users_settings_lie_over_the_images() {
    let spec = create(json!({
        "Image": "i", "Env": ["A=user", "B=2"], "Labels": {"x": "user"}, "ExposedPorts": {"443/tcp": {}},
        "HostConfig": {"Memory": 67_108_864, "NanoCpus": 500_000_000, "PidsLimit": -1, "CapDrop": ["ALL"], "CapAdd": ["CHOWN"]}
    }))
    .expect("translates")
    .spec;
    assert_eq!(spec.env, ["A=user", "B=2", "PATH=/bin"]);
    assert_eq!(spec.labels, [("x".to_owned(), "user".to_owned())].into());
    assert_eq!(spec.exposed_ports, ["80/tcp", "443/tcp"]);
    assert_eq!((spec.cmd.as_slice(), spec.entrypoint.len()), (&["sh".to_owned()][..], 0));
    assert_eq!(spec.resources.memory_bytes, Some(model::MemoryBytes(67_108_864)));
    assert_eq!(spec.resources.pids_limit, None);
}

#[test]
fn an_entrypoint_of_the_user_drops_the_images_command() {
    let spec = create(json!({"Image": "i", "Entrypoint": ["/bin/echo"]})).expect("translates").spec;
    assert_eq!((spec.entrypoint.len(), spec.cmd.len()), (1, 0));
    let error = create(json!({"Image": "i", "Entrypoint": [""]})).expect_err("nothing to run").to_string();
    assert_eq!(error, "no command specified");
}

#[test]
fn an_automatic_removal_excludes_restarts() {
    let body = json!({"Image": "i", "HostConfig": {"AutoRemove": true, "RestartPolicy": {"Name": "always"}}});
    assert_eq!(
        create(body).expect_err("refused").to_string(),
        "can't create 'AutoRemove' container with restart policy"
    );
    assert!(host("RestartPolicy", json!({"Name": "sometimes"})).is_err());
}

#[test]
fn a_tmpfs_keeps_its_options_and_stays_off_the_runtimes_places() {
    let spec = host("Tmpfs", json!({"/t/": "size=64m,mode=1770,exec"})).expect("translates").spec;
    let mount = &spec.tmpfs[0];
    assert_eq!(
        (mount.path.as_str(), mount.size_bytes, mount.mode, mount.exec),
        ("/t", Some(64 << 20), Some(0o1770), true)
    );
    for path in ["/proc", "/sys/fs", "relative", "/a/../proc", "/"] {
        assert!(host("Tmpfs", json!({path: ""})).is_err(), "{path}");
    }
}

#[test]
fn the_shown_document_has_no_defaults_but_keeps_empty_values_in_maps() {
    let spec = host("Tmpfs", json!({"/t": ""})).expect("translates").spec;
    assert_eq!(
        serde_json::to_value(&spec.shown["HostConfig"]).expect("json"),
        json!({"LogConfig": {"Type": "json-file", "Config": {}}, "NetworkMode": "bridge",
               "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0}, "ConsoleSize": [0, 0], "Tmpfs": {"/t": ""}})
    );
}

#[test]
fn signals_come_by_name_or_number() {
    for (written, number) in
        [("9", 9), ("KILL", 9), ("SIGTERM", 15), ("sigusr1", 10), ("RTMIN+3", 37), ("SIGRTMAX-1", 63)]
    {
        assert_eq!(signal_number(written), Some(number), "{written}");
    }
    for bad in ["", "0", "65", "SIGNOPE", "-9", "RTMIN+99"] {
        assert_eq!(signal_number(bad), None, "{bad}");
    }
}

#[test]
fn a_variable_without_a_value_is_not_set_and_is_shown() {
    let body = typed::<CreateBody>(json!({"Env": ["LEFT", "A=1", "GONE"], "Cmd": ["sh"]})).expect("a body");
    let image = ImageConfig { env: vec!["GONE=1".into(), "B=2".into()], ..ImageConfig::default() };
    let spec = translate(&body, &image).expect("translates").spec;
    assert_eq!(spec.env, ["A=1", "B=2"]);
    assert_eq!(spec.shown["Config"]["Env"], json!(["LEFT", "A=1", "GONE", "B=2"]));
}
