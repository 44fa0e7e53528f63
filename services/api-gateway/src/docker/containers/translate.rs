//! From what a client asked to what a host runs: `CreateBody` and the image's defaults in,
//! `ContainerSpec` and warnings out. Pure. Every option is honoured, refused by its name with the
//! reason, or named in a warning; none is dropped.

mod command;
mod health;
mod kernel;
mod log;
mod mounts;
mod policy;
mod ports;
mod resources;
mod settings;
mod shared_network;
mod update;

use std::collections::BTreeMap;

use model::{ContainerSpec, Error, ImageConfig, RestartPolicy, Result, StreamFlags};
use serde_json::Value;

pub(crate) use mounts::{Shared, WantedMount};
pub(crate) use policy::no_such_runtime;
pub(crate) use ports::port;
pub(crate) use resources::signal_number;
pub(crate) use settings::{byte_size, memory_size};
pub(crate) use shared_network::{namespace_of, network_of};
pub(super) use update::{Updated, update};

use super::{
    body::{CreateBody, Healthcheck},
    host_config::{self, HostConfig},
};

/// Labels of this prefix are ours; no image and no user sets them.
const RESERVED_LABELS: &str = "io.wharfage.";
/// Bytes of all names, values and arguments of one container.
const TEXT_BYTES_MAX: usize = 1024 * 1024;

/// The outcome of a translation.
#[derive(Debug)]
pub(crate) struct Translated {
    /// What to run.
    pub(crate) spec: ContainerSpec,
    /// Volumes it shall have; the spec gets them once they are found.
    pub(crate) volumes: Vec<WantedMount>,
    /// Containers whose volumes it shall have.
    pub(crate) shared: Vec<Shared>,
    /// What the user should know.
    pub(crate) warnings: Vec<String>,
}

/// 403: the platform's policy, not a lack of work.
fn forbidden(text: impl Into<String>) -> Error {
    Error::Forbidden(text.into())
}

/// 501: it will come.
fn not_built(what: &str) -> Error {
    Error::NotImplemented(format!("{what} is not built yet on Wharfage"))
}

fn invalid(text: impl Into<String>) -> Error {
    Error::InvalidArgument(text.into())
}

/// Translates; the first thing that cannot be granted is the error.
pub(crate) fn translate(body: &CreateBody, image: &ImageConfig) -> Result<Translated> {
    let (config, host) = (&body.config, &body.host_config);
    let mut warnings = Vec::new();
    policy::check(host)?;
    shared_network::check(config, host, &mut warnings)?;
    let mounts = mounts::mounts(body, image)?;
    policy::warn(host, &mut warnings);
    let (entrypoint, cmd) = command::merge(config, image)?;
    let labels = labels(&config.labels, &image.labels)?;
    let env = command::environment(&config.env, &image.env)?;
    let log = log::log(host, &labels, &env, &mut warnings)?;
    let check = health::merge(config.healthcheck.as_ref(), image.healthcheck.as_ref());
    let shell = if config.shell.0.is_empty() { &image.shell } else { &config.shell.0 };
    let exposed_ports = ports::exposed(config.exposed_ports.keys().map(String::as_str), &image.exposed_ports)?;
    let port_bindings = ports::bindings(&host.port_bindings)?;
    let spec = ContainerSpec {
        healthcheck: check.as_ref().map(|check| health::complete(check, shell, &mut warnings)).transpose()?.flatten(),
        image: config.image.clone(),
        entrypoint,
        cmd,
        env,
        working_dir: command::working_dir(&config.working_dir, &image.working_dir)?,
        user: if config.user.is_empty() { image.user.clone() } else { config.user.clone() },
        hostname: settings::hostname(&config.hostname, "hostname")?,
        domainname: settings::hostname(&config.domainname, "domainname")?,
        labels,
        annotations: BTreeMap::new(),
        tty: config.tty,
        open_stdin: config.open_stdin,
        stdin_once: config.stdin_once,
        attach: StreamFlags { stdin: config.attach_stdin, stdout: config.attach_stdout, stderr: config.attach_stderr },
        console_size: settings::console_size(host.console_size)?,
        stop_signal: settings::stop_signal(&config.stop_signal, image.stop_signal.as_deref())?,
        stop_timeout_s: config.stop_timeout,
        publish_all: ports::publish_all(host.publish_all_ports, &exposed_ports, &port_bindings)?,
        exposed_ports,
        port_bindings,
        auto_remove: host.auto_remove,
        restart: restart(host)?,
        resources: resources::resources(host, &mut warnings)?,
        security: policy::security(host)?,
        sysctls: kernel::sysctls(host)?,
        oom_score_adj: kernel::oom_score_adj(host)?,
        ipc: kernel::ipc_mode(host)?,
        tmpfs: mounts.tmpfs,
        volumes: Vec::new(),
        docker_sockets: mounts.sockets,
        init: host.init.unwrap_or(false),
        log,
        network_none: host.network_mode == "none" || config.network_disabled,
        network_of: None,
        pid_of: None,
        ipc_of: None,
        links: Vec::new(),
        extra_hosts: settings::extra_hosts(host.extra_hosts.as_deref().unwrap_or_default())?,
        dns: settings::name_servers(&host.dns)?,
        dns_options: settings::short_list(&host.dns_options, "DnsOptions")?,
        dns_search: settings::short_list(&host.dns_search, "DnsSearch")?,
        runtime: policy::runtime(host)?,
        shown: shown(body, image, mounts.declared, check.as_ref(), shell),
    };
    check_size(&spec)?;
    Ok(Translated { spec, volumes: mounts.volumes, shared: mounts.shared, warnings })
}

