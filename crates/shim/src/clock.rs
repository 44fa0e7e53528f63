//! Time of day as the log and the records write it. No time library: this is all the shim needs.

use std::time::{SystemTime, UNIX_EPOCH};

/// Nanoseconds since 1970.
pub(crate) fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// `2026-11-23T22:33:44.123456789Z`.
pub(crate) fn rfc3339(ns: i64) -> [u8; 30] {
    let (seconds, nanos) = (ns.div_euclid(1_000_000_000), ns.rem_euclid(1_000_000_000));
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let mut out = *b"0000-00-00T00:00:00.000000000Z";
    digits(&mut out[0..4], year);
    digits(&mut out[5..7], month);
    digits(&mut out[8..10], day);
    digits(&mut out[11..13], second / 3600);
    digits(&mut out[14..16], second / 60 % 60);
    digits(&mut out[17..19], second % 60);
    digits(&mut out[20..29], nanos);
    out
}

fn digits(out: &mut [u8], mut n: i64) {
    for at in out.iter_mut().rev() {
        *at = b'0' + u8::try_from(n.rem_euclid(10)).unwrap_or(0);
        n /= 10;
    }
}

/// Days since 1970 to a date of the Gregorian calendar (Hinnant's algorithm).
fn civil(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_written_as_go_reads_them() {
        assert_eq!(&rfc3339(0), b"1970-01-01T00:00:00.000000000Z");
        assert_eq!(&rfc3339(951_782_400_000_000_001), b"2000-02-29T00:00:00.000000001Z");
        assert_eq!(&rfc3339(1_795_559_935_987_654_321), b"2026-11-24T22:38:55.987654321Z");
    }
}
