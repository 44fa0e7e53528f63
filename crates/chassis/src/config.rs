//! Configuration: one TOML file, then environment variables on top. A key that nothing reads is an
//! error, because it is a typing mistake or an option that silently does nothing.
//!
//! `WHARFAGE_<SECTION>__<FIELD>=value` sets `section.field` (deeper: one more `__` per level);
//! `WHARFAGE__<FIELD>` sets a field of the top level. The value is TOML where it parses as TOML,
//! else text; it stays text where the file has text.

use std::{fmt, net::SocketAddr, path::Path};

use anyhow::{Context as _, bail};
use serde::{Deserialize, de::DeserializeOwned};
use toml::{Table, Value};

const ENV_PREFIX: &str = "WHARFAGE_";

/// What every service's configuration has under `[common]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Common {
    /// Log filter: a level, or directives (`info,sqlx=warn`).
    pub log: String,
    /// One JSON document per line (for machines), or text (for people).
    pub log_json: bool,
    /// Base address of an OTLP/HTTP collector (`http://127.0.0.1:4318`); no export when absent.
    pub otlp_endpoint: Option<String>,
    /// Plain HTTP listener of `/healthz`, `/readyz` and `/metrics`.
    pub ops_listen: Option<SocketAddr>,
    /// Threads that run tasks.
    pub workers: usize,
    /// Take `X-Request-Id` from any caller (behind a proxy of one's own), not only from peers with an internal certificate.
    pub trust_request_id: bool,
}

impl Default for Common {
    fn default() -> Self {
        Self {
            log: "info".to_owned(),
            log_json: true,
            otlp_endpoint: None,
            ops_listen: None,
            workers: 2,
            trust_request_id: false,
        }
    }
}

/// A value that must not be printed: its `Debug` form hides it.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    /// Hides a value.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself. Whoever calls this takes care where it goes.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Reads a file and the process's environment.
pub fn load<C: DeserializeOwned>(path: Option<&Path>) -> anyhow::Result<(C, Common)> {
    let text = match path {
        Some(path) => std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?,
        None => String::new(),
    };
    let origin = path.map_or_else(|| "the environment".to_owned(), |p| p.display().to_string());
    parse(&text, std::env::vars()).with_context(|| format!("configuration from {origin}"))
}

/// Parses a document with environment variables on top of it. Pure: for tests of configuration files.
pub fn parse<C: DeserializeOwned>(
    text: &str,
    env: impl IntoIterator<Item = (String, String)>,
) -> anyhow::Result<(C, Common)> {
    let mut table: Table = text.parse()?;
    for (name, value) in env {
        if let Some(path) = field_path(&name) {
            set(&mut table, &path, &value).with_context(|| name.clone())?;
        }
    }
    let common = match table.get("common") {
        Some(section) => section.clone().try_into().context("[common]")?,
        None => Common::default(),
    };
    let mut unread = Vec::new();
    let config = serde_ignored::deserialize(Value::Table(table), |path| unread.push(path.to_string()))?;
    if !unread.is_empty() {
        bail!("unknown keys: {}", unread.join(", "));
    }
    Ok((config, common))
}

fn field_path(variable: &str) -> Option<Vec<String>> {
    let rest = variable.strip_prefix(ENV_PREFIX)?;
    let (top_level, rest) = rest.strip_prefix('_').map_or((false, rest), |rest| (true, rest));
    let path: Vec<String> = rest.split("__").map(str::to_ascii_lowercase).collect();
    let named = path.iter().all(|part| !part.is_empty());
    (named && (top_level || path.len() > 1)).then_some(path)
}

fn set(table: &mut Table, path: &[String], text: &str) -> anyhow::Result<()> {
    let (field, sections) = path.split_last().context("no field")?;
    let mut table = table;
    for section in sections {
        let entry = table.entry(section.clone()).or_insert_with(|| Value::Table(Table::new()));
        table = entry.as_table_mut().with_context(|| format!("`{section}` is not a section"))?;
    }
    let was_text = table.get(field).is_some_and(Value::is_str);
    let parsed =
        format!("v = {text}").parse::<Table>().ok().and_then(|mut t| if t.len() == 1 { t.remove("v") } else { None });
    let value = match parsed {
        Some(Value::String(text)) => Value::String(text),
        Some(value) if !was_text => value,
        Some(_) | None => Value::String(text.to_owned()),
    };
    table.insert(field.clone(), value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Sample {
        #[serde(default)]
        common: Common,
        #[serde(default)]
        label: String,
        database: Database,
    }

    #[derive(Debug, Deserialize)]
    struct Database {
        url: Secret<String>,
        #[serde(default)]
        connections: u32,
    }

    const FILE: &str = "label = \"a\"\n[common]\nworkers = 3\n[database]\nurl = \"postgres://file\"\nconnections = 5\n";

    fn with(env: &[(&str, &str)]) -> anyhow::Result<(Sample, Common)> {
        parse(FILE, env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())))
    }

    #[test]
    fn the_environment_overrides_the_file_field_by_field() {
        let (sample, common) = with(&[
            ("WHARFAGE_DATABASE__CONNECTIONS", "9"),
            ("WHARFAGE_COMMON__LOG", "debug"),
            ("WHARFAGE_COMMON__OPS_LISTEN", "127.0.0.1:9000"),
            ("WHARFAGE__LABEL", "42"),
            ("WHARFAGE_HOME", "not a field"),
            ("PATH", "/bin"),
        ])
        .expect("parses");
        assert_eq!(sample.database.connections, 9);
        assert_eq!(sample.database.url.expose(), "postgres://file");
        assert_eq!(sample.label, "42", "text stays text");
        assert_eq!((common.log.as_str(), common.workers), ("debug", 3));
        assert_eq!(sample.common.ops_listen, common.ops_listen);
        assert_eq!(common.ops_listen.map(|a| a.port()), Some(9000));
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let error = with(&[("WHARFAGE_DATABASE__CONECTIONS", "9")]).expect_err("unknown");
        assert!(error.to_string().contains("database.conections"), "{error}");
    }

    #[test]
    fn a_secret_does_not_show_in_debug_output() {
        let (sample, _) = with(&[]).expect("parses");
        assert!(!format!("{sample:?}").contains("postgres://"));
    }
}
