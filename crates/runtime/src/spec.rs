//! The OCI configuration of a container: Docker's defaults, minus what B14 of the attack catalogue
//! asks to hide in addition. Pure: values in, document out.

use std::{collections::HashSet, path::PathBuf};

use model::{DEFAULT_CAPABILITIES, GRANTABLE_CAPABILITIES, Resources, SecuritySpec};
use oci_spec::{
    OciSpecError,
    runtime::{
        BoxBuilder, Capability, LinuxBuilder, LinuxCapabilities, LinuxCapabilitiesBuilder, LinuxIdMapping,
        LinuxIdMappingBuilder, LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType, PosixRlimit,
        PosixRlimitBuilder, PosixRlimitType, Process, ProcessBuilder, RootBuilder, Spec, SpecBuilder, User,
        UserBuilder,
    },
};
use serde_json::{Value, json};

use crate::{
    Error, ExecProcess, Netns, ResolvedUser, Result, SandboxSpec, UserNamespace, cgroup::HostCgroups, rlimit::Rlimit,
    seccomp, user,
};

mod mounts;
mod paths;
mod resources;

/// Where the init of `--init` is bound: `/dev` is a fresh tmpfs, so nothing is left in the image's layers.
const INIT_PATH: &str = "/dev/init";
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Builds the configuration.
///
/// # Errors
/// `Invalid` for an empty command, a relative working directory or an unknown capability.
pub(crate) fn build(
    sandbox: &SandboxSpec,
    who: &ResolvedUser,
    rlimits: Vec<Rlimit>,
    cgroups: &HostCgroups,
    warnings: &mut Vec<String>,
) -> Result<Spec> {
    if sandbox.argv.is_empty() {
        return Err(Error::Invalid("no command specified".into()));
    }
    let capabilities = capabilities(&sandbox.security)?;
    let resources = resources::build(&sandbox.resources, cgroups, warnings).map_err(internal)?;
    assemble(sandbox, who, rlimits, &capabilities, resources).map_err(internal)
}

/// The resources part alone, as it stands in the configuration.
pub(crate) fn limits(asked: &Resources, cgroups: &HostCgroups, warnings: &mut Vec<String>) -> Result<Value> {
    let resources = resources::build(asked, cgroups, warnings).map_err(internal)?;
    serde_json::to_value(resources).map_err(|source| Error::Document { what: "OCI resources".into(), source })
}

/// A builder of `oci-spec` refused: our values are wrong, not the tenant's.
fn internal(e: OciSpecError) -> Error {
    Error::io("build the OCI configuration", std::io::Error::other(e))
}

fn assemble(
    sandbox: &SandboxSpec,
    who: &ResolvedUser,
    rlimits: Vec<Rlimit>,
    capabilities: &[String],
    resources: oci_spec::runtime::LinuxResources,
) -> std::result::Result<Spec, OciSpecError> {
    let mut linux = LinuxBuilder::default()
        .namespaces(namespaces(sandbox)?)
        .cgroups_path(&sandbox.cgroup_path)
        .resources(resources)
        .seccomp(seccomp::profile(capabilities)?)
        .masked_paths(paths::masked())
        .readonly_paths(paths::readonly())
        .devices(Vec::new())
        .build()?;
    linux.set_sysctl(Some(sysctls(sandbox)));
    // Of a namespace that is joined this says what it is, not what it shall be.
    let mapping = sandbox.userns.as_ref().map(id_mapping).transpose()?;
    linux.set_uid_mappings(mapping.map(|m| vec![m])).set_gid_mappings(mapping.map(|m| vec![m]));
    let root = RootBuilder::default().path(&sandbox.rootfs).readonly(sandbox.security.readonly_rootfs).build()?;
    let annotations = sandbox.annotations.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
    let mut spec = SpecBuilder::default()
        .version("1.0.2")
        .process(process(sandbox, who, rlimits, capabilities)?)
        .root(root)
        .hostname(&sandbox.hostname)
        .mounts(mounts::build(sandbox)?)
        .linux(linux)
        .build()?;
    spec.set_annotations(Some(annotations).filter(|a: &std::collections::HashMap<_, _>| !a.is_empty()));
    if !sandbox.domainname.is_empty() && sandbox.uts.is_none() {
        // The OCI field is newer than the runtimes we support; as a sysctl it works in all of them.
        let linux = spec.linux_mut().as_mut();
        if let Some(sysctl) = linux.and_then(|l| l.sysctl_mut().as_mut()) {
            sysctl.insert("kernel.domainname".into(), sandbox.domainname.clone());
        }
    }
    Ok(spec)
}

