//! Runs every story in tests/scenarios/drilldown: dumps and readings go in, the verdict must say at least what the
//! story expects. The format is explained in that directory's README.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use flowctl::config::{Config, Format, Interface, parse};
use flowctl::drilldown::rank::RankBy;
use flowctl::drilldown::scope::Scope;
use flowctl::drilldown::set::DrilldownSet;
use flowctl::drilldown::shares::{Device, Known, KnownHosts};
use flowctl::drilldown::verdict::Verdict;
use flowctl::drilldown::{AccountEnd, AccountStart, Bracket, Counted, Drilldown};
use flowctl::kernel::conntrack::{Detail, FlowRecord, Tuple};
use flowctl::units::{CounterName, ThresholdName, Uptime, Volume};
use serde::Deserialize;
use serde_json::Value;
use toml::de::{DeTable, DeValue};

/// The wall clock at the daemon's second 0: 2026-11-23T05:00:00Z.
const WALL: i64 = 1_795_410_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Scenario {
    #[serde(rename = "about")]
    _about: String,
    /// A configuration file, and its counter that is drilled into.
    config: String,
    counter: CounterName,
    /// The router's addresses.
    own: Vec<IpAddr>,
    #[serde(default)]
    names: BTreeMap<IpAddr, String>,
    account: Begin,
    flows: BTreeMap<String, Story>,
    dumps: Vec<Dump>,
    end: End,
    expect: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Begin {
    at: f64,
    /// Nothing was counted between then and `at`.
    quiet_since: Option<f64>,
    top: usize,
    #[serde(default)]
    by_packets: bool,
}

/// A flow's unchanging part: protocol, both tuples as `source > destination`, and the way of its first packets.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Story {
    protocol: u8,
    original: String,
    reply: String,
    way: Option<String>,
    start: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Dump {
    at: f64,
    before: [u64; 2],
    after: [u64; 2],
    /// Bytes and packets of the original, then of the reply direction; empty without accounting.
    shows: Vec<(String, Vec<u64>)>,
    /// Events after the dump: a flow's last counters and when it ended.
    #[serde(default)]
    ends: Vec<(String, f64, Vec<u64>)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct End {
    at: f64,
    counted: [u64; 2],
    peak_bits: f64,
    peak_packets: f64,
    #[serde(default)]
    lost: bool,
}

#[test]
fn every_story_ends_as_told() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios/drilldown");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "toml")
        })
        .collect();
    paths.sort();
    assert!(paths.len() >= 9);
    for path in paths {
        let scenario = read(&path);
        let verdict = run(&scenario);
        assert_sums(&verdict);
        let told = serde_json::to_value(&verdict).unwrap();
        compare(&scenario.expect, &told, &path.display().to_string());
    }
}

/// Everything expected must be there; what is not expected may be.
fn compare(expected: &Value, told: &Value, place: &str) {
    match (expected, told) {
        (Value::Object(expected), Value::Object(told)) => {
            for (key, value) in expected {
                let place = format!("{place}: {key}");
                compare(value, told.get(key).unwrap_or(&Value::Null), &place);
            }
        }
        (Value::Array(expected), Value::Array(told)) => {
            assert_eq!(expected.len(), told.len(), "{place}: {told:#?}");
            for (position, (expected, told)) in expected.iter().zip(told).enumerate() {
                compare(expected, told, &format!("{place}[{position}]"));
            }
        }
        (Value::String(absent), Value::Null) if absent == "absent" => {}
        (Value::Number(expected), Value::Number(told)) => {
            let (expected, told) = (expected.as_f64().unwrap(), told.as_f64().unwrap());
            assert!(
                (expected - told).abs() < 0.0005,
                "{place}: {told}, not {expected}"
            );
        }
        _ => assert_eq!(told, expected, "{place}"),
    }
}

struct Named<'a>(&'a BTreeMap<IpAddr, String>);

impl KnownHosts for Named<'_> {
    fn known(&self, address: IpAddr) -> Known {
        Known {
            name: self.0.get(&address).cloned(),
            mac: None,
        }
    }

    fn device(&self, _: IpAddr) -> Option<Device> {
        None
    }
}

fn assert_sums(verdict: &Verdict) {
    let flows: u64 = verdict.found.flows.iter().map(|flow| flow.bytes).sum();
    let hosts: u64 = verdict.found.hosts.iter().map(|host| host.bytes).sum();
    let all = verdict.found.attributed_bytes + verdict.found.excess_bytes;
    assert_eq!(flows + verdict.found.flows_remainder_bytes, all);
    assert_eq!(hosts + verdict.found.hosts_remainder_bytes, all);
    assert_eq!(
        verdict.found.attributed_bytes + verdict.unexplained_bytes.unwrap(),
        verdict.counted_bytes.unwrap()
    );
}

