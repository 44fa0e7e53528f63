//! `changes`: instructions of a Dockerfile that need no build, applied to an image's configuration
//! (commit, import).

use std::collections::BTreeMap;

use model::{Error, Result};
use serde_json::json;

use super::containers::{ContainerConfig, Healthcheck, Words};

/// Instructions of one request.
const MOST: usize = 256;

/// Applies them in order.
///
/// # Errors
/// Names the instruction that cannot be read.
pub(crate) fn apply<'a>(config: &mut ContainerConfig, changes: impl Iterator<Item = &'a str>) -> Result<()> {
    let (mut count, mut cmd_set) = (0, false);
    for line in changes.flat_map(str::lines).map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
        count += 1;
        if count > MOST {
            return Err(Error::InvalidArgument(format!("more than {MOST} changes")));
        }
        let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        one(config, &name.to_ascii_uppercase(), rest.trim(), &mut cmd_set)?;
    }
    Ok(())
}

fn one(config: &mut ContainerConfig, name: &str, rest: &str, cmd_set: &mut bool) -> Result<()> {
    if rest.is_empty() && !matches!(name, "CMD" | "ENTRYPOINT") {
        let known = matches!(
            name,
            "ENV" | "EXPOSE" | "HEALTHCHECK" | "LABEL" | "ONBUILD" | "STOPSIGNAL" | "USER" | "VOLUME" | "WORKDIR"
        );
        return Err(if known { bad(format!("{name} requires at least one argument")) } else { unknown(name) });
    }
    match name {
        "CMD" => {
            config.cmd = Some(Words(command(config, rest)));
            *cmd_set = true;
        }
        "ENTRYPOINT" => {
            config.entrypoint = Some(Words(command(config, rest)));
            if !*cmd_set {
                config.cmd = None;
            }
        }
        "ENV" => {
            for (key, value) in pairs("ENV", rest, &variables(config))? {
                config.env.retain(|entry| entry.split('=').next() != Some(key.as_str()));
                config.env.push(format!("{key}={value}"));
            }
        }
        "LABEL" => config.labels.extend(pairs("LABEL", rest, &variables(config))?),
        "EXPOSE" => {
            for word in words(rest, &variables(config))? {
                config.exposed_ports.extend(ports(&word)?.into_iter().map(|port| (port, json!({}))));
            }
        }
        "VOLUME" => {
            let listed = match json_list(rest) {
                Some(paths) => paths,
                None => words(rest, &variables(config))?,
            };
            if listed.iter().any(String::is_empty) {
                return Err(bad("VOLUME specified can not be an empty string".into()));
            }
            config.volumes.extend(listed.into_iter().map(|path| (path, json!({}))));
        }
        "USER" => config.user = single("USER", rest, config)?,
        "STOPSIGNAL" => config.stop_signal = single("STOPSIGNAL", rest, config)?,
        "WORKDIR" => {
            let wanted = words(rest, &variables(config))?.join(" ");
            config.working_dir = joined(&config.working_dir, &wanted);
        }
        "ONBUILD" => {
            let inner = rest.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
            match inner.as_str() {
                "ONBUILD" => return Err(bad("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed".into())),
                "MAINTAINER" | "FROM" => return Err(bad(format!("{inner} isn't allowed as an ONBUILD trigger"))),
                _ => config.on_build.push(rest.to_owned()),
            }
        }
        "HEALTHCHECK" => config.healthcheck = Some(health_check(rest)?),
        other => return Err(unknown(other)),
    }
    Ok(())
}

fn bad(text: String) -> Error {
    Error::InvalidArgument(text)
}

fn unknown(name: &str) -> Error {
    bad(format!("{} is not a valid change command", name.to_ascii_lowercase()))
}

/// The exec form, or the shell's.
fn command(config: &ContainerConfig, rest: &str) -> Vec<String> {
    if let Some(list) = json_list(rest) {
        return list;
    }
    if rest.is_empty() {
        return Vec::new();
    }
    let shell = if config.shell.0.is_empty() { vec!["/bin/sh".into(), "-c".into()] } else { config.shell.0.clone() };
    shell.into_iter().chain([rest.to_owned()]).collect()
}

fn json_list(rest: &str) -> Option<Vec<String>> {
    if rest.starts_with('[') { serde_json::from_str(rest).ok() } else { None }
}

