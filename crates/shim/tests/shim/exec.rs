//! Further processes in a running container, made by the OCI runtime and by the shim itself, also where the
//! shim has started the container: whoever asks cannot tell which.

use runtime::{
    ExecProcess, cgroup,
    protocol::{Event, ExecBy, ExecRequest, Failure, Reply, Request},
};

use crate::harness::{Container, container, until};

/// Each test three times.
macro_rules! by_all {
    ($($name:ident,)*) => {
        mod by_the_runtime { $(#[test] fn $name() { super::$name(super::ExecBy::Runtime); })* }
        mod by_the_shim { $(#[test] fn $name() { super::$name(super::ExecBy::Shim); })* }
        mod in_what_the_shim_started {
            use crate::harness::{StartBy, started_by};
            $(#[test] fn $name() { started_by(StartBy::Shim, || super::$name(super::ExecBy::Shim)); })*
        }
    };
}

by_all! {
    output_and_code_come_back_and_the_record_is_there_at_the_end,
    input_of_an_exec_ends_with_its_client,
    a_missing_program_is_127_and_the_connection_lives_on,
    a_terminal_of_an_exec_has_a_size_and_follows_it,
    a_detached_exec_answers_at_once_and_leaves_its_record,
    an_exec_runs_as_who_and_where_it_was_asked,
    the_end_of_the_container_is_the_end_of_its_execs,
    a_process_left_behind_does_not_hold_the_stream_for_ever,
    an_exec_in_a_container_that_does_not_run_is_refused,
    an_exec_id_is_used_once_and_names_no_path,
    many_execs_at_once_do_not_mix,
    an_exec_on_a_lifeline_dies_with_its_connection_and_leaves_no_record,
}

fn running(by: ExecBy) -> Container {
    let container = container(&["sh", "-c", "sleep 60"], |r| r.config.runtime.exec = by);
    assert!(matches!(container.start(), Reply::Started { .. }));
    container
}

fn sh(script: &str) -> ExecProcess {
    ExecProcess { argv: ["sh", "-c", script].map(str::to_owned).to_vec(), ..ExecProcess::default() }
}

fn output_and_code_come_back_and_the_record_is_there_at_the_end(by: ExecBy) {
    let container = running(by);
    let mut events = container.subscribe();
    events.event();
    let (connection, reply) =
        container.exec_as("e1", &sh("echo out; echo err >&2; exit 7"), [false, true, true], false);
    assert!(matches!(reply, Reply::ExecStarted { .. }), "{reply:?}");
    assert_eq!(connection.read_frames(), ("out\n".into(), "err\n".into()));
    let record = container.run_dir.read_exec("e1").expect("readable").expect("was written");
    assert_eq!((record.running, record.exit_code, record.run), (false, Some(7), 7));
    assert_eq!(container.ask(&Request::ExecState { id: "e1".into() }), Reply::ExecState(record.clone()));
    assert_eq!(events.event(), Event::ExecExited(record));
    let left: Vec<_> = std::fs::read_dir(container.run_dir.execs()).expect("lists").flatten().collect();
    assert_eq!(left.len(), 1, "only the record stays");
}

fn input_of_an_exec_ends_with_its_client(by: ExecBy) {
    let container = running(by);
    let (mut connection, _) = container.exec(&sh("cat; echo end"), [true, true, true]);
    connection.write(b"typed\n");
    connection.end_input();
    assert_eq!(connection.read_frames().0, "typed\nend\n");
}

fn a_missing_program_is_127_and_the_connection_lives_on(by: ExecBy) {
    let container = running(by);
    let exec = ExecProcess { argv: vec!["nope".into()], ..ExecProcess::default() };
    let (mut connection, reply) = container.exec_as("e2", &exec, [false, true, true], false);
    let Reply::Failed { failure, message, exit_code } = reply else { panic!("it started") };
    assert_eq!((failure, exit_code), (Failure::Runtime, Some(127)));
    assert_eq!(
        message,
        "OCI runtime exec failed: exec failed: unable to start container process: exec: \"nope\": executable file \
         not found in $PATH: unknown"
    );
    assert_eq!(container.wait_exec_end("e2").exit_code, Some(127));
    assert!(matches!(connection.ask(&Request::State), Reply::State(_)));
}

fn a_terminal_of_an_exec_has_a_size_and_follows_it(by: ExecBy) {
    let container = running(by);
    let exec = ExecProcess { tty: true, console_size: Some((30, 90)), ..sh("stty size; read x; stty size; exit 3") };
    let (mut connection, _) = container.exec_as("e3", &exec, [true, true, true], false);
    connection.read_until("30 90");
    let resize = Request::ExecResize { id: "e3".into(), height: 40, width: 100 };
    assert_eq!(container.ask(&resize), Reply::Done);
    connection.write(b"\n");
    let rest = String::from_utf8(connection.read_raw()).expect("is text");
    assert!(rest.contains("40 100"), "{rest}");
    assert_eq!(container.wait_exec_end("e3").exit_code, Some(3));
}

fn a_detached_exec_answers_at_once_and_leaves_its_record(by: ExecBy) {
    let container = running(by);
    let (mut connection, reply) = container.exec_as("e4", &sh("sleep 0.2; exit 8"), [false; 3], true);
    assert!(matches!(reply, Reply::ExecStarted { .. }));
    assert!(matches!(connection.ask(&Request::State), Reply::State(_)), "no stream was made of it");
    assert!(container.run_dir.read_exec("e4").expect("readable").expect("was written").running);
    assert_eq!(container.wait_exec_end("e4").exit_code, Some(8));
}

fn an_exec_runs_as_who_and_where_it_was_asked(by: ExecBy) {
    let container = running(by);
    let exec = ExecProcess {
        user: "web".into(),
        cwd: "/tmp".into(),
        env: vec!["COLOUR=blue".into()],
        ..sh("id -u; id -G; pwd; echo $COLOUR $HOME; hostname")
    };
    let (connection, _) = container.exec(&exec, [false, true, true]);
    assert_eq!(connection.read_frames().0, "1000\n100 50\n/tmp\nblue /tmp\nbox\n");
}

fn the_end_of_the_container_is_the_end_of_its_execs(by: ExecBy) {
    let container = running(by);
    let (connection, _) = container.exec_as("e5", &sh("echo up; sleep 60"), [false, true, true], false);
    container.ask(&Request::Signal { signal: 9 });
    connection.read_raw();
    assert_eq!(container.wait_exec_end("e5").exit_code, Some(137));
    assert_eq!(container.wait_record().exit_code, 137);
}

fn a_process_left_behind_does_not_hold_the_stream_for_ever(by: ExecBy) {
    let container = running(by);
    let (connection, _) = container.exec(&sh("sleep 30 & echo left"), [false, true, true]);
    let begun = std::time::Instant::now();
    assert_eq!(connection.read_frames().0, "left\n");
    assert!(begun.elapsed().as_secs() < 10);
}

fn an_exec_in_a_container_that_does_not_run_is_refused(by: ExecBy) {
    let container = container(&["true"], |r| r.config.runtime.exec = by);
    container.run();
    let (_, reply) = container.exec(&sh("true"), [false; 3]);
    assert!(matches!(reply, Reply::Failed { failure: Failure::NotRunning, .. }));
}

fn an_exec_id_is_used_once_and_names_no_path(by: ExecBy) {
    let container = running(by);
    container.exec_as("e6", &sh("true"), [false; 3], true);
    let (_, again) = container.exec_as("e6", &sh("true"), [false; 3], true);
    assert!(matches!(again, Reply::Failed { failure: Failure::Conflict, .. }));
    let (_, path) = container.exec_as("../evil", &sh("true"), [false; 3], true);
    assert!(matches!(path, Reply::Failed { failure: Failure::Invalid, .. }));
    until(|| container.run_dir.read_exec("e6").expect("readable").filter(|r| !r.running));
}

fn many_execs_at_once_do_not_mix(by: ExecBy) {
    let container = running(by);
    let all: Vec<_> =
        (0..12).map(|n| container.exec(&sh(&format!("echo {n}; exit {n}")), [false, true, true])).collect();
    for (n, (connection, _)) in all.into_iter().enumerate() {
        assert_eq!(connection.read_frames().0, format!("{n}\n"));
    }
}

fn an_exec_on_a_lifeline_dies_with_its_connection_and_leaves_no_record(by: ExecBy) {
    let container = running(by);
    let mut events = container.subscribe();
    events.event();
    let on_a_lifeline = |id: &str, script: &str| {
        let document = container.exec_document(id, &sh(script), [false, true, true]);
        container.exec_request(ExecRequest { lifeline: true, ..document })
    };
    let (connection, _) = on_a_lifeline("h1", "echo fine; exit 3");
    assert_eq!(connection.read_frames().0, "fine\n");
    let record = container.run_dir.read_exec("h1").expect("readable").expect("somebody waited for it");
    assert_eq!(record.exit_code, Some(3));
    assert_eq!(events.event(), Event::ExecExited(record));
    std::fs::remove_file(container.run_dir.exec_record("h1")).expect("removes");

    let alone = cgroup::pids_in(&container.cgroup_path).len();
    let (mut connection, _) = on_a_lifeline("h2", "trap '' TERM HUP; echo ready; sleep 60; sleep 60");
    connection.read_until("ready");
    until(|| (cgroup::pids_in(&container.cgroup_path).len() == alone + 2).then_some(()));
    drop(connection);
    let Event::ExecExited(record) = events.event() else { panic!("it lives on") };
    assert_eq!((record.id.as_str(), record.exit_code), ("h2", Some(137)));
    until(|| (cgroup::pids_in(&container.cgroup_path).len() == alone).then_some(()));
    let (connection, reply) = on_a_lifeline("h3", "sleep 60");
    assert!(matches!(reply, Reply::ExecStarted { .. }));
    drop(connection);
    until(|| matches!(events.event(), Event::ExecExited(_)).then_some(()));
    let left: Vec<_> = std::fs::read_dir(container.run_dir.execs()).expect("lists").flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}
