//! Drilldowns on demand, as an operator asks for them: what they name beside what was sent, how they end, and that
//! nothing is left of them however they do.

use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use flowctl::drilldown::verdict::{Findings, Verdict};
use flowctl::event::{Event, Record, TopList};
use flowctl::lab::{Ends, Family, Lab, LabOptions, Way};
use flowctl::report::{Report, StateWord};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::{
    Bench, Daemon, burst, bytes, eventually, lab, namespace, pause, run_in, said,
};
use crate::truth::{Truth, assert_list, assert_near, assert_sums, await_verdict, beat, beats};
use crate::verdicts::config;

/// Mbit/s.
const M: f64 = 1e6;

/// Without a threshold on them, `wan_out` is asked for; a threshold that is never crossed has the labels installed.
fn watchful() -> String {
    config("wan_out", "10Gbit/s")
}

/// Nothing asks for a drilldown.
fn thresholdless() -> String {
    let text = watchful();
    let (before, rest) = text.split_once("[thresholds.watched]").unwrap();
    let (_, after) = rest.split_once("[drilldown]").unwrap();
    format!("{before}[drilldown]{after}")
}

fn up(lab: &Lab, position: usize) -> Ends<'_> {
    let client = lab.lan[position].end(Family::V4, 0);
    Ends::new(client, lab.server(Family::V4, position as u8, 443))
}

/// `flowctl drill ... --json` at work; killed when dropped.
struct Drill {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Drill {
    fn ask(bench: &Bench<'_>, arguments: &[&str]) -> Drill {
        let mut command = bench.command(&["drill", "--json"]);
        command.args(arguments);
        let command = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = bench.namespace.run(|| command.spawn()).unwrap().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Drill { child, lines }
    }

    /// One that goes on.
    fn going(bench: &Bench<'_>, arguments: &[&str]) -> Drill {
        let mut drill = Drill::ask(bench, arguments);
        drill.list();
        drill
    }

    fn record(&mut self) -> Option<Record> {
        let line = self.lines.next()?.unwrap();
        Some(serde_json::from_str(&line).unwrap())
    }