fn variables(config: &ContainerConfig) -> BTreeMap<String, String> {
    config.env.iter().filter_map(|e| e.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

fn single(name: &str, rest: &str, config: &ContainerConfig) -> Result<String> {
    match words(rest, &variables(config))?.as_slice() {
        [one] => Ok(one.clone()),
        _ => Err(bad(format!("{name} requires exactly one argument"))),
    }
}

/// `key=value key2="a b"`, or `key the whole rest`.
fn pairs(name: &str, rest: &str, known: &BTreeMap<String, String>) -> Result<Vec<(String, String)>> {
    let first = rest.split_whitespace().next().unwrap_or_default();
    if !first.contains('=') {
        let (key, value) =
            rest.split_once(char::is_whitespace).ok_or_else(|| bad(format!("{name} must have two arguments")))?;
        return Ok(vec![(key.to_owned(), words(value.trim(), known)?.join(" "))]);
    }
    let pair = |word: String| match word.split_once('=') {
        Some(("", _)) => Err(bad(format!("{name} names can not be blank"))),
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
        None => Err(bad(format!("Syntax error - can't find = in {word:?}. Must be of the form: name=value"))),
    };
    words(rest, known)?.into_iter().map(pair).collect()
}

/// Words as a shell splits them: quotes, backslashes, `$NAME` and `${NAME}`.
fn words(text: &str, known: &BTreeMap<String, String>) -> Result<Vec<String>> {
    let (mut words, mut word, mut begun, mut quote) = (Vec::new(), String::new(), false, None);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\'', None) | ('"', None) => (quote, begun) = (Some(c), true),
            (c, Some(open)) if c == open => quote = None,
            ('\\', None | Some('"')) => {
                word.push(chars.next().unwrap_or('\\'));
                begun = true;
            }
            ('$', None | Some('"')) => {
                word.push_str(&variable(&mut chars, known)?);
                begun = true;
            }
            (c, None) if c.is_whitespace() => {
                if std::mem::take(&mut begun) {
                    words.push(std::mem::take(&mut word));
                }
            }
            (c, _) => {
                word.push(c);
                begun = true;
            }
        }
    }
    if quote.is_some() {
        return Err(bad(format!("unexpected end of statement while looking for matching quote: {text}")));
    }
    if begun {
        words.push(word);
    }
    Ok(words)
}

fn variable(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, known: &BTreeMap<String, String>) -> Result<String> {
    let braced = chars.next_if_eq(&'{').is_some();
    let mut name = String::new();
    while let Some(c) = chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
        name.push(c);
    }
    let value = known.get(&name).cloned();
    if !braced {
        return Ok(if name.is_empty() { "$".into() } else { value.unwrap_or_default() });
    }
    let rest: String = chars.by_ref().take_while(|c| *c != '}').collect();
    match (rest.get(..2), rest.get(2..)) {
        (Some(":-"), Some(other)) => Ok(value.filter(|v| !v.is_empty()).unwrap_or_else(|| other.to_owned())),
        (Some(":+"), Some(other)) => Ok(value.filter(|v| !v.is_empty()).map(|_| other.to_owned()).unwrap_or_default()),
        _ if rest.is_empty() && !name.is_empty() => Ok(value.unwrap_or_default()),
        _ => Err(bad(format!("unsupported modifier in substitution: ${{{name}{rest}}}"))),
    }
}

