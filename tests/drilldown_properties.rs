//! Whatever flows, dumps and readings come: every sum of the verdict holds to the byte, and nothing underflows.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use flowctl::config::{Counter, Format, Selectors, parse};
use flowctl::drilldown::account::{Account, FirstDump, MissedBytes};
use flowctl::drilldown::rank::RankBy;
use flowctl::drilldown::scope::Scope;
use flowctl::drilldown::set::DrilldownSet;
use flowctl::drilldown::verdict::Verdict;
use flowctl::drilldown::{AccountEnd, AccountStart, Bracket, Counted, Drilldown};
use flowctl::kernel::conntrack::{Detail, FlowRecord, Tuple};
use flowctl::kernel::routes::Path;
use flowctl::units::*;
use proptest::prelude::*;

const START: u64 = 1_795_410_000_000_000_000;

#[derive(Debug, Clone)]
struct Sight {
    opener: u8,
    peer: u8,
    original: Option<(u32, u16)>,
    reply: Option<(u32, u16)>,
    start: Option<i8>,
    labels: Option<u8>,
    event: bool,
}

#[derive(Debug, Clone)]
struct Round {
    sights: Vec<Sight>,
    complete: bool,
    before: u32,
    width: u16,
}

fn sight() -> impl Strategy<Value = Sight> {
    let volume = || prop::option::weighted(0.9, (any::<u32>(), any::<u16>()));
    (
        0u8..12,
        0u8..12,
        volume(),
        volume(),
        prop::option::weighted(0.8, any::<i8>()),
        prop::option::of(0u8..16),
        prop::bool::weighted(0.1),
    )
        .prop_map(
            |(opener, peer, original, reply, start, labels, event)| Sight {
                opener,
                peer,
                original,
                reply,
                start,
                labels,
                event,
            },
        )
}

fn round() -> impl Strategy<Value = Round> {
    let sights = prop::collection::vec(sight(), 0..30);
    (
        sights,
        prop::bool::weighted(0.8),
        any::<u32>(),
        any::<u16>(),
    )
        .prop_map(|(sights, complete, before, width)| Round {
            sights,
            complete,
            before,
            width,
        })
}

fn selectors() -> impl Strategy<Value = Selectors> {
    let interfaces = || {
        prop::option::of(prop::sample::subsequence(vec!["wan", "lan"], 1..=2)).prop_map(|names| {
            names.map(|names| {
                names
                    .iter()
                    .map(|name| InterfaceName::new(name).unwrap())
                    .collect()
            })
        })
    };
    let prefixes = || prop::option::of(Just(vec!["10.0.0.0/29".parse().unwrap()]));
    (interfaces(), interfaces(), prefixes(), prefixes()).prop_map(|(in_, out, from, to)| {
        Selectors {
            in_,
            out,
            from: from.map(Into::into),
            to: to.map(Into::into),
        }
    })
}

fn record(sight: &Sight) -> FlowRecord {
    let address = |last: u8| IpAddr::from([10, 0, 0, last]);
    let volume = |(bytes, packets): (u32, u16)| Volume {
        bytes: bytes.into(),
        packets: packets.into(),
    };
    let tuple = |source, destination| Tuple {
        source: address(source),
        destination: address(destination),
        protocol: 17,
        detail: Detail::Ports {
            source: 1,
            destination: 2,
        },
    };
    FlowRecord {
        original: tuple(sight.opener, sight.peer),
        reply: tuple(sight.peer, sight.opener),
        zone: 0,
        id: 1,
        status: 0,
        original_volume: sight.original.map(volume),
        reply_volume: sight.reply.map(volume),
        start: sight
            .start
            .map(|offset| START.saturating_add_signed(offset.into())),
        stop: None,
        labels: sight.labels.map(u128::from),
        mark: 0,
        tcp_state: None,
    }
}

const CONFIG: &str = r#"
interfaces = { wan.device = "wan", lan.device = "lan" }
subnets.home = "10.0.0.0/30"
"#;

fn drill(selectors: Selectors, rounds: &[Round], counted: u32, top: usize, by: RankBy) -> Verdict {
    let counter = Counter {
        name: CounterName::new("c").unwrap(),
        existing: None,
        selectors,
        capacity: None,
    };
    let scope = Scope::new(
        &parse(CONFIG, Format::Toml).unwrap(),
        &counter,
        &[[10, 0, 0, 9].into(), [10, 0, 0, 1].into()],
    );
    let wall = jiff::Timestamp::from_nanosecond(START.into()).unwrap();
    let start = AccountStart {
        at: Uptime::default(),
        wall,
        quiet_since: wall,
        capacity: None,
        top,
        rank_by: by,
    };
    let threshold = ThresholdName::new("t").unwrap();
    let mut set = DrilldownSet::default();
    set.begin(Drilldown::new(
        "t-1".to_owned(),
        Some(threshold),
        scope,
        start,
    ));
    let mut nowhere = |_: IpAddr, _: IpAddr| Some(Path::default());
    let volume = |bytes: u64| Volume {
        bytes,
        packets: bytes / 100,
    };
    for round in rounds {
        set.begin_dump(wall);
        for sight in &round.sights {
            if sight.event {
                set.absorb_end(&record(sight), &mut nowhere);
            } else {
                set.absorb(&record(sight), &mut nowhere);
            }
        }
        if round.complete {
            let before = u64::from(round.before);
            set.end_dump(|_| Bracket {
                before: volume(before),
                after: volume(before + u64::from(round.width)),
            });
        }
    }
    let end = AccountEnd {
        at: Uptime(Duration::from_secs(9)),
        wall,
        counted: Some(Counted {
            volume: volume(counted.into()),
            peak_bits: 1.0,
            peak_packets: 1.0,
            gaps: 0,
        }),
        ended_by: None,
    };
    set.finish("t-1", end, &()).unwrap()
}

