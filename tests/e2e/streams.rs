//! Standard streams: attach, logs, terminals, half-close.

use std::{
    io::{Read, Write},
    time::Duration,
};

use tests::{Suite, Terminal, eventually, unique};

#[test]
fn stdout_and_stderr_arrive_apart() {
    let docker = Suite::here().docker();
    let outcome = docker.run(&["run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2"]);
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("out\n", "err\n"));
}

#[test]
fn nothing_of_a_large_output_is_lost() {
    let docker = Suite::here().docker();
    let outcome = docker.run(&["run", "--rm", "busybox", "seq", "1", "200000"]);
    assert_eq!(outcome.stdout.lines().count(), 200_000);
    assert_eq!(outcome.stdout.lines().last(), Some("200000"));
}

#[test]
fn stdin_ends_when_the_client_closes_it_while_output_goes_on() {
    let docker = Suite::here().docker();
    let script = "cat; echo after-eof";
    let outcome = docker.run_with_input(&["run", "-i", "--rm", "busybox", "sh", "-c", script], b"one\ntwo\n");
    assert_eq!(outcome.stdout, "one\ntwo\nafter-eof\n");
    assert_eq!(outcome.code, 0);
}

#[test]
fn a_terminal_is_a_real_one_and_follows_the_window() {
    let docker = Suite::here().docker();
    let mut terminal = Terminal::open(docker.command(&["run", "-it", "--rm", "busybox", "sh"]), 30, 100);
    terminal.expect("/ #");
    terminal.type_in("tty; stty size\n");
    terminal.expect("/dev/pts/0");
    terminal.expect("30 100");
    terminal.resize(40, 120);
    // The quotes keep the echo of what is typed apart from what it prints.
    terminal.type_in("until [ \"$(stty size)\" = '40 12''0' ]; do sleep 0.1; done; stty size\n");
    terminal.expect("40 120");
    terminal.type_in("exit 5\n");
    assert_eq!(terminal.exit_code(), 5);
}

#[test]
fn the_detach_keys_leave_the_container_running() {
    // Over TLS: on a plain TCP connection docker CLI 28 does not recognise its own escape (Go wraps
    // the error in `TCPConn.ReadFrom`), with dockerd as with us.
    let suite = Suite::here();
    let docker = suite.docker().over_tls(&suite);
    let name = unique("detach");
    let mut terminal = Terminal::open(docker.command(&["run", "-it", "--name", &name, "busybox", "sh"]), 24, 80);
    terminal.expect("/ #");
    terminal.type_in("\u{10}");
    terminal.type_in("\u{11}");
    terminal.exit_code();
    assert_eq!(docker.ok(&["inspect", "-f", "{{.State.Running}}", &name]), "true");
    docker.remove(&[&name]);
}

#[test]
fn half_close_works_over_tls_too() {
    let suite = Suite::here();
    let docker = suite.docker().over_tls(&suite);
    let outcome = docker.run_with_input(&["run", "-i", "--rm", "busybox", "sh", "-c", "cat; echo end"], b"in\n");
    assert_eq!((outcome.code, outcome.stdout.as_str()), (0, "in\nend\n"));
}

#[test]
fn logs_are_kept_with_times_and_tails() {
    let docker = Suite::here().docker();
    let name = unique("logs");
    let _ = docker.run(&["run", "--name", &name, "busybox", "seq", "1", "10"]);
    assert_eq!(docker.ok(&["logs", &name]).lines().count(), 10);
    assert_eq!(docker.ok(&["logs", "--tail", "3", &name]), "8\n9\n10");
    let stamped = docker.ok(&["logs", "-t", "--tail", "1", &name]);
    assert!(stamped.ends_with(" 10") && stamped.contains('T') && stamped.contains('Z'), "{stamped}");
    assert_eq!(docker.ok(&["logs", "--since", "2099-01-01T00:00:00Z", &name]), "");
    docker.remove(&[&name]);
}

#[test]
fn followed_logs_end_with_the_container_and_miss_nothing() {
    let docker = Suite::here().docker();
    let name = unique("follow");
    let script = "for i in $(seq 1 50); do echo $i; sleep 0.02; done";
    let _ = docker.ok(&["run", "-d", "--name", &name, "busybox", "sh", "-c", script]);
    let followed = docker.ok(&["logs", "-f", &name]);
    let expected: Vec<String> = (1..=50).map(|n| n.to_string()).collect();
    assert_eq!(followed.lines().collect::<Vec<_>>(), expected);
    docker.remove(&[&name]);
}

#[test]
fn attach_joins_a_running_container() {
    let docker = Suite::here().docker();
    let name = unique("attach");
    let script = "while read line; do echo got $line; done";
    let _ = docker.ok(&["run", "-d", "-i", "--name", &name, "busybox", "sh", "-c", script]);
    let mut attached = docker.piped(&["attach", &name]);
    std::io::Write::write_all(attached.stdin.as_mut().expect("piped"), b"hello\n").expect("it reads");
    let mut first = [0; 10];
    attached.stdout.as_mut().expect("piped").read_exact(&mut first).expect("it writes");
    assert_eq!(&first, b"got hello\n");
    docker.remove(&[&name]);
    attached.wait().expect("it was started");
}

