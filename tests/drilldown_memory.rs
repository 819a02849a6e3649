//! A million flows, all of one counter, all from other hosts to other ends, all moving: what a drilldown needs of memory
//! is bounded by design, and the elephant among them is named to the byte. In a process of its own, to be measured.

#![allow(clippy::unwrap_used)]

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use flowctl::config::{Format, parse};
use flowctl::drilldown::rank::RankBy;
use flowctl::drilldown::scope::Scope;
use flowctl::drilldown::set::DrilldownSet;
use flowctl::drilldown::{AccountEnd, AccountStart, Bracket, Counted, Drilldown};
use flowctl::kernel::conntrack::{Detail, FlowRecord, Tuple};
use flowctl::units::{CounterName, Uptime, Volume};

const FLOWS: u32 = 1_000_000;
/// Of the daemon's 64 MiB, the rest is its own, 7 MiB when idle.
const MEBIBYTES_MAX: f64 = 57.0;
const ELEPHANT: u32 = 777_777;

fn volume(bytes: u64) -> Volume {
    Volume {
        bytes,
        packets: bytes / 100,
    }
}

/// One of a million, from 10.0.0.0/8, as the dump of that number shows it.
fn flow(number: u32, dump: u64) -> FlowRecord {
    let each = if number == ELEPHANT { 5_000_000 } else { 100 };
    let tuple = |source: u32, destination: u32| Tuple {
        source: Ipv4Addr::from(source).into(),
        destination: Ipv4Addr::from(destination).into(),
        protocol: 17,
        detail: Detail::Ports {
            source: (number % 50_000) as u16,
            destination: (number % 60_000) as u16,
        },
    };
    let (inside, outside) = (0x0a00_0000 + number, 0xc000_0000 + number);
    FlowRecord {
        original: tuple(inside, outside),
        reply: tuple(outside, inside),
        zone: 0,
        id: number,
        status: 0,
        original_volume: Some(volume(each * dump)),
        reply_volume: Some(volume(0)),
        start: Some(1),
        stop: None,
        labels: None,
        mark: 0,
        tcp_state: None,
    }
}

/// VmHWM.
fn peak_mebibytes() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kibibytes = line.unwrap().split_whitespace().nth(1).unwrap();
    kibibytes.parse::<f64>().unwrap() / 1024.0
}

#[test]
fn a_million_flows_fit_and_the_elephant_is_named_to_the_byte() {
    let before = peak_mebibytes();
    let config = parse("subnets.home = \"10.0.0.0/8\"", Format::Toml).unwrap();
    let counter = config.counter(&CounterName::new("home_from").unwrap());
    let wall = jiff::Timestamp::from_second(1_795_410_000).unwrap();
    let start = AccountStart {
        at: Uptime::default(),
        wall,
        quiet_since: wall,
        capacity: None,
        top: 10,
        rank_by: RankBy::Bytes,
    };
    let scope = Scope::new(&config, counter.unwrap(), &[]);
    let mut set = DrilldownSet::default();
    set.begin(Drilldown::new("d".to_owned(), None, scope, start));
    for dump in 1..=2 {
        set.begin_dump(wall);
        for number in 0..FLOWS {
            set.absorb(&flow(number, dump), &mut |_: IpAddr, _: IpAddr| None);
        }
        set.end_dump(|_| Bracket::default());
    }
    assert_eq!(set.flows_seen(), FLOWS as usize);
    let moved = u64::from(FLOWS - 1) * 100 + 5_000_000;
    let end = AccountEnd {
        at: Uptime(Duration::from_secs(9)),
        wall,
        counted: Some(Counted {
            volume: volume(moved),
            ..Counted::default()
        }),
        ended_by: None,
    };
    let verdict = set.finish("d", end, &()).unwrap();
    let found = &verdict.found;
    assert_eq!(verdict.coverage, Some(1.0));
    assert_eq!((found.attributed_bytes, found.excess_bytes), (moved, 0));
    let elephant = Ipv4Addr::from(0x0a00_0000 + ELEPHANT);
    assert_eq!(found.hosts[0].address, IpAddr::from(elephant));
    assert_eq!(
        (found.hosts[0].bytes, found.flows[0].bytes),
        (5_000_000, 5_000_000)
    );
    assert_eq!(found.flows_total, u64::from(FLOWS));
    assert!(
        found.notes.iter().any(|note| note.contains("order")),
        "{found:#?}"
    );
    let more = peak_mebibytes() - before;
    assert!(more <= MEBIBYTES_MAX, "{more:.1} MiB");
    println!("{more:.1} MiB at most, {before:.1} before");
}
