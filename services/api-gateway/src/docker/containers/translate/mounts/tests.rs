//! Every syntax of a mount, and what dockerd says to a wrong one.

use model::Error;
use serde_json::{Value, json};

use super::*;
use crate::docker::containers::body::typed;

fn read(document: Value) -> Result<Mounts> {
    let image = ImageConfig { volumes: vec!["/var/data".into()], ..ImageConfig::default() };
    mounts(&typed::<CreateBody>(document).expect("a body"), &image)
}

fn host(field: &str, value: Value) -> Result<Mounts> {
    read(json!({"HostConfig": {field: value}}))
}

fn text(field: &str, value: Value) -> String {
    host(field, value).expect_err("refused").to_string()
}

#[test]
fn a_bind_has_a_name_a_path_and_a_mode() {
    let all = host("Binds", json!(["data:/data", "logs:/logs/:ro,nocopy", "/anon"])).expect("reads");
    let [data, logs, anon, image] = &all.volumes[..] else { panic!("{:?}", all.volumes) };
    assert_eq!((data.path.as_str(), data.shown_mode.as_str(), data.read_only), ("/data", "z", false));
    assert_eq!((logs.path.as_str(), logs.shown_mode.as_str(), logs.read_only), ("/logs", "ro,nocopy", true));
    assert!(logs.no_copy && !data.no_copy && anon.volume.name.is_none());
    assert_eq!((image.path.as_str(), image.is_default), ("/var/data", true));
}

#[test]
fn dockerds_texts_for_what_is_no_bind() {
    assert_eq!(text("Binds", json!([":/x"])), "invalid volume specification: ':/x'");
    assert_eq!(text("Binds", json!(["a:/b:ro:c"])), "invalid volume specification: 'a:/b:ro:c'");
    assert_eq!(text("Binds", json!(["/x:rw"])), "invalid volume specification: '/x:rw'");
    assert_eq!(text("Binds", json!(["data:/b:rwx"])), "invalid mode: rwx");
    assert_eq!(text("Binds", json!(["data:/b:rshared"])), "invalid mode: rshared");
    assert_eq!(text("Binds", json!(["data:b"])), "invalid mount path: 'b' mount path must be absolute");
    assert_eq!(text("Binds", json!(["data:/"])), "invalid specification: destination can't be '/'");
    assert_eq!(text("Binds", json!(["aa:/x", "bb:/x/"])), "Duplicate mount point: /x");
    assert!(text("Binds", json!(["./here:/x"])).contains("If you intended to pass a host directory"));
}

#[test]
fn a_path_of_the_host_is_refused_with_a_way_out() {
    for (field, value) in [
        ("Binds", json!(["/var/run/docker.sock.d:/var/run/docker.sock"])),
        ("Mounts", json!([{"Type": "bind", "Source": "/proc", "Target": "/x"}])),
    ] {
        let error = host(field, value).expect_err("refused");
        assert!(matches!(&error, Error::Forbidden(text) if text.contains("docker cp")), "{error:?}");
    }
}

#[test]
fn a_mount_of_a_volume_has_all_its_options() {
    let options = json!({"NoCopy": true, "Labels": {"a": "b"}, "Subpath": "in/side",
        "DriverConfig": {"Name": "local", "Options": {"size": "64m"}}});
    let mount =
        json!([{"Type": "volume", "Source": "data", "Target": "/d", "ReadOnly": true, "VolumeOptions": options}]);
    let all = host("Mounts", mount).expect("reads");
    let mount = &all.volumes[0];
    assert!(mount.no_copy && mount.read_only && mount.subpath == "in/side");
    assert_eq!(mount.volume.labels, [("a".to_owned(), "b".to_owned())].into());
    assert_eq!(mount.volume.backing, model::VolumeBacking::Sized { size_bytes: 64 << 20 });
}

#[test]
fn a_mount_that_contradicts_itself_is_refused_by_field() {
    let error = |more: Value| {
        let mut mount = json!({"Type": "volume", "Target": "/d"});
        mount.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        text("Mounts", json!([mount]))
    };
    let frame = "invalid mount config for type \"volume\": ";
    assert_eq!(error(json!({"BindOptions": {}})), format!("{frame}field BindOptions must not be specified"));
    assert_eq!(error(json!({"Target": ""})), format!("{frame}field Target must not be empty"));
    assert_eq!(
        error(json!({"ReadOnly": true})),
        format!("{frame}must not set ReadOnly mode when using anonymous volumes")
    );
    for subpath in ["../x", "/x", "a/../../x", "a//b"] {
        let options = json!({"Source": "data", "VolumeOptions": {"Subpath": subpath}});
        assert_eq!(error(options), format!("{frame}subpath must be a relative path within the volume"), "{subpath}");
    }
    let nfs = json!({"Source": "v1", "VolumeOptions": {"DriverConfig": {"Options": {"type": "nfs", "device": ":/"}}}});
    assert!(error(nfs).contains("not available on Wharfage"));
    let plugin = json!({"VolumeOptions": {"DriverConfig": {"Name": "rexray"}}});
    assert_eq!(error(plugin), "error looking up volume plugin rexray: plugin \"rexray\" not found");
}

