//! What an image, or whoever shares a volume, tries on a start that the shim makes: links where something is
//! mounted, and links that come and go. The root is changed when the bundle is written, so that nothing but
//! the start itself stands against it.

use std::{
    ffi::CString,
    fs,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{chown, symlink},
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use runtime::{
    BindMount, cgroup,
    protocol::{Reply, Request},
};

use crate::{
    harness::{Container, Recipe, StartBy, container, started_by, until},
    users::FIRST_ID,
};

/// A container to be started by the shim, and its root.
fn prepared(script: &str, change: impl FnOnce(&mut Recipe)) -> (Container, PathBuf) {
    let mut made = None;
    started_by(StartBy::Shim, || made = Some(container(&["sh", "-c", script], change)));
    let container = made.expect("was made");
    let root = container.path().join("rootfs");
    (container, root)
}

fn refused(container: &Container) -> String {
    let reply = container.start();
    let Reply::Failed { message, .. } = reply else { panic!("{reply:?}") };
    assert_eq!(cgroup::parts(&container.cgroup_path), 0, "its cgroup is left");
    message
}

fn told(container: &Container) -> String {
    let (out, err, _) = container.run_attached();
    out + &err
}

/// A link in place of what is there.
fn replace(at: &Path, target: &str) {
    let _ = fs::remove_dir_all(at);
    let _ = fs::remove_file(at);
    symlink(target, at).expect("links");
}

#[test]
fn b06_links_at_the_kernels_places_are_refused_by_the_start_itself() {
    let (control, _) = prepared("echo ran", |_| {});
    assert_eq!(told(&control), "ran\n");
    for place in ["proc", "sys", "dev"] {
        for target in ["/tmp", "../../../../../../../../tmp", "/proc/self/root", "/gone"] {
            let (container, root) = prepared("echo ran", |_| {});
            replace(&root.join(place), target);
            let why = refused(&container);
            assert!(why.contains("too many levels of symbolic links"), "{place} -> {target}: {why}");
            assert_eq!(fs::read_dir(root.join("tmp")).expect("lists").count(), 0, "{place} -> {target}");
        }
    }
}

#[test]
fn b03_b06_files_of_the_containers_names_go_to_no_place_of_the_kernels() {
    let with_hosts = |r: &mut Recipe| {
        let hosts = r.rootfs.with_file_name("hosts");
        fs::write(&hosts, "127.0.0.1 box\n").expect("writes");
        r.sandbox.hosts_file = Some(hosts);
        fs::create_dir(r.rootfs.join("srv")).expect("creates");
    };
    for target in [
        "/proc/sys/kernel/core_pattern",
        "/proc/1/environ",
        "../proc/sysrq-trigger",
        "/sys/kernel/uevent_helper",
        "/sys/fs/cgroup/memory/release_agent",
        "/dev/pts/ptmx",
        "/proc",
        "/dev",
    ] {
        let (container, root) = prepared("echo ran", with_hosts);
        replace(&root.join("etc/hosts"), target);
        let why = refused(&container);
        assert!(why.contains("error mounting"), "{target}: {why}");
    }
    // The control: a link within the image leads where it leads, also to where nothing is yet.
    let (container, root) = prepared("cat /srv/names", with_hosts);
    replace(&root.join("etc/hosts"), "../srv/names");
    assert_eq!(told(&container), "127.0.0.1 box\n");
    assert_eq!(fs::read(root.join("srv/names")).expect("was made"), b"");
}

#[test]
fn b03_b04_masks_and_devices_are_not_taken_from_the_image() {
    let script = "ls -ln /dev/null /proc/keys | cut -c1-10; cat /proc/keys; readlink /dev/console; ls -1 /dev/pts";
    let (container, root) = prepared(script, |r| r.config.tty = true);
    for (name, target) in [
        ("null", "/proc/sys/kernel/core_pattern"),
        ("console", "/proc/sysrq-trigger"),
        ("ptmx", "/etc/passwd"),
        ("pts", "/proc"),
        ("tty", "/proc/kcore"),
        ("shm", "/etc"),
    ] {
        symlink(target, root.join("dev").join(name)).expect("links");
    }
    let attached = container.attach(false);
    container.run();
    let out = String::from_utf8_lossy(&attached.read_raw()).replace('\r', "");
    assert_eq!(out, "crw-rw-rw-\ncrw-rw-rw-\n0\nptmx\n");
    assert!(root.join("dev/null").is_symlink(), "the image's are as they were");
}

/// Exchanges two names as fast as it can.
struct Racer {
    end: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Racer {
    fn of(one: &Path, two: &Path) -> Self {
        let name = |path: &Path| CString::new(path.as_os_str().as_bytes()).expect("no NUL");
        let (one, two, end) = (name(one), name(two), Arc::new(AtomicBool::new(false)));
        let ends = end.clone();
        let thread = thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                #[expect(unsafe_code, reason = "renameat2 has no safe wrapper here")]
                // SAFETY: both names are C strings that outlive the call.
                unsafe {
                    libc::renameat2(libc::AT_FDCWD, one.as_ptr(), libc::AT_FDCWD, two.as_ptr(), libc::RENAME_EXCHANGE);
                }
            }
        });
        Self { end, thread: Some(thread) }
    }
}

