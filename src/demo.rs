//! The whole job on a router of its own: a lab, ordinary traffic, one host that fills the uplink, and the daemon
//! as it is. What the generators sent is kept beside what flowctl found, so that everyone can compare.

mod cast;

use std::io;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc as records, watch};
use tokio::time::{Instant, sleep_until};

use self::cast::Cast;
use crate::config::{self, Format};
use crate::daemon::{Daemon, DaemonError, Options, Stopper};
use crate::drilldown::verdict::Verdict;
use crate::event::{Event, Record};
use crate::lab::{Direction, Family, Lab, LabError, LabOptions, clock};
use crate::report::{Report, StateWord};
use crate::sink::service::Service;

/// The uplink's capacity, in bits per second.
pub const CAPACITY: f64 = 50e6;
/// What the culprit sends; together with the others it fills the uplink to some 90 %.
const CULPRIT_RATE: f64 = 42e6;
/// The shortest show that has room for every state.
pub const SECONDS_MIN: u32 = 6;
/// Long enough to watch, short enough to wait for.
pub const SECONDS_DEFAULT: u32 = 16;
/// What a verdict may differ from the truth.
const SHARE_TOLERANCE: f64 = 0.02;
const COVERAGE_MIN: f64 = 0.98;

/// Something to show.
pub enum Moment<'a> {
    /// The next act, in words.
    Stage(String),
    /// A tick's report.
    Report(&'a Report),
    /// A record of the log.
    Record(&'a Record),
}

/// What one host sent towards the internet within the verdict's account, by its own generators.
#[derive(Debug, Clone, PartialEq)]
pub struct Sent {
    /// The host.
    pub address: IpAddr,
    /// What it played.
    pub role: &'static str,
    /// UDP as layer 3 bytes, TCP as payload bytes.
    pub bytes: u64,
    /// Of all hosts.
    pub share: f64,
}

/// How the show went.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The threshold's states, in order.
    pub states: Vec<StateWord>,
    /// The answer.
    pub verdict: Verdict,
    /// The truth, most first.
    pub sent: Vec<Sent>,
    /// The last report.
    pub report: Arc<Report>,
}

/// Why there was no show.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The router could not be made.
    #[error("cannot make the demo's router: {0}")]
    Lab(#[from] LabError),
    /// The daemon did not run on it.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// Something of this machine is missing.
    #[error("cannot {operation}: {source}")]
    System {
        /// What was tried.
        operation: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// Whoever watched went away.
    #[error("nobody watches any more")]
    Unwatched,
    /// Ctrl-C.
    #[error("interrupted; the demo's router and everything on it is gone")]
    Interrupted,
    /// The threshold's story did not end in time.
    #[error("no verdict within {0} s: the machine may be too busy; try again with more --seconds")]
    NoVerdict(u32),
}

impl Outcome {
    /// What is not as it should be; empty when flowctl was right.
    pub fn mistakes(&self) -> Vec<String> {
        let mut mistakes = Vec::new();
        let wanted = [
            StateWord::Idle,
            StateWord::Pending,
            StateWord::Firing,
            StateWord::Clearing,
            StateWord::Idle,
        ];
        if self.states != wanted {
            mistakes.push(format!("the threshold went through {:?}", self.states));
        }
        let culprit = self.sent.first();
        match (self.verdict.found.hosts.first(), culprit) {
            (Some(named), Some(culprit)) if named.address != culprit.address => {
                mistakes.push(format!(
                    "it named {}, but {} sent most",
                    named.address, culprit.address
                ));
            }
            (Some(named), Some(culprit))
                if (named.share - culprit.share).abs() > SHARE_TOLERANCE =>
            {
                mistakes.push(format!(
                    "it said {:.3}, the generator sent {:.3}",
                    named.share, culprit.share
                ));
            }
            (Some(_), Some(_)) => {}
            _ => mistakes.push("it named nobody".to_owned()),
        }
        let coverage = self.verdict.coverage.unwrap_or_default();
        if coverage < COVERAGE_MIN {
            mistakes.push(format!("coverage is {coverage:.3}"));
        }
        mistakes
    }
}

/// The times of the acts.
struct Script {
    culprit_starts: Duration,
    culprit_stops: Duration,
    given_up: Duration,
    config: String,
}

impl Script {
    fn new(seconds: u32) -> Self {
        let part = |share: f64| Duration::from_secs_f64(f64::from(seconds) * share);
        let milliseconds = |time: Duration| time.as_millis();
        let config = format!(
            r#"tick = "{}ms"
[interfaces.wan]
device = "wan0"
capacity = {{ in = "200Mbit/s", out = "{}Mbit/s" }}
[interfaces.lan]
device = ["br-lan", "br-iot"]
[subnets]
home = ["10.77.1.0/24", "fd77:1::/64"]
iot = ["10.77.2.0/24", "fd77:2::/64"]
[counters.iot_to_internet]
from = "iot"
out = "wan"
[thresholds.uplink_full]
counter = "wan_out"
raise = "70%"
clear = "50%"
hold = "{}ms"
release = "{}ms"
[drilldown]
interval = "{}ms"
[names]
leases = []
"#,
            milliseconds(part(0.0125)).clamp(100, 500),
            CAPACITY / 1e6,
            milliseconds(part(0.1)),
            milliseconds(part(0.1)),
            milliseconds(part(0.05)).max(100),
        );
        Script {
            culprit_starts: part(0.2),
            culprit_stops: part(0.7),
            given_up: part(1.0) + Duration::from_secs(10),
            config,
        }
    }
}

/// The configuration of the show, as an operator would write it.
pub fn configuration(seconds: u32) -> String {
    Script::new(seconds).config
}

/// Who watches: told what happens, and asked whether to go on.
pub type Observer<'a> = dyn FnMut(Moment<'_>) -> ControlFlow<()> + 'a;

