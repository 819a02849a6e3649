//! Counting is exact: with masquerading, IPv4 and IPv6, TCP and UDP, every counter equals naive rules beside it, and
//! what the generators say they moved.

use std::net::SocketAddr;
use std::time::Duration;

use flowctl::lab::sysctl;
use flowctl::lab::topology::WAN;
use flowctl::lab::{
    Direction, Ends, Family, Generator, Lab, LabOptions, Namespace, Protocol, TcpLoad, Totals,
    UdpLoad,
};
use flowctl::units::Volume;

use crate::naive::{Beside, Spec};
use crate::support::{Bench, lab};

pub const BOTH: [Family; 2] = [Family::V4, Family::V6];
/// The router's own addresses in the lab.
pub const OWN: [&str; 6] = [
    "10.77.1.1",
    "10.77.2.1",
    "203.0.113.2",
    "fd77:1::1",
    "fd77:2::1",
    "2001:db8:ffff::2",
];
const SERVERS: &[&str] = &["198.51.100.0/24", "2001:db8:64::/64"];

pub fn masqueraded() -> Option<Lab> {
    lab(LabOptions {
        masquerade_v6: true,
        merge: false,
        ..LabOptions::default()
    })
}

pub fn datagrams(count: u64) -> UdpLoad {
    UdpLoad {
        direction: Direction::Upload,
        payload: 500,
        rate: None,
        datagrams: count,
        longest: Duration::from_secs(20),
    }
}

/// That many datagrams of 500 bytes at layer 3.
pub fn volume(family: Family, packets: u64) -> Volume {
    let headers = if family == Family::V4 { 28 } else { 48 };
    Volume {
        bytes: packets * (500 + headers),
        packets,
    }
}

/// The same, over both families.
pub fn of_both(packets: u64) -> Volume {
    volume(Family::V4, packets).plus(volume(Family::V6, packets))
}

/// Sends datagrams from one end to the other and sees all of them arrive.
pub fn send(ends: &Ends<'_>, count: u64) {
    let totals = udp(ends, &datagrams(count));
    assert_eq!(totals.up.received.packets, count);
}

pub fn udp(ends: &Ends<'_>, load: &UdpLoad) -> Totals {
    Generator::udp("udp", ends, load).unwrap().finish().unwrap()
}

fn tcp(ends: &Ends<'_>, direction: Direction, bytes: u64) -> Totals {
    let load = TcpLoad {
        direction,
        rate: None,
        bytes,
        longest: Duration::from_secs(20),
    };
    let generator = Generator::tcp("tcp", ends, &load).unwrap();
    generator.finish().unwrap()
}

/// Nested prefixes, a device in two interfaces, a prefix in two subnets, a host inside, a union that overlaps.
fn places() -> Spec {
    Spec::default()
        .interface("wan", &["wan0"])
        .interface("lan", &["br-lan"])
        .interface("things", &["br-iot"])
        .interface("inside", &["br-iot", "br-lan"])
        .interface("absent", &["nope0"])
        .subnet("everyone", &["0.0.0.0/0", "::/0"])
        .subnet("site", &["10.77.0.0/16", "fd77::/16"])
        .subnet("home", &["10.77.1.0/24", "fd77:1::/64"])
        .subnet("same", &["10.77.1.0/24", "fd77:1::/64"])
        .subnet("iot", &["10.77.2.0/24", "fd77:2::/64"])
        .subnet("host", &["10.77.1.11", "fd77:1::11"])
        .subnet(
            "union",
            &["10.77.1.11", "10.77.1.0/24", "10.77.0.0/20", "fd77:1::/64"],
        )
        .subnet("servers", SERVERS)
}

/// Every combination of selectors, for uploads, downloads and traffic between the subnets.
fn every_combination(mut spec: Spec) -> Spec {
    let ways: [(&str, [&[&str]; 4]); 3] = [
        (
            "up",
            [&["lan", "inside"], &["wan"], &["home"], &["servers"]],
        ),
        ("down", [&["wan"], &["inside"], SERVERS, &["site", "host"]]),
        (
            "across",
            [&["lan"], &["things"], &["union", "host"], &["iot", "site"]],
        ),
    ];
    for (way, values) in ways {
        for chosen in 1..16_usize {
            let name = |at: usize| ["_in", "_out", "_from", "_to"][at];
            let used: Vec<usize> = (0..4).filter(|at| chosen & (1 << at) != 0).collect();
            let words: String = used.iter().map(|at| name(*at)).collect();
            let select =
                std::array::from_fn(|at| if used.contains(&at) { values[at] } else { &[] });
            spec = spec.counter(&format!("{way}{words}"), select);
        }
    }
    spec
}

