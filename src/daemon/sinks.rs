//! The thread that writes: log records and totals. It takes what the loop hands it without ever making it wait;
//! what does not fit is lost and counted.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use super::{Message, Trouble};
use crate::config::LogConfig;
use crate::event::Record;
use crate::sink::log::LogFile;
use crate::sink::state::{self, Saved};

/// Records that may wait for a slow disk.
const QUEUE: usize = 1024;

/// Shows a record to whoever watches the daemon's standard error.
pub type Announce = Box<dyn Fn(&Record) + Send>;

/// One thing to write.
pub enum Job {
    /// A line of the log.
    Record(Box<Record>),
    /// The totals; `durable` waits for the disk.
    Totals {
        /// What to save.
        saved: Box<Saved>,
        /// Whether it must survive a power cut from here on.
        durable: bool,
    },
    /// The log goes elsewhere from now on.
    Log(LogConfig),
}

/// The loop's end of the queue.
pub struct Sinks {
    jobs: SyncSender<Job>,
    thread: JoinHandle<()>,
    lost: u64,
}

impl Sinks {
    /// Starts the thread; `log` is relative to `state_dir`.
    pub fn start(
        state_dir: &Path,
        log: LogConfig,
        announce: Announce,
        inbox: SyncSender<Message>,
    ) -> std::io::Result<Self> {
        let (jobs, queue) = sync_channel(QUEUE);
        let mut writer = Writer {
            state_dir: state_dir.to_owned(),
            log_config: log,
            log: None,
            announce,
            inbox,
            log_failed: false,
            totals_failed: false,
        };
        let thread = std::thread::Builder::new()
            .name("sinks".into())
            .spawn(move || writer.run(&queue))?;
        Ok(Sinks {
            jobs,
            thread,
            lost: 0,
        })
    }

    /// Hands over a job; false when the queue is full or the thread is gone.
    pub fn take(&mut self, job: Job) -> bool {
        match self.jobs.try_send(job) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.lost += 1;
                false
            }
        }
    }

    /// How many jobs were lost.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Writes what waits, then ends.
    pub fn finish(self) {
        drop(self.jobs);
        // A panic of the thread was already printed by the panic hook.
        let _ = self.thread.join();
    }
}

struct Writer {
    state_dir: PathBuf,
    log_config: LogConfig,
    log: Option<LogFile>,
    announce: Announce,
    inbox: SyncSender<Message>,
    log_failed: bool,
    totals_failed: bool,
}

impl Writer {
    fn run(&mut self, queue: &Receiver<Job>) {
        while let Ok(job) = queue.recv() {
            match job {
                Job::Record(record) => {
                    (self.announce)(&record);
                    let error = self.append(&record).err();
                    Self::tell(&self.inbox, &mut self.log_failed, "log_write_failed", error);
                }
                Job::Totals { saved, durable } => {
                    let error = state::save(&self.state_dir, &saved, durable)
                        .err()
                        .map(|error| error.to_string());
                    Self::tell(
                        &self.inbox,
                        &mut self.totals_failed,
                        "totals_write_failed",
                        error,
                    );
                }
                Job::Log(config) => {
                    self.log_config = config;
                    self.log = None;
                }
            }
        }
    }

    fn append(&mut self, record: &Record) -> Result<(), String> {
        let log = match &mut self.log {
            Some(log) => log,
            None => {
                let config = &self.log_config;
                let path = self.state_dir.join(&config.path);
                let opened = LogFile::open(&path, config.max_size, config.keep)
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
            *failed = error.is_some();
            // While the daemon ends nobody reads any more.
            let _ = inbox.try_send(Message::Trouble(Trouble { code, error }));
        }
    }
}