impl Drop for Racer {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("races to the end");
        }
    }
}

#[test]
fn b05_b07_links_that_come_and_go_lead_no_mount_out_of_the_root() {
    let outside = tempfile::tempdir().expect("temporary directory");
    // Whoever is led there leaves a trace, and could: it belongs to the container's root.
    chown(outside.path(), Some(FIRST_ID), Some(FIRST_ID)).expect("is root");
    let mut started = 0;
    for round in 0..12 {
        let (container, root) = prepared("cat /shared/way/in/mark; grep -c /way/ /proc/self/mountinfo", |r| {
            let volume = |name: &str| {
                let dir = r.rootfs.with_file_name(name);
                fs::create_dir(&dir).expect("creates");
                chown(&dir, Some(FIRST_ID), Some(FIRST_ID)).expect("is root");
                dir
            };
            let (shared, inner) = (volume("shared"), volume("inner"));
            fs::write(inner.join("mark"), "inner\n").expect("writes");
            let bind = |source, path: &str| BindMount { source, path: path.into(), read_only: false };
            r.sandbox.volumes = vec![bind(shared, "/shared"), bind(inner, "/shared/way/in")];
        });
        let shared = root.with_file_name("shared");
        fs::create_dir_all(shared.join("way/in")).expect("creates");
        let target = if round % 3 == 0 { Path::new("/proc/sys") } else { outside.path() };
        symlink(target, shared.join("other")).expect("links");
        let racer = Racer::of(&shared.join("way"), &shared.join("other"));
        let reply = container.start();
        drop(racer);
        if let Reply::Failed { message, .. } = &reply {
            assert!(message.contains("error mounting"), "{message}");
        } else {
            assert!(matches!(reply, Reply::Started { .. }), "{reply:?}");
            started += 1;
        }
        assert_eq!(fs::read_dir(outside.path()).expect("lists").count(), 0, "round {round}: it was led out");
        container.ask(&Request::KillAll);
    }
    assert!(started > 0, "no start ever won the race");
    // The control: who goes by path is led out during the same race.
    let dir = tempfile::tempdir().expect("temporary directory");
    fs::create_dir(dir.path().join("way")).expect("creates");
    symlink(outside.path(), dir.path().join("other")).expect("links");
    let _racer = Racer::of(&dir.path().join("way"), &dir.path().join("other"));
    until(|| {
        let _ = fs::create_dir(dir.path().join("way/trace"));
        outside.path().join("trace").exists().then_some(())
    });
}

#[test]
fn whatever_kills_the_shim_during_a_start_nothing_runs_whose_pid_is_not_noted() {
    let (mut ran, mut never) = (0, 0);
    for round in 0..24u64 {
        let (container, root) = prepared("echo >/tmp/ran; exec sleep 60", |_| {});
        // Asked first: until it has answered, its parent may be who is told of.
        container.ask(&Request::State);
        let shim = Pid::from_raw(container.shim_pid());
        let mut connection = container.connect();
        let line = runtime::protocol::encode_line(&Request::Start { console_size: None }).expect("is JSON");
        connection.write(&line);
        thread::sleep(Duration::from_micros(round * round * 80));
        kill(shim, Signal::SIGKILL).expect("is ours");
        until(|| container.run_dir.connect().is_err().then_some(()));
        // A process that was on its way is through or gone: what is left is the container's or nobody.
        let settled = || {
            let pids = cgroup::pids_in(&container.cgroup_path);
            let own = |pid: &u32| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe.ends_with("busybox"));
            pids.iter().all(own).then_some(pids)
        };
        let pids = until(settled);
        if pids.is_empty() && !root.join("tmp/ran").exists() {
            never += 1;
            continue;
        }
        ran += 1;
        assert!(container.run_dir.read_pid().is_some(), "round {round}: {pids:?} run and nobody knows");
        assert!(container.run_dir.is_started_by_shim());
    }
    assert!(ran > 0 && never > 0, "{ran} ran, {never} did not: the delays do not reach across a start");
}
