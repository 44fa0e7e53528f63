//! netd on the real kernel: real namespaces, real pings, real connections. Needs root.

mod host;

use std::{
    net::{Ipv4Addr, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use contract::net::{NetDelta, NetEndpoint, NetPlan};
use host::{Host, address, container, dial, endpoint, join, network, pings, plan, serve, until};

/// A host with two projects of two containers each, and somebody outside.
fn two_projects(name: &str, octet: u8) -> (Host, Host) {
    let mut host = Host::new(name, [198, 18, octet, 1], &["10.128.0.0/10", "203.0.113.0/24"]);
    let outside = Host::new(&format!("{name}-out"), [198, 18, octet, 2], &[]);
    join(&host, &outside);
    host.sh("ip addr add 203.0.113.1/24 dev up0");
    outside.sh("ip addr add 203.0.113.2/24 dev up0; ip addr add 169.254.169.254/32 dev lo");
    host.sh(&format!("ip route add default via {}", outside.address));
    host.start();
    let status = host.put(&two_project_plan());
    assert_eq!(status.failed, Default::default());
    assert_eq!(status.netns.len(), 4);
    (host, outside)
}

fn two_project_plan() -> NetPlan {
    let endpoints = [endpoint(11, 1, &[(8080, 80)]), endpoint(12, 1, &[]), endpoint(21, 2, &[]), endpoint(22, 2, &[])];
    plan(&[network(1, &[]), network(2, &[])], &endpoints)
}

const LOCALHOST: Ipv4Addr = Ipv4Addr::LOCALHOST;
const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

#[test]
fn containers_reach_their_own_network_and_the_outside_and_nothing_else() {
    let (host, outside) = two_projects("reach", 1);
    let (a1, a2, b1) = (host.container(11), host.container(12), host.container(21));
    for container in [11, 21, 22] {
        serve(&host.container(container), ANY, 80);
    }
    serve(&host.netns(), ANY, 7000);
    serve(&outside.netns(), ANY, 7000);

    assert!(pings(&a1, address(12, 1)), "the same network");
    assert!(pings(&b1, address(22, 2)), "the same network");
    assert!(dial(&a2, address(11, 1), 80).is_some(), "the same network");
    assert!(!pings(&a1, address(21, 2)), "another project");
    assert!(dial(&a1, address(21, 2), 80).is_none(), "another project");
    assert!(pings(&a1, address(1, 1)), "its gateway");
    assert!(!pings(&a1, address(1, 2)), "another's gateway");
    assert!(dial(&a1, address(1, 1), 7000).is_none(), "the host, by the gateway's address");
    assert!(dial(&a1, host.address, 7000).is_none(), "the host, by its own address");
    assert!(dial(&host.netns(), LOCALHOST, 7000).is_some(), "(it does listen)");
    assert!(dial(&host.netns(), address(11, 1), 80).is_some(), "the host reaches containers");

    let out = dial(&a1, outside.address, 7000).expect("the outside");
    assert_eq!(out.from, host.address.to_string(), "masqueraded");
    assert!(dial(&a1, Ipv4Addr::new(203, 0, 113, 2), 7000).is_none(), "a protected prefix");
    assert!(dial(&host.netns(), Ipv4Addr::new(203, 0, 113, 2), 7000).is_some(), "(it does listen)");
    assert!(dial(&a1, Ipv4Addr::new(169, 254, 169, 254), 7000).is_none(), "the metadata service");
    assert!(dial(&a1, address(9, 77), 80).is_none(), "a project on another host, past the tunnel");

    outside.sh(&format!("ip route add 10.128.0.0/10 via {}", host.address));
    assert!(dial(&outside.netns(), address(11, 1), 80).is_none(), "from outside, past the published ports");
}

#[test]
fn a_container_cannot_send_with_a_source_or_to_a_target_that_is_not_its_to_use() {
    let (host, outside) = two_projects("spoof", 2);
    serve(&outside.netns(), ANY, 7000);
    serve(&host.netns(), LOCALHOST, 7001);
    // Root inside the sandbox, doing its worst: foreign source, and the host's loopback as a target.
    let a1 = host.container(11);
    let net = format!("nsenter --net={}", a1.display());
    host.sh(&format!("{net} ip addr add 10.128.2.99/32 dev eth0"));
    host.sh(&format!("{net} ip route replace default via 10.128.1.1 src 10.128.2.99"));
    assert!(dial(&a1, outside.address, 7000).is_none(), "another project's source");
    host.sh(&format!("{net} ip route replace default via 10.128.1.1 src 10.128.1.11"));
    assert!(dial(&a1, outside.address, 7000).is_some(), "(its own goes through)");
    host.sh(&format!("{net} sh -c 'ip link set lo down; ip route add 127.0.0.1/32 via 10.128.1.1'"));
    assert!(dial(&a1, LOCALHOST, 7001).is_none(), "the host's loopback");
}

/// From everywhere to port 8080 of the host, which is port 80 of container 11.
fn dial_published(host: &Host, outside: &Host) {
    let from = |netns: &std::path::Path, to: Ipv4Addr| dial(netns, to, 8080).map(|c| c.from);
    assert_eq!(from(&host.netns(), LOCALHOST).as_deref(), Some("10.128.1.1"), "127.0.0.1 on the host");
    assert!(from(&host.netns(), host.address).is_some(), "the host's address on the host");
    let client = outside.address.to_string();
    assert_eq!(from(&outside.netns(), host.address), Some(client), "from outside, with the client's own address");
    assert!(from(&host.container(12), host.address).is_some(), "a neighbour");
    assert!(from(&host.container(21), host.address).is_some(), "another project, by the host's address");
    assert!(from(&host.container(21), Ipv4Addr::new(203, 0, 113, 1)).is_some(), "even at a protected address");
    assert!(from(&host.container(11), host.address).is_some(), "itself");
    assert!(dial(&host.container(21), address(11, 1), 80).is_none(), "but not by the container's address");
}

#[test]
fn a_published_port_answers_wherever_it_is_dialled() {
    let (host, outside) = two_projects("ports", 3);
    serve(&host.container(11), ANY, 80);
    for bridged_packets_in_nft in ["1", "0"] {
        host.sh(&format!("echo {bridged_packets_in_nft} > /proc/sys/net/bridge/bridge-nf-call-iptables || true"));
        dial_published(&host, &outside);
    }
    // Ports move with deltas, without a rule being touched.
    let more =
        NetDelta { endpoints: vec![endpoint(12, 1, &[(8081, 80)]), endpoint(11, 1, &[])], ..NetDelta::default() };
    serve(&host.container(12), ANY, 80);
    assert_eq!(host.delta(&more).failed, Default::default());
    assert!(dial(&outside.netns(), host.address, 8081).is_some());
    assert!(dial(&outside.netns(), host.address, 8080).is_none());

    // A service of the host is not robbed.
    serve(&host.netns(), ANY, 9000);
    let greedy = NetDelta { endpoints: vec![endpoint(21, 2, &[(9000, 80)])], ..NetDelta::default() };
    let status = host.delta(&greedy);
    assert_eq!(status.failed[container(21).as_str()], "Bind for 0.0.0.0:9000/tcp failed: port is already allocated");
    assert!(status.netns.contains_key(container(21).as_str()), "it has its sandbox all the same");
    assert_eq!(dial(&host.netns(), LOCALHOST, 9000).map(|c| c.from).as_deref(), Some("127.0.0.1"));
}

/// The inode of the user namespace that a network namespace belongs to.
fn owner_of(netns: &std::path::Path) -> u64 {
    use std::os::{fd::AsRawFd as _, linux::fs::MetadataExt as _, unix::io::FromRawFd as _};

    const NS_GET_USERNS: nix::libc::c_ulong = 0xb701;
    let netns = std::fs::File::open(netns).expect("the namespace is there");
    #[expect(unsafe_code, reason = "ioctl")]
    // SAFETY: the ioctl takes no argument and returns a new descriptor, or -1.
    let owner = unsafe { nix::libc::ioctl(netns.as_raw_fd(), NS_GET_USERNS) };
    assert!(owner >= 0, "{}", std::io::Error::last_os_error());
    #[expect(unsafe_code, reason = "descriptors arrive as numbers")]
    // SAFETY: the kernel has just made it for us.
    let owner = unsafe { std::fs::File::from_raw_fd(owner) };
    owner.metadata().expect("stat").st_ino()
}

#[test]
fn a_namespace_belongs_to_the_user_namespace_it_was_asked_for() {
    use std::os::linux::fs::MetadataExt as _;

    let (host, _outside) = two_projects("owner", 10);
    let mut holder = std::process::Command::new("unshare").args(["--user", "sleep", "60"]).spawn().expect("unshare");
    let user = std::path::PathBuf::from(format!("/proc/{}/ns/user", holder.id()));
    let inode = |path: &std::path::Path| std::fs::metadata(path).expect("stat").st_ino();
    let hosts = inode(std::path::Path::new("/proc/self/ns/user"));
    until("it has its own", || inode(&user) != hosts);

    // More than are kept ready, and others' in between.
    for n in 30..45 {
        let owner = (n % 3 != 0).then(|| user.clone());
        let asked = NetEndpoint { owner: owner.clone(), ..endpoint(n, 1, &[]) };
        assert_eq!(host.delta(&NetDelta { endpoints: vec![asked], ..NetDelta::default() }).failed, Default::default());
        let expected = owner.as_deref().map_or(hosts, &inode);
        assert_eq!(owner_of(&host.container(n)), expected, "container {n}");
        std::thread::sleep(Duration::from_millis(15));
    }
    assert!(pings(&host.container(31), address(30, 1)), "it is on its network all the same");

    let gone = NetEndpoint { owner: Some("/nonexistent".into()), ..endpoint(50, 1, &[]) };
    let status = host.delta(&NetDelta { endpoints: vec![gone], ..NetDelta::default() });
    assert!(status.failed[container(50).as_str()].contains("/nonexistent"), "{:?}", status.failed);
    holder.kill().and_then(|()| holder.wait()).expect("ended");
}

#[test]
fn what_is_removed_leaves_nothing_and_comes_back_at_once() {
    let (mut host, _outside) = two_projects("remove", 4);
    let gone = NetDelta { remove_endpoints: vec![container(21), container(22)], ..NetDelta::default() };
    assert_eq!(host.delta(&gone).failed, Default::default());
    assert!(!host.container(21).exists());
    let links = |host: &Host| host.sh("ip -o link");
    until("its pair is gone", || !links(&host).contains("wv151515"));
    until("the bridge of the emptied network is gone", || !links(&host).contains("wb2:"));
    assert!(pings(&host.container(11), address(12, 1)), "the others did not notice");

    // Removed and made again faster than the kernel takes the pair apart.
    for _ in 0..5 {
        let again = NetDelta {
            remove_endpoints: vec![container(12)],
            endpoints: vec![endpoint(12, 1, &[])],
            ..NetDelta::default()
        };
        assert_eq!(
            host.delta(&NetDelta { remove_endpoints: vec![container(12)], ..NetDelta::default() }).failed,
            Default::default()
        );
        assert_eq!(host.delta(&again).failed, Default::default());
    }
    until("it is back", || pings(&host.container(12), address(11, 1)));

    // A sandbox without a network, and one whose network nobody told us of.
    let none = NetEndpoint { attachments: Vec::new(), ..endpoint(30, 1, &[]) };
    let status = host.delta(&NetDelta { endpoints: vec![none, endpoint(31, 9, &[])], ..NetDelta::default() });
    assert_eq!(status.failed.keys().collect::<Vec<_>>(), [container(31).as_str()]);
    assert!(pings(&host.container(30), LOCALHOST));
    assert!(!pings(&host.container(30), address(1, 1)));

    host.kill();
    host.purge();
    until("no link is left", || !links(&host).contains("wharfage") && !links(&host).contains("wb"));
    assert_eq!(host.sh("nft list tables | grep wharfage || true"), "");
    assert_eq!(std::fs::read_dir(host.dir.path().join("run")).expect("readable").count(), 0);
}

#[test]
fn a_killed_netd_is_not_noticed_and_goes_on_where_it_was() {
    let (mut host, outside) = two_projects("crash", 5);
    serve(&host.container(11), ANY, 80);
    let mut inside = dial(&host.container(12), address(11, 1), 80).expect("connected");
    let mut published = dial(&outside.netns(), host.address, 8080).expect("connected");
    host.kill();
    assert!(inside.echoes() && published.echoes(), "while it is dead");
    assert!(dial(&outside.netns(), host.address, 8080).is_some(), "new ones too");
    host.start();
    assert!(inside.echoes() && published.echoes(), "after it is back");
    let more = NetDelta { endpoints: vec![endpoint(13, 1, &[])], ..NetDelta::default() };
    assert_eq!(host.delta(&more).failed, Default::default());
    assert!(pings(&host.container(13), address(11, 1)));
    assert!(inside.echoes() && published.echoes(), "after a delta");
    // The whole plan again, without the newcomer: that one goes, nobody else is touched.
    assert_eq!(host.put(&two_project_plan()).failed, Default::default());
    assert!(!host.container(13).exists());
    assert!(inside.echoes() && published.echoes(), "after the whole plan");
}

#[test]
fn without_a_plan_nothing_is_touched() {
    let (mut host, _outside) = two_projects("lost", 6);
    host.kill();
    for file in std::fs::read_dir(host.dir.path().join("run")).expect("readable").flatten() {
        if file.file_name().to_string_lossy().starts_with("plan.") {
            std::fs::remove_file(file.path()).expect("removed");
        }
    }
    host.start();
    let delta = NetDelta { remove_endpoints: vec![container(11)], ..NetDelta::default() };
    assert!(matches!(host.try_delta(&delta), Err(model::Error::Conflict(_))));
    assert!(pings(&host.container(11), address(12, 1)));
    assert_eq!(host.put(&two_project_plan()).failed, Default::default());
    assert!(pings(&host.container(11), address(12, 1)));
}

#[test]
fn what_others_break_is_set_right() {
    let (host, _outside) = two_projects("repair", 7);
    serve(&host.container(21), ANY, 80);
    host.sh("nft flush ruleset");
    until("the firewall is back", || host.sh("nft list tables").contains("inet wharfage"));
    assert!(dial(&host.container(11), address(21, 2), 80).is_none());

    // A bridge is deleted under its containers; the next delta finds out and mends it.
    host.sh("ip link del wb1");
    let more = NetDelta { endpoints: vec![endpoint(13, 1, &[])], ..NetDelta::default() };
    assert_eq!(host.delta(&more).failed, Default::default());
    until("neighbours are back", || pings(&host.container(13), address(11, 1)));

    // The same unasked, and a pair that was deleted. Who lives in a namespace keeps it.
    let inode = |n: u8| std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(host.container(n)).expect("is there"));
    let before = [inode(11), inode(12)];
    host.sh("ip link del wb1");
    until("the bridge is back by itself", || pings(&host.container(12), address(11, 1)));
    let pair = host.sh("ip -o link | sed -n 's/^[0-9]*: \\(wv0c[^@]*\\)@.*/\\1/p'");
    host.sh(&format!("ip link del {}", pair.trim()));
    assert!(!pings(&host.container(12), address(11, 1)));
    until("the pair is back by itself", || pings(&host.container(12), address(11, 1)));
    assert_eq!([inode(11), inode(12)], before);
    assert!(pings(&host.container(12), address(1, 1)), "its gateway too");

    // Somebody else's link of our name is neither used nor removed.
    host.sh("ip link add wb3 type bridge");
    let theirs =
        NetDelta { networks: vec![network(3, &[])], endpoints: vec![endpoint(31, 3, &[])], ..NetDelta::default() };
    let status = host.delta(&theirs);
    assert_eq!(status.failed.len(), 2, "the network and its endpoint: {:?}", status.failed);
    assert!(status.failed[host::network_id(3).as_str()].contains("not made by netd"));
    host.put(&two_project_plan());
    assert!(host.sh("ip -o link").contains("wb3:"));
}

#[test]
fn networks_stay_closed_while_the_ruleset_is_flushed() {
    let (host, _outside) = two_projects("flush", 11);
    serve(&host.container(11), ANY, 80);
    let socket = |netns: &std::path::Path| {
        let socket = host::within(netns, || UdpSocket::bind((ANY, 7007)).expect("binds"));
        socket.set_nonblocking(true).expect("a setting");
        socket
    };
    let (mine, neighbour, stranger) =
        (socket(&host.container(11)), socket(&host.container(12)), socket(&host.container(21)));
    let (over, count) =
        (AtomicBool::new(false), |at: &UdpSocket| std::iter::from_fn(|| at.recv(&mut [0; 8]).ok()).count());
    let sent = std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let mut sent = 0;
            while !over.load(Ordering::Relaxed) {
                let to = [(address(21, 2), 7007), (address(12, 1), 7007)];
                sent += to.iter().filter(|to| mine.send_to(b"x", to).is_ok()).count();
                std::thread::sleep(Duration::from_micros(100));
            }
            sent
        });
        for _ in 0..40 {
            host.sh("nft flush ruleset");
            until("the firewall is back", || host.sh("nft list tables").contains("inet wharfage\n"));
        }
        over.store(true, Ordering::Relaxed);
        sender.join().expect("sends")
    });
    assert!(sent > 1000, "{sent}");
    assert!(count(&neighbour) > 10, "(its own network is open)");
    assert_eq!(count(&stranger), 0, "of {sent}");
    socket(&host.netns()).send_to(b"x", (address(21, 2), 7007)).expect("sends");
    until("(it does listen)", || count(&stranger) == 1);
    assert!(dial(&host.container(21), host.address, 8080).is_some(), "published ports go through the guard");
    let refused = host.sh("nft delete table inet wharfage_guard 2>&1 || echo refused");
    assert!(refused.contains("refused"), "{refused}");
}

