//! The tables of others that counters are read from, in the same tick as our own: never changed and never repaired. It
//! knows when one was made anew, and what may have been missed until then. The table that is loaded with the system's
//! ruleset is one of them, where there is one.

use jiff::Timestamp;

use super::dump::until_undisturbed;
use crate::event::Event;
use crate::kernel::devices::{Devices, Moved, moved_between, moved_by_all};
use crate::kernel::error::KernelError;
use crate::kernel::nftables::{CountersRead, Nftables};
use crate::meter::{Meter, Origin};
use crate::units::{ForeignTable, TableFamily, Tick};

/// More gaps than this at one reading are one record in the log.
const GAPS_NAMED: usize = 8;

/// All of them, in the meter's order.
#[derive(Default)]
pub struct Foreign {
    tables: Vec<Followed>,
    gaps: Vec<GapOf>,
    /// The name of the table that is loaded with counters at 0.
    loaded: Option<String>,
}

/// What one table may have missed.
struct GapOf {
    table: ForeignTable,
    is_loaded: bool,
    from: Timestamp,
    to: Timestamp,
    bound_bytes: Option<u64>,
}

/// One table, and what is known of it.
struct Followed {
    table: ForeignTable,
    /// Whether it is loaded with counters at 0, so that what they hold is news.
    is_loaded: bool,
    /// What the devices had moved just after it was loaded with that handle.
    moved_at_load: Option<(u64, Vec<Moved>)>,
    /// 0 before it was read in this run.
    handle: u64,
    /// The handle that the meter was told of last; 0 before it was read in this run.
    settled: u64,
    /// Whether what it held when it was first read can have been counted by it; not asked of tables that others make.
    believed: bool,
    /// When it was first found missing in this run, since it was last read.
    missed_since: Option<Timestamp>,
    /// Of the ruleset, lower 16 bits, when `handle` was last known to be the table's.
    generation: Option<u16>,
    /// When it was last there; `None` where it never was.
    read_at: Option<Timestamp>,
    /// What the devices had moved by then, nothing where that is not known; `None` where that was at the last good
    /// reading of our own table.
    moved_by_then: Option<Vec<Moved>>,
}

/// What the devices have moved.
#[derive(Debug, Clone, Copy)]
pub struct Movement<'m> {
    /// Just before the last good reading.
    pub before: &'m [Moved],
    /// Just before this one.
    pub now: &'m [Moved],
}

impl Foreign {
    /// With the table of that name, family inet, if any, being loaded with counters at 0.
    pub fn with_loaded(loaded: Option<&str>) -> Self {
        Foreign {
            loaded: loaded.map(str::to_owned),
            ..Foreign::default()
        }
    }

    fn is_loaded(&self, table: &ForeignTable) -> bool {
        table.family() == TableFamily::Inet && Some(table.name()) == self.loaded.as_deref()
    }

    /// The handle of the table that is loaded; 0 where it was not there in this run.
    pub fn handle_of_loaded(&self) -> u64 {
        let mut loaded = self.tables.iter().filter(|followed| followed.is_loaded);
        loaded.next().map_or(0, |followed| followed.handle)
    }

    /// The table that is loaded has that handle by now, when the devices have moved that much.
    pub fn note_load(&mut self, handle: u64, moved: &[Moved]) {
        for followed in self.tables.iter_mut().filter(|followed| followed.is_loaded) {
            let known = followed.moved_at_load.as_ref().map(|(handle, _)| *handle);
            if followed.handle != handle && known != Some(handle) {
                followed.moved_at_load = Some((handle, moved.to_vec()));
            }
        }
    }

    /// Follows the tables that `meter` reads from. Those that are followed already go on; of the others counters were
    /// last read at `last`, where that is known, when the devices had moved that much.
    pub fn follow(&mut self, meter: &Meter, last: Option<(Timestamp, &[Moved])>) {
        let mut known = std::mem::take(&mut self.tables);
        let wanted = meter.foreign_tables().map(|table| {
            let position = known.iter().position(|known| known.table == *table);
            match position {
                Some(position) => known.swap_remove(position),
                None => Followed {
                    table: table.clone(),
                    is_loaded: self.is_loaded(table),
                    moved_at_load: None,
                    handle: 0,
                    settled: 0,
                    believed: true,
                    missed_since: None,
                    generation: None,
                    read_at: last.map(|(at, _)| at),
                    moved_by_then: Some(last.map_or_else(Vec::new, |(_, moved)| moved.to_vec())),
                },
            }
        });
        self.tables = wanted.collect();
    }

    /// Reads all of them into the pass that `meter` has begun. Returns whether counters may be left out because others
    /// kept changing the ruleset.
    pub fn read(
        &mut self,
        nftables: &mut Nftables,
        meter: &mut Meter,
        tick: Tick,
        movement: Movement<'_>,
        devices: &mut Devices,
    ) -> Result<bool, KernelError> {
        let mut interrupted = false;
        for (position, followed) in self.tables.iter_mut().enumerate() {
            let read = followed.read(nftables, meter, position)?;
            interrupted |= read.interrupted;
            if read.generation.is_none() {
                followed.is_gone(tick.wall, movement);
                continue;
            }
            // A counter that a reload brings back was last read from an earlier table; this one goes on.
            let origin = match followed.handle == followed.settled {
                true => Origin::Same,
                false => meter.origin(position, followed.handle),
            };
            let bound_bytes = followed.settle(meter, position, origin, movement, devices);
            // What another kernel's counters missed until this run began was said when it began.
            let since = match origin {
                Origin::Same => None,
                Origin::Another => followed.read_at,
                Origin::OtherKernel => followed.missed_since,
            };
            if let Some(from) = since {
                self.gaps.push(GapOf {
                    table: followed.table.clone(),
                    is_loaded: followed.is_loaded,
                    from,
                    to: tick.wall,
                    bound_bytes,
                });
            }
            followed.settled = followed.handle;
            followed.missed_since = None;
            followed.read_at = Some(tick.wall);
            followed.moved_by_then = None;
        }
        Ok(interrupted)
    }

