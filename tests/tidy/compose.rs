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