#[test]
fn what_the_image_declares_gives_way_to_what_the_user_mounts() {
    for (field, value) in [("Binds", json!(["data:/var/data"])), ("Tmpfs", json!({"/var/data": ""}))] {
        let all = host(field, value).expect("reads");
        assert!(all.volumes.iter().all(|mount| !mount.is_default), "{field}");
    }
    let all = read(json!({"Volumes": {"/var/data": {}, "/other/": {}}})).expect("reads");
    let paths: Vec<&str> = all.volumes.iter().map(|mount| mount.path.as_str()).collect();
    assert_eq!(paths, ["/var/data", "/other"]);
    assert!(read(json!({"Volumes": {"/../../": {}}})).is_err() && read(json!({"Volumes": {"/proc/x": {}}})).is_err());
}

#[test]
fn volumes_of_others_come_with_or_without_the_right_to_write() {
    let all = host("VolumesFrom", json!(["web", "db:ro"])).expect("reads");
    let shared: Vec<_> = all.shared.iter().map(|s| (s.container.as_str(), s.read_only)).collect();
    assert_eq!(shared, [("web", false), ("db", true)]);
    assert!(host("VolumesFrom", json!(["db:nocopy"])).is_err() && host("VolumesFrom", json!([":ro"])).is_err());
}

#[test]
fn a_tmpfs_keeps_every_option() {
    let all = host("Tmpfs", json!({"/t": "ro,uid=7,gid=8,nr_inodes=1k,size=1m"})).expect("reads");
    let mount = &all.tmpfs[0];
    assert_eq!((mount.uid, mount.gid, mount.inodes, mount.read_only), (Some(7), Some(8), Some(1024), true));
    let mounts = json!([{"Type": "tmpfs", "Target": "/t", "ReadOnly": true,
        "TmpfsOptions": {"SizeBytes": 5, "Mode": 0o700, "Options": [["exec"]]}}]);
    let all = host("Mounts", mounts).expect("reads");
    assert!(all.tmpfs[0].exec && all.tmpfs[0].read_only && all.tmpfs[0].is_shown);
    let bad = json!([{"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"Options": [["suid"]]}}]);
    assert_eq!(text("Mounts", bad), "invalid mount config for type \"tmpfs\": invalid option: suid");
}

#[test]
fn a_driver_that_is_not_here_is_named_when_a_volume_needs_it() {
    let named = "error looking up volume plugin x: plugin \"x\" not found";
    assert_eq!(text("VolumeDriver", json!("x")), named, "the image has a volume");
    let of = |host: Value| {
        mounts(&typed::<CreateBody>(json!({ "HostConfig": host })).expect("a body"), &ImageConfig::default())
    };
    let bind = of(json!({"VolumeDriver": "x", "Binds": ["data:/data"]}));
    assert_eq!(bind.expect_err("refused").to_string(), named);
    let mount = json!([{"Type": "volume", "Source": "data", "Target": "/data"}]);
    assert!(of(json!({"VolumeDriver": "x", "Mounts": mount})).is_ok(), "a mount names its own");
    assert!(of(json!({"VolumeDriver": "x"})).is_ok(), "nothing to make");
}

#[test]
fn the_docker_socket_is_the_one_source_that_is_no_path_of_a_host() {
    let all =
        host("Binds", json!(["/var/run/docker.sock:/var/run/docker.sock", "/run/docker.sock:/tmp/d:ro,rprivate"]));
    let all = all.expect("reads").sockets;
    let seen: Vec<_> = all.iter().map(|s| (s.path.as_str(), s.read_only, s.shown_mode.as_str())).collect();
    assert_eq!(seen, [("/var/run/docker.sock", false, ""), ("/tmp/d", true, "ro,rprivate")]);
    let mount = json!([{"Type": "bind", "Source": "/var/run/docker.sock", "Target": "/d", "ReadOnly": true}]);
    let all = host("Mounts", mount).expect("reads").sockets;
    assert_eq!(
        (all[0].path.as_str(), all[0].read_only, all[0].shown_source.as_str()),
        ("/d", true, "/var/run/docker.sock")
    );
    for (written, said) in [
        ("/var/run/docker.sock:/d:nocopy", "invalid mode: nocopy"),
        ("/var/run/docker.sock:/d:rshared", "invalid mode: rshared"),
        ("/var/run/docker.sock:d", "invalid mount path: 'd' mount path must be absolute"),
        ("/var/run/docker.sock:/proc/x", "the runtime's own"),
    ] {
        assert!(text("Binds", json!([written])).contains(said), "{written}: {}", text("Binds", json!([written])));
    }
    let twice = json!(["/var/run/docker.sock:/d", "data:/d"]);
    assert_eq!(text("Binds", twice), "Duplicate mount point: /d");
    let shared = json!([{"Type": "bind", "Source": "/run/docker.sock", "Target": "/d", "BindOptions": {"Propagation": "shared"}}]);
    assert!(text("Mounts", shared).contains("propagation"));
}