fn uploads_and_answers(lab: &Lab, family: Family) {
    let upload = Ends::new(lab.lan[0].end(family, 0), lab.server(family, 0, 0));
    send(&upload, 300);
    let exchange = Ends::new(lab.iot[0].end(family, 0), lab.server(family, 1, 53));
    let load = UdpLoad {
        direction: Direction::Exchange { reply: 500 },
        ..datagrams(200)
    };
    assert_eq!(udp(&exchange, &load).down.received.packets, 200);
    let across = Ends::new(lab.lan[1].end(family, 0), lab.iot[0].end(family, 0));
    send(&across, 100);
    let outside = SocketAddr::new(lab.wan_address(family), 8053);
    let inside = lab.lan[0].end(family, 53);
    lab.firewall()
        .unwrap()
        .forward_port(WAN, Protocol::Udp, outside, inside.address)
        .unwrap();
    let forwarded = Ends {
        through: Some(outside),
        ..Ends::new(lab.server(family, 2, 0), inside)
    };
    send(&forwarded, 50);
}

#[test]
fn every_combination_of_selectors_counts_what_naive_rules_and_generators_say() {
    let Some(lab) = masqueraded() else { return };
    let spec = every_combination(places());
    let bench = Bench::new(&lab.router, &spec.toml());
    let beside = Beside::start(&bench, &spec, &OWN);
    for family in BOTH {
        uploads_and_answers(&lab, family);
    }
    let counted = beside.agreed();
    for (name, packets) in [
        ("lan_in", 400),
        ("things_in", 200),
        ("inside_in", 600),
        ("wan_in", 250),
        ("wan_out", 500),
        ("things_out", 300),
        ("lan_out", 50),
        ("inside_out", 350),
        ("everyone_from", 850),
        ("everyone_to", 850),
        ("site_from", 600),
        ("site_to", 350),
        ("home_from", 400),
        ("same_from", 400),
        ("union_from", 400),
        ("host_from", 300),
        ("host_to", 50),
        ("up_from_to", 300),
        ("up_in_out_from_to", 300),
        ("down_in_out_from_to", 250),
        ("across_in_out_from_to", 100),
        ("across_from_to", 100),
    ] {
        let wanted = match name {
            // Its prefixes up to 10.77.15.255 hold the things too, those of IPv6 do not.
            "union_from" => of_both(packets).plus(volume(Family::V4, 200)),
            _ => of_both(packets),
        };
        assert_eq!(counted[name], wanted, "{name}");
    }
    let silent: Vec<_> = counted
        .iter()
        .filter(|(_, volume)| volume.packets == 0)
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(silent, ["absent_in", "absent_out"]);
}

/// Segments that this namespace has sent again.
pub fn retransmitted(namespace: &Namespace) -> u64 {
    let text = namespace
        .run(|| std::fs::read_to_string("/proc/thread-self/net/snmp"))
        .unwrap()
        .unwrap();
    let mut lines = text.lines().filter(|line| line.starts_with("Tcp:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let at = names.split(' ').position(|name| name == "RetransSegs");
    values.split(' ').nth(at.unwrap()).unwrap().parse().unwrap()
}

/// Header bytes of a segment with stamps, and how much longer those of SYN are.
pub fn tcp_headers(family: Family) -> u64 {
    if family == Family::V4 { 52 } else { 72 }
}

pub const SYN_EXTRA: u64 = 8;

#[test]
fn tcp_counts_its_payload_and_one_header_a_segment_both_ways() {
    let Some(lab) = masqueraded() else { return };
    for end in [&lab.internet, &lab.lan[1].namespace] {
        // Else an acknowledgement is longer wherever a busy machine lets one segment overtake another.
        sysctl::write(end, &[("ipv4/tcp_sack", "0")]).unwrap();
    }
    let spec = places();
    let bench = Bench::new(&lab.router, &spec.toml());
    let beside = Beside::start(&bench, &spec, &OWN);
    for family in BOTH {
        for (direction, at) in [(Direction::Upload, 0), (Direction::Download, 1)] {
            let before = beside.agreed();
            let sent_again = || retransmitted(&lab.internet) + retransmitted(&lab.lan[1].namespace);
            let again = sent_again();
            let ends = Ends::new(lab.lan[1].end(family, 0), lab.server(family, 1, 443));
            tcp(&ends, direction, 2_000_000);
            let after = beside.agreed();
            let payload = |name: &str| {
                let moved = after[name].since(before[name]);
                moved.bytes - moved.packets * tcp_headers(family) - SYN_EXTRA
            };
            let mut wanted = [0, 0];
            wanted[at] = 2_000_000;
            // A busy machine may make TCP send a segment twice: then only the naive rules know.
            if sent_again() == again {
                assert_eq!([payload("home_from"), payload("home_to")], wanted);
                assert_eq!([payload("wan_out"), payload("wan_in")], wanted);
            } else {
                assert!(payload("home_from") + payload("home_to") >= 2_000_000);
            }
        }
    }
}

#[test]
fn merged_packets_count_as_naive_rules_see_them() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let spec = places();
    let bench = Bench::new(&lab.router, &spec.toml());
    let beside = Beside::start(&bench, &spec, &OWN);
    for family in BOTH {
        let ends = Ends::new(lab.lan[0].end(family, 0), lab.server(family, 0, 443));
        tcp(&ends, Direction::Upload, 3_000_000);
        tcp(&ends, Direction::Download, 3_000_000);
    }
    let counted = beside.agreed();
    assert!(counted["wan_out"].bytes > 6_000_000);
    assert!(counted["wan_out"].packets < 6_000_000 / 1448);
}
