//! The image config (OCI image spec, "Image Configuration"), checked before it is stored. It was
//! written by whoever built the image and will shape containers, so what could not be a container is
//! refused here by name.

use model::{Digest, DigestAlgorithm};
use serde::Deserialize;
use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    limits::{CONFIG_ENTRIES_BYTES_MAX, CONFIG_ENTRIES_MAX, CONFIG_ENTRY_BYTES_MAX},
    upstream::Platform,
};

/// What a checked config says of the image.
#[derive(Clone, Debug)]
pub(crate) struct CheckedConfig {
    pub(crate) platform: Platform,
    pub(crate) built_at: Option<OffsetDateTime>,
    /// Lowest first, as many as there are layers.
    pub(crate) diff_ids: Vec<Digest>,
}

/// A config that cannot be taken, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid image config: {0}")]
pub(crate) struct BadConfig(String);

#[derive(Deserialize)]
struct Raw {
    #[serde(default)]
    created: Option<String>,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    #[serde(default)]
    variant: String,
    rootfs: RootFs,
    #[serde(default)]
    config: Option<Execution>,
    #[serde(default)]
    history: Option<Vec<Value>>,
}

#[derive(Deserialize)]
struct RootFs {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    diff_ids: Option<Vec<Digest>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[derive(Default)]
struct Execution {
    user: String,
    env: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    working_dir: String,
    stop_signal: Option<String>,
    labels: Option<serde_json::Map<String, Value>>,
    volumes: Option<serde_json::Map<String, Value>>,
    exposed_ports: Option<serde_json::Map<String, Value>>,
}

/// Checks a config against the number of layers of its manifest.
pub(crate) fn check(document: &[u8], layers: usize) -> Result<CheckedConfig, BadConfig> {
    let raw: Raw = serde_json::from_slice(document).map_err(|e| BadConfig(e.to_string()))?;
    if raw.rootfs.kind != "layers" {
        return bad(format!("rootfs type {:?} is not \"layers\"", raw.rootfs.kind));
    }
    let diff_ids = raw.rootfs.diff_ids.unwrap_or_default();
    if diff_ids.len() != layers {
        return bad(format!("it has {} diff_ids for {layers} layers", diff_ids.len()));
    }
    if diff_ids.iter().any(|id| id.algorithm() != DigestAlgorithm::Sha256) {
        return bad("a diff_id is not a sha256 digest".into());
    }
    if raw.history.is_some_and(|h| h.len() > CONFIG_ENTRIES_MAX) {
        return bad(format!("history has more than {CONFIG_ENTRIES_MAX} entries"));
    }
    let platform =
        Platform::parse(&format!("{}/{}", raw.os, raw.architecture)).filter(|p| p.os == "linux").ok_or_else(|| {
            BadConfig(format!("os {:?} with architecture {:?} is not supported", raw.os, raw.architecture))
        })?;
    if raw.variant.len() > 32 {
        return bad("variant is too long".into());
    }
    if let Some(execution) = &raw.config {
        check_execution(execution)?;
    }
    let built_at = match raw.created.as_deref() {
        Some(text) if !text.is_empty() => {
            Some(OffsetDateTime::parse(text, &Rfc3339).map_err(|_| BadConfig("created is not a time".into()))?)
        }
        Some(_) | None => None,
    };
    Ok(CheckedConfig { platform: Platform { variant: raw.variant, ..platform }, built_at, diff_ids })
}

fn check_execution(execution: &Execution) -> Result<(), BadConfig> {
    let Execution { user, env, cmd, entrypoint, working_dir, stop_signal, labels, volumes, exposed_ports } = execution;
    for (name, entries) in [("Env", env), ("Cmd", cmd), ("Entrypoint", entrypoint)] {
        check_entries(name, entries.iter().flatten().map(String::as_str))?;
    }
    for (name, map) in [("Labels", labels), ("Volumes", volumes), ("ExposedPorts", exposed_ports)] {
        check_entries(name, map.iter().flat_map(serde_json::Map::keys).map(String::as_str))?;
    }
    check_entries("Labels", labels.iter().flat_map(serde_json::Map::values).filter_map(Value::as_str))?;
    for entry in env.iter().flatten() {
        if entry.starts_with('=') || entry.is_empty() {
            return bad("Env has an entry without a name".into());
        }
    }
    for volume in volumes.iter().flat_map(serde_json::Map::keys) {
        check_path("Volumes", volume)?;
    }
    if !working_dir.is_empty() {
        check_path("WorkingDir", working_dir)?;
        // A directory reached over an inherited descriptor is outside of the container (CVE-2024-21626).
        let inside_proc = ["/proc/self/fd", "/proc/1/fd", "/proc/thread-self/fd", "/dev/fd"];
        if inside_proc.iter().any(|p| working_dir.trim_start_matches('/').starts_with(p.trim_start_matches('/'))) {
            return bad(format!("WorkingDir {working_dir:?} leads out of the container"));
        }
    }
    check_entries("User", std::iter::once(user.as_str()))?;
    if user.len() > 256 || stop_signal.as_ref().is_some_and(|s| s.len() > 32) {
        return bad("User or StopSignal is too long".into());
    }
    Ok(())
}

fn check_entries<'a>(name: &str, entries: impl Iterator<Item = &'a str>) -> Result<(), BadConfig> {
    let (mut count, mut bytes) = (0, 0);
    for entry in entries {
        count += 1;
        bytes += entry.len();
        if entry.contains('\0') {
            return bad(format!("{name} has a NUL character"));
        }
        if entry.len() > CONFIG_ENTRY_BYTES_MAX {
            return bad(format!("an entry of {name} has {} bytes; the limit is {CONFIG_ENTRY_BYTES_MAX}", entry.len()));
        }
    }
    if count > CONFIG_ENTRIES_MAX {
        return bad(format!("{name} has {count} entries; the limit is {CONFIG_ENTRIES_MAX}"));
    }
    if bytes > CONFIG_ENTRIES_BYTES_MAX {
        return bad(format!("{name} has {bytes} bytes; the limit is {CONFIG_ENTRIES_BYTES_MAX}"));
    }
    Ok(())
}

