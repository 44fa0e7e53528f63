//! Points in time as Docker clients write them: Unix seconds with or without a fraction, RFC 3339,
//! or a Go duration that lies back from now.

use model::{Error, Result};
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};

/// Parses one; `name` is the parameter it came in.
pub(crate) fn parse(name: &str, written: &str, now: OffsetDateTime) -> Result<OffsetDateTime> {
    unix(written)
        .or_else(|| OffsetDateTime::parse(written, &Rfc3339).ok())
        .or_else(|| duration(written).and_then(|back| now.checked_sub(back)))
        .ok_or_else(|| {
            Error::InvalidArgument(format!("invalid {name}: failed to parse value as time or duration: {written:?}"))
        })
}

/// `1700000000`, `1700000000.000000005`.
fn unix(written: &str) -> Option<OffsetDateTime> {
    let (seconds, fraction) = written.split_once('.').unwrap_or((written, ""));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if !digits(seconds.strip_prefix('-').unwrap_or(seconds)) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let nanos: i128 = if fraction.is_empty() { 0 } else { format!("{fraction:0<9}").parse().ok()? };
    let seconds: i64 = seconds.parse().ok()?;
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(seconds) * 1_000_000_000 + nanos).ok()
}

/// Go's `1h30m`, `10s`, `1.5h`, `250ms`.
pub(crate) fn duration(written: &str) -> Option<Duration> {
    let mut rest = written.strip_prefix('-').unwrap_or(written);
    let mut total = 0.0_f64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let number_ends = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(number_ends);
        let unit_ends = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_ends);
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * seconds;
        rest = after;
    }
    Duration::checked_seconds_f64(if written.starts_with('-') { -total } else { total })
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-11-23 12:00:00 UTC);

    #[test]
    fn every_spelling_means_the_same_instant() {
        let wanted = datetime!(2026-11-23 11:59:50.5 UTC);
        for written in [
            "1795435190.5",
            "1795435190.500000000",
            "2026-11-23T11:59:50.5Z",
            "2026-11-23T12:59:50.5+01:00",
            "9.5s",
            "9s500ms",
        ] {
            assert_eq!(parse("since", written, NOW), Ok(wanted), "{written}");
        }
        assert_eq!(parse("since", "0", NOW), Ok(OffsetDateTime::UNIX_EPOCH));
    }

    #[test]
    fn nonsense_is_refused_by_the_parameters_name() {
        for bad in ["x", "1.2.3", "1h2", "99999999999999999999", "1e9", "5y"] {
            let error = parse("until", bad, NOW).expect_err(bad).to_string();
            assert!(error.starts_with("invalid until"), "{error}");
        }
    }
}
