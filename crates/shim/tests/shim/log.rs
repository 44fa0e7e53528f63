//! The log file as the container's output makes it.

use runtime::protocol::LogTarget;

use crate::harness::{container, shell, started_by_both};

started_by_both! {
    both_streams_are_logged_with_their_names,
    the_last_byte_is_in_the_log_when_the_end_is_told,
    a_log_is_bounded_by_rotation,
    a_container_without_a_log_runs_and_logs_nothing,
    a_log_on_a_full_disk_does_not_stop_the_container,
}

fn both_streams_are_logged_with_their_names() {
    let container = shell("echo out; echo err >&2; printf tail");
    container.run();
    let mut lines: Vec<_> = container.logged().iter().map(|l| format!("{} {}", l["stream"], l["log"])).collect();
    lines.sort();
    assert_eq!(lines, [r#""stderr" "err\n""#, r#""stdout" "out\n""#, r#""stdout" "tail""#]);
    assert!(container.logged()[0]["time"].as_str().expect("is text").ends_with('Z'));
}

fn the_last_byte_is_in_the_log_when_the_end_is_told() {
    let container = shell("seq 1 50000");
    container.run();
    let logged = container.logged();
    assert_eq!((logged.len(), &logged[49_999]["log"]), (50_000, &serde_json::json!("50000\n")));
}

fn a_log_is_bounded_by_rotation() {
    let container = container(&["seq", "1", "2000"], |r| {
        let path = r.config.log.as_ref().expect("has a log").path.clone();
        r.config.log = Some(LogTarget { path, max_size_bytes: 10_000, max_files: 2 });
    });
    container.run();
    let last = container.logged();
    assert_eq!(last.last().expect("has lines")["log"], "2000\n");
    let rotated = container.log.with_file_name("c-json.log.1");
    assert!((9_900..10_100).contains(&rotated.metadata().expect("was rotated").len()));
    assert!(!container.log.with_file_name("c-json.log.2").exists());
}

fn a_container_without_a_log_runs_and_logs_nothing() {
    let container = container(&["echo", "x"], |r| r.config.log = None);
    let (out, _, record) = container.run_attached();
    assert_eq!((out.as_str(), record.exit_code), ("x\n", 0));
    assert!(!container.log.exists());
}

fn a_log_on_a_full_disk_does_not_stop_the_container() {
    let container = container(&["sh", "-c", "seq 1 1000; exit 6"], |r| {
        r.config.log = Some(LogTarget { path: "/dev/full".into(), max_size_bytes: 0, max_files: 1 });
    });
    assert_eq!(container.run().exit_code, 6);
}
