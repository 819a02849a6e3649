//! The real binary at the command line: what it prints and how it exits. Needs no privilege.

#![allow(clippy::unwrap_used, reason = "this is a test")]
#![allow(clippy::disallowed_methods, reason = "the program under test is run")]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const REPORT: &str = include_str!("data/report.json");
const RECORDS: &str = include_str!("data/log.jsonl");

fn flowctl(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flowctl"));
    command
        .args(arguments)
        .env("TZ", "UTC")
        .env_remove("NO_COLOR");
    command
}

fn output(arguments: &[&str]) -> Output {
    flowctl(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Answers every request with the report, as one line.
fn daemon(path: &Path) {
    let listener = UnixListener::bind(path).unwrap();
    let line = REPORT.replace('\n', " ") + "\n";
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = String::new();
            let _ = BufReader::new(stream.try_clone().unwrap()).read_line(&mut request);
            let _ = stream.write_all(line.as_bytes());
        }
    });
}

#[test]
fn status_is_text_json_or_an_exit_code() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("s");
    daemon(&socket);
    let socket = socket.to_str().unwrap();

    let shown = output(&["status", "--socket", socket]);
    assert_eq!(text(&shown.stdout), include_str!("data/status.txt"));
    assert_eq!(shown.status.code(), Some(0));

    let json = output(&["status", "--json", "--socket", socket]);
    assert_eq!(text(&json.stdout).lines().count(), 1);
    serde_json::from_slice::<serde_json::Value>(&json.stdout).unwrap();

    let check = output(&["status", "--check", "--socket", socket]);
    assert_eq!(
        text(&check.stdout),
        "firing: uplink_full is firing (wan_out at 47.2 Mbit/s); \
         conntrack does not stamp flows, so it is not known when they began\n"
    );
    assert_eq!(check.status.code(), Some(2));

    let raw = output(&[
        "--units", "raw", "status", "--color", "always", "--socket", socket,
    ]);
    assert!(text(&raw.stdout).contains("\x1b["));
    assert!(text(&raw.stdout).contains("1330000000000 B"));
}

#[test]
fn a_watch_on_a_pipe_prints_one_report_after_the_other_until_nobody_reads() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("s");
    daemon(&socket);
    let mut watch = flowctl(&["status", "--json", "--watch=0.1"])
        .arg("--socket")
        .arg(&socket)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    for _ in 0..3 {
        let line = lines.next().unwrap().unwrap();
        assert!(line.starts_with("{\"version\""), "{line}");
    }
    drop(lines);
    let end = watch.wait_with_output().unwrap();
    assert_eq!((end.status.code(), text(&end.stderr)), (Some(0), ""));
}

#[test]
fn without_a_daemon_status_says_so_and_exits_with_3() {
    let status = output(&["status", "--socket", "/nonexistent/s"]);
    assert_eq!(status.status.code(), Some(3));
    assert_eq!(
        text(&status.stderr),
        "flowctl: no daemon answers on /nonexistent/s: is `flowctl run` running?\n"
    );
}

#[test]
fn a_daemon_that_does_not_answer_is_not_reachable_either() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("s");
    let listener = UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || listener.incoming().for_each(drop));
    let check = output(&["status", "--check", "--socket", socket.to_str().unwrap()]);
    assert_eq!(check.status.code(), Some(3), "{}", text(&check.stderr));
}

#[test]
fn the_log_is_shown_filtered_raw_or_in_words() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("drilldowns.jsonl"), RECORDS).unwrap();
    let state = directory.path().to_str().unwrap();

    let words = output(&["log", "--state-dir", state]);
    assert_eq!(text(&words.stdout), include_str!("data/log.txt"));
    let raw = output(&["log", "--state-dir", state, "--json"]);
    assert_eq!(text(&raw.stdout), RECORDS);
    let filtered = output(&[
        "log",
        "--state-dir",
        state,
        "--json",
        "--counter",
        "wan_in",
        "--since",
        "2026-11-23T05:22",
    ]);
    assert_eq!(text(&filtered.stdout).lines().count(), 1);
    assert!(text(&filtered.stdout).contains("\"reset\""));

    let threshold = output(&[
        "log",
        "--state-dir",
        state,
        "--threshold",
        "flood",
        "--json",
    ]);
    assert_eq!(text(&threshold.stdout).lines().count(), 1);
    assert!(text(&threshold.stdout).contains("\"threshold\":\"flood\""));

    let absent = output(&["log", "--state-dir", "/nonexistent"]);
    assert_eq!(absent.status.code(), Some(1));
}

#[test]
fn following_the_log_ends_when_nobody_reads_any_more() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("drilldowns.jsonl");
    std::fs::write(&path, "").unwrap();
    let mut follow = flowctl(&["log", "--follow", "--json", "--state-dir"])
        .arg(directory.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    let first = RECORDS.lines().next().unwrap();
    let mut log = std::fs::OpenOptions::new()
        .append(true)
        .open(&path)
        .unwrap();
    writeln!(log, "{first}").unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), first);
    // Nothing is written any more: the closed pipe alone must end it.
    drop(lines);
    assert_eq!(follow.wait().unwrap().code(), Some(0));
}

#[test]
fn a_usage_error_exits_with_64() {
    assert_eq!(output(&["stauts"]).status.code(), Some(64));
    assert_eq!(output(&[]).status.code(), Some(64));
    assert_eq!(output(&["--help"]).status.code(), Some(0));
}
