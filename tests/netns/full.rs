//! A full disk: the daemon goes on counting and says what it cannot write and what to do; what was written before
//! stays whole, and once there is space it writes on as if nothing had been.

use flowctl::event::{Event, Record};
use flowctl::lab::LabOptions;
use flowctl::report::{Health, Report};
use flowctl::sink::ask::ask;
use flowctl::sink::state::{self, Saved};

use crate::disk::Disk;
use crate::support::{Bench, Daemon, bytes, eventually, lab, said, stream};

const CONFIG: &str = r#"
tick = "200ms"
[interfaces.wan]
device = "wan0"
[subnets]
home = ["10.77.1.0/24"]
[log]
max_size = "4KiB"
keep = 2
"#;

fn saved(bench: &Bench<'_>) -> Saved {
    state::load(&bench.state_dir()).unwrap().saved.unwrap()
}

fn saved_bytes(bench: &Bench<'_>) -> u64 {
    let saved = saved(bench);
    let mut counters = saved.counters.iter();
    counters
        .find(|(name, _)| name.as_str() == "home_from")
        .unwrap()
        .1
        .total
        .bytes
}

fn trouble<'a>(report: &'a Report, code: &str) -> Option<&'a Health> {
    report.health.iter().find(|entry| entry.code == code)
}

/// Has the daemon log something.
fn reload(daemon: &Daemon<'_>) {
    ask(&daemon.bench.socket(), "reload").unwrap();
}

/// Has the daemon log something until it says that it can, or cannot.
fn log_until(daemon: &Daemon<'_>, fails: bool) -> Report {
    eventually("the log's state is told", || {
        (0..8).for_each(|_| reload(daemon));
        let report = daemon.settle();
        (trouble(&report, "log_write_failed").is_some() == fails).then_some(report)
    })
}

/// All lines of the log and of its rotated files, oldest first; those that are no records as `None`.
fn lines(bench: &Bench<'_>) -> Vec<Option<Record>> {
    let names = [
        "drilldowns.jsonl.2",
        "drilldowns.jsonl.1",
        "drilldowns.jsonl",
    ];
    let texts = names.map(|name| std::fs::read(bench.state_dir().join(name)).unwrap_or_default());
    let lines = texts.iter().flat_map(|text| text.split(|b| *b == b'\n'));
    lines
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).ok())
        .collect()
}

#[test]
fn a_full_disk_stops_no_counting_and_is_said_with_its_remedy_until_there_is_space() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let disk = Disk::new(64);
    // Longer than a page of the disk, so that the last record before it is full is torn.
    let config = CONFIG.replace("4KiB", "1MiB");
    let bench = Bench::new(&lab.router, &config).with_state(disk.path());
    let daemon = bench.start();
    let upload = stream(&lab, 1000, 4e6);
    let before = daemon.settle();
    disk.fill();
    let full = log_until(&daemon, true);
    let held = bytes(&full);
    assert!(held > bytes(&before), "it goes on counting");
    assert_eq!(full.tick.missed, 0);
    for code in ["totals_write_failed", "log_write_failed"] {
        let entry = trouble(&full, code).unwrap();
        let causes = ["No space left", "is the disk full?"];
        let named = |cause: &str| entry.message.contains(cause);
        assert!(causes.into_iter().any(named), "{entry:?}");
        assert!(entry.fix.contains("free space"), "{entry:?}");
        for command in ["status", "doctor"] {
            let text = said(&bench.flowctl(&[command]));
            assert!(text.contains(code), "{command}: {text}");
        }
    }
    assert_eq!(bench.flowctl(&["status", "--check"]).status.code(), Some(1));
    assert!(saved_bytes(&bench) <= held, "the last save is whole");

    disk.free();
    let free = eventually("the totals are written again", || {
        Some(daemon.status()).filter(|report| trouble(report, "totals_write_failed").is_none())
    });
    assert!(bytes(&free) > held, "totals never fell");
    assert!(saved_bytes(&bench) > held);
    log_until(&daemon, false);
    let lines = lines(&bench);
    assert!(lines.iter().filter(|line| line.is_none()).count() <= 1);
    let ended = |record: &Record| matches!(&record.event, Event::Health { code, active: false, .. } if code == "totals_write_failed");
    assert!(
        lines.iter().flatten().any(ended),
        "the first record after it is whole: {lines:?}"
    );
    assert_eq!(bench.flowctl(&["status", "--check"]).status.code(), Some(0));
    upload.stop();
    let sent = upload.finish().unwrap().up.sent.bytes;
    assert_eq!(bytes(&daemon.settle()), sent, "not one byte was lost");
    daemon.stop();
    assert_eq!(saved_bytes(&bench), sent);
}