    /// What may have been missed, since this was last asked.
    pub fn take_gaps(&mut self) -> Vec<Event> {
        let gaps = std::mem::take(&mut self.gaps);
        if gaps.len() <= GAPS_NAMED {
            return gaps.into_iter().map(|gap| gap.event(None)).collect();
        }
        // They were found at one reading, so devices moved at most the largest of all bounds.
        let tables = gaps.len();
        let all = gaps.into_iter().reduce(|one, other| GapOf {
            from: one.from.min(other.from),
            bound_bytes: one
                .bound_bytes
                .zip(other.bound_bytes)
                .map(|(a, b)| a.max(b)),
            ..one
        });
        all.map(|gap| gap.event(Some(tables))).into_iter().collect()
    }
}

impl GapOf {
    /// For so many tables, or for this one.
    fn event(self, tables: Option<usize>) -> Event {
        Event::Gap {
            from: self.from,
            to: self.to,
            bound_bytes: self.bound_bytes,
            cause: match tables {
                Some(tables) => format!("{tables} tables were made anew"),
                None if self.is_loaded => format!("table {} was loaded anew", self.table),
                None => format!("table {} was made anew", self.table),
            },
        }
    }
}

impl Followed {
    /// Hands the table's counters to the meter, and finds out which table it is. The kernel is asked for that only when
    /// the ruleset changed.
    fn read(
        &mut self,
        nftables: &mut Nftables,
        meter: &mut Meter,
        position: usize,
    ) -> Result<CountersRead, KernelError> {
        let (family, name) = (self.table.family(), self.table.name());
        let dump = |nftables: &mut Nftables, meter: &mut Meter| {
            until_undisturbed(|| {
                meter.repeat_foreign(position);
                nftables.counters(family, name, |record| {
                    meter.record_foreign(position, record)
                })
            })
        };
        let read = dump(nftables, meter)?;
        if read.generation.is_none() || read.generation == self.generation {
            return Ok(read);
        }
        let found = nftables.table(family, name)?;
        self.generation = read.generation;
        let Some(found) = found else {
            return Ok(read);
        };
        if found.handle == self.handle {
            return Ok(read);
        }
        self.handle = found.handle;
        // What was read may be of the table before.
        meter.discard_foreign(position);
        let again = dump(nftables, meter)?;
        if again.generation != read.generation {
            self.generation = None;
        }
        Ok(again)
    }

    /// Tells the meter which table its answers are of. Returns at most how many bytes that table and the one before have
    /// missed, where it is another one.
    fn settle(
        &mut self,
        meter: &mut Meter,
        position: usize,
        origin: Origin,
        movement: Movement<'_>,
        devices: &mut Devices,
    ) -> Option<u64> {
        if !self.is_loaded {
            let is_another = origin != Origin::Same;
            let bound_bytes = is_another.then(|| self.moved_since(movement)).flatten();
            meter.came_from(position, self.handle, bound_bytes);
            return bound_bytes;
        }
        let bound_bytes = match origin {
            Origin::Same => None,
            Origin::Another | Origin::OtherKernel => {
                let most = meter.most_anew(position, self.handle);
                self.was_loaded(most.unwrap_or_default(), movement, devices)
            }
        };
        meter.was_loaded(position, self.handle, self.believed);
        bound_bytes
    }

    /// Another one was loaded since counters were last read, one of which holds `most` bytes now. Decides whether they can
    /// have been counted since, and returns at most how many bytes were missed until it was loaded.
    fn was_loaded(
        &mut self,
        most: u64,
        movement: Movement<'_>,
        devices: &mut Devices,
    ) -> Option<u64> {
        let before = self.moved_by_then.as_deref().unwrap_or(movement.before);
        let at_load = (self.moved_at_load.take()).filter(|(handle, _)| *handle == self.handle);
        // After the counters, so that it is a bound for what they hold. Devices begin at 0 with the machine, so where
        // nothing is known of before, what they have moved is a bound too.
        let mut now = Vec::new();
        if devices.read(&mut now).is_err() {
            self.believed = true;
            return None;
        }
        let bound = moved_between(before, &now);
        self.believed = bound.is_none_or(|bound| most <= bound);
        let by_load = at_load.map_or(now, |(_, moved)| moved);
        let known = !before.is_empty();
        known.then(|| moved_between(before, &by_load)).flatten()
    }

    fn is_gone(&mut self, now: Timestamp, movement: Movement<'_>) {
        self.missed_since.get_or_insert(now);
        if self.read_at.is_some() && self.moved_by_then.is_none() {
            self.moved_by_then = Some(movement.before.to_vec());
        }
    }

    /// At most what the devices have moved since it was last there; `None` where they cannot tell.
    fn moved_since(&self, movement: Movement<'_>) -> Option<u64> {
        let before = self.moved_by_then.as_deref().unwrap_or(movement.before);
        (!before.is_empty())
            .then(|| moved_by_all(before, movement.now))
            .flatten()
    }
}
