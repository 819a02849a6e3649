//! What the kernel tests share: a lab or a skip, the real binary started in it, and waiting for what must come.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use flowctl::event::{Event, Record};
use flowctl::lab::{Direction, Ends, Family, Generator, Lab, LabOptions, Namespace, UdpLoad};
use flowctl::report::{CounterReport, Report, StateWord};
use flowctl::units::BitRate;
use jiff::Timestamp;

pub use crate::waiting::{eventually, pause};

/// What many of them count: one interface and one subnet, often.
pub const WAN_AND_HOME: &str = r#"
tick = "100ms"
[interfaces.wan]
device = "wan0"
[subnets]
home = ["10.77.1.0/24"]
"#;

/// The lab, or `None` where the kernel does not allow one.
pub fn lab(options: LabOptions) -> Option<Lab> {
    allowed().then(|| Lab::build(&options).unwrap())
}

/// An empty namespace, or `None` where the kernel does not allow one.
pub fn namespace() -> Option<Namespace> {
    allowed().then(|| Namespace::new("alone").unwrap())
}

/// Whether the kernel allows a lab.
pub fn allowed() -> bool {
    let Err(error) = Namespace::new("probe") else {
        return true;
    };
    let ci = std::env::var_os("CI").is_some_and(|value| value == "true");
    assert!(!ci, "kernel tests must not be skipped in CI: {error}");
    eprintln!("SKIPPED, no privileges: {error}");
    false
}

/// Datagrams from the first host to a server, one after the other until it is stopped.
pub fn stream(lab: &Lab, payload: u16, bits_per_second: f64) -> Generator {
    let ends = Ends::new(lab.lan[0].end(Family::V4, 0), lab.server(Family::V4, 0, 9));
    stream_between(&ends, payload, bits_per_second)
}

/// The same between others.
pub fn stream_between(ends: &Ends<'_>, payload: u16, bits_per_second: f64) -> Generator {
    let load = UdpLoad {
        direction: Direction::Upload,
        payload,
        rate: Some(BitRate(bits_per_second)),
        datagrams: u64::MAX,
        longest: Duration::from_secs(180),
    };
    Generator::udp("stream", ends, &load).unwrap()
}

/// So many packets of 1028 bytes from the first host, to their end; returns their bytes.
pub fn burst(lab: &Lab, datagrams: u64) -> u64 {
    let load = UdpLoad {
        direction: Direction::Upload,
        payload: 1000,
        rate: None,
        datagrams,
        longest: Duration::from_secs(20),
    };
    let ends = Ends::new(lab.lan[0].end(Family::V4, 0), lab.server(Family::V4, 0, 9));
    let burst = Generator::udp("burst", &ends, &load).unwrap();
    burst.finish().unwrap().up.sent.bytes
}

/// The bytes that `home_from` has in a report.
pub fn bytes(report: &Report) -> u64 {
    let mut counters = report.counters.iter();
    counters
        .find(|counter| counter.name.as_str() == "home_from")
        .unwrap()
        .bytes
}

/// What the daemon said of an interruption.
#[derive(Debug, Clone, PartialEq)]
pub struct Gap {
    pub from: Timestamp,
    pub to: Timestamp,
    pub bound_bytes: Option<u64>,
    pub cause: String,
}

/// All that the log says of interruptions so far.
pub fn gaps(bench: &Bench<'_>) -> Vec<Gap> {
    let records = bench.records().into_iter();
    let gaps = records.filter_map(|record| match record.event {
        Event::Gap {
            from,
            to,
            bound_bytes,
            cause,
        } => Some(Gap {
            from,
            to,
            bound_bytes,
            cause,
        }),
        _ => None,
    });
    gaps.collect()
}

/// A place for one daemon: a configuration, a state directory and a socket, in a namespace.
pub struct Bench<'a> {
    pub namespace: &'a Namespace,
    directory: tempfile::TempDir,
    state_dir: PathBuf,
}