/// `80`, `53/udp`, `8000-8003`.
fn ports(written: &str) -> Result<Vec<String>> {
    let invalid = || bad(format!("Invalid containerPort: {written}"));
    let (range, protocol) = written.split_once('/').unwrap_or((written, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(bad(format!("invalid proto: {protocol}")));
    }
    let (from, to) = range.split_once('-').unwrap_or((range, range));
    let (from, to): (u16, u16) = (from.parse().map_err(|_| invalid())?, to.parse().map_err(|_| invalid())?);
    if from == 0 || from > to {
        return Err(invalid());
    }
    Ok((from..=to).map(|port| format!("{port}/{protocol}")).collect())
}

/// A path on top of another, without `.` and `..`.
fn joined(base: &str, path: &str) -> String {
    let whole = if path.starts_with('/') { path.to_owned() } else { format!("{base}/{path}") };
    let mut parts: Vec<&str> = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    format!("/{}", parts.join("/"))
}

/// `NONE`, or options and `CMD …`.
fn health_check(rest: &str) -> Result<Healthcheck> {
    let mut check = Healthcheck::default();
    let mut left = rest;
    loop {
        let (word, after) = left.split_once(char::is_whitespace).unwrap_or((left, ""));
        let after = after.trim_start();
        if let Some(option) = word.strip_prefix("--") {
            let (name, value) =
                option.split_once('=').ok_or_else(|| bad(format!("no value for --{option} in HEALTHCHECK")))?;
            match name {
                "interval" => check.interval = nanos(name, value)?,
                "timeout" => check.timeout = nanos(name, value)?,
                "start-period" => check.start_period = nanos(name, value)?,
                "start-interval" => check.start_interval = nanos(name, value)?,
                "retries" => check.retries = value.parse().map_err(|_| bad(format!("invalid --retries {value:?}")))?,
                _ => return Err(bad(format!("unknown flag: {name}"))),
            }
            left = after;
            continue;
        }
        check.test = match (word.to_ascii_uppercase().as_str(), json_list(after)) {
            ("NONE", _) if after.is_empty() => vec!["NONE".into()],
            ("NONE", _) => return Err(bad("HEALTHCHECK NONE takes no arguments".into())),
            ("CMD", _) if after.is_empty() => return Err(bad("missing command after HEALTHCHECK CMD".into())),
            ("CMD", Some(list)) => ["CMD".to_owned()].into_iter().chain(list).collect(),
            ("CMD", None) => vec!["CMD-SHELL".into(), after.to_owned()],
            (other, _) => return Err(bad(format!("unknown type {other:?} in HEALTHCHECK (try CMD)"))),
        };
        return Ok(check);
    }
}

/// A duration as Go writes it: `1m30s`, `500ms`.
fn nanos(name: &str, text: &str) -> Result<i64> {
    let wrong = || bad(format!("invalid --{name}: time: invalid duration {text:?}"));
    const UNITS: [(&str, f64); 6] = [("ns", 1.0), ("us", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 60e9), ("h", 3600e9)];
    let (mut rest, mut sum) = (text, 0.0);
    if text.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        let unit_end = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |n| digits + n);
        let unit = UNITS.iter().find(|(unit, _)| *unit == &rest[digits..unit_end]).ok_or_else(wrong)?;
        sum += number * unit.1;
        rest = &rest[unit_end..];
    }
    Ok(sum as i64)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn applied(changes: &[&str]) -> Value {
        let mut config = ContainerConfig::default();
        apply(&mut config, changes.iter().copied()).expect("applies");
        super::super::containers::image_config(&config)
    }

    fn refused(change: &str) -> String {
        apply(&mut ContainerConfig::default(), [change].into_iter()).expect_err("refused").to_string()
    }

    #[test]
    fn every_instruction_has_its_effect() {
        let shown = applied(&[
            r#"CMD ["a", "b"]"#,
            "env A=1 B=\"two words\" C=$A",
            "ENV D the rest",
            "LABEL x=y",
            "EXPOSE 80 53/udp 8000-8001",
            "VOLUME /data /more",
            "USER nobody",
            "WORKDIR /a",
            "WORKDIR b/../c",
            "STOPSIGNAL SIGINT",
            "ONBUILD RUN true",
            "HEALTHCHECK --interval=1m30s --retries=3 CMD test -f /ok",
        ]);
        assert_eq!(
            shown,
            json!({
                "User": "nobody",
                "ExposedPorts": {"53/udp": {}, "80/tcp": {}, "8000/tcp": {}, "8001/tcp": {}},
                "Env": ["A=1", "B=two words", "C=", "D=the rest"],
                "Cmd": ["a", "b"],
                "Healthcheck": {"Test": ["CMD-SHELL", "test -f /ok"], "Interval": 90_000_000_000_i64, "Retries": 3},
                "Volumes": {"/data": {}, "/more": {}},
                "WorkingDir": "/a/c",
                "OnBuild": ["RUN true"],
                "Labels": {"x": "y"},
                "StopSignal": "SIGINT",
            })
        );
    }

    #[test]
    fn an_entrypoint_takes_away_a_command_that_was_there_and_a_shell_form_runs_in_a_shell() {
        let mut config = ContainerConfig { cmd: Some(Words(vec!["old".into()])), ..ContainerConfig::default() };
        apply(&mut config, ["ENTRYPOINT echo $HOME"].into_iter()).expect("applies");
        assert_eq!(
            (config.entrypoint.map(|e| e.0), config.cmd),
            (Some(vec!["/bin/sh".into(), "-c".into(), "echo $HOME".into()]), None)
        );
    }

    #[test]
    fn variables_are_those_set_before() {
        let shown = applied(&["ENV A=/x", "ENV P=$A/bin:${A}/sbin Q=${NO:-none} R=\\$A S='$A'"]);
        assert_eq!(shown["Env"], json!(["A=/x", "P=/x/bin:/x/sbin", "Q=none", "R=$A", "S=$A"]));
    }

    #[test]
    fn what_needs_a_build_or_cannot_be_read_is_refused_by_name() {
        assert_eq!(refused("RUN true"), "run is not a valid change command");
        assert_eq!(refused("COPY a b"), "copy is not a valid change command");
        assert!(refused("ENV").contains("ENV requires"));
        assert!(refused("ENV =x").contains("blank"));
        assert!(refused("EXPOSE 99999").contains("99999"));
        assert!(refused("LABEL a=\"b").contains("matching quote"));
        assert!(refused("HEALTHCHECK --interval=soon CMD x").contains("soon"));
        assert!(refused("ONBUILD FROM x").contains("isn't allowed"));
    }
}
