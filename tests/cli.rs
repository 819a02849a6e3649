//! The real binary at the command line: what it prints and how it exits. Needs no privilege.

#![allow(clippy::unwrap_used, reason = "this is a test")]
#![allow(clippy::disallowed_methods, reason = "the program under test is run")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

const REPORT: &str = include_str!("data/report.json");
const RECORDS: &str = include_str!("data/log.jsonl");
/// What a daemon says of a drilldown: that it goes on, two lists, the verdict.
const ANSWER: &str = include_str!("data/drill.jsonl");

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

/// A daemon that is asked once for a drilldown; `answer` has the connection behind the request, which is returned.
struct Drilled {
    socket: PathBuf,
    asked: JoinHandle<String>,
    _directory: tempfile::TempDir,
}

fn drilled(answer: impl FnOnce(&mut UnixStream) + Send + 'static) -> Drilled {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("s");
    let listener = UnixListener::bind(&socket).unwrap();
    let asked = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = String::new();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        reader.read_line(&mut request).unwrap();
        answer(&mut stream);
        request
    });
    Drilled {
        socket,
        asked,
        _directory: directory,
    }
}

impl Drilled {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = flowctl(&["drill"]);
        command.args(arguments).arg("--socket").arg(&self.socket);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }
}

fn lines(range: std::ops::Range<usize>) -> String {
    let lines = ANSWER.split_inclusive('\n');
    lines.skip(range.start).take(range.len()).collect()
}

fn say(stream: &mut UnixStream, text: &str) {
    // Being left by the client is what some of these are about.
    let _ = stream.write_all(text.as_bytes());
}

/// Until the client has ended what it sends.
fn await_end(stream: &mut UnixStream) {
    let _ = stream.read_to_end(&mut Vec::new());
}

fn interrupt(child: &Child) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
}

#[test]
fn a_drilldown_in_a_pipe_is_a_line_for_each_look_and_then_the_verdict() {
    let daemon = drilled(|stream| say(stream, ANSWER));
    let shown = daemon.output(&["wan_out"]);
    let printed = text(&shown.stdout);
    assert_eq!(printed, include_str!("data/drill.txt"), "{printed}");
    assert_eq!(
        text(&shown.stderr),
        "flowctl: note: no rule labels flows by interface, so the routes of this moment say which flows belong, \
         uncertainly\n"
    );
    assert_eq!(shown.status.code(), Some(0));
    assert_eq!(
        daemon.asked.join().unwrap(),
        "{\"counter\":\"wan_out\",\"request\":\"drill\",\"seconds\":30.0}\n"
    );
}

#[test]
fn as_json_a_drilldown_is_its_records_as_they_are() {
    let daemon = drilled(|stream| say(stream, ANSWER));
    let shown = daemon.output(&["--host", "192.168.1.5", "--for", "1.5m", "--json"]);
    assert_eq!(text(&shown.stdout), lines(1..4));
    assert_eq!(shown.status.code(), Some(0));
    assert_eq!(
        daemon.asked.join().unwrap(),
        "{\"host\":\"192.168.1.5\",\"request\":\"drill\",\"seconds\":90.0}\n"
    );
}

#[test]
fn an_interrupt_asks_for_the_verdict_and_a_second_one_leaves_without() {
    let daemon = drilled(|stream| {
        say(stream, &lines(0..2));
        await_end(stream);
        say(stream, &lines(3..4));
    });
    let mut drill = daemon.command(&["wan_out", "--json"]).spawn().unwrap();
    let mut printed = BufReader::new(drill.stdout.take().unwrap()).lines();
    assert_eq!(printed.next().unwrap().unwrap() + "\n", lines(1..2));
    interrupt(&drill);
    assert_eq!(printed.next().unwrap().unwrap() + "\n", lines(3..4));
    assert_eq!(drill.wait().unwrap().code(), Some(0));

    let (heard, hear) = std::sync::mpsc::channel();
    let daemon = drilled(move |stream| {
        say(stream, &lines(0..2));
        await_end(stream);
        heard.send(()).unwrap();
        // Holds the connection until the client leaves it.
        while stream.write_all(lines(1..2).as_bytes()).is_ok() {}
    });
    let mut drill = daemon.command(&["wan_out", "--json"]).spawn().unwrap();
    let mut printed = BufReader::new(drill.stdout.take().unwrap()).lines();
    printed.next().unwrap().unwrap();
    interrupt(&drill);
    hear.recv().unwrap();
    let reading = std::thread::spawn(move || printed.count());
    interrupt(&drill);
    let end = drill.wait_with_output().unwrap();
    assert_eq!(
        (end.status.code(), text(&end.stderr).lines().last()),
        (Some(1), Some("flowctl: left without the verdict"))
    );
    reading.join().unwrap();
    daemon.asked.join().unwrap();
}