    fn list(&mut self) -> TopList {
        let record = self.record();
        match record.unwrap().event {
            Event::Flows(list) => list,
            other => panic!("{other:?}"),
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// The verdict on a counter; every list before it adds up.
    fn verdict(self) -> Verdict {
        let verdict = self.last(assert_list);
        assert_sums(&verdict);
        verdict
    }

    /// The verdict, which is the last thing said.
    fn last(mut self, each: impl Fn(&TopList)) -> Verdict {
        loop {
            match self.record().unwrap().event {
                Event::Flows(list) => each(&list),
                Event::Verdict(verdict) => {
                    assert!(self.record().is_none());
                    assert_eq!(self.child.wait().unwrap().code(), Some(0));
                    assert_eq!(verdict.threshold, None);
                    return *verdict;
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// It had to end by itself; how it did, and what it said on standard error.
    fn end(mut self) -> (Option<i32>, String) {
        let mut said = String::new();
        let stderr = self.child.stderr.take().unwrap();
        std::io::Read::read_to_string(&mut BufReader::new(stderr), &mut said).unwrap();
        (self.child.wait().unwrap().code(), said)
    }
}

impl Drop for Drill {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn await_none(daemon: &Daemon<'_>) -> Report {
    eventually("no drilldown goes on", || {
        Some(daemon.status()).filter(|report| report.drilldowns.is_empty())
    })
}

/// All but what older flows moved until the first look at them, which takes a moment.
fn assert_explained(verdict: &Verdict) {
    let causes = verdict.unexplained.unwrap();
    let known = verdict.found.attributed_bytes + causes.before_baseline + causes.skew;
    assert_eq!(Some(known), verdict.counted_bytes, "{verdict:#?}");
    assert!(verdict.coverage.unwrap() >= 0.5, "{verdict:#?}");
}

/// What is for who asked stands in no log.
fn assert_unlogged(bench: &Bench<'_>) {
    let text = format!("{:?}", bench.records());
    assert!(!text.contains("on-demand"), "{text}");
}

#[test]
fn a_drilled_counter_has_the_bytes_of_the_status_and_names_who_sent_them() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let bench = Bench::new(&lab.router, &watchful());
    let daemon = bench.start();
    let before = daemon.settle();
    let mut drill = Drill::going(&bench, &["home_from"]);
    let sent = burst(&lab, 3000);
    let after = daemon.settle();
    let going = &after.drilldowns[0];
    assert_eq!(
        (going.threshold.as_ref(), after.drilldowns.len()),
        (None, 1)
    );
    assert_eq!(going.id, drill.list().drilldown);
    drill.signal(Signal::INT);
    let verdict = drill.verdict();
    assert_eq!(bytes(&after) - bytes(&before), sent);
    assert_eq!(verdict.counted_bytes, Some(sent));
    assert_eq!(
        (verdict.coverage, verdict.found.excess_bytes),
        (Some(1.0), 0)
    );
    let hosts = &verdict.found.hosts;
    assert_eq!((hosts[0].address, hosts[0].bytes), (lab.lan[0].v4, sent));
    assert_eq!(hosts.len(), 1);
    assert_eq!(verdict.ended_by.as_deref(), Some("asked to"));
    assert!(!verdict.found.flows[0].approximate);
    let report = await_none(&daemon);
    assert_eq!(report.last_verdict, None);
    assert_unlogged(&bench);
}

#[test]
fn traffic_that_goes_on_is_explained_from_the_first_moment_and_shared_as_it_was_sent() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let bench = Bench::new(&lab.router, &watchful());
    let daemon = bench.start();
    let truth = Truth::record();
    let more = truth.udp("more", up(&lab, 1), 12.0 * M, 1000);
    let less = truth.udp("less", up(&lab, 0), 6.0 * M, 1000);
    beats(&daemon, 3);
    let verdict = Drill::ask(&bench, &["wan_out", "--for", "2500ms"]).verdict();
    more.stop();
    less.stop();
    let shares = truth.shares(["more", "less"], Way::Up, &verdict);
    let hosts = &verdict.found.hosts;
    for (host, (share, end)) in hosts.iter().zip(shares.into_iter().zip([1, 0])) {
        assert_eq!(host.address, lab.lan[end].v4);
        // Shares are of all that was counted; what is known has the proportion of the truth.
        let known = verdict.found.attributed_bytes + verdict.found.excess_bytes;
        assert_near("a host", host.bytes as f64 / known as f64, share);
    }
    assert_explained(&verdict);
    assert_eq!(verdict.ended_by, None, "its time was up");
    assert!(
        (2.5..2.7).contains(&verdict.duration_seconds),
        "{verdict:#?}"
    );
    let sent = truth.bytes(["more", "less"], Way::Up, &verdict);
    let rate = sent.iter().sum::<u64>() as f64 * 8.0 / verdict.duration_seconds;
    let peak = verdict.peak_bits_per_second.unwrap();
    assert!((rate * 0.9..rate * 2.0).contains(&peak), "{peak} of {rate}");
}

#[test]
fn two_askers_and_a_threshold_have_an_account_each() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let bench = Bench::new(&lab.router, &config("wan_out", "4Mbit/s"));
    let daemon = bench.start();
    beat(&daemon);
    let long = Drill::going(&bench, &["wan_out"]);
    let truth = Truth::record();
    let culprit = truth.udp("culprit", up(&lab, 0), 20.0 * M, 1000);
    daemon.await_state(StateWord::Firing);
    let short = Drill::ask(&bench, &["lan_in", "--for", "2s"]);
    eventually("all three at once", || {
        (daemon.status().drilldowns.len() == 3).then_some(())
    });
    let short = short.verdict();
    culprit.stop();
    let watched = await_verdict(&daemon, "watched");
    long.signal(Signal::INT);
    let long = long.verdict();
    for verdict in [&short, &watched, &long] {
        assert_eq!(verdict.found.hosts[0].address, lab.lan[0].v4);
        let [sent] = truth.bytes(["culprit"], Way::Up, verdict);
        let counted = verdict.counted_bytes.unwrap() as f64 / sent as f64;
        assert!((0.95..1.05).contains(&counted), "{counted}: {verdict:#?}");
    }
    assert_eq!(long.coverage, Some(1.0), "it saw the flow born");
    assert!(short.counted_bytes < watched.counted_bytes);
    assert_eq!(
        await_none(&daemon).last_verdict.unwrap().drilldown,
        watched.drilldown
    );
    assert_unlogged(&bench);
}

#[test]
fn of_an_asker_that_is_killed_nothing_is_left() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let bench = Bench::new(&lab.router, &watchful());
    let daemon = bench.start();
    let drill = Drill::going(&bench, &["wan_out"]);
    eventually("it goes on", || {
        (daemon.status().drilldowns.len() == 1).then_some(())
    });
    drill.signal(Signal::KILL);
    await_none(&daemon);
    drop(drill);
    assert_unlogged(&bench);
    let open = || {
        std::fs::read_dir(format!("/proc/{}/fd", daemon.pid()))
            .unwrap()
            .count()
    };
    let before = open();
    for _ in 0..20 {
        drop(Drill::going(&bench, &["wan_out"]));
    }
    await_none(&daemon);
    eventually("its connections are closed", || {
        (open() <= before).then_some(())
    });
    daemon.stop();
}

#[test]
fn there_is_room_for_so_many_and_again_when_one_has_gone() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let bench = Bench::new(&lab.router, &watchful());
    let daemon = bench.start();
    let mut going: Vec<Drill> = (0..8).map(|_| Drill::going(&bench, &["wan_in"])).collect();
    let (code, said) = Drill::ask(&bench, &["wan_in"]).end();
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.starts_with("flowctl: 8 drilldowns on demand go on already"),
        "{said}"
    );
    drop(going.pop());
    going.push(Drill::going(&bench, &["wan_in"]));
    assert_eq!(
        eventually("all of them are shown", || {
            let count = daemon.status().drilldowns.len();
            (count == 8).then_some(count)
        }),
        8
    );
}

#[test]
fn a_daemon_that_stops_answers_first_and_one_that_is_killed_is_told_apart() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let bench = Bench::new(&lab.router, &watchful());
    let daemon = bench.start();
    let drill = Drill::going(&bench, &["home_from"]);
    let sent = burst(&lab, 500);
    daemon.settle();
    daemon.stop();
    let verdict = drill.verdict();
    assert_eq!(verdict.ended_by.as_deref(), Some("flowctl was stopped"));
    assert_eq!(verdict.counted_bytes, Some(sent));
    assert_unlogged(&bench);

