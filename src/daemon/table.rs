//! The daemon's table: reads it into the meter, keeps it in force, and says what an interruption may have cost.

use std::time::Duration;

use super::clock;
use crate::kernel::devices::{Devices, Moved, moved_between};
use crate::kernel::error::KernelError;
use crate::kernel::nft::TableInfo;
use crate::kernel::nftables::Nftables;
use crate::meter::Meter;
use crate::plan::ruleset::Ruleset;
use crate::units::Tick;

/// How often an interrupted dump is repeated before what came is used.
const DUMP_ATTEMPTS: u32 = 3;

/// The table in the kernel and what is known of it.
pub struct Table {
    nftables: Nftables,
    devices: Devices,
    ruleset: Ruleset,
    handle: u64,
    /// What the devices had moved just before the last good reading.
    moved: Vec<Moved>,
    scratch: Vec<Moved>,
}

/// One reading of all counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// When.
    pub tick: Tick,
    /// What it took.
    pub took: Duration,
    /// Counters that the kernel did not have. Unknown, hence 0, when the dump stayed interrupted.
    pub missing: usize,
}

impl Table {
    /// Opens the sockets; installs nothing. Returns what the kernel has under the ruleset's name, if it is ours.
    pub fn open(ruleset: Ruleset) -> Result<(Self, Option<TableInfo>), KernelError> {
        let mut nftables = Nftables::open()?;
        let found = nftables.own_table(&ruleset.table)?;
        let handle = found.as_ref().map_or(0, |table| table.handle);
        let devices = Devices::open()?;
        Ok((
            Table {
                nftables,
                devices,
                ruleset,
                handle,
                moved: Vec::new(),
                scratch: Vec::new(),
            },
            found,
        ))
    }

    /// Distinguishes this table from one of the same name made before or after.
    pub fn handle(&self) -> u64 {
        self.handle
    }

    /// The port of the socket that makes changes, by which they are known from those of others.
    pub fn port(&self) -> u32 {
        self.nftables.port()
    }

    /// For what is asked of nf_tables beside the table.
    pub fn nftables(&mut self) -> &mut Nftables {
        &mut self.nftables
    }

    /// Puts the ruleset in force for the first time in this run.
    pub fn install(&mut self) -> Result<(), KernelError> {
        self.handle = self.nftables.install(&self.ruleset)?;
        self.devices.read(&mut self.moved)
    }

    /// Reads all counters into `meter`.
    pub fn read(&mut self, meter: &mut Meter, sequence: u64) -> Result<Reading, KernelError> {
        // Before the counters: whatever is missed after them is then within the bound.
        self.devices.read(&mut self.scratch)?;
        let tick = clock::tick(sequence);
        let mut interrupted = true;
        let mut unread = 0;
        for _ in 0..DUMP_ATTEMPTS {
            meter.begin();
            let end = self
                .nftables
                .counters(&self.ruleset.table, |record| meter.record(record, tick.at))?;
            unread = meter.end();
            interrupted = end.interrupted;
            if !interrupted {
                break;
            }
        }
        let missing = if interrupted { 0 } else { unread };
        if missing == 0 {
            std::mem::swap(&mut self.moved, &mut self.scratch);
        }
        Ok(Reading {
            tick,
            took: clock::uptime().since(tick.at),
            missing,
        })
    }

    /// Puts the ruleset in force again after others changed the table. Returns a bound for what no counter saw
    /// since the last good reading, in layer 2 bytes over all devices; `None` where it cannot be told.
    pub fn repair(&mut self, meter: &mut Meter) -> Result<Option<u64>, KernelError> {
        let found = self.nftables.own_table(&self.ruleset.table)?;
        match found {
            Some(table) if table.handle == self.handle => {}
            // Made anew by someone else, perhaps from a saved ruleset with old values: what it holds is no news.
            Some(_) => {
                self.nftables
                    .counters(&self.ruleset.table, |record| meter.rebase(record))?;
            }
            None => meter.new_epoch(),
        }
        self.handle = self.nftables.install(&self.ruleset)?;
        self.devices.read(&mut self.scratch)?;
        Ok(moved_between(&self.moved, &self.scratch))
    }

    /// Goes over to another ruleset of the same table.
    pub fn change(&mut self, ruleset: Ruleset) -> Result<(), KernelError> {
        self.handle = self.nftables.change(&self.ruleset, &ruleset)?;
        self.ruleset = ruleset;
        Ok(())
    }
}
