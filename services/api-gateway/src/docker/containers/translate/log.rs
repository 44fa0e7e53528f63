//! Log drivers and their options. Every host keeps logs in the json-file way, which `local` is another
//! name for; drivers that send logs elsewhere are refused with the reason.

use std::collections::BTreeMap;

use model::{LogConfig, Result};
use regex::{Regex, RegexBuilder};

use super::{super::host_config::HostConfig, forbidden, invalid, settings};

/// dockerd's drivers that send logs away from the host.
const SENDING: [&str; 7] = ["awslogs", "etwlogs", "fluentd", "gcplogs", "gelf", "splunk", "syslog"];
/// What a tag may name of its container.
const TAG_FIELDS: [&str; 7] =
    ["{{.ID}}", "{{.FullID}}", "{{.Name}}", "{{.ImageID}}", "{{.ImageFullID}}", "{{.ImageName}}", "{{.DaemonName}}"];

/// What is logged and how, from the options and what they name of the container.
pub(super) fn log(
    host: &HostConfig,
    labels: &BTreeMap<String, String>,
    env: &[String],
    warnings: &mut Vec<String>,
) -> Result<LogConfig> {
    let mut log = LogConfig::default();
    let options = &host.log_config.config;
    let driver = match host.log_config.driver.as_str() {
        "" | "json-file" => "json-file",
        "local" => "local",
        "none" => return Ok(LogConfig { keep: false, ..log }),
        "journald" => {
            return Err(forbidden(
                "log driver \"journald\": the hosts of Wharfage keep no journal for tenants; use json-file or local",
            ));
        }
        name if SENDING.contains(&name) => {
            return Err(forbidden(format!(
                "log driver {name:?}: a host of Wharfage does not open connections for its tenants; use json-file or \
                 local, and send `docker logs -f` on from a container"
            )));
        }
        other => return Err(invalid(format!("logger: no log driver named '{other}' is registered"))),
    };
    check_mode(options)?;
    for (option, value) in options {
        let bad = || invalid(format!("invalid log opt {option}={value:?} for {driver} log driver"));
        match option.as_str() {
            // Lines go to the page cache of the host: nothing waits for them, and nothing is lost on the way.
            "mode" | "max-buffer-size" => {}
            "max-size" => {
                let size = settings::byte_size(value).filter(|n| (4096..=1 << 30).contains(n));
                log.max_size_bytes = size.ok_or_else(bad)?;
            }
            "max-file" => log.max_files = value.parse().ok().filter(|n| (1..=100).contains(n)).ok_or_else(bad)?,
            "compress" => match value.as_str() {
                // As Go reads a truth.
                "1" | "t" | "T" | "true" | "TRUE" | "True" => warnings.push(
                    "log option compress has no effect: rotated files are kept as they are, and max-size and max-file bound them".into(),
                ),
                "0" | "f" | "F" | "false" | "FALSE" | "False" => {}
                _ => return Err(bad()),
            },
            "labels" | "labels-regex" | "env" | "env-regex" => {}
            "tag" => log.tag = tag(value)?,
            other => return Err(invalid(format!("unknown log opt '{other}' for {driver} log driver"))),
        }
    }
    log.attributes = attributes(options, labels, env)?;
    Ok(log)
}

fn check_mode(options: &BTreeMap<String, String>) -> Result<()> {
    let mode = options.get("mode").map_or("", String::as_str);
    if !matches!(mode, "" | "blocking" | "non-blocking") {
        return Err(invalid(format!("logger: logging mode not supported: {mode}")));
    }
    match options.get("max-buffer-size") {
        Some(_) if mode != "non-blocking" => {
            Err(invalid("logger: max-buffer-size option is only supported with 'mode=non-blocking'"))
        }
        Some(size) if settings::byte_size(size).is_none() => {
            Err(invalid(format!("error parsing option max-buffer-size: invalid size: '{size}'")))
        }
        Some(_) | None => Ok(()),
    }
}

fn tag(written: &str) -> Result<String> {
    let rest = TAG_FIELDS.iter().fold(written.to_owned(), |rest, field| rest.replace(field, ""));
    if rest.contains("{{") || written.len() > 1024 {
        let fields = TAG_FIELDS.join(", ");
        return Err(invalid(format!("invalid log opt tag={written:?}: fields of a tag are {fields}")));
    }
    Ok(written.to_owned())
}

