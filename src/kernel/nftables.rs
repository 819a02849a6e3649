//! The table in the kernel: install, read, list, remove. Each call is one dump or one atomic batch; what to
//! install is decided elsewhere.

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_sys::protocols::NETLINK_NETFILTER;
use rustix::io::Errno;

use super::attr::Writer;
use super::batch::{Batch, Step, Target};
use super::error::KernelError;
use super::nft::{
    self, CounterRecord, Generation, Protection, SetInfo, TableInfo, message, table_flag,
};
use super::socket::{ERESTART, Netlink};
use crate::plan::content::{Content, Listed};
use crate::plan::diff::{self, Changes, Inventory};
use crate::plan::printed::Maker;
use crate::plan::ruleset::{Ruleset, Shape};
use crate::plan::succession;
use crate::units::{ExistingCounter, TableFamily, Volume};

/// How often a batch is tried while others change the ruleset.
const ATTEMPTS: u32 = 20;

/// How a reading of all counters went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CountersRead {
    /// Somebody changed the ruleset meanwhile: counters may be missing.
    pub interrupted: bool,
    /// Of the ruleset at the last answer, its lower 16 bits; `None` where there was no answer.
    pub generation: Option<u16>,
}

/// Asked for and never made: what a table of this name may be tells what any may be.
const PROBE: &str = "flowctl_probe";

/// A door to nf_tables, in the network namespace of the thread that opened it.
pub struct Nftables {
    netlink: Netlink,
    /// Of the tables it installs.
    protection: Protection,
}

/// A table that a ruleset is put into, step by step.
#[derive(Debug, Clone, Copy)]
struct Installing {
    handle: u64,
    operation: &'static str,
}

impl Nftables {
    /// Opens a socket of its own.
    pub fn open() -> Result<Self, KernelError> {
        Ok(Nftables {
            netlink: Netlink::open(NETLINK_NETFILTER)?,
            protection: Protection::Plain,
        })
    }

    /// The same through a socket that there is already.
    pub fn through(netlink: Netlink) -> Self {
        Nftables {
            netlink,
            protection: Protection::Plain,
        }
    }

    /// Owns the tables it installs from now on, where the kernel has tables that are owned and outlive their owner.
    /// Returns what it will be.
    pub fn protect(&mut self) -> Result<Protection, KernelError> {
        let flags = table_flag::OWNER | table_flag::PERSIST;
        let taken = self.attempt("ask for a protected table", |_, generation| {
            Ok(Some(Batch::probe(PROBE, flags, generation)))
        });
        self.protection = match taken {
            Ok(()) => Protection::Owned,
            Err(error) if matches!(error.errno(), Some(Errno::INVAL | Errno::OPNOTSUPP)) => {
                Protection::Plain
            }
            Err(error) => return Err(error),
        };
        Ok(self.protection)
    }

    /// The port by which notifications name changes made here.
    pub fn port(&self) -> u32 {
        self.netlink.port()
    }

    /// The table of that family and name, if it exists.
    pub fn table(
        &mut self,
        family: TableFamily,
        name: &str,
    ) -> Result<Option<TableInfo>, KernelError> {
        let body = |w: &mut Writer| about(w, family, name);
        self.netlink.get(
            "read the table",
            message::GET_TABLE,
            body,
            TableInfo::decode,
        )
    }

    /// The table of that name if a daemon of flowctl's made it; an error if it is someone else's.
    pub fn own_table(&mut self, name: &str) -> Result<Option<TableInfo>, KernelError> {
        let found = self.table(TableFamily::Inet, name)?;
        let name = || name.to_owned();
        match found.as_ref().map(TableInfo::maker) {
            None | Some(Maker::Flowctl) => Ok(found),
            Some(Maker::Configuration) => Err(KernelError::StaticTable { name: name() }),
            Some(Maker::Others) => Err(KernelError::ForeignTable { name: name() }),
        }
    }

