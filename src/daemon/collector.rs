//! The loop's end of the queue to the thread that follows flows: what is asked is handed over without waiting.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use super::Message;
use super::drilling::Drilling;
use crate::ask::Ask;
use crate::config::Config;

/// Asks that may wait while a dump goes on.
const QUEUE: usize = 1024;

/// The loop's end of the queue.
pub struct Collector {
    tasks: SyncSender<Task>,
    thread: JoinHandle<()>,
    /// A configuration for which there was no room.
    pending: Option<Arc<Config>>,
}

/// What the thread is told.
pub enum Task {
    /// Something the engine asks.
    Ask(Ask),
    /// Another configuration is in force.
    Reconfigure(Arc<Config>),
}

impl Collector {
    /// Starts the thread; it works in the network namespace of the calling thread.
    pub fn start(config: Arc<Config>, inbox: SyncSender<Message>) -> io::Result<Self> {
        let (tasks, queue) = sync_channel(QUEUE);
        let mut worker = Drilling::new(config, inbox);
        let thread = std::thread::Builder::new()
            .name("collector".into())
            .spawn(move || worker.run(&queue))?;
        Ok(Collector {
            tasks,
            thread,
            pending: None,
        })
    }

    /// Hands over what the engine asks; false when the thread does not keep up.
    pub fn take(&mut self, ask: Ask) -> bool {
        self.catch_up();
        self.tasks.try_send(Task::Ask(ask)).is_ok()
    }

    /// From now on all drilldowns go by this configuration, and by the addresses of this moment.
    pub fn reconfigure(&mut self, config: Arc<Config>) {
        self.pending = Some(config);
        self.catch_up();
    }

    /// Hands over what there was no room for before.
    pub fn catch_up(&mut self) {
        if let Some(config) = self.pending.take()
            && let Err(TrySendError::Full(Task::Reconfigure(config))) =
                self.tasks.try_send(Task::Reconfigure(config))
        {
            self.pending = Some(config);
        }
    }

    /// Ends the thread; drilldowns that still go on are forgotten.
    pub fn finish(self) {
        drop(self.tasks);
        // A panic of the thread was already printed by the panic hook.
        let _ = self.thread.join();
    }
}
