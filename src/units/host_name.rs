//! Names of hosts. Most come from strangers (whoever asks a DHCP server for an address says what its name is), so the
//! type holds nothing that a log, a terminal, a page or a sentence could take for its own.

use std::fmt;
use std::net::IpAddr;

/// A host's name: ASCII letters, digits, `-`, `_` and `.`, at most 63 of them, a letter or digit among them, no `.` at
/// the end. It is no address: what looks like one and is another's would be a lie.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostName(Box<str>);

/// Why a name was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a host's name has letters, digits, -, _ and . only, at most 63, and is no address")]
pub struct HostNameError;

impl HostName {
    /// RFC 1035: of one label; long enough for a name, and short enough for a line.
    const LENGTH_MAX: usize = 63;

    /// Takes `text` as it is, or not at all: for names that someone chose to write here.
    pub fn new(text: &str) -> Result<HostName, HostNameError> {
        HostName::reduced(text)
            .filter(|name| name.as_str() == text)
            .ok_or(HostNameError)
    }

    /// What `text`, whoever it is from, leaves of a name: other characters become `_`, what is too long is cut, the `.`
    /// that ends a whole domain name is left out. `None` where that tells nothing.
    pub fn reduced(text: &str) -> Option<HostName> {
        let kept: String = text
            .chars()
            .take(Self::LENGTH_MAX)
            .map(|c| if is_plain(c) { c } else { '_' })
            .collect();
        let name = kept.trim_end_matches('.');
        let tells = name.contains(|c: char| c.is_ascii_alphanumeric());
        (tells && name.parse::<IpAddr>().is_err()).then(|| HostName(name.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reduced(text: &str) -> Option<String> {
        HostName::reduced(text).map(|name| name.to_string())
    }

    #[test]
    fn what_is_no_name_is_reduced_to_one() {
        let hostile = "a\u{1b}[31m;\"b\u{202e}'c\n{d}=e\u{0}";
        assert_eq!(reduced(hostile).unwrap(), "a__31m__b__c__d__e_");
        assert_eq!(reduced("nas.example.org.").unwrap(), "nas.example.org");
        assert_eq!(reduced("Küche").unwrap(), "K_che");
        assert_eq!(reduced(&"é1".repeat(99)).unwrap().len(), 63);
    }

    #[test]
    fn what_tells_nothing_or_is_an_address_is_no_name() {
        for text in [
            "",
            ".",
            "*",
            "-_-",
            "\u{1b}",
            "日本",
            "192.168.1.5",
            "192.168.1.5.",
        ] {
            assert_eq!(reduced(text), None, "{text}");
        }
    }

    #[test]
    fn a_name_that_someone_writes_is_taken_as_it_is_or_refused() {
        for text in ["nas", "NAS-2", "tv_room.lan", "5", &"a".repeat(63)] {
            assert_eq!(HostName::new(text).unwrap().as_str(), text);
        }
        for text in ["", "a b", "nas.", "192.168.1.5", "fd00::5", &"a".repeat(64)] {
            assert_eq!(HostName::new(text), Err(HostNameError), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_name_can_forge_anything(text in "(\\PC|[\\x00-\\x1f\\x7f-\\x9f\u{200b}-\u{202f}\u{2066}-\u{2069}\"';\\\\ a-c.]){0,80}") {
            if let Some(name) = HostName::reduced(&text) {
                let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
                prop_assert!(name.as_str().chars().all(allowed), "{name}");
                prop_assert!((1..=63).contains(&name.as_str().len()));
                prop_assert_eq!(HostName::new(name.as_str()), Ok(name));
            }
        }
    }
}
