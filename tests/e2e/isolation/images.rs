//! Images that lay traps for whoever starts, looks into or packs their containers (B01, B03 to B06, B09, B10, B18).

use std::{fs, path::PathBuf, process::Command};

use tests::{Cell, Docker, Suite, unique};

/// A root file system in the making: busybox, and whatever a test adds.
pub(super) struct Image {
    tar: tar::Builder<Vec<u8>>,
    changes: Vec<String>,
}

/// An imported image. Dropping it removes it.
pub(super) struct Imported {
    pub(super) name: String,
    docker: Docker,
}

impl Image {
    pub(super) fn new() -> Self {
        let mut image = Self { tar: tar::Builder::new(Vec::new()), changes: vec!["CMD [\"sh\"]".into()] };
        image.dir("bin").dir("etc").dir("root");
        image.file("bin/busybox", &fs::read("/bin/busybox").expect("busybox-static is installed"), 0o755);
        for applet in [
            "sh", "cat", "chmod", "echo", "env", "grep", "head", "id", "ls", "mkdir", "mount", "mv", "sleep", "true",
            "tty",
        ] {
            image.link(&format!("bin/{applet}"), "busybox");
        }
        image
    }

    pub(super) fn dir(&mut self, path: &str) -> &mut Self {
        self.entry(path, tar::EntryType::Directory, 0o755, "", &[])
    }

    pub(super) fn file(&mut self, path: &str, content: &[u8], mode: u32) -> &mut Self {
        self.entry(path, tar::EntryType::Regular, mode, "", content)
    }

    pub(super) fn link(&mut self, path: &str, to: &str) -> &mut Self {
        self.entry(path, tar::EntryType::Symlink, 0o777, to, &[])
    }

    fn entry(&mut self, path: &str, kind: tar::EntryType, mode: u32, to: &str, content: &[u8]) -> &mut Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        if to.is_empty() {
            self.tar.append_data(&mut header, path, content).expect("appends");
        } else {
            self.tar.append_link(&mut header, path, to).expect("appends");
        }
        self
    }

    /// Entries as they are.
    pub(super) fn bytes(&mut self, tar: &[u8]) -> &mut Self {
        use std::io::Write as _;
        // Without the two blocks that end it.
        self.tar.get_mut().write_all(&tar[..tar.len() - 1024]).expect("memory takes it");
        self
    }

    /// An instruction of a Dockerfile.
    pub(super) fn change(&mut self, instruction: &str) -> &mut Self {
        self.changes.push(instruction.to_owned());
        self
    }

    /// Imports it; it is refused when it is imported or first used.
    pub(super) fn import(self, docker: &Docker) -> Result<Imported, String> {
        let name = unique("hostile");
        let mut args = vec!["import"];
        args.extend(self.changes.iter().flat_map(|change| ["-c", change]));
        args.extend(["-", &name]);
        let outcome = docker.run_with_input(&args, &self.tar.into_inner().expect("a tar"));
        if outcome.code != 0 {
            return Err(outcome.stderr);
        }
        let imported = Imported { name, docker: docker.clone() };
        let first = docker.run(&["create", "--name", &imported.name, &imported.name, "true"]);
        let started = docker.run(&["start", "-a", &imported.name]);
        docker.remove(&[&imported.name]);
        match (first.code, started.code) {
            (0, 0) => Ok(imported),
            _ => Err(first.stderr + &started.stderr),
        }
    }

    fn taken(self, docker: &Docker) -> Imported {
        self.import(docker).unwrap_or_else(|why| panic!("it is an image: {why}"))
    }
}

impl Imported {
    fn run(&self, options: &[&str], script: &str) -> tests::Outcome {
        self.docker.run(&[&["run", "--rm"], options, &[&self.name, "sh", "-c", script]].concat())
    }
}

impl Drop for Imported {
    fn drop(&mut self) {
        let _ = self.docker.run(&["rmi", "-f", &self.name]);
    }
}

/// Files of the host that must be what they were.
pub(super) struct Tripwires {
    before: Vec<(PathBuf, Vec<u8>)>,
}

impl Tripwires {
    pub(super) fn set() -> Self {
        let kernel = ["/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/kernel/hostname"];
        let files = ["/etc/passwd", "/etc/hosts", "/etc/resolv.conf"];
        let paths = kernel.iter().chain(&files).map(PathBuf::from);
        Self { before: paths.filter_map(|path| Some((path.clone(), fs::read(&path).ok()?))).collect() }
    }

