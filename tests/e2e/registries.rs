//! Registries of others: pushed to, asked about, searched.

use tests::{Suite, unique};

#[test]
fn an_image_is_pushed_to_another_registry_and_pulled_from_there() {
    let suite = Suite::here();
    let docker = suite.docker();
    let upstream = suite.var("WHARFAGE_UPSTREAM");
    let (container, repository) = (unique("pushes"), format!("{upstream}/out/{}", unique("app")));
    let (tagged, other) = (format!("{repository}:v1"), format!("{repository}-other:v1"));
    let _ = docker.ok(&["run", "--name", &container, "busybox", "sh", "-c", &format!("echo {container} > /made")]);
    let _ = docker.ok(&["commit", &container, &tagged]);
    docker.remove(&[&container]);
    let told = docker.ok(&["push", &tagged]);
    assert!(told.contains(&format!("The push refers to repository [{repository}]")), "{told}");
    assert!(told.contains(": Pushed") && told.contains("v1: digest: sha256:"), "{told}");
    assert!(docker.ok(&["push", &tagged]).contains("Layer already exists"));
    let _ = docker.ok(&["tag", &tagged, &other]);
    let mounted = docker.ok(&["push", &other]);
    assert!(mounted.contains("Mounted from out/"), "{mounted}");
    let stranger = suite.docker_as(suite.var("WHARFAGE_TOKEN_2"));
    assert!(stranger.ok(&["run", "--rm", &tagged, "cat", "/made"]).ends_with(&container));
    let _ = docker.ok(&["rmi", &tagged, &other]);
    let _ = stranger.ok(&["rmi", &tagged]);
}

#[test]
fn a_search_finds_hosted_and_official_images_and_not_those_of_others() {
    let suite = Suite::here();
    let docker = suite.docker();
    let name = unique("findme");
    let hosted = format!("{}/demo/demo/{name}", suite.var("WHARFAGE_REGISTRY"));
    let _ = docker.ok(&["pull", "busybox"]);
    let _ = docker.ok(&["tag", "busybox", &format!("{hosted}:v1")]);
    let _ = docker.ok(&["push", &format!("{hosted}:v1")]);
    assert_eq!(docker.ok(&["search", "--format", "{{.Name}}", &name]), hosted);
    let stranger = suite.docker_as(suite.var("WHARFAGE_TOKEN_2"));
    assert_eq!(stranger.ok(&["search", "--format", "{{.Name}}", &name]), "");
    let official =
        docker.ok(&["search", "--filter", "is-official=true", "--format", "{{.Name}} {{.IsOfficial}}", "busyb"]);
    assert_eq!(official, "busybox [OK]");
    let refused = docker.run(&["search", "--limit", "101", "busybox"]);
    assert!(refused.stderr.contains("limit 101 is outside the range of [1, 100]"), "{refused:?}");
    let _ = docker.ok(&["rmi", &format!("{hosted}:v1")]);
}

#[test]
fn a_registry_tells_descriptor_and_platforms_of_an_image() {
    let suite = Suite::here();
    let rest = suite.rest();
    let reply = rest.get("/distribution/busybox:latest/json");
    assert_eq!(reply.status, 200, "{}", reply.body);
    let platforms = &reply.json()["Platforms"];
    assert_eq!(platforms[0]["os"], "linux");
    assert!(reply.json()["Descriptor"]["digest"].as_str().is_some_and(|digest| digest.starts_with("sha256:")));
    let absent = rest.get("/distribution/busybox:no-such-tag/json");
    assert_eq!(absent.status, 404, "{}", absent.body);
}
