//! Verdicts beside what was really sent: the right host, the right flow, the right share, behind NAT and without.

use std::net::SocketAddr;

use flowctl::event::Event;
use flowctl::lab::topology::{LAN, WAN};
use flowctl::lab::{Direction, Ends, Family, Generator, Lab, LabOptions, Protocol, UdpLoad, Way};
use flowctl::report::StateWord;

use crate::support::{Bench, lab};
use crate::truth::{
    Truth, assert_near, assert_no_excess, await_raised, await_verdict, beat, beats, host,
};

/// Mbit/s.
const M: f64 = 1e6;

/// A router as the lab has it, with one threshold.
pub fn config(counter: &str, raise: &str) -> String {
    format!(
        r#"tick = "200ms"
[interfaces.wan]
device = "wan0"
capacity = {{ in = "100Mbit/s", out = "50Mbit/s" }}
[interfaces.lan]
device = "br-lan"
[interfaces.iot]
device = "br-iot"
[subnets]
home = ["10.77.1.0/24", "fd77:1::/64"]
things = ["10.77.2.0/24", "fd77:2::/64"]
[counters.things_to_internet]
from = "things"
out = "wan"
[thresholds.watched]
counter = "{counter}"
raise = "{raise}"
hold = "600ms"
release = "600ms"
[drilldown]
interval = "200ms"
"#
    )
}

fn up(lab: &Lab, position: usize, server: u8) -> Ends<'_> {
    let client = lab.lan[position].end(Family::V4, 0);
    Ends::new(
        client,
        lab.server(Family::V4, server, 443 + position as u16),
    )
}

#[test]
fn one_elephant_among_many_mice_behind_nat() {
    let options = LabOptions {
        lan_hosts: 6,
        ..LabOptions::default()
    };
    let Some(lab) = lab(options) else { return };
    let bench = Bench::new(&lab.router, &config("wan_out", "4Mbit/s"));
    let daemon = bench.start();
    let truth = Truth::record();
    let mice: Vec<Generator> = (0..24)
        .map(|number| {
            let ends = up(&lab, number % 6, (number / 6) as u8);
            truth.udp(&format!("mouse {number}"), ends, 0.04 * M, 400)
        })
        .collect();
    beat(&daemon);
    let elephant = truth.udp("elephant", up(&lab, 4, 9), 30.0 * M, 1200);
    let raised = await_raised(&daemon);
    assert_eq!(raised.hosts[0].address, lab.lan[4].v4, "the alert names it");
    assert_eq!(raised.flows[0].source_port, Some(elephant.source.port()));
    beats(&daemon, 10);
    elephant.stop();
    let verdict = await_verdict(&daemon, "watched");
    assert_no_excess(&verdict);
    let of_mice: u64 = (0..24)
        .map(|number| truth.bytes([&format!("mouse {number}")], Way::Up, &verdict)[0])
        .sum();
    drop(mice);
    let [large] = truth.bytes(["elephant"], Way::Up, &verdict);
    let [mouse] = truth.bytes(["mouse 4"], Way::Up, &verdict);
    let all = (large + of_mice) as f64;
    let top = &verdict.found.hosts[0];
    assert_eq!(top.address, lab.lan[4].v4);
    assert_near("the host", top.share, (large + 4 * mouse) as f64 / all);
    let flow = &verdict.found.flows[0];
    assert_near("the flow", flow.share, large as f64 / all);
    assert_eq!(
        (flow.source, flow.source_port),
        (lab.lan[4].v4, Some(elephant.source.port()))
    );
    assert_eq!(flow.destination, elephant.destination.ip());
    assert_eq!(flow.nat_source, Some(lab.wan_address(Family::V4)));
    assert_eq!((flow.nat_destination, flow.approximate), (None, false));
    assert_eq!(
        (verdict.found.hosts_total, verdict.found.flows_total),
        (6, 25)
    );
    assert_eq!(
        verdict.found.flows.len(),
        10,
        "the others are the remainder"
    );
    assert!(verdict.coverage.unwrap() >= 0.98, "{verdict:#?}");
    assert!(verdict.found.flows_remainder_bytes > 0);
}

