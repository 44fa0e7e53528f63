//! Start, end, signals, records; what a crash leaves.

use std::{path::Path, thread, time::Duration};

use model::MemoryBytes;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use runtime::{
    cgroup,
    protocol::{Event, Failure, Reply, Request, Stage, StartBy},
};

use crate::harness::{container, shell, shim_program, started_by, started_by_both, until};

started_by_both! {
    the_exit_code_is_recorded_and_told,
    after_goodbye_nothing_is_left,
    a_missing_program_is_127_in_dockerds_words,
    a_directory_as_program_is_126,
    a_second_start_is_answered_like_the_first,
    a_signal_reaches_the_first_process,
    sigkill_is_137_and_a_signal_after_the_end_is_refused,
    kill_all_ends_everything_in_it,
    too_much_memory_is_told_as_such,
    a_child_that_eats_the_memory_is_told_of_while_its_parent_lives,
    a_late_subscriber_hears_what_was,
    goodbye_is_refused_while_it_runs,
    rubbish_is_answered_and_harms_nobody,
    a_killed_shim_leaves_the_container_to_be_found,
    a_second_shim_for_the_same_run_is_refused,
    the_init_forwards_signals_reaps_and_ends_like_its_program,
}

fn the_exit_code_is_recorded_and_told() {
    let container = shell("exit 42");
    let record = container.run();
    assert_eq!((record.run, record.restart, record.exit_code, record.oom_killed), (7, 1, 42, false));
    assert!(record.error.is_empty() && record.pid.is_some());
    assert!(record.started_at_ns.is_some_and(|at| at <= record.finished_at_ns));
    assert_eq!(container.run_dir.read_exit().expect("readable"), Some(record));
}

fn after_goodbye_nothing_is_left() {
    let container = shell("true");
    container.run();
    let pid = container.shim_pid();
    assert_eq!(container.ask(&Request::Bye), Reply::Done);
    until(|| kill(Pid::from_raw(pid), None).is_err().then_some(()));
    assert!(!container.run_dir.socket().exists() && !container.run_dir.pid_file().exists());
    assert!(!Path::new("/sys/fs/cgroup/memory").join(&container.cgroup_path[1..]).exists());
    let runcs = std::fs::read_dir(container.path().join("runc"));
    assert_eq!(runcs.map_or(0, Iterator::count), 0);
}

#[test]
fn forty_short_ones_all_tell_their_end() {
    // A process can be gone before the runtime that started it is.
    for by in [StartBy::Runtime, StartBy::Shim] {
        let some = move || (0..10).map(|_| container(&["true"], |_| {}).run().exit_code).sum::<i32>();
        let threads: Vec<_> = (0..4)
            .map(|_| {
                thread::spawn(move || {
                    let mut codes = 0;
                    started_by(by, || codes = some());
                    codes
                })
            })
            .collect();
        for thread in threads {
            assert_eq!(thread.join().expect("no test panics"), 0);
        }
    }
}

fn a_missing_program_is_127_in_dockerds_words() {
    let container = container(&["nope"], |_| {});
    let Reply::Failed { failure, message, exit_code } = container.start() else { panic!("it started") };
    assert_eq!((failure, exit_code), (Failure::Runtime, Some(127)));
    assert_eq!(
        message,
        "failed to create task for container: failed to create shim task: OCI runtime create failed: runc create \
         failed: unable to start container process: exec: \"nope\": executable file not found in $PATH: unknown"
    );
    let record = container.wait_record();
    assert_eq!((record.exit_code, record.error, record.started_at_ns), (127, message, None));
    assert!(container.logged().is_empty(), "what runc prints is not the container's output");
}

fn a_directory_as_program_is_126() {
    let container = container(&["/etc"], |_| {});
    let Reply::Failed { exit_code, message, .. } = container.start() else { panic!("it started") };
    assert_eq!(exit_code, Some(126), "{message}");
}

#[test]
fn a_runtime_that_is_not_there_is_an_answer_not_a_hang() {
    let container = container(&["true"], |r| r.config.runtime.path = "/nonexistent/runc".into());
    let Reply::Failed { exit_code, .. } = container.start() else { panic!("it started") };
    assert_eq!(exit_code, Some(128));
    assert_eq!(container.wait_record().exit_code, 128);
}

fn a_second_start_is_answered_like_the_first() {
    let container = shell("sleep 60");
    let first = container.start();
    assert!(matches!(first, Reply::Started { .. }));
    assert_eq!(container.start(), first);
}

fn a_signal_reaches_the_first_process() {
    let container = shell("trap 'exit 9' USR1; echo up; while :; do sleep 0.05; done");
    let mut attached = container.attach(false);
    container.start();
    attached.read_until("up");
    assert_eq!(container.ask(&Request::Signal { signal: 10 }), Reply::Done);
    assert_eq!(container.wait_record().exit_code, 9);
}

fn sigkill_is_137_and_a_signal_after_the_end_is_refused() {
    let container = shell("sleep 60");
    let mut events = container.subscribe();
    container.start();
    assert_eq!(container.ask(&Request::Signal { signal: 9 }), Reply::Done);
    assert_eq!(events.wait_exit().exit_code, 137);
    let Reply::Failed { failure, .. } = container.ask(&Request::Signal { signal: 9 }) else { panic!("it was sent") };
    assert_eq!(failure, Failure::NotRunning);
}

