//! What a container cannot do, tried from the inside (ids are of the attack catalogue).

use model::{SecuritySpec, TmpfsMount};

use crate::harness::{Recipe, container, shell, started_by_both};

started_by_both! {
    b02_the_first_process_has_three_descriptors_and_sits_in_its_root,
    b02_a_working_directory_behind_a_descriptor_leads_nowhere,
    b13_the_kernels_switches_are_read_only,
    b14_masked_files_are_empty_and_masked_directories_too,
    b16_capabilities_are_the_fourteen_and_none_is_inheritable,
    b16_dropped_capabilities_are_gone_and_a_user_has_none,
    b17_the_primary_group_is_among_the_groups,
    b21_namespaces_and_mounts_cannot_be_made,
    b23_a_device_node_can_be_made_but_not_opened,
    b26_the_kernel_log_is_closed,
    setuid_works_unless_new_privileges_are_ruled_out,
    a_read_only_root_is_read_only_and_its_tmpfs_is_not,
    the_processes_of_the_host_are_not_seen,
}

fn output(script: &str) -> String {
    output_with(script, |_| {})
}

fn output_with(script: &str, change: impl FnOnce(&mut Recipe)) -> String {
    let (out, err, _) = container(&["sh", "-c", script], change).run_attached();
    out + &err
}

fn b02_the_first_process_has_three_descriptors_and_sits_in_its_root() {
    // No shell: it has descriptors of its own. The directory being listed is closed when its entry is read.
    let (out, _, _) = container(&["ls", "-l", "/proc/self/fd"], |_| {}).run_attached();
    let targets: Vec<_> = out.lines().filter_map(|l| l.split_once(" -> ")).map(|(_, to)| to).collect();
    assert!(targets.len() == 3 && targets[0] == "/dev/null", "{out}");
    assert_eq!(output("readlink /proc/1/cwd"), "/\n");
}

fn b02_a_working_directory_behind_a_descriptor_leads_nowhere() {
    for n in 3..12 {
        let container = container(&["sh", "-c", "cat ../../../../../../../../etc/hostname 2>/dev/null; pwd"], |r| {
            r.sandbox.cwd = format!("/proc/self/fd/{n}");
        });
        let host = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
        let (out, _, _) = container.run_attached();
        assert!(host.trim().is_empty() || !out.contains(host.trim()), "descriptor {n} leaks the host: {out}");
    }
}

fn b13_the_kernels_switches_are_read_only() {
    let script = "for f in /proc/sys/kernel/core_pattern /proc/sysrq-trigger /proc/sys/kernel/modprobe \
        /sys/kernel/uevent_helper /sys/fs/cgroup/memory/release_agent /sys/fs/cgroup/devices/devices.allow; do \
        [ -e $f ] || continue; echo x 2>/dev/null >$f && echo wrote $f; done; echo tried";
    assert_eq!(output(script).lines().filter(|l| l.starts_with("wrote")).count(), 0);
}

fn b14_masked_files_are_empty_and_masked_directories_too() {
    let script = "for f in kcore keys timer_list sched_debug interrupts slabinfo vmallocinfo pagetypeinfo swaps; do \
        [ -e /proc/$f ] && head -c 64 /proc/$f; done; ls /sys/firmware /proc/acpi /proc/scsi 2>/dev/null | grep -v :; true";
    assert_eq!(output(script).trim(), "");
}

fn b16_capabilities_are_the_fourteen_and_none_is_inheritable() {
    let got = output("grep Cap /proc/self/status | tr -d '\\t'");
    // 0,1,3,4,5,6,7,8,10,13,18,27,29,31: Docker's fourteen.
    let want = "CapInh:0000000000000000\nCapPrm:00000000a80425fb\nCapEff:00000000a80425fb\nCapBnd:00000000a80425fb\nCapAmb:0000000000000000\n";
    assert_eq!(got, want);
}

