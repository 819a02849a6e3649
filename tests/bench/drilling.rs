//! A drilldown on a router whose conntrack table is large: what the daemon needs of CPU and memory, whether its ticks
//! stay on time, and whether the one flow that moves is named.

use std::path::Path;
use std::time::{Duration, Instant};

use flowctl::drilldown::verdict::Verdict;
use flowctl::event::{Event, Record};
use flowctl::kernel::flow_request::dump_request;
use flowctl::lab::conntrack::Conntrack;
use flowctl::lab::{Direction, Ends, Family, Generator, Lab, LabOptions, UdpLoad};
use flowctl::report::Report;
use flowctl::units::BitRate;

use crate::conntrack::{LARGEST, entry, wanted_flows};
use crate::daemon::{pause, pid, report, start};
use crate::setup::{connected, head, median, receive_only, row};

const CONFIG: &str = r#"
[interfaces]
wan.device = "wan0"
[subnets]
home = "10.77.0.0/16"
[thresholds.watched]
counter = "COUNTER"
raise = "0bit/s"
release = "1s"
"#;
/// cpu_budget's default, in percent.
const BUDGET: f64 = 5.0;
/// How often the report is read: often enough to meet every tick of a second.
const LOOK: Duration = Duration::from_millis(100);

pub fn run(quick: bool) {
    let seconds = if quick { 10 } else { 60 };
    head(
        &format!("A drilldown over {seconds} s, one flow of 1 Mbit/s among flows that stand still"),
        &[
            "flows",
            "counter",
            "dump, ms",
            "received only, ms",
            "ratio",
            "CPU, % of a core",
            "of the budget",
            "resident, MiB at most",
            "latest tick, ms",
            "named, share",
        ],
    );
    let sizes = match (wanted_flows(), quick) {
        (Some(flows), _) => vec![flows],
        (None, true) => vec![50_000],
        (None, false) => vec![10_000, LARGEST],
    };
    for size in sizes {
        for counter in ["home_from", "wan_out"] {
            row(&measure(size, counter, Duration::from_secs(seconds)));
        }
    }
}

fn measure(size: u64, counter: &str, time: Duration) -> Vec<String> {
    let lab = Lab::build(&LabOptions::default()).unwrap();
    let mut conntrack = Conntrack::open(&lab.router).unwrap();
    conntrack.create((0..size).map(entry)).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("flowctl.toml");
    let socket = directory.path().join("control.sock");
    std::fs::write(&config, CONFIG.replace("COUNTER", counter)).unwrap();
    let mut daemon = start(&lab.router, directory.path(), &config, &socket);
    report(&socket);
    pause(Duration::from_secs(2));
    let elephant = elephant(&lab, time);
    let watched = watch(&socket, time);
    let resident = peak_resident(daemon.id());
    elephant.stop();
    elephant.finish().unwrap();
    let verdict = verdict(directory.path());
    let floor = lab.router.run(floor).unwrap();
    rustix::process::kill_process(pid(&daemon), rustix::process::Signal::TERM).unwrap();
    assert!(daemon.wait().unwrap().success());
    let named = verdict.found.hosts.first().unwrap();
    assert_eq!(named.address, lab.lan[0].v4);
    let dump = median(watched.dumps);
    vec![
        size.to_string(),
        counter.to_owned(),
        format!("{dump:.1}"),
        format!("{floor:.1}"),
        format!("{:.2}", dump / floor),
        format!("{:.2}", watched.cpu),
        format!("{:.2}", watched.cpu / BUDGET),
        format!("{resident:.1}"),
        format!("{:.0}", watched.latest * 1e3),
        format!("{}, {:.3}", named.address, named.share),
    ]
}

fn elephant(lab: &Lab, time: Duration) -> Generator {
    let ends = Ends::new(
        lab.lan[0].end(Family::V4, 0),
        lab.server(Family::V4, 0, 443),
    );
    let load = UdpLoad {
        direction: Direction::Upload,
        payload: 1_000,
        rate: Some(BitRate(1e6)),
        datagrams: u64::MAX,
        longest: time + Duration::from_secs(60),
    };
    Generator::udp("elephant", &ends, &load).unwrap()
}

struct Watched {
    /// Milliseconds each.
    dumps: Vec<f64>,
    /// Percent of a core.
    cpu: f64,
    /// Seconds behind the beat.
    latest: f64,
}

/// Reads the report again and again while the drilldown goes on. A tick is late by what it comes after the earliest of
/// all, each taken back by its number.
fn watch(socket: &Path, time: Duration) -> Watched {
    let (before, from) = (report(socket), Instant::now());
    let (mut dumps, mut beats) = (Vec::new(), Vec::new());
    let mut seen = (0, 0);
    let mut last: Report = before.clone();
    while from.elapsed() < time {
        pause(LOOK);
        last = report(socket);
        if let Some(drilldown) = last.drilldowns.first().filter(|one| one.dumps > seen.0) {
            seen.0 = drilldown.dumps;
            dumps.push(drilldown.dump_microseconds as f64 / 1e3);
        }
        if last.tick.sequence > seen.1 {
            seen.1 = last.tick.sequence;
            beats.push(last.uptime_seconds - last.tick.sequence as f64);
        }
    }
    let cpu = last.cost.cpu_seconds - before.cost.cpu_seconds;
    let earliest = beats.iter().copied().fold(f64::INFINITY, f64::min);
    let latest = beats
        .iter()
        .copied()
        .fold(0.0, |latest, beat| f64::max(latest, beat - earliest));
    assert_eq!(last.tick.missed, before.tick.missed);
    Watched {
        dumps,
        cpu: cpu / from.elapsed().as_secs_f64() * 100.0,
        latest,
    }
}

/// VmHWM, in MiB.
fn peak_resident(process: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kibibytes = line.unwrap().split_whitespace().nth(1).unwrap();
    kibibytes.parse::<f64>().unwrap() / 1024.0
}

fn verdict(state: &Path) -> Verdict {
    let began = Instant::now();
    loop {
        let log = std::fs::read_to_string(state.join("drilldowns.jsonl")).unwrap_or_default();
        let records = log
            .lines()
            .filter_map(|line| serde_json::from_str::<Record>(line).ok());
        let found = records.into_iter().find_map(|record| match record.event {
            Event::Verdict(verdict) => Some(*verdict),
            _ => None,
        });
        if let Some(verdict) = found {
            return verdict;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "no verdict");
        pause(LOOK);
    }
}

/// Milliseconds for which the same dump is only received.
fn floor() -> f64 {
    let socket = connected();
    let mut buffer = vec![0_u8; 64 * 1024];
    let mut times = Vec::new();
    for _ in 0..7 {
        let began = Instant::now();
        receive_only(&socket, &dump_request(1), &mut buffer);
        times.push(began.elapsed().as_secs_f64() * 1e3);
    }
    median(times)
}