/// Plays it for `observe`. Everything is gone when it returns.
pub fn run(seconds: u32, observe: &mut Observer<'_>) -> Result<Outcome, DemoError> {
    let system = |operation| move |source| DemoError::System { operation, source };
    let script = Script::new(seconds);
    let config =
        config::parse(&script.config, Format::Toml).map_err(|problems| DemoError::System {
            operation: "read the demo's own configuration",
            source: io::Error::other(
                problems
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join("; "),
            ),
        })?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(system("start a runtime"))?;
    // Before there is anything that a signal could leave behind.
    let signals = Signals::listen(&runtime).map_err(system("listen for signals"))?;
    let state_dir = tempfile::tempdir().map_err(system("make a directory for the demo's state"))?;
    let lab = Lab::build(&LabOptions {
        lan_hosts: 4,
        iot_hosts: 2,
        ..LabOptions::default()
    })?;
    tell(
        observe,
        Moment::Stage(
            "A router of its own: 6 hosts behind it, NAT, an uplink of 50 Mbit/s.".into(),
        ),
    )?;
    let (announced, records) = records::unbounded_channel();
    let (reports, seen) = watch::channel(None);
    let options = Options {
        config,
        source: None,
        notes: Vec::new(),
        state_dir: state_dir.path().to_owned(),
        socket: state_dir.path().join("control.sock"),
        signals: false,
        // The show ends before the daemon does; then nobody listens.
        announce: Box::new(move |record: &Record| drop(announced.send(record.clone()))),
        reports,
        service: Service::default(),
        watchdog: None,
        handed: Vec::new(),
    };
    let (stopper, daemon) = start_daemon(&lab, options)?;
    let mut cast = Cast::enter(&lab)?;
    let stage = Stage {
        script: &script,
        seconds,
        records,
        reports: seen,
        signals,
    };
    let played = runtime.block_on(stage.play(&lab, &mut cast, observe));
    cast.leave();
    stopper.stop("the demo is over");
    match daemon.join() {
        Ok(ended) => ended?,
        Err(panic) => std::panic::resume_unwind(panic),
    }
    let (states, verdict, report) = played?;
    let sent = cast.sent_between(verdict.started, verdict.ended);
    Ok(Outcome {
        states,
        verdict,
        sent,
        report,
    })
}

