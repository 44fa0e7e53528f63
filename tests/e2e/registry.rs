//! The hosted registry, by the clients people use.

use std::process::Command;

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
