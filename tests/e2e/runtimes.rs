//! Runtime classes: what a project may name, what hosts have, and what becomes of a container that
//! names one no host has.

use serde_json::{Value, json};
use tests::{Suite, unique};

/// Of the first host: why it does not offer a runtime; `None` where it does.
fn missing(hosts: &Value, runtime: &str) -> Option<String> {
    let all = hosts["items"][0]["runtimes"].as_array().expect("runtimes").clone();
    match all.iter().find(|found| found["name"] == runtime) {
        Some(found) => found.get("missing").map(|why| why.as_str().expect("words").to_owned()),
        None => Some("not installed".to_owned()),
    }
}

#[test]
fn a_runtime_is_named_only_where_the_policy_has_it_and_runs_only_where_it_works() {
    let suite = Suite::here();
    let (other, admin) = (suite.docker_as(suite.var("WHARFAGE_TOKEN_2")), suite.rest_admin());
    let project = suite.rest_2().get("/api/v1/project").json();
    assert_eq!(project["policy"]["runtimes"], json!(["runc"]), "only runc by default");
    assert_eq!(other.ok(&["run", "--rm", "--runtime", "runc", "busybox", "echo", "ran"]), "ran");
    for name in ["crun", "runsc", "kata", "/bin/sh"] {
        let refused = other.run(&["create", "--runtime", name, "busybox", "true"]);
        assert!(refused.stderr.contains(&format!("unknown or invalid runtime name: {name}")), "{refused:?}");
    }
    let path = format!("/api/v1/projects/{}", project["id"].as_str().expect("an id"));
    let own = suite.rest_2().send("PATCH", &path, Some(&json!({ "runtimes": ["runc", "crun"] })));
    assert_eq!(own.status, 403, "a project does not choose its hosts' programs: {own:?}");
    let allow = |runtimes: Value| admin.send("PATCH", &path, Some(&json!({ "runtimes": runtimes })));
    for wrong in [json!(["crun"]), json!(["runc", "kata"]), json!([])] {
        assert_eq!(allow(wrong.clone()).status, 400, "{wrong}");
    }
    assert_eq!(allow(json!(["runc", "crun", "youki", "runsc"])).status, 200);
    let info = other.ok(&["info", "--format", "{{json .Runtimes}}"]);
    assert!(["runc", "crun", "youki", "runsc"].iter().all(|name| info.contains(&format!("\"{name}\""))), "{info}");
    let hosts = admin.get("/api/v1/hosts").json();
    assert_eq!(missing(&hosts, "runc"), None);
    for runtime in ["crun", "youki", "runsc"] {
        let name = unique(runtime);
        let ran = other.run(&["run", "--name", &name, "--runtime", runtime, "busybox", "echo", "ran"]);
        match missing(&hosts, runtime) {
            None => {
                assert_eq!((ran.code, ran.stdout.as_str()), (0, "ran\n"), "{runtime}: {ran:?}");
                assert_eq!(other.ok(&["inspect", "-f", "{{.HostConfig.Runtime}}", &name]), runtime);
            }
            // The host says why, to its operator; the tenant hears that there is none.
            Some(why) => {
                println!("{runtime} is not offered here: {why}");
                assert!(!why.is_empty() && ran.stderr.contains("lacks the runtime"), "{runtime}: {why}: {ran:?}");
                assert_ne!(other.run(&["inspect", &name]).code, 0, "and nothing is left of it");
            }
        }
        other.remove(&[&name]);
    }
    assert_eq!(allow(json!(["runc"])).status, 200);
}
