//! One threshold at work: its state, and the drilldown that goes with it from pending until it is idle again.
//! It decides when a drilldown begins and ends; what the drilldown finds is the business of the drilldown.

use std::time::Duration;

use jiff::Timestamp;

use crate::ask::{Ask, Counted, Ending, Inquiry, Outcome, Progress, Question};
use crate::config::{Config, Levels, Threshold};
use crate::drilldown::rank::RankBy;
use crate::drilldown::verdict::Findings;
use crate::event::{Event, Raised, TopList};
use crate::meter::{Delta, Meter};
use crate::report::{DrilldownReport, ThresholdReport};
use crate::threshold::{Rates, State, Transition};
use crate::units::{Tick, Uptime, Volume};

/// A drilldown's interim list is logged at most this often.
const TOP_LIST_INTERVAL: Duration = Duration::from_secs(30);

/// A threshold, its counter's place, and what is going on.
pub struct Watch {
    threshold: Threshold,
    /// Where the counter stands in the configuration's order.
    position: usize,
    state: State,
    /// The last reading that had the counter, when newer ones had it not.
    unread_since: Option<Tick>,
    /// Where the last interval began, when the counter counted nothing in it.
    quiet_since: Option<Tick>,
    drilldown: Option<Running>,
}

struct Running {
    id: String,
    started: Tick,
    total_at_start: Volume,
    peak_bits: f64,
    peak_packets: f64,
    gaps: u32,
    progress: Option<Progress>,
    listed_at: Uptime,
    /// It has run for max_duration: the verdict is given, the threshold is not idle yet.
    over: bool,
}

/// Where an account begins.
#[derive(Clone, Copy)]
struct AccountStart {
    started: Tick,
    /// As in the inquiry.
    quiet_since: Timestamp,
}

impl Watch {
    /// Idle since `now`.
    pub fn new(threshold: &Threshold, config: &Config, now: Tick) -> Self {
        let position = config
            .counters
            .iter()
            .position(|counter| counter.name == threshold.counter);
        Watch {
            threshold: threshold.clone(),
            // A valid configuration has the counter; one past the end would read nothing.
            position: position.unwrap_or(config.counters.len()),
            state: State::Idle { since: now },
            unread_since: None,
            quiet_since: None,
            drilldown: None,
        }
    }

    /// Whether it is this threshold, word for word.
    pub fn watches(&self, threshold: &Threshold) -> bool {
        self.threshold == *threshold
    }

    /// Takes over the state of the same threshold in the configuration before.
    pub fn continue_from(&mut self, before: Watch) {
        self.state = before.state;
        self.unread_since = before.unread_since;
        self.quiet_since = before.quiet_since;
        self.drilldown = before.drilldown;
    }

    /// Whether that drilldown is the one going on.
    pub fn follows(&self, id: &str) -> bool {
        self.drilldown
            .as_ref()
            .is_some_and(|running| running.id == id)
    }

    /// Takes a reading. An account that begins now begins at `account_start`, the reading before.
    pub fn observe(
        &mut self,
        tick: Tick,
        account_start: Tick,
        meter: &Meter,
        config: &Config,
        outcome: &mut Outcome,
    ) {
        let Some(counter) = meter.counters().get(self.position) else {
            return;
        };
        if let Some(running) = &mut self.drilldown
            && matches!(counter.delta, Delta::First | Delta::Reset { .. })
        {
            running.gaps += 1;
        }
        let Some((bits, packets, interval)) = counter.rates() else {
            match counter.delta {
                Delta::Unread => self.unread_since = self.unread_since.or(Some(account_start)),
                Delta::First | Delta::Advanced { .. } | Delta::Reset { .. } => {
                    self.unread_since = None;
                }
            }
            self.quiet_since = None;
            return;
        };
        let account_start = self.unread_since.take().unwrap_or(account_start);
        let nothing =
            matches!(counter.delta, Delta::Advanced { volume, .. } if volume == Volume::default());
        let quiet_since =
            std::mem::replace(&mut self.quiet_since, nothing.then_some(account_start));
        let start = AccountStart {
            started: account_start,
            quiet_since: quiet_since.unwrap_or(account_start).wall,
        };
        let rates = Rates {
            bits,
            packets,
            interval,
        };
        let (state, transition) = self
            .state
            .observe(&self.threshold, tick, rates, config.tick);
        self.state = state;
        match transition {
            Transition::Began => self.begin(start, rates, meter, config, outcome),
            Transition::BeganAndRaised => {
                self.begin(start, rates, meter, config, outcome);
                self.raise(tick, rates, outcome);
            }
            Transition::Raised => {
                self.follow(tick, rates, meter, config, outcome);
                self.raise(tick, rates, outcome);
            }
            Transition::None => self.follow(tick, rates, meter, config, outcome),
            Transition::Subsided => {
                let id = self.drilldown.take().map(|running| running.id);
                outcome.asks.extend(id.map(|id| Ask::Discard { id }));
            }
            Transition::Cleared => {
                outcome.events.push(self.cleared());
                self.note_peak(rates);
                self.end(tick, meter, None, outcome);
            }
        }
    }

