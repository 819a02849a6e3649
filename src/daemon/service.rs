//! What the service manager is told of the daemon, and when: ready once a report is shown, each change in a sentence, and
//! a beat from the loop itself whatever the tick is, so that a loop that hangs is noticed.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use super::{Daemon, Trouble, clock};
use crate::report::Report;
use crate::sink::service::Service;
use crate::sink::service_text::Headline;

/// Of the time after which it takes the loop to hang: one beat may get lost.
const BEATS: u32 = 3;
/// After how long what could not be told is tried again.
const AGAIN: Duration = Duration::from_millis(200);
/// How long it may take to let go of the table's socket.
const BARRIER: Duration = Duration::from_secs(5);

/// Tells the service manager of the daemon.
pub struct Notifier {
    service: Service,
    beat: Option<Beat>,
    /// The table's socket, until it is handed in for keeping.
    unkept: Option<OwnedFd>,
    ready: Ready,
    /// The newest sentence, until it is told.
    untold: Option<Headline>,
    told: Option<Headline>,
    again: Option<Instant>,
    /// Why it was not told the last time.
    deaf: Option<String>,
    /// Why it does not keep the table's socket.
    not_kept: Option<String>,
}

/// Whether it knows that the daemon is at work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ready {
    /// It never did.
    Not,
    /// It does.
    Told,
    /// It knows of a reload that goes on.
    Reloading,
    /// It knows of a reload, and not yet that it is over.
    Reloaded,
}

#[derive(Debug, Clone, Copy)]
struct Beat {
    interval: Duration,
    due: Instant,
}

impl Notifier {
    /// Not ready yet. `watchdog`: after how long without a beat it is taken to hang, if anyone looks.
    pub fn new(service: Service, watchdog: Option<Duration>, now: Instant) -> Self {
        let watchdog = watchdog.filter(|time| service.is_there() && !time.is_zero());
        let beat = watchdog.map(|time| Beat {
            interval: time / BEATS,
            due: now,
        });
        Notifier {
            service,
            beat,
            unkept: None,
            ready: Ready::Not,
            untold: None,
            told: None,
            again: None,
            deaf: None,
            not_kept: None,
        }
    }

    /// A new report.
    pub fn show(&mut self, report: &Report) {
        if !self.service.is_there() {
            return;
        }
        self.untold = Headline::unless_told(report, self.told.as_ref());
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
        if self.again.is_none_or(|again| again <= now) {
            self.catch_up(now, shown);
        }
    }

    fn catch_up(&mut self, now: Instant, shown: bool) {
        self.again = None;
        // Without that it can be at work all the same; where there is no room for it, there is none for anything.
        if self.hand_over() {
            self.tell_news(now, shown);
        }
        if self.unkept.is_some() {
            self.again = Some(now + AGAIN);
        }
    }