fn process(
    sandbox: &SandboxSpec,
    who: &ResolvedUser,
    rlimits: Vec<Rlimit>,
    capabilities: &[String],
) -> std::result::Result<Process, OciSpecError> {
    let mut argv = sandbox.argv.clone();
    if sandbox.init.is_some() {
        argv.splice(0..0, [INIT_PATH.to_owned(), "init".to_owned(), "--".to_owned()]);
    }
    let mut process = ProcessBuilder::default()
        .terminal(sandbox.tty)
        .user(oci_user(who)?)
        .args(argv)
        .env(environment(sandbox))
        .cwd(working_dir(&sandbox.cwd))
        .capabilities(oci_capabilities(capabilities)?)
        .rlimits(rlimits.iter().map(oci_rlimit).collect::<std::result::Result<Vec<_>, _>>()?)
        .no_new_privileges(sandbox.security.no_new_privileges)
        .build()?;
    process.set_apparmor_profile(None).set_selinux_label(None);
    process.set_oom_score_adj(sandbox.oom_score_adj);
    let size = sandbox.console_size.filter(|_| sandbox.tty);
    let size = size.map(|(h, w)| BoxBuilder::default().height(h).width(w).build()).transpose()?;
    process.set_console_size(size);
    Ok(process)
}

fn working_dir(cwd: &str) -> String {
    if cwd.starts_with('/') { cwd.to_owned() } else { format!("/{cwd}") }
}

/// PATH, HOSTNAME and TERM first, then the container's own, as dockerd orders them.
fn environment(sandbox: &SandboxSpec) -> Vec<String> {
    let mut env = vec![DEFAULT_PATH.to_owned(), format!("HOSTNAME={}", sandbox.hostname)];
    if sandbox.tty {
        env.push("TERM=xterm".into());
    }
    overlay_env(&mut env, &sandbox.env);
    env
}

/// A later value takes the place of an earlier one; a bare name removes it.
fn overlay_env(env: &mut Vec<String>, over: &[String]) {
    for entry in over {
        let name = entry.split('=').next().unwrap_or_default();
        let at = env.iter().position(|e| e.split('=').next() == Some(name));
        match (at, entry.contains('=')) {
            (Some(i), true) => env[i].clone_from(entry),
            (None, true) => env.push(entry.clone()),
            (Some(i), false) => drop(env.remove(i)),
            (None, false) => {}
        }
    }
}

fn oci_user(who: &ResolvedUser) -> std::result::Result<User, OciSpecError> {
    UserBuilder::default().uid(who.uid).gid(who.gid).additional_gids(who.additional_gids.clone()).build()
}

fn oci_rlimit(limit: &Rlimit) -> std::result::Result<PosixRlimit, OciSpecError> {
    let kind = serde_json::from_value::<PosixRlimitType>(json!(limit.kind))?;
    PosixRlimitBuilder::default().typ(kind).soft(limit.soft).hard(limit.hard).build()
}

/// The capability set: default, plus what may be added, minus what is dropped. Sorted.
fn capabilities(security: &SecuritySpec) -> Result<Vec<String>> {
    let mut set: HashSet<&str> = HashSet::new();
    if !security.cap_drop.iter().any(|c| c.as_str() == "ALL") {
        set.extend(DEFAULT_CAPABILITIES);
        for dropped in &security.cap_drop {
            set.remove(dropped.as_str());
        }
    }
    for added in &security.cap_add {
        match added.as_str() {
            "ALL" => set
                .extend(GRANTABLE_CAPABILITIES.iter().filter(|c| !security.cap_drop.iter().any(|d| d.as_str() == **c))),
            // The gateway has refused it already; the host does not depend on that.
            name if !GRANTABLE_CAPABILITIES.contains(&name) => {
                return Err(Error::Invalid(format!("capability {name} cannot be granted")));
            }
            name => drop(set.insert(name)),
        }
    }
    let mut names: Vec<String> = set.into_iter().map(str::to_owned).collect();
    names.sort_unstable();
    Ok(names)
}

/// Inheritable and ambient stay empty (CVE-2022-24769).
fn oci_capabilities(names: &[String]) -> std::result::Result<LinuxCapabilities, OciSpecError> {
    let set = names
        .iter()
        .map(|n| Ok(serde_json::from_value::<Capability>(json!(format!("CAP_{n}")))?))
        .collect::<std::result::Result<HashSet<_>, OciSpecError>>()?;
    LinuxCapabilitiesBuilder::default()
        .bounding(set.clone())
        .effective(set.clone())
        .permitted(set)
        .inheritable(HashSet::new())
        .ambient(HashSet::new())
        .build()
}

