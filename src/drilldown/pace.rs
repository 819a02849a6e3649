//! How often conntrack may be dumped: a drilldown keeps within its CPU budget by stretching the time between dumps, in
//! few steps. Pure: what dumps and events cost is measured elsewhere.

use std::time::Duration;

/// A dump slows forwarding on the other cores: they stay idle this many times as long as one lasts.
pub const REST_FACTOR: u32 = 10;
/// Over any minute the budget is held, not only over many rounds: a minute may begin and end with a dump.
const MARGIN: f64 = 1.25;
/// Dumps keep this part of the budget, however many events there are: without dumps nothing is known of flows that live.
const DUMPS_PART: f64 = 0.25;
/// A step goes this far beyond what is needed, so that the next one is not made at once.
const SPARE: f64 = 1.1;
/// A step back is made when less than this part of the interval would do.
const STEP_BACK: f64 = 0.5;

/// Once a day at least.
const INTERVAL_MAX: Duration = Duration::from_secs(86_400);

/// What one round cost: a dump, and the events since the dump before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Round {
    /// From the dump's beginning to its end.
    pub dump_time: Duration,
    /// CPU time of the dump.
    pub dump_cpu: Duration,
    /// CPU time of everything since the end of the dump before.
    pub events_cpu: Duration,
    /// Time since the end of the dump before.
    pub elapsed: Duration,
}

/// The time between dumps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    shortest: Duration,
    budget: f64,
    interval: Duration,
}

impl Pace {
    /// `shortest` between two dumps; `budget` is the part of one core that a drilldown may use.
    pub fn new(shortest: Duration, budget: f64) -> Self {
        Pace {
            shortest,
            budget,
            interval: shortest,
        }
    }

    /// From the end of a dump to the beginning of the next.
    pub fn interval(&self) -> Duration {
        self.interval
    }

    /// Takes what a round cost; true when the interval is another one now.
    pub fn note(&mut self, round: Round) -> bool {
        let needed = self.needed(round);
        let too_short = needed > self.interval;
        let too_long = needed < self.interval.mul_f64(STEP_BACK);
        if !too_short && !too_long {
            return false;
        }
        let interval = needed.mul_f64(SPARE).max(self.shortest);
        std::mem::replace(&mut self.interval, interval) != interval
    }

    fn needed(&self, round: Round) -> Duration {
        let seconds = round.elapsed.as_secs_f64().max(0.001);
        let events = round.events_cpu.as_secs_f64() / seconds;
        let left = (self.budget - events).max(self.budget * DUMPS_PART);
        let by_budget = MARGIN * round.dump_cpu.as_secs_f64() / left.max(f64::EPSILON);
        // A budget of next to nothing must not overflow.
        let by_budget = Duration::from_secs_f64(by_budget.min(INTERVAL_MAX.as_secs_f64()));
        by_budget.max(round.dump_time * REST_FACTOR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace() -> Pace {
        Pace::new(Duration::from_secs(1), 0.05)
    }

    fn dump(milliseconds: u64) -> Round {
        Round {
            dump_time: Duration::from_millis(milliseconds),
            dump_cpu: Duration::from_millis(milliseconds),
            events_cpu: Duration::ZERO,
            elapsed: Duration::from_secs(1),
        }
    }

    #[test]
    fn a_dump_that_costs_little_stretches_nothing() {
        let mut pace = pace();
        assert!(!pace.note(dump(36)));
        assert_eq!(pace.interval(), Duration::from_secs(1));
    }

    #[test]
    fn a_dump_of_a_million_flows_is_made_about_once_a_minute() {
        let mut pace = pace();
        assert!(pace.note(dump(2_900)));
        assert_eq!(pace.interval(), Duration::from_millis(79_750));
        assert!(!pace.note(dump(2_900)));
    }

    #[test]
    fn the_interval_falls_when_half_of_it_would_do_with_room_to_spare() {
        let mut pace = pace();
        pace.note(dump(80));
        assert_eq!(pace.interval(), Duration::from_millis(2_200));
        assert!(!pace.note(dump(45)));
        assert!(pace.note(dump(30)));
        assert_eq!(pace.interval(), Duration::from_secs(1));
    }

    #[test]
    fn events_take_from_the_budget_but_dumps_go_on() {
        let mut pace = pace();
        let round = Round {
            events_cpu: Duration::from_millis(200),
            ..dump(36)
        };
        pace.note(round);
        assert_eq!(pace.interval(), Duration::from_millis(3_960));
    }

    #[test]
    fn cores_rest_ten_times_as_long_as_a_dump_lasts() {
        let mut pace = Pace::new(Duration::from_secs(1), 1.0);
        pace.note(dump(300));
        assert_eq!(pace.interval(), Duration::from_millis(3_300));
    }
}
