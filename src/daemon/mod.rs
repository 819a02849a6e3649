//! The loop: waits for the next beat or the next message, reads the kernel, asks the engine, and hands what comes
//! of it to sinks and drilldowns. It alone knows the time; everything that could make it wait has its own thread.

pub mod clock;
mod collector;
mod conntrack;
mod demands;
mod doors;
mod drilling;
mod dump;
mod errors;
mod follow;
mod followed;
mod foreign;
mod identity;
mod keep;
mod ledger;
mod lock;
mod lookout;
mod memory;
mod presence;
mod publication;
mod reload;
mod removal;
mod schedule;
mod service;
mod shell;
mod sinks;
mod start;
mod state_dir;
mod static_table;
mod table;
mod to_its_end;
mod vitals;
mod watcher;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;

use crate::ask::{Ask, Outcome, Progress};
use crate::config::Config;
use crate::config::source::Source;
use crate::drilldown::verdict::Verdict;
use crate::engine::Engine;
use crate::event::{Event, Record};
use crate::interfaces::InterfaceWatch;
use crate::kernel::error::KernelError;
use crate::kernel::handed::Handed;
use crate::kernel::monitor::Notice;
use crate::meter::Meter;
use crate::plan::ruleset::Ruleset;
use crate::report::Report;
use crate::sink::drill::DrillRequest;
use crate::sink::reload::Asker;
use crate::sink::service::Service;
use crate::units::{Tick, Uptime};

use collector::Collector;
use demands::Askers;
pub use errors::DaemonError;
use follow::{Resolved, Surroundings};
use ledger::Ledger;
use lookout::{Lookout, Sighting};
use presence::Presence;
use reload::{Loaded, Loading, Refusal};
pub use removal::{Removed, remove};
use schedule::Schedule;
use service::Notifier;
use shell::Shell;
pub use sinks::Announce;
use sinks::Sinks;
use state_dir::StateDir;
use table::{Changed, Reading, Table};
use vitals::Vitals;
use watcher::Watcher;

/// How long verdicts are waited for when the daemon ends.
const LAST_VERDICTS: Duration = Duration::from_secs(5);

/// What a daemon is started with.
pub struct Options {
    /// The configuration.
    pub config: Config,
    /// Where it comes from, to read it again on reload; `None` where it stays as it is.
    pub source: Option<Source>,
    /// What is worth saying about it.
    pub notes: Vec<String>,
    /// Where totals and the log are.
    pub state_dir: PathBuf,
    /// The control socket.
    pub socket: PathBuf,
    /// Whether SIGTERM, SIGINT and SIGHUP are for this daemon.
    pub signals: bool,
    /// Shows records as they happen.
    pub announce: Announce,
    /// Where each report goes.
    pub reports: watch::Sender<Option<Arc<Report>>>,
    /// Who started it and wants to know how it fares; nobody by default.
    pub service: Service,
    /// After how long without a beat that one takes it to hang.
    pub watchdog: Option<Duration>,
    /// What that one kept for it and handed over.
    pub handed: Vec<Handed>,
}

/// What reaches the loop.
enum Message {
    Stop {
        reason: String,
        /// Whether the table is to be removed, so that nobody may keep the socket that owns it.
        for_good: bool,
    },
    /// Who asked waits for what comes of it.
    Reload(Option<Asker>),
    /// The first report can be seen.
    Shown,
    Loaded(Result<Box<Loaded>, Refusal>),
    Ruleset(Notice),
    /// Devices or addresses change.
    Stirred {
        at: Uptime,
        wall: Timestamp,
    },
    /// What they are, once they have settled.
    Network(Box<Sighting>),
    /// Bits per second by device index, where there is a speed.
    Speeds(BTreeMap<u32, f64>),
    /// With the prefixes of the moment, or why not.
    Resolved(Result<Box<Resolved>, String>),
    Progress(Box<Progress>),
    Verdict(Box<Verdict>),
    Drill(Box<DrillRequest>),
    EndDrill {
        drilldown: String,
    },
    Trouble(Trouble),
    /// Something for the log.
    Log(Box<Event>),
    Died {
        thread: &'static str,
        error: String,
    },
}

/// Something besides the loop does not work, or works again.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Trouble {
    /// The health code.
    code: &'static str,
    /// `None` when it works again.
    error: Option<String>,
}

/// Stops a daemon that runs in another thread of this process.
#[derive(Clone)]
pub struct Stopper(SyncSender<Message>);

impl Stopper {
    /// Asks for it; the daemon ends soon after.
    pub fn stop(&self, reason: &str) {
        // A daemon that is gone has nothing left to stop.
        let _ = self.0.send(Message::Stop {
            reason: reason.to_owned(),
            for_good: false,
        });
    }
}