impl<'a> Bench<'a> {
    pub fn new(namespace: &'a Namespace, config: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let bench = Bench {
            namespace,
            state_dir: directory.path().join("state"),
            directory,
        };
        bench.configure(config);
        bench
    }

    /// The same with its state elsewhere.
    pub fn with_state(self, state_dir: PathBuf) -> Self {
        Bench { state_dir, ..self }
    }

    /// Writes the configuration; `[control]` is added.
    pub fn configure(&self, config: &str) {
        let text = format!("{config}\n[control]\nsocket = {:?}\n", self.socket());
        // At once, as a daemon may be about to read it: the beginning of a file is a configuration too.
        let new = self.path().join("new.toml");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.config()).unwrap();
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn config(&self) -> PathBuf {
        self.path().join("flowctl.toml")
    }

    pub fn state_dir(&self) -> PathBuf {
        self.state_dir.clone()
    }

    pub fn socket(&self) -> PathBuf {
        self.path().join("control.sock")
    }

    /// `flowctl ARGUMENTS` in the namespace, with this bench's configuration and state.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flowctl"));
        command
            .args(arguments)
            .arg("--config")
            .arg(self.config())
            .arg("--state-dir")
            .arg(self.state_dir());
        command
    }

    /// Runs it to its end.
    pub fn flowctl(&self, arguments: &[&str]) -> Output {
        run_in(self.namespace, self.command(arguments))
    }

    /// Starts a daemon and waits until it answers.
    pub fn start(&self) -> Daemon<'_> {
        self.start_as(self.command(&["run"]))
    }

    /// The same by a command of the caller's, which runs the daemon with less than it usually has.
    pub fn start_as(&self, command: Command) -> Daemon<'_> {
        self.start_from(command, Stdio::null())
    }

    /// The same with something on its standard input.
    pub fn start_from(&self, mut command: Command, input: Stdio) -> Daemon<'_> {
        command
            .stdin(input)
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let child = self.namespace.run(|| command.spawn()).unwrap().unwrap();
        // What it handed to the daemon is the daemon's alone.
        drop(command);
        let mut daemon = Daemon {
            bench: self,
            child: Some(child),
        };
        eventually("the daemon answers", || {
            if let Some(status) = daemon.child.as_mut().unwrap().try_wait().unwrap() {
                let mut said = String::new();
                daemon
                    .child
                    .as_mut()
                    .unwrap()
                    .stderr
                    .take()
                    .unwrap()
                    .read_to_string(&mut said)
                    .unwrap();
                panic!("the daemon ended with {status}: {said}");
            }
            self.flowctl(&["status", "--json"])
                .status
                .success()
                .then_some(())
        });
        daemon
    }

    /// All records of the log so far.
    pub fn records(&self) -> Vec<Record> {
        self.logged()
    }

    /// The same as they are written.
    pub fn lines(&self) -> Vec<serde_json::Value> {
        self.logged()
    }

    fn logged<T: serde::de::DeserializeOwned>(&self) -> Vec<T> {
        let text =
            std::fs::read_to_string(self.state_dir().join("drilldowns.jsonl")).unwrap_or_default();
        // The last line may be just being written.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// `nft ARGUMENTS` in the namespace; panics when it fails.
    pub fn nft(&self, arguments: &[&str]) -> String {
        nft_in(self.namespace, arguments)
    }
}

/// `nft ARGUMENTS` in a namespace; panics when it fails or complains.
pub fn nft_in(namespace: &Namespace, arguments: &[&str]) -> String {
    let mut command = Command::new("nft");
    command.args(arguments);
    let output = run_in(namespace, command);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.is_empty(),
        "nft {arguments:?}: {said}"
    );
    String::from_utf8(output.stdout).unwrap()
}

/// `command` begun by another program, such as setpriv.
pub fn by(program: &[&str], command: &Command) -> Command {
    let mut begun = Command::new(program[0]);
    begun
        .args(&program[1..])
        .arg(command.get_program())
        .args(command.get_args());
    begun
}

/// All that a command said.
pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Runs a command in a namespace to its end.
pub fn run_in(namespace: &Namespace, mut command: Command) -> Output {
    namespace.run(|| command.output()).unwrap().unwrap()
}

/// A running daemon; killed when dropped.
pub struct Daemon<'a> {
    pub bench: &'a Bench<'a>,
    child: Option<Child>,
}

impl Daemon<'_> {
    pub fn pid(&self) -> i32 {
        self.child.as_ref().unwrap().id() as i32
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.pid()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// The newest report.
    pub fn status(&self) -> Report {
        let socket = self.bench.socket();
        let output =
            self.bench
                .flowctl(&["status", "--json", "--socket", socket.to_str().unwrap()]);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// One counter of the newest report.
    pub fn counter(&self, name: &str) -> CounterReport {
        let report = self.status();
        report
            .counters
            .iter()
            .find(|counter| counter.name.as_str() == name)
            .unwrap()
            .clone()
    }

    /// Waits for the next tick after this moment, so that all that was sent before is counted.
    pub fn settle(&self) -> Report {
        let before = self.status().tick.sequence;
        eventually("the next tick", || {
            Some(self.status()).filter(|report| report.tick.sequence > before + 1)
        })
    }

    /// Waits until the only threshold is in that state.
    pub fn await_state(&self, state: StateWord) -> Report {
        eventually(&format!("{state:?}"), || {
            Some(self.status()).filter(|report| report.thresholds[0].state == state)
        })
    }

    /// Waits for a record of the log that `pick` takes.
    pub fn await_record<T>(&self, what: &str, mut pick: impl FnMut(Event) -> Option<T>) -> T {
        eventually(what, || {
            self.bench
                .records()
                .into_iter()
                .rev()
                .find_map(|record| pick(record.event))
        })
    }

    /// SIGTERM; whoever reads its standard error does not read on.
    pub fn stop_unheard(mut self) {
        self.signal(rustix::process::Signal::TERM);
        let mut child = self.child.take().unwrap();
        let status = eventually("the daemon ends", || child.try_wait().unwrap());
        assert!(status.success());
    }

    /// SIGTERM; returns what it said on standard error.
    pub fn stop(mut self) -> String {
        self.signal(rustix::process::Signal::TERM);
        let output = self.child.take().unwrap().wait_with_output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stderr).unwrap()
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        self.end();
    }
}
