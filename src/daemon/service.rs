//! What the service manager is told of the daemon, and when: ready once a report is shown, each change in a sentence, and
//! a beat from the loop itself whatever the tick is, so that a loop that hangs is noticed.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use super::{Daemon, Trouble, clock};
use crate::report::Report;
use crate::sink::service::Service;
use crate::sink::service_text::Headline;

/// Of the time after which it takes the loop to hang: one beat may get lost.
const BEATS: u32 = 3;
/// When the last thing could not be told for want of room.
const AGAIN: Duration = Duration::from_millis(200);
/// How long it may take to let go of the table's socket.
const BARRIER: Duration = Duration::from_secs(5);

/// The daemon's standing with the service manager.
pub struct Standing {
    service: Service,
    beat: Option<Beat>,
    ready: bool,
    /// Whether a reload is announced and not over.
    reloading: bool,
    /// The newest sentence, until it is told.
    untold: Option<Headline>,
    told: Option<Headline>,
    again: Option<Instant>,
    error: Option<String>,
}

#[derive(Debug, Clone, Copy)]
struct Beat {
    interval: Duration,
    due: Instant,
}

impl Standing {
    /// Not ready yet. `watchdog`: after how long without a beat it is taken to hang, if anyone looks.
    pub fn new(service: Service, watchdog: Option<Duration>, now: Instant) -> Self {
        let watchdog = watchdog.filter(|time| service.is_there() && !time.is_zero());
        let beat = watchdog.map(|time| Beat {
            interval: time / BEATS,
            due: now,
        });
        Standing {
            service,
            beat,
            ready: false,
            reloading: false,
            untold: None,
            told: None,
            again: None,
            error: None,
        }
    }

    /// A new report.
    pub fn show(&mut self, report: &Report) {
        if !self.service.is_there() {
            return;
        }
        let headline = Headline::new(report);
        let told = self.told.as_ref();
        let known = told.is_some_and(|told| told.kind == headline.kind);
        self.untold = (!known).then_some(headline);
    }

    /// When there is something to do, at the latest.
    pub fn due(&self) -> Option<Instant> {
        let beat = self.beat.map(|beat| beat.due);
        beat.into_iter().chain(self.again).min()
    }

    /// Tells what is to be told. `shown`: whether anyone can see a report.
    pub fn attend(&mut self, now: Instant, shown: bool) {
        if let Some(beat) = self.beat.filter(|beat| beat.due <= now) {
            let sent = self.tell(&[NotifyState::Watchdog], now);
            let next = if sent {
                beat.interval
            } else {
                AGAIN.min(beat.interval)
            };
            self.beat = Some(Beat {
                due: now + next,
                ..beat
            });
        }
        let becomes_ready = shown && !self.ready;
        if self.again.is_some_and(|again| again > now) || !(becomes_ready || self.ready) {
            return;
        }
        self.again = None;
        let untold = self.untold.take();
        let mut states = Vec::new();
        if becomes_ready {
            states.push(NotifyState::Ready);
        }
        if let Some(headline) = &untold {
            states.push(NotifyState::Status(&headline.text));
        }
        if states.is_empty() {
            return;
        }
        if self.tell(&states, now) {
            self.ready = true;
            self.told = untold.or(self.told.take());
        } else {
            self.untold = untold;
        }
    }

    /// A configuration is being read, until [`Standing::reloaded`].
    pub fn reloading(&mut self, now: Instant) {
        if !self.ready || self.reloading {
            return;
        }
        let Ok(time) = NotifyState::monotonic_usec_now() else {
            return;
        };
        self.reloading = self.tell(&[NotifyState::Reloading, time], now);
    }

    /// It was, whatever came of it.
    pub fn reloaded(&mut self, now: Instant) {
        if self.reloading {
            self.reloading = !self.tell(&[NotifyState::Ready], now);
        }
    }

    /// The daemon ends.
    pub fn stopping(&mut self, now: Instant) {
        self.tell(
            &[NotifyState::Stopping, NotifyState::Status("stopping")],
            now,
        );
    }

    /// Lets go of the table's socket for good, and waits until that is known.
    pub fn forget(&mut self) {
        let forgotten = self.service.forget();
        let known = forgotten.and_then(|()| self.service.barrier(BARRIER));
        self.note(known.err());
    }

    /// Has the table's socket kept.
    pub fn keep(&mut self, socket: std::os::fd::BorrowedFd<'_>) {
        let kept = self.service.keep(socket);
        self.note(kept.err());
    }

    fn tell(&mut self, states: &[NotifyState<'_>], now: Instant) -> bool {
        let told = self.service.tell(states);
        let sent = told.is_ok();
        self.again = (!sent).then_some(now + AGAIN);
        self.note(told.err());
        sent
    }

    /// That it has no room for the moment is no trouble.
    fn note(&mut self, error: Option<std::io::Error>) {
        let lasting = error.filter(|error| error.kind() != ErrorKind::WouldBlock);
        self.error = lasting.map(|error| format!("the service manager cannot be told: {error}"));
    }
}

impl Daemon {
    /// Tells the service manager what is due.
    pub(super) fn attend_service(&mut self) {
        let shown = self.seen.borrow().is_some();
        self.standing.attend(clock::monotonic(), shown);
        let trouble = Trouble {
            code: "service_manager_deaf",
            error: self.standing.error.clone(),
        };
        self.note_trouble(trouble);
    }
}
