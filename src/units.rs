//! Numbers and names that cannot be confused: rates with their unit, boot time, and the validated names of the
//! configuration. Nothing here reads a clock; a `Tick` is made by the daemon and handed in.

mod device_pattern;
mod host_name;
mod mac;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use device_pattern::{DevicePattern, DevicePatternError};
pub use host_name::{HostName, HostNameError};
pub use mac::Mac;
use serde::{Deserialize, Serialize};

/// A rate in bits per second.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BitRate(pub f64);

/// A rate in packets per second.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PacketRate(pub f64);

/// Bytes (layer 3) and packets counted together. Sums saturate: a total never wraps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Layer 3 bytes.
    pub bytes: u64,
    /// Packets; a packet merged by GRO or TSO is one.
    pub packets: u64,
}

impl Volume {
    /// Both counts of `self` raised by those of `other`.
    pub fn plus(self, other: Volume) -> Volume {
        Volume {
            bytes: self.bytes.saturating_add(other.bytes),
            packets: self.packets.saturating_add(other.packets),
        }
    }

    /// What `self` has beyond `earlier`; 0 where it has less.
    pub fn since(self, earlier: Volume) -> Volume {
        Volume {
            bytes: self.bytes.saturating_sub(earlier.bytes),
            packets: self.packets.saturating_sub(earlier.packets),
        }
    }
}

/// Time since boot, suspend included (CLOCK_BOOTTIME): the clock that rates and states are measured by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Uptime(pub Duration);

impl Uptime {
    /// Time from `earlier` to `self`; zero if `earlier` is later.
    pub fn since(self, earlier: Uptime) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// One beat: the moment at which all counters are read, on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tick {
    /// Counts from 0 at the daemon's start.
    pub sequence: u64,
    /// When the counters were read.
    pub at: Uptime,
    /// The same moment on the wall clock, which conntrack's stamps use.
    pub wall: jiff::Timestamp,
}

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Does not match `[a-z][a-z0-9_]{0,63}`.
    #[error("a name starts with a-z and goes on with a-z, 0-9 or _, at most 64 characters")]
    Shape,
}

fn check_name(text: &str) -> Result<Arc<str>, NameError> {
    let mut characters = text.chars();
    let first = characters.next().is_some_and(|c| c.is_ascii_lowercase());
    let rest = characters.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if first && rest && text.len() <= 64 {
        Ok(text.into())
    } else {
        Err(NameError::Shape)
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $Name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $Name(Arc<str>);

        impl $Name {
            /// Checks the shape `[a-z][a-z0-9_]{0,63}`.
            pub fn new(text: &str) -> Result<Self, NameError> {
                check_name(text).map($Name)
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $Name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl TryFrom<String> for $Name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(&text)
            }
        }

        impl From<$Name> for String {
            fn from(name: $Name) -> String {
                name.0.to_string()
            }
        }
    };
}

name! {
    /// A counter's name, in the configuration and as an nftables object.
    CounterName
}
name! {
    /// A logical name for one or more devices.
    InterfaceName
}
name! {
    /// A logical name for prefixes.
    SubnetName
}
name! {
    /// A threshold's name.
    ThresholdName
}

impl InterfaceName {
    /// The counter of what arrives here: `NAME_in`.
    pub fn counter_in(&self) -> Result<CounterName, NameError> {
        CounterName::new(&format!("{self}_in"))
    }

    /// The counter of what leaves here: `NAME_out`.
    pub fn counter_out(&self) -> Result<CounterName, NameError> {
        CounterName::new(&format!("{self}_out"))
    }
}

impl SubnetName {
    /// The counter of what this subnet sends: `NAME_from`.
    pub fn counter_from(&self) -> Result<CounterName, NameError> {
        CounterName::new(&format!("{self}_from"))
    }

    /// The counter of what this subnet receives: `NAME_to`.
    pub fn counter_to(&self) -> Result<CounterName, NameError> {
        CounterName::new(&format!("{self}_to"))
    }
}

/// A network device's name as the kernel has it: 1 to 15 bytes, no slash, no white space.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeviceName(Arc<str>);

/// Why a device name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a device name has 1 to 15 printable characters, no white space, no / and no :")]
pub struct DeviceNameError;