    let daemon = bench.start();
    let drill = Drill::going(&bench, &["home_from"]);
    daemon.kill();
    let (code, said) = drill.end();
    assert_eq!(
        (code, said.as_str()),
        (
            Some(1),
            "flowctl: the daemon went away before the verdict\n"
        )
    );
    let (code, said) = Drill::ask(&bench, &["home_from"]).end();
    assert_eq!(code, Some(3));
    assert!(said.contains("is `flowctl run` running?"), "{said}");
}

#[test]
fn it_does_not_wait_for_a_tick_and_keeps_to_max_duration() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let text = watchful()
        .replace("tick = \"200ms\"", "tick = \"1h\"")
        .replace(
            "interval = \"200ms\"",
            "interval = \"2s\"\nmax_duration = \"2500ms\"",
        );
    let bench = Bench::new(&lab.router, &text);
    let daemon = bench.start();
    let truth = Truth::record();
    let sender = truth.udp("sender", up(&lab, 0), 10.0 * M, 1000);
    let verdict = Drill::ask(&bench, &["wan_out", "--for", "1500ms"]).verdict();
    // No tick and no dump falls into that time.
    assert!(
        (1.5..1.7).contains(&verdict.duration_seconds),
        "{verdict:#?}"
    );
    let [sent] = truth.bytes(["sender"], Way::Up, &verdict);
    let counted = verdict.counted_bytes.unwrap() as f64 / sent as f64;
    assert!((0.9..1.1).contains(&counted), "{counted} of what was sent");
    assert_explained(&verdict);
    let verdict = Drill::ask(&bench, &["wan_out", "--for", "1h"]).verdict();
    assert_eq!(verdict.ended_by.as_deref(), Some("max_duration"));
    assert!(
        (2.5..2.7).contains(&verdict.duration_seconds),
        "{verdict:#?}"
    );
    sender.stop();
    assert_eq!(
        daemon.status().tick.sequence,
        0,
        "no reading was made for it"
    );
}

