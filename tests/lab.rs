//! The lab against the real kernel: what the generators say, what the devices count and what conntrack does must
//! agree to the byte. Skipped without privileges, except where CI is `true`.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers of tests, where a panic is the report"
)]

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use flowctl::lab::latch::Latch;
use flowctl::lab::link::{Links, NewDevice, Vxlan};
use flowctl::lab::topology::{LAN, UPLINK, WAN};
use flowctl::lab::{
    Direction, Ends, Family, Generator, Lab, LabOptions, Namespace, Protocol, TcpLoad, Timeline,
    UdpLoad, Way, clock,
};
use flowctl::units::{BitRate, Volume};

const BOTH: [Family; 2] = [Family::V4, Family::V6];

/// Counts of a device in a namespace, layer 2: received, sent.
fn device(namespace: &Namespace, name: &str) -> (Volume, Volume) {
    let text = namespace
        .run(|| fs::read_to_string("/proc/thread-self/net/dev"))
        .unwrap()
        .unwrap();
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_prefix(&format!("{name}:")))
        .unwrap();
    let numbers: Vec<u64> = line
        .split_whitespace()
        .map(|number| number.parse().unwrap())
        .collect();
    let volume = |at: usize| Volume {
        bytes: numbers[at],
        packets: numbers[at + 1],
    };
    (volume(0), volume(8))
}

/// The lab, or `None` where the kernel does not allow one.
fn lab(options: LabOptions) -> Option<Lab> {
    if let Err(error) = Namespace::new("probe") {
        let ci = std::env::var_os("CI").is_some_and(|value| value == "true");
        assert!(!ci, "kernel tests must not be skipped in CI: {error}");
        eprintln!("SKIPPED, no privileges: {error}");
        return None;
    }
    Some(Lab::build(&options).unwrap())
}

fn burst(datagrams: u64) -> UdpLoad {
    UdpLoad {
        direction: Direction::Upload,
        payload: 500,
        rate: None,
        datagrams,
        longest: Duration::from_secs(20),
    }
}

fn stream(bytes: u64) -> TcpLoad {
    TcpLoad {
        direction: Direction::Upload,
        rate: None,
        bytes,
        longest: Duration::from_secs(20),
    }
}

#[test]
fn a_thousand_datagrams_are_a_thousand_everywhere() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    for (family, headers) in [(Family::V4, 28), (Family::V6, 48)] {
        let (lan, wan) = (device(&lab.router, LAN), device(&lab.router, WAN));
        let ends = Ends::new(lab.lan[0].end(family, 0), lab.server(family, 0, 0));
        let totals = Generator::udp("burst", &ends, &burst(1000))
            .unwrap()
            .finish()
            .unwrap();
        let layer3 = Volume {
            bytes: 1000 * (500 + headers),
            packets: 1000,
        };
        assert_eq!((totals.up.sent, totals.up.received), (layer3, layer3));
        let layer2 = Volume {
            bytes: layer3.bytes + 1000 * 14,
            packets: 1000,
        };
        // A bridge counts what it hands to its own host without the Ethernet header.
        assert_eq!(
            device(&lab.router, LAN).0.since(lan.0),
            layer3,
            "{family:?} arrived by {LAN}"
        );
        assert_eq!(
            device(&lab.router, WAN).1.since(wan.1),
            layer2,
            "{family:?} left by {WAN}"
        );
    }
}

#[test]
fn a_large_burst_loses_nothing_and_its_answers_are_counted() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    for family in BOTH {
        let ends = Ends::new(lab.iot[0].end(family, 5353), lab.server(family, 3, 53));
        let load = UdpLoad {
            direction: Direction::Exchange { reply: 900 },
            ..burst(20_000)
        };
        let generator = Generator::udp("exchange", &ends, &load).unwrap();
        assert_eq!(
            (generator.source.port(), generator.destination.port()),
            (5353, 53)
        );
        let totals = generator.finish().unwrap();
        assert_eq!(totals.up.received.packets, 20_000);
        assert_eq!(totals.up.sent, totals.up.received);
        assert_eq!(totals.down.sent, totals.down.received);
        assert_eq!(totals.down.sent.packets, 20_000);
    }
}

#[test]
fn tcp_goes_both_ways_and_is_merged_only_when_allowed() {
    for merge in [true, false] {
        let Some(lab) = lab(LabOptions {
            merge,
            ..LabOptions::default()
        }) else {
            return;
        };
        for (family, segment) in [(Family::V4, 1448), (Family::V6, 1428)] {
            let ends = Ends::new(lab.lan[1].end(family, 0), lab.server(family, 1, 443));
            for direction in [Direction::Upload, Direction::Download] {
                let before = device(&lab.router, WAN);
                let load = TcpLoad {
                    direction,
                    ..stream(5_000_000)
                };
                let totals = Generator::tcp("stream", &ends, &load)
                    .unwrap()
                    .finish()
                    .unwrap();
                let after = device(&lab.router, WAN);
                let upload = direction == Direction::Upload;
                let moved = if upload { totals.up } else { totals.down };
                assert_eq!(
                    (moved.sent.bytes, moved.received.bytes),
                    (5_000_000, 5_000_000)
                );
                let (received, sent) = (after.0.since(before.0), after.1.since(before.1));
                let packets = if upload {
                    sent.packets
                } else {
                    received.packets
                };
                let merged = packets < 5_000_000 / segment;
                assert_eq!(merged, merge, "{packets} packets {family:?} {direction:?}");
            }
        }
    }
}

