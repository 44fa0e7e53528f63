//! `compose/`: the files of a deployment on real hosts parse, and mean what the services read.

use std::path::{Path, PathBuf};

fn compose() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the checkout").join("compose")
}

fn config<T: serde::de::DeserializeOwned>(service: &str) -> T {
    let path = compose().join(format!("config/{service}.toml"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    toml::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn every_services_default_configuration_is_read_by_that_service() {
    let _: api_gateway::Config = config("api-gateway");
    let _: image_svc::Config = config("image-svc");
    let _: scheduler::Config = config("scheduler");
    let _: node_agent::Config = config("node-agent");
    let _: netd::Config = config("netd");
}

#[test]
fn docker_compose_itself_accepts_the_deployment() {
    let root = compose().join("..");
    let fetched = std::process::Command::new(root.join("scripts/compose-cli.sh")).output().expect("a shell");
    assert!(fetched.status.success(), "{}", String::from_utf8_lossy(&fetched.stderr));
    let plugin = String::from_utf8_lossy(&fetched.stdout).trim().to_owned();
    let mut config = std::process::Command::new(plugin);
    config.args(["-f", "compose.yaml", "--profile", "host", "config", "--format", "json"]).current_dir(compose());
    for required in ["POSTGRES_PASSWORD", "SCHEDULER_DATABASE_URL", "IMAGE_DATABASE_URL", "GATEWAY_DATABASE_URL", "PKI"]
    {
        config.env(format!("WHARFAGE_{required}"), "/x");
    }
    let output = config.output().expect("the plugin runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    for service in ["postgres", "redis", "api-gateway", "image-svc", "scheduler", "node-agent", "netd"] {
        assert!(document["services"][service].is_object(), "{service} is missing");
    }
    let netd = &document["services"]["netd"];
    assert_eq!(netd["cap_add"], serde_json::json!(["NET_ADMIN", "SYS_ADMIN"]), "netd has what it needs and no more");
    assert!(netd["privileged"].is_null());
}