fn start_daemon(
    lab: &Lab,
    options: Options,
) -> Result<(Stopper, JoinHandle<Result<(), DaemonError>>), DemoError> {
    let (started, up) = mpsc::sync_channel(1);
    let thread = lab.router.spawn("flowctl", move || {
        let daemon = Daemon::start(options)?;
        // The show waits for this; if it was interrupted meanwhile, the daemon is told to stop below.
        let _ = started.send(daemon.stopper());
        daemon.run()
    })?;
    match up.recv() {
        Ok(stopper) => Ok((stopper, thread)),
        Err(mpsc::RecvError) => match thread.join() {
            Ok(Err(error)) => Err(error.into()),
            Ok(Ok(())) => Err(DemoError::Interrupted),
            Err(panic) => std::panic::resume_unwind(panic),
        },
    }
}

struct Stage<'a> {
    script: &'a Script,
    seconds: u32,
    records: records::UnboundedReceiver<Record>,
    reports: watch::Receiver<Option<Arc<Report>>>,
    signals: Signals,
}

/// Ctrl-C and its kin: heard late rather than never, so that everything can be cleared away.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    fn listen(runtime: &tokio::runtime::Runtime) -> io::Result<Self> {
        let _guard = runtime.enter();
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn any(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}

fn tell(observe: &mut Observer<'_>, moment: Moment<'_>) -> Result<(), DemoError> {
    match observe(moment) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(DemoError::Unwatched),
    }
}

impl Stage<'_> {
    /// Acts begin with a beat: a flow that began in the middle of one would be older than the account, and what it
    /// moved until the first dump unexplained.
    async fn play(
        mut self,
        lab: &Lab,
        cast: &mut Cast,
        observe: &mut Observer<'_>,
    ) -> Result<(Vec<StateWord>, Verdict, Arc<Report>), DemoError> {
        let began = Instant::now();
        let mut acts = [
            began + self.script.culprit_starts,
            began + self.script.culprit_stops,
        ]
        .into_iter();
        let mut next_act = acts.next();
        let given_up = began + self.script.given_up;
        let (mut states, mut verdict) = (Vec::new(), None);
        loop {
            tokio::select! {
                () = self.signals.any() => return Err(DemoError::Interrupted),
                () = sleep_until(given_up) => return Err(DemoError::NoVerdict(self.seconds + 10)),
                Some(record) = self.records.recv() => {
                    tell(observe, Moment::Record(&record))?;
                    if let Event::Verdict(found) = record.event {
                        verdict = Some(*found);
                    }
                }
                Ok(()) = self.reports.changed() => {
                    let report = self.reports.borrow_and_update().clone();
                    if let Some(report) = report {
                        let due = next_act.is_some_and(|due| Instant::now() >= due);
                        if due && has_just_begun(&report) {
                            next_act = acts.next();
                            self.act(next_act.is_some(), lab, cast, observe)?;
                        }
                        note_state(&mut states, &report);
                        tell(observe, Moment::Report(&report))?;
                        let idle_again = states.len() > 1 && states.last() == Some(&StateWord::Idle);
                        if let Some(verdict) = verdict.take_if(|_| idle_again) {
                            return Ok((states, verdict, report));
                        }
                    }
                }
            }
        }
    }

    fn act(
        &self,
        begins: bool,
        lab: &Lab,
        cast: &mut Cast,
        observe: &mut Observer<'_>,
    ) -> Result<(), DemoError> {
        if begins {
            let host = &lab.lan[3];
            let text = format!("{} begins to upload at 42 Mbit/s.", host.v4);
            tell(observe, Moment::Stage(text))?;
            cast.tcp(
                host,
                lab,
                Family::V4,
                "the culprit: a backup",
                CULPRIT_RATE,
                Direction::Upload,
            )
        } else {
            tell(observe, Moment::Stage("The upload ends.".into()))?;
            cast.stop_last();
            Ok(())
        }
    }
}

/// Whether the beat after that report has hardly begun: on a busy machine a report may be seen late.
fn has_just_begun(report: &Report) -> bool {
    let age = clock::wall().duration_since(report.time);
    age.as_secs_f64() < report.tick.interval_seconds / 4.0
}

fn note_state(states: &mut Vec<StateWord>, report: &Report) {
    if let Some(threshold) = report.thresholds.first()
        && states.last() != Some(&threshold.state)
    {
        states.push(threshold.state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_of_every_length_is_valid() {
        for seconds in [SECONDS_MIN, SECONDS_DEFAULT, 60, 3600] {
            let config = config::parse(&configuration(seconds), Format::Toml).unwrap();
            assert_eq!(config.thresholds.len(), 1, "{seconds}");
        }
    }
}
