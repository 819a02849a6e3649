//! What is known beyond this run: totals, also of counters that the configuration no longer has, label bits, and the
//! sysctls as they were before flowctl. It knows what of it still holds where the daemon finds itself now.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::identity::Identity;
use crate::config::{Counter, LabelsByInterface, contradict};
use crate::kernel::devices::{Moved, moved_between};
use crate::kernel::nft::TableInfo;
use crate::meter::{Carried, Existing, Meter};
use crate::plan::ruleset::Shape;
use crate::sink::state::{Saved, VERSION};
use crate::units::{CounterName, ExistingCounter, TableFamily, Tick};

/// The memory.
#[derive(Debug)]
pub struct Ledger {
    memory: Saved,
    /// The table that is loaded with the system's ruleset: counters of the configuration are read from there.
    static_table: Option<String>,
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
    /// Of what was saved and the kernel that is here, whatever became of the table.
    pub fn of_kernel(saved: Option<&Saved>, here: &Identity) -> Self {
        match saved {
            None => Continuity::Unknown,
            Some(saved) if saved.boot_id != here.boot_id => Continuity::Broken(Break::Boot),
            Some(saved) if saved.namespace != here.namespace => {
                Continuity::Broken(Break::Namespace)
            }
            Some(_) => Continuity::Unbroken,
        }
    }

