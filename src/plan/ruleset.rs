//! The ruleset as plain values: what the table holds, before it becomes netlink or text. Two rulesets compare
//! equal exactly when the kernel would count the same packets in the same counters.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::units::{CounterName, DevicePattern};

/// Bytes of a device's name as the kernel compares it, NUL-padded.
const DEVICE_LENGTH: usize = 16;

/// The table's content; family inet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruleset {
    /// The table's name.
    pub table: String,
    /// Counter objects, in the configuration's order.
    pub counters: Vec<CounterName>,
    /// Object maps, by name.
    pub maps: Vec<ObjectMap>,
    /// Regular chains before the base chains that jump to them.
    pub chains: Vec<Chain>,
}

/// A map from a packet's key to a counter object. No two elements match one packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectMap {
    /// Its name: the shape and the layer, e.g. `from4_out_0`.
    pub name: String,
    /// What the key is made of, addresses first: the kernel looks up a concatenation field by field, and an
    /// address first is 20 times cheaper at 1,000 elements than a device first.
    pub fields: Vec<Field>,
    /// Sorted by key.
    pub elements: Vec<Element>,
}

/// One field of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Field {
    /// `ip saddr`.
    Source4,
    /// `ip6 saddr`.
    Source6,
    /// `ip daddr`.
    Destination4,
    /// `ip6 daddr`.
    Destination6,
    /// `iifname`.
    ArrivesBy,
    /// `oifname`.
    LeavesBy,
}

/// One entry of an object map.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Element {
    /// One value a field, in the fields' order.
    pub key: Vec<KeyValue>,
    /// The object it refers to.
    pub counter: CounterName,
}

/// What one field must be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyValue {
    /// An address in this prefix.
    Prefix(IpNet),
    /// This device, or any of these.
    Device(DevicePattern),
}

/// A chain and its rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Its name.
    pub name: &'static str,
    /// Where packets enter; `None` for a chain that is jumped to.
    pub base: Option<Base>,
    /// In order.
    pub rules: Vec<Rule>,
}

/// A base chain of type filter with policy accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Base {
    /// The hook.
    pub hook: Hook,
    /// The priority.
    pub priority: i32,
}

/// A netfilter hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// Before routing.
    Prerouting,
    /// For this machine.
    Input,
    /// Between two devices.
    Forward,
    /// Made by this machine.
    Output,
}

/// A packet's device: the one it came by, or the one it goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// `iifname`.
    Arrives,
    /// `oifname`.
    Leaves,
}

/// One rule. None of them drops or changes a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// Traffic over `lo` is not counted.
    ReturnLoopback(Side),
    /// Looped copies of the router's own broadcasts and multicasts are not counted.
    ReturnLooped,
    /// The first packets of a flow go to the chain that labels it. This is what switches conntrack on.
    NewFlowsTo(&'static str),
    /// Sets one label bit when the packet's device is this one.
    Label {
        /// Which device of the packet.
        side: Side,
        /// The device, or all of them.
        device: DevicePattern,
        /// The bit, 0 to 127.
        bit: u8,
    },
    /// Counts in the object that the map has for the packet's key.
    Count {
        /// The map's name.
        map: String,
        /// The map's fields.
        fields: Vec<Field>,
    },
}

/// How much a table holds: few changes by others leave that as it was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// Base chains and others.
    pub chains: usize,
    /// In all of them.
    pub rules: usize,
    /// Named ones.
    pub maps: usize,
    /// In all of them.
    pub elements: usize,
}

impl Ruleset {
    /// How much it is.
    pub fn shape(&self) -> Shape {
        Shape {
            chains: self.chains.len(),
            rules: self.chains.iter().map(|chain| chain.rules.len()).sum(),
            maps: self.maps.len(),
            elements: self.maps.iter().map(|map| map.elements.len()).sum(),
        }
    }

    /// A table of that name in which nothing is.
    pub fn empty(table: &str) -> Self {
        Ruleset {
            table: table.to_owned(),
            counters: Vec::new(),
            maps: Vec::new(),
            chains: Vec::new(),
        }
    }
}

