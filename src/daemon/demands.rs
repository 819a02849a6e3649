//! Who asked for a drilldown: each is told what theirs has found, and is forgotten with it as soon as they are gone.
//! Nothing here waits: what they are told stands ready for the thread that answers.

use std::sync::Arc;

use tokio::sync::watch;

use super::{Daemon, clock};
use crate::ask::Answer;
use crate::demand::{self, About, Conntrack, Moment};
use crate::event::{Event, Record};
use crate::kernel::facts;
use crate::sink::drill::{DrillRequest, Told};
use crate::units::{CounterName, Volume};

/// Those who wait for a drilldown.
#[derive(Default)]
pub struct Askers(Vec<Asker>);

struct Asker {
    drilldown: String,
    told: watch::Sender<Told>,
}

impl Daemon {
    /// Begins a drilldown, or says why not.
    pub(super) fn drill(&mut self, request: DrillRequest) {
        let DrillRequest { wish, told } = request;
        // Where one has gone, there is room for another.
        self.attend_askers();
        let notes = demand::notes(&self.config, &wish.about, conntrack());
        let moment = self.moment(&wish.about);
        let demands = self.engine.demands();
        match demands.begin(wish, moment, notes, &self.config, &self.meter) {
            Ok((begun, outcome)) => {
                let drilldown = begun.id.clone();
                told.send_modify(|told| told.begun = Some(begun));
                self.askers.0.push(Asker { drilldown, told });
                self.carry_out(outcome);
            }
            Err(refusal) => end_with(&told, Err(refusal.to_string())),
        }
    }

    /// Asks for the verdict of one.
    pub(super) fn end_drill(&mut self, drilldown: &str, by: Option<&str>) {
        let demands = self.engine.demands();
        let Some(about) = demands.about(drilldown).cloned() else {
            return;
        };
        let moment = self.moment(&about);
        let demands = self.engine.demands();
        let outcome = demands.end(drilldown, moment, &self.meter, by);
        self.carry_out(outcome);
    }

    /// Ends what has lasted long enough, and forgets what nobody waits for any more.
    pub(super) fn attend_askers(&mut self) {
        let gone = |asker: &Asker| asker.told.is_closed();
        while let Some(at) = self.askers.0.iter().position(gone) {
            let asker = self.askers.0.remove(at);
            let outcome = self.engine.demands().discard(&asker.drilldown);
            self.carry_out(outcome);
        }
        let now = clock::uptime();
        let demands = self.engine.demands();
        if demands.due().is_none_or(|due| due > now) {
            return;
        }
        for (drilldown, by) in demands.overdue(now) {
            self.end_drill(&drilldown, by);
        }
        let outcome = self.engine.demands().give_up(now);
        self.carry_out(outcome);
    }

    /// Tells who asked; a verdict, or that there is none, is the last that they are told.
    pub(super) fn answer(&mut self, answer: Answer) {
        let mut askers = self.askers.0.iter();
        let Some(at) = askers.position(|asker| asker.drilldown == answer.id) else {
            return;
        };
        let time = clock::wall();
        let told = answer.told.map(|event| Record { time, event });
        match told {
            Ok(record) if !matches!(record.event, Event::Verdict(_)) => {
                let list = Some(Arc::new(record));
                self.askers.0[at].told.send_modify(|told| told.list = list);
            }
            end => end_with(&self.askers.0.remove(at).told, end),
        }
    }

    /// Now, with what the counter reads; where it cannot be read, the last reading.
    fn moment(&mut self, about: &About) -> Moment {
        let now = clock::tick(self.sequence);
        let kernel = match about {
            About::Host(_) => None,
            About::Counter(name) => self.read_counter(name),
        };
        let unread = kernel.is_none() && about.counter().is_some();
        Moment {
            tick: if unread { self.last_reading.tick } else { now },
            now: now.at,
            kernel,
        }
    }

    fn read_counter(&mut self, name: &CounterName) -> Option<Volume> {
        let counter = self.config.counter(name)?;
        let (family, table, name) = counter.in_kernel(&self.config.table.name);
        let read = self.table.nftables().counter(family, table, name);
        // What is wrong with the table is said by the next reading of all counters.
        read.ok().flatten()
    }
}

fn end_with(told: &watch::Sender<Told>, end: Result<Record, String>) {
    told.send_modify(|told| told.end = Some(Arc::new(end)));
}

fn conntrack() -> Conntrack {
    Conntrack {
        accounting: facts::conntrack("acct"),
        flows: facts::conntrack("count").unwrap_or(0),
    }
}
