//! Drilldowns that something comes between, and those that begin late: what is known stays right, what is not is
//! said, and every sum holds.

use std::process::Command;

use flowctl::drilldown::verdict::Verdict;
use flowctl::event::Event;
use flowctl::lab::{Direction, Ends, Family, Generator, Lab, LabOptions, Way, clock};
use flowctl::report::StateWord;

use crate::support::{Bench, Daemon, eventually, lab, run_in};
use crate::truth::{
    POINTS, Truth, assert_log, assert_near, assert_sums, await_raised, await_verdict, beat, beats,
    host,
};
use crate::verdicts::config;

/// Mbit/s.
const M: f64 = 1e6;

fn up(lab: &Lab, family: Family, position: usize) -> Ends<'_> {
    let client = lab.lan[position].end(family, 0);
    Ends::new(client, lab.server(family, position as u8, 443))
}

/// A host that sends far above raise, since the beginning of an interval.
fn crossing(daemon: &Daemon<'_>, truth: &Truth, lab: &Lab) -> Generator {
    beat(daemon);
    truth.udp("culprit", up(lab, Family::V4, 0), 20.0 * M, 1000)
}

fn verdicts(bench: &Bench<'_>) -> Vec<Verdict> {
    let verdict = |record: flowctl::event::Record| match record.event {
        Event::Verdict(verdict) => Some(*verdict),
        _ => None,
    };
    bench.records().into_iter().filter_map(verdict).collect()
}

#[test]
fn flows_older_than_the_daemon_are_named_at_once_by_their_routes() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let truth = Truth::record();
    let culprit = truth.udp("culprit", up(&lab, Family::V4, 0), 15.0 * M, 1000);
    let other = truth.udp("other", up(&lab, Family::V6, 1), 5.0 * M, 1000);
    let film = truth.tcp(
        "film",
        up(&lab, Family::V4, 2),
        4.0 * M,
        Direction::Download,
    );
    let bench = Bench::new(&lab.router, &config("wan_out", "2Mbit/s"));
    let daemon = bench.start();
    let raised = await_raised(&daemon);
    assert_eq!(raised.hosts[0].address, lab.lan[0].v4, "{raised:#?}");
    assert!(raised.flows[0].approximate);
    beats(&daemon, 10);
    culprit.stop();
    other.stop();
    let verdict = await_verdict(&daemon, "watched");
    drop(film);
    let [larger, smaller] = truth.bytes(["culprit", "other"], Way::Up, &verdict);
    let (first, second) = (host(&verdict, lab.lan[0].v4), host(&verdict, lab.lan[1].v6));
    assert!(verdict.found.flows.iter().all(|flow| flow.approximate));
    // What they moved before the first dump is unknown and stated; what is known has the proportion of the truth.
    assert!(verdict.unexplained.unwrap().before_baseline > 0);
    let known = (first.bytes + second.bytes) as f64;
    let sent = (larger + smaller) as f64;
    assert_near(
        "the culprit",
        first.bytes as f64 / known,
        larger as f64 / sent,
    );
    let explained =
        verdict.unexplained.unwrap().before_baseline + verdict.unexplained.unwrap().skew;
    let total =
        (verdict.found.attributed_bytes + explained) as f64 / verdict.counted_bytes.unwrap() as f64;
    assert_near("all that has a name or a cause", total, 1.0);
}

#[test]
fn several_thresholds_on_one_counter_give_a_verdict_each() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let text = config("wan_out", "2Mbit/s")
        + "[thresholds.higher]\ncounter = \"wan_out\"\nraise = \"10Mbit/s\"\nhold = \"200ms\"\nrelease = \"400ms\"\n"
        + "[thresholds.never]\ncounter = \"wan_out\"\nraise = \"45Mbit/s\"\n"
        + "[thresholds.packets]\ncounter = \"wan_out\"\nraise = \"500pps\"\nhold = \"0s\"\nrelease = \"0s\"\n";
    let bench = Bench::new(&lab.router, &text);
    let daemon = bench.start();
    let truth = Truth::record();
    let culprit = crossing(&daemon, &truth, &lab);
    beats(&daemon, 8);
    culprit.stop();
    for threshold in ["watched", "higher", "packets"] {
        let verdict = await_verdict(&daemon, threshold);
        let [sent] = truth.bytes(["culprit"], Way::Up, &verdict);
        assert_eq!(verdict.found.hosts[0].address, lab.lan[0].v4, "{threshold}");
        assert_near(
            threshold,
            verdict.found.hosts[0].bytes as f64 / sent as f64,
            1.0,
        );
        assert!(verdict.drilldown.starts_with(threshold));
    }
    assert_eq!(verdicts(&bench).len(), 3);
}

#[test]
fn without_a_drilldown_the_alert_names_nobody_and_conntrack_is_left_alone() {
    let options = LabOptions {
        masquerade: false,
        ..LabOptions::default()
    };
    let Some(lab) = lab(options) else { return };
    let text = config("wan_out", "2Mbit/s").replace("release", "drilldown = false\nrelease");
    let bench = Bench::new(&lab.router, &text);
    let daemon = bench.start();
    let truth = Truth::record();
    let culprit = crossing(&daemon, &truth, &lab);
    let raised = await_raised(&daemon);
    assert_eq!((raised.drilldown, raised.counted_bytes), (None, None));
    assert!(raised.hosts.is_empty() && raised.flows.is_empty());
    assert!(daemon.status().drilldowns.is_empty());
    let rules = bench.nft(&["list", "table", "inet", "flowctl"]);
    assert!(!rules.contains(" ct "), "{rules}");
    culprit.stop();
    let of = daemon.await_record("cleared", |event| match event {
        Event::Cleared { drilldown, .. } => Some(drilldown),
        _ => None,
    });
    assert_eq!(of, None);
    assert_eq!(verdicts(&bench), []);
}

