//! Images: pull, list, inspect, remove.

use tests::{Suite, unique};

#[test]
fn a_pull_says_what_docker_says() {
    let docker = Suite::here().docker();
    let _ = docker.ok(&["pull", "busybox:latest"]);
    let again = docker.ok(&["pull", "busybox:latest"]);
    assert!(again.contains("Status: Image is up to date for busybox:latest"), "{again}");
    assert!(again.contains("Digest: sha256:"), "{again}");
    assert!(docker.ok(&["images", "busybox"]).contains("latest"));
}

#[test]
fn an_absent_image_is_pulled_by_run() {
    let suite = Suite::here();
    let docker = suite.docker();
    let _ = docker.run(&["rmi", "-f", "busybox:1.35"]);
    let outcome = docker.run(&["run", "--rm", "busybox:1.35", "echo", "pulled"]);
    assert_eq!(outcome.stdout.trim(), "pulled", "{outcome:?}");
    assert!(outcome.stderr.contains("Unable to find image 'busybox:1.35' locally"), "{outcome:?}");
}

#[test]
fn an_unknown_image_is_a_clear_error() {
    let docker = Suite::here().docker();
    let outcome = docker.run(&["run", "--rm", "no-such-image", "true"]);
    assert_eq!(outcome.code, 125, "{outcome:?}");
    let outcome = docker.run(&["pull", "busybox:no-such-tag"]);
    assert_eq!(outcome.code, 1);
    assert!(outcome.stderr.contains("no-such-tag"), "{outcome:?}");
}

#[test]
fn an_unreachable_registry_is_a_clear_error() {
    let docker = Suite::here().docker();
    let outcome = docker.run(&["pull", "registry.invalid/a/b:1"]);
    assert_eq!(outcome.code, 1);
    assert!(outcome.stderr.contains("registry.invalid"), "{outcome:?}");
}

#[test]
fn the_suites_own_ports_cannot_be_pulled_from() {
    let suite = Suite::here();
    let docker = suite.docker();
    let target = suite.var("WHARFAGE_URL").trim_start_matches("http://").to_owned();
    for registry in [target.as_str(), "169.254.169.254", "127.0.0.1:22"] {
        let outcome = docker.run(&["pull", &format!("{registry}/x/y:1")]);
        assert_ne!(outcome.code, 0, "{registry}");
    }
}

#[test]
fn image_inspect_and_history_know_the_image() {
    let docker = Suite::here().docker();
    let _ = docker.ok(&["pull", "httpd"]);
    assert_eq!(docker.ok(&["image", "inspect", "-f", "{{.Os}}/{{.Architecture}}", "httpd"]), "linux/amd64");
    assert!(!docker.ok(&["history", "-q", "httpd"]).is_empty());
}

#[test]
fn an_image_in_use_is_not_removed() {
    let docker = Suite::here().docker();
    let name = unique("uses-image");
    let _ = docker.ok(&["create", "--name", &name, "hello-world"]);
    let refused = docker.run(&["rmi", "hello-world"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("unable to remove"), "{refused:?}");
    docker.remove(&[&name]);
}

#[test]
fn all_tags_of_a_repository_are_pulled() {
    let suite = Suite::here();
    let docker = suite.docker_as(suite.var("WHARFAGE_TOKEN_2"));
    let told = docker.ok(&["pull", "-a", "hello-world"]);
    assert_eq!(told.matches("Digest: ").count(), 2, "{told}");
    assert!(told.lines().any(|line| line.starts_with("Status: ") && line.ends_with(" for hello-world")), "{told}");
    let tags = docker.ok(&["images", "--format", "{{.Tag}}", "hello-world"]);
    assert!(["latest", "linux"].iter().all(|tag| tags.lines().any(|line| line == *tag)), "{tags}");
}

#[test]
fn containers_of_an_image_are_those_of_its_children_too() {
    let docker = Suite::here().docker();
    let (base, child, image) = (unique("base"), unique("child"), unique("child-image"));
    let _ = docker.ok(&["run", "--name", &base, "busybox", "touch", "/made"]);
    let _ = docker.ok(&["commit", &base, &image]);
    let _ = docker.ok(&["create", "--name", &child, &image, "true"]);
    let of = |ancestor: &str| {
        docker.ok(&["ps", "-a", "--filter", &format!("ancestor={ancestor}"), "--format", "{{.Names}}"])
    };
    let has = |list: &str, name: &str| list.lines().any(|line| line == name);
    assert!(has(&of("busybox"), &base) && has(&of("busybox"), &child));
    assert!(!has(&of(&image), &base) && has(&of(&image), &child));
    docker.remove(&[&base, &child]);
    let _ = docker.ok(&["rmi", &image]);
}
