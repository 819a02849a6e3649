//! Two readings become deltas and rates, and flowctl's own totals. Totals never fall, whatever happens to the
//! kernel's counters: a value below the last one is a reset, and the new value is what was counted since. Counters come
//! from flowctl's own table and from those of others, whose names may be the same.

use std::collections::HashMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::kernel::nft::CounterRecord;
use crate::units::{CounterName, ExistingCounter, ForeignTable, Uptime, Volume};

/// All counters, in the configuration's order.
#[derive(Debug)]
pub struct Meter {
    counters: Vec<Metered>,
    own: Names,
    foreign: Vec<(ForeignTable, Names)>,
    pass: u64,
}

/// The counters of one table.
#[derive(Debug, Default)]
struct Names {
    /// By their names in that table.
    positions_by_name: HashMap<Box<[u8]>, usize>,
    /// Positions in the order of the last answers: the kernel dumps objects in a stable order.
    order: Vec<usize>,
    cursor: usize,
}

/// One counter and what is known of it.
#[derive(Debug, Clone)]
pub struct Metered {
    /// Its name.
    pub name: CounterName,
    /// What it reads of a table of others; `None` where it stands in flowctl's own.
    pub existing: Option<Existing>,
    /// flowctl's own total.
    pub total: Volume,
    /// The kernel's value at the last reading.
    pub kernel: Volume,
    /// How often a value below the last one was read.
    pub resets: u64,
    /// What the last reading found.
    pub delta: Delta,
    /// When it was last read in this run; `None` before the first reading.
    pub read_at: Option<Uptime>,
    /// What passes that ended early have found since.
    early: Early,
    /// The value that the pass going on has for it, if it is that of `last_pass`.
    passing: Volume,
    last_pass: u64,
}

/// What was counted since the last reading and is in the total already.
#[derive(Debug, Clone, Copy, Default)]
struct Early {
    volume: Volume,
    /// Whether the kernel's value had fallen.
    fell: bool,
}

/// What the last reading found of one counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delta {
    /// The first reading of this run, or of a table that others made anew: no interval, hence no rate.
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

/// Which table the answers of a pass are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// What was read before was of a kernel that is gone.
    OtherKernel,
    /// What was read before was of another table of that name.
    Another,
    /// A counter of it was read before, or none of that name ever was.
    Same,
}

/// A counter of others, and of which table the kernel's value is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Existing {
    /// Where it stands.
    pub counter: ExistingCounter,
    /// The handle of the table it was last read from: another one is another table of the same name. `None` before it
    /// was ever read; 0, which is no table's, when that table is of a kernel that is gone.
    pub handle: Option<u64>,
}

/// What is carried over from an earlier run, or from the configuration before a reload.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    /// flowctl's own total.
    pub total: Volume,
    /// The kernel's value that goes with it; 0 when the kernel's counter was created anew since.
    pub kernel: Volume,
    /// How often it was reset.
    pub resets: u64,
    /// What it reads of a table of others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub existing: Option<Existing>,
}

/// How many counters a pass has not read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unread {
    /// Of flowctl's own.
    pub own: usize,
    /// Of those of others.
    pub existing: usize,
}

impl Meter {
    /// Counters by name, each with what is carried over.
    pub fn new(counters: impl IntoIterator<Item = (CounterName, Carried)>) -> Self {
        let counters: Vec<Metered> = counters.into_iter().map(Metered::new).collect();
        let mut own = Names::default();
        let mut foreign: Vec<(ForeignTable, Names)> = Vec::new();
        for (at, counter) in counters.iter().enumerate() {
            let names = match &counter.existing {
                None => &mut own,
                Some(existing) => of_table(&mut foreign, existing.counter.table()),
            };
            names.positions_by_name.insert(counter.object().into(), at);
        }
        own.order.reserve(own.positions_by_name.len());
        Meter {
            counters,
            own,
            foreign,
            pass: 0,
        }
    }

    /// All counters, in the configuration's order.
    pub fn counters(&self) -> &[Metered] {
        &self.counters
    }

    /// The tables of others that counters are read from, each once.
    pub fn foreign_tables(&self) -> impl ExactSizeIterator<Item = &ForeignTable> {
        self.foreign.iter().map(|(table, _)| table)
    }

    /// Begins a pass over the dumps' answers: what it brings counts when it ends.
    pub fn begin(&mut self) {
        self.pass += 1;
        self.own.cursor = 0;
        self.foreign
            .iter_mut()
            .for_each(|(_, names)| names.cursor = 0);
    }

