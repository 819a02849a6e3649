//! Hostile moments, all while a drilldown goes on: others flush or zero conntrack, switch off what it needs, the daemon
//! is killed, the disk is full. The verdict still adds up and names in order, no host gets a byte that it did not
//! send, the kernel is left as it was, and the next drilldown is right again.

use std::process::Command;

use flowctl::lab::{Ends, Family, Generator, Lab, LabOptions, sysctl};
use flowctl::report::StateWord;

use crate::disk::Disk;
use crate::scenes_stage::{
    ANY, COVERED, M, assert_exact, config, datagrams, endless, nth_verdict, sent, stopped, udp,
};
use crate::support::{Bench, Daemon, eventually, lab, run_in};
use crate::told::{Verdict, found_bytes, last_verdict, verdicts};
use crate::truth::{await_raised, beats};

const TABLE: &str = "table inet flowctl {";

fn up(lab: &Lab, position: usize, server: u8) -> Ends<'_> {
    let client = lab.lan[position].end(Family::V4, 0);
    Ends::new(client, lab.server(Family::V4, server, 443))
}

/// The ruleset without flowctl's own table.
fn others(bench: &Bench<'_>) -> String {
    let ruleset = bench.nft(&["list", "ruleset"]);
    let tables = ruleset.split_inclusive("\n}\n");
    tables.filter(|table| !table.starts_with(TABLE)).collect()
}

/// Two hosts that send until they are stopped, as a drilldown sees them.
struct Scene {
    more: Generator,
    less: Generator,
}

impl Scene {
    /// Begins, and waits until flows have been found.
    fn begin(lab: &Lab, daemon: &Daemon<'_>) -> Scene {
        let scene = Scene {
            more: udp("more", &up(lab, 0, 0), &endless(10.0 * M, 1000)),
            less: udp("less", &up(lab, 1, 1), &endless(1.0 * M, 1000)),
        };
        await_raised(daemon);
        scene.go_on(daemon);
        scene
    }

    /// Goes on until something more has been found.
    fn go_on(&self, daemon: &Daemon<'_>) {
        beats(daemon, 2);
        eventually("flows are found", || {
            found_bytes(daemon).filter(|bytes| *bytes > 0)
        });
        beats(daemon, 4);
    }

    fn end(self) -> [u64; 2] {
        [stopped(self.more), stopped(self.less)]
    }
}

/// What holds whatever happened: nobody has more than they sent, the order is right, and all of it was counted.
fn assert_honest(lab: &Lab, verdict: &Verdict, sent: [u64; 2]) {
    assert_eq!(
        verdict.excess_bytes, 0,
        "nothing counts twice: {verdict:#?}"
    );
    assert_eq!(
        verdict.named(),
        [lab.lan[0].v4, lab.lan[1].v4],
        "{verdict:#?}"
    );
    for (host, sent) in verdict.hosts.iter().zip(sent) {
        assert!(host.bytes > 0 && host.bytes <= sent, "{sent} by {host:#?}");
    }
}

/// A drilldown of which nothing is left from the one before.
fn assert_right_again(lab: &Lab, daemon: &Daemon<'_>) {
    daemon.await_state(StateWord::Idle);
    let episode = verdicts(daemon.bench, "wan_out").len();
    let [less, more] = [(0, 300), (2, 400)].map(|(position, count)| {
        let ends = up(lab, position, 4 + position as u8);
        udp("again", &ends, &datagrams(8.0 * M, 1000, count))
    });
    let truth = [(lab.lan[0].v4, sent(less)), (lab.lan[2].v4, sent(more))];
    assert_exact(&nth_verdict(daemon, "wan_out", episode), &truth);
}

/// The verdict of a drilldown during which `harm` is done, and what the hosts sent.
fn harmed(harm: impl FnOnce(&Lab)) -> Option<(Verdict, [u64; 2])> {
    let lab = lab(LabOptions::default())?;
    let bench = Bench::new(&lab.router, &config(&[("wan_out", ANY)]));
    let before = others(&bench);
    let daemon = bench.start();
    let scene = Scene::begin(&lab, &daemon);
    harm(&lab);
    scene.go_on(&daemon);
    let sent = scene.end();
    let verdict = nth_verdict(&daemon, "wan_out", 0);
    assert_eq!(verdict.counted_bytes, sent.iter().sum::<u64>());
    assert_honest(&lab, &verdict, sent);
    eventually("nothing is left in the kernel", || {
        (others(&bench) == before).then_some(())
    });
    needed(&lab);
    assert_right_again(&lab, &daemon);
    Some((verdict, sent))
}

/// What a drilldown needs of conntrack.
fn needed(lab: &Lab) {
    let conntrack = LabOptions::default().conntrack.unwrap();
    conntrack.apply(&lab.router).unwrap();
}

fn set(lab: &Lab, key: &str, value: &str) {
    let key = format!("netfilter/nf_conntrack_{key}");
    sysctl::write(&lab.router, &[(&key, value)]).unwrap();
}