proptest! {
    #[test]
    fn every_sum_of_a_verdict_holds(
        selectors in selectors(),
        rounds in prop::collection::vec(round(), 0..5),
        counted in any::<u32>(),
        top in 0usize..6,
        packets in any::<bool>(),
    ) {
        let by = if packets { RankBy::Packets } else { RankBy::Bytes };
        let verdict = drill(selectors, &rounds, counted, top, by);
        let all = verdict.found.attributed_bytes + verdict.found.excess_bytes;
        let flows: u64 = verdict.found.flows.iter().map(|flow| flow.bytes).sum();
        let hosts: u64 = verdict.found.hosts.iter().map(|host| host.bytes).sum();
        prop_assert_eq!(flows + verdict.found.flows_remainder_bytes, all);
        prop_assert_eq!(hosts + verdict.found.hosts_remainder_bytes, all);
        let outside: u64 = verdict.found.outside.iter().map(|end| end.bytes).sum();
        prop_assert_eq!(outside + verdict.found.outside_remainder_bytes, all);
        let services: u64 = verdict.found.services.iter().map(|service| service.bytes).sum();
        prop_assert_eq!(services + verdict.found.services_remainder_bytes, all);
        prop_assert_eq!(verdict.found.attributed_bytes + verdict.unexplained_bytes.unwrap(), u64::from(counted));
        prop_assert!(verdict.found.excess_bytes == 0 || verdict.unexplained_bytes.unwrap() == 0);
        let causes = verdict.unexplained.unwrap();
        prop_assert_eq!(
            causes.sum(),
            verdict.unexplained_bytes.unwrap()
        );
        prop_assert!((0.0..=1.0).contains(&verdict.coverage.unwrap()));
        let shares: f64 = verdict.found.flows.iter().map(|flow| flow.share).sum();
        prop_assert!(shares <= 1.0 + 1e-9);
        prop_assert!(verdict.found.hosts.len() <= top && verdict.found.flows.len() <= top);
        let weights: Vec<_> = verdict.found.hosts.iter().map(|host| if packets { host.packets } else { host.bytes }).collect();
        prop_assert!(weights.is_sorted_by(|a, b| a >= b));
    }

    #[test]
    fn the_order_within_a_dump_changes_nothing(
        selectors in selectors(),
        sights in prop::collection::vec(sight(), 0..20),
    ) {
        let by_ends: BTreeMap<_, _> = sights
            .into_iter()
            .map(|sight| ((sight.opener, sight.peer), Sight { event: false, ..sight }))
            .collect();
        let forth: Vec<_> = by_ends.into_values().collect();
        let back = forth.iter().rev().cloned().collect();
        let rounds = |sights| [Round { sights, complete: true, before: 5, width: 5 }];
        let verdict = |rounds: &[Round]| drill(selectors.clone(), rounds, 1_000, 3, RankBy::Bytes);
        prop_assert_eq!(verdict(&rounds(forth)), verdict(&rounds(back)));
    }

    #[test]
    fn a_balance_of_any_numbers_sums_up(
        counted: u64, flows: u64, before: u64, after: u64, born: u64, last: u64,
        untracked: u64, unconfirmed: u64, icmp_error: u64,
        older: bool, offloaded: bool, no_accounting: bool, zeroed: bool, lossy: bool, dumped: bool,
    ) {
        let account = Account {
            counted,
            flows,
            first_dump: dumped.then_some(FirstDump {
                counted_before: before,
                counted_after: after,
                born,
                older,
            }),
            counted_by_last_dump: last,
            missed: MissedBytes {
                untracked,
                unconfirmed,
                icmp_error,
            },
            offloaded,
            no_accounting,
            zeroed,
            lossy,
        };
        let balance = account.balance();
        prop_assert_eq!(balance.attributed + balance.unexplained, counted);
        prop_assert_eq!(balance.attributed + balance.excess, flows);
        let causes = balance.causes;
        let sum = causes.sum();
        prop_assert_eq!(sum, balance.unexplained);
        prop_assert!((0.0..=1.0).contains(&account.coverage()));
        prop_assert!((0.0..=1.0).contains(&account.share(flows)));
    }
}
