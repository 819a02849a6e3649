//! Drilldowns on demand: somebody asks about a counter or a host, and is told what is found until the time is up or
//! they have had enough. Pure, as `watch`; what they find goes to who asked and to nobody else.

mod notes;

use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;

use crate::ask::{Answer, Ask, Counted, Ending, Inquiry, Outcome, Progress, Question};
use crate::config::{Config, Counter};
use crate::drilldown::rank::RankBy;
use crate::drilldown::verdict::{Findings, Verdict};
use crate::event::{Event, TopList};
use crate::meter::{Delta, Meter, Metered};
use crate::report::DrilldownReport;
use crate::units::{CounterName, Tick, Uptime, Volume};

pub use notes::{Conntrack, notes};

/// At once: each of them is ranked and sent after every dump.
pub const DEMANDS_MAX: usize = 8;
/// A verdict waits for the dump going on and one more, of seconds where there are a million flows. One that has not
/// come by then was never asked for, since the thread that follows flows had no room for the question.
const VERDICT_WITHIN: Duration = Duration::from_secs(60);

/// What somebody asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Wish {
    /// Whose traffic.
    pub about: About,
    /// How long; `None` until they end it. The configuration's `max_duration` bounds both.
    pub lasting: Option<Duration>,
}

/// Whose traffic is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum About {
    /// All that a counter counts.
    Counter(CounterName),
    /// All that an inside address sends and receives.
    Host(IpAddr),
}

/// A moment at which an account begins or ends, between two readings, so that thresholds know nothing of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// When; the last reading where the counter cannot be read now.
    pub tick: Tick,
    /// The clock, whatever the last reading was.
    pub now: Uptime,
    /// The kernel's value of its counter then; `None` for a host, or where it is the last reading's.
    pub kernel: Option<Volume>,
}

impl Moment {
    /// That of a reading.
    fn of(tick: Tick) -> Moment {
        Moment {
            tick,
            now: tick.at,
            kernel: None,
        }
    }
}

/// A drilldown that was begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begun {
    /// Its id.
    pub id: String,
    /// Where the account begins.
    pub started: Timestamp,
    /// What makes the answer less than it could be, a sentence each.
    pub notes: Vec<String>,
}

/// Why there is no drilldown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is in no configuration.
    #[error("there is no counter {name}{}", meant(.nearest.as_ref()))]
    UnknownCounter {
        /// As asked for.
        name: CounterName,
        /// What was probably meant.
        nearest: Option<CounterName>,
    },
    /// Someone else's, and nothing says what it counts.
    #[error(
        "{name} reads a counter of someone else, and nothing says which flows it counts: write in, out, from or to \
         under counters.{name}"
    )]
    Unselective {
        /// The counter.
        name: CounterName,
    },
    /// There are as many as there may be.
    #[error("{DEMANDS_MAX} drilldowns on demand go on already: end one, or wait until one ends")]
    TooMany,
}

fn meant(nearest: Option<&CounterName>) -> String {
    match nearest {
        Some(nearest) => format!(": did you mean {nearest}?"),
        None => "; `flowctl status` shows those there are".to_owned(),
    }
}

/// All of them.
#[derive(Debug, Default)]
pub struct Demands {
    going: Vec<Demand>,
    /// In milliseconds since 1970, of the newest id.
    last_id: i64,
}

#[derive(Debug)]
struct Demand {
    id: String,
    about: About,
    started: Tick,
    until: Uptime,
    /// Whether that is so because of `max_duration`.
    bounded: bool,
    notes: Vec<String>,
    tally: Option<Tally>,
    progress: Option<Progress>,
    /// The verdict has been asked for.
    ended: Option<Uptime>,
}

/// What a counter has counted since its account began.
#[derive(Debug)]
struct Tally {
    /// Where it stands in the configuration's order.
    position: usize,
    total_at_start: Volume,
    peak_bits: f64,
    peak_packets: f64,
}