    /// The dump of flowctl's own table begins again: an answer it had and has no more still counts.
    pub fn repeat(&mut self) {
        self.own.cursor = 0;
    }

    /// The same of the table at that position of `foreign_tables`.
    pub fn repeat_foreign(&mut self, table: usize) {
        if let Some((_, names)) = self.foreign.get_mut(table) {
            names.cursor = 0;
        }
    }

    /// What this pass has of the table at that position of `foreign_tables` was another table's.
    pub fn discard_foreign(&mut self, table: usize) {
        self.each_answered(table, |counter| counter.last_pass = 0);
    }

    /// Takes one answer of flowctl's own table. A name that is not ours is ignored.
    #[inline]
    pub fn record(&mut self, record: CounterRecord<'_>) {
        if let Some(position) = self.own.position(&self.counters, record.name) {
            self.counters[position].take(record, self.pass);
        }
    }

    /// The same of the table at that position of `foreign_tables`.
    #[inline]
    pub fn record_foreign(&mut self, table: usize, record: CounterRecord<'_>) {
        if let Some((_, names)) = self.foreign.get_mut(table)
            && let Some(position) = names.position(&self.counters, record.name)
        {
            self.counters[position].take(record, self.pass);
        }
    }

    /// Of which table the answers are that this pass has of the table at that position of `foreign_tables`, which has
    /// that handle.
    pub fn origin(&self, table: usize, handle: u64) -> Origin {
        let known = self.answered(table).filter_map(Metered::read_from);
        let origins = known.map(|before| match before {
            0 => Origin::OtherKernel,
            before if before == handle => Origin::Same,
            _ => Origin::Another,
        });
        origins.max().unwrap_or(Origin::Same)
    }

    /// The most bytes that one of those counters holds whose last value was another table's.
    pub fn most_anew(&self, table: usize, handle: u64) -> Option<u64> {
        let answered = self.answered(table);
        let anew = answered.filter(|counter| counter.is_anew(handle));
        anew.map(|counter| counter.passing.bytes).max()
    }

    /// Takes those answers as of the table of that handle. What a table that others made anew holds was counted since it
    /// was made, or was put back. Where all devices moved no more than `bound_bytes` since the last reading, a higher value
    /// was.
    pub fn came_from(&mut self, table: usize, handle: u64, bound_bytes: Option<u64>) {
        self.each_answered(table, |counter| counter.came_from(handle, bound_bytes));
    }

    /// The same of a table that is loaded with counters at 0: all that they hold is news, or none of it where it is not
    /// `believed`.
    pub fn was_loaded(&mut self, table: usize, handle: u64, believed: bool) {
        self.each_answered(table, |counter| {
            if counter.is_anew(handle) || (!believed && counter.read_from().is_none()) {
                counter.kernel = match believed {
                    true => Volume::default(),
                    false => counter.passing,
                };
            }
            counter.came_from(handle, None);
        });
    }

    /// The counters of the table at that position of which the pass going on has an answer.
    fn answered(&self, table: usize) -> impl Iterator<Item = &Metered> {
        let names = self.foreign.get(table).into_iter();
        let positions = names.flat_map(|(_, names)| names.order.iter());
        let counters = positions.map(|position| &self.counters[*position]);
        counters.filter(|counter| counter.last_pass == self.pass)
    }

    fn each_answered(&mut self, table: usize, mut then: impl FnMut(&mut Metered)) {
        let Some((_, names)) = self.foreign.get(table) else {
            return;
        };
        for position in &names.order {
            let counter = &mut self.counters[*position];
            if counter.last_pass == self.pass {
                then(counter);
            }
        }
    }

    /// Ends the pass: its answers are a reading made at `at`. Counters without an answer are `Unread`; returns how
    /// many these are.
    pub fn end(&mut self, at: Uptime) -> Unread {
        self.add_up(|counter, answered| match answered {
            true => counter.advance(at),
            false => counter.delta = Delta::Unread,
        })
    }

    /// Ends a pass between two readings: what it brought is in the totals from now on, and the next reading finds it too, over
    /// the whole of its interval. A rate over what is left of that would be one of bursts.
    pub fn end_early(&mut self) -> Unread {
        self.add_up(|_, _| {})
    }