#[test]
fn two_hosts_are_one_network_and_no_more_than_that() {
    let mut one = Host::new("one", [198, 18, 8, 1], &["198.18.8.0/24", "10.128.0.0/10"]);
    let mut two = Host::new("two", [198, 18, 8, 2], &["198.18.8.0/24", "10.128.0.0/10"]);
    join(&one, &two);
    one.start();
    two.start();
    // First alone, then with a peer: what runs already follows.
    let alone = |host: &Host, n: u8| host.put(&plan(&[network(1, &[])], &[endpoint(n, 1, &[])]));
    assert_eq!(alone(&one, 11).failed, Default::default());
    assert_eq!(alone(&two, 12).failed, Default::default());
    assert!(!pings(&one.container(11), address(12, 1)));
    one.delta(&NetDelta { networks: vec![network(1, &[two.address])], ..NetDelta::default() });
    two.delta(&NetDelta { networks: vec![network(1, &[one.address])], ..NetDelta::default() });
    // Whoever asks for the gateway must not be heard on the other host.
    two.sh("nft 'add table bridge watch; add chain bridge watch in { type filter hook prerouting priority -400; }; \
            add rule bridge watch in iifname \"wx1\" arp daddr ip 10.128.1.1 counter; \
            add rule bridge watch in iifname \"wx1\" arp saddr ip 10.128.1.1 counter'");
    until("across the tunnel", || pings(&one.container(11), address(12, 1)));
    assert!(pings(&two.container(12), address(11, 1)), "and back");
    assert!(pings(&one.container(11), address(1, 1)), "each has its gateway");
    assert!(pings(&two.container(12), address(1, 1)), "each has its gateway");
    assert!(pings(&one.netns(), address(11, 1)), "the gateway asks for a container");
    let heard = two.sh("nft list table bridge watch");
    assert_eq!(heard.matches("packets 0 bytes 0").count(), 2, "{heard}");

    serve(&two.container(12), ANY, 80);
    let mut big = dial(&one.container(11), address(12, 1), 80).expect("tcp across");
    assert!(big.echoes());
    let link = one.sh(&format!("nsenter --net={} ip link show eth0", one.container(11).display()));
    assert!(link.contains("mtu 1450"), "{link}");
    let ping_big = |size: &str| {
        let netns = one.container(11);
        let enter = format!(
            "nsenter --net={} busybox ping -c 1 -W 1 -s {size} 10.128.1.12 >/dev/null && echo yes || echo no",
            netns.display()
        );
        one.sh(&enter).trim().to_owned()
    };
    assert_eq!(ping_big("1422"), "yes", "a full packet");

    // The underlay is out of reach of containers.
    serve(&two.netns(), ANY, 7000);
    assert!(dial(&one.container(11), two.address, 7000).is_none());
    assert!(!pings(&one.container(11), two.address));
    // No longer a peer: no longer heard.
    two.delta(&NetDelta { networks: vec![network(1, &[])], ..NetDelta::default() });
    assert!(!pings(&one.container(11), address(12, 1)));
}

