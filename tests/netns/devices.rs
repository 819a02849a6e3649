//! Devices that go and come back under traffic, with the same name and another index: totals never fall, counting
//! goes on within a second, and whatever does not pass the device is not disturbed.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use flowctl::event::Event;
use flowctl::lab::link::{Links, NewDevice};
use flowctl::lab::topology::{LAN, UPLINK, WAN};
use flowctl::lab::{Ends, Family, Lab, LabOptions, Namespace, clock};
use flowctl::report::{CounterReport, Report};
use jiff::Timestamp;

use crate::support::{
    Bench, Daemon, Gap, eventually, gaps, lab, namespace, pause, stream, stream_between,
};

const CONFIG: &str = r#"
tick = "100ms"
[interfaces.wan]
device = "wan0"
[interfaces.lan]
device = "br-lan"
[interfaces.iot]
device = "br-iot"
[subnets]
home = ["10.77.1.0/24"]
things = ["10.77.2.0/24"]
[counters.lan_to_wan]
in = "lan"
out = "wan"
"#;

/// How long counting may take to go on.
const SOON: Duration = Duration::from_secs(1);
/// Of each stream, in bits per second.
const RATE: f64 = 4e6;

fn find<'a>(report: &'a Report, name: &str) -> &'a CounterReport {
    let mut counters = report.counters.iter();
    counters.find(|c| c.name.as_str() == name).unwrap()
}

/// The next report; no total is lower than in the one before.
fn watched(daemon: &Daemon<'_>, before: &Report) -> Report {
    let now = daemon.status();
    for counter in before.counters.iter() {
        let later = find(&now, counter.name.as_str());
        assert!(
            later.bytes >= counter.bytes && later.packets >= counter.packets,
            "{} fell from {} to {}",
            counter.name,
            counter.bytes,
            later.bytes
        );
        assert_eq!((later.resets, later.present), (0, true), "{}", counter.name);
    }
    now
}

/// Watches until each of these counters has grown; returns the last report and how long it took.
fn until_grown(daemon: &Daemon<'_>, before: Report, names: &[&str]) -> (Report, Duration) {
    let begun = clock::uptime();
    let mut last = before.clone();
    let report = eventually(&format!("{names:?} grow"), || {
        last = watched(daemon, &last);
        let grown = |name: &&str| find(&last, name).bytes > find(&before, name).bytes;
        names.iter().all(grown).then(|| last.clone())
    });
    (report, clock::uptime().since(begun))
}

/// The gaps that the uplink's device left.
fn gaps_of_uplink(bench: &Bench<'_>) -> Vec<Gap> {
    let gaps = gaps(bench).into_iter();
    gaps.filter(|gap| gap.cause.contains(WAN)).collect()
}

/// Whether the last thing that the log says of the uplink's device is that it is missing.
fn is_missing(bench: &Bench<'_>) -> bool {
    let records = bench.records().into_iter();
    let told = records.filter_map(|record| match record.event {
        Event::Health { code, active, .. } if code == "device_missing" => Some(active),
        _ => None,
    });
    told.last().unwrap_or(false)
}

/// The uplink as it was, with new hardware addresses.
fn make_wan_again(lab: &Lab) {
    let near = NewDevice {
        name: WAN,
        mac: Some([2, 0, 0, 0, 9, 2]),
        merge: true,
    };
    let far = NewDevice {
        name: UPLINK,
        mac: Some([2, 0, 0, 0, 9, 1]),
        merge: true,
    };
    let mut router = Links::open(&lab.router).unwrap();
    let mut internet = Links::open(&lab.internet).unwrap();
    router.add_veth(near, far, &lab.internet).unwrap();
    router.up(WAN).unwrap();
    internet.up(UPLINK).unwrap();
    let (ours, theirs) = ("203.0.113.2", "203.0.113.1");
    let on_link = |address: &str| format!("{address}/24").parse().unwrap();
    let address = |text: &str| text.parse().unwrap();
    router.add_address(WAN, on_link(ours)).unwrap();
    internet.add_address(UPLINK, on_link(theirs)).unwrap();
    router
        .add_neighbour(WAN, address(theirs), [2, 0, 0, 0, 9, 1])
        .unwrap();
    internet
        .add_neighbour(UPLINK, address(ours), [2, 0, 0, 0, 9, 2])
        .unwrap();
    router
        .add_route("0.0.0.0/0".parse().unwrap(), address(theirs))
        .unwrap();
    router.wait_up(&[WAN], SOON).unwrap();
}