    /// Adds up what the pass brought; of each counter `then` is told whether that was something.
    fn add_up(&mut self, mut then: impl FnMut(&mut Metered, bool)) -> Unread {
        let mut unread = Unread::default();
        for counter in &mut self.counters {
            let answered = counter.last_pass == self.pass;
            if answered {
                counter.add_up();
            } else if counter.existing.is_none() {
                unread.own += 1;
            } else {
                unread.existing += 1;
            }
            then(counter, answered);
        }
        unread
    }

    /// The counters of others that the last reading has not read.
    pub fn missing_existing(&self) -> impl Iterator<Item = &ExistingCounter> {
        let unread = |counter: &&Metered| counter.delta == Delta::Unread;
        let unread = self.counters.iter().filter(unread);
        unread.filter_map(Metered::foreign_counter)
    }

    /// The counters of flowctl's own table were created anew and stand at 0: no reset, all they will say is new.
    pub fn new_epoch(&mut self) {
        let own = self.counters.iter_mut();
        for counter in own.filter(|counter| counter.existing.is_none()) {
            counter.kernel = Volume::default();
        }
    }

    /// The kernel's counter, of flowctl's own table, was created anew with this value, which is nothing counted by it.
    pub fn rebase(&mut self, record: CounterRecord<'_>) {
        if let Some(&position) = self.own.positions_by_name.get(record.name) {
            self.counters[position].kernel = volume(record);
        }
    }

    /// The same for other counters: those that stay keep all that is known of them, the others begin with
    /// what is carried over for them.
    pub fn reconfigured(
        &self,
        counters: impl IntoIterator<Item = (CounterName, Carried)>,
    ) -> Meter {
        let mut meter = Meter {
            pass: self.pass,
            ..Meter::new(counters)
        };
        let known: HashMap<&CounterName, &Metered> = (self.counters.iter())
            .map(|counter| (&counter.name, counter))
            .collect();
        for counter in &mut meter.counters {
            if let Some(known) = known.get(&counter.name)
                && known.foreign_counter() == counter.foreign_counter()
            {
                *counter = (*known).clone();
            }
        }
        meter
    }
}

/// The names of `table`, which is added where it is not there.
fn of_table<'f>(
    foreign: &'f mut Vec<(ForeignTable, Names)>,
    table: &ForeignTable,
) -> &'f mut Names {
    let known = foreign.iter().position(|(known, _)| known == table);
    let at = known.unwrap_or_else(|| {
        foreign.push((table.clone(), Names::default()));
        foreign.len() - 1
    });
    &mut foreign[at].1
}

fn volume(record: CounterRecord<'_>) -> Volume {
    Volume {
        bytes: record.bytes,
        packets: record.packets,
    }
}

