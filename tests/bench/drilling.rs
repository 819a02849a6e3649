//! The daemon while it drills in a large table: memory, CPU beside its budget, and whether ticks stay on time.

use std::time::{Duration, Instant};

use flowctl::lab::conntrack::Conntrack;
use flowctl::lab::{Direction, Ends, Family, Generator, Lab, LabOptions, UdpLoad};
use flowctl::report::Report;
use flowctl::sink::ask::ask;
use flowctl::units::BitRate;

use crate::conntrack::{LARGEST, entry, wanted_flows};
use crate::daemon::{pause, pid, report, start};
use crate::setup::{head, row};

/// All flows of the table are of this subnet, so each has to be kept in mind.
const CONFIG: &str = r#"
[subnets]
home = ["10.77.0.0/16"]
[thresholds.any]
counter = "home_from"
raise = "0bit/s"
"#;
const LOOK: Duration = Duration::from_millis(20);

pub fn run(quick: bool) {
    let (flows, seconds) = match (wanted_flows(), quick) {
        (Some(flows), _) => (flows, 60),
        (None, true) => (50_000, 15),
        (None, false) => (LARGEST, 60),
    };
    head(
        &format!("The daemon drilling for {seconds} s, a tick a second, a CPU budget of 5 %"),
        &[
            "flows",
            "resident at most, MiB",
            "CPU, % of a core",
            "dumps",
            "last dump, ms",
            "ticks missed",
            "latest tick, ms late",
        ],
    );
    row(&drill(flows, Duration::from_secs(seconds)));
}

fn drill(flows: u64, time: Duration) -> Vec<String> {
    let options = LabOptions {
        lan_hosts: 1,
        iot_hosts: 0,
        ..LabOptions::default()
    };
    let lab = Lab::build(&options).unwrap();
    let mut conntrack = Conntrack::open(&lab.router).unwrap();
    conntrack.create((0..flows).map(entry)).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("flowctl.toml");
    let socket = directory.path().join("control.sock");
    std::fs::write(&config, CONFIG).unwrap();
    let mut daemon = start(&lab.router, directory.path(), &config, &socket);
    report(&socket);
    let load = UdpLoad {
        direction: Direction::Upload,
        payload: 1_000,
        rate: Some(BitRate(2_000_000.0)),
        datagrams: u64::MAX,
        longest: time * 10,
    };
    let ends = Ends::new(lab.lan[0].end(Family::V4, 0), lab.server(Family::V4, 0, 9));
    let stream = Generator::udp("stream", &ends, &load).unwrap();
    let drilled = || {
        Some(report(&socket)).filter(|report| {
            report
                .drilldowns
                .iter()
                .any(|drilldown| drilldown.dumps > 0)
        })
    };
    while drilled().is_none() {
        pause(LOOK);
    }
    let (before, from) = (report(&socket), Instant::now());
    let lateness = latest(&socket, time);
    let (after, took) = (report(&socket), from.elapsed());
    stream.stop();
    let resident = peak_resident(daemon.id());
    rustix::process::kill_process(pid(&daemon), rustix::process::Signal::TERM).unwrap();
    assert!(daemon.wait().unwrap().success());
    let cpu = (after.cost.cpu_seconds - before.cost.cpu_seconds) / took.as_secs_f64();
    let drilldown = &after.drilldowns[0];
    vec![
        flows.to_string(),
        format!("{resident:.1}"),
        format!("{:.2}", cpu * 100.0),
        drilldown.dumps.to_string(),
        format!("{:.0}", drilldown.dump_microseconds as f64 / 1e3),
        (after.tick.missed - before.tick.missed).to_string(),
        format!("{:.0}", lateness * 1e3),
    ]
}

/// How much later than the promptest, on the beat, the latest report came, in seconds; in steps of what a look takes.
fn latest(socket: &std::path::Path, time: Duration) -> f64 {
    let began = Instant::now();
    let mut last = 0;
    let (mut promptest, mut latest) = (f64::MAX, f64::MIN);
    while began.elapsed() < time {
        let answer = ask(socket, "status").unwrap();
        let seen: Report = serde_json::from_str(&answer).unwrap();
        if seen.tick.sequence != last {
            let offset = began.elapsed().as_secs_f64() - seen.tick.sequence as f64;
            if last != 0 {
                (promptest, latest) = (promptest.min(offset), latest.max(offset));
            }
            last = seen.tick.sequence;
        }
        pause(LOOK);
    }
    latest - promptest
}

/// VmHWM, in MiB.
fn peak_resident(process: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kibibytes = line.unwrap().split_whitespace().nth(1).unwrap();
    kibibytes.parse::<f64>().unwrap() / 1024.0
}