fn run(scenario: &Scenario) -> Verdict {
    let config = parse(&scenario.config, Format::Toml).unwrap();
    let counter = config.counter(&scenario.counter).unwrap();
    let scope = Scope::new(&config, counter, &scenario.own);
    let start = AccountStart {
        at: uptime(scenario.account.at),
        wall: wall(scenario.account.at),
        quiet_since: wall(scenario.account.quiet_since.unwrap_or(scenario.account.at)),
        capacity: counter.capacity,
        top: scenario.account.top,
        rank_by: if scenario.account.by_packets {
            RankBy::Packets
        } else {
            RankBy::Bytes
        },
    };
    let threshold = ThresholdName::new("watched").unwrap();
    let mut set = DrilldownSet::default();
    let id = "watched-1";
    set.begin(Drilldown::new(id.to_owned(), Some(threshold), scope, start));
    let mut nowhere = |_: IpAddr, _: IpAddr| Some(flowctl::kernel::routes::Path::default());
    for dump in &scenario.dumps {
        set.begin_dump(wall(dump.at));
        for (name, counts) in &dump.shows {
            set.absorb(&record(scenario, &config, name, counts), &mut nowhere);
        }
        set.end_dump(|_| Bracket {
            before: volume(&dump.before),
            after: volume(&dump.after),
        });
        for (name, at, counts) in &dump.ends {
            let mut end = record(scenario, &config, name, counts);
            (end.stop, end.labels) = (Some(nanoseconds(*at)), None);
            set.absorb_end(&end, &mut nowhere);
        }
    }
    if scenario.end.lost {
        set.get_mut(id).unwrap().circumstances().overruns += 1;
    }
    let end = AccountEnd {
        at: uptime(scenario.end.at),
        wall: wall(scenario.end.at),
        counted: Some(Counted {
            volume: volume(&scenario.end.counted),
            peak_bits: scenario.end.peak_bits,
            peak_packets: scenario.end.peak_packets,
            gaps: 0,
        }),
        ended_by: None,
    };
    set.finish(id, end, &Named(&scenario.names)).unwrap()
}

fn record(scenario: &Scenario, config: &Config, name: &str, counts: &[u64]) -> FlowRecord {
    let story = scenario.flows.get(name).expect(name);
    let (original_volume, reply_volume) = match counts {
        [] => (None, None),
        _ => (Some(volume(&counts[..2])), Some(volume(&counts[2..]))),
    };
    FlowRecord {
        original: tuple(story.protocol, &story.original),
        reply: tuple(story.protocol, &story.reply),
        zone: 0,
        id: name
            .bytes()
            .fold(7, |id, byte| id * 31 % 65_521 + u32::from(byte)),
        status: 0,
        original_volume,
        reply_volume,
        start: story.start.map(nanoseconds),
        stop: None,
        labels: story.way.as_ref().map(|way| labels(config, way)),
        mark: 0,
        tcp_state: None,
    }
}

/// `lan > wan`: arrived by lan, left by wan; `lan >`: was for the router; `> wan`: was the router's.
fn labels(config: &Config, way: &str) -> u128 {
    let (arrived, left) = way.split_once('>').unwrap();
    let label = |name: &str| {
        let named = |interface: &&Interface| interface.name.as_str() == name.trim();
        config
            .interfaces
            .iter()
            .find(named)
            .map(|found| found.label)
    };
    label(arrived).map_or(0, |bit| 1 << bit) | label(left).map_or(0, |bit| 1 << (bit + 1))
}

fn tuple(protocol: u8, text: &str) -> Tuple {
    let (source, destination) = text.split_once(" > ").unwrap();
    let end = |text: &str| match text.parse::<SocketAddr>() {
        Ok(end) => (end.ip(), Some(end.port())),
        Err(_) => (text.parse().expect(text), None),
    };
    let ((source, source_port), (destination, destination_port)) = (end(source), end(destination));
    let detail = match (source_port, destination_port) {
        (Some(source), Some(destination)) => Detail::Ports {
            source,
            destination,
        },
        _ => Detail::None,
    };
    Tuple {
        source,
        destination,
        protocol,
        detail,
    }
}

fn volume(counts: &[u64]) -> Volume {
    Volume {
        bytes: counts[0],
        packets: counts[1],
    }
}

fn uptime(seconds: f64) -> Uptime {
    Uptime(Duration::from_secs_f64(seconds))
}

fn wall(seconds: f64) -> jiff::Timestamp {
    jiff::Timestamp::from_nanosecond(nanoseconds(seconds).into()).unwrap()
}

fn nanoseconds(seconds: f64) -> u64 {
    WALL as u64 * 1_000_000_000 + Duration::from_secs_f64(seconds).as_nanos() as u64
}

fn read(path: &Path) -> Scenario {
    let text = std::fs::read_to_string(path).unwrap();
    let table = DeTable::parse(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let value = object(table.get_ref());
    serde_json::from_value(value).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn object(table: &DeTable<'_>) -> Value {
    let entry = |(key, value): (&toml::Spanned<_>, &toml::Spanned<DeValue<'_>>)| {
        let key: &std::borrow::Cow<'_, str> = key.get_ref();
        (key.to_string(), json(value.get_ref()))
    };
    Value::Object(table.iter().map(entry).collect())
}

fn json(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::from(text.as_ref()),
        DeValue::Integer(number) => number
            .as_str()
            .replace('_', "")
            .parse::<i64>()
            .unwrap()
            .into(),
        DeValue::Float(number) => number
            .as_str()
            .replace('_', "")
            .parse::<f64>()
            .unwrap()
            .into(),
        DeValue::Boolean(truth) => Value::from(*truth),
        DeValue::Datetime(time) => Value::from(time.to_string()),
        DeValue::Array(list) => list.iter().map(|value| json(value.get_ref())).collect(),
        DeValue::Table(table) => object(table),
    }
}
