//! Device nodes by every way a file comes in (B23).

use tests::{Cell, Suite, unique};

use super::images::Image;

/// Disk, memory, FUSE.
const NODES: [(&str, char, u32, u32); 3] = [("disk", 'b', 254, 0), ("mem", 'c', 1, 1), ("fuse", 'c', 10, 229)];

#[test]
fn b23_a_device_cannot_even_be_made() {
    let docker = Suite::here().docker();
    let script = "mknod /disk b 254 0; mknod /mem c 1 1; mknod /fuse c 10 229; mknod /pipe p && echo pipe; ls /disk /mem /fuse 2>/dev/null";
    let outcome = docker.run(&["run", "--rm", "busybox", "sh", "-c", script]);
    assert_eq!(outcome.stdout, "pipe\n", "{outcome:?}");
    assert_eq!(outcome.stderr.matches("Operation not permitted").count(), 3, "{outcome:?}");
}

/// A tar with a node of each kind, and a file.
fn archive() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, kind, major, minor) in NODES {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(if kind == 'b' { tar::EntryType::Block } else { tar::EntryType::Char });
        header.set_mode(0o666);
        header.set_size(0);
        header.set_device_major(major).expect("a number");
        header.set_device_minor(minor).expect("a number");
        tar.append_data(&mut header, name, std::io::empty()).expect("appends");
    }
    tar.into_inner().expect("a tar")
}

#[test]
fn b23_no_device_comes_in_by_an_archive_a_layer_a_copy_or_a_volume() {
    let suite = Suite::here();
    let docker = suite.docker();
    let volume = unique("nodes");
    let cell = Cell::start(&docker, &["-v", &format!("{volume}:/v")]);
    for place in ["/tmp", "/v"] {
        let outcome = docker.run_with_input(&["cp", "-", &format!("{}:{place}", cell.name)], &archive());
        assert_ne!(outcome.code, 0, "{place}: {outcome:?}");
    }
    let made = cell.sh(
        "for d in /tmp /v; do mknod $d/disk b 254 0; mknod $d/mem c 1 1; done; find / -xdev -type b -o -xdev -type c",
    );
    assert_eq!(made.matches("Operation not permitted").count(), 4, "{made}");
    assert!(!made.contains("/disk\n") && !made.ends_with("/mem"), "{made}");
    // A layer with a device is no image.
    let mut image = Image::new();
    image.bytes(&archive());
    let refused = image.import(&docker).err().unwrap_or_else(|| panic!("a layer with devices was taken"));
    assert!(refused.contains("device"), "{refused}");
    // What root of the host puts there for it cannot be opened either: the mount has no devices.
    let name = unique("planted");
    let id =
        docker.ok(&["create", "--name", &name, "busybox", "sh", "-c", "ls -l /planted; head -c 1 /planted | wc -c"]);
    let planted = suite.root.join(format!(".wharfage/host-1/containers/{id}/upper/planted"));
    tests::eventually("it is prepared", std::time::Duration::from_secs(10), || {
        planted.parent().is_some_and(std::path::Path::exists)
    });
    let plant = std::process::Command::new("mknod").arg("-m666").arg(&planted).args(["c", "1", "5"]).status();
    assert!(plant.expect("runs").success());
    let opened = docker.run(&["start", "-a", &name]);
    assert!(opened.stdout.starts_with("crw-rw-rw-") && opened.stdout.ends_with("\n0\n"), "{opened:?}");
    assert!(opened.stderr.contains("Permission denied"), "{opened:?}");
    drop(std::fs::File::open(&planted).expect("the control: who has devices opens it"));
    docker.remove(&[&name]);
    drop(cell);
    let _ = docker.ok(&["volume", "rm", &volume]);
}