impl Demands {
    /// Begins one; `notes` are passed on with all that it finds.
    pub fn begin(
        &mut self,
        wish: Wish,
        moment: Moment,
        notes: Vec<String>,
        config: &Config,
        meter: &Meter,
    ) -> Result<(Begun, Outcome), Refusal> {
        if self.going.len() >= DEMANDS_MAX {
            return Err(Refusal::TooMany);
        }
        let (question, tally) = match &wish.about {
            About::Host(address) => (Question::Host(*address), None),
            About::Counter(name) => {
                let (position, counter) = find(config, name)?;
                let tally = (meter.counters().get(position)).map(|metered| Tally {
                    position,
                    total_at_start: total(metered, &moment),
                    peak_bits: 0.0,
                    peak_packets: 0.0,
                });
                (Question::Counter(Box::new(counter.clone())), tally)
            }
        };
        let started = moment.tick;
        let asked = wish.lasting.unwrap_or(Duration::MAX);
        let lasting = asked.min(config.drilldown.max_duration);
        let demand = Demand {
            id: self.new_id(started.wall),
            about: wish.about,
            started,
            until: Uptime(started.at.0 + lasting),
            bounded: lasting < asked,
            notes,
            tally,
            progress: None,
            ended: None,
        };
        let mut outcome = Outcome::default();
        outcome.asks.push(Ask::Begin(Box::new(Inquiry {
            id: demand.id.clone(),
            threshold: None,
            question,
            rank_by: RankBy::Bytes,
            started,
            quiet_since: started.wall,
        })));
        outcome.asks.extend(demand.counted(meter, &moment));
        let begun = Begun {
            id: demand.id.clone(),
            started: started.wall,
            notes: demand.notes.clone(),
        };
        self.going.push(demand);
        Ok((begun, outcome))
    }

    /// No threshold's name has a hyphen: such ids are nobody else's.
    fn new_id(&mut self, now: Timestamp) -> String {
        self.last_id = now.as_millisecond().max(self.last_id + 1);
        format!("on-demand-{}", self.last_id)
    }

    /// Takes a reading.
    pub fn observe(&mut self, tick: Tick, meter: &Meter, outcome: &mut Outcome) {
        for demand in self
            .going
            .iter_mut()
            .filter(|demand| demand.ended.is_none())
        {
            let moment = Moment::of(tick);
            demand.note_peak(tick, meter);
            outcome.asks.extend(demand.counted(meter, &moment));
        }
    }

    /// Takes what a drilldown has found so far; `None` where it is not about one of these.
    pub fn explain(&mut self, progress: &Progress) -> Option<Answer> {
        let demand = self.find(&progress.id)?;
        if demand.ended.is_some() {
            return None;
        }
        let mut progress = progress.clone();
        progress.found.notes.extend(demand.notes.iter().cloned());
        let list = Event::Flows(TopList {
            threshold: None,
            counter: demand.about.counter().cloned(),
            host: demand.about.host(),
            drilldown: demand.id.clone(),
            counted_bytes: progress.counted_bytes,
            found: progress.found.clone(),
        });
        demand.progress = Some(progress);
        Some(Answer {
            id: demand.id.clone(),
            told: Ok(list),
        })
    }

    /// Takes a verdict; `None` where nobody waits for it any more.
    pub fn conclude(&mut self, mut verdict: Verdict) -> Option<Answer> {
        let at = (self.going.iter()).position(|demand| demand.id == verdict.drilldown)?;
        let demand = self.going.remove(at);
        verdict.found.notes.extend(demand.notes);
        Some(Answer {
            id: demand.id,
            told: Ok(Event::Verdict(Box::new(verdict))),
        })
    }

    /// Asks for the verdict, once.
    pub fn end(&mut self, id: &str, moment: Moment, meter: &Meter, by: Option<&str>) -> Outcome {
        let mut outcome = Outcome::default();
        if let Some(demand) = self.find(id) {
            outcome.asks.extend(demand.end(moment, meter, by));
        }
        outcome
    }