fn labels(user: &BTreeMap<String, String>, image: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>> {
    if let Some(key) = user.keys().find(|k| k.starts_with(RESERVED_LABELS)) {
        return Err(forbidden(format!("label {key:?}: labels that begin with {RESERVED_LABELS} are the platform's")));
    }
    let mut labels = image.clone();
    labels.retain(|key, _| !key.starts_with(RESERVED_LABELS));
    labels.extend(user.clone());
    Ok(labels)
}

fn restart(host: &HostConfig) -> Result<RestartPolicy> {
    let wanted = &host.restart_policy;
    let retries = wanted.maximum_retry_count;
    let policy = match wanted.name.as_str() {
        "" | "no" => RestartPolicy::No,
        "always" => RestartPolicy::Always,
        "unless-stopped" => RestartPolicy::UnlessStopped,
        "on-failure" => {
            let bound = u32::try_from(retries)
                .map_err(|_| invalid("invalid restart policy: maximum retry count cannot be negative"))?;
            RestartPolicy::OnFailure { max_retries: bound }
        }
        other => {
            return Err(invalid(format!(
                "invalid restart policy: unknown policy '{other}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
            )));
        }
    };
    if retries != 0 && !matches!(policy, RestartPolicy::OnFailure { .. }) {
        return Err(invalid("invalid restart policy: maximum retry count can only be used with 'on-failure'"));
    }
    if host.auto_remove && policy != RestartPolicy::No {
        return Err(invalid("can't create 'AutoRemove' container with restart policy"));
    }
    Ok(policy)
}

/// The client's own document, for inspect. Only what is not a default is kept.
fn shown(
    body: &CreateBody,
    image: &ImageConfig,
    declared_volumes: BTreeMap<String, Value>,
    check: Option<&Healthcheck>,
    shell: &[String],
) -> BTreeMap<String, Value> {
    let mut host = body.host_config.clone();
    if host.network_mode.is_empty() || host.network_mode == "default" {
        host.network_mode = "bridge".into();
    }
    if host.restart_policy.name.is_empty() {
        host.restart_policy.name = "no".into();
    }
    if host.log_config.driver.is_empty() {
        host.log_config.driver = "json-file".into();
    }
    if host.memory > 0 && host.memory_swap == 0 {
        host.memory_swap = host.memory.saturating_mul(2);
    }
    // Shown by the names of then.
    host.links = None;
    let mut shown = BTreeMap::new();
    if let Ok(host) = serde_json::to_value(host) {
        shown.insert("HostConfig".into(), host_config::without_defaults(host));
    }
    let config = &body.config;
    let mut rest = serde_json::Map::new();
    if let Some(check) = check {
        rest.insert("Healthcheck".into(), serde_json::json!(check));
    }
    if !declared_volumes.is_empty() {
        rest.insert("Volumes".into(), declared_volumes.into_iter().collect());
    }
    if config.env.iter().any(|entry| !entry.contains('=')) {
        // Names alone are not in the container, and are shown nevertheless.
        rest.insert("Env".into(), command::shown_environment(&config.env, &image.env).into());
    }
    if !config.on_build.is_empty() {
        rest.insert("OnBuild".into(), config.on_build.clone().into());
    }
    if !shell.is_empty() {
        rest.insert("Shell".into(), shell.into());
    }
    if !rest.is_empty() {
        shown.insert("Config".into(), Value::Object(rest));
    }
    shown
}

fn check_size(spec: &ContainerSpec) -> Result<()> {
    let words = [&spec.entrypoint, &spec.cmd, &spec.env, &spec.extra_hosts];
    let probe = spec.healthcheck.iter().flat_map(|check| &check.command);
    let texts = words.into_iter().flatten().chain(probe);
    if texts.clone().chain([&spec.user, &spec.working_dir]).chain(spec.labels.keys()).any(|text| text.contains('\0')) {
        return Err(invalid("text contains a NUL character"));
    }
    let labels: usize = spec.labels.iter().map(|(k, v)| k.len() + v.len()).sum();
    if texts.map(String::len).sum::<usize>() + labels > TEXT_BYTES_MAX {
        return Err(invalid("arguments, environment and labels together are larger than 1 MiB"));
    }
    if spec.user.len() > 256 || spec.working_dir.len() > 4096 {
        return Err(invalid("the user or working directory is too long"));
    }
    Ok(())
}

#[cfg(test)]
mod matrix_tests;
#[cfg(test)]
mod tests;
