//! The thread that follows flows while a drilldown goes on: dumps conntrack at the pace the budget allows, lets
//! one dump feed every drilldown, and sends what they find to the loop. It sleeps while there is none.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Message, Trouble, clock};
use crate::ask::{Ask, Ending, Inquiry, Progress, Question};
use crate::config::{Config, Counter};
use crate::drilldown::attribution::inside_ends;
use crate::drilldown::scope::Scope;
use crate::drilldown::shares::Known;
use crate::drilldown::verdict::Findings;
use crate::drilldown::{AccountEnd, AccountStart, Bracket, Drilldown};
use crate::kernel::addresses;
use crate::kernel::conntrack::FlowRecord;
use crate::kernel::error::KernelError;
use crate::kernel::flows::Flows;
use crate::kernel::nftables::Nftables;
use crate::kernel::routes::Routes;
use crate::units::{TableFamily, Volume};

/// Asks that may wait while a dump goes on.
const QUEUE: usize = 1024;
/// A dump slows forwarding on the other cores: they stay idle this many times as long as one lasts.
const REST_FACTOR: u32 = 10;

/// The loop's end of the queue.
pub struct Collector {
    tasks: SyncSender<Task>,
    thread: JoinHandle<()>,
    /// A configuration for which there was no room.
    pending: Option<Arc<Config>>,
}

enum Task {
    Ask(Ask),
    Reconfigure(Arc<Config>),
}

