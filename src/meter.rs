//! Two readings become deltas and rates, and flowctl's own totals. Totals never fall, whatever happens to the
//! kernel's counters: a value below the last one is a reset, and the new value is what was counted since.

use std::collections::HashMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::kernel::nft::CounterRecord;
use crate::units::{CounterName, Uptime, Volume};

/// All counters, in the configuration's order.
#[derive(Debug)]
pub struct Meter {
    counters: Vec<Metered>,
    positions_by_name: HashMap<Box<[u8]>, usize>,
    /// Positions in the order of the last answers: the kernel dumps objects in a stable order.
    order: Vec<usize>,
    cursor: usize,
    pass: u64,
}

/// One counter and what is known of it.
#[derive(Debug, Clone)]
pub struct Metered {
    /// Its name.
    pub name: CounterName,
    /// flowctl's own total.
    pub total: Volume,
    /// The kernel's value at the last reading.
    pub kernel: Volume,
    /// How often a value below the last one was read.
    pub resets: u64,
    /// What the last pass found.
    pub delta: Delta,
    /// When it was last read in this run; `None` before the first reading.
    pub read_at: Option<Uptime>,
    /// The value that the pass going on has for it, if it is that of `last_pass`.
    passing: Volume,
    last_pass: u64,
}

/// What one pass found of one counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delta {
    /// The first reading of this run: no interval, hence no rate.
    First,
    /// Counted over an interval since the reading before.
    Advanced {
        /// How much.
        volume: Volume,
        /// The time between the two readings.
        interval: Duration,
    },
    /// The kernel's value had fallen: what it holds now was counted since; what came before that is unknown.
    Reset {
        /// What is known to have been counted.
        volume: Volume,
        /// The time between the two readings.
        interval: Duration,
    },
    /// Not among the answers: gone, or left out of an interrupted dump.
    Unread,
}

/// What is carried over from an earlier run, or from the configuration before a reload.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    /// flowctl's own total.
    pub total: Volume,
    /// The kernel's value that goes with it; 0 when the kernel's counter was created anew since.
    pub kernel: Volume,
    /// How often it was reset.
    pub resets: u64,
}

impl Meter {
    /// Counters by name, each with what is carried over.
    pub fn new(counters: impl IntoIterator<Item = (CounterName, Carried)>) -> Self {
        let counters: Vec<Metered> = counters
            .into_iter()
            .map(|(name, carried)| Metered {
                name,
                total: carried.total,
                kernel: carried.kernel,
                resets: carried.resets,
                delta: Delta::Unread,
                read_at: None,
                passing: Volume::default(),
                last_pass: 0,
            })
            .collect();
        let positions_by_name = counters
            .iter()
            .enumerate()
            .map(|(at, counter)| (counter.name.as_str().as_bytes().into(), at))
            .collect();
        Meter {
            order: Vec::with_capacity(counters.len()),
            counters,
            positions_by_name,
            cursor: 0,
            pass: 0,
        }
    }

    /// All counters, in the configuration's order.
    pub fn counters(&self) -> &[Metered] {
        &self.counters
    }

    /// Begins a pass over a dump's answers: what it brings counts when it ends.
    pub fn begin(&mut self) {
        self.pass += 1;
        self.cursor = 0;
    }

    /// The dump begins again: an answer it had and has no more still counts.
    pub fn repeat(&mut self) {
        self.cursor = 0;
    }

    /// Takes one answer. A name that is not ours is ignored.
    #[inline]
    pub fn record(&mut self, record: CounterRecord<'_>) {
        let Some(position) = self.position(record.name) else {
            return;
        };
        let counter = &mut self.counters[position];
        counter.passing = Volume {
            bytes: record.bytes,
            packets: record.packets,
        };
        counter.last_pass = self.pass;
    }

    /// Ends the pass: its answers are a reading made at `at`. Counters without an answer are `Unread`; returns how
    /// many these are.
    pub fn end(&mut self, at: Uptime) -> usize {
        let mut unread = 0;
        for counter in &mut self.counters {
            if counter.last_pass == self.pass {
                counter.advance(at);
            } else {
                counter.delta = Delta::Unread;
                unread += 1;
            }
        }
        unread
    }

