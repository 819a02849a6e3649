//! The thread that writes: log records, totals, and then the report that shows them, so that nobody ever sees a total
//! that the end of this process could take back. It takes what the loop hands it without ever making it wait; records
//! that do not fit are lost and counted, and of readings only the newest matters.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;

use super::{Message, Trouble};
use crate::config::LogConfig;
use crate::event::Record;
use crate::report::Report;
use crate::sink::log::LogFile;
use crate::sink::state::{self, Saved};
use crate::units::Uptime;

/// Records that may wait for a slow disk, and as many again for one that is full.
const QUEUE: usize = 1024;
/// Reports wait for their totals to be saved, but not longer for a disk that does not answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Shows a record to whoever watches the daemon's standard error.
pub type Announce = Box<dyn Fn(&Record) + Send>;
/// Where reports go.
pub type Reports = watch::Sender<Option<Arc<Report>>>;

/// What is written and shown of one reading.
pub struct Publication {
    /// The totals.
    pub saved: Saved,
    /// Whether they must survive a power cut from here on.
    pub durable: bool,
    /// The report that shows them.
    pub report: Arc<Report>,
}

/// One thing to do, in order.
enum Job {
    Record(Box<Record>),
    /// Wakes the thread: the newest reading is waiting.
    Reading,
    /// The log goes elsewhere from now on.
    Log(LogConfig),
}

/// What both ends know.
#[derive(Default)]
struct Shared {
    /// The newest one, until the thread takes it.
    waiting: Mutex<Option<Publication>>,
    /// The serial of the newest save that the thread has done with.
    done: AtomicU64,
    /// Records that no longer waited for a full disk.
    given_up: AtomicU64,
}

/// The loop's end of the queue.
pub struct Sinks {
    jobs: SyncSender<Job>,
    thread: JoinHandle<()>,
    lost: u64,
    shared: Arc<Shared>,
    reports: Reports,
    /// A save that the thread has not done with, and since when it waits for that.
    awaited: Option<(u64, Uptime)>,
}

impl Sinks {
    /// Starts the thread; `log` is relative to `state_dir`.
    pub fn start(
        state_dir: &Path,
        log: LogConfig,
        announce: Announce,
        reports: Reports,
        inbox: SyncSender<Message>,
    ) -> std::io::Result<Self> {
        let (jobs, queue) = sync_channel(QUEUE);
        let shared = Arc::new(Shared::default());
        let mut writer = Writer {
            state_dir: state_dir.to_owned(),
            log_config: log,
            log: None,
            announce,
            reports: reports.clone(),
            shared: Arc::clone(&shared),
            inbox,
            unwritten: VecDeque::new(),
            log_failed: false,
            totals_failed: false,
            not_durable: None,
            told_shown: false,
        };
        let thread = std::thread::Builder::new()
            .name("sinks".into())
            .spawn(move || writer.run(&queue))?;
        Ok(Sinks {
            jobs,
            thread,
            lost: 0,
            shared,
            reports,
            awaited: None,
        })
    }

    /// Hands over a line of the log.
    pub fn log(&mut self, record: Record) {
        self.queue(Job::Record(Box::new(record)));
    }

    /// The log goes elsewhere from now on.
    pub fn set_log(&mut self, config: LogConfig) {
        self.queue(Job::Log(config));
    }

    /// Hands over a reading at `now`; it takes the place of one that still waits. False when the disk has not
    /// answered for so long that the report is shown without having been saved.
    pub fn take(&mut self, mut reading: Publication, now: Uptime) -> bool {
        let done = self.shared.done.load(Ordering::Acquire);
        if self.awaited.is_some_and(|(serial, _)| serial <= done) {
            self.awaited = None;
        }
        let (_, since) = *self.awaited.get_or_insert((reading.saved.serial, now));
        let in_time = now.since(since) < PATIENCE;
        if !in_time {
            show(&self.reports, &reading.report);
        }
        let mut waiting = lock(&self.shared.waiting);
        let older = waiting.take();
        let alone = older.is_none();
        reading.durable |= older.is_some_and(|older| older.durable);
        *waiting = Some(reading);
        drop(waiting);
        if alone {
            // Where the queue has no room for the word, the thread finds the reading after what fills it.
            let _ = self.jobs.try_send(Job::Reading);
        }
        in_time
    }

    fn queue(&mut self, job: Job) {
        if self.jobs.try_send(job).is_err() {
            self.lost += 1;
        }
    }

    /// How many records were lost.
    pub fn lost(&self) -> u64 {
        self.lost + self.shared.given_up.load(Ordering::Relaxed)
    }