impl Names {
    /// By the order of the pass before, else by name.
    #[inline]
    fn position(&mut self, counters: &[Metered], name: &[u8]) -> Option<usize> {
        if let Some(&expected) = self.order.get(self.cursor)
            && counters[expected].object() == name
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
    fn new((name, carried): (CounterName, Carried)) -> Self {
        Metered {
            name,
            existing: carried.existing,
            total: carried.total,
            kernel: carried.kernel,
            resets: carried.resets,
            delta: Delta::Unread,
            read_at: None,
            early: Early::default(),
            passing: Volume::default(),
            last_pass: 0,
        }
    }

    /// Its name in its table.
    #[inline]
    fn object(&self) -> &[u8] {
        match &self.existing {
            None => self.name.as_str().as_bytes(),
            Some(existing) => existing.counter.counter().as_bytes(),
        }
    }

    /// The counter of others that it reads.
    fn foreign_counter(&self) -> Option<&ExistingCounter> {
        self.existing.as_ref().map(|existing| &existing.counter)
    }

    #[inline]
    fn take(&mut self, record: CounterRecord<'_>, pass: u64) {
        self.passing = volume(record);
        self.last_pass = pass;
    }

    /// The handle of the table that it was last read from, if it was.
    fn read_from(&self) -> Option<u64> {
        self.existing.as_ref().and_then(|existing| existing.handle)
    }

    /// Whether that was another one than that of this handle.
    fn is_anew(&self, handle: u64) -> bool {
        self.read_from().is_some_and(|before| before != handle)
    }

    /// What the pass brought is of the table of that handle.
    fn came_from(&mut self, handle: u64, bound_bytes: Option<u64>) {
        let Some(existing) = &mut self.existing else {
            return;
        };
        let Some(before) = existing.handle.replace(handle) else {
            // Never read before: without a total it begins with all that the kernel has; a total goes on, and what the
            // kernel has is no news.
            if self.total != Volume::default() {
                self.kernel = self.passing;
            }
            return;
        };
        if before == handle {
            return;
        }
        let fell =
            self.passing.bytes < self.kernel.bytes || self.passing.packets < self.kernel.packets;
        if fell {
            let put_back = bound_bytes.is_some_and(|bound| self.passing.bytes > bound);
            self.kernel = if put_back {
                self.passing
            } else {
                Volume::default()
            };
        }
        // An interval in which it did not always count gives no rate.
        self.read_at = None;
    }

    /// Adds what was counted since the last pass.
    fn add_up(&mut self) {
        let now = self.passing;
        let fell = now.bytes < self.kernel.bytes || now.packets < self.kernel.packets;
        let volume = if fell { now } else { now.since(self.kernel) };
        self.total = self.total.plus(volume);
        self.kernel = now;
        self.resets += u64::from(fell);
        self.early.volume = self.early.volume.plus(volume);
        self.early.fell |= fell;
    }

    /// What was added up since the last reading is what a reading at `at` found.
    fn advance(&mut self, at: Uptime) {
        let Early { volume, fell } = std::mem::take(&mut self.early);
        self.delta = match self.read_at.map(|before| at.since(before)) {
            None => Delta::First,
            Some(interval) if fell => Delta::Reset { volume, interval },
            Some(interval) => Delta::Advanced { volume, interval },
        };
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
            existing: self.existing.clone(),
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

    fn read(meter: &mut Meter, at: u64, values: &[(&str, u64)]) -> Unread {
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
        assert_eq!(read(&mut meter, 2, &[("b", 100)]).own, 1);
        assert_eq!(meter.counters()[0].delta, Delta::Unread);
        read(&mut meter, 3, &[("a", 800), ("b", 200)]);
        assert_eq!(
            meter.counters()[0].rates().map(|(bits, ..)| bits),
            Some(3_200.0)
        );
    }

    fn read_early(meter: &mut Meter, values: &[(&str, u64)]) -> Unread {
        meter.begin();
        for (name, bytes) in values {
            meter.record(record(name, *bytes));
        }
        meter.end_early()
    }

    #[test]
    fn a_pass_that_ended_early_counts_at_once_and_its_rate_is_the_next_readings() {
        let mut meter = meter(&["a", "b"]);
        assert_eq!(read_early(&mut meter, &[("a", 100), ("b", 0)]).own, 0);
        assert_eq!(meter.counters()[0].delta, Delta::Unread, "no reading yet");
        read(&mut meter, 10, &[("a", 1_000), ("b", 0)]);
        assert_eq!(meter.counters()[0].delta, Delta::First);
        read(&mut meter, 12, &[("a", 2_000), ("b", 0)]);
        let before = meter.counters()[0].rates();
        for bytes in [3_000, 3_500] {
            assert_eq!(read_early(&mut meter, &[("a", bytes)]).own, 1);
            assert_eq!(totals(&meter), [bytes, 0]);
            assert_eq!(meter.counters()[0].kernel.bytes, bytes);
            assert_eq!(meter.counters()[0].rates(), before);
            let present = meter.counters()[1].delta != Delta::Unread;
            assert!(present, "it was at the last reading");
        }
        let mut meter = meter.reconfigured(["b", "a", "c"].map(|name| {
            let name = CounterName::new(name).unwrap();
            (name, Carried::default())
        }));
        read(&mut meter, 16, &[("a", 4_000), ("b", 0), ("c", 700)]);
        assert_eq!(
            meter.counters()[1].rates(),
            Some((4_000.0, 5.0, Duration::from_secs(4)))
        );
        assert_eq!(meter.counters()[2].delta, Delta::First, "it is new");
        assert_eq!(totals(&meter), [0, 4_000, 700]);
        read(&mut meter, 17, &[("a", 4_100)]);
        let volume = Volume {
            bytes: 100,
            packets: 1,
        };
        let interval = Duration::from_secs(1);
        assert_eq!(
            meter.counters()[1].delta,
            Delta::Advanced { volume, interval },
            "nothing is counted twice"
        );
    }

    #[test]
    fn a_fall_in_any_part_of_an_interval_makes_it_a_reset() {
        let mut meter = meter(&["a"]);
        read(&mut meter, 1, &[("a", 1_000)]);
        read_early(&mut meter, &[("a", 300)]);
        read(&mut meter, 2, &[("a", 500)]);
        let counter = &meter.counters()[0];
        let volume = Volume {
            bytes: 500,
            packets: 5,
        };
        let interval = Duration::from_secs(1);
        assert_eq!(counter.delta, Delta::Reset { volume, interval });
        assert_eq!((counter.total.bytes, counter.resets), (1_500, 1));
        read(&mut meter, 3, &[("a", 600)]);
        assert!(matches!(meter.counters()[0].delta, Delta::Advanced { .. }));
    }

    #[test]
    fn a_table_made_anew_before_a_pass_that_ended_early_gives_no_rate() {
        let mut meter = with_existing(None, Carried::default());
        read_foreign(&mut meter, 1, 7, 1_000, None);
        meter.begin();
        meter.record_foreign(0, record("a", 400));
        meter.came_from(0, 8, None);
        meter.end_early();
        assert_eq!(totals(&meter), [0, 1_400, 0]);
        read_foreign(&mut meter, 2, 8, 450, None);
        assert_eq!(meter.counters()[1].delta, Delta::First);
        read_foreign(&mut meter, 3, 8, 500, None);
        assert_eq!(
            meter.counters()[1].rates(),
            Some((400.0, 1.0, Duration::from_secs(1)))
        );
        assert_eq!(totals(&meter), [0, 1_500, 0]);
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
        assert_eq!(meter.end(seconds(2)), Unread::default());
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

    /// Counters `a` to `c`: ours, and the counter `a` of two tables of others, last read from tables of that handle.
    fn with_existing(handle: Option<u64>, carried: Carried) -> Meter {
        let of = |name: &str, existing: Option<&str>| {
            let carried = Carried {
                existing: existing.map(|text| Existing {
                    counter: ExistingCounter::parse(text).unwrap(),
                    handle,
                }),
                ..carried.clone()
            };
            (CounterName::new(name).unwrap(), carried)
        };
        Meter::new([
            of("a", None),
            of("b", Some("inet one a")),
            of("c", Some("ip one a")),
        ])
    }

    fn counted(bytes: u64) -> Carried {
        let volume = Volume {
            bytes,
            packets: bytes / 100,
        };
        Carried {
            total: volume,
            kernel: volume,
            ..Carried::default()
        }
    }

    fn totals(meter: &Meter) -> Vec<u64> {
        let counters = meter.counters().iter();
        counters.map(|counter| counter.total.bytes).collect()
    }

    /// A pass in which table 0 of others, of that handle, says `bytes`.
    fn read_foreign(
        meter: &mut Meter,
        at: u64,
        handle: u64,
        bytes: u64,
        bound: Option<u64>,
    ) -> Origin {
        meter.begin();
        meter.record_foreign(0, record("a", bytes));
        let origin = meter.origin(0, handle);
        meter.came_from(0, handle, bound);
        meter.end(seconds(at));
        origin
    }

    /// A pass in which table 0 of others, of that handle and loaded with counters at 0, says these bytes of `a` and `b`.
    fn read_loaded(
        meter: &mut Meter,
        at: u64,
        handle: u64,
        bytes: [u64; 2],
        believed: bool,
    ) -> (Origin, Option<u64>) {
        meter.begin();
        meter.record_foreign(0, record("a", bytes[0]));
        meter.record_foreign(0, record("b", bytes[1]));
        let found = (meter.origin(0, handle), meter.most_anew(0, handle));
        meter.was_loaded(0, handle, believed);
        meter.end(seconds(at));
        found
    }

    fn loaded() -> Meter {
        let counters = ["a", "b"].map(|name| {
            let counter = ExistingCounter::parse(&format!("inet flowctl {name}")).unwrap();
            let existing = Some(Existing {
                counter,
                handle: None,
            });
            let carried = Carried {
                existing,
                ..Carried::default()
            };
            (CounterName::new(name).unwrap(), carried)
        });
        Meter::new(counters)
    }

    #[test]
    fn what_a_table_holds_that_is_loaded_at_0_is_news_however_high() {
        let mut meter = loaded();
        assert_eq!(
            read_loaded(&mut meter, 1, 7, [100, 10], true),
            (Origin::Same, None),
            "never read before"
        );
        assert_eq!(totals(&meter), [100, 10]);
        // Lower, the same and higher than before: each was counted since the load.
        assert_eq!(
            read_loaded(&mut meter, 2, 8, [60, 10], true),
            (Origin::Another, Some(60))
        );
        assert_eq!(totals(&meter), [160, 20]);
        read_loaded(&mut meter, 3, 9, [400, 10], true);
        assert_eq!(totals(&meter), [560, 30]);
        assert_eq!(meter.counters()[0].delta, Delta::First, "no rate");
        assert_eq!(
            read_loaded(&mut meter, 4, 9, [410, 11], false),
            (Origin::Same, None),
            "the same table"
        );
        assert_eq!(totals(&meter), [570, 31]);
        assert!(meter.counters().iter().all(|counter| counter.resets == 0));
    }

    #[test]
    fn what_is_not_believed_counts_from_then_on() {
        let mut meter = loaded();
        read_loaded(&mut meter, 1, 7, [100, 10], true);
        read_loaded(&mut meter, 2, 8, [90, 5], false);
        assert_eq!(totals(&meter), [100, 10]);
        read_loaded(&mut meter, 3, 8, [95, 6], false);
        assert_eq!(totals(&meter), [105, 11]);
    }

    #[test]
    fn a_counter_never_read_before_is_not_believed_where_its_table_is_not() {
        let mut meter = loaded();
        read_loaded(&mut meter, 1, 7, [100, 10], true);
        meter.counters[1].existing.as_mut().unwrap().handle = None;
        meter.counters[1].total = Volume::default();
        read_loaded(&mut meter, 2, 8, [100, 900], false);
        assert_eq!(totals(&meter), [100, 0]);
    }

    #[test]
    fn what_was_read_of_the_table_before_is_no_answer_of_the_next() {
        let mut meter = loaded();
        read_loaded(&mut meter, 1, 7, [100, 10], true);
        meter.begin();
        meter.record_foreign(0, record("a", 110));
        meter.record_foreign(0, record("b", 20));
        meter.discard_foreign(0);
        meter.repeat_foreign(0);
        meter.record_foreign(0, record("a", 5));
        assert_eq!(meter.most_anew(0, 8), Some(5));
        meter.was_loaded(0, 8, true);
        assert_eq!(meter.end(seconds(2)).existing, 1, "b is not there");
        assert_eq!(totals(&meter), [105, 10]);
    }

    #[test]
    fn one_counter_that_goes_on_makes_the_table_the_same() {
        let mut meter = loaded();
        read_loaded(&mut meter, 1, 7, [100, 10], true);
        meter.counters[1].existing.as_mut().unwrap().handle = Some(3);
        assert_eq!(
            read_loaded(&mut meter, 2, 7, [100, 900], true),
            (Origin::Same, Some(900))
        );
        assert_eq!(totals(&meter), [100, 910]);
    }

    #[test]
    fn one_name_in_several_tables_is_several_counters() {
        let mut meter = with_existing(None, Carried::default());
        let tables: Vec<String> = meter.foreign_tables().map(ToString::to_string).collect();
        assert_eq!(tables, ["inet one", "ip one"]);
        for at in 1..3 {
            meter.begin();
            meter.record(record("a", at * 100));
            meter.record_foreign(1, record("a", at * 10_000));
            meter.record_foreign(0, record("a", at * 1_000));
            meter.record_foreign(1, record("b", 7));
            assert_eq!(meter.end(seconds(at)), Unread::default());
        }
        assert_eq!(totals(&meter), [200, 2_000, 20_000]);
        meter.begin();
        let unread = Unread {
            own: 1,
            existing: 2,
        };
        assert_eq!(meter.end(seconds(3)), unread);
        assert_eq!(meter.missing_existing().count(), 2);
    }

    #[test]
    fn what_another_table_of_the_same_name_holds_is_new_or_was_put_back() {
        // The value found, at most how much can have been counted, and the total that follows from 1,000 before.
        for (bytes, bound, total) in [
            (400, Some(500), 1_400),
            (400, None, 1_400),
            (1_300, Some(500), 1_300),
            (1_000, None, 1_000),
            (900, Some(500), 1_000),
        ] {
            let mut meter = with_existing(Some(7), counted(1_000));
            let origin = read_foreign(&mut meter, 1, 8, bytes, bound);
            assert_eq!(origin, Origin::Another);
            let counter = &meter.counters()[1];
            assert_eq!(counter.total.bytes, total, "{bytes} {bound:?}");
            assert_eq!((counter.delta, counter.resets), (Delta::First, 0));
            let origin = read_foreign(&mut meter, 2, 8, bytes + 50, bound);
            assert_eq!(origin, Origin::Same);
            assert_eq!(meter.counters()[1].total.bytes, total + 50);
        }
    }

    #[test]
    fn a_fall_within_one_table_is_a_reset() {
        let mut meter = with_existing(Some(7), counted(1_000));
        read_foreign(&mut meter, 1, 7, 1_100, Some(0));
        read_foreign(&mut meter, 2, 7, 300, Some(0));
        let counter = &meter.counters()[1];
        assert_eq!((counter.total.bytes, counter.resets), (1_400, 1));
        assert!(matches!(counter.delta, Delta::Reset { .. }));
    }

    #[test]
    fn a_counter_never_read_before_begins_with_all_it_has_unless_a_total_goes_on() {
        let mut fresh = with_existing(None, Carried::default());
        let origin = read_foreign(&mut fresh, 1, 7, 5_000, Some(0));
        assert_eq!(origin, Origin::Same);
        assert_eq!(totals(&fresh), [0, 5_000, 0]);
        let known = Carried {
            kernel: Volume::default(),
            ..counted(1_000)
        };
        let mut known = with_existing(None, known);
        read_foreign(&mut known, 1, 7, 5_000, Some(0));
        assert_eq!(known.counters()[1].total.bytes, 1_000);
        read_foreign(&mut known, 2, 7, 5_100, Some(0));
        assert_eq!(known.counters()[1].total.bytes, 1_100);
    }

    #[test]
    fn a_kernel_that_is_gone_is_told_from_a_table_made_anew() {
        let mut meter = with_existing(Some(0), counted(1_000));
        let origin = read_foreign(&mut meter, 1, 7, 400, None);
        assert_eq!(origin, Origin::OtherKernel);
        assert_eq!(meter.counters()[1].total.bytes, 1_400);
    }

    #[test]
    fn our_own_epochs_do_not_concern_others() {
        let mut meter = with_existing(Some(7), counted(1_000));
        meter.new_epoch();
        meter.rebase(record("a", 1));
        let kernel: Vec<u64> = (meter.counters().iter())
            .map(|counter| counter.kernel.bytes)
            .collect();
        assert_eq!(kernel, [1, 1_000, 1_000]);
    }

    #[test]
    fn a_reload_keeps_what_reads_the_same_and_no_other() {
        let mut meter = with_existing(Some(7), counted(1_000));
        read_foreign(&mut meter, 1, 7, 1_500, None);
        let name = |text| CounterName::new(text).unwrap();
        let carried = |existing: &str| Carried {
            existing: Some(Existing {
                counter: ExistingCounter::parse(existing).unwrap(),
                handle: None,
            }),
            ..Carried::default()
        };
        let reloaded = meter.reconfigured([
            (name("b"), carried("inet one a")),
            (name("c"), carried("ip6 one a")),
            (name("a"), Carried::default()),
        ]);
        assert_eq!(totals(&reloaded), [1_500, 0, 1_000]);
    }

    proptest! {
        #[test]
        fn totals_never_fall_and_equal_what_was_counted(
            steps in proptest::collection::vec((0u64..1_000, any::<bool>(), any::<bool>()), 1..60)
        ) {
            let mut meter = meter(&["a"]);
            let (mut kernel, mut counted, mut last_total, mut told) = (0, 0, 0, 0);
            for (at, (more, reset, early)) in steps.into_iter().enumerate() {
                // A reset that leaves a value no lower than before cannot be seen by anyone.
                if reset && more < kernel {
                    kernel = 0;
                }
                kernel += more;
                counted += more;
                let values = [("a", kernel)];
                if early {
                    read_early(&mut meter, &values);
                } else {
                    read(&mut meter, at as u64, &values);
                    told = match meter.counters()[0].delta {
                        Delta::First => counted,
                        Delta::Advanced { volume, .. } | Delta::Reset { volume, .. } => {
                            told + volume.bytes
                        }
                        Delta::Unread => told,
                    };
                    prop_assert_eq!(told, counted);
                }
                let total = meter.counters()[0].total.bytes;
                prop_assert!(total >= last_total);
                prop_assert_eq!(total, counted);
                last_total = total;
            }
        }
    }
}
