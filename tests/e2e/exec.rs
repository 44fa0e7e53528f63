//! Further processes in a running container.

use tests::{Docker, Suite, Terminal, unique};

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
