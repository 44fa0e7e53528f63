//! What an image's config says about running it. The document is hostile input: what does not have
//! the expected shape is an error, never a guess.

use std::collections::BTreeMap;

use model::{Error, HealthcheckSettings, ImageConfig, Result};
use serde::Deserialize;
use serde_json::Value;

use super::body::{Healthcheck, typed};

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    config: Option<Settings>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Settings {
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    working_dir: Option<String>,
    user: Option<String>,
    exposed_ports: Option<BTreeMap<String, Value>>,
    volumes: Option<BTreeMap<String, Value>>,
    labels: Option<BTreeMap<String, String>>,
    stop_signal: Option<String>,
    healthcheck: Option<Value>,
    shell: Option<Vec<String>>,
}

/// Reads the part of an image config that shapes a container.
pub(crate) fn parse(document: &[u8]) -> Result<ImageConfig> {
    let document: Document = serde_json::from_slice(document)
        .map_err(|e| Error::InvalidArgument(format!("the image's config cannot be used: {e}")))?;
    let settings = document.config.unwrap_or_default();
    let healthcheck = settings.healthcheck.map(typed::<Healthcheck>).transpose();
    let healthcheck =
        healthcheck.map_err(|e| Error::InvalidArgument(format!("the image's Healthcheck cannot be used: {e}")))?;
    Ok(ImageConfig {
        env: settings.env.unwrap_or_default(),
        entrypoint: settings.entrypoint.unwrap_or_default(),
        cmd: settings.cmd.unwrap_or_default(),
        working_dir: settings.working_dir.unwrap_or_default(),
        user: settings.user.unwrap_or_default(),
        exposed_ports: settings.exposed_ports.unwrap_or_default().into_keys().collect(),
        volumes: settings.volumes.unwrap_or_default().into_keys().collect(),
        labels: settings.labels.unwrap_or_default(),
        stop_signal: settings.stop_signal.filter(|s| !s.is_empty()),
        healthcheck: healthcheck.map(HealthcheckSettings::from),
        shell: settings.shell.unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_and_null_settings_are_empty() {
        let config = parse(br#"{"config":{"Env":null,"Cmd":["sh"],"ExposedPorts":{"80/tcp":{}}}}"#).expect("parses");
        assert_eq!(
            (config.env.len(), config.cmd, config.exposed_ports),
            (0, vec!["sh".to_owned()], vec!["80/tcp".to_owned()])
        );
        assert_eq!(parse(b"{}").expect("parses"), ImageConfig::default());
        assert!(parse(b"{\"config\":{\"Env\":7}}").is_err());
    }

    #[test]
    fn a_healthcheck_is_read_and_a_wrong_one_is_an_error() {
        let document = br#"{"config":{"Healthcheck":{"Test":["CMD","true"],"Interval":1000000,"Retries":null}}}"#;
        let check = parse(document).expect("parses").healthcheck.expect("has one");
        assert_eq!((check.test, check.interval_ns, check.retries), (vec!["CMD".into(), "true".into()], 1_000_000, 0));
        assert!(parse(br#"{"config":{"Healthcheck":{"Test":"true"}}}"#).is_err());
    }
}