/// A daemon at work.
pub struct Daemon {
    config: Arc<Config>,
    source: Option<Source>,
    loading: Loading,
    inbox: Receiver<Message>,
    sender: SyncSender<Message>,
    table: Table,
    meter: Meter,
    engine: Engine,
    ledger: Ledger,
    schedule: Schedule,
    sequence: u64,
    last_reading: Reading,
    /// The last one that missed no counter.
    last_good: Tick,
    repairs: u64,
    started: Uptime,
    saved_durably_at: Uptime,
    vitals: Vitals,
    collector: Collector,
    askers: Askers,
    sinks: Sinks,
    notifier: Notifier,
    seen: watch::Receiver<Option<Arc<Report>>>,
    shell: Shell,
    watcher: Watcher,
    lookout: Lookout,
    surroundings: Surroundings,
    presence: Presence,
    interfaces: InterfaceWatch,
    _socket: crate::sink::socket::SocketFile,
    _state_dir: StateDir,
    _lock: lock::InstanceLock,
}

impl Daemon {
    /// Something to stop it with.
    pub fn stopper(&self) -> Stopper {
        Stopper(self.sender.clone())
    }

    /// Runs until it is told to stop. The table stays and goes on counting.
    pub fn run(mut self) -> Result<(), DaemonError> {
        let (reason, for_good) = loop {
            self.attend_askers();
            self.attend_service();
            let wait = self.schedule.wait(clock::monotonic());
            if wait.is_zero() {
                self.tick()?;
                self.schedule.made(clock::monotonic());
                continue;
            }
            let due = self.engine.demands().due();
            let wait = due.map_or(wait, |due| wait.min(due.since(clock::uptime())));
            let beat = self.notifier.due();
            let beat = beat.map(|due| due.saturating_duration_since(clock::monotonic()));
            let wait = beat.map_or(wait, |beat| wait.min(beat));
            match self.inbox.recv_timeout(wait) {
                Ok(Message::Stop { reason, for_good }) => break (reason, for_good),
                Ok(message) => self.handle(message)?,
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
        };
        self.stop(reason, for_good)
    }

    fn handle(&mut self, message: Message) -> Result<(), DaemonError> {
        match message {
            // The loop has taken it out already.
            Message::Stop { .. } => {}
            Message::Reload(asker) => self.load_configuration(asker),
            // The loop looks for itself.
            Message::Shown => {}
            Message::Loaded(loaded) => self.reload(loaded)?,
            Message::Ruleset(_) if self.table.is_static() => self.note_load(),
            Message::Ruleset(notice) => self.repair(&cause_of(&notice))?,
            Message::Stirred { at, wall } => self.presence.stir(at, wall),
            Message::Network(sighting) => self.look_around(*sighting),
            Message::Speeds(speeds) => self.surroundings.speeds = speeds,
            Message::Resolved(resolved) => self.carry_over(resolved),
            Message::Progress(progress) => {
                let outcome = self.engine.explain(clock::tick(self.sequence), *progress);
                self.carry_out(outcome);
            }
            Message::Verdict(verdict) => {
                let outcome = self.engine.conclude(*verdict);
                self.carry_out(outcome);
                self.publish();
            }
            Message::Log(event) => self.log(*event),
            Message::Drill(request) => self.drill(*request),
            Message::EndDrill { drilldown } => self.end_drill(&drilldown, Some("asked to")),
            Message::Trouble(trouble) => self.note_trouble(trouble),
            Message::Died { thread, error } => return Err(DaemonError::Thread { thread, error }),
        }
        Ok(())
    }

    /// One beat: read, observe, publish.
    fn tick(&mut self) -> Result<(), DaemonError> {
        self.read()?;
        self.collector.catch_up();
        self.follow();
        self.check_vitals();
        self.publish();
        Ok(())
    }

    /// A reading, and what comes of it.
    fn read(&mut self) -> Result<(), DaemonError> {
        self.sequence += 1;
        let read = self.table.read(&mut self.meter, self.sequence);
        let Some(reading) = self.note_reading(read) else {
            return Ok(());
        };
        self.presence.note(reading.tick.at, self.table.moved());
        let outcome = self.engine.observe(reading.tick, &self.meter);
        let reset = |event: &Event| matches!(event, Event::Reset { .. });
        if outcome.events.iter().any(reset) {
            self.interfaces.begin_again();
        }
        self.carry_out(outcome);
        let devices = self.table.device_readings();
        self.interfaces
            .observe(reading.tick.at, devices, &self.meter);
        if reading.missing > 0 {
            self.repair("counters were missing")?;
        }
        Ok(())
    }

    /// Brings the totals up to date between two ticks. No threshold judges what passed in so short a time: the next tick
    /// does, with the rest of its interval.
    fn read_early(&mut self) {
        // Whoever waits for the report that shows it knows that one by its number.
        self.sequence += 1;
        let read = self.table.read_early(&mut self.meter, self.sequence);
        self.note_reading(read);
    }

    fn note_reading(&mut self, read: Result<Reading, KernelError>) -> Option<Reading> {
        self.note_trouble(Trouble {
            code: "reading_failed",
            error: read.as_ref().err().map(ToString::to_string),
        });
        let reading = read.ok()?;
        if reading.missing_existing != self.last_reading.missing_existing {
            self.vitals.recheck();
        }
        self.last_reading = reading;
        if reading.missing == 0 {
            self.last_good = reading.tick;
        }
        let gaps = self.table.take_foreign_gaps();
        if self.table.is_static() && (!gaps.is_empty() || self.lacks_static_counters()) {
            self.interfaces.begin_again();
        }
        for gap in gaps {
            self.log(gap);
        }
        Some(reading)
    }

    /// Puts the table in force again and says what the interruption may have cost.
    fn repair(&mut self, cause: &str) -> Result<(), DaemonError> {
        match self.table.repair(&mut self.meter) {
            Ok(bound_bytes) => {
                self.note_repair(bound_bytes, cause);
                self.note_trouble(Trouble {
                    code: "repair_failed",
                    error: None,
                });
            }
            // The next tick finds counters missing and tries again.
            Err(error) => self.note_trouble(Trouble {
                code: "repair_failed",
                error: Some(error.to_string()),
            }),
        }
        Ok(())
    }

    fn note_repair(&mut self, bound_bytes: Option<u64>, cause: &str) {
        self.repairs += 1;
        self.interfaces.begin_again();
        let from = std::mem::replace(&mut self.last_good, clock::tick(self.sequence));
        self.log(Event::Gap {
            from: from.wall,
            to: self.last_good.wall,
            bound_bytes,
            cause: cause.to_owned(),
        });
    }

    /// Goes over to another ruleset; what others had done to the table meanwhile is repaired with it.
    fn change_table(&mut self, ruleset: Ruleset) -> Result<(), KernelError> {
        let changed = self.table.change(ruleset, &mut self.meter)?;
        if let Changed::Repaired { bound_bytes } = changed {
            self.note_repair(bound_bytes, "the table was not as it was left");
        }
        Ok(())
    }

    fn carry_out(&mut self, outcome: Outcome) {
        for ask in outcome.asks {
            self.ask(ask);
        }
        for event in outcome.events {
            self.log(event);
        }
        for answer in outcome.answers {
            self.answer(answer);
        }
    }

    fn ask(&mut self, ask: Ask) {
        let behind = "the thread that follows flows does not keep up";
        let kept_up = self.collector.take(ask);
        self.note_trouble(Trouble {
            code: "drilldown_failed",
            error: (!kept_up).then(|| behind.to_owned()),
        });
    }

    fn log(&mut self, event: Event) {
        self.sinks.log(Record {
            time: clock::wall(),
            event,
        });
    }

    /// One last reading, the verdicts of what goes on, the totals; then every thread ends.
    fn stop(mut self, reason: String, for_good: bool) -> Result<(), DaemonError> {
        self.notifier.stopping(&reason, clock::monotonic());
        match self.schedule.is_half_over(clock::monotonic()) {
            true => self.tick()?,
            false => self.read_early(),
        }
        let outcome = self.engine.stop(self.last_reading.tick, &self.meter);
        let awaited = outcome
            .asks
            .iter()
            .filter(|ask| matches!(ask, Ask::End(_)))
            .count();
        self.carry_out(outcome);
        self.await_verdicts(awaited);
        self.log(Event::Stopped { reason });
        self.publish_durably();
        drop(self.inbox);
        self.watcher.finish();
        self.lookout.finish();
        self.collector.finish();
        self.sinks.finish();
        // Those who were not told a verdict by now are told that there is none.
        drop(self.askers);
        drop(self.loading);
        self.shell.finish();
        if for_good {
            self.notifier.forget();
        }
        Ok(())
    }

    fn await_verdicts(&mut self, mut awaited: usize) {
        let until = clock::monotonic() + LAST_VERDICTS;
        while awaited > 0 {
            let wait = until.saturating_duration_since(clock::monotonic());
            match self.inbox.recv_timeout(wait) {
                Ok(Message::Verdict(verdict)) => {
                    awaited -= 1;
                    let outcome = self.engine.conclude(*verdict);
                    self.carry_out(outcome);
                }
                Ok(_) => {}
                Err(_) => return,
            }
        }
    }
}

fn cause_of(notice: &Notice) -> String {
    match notice {
        Notice::Touched { by: Some(program) } => format!("the table was changed by {program}"),
        Notice::Touched { by: None } => "the table was changed".to_owned(),
        Notice::Lost => "notifications of ruleset changes were lost".to_owned(),
        Notice::Quiet | Notice::Called => "nothing".to_owned(),
    }
}
