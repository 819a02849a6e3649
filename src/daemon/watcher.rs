//! The thread that listens for changes others make to the table and tells the loop.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::SyncSender;
use std::thread::JoinHandle;

use super::Message;
use crate::kernel::error::KernelError;
use crate::kernel::monitor::{Monitor, Notice};

/// The running thread.
pub struct Watcher {
    /// Closed to end it.
    call: UnixStream,
    thread: JoinHandle<()>,
}

impl Watcher {
    /// Listens from before it returns, so that no later change is missed.
    pub fn start(
        table: &str,
        own_port: u32,
        inbox: SyncSender<Message>,
    ) -> Result<Self, KernelError> {
        let failed = |source| KernelError::Socket {
            operation: "start the watcher",
            source,
        };
        let monitor = Monitor::open(table, own_port)?;
        let (call, called) = UnixStream::pair().map_err(failed)?;
        let spawned = std::thread::Builder::new()
            .name("watcher".into())
            .spawn(move || listen(monitor, &inbox, &called));
        let thread = spawned.map_err(failed)?;
        Ok(Watcher { call, thread })
    }

    /// Ends the thread.
    pub fn finish(self) {
        drop(self.call);
        // A panic of the thread was already printed by the panic hook.
        let _ = self.thread.join();
    }
}

fn listen(mut monitor: Monitor, inbox: &SyncSender<Message>, called: &UnixStream) {
    loop {
        let message = match monitor.listen(called.as_fd()) {
            Ok(Notice::Quiet) => continue,
            Ok(Notice::Called) => return,
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
