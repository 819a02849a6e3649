//! The daemon's records in words on standard error. A thread of its own writes them, so that whoever stops reading
//! holds up neither log nor totals nor the daemon's end; what does not fit is not shown, and that is said.

use std::cell::Cell;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, Sender, TrySendError, channel, sync_channel};
use std::time::Duration;

use super::format::counted;
use super::journal::{self, Priority};
use super::log_text;
use super::style::Style;
use crate::daemon::Announce;
use crate::event::Record;

/// Records that may wait for a slow reader.
const QUEUE: usize = 256;
/// How long the last ones may take when the daemon has ended.
const PATIENCE: Duration = Duration::from_secs(1);

/// Stands for what is still to be written.
pub struct Announcements {
    ended: Receiver<()>,
}

impl Announcements {
    /// Waits, not for long, until all is written. The daemon must have ended.
    pub fn finish(self) {
        // Nothing is ever sent: the thread's end drops the sender.
        let _ = self.ended.recv_timeout(PATIENCE);
    }
}

/// Something that takes records, and the rest of them when it is gone.
pub fn start(
    style: Style,
    mut to: impl Write + Send + 'static,
) -> io::Result<(Announce, Announcements)> {
    let (lines, queue) = sync_channel::<String>(QUEUE);
    let (end, ended): (Sender<()>, _) = channel();
    std::thread::Builder::new()
        .name("announce".into())
        .spawn(move || {
            let _end = end;
            for text in queue {
                // Nowhere is left to complain about a closed standard error.
                let _ = to.write_all(text.as_bytes());
            }
        })?;
    let unshown = Cell::new(0);
    let announce = move |record: &Record| {
        let priority = Priority::of(&record.event);
        let mut text = journal::lines(log_text::render(record, &style), priority);
        if unshown.get() > 0 {
            let records = counted(unshown.get(), "record");
            let unshown = format!("flowctl: {records} not shown: nobody read them\n");
            text.insert_str(0, &journal::lines(unshown, Priority::Warning));
        }
        match lines.try_send(text) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => unshown.set(0),
            Err(TrySendError::Full(_)) => unshown.set(unshown.get() + 1),
        }
    };
    Ok((Box::new(announce), Announcements { ended }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::format::Units;
    use crate::event::Event;
    use std::sync::{Arc, Mutex};

    /// A reader that takes nothing until it is let.
    struct Stalled {
        let_go: Receiver<()>,
        seen: Arc<Mutex<String>>,
    }

    impl Write for Stalled {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.let_go.recv();
            let text = String::from_utf8_lossy(bytes);
            self.seen.lock().unwrap().push_str(&text);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_stalls_misses_records_and_is_told_how_many() {
        let (free, let_go) = channel();
        let seen = Arc::new(Mutex::new(String::new()));
        let reader = Stalled {
            let_go,
            seen: Arc::clone(&seen),
        };
        let style = Style {
            color: false,
            units: Units::Usual,
            width: 80,
            height: None,
            timezone: jiff::tz::TimeZone::UTC,
        };
        let (announce, announcements) = start(style, reader).unwrap();
        let record = |number: usize| Record {
            time: "2026-11-23T05:20:00Z".parse().unwrap(),
            event: Event::Stopped {
                reason: format!("reason {number}"),
            },
        };
        for number in 0..QUEUE + 50 {
            announce(&record(number));
        }
        drop(free);
        while !seen.lock().unwrap().contains("reason 255") {
            std::thread::yield_now();
        }
        announce(&record(9999));
        drop(announce);
        announcements.finish();
        let seen = seen.lock().unwrap();
        assert!(seen.contains("reason 0") && seen.contains("reason 9999"));
        assert!(
            seen.contains("records not shown: nobody read them"),
            "{seen}"
        );
    }
}
