//! What is known beyond this run: totals, also of counters that the configuration no longer has, label bits, and the
//! sysctls as they were before flowctl. It knows what of it still holds where the daemon finds itself now.

use std::collections::BTreeMap;

use super::identity::Identity;
use crate::config::LabelsByInterface;
use crate::kernel::devices::{Moved, moved_between};
use crate::kernel::nft::TableInfo;
use crate::meter::{Carried, Meter};
use crate::sink::state::{Saved, VERSION};
use crate::units::{CounterName, Tick};

/// The memory.
#[derive(Debug)]
pub struct Ledger {
    memory: Saved,
}

/// What was saved, compared with what the kernel has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Continuity {
    /// Nothing was saved: all that a table of ours holds is news.
    Unknown,
    /// The same table: what it holds beyond the saved values was counted meanwhile.
    Unbroken,
    /// A table that was not, or is not any more, the one saved: what it holds is no news, and something may be
    /// missing.
    Broken(Break),
}

/// Why counts may be missing since the last save.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Break {
    /// flowctl itself had removed the table.
    Removed,
    /// Another boot.
    Boot,
    /// Another network namespace.
    Namespace,
    /// There is no table any more.
    Gone,
    /// There is another one of the same name.
    Remade,
}

impl Continuity {
    /// Of what was saved, here and now.
    pub fn of(
        saved: Option<&Saved>,
        here: &Identity,
        table: &str,
        found: Option<&TableInfo>,
    ) -> Self {
        let Some(saved) = saved else {
            return Continuity::Unknown;
        };
        let broken = match found {
            _ if saved.table_handle == 0 => Break::Removed,
            _ if saved.boot_id != here.boot_id => Break::Boot,
            _ if saved.namespace != here.namespace => Break::Namespace,
            None => Break::Gone,
            Some(found) if saved.table != table || found.handle != saved.table_handle => {
                Break::Remade
            }
            Some(_) => return Continuity::Unbroken,
        };
        Continuity::Broken(broken)
    }
}

impl Break {
    /// In words, for the log; `None` where nothing is missing that anyone expects.
    pub fn cause(self) -> Option<&'static str> {
        match self {
            Break::Removed => None,
            Break::Boot => Some("the machine was started anew"),
            Break::Namespace => Some("flowctl ran in another network namespace before"),
            Break::Gone => Some("the table was gone when flowctl started"),
            Break::Remade => Some("the table was made anew while flowctl did not run"),
        }
    }

    /// Whether interfaces, flows and sysctls are still those of the last run.
    fn same_kernel(self) -> bool {
        match self {
            Break::Boot | Break::Namespace => false,
            Break::Removed | Break::Gone | Break::Remade => true,
        }
    }
}

impl Ledger {
    /// From what was saved, for the table of that name here. The kernel's values go with the totals only where
    /// nothing broke.
    pub fn new(saved: Option<Saved>, continuity: Continuity, here: &Identity, table: &str) -> Self {
        let mut memory = saved.unwrap_or_default();
        if let Continuity::Broken(broken) = continuity {
            for carried in memory.counters.values_mut() {
                carried.kernel = Default::default();
            }
            if !broken.same_kernel() {
                memory.sysctls.clear();
                memory.labels.clear();
                memory.devices.clear();
            }
        }
        memory.version = VERSION;
        memory.boot_id.clone_from(&here.boot_id);
        memory.namespace = here.namespace;
        table.clone_into(&mut memory.table);
        Ledger { memory }
    }

    /// Every counter that is remembered.
    pub fn names(&self) -> impl Iterator<Item = &CounterName> {
        self.memory.counters.keys()
    }

    /// What a counter begins with.
    pub fn carried(&self, name: &CounterName) -> Carried {
        self.memory.counters.get(name).copied().unwrap_or_default()
    }

    /// Remembers what `meter` knows. Its counters leave the kernel or stay; the totals are the same either way.
    pub fn remember(&mut self, meter: &Meter) {
        for counter in meter.counters() {
            if let Some(carried) = self.memory.counters.get_mut(&counter.name) {
                *carried = counter.carried();
            } else {
                let name = counter.name.clone();
                self.memory.counters.insert(name, counter.carried());
            }
        }
    }

    /// The kernel's counters of these names are no longer: made anew they begin at 0.
    pub fn forget_kernel_values(&mut self, gone: impl Fn(&CounterName) -> bool) {
        for (name, carried) in &mut self.memory.counters {
            if gone(name) {
                carried.kernel = Default::default();
            }
        }
    }

