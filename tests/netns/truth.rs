//! The truth beside flowctl's word: generators that are recorded while they send, and the sums that every account
//! must keep to the byte.

use std::net::IpAddr;
use std::time::Duration;

use flowctl::drilldown::verdict::{HostShare, Verdict};
use flowctl::event::{Event, Raised, TopList};
use flowctl::lab::{Direction, Ends, Generator, TcpLoad, Timeline, UdpLoad, Way};
use flowctl::report::DrilldownReport;
use flowctl::units::BitRate;
use jiff::Timestamp;

use crate::sums::assert_adds_up;
use crate::support::{Bench, Daemon, eventually};

/// No generator outlives a test.
const LONGEST: Duration = Duration::from_secs(60);
/// What a share may differ from the truth.
pub const POINTS: f64 = 0.02;

/// A recorder of all that is sent.
pub struct Truth {
    timeline: Timeline,
}

impl Truth {
    pub fn record() -> Truth {
        Truth {
            timeline: Timeline::start().unwrap(),
        }
    }

    /// A recorded one-way datagram flow.
    pub fn udp(&self, name: &str, ends: Ends<'_>, rate: f64, payload: u16) -> Generator {
        let load = UdpLoad {
            direction: Direction::Upload,
            payload,
            rate: Some(BitRate(rate)),
            datagrams: u64::MAX,
            longest: LONGEST,
        };
        self.recorded(Generator::udp(name, &ends, &load).unwrap())
    }

    /// A recorded connection.
    pub fn tcp(&self, name: &str, ends: Ends<'_>, rate: f64, direction: Direction) -> Generator {
        let load = TcpLoad {
            direction,
            rate: Some(BitRate(rate)),
            bytes: u64::MAX,
            longest: LONGEST,
        };
        self.recorded(Generator::tcp(name, &ends, &load).unwrap())
    }

    fn recorded(&self, generator: Generator) -> Generator {
        self.timeline.watch(&generator);
        generator
    }

    /// What these generators sent within the account, one by one.
    pub fn bytes<const N: usize>(&self, names: [&str; N], way: Way, verdict: &Verdict) -> [u64; N] {
        self.within(names, way, (verdict.started, verdict.ended))
    }

    /// The same within any time, from and to.
    pub fn within<const N: usize>(
        &self,
        names: [&str; N],
        way: Way,
        (from, to): (Timestamp, Timestamp),
    ) -> [u64; N] {
        names.map(|name| {
            let volume = self.timeline.volume_between(name, way, from, to);
            volume.unwrap().bytes
        })
    }

    /// The same, each as a part of all of them.
    pub fn shares<const N: usize>(
        &self,
        names: [&str; N],
        way: Way,
        verdict: &Verdict,
    ) -> [f64; N] {
        let bytes = self.bytes(names, way, verdict);
        let all: u64 = bytes.iter().sum();
        assert!(all > 0, "nothing was sent within the account");
        bytes.map(|bytes| bytes as f64 / all as f64)
    }
}

/// Panics unless `found` is within two points of `truth`.
pub fn assert_near(what: &str, found: f64, truth: f64) {
    assert!(
        (found - truth).abs() <= POINTS,
        "{what}: flowctl says {found:.4}, sent was {truth:.4}"
    );
}

/// The host of that address.
pub fn host(verdict: &Verdict, address: IpAddr) -> &HostShare {
    let found = verdict
        .found
        .hosts
        .iter()
        .find(|host| host.address == address);
    found.unwrap_or_else(|| panic!("{address} is not in {verdict:#?}"))
}

/// The verdict of that threshold, and every sum in the log so far is right.
pub fn await_verdict(daemon: &Daemon<'_>, threshold: &str) -> Verdict {
    let verdict = daemon.await_record("a verdict", |event| match event {
        Event::Verdict(verdict)
            if verdict
                .threshold
                .as_ref()
                .is_some_and(|name| name.as_str() == threshold) =>
        {
            Some(*verdict)
        }
        _ => None,
    });
    assert_log(daemon.bench);
    verdict
}

/// Flows sum to what was counted, where nothing is dropped and nothing moves after the account.
pub fn assert_no_excess(verdict: &Verdict) {
    let part = verdict.found.excess_bytes as f64 / verdict.counted_bytes.unwrap() as f64;
    assert!(part <= POINTS, "{verdict:#?}");
}

/// The newest alert; it names somebody.
pub fn await_raised(daemon: &Daemon<'_>) -> Raised {
    daemon.await_record("raised", |event| match event {
        Event::Raised(raised) => Some(raised),
        _ => None,
    })
}

/// Waits for the beginning of an interval between two readings, and meanwhile sums what the status says.
pub fn beat(daemon: &Daemon<'_>) {
    let before = daemon.status().tick.sequence;
    eventually("the next tick", || {
        let report = daemon.status();
        report.drilldowns.iter().for_each(assert_report);
        (report.tick.sequence > before).then_some(())
    });
}

/// Looks at the status for that many readings.
pub fn beats(daemon: &Daemon<'_>, count: u32) {
    (0..count).for_each(|_| beat(daemon));
}

/// Every record of the log adds up.
pub fn assert_log(bench: &Bench<'_>) {
    let adds_up = ["verdict", "raised", "flows"];
    let lines = bench.lines();
    let records = lines
        .iter()
        .filter(|line| adds_up.contains(&line["event"].as_str().unwrap()));
    records.for_each(assert_adds_up);
}

/// A list's sums are right, and its shares.
pub fn assert_list(list: &TopList) {
    assert_adds_up(&serde_json::to_value(list).unwrap());
}

fn assert_report(drilldown: &DrilldownReport) {
    assert_adds_up(&serde_json::to_value(drilldown).unwrap());
}

/// The contract's equations, to the byte.
pub fn assert_sums(verdict: &Verdict) {
    assert_adds_up(&serde_json::to_value(verdict).unwrap());
}
