//! Scenes of flows so short that no dump shows them: conntrack has forgotten them before the next one. What remains
//! are the events of their birth and of their end, and the verdict is as exact as with dumps.

use std::time::Duration;

use flowctl::lab::{Direction, Endpoint, Ends, Family, Generator, Lab, LabOptions, sysctl};

use crate::scenes_hostile::conntrack;
use crate::scenes_stage::{
    ANY, M, assert_complete, assert_exact, await_awake, config, datagrams, endless, payload, sent,
    stopped, udp, verdict,
};
use crate::scenes_traffic::{Echo, Sink, ping, port, rounds, spray};
use crate::support::{Bench, eventually, lab};
use crate::told::{Raised, told};
use crate::truth::beats;

fn up(lab: &Lab, position: usize, server: u8) -> Ends<'_> {
    let client = lab.lan[position].end(Family::V4, 0);
    Ends::new(client, lab.server(Family::V4, server, 443))
}

/// Nothing but the first dump and the last.
fn without_dumps(counters: &[&str]) -> String {
    let thresholds: Vec<_> = counters.iter().map(|counter| (*counter, ANY)).collect();
    config(&thresholds).replace("interval = \"200ms\"", "interval = \"60s\"")
}

/// Has conntrack forget what a host has opened.
fn forget(lab: &Lab, position: usize) {
    conntrack(lab, &["-D", "-s", &lab.lan[position].v4.to_string()]);
}

#[test]
fn a_spray_of_flows_shorter_than_the_dump_interval_is_one_host_to_the_byte() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let bench = Bench::new(&lab.router, &without_dumps(&["wan_out"]));
    let daemon = bench.start();
    // The kernel's shortest: most are gone before the spray ends.
    sysctl::write(&lab.router, &[("netfilter/nf_conntrack_udp_timeout", "1")]).unwrap();
    let mut sink = Sink::open(lab.server(Family::V4, 1, 53));
    let other = udp("other", &up(&lab, 1, 2), &datagrams(0.4 * M, 600, 300));
    let sprayed = spray(
        &lab.lan[0],
        10_000..14_000,
        &mut sink,
        100,
        Duration::from_secs(4),
    );
    let other = sent(other);
    let verdict = verdict(&daemon, "wan_out");
    let truth = [(lab.lan[0].v4, sprayed), (lab.lan[1].v4, other)];
    assert_exact(&verdict, &truth);
    assert!(verdict.flows_total >= 4001, "{verdict:#?}");
    assert_eq!(
        verdict.flows[0].source, lab.lan[1].v4,
        "flows are ranked too"
    );
}

#[test]
fn what_conntrack_forgot_between_pending_and_firing_is_in_alert_and_verdict() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let text = without_dumps(&["wan_out"]).replace("hold = \"0s\"", "hold = \"3s\"");
    // Ticks so long that no pause of a busy machine looks like the end.
    let text = text.replace("tick = \"200ms\"", "tick = \"500ms\"");
    let text = text.replace("interval = \"60s\"", "interval = \"1s\"");
    let bench = Bench::new(&lab.router, &text);
    let daemon = bench.start();
    let long = udp("long", &up(&lab, 1, 1), &endless(1.0 * M, 500));
    await_awake(&daemon);
    beats(&daemon, 1);
    let short = sent(udp(
        "short",
        &up(&lab, 0, 0),
        &datagrams(16.0 * M, 1000, 500),
    ));
    forget(&lab, 0);
    let raised: Raised = eventually("an alert", || told(&bench, "raised").pop());
    let named: Vec<_> = raised.hosts.iter().map(|host| host.address).collect();
    assert_eq!(named, [lab.lan[0].v4, lab.lan[1].v4]);
    assert_eq!(raised.hosts[0].bytes, short);
    let long = stopped(long);
    let verdict = verdict(&daemon, "wan_out");
    assert_exact(&verdict, &[(lab.lan[0].v4, short), (lab.lan[1].v4, long)]);
}

