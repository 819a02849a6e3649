//! The daemon as it is: what it costs while nothing happens, how fast it starts, and how fast it reloads.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use flowctl::event::{Event, Record};
use flowctl::lab::latch::Latch;
use flowctl::lab::link::{Links, NewDevice};
use flowctl::lab::{Namespace, clock};
use flowctl::report::Report;
use flowctl::sink::ask::ask;

use crate::setup::{head, median, row, subnets};

/// The device that a subnet follows.
const FOLLOWED: &str = "br-bench";
const CHANGES: usize = 15;
/// How long the daemon waits for others to follow a change, in seconds.
const SETTLING: f64 = 0.2;

pub fn run(quick: bool) {
    let seconds = if quick { 5 } else { 60 };
    head(
        &format!("The daemon at a 1 s tick, over {seconds} s without traffic"),
        &[
            "counters",
            "CPU, % of a core",
            "resident, MiB",
            "start to first answer, ms",
            "reload with one counter more, ms",
            "another prefix on a followed device: in force, ms",
            "CPU, ms",
        ],
    );
    for size in [100, 1_000, 10_000] {
        row(&measure(size, Duration::from_secs(seconds)));
    }
}

fn measure(size: usize, idle: Duration) -> Vec<String> {
    let namespace = Namespace::new("bench").unwrap();
    let mut links = Links::open(&namespace).unwrap();
    let bridge = NewDevice {
        name: FOLLOWED,
        mac: None,
        merge: true,
    };
    links.add_bridge(bridge).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("flowctl.toml");
    let socket = directory.path().join("control.sock");
    std::fs::write(&config, configuration(size)).unwrap();
    let began = Instant::now();
    let mut daemon = start(&namespace, directory.path(), &config, &socket);
    report(&socket);
    let started = began.elapsed();
    // Start-up is over, and with it what only the start costs.
    pause(Duration::from_secs(2));
    let (before, from) = (report(&socket), Instant::now());
    pause(idle);
    let (after, took) = (report(&socket), from.elapsed());
    let share = (after.cost.cpu_seconds - before.cost.cpu_seconds) / took.as_secs_f64();
    let reloaded = reload(size, &daemon, &config, directory.path());
    let (followed, cpu) = follow(&mut links, &socket, directory.path(), share);
    rustix::process::kill_process(pid(&daemon), rustix::process::Signal::TERM).unwrap();
    assert!(daemon.wait().unwrap().success());
    vec![
        size.to_string(),
        format!("{:.3}", share * 100.0),
        format!("{:.1}", after.cost.rss_bytes as f64 / 1024.0 / 1024.0),
        format!("{:.0}", started.as_secs_f64() * 1e3),
        format!("{:.0}", reloaded * 1e3),
        format!("{:.1}", followed * 1e3),
        format!("{:.1}", cpu * 1e3),
    ]
}

/// Two counters of a subnet that follows a device, the others of plain subnets.
fn configuration(size: usize) -> String {
    subnets(size / 2 - 1) + &format!("followed.device = \"{FOLLOWED}\"\n")
}

/// From when a change has settled until its prefixes are in force, as the record says; and the CPU time of one change,
/// beyond that of the ticks meanwhile.
fn follow(links: &mut Links, socket: &Path, state: &Path, share: f64) -> (f64, f64) {
    let (before, from) = (report(socket), Instant::now());
    let mut times = Vec::new();
    for number in 0..CHANGES {
        let address = format!("192.168.{number}.1/24").parse().unwrap();
        let began = clock::wall();
        links.add_address(FOLLOWED, address).unwrap();
        let is_other =
            |record: &Record| record.time >= began && matches!(record.event, Event::Subnet { .. });
        let in_force = record(state, is_other).time.duration_since(began);
        times.push(in_force.as_secs_f64() - SETTLING);
    }
    let (after, took) = (report(socket), from.elapsed().as_secs_f64());
    let spent = after.cost.cpu_seconds - before.cost.cpu_seconds - share * took;
    (median(times), spent.max(0.0) / CHANGES as f64)
}

pub fn start(namespace: &Namespace, state: &Path, config: &Path, socket: &Path) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flowctl"));
    command
        .arg("run")
        .arg("--config")
        .arg(config)
        .arg("--state-dir")
        .arg(state)
        .arg("--socket")
        .arg(socket);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    namespace.run(|| command.spawn()).unwrap().unwrap()
}

/// From the signal until the new configuration is in force, as its record says.
fn reload(size: usize, daemon: &Child, config: &Path, state: &Path) -> f64 {
    std::fs::write(
        config,
        configuration(size) + "one_more = [\"192.0.2.0/24\"]\n",
    )
    .unwrap();
    let began = clock::wall();
    rustix::process::kill_process(pid(daemon), rustix::process::Signal::HUP).unwrap();
    let is_config = |record: &Record| matches!(record.event, Event::Config { .. });
    let reloaded = record(state, is_config);
    reloaded.time.duration_since(began).as_secs_f64()
}

/// The first record that is wanted, as soon as the log has it.
fn record(state: &Path, wanted: impl Fn(&Record) -> bool) -> Record {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let log = std::fs::read_to_string(state.join("drilldowns.jsonl")).unwrap();
        let records = log
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        if let Some(record) = records.into_iter().find(&wanted) {
            return record;
        }
        assert!(Instant::now() < until, "it never happened");
        pause(Duration::from_millis(50));
    }
}

pub fn pid(daemon: &Child) -> rustix::process::Pid {
    rustix::process::Pid::from_raw(daemon.id() as i32).unwrap()
}

/// The daemon's report, as soon as it answers.
pub fn report(socket: &Path) -> Report {
    let began = Instant::now();
    loop {
        match ask(socket, "status") {
            Ok(answer) => return serde_json::from_str(&answer).unwrap(),
            Err(error) => assert!(began.elapsed() < Duration::from_secs(10), "{error}"),
        }
        pause(Duration::from_millis(2));
    }
}

pub fn pause(time: Duration) {
    Latch::default().wait(time);
}
