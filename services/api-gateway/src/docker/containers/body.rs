//! The body of create as typed values: every field of `Config`, `HostConfig` and `NetworkingConfig`
//! is known here, so that none can be overlooked. It is read once; every decision is taken on these
//! values. A `null` is the same as an absent field, as in Go; an unknown field is ignored.

use std::collections::BTreeMap;

use model::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::host_config::HostConfig;

/// What create takes.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct CreateBody {
    #[serde(flatten)]
    pub(crate) config: ContainerConfig,
    pub(crate) host_config: HostConfig,
    pub(crate) networking_config: NetworkingConfig,
}

/// The portable part of a container.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct ContainerConfig {
    pub(crate) hostname: String,
    pub(crate) domainname: String,
    pub(crate) user: String,
    pub(crate) attach_stdin: bool,
    pub(crate) attach_stdout: bool,
    pub(crate) attach_stderr: bool,
    #[schema(value_type = Object)]
    pub(crate) exposed_ports: BTreeMap<String, Value>,
    pub(crate) tty: bool,
    pub(crate) open_stdin: bool,
    pub(crate) stdin_once: bool,
    pub(crate) env: Vec<String>,
    #[schema(value_type = Option<Vec<String>>)]
    pub(crate) cmd: Option<Words>,
    pub(crate) healthcheck: Option<Healthcheck>,
    pub(crate) args_escaped: bool,
    pub(crate) image: String,
    #[schema(value_type = Object)]
    pub(crate) volumes: BTreeMap<String, Value>,
    pub(crate) working_dir: String,
    #[schema(value_type = Option<Vec<String>>)]
    pub(crate) entrypoint: Option<Words>,
    pub(crate) network_disabled: bool,
    pub(crate) mac_address: String,
    pub(crate) on_build: Vec<String>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) stop_signal: String,
    pub(crate) stop_timeout: Option<i64>,
    #[schema(value_type = Vec<String>)]
    pub(crate) shell: Words,
}

/// A list of words, or one word alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "WordsWritten")]
pub(crate) struct Words(pub(crate) Vec<String>);

#[derive(Deserialize)]
#[serde(untagged)]
enum WordsWritten {
    Many(Vec<String>),
    One(String),
}

impl From<WordsWritten> for Words {
    fn from(written: WordsWritten) -> Self {
        match written {
            WordsWritten::Many(words) => Self(words),
            WordsWritten::One(word) => Self(vec![word]),
        }
    }
}

/// A health check; durations in nanoseconds. What is empty or 0 is the image's, or dockerd's default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Healthcheck {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) test: Vec<String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) interval: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) timeout: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) start_period: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) start_interval: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) retries: i64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// Which networks, and how.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct NetworkingConfig {
    pub(crate) endpoints_config: BTreeMap<String, EndpointConfig>,
}

/// One network's part.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct EndpointConfig {
    #[serde(rename = "IPAMConfig")]
    pub(crate) ipam_config: Option<EndpointAddresses>,
    pub(crate) links: Vec<String>,
    pub(crate) aliases: Vec<String>,
    pub(crate) mac_address: String,
    pub(crate) driver_opts: BTreeMap<String, String>,
    pub(crate) gw_priority: i64,
}

/// Addresses asked for.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct EndpointAddresses {
    #[serde(rename = "IPv4Address")]
    pub(crate) ipv4_address: String,
    #[serde(rename = "IPv6Address")]
    pub(crate) ipv6_address: String,
    #[serde(rename = "LinkLocalIPs")]
    pub(crate) link_local_ips: Vec<String>,
}

/// Reads a JSON document as `T`. An error names the field it is about.
pub(crate) fn typed<T: serde::de::DeserializeOwned>(document: Value) -> Result<T> {
    serde_path_to_error::deserialize(without_nulls(document)).map_err(|e| {
        let path = e.path().to_string();
        Error::InvalidArgument(format!("invalid {path}: {}", e.into_inner()))
    })
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(
            fields.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k, without_nulls(v))).collect(),
        ),
        Value::Array(items) => Value::Array(items.into_iter().map(without_nulls).collect()),
        other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn null_means_absent_and_unknown_fields_are_ignored() {
        let body: CreateBody = typed(json!({
            "Image": "a", "Cmd": null, "Labels": null, "Future": {"x": 1}, "HostConfig": {"CapAdd": null, "Memory": 0}
        }))
        .expect("parses");
        assert_eq!(body.config.image, "a");
        assert!(body.config.cmd.is_none() && body.host_config.cap_add.is_none());
    }

    #[test]
    fn a_wrong_type_is_refused_by_the_fields_name() {
        let error = typed::<CreateBody>(json!({"HostConfig": {"Memory": "lots"}})).expect_err("refused").to_string();
        assert!(error.contains("HostConfig.Memory"), "{error}");
    }

    #[test]
    fn a_command_may_be_one_word() {
        let body: CreateBody = typed(json!({"Cmd": "ls", "Entrypoint": []})).expect("parses");
        assert_eq!(body.config.cmd, Some(Words(vec!["ls".into()])));
        assert_eq!(body.config.entrypoint, Some(Words(vec![])));
    }
}