    /// The kernel's counters were created anew and stand at 0: no reset, all they will say is new.
    pub fn new_epoch(&mut self) {
        for counter in &mut self.counters {
            counter.kernel = Volume::default();
        }
    }

    /// The kernel's counter was created anew with this value, which is nothing counted by it.
    pub fn rebase(&mut self, record: CounterRecord<'_>) {
        if let Some(&position) = self.positions_by_name.get(record.name) {
            self.counters[position].kernel = Volume {
                bytes: record.bytes,
                packets: record.packets,
            };
        }
    }

    /// The same for other counters: those that stay keep all that is known of them, the others begin with
    /// what is carried over for them.
    pub fn reconfigured(
        &self,
        names: impl IntoIterator<Item = CounterName>,
        carried: impl Fn(&CounterName) -> Carried,
    ) -> Meter {
        let begun = Meter::new(names.into_iter().map(|name| {
            let carried = carried(&name);
            (name, carried)
        }));
        let mut meter = Meter {
            pass: self.pass,
            ..begun
        };
        for counter in &mut meter.counters {
            if let Some(&position) = self.positions_by_name.get(counter.name.as_str().as_bytes()) {
                *counter = self.counters[position].clone();
            }
        }
        meter
    }

    /// By the order of the pass before, else by name.
    #[inline]
    fn position(&mut self, name: &[u8]) -> Option<usize> {
        if let Some(&expected) = self.order.get(self.cursor)
            && self.counters[expected].name.as_str().as_bytes() == name
        {
            self.cursor += 1;
            return Some(expected);
        }
        let position = *self.positions_by_name.get(name)?;
        self.order.truncate(self.cursor);
        self.order.push(position);
        self.cursor += 1;
        Some(position)
    }
}

impl Metered {
    /// Takes the value that the pass brought.
    fn advance(&mut self, at: Uptime) {
        let now = self.passing;
        let fell = now.bytes < self.kernel.bytes || now.packets < self.kernel.packets;
        let volume = if fell { now } else { now.since(self.kernel) };
        self.delta = match self.read_at.map(|before| at.since(before)) {
            None => Delta::First,
            Some(interval) if fell => Delta::Reset { volume, interval },
            Some(interval) => Delta::Advanced { volume, interval },
        };
        self.total = self.total.plus(volume);
        self.kernel = now;
        self.resets += u64::from(fell);
        self.read_at = Some(at);
    }

    /// Bits and packets per second over the last interval, and that interval; `None` where there is none.
    pub fn rates(&self) -> Option<(f64, f64, Duration)> {
        let (volume, interval) = match self.delta {
            Delta::Advanced { volume, interval } | Delta::Reset { volume, interval } => {
                (volume, interval)
            }
            Delta::First | Delta::Unread => return None,
        };
        let seconds = interval.as_secs_f64();
        (seconds > 0.0).then(|| {
            (
                volume.bytes as f64 * 8.0 / seconds,
                volume.packets as f64 / seconds,
                interval,
            )
        })
    }