    pub(super) fn assert_untouched(&self) {
        assert!(self.before.len() >= 5, "there is something to watch");
        for (path, was) in &self.before {
            assert!(fs::read(path).expect("readable") == *was, "{} is another", path.display());
        }
    }
}

/// The programs that reach into containers: by the host's process that runs them, or where they are installed.
fn programs() -> Vec<(PathBuf, Vec<u8>)> {
    let suite = Suite::here();
    let agent = fs::read_link(format!("/proc/{}/exe", suite.pid_of("node-agent-1"))).expect("the agent runs");
    let dir = agent.parent().expect("a directory");
    let all = [agent.clone(), dir.join("wharfage-shim"), "/usr/sbin/runc".into()];
    all.into_iter().filter_map(|path| Some((path.clone(), fs::read(&path).ok()?))).collect()
}

#[test]
fn b01_no_program_of_the_host_is_run_or_written_to_by_those_it_starts() {
    let docker = Suite::here().docker();
    let before = programs();
    assert!(before.len() >= 2);
    let mut image = Image::new();
    image.file("bin/itself", b"#!/proc/self/exe\n", 0o755).link("bin/linked", "/proc/self/exe");
    let image = image.taken(&docker);
    for entrypoint in ["/proc/self/exe", "/bin/itself", "/bin/linked"] {
        let outcome = docker.run(&["run", "--rm", "--entrypoint", entrypoint, &image.name, "init"]);
        assert_ne!(outcome.code, 0, "{entrypoint}: {outcome:?}");
    }
    let cell = Cell::start(&docker, &[]);
    let watcher = docker.piped(&["exec", &cell.name, "/attempt", "overwrite", "6"]);
    // The control: a program of the container's own is held and written to, once it has ended.
    let _ = cell.sh("cp /attempt /bin/sleeper; /bin/sleeper swap 2 /none /none");
    for n in 0..12 {
        let _ = docker.run(&["exec", "-u", if n % 2 == 0 { "0" } else { "1000" }, &cell.name, "true"]);
        let _ = docker.run(&["exec", &cell.name, "/proc/self/exe"]);
    }
    let seen = String::from_utf8_lossy(&watcher.wait_with_output().expect("it was started").stdout).into_owned();
    assert!(seen.contains("opened /bin/sleeper true") && seen.ends_with("watched\n"), "{seen}");
    let foreign: Vec<_> = seen.lines().filter(|l| l.starts_with("opened") && !l.contains(" /bin/")).collect();
    assert_eq!(foreign, [""; 0], "{seen}");
    for (path, was) in before {
        assert!(fs::read(&path).expect("readable") == was, "{} was written to", path.display());
    }
}

#[test]
fn b03_b04_what_an_image_has_in_its_dev_is_neither_used_nor_followed() {
    let docker = Suite::here().docker();
    let wires = Tripwires::set();
    let mut image = Image::new();
    image.dir("dev").dir("dev/shm").link("dev/null", "/proc/sys/kernel/core_pattern");
    image.link("dev/console", "/proc/sys/kernel/modprobe").link("dev/pts", "/etc").link("dev/ptmx", "/etc/passwd");
    image.link("dev/stdin", "/proc/sysrq-trigger").link("dev/fd", "/proc/sys/kernel");
    let image = image.taken(&docker);
    for options in [&[][..], &["-t"], &["-i"]] {
        let script = "[ -c /dev/null ] && echo null; head -c 1 /proc/keys | grep -c .; echo x >/dev/null; tty >/dev/null; ls -d /dev/pts/ptmx";
        let outcome = image.run(options, script);
        let told = outcome.stdout.replace('\r', "");
        assert_eq!(told, "null\n0\n/dev/pts/ptmx\n", "{options:?}: {outcome:?}");
    }
    // A /dev that is a link is no image to run.
    let mut linked = Image::new();
    linked.dir("elsewhere").link("dev", "elsewhere");
    let refused = linked.import(&docker).err().unwrap_or_else(|| panic!("/dev is a link and it ran"));
    assert!(refused.contains("/dev of the image is not a directory"), "{refused}");
    wires.assert_untouched();
}

