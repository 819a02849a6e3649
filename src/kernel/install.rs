//! How the table is installed, changed and taken away: in atomic batches, and such that counters that stay miss no packet.

use super::batch::{Batch, Step, Target};
use super::error::KernelError;
use super::nft::{Protection, TableInfo, table_flag};
use super::nftables::Nftables;
use crate::plan::diff::{self, Changes, Inventory};
use crate::plan::ruleset::Ruleset;
use crate::plan::succession;

/// A table that a ruleset is put into, step by step.
#[derive(Debug, Clone, Copy)]
struct Installing {
    handle: u64,
    operation: &'static str,
}

impl Nftables {
    /// Puts `ruleset` in force, whatever the table holds now; counters of the same name keep their values and miss no packet.
    /// Only a table that nobody ever owned cannot become owned: it is made anew. Returns the table's handle: another one than
    /// before means that all counters began at 0.
    pub fn install(&mut self, ruleset: &Ruleset) -> Result<u64, KernelError> {
        const OPERATION: &str = "install the table";
        if self.protection == Protection::Owned {
            self.adopt(&ruleset.table)?;
        }
        let (mut existing, mut by) = (Inventory::default(), None);
        self.attempt(OPERATION, |nftables, generation| {
            let found = nftables.own_table(&ruleset.table)?;
            let target = nftables.target(found.as_ref(), generation);
            existing = match found {
                Some(_) if !target.anew => nftables.inventory(&ruleset.table)?,
                _ => Inventory::default(),
            };
            by = succession::replacing(&existing, ruleset);
            let (first, steps) = match &by {
                None => (ruleset, &Step::ALL[..]),
                Some(by) => (by, &[Step::Make][..]),
            };
            let changes = diff::replace(&existing, first);
            Ok(Some(Batch::carry_out(first, &changes, target, steps)))
        })?;
        let handle = self.handle(&ruleset.table)?;
        let Some(by) = by else { return Ok(handle) };
        let table = Installing {
            handle,
            operation: OPERATION,
        };
        let changes = diff::replace(&existing, &by);
        let gone_over = self.go_over(table, &by, &changes, &[Step::Switch, Step::Tidy])?
            && self.go_over(table, ruleset, &diff::between(&by, ruleset), &Step::ALL)?;
        match gone_over {
            true => Ok(handle),
            false => Err(KernelError::Contended {
                operation: OPERATION,
                attempts: 1,
            }),
        }
    }

    /// Puts `new` in force where `old` is known to be, in the table of that handle; counters that stay miss no packet. False
    /// where the table is another by now or does not hold what it should.
    pub fn change(
        &mut self,
        old: &Ruleset,
        new: &Ruleset,
        handle: u64,
    ) -> Result<bool, KernelError> {
        let table = Installing {
            handle,
            operation: "change the table",
        };
        let changed = match succession::between(old, new) {
            None => self.carry_out(table, new, &diff::between(old, new), &Step::ALL),
            Some(by) => self
                .go_over(table, &by, &diff::between(old, &by), &Step::ALL)
                .and_then(|gone| {
                    let back = diff::between(&by, new);
                    Ok(gone && self.go_over(table, new, &back, &Step::ALL)?)
                }),
        };
        match changed {
            Err(KernelError::Refused { .. }) => Ok(false),
            changed => changed,
        }
    }

    /// Carries out each of these parts of `changes` by itself, the last when no packet is on its way by the rules before.
    /// False where the table is another by now.
    fn go_over(
        &mut self,
        table: Installing,
        ruleset: &Ruleset,
        changes: &Changes<'_>,
        steps: &[Step],
    ) -> Result<bool, KernelError> {
        if *changes == Changes::default() {
            return Ok(true);
        }
        for step in steps {
            if *step == Step::Tidy {
                self.await_packets(&ruleset.table)?;
            }
            if !self.carry_out(table, ruleset, changes, std::slice::from_ref(step))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Carries out parts of `changes` as one; false where the table is another by now.
    fn carry_out(
        &mut self,
        table: Installing,
        ruleset: &Ruleset,
        changes: &Changes<'_>,
        steps: &[Step],
    ) -> Result<bool, KernelError> {
        let mut fits = true;
        self.attempt(table.operation, |nftables, generation| {
            let found = nftables.own_table(&ruleset.table)?;
            let target = nftables.target(found.as_ref(), generation);
            fits = found.is_some_and(|found| found.handle == table.handle);
            Ok(fits.then(|| Batch::carry_out(ruleset, changes, target, steps)))
        })?;
        Ok(fits)
    }

    /// Returns when every packet has left the rules that were in force before: the kernel waits for that where a batch is
    /// given up, as one without an end is.
    fn await_packets(&mut self, table: &str) -> Result<(), KernelError> {
        self.attempt("wait for packets on their way", |nftables, generation| {
            let found = nftables.own_table(table)?;
            let target = nftables.target(found.as_ref(), generation);
            Ok(Some(Batch::probe(table, target.flags, generation)))
        })
    }

    /// Owns a table that outlived its owner. A transaction of its own: with a table that changes hands the kernel makes
    /// no base chain.
    fn adopt(&mut self, table: &str) -> Result<(), KernelError> {
        self.attempt("own the table", |nftables, generation| {
            let found = nftables.own_table(table)?;
            let orphan = found.filter(|table| table.owner.is_none());
            let target = nftables.target(orphan.as_ref(), generation);
            let adopt = orphan.is_some() && !target.anew;
            Ok(adopt.then(|| Batch::adopt(table, target.flags, generation)))
        })
    }

    fn target(&self, found: Option<&TableInfo>, generation: u32) -> Target {
        let persists = found.map(|table| table.flags & table_flag::PERSIST);
        let (flags, anew) = match self.protection {
            Protection::Owned => (table_flag::OWNER | table_flag::PERSIST, persists == Some(0)),
            // What outlived an owner cannot become plain again, and is as good.
            Protection::Plain | Protection::Static => (persists.unwrap_or(0), false),
        };
        Target {
            generation,
            flags,
            anew,
        }
    }

    /// Takes flowctl's table away; false when there was none.
    pub fn remove(&mut self, table: &str) -> Result<bool, KernelError> {
        let mut existed = false;
        self.attempt("remove the table", |nftables, generation| {
            existed = nftables.own_table(table)?.is_some();
            Ok(existed.then(|| Batch::remove(table, generation)))
        })?;
        Ok(existed)
    }
}
