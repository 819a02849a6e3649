//! The thread that listens for changes others make to the table and tells the loop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::thread::JoinHandle;
use std::time::Duration;

use super::Message;
use crate::kernel::error::KernelError;
use crate::kernel::monitor::{Monitor, Notice};

/// How long the thread may take to notice that the daemon ends.
const PATIENCE: Duration = Duration::from_millis(250);

/// The running thread.
pub struct Watcher {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Watcher {
    /// Listens from before it returns, so that no later change is missed.
    pub fn start(
        table: &str,
        own_port: u32,
        inbox: SyncSender<Message>,
    ) -> Result<Self, KernelError> {
        let monitor = Monitor::open(table, own_port, PATIENCE)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let spawned = std::thread::Builder::new()
            .name("watcher".into())
            .spawn(move || listen(monitor, &inbox, &stopped));
        let thread = spawned.map_err(|source| KernelError::Socket {
            operation: "start the watcher",
            source,
        })?;
        Ok(Watcher { stop, thread })
    }

    /// Ends the thread.
    pub fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        // A panic of the thread was already printed by the panic hook.
        let _ = self.thread.join();
    }
}

fn listen(mut monitor: Monitor, inbox: &SyncSender<Message>, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let message = match monitor.listen() {
            Ok(Notice::Quiet) => continue,
            Ok(notice) => Message::Ruleset(notice),
            Err(error) => Message::Died {
                thread: "watcher",
                error: error.to_string(),
            },
        };
        let died = matches!(message, Message::Died { .. });
        if inbox.send(message).is_err() || died {
            return;
        }
    }
}
