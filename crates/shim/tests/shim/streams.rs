//! Attach: nothing lost, half-closes, terminals, clients that come, go, stall and die.

use std::{thread, time::Duration};

use runtime::protocol::{Reply, Request, Stage};

use crate::harness::{container, shell, started_by_both, until};

started_by_both! {
    a_client_attached_before_the_start_gets_every_byte,
    the_record_is_there_when_the_stream_ends,
    end_of_input_ends_cat_while_output_goes_on,
    a_megabyte_of_input_comes_through_a_process_that_is_slow,
    input_left_by_a_client_that_closed_is_not_lost,
    without_stdin_once_input_stays_open_for_the_next,
    without_stdin_input_is_at_its_end,
    a_terminal_has_its_size_and_follows_it,
    a_terminal_delivers_what_is_typed_and_interrupts,
    clients_that_die_harm_nobody,
    a_stalled_client_holds_the_container_back_for_a_while_then_is_cut,
    a_slow_client_that_keeps_reading_loses_nothing,
    an_attach_after_the_end_ends_at_once,
    a_container_keeps_running_while_nobody_is_connected,
}

fn a_client_attached_before_the_start_gets_every_byte() {
    for _ in 0..5 {
        let container = shell("seq 1 20000; echo oops >&2");
        let attached = container.attach(false);
        let reader = thread::spawn(move || attached.read_frames());
        assert_eq!(container.run().exit_code, 0);
        let (out, err) = reader.join().expect("reads");
        let want: String = (1..=20_000).map(|n| format!("{n}\n")).collect();
        assert!(out == want, "{} of {} bytes", out.len(), want.len());
        assert_eq!(err, "oops\n");
    }
}

fn the_record_is_there_when_the_stream_ends() {
    let container = shell("echo x");
    let attached = container.attach(false);
    container.start();
    attached.read_frames();
    assert_eq!(container.run_dir.read_exit().expect("readable").map(|r| r.exit_code), Some(0));
}

fn end_of_input_ends_cat_while_output_goes_on() {
    let container = container(&["sh", "-c", "cat; echo done"], |r| {
        r.config.open_stdin = true;
        r.config.stdin_once = true;
    });
    let mut attached = container.attach(true);
    attached.write(b"early\n");
    container.start();
    attached.write(b"late\n");
    attached.end_input();
    let (out, _) = attached.read_frames();
    assert_eq!(out, "early\nlate\ndone\n");
    assert_eq!(container.wait_record().exit_code, 0);
}

fn a_megabyte_of_input_comes_through_a_process_that_is_slow() {
    let container = container(&["sh", "-c", "sleep 0.3; wc -c"], |r| {
        r.config.open_stdin = true;
        r.config.stdin_once = true;
    });
    let mut attached = container.attach(true);
    container.start();
    attached.write(&vec![b'x'; 1 << 20]);
    attached.end_input();
    assert_eq!(attached.read_frames().0.trim(), (1 << 20).to_string());
}

fn input_left_by_a_client_that_closed_is_not_lost() {
    let container = container(&["sh", "-c", "sleep 0.2; cat"], |r| {
        r.config.open_stdin = true;
        r.config.stdin_once = true;
    });
    container.start();
    let mut attached = container.attach(true);
    attached.write(b"parting words\n");
    drop(attached);
    container.wait_record();
    assert_eq!(container.logged()[0]["log"], "parting words\n");
}

fn without_stdin_once_input_stays_open_for_the_next() {
    let container = container(&["sh", "-c", "read a; read b; echo $a $b"], |r| r.config.open_stdin = true);
    container.start();
    let mut first = container.attach(true);
    first.write(b"one\n");
    first.end_input();
    drop(first);
    thread::sleep(Duration::from_millis(100));
    let mut second = container.attach(true);
    second.write(b"two\n");
    assert_eq!(second.read_frames().0, "one two\n");
}

fn without_stdin_input_is_at_its_end() {
    let container = shell("cat; echo end");
    assert_eq!(container.run_attached().0, "end\n");
}

fn a_terminal_has_its_size_and_follows_it() {
    let container = container(&["sh", "-c", "tty; stty size; read x; stty size"], |r| {
        r.config.tty = true;
        r.config.open_stdin = true;
        r.config.console_size = Some((24, 80));
    });
    let mut attached = container.attach(true);
    container.start();
    let first = attached.read_until("24 80");
    assert!(first.contains("/dev/pts/0"), "{first}");
    assert_eq!(container.ask(&Request::Resize { height: 50, width: 132 }), Reply::Done);
    attached.write(b"\n");
    let rest = String::from_utf8(attached.read_raw()).expect("is text");
    assert!(rest.contains("50 132\r\n"), "{rest}");
}

fn a_terminal_delivers_what_is_typed_and_interrupts() {
    let container =
        container(&["sh", "-c", "trap 'echo caught; exit 4' INT; echo ready; while :; do sleep 0.05; done"], |r| {
            r.config.tty = true;
            r.config.open_stdin = true;
        });
    let mut attached = container.attach(true);
    container.start();
    attached.read_until("ready");
    attached.write(b"\x03");
    attached.read_until("caught");
    assert_eq!(container.wait_record().exit_code, 4);
}

fn clients_that_die_harm_nobody() {
    let container = shell("for i in $(seq 1 20); do echo line $i; sleep 0.02; done");
    let watching = container.attach(false);
    let dying: Vec<_> = (0..5).map(|_| container.attach(false)).collect();
    let mut events = container.subscribe();
    container.start();
    drop(dying);
    assert_eq!(events.wait_exit().exit_code, 0);
    assert_eq!(watching.read_frames().0.lines().count(), 20);
}

fn a_stalled_client_holds_the_container_back_for_a_while_then_is_cut() {
    let container = shell("yes 0123456789012345678901234567890123456789 | head -c 8000000; echo done >&2");
    let stalled = container.attach(false);
    let mut events = container.subscribe();
    container.start();
    thread::sleep(Duration::from_secs(2));
    let Reply::State(state) = container.ask(&Request::State) else { panic!("not a state") };
    assert_eq!(state.stage, Stage::Running, "back-pressure");
    assert_eq!(events.wait_exit().exit_code, 0, "released once the client was cut");
    drop(stalled);
    let last = container.logged().last().expect("has lines")["log"].clone();
    assert!(last == "done\n" || last.as_str().is_some_and(|l| l.starts_with("0123")), "the log has it all: {last}");
}

fn a_slow_client_that_keeps_reading_loses_nothing() {
    let container = shell("seq 1 600000");
    let attached = container.attach(false);
    container.start();
    thread::sleep(Duration::from_millis(1500));
    let (out, _) = attached.read_frames();
    assert_eq!(out.lines().count(), 600_000);
}

fn an_attach_after_the_end_ends_at_once() {
    let container = shell("true");
    container.run();
    assert_eq!(container.attach(false).read_raw(), b"");
}

fn a_container_keeps_running_while_nobody_is_connected() {
    let container = shell("sleep 0.3; echo alone");
    container.start();
    until(|| container.logged().first().cloned());
    assert_eq!(container.wait_record().exit_code, 0);
}
