//! The dependency direction of `ARCHITECTURE.md`, read from `cargo metadata`.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

const SERVICES: [&str; 5] = ["api-gateway", "image-svc", "scheduler", "node-agent", "netd"];

/// For every package reachable without dev-dependencies: the names it reaches.
fn reached() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--offline",
            "--filter-platform",
            "x86_64-unknown-linux-gnu",
        ])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    let list = |value: &serde_json::Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let names: BTreeMap<String, String> =
        list(&metadata["packages"]).iter().map(|p| (text(&p["id"]), text(&p["name"]))).collect();
    let edges: BTreeMap<String, Vec<String>> = list(&metadata["resolve"]["nodes"])
        .iter()
        .map(|node| {
            let normal = list(&node["deps"])
                .into_iter()
                .filter(|dep| list(&dep["dep_kinds"]).iter().any(|kind| kind["kind"].is_null()))
                .map(|dep| text(&dep["pkg"]))
                .collect();
            (text(&node["id"]), normal)
        })
        .collect();
    let walk = |start: &String| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![start.clone()]);
        while let Some(id) = open.pop() {
            for next in edges.get(&id).into_iter().flatten() {
                if seen.insert(next.clone()) {
                    open.push(next.clone());
                }
            }
        }
        seen.iter().filter_map(|id| names.get(id).cloned()).collect()
    };
    list(&metadata["workspace_members"]).iter().map(|id| (names[&text(id)].clone(), walk(&text(id)))).collect()
}

#[test]
fn pure_crates_cannot_do_input_or_output() {
    let reached = reached();
    for pure in ["model", "planner", "contract"] {
        for banned in ["tokio", "sqlx", "reqwest", "axum", "rand", "redis"] {
            assert!(!reached[pure].contains(banned), "{pure} reaches {banned}");
        }
    }
}

#[test]
fn what_runs_beside_tenants_code_cannot_reach_the_database() {
    let reached = reached();
    for host_side in ["node-agent", "netd", "runtime", "shim", "contract"] {
        for banned in ["store", "sqlx"] {
            assert!(!reached[host_side].contains(banned), "{host_side} reaches {banned}");
        }
    }
}

#[test]
fn services_meet_in_contracts_not_in_each_other() {
    let reached = reached();
    for service in SERVICES {
        for other in SERVICES.iter().filter(|other| **other != service) {
            assert!(!reached[service].contains(*other), "{service} reaches {other}");
        }
    }
}

#[test]
fn the_shim_stays_small() {
    let reached = reached();
    for banned in ["tokio", "hyper", "reqwest", "chassis", "tracing"] {
        assert!(!reached["shim"].contains(banned), "the shim reaches {banned}");
    }
}
