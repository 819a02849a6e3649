//! The thread that follows flows while a drilldown goes on: listens to conntrack's events, dumps it at the pace the
//! budget allows, and sends what the drilldowns find to the loop. It sleeps while there is none.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use super::collector::Task;
use super::conntrack::Listened;
use super::doors::{Doors, Outbox};
use super::followed::Followed;
use super::{Message, clock};
use crate::ask::{Ask, Inquiry, Question};
use crate::config::Config;
use crate::drilldown::pace::{Pace, REST_FACTOR, Round};
use crate::drilldown::scope::Scope;
use crate::drilldown::set::DrilldownSet;
use crate::drilldown::shares::KnownHosts;
use crate::drilldown::{AccountStart, Bracket, Drilldown};
use crate::event::Event;
use crate::kernel::addresses;
use crate::kernel::error::KernelError;
use crate::kernel::nftables::Nftables;

/// Events are read so often: what waits meanwhile fits ten times into their buffer at 100,000 a second.
const LISTEN_EVERY: Duration = Duration::from_millis(30);
/// After a loss a dump finds what was missed, not more often than this.
const RESYNC_EVERY: Duration = Duration::from_secs(5);

/// Follows flows for all drilldowns going on.
pub struct Drilling {
    config: Arc<Config>,
    outbox: Outbox,
    /// Open while drilldowns go on: a router that needs none pays nothing.
    doors: Option<Doors>,
    set: DrilldownSet,
    /// The drilldowns of the set, and their counters as last told.
    followed: Vec<Followed>,
    pace: Pace,
    last_dump: Option<LastDump>,
    /// Events were lost: a dump must find what they told.
    out_of_step: bool,
    /// The last drilldown's number.
    numbered: u32,
}

#[derive(Clone, Copy)]
struct LastDump {
    ended: Instant,
    took: Duration,
    /// CPU time of this thread by then.
    cpu: Duration,
    failed: bool,
}

impl LastDump {
    /// How long the other cores are left alone after it.
    fn cool(&self) -> Duration {
        self.took * REST_FACTOR
    }
}

impl Drilling {
    /// No drilldown goes on.
    pub fn new(config: Arc<Config>, inbox: SyncSender<Message>) -> Self {
        Drilling {
            pace: Pace::new(config.drilldown.interval, config.drilldown.cpu_budget),
            config,
            outbox: Outbox(inbox),
            doors: None,
            set: DrilldownSet::default(),
            followed: Vec::new(),
            last_dump: None,
            out_of_step: false,
            numbered: 0,
        }
    }

