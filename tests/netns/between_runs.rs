//! What happens while no daemon runs: resets, other names, breaks, and removals that cannot save.

use std::time::Duration;

use flowctl::event::Event;
use flowctl::lab::LabOptions;

use rustix::process::Signal;

use crate::disk::Disk;
use crate::support::{
    Bench, Daemon, WAN_AND_HOME, burst, eventually, gaps, lab, namespace, pause, said,
};

fn total(daemon: &Daemon<'_>) -> u64 {
    daemon.counter("home_from").bytes
}

#[test]
fn a_reset_while_no_daemon_ran_is_told_at_the_next_start() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let bench = Bench::new(&lab.router, WAN_AND_HOME);
    let daemon = bench.start();
    let sent = burst(&lab, 50);
    daemon.settle();
    daemon.stop();
    bench.nft(&["reset", "counters"]);
    let daemon = bench.start();
    assert_eq!(total(&daemon), sent);
    let reset = |event: &Event| matches!(event, Event::Reset { counter: Some(name), .. } if name.as_str() == "home_from");
    let records = bench.records();
    let named = records.iter().filter(|record| reset(&record.event)).count();
    assert_eq!(named, 1);
    daemon.stop();
}

#[test]
fn damage_while_no_daemon_ran_is_a_gap_whatever_was_damaged() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    for protect in ["auto", "off"] {
        let config = format!("table.protect = \"{protect}\"{WAN_AND_HOME}");
        let bench = Bench::new(&lab.router, &config);
        let (mut sent, mut stated) = (0, 0);
        for (number, damage) in [
            "flush chain inet flowctl ingress",
            "flush table inet flowctl",
            "delete element inet flowctl from4_0 { 10.77.1.0/24 : \"home_from\" }",
            "flush map inet flowctl from4_0",
            "add rule inet flowctl ingress accept",
        ]
        .iter()
        .enumerate()
        {
            let daemon = bench.start();
            sent += burst(&lab, 20);
            daemon.settle();
            daemon.kill();
            bench.nft(&[damage]);
            sent += burst(&lab, 20);
            let daemon = bench.start();
            let gaps = gaps(&bench);
            assert_eq!(gaps.len(), number + 1, "{damage}: {gaps:?}");
            assert!(gaps[number].cause.contains("was changed"), "{gaps:?}");
            stated += gaps[number].bound_bytes.unwrap();
            let missed = sent - total(&daemon);
            assert!(missed <= stated, "{missed} missed, {stated} stated");
            daemon.stop();
        }
        assert!(bench.flowctl(&["remove"]).status.success());
    }
}

#[test]
fn another_name_for_the_table_costs_nothing_and_leaves_no_gap() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let bench = Bench::new(&lab.router, WAN_AND_HOME);
    let daemon = bench.start();
    let mut sent = burst(&lab, 50);
    daemon.stop();
    sent += burst(&lab, 50);
    bench.configure(&format!("table.name = \"other\"{WAN_AND_HOME}"));
    let daemon = bench.start();
    assert_eq!(total(&daemon), sent);
    let tables = bench.nft(&["list", "tables"]);
    assert!(tables.contains("table inet other"), "{tables}");
    assert!(!tables.contains("table inet flowctl"), "{tables}");
    sent += burst(&lab, 50);
    daemon.settle();
    assert_eq!(total(&daemon), sent);
    assert_eq!(gaps(&bench), []);
    daemon.stop();
}

#[test]
fn a_gap_begins_at_the_last_good_reading() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let plain = format!("table.protect = \"off\"{WAN_AND_HOME}");
    let bench = Bench::new(&lab.router, &plain);
    let daemon = bench.start();
    daemon.settle();
    let before = daemon.status().time;
    // In one transaction: somebody else's table of our name. Nothing can be repaired as long as that is there.
    bench.nft(&["delete table inet flowctl; add table inet flowctl"]);
    eventually("the repair fails", || {
        let report = daemon.status();
        let failing = report
            .health
            .iter()
            .any(|entry| entry.code == "repair_failed");
        failing.then_some(())
    });
    pause(Duration::from_millis(500));
    bench.nft(&["delete", "table", "inet", "flowctl"]);
    let (from, to) = daemon.await_record("a gap", |event| match event {
        Event::Gap { from, to, .. } => Some((from, to)),
        _ => None,
    });
    // A gap before the other table came may have been stated already; this one reaches over the other table's life.
    assert!(
        to.duration_since(from).as_secs_f64() >= 0.5,
        "{from} to {to}"
    );
    let early = from.duration_since(before).as_secs_f64();
    assert!(early < 0.5, "begins {early} s after the last report");
    daemon.stop();
}

#[test]
fn a_removal_takes_the_table_away_though_totals_cannot_be_saved() {
    let Some(namespace) = namespace() else {
        return;
    };
    let disk = Disk::new(64);
    let bench = Bench::new(&namespace, WAN_AND_HOME).with_state(disk.path());
    bench.start().stop();
    disk.fill();
    let removed = bench.flowctl(&["remove"]);
    let text = said(&removed) + &String::from_utf8_lossy(&removed.stdout);
    assert_eq!(removed.status.code(), Some(0), "{text}");
    assert!(text.contains("is lost"), "{text}");
    assert_eq!(bench.nft(&["list", "ruleset"]), "");
    disk.free();
    bench.start().stop();
    disk.remount("ro");
    let removed = bench.flowctl(&["remove"]);
    let text = said(&removed) + &String::from_utf8_lossy(&removed.stdout);
    assert_eq!(removed.status.code(), Some(0), "{text}");
    assert!(text.contains("state directory"), "{text}");
    assert_eq!(bench.nft(&["list", "ruleset"]), "");
}

#[test]
fn removal_of_a_daemon_that_stands_still_says_that_it_must_be_run_again() {
    let Some(namespace) = namespace() else { return };
    let bench = Bench::new(&namespace, WAN_AND_HOME);
    let daemon = bench.start();
    daemon.signal(Signal::STOP);
    let removed = bench.flowctl(&["remove"]);
    let text = said(&removed);
    assert_eq!(removed.status.code(), Some(1), "{text}");
    assert!(text.contains("it may still stop"), "{text}");
    daemon.signal(Signal::CONT);
    eventually("it ends when it goes on", || {
        (bench.flowctl(&["status"]).status.code() == Some(3)).then_some(())
    });
    assert_ne!(bench.nft(&["list", "ruleset"]), "");
    assert!(bench.flowctl(&["remove"]).status.success());
    assert_eq!(bench.nft(&["list", "ruleset"]), "");
}