    /// Hands in the table's socket, if that is to be done; false where there is no room at the moment.
    fn hand_over(&mut self) -> bool {
        let Some(socket) = &self.unkept else {
            return true;
        };
        match self.service.keep(socket.as_fd()) {
            Ok(()) => {
                self.unkept = None;
                self.not_kept = None;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(error) => self.not_kept(&error),
        }
        true
    }

    fn tell_news(&mut self, now: Instant, shown: bool) {
        let becomes_ready = match self.ready {
            Ready::Not if !shown => return,
            Ready::Not | Ready::Reloaded => true,
            Ready::Told | Ready::Reloading => false,
        };
        let untold = self.untold.take();
        let ready = becomes_ready.then_some(NotifyState::Ready);
        let status = untold
            .as_ref()
            .map(|untold| NotifyState::Status(&untold.text));
        let states: Vec<NotifyState<'_>> = ready.into_iter().chain(status).collect();
        if states.is_empty() {
            return;
        }
        let told = self.service.tell(&states);
        if self.went(told, now) {
            if becomes_ready {
                self.ready = Ready::Told;
            }
            self.told = untold.or(self.told.take());
        } else {
            self.untold = untold;
        }
    }

    /// A configuration is being read, until [`Notifier::reloaded`].
    pub fn reloading(&mut self, now: Instant) {
        // Where the clock could not be read, there would be nothing to announce it with.
        if self.ready == Ready::Told
            && let Ok(time) = NotifyState::monotonic_usec_now()
            && self.tell(&[NotifyState::Reloading, time], now)
        {
            self.ready = Ready::Reloading;
        }
    }

    /// It was, whatever came of it: told at the next occasion.
    pub fn reloaded(&mut self) {
        if self.ready == Ready::Reloading {
            self.ready = Ready::Reloaded;
        }
    }

    /// The daemon ends.
    pub fn stopping(&mut self, reason: &str, now: Instant) {
        let status = format!("stopped: {reason}");
        let states = [NotifyState::Stopping, NotifyState::Status(&status)];
        self.tell(&states, now);
    }

    /// Lets go of the table's socket for good, and waits until that is known.
    pub fn forget(&mut self) {
        let forgotten = self.service.forget();
        let known = forgotten.and_then(|()| self.service.barrier(BARRIER));
        self.note(known.err());
    }

    /// Has the table's socket kept, from the next occasion on.
    pub fn keep(&mut self, socket: BorrowedFd<'_>) {
        if !self.service.is_there() {
            return;
        }
        match socket.try_clone_to_owned() {
            Ok(socket) => self.unkept = Some(socket),
            Err(error) => self.not_kept(&error),
        }
    }

    /// What is wrong between the two.
    fn trouble(&self) -> Option<String> {
        self.deaf.as_ref().or(self.not_kept.as_ref()).cloned()
    }

    fn tell(&mut self, states: &[NotifyState<'_>], now: Instant) -> bool {
        let told = self.service.tell(states);
        self.went(told, now)
    }

    fn went(&mut self, told: io::Result<()>, now: Instant) -> bool {
        let sent = told.is_ok();
        self.again = (!sent).then_some(now + AGAIN);
        self.note(told.err());
        sent
    }

    /// That it has no room for the moment is no trouble.
    fn note(&mut self, error: Option<io::Error>) {
        let lasting = error.filter(|error| error.kind() != ErrorKind::WouldBlock);
        self.deaf = lasting.map(|error| format!("the service manager cannot be told: {error}"));
    }

    fn not_kept(&mut self, error: &io::Error) {
        self.not_kept = Some(format!(
            "the table's socket cannot be handed to the service manager: {error}; while it restarts flowctl, others \
             can change the table"
        ));
    }
}

impl Daemon {
    /// Tells the service manager what is due.
    pub(super) fn attend_service(&mut self) {
        let shown = self.seen.borrow().is_some();
        self.notifier.attend(clock::monotonic(), shown);
        let trouble = Trouble {
            code: "service_manager_deaf",
            error: self.notifier.trouble(),
        };
        self.note_trouble(trouble);
    }
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "an Instant cannot be made from a number"
)]
mod tests {
    use super::*;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};

