//! Devices that go and come back under traffic, with the same name and another index: totals never fall, counting
//! goes on within a second, and whatever does not pass the device is not disturbed.

use std::time::Duration;

use flowctl::event::Event;
use flowctl::lab::link::{Links, NewDevice};
use flowctl::lab::topology::{LAN, UPLINK, WAN};
use flowctl::lab::{Direction, Ends, Family, Generator, Lab, LabOptions, UdpLoad, clock};
use flowctl::report::{CounterReport, Report};
use flowctl::units::BitRate;

use crate::support::{Bench, Daemon, eventually, lab, pause};

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

fn stream(name: &str, ends: &Ends<'_>) -> Generator {
    let load = UdpLoad {
        direction: Direction::Upload,
        payload: 1000,
        rate: Some(BitRate(4e6)),
        datagrams: u64::MAX,
        longest: Duration::from_secs(60),
    };
    Generator::udp(name, ends, &load).unwrap()
}

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
fn an_uplink_that_goes_and_comes_back_counts_again_within_a_second() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let bench = Bench::new(&lab.router, CONFIG);
    let daemon = bench.start();
    let up = stream(
        "up",
        &Ends::new(lab.lan[0].end(Family::V4, 0), lab.server(Family::V4, 0, 9)),
    );
    let inside = stream(
        "inside",
        &Ends::new(lab.iot[0].end(Family::V4, 0), lab.lan[1].end(Family::V4, 9)),
    );
    let mut links = Links::open(&lab.router).unwrap();
    let passing = ["wan_out", "lan_to_wan"];
    let beside = ["things_from", "iot_in", "lan_out", "home_to"];
    let mut all = passing.to_vec();
    all.extend(beside);
    let (mut report, _) = until_grown(&daemon, daemon.settle(), &all);
    for _ in 0..3 {
        let index = links.index(WAN).unwrap();
        links.delete(WAN).unwrap();
        let gone = daemon.settle();
        report = until_grown(&daemon, watched(&daemon, &report), &beside).0;
        for name in passing {
            let (before, after) = (find(&gone, name), find(&report, name));
            assert_eq!(after.bytes, before.bytes, "{name} without its device");
        }
        make_wan_again(&lab);
        assert_ne!(links.index(WAN).unwrap(), index);
        let (grown, took) = until_grown(&daemon, report, &all);
        assert!(took < SOON, "counting went on after {took:?}");
        report = grown;
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
    let up = stream(
        "up",
        &Ends::new(lab.lan[0].end(Family::V4, 0), lab.server(Family::V4, 0, 9)),
    );
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
    let ends = Ends::new(lab.lan[0].end(Family::V4, 0), lab.server(Family::V4, 0, 9));
    let up = stream("up", &ends);
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
