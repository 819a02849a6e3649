//! Accounts are exact: random small plans of traffic, all of it inside one account and seen by both counter and
//! conntrack, and for every counter the bytes of each flow and of each host are those that were sent. Which counter
//! has which packet is worked out here from where it comes from and goes to. `FLOWCTL_SEED` repeats a run.

use std::collections::BTreeMap;

use fastrand::Rng;
use flowctl::lab::{Family, Lab, LabOptions, sysctl};
use flowctl::report::StateWord;

use crate::exact::{SYN_EXTRA, retransmitted, tcp_headers};
use crate::exact_plan::{
    Load, Moved, NUMBERS, OVERTURE, Place, Planned, Played, overture, play, random_families,
    random_plan,
};
use crate::scenes_stage::{ANY, assert_complete, config, nth_verdict};
use crate::support::{Bench, Daemon, eventually, lab};
use crate::told::{Flow, Verdict, verdicts};

const CASES: u16 = 3;
const COUNTERS: [&str; 11] = [
    "wan_in",
    "wan_out",
    "lan_in",
    "lan_out",
    "iot_in",
    "iot_out",
    "home_from",
    "home_to",
    "things_to_internet",
    "things_to_home",
    "from_servers",
];

/// Whether that counter has packets from there to there.
fn counts(counter: &str, from: Place, to: Place) -> bool {
    match counter {
        "home_from" => from.interface() == "lan",
        "home_to" => to.interface() == "lan",
        "things_to_internet" => (from.interface(), to.interface()) == ("iot", "wan"),
        "from_servers" => from.interface() == "wan",
        "things_to_home" => (from.interface(), to.interface()) == ("iot", "lan"),
        interface => match interface.split_once('_').unwrap() {
            (name, "in") => from.interface() == name,
            (name, _) => to.interface() == name,
        },
    }
}

/// Whose bytes those are.
fn host(counter: &str, from: Place, to: Place) -> Place {
    let by_sender = !counter.ends_with("_out") && counter != "home_to";
    match (from.is_inside(), to.is_inside()) {
        (true, true) if by_sender => from,
        (true, true) | (false, true) => to,
        (true, false) => from,
        (false, false) => Place::Router,
    }
}

fn found<'a>(verdict: &'a Verdict, lab: &Lab, planned: &Planned) -> Option<&'a Flow> {
    let ends = [planned.opener, planned.peer].map(|place| planned.address(lab, place));
    verdict.flows.iter().find(|flow| {
        let told = match planned.load {
            Load::Ping(echo) => flow.icmp_id == Some(echo.id),
            Load::Udp(_) | Load::Tcp(..) => flow.source_port == Some(planned.source_port()),
        };
        told && [flow.source, flow.destination] == ends
    })
}

/// The bytes of a flow are what was sent; of a connection, that and a header a segment, where none was sent twice.
fn assert_flow(flow: &Flow, moved: Moved, family: Family, sent_again: bool) {
    match moved {
        Moved::Bytes(bytes) => assert_eq!(flow.bytes, bytes, "{flow:#?}"),
        Moved::Payload(payload) => {
            let headers = flow.packets * tcp_headers(family) + SYN_EXTRA;
            let found = flow.bytes - headers;
            assert!(
                found == payload || sent_again && found > payload,
                "{payload}: {flow:#?}"
            );
        }
    }
}

/// A counter's flows and hosts are those of the plan; whether it has any.
fn assert_counter(lab: &Lab, verdict: &Verdict, played: &[Played], sent_again: bool) {
    assert_complete(verdict);
    let counter = verdict.counter.as_str();
    let (mut hosts, mut flows) = (BTreeMap::new(), 0);
    for Played { planned, moved } in played {
        let ways = [
            (planned.opener, planned.peer, moved[0]),
            (planned.peer, planned.opener, moved[1]),
        ];
        for (from, to, moved) in ways {
            if !counts(counter, from, to) || matches!(moved, Moved::Bytes(0)) {
                continue;
            }
            let flow = found(verdict, lab, planned)
                .unwrap_or_else(|| panic!("{planned:?} is not in {verdict:#?}"));
            assert_flow(flow, moved, planned.family, sent_again);
            assert!(!flow.approximate);
            flows += 1;
            let address = planned.address(lab, host(counter, from, to));
            *hosts.entry(address).or_insert(0) += flow.bytes;
        }
    }
    assert_eq!(verdict.flows_total, flows, "{verdict:#?}");
    let named = verdict.hosts.iter().map(|host| (host.address, host.bytes));
    assert_eq!(named.collect::<BTreeMap<_, _>>(), hosts, "{verdict:#?}");
}