#[test]
fn two_hosts_at_sixty_to_forty_are_told_in_that_order() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let bench = Bench::new(&lab.router, &config("wan_out", "2Mbit/s"));
    let daemon = bench.start();
    let truth = Truth::record();
    beat(&daemon);
    let less = truth.udp("less", up(&lab, 0, 0), 12.0 * M, 1000);
    let more = truth.udp("more", up(&lab, 2, 1), 18.0 * M, 1000);
    beats(&daemon, 10);
    less.stop();
    more.stop();
    let verdict = await_verdict(&daemon, "watched");
    assert_no_excess(&verdict);
    let named: Vec<_> = verdict
        .found
        .hosts
        .iter()
        .map(|host| host.address)
        .collect();
    assert_eq!(named, [lab.lan[2].v4, lab.lan[0].v4]);
    let [more, less] = truth.shares(["more", "less"], Way::Up, &verdict);
    assert_near("the larger", verdict.found.hosts[0].share, more);
    assert_near("the smaller", verdict.found.hosts[1].share, less);
    assert!(
        verdict.text.contains("; 40 % 10.77.1.11 to"),
        "{}",
        verdict.text
    );
}

#[test]
fn a_port_forward_abused_from_outside_names_the_inside_host() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let outside = SocketAddr::new(lab.wan_address(Family::V4), 8080);
    let inside = lab.lan[1].end(Family::V4, 80);
    lab.firewall()
        .unwrap()
        .forward_port(WAN, Protocol::Udp, outside, inside.address)
        .unwrap();
    let bench = Bench::new(&lab.router, &config("wan_in", "2Mbit/s"));
    let daemon = bench.start();
    let truth = Truth::record();
    let film = truth.tcp("film", up(&lab, 0, 3), 1.0 * M, Direction::Download);
    beat(&daemon);
    let ends = Ends {
        through: Some(outside),
        ..Ends::new(lab.server(Family::V4, 5, 0), inside)
    };
    let attack = truth.udp("attack", ends, 20.0 * M, 1000);
    beats(&daemon, 10);
    attack.stop();
    let verdict = await_verdict(&daemon, "watched");
    drop(film);
    let ([attacked], [film]) = (
        truth.bytes(["attack"], Way::Up, &verdict),
        truth.bytes(["film"], Way::Down, &verdict),
    );
    assert_eq!(verdict.found.hosts[0].address, lab.lan[1].v4);
    assert_near(
        "the host",
        verdict.found.hosts[0].share,
        attacked as f64 / (attacked + film) as f64,
    );
    let flow = &verdict.found.flows[0];
    assert_eq!(
        (flow.source, flow.source_port),
        (attack.source.ip(), Some(attack.source.port()))
    );
    assert_eq!(
        (flow.destination, flow.destination_port),
        (lab.lan[1].v4, Some(80))
    );
    assert_eq!(
        (flow.nat_destination, flow.nat_destination_port),
        (Some(outside.ip()), Some(8080))
    );
    assert_eq!(flow.nat_source, None);
    let said = format!(
        "10.77.1.12 from {} to port 80 udp, 1 flow",
        attack.source.ip()
    );
    assert!(verdict.text.contains(&said), "{}", verdict.text);
}

#[test]
fn a_pair_counter_at_zero_explains_a_single_packet() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let bench = Bench::new(
        &lab.router,
        &config("things_to_internet", "0bit/s").replace("hold = \"600ms\"\n", ""),
    );
    let daemon = bench.start();
    for round in 0..3 {
        let ends = Ends::new(
            lab.iot[0].end(Family::V4, 0),
            lab.server(Family::V4, round, 53),
        );
        let load = UdpLoad {
            direction: Direction::Upload,
            payload: 100,
            rate: None,
            datagrams: 1,
            longest: std::time::Duration::from_secs(10),
        };
        let packet = Generator::udp("packet", &ends, &load).unwrap();
        let source = packet.source;
        let sent = packet.finish().unwrap().up.sent;
        let verdict = daemon.await_record("a verdict for this packet", |event| match event {
            Event::Verdict(verdict)
                if verdict.found.flows[0].source_port == Some(source.port()) =>
            {
                Some(*verdict)
            }
            _ => None,
        });
        assert_eq!(
            (
                verdict.counted_bytes.unwrap(),
                verdict.counted_packets.unwrap()
            ),
            (sent.bytes, 1)
        );
        assert_eq!(
            (verdict.found.attributed_bytes, verdict.found.excess_bytes),
            (sent.bytes, 0)
        );
        assert_eq!(
            (verdict.coverage.unwrap(), verdict.found.hosts[0].share),
            (1.0, 1.0)
        );
        assert_eq!(
            (verdict.found.hosts_total, verdict.found.flows_total),
            (1, 1)
        );
        assert_eq!(verdict.found.hosts[0].address, lab.iot[0].v4);
        assert!(verdict.found.flows[0].started.unwrap() >= verdict.started);
        daemon.await_state(StateWord::Idle);
    }
    crate::truth::assert_log(&bench);
}

