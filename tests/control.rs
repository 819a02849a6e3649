//! The control socket under a crowd: whatever others do to it, a client that behaves gets its answer in time.

#![allow(clippy::unwrap_used, reason = "this is a test")]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use flowctl::report::Report;
use flowctl::sink::ask::{AskError, ask};
use flowctl::sink::control::{ControlRequest, Limits, serve};
use flowctl::sink::socket::{SocketFile, bind};
use tokio::sync::watch;

/// A server on a thread of its own, as in the daemon.
struct Server {
    path: PathBuf,
    reports: watch::Sender<Option<Arc<Report>>>,
    requests: Receiver<ControlRequest>,
    _file: SocketFile,
    _directory: tempfile::TempDir,
}

fn report(counters: usize) -> Report {
    let mut report: Report = serde_json::from_str(include_str!("data/report.json")).unwrap();
    let counter = report.counters[0].clone();
    report.counters = Arc::new(vec![counter; counters]);
    report
}

fn server(first: Option<Report>) -> Server {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control.sock");
    let (listener, file) = bind(&path).unwrap();
    let (reports, receiver) = watch::channel(first.map(Arc::new));
    let (sender, requests) = sync_channel(4);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = tokio::net::UnixListener::from_std(listener).unwrap();
            serve(listener, receiver, sender, Limits::default()).await;
        });
    });
    Server {
        path,
        reports,
        requests,
        _file: file,
        _directory: directory,
    }
}

fn connect(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    stream
}

/// What the server says to these bytes.
fn answer_to(path: &Path, bytes: &[u8]) -> String {
    let mut stream = connect(path);
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    // A close with unread bytes resets the connection after the answer.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

#[test]
fn two_hundred_idle_clients_and_hostile_bytes_do_not_keep_anyone_waiting() {
    let server = server(Some(report(2_000)));
    let mut crowd: Vec<UnixStream> = Vec::new();
    for number in 0..200_usize {
        let mut stream = connect(&server.path);
        match number % 4 {
            0 => {}
            1 => stream.write_all(b"{\"request\":").unwrap(),
            2 => stream.write_all(&[0xff; 300]).unwrap(),
            // Asks for a long answer and never reads it.
            _ => stream.write_all(b"{\"request\":\"status\"}\n").unwrap(),
        }
        crowd.push(stream);
    }
    let begin = std::fs::read_to_string("/proc/uptime").unwrap();
    for _ in 0..20 {
        let answer = ask(&server.path, "status").unwrap();
        let seen: Report = serde_json::from_str(&answer).unwrap();
        assert_eq!(seen.counters.len(), 2_000);
    }
    let end = std::fs::read_to_string("/proc/uptime").unwrap();
    let seconds = |text: &str| -> f64 { text.split(' ').next().unwrap().parse().unwrap() };
    let taken = seconds(&end) - seconds(&begin);
    assert!(taken < 3.0, "20 answers took {taken} s");
    drop(crowd);
}

#[test]
fn one_connection_more_than_the_limit_closes_the_oldest() {
    let server = server(Some(report(1)));
    let limit = Limits::default().connections;
    let mut idle: Vec<UnixStream> = (0..limit).map(|_| connect(&server.path)).collect();
    assert!(ask(&server.path, "status").is_ok());
    let mut nothing = String::new();
    idle[0].read_to_string(&mut nothing).unwrap();
    assert_eq!(nothing, "", "closed before its time was over");
    writeln!(idle[1], "{{\"request\":\"status\"}}").unwrap();
    let mut answer = String::new();
    idle[1].read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("{\"version\""), "{answer}");
}

#[test]
fn a_client_that_connects_over_and_over_does_not_push_others_out() {
    let server = server(Some(report(100)));
    let path = server.path.clone();
    let (stop, stopped) = sync_channel::<()>(0);
    let flood = std::thread::spawn(move || {
        let mut held = std::collections::VecDeque::new();
        while stopped.try_recv().is_err() {
            held.push_back(connect(&path));
            if held.len() > 300 {
                held.pop_front();
            }
        }
    });
    for _ in 0..50 {
        assert!(ask(&server.path, "status").is_ok());
    }
    stop.send(()).unwrap();
    flood.join().unwrap();
}

#[test]
fn what_is_not_a_request_is_answered_with_an_error_in_one_line() {
    let server = server(Some(report(1)));
    for bytes in [
        b"\xff\xfe\x00garbage\n".to_vec(),
        b"{}\n".to_vec(),
        b"{\"request\":7}\n".to_vec(),
        b"{\"request\":\"stop\x1b[2J\"}\n".to_vec(),
        b"{\"request\":\"halt\"}\n".to_vec(),
        vec![b'['; 5_000],
        b"{\"request\":\"never ended".to_vec(),
    ] {
        let answer = answer_to(&server.path, &bytes);
        assert!(answer.starts_with("{\"error\":\""), "{answer}");
        assert_eq!(answer.matches('\n').count(), 1, "{answer}");
        assert!(answer.ends_with('\n'), "{answer}");
        serde_json::from_str::<serde_json::Value>(&answer).unwrap();
    }
    let long = answer_to(&server.path, &[b'['; 4096]);
    assert!(long.contains("at most 4096 bytes"), "{long}");
    assert!(server.requests.try_recv().is_err());
}

#[test]
fn a_request_sent_a_byte_at_a_time_is_answered_if_it_ends_in_time() {
    let server = server(Some(report(1)));
    let mut stream = connect(&server.path);
    for byte in b"{\"request\":\"status\"}\n" {
        stream.write_all(&[*byte]).unwrap();
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("{\"version\""), "{answer}");
}

#[test]
fn stop_and_reload_are_passed_on_with_who_asked() {
    let server = server(None);
    assert_eq!(
        ask(&server.path, "stop").unwrap(),
        "{\"accepted\":\"stop\"}"
    );
    assert_eq!(
        ask(&server.path, "reload").unwrap(),
        "{\"accepted\":\"reload\"}"
    );
    let Ok(ControlRequest::Stop(peer)) = server.requests.recv() else {
        panic!("no stop");
    };
    assert_eq!(peer.pid, i32::try_from(std::process::id()).ok());
    assert!(matches!(
        server.requests.recv(),
        Ok(ControlRequest::Reload(_))
    ));
}

#[test]
fn a_status_before_the_first_tick_waits_for_it_a_little() {
    let server = server(None);
    let refused = ask(&server.path, "status").unwrap_err();
    assert!(matches!(refused, AskError::Refused { .. }), "{refused}");
    let path = server.path.clone();
    let asking = std::thread::spawn(move || ask(&path, "status"));
    server.reports.send(Some(Arc::new(report(3)))).unwrap();
    assert!(asking.join().unwrap().is_ok());
}
