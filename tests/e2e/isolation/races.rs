//! A container that exchanges names for links while the host starts another one over them, or copies its
//! files (B04, B05, B06, B07, B08). Each race is shown to be one: who goes by path is led out by it.

use std::{
    fs,
    path::PathBuf,
    process::Child,
    time::{Duration, Instant},
};

use tests::{Cell, Docker, Suite, unique};

use super::images::{Image, Tripwires};

/// A directory of the host's with a secret in it.
struct Bait {
    dir: PathBuf,
}

const SECRET: &str = "a secret of the host";

impl Bait {
    fn set() -> Self {
        let dir = std::env::temp_dir().join(unique("bait"));
        fs::create_dir_all(&dir).expect("creates");
        fs::write(dir.join("f"), SECRET).expect("writes");
        Self { dir }
    }

    fn assert_untouched(&self) {
        let names: Vec<_> = fs::read_dir(&self.dir).expect("there").flatten().map(|e| e.file_name()).collect();
        assert_eq!(names, ["f"], "something was made in it");
        assert_eq!(fs::read_to_string(self.dir.join("f")).expect("readable"), SECRET);
    }
}

impl Drop for Bait {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Exchanges `/v/t`, a directory, and `/v/l`, a link, as long as it lives.
struct Swapper {
    child: Child,
    cell: Cell,
}

impl Swapper {
    fn start(docker: &Docker, options: &[&str], to: &str, seconds: &str) -> Self {
        let cell = Cell::start(docker, options);
        assert_eq!(cell.sh(&format!("mkdir -p /v/t; echo own >/v/t/f; ln -sfn {to} /v/l")), "");
        let child = docker.piped(&["exec", &cell.name, "/attempt", "swap", seconds, "/v/t", "/v/l"]);
        Self { child, cell }
    }

    /// What is read at `/v/t/f` by who goes there by path, on the host.
    fn by_path(&self) -> Option<String> {
        fs::read_to_string(format!("/proc/{}/root/v/t/f", self.cell.pid())).ok()
    }