#[test]
fn a_daemon_told_to_stop_gives_its_verdict_first() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let bench = Bench::new(&lab.router, &config("wan_out", "2Mbit/s"));
    let daemon = bench.start();
    let truth = Truth::record();
    let culprit = crossing(&daemon, &truth, &lab);
    await_raised(&daemon);
    beats(&daemon, 4);
    daemon.stop();
    assert_log(&bench);
    let records = bench.records();
    let [.., verdict, stopped] = &records[..] else {
        panic!("{records:#?}")
    };
    assert!(
        matches!(&stopped.event, Event::Stopped { .. }),
        "{stopped:#?}"
    );
    let Event::Verdict(verdict) = &verdict.event else {
        panic!("{verdict:#?}")
    };
    drop(culprit);
    let [sent] = truth.bytes(["culprit"], Way::Up, verdict);
    assert_eq!(verdict.ended_by.as_deref(), Some("flowctl was stopped"));
    assert_eq!(verdict.found.hosts[0].address, lab.lan[0].v4);
    assert_near(
        "counted",
        verdict.counted_bytes.unwrap() as f64 / sent as f64,
        1.0,
    );
    assert!(verdict.coverage.unwrap() >= 1.0 - POINTS, "{verdict:#?}");
}

#[test]
fn a_drilldown_ends_after_max_duration_and_the_alert_goes_on() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let text = config("wan_out", "2Mbit/s") + "max_duration = \"1500ms\"\n";
    let bench = Bench::new(&lab.router, &text);
    let daemon = bench.start();
    let truth = Truth::record();
    let culprit = crossing(&daemon, &truth, &lab);
    let verdict = await_verdict(&daemon, "watched");
    assert_eq!(verdict.ended_by.as_deref(), Some("max_duration"));
    assert!(verdict.duration_seconds >= 1.5, "{verdict:#?}");
    let report = daemon.status();
    assert_eq!(report.thresholds[0].state, StateWord::Firing);
    assert!(report.drilldowns.is_empty(), "it is over");
    assert_eq!(verdict.found.hosts[0].address, lab.lan[0].v4);
    culprit.stop();
    let of = daemon.await_record("cleared", |event| match event {
        Event::Cleared { drilldown, .. } => drilldown,
        _ => None,
    });
    assert_eq!(of, verdict.drilldown);
    beats(&daemon, 2);
    assert_eq!(verdicts(&bench).len(), 1);
}

/// Waits until the only drilldown has looked that often again.
fn await_dumps(daemon: &Daemon<'_>, count: u64) {
    let dumps = || daemon.status().drilldowns[0].dumps;
    let before = dumps();
    eventually("the next dumps", || {
        (dumps() >= before + count).then_some(())
    });
}

#[test]
fn a_flushed_conntrack_loses_little_and_nothing_becomes_negative() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let bench = Bench::new(&lab.router, &config("wan_out", "2Mbit/s"));
    let daemon = bench.start();
    let truth = Truth::record();
    let culprit = crossing(&daemon, &truth, &lab);
    let small = truth.udp("small", up(&lab, Family::V6, 1), 2.0 * M, 1000);
    await_raised(&daemon);
    let mut flushed = clock::wall();
    for _ in 0..3 {
        await_dumps(&daemon, 2);
        flushed = clock::wall();
        let mut flush = Command::new("conntrack");
        flush.arg("-F");
        assert!(run_in(&lab.router, flush).status.success());
    }
    await_dumps(&daemon, 2);
    culprit.stop();
    small.stop();
    let verdict = await_verdict(&daemon, "watched");
    let [sent, little] = truth.bytes(["culprit", "small"], Way::Up, &verdict);
    let first = &verdict.found.hosts[0];
    assert_eq!(first.address, lab.lan[0].v4);
    // An entry may be made where the one before was and look like it, so flows cannot be counted; their stamps tell.
    let newest = verdict
        .found
        .flows
        .iter()
        .filter_map(|flow| flow.started)
        .max();
    assert!(newest.unwrap() > flushed, "a flush makes new flows");
    assert!(first.bytes <= sent + sent / 50, "nothing is counted twice");
    let known = (verdict.found.attributed_bytes + verdict.unexplained_bytes.unwrap()) as f64;
    assert_near("counted", known / (sent + little) as f64, 1.0);
    // Three times at most what came between a dump and the flush is lost.
    assert!(verdict.coverage.unwrap() > 0.5, "{verdict:#?}");
}

#[test]
fn flows_without_accounting_are_said_to_be_that() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let bench = Bench::new(&lab.router, &config("wan_out", "2Mbit/s"));
    let daemon = bench.start();
    let truth = Truth::record();
    let culprit = crossing(&daemon, &truth, &lab);
    await_raised(&daemon);
    let sysctl = "/proc/sys/net/netfilter/nf_conntrack_acct";
    lab.router
        .run(|| std::fs::write(sysctl, "0"))
        .unwrap()
        .unwrap();
    let unseen = truth.udp("unseen", up(&lab, Family::V4, 1), 10.0 * M, 1000);
    beats(&daemon, 10);
    culprit.stop();
    unseen.stop();
    let verdict = await_verdict(&daemon, "watched");
    let [sent, uncounted] = truth.bytes(["culprit", "unseen"], Way::Up, &verdict);
    assert_sums(&verdict);
    let all = (sent + uncounted) as f64;
    assert_near(
        "the culprit",
        verdict.found.hosts[0].share,
        sent as f64 / all,
    );
    let stated =
        verdict.unexplained.unwrap().no_accounting as f64 / verdict.counted_bytes.unwrap() as f64;
    assert_near("no_accounting", stated, uncounted as f64 / all);
}
