//! The first thing a newcomer sees: right beside what its generators sent, narrow enough for any terminal, and gone
//! without a trace however it ends.

use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use flowctl::drilldown::verdict::Verdict;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::{allowed, eventually, pause};
use crate::truth::{assert_near, assert_sums};

/// A demo whose files would be left in a directory of its own.
struct Show {
    directory: tempfile::TempDir,
    child: Child,
}

impl Show {
    fn start(arguments: &[&str]) -> Show {
        let directory = tempfile::tempdir().unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_flowctl"))
            .args(["demo", "--seconds", "6"])
            .args(arguments)
            .env("TMPDIR", directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Show { directory, child }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end; nothing is left. Namespaces have no name: they end with the process.
    fn end(mut self) -> (ExitStatus, String, String) {
        let status = eventually("the demo ends", || self.child.try_wait().unwrap());
        let (mut said, mut complained) = (String::new(), String::new());
        if let Some(mut output) = self.child.stdout.take() {
            output.read_to_string(&mut said).unwrap();
        }
        let mut errors = self.child.stderr.take().unwrap();
        errors.read_to_string(&mut complained).unwrap();
        let left: Vec<_> = std::fs::read_dir(self.directory.path()).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
        (status, said, complained)
    }
}

#[test]
fn its_verdict_is_what_the_generators_sent() {
    if !allowed() {
        return;
    }
    let (status, said, complained) = Show::start(&["--json"]).end();
    assert!(status.success(), "{status}: {complained}{said}");
    let told: Value = serde_json::from_str(&said).unwrap();
    let verdict: Verdict = serde_json::from_value(told["verdict"].clone()).unwrap();
    assert_sums(&verdict);
    assert!(verdict.coverage.unwrap() >= 0.98, "{verdict:#?}");
    let sent = told["generator"]["hosts"].as_array().unwrap();
    assert!(sent.len() >= 5, "among at least five hosts");
    let most = sent
        .iter()
        .max_by_key(|host| host["bytes"].as_u64())
        .unwrap();
    assert_eq!(most["address"], verdict.found.hosts[0].address.to_string());
    let all: u64 = sent
        .iter()
        .map(|host| host["bytes"].as_u64().unwrap())
        .sum();
    let truth = most["bytes"].as_f64().unwrap() / all as f64;
    assert_near("the culprit", verdict.found.hosts[0].share, truth);
    let counted = verdict.counted_bytes.unwrap() as f64;
    assert_near("counted", counted / all as f64, 1.0);
    let states = ["idle", "pending", "firing", "clearing", "idle"];
    assert_eq!(told["states"], Value::from(states.to_vec()));
    assert_eq!(told["right"], Value::Bool(true));
}

#[test]
fn its_lines_fit_any_terminal_and_end_with_the_right_host() {
    if !allowed() {
        return;
    }
    let (status, said, complained) = Show::start(&[]).end();
    assert!(status.success(), "{status}: {complained}{said}");
    let widest = said
        .lines()
        .max_by_key(|line| line.chars().count())
        .unwrap();
    assert!(widest.chars().count() <= 80, "{widest}");
    for word in [
        "idle",
        "pending",
        "raised",
        "firing",
        "cleared",
        "verdict",
        "10.77.1.14",
    ] {
        assert!(said.contains(word), "{word} is not in\n{said}");
    }
    assert!(said.contains("The right host, with the right share."));
}

#[test]
fn a_signal_at_any_stage_ends_it_and_leaves_nothing() {
    if !allowed() {
        return;
    }
    for (signal, after) in [
        (Signal::INT, 20),
        (Signal::TERM, 150),
        (Signal::INT, 400),
        (Signal::HUP, 900),
        (Signal::TERM, 2_500),
    ] {
        let mut show = Show::start(&[]);
        eventually("it listens for signals", || {
            assert!(show.child.try_wait().unwrap().is_none(), "it ended at once");
            std::fs::read_dir(show.directory.path()).unwrap().next()
        })
        .unwrap();
        pause(Duration::from_millis(after));
        show.signal(signal);
        let (status, said, complained) = show.end();
        assert_eq!(
            status.code(),
            Some(1),
            "{signal:?} {after}: {said}{complained}"
        );
        assert!(complained.contains("interrupted"), "{complained}");
    }
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    if !allowed() {
        return;
    }
    let mut show = Show::start(&[]);
    let mut first = [0];
    show.child
        .stdout
        .take()
        .unwrap()
        .read_exact(&mut first)
        .unwrap();
    let (status, _, complained) = show.end();
    assert_eq!((status.code(), complained.as_str()), (Some(0), ""));
}

#[test]
fn it_needs_no_privilege_where_user_namespaces_are_allowed() {
    if !allowed() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let binary = directory.path().join("flowctl");
    std::fs::copy(env!("CARGO_BIN_EXE_flowctl"), &binary).unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(directory.path(), open).unwrap();
    let unprivileged = |program: &std::path::Path, arguments: &[&str]| {
        let nobody = [
            "--reuid",
            "65534",
            "--regid",
            "65534",
            "--clear-groups",
            "--inh-caps=-all",
        ];
        let mut command = Command::new("setpriv");
        command
            .args(nobody)
            .arg(program)
            .args(arguments)
            .env_remove("TMPDIR");
        command.output().unwrap()
    };
    let output = unprivileged(&binary, &["demo", "--seconds", "6", "--json"]);
    let probe = unprivileged("unshare".as_ref(), &["-Urn", "true"]);
    let complained = String::from_utf8_lossy(&output.stderr);
    if probe.status.success() {
        assert!(output.status.success(), "{complained}");
    } else {
        assert_eq!(output.status.code(), Some(77), "{complained}");
        assert!(complained.contains("CAP_SYS_ADMIN"), "{complained}");
    }
}

#[test]
fn where_user_namespaces_are_forbidden_it_says_so_and_what_to_do() {
    if !allowed() {
        return;
    }
    // The limit is that of a user namespace of our own; without capabilities in it nothing else is left.
    let script = "echo 0 > /proc/sys/user/max_user_namespaces && \
                  exec setpriv --bounding-set=-all --inh-caps=-all \"$0\" demo";
    let mut command = Command::new("unshare");
    command.args(["-Ur", "sh", "-c", script, env!("CARGO_BIN_EXE_flowctl")]);
    let output = command.output().unwrap();
    let complained = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(77), "{complained}");
    assert!(complained.contains("sudo flowctl demo"), "{complained}");
    assert!(complained.contains("sysctl user.max_user_namespaces="));
}
