//! A container's files from outside: `docker cp`, `diff`, `export`, whatever the container does.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use tests::{Docker, Outcome, Suite, unique};

/// A directory of the client's that goes with the test.
struct Client(PathBuf);

impl Client {
    fn new() -> Self {
        let dir = std::env::temp_dir().join(unique("wharfage-files"));
        fs::create_dir_all(dir.join("src/sub")).expect("create");
        fs::write(dir.join("src/file"), "hello\n").expect("write");
        fs::write(dir.join("src/sub/inner"), "inner\n").expect("write");
        fs::set_permissions(dir.join("src/file"), fs::Permissions::from_mode(0o640)).expect("mode");
        std::os::unix::fs::symlink("file", dir.join("src/link")).expect("link");
        Self(dir)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("text").to_owned()
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Names of the entries of a tar.
fn entries(docker: &Docker, args: &[&str]) -> Vec<String> {
    let output = docker.command(args).output().expect("the docker CLI is installed");
    assert!(output.status.success(), "docker {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    let mut archive = tar::Archive::new(output.stdout.as_slice());
    let names = archive.entries().expect("a tar").map(|e| e.expect("an entry"));
    names.map(|e| String::from_utf8_lossy(&e.path_bytes()).into_owned()).collect()
}

/// One container that runs, one that was never started, one that has ended.
fn in_every_state(docker: &Docker) -> [String; 3] {
    let names = ["files-running", "files-created", "files-ended"].map(unique);
    let _ = docker.ok(&["run", "-d", "--name", &names[0], "busybox", "sleep", "600"]);
    let _ = docker.ok(&["create", "--name", &names[1], "busybox", "sleep", "600"]);
    let _ = docker.ok(&["run", "--name", &names[2], "busybox", "true"]);
    names
}

#[test]
fn files_go_in_and_come_out_whatever_the_container_does() {
    let docker = Suite::here().docker();
    for name in in_every_state(&docker) {
        let client = Client::new();
        let at = |path: &str| format!("{name}:{path}");
        // Onto a name that is new, into a directory, and only what is in the directory.
        let _ = docker.ok(&["cp", &client.path("src"), &at("/tmp/new")]);
        let _ = docker.ok(&["cp", &client.path("src"), &at("/tmp/new")]);
        let _ = docker.ok(&["cp", &client.path("src/."), &at("/home")]);
        let _ = docker.ok(&["cp", &client.path("src/file"), &at("/tmp/renamed")]);
        for (from, to) in [("/tmp", "tmp"), ("/home/.", "home"), ("/tmp/renamed", "file")] {
            let _ = docker.ok(&["cp", &at(from), &client.path(to)]);
        }
        assert_eq!(client.read("tmp/new/src/sub/inner"), "inner\n", "{name}");
        assert_eq!(client.read("home/file"), "hello\n");
        assert_eq!(client.read("file"), "hello\n");
        let meta = fs::metadata(client.0.join("file")).expect("stat");
        assert_eq!(meta.permissions().mode() & 0o777, 0o640, "permissions go both ways");
        assert_eq!(fs::read_link(client.0.join("tmp/new/link")).expect("a link"), PathBuf::from("file"));
        let _ = docker.ok(&["cp", "-L", &at("/tmp/new/link"), &client.path("followed")]);
        assert_eq!(client.read("followed"), "hello\n");
        docker.remove(&[&name]);
    }
}

#[test]
fn a_started_container_has_what_was_copied_before_and_copied_files_outlive_a_restart() {
    let docker = Suite::here().docker();
    let (name, client) = (unique("files-before"), Client::new());
    let _ = docker.ok(&["create", "--name", &name, "busybox", "cat", "/etc/motd", "/later"]);
    let _ = docker.ok(&["cp", &client.path("src/file"), &format!("{name}:/etc/motd")]);
    assert!(docker.run(&["start", "-a", &name]).stdout.contains("hello"));
    let _ = docker.ok(&["cp", &client.path("src/sub/inner"), &format!("{name}:/later")]);
    assert_eq!(docker.run(&["start", "-a", &name]).stdout, "hello\ninner\n");
    docker.remove(&[&name]);
}

#[test]
fn tars_are_named_as_dockerd_names_them() {
    let docker = Suite::here().docker();
    let name = unique("files-names");
    let _ = docker.ok(&[
        "run",
        "--name",
        &name,
        "busybox",
        "sh",
        "-c",
        "mkdir /d; echo x >/d/f; ln /d/f /d/g; ln -s /d /l",
    ]);
    let named = |path: &str| entries(&docker, &["cp", &format!("{name}:{path}"), "-"]);
    assert_eq!(named("/d"), ["d/", "d/f", "d/g"]);
    assert_eq!(named("/d/"), ["d/", "d/f", "d/g"]);
    assert_eq!(named("/d/."), ["./", "./f", "./g"]);
    assert_eq!(named("/l"), ["l"], "a link is a link");
    assert_eq!(named("/l/"), ["l/", "l/f", "l/g"], "a slash goes through it");
    assert_eq!(named("/d/f"), ["f"]);
    let root = named("/");
    assert!(root.contains(&"/".to_owned()) && root.contains(&"/d/f".to_owned()), "{root:?}");
    let exported = entries(&docker, &["export", &name]);
    assert!(exported.contains(&"d/f".to_owned()) && exported.contains(&"bin/busybox".to_owned()), "{exported:?}");
    assert!(!exported.iter().any(|e| e.starts_with('/') || e.starts_with("proc/1")));
    docker.remove(&[&name]);
}

#[test]
fn what_is_not_there_or_may_not_be_written_is_told_in_dockerds_words() {
    let suite = Suite::here();
    let docker = suite.docker();
    let (name, client) = (unique("files-refused"), Client::new());
    let _ = docker.ok(&["run", "-d", "--name", &name, "--read-only", "--tmpfs", "/scratch", "busybox", "sleep", "600"]);
    let file = client.path("src/file");
    let told = |args: &[&str]| {
        let Outcome { code, stderr, .. } = docker.run(args);
        assert_ne!(code, 0, "{args:?}");
        stderr
    };
    let at = |path: &str| format!("{name}:{path}");
    let missing = format!("Could not find the file /nope in container {name}");
    assert!(told(&["cp", &at("/nope"), "-"]).contains(&missing));
    assert!(told(&["cp", &file, &at("/nope/x")]).contains(&missing));
    assert!(told(&["cp", &file, &at("/tmp/x")]).contains("container rootfs is marked read-only"));
    let _ = docker.ok(&["cp", &file, &at("/scratch/x")]);
    assert_eq!(docker.ok(&["exec", &name, "cat", "/scratch/x"]), "hello");
    // Nothing of the kernel's is read with the host's privileges.
    assert!(told(&["cp", &at("/proc/1/environ"), "-"]).contains("Could not find the file"));
    assert_eq!(entries(&docker, &["cp", &at("/sys"), "-"]), ["sys/"]);
    let rest = suite.rest();
    let status =
        |method: &str, path: &str| rest.send(method, &format!("/containers/{name}/archive{path}"), None).status;
    assert_eq!(status("GET", ""), 400);
    assert_eq!(status("HEAD", "?path=/nope"), 404);
    assert_eq!(status("PUT", "?path=/etc/passwd"), 400, "no directory");
    assert_eq!(status("PUT", "?path=/etc"), 403);
    docker.remove(&[&name]);
}

#[test]
fn the_stat_of_a_path_is_in_a_header_with_gos_mode() {
    let suite = Suite::here();
    let (docker, name) = (suite.docker(), unique("files-stat"));
    let _ = docker.ok(&["create", "--name", &name, "busybox", "true"]);
    let reply = suite.rest().send("HEAD", &format!("/containers/{name}/archive?path=/bin/sh"), None);
    assert_eq!(reply.status, 200, "{}", reply.body);
    let header = reply.headers["x-docker-container-path-stat"].as_bytes();
    let stat = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, header).expect("base64");
    let stat: serde_json::Value = serde_json::from_slice(&stat).expect("JSON");
    assert_eq!((&stat["name"], &stat["linkTarget"]), (&"sh".into(), &"/bin/busybox".into()));
    assert_eq!(stat["mode"], 134_218_239);
    docker.remove(&[&name]);
}

#[test]
fn diff_tells_what_was_added_changed_and_deleted() {
    let suite = Suite::here();
    let (docker, name) = (suite.docker(), unique("files-diff"));
    let script = "echo x >/etc/passwd; rm /etc/group; mkdir -p /new/dir; touch /new/dir/f";
    let _ = docker.ok(&["run", "--name", &name, "busybox", "sh", "-c", script]);
    let told = docker.ok(&["diff", &name]);
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines, ["C /etc", "D /etc/group", "C /etc/passwd", "A /new", "A /new/dir", "A /new/dir/f"]);
    let untouched = unique("files-untouched");
    let _ = docker.ok(&["run", "--name", &untouched, "busybox", "true"]);
    assert_eq!(suite.rest().get(&format!("/containers/{untouched}/changes")).body, "null\n");
    docker.remove(&[&name, &untouched]);
}

#[test]
fn a_large_file_goes_both_ways_whole() {
    let docker = Suite::here().docker();
    let (name, client) = (unique("files-large"), Client::new());
    let content: Vec<u8> = (0..48_u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    fs::write(client.0.join("large"), &content).expect("write");
    let _ = docker.ok(&["run", "-d", "--name", &name, "busybox", "sleep", "600"]);
    let _ = docker.ok(&["cp", &client.path("large"), &format!("{name}:/tmp/large")]);
    let _ = docker.ok(&["cp", &format!("{name}:/tmp/large"), &client.path("again")]);
    assert!(fs::read(client.0.join("again")).expect("read") == content, "it came back changed");
    docker.remove(&[&name]);
}

#[test]
fn another_projects_files_do_not_exist() {
    let suite = Suite::here();
    let (docker, name) = (suite.docker(), unique("files-mine"));
    let _ = docker.ok(&["create", "--name", &name, "busybox", "true"]);
    let other = suite.rest_2();
    for (method, path) in [
        ("HEAD", "archive?path=/"),
        ("GET", "archive?path=/"),
        ("PUT", "archive?path=/"),
        ("GET", "export"),
        ("GET", "changes"),
    ] {
        assert_eq!(other.send(method, &format!("/containers/{name}/{path}"), None).status, 404, "{method} {path}");
    }
    docker.remove(&[&name]);
}

#[test]
fn the_volumes_of_a_container_that_does_not_run_are_reached_where_it_would_have_them() {
    let docker = Suite::here().docker();
    let client = Client::new();
    let (name, reader, volume) = (unique("cp-volumes"), unique("cp-read-only"), unique("cp-data"));
    let (data, filled) = (format!("{volume}:/data/inner"), format!("{volume}-etc:/etc"));
    let _ = docker.ok(&["create", "--name", &name, "-v", &data, "-v", &filled, "busybox", "cat", "/data/inner/file"]);
    let at = |path: &str| format!("{name}:{path}");
    let _ = docker.ok(&["cp", &at("/etc/passwd"), &client.path("passwd")]);
    assert!(client.read("passwd").contains("root:x:0:0"), "filled from the image before the first start");
    let _ = docker.ok(&["cp", &client.path("src/file"), &at("/data/inner/")]);
    assert_eq!(docker.ok(&["start", "-a", &name]), "hello", "what went in before the start");
    let _ = docker.ok(&["cp", &at("/data/inner/file"), &client.path("out")]);
    assert_eq!(client.read("out"), "hello\n", "after its end");
    assert!(!docker.ok(&["diff", &name]).contains("/data/inner/file"), "the volume's file is not the container's");
    let sealed = format!("{volume}:/data/inner:ro");
    let _ = docker.ok(&["create", "--name", &reader, "-v", &sealed, "busybox", "true"]);
    let _ = docker.ok(&["cp", &format!("{reader}:/data/inner/file"), &client.path("again")]);
    let refused = docker.run(&["cp", &client.path("src/file"), &format!("{reader}:/data/inner/")]);
    assert!(refused.code != 0 && refused.stderr.contains("mounted volume is marked read-only"), "{refused:?}");
    docker.remove(&[&name, &reader]);
    // Nothing of the looks holds them.
    let _ = docker.ok(&["volume", "rm", &volume, &format!("{volume}-etc")]);
}

#[test]
fn a_container_can_be_copied_into_the_moment_it_is_created() {
    let docker = Suite::here().docker();
    let client = Client::new();
    for _ in 0..20 {
        let id = docker.ok(&["create", "busybox", "true"]);
        let _ = docker.ok(&["cp", &client.path("src/file"), &format!("{id}:/tmp/")]);
        docker.remove(&[&id]);
    }
}
