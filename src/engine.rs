//! Composes meter, thresholds and drilldowns: a reading goes in, what must be done and logged comes out. Pure:
//! it is told the time, fetches nothing, and never waits for a drilldown's answer.

use std::sync::Arc;

use crate::ask::{Outcome, Progress};
use crate::config::{Config, Counter};
use crate::demand::Demands;
use crate::drilldown::verdict::Verdict;
use crate::event::Event;
use crate::meter::{Delta, Meter};
use crate::report::{CounterReport, DrilldownReport, History, ThresholdReport};
use crate::units::{CounterName, Tick};
use crate::watch::Watch;

/// More resets than this in one tick are one record in the log.
const RESETS_NAMED: usize = 8;
/// Why drilldowns end with the daemon.
const STOPPED: &str = "flowctl was stopped";

/// All thresholds and what they know of their counters, and those who ask themselves.
pub struct Engine {
    config: Arc<Config>,
    watches: Vec<Watch>,
    demands: Demands,
    histories: Vec<History>,
    last_tick: Option<Tick>,
    last_verdict: Option<Arc<Verdict>>,
}

impl Engine {
    /// All thresholds idle since `now`.
    pub fn new(config: Arc<Config>, now: Tick) -> Self {
        let watches = config
            .thresholds
            .iter()
            .map(|threshold| Watch::new(threshold, &config, now))
            .collect();
        let histories = vec![History::default(); config.counters.len()];
        Engine {
            config,
            watches,
            demands: Demands::default(),
            histories,
            last_tick: None,
            last_verdict: None,
        }
    }

    /// The drilldowns that somebody asked for.
    pub fn demands(&mut self) -> &mut Demands {
        &mut self.demands
    }

    /// Takes a new configuration. Thresholds that are the same keep their state; the drilldowns of the others end.
    pub fn reconfigure(&mut self, config: Arc<Config>, now: Tick, meter: &Meter) -> Outcome {
        let mut outcome = Outcome::default();
        let mut old: Vec<Watch> = std::mem::take(&mut self.watches);
        for threshold in &config.thresholds {
            let mut watch = Watch::new(threshold, &config, now);
            let counters = [&self.config, &config].map(|config| config.counter(&threshold.counter));
            let [before, after] = counters;
            let unchanged = (before.zip(after)).is_some_and(|(a, b)| a.is_written_as(b));
            let same = old
                .iter()
                .position(|old| unchanged && old.watches(threshold));
            if let Some(same) = same {
                watch.continue_from(old.swap_remove(same));
            }
            self.watches.push(watch);
        }
        for mut dropped in old {
            dropped.retire(now, meter, "the configuration was reloaded", &mut outcome);
        }
        let (before, demands) = (&self.config, &mut self.demands);
        demands.reconfigure(before, &config, now, meter, &mut outcome);
        let positions = self.config.counter_positions();
        let history_of = |counter: &Counter| {
            let position = positions.get(&counter.name);
            position.map(|at| self.histories[*at]).unwrap_or_default()
        };
        self.histories = config.counters.iter().map(history_of).collect();
        self.config = config;
        outcome
    }

    /// Takes the same configuration with other prefixes: everything keeps its state.
    pub fn follow(&mut self, config: Arc<Config>) {
        self.config = config;
    }

    /// Takes a reading that `meter` has just made.
    pub fn observe(&mut self, tick: Tick, meter: &Meter) -> Outcome {
        let mut outcome = Outcome::default();
        for (history, counter) in self.histories.iter_mut().zip(meter.counters()) {
            if let Some((bits, ..)) = counter.rates() {
                history.push(bits as f32);
            }
        }
        note_resets(meter, &mut outcome);
        let account_start = self.last_tick.unwrap_or(tick);
        for watch in &mut self.watches {
            watch.observe(tick, account_start, meter, &self.config, &mut outcome);
        }
        self.demands.observe(tick, meter, &mut outcome);
        self.last_tick = Some(tick);
        outcome
    }

    /// Takes what a drilldown has found so far.
    pub fn explain(&mut self, tick: Tick, progress: Progress) -> Outcome {
        let mut outcome = Outcome::default();
        outcome.answers.extend(self.demands.explain(&progress));
        if let Some(watch) = self
            .watches
            .iter_mut()
            .find(|watch| watch.follows(&progress.id))
        {
            outcome.events.extend(watch.explain(tick, progress));
        }
        outcome
    }

    /// Takes a verdict. One on demand is for who asked, and nobody else's.
    pub fn conclude(&mut self, verdict: Verdict) -> Outcome {
        let mut outcome = Outcome::default();
        if verdict.threshold.is_none() {
            outcome.answers.extend(self.demands.conclude(verdict));
            return outcome;
        }
        self.last_verdict = Some(Arc::new(verdict.clone()));
        outcome.events.push(Event::Verdict(Box::new(verdict)));
        outcome
    }

    /// Ends all drilldowns, because the daemon ends.
    pub fn stop(&mut self, tick: Tick, meter: &Meter) -> Outcome {
        let mut outcome = Outcome::default();
        for watch in &mut self.watches {
            watch.end(tick, meter, Some(STOPPED), &mut outcome);
        }
        self.demands.end_all(tick, meter, STOPPED, &mut outcome);
        outcome
    }

    /// The newest verdict of this run.
    pub fn last_verdict(&self) -> Option<Arc<Verdict>> {
        self.last_verdict.clone()
    }

    /// All counters as they stand.
    pub fn counter_reports(&self, meter: &Meter) -> Vec<CounterReport> {
        let counters = meter
            .counters()
            .iter()
            .zip(&self.config.counters)
            .zip(&self.histories);
        counters
            .map(|((metered, counter), history)| {
                let (bits, packets, _) = metered.rates().unwrap_or_default();
                CounterReport {
                    name: metered.name.clone(),
                    existing: counter.existing.clone(),
                    bytes: metered.total.bytes,
                    packets: metered.total.packets,
                    bits_per_second: bits,
                    packets_per_second: packets,
                    capacity_bits_per_second: counter.capacity.map(|capacity| capacity.0),
                    resets: metered.resets,
                    present: metered.delta != Delta::Unread,
                    history_bits_per_second: *history,
                }
            })
            .collect()
    }

    /// All thresholds as they stand.
    pub fn threshold_reports(&self) -> Vec<ThresholdReport> {
        self.watches.iter().map(Watch::report).collect()
    }

    /// All drilldowns that go on.
    pub fn drilldown_reports(&self) -> Vec<DrilldownReport> {
        let of_thresholds = self.watches.iter().filter_map(Watch::drilldown_report);
        of_thresholds.chain(self.demands.reports()).collect()
    }
}

fn note_resets(meter: &Meter, outcome: &mut Outcome) {
    let reset = (meter.counters().iter())
        .filter(|counter| matches!(counter.delta, Delta::Reset { .. }))
        .map(|counter| &counter.name);
    outcome.events.extend(reset_events(reset));
}

/// One record for each reset, or one for all when they are many.
pub fn reset_events<'a>(names: impl Iterator<Item = &'a CounterName> + Clone) -> Vec<Event> {
    let count = names.clone().count();
    if count > RESETS_NAMED {
        return vec![Event::Reset {
            counter: None,
            counters: count,
            by: None,
        }];
    }
    let records = names.map(|name| Event::Reset {
        counter: Some(name.clone()),
        counters: 1,
        by: None,
    });
    records.collect()
}
