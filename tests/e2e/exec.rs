//! Further processes in a running container.

use std::time::Duration;

use serde_json::json;
use tests::{Docker, Suite, Terminal, eventually, unique};

fn sleeper(docker: &Docker, stem: &str) -> String {
    let name = unique(stem);
    let _ = docker.ok(&["run", "-d", "--name", &name, "-e", "FROM_RUN=1", "busybox", "sleep", "600"]);
    name
}

#[test]
fn exec_returns_output_and_exit_code() {
    let docker = Suite::here().docker();
    let name = sleeper(&docker, "exec");
    let outcome = docker.run(&["exec", &name, "sh", "-c", "echo hi; echo no >&2; exit 9"]);
    assert_eq!((outcome.code, outcome.stdout.as_str(), outcome.stderr.as_str()), (9, "hi\n", "no\n"));
    docker.remove(&[&name]);
}

#[test]
fn exec_takes_environment_directory_and_user() {
    let docker = Suite::here().docker();
    let name = sleeper(&docker, "exec-options");
    let script = "echo $FROM_RUN $MORE $PWD $(id -u)";
    let args = ["exec", "-e", "MORE=2", "-w", "/tmp", "-u", "65534", &name, "sh", "-c", script];
    assert_eq!(docker.ok(&args), "1 2 /tmp 65534");
    docker.remove(&[&name]);
}

#[test]
fn exec_reads_stdin_to_its_end() {
    let docker = Suite::here().docker();
    let name = sleeper(&docker, "exec-stdin");
    let outcome = docker.run_with_input(&["exec", "-i", &name, "wc", "-c"], &vec![b'x'; 300_000]);
    assert_eq!(outcome.stdout.trim(), "300000");
    docker.remove(&[&name]);
}

#[test]
fn exec_with_a_terminal_is_interactive() {
    let docker = Suite::here().docker();
    let name = sleeper(&docker, "exec-tty");
    let mut terminal = Terminal::open(docker.command(&["exec", "-it", &name, "sh"]), 25, 90);
    terminal.expect("/ #");
    terminal.type_in("stty size\n");
    terminal.expect("25 90");
    terminal.type_in("exit 4\n");
    assert_eq!(terminal.exit_code(), 4);
    docker.remove(&[&name]);
}

#[test]
fn a_missing_program_in_exec_is_127() {
    let docker = Suite::here().docker();
    let name = sleeper(&docker, "exec-missing");
    let outcome = docker.run(&["exec", &name, "no-such-program"]);
    assert_eq!(outcome.code, 127, "{outcome:?}");
    docker.remove(&[&name]);
}

#[test]
fn a_stopped_container_takes_no_exec() {
    let docker = Suite::here().docker();
    let name = sleeper(&docker, "exec-stopped");
    let _ = docker.ok(&["kill", &name]);
    let _ = docker.ok(&["wait", &name]);
    let refused = docker.run(&["exec", &name, "true"]);
    assert!(refused.stderr.contains("is not running"), "{refused:?}");
    docker.remove(&[&name]);
}

/// Exit codes of the execs of a container, as the history tells them.
fn told(docker: &Docker, name: &str) -> Vec<String> {
    let filter = format!("container={name}");
    let until = docker.ok(&["info", "-f", "{{.SystemTime}}"]);
    let code = "{{.Actor.Attributes.exitCode}}";
    let args = [
        "events",
        "--since",
        "1h",
        "--until",
        &until,
        "--filter",
        &filter,
        "--filter",
        "event=exec_die",
        "--format",
        code,
    ];
    docker.ok(&args).lines().map(str::to_owned).collect()
}

#[test]
fn the_end_of_an_exec_is_told_once_whoever_is_there_to_see_it() {
    let suite = Suite::here();
    let docker = suite.docker();
    let name = sleeper(&docker, "exec-die");
    assert_eq!(docker.run(&["exec", &name, "sh", "-c", "exit 3"]).code, 3);
    let _ = docker.ok(&["exec", "-d", &name, "sh", "-c", "sleep 1; exit 5"]);
    let mut leaver = docker.piped(&["exec", &name, "sh", "-c", "echo here; sleep 1; exit 6"]);
    let mut greeting = [0; 5];
    std::io::Read::read_exact(leaver.stdout.as_mut().expect("piped"), &mut greeting).expect("it runs");
    leaver.kill().expect("its client leaves");
    let _ = leaver.wait();
    eventually("all three ends are told", Duration::from_secs(20), || told(&docker, &name).len() >= 3);
    let mut codes = told(&docker, &name);
    codes.sort();
    assert_eq!(codes, ["3", "5", "6"]);
    assert_eq!(docker.run(&["exec", &name, "no-such-program"]).code, 127);
    let _ = docker.ok(&["exec", "-d", &name, "sleep", "600"]);
    docker.remove(&[&name]);
    // What never ran did not end; what ran when its container was removed did.
    let codes = told(&docker, &name);
    assert_eq!((codes.len(), codes.iter().filter(|code| *code == "137").count()), (4, 1), "{codes:?}");
}

#[test]
fn an_exec_keeps_its_code_after_the_container_has_stopped() {
    let suite = Suite::here();
    let (docker, rest) = (suite.docker(), suite.rest());
    let name = sleeper(&docker, "exec-code");
    let exec = |script: &str| {
        let made = rest.post(&format!("/containers/{name}/exec"), &json!({"Cmd": ["sh", "-c", script]})).json();
        let id = made["Id"].as_str().expect("an id").to_owned();
        assert_eq!(rest.post(&format!("/exec/{id}/start"), &json!({"Detach": true})).status, 200);
        id
    };
    let code = |id: &str| rest.get(&format!("/exec/{id}/json")).json()["ExitCode"].clone();
    let ended = exec("exit 4");
    eventually("its end is known", Duration::from_secs(10), || code(&ended) == json!(4));
    let shown = || docker.ok(&["inspect", "-f", "{{json .ExecIDs}}", &name]);
    eventually("its end is reported", Duration::from_secs(10), || shown() == "null");
    let running = exec("sleep 600");
    assert_eq!(shown(), format!("[\"{running}\"]"));
    let _ = docker.ok(&["kill", &name]);
    let _ = docker.ok(&["wait", &name]);
    assert_eq!((code(&ended), code(&running)), (json!(4), json!(137)), "after the container has stopped");
    docker.remove(&[&name]);
}