    /// What would have to be carried over now.
    pub fn carried(&self) -> Carried {
        Carried {
            total: self.total,
            kernel: self.kernel,
            resets: self.resets,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn meter(names: &[&str]) -> Meter {
        Meter::new(
            names
                .iter()
                .map(|text| (CounterName::new(text).unwrap(), Carried::default())),
        )
    }

    fn seconds(at: u64) -> Uptime {
        Uptime(Duration::from_secs(at))
    }

    fn record(name: &str, bytes: u64) -> CounterRecord<'_> {
        CounterRecord {
            name: name.as_bytes(),
            bytes,
            packets: bytes / 100,
        }
    }

    fn read(meter: &mut Meter, at: u64, values: &[(&str, u64)]) -> usize {
        meter.begin();
        for (name, bytes) in values {
            meter.record(record(name, *bytes));
        }
        meter.end(seconds(at))
    }

    #[test]
    fn the_rate_divides_by_the_measured_interval() {
        let mut meter = meter(&["a"]);
        read(&mut meter, 10, &[("a", 1_000)]);
        assert_eq!(
            (meter.counters()[0].delta, meter.counters()[0].rates()),
            (Delta::First, None)
        );
        read(&mut meter, 14, &[("a", 5_000)]);
        assert_eq!(
            meter.counters()[0].rates(),
            Some((8_000.0, 10.0, Duration::from_secs(4)))
        );
    }

    #[test]
    fn a_value_that_fell_is_a_reset_and_what_it_holds_is_new() {
        let mut meter = meter(&["a"]);
        read(&mut meter, 1, &[("a", 1_000)]);
        read(&mut meter, 2, &[("a", 300)]);
        let counter = &meter.counters()[0];
        assert!(matches!(
            counter.delta,
            Delta::Reset {
                volume: Volume { bytes: 300, .. },
                ..
            }
        ));
        assert_eq!((counter.total.bytes, counter.resets), (1_300, 1));
    }

    #[test]
    fn a_counter_left_out_is_unread_and_its_next_interval_is_longer() {
        let mut meter = meter(&["a", "b"]);
        read(&mut meter, 1, &[("a", 0), ("b", 0)]);
        assert_eq!(read(&mut meter, 2, &[("b", 100)]), 1);
        assert_eq!(meter.counters()[0].delta, Delta::Unread);
        read(&mut meter, 3, &[("a", 800), ("b", 200)]);
        assert_eq!(
            meter.counters()[0].rates().map(|(bits, ..)| bits),
            Some(3_200.0)
        );
    }

    #[test]
    fn a_new_epoch_is_not_a_reset() {
        let mut meter = meter(&["a"]);
        read(&mut meter, 1, &[("a", 1_000)]);
        meter.new_epoch();
        read(&mut meter, 2, &[("a", 400)]);
        assert_eq!(
            (meter.counters()[0].total.bytes, meter.counters()[0].resets),
            (1_400, 0)
        );
    }

    #[test]
    fn a_repeated_dump_counts_once_and_loses_no_answer() {
        let mut meter = meter(&["a", "b"]);
        read(&mut meter, 1, &[("a", 1_000), ("b", 0)]);
        meter.begin();
        meter.record(record("a", 1_500));
        meter.record(record("b", 100));
        meter.repeat();
        meter.record(record("a", 1_600));
        assert_eq!(meter.end(seconds(2)), 0);
        let totals = meter.counters().iter().map(|counter| counter.total.bytes);
        assert_eq!(totals.collect::<Vec<_>>(), [1_600, 100]);
        assert!(matches!(
            meter.counters()[0].delta,
            Delta::Advanced {
                volume: Volume { bytes: 600, .. },
                ..
            }
        ));
    }

    #[test]
    fn a_pass_that_never_ended_counts_nothing() {
        let mut meter = meter(&["a"]);
        read(&mut meter, 1, &[("a", 1_000)]);
        meter.begin();
        meter.record(record("a", 9_000));
        read(&mut meter, 2, &[("a", 1_100)]);
        assert_eq!(meter.counters()[0].total.bytes, 1_100);
    }

    #[test]
    fn the_kernels_order_may_change_and_strangers_are_ignored() {
        let mut meter = meter(&["a", "b", "c"]);
        read(&mut meter, 1, &[("c", 3), ("x", 9), ("a", 1), ("b", 2)]);
        read(&mut meter, 2, &[("a", 11), ("c", 33), ("b", 22)]);
        let totals: Vec<u64> = meter
            .counters()
            .iter()
            .map(|counter| counter.total.bytes)
            .collect();
        assert_eq!(totals, [11, 22, 33]);
    }

    proptest! {
        #[test]
        fn totals_never_fall_and_equal_what_was_counted(
            steps in proptest::collection::vec((0u64..1_000, any::<bool>()), 1..60)
        ) {
            let mut meter = meter(&["a"]);
            let (mut kernel, mut counted, mut last_total) = (0, 0, 0);
            for (at, (more, reset)) in steps.into_iter().enumerate() {
                // A reset that leaves a value no lower than before cannot be seen by anyone.
                if reset && more < kernel {
                    kernel = 0;
                }
                kernel += more;
                counted += more;
                read(&mut meter, at as u64, &[("a", kernel)]);
                let total = meter.counters()[0].total.bytes;
                prop_assert!(total >= last_total);
                prop_assert_eq!(total, counted);
                last_total = total;
            }
        }
    }
}