    /// Writes what waits, then ends.
    pub fn finish(self) {
        drop(self.jobs);
        // A panic of the thread was already printed by the panic hook.
        let _ = self.thread.join();
    }
}

/// Shows a report, unless a newer one is shown already.
fn show(reports: &Reports, report: &Arc<Report>) {
    reports.send_if_modified(|shown| {
        let newer = shown
            .as_ref()
            .is_none_or(|shown| shown.tick.sequence <= report.tick.sequence);
        if newer {
            *shown = Some(Arc::clone(report));
        }
        newer
    });
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Writer {
    state_dir: PathBuf,
    log_config: LogConfig,
    log: Option<LogFile>,
    announce: Announce,
    reports: Reports,
    shared: Arc<Shared>,
    inbox: SyncSender<Message>,
    /// In order; the first could not be written and is tried again.
    unwritten: VecDeque<Record>,
    log_failed: bool,
    totals_failed: bool,
    /// Why the last save that was to survive a power cut does not, which is tried again with every reading.
    not_durable: Option<String>,
    /// Whether the loop knows that a report can be seen.
    told_shown: bool,
}

impl Writer {
    fn run(&mut self, queue: &Receiver<Job>) {
        while let Ok(job) = queue.recv() {
            self.carry_out(job);
            while let Ok(job) = queue.try_recv() {
                self.carry_out(job);
            }
            // Its word may have found no room.
            self.take_waiting();
        }
        self.take_waiting();
    }

    fn carry_out(&mut self, job: Job) {
        match job {
            Job::Record(record) => {
                (self.announce)(&record);
                self.unwritten.push_back(*record);
                self.write_log();
            }
            Job::Reading => self.take_waiting(),
            Job::Log(config) => {
                self.log_config = config;
                self.log = None;
            }
        }
    }

    fn take_waiting(&mut self) {
        let Some(reading) = lock(&self.shared.waiting).take() else {
            return;
        };
        self.take(&reading);
        let serial = reading.saved.serial;
        self.shared.done.store(serial, Ordering::Release);
        if !self.unwritten.is_empty() {
            self.write_log();
        }
    }

    /// A report that cannot be saved is shown all the same: `health` says what is wrong.
    fn take(&mut self, reading: &Publication) {
        let save = |durable| {
            let saved = state::save(&self.state_dir, &reading.saved, durable);
            saved.err().map(|error| error.to_string())
        };
        let not_saved = save(false);
        show(&self.reports, &reading.report);
        if !self.told_shown {
            // Where the loop has no room for the word, it hears it with the next report.
            self.told_shown = self.inbox.try_send(Message::Shown).is_ok();
        }
        if reading.durable || self.not_durable.is_some() {
            self.not_durable = save(true);
        }
        let error = not_saved.or_else(|| self.not_durable.clone());
        let failed = &mut self.totals_failed;
        Self::tell(&self.inbox, failed, "totals_write_failed", error);
    }

    /// Writes what waits, up to the first record that cannot be written.
    fn write_log(&mut self) {
        let mut error = None;
        while let Some(record) = self.unwritten.pop_front() {
            if let Err(failed) = self.append(&record) {
                error = Some(failed);
                self.unwritten.push_front(record);
                break;
            }
        }
        while self.unwritten.len() > QUEUE {
            self.unwritten.pop_front();
            self.shared.given_up.fetch_add(1, Ordering::Relaxed);
        }
        Self::tell(&self.inbox, &mut self.log_failed, "log_write_failed", error);
    }

    fn append(&mut self, record: &Record) -> Result<(), String> {
        let log = match &mut self.log {
            Some(log) => log,
            None => {
                let config = &self.log_config;
                let (max_size, keep) = (config.max_size, config.keep);
                let opened = LogFile::open(&self.state_dir, &config.path, max_size, keep)
                    .map_err(|error| error.to_string())?;
                self.log.insert(opened)
            }
        };
        log.append(record).map_err(|error| error.to_string())
    }

    /// Says when a sink begins to fail and when it works again, not each time it fails.
    fn tell(
        inbox: &SyncSender<Message>,
        failed: &mut bool,
        code: &'static str,
        error: Option<String>,
    ) {
        if *failed != error.is_some() {
            let now = error.is_some();
            // Where the loop has no room it is told the next time; while the daemon ends nobody reads any more.
            if inbox
                .try_send(Message::Trouble(Trouble { code, error }))
                .is_ok()
            {
                *failed = now;
            }
        }
    }
}
