//! Another configuration while the daemon runs: read on a thread of its own, then carried out between two ticks.
//! One with problems changes nothing.

use std::collections::HashSet;
use std::sync::Arc;

use super::to_its_end::to_its_end;
use super::{Daemon, DaemonError, Message, clock, follow};
use crate::config::source::{Source, SourceError};
use crate::config::{Config, Connected, LabelsByInterface, LoadError, TableConfig};
use crate::event::{ConfigResult, Event};
use crate::plan;
use crate::plan::ruleset::Ruleset;
use crate::sink::reload::{Asker, Outcome, PROBLEMS_MAX, Reloaded};
use crate::units::CounterName;

/// More names than this make a record no clearer.
const NAMES_MAX: usize = 20;

/// A configuration that may be carried out.
pub struct Loaded {
    config: Arc<Config>,
    note: Option<String>,
    source: Source,
    ruleset: Ruleset,
    /// Which prefixes the devices had.
    connected: Arc<Connected>,
    /// What is to be remembered of its label bits; `None` where the rules in force tell that.
    labels: Option<LabelsByInterface>,
}

/// Why a configuration is not carried out.
pub enum Refusal {
    /// What is wrong with it.
    Rejected(Vec<String>),
    /// What is wrong with something else.
    Failed(String),
}

impl From<SourceError> for Refusal {
    fn from(error: SourceError) -> Refusal {
        match error {
            SourceError::File(LoadError::NotRegular { .. }) | SourceError::Kernel(_) => {
                Refusal::Failed(error.to_string())
            }
            SourceError::File(_) | SourceError::Nothing => {
                Refusal::Rejected(error.messages(PROBLEMS_MAX))
            }
        }
    }
}

/// Where reading a configuration again stands. One at a time, so that what is read last is what is in force.
#[derive(Default)]
pub struct Loading {
    stage: Stage,
    /// All who asked before the reading began that comes last.
    askers: Vec<Asker>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    /// Nothing to do.
    #[default]
    Idle,
    /// It is being read.
    Going,
    /// It is being read, and may have changed since.
    Outdated,
}

impl Daemon {
    pub(super) fn load_configuration(&mut self, asker: Option<Asker>) {
        self.loading.askers.extend(asker);
        match self.loading.stage {
            Stage::Idle => self.load(),
            Stage::Going | Stage::Outdated => self.loading.stage = Stage::Outdated,
        }
    }

    fn load(&mut self) {
        let Some(source) = self.source.clone() else {
            let fixed = "this daemon keeps the configuration that it was started with";
            self.conclude(Reloaded::Failed(fixed.to_owned()));
            return;
        };
        self.notifier.reloading(clock::monotonic());
        let sender = self.sender.clone();
        let labels_before = self.ledger.labels().clone();
        let is_static = self.table.is_static();
        let labelled_since = self.ledger.labelled_since();
        let found_static = self.table.is_found_static();
        let connected = Arc::clone(&self.surroundings.connected);
        let load = move || {
            let mut sourced = source.read_again()?;
            // Rules that were made from the configuration have the bits that it alone gives.
            let labels = (!is_static).then(|| sourced.config.keep_labels(&labels_before));
            sourced.config.labelled_since = labelled_since;
            sourced.config.table.is_static |= found_static;
            let config = sourced.config.resolved(&connected);
            Ok(Box::new(Loaded {
                ruleset: plan::compile(&config),
                config: Arc::new(config),
                connected,
                note: sourced.note,
                source: sourced.again,
                labels,
            }))
        };
        let load = move || {
            let loaded = to_its_end("reads the configuration", load);
            let loaded = loaded.unwrap_or_else(|why| Err(Refusal::Failed(why)));
            // A daemon that has ended meanwhile needs no configuration.
            let _ = sender.send(Message::Loaded(loaded));
        };
        let thread = std::thread::Builder::new().name("loader".into());
        match thread.spawn(load) {
            Ok(_) => self.loading.stage = Stage::Going,
            Err(error) => self.refuse(Refusal::Failed(format!(
                "cannot start a thread to read the configuration: {error}"
            ))),
        }
    }

    pub(super) fn reload(
        &mut self,
        loaded: Result<Box<Loaded>, Refusal>,
    ) -> Result<(), DaemonError> {
        if std::mem::take(&mut self.loading.stage) == Stage::Outdated {
            self.load();
            return Ok(());
        }
        let loaded = match loaded {
            Ok(loaded) => loaded,
            Err(refusal) => {
                self.refuse(refusal);
                return Ok(());
            }
        };
        if let Some(fixed) = fixed(&self.config.table, &loaded.config.table) {
            self.refuse(Refusal::Rejected(vec![fixed]));
            return Ok(());
        }
        // Counters that go are read once more.
        self.read_early();
        if let Err(error) = self.change_table(loaded.ruleset) {
            self.refuse(Refusal::Failed(error.to_string()));
            return Ok(());
        }
        if let Some(labels) = loaded.labels {
            *self.ledger.labels() = labels;
        }
        self.source = Some(loaded.source);
        // Where these changed meanwhile, the next tick goes over to them.
        self.surroundings.in_force = loaded.connected;
        self.adopt(loaded.config, loaded.note);
        Ok(())
    }

