//! The temporary rules of drilldowns in the kernel. The socket here owns their table: it goes with the socket, however
//! the process ends, and nobody else can change it. What the rules are is decided elsewhere.

use std::collections::BTreeMap;
use std::net::IpAddr;

use rustix::io::Errno;

use super::batch::Batch;
use super::error::KernelError;
use super::nftables::Nftables;
use crate::config::{Config, Selectors};
use crate::plan::missed::{Counts, Missed};
use crate::plan::probe::{self, Family, Names, Rules, WATCHES_MAX, Watch};
use crate::units::{TableFamily, Volume};

/// Counts packets that no conntrack entry explains, in the network namespace of the thread that opened it. Where a
/// watch is not possible it counts nothing, which a drilldown can live with.
pub struct Probe {
    /// Owns the table.
    nftables: Nftables,
    table: String,
    watches: BTreeMap<u32, Watch>,
}

impl Probe {
    /// Gets ready to stand beside the table of that name; installs nothing. `None` where the kernel has no tables that
    /// go with their owner (before Linux 5.12). A table of the name is an error.
    pub fn open(main: &str) -> Result<Option<Probe>, KernelError> {
        let table = probe::table_name(main);
        let mut nftables = Nftables::open()?;
        let free = nftables.table(TableFamily::Inet, &table);
        let free = free.map(|found| found.is_none()).and_then(|free| {
            if free {
                nftables.send("ask for a table that goes", &Batch::ask_owned(&table))?;
            }
            Ok(free)
        });
        match free {
            Ok(true) => Ok(Some(Probe {
                nftables,
                table,
                watches: BTreeMap::new(),
            })),
            Ok(false) => Err(KernelError::ForeignTable { name: table }),
            Err(error) if is_impossible(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Counts for `number` what these selectors mean from now on. For a number that is watched already they are other
    /// ones, and what it has counted stays, but where packets that arrive become packets that leave or the other way
    /// round. Beyond 16 numbers, nothing is counted.
    pub fn watch(
        &mut self,
        number: u32,
        selectors: &Selectors,
        config: &Config,
    ) -> Result<(), KernelError> {
        if self.watches.len() >= WATCHES_MAX && !self.watches.contains_key(&number) {
            return Ok(());
        }
        let watch = Watch::new(config, selectors);
        let before = self.watches.get(&number);
        if before == Some(&watch) {
            return Ok(());
        }
        if before.is_some_and(|before| before.leaves() != watch.leaves()) {
            self.forget(number)?;
        }
        let mut watches = self.watches.clone();
        watches.insert(number, watch);
        self.go_over(watches)
    }

    /// Counts nothing for `number` any more, and forgets what it has counted.
    pub fn forget(&mut self, number: u32) -> Result<(), KernelError> {
        let mut watches = self.watches.clone();
        watches.remove(&number);
        self.go_over(watches)
    }

    /// What was counted for `number` since it is watched. `unconfirmed` may shrink again by what was on its way.
    pub fn read(&mut self, number: u32) -> Result<Missed, KernelError> {
        let Some(watch) = self.watches.get(&number) else {
            return Ok(Missed::default());
        };
        let (leaves, names) = (watch.leaves(), Names(number));
        // What arrived is read before what passed, and sources before sums: no packet that passes meanwhile is taken
        // for a dropped one, and the sources are no more than the sums.
        let mut counts = Counts {
            by_source: self.sources(|family| names.sources(family))?,
            ..Counts::default()
        };
        if !leaves {
            counts.passed_by_source = self.sources(|family| names.passed_sources(family))?;
            counts.unconfirmed = self.counter(&names.unconfirmed())?;
            counts.passed = self.counter(&names.passed())?;
        }
        counts.untracked = self.counter(&names.untracked())?;
        counts.icmp_error = self.counter(&names.icmp_error())?;
        Ok(Missed::of(counts))
    }

    /// The table is there while something is watched.
    fn go_over(&mut self, watches: BTreeMap<u32, Watch>) -> Result<(), KernelError> {
        let table = &self.table;
        let (old, new) = (Rules::of(&self.watches), Rules::of(&watches));
        let (operation, batch) = match (self.watches.is_empty(), watches.is_empty()) {
            (true, true) => return Ok(()),
            (true, false) => ("watch what is dropped", Batch::make_owned(table, &new)),
            (false, false) => {
                let batch = Batch::change_owned(table, &old, &new);
                ("change what is watched", batch)
            }
            (false, true) => ("watch no more", Batch::remove_owned(table)),
        };
        self.nftables.send(operation, &batch)?;
        self.watches = watches;
        Ok(())
    }

    fn counter(&mut self, name: &str) -> Result<Volume, KernelError> {
        let found = self
            .nftables
            .counter(TableFamily::Inet, &self.table, name)?;
        Ok(found.unwrap_or_default())
    }

    /// Of both families. A source that the dump gave twice is the later of both.
    fn sources(
        &mut self,
        set: impl Fn(Family) -> String,
    ) -> Result<BTreeMap<IpAddr, Volume>, KernelError> {
        let mut sources = BTreeMap::new();
        for family in [Family::V4, Family::V6] {
            let found = self.nftables.sources(&self.table, &set(family))?;
            sources.extend(found);
        }
        Ok(sources)
    }
}

/// No such flag, no such table, or a name that is too long for one.
fn is_impossible(error: &KernelError) -> bool {
    let impossible = [Errno::INVAL, Errno::OPNOTSUPP, Errno::EXIST, Errno::RANGE];
    error
        .errno()
        .is_some_and(|errno| impossible.contains(&errno))
}
