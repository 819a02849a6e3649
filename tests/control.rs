//! The control socket under a crowd: whatever others do to it, a client that behaves gets its answer in time.

#![allow(clippy::unwrap_used, reason = "this is a test")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use flowctl::demand::{About, Begun};
use flowctl::event::{Event, Record};
use flowctl::report::Report;
use flowctl::sink::ask::{AskError, ask, ask_to_reload};
use flowctl::sink::control::{ControlRequest, Limits, serve};
use flowctl::sink::drill::{DrillRequest, Told};
use flowctl::sink::reload::{Asker, Outcome, Reloaded};
use flowctl::sink::socket::{SocketFile, bind};
use jiff::Timestamp;
use tokio::sync::{oneshot, watch};

/// A server on a thread of its own, as in the daemon.
struct Server {
    path: PathBuf,
    reports: watch::Sender<Option<Arc<Report>>>,
    requests: Receiver<ControlRequest>,
    stop: oneshot::Sender<()>,
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
    let (stop, stopped) = oneshot::channel::<()>();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = tokio::net::UnixListener::from_std(listener).unwrap();
            let stopped = async {
                let _ = stopped.await;
            };
            serve(listener, receiver, sender, Limits::default(), stopped).await;
        });
    });
    Server {
        path,
        reports,
        requests,
        stop,
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
fn a_stop_is_passed_on_with_who_asked() {
    let server = server(None);
    assert_eq!(
        ask(&server.path, "stop").unwrap(),
        "{\"accepted\":\"stop\"}"
    );
    let Ok(ControlRequest::Stop(peer)) = server.requests.recv() else {
        panic!("no stop");
    };
    assert_eq!(peer.pid, i32::try_from(std::process::id()).ok());
}

/// Someone who asks for a reload and waits, and where the daemon answers.
fn reloading(server: &Server) -> (JoinHandle<Result<Reloaded, AskError>>, Asker) {
    let path = server.path.clone();
    let asking = std::thread::spawn(move || ask_to_reload(&path));
    let Ok(ControlRequest::Reload(asker)) = server.requests.recv() else {
        panic!("no reload");
    };
    (asking, asker)
}

#[test]
fn who_asks_for_a_reload_is_told_what_came_of_it_when_it_can_be_seen() {
    let server = server(Some(report(1)));
    let (asking, asker) = reloading(&server);
    let reloaded = Reloaded::Reloaded(vec!["counters added: a_from".to_owned()]);
    let mut next = report(2);
    next.tick.sequence += 1;
    let outcome = Outcome {
        reloaded: reloaded.clone(),
        sequence: next.tick.sequence,
    };
    asker.send(outcome).unwrap();
    // Long enough for an answer that does not wait.
    std::thread::park_timeout(Duration::from_millis(200));
    let answered = asking.is_finished();
    server.reports.send(Some(Arc::new(next))).unwrap();
    assert_eq!(asking.join().unwrap().unwrap(), reloaded);
    assert!(!answered, "the report does not show it yet");
    for refused in [
        Reloaded::Rejected(vec!["a".to_owned(), "b".to_owned()]),
        Reloaded::Failed("c".to_owned()),
    ] {
        let (asking, asker) = reloading(&server);
        let outcome = Outcome {
            reloaded: refused.clone(),
            sequence: 0,
        };
        asker.send(outcome).unwrap();
        assert_eq!(asking.join().unwrap().unwrap(), refused);
    }
}

#[test]
fn who_waits_for_a_reload_is_told_when_the_daemon_ends_and_is_not_pushed_out() {
    let server = server(Some(report(1)));
    let (asking, asker) = reloading(&server);
    let _crowd: Vec<UnixStream> = (0..200).map(|_| connect(&server.path)).collect();
    assert!(ask(&server.path, "status").is_ok());
    assert!(!asking.is_finished());
    drop(asker);
    let refused = asking.join().unwrap().unwrap_err();
    assert!(refused.to_string().contains("stopping"), "{refused}");
}

#[test]
fn who_may_not_command_is_told_who_may() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let refusing = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = String::new();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        reader.read_line(&mut request).unwrap();
        let answer = "{\"error\":\"reload is for root\",\"forbidden\":true}\n";
        stream.write_all(answer.as_bytes()).unwrap();
    });
    let refused = ask_to_reload(&path).unwrap_err();
    refusing.join().unwrap();
    assert!(
        matches!(&refused, AskError::Forbidden { message, .. } if message == "reload is for root")
    );
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