fn b16_dropped_capabilities_are_gone_and_a_user_has_none() {
    let drop_all = SecuritySpec { cap_drop: vec!["ALL".parse().expect("a name")], ..SecuritySpec::default() };
    let got = output_with("grep -E 'CapEff|CapBnd' /proc/self/status | tr -d '\\t'", |r| r.sandbox.security = drop_all);
    assert_eq!(got, "CapEff:0000000000000000\nCapBnd:0000000000000000\n");
    let user = output_with("grep CapEff /proc/self/status | tr -d '\\t'; id -u", |r| r.sandbox.user = "web".into());
    assert_eq!(user, "CapEff:0000000000000000\n1000\n");
}

fn b17_the_primary_group_is_among_the_groups() {
    assert_eq!(output_with("id -G", |r| r.sandbox.user = "web".into()), "100 50\n");
}

fn b21_namespaces_and_mounts_cannot_be_made() {
    let script = "unshare -m true && echo unshared; unshare -U true && echo user; mount -t tmpfs x /tmp && echo mounted; \
        umount /proc && echo unmounted; nsenter -t 1 -m true && echo entered; chroot / true && echo chroot-is-allowed";
    let got = output(script);
    for broken in ["unshared", "user\n", "mounted", "entered"] {
        assert!(!got.contains(broken), "{got}");
    }
    assert!(got.contains("chroot-is-allowed") && got.contains("Operation not permitted"), "{got}");
}

fn b23_a_device_node_can_be_made_but_not_opened() {
    let got = output(
        "mknod /tmp/disk b 254 0 && cat /tmp/disk; mknod /tmp/mem c 1 1 && cat /tmp/mem; cat /dev/null && echo null",
    );
    assert_eq!(got.matches("Operation not permitted").count(), 2, "{got}");
    assert!(got.starts_with("null\n"), "{got}");
}

fn b26_the_kernel_log_is_closed() {
    assert!(output("dmesg >/dev/null && echo read").contains("not permitted"));
}

fn setuid_works_unless_new_privileges_are_ruled_out() {
    let script = "cp /bin/busybox /tmp/b; chmod 4755 /tmp/b; ln -s b /tmp/id; setuidgid web /tmp/id -u; grep NoNewPrivs /proc/self/status";
    let prepare = |no_new_privileges| {
        move |r: &mut Recipe| r.sandbox.security = SecuritySpec { no_new_privileges, ..SecuritySpec::default() }
    };
    assert!(output_with(script, prepare(true)).contains("NoNewPrivs:\t1"));
    assert!(output_with(script, prepare(false)).contains("NoNewPrivs:\t0"));
}

fn a_read_only_root_is_read_only_and_its_tmpfs_is_not() {
    let got = output_with(
        "echo x >/file && echo wrote root; echo x >/scratch/f && echo wrote tmpfs; mount | grep /scratch",
        |r| {
            r.sandbox.security.readonly_rootfs = true;
            std::fs::create_dir(r.rootfs.join("scratch")).expect("mount point");
            r.sandbox.tmpfs =
                vec![TmpfsMount { path: "/scratch".into(), size_bytes: Some(1 << 20), ..TmpfsMount::default() }];
        },
    );
    assert!(!got.contains("wrote root") && got.contains("wrote tmpfs"), "{got}");
    assert!(got.contains("noexec") && got.contains("nosuid") && got.contains("size=1024k"), "{got}");
}

fn the_processes_of_the_host_are_not_seen() {
    assert_eq!(output("ps -o pid | tail -n +2 | wc -l; echo").lines().next().map(str::trim).map(|n| n.len()), Some(1));
    assert_eq!(output("ls /sys/class/net"), "lo\n");
    assert_eq!(output("hostname"), "box\n");
}

#[test]
fn a_shims_socket_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;

    let container = shell("true");
    let mode = container.run_dir.socket().metadata().expect("exists").permissions().mode();
    assert_eq!(mode & 0o777, 0o700 & mode, "nothing for group and others: {mode:o}");
}
