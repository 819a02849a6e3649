//! The configuration, valid by construction: what the rest of flowctl works with. How the file is written and
//! what is wrong with it is the business of the modules below; a `Config` has no problem left in it.

mod addresses;
pub mod adopt;
mod counters;
pub mod discover;
#[cfg(test)]
mod discover_tests;
mod discover_text;
mod existing;
mod hosts;
mod interfaces;
mod keyword;
mod labels;
mod load;
mod naming;
mod prefix;
mod problem;
mod problems;
mod rate;
mod reader;
mod settings;
pub mod source;
mod subnets;
mod suggest;
#[cfg(test)]
mod tests;
mod thresholds;
mod tree;
mod tree_json;
mod tree_toml;
mod value;

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;

pub use addresses::{Addresses, Connected};
pub use labels::{LabelsByInterface, contradict};
pub use load::{Format, LoadError, load, load_again, parse};
pub use problem::{Problem, printable};
pub use settings::{LIVE_TOTALS_FILE, TOTALS_FILE};
pub use value::{DurationError, parse_duration};

use crate::units::{
    BitRate, CounterName, DevicePattern, ExistingCounter, HostName, InterfaceName, Mac, PacketRate,
    SubnetName, TableFamily, ThresholdName,
};

/// A whole configuration, every reference resolved and every default filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Time between two readings, 100 ms to 1 h.
    pub tick: Duration,
    /// The nftables table that flowctl owns.
    pub table: TableConfig,
    /// In the order of the file.
    pub interfaces: Vec<Interface>,
    /// In the order of the file.
    pub subnets: Vec<Subnet>,
    /// Implicit ones first (interfaces, then subnets), then the declared, in the order of the file.
    pub counters: Vec<Counter>,
    /// In the order of the file.
    pub thresholds: Vec<Threshold>,
    /// How closely to look.
    pub drilldown: DrilldownConfig,
    /// Where verdicts go.
    pub log: LogConfig,
    /// The Unix socket that `flowctl status` asks.
    pub control: ControlConfig,
    /// In the order of the file; no address has two names.
    pub hosts: Vec<Host>,
    /// Where other names come from.
    pub names: NamesConfig,
    /// Flows that are older may carry label bits that stood for other interfaces; `None` where none does.
    pub labelled_since: Option<Timestamp>,
}

/// `[table]`.
#[derive(Debug, Clone, PartialEq)]
pub struct TableConfig {
    /// The nftables table's name, family inet.
    pub name: String,
    /// Whether to own the table where the kernel can.
    pub protect: Protect,
    /// Whether the table is loaded with the system's ruleset and only read.
    pub is_static: bool,
}

/// `table.protect`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protect {
    /// Owner and persist where the kernel has it, else plain and repaired.
    Auto,
    /// Plain and repaired.
    Off,
}

/// `[interfaces.NAME]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Interface {
    /// The logical name.
    pub name: InterfaceName,
    /// At least one, none twice; a wildcard may cover others.
    pub devices: Vec<DevicePattern>,
    /// What the link carries towards us; `None` when not said.
    pub capacity_in: Option<BitRate>,
    /// What the link carries away from us; `None` when not said.
    pub capacity_out: Option<BitRate>,
    /// The first of its two conntrack label bits: arrived by it, and then left by it.
    pub label: u8,
}

/// `[subnets]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Subnet {
    /// The logical name.
    pub name: SubnetName,
    /// What is in it.
    pub addresses: Addresses,
}

/// One counter: implicit or from `[counters.NAME]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Counter {
    /// Its name, in nftables too unless it is `existing`.
    pub name: CounterName,
    /// The counter that someone else declared and that is only read; `None` for one of ours. No two read the same.
    pub existing: Option<ExistingCounter>,
    /// Which packets it counts; of an existing one, which flows belong to it.
    pub selectors: Selectors,
    /// Of its direction, summed over its interfaces; `None` when one of them says nothing.
    pub capacity: Option<BitRate>,
}

impl Counter {
    /// Where the kernel has it: the table's family and name, and its own; `table` is the one of our counters.
    pub fn in_kernel<'a>(&'a self, table: &'a str) -> (TableFamily, &'a str, &'a str) {
        match &self.existing {
            None => (TableFamily::Inet, table, self.name.as_str()),
            Some(existing) => {
                let table = existing.table();
                (table.family(), table.name(), existing.counter())
            }
        }
    }
}

