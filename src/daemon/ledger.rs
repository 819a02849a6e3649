//! What is known of counters beyond this run: totals from the state directory, those of counters that the
//! configuration no longer has, and the sysctls as they were before flowctl.

use std::collections::BTreeMap;

use super::identity::Identity;
use crate::kernel::nft::TableInfo;
use crate::meter::{Carried, Meter};
use crate::sink::state::{Saved, SavedCounter, VERSION};
use crate::units::{CounterName, Tick};

/// The memory.
#[derive(Debug, Default)]
pub struct Ledger {
    carried: BTreeMap<CounterName, Carried>,
    /// Values from before flowctl changed them, by name.
    pub sysctls: BTreeMap<String, String>,
}

impl Ledger {
    /// From what was saved. The kernel's values go with the totals only if the counters are still the same ones.
    pub fn new(
        saved: Option<Saved>,
        identity: &Identity,
        table: &str,
        found: Option<&TableInfo>,
    ) -> Self {
        let Some(saved) = saved else {
            return Ledger::default();
        };
        let same_kernel =
            saved.boot_id == identity.boot_id && saved.namespace == identity.namespace;
        let same_table =
            found.is_some_and(|found| saved.table == table && saved.table_handle == found.handle);
        let carry = |counter: SavedCounter| Carried {
            total: counter.total,
            kernel: if same_kernel && same_table {
                counter.kernel
            } else {
                Default::default()
            },
            resets: counter.resets,
        };
        Ledger {
            carried: saved
                .counters
                .into_iter()
                .map(|(name, counter)| (name, carry(counter)))
                .collect(),
            sysctls: if same_kernel {
                saved.sysctls
            } else {
                BTreeMap::new()
            },
        }
    }

    /// Every counter that is remembered.
    pub fn names(&self) -> impl Iterator<Item = &CounterName> {
        self.carried.keys()
    }

    /// What a counter begins with.
    pub fn carried(&self, name: &CounterName) -> Carried {
        self.carried.get(name).copied().unwrap_or_default()
    }

    /// Remembers what `meter` knows. Its counters leave the kernel or stay; the totals are the same either way.
    pub fn remember(&mut self, meter: &Meter) {
        self.carried.extend(
            meter
                .counters()
                .iter()
                .map(|counter| (counter.name.clone(), counter.carried())),
        );
    }

    /// The kernel's counters of these names are no longer: made anew they begin at 0.
    pub fn forget_kernel_values(&mut self, gone: impl Fn(&CounterName) -> bool) {
        for (name, carried) in &mut self.carried {
            if gone(name) {
                carried.kernel = Default::default();
            }
        }
    }

    /// All of it, in the form that is saved.
    pub fn saved(&self, identity: &Identity, table: &str, handle: u64, tick: Tick) -> Saved {
        let save = |carried: &Carried| SavedCounter {
            total: carried.total,
            kernel: carried.kernel,
            resets: carried.resets,
        };
        Saved {
            version: VERSION,
            boot_id: identity.boot_id.clone(),
            namespace: identity.namespace,
            table: table.to_owned(),
            table_handle: handle,
            time: tick.wall,
            counters: self
                .carried
                .iter()
                .map(|(name, carried)| (name.clone(), save(carried)))
                .collect(),
            sysctls: self.sysctls.clone(),
        }
    }
}