#[test]
fn a_download_over_udp_keeps_its_pace_and_its_truth() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let mut timeline = Timeline::start().unwrap();
    let ends = Ends::new(lab.lan[0].end(Family::V4, 0), lab.server(Family::V4, 0, 0));
    let load = UdpLoad {
        direction: Direction::Download,
        payload: 1200,
        rate: Some(BitRate(20e6)),
        datagrams: u64::MAX,
        longest: Duration::from_secs(1),
    };
    let begun = clock::wall();
    let generator = Generator::udp("film", &ends, &load).unwrap();
    timeline.watch(&generator);
    let totals = generator.finish().unwrap();
    timeline.stop();
    assert_eq!(
        totals.up.received,
        Volume {
            bytes: 1228,
            packets: 1
        }
    );
    assert_eq!(totals.down.sent, totals.down.received);
    // Never faster than asked, but for the first datagram and the last; a busy machine may make it slower.
    let megabits = (totals.down.sent.bytes - 1228) as f64 * 8.0 / 1e6;
    assert!(
        (8.0..=20.02).contains(&megabits),
        "{megabits} Mbit in a second"
    );
    let truth = |end| timeline.volume_between("film", Way::Down, begun, end);
    assert_eq!(truth(clock::wall()), Some(totals.down.sent));
    let half = truth(begun + Duration::from_millis(500)).unwrap();
    assert!((1..totals.down.sent.bytes).contains(&half.bytes));
    assert_eq!(
        timeline.volume_between("nobody", Way::Up, begun, begun),
        None
    );
}

#[test]
fn a_port_forward_reaches_the_inside_and_a_drop_cuts_one_flow() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let mut firewall = lab.firewall().unwrap();
    for family in BOTH {
        let inside = lab.lan[0].end(family, 80);
        let outside = SocketAddr::new(lab.wan_address(family), 8080);
        firewall
            .forward_port(WAN, Protocol::Tcp, outside, inside.address)
            .unwrap();
        let ends = Ends {
            through: Some(outside),
            ..Ends::new(lab.server(family, 2, 0), inside)
        };
        let totals = Generator::tcp("visitor", &ends, &stream(100_000))
            .unwrap()
            .finish()
            .unwrap();
        assert_eq!(totals.up.received.bytes, 100_000);

        let server = lab.server(family, 4, 9000);
        let ends = Ends::new(lab.lan[1].end(family, 0), server);
        firewall
            .drop_flow(Protocol::Udp, ends.client.address.ip(), server.address)
            .unwrap();
        let totals = Generator::udp("dropped", &ends, &burst(300))
            .unwrap()
            .finish()
            .unwrap();
        assert_eq!(
            (totals.up.sent.packets, totals.up.received.packets),
            (300, 0)
        );
    }
    firewall.remove().unwrap();
    firewall.remove().unwrap();
    let ends = Ends::new(
        lab.lan[1].end(Family::V6, 0),
        lab.server(Family::V6, 4, 9000),
    );
    let totals = Generator::udp("free", &ends, &burst(300))
        .unwrap()
        .finish()
        .unwrap();
    assert_eq!(totals.up.received.packets, 300);
}

#[test]
fn the_router_itself_sends_and_a_stop_ends_a_generator() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    for family in BOTH {
        let ends = Ends::new(lab.router_end(family, 0), lab.server(family, 0, 0));
        let load = TcpLoad {
            rate: Some(BitRate(8e6)),
            ..stream(u64::MAX)
        };
        let generator = Generator::tcp("backup", &ends, &load).unwrap();
        Latch::default().wait(Duration::from_millis(200));
        assert!(!generator.is_finished());
        generator.stop();
        let totals = generator.finish().unwrap();
        assert_eq!(totals.up.sent, totals.up.received);
        assert!(
            (50_000..600_000).contains(&totals.up.sent.bytes),
            "{totals:?}"
        );
    }
}

#[test]
fn devices_are_made_changed_and_deleted_and_a_refusal_has_the_kernels_words() {
    let Some(lab) = lab(LabOptions {
        lan_hosts: 1,
        iot_hosts: 0,
        ..LabOptions::default()
    }) else {
        return;
    };
    let mut links = Links::open(&lab.router).unwrap();
    let plain = |name| NewDevice {
        name,
        mac: None,
        merge: true,
    };
    let tunnel = Vxlan {
        id: 7,
        local: "203.0.113.2".parse().unwrap(),
        remote: "203.0.113.1".parse().unwrap(),
        port: 4789,
    };
    links.add_vxlan(plain("vx0"), tunnel).unwrap();
    links.add_bridge(plain("old")).unwrap();
    links.rename("old", "new").unwrap();
    links.set_mtu("new", 1400).unwrap();
    links.up("new").unwrap();
    links.down("new").unwrap();
    assert!(links.index("old").is_err());
    links.delete("new").unwrap();
    let refused = links.add_route(
        "192.0.2.0/24".parse().unwrap(),
        "192.0.2.1".parse().unwrap(),
    );
    assert_eq!(
        refused.unwrap_err().to_string(),
        "cannot add route 192.0.2.0/24 via 192.0.2.1: Network is unreachable (os error 101) (Nexthop has invalid gateway)"
    );
    assert!(
        Links::open(&lab.lan[0].namespace)
            .unwrap()
            .index(UPLINK)
            .is_ok()
    );
}
