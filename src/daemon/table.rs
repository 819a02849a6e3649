//! The daemon's table: reads it into the meter, those of others beside it, keeps it in force, and says what an
//! interruption may have cost. Where the table is loaded with the system's ruleset, nothing is ever changed in it.

use std::time::Duration;

use jiff::Timestamp;

use super::clock;
use super::dump::{dump, rebase};
use super::foreign::{Foreign, Movement};
use super::static_table::StaticTable;
use crate::config::{Protect, TableConfig};
use crate::event::Event;
use crate::health::StaticRules;
use crate::kernel::devices::{DeviceReading, Devices, Moved, moved_between};
use crate::kernel::error::KernelError;
use crate::kernel::nft::{Protection, TableInfo};
use crate::kernel::nftables::Nftables;
use crate::meter::{Meter, Unread};
use crate::plan::ruleset::{Ruleset, Shape};
use crate::units::{TableFamily, Tick, Uptime};

/// The table in the kernel and what is known of it.
pub struct Table {
    nftables: Nftables,
    devices: Devices,
    ruleset: Ruleset,
    handle: u64,
    opened: Timestamp,
    protection: Protection,
    /// Of the ruleset, lower 16 bits, when `handle` was last known to be the table's.
    generation: Option<u16>,
    /// What the devices had moved just before the last good reading.
    moved: Vec<Moved>,
    /// The same when the table was repaired since: what is missed from then on begins there.
    moved_by_repair: Option<Vec<Moved>>,
    scratch: Vec<Moved>,
    foreign: Foreign,
    /// `None` where the table is flowctl's own.
    static_rules: Option<StaticTable>,
    /// Counters of others that were not there at the last undisturbed reading.
    missing_existing: usize,
}

/// How an installation went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Installed {
    /// The counters are new ones.
    pub remade: bool,
    /// When the table was opened.
    pub since: Timestamp,
    /// What the devices moved since the table was opened, in layer 2 bytes; `None` where they cannot tell.
    pub moved: Option<u64>,
}

/// How a change of the ruleset went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    /// Every counter that stays went on.
    AsPlanned,
    /// Others had changed the table: since the last good reading at most so many layer 2 bytes were not counted.
    Repaired {
        /// `None` where that cannot be told.
        bound_bytes: Option<u64>,
    },
}

/// One reading of all counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// When.
    pub tick: Tick,
    /// What it took.
    pub took: Duration,
    /// Our own counters that the kernel did not have. Unknown, hence 0, when the dump stayed interrupted.
    pub missing: usize,
    /// The same of counters of others; while it is unknown, as it was before.
    pub missing_existing: usize,
}

impl Table {
    /// Opens the sockets, but for one that was kept; installs nothing. Returns what the kernel has under that name, if it
    /// is ours to take, or was loaded to be read.
    pub fn open(
        config: &TableConfig,
        kept: Option<Nftables>,
    ) -> Result<(Self, Option<TableInfo>), KernelError> {
        let mut nftables = kept.map_or_else(Nftables::open, Ok)?;
        let name = &config.name;
        let static_rules = StaticTable::look(config, &mut nftables)?;
        let found = match &static_rules {
            Some(_) => nftables.table(TableFamily::Inet, name)?,
            None => nftables.free_table(name)?,
        };
        let protection = match config.protect {
            _ if static_rules.is_some() => Protection::Static,
            Protect::Auto => nftables.protect()?,
            Protect::Off => Protection::Plain,
        };
        let mut devices = Devices::open()?;
        let opened = clock::wall();
        // Before the counters are read a last time as they are, which is the caller's business.
        let mut moved = Vec::new();
        devices.read(&mut moved)?;
        let table = Table {
            nftables,
            devices,
            ruleset: Ruleset::empty(name),
            handle: found.as_ref().map_or(0, |table| table.handle),
            opened,
            protection,
            generation: None,
            moved,
            moved_by_repair: None,
            scratch: Vec::new(),
            foreign: Foreign::with_loaded(static_rules.as_ref().map(|_| name.as_str())),
            static_rules,
            missing_existing: 0,
        };
        Ok((table, found))
    }

    /// Distinguishes this table from one of the same name made before or after.
    pub fn handle(&self) -> u64 {
        match self.is_static() {
            true => self.foreign.handle_of_loaded(),
            false => self.handle,
        }
    }

