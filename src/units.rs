//! Numbers and names that cannot be confused: rates with their unit, boot time, and the validated names of the
//! configuration. Nothing here reads a clock; a `Tick` is made by the daemon and handed in.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

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