impl Collector {
    /// Starts the thread; it works in the network namespace of the calling thread.
    pub fn start(config: Arc<Config>, inbox: SyncSender<Message>) -> io::Result<Self> {
        let (tasks, queue) = sync_channel(QUEUE);
        let interval = config.drilldown.interval;
        let mut worker = Worker {
            config,
            inbox,
            kernel: None,
            follows: Vec::new(),
            interval,
            dumped_at: None,
            dump_time: Duration::ZERO,
        };
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

struct Worker {
    config: Arc<Config>,
    inbox: SyncSender<Message>,
    /// Opened with the first drilldown: a router that never needs one pays nothing.
    kernel: Option<Doors>,
    follows: Vec<Follow>,
    interval: Duration,
    dumped_at: Option<Instant>,
    /// What the last dump took.
    dump_time: Duration,
}

struct Doors {
    flows: Flows,
    nftables: Nftables,
    routes: Routes,
}

/// One drilldown, and its counter as last told.
struct Follow {
    drilldown: Drilldown,
    counter: Counter,
    counted: Volume,
    kernel: Volume,
    before: Volume,
    dumps: u64,
    ending: Option<Ending>,
}

impl Worker {
    fn run(&mut self, queue: &Receiver<Task>) {
        loop {
            match self.next(queue) {
                Ok(task) => {
                    self.take(task);
                    // All that waits belongs to the same moment: one dump answers it.
                    while let Ok(task) = queue.try_recv() {
                        self.take(task);
                    }
                    if !self.is_due() {
                        continue;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.look();
        }
    }

    fn next(&self, queue: &Receiver<Task>) -> Result<Task, RecvTimeoutError> {
        if self.follows.is_empty() {
            return queue.recv().map_err(|_| RecvTimeoutError::Disconnected);
        }
        queue.recv_timeout(self.rest())
    }

    /// How long until the next dump.
    fn rest(&self) -> Duration {
        self.dumped_at.map_or(Duration::ZERO, |at| {
            (at + self.interval).saturating_duration_since(clock::monotonic())
        })
    }

    /// A drilldown that begins or ends does not wait for the beat.
    fn is_due(&self) -> bool {
        let pressing = |follow: &Follow| follow.ending.is_some() || follow.dumps == 0;
        !self.follows.is_empty() && (self.follows.iter().any(pressing) || self.rest().is_zero())
    }

    fn take(&mut self, task: Task) {
        match task {
            Task::Reconfigure(config) => self.reconfigure(config),
            Task::Ask(Ask::Begin(inquiry)) => self.begin(*inquiry),
            Task::Ask(Ask::Counted {
                id,
                counted,
                kernel,
            }) => {
                if let Some(follow) = self.follow(&id) {
                    (follow.counted, follow.kernel) = (counted, kernel);
                }
            }
            Task::Ask(Ask::End(ending)) => {
                if let Some(follow) = self.follow(&ending.id) {
                    follow.ending = Some(*ending);
                }
            }
            Task::Ask(Ask::Discard { id }) => {
                self.follows.retain(|follow| follow.drilldown.id() != id)
            }
        }
    }

    fn follow(&mut self, id: &str) -> Option<&mut Follow> {
        self.follows
            .iter_mut()
            .find(|follow| follow.drilldown.id() == id)
    }

    /// Drilldowns that go on do so in the scope that their counter has from now on.
    fn reconfigure(&mut self, config: Arc<Config>) {
        self.config = config;
        if let Some(doors) = &mut self.kernel {
            doors.routes.forget();
        }
        if self.follows.is_empty() {
            return;
        }
        let own = self.own_addresses();
        let is_other = |follow: &Follow| {
            let scope = follow.scope_in(&self.config, &own);
            scope.is_some_and(|scope| !follow.drilldown.is_about(&scope))
        };
        let rest = self.dump_time * REST_FACTOR;
        let rested = (self.dumped_at).is_none_or(|at| at + rest <= clock::monotonic());
        if rested && self.follows.iter().any(is_other) {
            // What flows moved until now belongs to the counter as it was.
            self.look();
        }
        for follow in &mut self.follows {
            if let Some(scope) = follow.scope_in(&self.config, &own) {
                follow.drilldown.go_on(scope);
            }
        }
    }

    fn own_addresses(&self) -> Vec<IpAddr> {
        let own = addresses::own();
        self.report("addresses_unknown", own.as_ref().err());
        own.unwrap_or_default()
    }

    fn begin(&mut self, inquiry: Inquiry) {
        if let Some(doors) = self.kernel.as_mut().filter(|_| self.follows.is_empty()) {
            doors.routes.forget();
        }
        let own = self.own_addresses();
        let Question::Counter(counter) = inquiry.question else {
            return;
        };
        let scope = Scope::new(&self.config, &counter, &own);
        let start = AccountStart {
            at: inquiry.started.at,
            wall: inquiry.started.wall,
            capacity: counter.capacity,
            top: self.config.drilldown.top,
            rank_by: inquiry.rank_by,
        };
        self.follows.push(Follow {
            counter: *counter,
            drilldown: Drilldown::new(inquiry.id, inquiry.threshold, scope, start),
            counted: Volume::default(),
            kernel: Volume::default(),
            before: Volume::default(),
            dumps: 0,
            ending: None,
        });
    }

    /// One dump for all drilldowns, then what each of them knows by it.
    fn look(&mut self) {
        let (began, cpu) = (clock::monotonic(), clock::thread_cpu());
        let dumped = self.dump();
        let dump_time = clock::monotonic().saturating_duration_since(began);
        let cpu_time = clock::thread_cpu().saturating_sub(cpu);
        self.report("flows_unreadable", dumped.as_ref().err());
        if dumped.is_err() {
            self.follows
                .iter_mut()
                .for_each(|follow| follow.drilldown.lost());
        }
        let budget = cpu_time.div_f64(self.config.drilldown.cpu_budget.max(f64::EPSILON));
        self.interval = self
            .config
            .drilldown
            .interval
            .max(budget)
            .max(dump_time * REST_FACTOR);
        (self.dumped_at, self.dump_time) = (Some(began), dump_time);
        for mut follow in std::mem::take(&mut self.follows) {
            follow.dumps += 1;
            if let Some(ending) = follow.ending.take() {
                self.send(Message::Verdict(Box::new(follow.finish(ending))));
            } else {
                self.send(Message::Progress(Box::new(
                    follow.progress(dump_time, self.interval),
                )));
                self.follows.push(follow);
            }
        }
    }

    fn dump(&mut self) -> Result<(), KernelError> {
        let doors = match &mut self.kernel {
            Some(doors) => doors,
            None => self.kernel.insert(Doors {
                flows: Flows::open()?,
                nftables: Nftables::open()?,
                routes: Routes::open()?,
            }),
        };
        doors.routes.forget_indexes();
        let table = &self.config.table.name;
        for follow in &mut self.follows {
            follow.before = follow.counted_now(&mut doors.nftables, table)?;
            follow.drilldown.begin_dump(clock::wall());
        }
        let (follows, routes) = (&mut self.follows, &mut doors.routes);
        let mut routes_failed = None;
        let each = |record: &FlowRecord| {
            if let Err(error) = absorb(follows, record, routes) {
                routes_failed = Some(error);
            }
        };
        doors.flows.dump(each, || {})?;
        for follow in &mut self.follows {
            let after = follow.counted_now(&mut doors.nftables, table)?;
            follow.drilldown.end_dump(Bracket {
                before: follow.before,
                after,
            });
        }
        self.report("routes_unreadable", routes_failed.as_ref());
        Ok(())
    }

    fn report(&self, code: &'static str, error: Option<&KernelError>) {
        self.send(Message::Trouble(Trouble {
            code,
            error: error.map(ToString::to_string),
        }));
    }

    fn send(&self, message: Message) {
        // A loop that has ended wants nothing more.
        let _ = self.inbox.send(message);
    }
}

/// Hands a flow to all drilldowns. Routes are asked only where one cannot judge it without.
fn absorb(
    follows: &mut [Follow],
    record: &FlowRecord,
    routes: &mut Routes,
) -> Result<(), KernelError> {
    let mut path = None;
    for follow in follows {
        if follow.drilldown.absorb(record) {
            continue;
        }
        let path = match &path {
            Some(path) => path,
            None => {
                let (opener, peer) = inside_ends(record);
                path.insert(routes.path(opener, peer)?)
            }
        };
        follow.drilldown.absorb_by_path(record, path);
    }
    Ok(())
}

impl Follow {
    /// What its counter means by that configuration; `None` where the account is closed.
    fn scope_in(&self, config: &Config, own: &[IpAddr]) -> Option<Scope> {
        let counter = config.counter(&self.counter.name)?;
        let goes_on = self.ending.is_none();
        goes_on.then(|| Scope::new(config, counter, own))
    }

    /// What the counter has counted since the account began, at this moment.
    fn counted_now(&self, nftables: &mut Nftables, table: &str) -> Result<Volume, KernelError> {
        let now = match &self.counter.existing {
            None => nftables.counter(TableFamily::Inet, table, self.counter.name.as_str()),
            Some(existing) => {
                let table = existing.table();
                nftables.counter(table.family(), table.name(), existing.counter())
            }
        }?;
        // A value below the last one is a reset, which the loop accounts for at its next reading.
        Ok(self
            .counted
            .plus(now.map(|now| now.since(self.kernel)).unwrap_or_default()))
    }

    fn progress(&self, dump_time: Duration, interval: Duration) -> Progress {
        let progress = self.drilldown.progress(self.before, &|_| Known::default());
        Progress {
            id: self.drilldown.id().to_owned(),
            counted_bytes: Some(self.before.bytes),
            found: Findings {
                attributed_bytes: progress.attributed_bytes,
                excess_bytes: progress.excess_bytes,
                hosts_remainder_bytes: progress.hosts_remainder_bytes,
                flows_remainder_bytes: progress.flows_remainder_bytes,
                hosts: progress.hosts,
                flows: progress.flows,
                ..Findings::default()
            },
            dumps: self.dumps,
            dump_time,
            interval,
        }
    }

    fn finish(self, ending: Ending) -> crate::drilldown::verdict::Verdict {
        let counted = ending.counted.unwrap_or_default();
        let end = AccountEnd {
            at: ending.ended.at,
            wall: ending.ended.wall,
            counted: counted.volume,
            peak_bits_per_second: counted.peak_bits,
            peak_packets_per_second: counted.peak_packets,
            ended_by: ending.ended_by,
        };
        self.drilldown.finish(end, &|_| Known::default())
    }
}