#[test]
fn a_flow_older_than_the_account_is_named_and_what_is_unknown_is_said() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let bench = Bench::new(&lab.router, &config("wan_out", "16Mbit/s"));
    let daemon = bench.start();
    let truth = Truth::record();
    let old = truth.udp("old", up(&lab, 0, 0), 12.0 * M, 1000);
    beats(&daemon, 4);
    let young = truth.udp("young", up(&lab, 1, 1), 8.0 * M, 1000);
    beats(&daemon, 10);
    young.stop();
    let verdict = await_verdict(&daemon, "watched");
    old.stop();
    let [old_sent, young_sent] = truth.bytes(["old", "young"], Way::Up, &verdict);
    let older = host(&verdict, lab.lan[0].v4);
    let known = verdict.unexplained.unwrap().before_baseline + verdict.unexplained.unwrap().skew;
    assert_eq!(verdict.found.hosts[0], *older, "still the first");
    assert!(
        verdict.unexplained.unwrap().before_baseline > 0,
        "{verdict:#?}"
    );
    assert!(verdict.found.flows[0].started.unwrap() < verdict.started);
    let all = (old_sent + young_sent) as f64;
    assert_near(
        "the young",
        host(&verdict, lab.lan[1].v4).share,
        young_sent as f64 / all,
    );
    let with_unknown = (older.bytes + known) as f64 / all;
    assert_near(
        "the old with what is unknown",
        with_unknown,
        old_sent as f64 / all,
    );
    assert!(verdict.text.contains("% unexplained"), "{}", verdict.text);
}

#[test]
fn a_packet_rate_threshold_ranks_by_packets() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let bench = Bench::new(&lab.router, &config("lan_in", "500pps"));
    let daemon = bench.start();
    let truth = Truth::record();
    beat(&daemon);
    let many = truth.udp("many", up(&lab, 0, 0), 1.0 * M, 20);
    let large = truth.udp("large", up(&lab, 1, 1), 8.0 * M, 1400);
    beats(&daemon, 8);
    many.stop();
    large.stop();
    let verdict = await_verdict(&daemon, "watched");
    assert_no_excess(&verdict);
    let (first, second) = (&verdict.found.hosts[0], &verdict.found.hosts[1]);
    assert_eq!(
        (first.address, second.address),
        (lab.lan[0].v4, lab.lan[1].v4)
    );
    assert!(first.packets > second.packets && first.bytes < second.bytes);
    let [many, large] = truth.shares(["many", "large"], Way::Up, &verdict);
    assert_near("many, in bytes", first.share, many);
    assert_near("large, in bytes", second.share, large);
    assert!(verdict.text.starts_with("lan_in ") && verdict.text.contains("kpps for "));
}

#[test]
fn a_subnet_counter_needs_no_interface() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let text = config("home_from", "2Mbit/s");
    let (_, rest) = text.split_once("[subnets]").unwrap();
    let rest = rest.replace(
        "[counters.things_to_internet]\nfrom = \"things\"\nout = \"wan\"\n",
        "",
    );
    let bench = Bench::new(&lab.router, &format!("tick = \"200ms\"\n[subnets]{rest}"));
    let daemon = bench.start();
    let truth = Truth::record();
    beat(&daemon);
    let one = truth.udp("one", up(&lab, 0, 0), 10.0 * M, 1000);
    let other = truth.udp("other", up(&lab, 1, 1), 5.0 * M, 1000);
    beats(&daemon, 8);
    one.stop();
    other.stop();
    let verdict = await_verdict(&daemon, "watched");
    assert_no_excess(&verdict);
    let shares = truth.shares(["one", "other"], Way::Up, &verdict);
    for (position, share) in shares.into_iter().enumerate() {
        let found = host(&verdict, lab.lan[position].v4);
        assert_near("a host", found.share, share);
    }
    assert!(!verdict.found.flows[0].approximate);
}