#[test]
fn a_drilldown_nobody_reads_ends_quietly_with_nothing_to_print() {
    let (gone, left) = std::sync::mpsc::channel();
    let daemon = drilled(move |stream| {
        say(stream, &lines(0..2));
        await_end(stream);
        gone.send(()).unwrap();
    });
    let mut drill = daemon.command(&["wan_out"]).spawn().unwrap();
    let mut printed = BufReader::new(drill.stdout.take().unwrap()).lines();
    printed.next().unwrap().unwrap();
    drop(printed);
    left.recv().unwrap();
    let end = drill.wait_with_output().unwrap();
    assert_eq!(end.status.code(), Some(0), "{}", text(&end.stderr));
}

#[test]
fn why_there_is_no_drilldown_is_said_and_shows_in_the_exit_status() {
    let said = |output: &Output| {
        let last = text(&output.stderr).lines().last().unwrap().to_owned();
        (output.status.code().unwrap(), last)
    };
    let refusal = "{\"error\":\"there is no counter wan_uot: did you mean wan_out?\"}\n";
    let daemon = drilled(|stream| say(stream, refusal));
    assert_eq!(
        said(&daemon.output(&["wan_uot"])),
        (
            1,
            "flowctl: there is no counter wan_uot: did you mean wan_out?".to_owned()
        )
    );
    let daemon = drilled(|stream| say(stream, &lines(0..3)));
    assert_eq!(
        said(&daemon.output(&["wan_out"])),
        (
            1,
            "flowctl: the daemon went away before the verdict".to_owned()
        )
    );
    let daemon = drilled(|stream| say(stream, "{\"version\":1}\n"));
    let (code, why) = said(&daemon.output(&["wan_out"]));
    assert_eq!(code, 1);
    assert!(why.contains("cannot understand the answer"), "{why}");
    let nobody = output(&["drill", "wan_out", "--socket", "/nonexistent/s"]);
    assert_eq!(
        said(&nobody),
        (
            3,
            "flowctl: no daemon answers on /nonexistent/s: is `flowctl run` running?".to_owned()
        )
    );
}

#[test]
fn on_a_terminal_a_drilldown_is_drawn_in_place_until_it_is_interrupted() {
    let daemon = drilled(|stream| {
        say(stream, &lines(0..3));
        await_end(stream);
        say(stream, &lines(3..4));
    });
    let drill = format!(
        "exec {} drill wan_out --color never --socket {}",
        env!("CARGO_BIN_EXE_flowctl"),
        daemon.socket.display()
    );
    let mut terminal = Command::new("script")
        .args(["-qec", &drill, "/dev/null"])
        .env("TZ", "UTC")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut shown = terminal.stdout.take().unwrap();
    let mut all = String::new();
    let mut piece = [0; 4096];
    // The second list alone has rates.
    while !all.contains("bit/s  nas") {
        let count = shown.read(&mut piece).unwrap();
        assert!(count > 0, "{all}");
        all.push_str(std::str::from_utf8(&piece[..count]).unwrap());
    }
    terminal.stdin.as_mut().unwrap().write_all(b"\x03").unwrap();
    shown.read_to_string(&mut all).unwrap();
    assert_eq!(terminal.wait().unwrap().code(), Some(0));
    let (screen, after) = all.split_once("\x1b[?1049l").unwrap();
    assert!(
        screen.contains("drilldown of wan_out, 3s: 98 % of"),
        "{screen}"
    );
    assert!(screen.contains("the verdict is asked for"), "{screen}");
    assert!(
        after.contains("wan_out 8.8 Mbit/s for 4s: 81 % nas"),
        "{after}"
    );
    assert!(after.contains("\nended by: max_duration\r\n"), "{after}");
    assert!(after.contains("\nservices  81 %"), "{after}");
    assert!(!all.contains("\x1b[31m"), "{all}");
    let request = daemon.asked.join().unwrap();
    assert!(!request.contains("seconds"), "{request}");
}