    /// The same for all of them.
    pub fn end_all(&mut self, tick: Tick, meter: &Meter, by: &str, outcome: &mut Outcome) {
        let moment = Moment::of(tick);
        let ends = self.going.iter_mut();
        let ends = ends.filter_map(|demand| demand.end(moment, meter, Some(by)));
        outcome.asks.extend(ends);
    }

    /// Forgets one: whoever asked is gone.
    pub fn discard(&mut self, id: &str) -> Outcome {
        let known = self.find(id).is_some();
        self.going.retain(|demand| demand.id != id);
        let discard = known.then(|| Ask::Discard { id: id.to_owned() });
        Outcome {
            asks: discard.into_iter().collect(),
            ..Outcome::default()
        }
    }

    /// Takes a new configuration, before the meter does. Those whose counter is as it was go on.
    pub fn reconfigure(
        &mut self,
        before: &Config,
        after: &Config,
        now: Tick,
        meter: &Meter,
        outcome: &mut Outcome,
    ) {
        for demand in &mut self.going {
            let About::Counter(name) = &demand.about else {
                continue;
            };
            let position = find(after, name).ok().filter(|(_, counter)| {
                (before.counter(name)).is_some_and(|before| before.is_written_as(counter))
            });
            match (position, &mut demand.tally) {
                (Some((position, _)), Some(tally)) => tally.position = position,
                (None, _) | (_, None) => {
                    let moment = Moment::of(now);
                    let by = Some("the configuration was reloaded");
                    outcome.asks.extend(demand.end(moment, meter, by));
                }
            }
        }
    }

    /// The next moment at which `overdue` or `give_up` has something.
    pub fn due(&self) -> Option<Uptime> {
        let due = |demand: &Demand| match demand.ended {
            None => demand.until,
            Some(ended) => Uptime(ended.0 + VERDICT_WITHIN),
        };
        self.going.iter().map(due).min()
    }

    /// Those whose time is up at `now`, each with why it ends where that is not what was asked for.
    pub fn overdue(&self, now: Uptime) -> Vec<(String, Option<&'static str>)> {
        let over = |demand: &&Demand| demand.ended.is_none() && demand.until <= now;
        let overdue = self.going.iter().filter(over);
        let told = |demand: &Demand| {
            let by = demand.bounded.then_some("max_duration");
            (demand.id.clone(), by)
        };
        overdue.map(told).collect()
    }

    /// Forgets those whose verdict has not come by `now`.
    pub fn give_up(&mut self, now: Uptime) -> Outcome {
        let mut outcome = Outcome::default();
        self.going.retain(|demand| {
            let waits = demand
                .ended
                .is_none_or(|ended| now.since(ended) < VERDICT_WITHIN);
            if !waits {
                let id = demand.id.clone();
                outcome.asks.push(Ask::Discard { id: id.clone() });
                let told = Err("the thread that follows flows gave no verdict".to_owned());
                outcome.answers.push(Answer { id, told });
            }
            waits
        });
        outcome
    }

    /// Whose traffic that one is about.
    pub fn about(&self, id: &str) -> Option<&About> {
        let mut going = self.going.iter();
        let found = going.find(|demand| demand.id == id);
        found.map(|demand| &demand.about)
    }

    /// Those that go on.
    pub fn reports(&self) -> impl Iterator<Item = DrilldownReport> {
        let going = self.going.iter().filter(|demand| demand.ended.is_none());
        going.map(Demand::report)
    }

    fn find(&mut self, id: &str) -> Option<&mut Demand> {
        self.going.iter_mut().find(|demand| demand.id == id)
    }
}

