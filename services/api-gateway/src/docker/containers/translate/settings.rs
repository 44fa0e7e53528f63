//! Smaller settings: host name, signals, name servers, sizes as people write them.

use std::net::IpAddr;

use model::Result;

use super::{forbidden, invalid, not_built, resources::signal_number};
use crate::limits::MEMORY_FILE_SYSTEM_BYTES;

/// Entries of any of the short lists.
const ENTRIES_MAX: usize = 256;

/// A host or domain name (RFC 1123 characters), or empty.
pub(super) fn hostname(name: &str, field: &str) -> Result<String> {
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    let fits = name.len() <= if field == "hostname" { 64 } else { 253 };
    if name.is_empty() || (fits && name.split('.').all(label)) {
        Ok(name.to_owned())
    } else {
        Err(invalid(format!("invalid {field} format: {name}")))
    }
}

/// Rows and columns, if given.
pub(super) fn console_size([rows, columns]: [u32; 2]) -> Result<Option<(u16, u16)>> {
    if (rows, columns) == (0, 0) {
        return Ok(None);
    }
    match (u16::try_from(rows), u16::try_from(columns)) {
        (Ok(rows), Ok(columns)) => Ok(Some((rows, columns))),
        _ => Err(invalid("invalid ConsoleSize: more than 65535 rows or columns")),
    }
}

/// The user's stop signal, else the image's if it is one.
pub(super) fn stop_signal(user: &str, image: Option<&str>) -> Result<Option<String>> {
    if !user.is_empty() {
        return match signal_number(user) {
            Some(_) => Ok(Some(user.to_owned())),
            None => Err(invalid(format!("Invalid signal: {user}"))),
        };
    }
    Ok(image.filter(|signal| signal_number(signal).is_some()).map(str::to_owned))
}

/// `name:address` lines for `/etc/hosts`.
pub(super) fn extra_hosts(written: &[String]) -> Result<Vec<String>> {
    bounded(written, "ExtraHosts")?;
    written
        .iter()
        .map(|line| {
            let (name, address) = line
                .split_once([':', '='])
                .filter(|(name, _)| !name.is_empty() && !name.contains(char::is_whitespace))
                .ok_or_else(|| invalid(format!("bad format for add-host: {line:?}")))?;
            if address == "host-gateway" {
                return Err(not_built(&format!("ExtraHosts {line:?}: host-gateway")));
            }
            let bare = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
            let address: IpAddr =
                bare.parse().map_err(|_| invalid(format!("invalid IP address in add-host: {address:?}")))?;
            Ok(format!("{name}:{address}"))
        })
        .collect()
}

/// Addresses of name servers.
pub(super) fn name_servers(written: &[String]) -> Result<Vec<String>> {
    bounded(written, "Dns")?;
    match written.iter().find(|server| server.parse::<IpAddr>().is_err()) {
        Some(bad) => Err(invalid(format!("bad nameserver address: {bad}"))),
        None => Ok(written.to_vec()),
    }
}

/// Words that end up in a file of the container, one line's worth each.
pub(super) fn short_list(written: &[String], field: &str) -> Result<Vec<String>> {
    bounded(written, field)?;
    match written.iter().find(|w| w.len() > 255 || w.is_empty() || w.contains(|c: char| c.is_control() || c == ' ')) {
        Some(bad) => Err(invalid(format!("invalid {field}: {bad:?}"))),
        None => Ok(written.to_vec()),
    }
}

fn bounded(written: &[String], field: &str) -> Result<()> {
    if written.len() > ENTRIES_MAX {
        Err(invalid(format!("{field}: at most {ENTRIES_MAX} entries are possible")))
    } else {
        Ok(())
    }
}

/// The size of a file system in memory, which has an end.
pub(crate) fn memory_size(field: &str, bytes: u64) -> Result<u64> {
    match bytes {
        0..=MEMORY_FILE_SYSTEM_BYTES => Ok(bytes),
        _ => Err(forbidden(format!(
            "{field} {bytes}: at most {MEMORY_FILE_SYSTEM_BYTES} bytes are available on Wharfage"
        ))),
    }
}

/// `64m`, `1g`, `4096`: go-units' binary sizes.
pub(crate) fn byte_size(written: &str) -> Option<u64> {
    let lower = written.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic()).trim_end();
    let shift = match lower[digits.len()..].trim() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return None,
    };
    let number: u64 = digits.parse().ok()?;
    number.checked_mul(1 << shift)
}