#[test]
fn an_asker_that_does_not_read_delays_nothing_and_has_its_verdict_when_it_does() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let bench = Bench::new(&lab.router, &watchful());
    let daemon = bench.start();
    let before = daemon.settle();
    let drill = Drill::going(&bench, &["home_from", "--for", "1s"]);
    drill.signal(Signal::STOP);
    let sent = burst(&lab, 500);
    // Its time is up meanwhile.
    pause(Duration::from_secs(2));
    let ticks = await_none(&daemon).tick.sequence - before.tick.sequence;
    assert!(ticks >= 5, "{ticks} ticks of 200 ms in 2 s");
    drill.signal(Signal::CONT);
    let verdict = drill.verdict();
    assert_eq!(verdict.counted_bytes, Some(sent));
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let bench = Bench::new(&lab.router, &watchful());
    let daemon = bench.start();
    let drill = format!(
        "{} drill wan_out --socket {} | head -n 1",
        env!("CARGO_BIN_EXE_flowctl"),
        bench.socket().display()
    );
    let mut shell = Command::new("sh");
    shell.args(["-c", &drill]);
    let output = run_in(bench.namespace, shell);
    let printed = said(&output);
    assert_eq!(printed.lines().count(), 1, "{printed}");
    assert!(printed.contains("  flows    wan_out, "), "{printed}");
    await_none(&daemon);
}

#[test]
fn where_no_threshold_has_labels_set_it_says_so_and_routes_decide() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let bench = Bench::new(&lab.router, &thresholdless());
    let _daemon = bench.start();
    let truth = Truth::record();
    let sender = truth.udp("sender", up(&lab, 0), 10.0 * M, 1000);
    let output = bench.flowctl(&["drill", "wan_out", "--for", "1s"]);
    sender.stop();
    let printed = said(&output);
    let note = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        note.starts_with("flowctl: note: no rule labels flows"),
        "{printed}"
    );
    assert_eq!(note.lines().count(), 1, "{printed}");
    assert!(
        printed.contains("% 10.77.1.11 to 198.51.100.10:443"),
        "{printed}"
    );
    assert!(printed.contains("(uncertain)"), "{printed}");
    let verdict = Drill::ask(&bench, &["home_from", "--for", "300ms"]).verdict();
    assert!(
        verdict.found.notes.is_empty(),
        "addresses are enough: {verdict:#?}"
    );
}