#[test]
fn flows_of_every_kind_that_no_dump_saw_are_explained_to_the_byte() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let bench = Bench::new(&lab.router, &without_dumps(&["wan_out", "lan_in"]));
    let daemon = bench.start();
    let first = udp("first", &up(&lab, 1, 1), &endless(0.5 * M, 500));
    await_awake(&daemon);
    beats(&daemon, 2);
    let datagrams = sent(udp(
        "short",
        &up(&lab, 0, 0),
        &datagrams(8.0 * M, 1000, 300),
    ));
    let (pinger, server) = (&lab.lan[0], lab.server(Family::V4, 3, 0));
    let echo = Echo {
        id: 7,
        payload: 500,
        count: 60,
    };
    let asked = ping(&pinger.namespace, pinger.v4, server.address.ip(), echo);
    forget(&lab, 0);
    let connection = payload(Direction::Upload, 8.0 * M, 200_000);
    let connection = Generator::tcp("tcp", &up(&lab, 2, 2), &connection).unwrap();
    connection.finish().unwrap();
    eventually("the connection is closed", || {
        let closed = conntrack(&lab, &["-L", "-s", &lab.lan[2].v4.to_string()]);
        closed.contains("TIME_WAIT").then_some(())
    });
    forget(&lab, 2);
    let first = stopped(first);
    for counter in ["wan_out", "lan_in"] {
        let verdict = verdict(&daemon, counter);
        assert_complete(&verdict);
        assert_eq!(verdict.flows_total, 4, "{verdict:#?}");
        let of = |position: usize| verdict.host(lab.lan[position].v4).bytes;
        assert_eq!([of(0), of(1)], [datagrams + asked, first]);
        assert!(of(2) > 200_000, "{verdict:#?}");
    }
}

#[test]
fn one_tuple_in_two_zones_ends_twice() {
    let options = LabOptions {
        masquerade: false,
        ..LabOptions::default()
    };
    let Some(lab) = lab(options) else { return };
    let bench = Bench::new(&lab.router, &without_dumps(&["wan_out"]));
    crate::scenes_places::separate_zones(&bench);
    let daemon = bench.start();
    let mut sink = Sink::open(lab.server(Family::V4, 0, 53));
    let twin = crate::scenes_places::twin(&lab);
    let first = udp("first", &up(&lab, 1, 1), &endless(0.5 * M, 500));
    await_awake(&daemon);
    beats(&daemon, 2);
    for (host, count) in [(&lab.lan[0], 9), (&lab.iot[0], 4)] {
        let client = Endpoint {
            namespace: &host.namespace,
            address: (twin, 7000).into(),
        };
        rounds(&[port(client)], &mut sink, 1000, count, Duration::ZERO);
    }
    forget(&lab, 0);
    let first = stopped(first);
    let both = verdict(&daemon, "wan_out");
    assert_exact(&both, &[(twin, 13 * 1028), (lab.lan[1].v4, first)]);
    assert_eq!(both.flows_total, 3, "{both:#?}");
}

/// A short flow that no dump sees, born when events were set so.
fn a_short_flow_with_events(setting: &str) -> Option<(crate::told::Verdict, u64)> {
    let lab = lab(LabOptions::default())?;
    let bench = Bench::new(&lab.router, &without_dumps(&["wan_out"]));
    let daemon = bench.start();
    let first = udp("first", &up(&lab, 1, 1), &endless(0.5 * M, 500));
    await_awake(&daemon);
    beats(&daemon, 2);
    let key = "netfilter/nf_conntrack_events";
    sysctl::write(&lab.router, &[(key, setting)]).unwrap();
    let short = sent(udp(
        "short",
        &up(&lab, 0, 0),
        &datagrams(8.0 * M, 1000, 300),
    ));
    forget(&lab, 0);
    let first = stopped(first);
    let verdict = verdict(&daemon, "wan_out");
    assert_eq!(verdict.counted_bytes, first + short);
    assert_eq!(verdict.host(lab.lan[1].v4).bytes, first);
    Some((verdict, short))
}

#[test]
fn with_events_of_either_kind_a_short_flow_is_known() {
    for setting in ["1", "2"] {
        let Some((verdict, short)) = a_short_flow_with_events(setting) else {
            return;
        };
        assert_complete(&verdict);
        assert_eq!(
            verdict.hosts[0].bytes, short,
            "events {setting}: {verdict:#?}"
        );
    }
}

#[test]
fn without_events_a_short_flow_is_missing_and_the_verdict_says_why() {
    let Some((verdict, short)) = a_short_flow_with_events("0") else {
        return;
    };
    assert_eq!(
        (verdict.unexplained_bytes, verdict.excess_bytes),
        (short, 0)
    );
    verdict.assert_noted("event");
}