#[test]
fn ipv6_without_nat_is_named_the_same() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let bench = Bench::new(&lab.router, &config("wan_in", "2Mbit/s"));
    let daemon = bench.start();
    let truth = Truth::record();
    let ends = |host: usize, server| {
        let client = lab.lan[host].end(Family::V6, 0);
        Ends::new(client, lab.server(Family::V6, server, 443))
    };
    beat(&daemon);
    let film = truth.tcp("film", ends(0, 0), 15.0 * M, Direction::Download);
    let call = truth.tcp("call", ends(1, 1), 5.0 * M, Direction::Download);
    beats(&daemon, 10);
    film.stop();
    call.stop();
    let verdict = await_verdict(&daemon, "watched");
    assert_no_excess(&verdict);
    let [large, small] = truth.shares(["film", "call"], Way::Down, &verdict);
    assert_eq!(verdict.found.hosts[0].address, lab.lan[0].v6);
    assert_near("the film", verdict.found.hosts[0].share, large);
    assert_near("the call", verdict.found.hosts[1].share, small);
    let flow = &verdict.found.flows[0];
    assert_eq!(
        (flow.source, flow.protocol.as_str()),
        (lab.lan[0].v6, "tcp")
    );
    assert_eq!((flow.nat_source, flow.nat_destination), (None, None));
}

#[test]
fn the_routers_own_traffic_is_put_down_to_the_router() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let bench = Bench::new(&lab.router, &config("wan_out", "2Mbit/s"));
    let daemon = bench.start();
    let truth = Truth::record();
    beat(&daemon);
    let ends = Ends::new(
        lab.router_end(Family::V4, 0),
        lab.server(Family::V4, 0, 443),
    );
    let backup = truth.udp("backup", ends, 10.0 * M, 1000);
    let host = truth.udp("host", up(&lab, 0, 1), 5.0 * M, 1000);
    beats(&daemon, 8);
    backup.stop();
    host.stop();
    let verdict = await_verdict(&daemon, "watched");
    assert_no_excess(&verdict);
    let [own, other] = truth.shares(["backup", "host"], Way::Up, &verdict);
    assert_eq!(verdict.found.hosts[0].address, lab.wan_address(Family::V4));
    assert_near("the router", verdict.found.hosts[0].share, own);
    assert_near("the host", verdict.found.hosts[1].share, other);
}

#[test]
fn between_two_inside_hosts_the_sender_is_named_for_what_arrives() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let outside = SocketAddr::new(lab.wan_address(Family::V4), 8080);
    let inside = lab.lan[1].end(Family::V4, 80);
    let mut firewall = lab.firewall().unwrap();
    firewall
        .forward_port(LAN, Protocol::Udp, outside, inside.address)
        .unwrap();
    firewall.masquerade(Family::V4, LAN).unwrap();
    let bench = Bench::new(&lab.router, &config("lan_in", "2Mbit/s"));
    let daemon = bench.start();
    let truth = Truth::record();
    beat(&daemon);
    let through = Some(outside);
    let hairpin = Ends {
        through,
        ..Ends::new(lab.lan[0].end(Family::V4, 0), inside)
    };
    let hairpin = truth.udp("hairpin", hairpin, 10.0 * M, 1000);
    let across = Ends::new(
        lab.lan[2].end(Family::V4, 0),
        lab.iot[0].end(Family::V4, 80),
    );
    let across = truth.udp("across", across, 5.0 * M, 1000);
    beats(&daemon, 8);
    hairpin.stop();
    across.stop();
    let verdict = await_verdict(&daemon, "watched");
    assert_no_excess(&verdict);
    let shares = truth.shares(["hairpin", "across"], Way::Up, &verdict);
    assert_near(
        "the hairpin",
        host(&verdict, lab.lan[0].v4).share,
        shares[0],
    );
    assert_near("across", host(&verdict, lab.lan[2].v4).share, shares[1]);
    assert_eq!(verdict.found.hosts_total, 2);
    let flow = &verdict.found.flows[0];
    assert_eq!(
        (flow.source, flow.destination),
        (lab.lan[0].v4, lab.lan[1].v4)
    );
    assert_eq!(flow.nat_destination, Some(outside.ip()));
    assert_eq!(flow.nat_source, Some("10.77.1.1".parse().unwrap()));
}
