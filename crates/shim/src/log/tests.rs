//! The log as a reader finds it.

use serde_json::Value;

use super::*;

fn log_in(dir: &tempfile::TempDir, max_size_bytes: u64, max_files: u32) -> Log {
    let path = dir.path().join("c-json.log").to_string_lossy().into_owned();
    Log::open(LogTarget { path, max_size_bytes, max_files })
}

fn lines(dir: &tempfile::TempDir, name: &str) -> Vec<(String, String)> {
    let text = fs::read_to_string(dir.path().join(name)).expect("is UTF-8");
    let parse = |line: &str| {
        let value: Value = serde_json::from_str(line).expect("every line is a document");
        let text = |key: &str| value[key].as_str().expect("is text").to_owned();
        (text("stream"), text("log"))
    };
    text.lines().map(parse).collect()
}

fn temporary() -> tempfile::TempDir {
    tempfile::tempdir().expect("temporary directory")
}

#[test]
fn lines_are_told_apart_by_stream_and_kept_whole_over_reads() {
    let dir = temporary();
    let mut log = log_in(&dir, 0, 1);
    log.feed(0, b"one\ntw");
    log.feed(1, b"err\n");
    log.feed(0, b"o\n\n");
    let got = lines(&dir, "c-json.log");
    let want = [("stdout", "one\n"), ("stderr", "err\n"), ("stdout", "two\n"), ("stdout", "\n")];
    assert_eq!(got, want.map(|(s, l)| (s.to_owned(), l.to_owned())));
}

#[test]
fn a_line_without_end_is_logged_at_the_end_without_newline() {
    let dir = temporary();
    let mut log = log_in(&dir, 0, 1);
    log.feed(0, b"prompt> ");
    assert!(lines(&dir, "c-json.log").is_empty());
    log.finish();
    assert_eq!(lines(&dir, "c-json.log")[0].1, "prompt> ");
}

#[test]
fn a_long_line_is_split_at_16_kib() {
    let dir = temporary();
    let mut log = log_in(&dir, 0, 1);
    let mut line = vec![b'x'; 40_000];
    line.push(b'\n');
    for part in line.chunks(7_001) {
        log.feed(0, part);
    }
    let lengths: Vec<usize> = lines(&dir, "c-json.log").iter().map(|(_, l)| l.len()).collect();
    assert_eq!(lengths, [16_384, 16_384, 40_000 - 2 * 16_384 + 1]);
}

#[test]
fn a_full_file_is_rotated_and_only_so_many_are_kept() {
    let dir = temporary();
    let mut log = log_in(&dir, 500, 3);
    for n in 0..40 {
        log.feed(0, format!("line {n}\n").as_bytes());
    }
    let mut names: Vec<String> = fs::read_dir(dir.path())
        .expect("lists")
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert_eq!(names, ["c-json.log", "c-json.log.1", "c-json.log.2"]);
    let all: Vec<String> =
        ["c-json.log.2", "c-json.log.1", "c-json.log"].iter().flat_map(|n| lines(&dir, n)).map(|(_, l)| l).collect();
    let first = 40 - all.len();
    let want: Vec<String> = (first..40).map(|n| format!("line {n}\n")).collect();
    assert_eq!(all, want, "nothing is missing in the middle");
}

#[test]
fn one_file_is_truncated_in_place() {
    let dir = temporary();
    let mut log = log_in(&dir, 300, 1);
    for n in 0..20 {
        log.feed(0, format!("line {n}\n").as_bytes());
    }
    assert_eq!(fs::read_dir(dir.path()).expect("lists").count(), 1);
    assert_eq!(lines(&dir, "c-json.log").last().expect("has lines").1, "line 19\n");
}

#[test]
fn a_full_disk_drops_lines_and_counts_them() {
    let dir = temporary();
    let mut log = log_in(&dir, 0, 1);
    log.file = Some(OpenOptions::new().write(true).open("/dev/full").expect("opens"));
    log.feed(0, b"a\nb\n");
    assert_eq!(log.dropped_lines(), 2);
    log.file = None;
    log.feed(0, b"c\n");
    assert_eq!(lines(&dir, "c-json.log").len(), 1);
}

#[test]
fn a_line_torn_by_a_crash_does_not_spoil_the_next() {
    let dir = temporary();
    fs::write(dir.path().join("c-json.log"), b"{\"log\":\"to").expect("writes");
    let mut log = log_in(&dir, 0, 1);
    log.feed(0, b"next\n");
    let text = fs::read_to_string(dir.path().join("c-json.log")).expect("reads");
    let last = text.lines().last().expect("has lines");
    assert!(serde_json::from_str::<Value>(last).is_ok(), "{last}");
}
