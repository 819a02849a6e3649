//! What a service manager hears of a daemon: that it is ready, what is the case, that its loop goes on, and why it is not
//! there.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use flowctl::lab::LabOptions;
use flowctl::report::StateWord;
use rustix::fs::OFlags;
use rustix::process::Signal;

use crate::manager::Manager;
use crate::support::{Bench, eventually, lab, namespace, pause, run_in, said, stream};

const CONFIG: &str = r#"
tick = "100ms"
[interfaces.wan]
device = "wan0"
capacity = { in = "10Mbit/s", out = "10Mbit/s" }
[subnets]
home = ["10.77.1.0/24"]
[thresholds.busy]
counter = "wan_out"
raise = "20%"
hold = "300ms"
release = "300ms"
drilldown = false
"#;

#[test]
fn it_is_ready_when_a_report_can_be_seen_and_says_each_change_once() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let bench = Bench::new(&lab.router, CONFIG);
    let manager = Manager::new();
    let daemon = manager.start(&bench, &[]);
    let ready = manager.await_lines(&["READY=1", "STATUS=4 counters, all quiet"]);
    assert_eq!(manager.values("STATUS="), ["4 counters, all quiet"]);
    let upload = stream(&lab, 1000, 8e6);
    daemon.await_state(StateWord::Firing);
    // Many ticks, with rates that move.
    pause(Duration::from_secs(1));
    let statuses = manager.values("STATUS=");
    assert_eq!(statuses.len(), 3, "{statuses:?}");
    assert!(
        statuses[1].starts_with("busy is pending on wan_out: "),
        "{statuses:?}"
    );
    assert!(
        statuses[2].starts_with("busy fires on wan_out: ")
            && statuses[2].ends_with(" % of capacity"),
        "{statuses:?}"
    );
    upload.stop();
    upload.finish().unwrap();
    daemon.await_state(StateWord::Idle);
    manager.await_lines(&["STATUS=4 counters, all quiet"]);
    daemon.stop();
    let said = manager.said();
    let stopping = manager.await_lines(&["STOPPING=1", "STATUS=stopped: SIGTERM"]);
    assert!(ready < stopping && stopping == said.len() - 1, "{said:?}");
    assert_eq!(manager.values("READY="), ["1"]);
    assert_eq!(
        manager.values("WATCHDOG="),
        [""; 0],
        "nobody asked for beats"
    );
}

/// A pipe that holds no byte more until it is drained.
struct FullPipe {
    end: File,
    bytes: usize,
}

impl FullPipe {
    fn new(path: &Path) -> FullPipe {
        let made = Command::new("mkfifo").arg(path).status();
        assert!(made.unwrap().success());
        let at_once = OFlags::NONBLOCK.bits().cast_signed();
        let mut both_ends = OpenOptions::new();
        both_ends.read(true).write(true).custom_flags(at_once);
        let mut end = both_ends.open(path).unwrap();
        let mut bytes = 0;
        let full = loop {
            match end.write(&[b'\n'; 4096]) {
                Ok(written) => bytes += written,
                Err(error) => break error,
            }
        };
        assert_eq!(full.kind(), ErrorKind::WouldBlock, "{full}");
        FullPipe { end, bytes }
    }

    fn drain(&mut self) {
        self.end.read_exact(&mut vec![0; self.bytes]).unwrap();
    }
}

#[test]
fn it_is_not_ready_while_a_log_that_takes_nothing_keeps_the_first_report_from_being_shown() {
    let Some(namespace) = namespace() else { return };
    let config = CONFIG.replace("100ms", "1h");
    let bench = Bench::new(&namespace, &config);
    let log = bench.path().join("log");
    bench.configure(&format!("{config}[log]\npath = {log:?}\n"));
    let mut pipe = FullPipe::new(&log);
    let manager = Manager::new();
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| {
            manager.await_lines(&["FDSTORE=1"]);
            pause(Duration::from_millis(500));
            let early = manager.values("READY=");
            pipe.drain();
            early
        });
        let daemon = manager.start(&bench, &[]);
        assert_eq!(slow.join().unwrap(), [""; 0]);
        manager.await_lines(&["READY=1"]);
        daemon.stop();
    });
}