#[test]
fn a_daemon_killed_on_a_full_disk_comes_back_on_it_with_all_it_counted() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let disk = Disk::new(64);
    let bench = Bench::new(&lab.router, CONFIG).with_state(disk.path());
    let daemon = bench.start();
    let upload = stream(&lab, 1000, 4e6);
    daemon.settle();
    disk.fill();
    let full = eventually("the totals cannot be written", || {
        Some(daemon.status()).filter(|report| trouble(report, "totals_write_failed").is_some())
    });
    let held = bytes(&full);
    let old = saved(&bench);
    daemon.kill();
    let half = bench.state_dir().join("totals-live.json.new");
    assert!(
        half.exists(),
        "what was begun does not take the file's place"
    );
    let daemon = bench.start();
    assert!(bytes(&daemon.settle()) > held, "the table still counts");
    assert_eq!(saved(&bench), old, "nothing half-written took its place");
    disk.free();
    upload.stop();
    let sent = upload.finish().unwrap().up.sent.bytes;
    assert_eq!(bytes(&daemon.settle()), sent);
    eventually("the totals are written again", || {
        (saved_bytes(&bench) == sent).then_some(())
    });
    assert!(!half.exists());
    daemon.stop();
}

#[test]
fn a_log_that_rotates_on_a_full_disk_stays_readable_and_goes_on() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let disk = Disk::new(64);
    let bench = Bench::new(&lab.router, CONFIG).with_state(disk.path());
    let daemon = bench.start();
    let fill_up = |rotations: &str| {
        eventually(&format!("the log is rotated to {rotations}"), || {
            reload(&daemon);
            bench
                .state_dir()
                .join(format!("drilldowns.jsonl.{rotations}"))
                .exists()
                .then_some(())
        });
    };
    fill_up("1");
    let before = lines(&bench).len();
    disk.fill();
    log_until(&daemon, true);
    (0..60).for_each(|_| reload(&daemon));
    daemon.settle();
    assert!(
        lines(&bench).len() >= before,
        "a full disk costs no old record"
    );
    let log = bench.flowctl(&["log"]);
    assert_eq!(log.status.code(), Some(0), "{}", said(&log));
    disk.free();
    log_until(&daemon, false);
    fill_up("2");
    daemon.stop();
    let lines = lines(&bench);
    let torn = lines.iter().filter(|line| line.is_none()).count();
    assert_eq!(torn, 0, "half a record is taken back");
    let last = lines.last().unwrap().as_ref().unwrap();
    assert!(matches!(last.event, Event::Stopped { .. }), "{last:?}");
}

#[test]
fn a_reader_of_standard_error_that_stalls_holds_up_neither_log_nor_totals_nor_the_end() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let subnets = |upto: usize| {
        let subnet = |n: usize| format!("a_subnet_with_a_long_name_{n} = [\"10.9.{n}.0/24\"]\n");
        let text = CONFIG.replace("[log]\nmax_size = \"4KiB\"\nkeep = 2\n", "");
        text + &(0..upto).map(subnet).collect::<String>()
    };
    let bench = Bench::new(&lab.router, &subnets(0));
    let daemon = bench.start();
    // Some 3 KiB in words each, far more than a pipe holds.
    for number in 0..60 {
        bench.configure(&subnets(if number % 2 == 0 { 50 } else { 0 }));
        reload(&daemon);
        eventually("the change is in the log", || {
            let told = bench.records().into_iter();
            let told = told.filter(|record| matches!(record.event, Event::Config { .. }));
            (told.count() == number + 1).then_some(())
        });
    }
    let upload = stream(&lab, 1000, 4e6);
    daemon.settle();
    upload.stop();
    let sent = upload.finish().unwrap().up.sent.bytes;
    eventually("the totals are saved", || {
        (saved_bytes(&bench) == sent).then_some(())
    });
    daemon.stop_unheard();
    let last = bench.records().pop().unwrap();
    assert!(matches!(last.event, Event::Stopped { .. }), "{last:?}");
}