    /// Values of sysctls from before flowctl changed them, by name.
    pub fn sysctls(&mut self) -> &mut BTreeMap<String, String> {
        &mut self.memory.sysctls
    }

    /// Which label bits stand for which interface.
    pub fn labels(&mut self) -> &mut LabelsByInterface {
        &mut self.memory.labels
    }

    /// At most what the devices have moved since the last save, in layer 2 bytes; `None` where they cannot tell.
    pub fn moved_since(&self, now: &[Moved]) -> Option<u64> {
        (!self.memory.devices.is_empty())
            .then(|| moved_between(&self.memory.devices, now))
            .flatten()
    }

    /// All of it as it is saved, newer than all before. `handle` is the table's, 0 when there is none any more;
    /// `devices` what they had moved just before the reading at `tick`.
    pub fn snapshot(&mut self, handle: u64, tick: Tick, devices: &[Moved]) -> Saved {
        self.memory.serial += 1;
        self.memory.table_handle = handle;
        self.memory.time = tick.wall;
        self.memory.devices.clear();
        self.memory.devices.extend_from_slice(devices);
        self.memory.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Volume;

    const HERE: u64 = 40;

    fn here() -> Identity {
        Identity {
            boot_id: "boot".to_owned(),
            namespace: HERE,
        }
    }

    fn saved() -> Saved {
        let name = CounterName::new("wan_in").unwrap();
        let counted = Volume {
            bytes: 900,
            packets: 9,
        };
        let carried = Carried {
            total: counted,
            kernel: counted,
            resets: 0,
        };
        Saved {
            boot_id: "boot".to_owned(),
            namespace: HERE,
            table: "flowctl".to_owned(),
            table_handle: 7,
            counters: BTreeMap::from([(name, carried)]),
            sysctls: BTreeMap::from([("acct".to_owned(), "0".to_owned())]),
            ..Saved::default()
        }
    }

    fn table(handle: u64) -> TableInfo {
        TableInfo {
            handle,
            comment: None,
            flags: 0,
            owner: None,
        }
    }

    #[test]
    fn only_the_same_table_of_the_same_kernel_goes_on() {
        let of = |saved: &Saved, found: Option<u64>| {
            Continuity::of(Some(saved), &here(), "flowctl", found.map(table).as_ref())
        };
        let broken = Continuity::Broken;
        assert_eq!(of(&saved(), Some(7)), Continuity::Unbroken);
        assert_eq!(of(&saved(), Some(8)), broken(Break::Remade));
        assert_eq!(of(&saved(), None), broken(Break::Gone));
        let other_boot = Saved {
            boot_id: "earlier".to_owned(),
            ..saved()
        };
        assert_eq!(of(&other_boot, Some(7)), broken(Break::Boot));
        let elsewhere = Saved {
            namespace: 41,
            ..saved()
        };
        assert_eq!(of(&elsewhere, Some(7)), broken(Break::Namespace));
        let removed = Saved {
            table_handle: 0,
            ..saved()
        };
        assert_eq!(of(&removed, None), broken(Break::Removed));
        assert_eq!(
            Continuity::of(None, &here(), "flowctl", Some(&table(7))),
            Continuity::Unknown
        );
    }

    #[test]
    fn totals_outlive_every_break_and_the_kernels_values_none() {
        let name = CounterName::new("wan_in").unwrap();
        for broken in [Break::Removed, Break::Boot, Break::Gone, Break::Remade] {
            let continuity = Continuity::Broken(broken);
            let mut ledger = Ledger::new(Some(saved()), continuity, &here(), "flowctl");
            assert_eq!(ledger.carried(&name).total.bytes, 900);
            assert_eq!(ledger.carried(&name).kernel, Volume::default());
            assert_eq!(ledger.sysctls().is_empty(), broken == Break::Boot);
        }
        let unbroken = Ledger::new(Some(saved()), Continuity::Unbroken, &here(), "flowctl");
        assert_eq!(unbroken.carried(&name).kernel.bytes, 900);
    }

    #[test]
    fn every_snapshot_is_newer_than_the_one_before() {
        let tick = Tick {
            sequence: 0,
            at: Default::default(),
            wall: Default::default(),
        };
        let mut ledger = Ledger::new(Some(saved()), Continuity::Unbroken, &here(), "flowctl");
        let first = ledger.snapshot(7, tick, &[]);
        assert!(ledger.snapshot(7, tick, &[]).serial > first.serial);
        assert!(first.serial > saved().serial);
    }
}