fn has_any(counter: &str, played: &[Played]) -> bool {
    played.iter().any(|Played { planned, moved }| {
        let (opener, peer) = (planned.opener, planned.peer);
        let nothing = |moved: Moved| matches!(moved, Moved::Bytes(0));
        counts(counter, opener, peer) && !nothing(moved[0])
            || counts(counter, peer, opener) && !nothing(moved[1])
    })
}

fn run_case(lab: &Lab, daemon: &Daemon<'_>, case: u16, random: &mut Rng) {
    let number = case * NUMBERS;
    let families = random_families(random, lab);
    let before = COUNTERS.map(|counter| verdicts(daemon.bench, counter).len());
    let spaces = || lab.lan.iter().chain(&lab.iot).map(|host| &host.namespace);
    let again = || -> u64 {
        let all = spaces().chain([&lab.internet, &lab.router]);
        all.map(retransmitted).sum()
    };
    let sent_before = again();
    let mut played = play(lab, &overture(lab, &families, number));
    eventually("the accounts have begun", || {
        let thresholds = daemon.status().thresholds;
        let begun = |counter: &str| {
            let mut thresholds = thresholds.iter();
            thresholds.any(|threshold| {
                threshold.counter.as_str() == counter && threshold.state != StateWord::Idle
            })
        };
        let mut counters = COUNTERS.into_iter();
        counters
            .all(|counter| begun(counter) || !has_any(counter, &played))
            .then_some(())
    });
    let plan = random_plan(random, lab, &families, number + OVERTURE);
    played.extend(play(lab, &plan));
    played.iter().for_each(|played| eprintln!("{played:?}"));
    let sent_again = again() != sent_before;
    for (counter, episode) in COUNTERS.into_iter().zip(before) {
        if has_any(counter, &played) {
            let verdict = nth_verdict(daemon, counter, episode);
            assert_counter(lab, &verdict, &played, sent_again);
        }
    }
    eventually("all are idle", || {
        let report = daemon.status();
        let mut thresholds = report.thresholds.iter();
        thresholds
            .all(|threshold| threshold.state == StateWord::Idle)
            .then_some(())
    });
    for (counter, episode) in COUNTERS.into_iter().zip(before) {
        let more = usize::from(has_any(counter, &played));
        assert_eq!(
            verdicts(daemon.bench, counter).len(),
            episode + more,
            "{counter}"
        );
    }
}

#[test]
fn random_traffic_inside_an_account_is_explained_to_the_byte() {
    let options = LabOptions {
        lan_hosts: 4,
        iot_hosts: 2,
        merge: false,
        ..LabOptions::default()
    };
    let Some(lab) = lab(options) else { return };
    let hosts = lab.lan.iter().chain(&lab.iot).map(|host| &host.namespace);
    for end in hosts.chain([&lab.internet, &lab.router]) {
        // Else an acknowledgement is longer wherever a busy machine lets one segment overtake another.
        sysctl::write(end, &[("ipv4/tcp_sack", "0")]).unwrap();
    }
    let text = config(&COUNTERS.map(|counter| (counter, ANY)));
    let text = text.replace("interval = \"200ms\"", "interval = \"200ms\"\ntop = 50");
    let bench = Bench::new(&lab.router, &text.replace("\"2s\"", "\"3s\""));
    let daemon = bench.start();
    let seed = std::env::var("FLOWCTL_SEED").map_or(1, |seed| seed.parse().unwrap());
    for case in 0..CASES {
        let seed = seed + u64::from(case);
        eprintln!("FLOWCTL_SEED={seed}");
        run_case(&lab, &daemon, case, &mut Rng::with_seed(seed));
    }
}