fn kill_all_ends_everything_in_it() {
    let container = shell("sleep 60 & sleep 60 & wait");
    let mut events = container.subscribe();
    container.start();
    until(|| (cgroup::pids_in(&container.cgroup_path).len() == 3).then_some(()));
    assert_eq!(container.ask(&Request::KillAll), Reply::Done);
    assert_eq!(events.wait_exit().exit_code, 137);
    assert!(cgroup::pids_in(&container.cgroup_path).is_empty());
}

fn too_much_memory_is_told_as_such() {
    let container = container(&["sh", "-c", "exec tail /dev/zero"], |r| {
        r.sandbox.resources.memory_bytes = Some(MemoryBytes(32 << 20));
    });
    let mut events = container.subscribe();
    container.start();
    let mut oom_event = false;
    let record = loop {
        let event = events.event();
        oom_event |= matches!(event, Event::Oom { kills: 1.. });
        if let Event::Exited(record) = event {
            break record;
        }
    };
    assert_eq!((record.exit_code, record.oom_killed, oom_event), (137, true, true));
}

fn a_child_that_eats_the_memory_is_told_of_while_its_parent_lives() {
    let container = container(&["sh", "-c", "while ! tail /dev/zero; do read -r again; done"], |r| {
        r.sandbox.resources.memory_bytes = Some(MemoryBytes(32 << 20));
        r.config.open_stdin = true;
    });
    let mut events = container.subscribe();
    let input = container.attach(true);
    container.start();
    let mut kills = |expected: u32| {
        let told = loop {
            if let Event::Oom { kills } = events.event() {
                break kills;
            }
        };
        assert_eq!(told, expected);
    };
    kills(1);
    let mut input = input;
    input.write(b"again\n");
    kills(2);
    let late = container.subscribe().event();
    assert!(matches!(late, Event::Started { .. }), "it runs: {late:?}");
    assert_eq!(container.ask(&Request::KillAll), Reply::Done);
}

fn a_late_subscriber_hears_what_was() {
    let container = shell("exit 3");
    container.run();
    assert!(matches!(container.subscribe().event(), Event::Exited(record) if record.exit_code == 3));
    let Reply::State(state) = container.ask(&Request::State) else { panic!("not a state") };
    assert_eq!((state.stage, state.pid, state.exit.map(|e| e.exit_code)), (Stage::Exited, None, Some(3)));
}

fn goodbye_is_refused_while_it_runs() {
    let container = shell("sleep 60");
    container.start();
    assert!(matches!(container.ask(&Request::Bye), Reply::Failed { failure: Failure::Conflict, .. }));
}

fn rubbish_is_answered_and_harms_nobody() {
    let container = shell("sleep 60");
    container.start();
    let mut connection = container.connect();
    connection.write(b"GET / HTTP/1.1\n");
    assert!(matches!(connection.ask(&Request::State), Reply::Failed { failure: Failure::Invalid, .. }));
    let mut flood = container.connect();
    let _ = std::io::Write::write_all(&mut flood.stream, &vec![b'x'; 2 << 20]);
    let Reply::State(state) = container.ask(&Request::State) else { panic!("not a state") };
    assert_eq!(state.stage, Stage::Running);
}

fn a_killed_shim_leaves_the_container_to_be_found() {
    let container = shell("sleep 60");
    let Reply::Started { pid, .. } = container.start() else { panic!("not started") };
    kill(Pid::from_raw(container.shim_pid()), Signal::SIGKILL).expect("kill");
    until(|| container.run_dir.connect().is_err().then_some(()));
    assert_eq!(container.run_dir.read_pid(), Some(pid));
    assert_eq!(cgroup::pids_in(&container.cgroup_path), [pid]);
    assert!(container.run_dir.read_exit().expect("readable").is_none());
    cgroup::remove(&container.cgroup_path, Duration::from_secs(5)).expect("removes what was left");
}

fn a_second_shim_for_the_same_run_is_refused() {
    let container = shell("sleep 60");
    let out = container.run_dir.shim_command(&shim_program()).output().expect("runs");
    assert!(!out.status.success());
    assert!(matches!(container.ask(&Request::State), Reply::State(_)));
}

fn the_init_forwards_signals_reaps_and_ends_like_its_program() {
    let script = "trap 'exit 5' TERM; (sleep 0.01 &); echo $$ up; while :; do sleep 0.05; done";
    let container = container(&["sh", "-c", script], |r| {
        // The test's shim is linked dynamically: what it needs is put into the rootfs.
        let libs = String::from_utf8_lossy(
            &std::process::Command::new("ldd").arg(shim_program()).output().map(|o| o.stdout).unwrap_or_default(),
        )
        .into_owned();
        for lib in libs.split_whitespace().filter(|w| w.starts_with('/')) {
            let to = r.rootfs.join(&lib[1..]);
            std::fs::create_dir_all(to.parent().expect("has a directory")).expect("directory");
            std::fs::copy(lib, to).expect("library");
        }
        r.sandbox.init = Some(shim_program());
    });
    let mut attached = container.attach(false);
    let mut events = container.subscribe();
    container.start();
    assert_ne!(attached.read_frame().trim(), "1 up", "the program is not PID 1");
    thread::sleep(Duration::from_millis(200));
    assert_eq!(container.ask(&Request::Signal { signal: 15 }), Reply::Done);
    assert_eq!(events.wait_exit().exit_code, 5);
}
