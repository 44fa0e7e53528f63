//! Create, run, stop, start, kill, wait, rename, remove, list, inspect, events.

use std::time::Duration;

use tests::{Suite, eventually, unique};

#[test]
fn hello_world_runs_and_says_so() {
    let docker = Suite::here().docker();
    assert!(docker.ok(&["run", "--rm", "hello-world"]).contains("Hello from Wharfage!"));
}

#[test]
fn the_exit_code_of_a_foreground_run_is_the_containers() {
    let docker = Suite::here().docker();
    for code in [0, 1, 42, 255] {
        let outcome = docker.run(&["run", "--rm", "busybox", "sh", "-c", &format!("exit {code}")]);
        assert_eq!(outcome.code, code, "{outcome:?}");
    }
}

#[test]
fn a_missing_program_is_127_and_a_directory_126_as_docker_says() {
    let docker = Suite::here().docker();
    let name = unique("missing");
    let outcome = docker.run(&["run", "--name", &name, "busybox", "no-such-program"]);
    assert_eq!(outcome.code, 127, "{outcome:?}");
    assert!(outcome.stderr.contains("executable file not found in $PATH"), "{outcome:?}");
    assert_eq!(docker.ok(&["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", &name]), "created 127");
    docker.remove(&[&name]);
    assert_eq!(docker.run(&["run", "--rm", "busybox", "/tmp"]).code, 126);
}

#[test]
fn rm_leaves_nothing_to_list() {
    let docker = Suite::here().docker();
    let name = unique("rm");
    assert_eq!(docker.run(&["run", "--rm", "--name", &name, "busybox", "true"]).code, 0);
    eventually("--rm removes it", Duration::from_secs(5), || {
        docker.ok(&["ps", "-aq", "--filter", &format!("name={name}")]).is_empty()
    });
}

#[test]
fn a_detached_container_can_be_stopped_started_restarted_and_removed() {
    let docker = Suite::here().docker();
    let name = unique("cycle");
    let id = docker.ok(&["run", "-d", "--name", &name, "busybox", "sleep", "600"]);
    assert_eq!(id.len(), 64);
    let state = || docker.ok(&["inspect", "--format", "{{.State.Status}}", &name]);
    assert_eq!(state(), "running");
    assert!(docker.ok(&["ps"]).contains(&name));
    assert_eq!(docker.ok(&["stop", "-t", "1", &name]), name);
    assert_eq!(state(), "exited");
    assert!(!docker.ok(&["ps"]).contains(&name));
    assert!(docker.ok(&["ps", "-a"]).contains(&name));
    assert_eq!(docker.ok(&["start", &name]), name);
    assert_eq!(state(), "running");
    let pid_before = docker.ok(&["inspect", "-f", "{{.State.Pid}}", &name]);
    assert_eq!(docker.ok(&["restart", "-t", "0", &name]), name);
    assert_ne!(docker.ok(&["inspect", "-f", "{{.State.Pid}}", &name]), pid_before);
    let refused = docker.run(&["rm", &name]);
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("container is running"), "{refused:?}");
    assert_eq!(docker.ok(&["rm", "-f", &name]), name);
    assert_ne!(docker.run(&["inspect", &name]).code, 0);
}

#[test]
fn stop_sends_the_signal_and_waits_the_grace_time() {
    let docker = Suite::here().docker();
    let name = unique("grace");
    let script = "trap 'echo got-term; exit 7' TERM; echo ready; while :; do sleep 0.1; done";
    let _ = docker.ok(&["run", "-d", "--name", &name, "busybox", "sh", "-c", script]);
    docker.until_written(&name, "ready");
    let _ = docker.ok(&["stop", "-t", "5", &name]);
    assert_eq!(docker.ok(&["inspect", "-f", "{{.State.ExitCode}}", &name]), "7");
    assert!(docker.ok(&["logs", &name]).contains("got-term"));
    docker.remove(&[&name]);
}

#[test]
fn kill_ends_it_with_137_and_a_dead_one_cannot_be_killed() {
    let docker = Suite::here().docker();
    let name = unique("kill");
    let _ = docker.ok(&["run", "-d", "--name", &name, "busybox", "sleep", "600"]);
    let _ = docker.ok(&["kill", &name]);
    assert_eq!(docker.ok(&["wait", &name]), "137");
    let again = docker.run(&["kill", &name]);
    assert!(again.stderr.contains("is not running"), "{again:?}");
    docker.remove(&[&name]);
}

