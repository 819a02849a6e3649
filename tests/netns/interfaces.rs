//! What devices counted themselves beside the counters: present in the status, and where they part from the counters
//! the difference has a name.

use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::time::Duration;

use flowctl::lab::latch::Latch;
use flowctl::lab::topology::Host;
use flowctl::lab::{Family, LabOptions};
use flowctl::report::{DifferenceCause, InterfaceReport};

use crate::support::{Bench, Daemon, eventually, lab, run_in};

const CONFIG: &str = r#"
tick = "500ms"
[interfaces.wan]
device = "wan0"
[interfaces.lan]
device = "br-lan"
[interfaces.port]
device = "lan11"
[interfaces.away]
device = "ppp*"
"#;

#[test]
fn devices_stand_beside_the_counters_and_what_parts_them_has_a_name() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let mut shape = Command::new("tc");
    shape.args(["qdisc", "add", "dev", "wan0", "root", "tbf"]);
    shape.args(["rate", "4mbit", "burst", "16kb", "latency", "50ms"]);
    let shaped = run_in(&lab.router, shape);
    assert!(shaped.status.success(), "{shaped:?}");
    let bench = Bench::new(&lab.router, CONFIG);
    let daemon = bench.start();
    let stop = Latch::default();
    let blast = || blast(&lab.lan[0], lab.server(Family::V4, 0, 9).address, &stop);
    std::thread::scope(|scope| {
        scope.spawn(blast);
        check(&bench, &daemon);
        stop.set();
    });
}

/// Some 12 Mbit/s from a sender that no loss slows down, for at most 30 s.
fn blast(host: &Host, to: SocketAddr, stop: &Latch) {
    let from = SocketAddr::new(host.v4, 0);
    let socket = host
        .namespace
        .run(|| UdpSocket::bind(from))
        .unwrap()
        .unwrap();
    for _ in 0..3_000 {
        for _ in 0..15 {
            // Whatever has no room is lost, as it should be.
            let _ = socket.send_to(&[0; 1000], to);
        }
        if stop.wait(Duration::from_millis(10)) {
            return;
        }
    }
}

fn check(bench: &Bench<'_>, daemon: &Daemon<'_>) {
    let found = |interfaces: &[InterfaceReport], name: &str| {
        let found = interfaces.iter().find(|of| of.name.as_str() == name);
        found.unwrap().clone()
    };
    let report = eventually("the differences are told", || {
        let report = daemon.status();
        let told = |name| !found(&report.interfaces, name).differences.is_empty();
        (told("wan") && told("port")).then_some(report)
    });
    let wan = found(&report.interfaces, "wan");
    let difference = &wan.differences[0];
    assert_eq!(difference.counter.as_str(), "wan_out");
    assert_eq!(difference.cause, DifferenceCause::DroppedByQueue);
    assert!(difference.counted_bytes > 2 * difference.device_bytes);
    let device = &wan.devices[0];
    assert_eq!((device.name.as_str(), device.up), ("wan0", true));
    assert!(device.sent.bits_per_second < 5e6, "{device:?}");
    // As the kernel has it for a veth device.
    assert_eq!(device.speed_bits_per_second, Some(1e10));

    let port = found(&report.interfaces, "port");
    let difference = &port.differences[0];
    assert_eq!(difference.counter.as_str(), "port_in");
    assert_eq!(difference.cause, DifferenceCause::Bridged);
    assert!(difference.device_bytes > 0 && difference.counted_bytes == 0);

    assert!(found(&report.interfaces, "lan").differences.is_empty());
    assert!(found(&report.interfaces, "away").devices.is_empty());
    let shown = bench.flowctl(&["status"]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    for words in [
        "br-lan",
        "absent",
        "10 Gbit/s",
        "queue dropped",
        "name that one",
    ] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
}