const ASK: &[u8] = b"{\"request\":\"drill\",\"counter\":\"wan_out\",\"seconds\":2.5}\n";
const ID: &str = "on-demand-1";

/// A record of the log's examples.
fn record(event: &str) -> Arc<Record> {
    let lines = include_str!("data/log.jsonl").lines();
    let mut records = lines.map(|line| (line, serde_json::from_str::<Record>(line).unwrap()));
    let word = format!("\"event\":\"{event}\"");
    Arc::new(records.find(|(line, _)| line.contains(&word)).unwrap().1)
}

impl Server {
    /// What a client asks, as the daemon hears it.
    fn asked(&self) -> DrillRequest {
        let asked = self.requests.recv_timeout(Duration::from_secs(10)).unwrap();
        let ControlRequest::Drill(request) = asked else {
            panic!("{asked:?}");
        };
        *request
    }

    /// A client whose drilldown goes on, with the line that said so; the daemon's end of it.
    fn drilling(&self) -> (BufReader<UnixStream>, watch::Sender<Told>) {
        let mut stream = connect(&self.path);
        stream.write_all(ASK).unwrap();
        let told = self.asked().told;
        begin(&told);
        let mut client = BufReader::new(stream);
        assert!(line(&mut client).starts_with("{\"accepted\":\"drill\""));
        (client, told)
    }

    fn end_is_asked_for(&self) {
        let asked = self.requests.recv_timeout(Duration::from_secs(10));
        assert!(matches!(asked, Ok(ControlRequest::EndDrill(id)) if id == ID));
    }
}

fn begin(told: &watch::Sender<Told>) {
    told.send_modify(|told| {
        told.begun = Some(Begun {
            id: ID.to_owned(),
            started: Timestamp::UNIX_EPOCH,
            notes: vec!["mind \u{1b}[2J".to_owned()],
        });
    });
}

fn list(told: &watch::Sender<Told>, record: &Arc<Record>) {
    told.send_modify(|told| told.list = Some(Arc::clone(record)));
}

fn end(told: &watch::Sender<Told>, end: Result<Record, String>) {
    told.send_modify(|told| told.end = Some(Arc::new(end)));
}

fn line(client: &mut BufReader<UnixStream>) -> String {
    let mut line = String::new();
    client.read_line(&mut line).unwrap();
    line
}

fn rest(mut client: BufReader<UnixStream>) -> String {
    let mut rest = String::new();
    client.read_to_string(&mut rest).unwrap();
    rest
}

fn verdict() -> Record {
    record("verdict").as_ref().clone()
}

/// More than a reader takes at once.
fn large() -> Arc<Record> {
    let mut large = verdict();
    if let Event::Verdict(verdict) = &mut large.event {
        verdict.text = "x".repeat(100_000);
    }
    Arc::new(large)
}

fn is_verdict(line: &str) -> bool {
    let record = serde_json::from_str::<Record>(line);
    record.is_ok_and(|record| matches!(record.event, Event::Verdict(_)))
}

/// Until the daemon's end sees that nobody listens.
fn is_left(told: &watch::Sender<Told>) -> bool {
    (0..500).any(|_| {
        let closed = told.is_closed();
        if !closed {
            let (_never, silence) = sync_channel::<()>(0);
            let _ = silence.recv_timeout(Duration::from_millis(20));
        }
        closed
    })
}

#[test]
fn a_drilldown_is_answered_line_by_line_until_the_verdict() {
    let server = server(None);
    let mut stream = connect(&server.path);
    stream.write_all(ASK).unwrap();
    let DrillRequest { wish, told } = server.asked();
    assert!(matches!(&wish.about, About::Counter(name) if name.as_str() == "wan_out"));
    assert_eq!(wish.lasting, Some(Duration::from_millis(2500)));
    begin(&told);
    let mut client = BufReader::new(stream);
    assert_eq!(
        line(&mut client),
        "{\"accepted\":\"drill\",\"drilldown\":\"on-demand-1\",\"started\":\"1970-01-01T00:00:00Z\",\
         \"notes\":[\"mind \\u001b[2J\"]}\n"
    );
    let flows = record("flows");
    for _ in 0..3 {
        list(&told, &flows.as_ref().clone().into());
        let seen: Record = serde_json::from_str(&line(&mut client)).unwrap();
        assert_eq!(seen, *flows);
    }
    end(&told, Ok(verdict()));
    let last = rest(client);
    assert!(is_verdict(&last), "{last}");
    assert!(is_left(&told), "closed after it");
    assert!(
        server.requests.try_recv().is_err(),
        "nothing else was asked"
    );
}

