//! One drilldown as the thread that follows flows has it: its counter as last told, and what is to be said of it.

use std::net::IpAddr;
use std::time::Duration;

use crate::ask::{Ending, Progress, Question};
use crate::config::{Config, Counter, Selectors};
use crate::drilldown::AccountEnd;
use crate::drilldown::scope::Scope;
use crate::drilldown::verdict::Findings;
use crate::kernel::error::KernelError;
use crate::kernel::nftables::Nftables;
use crate::units::Volume;

/// A drilldown that goes on.
pub struct Followed {
    /// Its id.
    pub id: String,
    /// By which the temporary rules know it.
    pub number: u32,
    question: Question,
    /// Counted since the account began, at the last reading.
    pub counted: Volume,
    /// The kernel's value at that reading.
    pub kernel: Volume,
    /// Whether that was told: before it is, nothing is known of what was counted when.
    pub told: bool,
    /// Counted when the last dump began.
    pub before: Volume,
    /// Dumps made for it.
    pub dumps: u64,
    /// How it is to end, once it is.
    pub ending: Option<Ending>,
}

impl Followed {
    /// Nothing counted, nothing dumped.
    pub fn new(id: String, number: u32, question: Question) -> Self {
        Followed {
            id,
            number,
            told: matches!(question, Question::Host(_)),
            question,
            counted: Volume::default(),
            kernel: Volume::default(),
            before: Volume::default(),
            dumps: 0,
            ending: None,
        }
    }

    /// Whether there is a counter.
    pub fn counts(&self) -> bool {
        self.counter().is_some()
    }

    /// What temporary rules beside its counter match by that configuration; `None` where the counter is not flowctl's.
    pub fn selectors_in<'a>(&self, config: &'a Config) -> Option<&'a Selectors> {
        let counter = config.counter(&self.counter()?.name)?;
        let is_ours = counter.existing.is_none();
        is_ours.then_some(&counter.selectors)
    }

    fn counter(&self) -> Option<&Counter> {
        match &self.question {
            Question::Counter(counter) => Some(counter),
            Question::Host(_) => None,
        }
    }

    /// What it is about by that configuration; `None` where it stays as it is, or the account is closed.
    pub fn scope_in(&self, config: &Config, own: &[IpAddr]) -> Option<Scope> {
        if self.ending.is_some() {
            return None;
        }
        Some(match &self.question {
            Question::Counter(counter) => Scope::new(config, config.counter(&counter.name)?, own),
            Question::Host(host) => Scope::of_host(*host, own),
        })
    }

    /// What its counter has counted since the account began, at this moment.
    pub fn counted_now(&self, nftables: &mut Nftables, table: &str) -> Result<Volume, KernelError> {
        let Some(counter) = self.counter().filter(|_| self.told) else {
            return Ok(Volume::default());
        };
        let (family, table, name) = counter.in_kernel(table);
        let now = nftables.counter(family, table, name)?;
        // A value below the last one is a reset, which the loop accounts for at its next reading.
        Ok(self
            .counted
            .plus(now.map(|now| now.since(self.kernel)).unwrap_or_default()))
    }

    /// What is known by the last dump.
    pub fn progress(&self, found: Findings, dump_time: Duration, interval: Duration) -> Progress {
        Progress {
            id: self.id.clone(),
            counted_bytes: self.counts().then_some(self.before.bytes),
            found,
            dumps: self.dumps,
            dump_time,
            interval,
        }
    }
}

impl From<Ending> for AccountEnd {
    fn from(ending: Ending) -> Self {
        AccountEnd {
            at: ending.ended.at,
            wall: ending.ended.wall,
            counted: ending.counted,
            ended_by: ending.ended_by,
        }
    }
}