impl Demand {
    /// Peaks are those of whole intervals within the account.
    fn note_peak(&mut self, tick: Tick, meter: &Meter) {
        let started = self.started.at;
        let Some(tally) = &mut self.tally else {
            return;
        };
        let metered = meter.counters().get(tally.position);
        if let Some((bits, packets, interval)) = metered.and_then(Metered::rates)
            && tick.at.since(started) >= interval
        {
            tally.peak_bits = tally.peak_bits.max(bits);
            tally.peak_packets = tally.peak_packets.max(packets);
        }
    }

    /// What the drilldown must know of that moment; `None` when there is nothing to tell.
    fn counted(&self, meter: &Meter, moment: &Moment) -> Option<Ask> {
        let tally = self.tally.as_ref()?;
        let metered = meter.counters().get(tally.position)?;
        let unread = moment.kernel.is_none() && metered.delta == Delta::Unread;
        (!unread).then(|| Ask::Counted {
            id: self.id.clone(),
            counted: total(metered, moment).since(tally.total_at_start),
            kernel: moment.kernel.unwrap_or(metered.kernel),
        })
    }

    fn end(&mut self, moment: Moment, meter: &Meter, by: Option<&str>) -> Option<Ask> {
        if self.ended.is_some() {
            return None;
        }
        self.ended = Some(moment.now);
        let lasted = moment.tick.at.since(self.started.at).as_secs_f64();
        let counted = self.tally.as_ref().map(|tally| {
            let metered = meter.counters().get(tally.position);
            let now = metered.map(|metered| total(metered, &moment));
            let volume = now.unwrap_or_default().since(tally.total_at_start);
            // Shorter than an interval, an account has no peak but its mean.
            let mean = |count: u64| {
                if lasted > 0.0 {
                    count as f64 / lasted
                } else {
                    0.0
                }
            };
            Counted {
                volume,
                peak_bits: tally.peak_bits.max(mean(volume.bytes) * 8.0),
                peak_packets: tally.peak_packets.max(mean(volume.packets)),
                gaps: 0,
            }
        });
        Some(Ask::End(Box::new(Ending {
            id: self.id.clone(),
            ended: moment.tick,
            counted,
            ended_by: by.map(str::to_owned),
        })))
    }

    fn report(&self) -> DrilldownReport {
        let report = DrilldownReport {
            id: self.id.clone(),
            threshold: None,
            counter: self.about.counter().cloned(),
            host: self.about.host(),
            started: self.started.wall,
            counted_bytes: self.tally.as_ref().map(|_| 0),
            coverage: None,
            found: Findings {
                notes: self.notes.clone(),
                ..Findings::default()
            },
            dumps: 0,
            dump_microseconds: 0,
            interval_seconds: 0.0,
        };
        report.with(self.progress.as_ref())
    }
}

impl About {
    /// The counter asked for.
    pub fn counter(&self) -> Option<&CounterName> {
        match self {
            About::Counter(name) => Some(name),
            About::Host(_) => None,
        }
    }

    /// The host asked for.
    pub fn host(&self) -> Option<IpAddr> {
        match self {
            About::Counter(_) => None,
            About::Host(address) => Some(*address),
        }
    }
}

/// A counter of which it is known what it counts, and where it stands in the configuration's order.
fn find<'a>(config: &'a Config, name: &CounterName) -> Result<(usize, &'a Counter), Refusal> {
    let mut counters = config.counters.iter().enumerate();
    let Some((position, counter)) = counters.find(|(_, counter)| counter.name == *name) else {
        return Err(Refusal::UnknownCounter {
            name: name.clone(),
            nearest: config.nearest_counter(name.as_str()).cloned(),
        });
    };
    if counter.existing.is_some() && counter.selectors.is_empty() {
        return Err(Refusal::Unselective { name: name.clone() });
    }
    Ok((position, counter))
}

/// flowctl's total at that moment. A value below the last one is a reset, which the next reading accounts for.
fn total(metered: &Metered, moment: &Moment) -> Volume {
    let since = moment.kernel.map(|kernel| kernel.since(metered.kernel));
    metered.total.plus(since.unwrap_or_default())
}
