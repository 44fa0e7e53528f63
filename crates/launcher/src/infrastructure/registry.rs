//! Debian's docker-registry on loopback: the upstream that stands where Docker Hub would.

use std::fs;

use anyhow::Result;

use crate::{
    infrastructure::{base_env, program},
    layout::Layout,
    supervise::ServiceSpec,
};

/// The supervised registry; writes its configuration.
pub(crate) fn registry(layout: &Layout) -> Result<ServiceSpec> {
    let dir = layout.state.join("registry");
    fs::create_dir_all(&dir)?;
    let config = dir.join("config.yml");
    let text = format!(
        "version: 0.1\nlog:\n  level: warn\nstorage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\nhttp:\n  addr: {}\n",
        dir.join("data").display(),
        layout.upstream()
    );
    fs::write(&config, text)?;
    Ok(ServiceSpec {
        name: "02-registry".into(),
        program: program(&["/usr/bin/docker-registry", "/usr/bin/registry"])?,
        args: vec!["serve".into(), config.display().to_string()],
        env: base_env(),
        netns: None,
        user: None,
        stop_signal: nix::libc::SIGTERM,
    })
}