#[test]
fn b05_settings_go_to_the_kernels_procfs_and_never_to_an_images() {
    let docker = Suite::here().docker();
    let wires = Tripwires::set();
    let mut image = Image::new();
    image.dir("proc").dir("proc/self").dir("proc/self/attr").dir("proc/sys").dir("proc/sys/net").dir("proc/1");
    image.link("proc/self/attr/exec", "/proc/sys/kernel/core_pattern").link("proc/self/oom_score_adj", "/etc/passwd");
    image.link("proc/sys/net/core", "/etc").file("proc/1/oom_score_adj", b"fake", 0o666);
    let image = image.taken(&docker);
    let options = ["--oom-score-adj", "321", "--sysctl", "net.core.somaxconn=123", "--hostname", "box"];
    let script =
        "cat /proc/self/oom_score_adj /proc/sys/net/core/somaxconn; grep -c ' /proc proc ' /proc/mounts; id -u";
    assert_eq!(image.run(&options, script).stdout, "321\n123\n1\n0\n");
    // Nor through a further process.
    let name = unique("procfs");
    let _ = docker.ok(&[&["run", "-d", "--name", &name], &options[..], &[&image.name, "sleep", "600"]].concat());
    assert_eq!(docker.ok(&["exec", &name, "cat", "/proc/self/oom_score_adj"]), "321");
    docker.remove(&[&name]);
    wires.assert_untouched();
}

#[test]
fn b06_no_mount_comes_over_the_runtimes_own_places_by_a_link_either() {
    let docker = Suite::here().docker();
    let wires = Tripwires::set();
    let mut image = Image::new();
    let links = [
        ("to-dev", "dev", "/dev"),
        ("to-proc", "/proc", "/proc"),
        ("to-sys", "../sys", "/sys"),
        ("deep", "proc/sys", "/proc"),
        ("twice", "to-dev", "/dev"),
        ("pts", "/dev/pts", "/dev/pts"),
    ];
    for (at, to, _) in links {
        image.link(at, to);
    }
    let image = {
        image.dir("plain");
        image.taken(&docker)
    };
    let volume = unique("over");
    for (at, _, own) in links {
        for mount in [["-v".to_owned(), format!("{volume}:/{at}")], ["--tmpfs".to_owned(), format!("/{at}")]] {
            let outcome = image.run(&[&mount[0], &mount[1]], "echo ran");
            let why = format!("mount path \"/{at}\": {own} is the runtime's own on Wharfage");
            assert!(outcome.code != 0 && outcome.stderr.contains(&why), "{mount:?}: {outcome:?}");
        }
    }
    for at in ["/proc", "/proc/self", "/sys/fs/cgroup", "/dev", "/dev/pts"] {
        let outcome = image.run(&["-v", &format!("{volume}:{at}")], "echo ran");
        assert!(outcome.stderr.contains("is the runtime's own on Wharfage"), "{at}: {outcome:?}");
    }
    assert_eq!(image.run(&["-v", &format!("{volume}:/plain/new")], "echo ran").stdout, "ran\n", "the control");
    let _ = docker.run(&["volume", "rm", "-f", &volume]);
    wires.assert_untouched();
}