    fn adopt(&mut self, config: Arc<Config>, note: Option<String>) {
        let old = std::mem::replace(&mut self.config, Arc::clone(&config));
        let mut messages: Vec<String> = note.into_iter().collect();
        messages.extend(differences(&old, &config));
        let subnets = follow::changes(&old, &config);
        self.ledger.remember(&self.meter);
        let own: HashSet<&CounterName> = config.own_counters().map(|own| &own.name).collect();
        self.ledger.forget_kernel_values(|name| !own.contains(name));
        let counters = (config.counters.iter())
            .map(|counter| (counter.name.clone(), self.ledger.carried(counter)));
        let meter = self.meter.reconfigured(counters);
        let outcome =
            self.engine
                .reconfigure(Arc::clone(&config), self.last_reading.tick, &self.meter);
        self.meter = meter;
        self.table.follow(&self.meter, None);
        self.carry_out(outcome);
        self.collector.reconfigure(Arc::clone(&config));
        let links = &self.surroundings.network.links;
        self.presence.reconfigure(&config, links);
        self.interfaces.configure(&config);
        self.schedule.set_interval(config.tick, clock::monotonic());
        if config.log != old.log {
            self.sinks.set_log(config.log.clone());
        }
        messages.extend(self.prepare_conntrack());
        self.log(Event::Config {
            result: ConfigResult::Reloaded,
            messages: messages.clone(),
        });
        self.tell(subnets);
        if self.table.is_static() {
            self.vitals.recheck();
            self.check_vitals();
        }
        self.publish();
        self.conclude(Reloaded::Reloaded(messages));
    }

    fn refuse(&mut self, refusal: Refusal) {
        let (messages, reloaded) = match refusal {
            Refusal::Rejected(problems) => (problems.clone(), Reloaded::Rejected(problems)),
            Refusal::Failed(why) => (vec![why.clone()], Reloaded::Failed(why)),
        };
        self.log(Event::Config {
            result: ConfigResult::Rejected,
            messages,
        });
        self.conclude(reloaded);
    }

    /// Tells the service manager, and then all who asked.
    fn conclude(&mut self, reloaded: Reloaded) {
        self.notifier.reloaded();
        self.attend_service();
        let sequence = match reloaded {
            Reloaded::Reloaded(_) => self.sequence,
            // No report shows anything of it.
            Reloaded::Rejected(_) | Reloaded::Failed(_) => 0,
        };
        let outcome = Outcome { reloaded, sequence };
        for asker in self.loading.askers.drain(..) {
            // Who went away meanwhile need not be told.
            let _ = asker.send(outcome.clone());
        }
    }
}

/// Which keys under `[table]` are others, if any are, and what to do.
fn fixed(old: &TableConfig, new: &TableConfig) -> Option<String> {
    let TableConfig {
        name,
        protect,
        is_static,
    } = old;
    let keys = [
        ("table.name", *name != new.name),
        ("table.protect", *protect != new.protect),
        ("table.static", *is_static != new.is_static),
    ];
    let others: Vec<&str> = keys
        .into_iter()
        .filter_map(|(key, is_other)| is_other.then_some(key))
        .collect();
    let cannot = "cannot change while flowctl runs: restart flowctl to apply";
    (!others.is_empty()).then(|| format!("{} {cannot}", others.join(", ")))
}

/// What is worth saying about a change.
fn differences(old: &Config, new: &Config) -> Vec<String> {
    let counters = |config: &Config| names(config.counters.iter().map(|counter| &counter.name));
    let thresholds = |config: &Config| names(config.thresholds.iter().map(|limit| &limit.name));
    let mut messages = changes("counters", &counters(old), &counters(new));
    messages.extend(changes("thresholds", &thresholds(old), &thresholds(new)));
    if old.control != new.control {
        messages.push("control.socket takes effect at the next start".to_owned());
    }
    messages
}

fn names(names: impl Iterator<Item = impl ToString>) -> Vec<String> {
    names.map(|name| name.to_string()).collect()
}

fn changes(what: &str, old: &[String], new: &[String]) -> Vec<String> {
    let difference = |word: &str, of: &[String], from: &[String]| {
        let known: HashSet<&String> = from.iter().collect();
        let names: Vec<&str> = (of.iter())
            .filter(|name| !known.contains(name))
            .map(String::as_str)
            .collect();
        let more = match names.len().saturating_sub(NAMES_MAX) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let named = names[..names.len().min(NAMES_MAX)].join(", ");
        (!names.is_empty()).then(|| format!("{what} {word}: {named}{more}"))
    };
    let added = difference("added", new, old);
    let removed = difference("removed", old, new);
    added.into_iter().chain(removed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Protect;

    #[test]
    fn what_needs_a_restart_is_named() {
        let old = TableConfig {
            name: "flowctl".to_owned(),
            protect: Protect::Auto,
            is_static: false,
        };
        assert_eq!(fixed(&old, &old.clone()), None);
        let new = TableConfig {
            protect: Protect::Off,
            is_static: true,
            ..old.clone()
        };
        assert_eq!(
            fixed(&old, &new).unwrap(),
            "table.protect, table.static cannot change while flowctl runs: restart flowctl to apply"
        );
    }
}
