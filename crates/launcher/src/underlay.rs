//! With several hosts on one machine, each is a network namespace; a bridge joins them to the
//! control plane and, by masquerade, to the outside. The addresses are chosen away from every
//! route, address and resolver of this machine, so that making the link cuts nothing off.

use std::{
    fs::{self, File},
    net::{IpAddr, Ipv4Addr},
    process::Command,
    str::FromStr,
};

use anyhow::{Context, Result, bail};
use ipnet::Ipv4Net;

use crate::{
    infrastructure::run,
    layout::{Addresses, Layout},
};

const UNDERLAY_CANDIDATES: [&str; 3] = ["10.127.240.0/24", "172.29.240.0/24", "192.168.240.0/24"];
/// Where project networks may come from; the first is the schema's default.
const POOL_CANDIDATES: [&str; 3] = ["10.128.0.0/10", "10.64.0.0/10", "172.16.0.0/12"];

/// Makes (or finds) the namespaces, the bridge and the addresses.
pub(crate) fn ensure(layout: &Layout, nodes: u8) -> Result<Addresses> {
    let subnet = match existing(layout) {
        Some(subnet) => subnet,
        None => pick(&UNDERLAY_CANDIDATES, "the hosts' underlay")?,
    };
    let address = |n: u8| IpAddr::V4(Ipv4Addr::from(u32::from(subnet.network()) + u32::from(n)));
    let (control, hosts) = (address(1), (1..=nodes).map(|n| address(10 + n)).collect::<Vec<_>>());
    if existing(layout).is_none() {
        create_bridge(layout, control)?;
    }
    for (node, host) in (1..=nodes).zip(&hosts) {
        if !is_namespace(layout, node) {
            create_host(layout, node, *host, control)?;
        }
    }
    Ok(Addresses { control, hosts })
}

/// The bridge's subnet, if it is there.
fn existing(layout: &Layout) -> Option<Ipv4Net> {
    let text = run(Command::new("ip").args(["-o", "-4", "addr", "show", "dev", &bridge(layout)])).ok()?;
    let address = text.split_whitespace().skip_while(|word| *word != "inet").nth(1)?;
    Ipv4Net::from_str(address).ok().map(|net| net.trunc())
}

/// A pool for project networks that overlaps nothing here.
pub(crate) fn pick_pool() -> Result<Ipv4Net> {
    pick(&POOL_CANDIDATES, "project networks")
}

fn pick(candidates: &[&str], purpose: &str) -> Result<Ipv4Net> {
    let taken = taken_prefixes()?;
    candidates
        .iter()
        .filter_map(|text| text.parse::<Ipv4Net>().ok())
        .find(|net| !taken.iter().any(|other| net.contains(other) || other.contains(net)))
        .with_context(|| format!("every address range for {purpose} ({candidates:?}) is used on this machine"))
}

/// Every IPv4 route and resolver of this machine, except the default route and what Wharfage made.
fn taken_prefixes() -> Result<Vec<Ipv4Net>> {
    let routes = run(Command::new("ip").args(["-o", "-4", "route", "show", "table", "all"]))?;
    let mut taken: Vec<Ipv4Net> = routes
        .lines()
        .filter(|line| !line.contains(" dev wb") && !line.starts_with("default"))
        .flat_map(|line| line.split_whitespace().take(2))
        .filter_map(|word| word.parse::<Ipv4Net>().ok().or_else(|| word.parse::<Ipv4Addr>().ok().map(Ipv4Net::from)))
        .collect();
    for line in fs::read_to_string("/etc/resolv.conf").unwrap_or_default().lines() {
        if let Some(Ok(resolver)) = line.strip_prefix("nameserver").map(|rest| rest.trim().parse::<Ipv4Addr>()) {
            taken.push(resolver.into());
        }
    }
    Ok(taken)
}

/// Interface names have 15 characters: `wul-1a2b3c`.
fn bridge(layout: &Layout) -> String {
    format!("wul-{}", short_tag(layout))
}

fn short_tag(layout: &Layout) -> &str {
    layout.tag.rsplit_once('-').map_or("", |(_, tag)| tag)
}

fn table(layout: &Layout) -> String {
    format!("wharfage_underlay_{}", short_tag(layout))
}

fn create_bridge(layout: &Layout, control: IpAddr) -> Result<()> {
    let bridge = bridge(layout);
    ip(&["link", "add", &bridge, "type", "bridge"])?;
    ip(&["addr", "add", &format!("{control}/24"), "dev", &bridge])?;
    ip(&["link", "set", &bridge, "up"])?;
    let rules = format!(
        "table ip {table} {{\n chain post {{ type nat hook postrouting priority srcnat;\n  ip saddr {control}/24 oifname != \"{bridge}\" masquerade\n }}\n}}\n",
        table = table(layout)
    );
    let file = layout.volatile.join("underlay.nft");
    fs::write(&file, rules)?;
    run(Command::new("nft").arg("-f").arg(&file)).map(drop)
}

fn create_host(layout: &Layout, node: u8, address: IpAddr, control: IpAddr) -> Result<()> {
    let path = layout.host_netns(node);
    File::create(&path)?;
    run(Command::new("unshare").arg(format!("--net={}", path.display())).arg("true"))?;
    let (outer, inner) = (format!("wuh{node}-{}", short_tag(layout)), "uplink");
    ip(&["link", "add", &outer, "type", "veth", "peer", "name", inner, "netns", &namespace_arg(&path)?])?;
    ip(&["link", "set", &outer, "master", &bridge(layout), "up"])?;
    let inside = |args: &[&str]| {
        run(Command::new("nsenter").arg(format!("--net={}", path.display())).arg("ip").args(args)).map(drop)
    };
    inside(&["link", "set", "lo", "up"])?;
    inside(&["addr", "add", &format!("{address}/24"), "dev", inner])?;
    inside(&["link", "set", inner, "up"])?;
    inside(&["route", "add", "default", "via", &control.to_string()])
}

/// `ip link … netns` takes a name under /run/netns, a pid or a path.
fn namespace_arg(path: &std::path::Path) -> Result<String> {
    path.to_str().map(str::to_owned).context("the runtime directory is not UTF-8")
}

fn is_namespace(layout: &Layout, node: u8) -> bool {
    let path = layout.host_netns(node);
    nix::sys::statfs::statfs(&path).is_ok_and(|s| s.filesystem_type().0 == 0x6e73_6673)
}

/// Removes all of it.
pub(crate) fn remove(layout: &Layout) -> Result<()> {
    for node in 1..=9 {
        let path = layout.host_netns(node);
        if is_namespace(layout, node) {
            nix::mount::umount2(&path, nix::mount::MntFlags::MNT_DETACH)?;
        }
        fs::remove_file(path).ok();
        // The pair goes with the namespace, but asynchronously; `down` promises that it is gone.
        ip(&["link", "del", &format!("wuh{node}-{}", short_tag(layout))]).ok();
    }
    if existing(layout).is_some() {
        ip(&["link", "del", &bridge(layout)])?;
    }
    run(Command::new("nft").args(["delete", "table", "ip", &table(layout)])).ok();
    Ok(())
}

fn ip(args: &[&str]) -> Result<()> {
    match run(Command::new("ip").args(args)) {
        Ok(_) => Ok(()),
        Err(error) => bail!("ip {}: {error}", args.join(" ")),
    }
}