#[test]
fn b09_nothing_in_a_container_is_executed_by_the_host() {
    let docker = Suite::here().docker();
    let trojan = b"#!/bin/sh\n( id; env ) >/owned-${0##*/}\n";
    let mut image = Image::new();
    image.dir("usr").dir("usr/bin").dir("usr/sbin").dir("lib").dir("sbin");
    let names = ["xz", "gzip", "unpigz", "unxz", "zstd", "tar", "getent", "runc", "nsenter", "mount", "modprobe"];
    for dir in ["usr/bin", "usr/sbin", "sbin"] {
        for name in names {
            image.file(&format!("{dir}/{name}"), trojan, 0o755);
        }
    }
    image.file("lib/libnss_files.so.2", b"\x7fELFnot really", 0o755).file(
        "etc/nsswitch.conf",
        b"passwd: files\n",
        0o644,
    );
    image.file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nweb:x:1000:100::/:/bin/sh\n", 0o644);
    image.change("ENV PATH=/usr/bin:/usr/sbin:/sbin:/bin");
    let image = image.taken(&docker);
    let name = unique("trojan");
    let _ = docker.ok(&["run", "-d", "-u", "web", "--name", &name, &image.name, "/bin/sleep", "600"]);
    let _ = docker.ok(&["exec", "-u", "web", &name, "/bin/true"]);
    let packed = |program: &str| {
        let script = format!("echo data >f && tar c f | {program}");
        let dir = std::env::temp_dir().join(unique("packed"));
        fs::create_dir_all(&dir).expect("creates");
        Command::new("sh").args(["-c", &script]).current_dir(&dir).output().expect("a shell").stdout
    };
    for program in ["cat", "gzip", "xz", "zstd"] {
        let archive = packed(program);
        if !archive.is_empty() {
            let _ = docker.run_with_input(&["cp", "-", &format!("{name}:/root")], &archive);
        }
    }
    for args in [&["cp", &format!("{name}:/etc"), "-"][..], &["export", &name], &["diff", &name], &["top", &name]] {
        let output = docker.command(args).output().expect("the docker CLI is installed");
        assert!(output.status.success(), "{args:?}: {output:?}");
    }
    let committed = unique("committed");
    let _ = docker.ok(&["commit", &name, &committed]);
    let _ = docker.ok(&["rmi", &committed]);
    let owned = || docker.run(&["exec", "-u", "0", &name, "/bin/sh", "-c", "/bin/ls / | /bin/grep owned"]).stdout;
    assert_eq!(owned(), "", "somebody executed it");
    let _ = docker.run(&["exec", "-u", "0", &name, "xz"]);
    assert_eq!(owned(), "owned-xz\n", "the control: it leaves a trace when it runs");
    docker.remove(&[&name]);
}

#[test]
fn b10_nothing_that_runs_on_the_host_has_a_containers_environment() {
    let docker = Suite::here().docker();
    let mut image = Image::new();
    for variable in
        ["LD_PRELOAD=/evil.so", "LD_LIBRARY_PATH=/evil", "GCONV_PATH=/evil", "LD_AUDIT=/evil.so", "BASH_ENV=/evil"]
    {
        image.change(&format!("ENV {variable}"));
    }
    let image = image.taken(&docker);
    let name = unique("preload");
    let health = ["--health-cmd", "true", "--health-interval", "1s"];
    let run = [&["run", "-d", "--init", "--name", &name], &health[..], &[&image.name, "sleep", "600"]].concat();
    let id = docker.ok(&run);
    let _ = docker.ok(&["exec", &name, "true"]);
    let pid: u32 = docker.ok(&["inspect", "-f", "{{.State.Pid}}", &name]).parse().expect("a pid");
    let environment = |pid: u32| {
        let bytes = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    assert!(environment(pid).contains("LD_PRELOAD=/evil.so"), "the control: the container has it");
    let own = fs::read_link(format!("/proc/{pid}/ns/pid")).expect("it runs");
    let mut looked_at = 0;
    for entry in fs::read_dir("/proc").expect("procfs").flatten() {
        let Some(other) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        if fs::read_link(format!("/proc/{other}/ns/pid")).is_ok_and(|ns| ns != own) {
            let line = fs::read(format!("/proc/{other}/cmdline")).unwrap_or_default();
            looked_at += u32::from(String::from_utf8_lossy(&line).contains(&id));
            assert!(!environment(other).contains("/evil"), "{}", String::from_utf8_lossy(&line));
        }
    }
    assert!(looked_at > 0, "its shim was not found");
    docker.remove(&[&name]);
}

#[test]
fn b18_an_images_list_of_users_is_read_with_a_bound_and_only_if_it_is_a_file() {
    let docker = Suite::here().docker();
    let mut fifo = Image::new();
    fifo.entry("etc/passwd", tar::EntryType::Fifo, 0o644, "", &[]);
    let mut giant = Image::new();
    giant.file("etc/passwd", &vec![b'x'; 5 << 20], 0o644);
    let mut linked = Image::new();
    linked.link("etc/passwd", "../../../../../../etc/passwd").link("etc/group", "/proc/self/environ");
    for (what, image) in [("is not a regular file", fifo), ("is larger than", giant)] {
        let why = image.import(&docker).err().unwrap_or_else(|| panic!("{what}: it ran"));
        assert!(why.contains("/etc/passwd of the image") && why.contains(what), "{why}");
    }
    let linked = linked.taken(&docker);
    let outcome = docker.run(&["run", "--rm", "-u", "daemon", &linked.name, "id"]);
    assert!(outcome.stderr.contains("unable to find user daemon"), "the host's list was read: {outcome:?}");
}
