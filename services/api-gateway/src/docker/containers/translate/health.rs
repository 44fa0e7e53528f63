//! The health check: the user's settings over the image's, field by field, over dockerd's defaults.

use model::{Healthcheck, HealthcheckSettings, Result};

use super::{super::body, invalid};

/// dockerd's shortest duration.
const SHORTEST_NS: i64 = 1_000_000;
/// Every probe is a process that a shared host starts: faster than this is a storm.
const SHORTEST_INTERVAL_MS: u64 = 500;
/// dockerd's defaults.
const INTERVAL_MS: u64 = 30_000;
const TIMEOUT_MS: u64 = 30_000;
const START_INTERVAL_MS: u64 = 5_000;
const RETRIES: u32 = 3;

impl From<body::Healthcheck> for HealthcheckSettings {
    fn from(written: body::Healthcheck) -> Self {
        Self {
            test: written.test,
            interval_ns: written.interval,
            timeout_ns: written.timeout,
            start_period_ns: written.start_period,
            start_interval_ns: written.start_interval,
            retries: written.retries,
        }
    }
}

/// What inspect shows: each field the user left out is the image's.
pub(super) fn merge(
    user: Option<&body::Healthcheck>,
    image: Option<&HealthcheckSettings>,
) -> Option<body::Healthcheck> {
    if user.is_none() && image.is_none() {
        return None;
    }
    let (mut merged, image) = (user.cloned().unwrap_or_default(), image.cloned().unwrap_or_default());
    if merged.test.is_empty() {
        merged.test = image.test;
    }
    for (field, inherited) in [
        (&mut merged.interval, image.interval_ns),
        (&mut merged.timeout, image.timeout_ns),
        (&mut merged.start_period, image.start_period_ns),
        (&mut merged.start_interval, image.start_interval_ns),
        (&mut merged.retries, image.retries),
    ] {
        if *field == 0 {
            *field = inherited;
        }
    }
    Some(merged)
}

/// What a host runs; `None` is no check.
pub(super) fn complete(
    check: &body::Healthcheck,
    shell: &[String],
    warnings: &mut Vec<String>,
) -> Result<Option<Healthcheck>> {
    let interval_ms = duration_ms("Interval", check.interval)?.unwrap_or(INTERVAL_MS);
    let timeout_ms = duration_ms("Timeout", check.timeout)?.unwrap_or(TIMEOUT_MS);
    if check.retries < 0 {
        return Err(invalid("Retries in Healthcheck cannot be negative"));
    }
    let start_period_ms = duration_ms("StartPeriod", check.start_period)?.unwrap_or(0);
    let start_interval_ms = duration_ms("StartInterval", check.start_interval)?.unwrap_or(START_INTERVAL_MS);
    let Some((kind, words)) = check.test.split_first() else { return Ok(None) };
    let command = match kind.as_str() {
        "NONE" => return Ok(None),
        "CMD" | "CMD-SHELL" if words.is_empty() => {
            return Err(invalid(format!("invalid Healthcheck: Test {kind} has no command")));
        }
        "CMD" => words.to_vec(),
        "CMD-SHELL" if shell.is_empty() => ["/bin/sh", "-c"].map(str::to_owned).iter().chain(words).cloned().collect(),
        "CMD-SHELL" => shell.iter().chain(words).cloned().collect(),
        other => {
            warnings.push(format!(
                "Healthcheck: unknown type {other:?} (expected \"CMD\", \"CMD-SHELL\" or \"NONE\"): nothing is checked"
            ));
            return Ok(None);
        }
    };
    let retries = if check.retries == 0 { RETRIES } else { u32::try_from(check.retries).unwrap_or(u32::MAX) };
    if interval_ms.min(start_interval_ms) < SHORTEST_INTERVAL_MS {
        warnings.push(format!("Healthcheck: intervals shorter than {SHORTEST_INTERVAL_MS}ms are raised to that"));
    }
    Ok(Some(Healthcheck {
        command,
        interval_ms: interval_ms.max(SHORTEST_INTERVAL_MS),
        timeout_ms,
        start_period_ms,
        start_interval_ms: start_interval_ms.max(SHORTEST_INTERVAL_MS),
        retries,
    }))
}