    /// How much it holds as it was installed; `None` where others load it.
    pub fn shape(&self) -> Option<Shape> {
        (!self.is_static()).then(|| self.ruleset.shape())
    }

    /// Whether it is loaded with the system's ruleset: then it is read and nothing else.
    pub fn is_static(&self) -> bool {
        self.static_rules.is_some()
    }

    /// The same, though the configuration does not say so.
    pub fn is_found_static(&self) -> bool {
        let found = self.static_rules.as_ref();
        found.is_some_and(|found| !found.is_configured())
    }

    /// What is to be said of static rules; `None` where there are none.
    pub fn judge_static(&mut self) -> Result<Option<StaticRules>, KernelError> {
        let judged = self.static_rules.as_mut();
        let judged = judged.map(|table| table.judge(&mut self.nftables, &self.ruleset));
        judged.transpose()
    }

    /// Others changed the table that they load: where it is another one, what was missed was missed by now.
    pub fn note_load(&mut self) -> Result<(), KernelError> {
        self.static_rules.iter_mut().for_each(StaticTable::forget);
        let name = &self.ruleset.table;
        if let Some(found) = self.nftables.table(TableFamily::Inet, name)? {
            let mut moved = Vec::new();
            self.devices.read(&mut moved)?;
            self.foreign.note_load(found.handle, &moved);
        }
        Ok(())
    }

    /// The port of the socket that makes changes, by which they are known from those of others.
    pub fn port(&self) -> u32 {
        self.nftables.port()
    }

    /// For what is asked of nf_tables beside the table.
    pub fn nftables(&mut self) -> &mut Nftables {
        &mut self.nftables
    }

    /// All that the devices said at the last reading, by index.
    pub fn device_readings(&self) -> &[DeviceReading] {
        self.devices.readings()
    }

    /// What the devices had moved just before the last good reading.
    pub fn moved(&self) -> &[Moved] {
        &self.moved
    }

    /// At most what devices have moved since they had moved that much, in layer 2 bytes; `None` where they cannot tell.
    pub fn moved_since(&mut self, before: &[Moved]) -> Option<u64> {
        let told = !before.is_empty() && self.devices.read(&mut self.scratch).is_ok();
        told.then(|| moved_between(before, &self.scratch)).flatten()
    }

    /// Who may change it.
    pub fn protection(&self) -> Protection {
        self.protection
    }

    /// Puts `ruleset` in force for the first time in this run; static rules are only wanted.
    pub fn install(&mut self, ruleset: Ruleset) -> Result<Installed, KernelError> {
        self.ruleset = ruleset;
        if self.is_static() {
            return Ok(Installed {
                remade: false,
                since: self.opened,
                moved: None,
            });
        }
        let handle = self.nftables.install(&self.ruleset)?;
        std::mem::swap(&mut self.moved, &mut self.scratch);
        self.devices.read(&mut self.moved)?;
        let installed = Installed {
            remade: handle != self.handle,
            since: self.opened,
            moved: moved_between(&self.scratch, &self.moved),
        };
        self.handle = handle;
        Ok(installed)
    }

    /// Goes over to the tables of others that `meter` reads from. Of those that are new their counters were last read at
    /// `last`, if ever, when the devices had moved that much.
    pub fn follow(&mut self, meter: &Meter, last: Option<(Timestamp, &[Moved])>) {
        self.foreign.follow(meter, last);
    }

    /// What tables of others may have missed, since this was last asked.
    pub fn take_foreign_gaps(&mut self) -> Vec<Event> {
        self.foreign.take_gaps()
    }

    /// Reads all counters into `meter`, whose tables are followed.
    pub fn read(&mut self, meter: &mut Meter, sequence: u64) -> Result<Reading, KernelError> {
        self.pass(meter, sequence, Meter::end)
    }

    /// The same between two readings, of which `meter` makes one interval.
    pub fn read_early(&mut self, meter: &mut Meter, sequence: u64) -> Result<Reading, KernelError> {
        self.pass(meter, sequence, |meter, _| meter.end_early())
    }