#[test]
fn an_uplink_that_goes_and_comes_back_20_times_counts_again_within_a_second_each_time() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let bench = Bench::new(&lab.router, CONFIG);
    let daemon = bench.start();
    let up = stream(&lab, 1000, RATE);
    let ends = Ends::new(lab.iot[0].end(Family::V4, 0), lab.lan[1].end(Family::V4, 9));
    let inside = stream_between(&ends, 1000, RATE);
    let mut links = Links::open(&lab.router).unwrap();
    let passing = ["wan_out", "lan_to_wan"];
    let beside = ["things_from", "iot_in", "lan_out", "home_to"];
    let mut all = passing.to_vec();
    all.extend(beside);
    let (mut report, _) = until_grown(&daemon, daemon.settle(), &all);
    for round in 1..=20 {
        let index = links.index(WAN).unwrap();
        let went = Timestamp::now();
        links.delete(WAN).unwrap();
        let gone = daemon.settle();
        report = until_grown(&daemon, watched(&daemon, &report), &beside).0;
        for name in passing {
            let (before, after) = (find(&gone, name), find(&report, name));
            assert_eq!(after.bytes, before.bytes, "{name} without its device");
        }
        eventually("the device is missed", || is_missing(&bench).then_some(()));
        let came = Timestamp::now();
        make_wan_again(&lab);
        assert_ne!(links.index(WAN).unwrap(), index);
        let (grown, took) = until_grown(&daemon, report, &all);
        assert!(took < SOON, "counting went on after {took:?}");
        report = grown;
        let gaps = eventually("the gap is stated", || {
            Some(gaps_of_uplink(&bench)).filter(|gaps| gaps.len() == round)
        });
        let (from, to) = (gaps[round - 1].from, gaps[round - 1].to);
        let bound = gaps[round - 1].bound_bytes;
        assert!(from >= went && from < came && to > came, "{from} to {to}");
        let (received, sent) = links.statistics(WAN).unwrap();
        let moved = 1..=received.bytes + sent.bytes;
        assert!(moved.contains(&bound.unwrap()), "{bound:?} of {moved:?}");
        eventually("it is not missed", || (!is_missing(&bench)).then_some(()));
    }
    up.stop();
    inside.stop();
    let (up, inside) = (up.finish().unwrap().up, inside.finish().unwrap().up);
    let report = daemon.settle();
    assert_eq!(inside.sent, inside.received, "it was never interrupted");
    for name in ["things_from", "iot_in"] {
        assert_eq!(find(&report, name).bytes, inside.sent.bytes, "{name}");
    }
    // Beside it the router told the host that its packets had no way out.
    assert!(find(&report, "home_to").bytes >= inside.sent.bytes);
    // What left while the other end was not yet up was counted and did not arrive.
    let left = find(&report, "wan_out").bytes;
    assert!((up.received.bytes..=up.sent.bytes).contains(&left));
    assert_eq!(find(&report, "home_from").bytes, up.sent.bytes);
    assert_eq!(report.table.repairs, 0, "a device is not the table");
}

#[test]
fn a_table_repaired_after_a_device_was_made_anew_states_no_bound_that_it_cannot_know() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    // No reading comes between: what the old device had moved meanwhile went with it.
    let config = CONFIG.replace("\"100ms\"", "\"30s\"\ntable.protect = \"off\"");
    let bench = Bench::new(&lab.router, &config);
    let daemon = bench.start();
    let up = stream(&lab, 1000, RATE);
    pause(Duration::from_millis(200));
    Links::open(&lab.router).unwrap().delete(WAN).unwrap();
    make_wan_again(&lab);
    bench.nft(&["delete", "table", "inet", "flowctl"]);
    let bound = daemon.await_record("a gap", |event| match event {
        Event::Gap { bound_bytes, .. } => Some(bound_bytes),
        _ => None,
    });
    assert_eq!(bound, None);
    drop(up);
}

