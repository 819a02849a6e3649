//! When the next bytes may leave, for a given bit rate. Pure: the time is handed in.

use std::time::Duration;

use crate::units::{BitRate, Uptime};

/// How much lateness is made up for by a burst; what is beyond is lost sending time.
const MOST_LATENESS: Duration = Duration::from_millis(50);

/// The schedule of one sender.
#[derive(Debug)]
pub(super) struct Pace {
    /// `None`: as fast as possible.
    rate: Option<BitRate>,
    next: Uptime,
}

impl Pace {
    pub(super) fn new(rate: Option<BitRate>, now: Uptime) -> Pace {
        Pace { rate, next: now }
    }

    /// From now on at this rate, if there is one; what was spent stays spent.
    pub(super) fn change(&mut self, rate: Option<BitRate>) {
        self.rate = rate.or(self.rate);
    }

    /// How long to wait before sending; zero for now.
    pub(super) fn due_in(&mut self, now: Uptime) -> Duration {
        let oldest = Uptime(now.0.saturating_sub(MOST_LATENESS));
        self.next = self.next.max(oldest);
        self.next.since(now)
    }

    /// Accounts for what was sent.
    pub(super) fn spend(&mut self, bytes: u64) {
        if let Some(BitRate(rate)) = self.rate {
            let seconds = bytes as f64 * 8.0 / rate;
            self.next.0 +=
                Duration::try_from_secs_f64(seconds).unwrap_or(Duration::from_secs(3600));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> Uptime {
        Uptime(Duration::from_millis(milliseconds))
    }

    #[test]
    fn a_megabit_takes_a_second_at_a_megabit_a_second() {
        let mut pace = Pace::new(Some(BitRate(1e6)), at(0));
        pace.spend(125_000);
        assert_eq!(pace.due_in(at(400)), Duration::from_millis(600));
    }

    #[test]
    fn a_long_pause_is_not_made_up_for() {
        let mut pace = Pace::new(Some(BitRate(1e6)), at(0));
        assert_eq!(pace.due_in(at(10_000)), Duration::ZERO);
        pace.spend(12_500);
        assert_eq!(pace.due_in(at(10_000)), Duration::from_millis(50));
    }

    #[test]
    fn a_rate_that_changes_counts_from_the_next_byte_on() {
        let mut pace = Pace::new(Some(BitRate(1e6)), at(0));
        pace.spend(12_500);
        pace.change(Some(BitRate(2e6)));
        pace.change(None);
        assert_eq!(pace.due_in(at(60)), Duration::from_millis(40));
        pace.spend(12_500);
        assert_eq!(pace.due_in(at(100)), Duration::from_millis(50));
    }

    #[test]
    fn without_a_rate_it_is_always_time() {
        let mut pace = Pace::new(None, at(0));
        pace.spend(u64::MAX);
        assert_eq!(pace.due_in(at(0)), Duration::ZERO);
    }
}