#[test]
fn adding_an_endpoint_takes_about_a_millisecond() {
    let (host, _outside) = two_projects("speed", 9);
    let add = |n: u8, ports: &[(u16, u16)]| NetDelta { endpoints: vec![endpoint(n, 1, ports)], ..NetDelta::default() };
    let remove = |n: u8| NetDelta { remove_endpoints: vec![container(n)], ..NetDelta::default() };
    let numbers: Vec<u8> = (50..200).collect();
    let p50 = |what: &str, deltas: &[NetDelta], pause: Duration| -> Duration {
        let before = host.worked();
        let mut took = host.timed(deltas, pause);
        let worked = (host.worked() - before) / u32::try_from(deltas.len()).expect("few");
        took.sort();
        let median = took[took.len() / 2];
        println!("{what}: p50 {median:?}, p10 {:?}, of netd's processor time {worked:?}", took[took.len() / 10]);
        median
    };
    let at_once = Duration::ZERO;
    p50("nothing", &vec![NetDelta::default(); 100], at_once);
    let removes: Vec<_> = numbers.iter().map(|n| remove(*n)).collect();
    let plain: Vec<_> = numbers.iter().map(|n| add(*n, &[])).collect();
    let adds = p50("add", &plain, at_once);
    p50("remove", &removes, at_once);
    let published: Vec<_> = numbers.iter().map(|n| add(*n, &[(20_000 + u16::from(*n), 80)])).collect();
    p50("add with a published port", &published, at_once);
    p50("remove", &removes, at_once);
    // As people start containers: a namespace made ahead of need is there.
    p50("add, now and then", &plain[..50], Duration::from_millis(25));
    // Loose, for a busy machine: what must not creep in is a fork or a deleted link on this path.
    assert!(adds < Duration::from_millis(15), "{adds:?}");
}