#[test]
fn what_the_daemon_refuses_is_told_and_what_is_no_wish_does_not_reach_it() {
    let server = server(None);
    let path = server.path.clone();
    let asking = std::thread::spawn(move || answer_to(&path, ASK));
    end(&server.asked().told, Err("there is no counter".to_owned()));
    assert_eq!(
        asking.join().unwrap(),
        "{\"error\":\"there is no counter\"}\n"
    );
    for keys in [
        "",
        ",\"counter\":\"wan_out\",\"host\":\"10.0.0.1\"",
        ",\"counter\":\"Wan\"",
        ",\"host\":\"router\"",
        ",\"counter\":\"wan_out\",\"seconds\":-1",
        ",\"counter\":\"wan_out\",\"seconds\":1e300",
    ] {
        let request = format!("{{\"request\":\"drill\"{keys}}}\n");
        let answer = answer_to(&server.path, request.as_bytes());
        assert!(answer.starts_with("{\"error\":\""), "{keys}: {answer}");
        assert_eq!(answer.matches('\n').count(), 1, "{answer}");
    }
    assert!(server.requests.try_recv().is_err());
}

#[test]
fn a_line_or_the_end_of_what_a_client_sends_asks_for_the_verdict() {
    let server = server(None);
    let by_line = |stream: &mut UnixStream| stream.write_all(b"\n").unwrap();
    let by_silence = |stream: &mut UnixStream| stream.shutdown(Shutdown::Write).unwrap();
    for ask in [by_line as fn(&mut UnixStream), by_silence] {
        let (mut client, told) = server.drilling();
        ask(client.get_mut());
        server.end_is_asked_for();
        assert!(!told.is_closed());
        list(&told, &record("flows"));
        assert!(
            line(&mut client).contains("\"flows\""),
            "it goes on until then"
        );
        end(&told, Ok(verdict()));
        assert!(is_verdict(&rest(client)));
    }
}

#[test]
fn a_client_that_is_gone_asks_for_nothing_and_is_noticed() {
    let server = server(None);
    let (client, told) = server.drilling();
    drop(client);
    assert!(is_left(&told));
    // With something that it never read, which resets the connection.
    let (mut client, told) = server.drilling();
    list(&told, &large());
    assert!(!client.fill_buf().unwrap().is_empty());
    drop(client);
    assert!(is_left(&told));
    assert!(server.requests.try_recv().is_err(), "no verdict is wanted");
}

#[test]
fn a_client_that_does_not_read_loses_lists_and_keeps_the_verdict() {
    let server = server(Some(report(1)));
    let (mut client, told) = server.drilling();
    let lists = 200;
    for _ in 0..lists {
        // What a list says does not matter here, only that it is another one each time.
        list(&told, &large());
        assert!(ask(&server.path, "status").is_ok(), "others are answered");
    }
    client.get_mut().write_all(b"\n").unwrap();
    server.end_is_asked_for();
    end(&told, Ok(verdict()));
    let rest = rest(client);
    let lines: Vec<&str> = rest.lines().collect();
    assert!(is_verdict(lines.last().unwrap()));
    assert!(lines.last().unwrap().len() < 100_000, "the verdict itself");
    assert!(
        (2..lists / 2).contains(&lines.len()),
        "{} lines",
        lines.len()
    );
}

#[test]
fn who_waits_for_a_verdict_is_not_pushed_out_by_a_crowd() {
    let server = server(Some(report(1)));
    let (client, told) = server.drilling();
    let crowd: Vec<UnixStream> = (0..200).map(|_| connect(&server.path)).collect();
    assert!(ask(&server.path, "status").is_ok());
    assert!(!told.is_closed());
    end(&told, Ok(verdict()));
    assert!(is_verdict(&rest(client)));
    drop(crowd);
}

#[test]
fn verdicts_on_their_way_are_given_before_the_server_ends() {
    let server = server(None);
    let (told_in_time, in_time) = {
        let (client, told) = server.drilling();
        (told, client)
    };
    let (never_told, without) = {
        let (client, told) = server.drilling();
        (told, client)
    };
    end(&told_in_time, Ok(verdict()));
    server.stop.send(()).unwrap();
    drop(never_told);
    assert!(is_verdict(&rest(in_time)));
    assert_eq!(rest(without), "{\"error\":\"the daemon is stopping\"}\n");
}