    fn pass(
        &mut self,
        meter: &mut Meter,
        sequence: u64,
        end: impl FnOnce(&mut Meter, Uptime) -> Unread,
    ) -> Result<Reading, KernelError> {
        // Before the counters: whatever is missed after them is then within the bound.
        self.devices.read(&mut self.scratch)?;
        let tick = clock::tick(sequence);
        meter.begin();
        let interrupted = !self.is_static() && self.read_own(meter)?;
        let movement = Movement {
            before: &self.moved,
            now: &self.scratch,
        };
        let disturbed =
            (self.foreign).read(&mut self.nftables, meter, tick, movement, &mut self.devices)?;
        let unread = end(meter, tick.at);
        let missing = if interrupted { 0 } else { unread.own };
        if !disturbed {
            self.missing_existing = unread.existing;
        }
        if missing == 0 {
            std::mem::swap(&mut self.moved, &mut self.scratch);
            self.moved_by_repair = None;
        }
        Ok(Reading {
            tick,
            took: clock::uptime().since(tick.at),
            missing,
            missing_existing: self.missing_existing,
        })
    }

    /// Our own counters. Returns whether some may be left out because others kept changing the ruleset.
    fn read_own(&mut self, meter: &mut Meter) -> Result<bool, KernelError> {
        let read = dump(&mut self.nftables, &self.ruleset.table, meter)?;
        if self.is_the_same(read.generation)? {
            return Ok(read.interrupted);
        }
        // What another table holds was not counted by this one.
        meter.begin();
        Ok(false)
    }

    /// Whether answers of that generation came from the table of our handle. The kernel is asked only when the
    /// ruleset changed; no answers are those of no table.
    fn is_the_same(&mut self, generation: Option<u16>) -> Result<bool, KernelError> {
        if generation.is_none() || generation == self.generation {
            return Ok(true);
        }
        let found = match self.nftables.own_table(&self.ruleset.table) {
            // Another stands in its place. The repair that is due says so, and what else there is to read is read.
            Err(KernelError::StaticTable { .. } | KernelError::ForeignTable { .. }) => None,
            found => found?,
        };
        let same = found.is_some_and(|table| table.handle == self.handle);
        if same {
            self.generation = generation;
        }
        Ok(same)
    }

    /// Puts the ruleset in force again after others changed the table. Returns a bound for what no counter saw
    /// since the last good reading or repair, in layer 2 bytes over all devices; `None` where it cannot be told.
    pub fn repair(&mut self, meter: &mut Meter) -> Result<Option<u64>, KernelError> {
        let found = self.nftables.own_table(&self.ruleset.table)?;
        let found = found.map(|table| table.handle);
        if found.is_some_and(|handle| handle != self.handle) {
            // Made anew by someone else, perhaps from a saved ruleset with old values: what it holds is no news.
            rebase(&mut self.nftables, &self.ruleset.table, meter)?;
        }
        self.handle = self.nftables.install(&self.ruleset)?;
        if found != Some(self.handle) {
            meter.new_epoch();
        }
        self.generation = None;
        // It is in force again, whatever devices can tell.
        if self.devices.read(&mut self.scratch).is_err() {
            return Ok(None);
        }
        let before = self.moved_by_repair.as_ref().unwrap_or(&self.moved);
        let bound_bytes = moved_between(before, &self.scratch);
        self.moved_by_repair = Some(self.scratch.clone());
        Ok(bound_bytes)
    }

    /// Goes over to another ruleset of the same table. Where that is not the table of our handle any more, or not as it
    /// was left, it is repaired with it. Static rules are only wanted from then on.
    pub fn change(&mut self, ruleset: Ruleset, meter: &mut Meter) -> Result<Changed, KernelError> {
        if let Some(static_rules) = &mut self.static_rules {
            static_rules.forget();
            self.ruleset = ruleset;
            return Ok(Changed::AsPlanned);
        }
        if self.nftables.change(&self.ruleset, &ruleset, self.handle)? {
            self.ruleset = ruleset;
            return Ok(Changed::AsPlanned);
        }
        let before = std::mem::replace(&mut self.ruleset, ruleset);
        match self.repair(meter) {
            Ok(bound_bytes) => Ok(Changed::Repaired { bound_bytes }),
            Err(error) => {
                self.ruleset = before;
                Err(error)
            }
        }
    }
}
