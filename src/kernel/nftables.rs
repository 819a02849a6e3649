//! nf_tables in the kernel: what reads and lists, each call one dump, and how a batch is sent. `install` changes the table.

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_sys::protocols::NETLINK_NETFILTER;
use rustix::io::Errno;

use super::attr::Writer;
use super::batch::Batch;
use super::error::KernelError;
use super::nft::{
    self, CounterRecord, Generation, Protection, SetInfo, TableInfo, message, table_flag,
};
use super::socket::{ERESTART, Netlink};
use crate::plan::content::{Content, Listed};
use crate::plan::diff::Inventory;
use crate::plan::printed::Maker;
use crate::plan::ruleset::Shape;
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
    pub(super) protection: Protection,
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
    pub(super) fn attempt(
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

    pub(super) fn handle(&mut self, table: &str) -> Result<u64, KernelError> {
        Ok(self
            .table(TableFamily::Inet, table)?
            .map_or(0, |table| table.handle))
    }

    /// All that the table holds, by name.
    pub(super) fn inventory(&mut self, table: &str) -> Result<Inventory, KernelError> {
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