fn namespaces(sandbox: &SandboxSpec) -> std::result::Result<Vec<LinuxNamespace>, OciSpecError> {
    let new = |typ| LinuxNamespaceBuilder::default().typ(typ).build();
    let at = |typ, path: Option<&PathBuf>| match path {
        Some(path) => LinuxNamespaceBuilder::default().typ(typ).path(path).build(),
        None => new(typ),
    };
    let netns = match &sandbox.netns {
        Netns::Path(path) => Some(path),
        Netns::New => None,
    };
    let mut all = vec![
        new(LinuxNamespaceType::Mount)?,
        at(LinuxNamespaceType::Uts, sandbox.uts.as_ref())?,
        at(LinuxNamespaceType::Pid, sandbox.pidns.as_ref())?,
        at(LinuxNamespaceType::Ipc, sandbox.ipcns.as_ref())?,
        new(LinuxNamespaceType::Cgroup)?,
        at(LinuxNamespaceType::Network, netns)?,
    ];
    if let Some(userns) = &sandbox.userns {
        // Whatever is new here belongs to it, so it comes first.
        all.insert(0, at(LinuxNamespaceType::User, Some(&userns.path))?);
    }
    Ok(all)
}

fn id_mapping(userns: &UserNamespace) -> std::result::Result<LinuxIdMapping, OciSpecError> {
    LinuxIdMappingBuilder::default().container_id(0u32).host_id(userns.first_id).size(userns.ids).build()
}

/// As dockerd: any user may bind low ports and ping inside its own network namespace.
fn sysctls(sandbox: &SandboxSpec) -> std::collections::HashMap<String, String> {
    let last_group = sandbox.userns.as_ref().map_or(i32::MAX as u32, |u| u.ids - 1);
    let defaults = [
        ("net.ipv4.ip_unprivileged_port_start", "0".to_owned()),
        ("net.ipv4.ping_group_range", format!("0 {last_group}")),
    ];
    let mut all: std::collections::HashMap<_, _> = defaults.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    all.extend(sandbox.sysctls.iter().map(|(k, v)| (k.clone(), v.clone())));
    if let Some(range) = all.get_mut("net.ipv4.ping_group_range") {
        *range = within(range, last_group);
    }
    all
}

/// A range of groups, ended where the namespace's ids end: the kernel refuses one that goes on.
fn within(range: &str, last: u32) -> String {
    match range.split_whitespace().map(str::parse::<u32>).collect::<Vec<_>>().as_slice() {
        [Ok(from), Ok(to)] if from <= to => format!("{} {}", from.min(&last), to.min(&last)),
        // "1 0" is nobody; anything else is the kernel's to refuse.
        _ => range.to_owned(),
    }
}

/// See [`crate::exec_process`].
pub(crate) fn exec_process(mut config: Value, exec: &ExecProcess) -> Result<Value> {
    if exec.argv.is_empty() {
        return Err(Error::Invalid("no exec command specified".into()));
    }
    let rootfs = config["root"]["path"].as_str().unwrap_or_default().to_owned();
    let mut process = config["process"].take();
    let texts = |v: &Value| -> Vec<String> {
        v.as_array().into_iter().flatten().filter_map(|e| e.as_str().map(str::to_owned)).collect()
    };
    let mut env = texts(&process["env"]);
    if exec.tty && !env.iter().any(|e| e.starts_with("TERM=")) {
        env.push("TERM=xterm".into());
    }
    overlay_env(&mut env, &exec.env);
    process["args"] = json!(exec.argv);
    process["env"] = json!(env);
    process["terminal"] = json!(exec.tty);
    process["consoleSize"] =
        json!(exec.console_size.filter(|_| exec.tty).map(|(h, w)| json!({"height": h, "width": w})));
    if !exec.cwd.is_empty() {
        process["cwd"] = json!(working_dir(&exec.cwd));
    }
    if !exec.user.is_empty() {
        let who = user::resolve(rootfs.as_ref(), &exec.user, &exec.group_add)?;
        if let Some(ids) = config["linux"]["uidMappings"][0]["size"].as_u64() {
            who.refuse_beyond(u32::try_from(ids).unwrap_or(u32::MAX))?;
        }
        process["user"] = json!({"uid": who.uid, "gid": who.gid, "additionalGids": who.additional_gids});
    }
    Ok(process)
}

#[cfg(test)]
mod tests;