#[test]
fn wait_answers_with_the_code_of_a_container_that_ends_later() {
    let docker = Suite::here().docker();
    let name = unique("wait");
    let _ = docker.ok(&["run", "-d", "--name", &name, "busybox", "sh", "-c", "sleep 1; exit 3"]);
    assert_eq!(docker.ok(&["wait", &name]), "3");
    docker.remove(&[&name]);
}

#[test]
fn a_rename_keeps_the_process_running() {
    let docker = Suite::here().docker();
    let (before, after) = (unique("before"), unique("after"));
    let _ = docker.ok(&["run", "-d", "--name", &before, "busybox", "sleep", "600"]);
    let pid = docker.ok(&["inspect", "-f", "{{.State.Pid}}", &before]);
    let _ = docker.ok(&["rename", &before, &after]);
    assert_eq!(docker.ok(&["inspect", "-f", "{{.State.Pid}} {{.Name}}", &after]), format!("{pid} /{after}"));
    assert_ne!(docker.run(&["inspect", &before]).code, 0);
    docker.remove(&[&after]);
}

#[test]
fn several_containers_are_removed_at_once() {
    let docker = Suite::here().docker();
    let names = [unique("many"), unique("many"), unique("many")];
    for name in &names {
        let _ = docker.ok(&["create", "--name", name, "busybox", "true"]);
    }
    let removed = docker.ok(&["rm", &names[0], &names[1], &names[2]]);
    assert_eq!(removed.lines().collect::<Vec<_>>(), names.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn a_taken_name_is_refused_in_dockers_words() {
    let docker = Suite::here().docker();
    let name = unique("taken");
    let _ = docker.ok(&["create", "--name", &name, "busybox"]);
    let refused = docker.run(&["create", "--name", &name, "busybox"]);
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("is already in use by container"), "{refused:?}");
    docker.remove(&[&name]);
}

#[test]
fn events_tell_the_whole_life_in_order() {
    let docker = Suite::here().docker();
    let name = unique("events");
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    let since = now().to_string();
    let _ = docker.run(&["run", "--rm", "--name", &name, "busybox", "true"]);
    let list = || {
        docker.ok(&[
            "events",
            "--since",
            &since,
            "--until",
            &(now() + 1).to_string(),
            "--filter",
            &format!("container={name}"),
            "--format",
            "{{.Action}}",
        ])
    };
    eventually("the destroy event", Duration::from_secs(5), || list().contains("destroy"));
    let actions = list();
    let order: Vec<_> = ["create", "attach", "start", "die", "destroy"]
        .iter()
        .map(|action| {
            actions.lines().position(|line| line == *action).unwrap_or_else(|| panic!("{action} in {actions:?}"))
        })
        .collect();
    assert!(order.is_sorted(), "{actions}");
}

#[test]
fn listing_filters_by_label_status_and_ancestor() {
    let docker = Suite::here().docker();
    let (name, label) = (unique("filter"), unique("label"));
    let _ = docker.ok(&["run", "-d", "--name", &name, "-l", &format!("mark={label}"), "busybox", "sleep", "600"]);
    let count = |filters: &[&str]| {
        let mut args = vec!["ps", "-aq"];
        args.extend(filters.iter().flat_map(|f| ["--filter", f]));
        docker.ok(&args).lines().count()
    };
    let by_label = format!("label=mark={label}");
    assert_eq!(count(&[&by_label]), 1);
    assert_eq!(count(&[&by_label, "status=running"]), 1);
    assert_eq!(count(&[&by_label, "status=exited"]), 0);
    assert_eq!(count(&[&by_label, "ancestor=busybox"]), 1);
    assert_eq!(count(&[&by_label, "ancestor=hello-world"]), 0);
    docker.remove(&[&name]);
}

#[test]
fn ps_shows_a_state_people_can_read() {
    let docker = Suite::here().docker();
    let name = unique("status");
    let _ = docker.ok(&["run", "-d", "--name", &name, "busybox", "sleep", "600"]);
    let status = || docker.ok(&["ps", "-a", "--filter", &format!("name={name}"), "--format", "{{.Status}}"]);
    assert!(status().starts_with("Up "), "{}", status());
    let _ = docker.ok(&["kill", &name]);
    eventually("it is shown as exited", Duration::from_secs(5), || status().starts_with("Exited (137)"));
    docker.remove(&[&name]);
}
