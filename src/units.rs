//! Numbers and names that cannot be confused: rates with their unit, boot time, and the validated names of the
//! configuration. Nothing here reads a clock; a `Tick` is made by the daemon and handed in.

use std::collections::BTreeSet;
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

/// Devices as the configuration names them: one, or with a `*` at the end all whose names begin with what stands
/// before it, that name itself included.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DevicePattern {
    stem: DeviceName,
    wildcard: bool,
}

/// Why a device pattern was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DevicePatternError {
    /// It is, or begins with, no device's name.
    #[error(transparent)]
    Name(#[from] DeviceNameError),
    /// `*` alone.
    #[error("a * alone is every device")]
    Everything,
    /// A `*` that is not the last character.
    #[error("a * stands only at the end")]
    Inside,
    /// nft takes no longer ones.
    #[error("at most 14 characters stand before a *")]
    TooLong,
}

impl DevicePattern {
    /// The longest name is 15 bytes; nft wants the `*` among them.
    const STEM_MAX: usize = 14;

    /// A device's name, or the beginning of one with a `*` behind it.
    pub fn new(text: &str) -> Result<Self, DevicePatternError> {
        let (stem, wildcard) = match text.strip_suffix('*') {
            Some("") => return Err(DevicePatternError::Everything),
            Some(stem) => (stem, true),
            None => (text, false),
        };
        if stem.contains('*') {
            return Err(DevicePatternError::Inside);
        }
        if wildcard && stem.len() > Self::STEM_MAX {
            return Err(DevicePatternError::TooLong);
        }
        let stem = DeviceName::new(stem)?;
        Ok(DevicePattern { stem, wildcard })
    }

    /// The name, or what the names begin with.
    pub fn stem(&self) -> &str {
        self.stem.as_str()
    }

    /// Whether it stands for all names that begin so.
    pub fn is_wildcard(&self) -> bool {
        self.wildcard
    }

    /// Whether a device of that name is meant.
    pub fn matches(&self, name: &str) -> bool {
        if self.wildcard {
            name.starts_with(self.stem())
        } else {
            name == self.stem()
        }
    }

    /// Whether every device that `other` means is meant.
    pub fn covers(&self, other: &DevicePattern) -> bool {
        self.matches(other.stem()) && (self.wildcard || !other.wildcard)
    }

    /// Whether some name is meant by both.
    pub fn overlaps(&self, other: &DevicePattern) -> bool {
        self.covers(other) || other.covers(self)
    }

    /// The same devices without any pattern that another covers, sorted.
    pub fn union<'p>(patterns: impl IntoIterator<Item = &'p DevicePattern>) -> Vec<DevicePattern> {
        let all: BTreeSet<&DevicePattern> = patterns.into_iter().collect();
        let covered =
            |one: &DevicePattern| all.iter().any(|other| *other != one && other.covers(one));
        let outermost = all.iter().filter(|pattern| !covered(pattern));
        outermost.map(|pattern| (*pattern).clone()).collect()
    }
}

impl fmt::Display for DevicePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.stem, if self.wildcard { "*" } else { "" })
    }
}

impl From<DeviceName> for DevicePattern {
    fn from(stem: DeviceName) -> Self {
        DevicePattern {
            stem,
            wildcard: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> DevicePattern {
        DevicePattern::new(text).unwrap()
    }

    #[test]
    fn a_wildcard_means_what_begins_so_and_the_beginning_itself() {
        for name in ["ppp", "ppp0", "pppoe-wan"] {
            assert!(pattern("ppp*").matches(name), "{name}");
        }
        assert!(!pattern("ppp*").matches("pp") && !pattern("ppp*").matches("xppp0"));
        assert!(pattern("ppp0").matches("ppp0") && !pattern("ppp").matches("ppp0"));
        assert_eq!(pattern("ppp*").to_string(), "ppp*");
    }

    #[test]
    fn a_pattern_covers_what_means_no_device_that_it_does_not() {
        assert!(pattern("p*").covers(&pattern("ppp*")));
        assert!(pattern("ppp*").covers(&pattern("ppp")));
        assert!(
            !pattern("ppp*").covers(&pattern("p*")) && !pattern("ppp").covers(&pattern("ppp*"))
        );
        assert!(
            pattern("ppp*").overlaps(&pattern("p*")) && !pattern("wg*").overlaps(&pattern("p*"))
        );
        let given = ["wg0", "ppp0", "p*", "ppp*", "eth0"].map(pattern);
        assert_eq!(
            DevicePattern::union(&given),
            ["eth0", "p*", "wg0"].map(pattern)
        );
    }

    #[test]
    fn a_star_stands_at_the_end_behind_1_to_14_characters() {
        use DevicePatternError::{Everything, Inside, TooLong};
        assert_eq!(DevicePattern::new("*"), Err(Everything));
        assert_eq!(DevicePattern::new("p*p"), Err(Inside));
        assert_eq!(DevicePattern::new("p**"), Err(Inside));
        assert_eq!(DevicePattern::new("123456789012345*"), Err(TooLong));
        assert!(DevicePattern::new("12345678901234*").is_ok());
        assert!(DevicePattern::new("123456789012345").is_ok());
        assert!(DevicePattern::new("a b*").is_err());
    }
}