fn check_path(name: &str, path: &str) -> Result<(), BadConfig> {
    if path.len() > 4_096 || !path.starts_with('/') || path.split('/').any(|part| part == "..") {
        return bad(format!("{name} has {:?}, which is not an absolute path without \"..\"", shorten(path)));
    }
    Ok(())
}

fn shorten(text: &str) -> String {
    text.chars().take(128).collect()
}

fn bad<T>(why: String) -> Result<T, BadConfig> {
    Err(BadConfig(why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn config(execution: Value) -> Vec<u8> {
        json!({
            "architecture": "amd64", "os": "linux", "created": "2024-01-02T03:04:05Z",
            "rootfs": {"type": "layers", "diff_ids": [crate::blob_store::digest_of(b"layer")]},
            "config": execution,
        })
        .to_string()
        .into_bytes()
    }

    fn refused(execution: Value) -> String {
        check(&config(execution), 1).expect_err("must be refused").to_string()
    }

    #[test]
    fn an_ordinary_config_is_taken() {
        let read = check(&config(json!({"Env": ["PATH=/bin"], "Cmd": ["sh"], "Volumes": null})), 1).expect("config");
        assert_eq!(read.platform.to_string(), "linux/amd64");
        assert_eq!(read.diff_ids.len(), 1);
        assert_eq!(read.built_at.map(|t| t.year()), Some(2024));
    }

    #[test]
    fn diff_ids_must_be_as_many_as_layers() {
        let error = check(&config(json!({})), 2).expect_err("two layers").to_string();
        assert_eq!(error, "invalid image config: it has 1 diff_ids for 2 layers");
    }

    #[test]
    fn what_could_not_be_a_container_is_refused_by_name() {
        assert!(refused(json!({"Entrypoint": ["a\u{0}b"]})).contains("Entrypoint has a NUL"));
        assert!(refused(json!({"Env": ["A=".to_owned() + &"x".repeat(200_000)]})).contains("an entry of Env has"));
        assert!(
            refused(json!({"Env": vec!["A=".to_owned() + &"x".repeat(100_000); 20]})).contains("the limit is 1048576")
        );
        assert!(refused(json!({"Cmd": vec!["x"; 5_000]})).contains("Cmd has 5000 entries"));
        assert!(refused(json!({"Volumes": {"/../../etc": {}}})).contains("Volumes"));
        assert!(refused(json!({"WorkingDir": "/proc/self/fd/8"})).contains("leads out"));
        assert!(refused(json!({"WorkingDir": "relative"})).contains("WorkingDir"));
        assert!(refused(json!({"User": "x".repeat(300)})).contains("User"));
    }

    #[test]
    fn other_systems_and_shapes_are_refused() {
        let text = String::from_utf8(config(json!({}))).expect("text");
        assert!(check(text.replace("\"linux\"", "\"windows\"").as_bytes(), 1).is_err());
        assert!(check(text.replace("\"layers\"", "\"squash\"").as_bytes(), 1).is_err());
        assert!(check(text.replace("2024-01-02", "yesterday").as_bytes(), 1).is_err());
        assert!(check(b"[]", 0).is_err());
        assert!(check(&b"[".repeat(100_000), 0).is_err());
    }
}