    fn begin(
        &mut self,
        start: AccountStart,
        rates: Rates,
        meter: &Meter,
        config: &Config,
        outcome: &mut Outcome,
    ) {
        let Some(counter) = config
            .counters
            .get(self.position)
            .filter(|_| self.threshold.drilldown)
        else {
            return;
        };
        let started = start.started;
        let id = format!("{}-{}", self.threshold.name, started.wall.as_millisecond());
        let counted = self.counted_in_last_interval(meter);
        let total = meter.counters()[self.position].total;
        outcome.asks.push(Ask::Begin(Box::new(Inquiry {
            id: id.clone(),
            threshold: Some(self.threshold.name.clone()),
            question: Question::Counter(Box::new(counter.clone())),
            rank_by: match self.threshold.levels {
                Levels::Bits { .. } => RankBy::Bytes,
                Levels::Packets { .. } => RankBy::Packets,
            },
            started,
            quiet_since: start.quiet_since,
        })));
        self.drilldown = Some(Running {
            id,
            started,
            total_at_start: total.since(counted),
            peak_bits: rates.bits,
            peak_packets: rates.packets,
            gaps: 0,
            progress: None,
            listed_at: started.at,
            over: false,
        });
        outcome.asks.extend(self.counted(meter));
    }

    fn counted_in_last_interval(&self, meter: &Meter) -> Volume {
        match meter.counters()[self.position].delta {
            Delta::Advanced { volume, .. } | Delta::Reset { volume, .. } => volume,
            Delta::First | Delta::Unread => Volume::default(),
        }
    }

    /// What the drilldown must know of this reading; `None` when there is none to tell.
    fn counted(&self, meter: &Meter) -> Option<Ask> {
        let running = self.drilldown.as_ref().filter(|running| !running.over)?;
        let counter = &meter.counters()[self.position];
        let counted = counter.total.since(running.total_at_start);
        Some(Ask::Counted {
            id: running.id.clone(),
            counted,
            kernel: counter.kernel,
        })
    }

    fn follow(
        &mut self,
        tick: Tick,
        rates: Rates,
        meter: &Meter,
        config: &Config,
        outcome: &mut Outcome,
    ) {
        self.note_peak(rates);
        let lasted = self
            .drilldown
            .as_ref()
            .map(|running| tick.at.since(running.started.at));
        if lasted.is_some_and(|lasted| lasted >= config.drilldown.max_duration) {
            self.end(tick, meter, Some("max_duration"), outcome);
        } else {
            outcome.asks.extend(self.counted(meter));
        }
    }

    fn note_peak(&mut self, rates: Rates) {
        if let Some(running) = &mut self.drilldown {
            running.peak_bits = running.peak_bits.max(rates.bits);
            running.peak_packets = running.peak_packets.max(rates.packets);
        }
    }

    /// Takes what the drilldown has found so far; now and then that is worth a record.
    pub fn explain(&mut self, tick: Tick, progress: Progress) -> Option<Event> {
        let firing = matches!(self.state, State::Firing { .. } | State::Clearing { .. });
        let running = self.drilldown.as_mut()?;
        let due = firing && tick.at.since(running.listed_at) >= TOP_LIST_INTERVAL;
        let list = due.then(|| {
            running.listed_at = tick.at;
            Event::Flows(TopList {
                threshold: Some(self.threshold.name.clone()),
                counter: Some(self.threshold.counter.clone()),
                drilldown: progress.id.clone(),
                host: None,
                counted_bytes: progress.counted_bytes,
                found: progress.found.clone(),
            })
        });
        running.progress = Some(progress);
        list
    }

