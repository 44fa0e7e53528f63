//! The hosted registry, by the clients people use.

use std::{path::PathBuf, process::Command};

use tests::{Suite, unique};

fn skopeo(arguments: &[&str]) -> (bool, String) {
    let output = Command::new("skopeo").arg("--insecure-policy").args(arguments).output().expect("skopeo is installed");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

fn copied(arguments: &[&str]) -> String {
    let (done, text) = skopeo(arguments);
    assert!(done, "skopeo {arguments:?}: {text}");
    text
}

#[test]
fn skopeo_copies_in_and_out_and_only_where_it_may() {
    let suite = Suite::here();
    let (registry, upstream) = (suite.var("WHARFAGE_REGISTRY"), suite.var("WHARFAGE_UPSTREAM"));
    let credentials = format!("anyone:{}", suite.var("WHARFAGE_TOKEN"));
    let strangers = format!("anyone:{}", suite.var("WHARFAGE_TOKEN_2"));
    let name = unique("app");
    let (there, elsewhere) =
        (format!("docker://{registry}/demo/demo/{name}:v1"), format!("docker://{registry}/demo/demo/{name}-2:v1"));
    let from = format!("docker://{upstream}/library/busybox:latest");
    let insecure = ["--src-tls-verify=false", "--dest-tls-verify=false"];
    let copy = |more: &[&str]| [&["copy"][..], &insecure[..], more].concat().join(" ");
    let run = |line: String| copied(&line.split(' ').collect::<Vec<_>>());
    run(copy(&["--all", "--dest-creds", &credentials, &from, &there]));
    // From repository to repository, which mounts what is there.
    run(copy(&["--src-creds", &credentials, "--dest-creds", &credentials, &there, &elsewhere]));
    let directory = std::env::temp_dir().join(unique("wharfage-e2e-oci"));
    let out = format!("oci:{}:v1", directory.display());
    run(copy(&["--src-creds", &credentials, &there, &out]));
    let back = format!("docker://{registry}/demo/demo/{name}:back");
    run(copy(&["--dest-creds", &credentials, &out, &back]));
    std::fs::remove_dir_all(directory).expect("skopeo wrote it");
    let tags = copied(&["list-tags", "--tls-verify=false", "--creds", &credentials, there.trim_end_matches(":v1")]);
    assert!(tags.contains("\"back\"") && tags.contains("\"v1\""), "{tags}");
    for who in [Some(strangers.as_str()), None] {
        let mut line = vec!["inspect", "--tls-verify=false"];
        line.extend(who.into_iter().flat_map(|who| ["--creds", who]));
        line.push(&there);
        assert!(!skopeo(&line).0, "{who:?}");
    }
    let _ = copied(&["delete", "--tls-verify=false", "--creds", &credentials, &back]);
    assert!(!skopeo(&["inspect", "--tls-verify=false", "--creds", &credentials, &back]).0);
}

/// buildah or podman, with a store of its own that goes with it. Neither runs anything here.
struct Client<'a> {
    program: &'a str,
    store: PathBuf,
}

impl Drop for Client<'_> {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.store);
    }
}

impl<'a> Client<'a> {
    fn new(program: &'a str) -> Self {
        let store = std::env::temp_dir().join(unique("wharfage-e2e-store"));
        std::fs::create_dir(&store).expect("a directory");
        Self { program, store }
    }

    fn run(&self, arguments: &[&str]) -> (bool, String) {
        let at = |name: &str| self.store.join(name);
        let mut command = Command::new(self.program);
        command.arg("--root").arg(at("root")).arg("--runroot").arg(at("run")).args(["--storage-driver", "vfs"]);
        if self.program == "podman" {
            command.args(["--cgroup-manager", "cgroupfs", "--events-backend", "none", "--tmpdir"]).arg(at("tmp"));
        }
        let output = command.args(arguments).output().expect("it is installed");
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    }

    /// The last line of what it says.
    fn ok(&self, arguments: &[&str]) -> String {
        let (done, text) = self.run(arguments);
        assert!(done, "{} {arguments:?}: {text}", self.program);
        text.lines().last().unwrap_or_default().to_owned()
    }
}