/// `None` is the default.
fn duration_ms(field: &str, ns: i64) -> Result<Option<u64>> {
    match ns {
        0 => Ok(None),
        SHORTEST_NS.. => Ok(u64::try_from(ns / SHORTEST_NS).ok()),
        _ => Err(invalid(format!("{field} in Healthcheck cannot be less than 1ms"))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn written(document: serde_json::Value) -> body::Healthcheck {
        body::typed(document).expect("a health check")
    }

    fn image() -> HealthcheckSettings {
        HealthcheckSettings {
            test: vec!["CMD".into(), "probe".into()],
            interval_ns: 7_000_000_000,
            retries: 9,
            ..HealthcheckSettings::default()
        }
    }

    #[test]
    fn what_is_left_out_is_the_images_and_then_dockerds() {
        let merged = merge(Some(&written(json!({"Timeout": 2_500_000_000_i64}))), Some(&image())).expect("some");
        assert_eq!(
            json!(merged),
            json!({"Test": ["CMD", "probe"], "Interval": 7_000_000_000_i64, "Timeout": 2_500_000_000_i64, "Retries": 9})
        );
        let host = complete(&merged, &[], &mut Vec::new()).expect("valid").expect("a check");
        let expected = Healthcheck {
            command: vec!["probe".into()],
            interval_ms: 7_000,
            timeout_ms: 2_500,
            start_period_ms: 0,
            start_interval_ms: 5_000,
            retries: 9,
        };
        assert_eq!(host, expected);
        assert_eq!(merge(None, Some(&image())).map(|c| c.test), Some(image().test));
        assert_eq!(merge(None, None), None);
    }

    #[test]
    fn a_storm_of_probes_is_slowed_down_and_said_so() {
        for field in ["Interval", "StartInterval"] {
            let fast = written(json!({"Test": ["CMD", "true"], field: 1_000_000}));
            let mut warnings = Vec::new();
            let host = complete(&fast, &[], &mut warnings).expect("valid").expect("a check");
            assert_eq!((host.interval_ms.min(host.start_interval_ms), warnings.len()), (500, 1), "{field}");
        }
    }

    #[test]
    fn none_disables_and_a_shell_is_spelt_out() {
        let complete = |test: serde_json::Value, shell: &[String]| {
            let merged = merge(Some(&written(json!({"Test": test}))), Some(&image())).expect("some");
            complete(&merged, shell, &mut Vec::new()).expect("valid").map(|check| check.command.join(" "))
        };
        assert_eq!(complete(json!(["NONE"]), &[]), None);
        assert_eq!(complete(json!([]), &[]).as_deref(), Some("probe"));
        assert_eq!(complete(json!(["CMD-SHELL", "exit 1"]), &[]).as_deref(), Some("/bin/sh -c exit 1"));
        let bash = ["/bin/bash".to_owned(), "-lc".to_owned()];
        assert_eq!(complete(json!(["CMD-SHELL", "exit 1"]), &bash).as_deref(), Some("/bin/bash -lc exit 1"));
    }

    #[test]
    fn what_cannot_be_is_refused_in_dockerds_words() {
        for (field, value, text) in [
            ("Interval", 1, "Interval in Healthcheck cannot be less than 1ms"),
            ("Timeout", -1, "Timeout in Healthcheck cannot be less than 1ms"),
            ("StartPeriod", 999_999, "StartPeriod in Healthcheck cannot be less than 1ms"),
            ("StartInterval", -5, "StartInterval in Healthcheck cannot be less than 1ms"),
            ("Retries", -1, "Retries in Healthcheck cannot be negative"),
        ] {
            let check = written(json!({"Test": ["CMD", "true"], field: value}));
            let error = complete(&check, &[], &mut Vec::new()).expect_err(field).to_string();
            assert!(error.contains(text), "{field}: {error}");
        }
        assert!(complete(&written(json!({"Test": ["CMD"]})), &[], &mut Vec::new()).is_err());
        let mut warnings = Vec::new();
        assert_eq!(complete(&written(json!({"Test": ["curl"]})), &[], &mut warnings), Ok(None));
        assert!(warnings[0].contains("curl"), "{warnings:?}");
    }
}