#[test]
fn help_says_how_a_drilldown_ends() {
    let help = flowctl(&["drill", "--help"])
        .env("COLUMNS", "100")
        .output()
        .unwrap();
    let help = text(&help.stdout);
    assert_eq!(help, include_str!("data/drill_help.txt"), "{help}");
}

#[test]
fn what_a_package_installs_names_every_command() {
    let help = output(&["-h"]).stdout;
    let (_, listed) = text(&help).split_once("Commands:\n").unwrap();
    let (listed, _) = listed.split_once("\n\n").unwrap();
    let commands: Vec<&str> = (listed.lines())
        .map(|line| line.split_whitespace().next().unwrap())
        .filter(|command| *command != "help")
        .collect();
    assert!(commands.contains(&"status"), "{commands:?}");

    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man1");
    let written = output(&["man", pages.to_str().unwrap()]);
    assert_eq!(written.status.code(), Some(0), "{}", text(&written.stderr));
    for shell in ["bash", "zsh", "fish"] {
        let script = output(&["completions", shell]).stdout;
        let script = text(&script);
        for command in &commands {
            assert!(script.contains(command), "{shell}: {command}");
        }
    }
    for command in &commands {
        let page = fs::read_to_string(pages.join(format!("flowctl-{command}.1"))).unwrap();
        assert!(page.contains(".SH SYNOPSIS"), "{page}");
    }
    let main = fs::read_to_string(pages.join("flowctl.1")).unwrap();
    assert!(main.contains("75  another instance"), "{main}");
    assert_eq!(fs::read_dir(&pages).unwrap().count(), commands.len() + 1);

    let taken = folder.path().join("file");
    fs::write(&taken, "").unwrap();
    let refused = output(&["man", taken.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(1));
    let why = text(&refused.stderr);
    assert!(why.contains("cannot write the manual pages to"), "{why}");
}

#[test]
fn a_ruleset_to_load_is_made_of_a_file_and_of_nothing_that_is_found() {
    if Path::new("/etc/flowctl/flowctl.toml").exists() {
        let ci = std::env::var_os("CI").is_some_and(|value| value == "true");
        assert!(!ci, "this must not be skipped in CI");
        eprintln!("SKIPPED: this machine has a configuration of its own");
        return;
    }
    let made = output(&["plan", "--format", "nft"]);
    assert_eq!(made.status.code(), Some(78));
    assert!(made.stdout.is_empty());
    let said = text(&made.stderr);
    assert!(said.contains("/etc/flowctl/flowctl.toml"), "{said}");
}

#[test]
fn a_reload_for_which_there_is_neither_file_nor_daemon_says_one_thing() {
    let file = "/nonexistent/flowctl.toml";
    let arguments = ["reload", "--config", file, "--socket", "/nonexistent/s"];
    let reloaded = output(&arguments);
    assert_eq!(reloaded.status.code(), Some(78));
    let said = text(&reloaded.stderr);
    assert!(said.contains(file), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn a_start_that_waits_for_its_configuration_ends_when_told_to() {
    use std::os::unix::process::ExitStatusExt;
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("flowctl.toml");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).unwrap();
    let mut command = flowctl(&["run", "--config", fifo.to_str().unwrap(), "--state-dir"]);
    let mut child = command.arg(folder.path()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(child.try_wait().unwrap(), None, "nobody writes to it");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(15));
}
