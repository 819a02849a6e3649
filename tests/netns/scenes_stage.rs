//! Where the scenes play: a router whose threshold is crossed by the first packet, so that its account has all that
//! the generators send, and a verdict that is measured against their own count.

use std::cmp::Reverse;
use std::net::IpAddr;
use std::time::Duration;

use flowctl::lab::{Direction, Ends, Family, Generator, Lab, TcpLoad, UdpLoad};
use flowctl::report::StateWord;
use flowctl::units::BitRate;

use crate::support::{Daemon, eventually};
use crate::told::{Verdict, verdicts};
use crate::truth::assert_log;

/// Mbit/s.
pub const M: f64 = 1e6;
/// Any traffic at all.
pub const ANY: &str = "0bit/s";
/// What a share may differ from the truth where that is not known to the byte.
const POINT: f64 = 0.01;
/// What must be explained of an account wherever its rules allow it.
pub const COVERED: f64 = 0.99;
/// No generator outlives a test.
const LONGEST: Duration = Duration::from_secs(60);
/// How many hosts and flows a verdict names.
const TOP: usize = 10;

/// The lab's router, with a threshold of the same name on each of these counters. A scene may not pause for `release`:
/// it would be two.
pub fn config(thresholds: &[(&str, &str)]) -> String {
    let begin = r#"tick = "200ms"
[drilldown]
interval = "200ms"
[interfaces]
wan.device = "wan0"
lan.device = "br-lan"
iot.device = "br-iot"
[subnets]
home = ["10.77.1.0/24", "fd77:1::/64"]
things = ["10.77.2.0/24", "fd77:2::/64"]
[counters]
things_to_internet = { from = "things", out = "wan" }
things_to_home = { from = "things", to = "home" }
from_servers = { from = ["198.51.100.0/24", "2001:db8:64::/64"] }
"#;
    let each = thresholds.iter().map(|(counter, raise)| {
        format!(
            "[thresholds.{counter}]\ncounter = \"{counter}\"\nraise = \"{raise}\"\nhold = \"0s\"\nrelease = \"2s\"\n"
        )
    });
    begin.to_owned() + &each.collect::<String>()
}

/// So many datagrams at that pace.
pub fn datagrams(rate: f64, payload: u16, count: u64) -> UdpLoad {
    UdpLoad {
        direction: Direction::Upload,
        payload,
        rate: Some(BitRate(rate)),
        datagrams: count,
        longest: LONGEST,
    }
}

/// Datagrams at that pace until they are stopped.
pub fn endless(rate: f64, payload: u16) -> UdpLoad {
    datagrams(rate, payload, u64::MAX)
}

/// So many payload bytes at that pace.
pub fn payload(direction: Direction, rate: f64, bytes: u64) -> TcpLoad {
    TcpLoad {
        direction,
        rate: Some(BitRate(rate)),
        bytes,
        longest: LONGEST,
    }
}

pub fn udp(name: &str, ends: &Ends<'_>, load: &UdpLoad) -> Generator {
    Generator::udp(name, ends, load).unwrap()
}

/// Waits for its end, and returns the bytes that went up; all of them have arrived.
pub fn sent(generator: Generator) -> u64 {
    let up = generator.finish().unwrap().up;
    assert_eq!(up.sent, up.received, "lost on the way");
    up.sent.bytes
}

/// Stops it, and returns the same.
pub fn stopped(generator: Generator) -> u64 {
    generator.stop();
    sent(generator)
}

/// One datagram from the last host of the LAN to the internet and one from there to it, until every threshold is
/// awake; returns the bytes of each. From here on every flow begins within the accounts. Else one whose first packet
/// goes the other way than a counter counts may be a hair older than that counter's account.
pub fn wake(lab: &Lab, daemon: &Daemon<'_>) -> u64 {
    let host = lab.lan.last().unwrap();
    let server = |port| lab.server(Family::V6, 9, port);
    let ways = [
        Ends::new(host.end(Family::V6, 0), server(7)),
        Ends::new(server(0), host.end(Family::V6, 7)),
    ];
    let bytes = ways.map(|ends| sent(udp("wake", &ends, &datagrams(M, 1, 1))));
    await_awake(daemon);
    bytes[0]
}

/// Waits until no threshold is idle.
pub fn await_awake(daemon: &Daemon<'_>) {
    eventually("all thresholds are awake", || {
        let thresholds = daemon.status().thresholds;
        let mut states = thresholds.iter().map(|threshold| threshold.state);
        states.all(|state| state != StateWord::Idle).then_some(())
    });
}

/// The verdict of that threshold's episode, counted from 0; every sum in the log so far is right.
pub fn nth_verdict(daemon: &Daemon<'_>, threshold: &str, episode: usize) -> Verdict {
    let verdict = eventually(&format!("verdict {episode} of {threshold}"), || {
        verdicts(daemon.bench, threshold).into_iter().nth(episode)
    });
    assert_log(daemon.bench);
    verdict
}

/// The first.
pub fn verdict(daemon: &Daemon<'_>, threshold: &str) -> Verdict {
    nth_verdict(daemon, threshold, 0)
}

/// Everything that was counted was found in flows, and nothing else.
pub fn assert_complete(verdict: &Verdict) {
    let found = (verdict.attributed_bytes, verdict.excess_bytes);
    assert_eq!(found, (verdict.counted_bytes, 0), "{verdict:#?}");
    assert_eq!(verdict.coverage, 1.0);
    assert!(!verdict.lossy, "{verdict:#?}");
}

/// It is complete, and has these hosts with these bytes and no others, the most first.
pub fn assert_exact(verdict: &Verdict, truth: &[(IpAddr, u64)]) {
    let all: u64 = truth.iter().map(|(_, bytes)| bytes).sum();
    assert_eq!(verdict.counted_bytes, all, "counted: {verdict:#?}");
    assert_complete(verdict);
    let mut truth = truth.to_vec();
    truth.sort_by_key(|(address, bytes)| (Reverse(*bytes), *address));
    assert_eq!(verdict.hosts_total, truth.len() as u64, "{verdict:#?}");
    truth.truncate(TOP);
    let hosts = verdict.hosts.iter().map(|host| (host.address, host.bytes));
    assert_eq!(hosts.collect::<Vec<_>>(), truth, "{verdict:#?}");
}

/// It is within a point of the truth.
pub fn assert_share(what: &str, found: f64, truth: f64) {
    assert!(
        (found - truth).abs() <= POINT,
        "{what}: flowctl says {found:.4}, the truth is {truth:.4}"
    );
}