    fn raise(&mut self, tick: Tick, rates: Rates, outcome: &mut Outcome) {
        let (bits, packets, level) = match self.threshold.levels {
            Levels::Bits { raise, .. } => (Some(rates.bits), None, raise.0),
            Levels::Packets { raise, .. } => (None, Some(rates.packets), raise.0),
        };
        if let Some(running) = &mut self.drilldown {
            running.listed_at = tick.at;
        }
        let running = self.drilldown.as_ref();
        let progress = running.and_then(|running| running.progress.as_ref());
        outcome.events.push(Event::Raised(Raised {
            threshold: self.threshold.name.clone(),
            counter: self.threshold.counter.clone(),
            drilldown: running.map(|running| running.id.clone()),
            bits_per_second: bits,
            packets_per_second: packets,
            level,
            counted_bytes: progress.and_then(|progress| progress.counted_bytes),
            attributed_bytes: progress.map(|progress| progress.found.attributed_bytes),
            excess_bytes: progress.map(|progress| progress.found.excess_bytes),
            hosts: progress
                .map(|progress| progress.found.hosts.clone())
                .unwrap_or_default(),
            flows: progress
                .map(|progress| progress.found.flows.clone())
                .unwrap_or_default(),
        }));
    }

    /// The threshold is no more: its alert is over, and its drilldown ends.
    pub fn retire(&mut self, tick: Tick, meter: &Meter, why: &str, outcome: &mut Outcome) {
        if matches!(self.state, State::Firing { .. } | State::Clearing { .. }) {
            outcome.events.push(self.cleared());
        }
        self.end(tick, meter, Some(why), outcome);
    }

    fn cleared(&self) -> Event {
        Event::Cleared {
            threshold: self.threshold.name.clone(),
            counter: self.threshold.counter.clone(),
            drilldown: self.drilldown.as_ref().map(|running| running.id.clone()),
        }
    }

    /// Asks for the verdict, once. The drilldown is remembered while its alert goes on.
    pub fn end(
        &mut self,
        tick: Tick,
        meter: &Meter,
        ended_by: Option<&str>,
        outcome: &mut Outcome,
    ) {
        let Some(running) = &mut self.drilldown else {
            return;
        };
        let fired = !matches!(self.state, State::Pending { .. });
        if !running.over && fired {
            let total = meter
                .counters()
                .get(self.position)
                .map(|counter| counter.total)
                .unwrap_or_default();
            outcome.asks.push(Ask::End(Box::new(Ending {
                id: running.id.clone(),
                ended: tick,
                counted: Some(Counted {
                    volume: total.since(running.total_at_start),
                    peak_bits: running.peak_bits,
                    peak_packets: running.peak_packets,
                    gaps: running.gaps,
                }),
                ended_by: ended_by.map(str::to_owned),
            })));
        } else if !running.over {
            outcome.asks.push(Ask::Discard {
                id: running.id.clone(),
            });
        }
        running.over = true;
        if matches!(self.state, State::Idle { .. }) {
            self.drilldown = None;
        }
    }

    /// As it stands.
    pub fn report(&self) -> ThresholdReport {
        let (state, since) = self.state.word();
        let (mut raise_bits, mut clear_bits, mut raise_packets, mut clear_packets) =
            (None, None, None, None);
        match self.threshold.levels {
            Levels::Bits { raise, clear } => {
                (raise_bits, clear_bits) = (Some(raise.0), Some(clear.0))
            }
            Levels::Packets { raise, clear } => {
                (raise_packets, clear_packets) = (Some(raise.0), Some(clear.0))
            }
        }
        ThresholdReport {
            name: self.threshold.name.clone(),
            counter: self.threshold.counter.clone(),
            state,
            since: since.wall,
            raise_bits_per_second: raise_bits,
            clear_bits_per_second: clear_bits,
            raise_packets_per_second: raise_packets,
            clear_packets_per_second: clear_packets,
        }
    }

    /// The drilldown going on, if any.
    pub fn drilldown_report(&self) -> Option<DrilldownReport> {
        let running = self.drilldown.as_ref().filter(|running| !running.over)?;
        let report = DrilldownReport {
            id: running.id.clone(),
            threshold: Some(self.threshold.name.clone()),
            counter: Some(self.threshold.counter.clone()),
            host: None,
            started: running.started.wall,
            counted_bytes: Some(0),
            coverage: None,
            found: Findings::default(),
            dumps: 0,
            dump_microseconds: 0,
            interval_seconds: 0.0,
        };
        Some(report.with(running.progress.as_ref()))
    }
}
