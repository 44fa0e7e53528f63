//! `docker save` and `docker load`, with the archives that other tools write and read.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use tests::{Docker, Suite, unique};

/// A directory that goes with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let at = std::env::temp_dir().join(unique("wharfage-e2e-archive"));
        std::fs::create_dir_all(&at).expect("a temporary directory");
        Self(at)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left over lies in the machine's temporary directory.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn shell(line: &str) -> String {
    let output = Command::new("sh").args(["-euc", line]).output().expect("a shell");
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{line}: {text}");
    text
}

/// An image of this test's own, under two names of one repository.
fn made(docker: &Docker) -> (String, String) {
    let (container, name) = (unique("save"), unique("saved"));
    let _ = docker.ok(&["run", "--name", &container, "busybox", "sh", "-c", &format!("echo {name} > /made")]);
    let _ = docker.ok(&["commit", "-c", "CMD [\"cat\", \"/made\"]", &container, &format!("{name}:1")]);
    let _ = docker.ok(&["tag", &format!("{name}:1"), &format!("{name}:2")]);
    docker.remove(&[&container]);
    let id = docker.ok(&["image", "inspect", "-f", "{{.Id}}", &format!("{name}:1")]);
    (name, id)
}

fn id_of(docker: &Docker, name: &str) -> String {
    docker.ok(&["image", "inspect", "-f", "{{.Id}}", name])
}

#[test]
fn what_is_saved_is_loaded_as_the_same_image() {
    let docker = Suite::here().docker();
    let scratch = Scratch::new();
    let (name, id) = made(&docker);
    let tar = scratch.file("saved.tar");
    let _ = docker.ok(&["save", "-o", &tar, &name, "busybox"]);
    let listed = shell(&format!("tar tf {tar}"));
    for member in ["blobs/sha256/", "index.json", "manifest.json", "oci-layout", "repositories"] {
        assert!(listed.lines().any(|line| line == member), "{member}: {listed}");
    }
    let layers = listed.lines().filter(|line| line.len() > 64).count();
    assert_eq!(layers, 2 * 2 + 2, "two images share a layer: {listed}");
    let _ = docker.ok(&["rmi", &format!("{name}:1"), &format!("{name}:2")]);
    assert_ne!(docker.run(&["image", "inspect", &name]).code, 0);
    let told = docker.ok(&["load", "-i", &tar]);
    for tag in ["1", "2"] {
        assert!(told.lines().any(|line| line == format!("Loaded image: {name}:{tag}")), "{told}");
    }
    assert_eq!(id_of(&docker, &format!("{name}:1")), id);
    assert_eq!(docker.ok(&["run", "--rm", &format!("{name}:2")]), name);
    let again = docker.ok(&["load", "-q", "-i", &tar]);
    assert!(again.contains(&format!("Loaded image: {name}:1")), "{again}");
    let absent = docker.run(&["save", "-o", &scratch.file("none.tar"), "no-such-image"]);
    assert!(absent.stderr.contains("No such image: no-such-image"), "{absent:?}");
    let _ = docker.ok(&["rmi", &format!("{name}:1"), &format!("{name}:2")]);
}

#[test]
fn an_image_saved_by_its_id_has_no_name_and_archives_may_be_packed() {
    let docker = Suite::here().docker();
    let scratch = Scratch::new();
    let (name, id) = made(&docker);
    let tar = scratch.file("saved.tar");
    let _ = docker.ok(&["save", "-o", &tar, &id]);
    let _ = docker.ok(&["rmi", "-f", &id]);
    shell(&format!("gzip -k {tar} && zstd -q {tar}"));
    let told = docker.ok(&["load", "-i", &format!("{tar}.gz")]);
    assert!(told.contains(&format!("Loaded image ID: {id}")), "{told}");
    assert!(docker.ok(&["load", "-i", &format!("{tar}.zst")]).contains(&id));
    assert_eq!(docker.ok(&["run", "--rm", &id]), name);
    let _ = docker.ok(&["rmi", &id]);
    let broken = docker.run_with_input(&["load"], b"this is no archive");
    assert_ne!(broken.code, 0, "{broken:?}");
    assert!(broken.stderr.contains("invalid archive"), "{broken:?}");
}

#[test]
fn skopeo_reads_what_is_saved_and_what_it_writes_is_loaded() {
    let suite = Suite::here();
    let docker = suite.docker();
    let scratch = Scratch::new();
    let (name, id) = made(&docker);
    let tar = scratch.file("saved.tar");
    let _ = docker.ok(&["save", "-o", &tar, &format!("{name}:1")]);
    let skopeo = |arguments: &str| shell(&format!("skopeo --insecure-policy {arguments}"));
    let inspected = skopeo(&format!("inspect --config --raw docker-archive:{tar}:{name}:1"));
    assert!(inspected.contains("\"/made\""), "{inspected}");
    for (kind, named) in [("docker-archive", format!("{name}:docker")), ("oci-archive", format!("{name}:oci"))] {
        let out = scratch.file(&format!("{kind}.tar"));
        // From the one format to the other, and from the other to the one.
        let from = if kind == "oci-archive" { format!("docker-archive:{tar}") } else { format!("oci-archive:{tar}") };
        skopeo(&format!("copy {from} {kind}:{out}:{named}"));
        assert!(Path::new(&out).exists());
        let told = docker.ok(&["load", "-i", &out]);
        assert!(told.contains(&format!("Loaded image: {named}")), "{kind}: {told}");
        assert_eq!(docker.ok(&["run", "--rm", &named]), name, "{kind}");
        if kind == "docker-archive" {
            assert_eq!(id_of(&docker, &named), id);
        }
        let _ = docker.ok(&["rmi", &named]);
    }
    let upstream = suite.var("WHARFAGE_UPSTREAM");
    let (out, named) = (scratch.file("upstream.tar"), format!("{name}:upstream"));
    skopeo(&format!(
        "copy --src-tls-verify=false docker://{upstream}/library/busybox:latest docker-archive:{out}:{named}"
    ));
    let _ = docker.ok(&["load", "-i", &out]);
    assert_eq!(docker.ok(&["run", "--rm", &named, "echo", "loaded"]), "loaded");
    let _ = docker.ok(&["rmi", &named, &format!("{name}:1"), &format!("{name}:2")]);
}

#[test]
fn nobody_saves_anothers_image() {
    let suite = Suite::here();
    let (docker, stranger) = (suite.docker(), suite.docker_as(suite.var("WHARFAGE_TOKEN_2")));
    let scratch = Scratch::new();
    let (name, id) = made(&docker);
    for asked in [format!("{name}:1"), id] {
        let refused = stranger.run(&["save", "-o", &scratch.file("x.tar"), &asked]);
        assert!(refused.stderr.contains("No such image"), "{refused:?}");
    }
    let _ = docker.ok(&["rmi", &format!("{name}:1"), &format!("{name}:2")]);
}