impl DeviceName {
    /// Checks what the kernel's `dev_valid_name` demands, and printable ASCII besides.
    pub fn new(text: &str) -> Result<Self, DeviceNameError> {
        let fits = (1..=15).contains(&text.len()) && text != "." && text != "..";
        let printable = text
            .chars()
            .all(|c| c.is_ascii_graphic() && !"/:\"\\*".contains(c));
        if fits && printable {
            Ok(DeviceName(text.into()))
        } else {
            Err(DeviceNameError)
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl TryFrom<String> for DeviceName {
    type Error = DeviceNameError;
    fn try_from(text: String) -> Result<Self, DeviceNameError> {
        Self::new(&text)
    }
}

impl From<DeviceName> for String {
    fn from(name: DeviceName) -> String {
        name.0.to_string()
    }
}

/// The family of an nftables table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TableFamily {
    /// IPv4 and IPv6.
    Inet,
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
    /// Bridged frames.
    Bridge,
    /// ARP.
    Arp,
    /// One device's ingress or egress.
    Netdev,
}

impl TableFamily {
    /// All of them.
    pub const ALL: [TableFamily; 6] = [
        TableFamily::Inet,
        TableFamily::Ip,
        TableFamily::Ip6,
        TableFamily::Bridge,
        TableFamily::Arp,
        TableFamily::Netdev,
    ];

    /// As nft writes it.
    pub fn word(self) -> &'static str {
        match self {
            TableFamily::Inet => "inet",
            TableFamily::Ip => "ip",
            TableFamily::Ip6 => "ip6",
            TableFamily::Bridge => "bridge",
            TableFamily::Arp => "arp",
            TableFamily::Netdev => "netdev",
        }
    }
}

/// An nftables table that someone else made, shown as `inet accounting`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ForeignTable {
    family: TableFamily,
    name: Box<str>,
}

impl ForeignTable {
    /// Its family.
    pub fn family(&self) -> TableFamily {
        self.family
    }

    /// Its name within the family.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for ForeignTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.family.word(), self.name)
    }
}

/// A named counter that someone else declared, shown as `inet accounting wan_bytes_in`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ExistingCounter(Arc<(ForeignTable, Box<str>)>);

/// Why text names no counter of a table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExistingCounterError {
    /// Not three words.
    #[error("is not three words: a family, a table and a counter")]
    Words,
    /// The first word.
    #[error("does not begin with a family of tables")]
    Family {
        /// What stands in its place.
        word: String,
    },
    /// One of the others.
    #[error(
        "has a name that nft does not take: letters, digits, _, ., / and - are, at most 255 of them"
    )]
    Name,
}

/// The kernel keeps 256 bytes for a name, the last of them 0.
const NFT_NAME_MAX: usize = 255;

impl ExistingCounter {
    /// Checks that both names are such that nft could have declared them.
    pub fn new(
        family: TableFamily,
        table: &str,
        counter: &str,
    ) -> Result<Self, ExistingCounterError> {
        let is_name = |name: &str| {
            (1..=NFT_NAME_MAX).contains(&name.len())
                && (name.chars()).all(|c| c.is_ascii_alphanumeric() || "_./-".contains(c))
        };
        if !is_name(table) || !is_name(counter) {
            return Err(ExistingCounterError::Name);
        }
        let table = ForeignTable {
            family,
            name: table.into(),
        };
        Ok(ExistingCounter(Arc::new((table, counter.into()))))
    }

    /// Reads `FAMILY TABLE COUNTER`.
    pub fn parse(text: &str) -> Result<Self, ExistingCounterError> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let [family, table, counter] = words[..] else {
            return Err(ExistingCounterError::Words);
        };
        let family = (TableFamily::ALL.into_iter())
            .find(|known| known.word() == family)
            .ok_or_else(|| ExistingCounterError::Family {
                word: family.to_owned(),
            })?;
        Self::new(family, table, counter)
    }

    /// Where it stands.
    pub fn table(&self) -> &ForeignTable {
        &self.0.0
    }

    /// Its name within the table.
    pub fn counter(&self) -> &str {
        &self.0.1
    }

    /// Whether it stands in the table of that family and name.
    pub fn is_in(&self, family: TableFamily, name: &str) -> bool {
        self.table().family() == family && self.table().name() == name
    }
}

impl fmt::Display for ExistingCounter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.table(), self.counter())
    }
}

impl TryFrom<String> for ExistingCounter {
    type Error = ExistingCounterError;
    fn try_from(text: String) -> Result<Self, ExistingCounterError> {
        Self::parse(&text)
    }
}

impl From<ExistingCounter> for String {
    fn from(counter: ExistingCounter) -> String {
        counter.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_of_others_is_three_words_and_shows_as_them() {
        let parsed = ExistingCounter::parse(" netdev  fw.4\twan-in ").unwrap();
        assert_eq!(parsed.to_string(), "netdev fw.4 wan-in");
        assert_eq!(parsed.table().to_string(), "netdev fw.4");
        let error = |text: &str| ExistingCounter::parse(text).unwrap_err();
        for text in ["", "accounting a", "inet a b c", "inet"] {
            assert_eq!(error(text), ExistingCounterError::Words, "{text}");
        }
        let word = "ipv4".to_owned();
        assert_eq!(error("ipv4 a b"), ExistingCounterError::Family { word });
        for text in ["inet a \"b\"", "inet a{ b", "ip é b"] {
            assert_eq!(error(text), ExistingCounterError::Name, "{text}");
        }
        assert_eq!(
            error(&format!("ip a {}", "b".repeat(256))),
            ExistingCounterError::Name
        );
    }
}
