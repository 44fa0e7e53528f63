//! Where the time of a start goes: the spans of every service, read from their logs by request id.

use std::fs;

use serde_json::{Value, json};
use tests::{Suite, unique};

use crate::peer::Peer;

/// Runs one container by REST and prints what each service logged about its requests and steps.
pub(crate) fn print(suite: &Suite, _peer: &Peer) {
    let rest = suite.rest();
    let name = unique("bench-spans");
    println!("Where one start goes (from the services' logs, by request id):\n");
    println!("```");
    let create =
        rest.post(&format!("/containers/create?name={name}"), &json!({"Image": "busybox", "Cmd": ["sleep", "60"]}));
    let start = rest.send("POST", &format!("/containers/{name}/start"), None);
    std::thread::sleep(std::time::Duration::from_millis(300));
    for (what, reply) in [("create", &create), ("start", &start)] {
        let id = reply.headers.get("x-request-id").and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
        println!("{what}  request {id}");
        lines(suite, &id).iter().for_each(|line| println!("{line}"));
    }
    println!("```");
    let _ = rest.send("DELETE", &format!("/containers/{name}?force=1"), None);
    let container = create.json()["Id"].as_str().unwrap_or_default().to_owned();
    println!("\nSteps on the host (container {}):\n\n```", &container[..12.min(container.len())]);
    steps(suite, &container).iter().for_each(|line| println!("{line}"));
    println!("```");
}

fn logged(suite: &Suite) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(suite.root.join(".wharfage/log")).into_iter().flatten().flatten() {
        let service = entry.path().file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        let tail = text.lines().rev().take(2_000).collect::<Vec<_>>();
        found.extend(
            tail.into_iter().rev().filter_map(|line| Some((service.clone(), serde_json::from_str(line).ok()?))),
        );
    }
    found
}

fn lines(suite: &Suite, request: &str) -> Vec<String> {
    logged(suite)
        .into_iter()
        .filter(|(_, line)| line["request_id"] == request && line["duration_ms"].is_number())
        .map(|(service, line)| {
            let what = line["route"].as_str().or(line["path"].as_str()).unwrap_or("");
            format!("  {service:<16} {:>8.2} ms  {what}", line["duration_ms"].as_f64().unwrap_or(0.0))
        })
        .collect()
}

fn steps(suite: &Suite, container: &str) -> Vec<String> {
    logged(suite)
        .into_iter()
        .filter(|(_, line)| line.to_string().contains(container) && line["step"].is_string())
        .map(|(service, line)| {
            let step = line["step"].as_str().unwrap_or("");
            format!("  {service:<16} {:>8.2} ms  {step}", line["duration_ms"].as_f64().unwrap_or(0.0))
        })
        .collect()
}