    /// Of what was saved, here and now.
    pub fn of(
        saved: Option<&Saved>,
        here: &Identity,
        table: &str,
        found: Option<&TableInfo>,
    ) -> Self {
        let of_kernel = Continuity::of_kernel(saved, here);
        let Some(saved) = saved.filter(|_| of_kernel == Continuity::Unbroken) else {
            return of_kernel;
        };
        let broken = match found {
            _ if saved.table_handle == 0 => Break::Removed,
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
        if continuity == Continuity::Unbroken {
            // It was read as a table that others load, and is ours again.
            let handle = memory.table_handle;
            for (name, carried) in &mut memory.counters {
                carried.existing.take_if(|existing| {
                    existing.handle == Some(handle) && is_in_table(&existing.counter, table, name)
                });
            }
        }
        if let Continuity::Broken(broken) = continuity {
            for carried in memory.counters.values_mut() {
                match &mut carried.existing {
                    None => carried.kernel = Default::default(),
                    // The table of others goes on whatever became of ours, but not in another kernel.
                    Some(existing) if !broken.same_kernel() => existing.handle = Some(0),
                    Some(_) => {}
                }
            }
            if !broken.same_kernel() {
                memory.sysctls.clear();
                memory.labels.clear();
                memory.labelled_since = None;
                memory.devices.clear();
            }
        }
        memory.version = VERSION;
        memory.boot_id.clone_from(&here.boot_id);
        memory.namespace = here.namespace;
        table.clone_into(&mut memory.table);
        Ledger {
            memory,
            static_table: None,
        }
    }

    /// The same where the table is loaded with the system's ruleset: counters that flowctl had in a table of its own go on
    /// from there, as in a table made anew.
    pub fn of_static(
        saved: Option<Saved>,
        continuity: Continuity,
        here: &Identity,
        table: &str,
    ) -> Self {
        let before = saved.as_ref().map(|saved| saved.table.clone());
        let before = before.unwrap_or_else(|| table.to_owned());
        let goes_on = before == table && !matches!(continuity, Continuity::Broken(_));
        let mut ledger = Ledger::new(saved, continuity, here, table);
        let own = Some(ledger.memory.table_handle);
        for (name, carried) in &mut ledger.memory.counters {
            let handle = match &carried.existing {
                None => own,
                Some(existing) if is_in_table(&existing.counter, &before, name) => existing.handle,
                Some(_) => continue,
            };
            // What another table held is nothing that this one counted.
            let handle = handle.map(|handle| if goes_on { handle } else { 0 });
            carried.existing = in_table(table, name).map(|counter| Existing { counter, handle });
        }
        ledger.static_table = Some(table.to_owned());
        ledger
    }

    /// Every counter of our own table that is remembered.
    pub fn own_names(&self) -> impl Iterator<Item = &CounterName> {
        let own = self.memory.counters.iter();
        own.filter(|(_, carried)| carried.existing.is_none())
            .map(|(name, _)| name)
    }

    /// What a counter of our own table begins with.
    pub fn carried_own(&self, name: &CounterName) -> Carried {
        let known = self.memory.counters.get(name);
        let known = known.cloned().unwrap_or_default();
        match known.existing {
            None => known,
            // It had that name, and was none of ours.
            Some(_) => Carried {
                kernel: Default::default(),
                existing: None,
                ..known
            },
        }
    }

    /// What a counter of the configuration begins with.
    pub fn carried(&self, counter: &Counter) -> Carried {
        let loaded = self.static_table.as_deref();
        let loaded = loaded.and_then(|table| in_table(table, &counter.name));
        let Some(wanted) = counter.existing.as_ref().or(loaded.as_ref()) else {
            return self.carried_own(&counter.name);
        };
        let known = self.memory.counters.get(&counter.name);
        let known = known.cloned().unwrap_or_default();
        match &known.existing {
            Some(existing) if existing.counter == *wanted => known,
            // The total goes on, with a counter that was not read before.
            _ => Carried {
                kernel: Default::default(),
                existing: Some(Existing {
                    counter: wanted.clone(),
                    handle: None,
                }),
                ..known
            },
        }
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

    /// The kernel's counters of these names are no longer in our own table: made anew they begin at 0.
    pub fn forget_kernel_values(&mut self, gone: impl Fn(&CounterName) -> bool) {
        for (name, carried) in &mut self.memory.counters {
            if carried.existing.is_none() && gone(name) {
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

    /// Since when flows have those bits, where they had others before.
    pub fn labelled_since(&self) -> Option<Timestamp> {
        self.memory.labelled_since
    }

    /// Rules with these label bits are in force at `now`. Where a bit stood for another interface before, all bits of older
    /// flows mean nothing any more.
    pub fn note_labels(&mut self, labels: LabelsByInterface, now: Timestamp) {
        let known = &mut self.memory.labels;
        if contradict(known, &labels) {
            known.clear();
            self.memory.labelled_since = Some(now);
        }
        // Flows of interfaces that went live on, with their bits.
        known.extend(labels);
    }

    /// When this was last saved, if ever, and what the devices had moved by then; nothing where they cannot tell.
    pub fn last_devices(&self) -> Option<(Timestamp, &[Moved])> {
        let saved = self.memory.serial > 0;
        saved.then_some((self.memory.time, self.memory.devices.as_slice()))
    }

    /// At most what the devices have moved since the last save, in layer 2 bytes; `None` where they cannot tell.
    pub fn moved_since(&self, now: &[Moved]) -> Option<u64> {
        (!self.memory.devices.is_empty())
            .then(|| moved_between(&self.memory.devices, now))
            .flatten()
    }

    /// All of it as it is saved, newer than all before. `handle` is the table's, which holds so much, and 0 when there is
    /// none any more; `devices` what they had moved just before the reading at `tick`.
    pub fn snapshot(
        &mut self,
        (handle, shape): (u64, Option<Shape>),
        tick: Tick,
        devices: &[Moved],
    ) -> Saved {
        self.memory.serial += 1;
        self.memory.table_handle = handle;
        self.memory.shape = shape;
        self.memory.time = tick.wall;
        self.memory.devices.clear();
        self.memory.devices.extend_from_slice(devices);
        self.memory.clone()
    }
}

/// A counter of the configuration as one of the table that is loaded.
fn in_table(table: &str, name: &CounterName) -> Option<ExistingCounter> {
    // Names of the configuration are such that nft takes them.
    ExistingCounter::new(TableFamily::Inet, table, name.as_str()).ok()
}

fn is_in_table(counter: &ExistingCounter, table: &str, name: &CounterName) -> bool {
    counter.is_in(TableFamily::Inet, table) && counter.counter() == name.as_str()
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
            existing: None,
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
        let removed_before_a_boot = Saved {
            table_handle: 0,
            ..other_boot
        };
        assert_eq!(of(&removed_before_a_boot, None), broken(Break::Boot));
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
            assert_eq!(ledger.carried_own(&name).total.bytes, 900);
            assert_eq!(ledger.carried_own(&name).kernel, Volume::default());
            assert_eq!(ledger.sysctls().is_empty(), broken == Break::Boot);
        }
        let unbroken = Ledger::new(Some(saved()), Continuity::Unbroken, &here(), "flowctl");
        assert_eq!(unbroken.carried_own(&name).kernel.bytes, 900);
    }

    fn existing(text: &str, handle: Option<u64>) -> Option<Existing> {
        let counter = ExistingCounter::parse(text).unwrap();
        Some(Existing { counter, handle })
    }

    #[test]
    fn a_table_of_others_outlives_ours_but_not_the_kernel() {
        let name = CounterName::new("wan_in").unwrap();
        let mut saved = saved();
        saved.counters.get_mut(&name).unwrap().existing = existing("inet t c", Some(3));
        let counter = Counter {
            name: name.clone(),
            existing: ExistingCounter::parse("inet t c").ok(),
            selectors: Default::default(),
            capacity: None,
        };
        for (broken, handle) in [(Break::Removed, 3), (Break::Remade, 3), (Break::Boot, 0)] {
            let continuity = Continuity::Broken(broken);
            let mut ledger = Ledger::new(Some(saved.clone()), continuity, &here(), "flowctl");
            ledger.forget_kernel_values(|_| true);
            let carried = ledger.carried(&counter);
            assert_eq!((carried.total.bytes, carried.kernel.bytes), (900, 900));
            assert_eq!(carried.existing, existing("inet t c", Some(handle)));
            assert_eq!(ledger.own_names().count(), 0);
        }
    }

    #[test]
    fn a_name_that_reads_something_else_keeps_its_total_alone() {
        let name = CounterName::new("wan_in").unwrap();
        let ledger = Ledger::new(Some(saved()), Continuity::Unbroken, &here(), "flowctl");
        let mut counter = Counter {
            name: name.clone(),
            existing: ExistingCounter::parse("inet t c").ok(),
            selectors: Default::default(),
            capacity: None,
        };
        let carried = ledger.carried(&counter);
        assert_eq!((carried.total.bytes, carried.kernel.bytes), (900, 0));
        assert_eq!(carried.existing, existing("inet t c", None));
        let mut saved = saved();
        saved.counters.get_mut(&name).unwrap().existing = existing("inet t c", Some(3));
        let ledger = Ledger::new(Some(saved), Continuity::Unbroken, &here(), "flowctl");
        counter.existing = None;
        let carried = ledger.carried(&counter);
        assert_eq!((carried.total.bytes, carried.kernel.bytes), (900, 0));
        assert_eq!(carried.existing, None);
    }

    #[test]
    fn a_table_read_as_loaded_by_others_is_ours_again_with_what_it_held() {
        let name = CounterName::new("wan_in").unwrap();
        for (handle, kernel) in [(7, 900), (6, 0)] {
            let mut saved = saved();
            saved.counters.get_mut(&name).unwrap().existing =
                existing("inet flowctl wan_in", Some(handle));
            let ledger = Ledger::new(Some(saved), Continuity::Unbroken, &here(), "flowctl");
            assert_eq!(ledger.carried_own(&name).kernel.bytes, kernel, "{handle}");
        }
    }

    #[test]
    fn a_loaded_table_of_another_name_holds_nothing_that_was_counted_before() {
        let name = CounterName::new("wan_in").unwrap();
        let of = |saved: Saved, table: &str| {
            let ledger = Ledger::of_static(Some(saved), Continuity::Unbroken, &here(), table);
            let carried = &ledger.memory.counters[&name];
            assert_eq!(carried.total.bytes, 900);
            carried.existing.clone()
        };
        let mut loaded = saved();
        loaded.counters.get_mut(&name).unwrap().existing = existing("inet flowctl wan_in", Some(6));
        assert_eq!(
            of(saved(), "flowctl"),
            existing("inet flowctl wan_in", Some(7))
        );
        assert_eq!(of(saved(), "other"), existing("inet other wan_in", Some(0)));
        assert_eq!(
            of(loaded.clone(), "flowctl"),
            existing("inet flowctl wan_in", Some(6))
        );
        assert_eq!(
            of(loaded.clone(), "other"),
            existing("inet other wan_in", Some(0))
        );
        loaded.counters.get_mut(&name).unwrap().existing = existing("inet t c", Some(6));
        assert_eq!(of(loaded, "other"), existing("inet t c", Some(6)));
    }

    #[test]
    fn every_snapshot_is_newer_than_the_one_before() {
        let tick = Tick {
            sequence: 0,
            at: Default::default(),
            wall: Default::default(),
        };
        let mut ledger = Ledger::new(Some(saved()), Continuity::Unbroken, &here(), "flowctl");
        let first = ledger.snapshot((7, None), tick, &[]);
        assert!(ledger.snapshot((7, None), tick, &[]).serial > first.serial);
        assert!(first.serial > saved().serial);
    }
}