    /// It must have swapped.
    fn settle(self) {
        let output = self.child.wait_with_output().expect("it was started");
        let swaps: u64 = String::from_utf8_lossy(&output.stdout).trim().parse().expect("a number");
        assert!(swaps > 100, "{swaps} swaps");
    }
}

#[test]
fn b05_b07_a_mount_is_never_led_out_by_a_volume_that_changes_under_it() {
    let docker = Suite::here().docker();
    let (bait, wires) = (Bait::set(), Tripwires::set());
    let bait_path = bait.dir.display().to_string();
    let (mut started, mut refused) = (0, Vec::new());
    let targets = [bait_path.as_str(), "/proc/sys/kernel", "/dev"];
    // A loaded machine makes few tries in the time, and most of them may meet a link: then some more.
    let more = std::iter::repeat_n(bait_path.as_str(), 8);
    for (pass, to) in targets.into_iter().chain(more).enumerate() {
        if pass >= targets.len() && started > 0 {
            break;
        }
        let (shared, other) = (unique("shared"), unique("other"));
        let swapper = Swapper::start(&docker, &["-v", &format!("{shared}:/v")], to, "6");
        let (began, mut led_out) = (Instant::now(), 0);
        while began.elapsed() < Duration::from_secs(5) {
            let mounts = [format!("{shared}:/v"), format!("{other}:/v/t/new")];
            let script = "cat /v/t/f /v/l/f /v/t/new/f 2>/dev/null; head -c 1 /proc/keys; [ -c /dev/null ] && echo ok";
            let run = ["run", "--rm", "-v", &mounts[0], "-v", &mounts[1], "busybox", "sh", "-c", script];
            let outcome = docker.run(&run);
            assert!(!outcome.stdout.contains(SECRET), "{to}: {outcome:?}");
            started += u32::from(outcome.code == 0);
            if outcome.code == 0 {
                assert!(outcome.stdout.ends_with("ok\n"), "{to}: {outcome:?}");
            } else {
                refused.push(format!("{:?} {to}: {}", began.elapsed(), outcome.stderr));
            }
            for _ in 0..200 {
                led_out += u32::from(swapper.by_path().is_some_and(|text| text == SECRET));
            }
        }
        assert!(to != bait_path || led_out > 0, "the control was never led out");
        swapper.settle();
        let _ = docker.run(&["volume", "rm", "-f", &shared, &other]);
    }
    assert!(started > 0, "none was started: there was no race; {refused:#?}");
    bait.assert_untouched();
    wires.assert_untouched();
}

#[test]
fn b04_b06_a_root_that_changes_while_it_is_started_leads_nowhere() {
    let docker = Suite::here().docker();
    let wires = Tripwires::set();
    // It has neither /dev nor /proc, so that what is copied in is not below anything.
    let image = Image::new().import(&docker).unwrap_or_else(|why| panic!("{why}"));
    let mut tar = tar::Builder::new(Vec::new());
    for (at, to) in [("proc", "tmp"), ("dev", "etc"), ("sys", "/root")] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_mode(0o777);
        header.set_size(0);
        tar.append_link(&mut header, at, to).expect("appends");
    }
    let links = tar.into_inner().expect("a tar");
    let (mut ran, mut refused, mut why) = (0, 0, String::new());
    for round in 0..16 {
        let name = unique("changing");
        let script = "head -c 1 /proc/keys; [ -c /dev/null ] && grep -c ' /proc proc ' /proc/mounts";
        let tty: &[&str] = if round % 2 == 0 { &["-t"] } else { &[] };
        let _ = docker.ok(&[&["create", "--name", &name], tty, &[&image.name, "sh", "-c", script]].concat());
        let starting = docker.piped(&["start", "-a", &name]);
        std::thread::sleep(Duration::from_millis(round * 40));
        let _ = docker.run_with_input(&["cp", "-", &format!("{name}:/")], &links);
        let output = starting.wait_with_output().expect("it was started");
        let told = String::from_utf8_lossy(&output.stdout).replace('\r', "");
        if output.status.success() {
            assert_eq!(told, "1\n", "round {round}");
            ran += 1;
        } else {
            refused += 1;
            why = String::from_utf8_lossy(&output.stderr).into_owned();
        }
        docker.remove(&[&name]);
    }
    // Copied in before the start it is always refused, never copied in it always runs: the race is between.
    assert!(ran > 0, "{ran} ran, {refused} were refused: {why}");
    let name = unique("changed");
    let _ = docker.ok(&["create", "--name", &name, &image.name, "true"]);
    let copied = docker.run_with_input(&["cp", "-", &format!("{name}:/")], &links);
    assert_eq!(copied.code, 0, "the control: the links get in: {copied:?}");
    let late = docker.run(&["start", "-a", &name]);
    assert!(late.stderr.contains("of the image is not a directory"), "{late:?}");
    docker.remove(&[&name]);
    wires.assert_untouched();
}

#[test]
fn b08_copies_out_of_and_into_a_swapping_container_meet_nothing_of_the_host() {
    let suite = Suite::here();
    let (docker, rest) = (suite.docker(), suite.rest());
    let bait = Bait::set();
    let swapper = Swapper::start(&docker, &["--tmpfs", "/v"], &bait.dir.display().to_string(), "7");
    let mut planted = tar::Builder::new(Vec::new());
    for path in ["f", "planted", "sub/planted"] {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o4777);
        header.set_size(7);
        planted.append_data(&mut header, path, &b"planted"[..]).expect("appends");
    }
    let planted = planted.into_inner().expect("a tar");
    let name = &swapper.cell.name;
    let (began, mut own, mut led_out, mut calls) = (Instant::now(), 0, 0, 0);
    while began.elapsed() < Duration::from_secs(6) {
        for path in ["/v", "/v/t", "/v/t/", "/v/t/.", "/v/t/f", "/v/l/f", "/v/l"] {
            let got = rest.get(&format!("/containers/{name}/archive?path={path}"));
            assert!(!got.body.contains(SECRET), "{path}: the host was read");
            own += u32::from(got.body.contains("own\n"));
            let head = rest.send("HEAD", &format!("/containers/{name}/archive?path={path}"), None);
            assert!(head.status == 200 || head.status == 404 || head.status == 400, "{path}: {head:?}");
            calls += 2;
        }
        for path in ["/v/t", "/v/l", "/v/t/sub"] {
            let _ = docker.run_with_input(&["cp", "-", &format!("{name}:{path}")], &planted);
            calls += 1;
        }
        for _ in 0..200 {
            led_out += u32::from(swapper.by_path().is_some_and(|text| text == SECRET));
        }
    }
    assert!(own > 0 && led_out > 0, "{calls} calls, {own} read its own, the control {led_out} times the host's");
    swapper.settle();
    bait.assert_untouched();
}
