//! Scenes of many flows and many packets: who stands out of a crowd, who sprays, who is ahead by a nose, and who only
//! said a word.

use std::net::IpAddr;
use std::time::Duration;

use flowctl::lab::{Ends, Family, Lab, LabOptions, sysctl};
use flowctl::report::StateWord;

use crate::scenes_stage::{
    ANY, M, assert_exact, assert_share, config, datagrams, endless, nth_verdict, sent, stopped,
    udp, verdict,
};
use crate::scenes_traffic::{Sink, port, rounds, spray, udp_headers};
use crate::support::{Bench, eventually, lab};
use crate::told::{Raised, told};

fn up(lab: &Lab, position: usize, server: u8) -> Ends<'_> {
    let client = lab.lan[position].end(Family::V4, 0);
    Ends::new(client, lab.server(Family::V4, server, 443))
}

#[test]
fn an_elephant_among_two_hundred_mice_is_named_to_the_byte() {
    let options = LabOptions {
        lan_hosts: 10,
        ..LabOptions::default()
    };
    let Some(lab) = lab(options) else { return };
    let bench = Bench::new(&lab.router, &config(&[("wan_out", ANY)]));
    let daemon = bench.start();
    let mut sink = Sink::open(lab.server(Family::V4, 1, 53));
    let mice: Vec<_> = (0..200)
        .map(|number| port(lab.lan[number % 10].end(Family::V4, 0)))
        .collect();
    let elephant = udp(
        "elephant",
        &up(&lab, 7, 9),
        &datagrams(30.0 * M, 1200, 4000),
    );
    rounds(&mice, &mut sink, 100, 10, Duration::from_millis(100));
    let source = elephant.source.port();
    let large = sent(elephant);
    let verdict = verdict(&daemon, "wan_out");
    let of_mice = 20 * 10 * (100 + udp_headers(lab.lan[0].v4));
    let truth: Vec<(IpAddr, u64)> = (0..10)
        .map(|number| (lab.lan[number].v4, of_mice + large * u64::from(number == 7)))
        .collect();
    assert_exact(&verdict, &truth);
    assert_eq!(verdict.flows_total, 201);
    assert_eq!(
        (verdict.flows[0].source_port, verdict.flows[0].bytes),
        (Some(source), large)
    );
    assert_eq!(
        verdict.flows[0].outside()[0].map(|end| end.ip()),
        Some(lab.wan_address(Family::V4))
    );
    assert_eq!(verdict.flows_remainder_bytes, 191 * of_mice / 20);
}

#[test]
fn twenty_thousand_flows_of_one_packet_are_one_host() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let bench = Bench::new(&lab.router, &config(&[("wan_out", ANY)]));
    let daemon = bench.start();
    // A machine too busy to send them in time must not lose the first.
    let patience = [("netfilter/nf_conntrack_udp_timeout", "300")];
    sysctl::write(&lab.router, &patience).unwrap();
    let mut sink = Sink::open(lab.server(Family::V4, 1, 53));
    // Of other hosts fewer bytes.
    let quieter = udp("quieter", &up(&lab, 1, 2), &datagrams(0.6 * M, 600, 1000));
    let quietest = udp("quietest", &up(&lab, 2, 3), &datagrams(0.3 * M, 600, 500));
    let lasting = Duration::from_secs(10);
    let sprayed = spray(&lab.lan[0], 10_000..30_000, &mut sink, 100, lasting);
    let truth = [sprayed, sent(quieter), sent(quietest)];
    let verdict = verdict(&daemon, "wan_out");
    let hosts = lab.lan.iter().map(|host| host.v4);
    assert_exact(&verdict, &hosts.zip(truth).collect::<Vec<_>>());
    assert_eq!(verdict.flows_total, 20_002);
    let largest = [verdict.flows[0].source, verdict.flows[1].source];
    assert_eq!(largest, [lab.lan[1].v4, lab.lan[2].v4]);
}

#[test]
fn two_hosts_at_fifty_one_to_forty_nine_are_told_in_that_order() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let bench = Bench::new(
        &lab.router,
        &config(&[("wan_out", ANY), ("home_from", ANY)]),
    );
    let daemon = bench.start();
    let less = udp("less", &up(&lab, 0, 0), &datagrams(16.0 * M, 1000, 2450));
    let more = udp("more", &up(&lab, 2, 1), &datagrams(16.0 * M, 1000, 2550));
    let truth = [(lab.lan[0].v4, sent(less)), (lab.lan[2].v4, sent(more))];
    for counter in ["wan_out", "home_from"] {
        let verdict = verdict(&daemon, counter);
        assert_exact(&verdict, &truth);
        assert_share("the larger", verdict.hosts[0].share, 0.51);
        assert_share("the smaller", verdict.hosts[1].share, 0.49);
        let said = "51 % 10.77.1.13";
        assert!(verdict.text.contains(said), "{}", verdict.text);
    }
}

#[test]
fn a_threshold_at_zero_explains_each_packet_once() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let text = config(&[("things_to_internet", ANY)]);
    let bench = Bench::new(&lab.router, &text.replace("\"2s\"", "\"300ms\""));
    let daemon = bench.start();
    let mut sink = Sink::open(lab.server(Family::V4, 1, 53));
    for episode in 0..4_u16 {
        let ports = 5000 + episode..5001 + episode;
        let bytes = spray(&lab.iot[0], ports, &mut sink, 10 << episode, Duration::ZERO);
        let verdict = nth_verdict(&daemon, "things_to_internet", episode.into());
        assert_exact(&verdict, &[(lab.iot[0].v4, bytes)]);
        assert_eq!((verdict.counted_packets, verdict.flows_total), (1, 1));
        let flow = verdict.flow(5000 + episode);
        assert_eq!((flow.bytes, flow.packets, flow.share), (bytes, 1, 1.0));
        daemon.await_state(StateWord::Idle);
    }
    let of = |event: &str| {
        let lines = bench.lines();
        lines.iter().filter(|line| line["event"] == event).count()
    };
    let told = ["raised", "verdict", "cleared"].map(of);
    assert_eq!(told, [4; 3], "one of each an episode");
}

#[test]
fn a_flow_that_ends_between_pending_and_firing_is_in_alert_and_verdict() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    // Ticks so long that no pause of a busy machine looks like the end.
    let text = config(&[("wan_out", ANY)]).replace("200ms\"\n[drill", "500ms\"\n[drill");
    let bench = Bench::new(&lab.router, &text.replace("hold = \"0s\"", "hold = \"3s\""));
    let daemon = bench.start();
    let short = udp("short", &up(&lab, 0, 0), &datagrams(16.0 * M, 1000, 500));
    let long = udp("long", &up(&lab, 1, 1), &endless(1.0 * M, 500));
    let short = sent(short);
    assert_ne!(daemon.status().thresholds[0].state, StateWord::Firing);
    let raised: Raised = eventually("an alert", || told(&bench, "raised").pop());
    let named: Vec<_> = raised.hosts.iter().map(|host| host.address).collect();
    assert_eq!(named, [lab.lan[0].v4, lab.lan[1].v4]);
    assert!(raised.hosts[0].bytes <= short);
    let long = stopped(long);
    let verdict = verdict(&daemon, "wan_out");
    assert_exact(&verdict, &[(lab.lan[0].v4, short), (lab.lan[1].v4, long)]);
}