#[test]
fn a_bridge_that_is_made_anew_is_the_same_interface() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let bench = Bench::new(&lab.router, CONFIG);
    let daemon = bench.start();
    let up = stream(&lab, 1000, RATE);
    let (report, _) = until_grown(&daemon, daemon.settle(), &["lan_in", "wan_out"]);
    let mut links = Links::open(&lab.router).unwrap();
    links.delete(LAN).unwrap();
    let bridge = NewDevice {
        name: LAN,
        mac: Some([2, 0x77, 0, 0, 1, 1]),
        merge: true,
    };
    links.add_bridge(bridge).unwrap();
    links.up(LAN).unwrap();
    links
        .add_address(LAN, "10.77.1.1/24".parse().unwrap())
        .unwrap();
    links.enslave("lan11", LAN).unwrap();
    let report = watched(&daemon, &report);
    let (_, took) = until_grown(&daemon, report, &["lan_in", "wan_out", "home_from"]);
    assert!(took < SOON, "counting went on after {took:?}");
    drop(up);
}

#[test]
fn what_an_uplink_moves_under_another_name_is_within_the_gap_that_is_stated() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let bench = Bench::new(&lab.router, CONFIG);
    let daemon = bench.start();
    let up = stream(&lab, 1000, RATE);
    let (mut report, _) = until_grown(&daemon, daemon.settle(), &["wan_out"]);
    let mut links = Links::open(&lab.router).unwrap();
    // One that lasts, and one that begins and ends before anybody looks.
    for (round, time) in [(1, 700), (2, 50)] {
        links.rename(WAN, "other0").unwrap();
        pause(Duration::from_millis(time));
        links.rename("other0", WAN).unwrap();
        let (grown, took) = until_grown(&daemon, watched(&daemon, &report), &["wan_out"]);
        assert!(took < SOON, "counting went on after {took:?}");
        report = grown;
        eventually("the gap is stated", || {
            (gaps_of_uplink(&bench).len() == round).then_some(())
        });
    }
    up.stop();
    let up = up.finish().unwrap().up;
    assert_eq!(up.sent, up.received, "a name is nothing to a packet");
    let missed = up.sent.bytes - find(&daemon.settle(), "wan_out").bytes;
    let bounds: Vec<u64> = (gaps_of_uplink(&bench).into_iter())
        .map(|gap| gap.bound_bytes.unwrap())
        .collect();
    assert!(
        missed > 0 && missed <= bounds.iter().sum(),
        "{missed} of {bounds:?}"
    );
    assert!(
        bounds[0] < up.sent.bytes,
        "not all that it ever moved: {bounds:?}"
    );
}

/// A cable of that name from here to nowhere, ready to send by.
fn make_cable(here: &Namespace, there: &Namespace, name: &str, number: u8) {
    let device = |name| NewDevice {
        name,
        mac: None,
        merge: true,
    };
    let mut links = Links::open(here).unwrap();
    links.add_veth(device(name), device("far"), there).unwrap();
    let address = |host| {
        format!("10.90.{number}.{host}/24")
            .parse::<ipnet::IpNet>()
            .unwrap()
    };
    links.up(name).unwrap();
    Links::open(there).unwrap().up("far").unwrap();
    links.add_address(name, address(1)).unwrap();
    let neighbour = address(2).addr();
    links
        .add_neighbour(name, neighbour, [2, 0, 0, 0, 7, 7])
        .unwrap();
    links.wait_up(&[name], SOON).unwrap();
}

#[test]
fn devices_that_a_wildcard_matches_count_from_their_first_packet_whenever_they_come() {
    let Some(here) = namespace() else { return };
    let there = Namespace::new("there").unwrap();
    let config = r#"
        tick = "100ms"
        interfaces.tunnels.device = "tun*"
        interfaces.first.device = ["tun1", "nope0"]
        counters.sent = { to = "10.90.0.0/16", out = "tunnels" }
        counters.sent_by_first = { to = "10.90.0.0/16", out = "first" }
    "#;
    let bench = Bench::new(&here, config);
    let daemon = bench.start();
    for number in 1..=5u8 {
        let name = format!("tun{number}");
        make_cable(&here, &there, &name, number);
        let socket = here.run(|| UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
        let to: SocketAddr = format!("10.90.{number}.2:7").parse().unwrap();
        for _ in 0..50 {
            socket.send_to(&[0; 72], to).unwrap();
        }
        let report = daemon.settle();
        let sent = find(&report, "sent");
        // 20 bytes of IPv4 header, 8 of UDP.
        let packets = u64::from(number) * 50;
        assert_eq!((sent.packets, sent.bytes), (packets, packets * 100));
        assert_eq!(find(&report, "sent_by_first").packets, 50, "tun1 alone");
        Links::open(&here).unwrap().delete(&name).unwrap();
    }
}