#[test]
fn where_conntrack_is_off_it_says_so_and_leaves_it_off() {
    let options = LabOptions {
        masquerade: false,
        ..LabOptions::default()
    };
    let Some(lab) = lab(options) else { return };
    let bench = Bench::new(&lab.router, &thresholdless());
    let daemon = bench.start();
    let mut drill = Drill::ask(&bench, &["home_from"]);
    let note = drill.list().found.notes;
    assert_eq!(note.len(), 1, "{note:?}");
    assert!(note[0].contains("conntrack knows no flow here"), "{note:?}");
    let sent = burst(&lab, 100);
    daemon.settle();
    drill.signal(Signal::INT);
    let verdict = drill.verdict();
    assert_eq!(verdict.counted_bytes, Some(sent));
    assert_eq!(
        (verdict.unexplained_bytes, verdict.coverage),
        (Some(sent), Some(0.0))
    );
    assert!(verdict.found.hosts.is_empty());
    assert_eq!(verdict.found.notes, note);
    let rules = bench.nft(&["list", "table", "inet", "flowctl"]);
    assert!(!rules.contains(" ct "), "{rules}");
}

#[test]
fn a_name_that_no_counter_has_is_answered_with_the_nearest() {
    let Some(namespace) = namespace() else {
        return;
    };
    let bench = Bench::new(&namespace, "[interfaces.wan]\ndevice = \"wan0\"\n");
    let _daemon = bench.start();
    let output = bench.flowctl(&["drill", "wan_ou"]);
    assert_eq!(
        (output.status.code(), said(&output).as_str()),
        (
            Some(1),
            "flowctl: there is no counter wan_ou: did you mean wan_out?\n"
        )
    );
}

/// Every view of what a host moved sums to the whole, of which nothing counted.
fn assert_of_host(found: &Findings) {
    let all = found.attributed_bytes;
    assert_eq!(found.excess_bytes, 0);
    let hosts: u64 = found.hosts.iter().map(|host| host.bytes).sum();
    let outside: u64 = found.outside.iter().map(|end| end.bytes).sum();
    let services: u64 = found.services.iter().map(|service| service.bytes).sum();
    let flows: u64 = found.flows.iter().map(|flow| flow.bytes).sum();
    for (view, remainder) in [
        (hosts, found.hosts_remainder_bytes),
        (outside, found.outside_remainder_bytes),
        (services, found.services_remainder_bytes),
        (flows, found.flows_remainder_bytes),
    ] {
        assert_eq!(view + remainder, all, "{found:#?}");
    }
}

#[test]
fn a_host_is_asked_for_by_its_address_and_what_it_moved_is_known_to_the_byte() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let bench = Bench::new(&lab.router, &watchful());
    let daemon = bench.start();
    let truth = Truth::record();
    let other = truth.udp("other", up(&lab, 1), 2.0 * M, 1000);
    let asked = lab.lan[0].v4.to_string();
    let drill = Drill::going(&bench, &["--host", &asked]);
    let sent = burst(&lab, 1000);
    let report = daemon.settle();
    let going = &report.drilldowns[0];
    assert_eq!(
        (going.host, going.counter.as_ref()),
        (Some(lab.lan[0].v4), None)
    );
    assert_eq!((going.counted_bytes, going.coverage), (None, None));
    drill.signal(Signal::INT);
    let verdict = drill.last(|list| {
        assert_eq!((list.host, list.counted_bytes), (Some(lab.lan[0].v4), None));
        assert_of_host(&list.found);
    });
    other.stop();
    assert_eq!((verdict.host, verdict.counter), (Some(lab.lan[0].v4), None));
    assert_eq!((verdict.counted_bytes, verdict.coverage), (None, None));
    assert_eq!(
        (verdict.peak_bits_per_second, verdict.unexplained),
        (None, None)
    );
    assert_of_host(&verdict.found);
    assert_eq!(
        verdict.found.attributed_bytes, sent,
        "and nothing of the other"
    );
    assert_eq!(verdict.found.hosts[0].address, lab.lan[0].v4);
    let server = lab.server(Family::V4, 0, 9);
    assert_eq!(verdict.found.outside[0].address, server.address.ip());
    assert_eq!(verdict.found.services[0].port, Some(9));
    assert_eq!(verdict.found.flows[0].bytes, sent);
}
