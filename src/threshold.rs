//! One threshold's state machine. It is told rates with the interval they were measured over and says what
//! changed; it reads no clock, and no reading makes it skip a state's waiting time.

use std::time::Duration;

use crate::config::{Levels, Threshold};
use crate::report::StateWord;
use crate::units::Tick;

/// A rate measured over more ticks than this can make a threshold pending but not fire it.
const STRETCHED_TICKS: u32 = 3;

/// Where a threshold stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// At or below raise.
    Idle {
        /// The tick at which it became so.
        since: Tick,
    },
    /// Above raise, not yet for as long as hold.
    Pending {
        /// The first reading above raise.
        since: Tick,
    },
    /// Raised.
    Firing {
        /// The reading that fired it.
        since: Tick,
    },
    /// At or below clear, not yet for as long as release.
    Clearing {
        /// The first reading at or below clear.
        since: Tick,
        /// The reading that fired it.
        fired: Tick,
    },
}

/// What one reading changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transition {
    /// Idle to pending: a drilldown begins.
    Began,
    /// Idle to firing at once: a drilldown begins and the alert is raised.
    BeganAndRaised,
    /// Pending to firing: the alert is raised.
    Raised,
    /// Pending back to idle: nothing worth an alert.
    Subsided,
    /// Firing or clearing to idle: the alert is over.
    Cleared,
    /// Between firing and clearing, or no change at all.
    None,
}

/// One counter's rates at one reading.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// Bits per second.
    pub bits: f64,
    /// Packets per second.
    pub packets: f64,
    /// The time they were measured over.
    pub interval: Duration,
}

impl State {
    /// The state after a reading at `tick`.
    pub fn observe(
        self,
        threshold: &Threshold,
        tick: Tick,
        rates: Rates,
        tick_interval: Duration,
    ) -> (State, Transition) {
        let (rate, raise, clear) = match threshold.levels {
            Levels::Bits { raise, clear } => (rates.bits, raise.0, clear.0),
            Levels::Packets { raise, clear } => (rates.packets, raise.0, clear.0),
        };
        let may_fire = rates.interval <= tick_interval * STRETCHED_TICKS;
        let waited = |since: Tick, wait: Duration| tick.at.since(since.at) >= wait;
        match self {
            State::Idle { .. } if rate > raise => {
                if threshold.hold.is_zero() && may_fire {
                    (State::Firing { since: tick }, Transition::BeganAndRaised)
                } else {
                    (State::Pending { since: tick }, Transition::Began)
                }
            }
            State::Pending { since } if rate > raise => {
                if waited(since, threshold.hold) && may_fire {
                    (State::Firing { since: tick }, Transition::Raised)
                } else {
                    (self, Transition::None)
                }
            }
            State::Pending { .. } => (State::Idle { since: tick }, Transition::Subsided),
            State::Firing { since: fired } if rate <= clear => {
                if threshold.release.is_zero() {
                    (State::Idle { since: tick }, Transition::Cleared)
                } else {
                    (State::Clearing { since: tick, fired }, Transition::None)
                }
            }
            State::Clearing { since, .. } if rate <= clear => {
                if waited(since, threshold.release) {
                    (State::Idle { since: tick }, Transition::Cleared)
                } else {
                    (self, Transition::None)
                }
            }
            State::Clearing { fired, .. } => (State::Firing { since: fired }, Transition::None),
            State::Idle { .. } | State::Firing { .. } => (self, Transition::None),
        }
    }