/// `conntrack ARGUMENTS` on the router; returns what it said.
pub fn conntrack(lab: &Lab, arguments: &[&str]) -> String {
    let mut command = Command::new("conntrack");
    command.args(arguments);
    let output = run_in(&lab.router, command);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_flush_of_conntrack_makes_nobody_count_twice_and_loses_next_to_nothing() {
    let Some((verdict, _)) = harmed(|lab| drop(conntrack(lab, &["-F"]))) else {
        return;
    };
    assert!(verdict.coverage >= COVERED, "{verdict:#?}");
    verdict.assert_noted("flush");
}

#[test]
fn zeroed_conntrack_counters_make_nobody_count_twice_and_are_said() {
    let Some((verdict, _)) = harmed(|lab| drop(conntrack(lab, &["-L", "-z"]))) else {
        return;
    };
    verdict.assert_noted("zero");
}

#[test]
fn flushed_and_zeroed_again_and_again_it_still_adds_up() {
    let harm = |lab: &Lab| {
        for _ in 0..10 {
            conntrack(lab, &["-L", "-z"]);
            conntrack(lab, &["-F"]);
        }
    };
    let Some((verdict, _)) = harmed(harm) else {
        return;
    };
    verdict.assert_noted("flush");
}

#[test]
fn accounting_switched_off_and_flows_made_anew_still_add_up() {
    let harm = |lab: &Lab| {
        set(lab, "acct", "0");
        conntrack(lab, &["-F"]);
    };
    let Some((verdict, _)) = harmed(harm) else {
        return;
    };
    assert!(verdict.because_of("no_accounting") > 0, "{verdict:#?}");
    verdict.assert_noted("acct");
}

#[test]
fn flows_that_begin_without_a_stamp_still_add_up() {
    let harm = |lab: &Lab| {
        set(lab, "timestamp", "0");
        conntrack(lab, &["-F"]);
    };
    let Some((verdict, _)) = harmed(harm) else {
        return;
    };
    assert!(verdict.coverage >= COVERED, "{verdict:#?}");
}

#[test]
fn flows_that_end_again_and_again_while_they_are_read_count_each_life_once() {
    let harm = |lab: &Lab| {
        for _ in 0..400 {
            conntrack(lab, &["-F"]);
        }
    };
    let Some((verdict, _)) = harmed(harm) else {
        return;
    };
    assert!(verdict.coverage >= COVERED, "{verdict:#?}");
}

#[test]
fn events_of_every_kind_and_none_still_add_up() {
    let harm = |lab: &Lab| {
        for events in ["0", "2", "1"] {
            set(lab, "events", events);
            conntrack(lab, &["-D", "-s", "10.77.1.11"]);
        }
    };
    let Some((verdict, sent)) = harmed(harm) else {
        return;
    };
    assert_eq!(verdict.hosts[1].bytes, sent[1], "the other is complete");
}

#[test]
fn without_accounting_a_new_flow_is_said_to_have_none() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let bench = Bench::new(&lab.router, &config(&[("wan_out", ANY)]));
    let daemon = bench.start();
    let scene = Scene::begin(&lab, &daemon);
    set(&lab, "acct", "0");
    let late = sent(udp(
        "late",
        &up(&lab, 2, 2),
        &datagrams(16.0 * M, 1000, 1000),
    ));
    let accounted = scene.end();
    let verdict = nth_verdict(&daemon, "wan_out", 0);
    assert_honest(&lab, &verdict, accounted);
    let known: u64 = accounted.iter().sum();
    assert_eq!(
        (verdict.attributed_bytes, verdict.unexplained_bytes),
        (known, late)
    );
    assert_eq!(verdict.because_of("no_accounting"), late, "{verdict:#?}");
    verdict.assert_noted("acct");
    needed(&lab);
    assert_right_again(&lab, &daemon);
}

#[test]
fn a_killed_daemon_leaves_its_counters_alone_in_the_kernel() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let bench = Bench::new(&lab.router, &config(&[("wan_out", ANY)]));
    let before = others(&bench);
    let daemon = bench.start();
    let scene = Scene::begin(&lab, &daemon);
    daemon.kill();
    eventually("what belonged to the drilldown goes", || {
        (others(&bench) == before).then_some(())
    });
    let daemon = bench.start();
    scene.go_on(&daemon);
    let sent = scene.end();
    assert_honest(&lab, &nth_verdict(&daemon, "wan_out", 0), sent);
    assert_eq!(
        verdicts(&bench, "wan_out").len(),
        1,
        "the killed one gave none"
    );
    assert_right_again(&lab, &daemon);
    drop(daemon);
    assert!(bench.flowctl(&["remove"]).status.success());
    assert_eq!(bench.nft(&["list", "ruleset"]), before);
}

#[test]
fn a_full_disk_keeps_no_verdict_from_the_status() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let disk = Disk::new(64);
    let bench = Bench::new(&lab.router, &config(&[("wan_out", ANY)])).with_state(disk.path());
    let daemon = bench.start();
    let scene = Scene::begin(&lab, &daemon);
    disk.fill();
    scene.go_on(&daemon);
    let sent = scene.end();
    let verdict = eventually("a verdict", || last_verdict(&daemon));
    let truth = [(lab.lan[0].v4, sent[0]), (lab.lan[1].v4, sent[1])];
    assert_exact(&verdict, &truth);
    disk.free();
    eventually("all is written again", || {
        let health = daemon.status().health;
        health
            .iter()
            .all(|entry| !entry.code.ends_with("_write_failed"))
            .then_some(())
    });
    assert_right_again(&lab, &daemon);
}