#[test]
fn a_container_that_writes_fast_is_logged_whole() {
    let docker = Suite::here().docker();
    let name = unique("firehose");
    let _ = docker.ok(&["run", "-d", "--name", &name, "busybox", "seq", "1", "100000"]);
    let _ = docker.ok(&["wait", &name]);
    eventually("every line is in the log", Duration::from_secs(5), || {
        docker.ok(&["logs", &name]).lines().count() == 100_000
    });
    docker.remove(&[&name]);
}

#[test]
fn logs_carry_details_and_drivers_that_send_are_refused() {
    let docker = Suite::here().docker();
    let name = unique("details");
    let run =
        ["run", "--name", &name, "--log-driver", "local", "--log-opt", "labels=app", "--log-opt", "env=E", "--log-opt"];
    let rest =
        ["tag={{.Name}}", "--log-opt", "mode=non-blocking", "-l", "app=a b", "-e", "E=1", "busybox", "echo", "hi"];
    let _ = docker.ok(&[&run[..], &rest[..]].concat());
    assert_eq!(docker.ok(&["logs", "--details", &name]), format!("E=1,app=a+b,tag={name} hi"));
    assert_eq!(docker.ok(&["logs", &name]), "hi");
    assert_eq!(
        docker.ok(&[
            "inspect",
            "-f",
            "{{.HostConfig.LogConfig.Type}} {{index .HostConfig.LogConfig.Config \"tag\"}}",
            &name
        ]),
        "local {{.Name}}"
    );
    let refused = docker.run(&["create", "--log-driver", "syslog", "busybox"]);
    assert!(refused.stderr.contains("does not open connections for its tenants"), "{refused:?}");
    let none = unique("none");
    let _ = docker.ok(&["run", "--name", &none, "--log-driver", "none", "busybox", "echo", "hi"]);
    assert!(docker.run(&["logs", &none]).stderr.contains("configured logging driver does not support reading"));
    docker.remove(&[&name, &none]);
}

#[test]
fn top_shows_what_ps_would() {
    let suite = Suite::here();
    let docker = suite.docker();
    let name = unique("top");
    let _ = docker.ok(&["run", "-d", "--name", &name, "busybox", "sh", "-c", "sleep 600 & sleep 601"]);
    let listed = docker.ok(&["top", &name, "-o", "pid,ppid,user,comm,args"]);
    assert!(
        listed
            .lines()
            .next()
            .is_some_and(|titles| titles.split_whitespace().eq(["PID", "PPID", "USER", "COMMAND", "COMMAND"]))
    );
    assert!(listed.contains("sleep 601"), "{listed}");
    assert!(docker.ok(&["top", &name, "faux"]).contains("\\_ sleep 600"));
    let refused = docker.run(&["top", &name, "-o", "pid,nope"]);
    assert!(refused.stderr.contains("unknown user-defined format specifier \"nope\""), "{refused:?}");
    docker.remove(&[&name]);
}

/// A frame of a WebSocket, whole.
fn message(stream: &mut impl Read) -> (u8, Vec<u8>) {
    let mut head = [0; 2];
    stream.read_exact(&mut head).expect("the head of a frame");
    let mut length = usize::from(head[1]);
    if length == 126 {
        let mut long = [0; 2];
        stream.read_exact(&mut long).expect("the length of a frame");
        length = u16::from_be_bytes(long).into();
    }
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).expect("the payload of a frame");
    (head[0], payload)
}

#[test]
fn a_websocket_is_attached_to_a_container() {
    let suite = Suite::here();
    let docker = suite.docker();
    let name = unique("websocket");
    let _ = docker.ok(&["run", "-di", "--name", &name, "busybox", "cat"]);
    let mut stream =
        std::net::TcpStream::connect(suite.var("DOCKER_HOST").trim_start_matches("tcp://")).expect("connect");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time-out");
    let request = format!(
        "GET /v1.53/containers/{name}/attach/ws?stdin=1&stdout=1&stderr=1&stream=1 HTTP/1.1\r\nHost: docker\r\n\
         Authorization: Bearer {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        suite.var("WHARFAGE_TOKEN")
    );
    stream.write_all(request.as_bytes()).expect("sent");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("the head of the answer");
        head.extend(byte);
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    // Binary, whole, masked with zeroes.
    stream.write_all(b"\x82\x86\0\0\0\0typed\n").expect("sent");
    assert_eq!(message(&mut stream), (0x82, b"typed\n".to_vec()));
    let _ = docker.ok(&["kill", &name]);
    let (kind, reason) = message(&mut stream);
    assert_eq!((kind, reason), (0x88, 1000_u16.to_be_bytes().to_vec()), "goodbye, with the code of a normal end");
    docker.remove(&[&name]);
}