#[test]
fn the_loop_beats_in_time_however_long_a_tick_is_and_a_loop_that_hangs_does_not() {
    let Some(namespace) = namespace() else { return };
    let bench = Bench::new(&namespace, &CONFIG.replace("100ms", "1h"));
    let manager = Manager::new();
    let daemon = manager.start(&bench, &[("WATCHDOG_USEC", "600000")]);
    let ready = manager.await_lines(&["READY=1"]);
    pause(Duration::from_secs(2));
    let beats = || {
        let said = manager.said().into_iter();
        said.filter(|said| said.lines == ["WATCHDOG=1"])
            .collect::<Vec<_>>()
    };
    let times: Vec<Duration> = beats().iter().map(|said| said.at).collect();
    assert!(times.len() >= 7, "{times:?}");
    for pair in times.windows(2) {
        let apart = pair[1] - pair[0];
        assert!(apart <= Duration::from_millis(300), "{times:?}");
    }
    assert!(
        manager.said().len() <= ready + times.len() + 3,
        "beats and nothing else: {:?}",
        manager.said()
    );
    daemon.signal(Signal::STOP);
    pause(Duration::from_millis(300));
    let before = beats().len();
    pause(Duration::from_millis(700));
    assert_eq!(beats().len(), before);
    daemon.signal(Signal::CONT);
    eventually("it beats again", || (beats().len() > before).then_some(()));
}

#[test]
fn a_reload_is_announced_with_its_time_and_ended() {
    let Some(namespace) = namespace() else { return };
    let bench = Bench::new(&namespace, CONFIG);
    let manager = Manager::new();
    let daemon = manager.start(&bench, &[]);
    manager.await_lines(&["READY=1"]);
    for (config, code) in [
        (CONFIG.replace("100ms", "200ms"), 0),
        ("[broken".into(), 78),
    ] {
        let before = manager.said().len();
        bench.configure(&config);
        let output = bench.flowctl(&["reload", "--socket", bench.socket().to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(code), "{}", said(&output));
        let said = manager.said()[before..].to_vec();
        assert_eq!(said[0].lines[0], "RELOADING=1", "{said:?}");
        let told = said[0].lines[1].strip_prefix("MONOTONIC_USEC=").unwrap();
        let monotonic = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let age = monotonic.tv_sec - told.parse::<i64>().unwrap() / 1_000_000;
        assert!((0..20).contains(&age), "{told}");
        assert!(
            said[1..].iter().any(|said| said.lines == ["READY=1"]),
            "before flowctl reload ends: {said:?}"
        );
    }
    daemon.stop();
}

#[test]
fn why_it_does_not_run_is_said_in_a_line() {
    let Some(namespace) = namespace() else { return };
    let bench = Bench::new(&namespace, CONFIG);
    let manager = Manager::new();
    let last_words = |code: i32| {
        let output = run_in(&namespace, manager.command(&bench, &[]));
        assert_eq!(output.status.code(), Some(code), "{}", said(&output));
        assert_eq!(manager.values("READY="), [""; 0]);
        (manager.values("STATUS=").pop().unwrap(), said(&output))
    };
    bench.configure("tick = 1\n[tabel]\n[interfaces.wan]\ndevice = 7\n");
    let (words, all) = last_words(78);
    assert!(
        words.contains("flowctl.toml:1:8: tick: 1 has no unit"),
        "{words}"
    );
    assert!(
        words.ends_with("; and 2 more problems, see the journal"),
        "{words}"
    );
    assert!(
        all.contains("tabel") && all.contains("interfaces.wan.device"),
        "{all}"
    );
    bench.configure(CONFIG);
    bench.nft(&["add", "table", "inet", "flowctl"]);
    let (words, _) = last_words(1);
    assert!(words.contains("exists and is not flowctl's"), "{words}");
    bench.nft(&["delete", "table", "inet", "flowctl"]);
    std::fs::write(bench.state_dir(), "a file").unwrap();
    let (words, _) = last_words(1);
    assert!(words.starts_with("state directory "), "{words}");
    assert_eq!(bench.nft(&["list", "ruleset"]), "");
}

#[test]
fn in_the_journal_every_line_has_its_priority() {
    let Some(namespace) = namespace() else { return };
    let bench = Bench::new(&namespace, "tick = 1\n[tabel]\n");
    let log = bench.path().join("journal");
    let run = |stream: &dyn Fn(&std::fs::Metadata) -> String| {
        let journal = std::fs::File::create(&log).unwrap();
        let stream = stream(&journal.metadata().unwrap());
        let mut command = bench.command(&["run"]);
        command.env("JOURNAL_STREAM", stream).stderr(journal);
        let status = namespace.run(|| command.status()).unwrap().unwrap();
        assert_eq!(status.code(), Some(78));
        std::fs::read_to_string(&log).unwrap()
    };
    use std::os::unix::fs::MetadataExt;
    let text = run(&|file| format!("{}:{}", file.dev(), file.ino()));
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(text.lines().all(|line| line.starts_with("<3>")), "{text}");
    let text = run(&|file| format!("{}:{}", file.dev(), file.ino() + 1));
    assert!(!text.contains("<3>"), "{text}");
}
