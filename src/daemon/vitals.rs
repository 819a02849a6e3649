//! What is wrong now: the judgement of the facts, made every few seconds, and the troubles that threads report.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Daemon, Trouble, clock};
use crate::config::Config;
use crate::event::Event;
use crate::health::{self, Facts, Standing};
use crate::kernel::facts;
use crate::report::{Health, Severity};
use crate::units::{TableFamily, Uptime};

/// The facts change slowly and cost a few file reads.
const INTERVAL: Duration = Duration::from_secs(10);

/// What is wrong, by whom it was found.
#[derive(Debug, Default)]
pub struct Vitals {
    judged: Vec<Health>,
    troubles: BTreeMap<&'static str, Health>,
    offload: bool,
    checked_at: Option<Uptime>,
}

impl Vitals {
    /// Whether flowtables carry traffic past the counters.
    pub fn offload(&self) -> bool {
        self.offload
    }

    /// Everything wrong now, and that records were lost if so.
    pub fn health(&self, lost: u64) -> Vec<Health> {
        let mut all: Vec<Health> = self
            .troubles
            .values()
            .chain(&self.judged)
            .cloned()
            .collect();
        if lost > 0 {
            all.push(health::entry(
                "records_lost",
                Severity::Warning,
                format!(
                    "{lost} records of the log were lost: the disk was full or too slow for them"
                ),
                "give the state directory more space, or a faster disk",
            ));
        }
        all
    }

    /// The facts have changed: they are judged at the next occasion.
    pub fn recheck(&mut self) {
        self.checked_at = None;
    }

    /// Judges the facts again; returns what came and what went, as records.
    fn judge(&mut self, config: &Config, facts: &Facts) -> Vec<Event> {
        let judged = health::judge(config, facts);
        let mut events = Vec::new();
        // What the same remedy helps against is the same, however its figures change.
        let same = |a: &Health, b: &Health| (&a.code, &a.fix) == (&b.code, &b.fix);
        let lacks = |list: &[Health], entry: &Health| !list.iter().any(|other| same(other, entry));
        let come = judged.iter().filter(|entry| lacks(&self.judged, entry));
        events.extend(come.map(|entry| event(entry, true)));
        let gone = self.judged.iter().filter(|entry| lacks(&judged, entry));
        events.extend(gone.map(|entry| event(entry, false)));
        self.judged = judged;
        events
    }

    fn note(&mut self, trouble: Trouble) -> Option<Event> {
        match trouble.error {
            Some(message) => {
                let severity = match trouble.code {
                    // Counting and naming go on; answers say less.
                    "drops_unmeasured" | "names_unreadable" | "service_manager_deaf" => {
                        Severity::Warning
                    }
                    _ => Severity::Error,
                };
                let found = health::entry(trouble.code, severity, message, fix_for(trouble.code));
                let known = self.troubles.insert(trouble.code, found.clone());
                known.is_none().then(|| event(&found, true))
            }
            None => self
                .troubles
                .remove(trouble.code)
                .map(|gone| event(&gone, false)),
        }
    }
}

fn fix_for(code: &str) -> &'static str {
    match code {
        "log_write_failed" | "totals_write_failed" => {
            "free space in the state directory, check its permissions, or raise the limit that is named"
        }
        "names_unreadable" => {
            "let flowctl read what is named, or name other places under [names] in the configuration"
        }
        "service_manager_deaf" => {
            "look at NOTIFY_SOCKET in the daemon's environment, and whether the service manager listens there; it is tried again"
        }
        "drops_unmeasured" => "it is tried again by the next drilldown; see `flowctl doctor`",
        "repair_failed" => "look at `nft list tables`; the repair is tried again at every tick",
        _ => "it is tried again at every tick; see `flowctl doctor`",
    }
}

fn event(health: &Health, active: bool) -> Event {
    Event::Health {
        code: health.code.clone(),
        severity: health.severity,
        message: health.message.clone(),
        fix: health.fix.clone(),
        active,
    }
}

impl Daemon {
    pub(super) fn note_trouble(&mut self, trouble: Trouble) {
        if let Some(event) = self.vitals.note(trouble) {
            self.log(event);
        }
    }

    pub(super) fn check_vitals(&mut self) {
        let now = clock::uptime();
        if self
            .vitals
            .checked_at
            .is_some_and(|at| now.since(at) < INTERVAL)
        {
            return;
        }
        self.vitals.checked_at = Some(now);
        let links = &self.surroundings.network.links;
        let name = self.config.table.name.as_str();
        let gathered = facts::gather(self.table.nftables(), name, links);
        let gathered = gathered.and_then(|facts| Ok((facts, self.table.judge_static()?)));
        match gathered {
            Ok((mut facts, static_rules)) => {
                self.vitals.offload = facts.flowtables > 0;
                facts.static_rules = static_rules;
                let missing = self.meter.missing_existing();
                let missing = missing.filter(|counter| !counter.is_in(TableFamily::Inet, name));
                facts.missing_existing = missing.cloned().collect();
                if static_rules.is_some_and(|rules| rules.standing == Standing::AsConfigured) {
                    self.note_labels();
                }
                for event in self.vitals.judge(&self.config, &facts) {
                    self.log(event);
                }
                self.note_trouble(Trouble {
                    code: "facts_unknown",
                    error: None,
                });
            }
            Err(error) => self.note_trouble(Trouble {
                code: "facts_unknown",
                error: Some(error.to_string()),
            }),
        }
    }
}
