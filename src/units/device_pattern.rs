//! Devices as the configuration names them: by name, or by how their names begin.

use std::collections::BTreeSet;
use std::fmt;

use super::{DeviceName, DeviceNameError};

/// One device, or with a `*` at the end all whose names begin with what stands
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