impl Hook {
    /// The kernel's number of the hook (NF_INET_*).
    pub fn number(self) -> u32 {
        match self {
            Hook::Prerouting => 0,
            Hook::Input => 1,
            Hook::Forward => 2,
            Hook::Output => 3,
        }
    }
}

impl Field {
    /// Bytes in the kernel's registers; each a multiple of 4, so no padding arises in a concatenation.
    pub fn width(self) -> usize {
        match self {
            Field::Source4 | Field::Destination4 => 4,
            Field::Source6 | Field::Destination6 | Field::ArrivesBy | Field::LeavesBy => 16,
        }
    }

    /// Whether it is an address, hence a prefix to match.
    pub fn is_address(self) -> bool {
        !matches!(self, Field::ArrivesBy | Field::LeavesBy)
    }
}

impl Element {
    /// Whether some packet has both keys, which are of the same fields.
    pub fn overlaps(&self, other: &Element) -> bool {
        let mut fields = self.key.iter().zip(&other.key);
        fields.all(|(one, other)| one.overlaps(other))
    }
}

impl ObjectMap {
    /// Whether the kernel needs an interval map.
    pub fn is_interval(&self) -> bool {
        let keys = self.elements.iter().map(|element| element.key.as_slice());
        is_interval(&self.fields, keys)
    }
}

/// Whether keys of these fields are intervals: prefixes or wildcards, not only exact names.
pub fn is_interval<'a>(fields: &[Field], mut keys: impl Iterator<Item = &'a [KeyValue]>) -> bool {
    fields.iter().any(|field| field.is_address())
        || keys.any(|key| key.iter().any(KeyValue::is_wildcard))
}

impl KeyValue {
    /// Whether some packet has both.
    pub fn overlaps(&self, other: &KeyValue) -> bool {
        match (self, other) {
            (KeyValue::Prefix(a), KeyValue::Prefix(b)) => a.contains(b) || b.contains(a),
            (KeyValue::Device(a), KeyValue::Device(b)) => a.overlaps(b),
            (KeyValue::Prefix(_), KeyValue::Device(_))
            | (KeyValue::Device(_), KeyValue::Prefix(_)) => false,
        }
    }

    /// The smallest and the largest value in the kernel's byte order.
    pub fn bounds(&self) -> (Vec<u8>, Vec<u8>) {
        match self {
            KeyValue::Prefix(prefix) => (
                address_bytes(prefix.network()),
                address_bytes(prefix.broadcast()),
            ),
            KeyValue::Device(device) => {
                let after = if device.is_wildcard() { 0xff } else { 0 };
                let filled = |fill| {
                    let mut name = device.stem().as_bytes().to_vec();
                    name.resize(DEVICE_LENGTH, fill);
                    name
                };
                (filled(0), filled(after))
            }
        }
    }

    /// How much of it is fixed, so that what contains it is shorter: bits of a prefix, bytes of a device's name.
    pub fn length(&self) -> u8 {
        match self {
            KeyValue::Prefix(prefix) => prefix.prefix_len(),
            KeyValue::Device(device) if device.is_wildcard() => device.stem().len() as u8,
            KeyValue::Device(_) => DEVICE_LENGTH as u8,
        }
    }

    /// What contains it and has that length; itself where that is its own. `None` where there is no such value.
    pub fn ancestor(&self, length: u8) -> Option<KeyValue> {
        match self {
            _ if length == self.length() => Some(self.clone()),
            KeyValue::Prefix(prefix) => {
                let shorter = IpNet::new(prefix.addr(), length).ok()?;
                Some(KeyValue::Prefix(shorter.trunc()))
            }
            KeyValue::Device(device) => {
                let beginning = device.stem().get(..length.into())?;
                let wildcard = DevicePattern::new(&format!("{beginning}*")).ok()?;
                Some(KeyValue::Device(wildcard))
            }
        }
    }

    fn is_wildcard(&self) -> bool {
        match self {
            KeyValue::Prefix(_) => false,
            KeyValue::Device(device) => device.is_wildcard(),
        }
    }
}

fn address_bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