    /// The same, and nobody else owns it: an error if somebody does.
    pub fn free_table(&mut self, name: &str) -> Result<Option<TableInfo>, KernelError> {
        let found = self.own_table(name)?;
        match found.as_ref().and_then(|table| table.owner) {
            Some(port) if port != self.port() => Err(KernelError::OwnedTable {
                name: name.to_owned(),
                port,
            }),
            _ => Ok(found),
        }
    }

    /// Whether the socket of that port owns a table of flowctl's.
    pub fn owns_any(&mut self, port: u32) -> Result<bool, KernelError> {
        let body = |w: &mut Writer| w.nfgen(nft::FAMILY_INET, 0);
        let mut owns = false;
        self.netlink
            .dump("list the tables", message::GET_TABLE, body, |message| {
                let table = TableInfo::decode(message)?;
                owns |= table.owner == Some(port) && table.maker() == Maker::Flowctl;
                Ok(())
            })?;
        Ok(owns)
    }

    /// Reads all counters of a table with one dump. No counter at all means: is the table gone?
    pub fn counters(
        &mut self,
        family: TableFamily,
        table: &str,
        mut each: impl FnMut(CounterRecord<'_>),
    ) -> Result<CountersRead, KernelError> {
        let body = |w: &mut Writer| {
            about(w, family, table);
            w.be32(3, nft::OBJECT_COUNTER);
        };
        let mut generation = None;
        let end = self
            .netlink
            .dump("read the counters", message::GET_OBJECT, body, |message| {
                each(CounterRecord::decode(message)?);
                generation = Some(message.resource()?);
                Ok(())
            })?;
        Ok(CountersRead {
            interrupted: end.interrupted,
            generation,
        })
    }

    /// Reads one counter; `None` when it does not exist.
    pub fn counter(
        &mut self,
        family: TableFamily,
        table: &str,
        name: &str,
    ) -> Result<Option<Volume>, KernelError> {
        let body = |w: &mut Writer| {
            about(w, family, table);
            w.text(2, name);
            w.be32(3, nft::OBJECT_COUNTER);
        };
        self.netlink
            .get("read a counter", message::GET_OBJECT, body, |message| {
                CounterRecord::decode(message).map(|counter| Volume {
                    bytes: counter.bytes,
                    packets: counter.packets,
                })
            })
    }

    /// All named counters of the network namespace, those of flowctl's tables included, in the kernel's order.
    pub fn named_counters(&mut self) -> Result<Vec<ExistingCounter>, KernelError> {
        let body = |w: &mut Writer| {
            w.nfgen(nft::FAMILY_ANY, 0);
            w.be32(3, nft::OBJECT_COUNTER);
        };
        let mut found = Vec::new();
        let operation = "list all named counters";
        self.netlink
            .dump(operation, message::GET_OBJECT, body, |message| {
                found.extend(nft::decode_existing(message)?);
                Ok(())
            })?;
        Ok(found)
    }

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

    /// How many flowtables the namespace has: traffic they carry is seen by no counter.
    pub fn flowtables(&mut self) -> Result<usize, KernelError> {
        let mut found = 0;
        let body = |w: &mut Writer| w.nfgen(nft::FAMILY_ANY, 0);
        self.netlink
            .dump("list flowtables", message::GET_FLOWTABLE, body, |_| {
                found += 1;
                Ok(())
            })?;
        Ok(found)
    }

    /// Sends the batch that `make` builds from what it reads, again if the ruleset changed in between.
    fn attempt(
        &mut self,
        operation: &'static str,
        mut make: impl FnMut(&mut Self, u32) -> Result<Option<Batch>, KernelError>,
    ) -> Result<(), KernelError> {
        for _ in 0..ATTEMPTS {
            let generation = self.generation()?;
            let Some(batch) = make(self, generation)? else {
                return Ok(());
            };
            match self.send(operation, &batch) {
                Err(error) if error.errno() == Some(ERESTART) => {}
                other => return other,
            }
        }
        Err(KernelError::Contended {
            operation,
            attempts: ATTEMPTS,
        })
    }

    /// Sends a batch once.
    pub(super) fn send(
        &mut self,
        operation: &'static str,
        batch: &Batch,
    ) -> Result<(), KernelError> {
        self.netlink
            .transact(operation, batch.bytes(), batch.last(), |at| {
                batch.object(at)
            })
    }

    /// Of the whole ruleset: another one after every change.
    pub fn generation(&mut self) -> Result<u32, KernelError> {
        let body = |w: &mut Writer| w.nfgen(nft::FAMILY_ANY, 0);
        let found = self.netlink.get(
            "read the generation",
            message::GET_GENERATION,
            body,
            Generation::decode,
        )?;
        Ok(found.unwrap_or_default().id)
    }

    fn handle(&mut self, table: &str) -> Result<u64, KernelError> {
        Ok(self
            .table(TableFamily::Inet, table)?
            .map_or(0, |table| table.handle))
    }

    /// All that the table holds, by name.
    fn inventory(&mut self, table: &str) -> Result<Inventory, KernelError> {
        let mut found = Inventory::default();
        self.counters(TableFamily::Inet, table, |counter| {
            found
                .counters
                .insert(String::from_utf8_lossy(counter.name).into_owned());
        })?;
        let body = |w: &mut Writer| about(w, TableFamily::Inet, table);
        let mut sets = Vec::new();
        self.netlink
            .dump("list the maps", message::GET_SET, body, |message| {
                sets.extend(SetInfo::decode(message)?);
                Ok(())
            })?;
        for set in sets {
            let elements = self.elements(table, &set.name)?;
            found.maps.insert(
                set.name,
                Content::listed(set.key_length, set.interval, elements),
            );
        }
        // The kernel does not filter chains by table.
        self.netlink
            .dump("list the chains", message::GET_CHAIN, body, |message| {
                if nft::is_about(message, table)? {
                    let (name, base) = nft::decode_chain(message)?;
                    found.chains.insert(name, base);
                }
                Ok(())
            })?;
        Ok(found)
    }

    /// How much flowctl's table holds.
    pub fn shape(&mut self, table: &str) -> Result<Shape, KernelError> {
        let found = self.inventory(table)?;
        let mut rules = 0;
        let body = |w: &mut Writer| about(w, TableFamily::Inet, table);
        self.netlink
            .dump("count the rules", message::GET_RULE, body, |message| {
                rules += usize::from(nft::is_about(message, table)?);
                Ok(())
            })?;
        Ok(Shape {
            chains: found.chains.len(),
            rules,
            maps: found.maps.len(),
            elements: found.maps.values().map(|map| map.elements.len()).sum(),
        })
    }

    /// What rules counted by source in a set, in the kernel's order.
    pub(super) fn sources(
        &mut self,
        table: &str,
        set: &str,
    ) -> Result<Vec<(IpAddr, Volume)>, KernelError> {
        let mut sources = Vec::new();
        let body = |w: &mut Writer| {
            about(w, TableFamily::Inet, table);
            w.text(2, set);
        };
        let operation = "list the sources in a set";
        self.netlink
            .dump(operation, message::GET_ELEMENT, body, |message| {
                sources.extend(nft::decode_sources(message)?);
                Ok(())
            })?;
        Ok(sources)
    }

    fn elements(&mut self, table: &str, map: &str) -> Result<Vec<Listed>, KernelError> {
        let mut elements = Vec::new();
        let body = |w: &mut Writer| {
            about(w, TableFamily::Inet, table);
            w.text(2, map);
        };
        self.netlink.dump(
            "list the elements of a map",
            message::GET_ELEMENT,
            body,
            |message| {
                elements.extend(nft::decode_elements(message)?);
                Ok(())
            },
        )?;
        Ok(elements)
    }
}

impl AsFd for Nftables {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.netlink.as_fd()
    }
}

fn about(w: &mut Writer, family: TableFamily, table: &str) {
    w.nfgen(nft::family_number(family), 0);
    w.text(nft::TABLE, table);
}
