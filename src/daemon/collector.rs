//! The loop's end of the queue to the thread that follows flows: what is asked is handed over without waiting.

use std::collections::VecDeque;
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
    /// What there was no room for, the oldest first: a drilldown's beginning and end, and the newest configuration.
    backlog: VecDeque<Task>,
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
            backlog: VecDeque::new(),
        })
    }

    /// Hands over what the engine asks, now or as soon as there is room; false when the thread does not keep up. What a
    /// counter has counted is told again at the next reading, so only that may be left out.
    pub fn take(&mut self, ask: Ask) -> bool {
        self.catch_up();
        let may_be_left_out = matches!(ask, Ask::Counted { .. });
        if !self.backlog.is_empty() && may_be_left_out {
            return false;
        }
        self.backlog.push_back(Task::Ask(ask));
        self.catch_up();
        let kept_up = self.backlog.is_empty();
        if may_be_left_out {
            // It stood alone.
            self.backlog.clear();
        }
        kept_up
    }

    /// From now on all drilldowns go by this configuration, and by the addresses of this moment.
    pub fn reconfigure(&mut self, config: Arc<Config>) {
        self.backlog
            .retain(|task| !matches!(task, Task::Reconfigure(_)));
        self.backlog.push_back(Task::Reconfigure(config));
        self.catch_up();
    }

    /// Hands over what there was no room for before.
    pub fn catch_up(&mut self) {
        while let Some(task) = self.backlog.pop_front() {
            if let Err(TrySendError::Full(task)) = self.tasks.try_send(task) {
                self.backlog.push_front(task);
                return;
            }
        }
    }

    /// Ends the thread; drilldowns that still go on are forgotten.
    pub fn finish(self) {
        drop(self.tasks);
        // A panic of the thread was already printed by the panic hook.
        let _ = self.thread.join();
    }
}
