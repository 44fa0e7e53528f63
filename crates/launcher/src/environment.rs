//! `.wharfage/env`: what a shell sources to use the suite, and the docker configuration it points to.

use std::{collections::BTreeMap, fmt::Write, fs, os::unix::fs::PermissionsExt, path::Path};

use anyhow::Result;

use crate::{
    demo::Demo,
    layout::{Addresses, Layout},
};

/// What makes an unmodified docker CLI talk to the demo project.
pub(crate) fn docker(layout: &Layout) -> BTreeMap<&'static str, String> {
    BTreeMap::from([
        ("DOCKER_HOST", format!("tcp://127.0.0.1:{}", layout.gateway_port())),
        ("DOCKER_CONFIG", layout.state.join("docker").display().to_string()),
    ])
}

/// Writes both files, readable by root alone: they hold tokens.
pub(crate) fn write(layout: &Layout, addresses: &Addresses, demo: &Demo) -> Result<()> {
    let mut text = String::from("# Made by `make up`; source it. Holds secrets.\n");
    for (key, value) in docker(layout) {
        writeln!(text, "export {key}={value}")?;
    }
    let variables = [
        ("URL", format!("http://127.0.0.1:{}", layout.gateway_port())),
        ("TLS_URL", format!("https://127.0.0.1:{}", layout.gateway_tls_port())),
        ("TOKEN", demo.token.clone()),
        ("TOKEN_2", demo.token_2.clone()),
        ("ADMIN_TOKEN", demo.admin_token.clone()),
        ("REGISTRY", format!("127.0.0.1:{}", layout.gateway_port())),
        ("UPSTREAM", layout.upstream()),
    ];
    for (key, value) in variables {
        writeln!(text, "export WHARFAGE_{key}={value}")?;
    }
    for (index, host) in addresses.hosts.iter().enumerate() {
        writeln!(text, "export WHARFAGE_NODE_{}={host}", index + 1)?;
    }
    write_private(&layout.state.join("env"), &text)?;
    let config = serde_json::json!({ "HttpHeaders": { "Authorization": format!("Bearer {}", demo.token) } });
    fs::create_dir_all(layout.state.join("docker"))?;
    write_private(&layout.state.join("docker/config.json"), &serde_json::to_string_pretty(&config)?)
}

fn write_private(path: &Path, text: &str) -> Result<()> {
    if fs::read_to_string(path).is_ok_and(|before| before == text) {
        return Ok(());
    }
    let fresh = path.with_extension("new");
    fs::write(&fresh, text)?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600))?;
    fs::rename(fresh, path)?;
    Ok(())
}
