//! When the next tick is due. A late tick is not made up for: it is skipped and counted, so that load does not
//! grow where there is already too much.

use std::time::{Duration, Instant};

/// The beat.
#[derive(Debug)]
pub struct Schedule {
    interval: Duration,
    due: Instant,
    missed: u64,
}

impl Schedule {
    /// The first tick is due one interval after `now`.
    pub fn new(interval: Duration, now: Instant) -> Self {
        Schedule {
            interval,
            due: now + interval,
            missed: 0,
        }
    }

    /// How long to wait; zero when it is due.
    pub fn wait(&self, now: Instant) -> Duration {
        self.due.saturating_duration_since(now)
    }

    /// Whether a tick that was made now would have half an interval at least to judge by.
    pub fn is_half_over(&self, now: Instant) -> bool {
        self.wait(now) <= self.interval / 2
    }

    /// The tick that was due is being made.
    pub fn made(&mut self, now: Instant) {
        self.due += self.interval;
        if let Some(late) = now.checked_duration_since(self.due) {
            let skipped = (late.as_nanos() / self.interval.as_nanos().max(1)) as u32 + 1;
            self.missed += u64::from(skipped);
            self.due += self.interval * skipped;
        }
    }

    /// Another beat from `now` on.
    pub fn set_interval(&mut self, interval: Duration, now: Instant) {
        if interval != self.interval {
            self.interval = interval;
            self.due = now + interval;
        }
    }

    /// How many ticks were skipped.
    pub fn missed(&self) -> u64 {
        self.missed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "an Instant cannot be made from a number"
    )]
    fn a_late_tick_is_skipped_and_counted() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut schedule = Schedule::new(Duration::from_millis(100), start);
        assert_eq!(schedule.wait(at(40)), Duration::from_millis(60));
        assert_eq!(
            [49, 50, 120].map(|now| schedule.is_half_over(at(now))),
            [false, true, true]
        );
        schedule.made(at(101));
        assert_eq!(
            (schedule.missed(), schedule.wait(at(101))),
            (0, Duration::from_millis(99))
        );
        schedule.made(at(450));
        assert_eq!(
            (schedule.missed(), schedule.wait(at(450))),
            (2, Duration::from_millis(50))
        );
    }
}