/// A process that lives in a namespace, as that of a container which joined; and where the namespace is.
fn dweller_in(netns: &std::path::Path) -> (std::process::Child, std::path::PathBuf) {
    let child = std::process::Command::new("nsenter")
        .arg(format!("--net={}", netns.display()))
        .args(["sleep", "1000"])
        .spawn()
        .expect("runs");
    let inside = std::path::PathBuf::from(format!("/proc/{}/ns/net", child.id()));
    let here = std::fs::read_link("/proc/self/ns/net").expect("a namespace");
    until("the process is inside", || std::fs::read_link(&inside).is_ok_and(|there| there != here));
    (child, inside)
}

#[test]
fn links_are_taken_out_of_a_namespace_that_outlives_its_container() {
    let (host, _outside) = two_projects("held", 23);
    let links = |netns: &std::path::Path| {
        let listed = host.sh(&format!("nsenter --net={} ip -o link show", netns.display()));
        listed
            .lines()
            .filter_map(|line| Some(line.split(": ").nth(1)?.split('@').next()?.to_owned()))
            .collect::<Vec<_>>()
    };
    let (mut dweller, inside) = dweller_in(&host.container(11));
    assert_eq!(links(&inside), ["lo", "eth0"]);

    let gone = NetDelta { remove_endpoints: vec![container(11)], held: vec![container(11)], ..NetDelta::default() };
    assert_eq!(host.delta(&gone).failed, Default::default());
    assert_eq!(links(&inside), ["lo"], "its own loopback is left");
    assert!(!pings(&host.container(12), address(11, 1)), "nobody answers at the address");

    let again = NetDelta { endpoints: vec![endpoint(11, 1, &[])], ..NetDelta::default() };
    assert_eq!(host.delta(&again).failed, Default::default());
    assert!(pings(&host.container(12), address(11, 1)), "the next run has the address, in a namespace of its own");
    assert_eq!(links(&inside), ["lo"]);

    // A netd that is told a whole plan does not know who is held, and takes the links out all the same.
    let (mut second, inside) = dweller_in(&host.container(21));
    let rest = [endpoint(11, 1, &[]), endpoint(12, 1, &[]), endpoint(22, 2, &[])];
    assert_eq!(host.put(&plan(&[network(1, &[]), network(2, &[])], &rest)).failed, Default::default());
    assert_eq!(links(&inside), ["lo"]);
    for process in [&mut dweller, &mut second] {
        process.kill().expect("ends");
        process.wait().expect("ended");
    }
}