#[test]
fn what_buildah_builds_goes_through_podman_and_comes_back_and_docker_runs_it() {
    let suite = Suite::here();
    let credentials = format!("anyone:{}", suite.var("WHARFAGE_TOKEN"));
    let strangers = format!("anyone:{}", suite.var("WHARFAGE_TOKEN_2"));
    let name = format!("{}/demo/demo/{}", suite.var("WHARFAGE_REGISTRY"), unique("built"));
    let (built, tagged) = (format!("{name}:v1"), format!("{name}:v2"));
    let (buildah, podman) = (Client::new("buildah"), Client::new("podman"));
    // On top of what the registry holds already.
    let upstream = format!("docker://{}/library/busybox:latest", suite.var("WHARFAGE_UPSTREAM"));
    let base = format!("docker://{name}:base");
    copied(&[
        "copy",
        "--src-tls-verify=false",
        "--dest-tls-verify=false",
        "--dest-creds",
        &credentials,
        &upstream,
        &base,
    ]);
    let (tls, creds) = ("--tls-verify=false", "--creds");
    let container = buildah.ok(&["from", "--quiet", tls, creds, &credentials, &base]);
    let content = buildah.store.join("content");
    std::fs::write(&content, "made by buildah").expect("written");
    let content = content.display().to_string();
    buildah.ok(&["add", "--quiet", &container, &content, "/content"]);
    buildah.ok(&["config", "--cmd", "cat /content", &container]);
    for (format, target) in [("oci", &built), ("docker", &format!("{name}:docker"))] {
        buildah.ok(&["commit", "--quiet", "--format", format, &container, target]);
        buildah.ok(&["push", "--quiet", tls, creds, &credentials, target]);
        // Again: everything is there.
        buildah.ok(&["push", "--quiet", tls, creds, &credentials, target]);
    }
    let id = podman.ok(&["pull", "--quiet", tls, creds, &credentials, &built]);
    podman.ok(&["tag", &id, &tagged]);
    podman.ok(&["push", "--quiet", tls, creds, &credentials, &tagged]);
    assert_eq!(buildah.ok(&["pull", "--quiet", tls, creds, &credentials, &tagged]), id, "it came back as it was");
    let wrong = format!("{credentials}x");
    for program in ["buildah", "podman"] {
        // With a store that does not hold it already.
        let elsewhere = Client::new(program);
        for who in [&strangers, &wrong] {
            let (done, text) = elsewhere.run(&["pull", "--quiet", tls, creds, who, &tagged]);
            assert!(!done, "{program}: {text}");
        }
        let (done, text) = elsewhere.run(&["pull", "--quiet", tls, &tagged]);
        assert!(!done, "{program}, nobody: {text}");
        elsewhere.ok(&["pull", "--quiet", tls, creds, &credentials, &tagged]);
        for who in [&strangers, &wrong] {
            let (done, text) = elsewhere.run(&["push", "--quiet", tls, creds, who, &tagged]);
            assert!(!done, "{program}: {text}");
        }
    }
    let docker = suite.docker();
    for image in [&tagged, &format!("{name}:docker")] {
        assert_eq!(docker.ok(&["run", "--rm", image]).lines().last(), Some("made by buildah"));
    }
}

#[test]
fn who_logs_in_by_podman_or_buildah_pushes_and_pulls_until_they_log_out() {
    let suite = Suite::here();
    let registry = suite.var("WHARFAGE_REGISTRY");
    let upstream = format!("docker://{}/library/busybox:latest", suite.var("WHARFAGE_UPSTREAM"));
    for program in ["podman", "buildah"] {
        let client = Client::new(program);
        let secrets = client.store.join("auth.json").display().to_string();
        let login = |password: &str| {
            let line =
                ["login", "--tls-verify=false", "--authfile", &secrets, "-u", "anyone", "-p", password, registry];
            client.run(&line)
        };
        let (done, text) = login("whf_wrong");
        assert!(!done, "{program}: {text}");
        let (done, text) = login(suite.var("WHARFAGE_TOKEN"));
        assert!(done, "{program}: {text}");
        let target = format!("{registry}/demo/demo/{}:v1", unique("logged-in"));
        client.ok(&["pull", "--quiet", "--tls-verify=false", &upstream]);
        let with = ["--quiet", "--tls-verify=false", "--authfile", &secrets];
        let id = client.ok(&["images", "--quiet", "--no-trunc"]);
        client.ok(&[&["push"][..], &with, &[&id, &target]].concat());
        assert_eq!(client.ok(&[&["pull"][..], &with, &[&target]].concat()), id.trim_start_matches("sha256:"));
        client.ok(&["logout", "--authfile", &secrets, registry]);
        // With a store that does not hold it already.
        let (done, text) = Client::new(program).run(&[&["pull"][..], &with, &[&target]].concat());
        assert!(!done, "{program}, logged out: {text}");
    }
}

#[test]
fn what_docker_pushes_is_pulled_and_run() {
    let suite = Suite::here();
    let docker = suite.docker();
    let name = format!("{}/demo/demo/{}", suite.var("WHARFAGE_REGISTRY"), unique("pushed"));
    let tagged = format!("{name}:v1");
    let _ = docker.ok(&["pull", "busybox"]);
    let _ = docker.ok(&["tag", "busybox", &tagged]);
    let told = docker.ok(&["push", &tagged]);
    assert!(told.contains(&format!("The push refers to repository [{name}]")), "{told}");
    assert!(told.contains(": Pushed") && told.contains("v1: digest: sha256:"), "{told}");
    assert!(docker.ok(&["push", &tagged]).contains("Layer already exists"));
    let _ = docker.ok(&["rmi", &tagged]);
    assert_eq!(
        docker.ok(&["run", "--rm", &tagged, "echo", "from the registry"]).lines().last(),
        Some("from the registry")
    );
    let absent = docker.run(&["push", &format!("{name}-absent:v1")]);
    assert!(absent.stderr.contains("An image does not exist locally with the tag"), "{absent:?}");
    let _ = docker.ok(&["tag", "busybox", &format!("{}/other/demo/x:v1", suite.var("WHARFAGE_REGISTRY"))]);
    let foreign = docker.run(&["push", &format!("{}/other/demo/x:v1", suite.var("WHARFAGE_REGISTRY"))]);
    assert!(foreign.stderr.contains("requested access to the resource is denied"), "{foreign:?}");
    let stranger = suite.docker_as(suite.var("WHARFAGE_TOKEN_2"));
    assert!(stranger.run(&["pull", &tagged]).stderr.contains("pull access denied"));
}