/// The labels and variables that go along with every line.
fn attributes(
    options: &BTreeMap<String, String>,
    labels: &BTreeMap<String, String>,
    env: &[String],
) -> Result<BTreeMap<String, String>> {
    let env: BTreeMap<&str, &str> = env.iter().filter_map(|e| e.split_once('=')).collect();
    let labels: BTreeMap<&str, &str> = labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let mut chosen = BTreeMap::<&str, &str>::new();
    for (option, known) in [("labels", &labels), ("env", &env)] {
        let names = options.get(option).into_iter().flat_map(|names| names.split(','));
        chosen.extend(names.filter_map(|name| known.get_key_value(name)));
        if let Some(pattern) = pattern(options, &format!("{option}-regex"))? {
            chosen.extend(known.iter().filter(|(name, _)| pattern.is_match(name)));
        }
    }
    Ok(chosen.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect())
}

fn pattern(options: &BTreeMap<String, String>, option: &str) -> Result<Option<Regex>> {
    let Some(written) = options.get(option).filter(|written| !written.is_empty()) else { return Ok(None) };
    let compiled = RegexBuilder::new(written).size_limit(1 << 18).build();
    compiled.map(Some).map_err(|e| invalid(format!("invalid log opt {option}={written:?}: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docker::containers::host_config::LogConfig as Written;

    fn config(driver: &str, options: &[(&str, &str)]) -> Result<(LogConfig, Vec<String>)> {
        let config = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let host = HostConfig { log_config: Written { driver: driver.into(), config }, ..HostConfig::default() };
        let labels = [("app".to_owned(), "web".to_owned()), ("tier".to_owned(), "front".to_owned())].into();
        let mut warnings = Vec::new();
        log(&host, &labels, &["ENV=prod".into(), "SECRET=x".into()], &mut warnings).map(|log| (log, warnings))
    }

    fn refusal(driver: &str, options: &[(&str, &str)]) -> String {
        config(driver, options).expect_err("refused").to_string()
    }

    #[test]
    fn options_of_the_file_drivers_are_honoured() {
        let options = [("max-size", "10m"), ("max-file", "3"), ("mode", "non-blocking"), ("max-buffer-size", "4m")];
        for driver in ["json-file", "local", ""] {
            let (log, warnings) = config(driver, &options).expect("granted");
            assert_eq!((log.keep, log.max_size_bytes, log.max_files, warnings.len()), (true, 10 << 20, 3, 0));
        }
        for (driver, value, warnings) in [("local", "true", 1), ("json-file", "T", 1), ("json-file", "false", 0)] {
            assert_eq!(config(driver, &[("compress", value)]).expect("granted").1.len(), warnings, "{driver} {value}");
        }
        assert!(refusal("json-file", &[("compress", "yes")]).contains("compress"));
        assert!(!config("none", &[]).expect("granted").0.keep);
    }

    #[test]
    fn lines_carry_what_was_chosen_and_nothing_else() {
        let options = [("labels", "app,none"), ("env-regex", "^E"), ("labels-regex", "^t"), ("tag", "{{.Name}}/x")];
        let (log, _) = config("json-file", &options).expect("granted");
        let pairs: Vec<String> = log.attributes.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!((pairs.join(","), log.tag.as_str()), ("ENV=prod,app=web,tier=front".into(), "{{.Name}}/x"));
    }

    #[test]
    fn what_is_not_available_is_refused_by_name() {
        assert!(refusal("syslog", &[]).starts_with("log driver \"syslog\": a host of Wharfage does not open"));
        assert!(refusal("journald", &[]).contains("keep no journal"));
        assert_eq!(refusal("nope", &[]), "logger: no log driver named 'nope' is registered");
        assert_eq!(refusal("json-file", &[("a", "b")]), "unknown log opt 'a' for json-file log driver");
        assert_eq!(refusal("local", &[("mode", "fast")]), "logger: logging mode not supported: fast");
        assert_eq!(
            refusal("json-file", &[("max-buffer-size", "4m")]),
            "logger: max-buffer-size option is only supported with 'mode=non-blocking'"
        );
        assert!(refusal("json-file", &[("tag", "{{.Config.x}}")]).contains("fields of a tag are"));
        assert!(refusal("json-file", &[("env-regex", "(a{1000}){1000}")]).contains("env-regex"));
    }
}