    /// The state as a word, and since when.
    pub fn word(self) -> (StateWord, Tick) {
        match self {
            State::Idle { since } => (StateWord::Idle, since),
            State::Pending { since } => (StateWord::Pending, since),
            State::Firing { since } => (StateWord::Firing, since),
            State::Clearing { since, .. } => (StateWord::Clearing, since),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{BitRate, CounterName, ThresholdName, Uptime};
    use proptest::prelude::*;

    fn threshold(hold: u64, release: u64) -> Threshold {
        Threshold {
            name: ThresholdName::new("full").unwrap(),
            counter: CounterName::new("wan_out").unwrap(),
            levels: Levels::Bits {
                raise: BitRate(100.0),
                clear: BitRate(80.0),
            },
            hold: Duration::from_secs(hold),
            release: Duration::from_secs(release),
            drilldown: true,
        }
    }

    fn tick(second: u64) -> Tick {
        let wall = jiff::Timestamp::from_second(1_000_000 + second as i64).unwrap();
        Tick {
            sequence: second,
            at: Uptime(Duration::from_secs(second)),
            wall,
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    /// Feeds one rate a second and returns the state's word after each, and what changed.
    fn run(threshold: &Threshold, rates: &[f64]) -> Vec<(StateWord, Transition)> {
        let mut state = State::Idle { since: tick(0) };
        let mut seen = Vec::new();
        for (at, bits) in rates.iter().enumerate() {
            let rates = Rates {
                bits: *bits,
                packets: 0.0,
                interval: SECOND,
            };
            let (next, transition) = state.observe(threshold, tick(at as u64 + 1), rates, SECOND);
            state = next;
            seen.push((state.word().0, transition));
        }
        seen
    }

    fn words(threshold: &Threshold, rates: &[f64]) -> String {
        let letter = |word| match word {
            StateWord::Idle => 'i',
            StateWord::Pending => 'p',
            StateWord::Firing => 'F',
            StateWord::Clearing => 'c',
        };
        run(threshold, rates)
            .into_iter()
            .map(|(word, _)| letter(word))
            .collect()
    }

    #[test]
    fn it_fires_after_hold_and_is_idle_after_release() {
        let rates = [
            50.0, 150.0, 150.0, 150.0, 150.0, 90.0, 80.0, 10.0, 10.0, 10.0,
        ];
        assert_eq!(words(&threshold(3, 2), &rates), "ipppFFccii");
    }

    #[test]
    fn a_reading_at_raise_is_not_above_it_and_one_at_clear_clears() {
        assert_eq!(
            words(&threshold(1, 1), &[100.0, 101.0, 101.0, 81.0, 80.0, 80.0]),
            "ipFFci"
        );
    }

    #[test]
    fn a_dip_to_raise_while_pending_starts_over() {
        assert_eq!(
            words(
                &threshold(2, 1),
                &[101.0, 101.0, 100.0, 101.0, 101.0, 101.0]
            ),
            "ppippF"
        );
    }

    #[test]
    fn a_rise_above_clear_while_clearing_is_firing_again_without_a_second_alert() {
        let seen = run(&threshold(0, 2), &[150.0, 70.0, 90.0, 70.0, 70.0, 70.0]);
        let alerts = seen
            .iter()
            .filter(|(_, t)| matches!(t, Transition::BeganAndRaised | Transition::Raised))
            .count();
        assert_eq!(alerts, 1);
        assert_eq!(
            words(&threshold(0, 2), &[150.0, 70.0, 90.0, 70.0, 70.0, 70.0]),
            "FcFcci"
        );
    }

    #[test]
    fn without_hold_and_release_it_fires_and_clears_at_once() {
        assert_eq!(words(&threshold(0, 0), &[150.0, 50.0, 150.0]), "FiF");
    }

    #[test]
    fn a_stretched_interval_makes_it_pending_but_does_not_fire_it() {
        let threshold = threshold(0, 1);
        let stretched = Rates {
            bits: 500.0,
            packets: 0.0,
            interval: Duration::from_secs(4),
        };
        let (state, transition) =
            State::Idle { since: tick(0) }.observe(&threshold, tick(4), stretched, SECOND);
        assert_eq!(
            (state.word().0, transition),
            (StateWord::Pending, Transition::Began)
        );
        let normal = Rates {
            interval: SECOND,
            ..stretched
        };
        assert_eq!(
            state.observe(&threshold, tick(5), normal, SECOND).1,
            Transition::Raised
        );
    }

    proptest! {
        #[test]
        fn it_never_flaps_within_hold_or_release(
            rates in proptest::collection::vec(0.0f64..200.0, 1..80), hold in 0u64..5, release in 1u64..5,
        ) {
            let threshold = threshold(hold, release);
            let seen = run(&threshold, &rates);
            for (at, (_, transition)) in seen.iter().enumerate() {
                match transition {
                    Transition::Raised | Transition::BeganAndRaised => {
                        let from = at - hold as usize;
                        prop_assert!(rates[from..=at].iter().all(|rate| *rate > 100.0));
                    }
                    Transition::Cleared => {
                        let from = at - release as usize;
                        prop_assert!(rates[from..=at].iter().all(|rate| *rate <= 80.0));
                    }
                    Transition::Began | Transition::Subsided | Transition::None => {}
                }
            }
            // Alerts and clearings alternate, beginning with an alert.
            let mut raised = false;
            for (_, transition) in seen {
                match transition {
                    Transition::Raised | Transition::BeganAndRaised => { prop_assert!(!raised); raised = true; }
                    Transition::Cleared => { prop_assert!(raised); raised = false; }
                    Transition::Began | Transition::Subsided | Transition::None => {}
                }
            }
        }
    }
}