    /// A service manager's end under that name, and how the daemon stands with it.
    fn notifier(name: &str, watchdog: Option<Duration>, now: Instant) -> (UnixDatagram, Notifier) {
        let name = format!("flowctl-notifier-{}-{name}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        manager.set_nonblocking(true).unwrap();
        let service = Service::at(format!("@{name}").as_bytes()).unwrap();
        (manager, Notifier::new(service, watchdog, now))
    }

    fn heard(manager: &UnixDatagram) -> Vec<String> {
        let mut text = [0; 4096];
        let one = || {
            let length = manager.recv(&mut text).ok()?;
            Some(String::from_utf8_lossy(&text[..length]).replace('\n', " "))
        };
        std::iter::from_fn(one).collect()
    }

    fn report() -> Report {
        let mut report: Report =
            serde_json::from_str(include_str!("../../tests/data/report.json")).unwrap();
        report.thresholds.clear();
        report.health.clear();
        report
    }

    #[test]
    fn a_beat_comes_in_a_third_of_the_time_and_asks_to_be_woken_for() {
        let start = Instant::now();
        let (manager, mut notifier) = notifier("beat", Some(Duration::from_secs(30)), start);
        let at = |seconds| start + Duration::from_secs(seconds);
        notifier.attend(start, false);
        assert_eq!(notifier.due(), Some(at(10)));
        notifier.attend(at(9), false);
        assert_eq!(heard(&manager), ["WATCHDOG=1"]);
        notifier.attend(at(10), false);
        assert_eq!(heard(&manager), ["WATCHDOG=1"]);
    }

    #[test]
    fn ready_and_the_end_of_a_reload_are_told_once_a_report_is_shown() {
        let start = Instant::now();
        let (manager, mut notifier) = notifier("ready", None, start);
        notifier.show(&report());
        notifier.reloading(start);
        notifier.reloaded();
        notifier.attend(start, false);
        assert_eq!(heard(&manager), [""; 0]);
        notifier.attend(start, true);
        notifier.attend(start, true);
        assert_eq!(heard(&manager).len(), 1);
        notifier.reloading(start);
        notifier.attend(start, true);
        let reloading = heard(&manager);
        assert!(reloading[0].starts_with("RELOADING=1 MONOTONIC_USEC="));
        assert_eq!(reloading.len(), 1);
        notifier.reloaded();
        notifier.attend(start, true);
        assert_eq!(heard(&manager), ["READY=1"]);
        assert_eq!(notifier.due(), None);
    }

    #[test]
    fn what_finds_no_room_is_told_later_and_nothing_of_it_is_lost() {
        let start = Instant::now();
        let (manager, mut notifier) = notifier("room", None, start);
        while notifier.service.tell(&[NotifyState::Watchdog]).is_ok() {}
        notifier.show(&report());
        let (socket, _other) = UnixStream::pair().unwrap();
        notifier.keep(socket.as_fd());
        notifier.attend(start, true);
        assert_eq!(notifier.due(), Some(start + AGAIN));
        assert_eq!(
            notifier.trouble(),
            None,
            "a manager that is busy is no trouble"
        );
        heard(&manager);
        notifier.attend(start + AGAIN, true);
        let heard = heard(&manager);
        assert_eq!(heard.len(), 2, "{heard:?}");
        assert_eq!(heard[0], "FDSTORE=1 FDPOLL=0 FDNAME=table");
        assert!(heard[1].starts_with("READY=1 STATUS="), "{heard:?}");
        assert_eq!(notifier.due(), None);
    }

    #[test]
    fn a_socket_that_cannot_be_handed_over_holds_nothing_up_and_is_handed_over_later() {
        let start = Instant::now();
        let (manager, mut notifier) = notifier("refused", None, start);
        let address = manager.local_addr().unwrap();
        drop(manager);
        notifier.show(&report());
        let (socket, _other) = UnixStream::pair().unwrap();
        notifier.keep(socket.as_fd());
        notifier.attend(start, true);
        let deaf = notifier.trouble().unwrap();
        assert!(deaf.contains("cannot be told"), "{deaf}");
        let not_kept = notifier.not_kept.clone().unwrap();
        assert!(not_kept.contains("cannot be handed"), "{not_kept}");
        assert_eq!(notifier.due(), Some(start + AGAIN));
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        manager.set_nonblocking(true).unwrap();
        notifier.attend(start + AGAIN, true);
        let heard = heard(&manager);
        assert_eq!(heard.len(), 2, "{heard:?}");
        assert_eq!(heard[0], "FDSTORE=1 FDPOLL=0 FDNAME=table");
        assert!(heard[1].starts_with("READY=1 STATUS="), "{heard:?}");
        assert_eq!((notifier.due(), notifier.trouble()), (None, None));
    }
}
