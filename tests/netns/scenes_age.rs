//! Scenes of flows that are older than the crossing: they are named, with what they moved since they could be seen,
//! and what they moved before is said to be unknown. Three minutes or three seconds old is the same to an account.

use std::time::Duration;

use flowctl::lab::{Ends, Family, Generator, Lab, LabOptions, Way};
use flowctl::report::StateWord;
use flowctl::units::BitRate;

use crate::scenes_stage::{COVERED, M, assert_share, config, endless, stopped, udp, verdict};
use crate::support::{Bench, lab, pause};
use crate::told::Verdict;
use crate::truth::{Truth, await_raised, beats};

/// Many ticks.
const AGE: Duration = Duration::from_secs(2);
/// What all flows together stay far below at first, and the flood is far above.
const RAISE: &str = "4Mbit/s";
const TRICKLE: f64 = 0.05 * M;

/// Two flows that trickle: one of the LAN, one of the things.
struct Old {
    truth: Truth,
    of_lan: Generator,
    of_things: Generator,
}

impl Old {
    fn begin(lab: &Lab) -> Old {
        let ends = |client, server| Ends::new(client, lab.server(Family::V4, server, 443));
        let truth = Truth::record();
        let (lan, things) = (lab.lan[0].end(Family::V4, 0), lab.iot[0].end(Family::V4, 0));
        Old {
            of_lan: truth.udp("lan", ends(lan, 0), TRICKLE, 1000),
            of_things: truth.udp("things", ends(things, 1), TRICKLE, 1000),
            truth,
        }
    }

    fn flood(&self) {
        self.of_lan.set_rate(BitRate(20.0 * M));
        self.of_things.set_rate(BitRate(12.0 * M));
    }
}

/// What is missing of an old flow is before its baseline, and nothing else is missing.
fn assert_old(verdict: &Verdict, old: &Generator, sent: u64, approximate: bool) {
    let found = verdict.flow(old.source.port());
    assert!(found.started.unwrap() < verdict.started, "{verdict:#?}");
    assert_eq!(found.approximate, approximate, "{verdict:#?}");
    assert_eq!(found.bytes, verdict.host(found.source).bytes);
    assert!(found.bytes <= sent, "{} of {sent}", found.bytes);
    let before = verdict.because_of("before_baseline");
    assert!(before > 0, "{verdict:#?}");
    let said = verdict.attributed_bytes + before + verdict.because_of("skew");
    assert!(
        said as f64 >= COVERED * verdict.counted_bytes as f64,
        "{verdict:#?}"
    );
}

fn old_flows_that_flood(lab: &Lab, before_the_labels: bool) {
    let bench = Bench::new(
        &lab.router,
        &config(&[("lan_in", RAISE), ("wan_out", RAISE)]),
    );
    let old = before_the_labels.then(|| Old::begin(lab));
    if old.is_some() {
        pause(AGE);
    }
    let daemon = bench.start();
    let old = old.unwrap_or_else(|| Old::begin(lab));
    pause(AGE);
    let calm = daemon.status().thresholds;
    assert!(
        calm.iter()
            .all(|threshold| threshold.state == StateWord::Idle)
    );
    old.flood();
    await_raised(&daemon);
    let ends = Ends::new(
        lab.lan[1].end(Family::V4, 0),
        lab.server(Family::V4, 2, 443),
    );
    let young = udp("young", &ends, &endless(6.0 * M, 1000));
    let source = young.source.port();
    beats(&daemon, 10);
    let young = stopped(young);
    old.of_lan.stop();
    old.of_things.stop();
    for counter in ["lan_in", "wan_out"] {
        let verdict = verdict(&daemon, counter);
        let window = (verdict.started, verdict.ended);
        let [of_lan, of_things] = old.truth.within(["lan", "things"], Way::Up, window);
        let of_things = of_things * u64::from(counter == "wan_out");
        let all = (of_lan + of_things + young) as f64;
        assert_share("counted", verdict.counted_bytes as f64 / all, 1.0);
        let mut hosts = vec![lab.lan[0].v4, lab.lan[1].v4];
        assert_old(&verdict, &old.of_lan, of_lan, before_the_labels);
        if counter == "wan_out" {
            hosts.insert(1, lab.iot[0].v4);
            assert_old(&verdict, &old.of_things, of_things, before_the_labels);
        }
        assert_eq!(verdict.named(), hosts, "{verdict:#?}");
        let flow = verdict.flow(source);
        assert_eq!((flow.bytes, flow.approximate), (young, false));
        assert_share("the young", flow.share, young as f64 / all);
    }
}

#[test]
fn a_flow_that_is_old_at_the_crossing_is_named_and_what_is_missing_is_said() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    old_flows_that_flood(&lab, false);
}

#[test]
fn a_flow_that_is_older_than_the_label_rules_is_named_as_approximate() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    old_flows_that_flood(&lab, true);
}