/// What a packet must match. `None` means "any"; at least one is given, but where nobody asks for the flows of an
/// existing counter. Every selector given must match; a list is a union.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Selectors {
    /// Interfaces it arrives by.
    pub in_: Option<Vec<InterfaceName>>,
    /// Interfaces it leaves by.
    pub out: Option<Vec<InterfaceName>>,
    /// What its source is in.
    pub from: Option<Addresses>,
    /// What its destination is in.
    pub to: Option<Addresses>,
}

/// `[thresholds.NAME]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Threshold {
    /// Its name.
    pub name: ThresholdName,
    /// The counter it watches.
    pub counter: CounterName,
    /// Where it is raised and cleared.
    pub levels: Levels,
    /// How long the rate must stay above raise before it fires; zero fires at the first reading.
    pub hold: Duration,
    /// How long the rate must stay at or below clear before it is idle again.
    pub release: Duration,
    /// Whether to look for the culprit.
    pub drilldown: bool,
}

/// Raise and clear, of one kind; clear is at most raise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Levels {
    /// Compared with the bit rate. A percentage of capacity is resolved to this.
    Bits {
        /// Above this it is pending.
        raise: BitRate,
        /// At or below this it is clearing.
        clear: BitRate,
    },
    /// Compared with the packet rate.
    Packets {
        /// Above this it is pending.
        raise: PacketRate,
        /// At or below this it is clearing.
        clear: PacketRate,
    },
}

/// `[drilldown]`.
#[derive(Debug, Clone, PartialEq)]
pub struct DrilldownConfig {
    /// The shortest time between two conntrack dumps.
    pub interval: Duration,
    /// How many hosts and flows are named.
    pub top: usize,
    /// A drilldown ends with a verdict after this long, whatever the threshold says.
    pub max_duration: Duration,
    /// Share of one core that dumping may cost, 0 to 1.
    pub cpu_budget: f64,
    /// The first conntrack label bit that flowctl may use, 0 to 126; two bits an interface follow.
    pub label_base: u8,
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq)]
pub struct LogConfig {
    /// Relative to the state directory.
    pub path: PathBuf,
    /// Rotated before it grows beyond this many bytes.
    pub max_size: u64,
    /// How many rotated files are kept.
    pub keep: u32,
}

/// `[control]`.
#[derive(Debug, Clone, PartialEq)]
pub struct ControlConfig {
    /// The socket's path.
    pub socket: PathBuf,
}

/// One entry of `[hosts]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Host {
    /// What it is called.
    pub name: HostName,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its hardware addresses.
    pub macs: Vec<Mac>,
}

/// `[names]`.
#[derive(Debug, Clone, PartialEq)]
pub struct NamesConfig {
    /// Lease files, directories of them and Kea's control sockets; `None` where it is not said: the well-known places.
    pub leases: Option<Vec<PathBuf>>,
}

impl Config {
    /// The interface of that name.
    pub fn interface(&self, name: &InterfaceName) -> Option<&Interface> {
        self.interfaces
            .iter()
            .find(|interface| interface.name == *name)
    }

    /// The counter of that name.
    pub fn counter(&self, name: &CounterName) -> Option<&Counter> {
        self.counters.iter().find(|counter| counter.name == *name)
    }

    /// The counter that a misspelt name was probably meant to be.
    pub fn nearest_counter(&self, name: &str) -> Option<&CounterName> {
        let names = self.counters.iter().map(|counter| counter.name.as_str());
        let nearest = suggest::nearest(name, names)?;
        let mut counters = self.counters.iter().map(|counter| &counter.name);
        counters.find(|name| name.as_str() == nearest)
    }

    /// Where each counter stands: for whoever looks up many of them.
    pub fn counter_positions(&self) -> HashMap<&CounterName, usize> {
        let names = self.counters.iter().map(|counter| &counter.name);
        names.zip(0..).collect()
    }

    /// The counters that flowctl declares itself.
    pub fn own_counters(&self) -> impl Iterator<Item = &Counter> {
        (self.counters.iter()).filter(|counter| counter.existing.is_none())
    }

    /// Whether any threshold asks for a drilldown: only then does flowctl use conntrack at all.
    pub fn wants_conntrack(&self) -> bool {
        self.thresholds.iter().any(|threshold| threshold.drilldown)
    }
}

impl Selectors {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        *self == Selectors::default()
    }

    /// Whether this counts what leaves (forward and output) rather than what arrives (ingress).
    pub fn leaves(&self) -> bool {
        self.out.is_some() || self.to.is_some()
    }
}