    /// Works off what the queue brings, until nobody can bring anything any more.
    pub fn run(&mut self, queue: &Receiver<Task>) {
        loop {
            match self.next(queue) {
                Ok(task) => {
                    self.take(task);
                    // All that waits belongs to the same moment: one dump answers it.
                    while let Ok(task) = queue.try_recv() {
                        self.take(task);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.listen();
            if self.is_due() {
                self.look();
            }
        }
    }

    fn next(&self, queue: &Receiver<Task>) -> Result<Task, RecvTimeoutError> {
        if self.followed.is_empty() {
            return queue.recv().map_err(|_| RecvTimeoutError::Disconnected);
        }
        let rest = self.rest();
        let listens = (self.doors.as_ref()).is_some_and(|doors| doors.conntrack.listens());
        queue.recv_timeout(if listens {
            rest.min(LISTEN_EVERY)
        } else {
            rest
        })
    }

    /// How long until the next dump.
    fn rest(&self) -> Duration {
        if !self.followed.iter().any(|followed| followed.told) {
            return LISTEN_EVERY;
        }
        let Some(last) = self.last_dump else {
            return Duration::ZERO;
        };
        let begins = |followed: &Followed| followed.dumps == 0 && followed.told;
        let begins = self.followed.iter().any(begins) && !last.failed;
        // A drilldown that begins does not wait for the beat, nor does one that has lost events.
        let wait = match (begins, self.out_of_step) {
            (true, _) => last.cool(),
            (false, true) => self.pace.interval().min(last.cool().max(RESYNC_EVERY)),
            (false, false) => self.pace.interval(),
        };
        (last.ended + wait).saturating_duration_since(clock::monotonic())
    }

    /// One that ends waits for nothing: what flows move from now on is not in its account.
    fn is_due(&self) -> bool {
        let ends = |followed: &Followed| followed.ending.is_some();
        !self.followed.is_empty() && (self.followed.iter().any(ends) || self.rest().is_zero())
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
                if let Some(followed) = self.followed(&id) {
                    (followed.counted, followed.kernel) = (counted, kernel);
                    followed.told = true;
                }
            }
            Task::Ask(Ask::End(ending)) => {
                if let Some(followed) = self.followed(&ending.id) {
                    followed.ending = Some(*ending);
                }
            }
            Task::Ask(Ask::Discard { id }) => {
                let at = self.followed.iter().position(|followed| followed.id == id);
                if let Some(at) = at {
                    let followed = self.followed.remove(at);
                    self.set.discard(&id);
                    self.forget(followed.number);
                    self.listen_as_needed();
                }
            }
        }
    }

    fn followed(&mut self, id: &str) -> Option<&mut Followed> {
        self.followed.iter_mut().find(|followed| followed.id == id)
    }

    /// Drilldowns that go on do so in the scope that their counter has from now on.
    fn reconfigure(&mut self, config: Arc<Config>) {
        let before = std::mem::replace(&mut self.config, config);
        let limits = |config: &Config| (config.drilldown.interval, config.drilldown.cpu_budget);
        if limits(&before) != limits(&self.config) {
            let (interval, budget) = limits(&self.config);
            self.pace = Pace::new(interval, budget);
        }
        let names = |config: &Config| (config.hosts.clone(), config.names.clone());
        if names(&before) != names(&self.config)
            && let Some(doors) = &mut self.doors
        {
            doors.forget_names(&self.config);
        }
        self.set.forget_routes();
        if let Some(doors) = &mut self.doors {
            doors.conntrack.forget_routes();
        }
        if self.followed.is_empty() {
            return;
        }
        let own = self.own_addresses();
        let scopes: Vec<(String, Scope)> = (self.followed.iter())
            .filter_map(|followed| {
                Some((followed.id.clone(), followed.scope_in(&self.config, &own)?))
            })
            .collect();
        let mut each = scopes.iter();
        let differs = each.any(|(id, scope)| !self.set.is_about(id, scope));
        let rested = self
            .last_dump
            .is_none_or(|last| last.ended + last.cool() <= clock::monotonic());
        if differs && rested {
            // What flows moved until now belongs to the counter as it was.
            self.look();
        }
        for (id, scope) in scopes {
            self.set.go_on(&id, scope);
        }
        self.listen_as_needed();
        self.watch_drops(|_| true);
    }

    fn own_addresses(&self) -> Vec<IpAddr> {
        let own = addresses::own();
        self.outbox.report("addresses_unknown", own.as_ref().err());
        own.unwrap_or_default()
    }

    fn begin(&mut self, inquiry: Inquiry) {
        let own = self.own_addresses();
        let (scope, capacity) = match &inquiry.question {
            Question::Counter(counter) => {
                (Scope::new(&self.config, counter, &own), counter.capacity)
            }
            Question::Host(host) => (Scope::of_host(*host, &own), None),
        };
        let start = AccountStart {
            at: inquiry.started.at,
            wall: inquiry.started.wall,
            quiet_since: inquiry.quiet_since,
            capacity,
            top: self.config.drilldown.top,
            rank_by: inquiry.rank_by,
        };
        let drilldown = Drilldown::new(inquiry.id.clone(), inquiry.threshold, scope, start);
        self.set.begin(drilldown);
        self.numbered += 1;
        let followed = Followed::new(inquiry.id, self.numbered, inquiry.question);
        self.followed.push(followed);
        self.listen_as_needed();
    }

    /// Opens the doors where drilldowns go on, and closes them where none does.
    fn listen_as_needed(&mut self) {
        if self.set.is_empty() {
            if let Some(doors) = self.doors.take() {
                doors.shut(&self.outbox);
            }
            self.out_of_step = false;
            return;
        }
        if let Err(error) = self.doors() {
            self.outbox.report("flows_unreadable", Some(&error));
        }
        // That they can be opened does not mean that they can be read: only a dump says so.
        let Some(doors) = &mut self.doors else {
            return;
        };
        let listening = doors.conntrack.listen_for(&self.set);
        self.outbox
            .report("events_unheard", listening.as_ref().err());
    }

    fn doors(&mut self) -> Result<&mut Doors, KernelError> {
        let doors = match self.doors.take() {
            Some(doors) => doors,
            None => Doors::open(&self.config)?,
        };
        Ok(self.doors.insert(doors))
    }

    fn watch_drops(&mut self, wanted: impl Fn(&Followed) -> bool) {
        if let Some(doors) = &mut self.doors {
            let followed = self.followed.iter().filter(|followed| wanted(followed));
            doors.watch_drops(followed, &self.config, &self.outbox);
        }
    }

    /// One drilldown is over.
    fn forget(&mut self, number: u32) {
        if let Some(doors) = &mut self.doors {
            doors.forget_drops(number, &self.outbox);
        }
    }

    /// Reads the events that wait.
    fn listen(&mut self) {
        if let Some(doors) = &mut self.doors {
            let listened = doors.conntrack.drain(&mut self.set);
            self.note(listened);
        }
    }

    fn note(&mut self, listened: Listened) {
        self.out_of_step |= listened.overruns > 0;
        for drilldown in self.set.drilldowns() {
            let circumstances = drilldown.circumstances();
            circumstances.overruns += listened.overruns;
            for (program, flows) in &listened.deleted_by_program {
                *circumstances
                    .deleted_by_program
                    .entry(program.clone())
                    .or_default() += flows;
            }
        }
        if listened.events_error.is_some() {
            self.outbox
                .report("events_unheard", listened.events_error.as_ref());
        }
        if listened.routes_error.is_some() {
            self.outbox
                .report("routes_unreadable", listened.routes_error.as_ref());
        }
    }

    /// Whose account is closed gets no flow any more that begins after it.
    fn close_accounts(&mut self) {
        for followed in &self.followed {
            if let Some(ending) = &followed.ending
                && let Some(drilldown) = self.set.get_mut(&followed.id)
            {
                drilldown.close(ending.ended.wall);
            }
        }
    }

    /// One dump for all drilldowns, then what each of them knows by it.
    fn look(&mut self) {
        let (began, cpu) = (clock::monotonic(), clock::thread_cpu());
        self.out_of_step = false;
        self.close_accounts();
        let dumped = self.dump();
        self.outbox
            .report("flows_unreadable", dumped.as_ref().err());
        if let Err(error) = &dumped {
            let error = error.to_string();
            for drilldown in self.set.drilldowns() {
                drilldown.circumstances().failed_dumps += 1;
                drilldown.circumstances().dump_error = Some(error.clone());
            }
        }
        if let Some(doors) = &mut self.doors {
            doors.note_sysctls(&mut self.set, &self.config);
            doors.read_drops(&self.followed, &mut self.set, &self.outbox);
        }
        self.keep_pace(began, cpu, dumped.is_err());
        self.answer();
        // To install rules takes longer than a small dump, which gives the baseline and comes first.
        self.watch_drops(|followed| followed.dumps == 1);
    }

    fn dump(&mut self) -> Result<(), KernelError> {
        self.doors()?;
        let Some(doors) = &mut self.doors else {
            return Ok(());
        };
        let table = &self.config.table.name;
        let mut unread = None;
        let mut counted = |followed: &Followed, nftables: &mut Nftables| {
            let now = followed.counted_now(nftables, table);
            now.unwrap_or_else(|error| {
                unread = Some(error);
                followed.counted
            })
        };
        for followed in &mut self.followed {
            followed.before = counted(followed, &mut doors.nftables);
        }
        let (dumped, listened) = doors.conntrack.dump(&mut self.set);
        let mut brackets_by_id = BTreeMap::new();
        for followed in &mut self.followed {
            followed.dumps += 1;
            let after = counted(followed, &mut doors.nftables);
            let before = followed.before;
            brackets_by_id.insert(followed.id.as_str(), Bracket { before, after });
        }
        if dumped.is_ok() {
            let bracket_of = |id: &str| brackets_by_id.get(id).copied().unwrap_or_default();
            self.set.end_dump(bracket_of);
        }
        if listened.routes_error.is_none() {
            self.outbox.report("routes_unreadable", None);
        }
        self.note(listened);
        dumped.and(unread.map_or(Ok(()), Err))
    }

    fn keep_pace(&mut self, began: Instant, cpu_before: Duration, failed: bool) {
        let (ended, cpu) = (clock::monotonic(), clock::thread_cpu());
        let took = ended.saturating_duration_since(began);
        let round = Round {
            dump_time: took,
            dump_cpu: cpu.saturating_sub(cpu_before),
            events_cpu: (self.last_dump)
                .map_or(Duration::ZERO, |last| cpu_before.saturating_sub(last.cpu)),
            elapsed: (self.last_dump)
                .map_or(took, |last| ended.saturating_duration_since(last.ended)),
        };
        self.last_dump = Some(LastDump {
            ended,
            took,
            cpu,
            failed,
        });
        if self.pace.note(round) {
            self.outbox.send(Message::Log(Box::new(Event::Pace {
                interval_seconds: self.pace.interval().as_secs_f64(),
                dump_seconds: took.as_secs_f64(),
                dump_cpu_seconds: round.dump_cpu.as_secs_f64(),
                flows: self.set.flows_seen() as u64,
            })));
        }
    }

    fn answer(&mut self) {
        let ends = (self.followed.iter()).any(|followed| followed.ending.is_some());
        let known: &dyn KnownHosts = match &mut self.doors {
            Some(doors) => doors.look_up_names(ends, &self.outbox),
            None => &(),
        };
        let took = self.last_dump.map_or(Duration::ZERO, |last| last.took);
        let (mut going_on, mut over) = (Vec::with_capacity(self.followed.len()), Vec::new());
        for mut followed in std::mem::take(&mut self.followed) {
            if let Some(ending) = followed.ending.take() {
                let verdict = self.set.finish(&followed.id, ending.into(), known);
                if let Some(verdict) = verdict {
                    self.outbox.send(Message::Verdict(Box::new(verdict)));
                }
                over.push(followed.number);
                continue;
            }
            let counted = followed.counts().then_some(followed.before);
            if let Some(found) = self.set.findings(&followed.id, counted, known) {
                let progress = followed.progress(found, took, self.pace.interval());
                self.outbox.send(Message::Progress(Box::new(progress)));
            }
            going_on.push(followed);
        }
        self.followed = going_on;
        over.into_iter().for_each(|number| self.forget(number));
        self.listen_as_needed();
    }
}
