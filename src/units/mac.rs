//! Hardware addresses of one station, as Ethernet and Wi-Fi have them.

use std::fmt;

/// A hardware address of 48 bits that one station can have: not zero, and no group's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac([u8; 6]);

impl Mac {
    /// IEEE 802: set in the first byte of a group's address, broadcast among them.
    const GROUP: u8 = 1;

    /// `None` where no single station can have it.
    pub fn new(bytes: [u8; 6]) -> Option<Mac> {
        (bytes != [0; 6] && bytes[0] & Mac::GROUP == 0).then_some(Mac(bytes))
    }

    /// From six numbers of one or two hexadecimal digits, as ethers(5) has them, with `:` or `-` between them.
    pub fn parse(text: &str) -> Option<Mac> {
        let separator = if text.contains('-') { '-' } else { ':' };
        let mut parts = text.split(separator);
        let mut bytes = [0; 6];
        for byte in &mut bytes {
            let part = parts.next()?;
            let is_number = part.len() <= 2 && part.chars().all(|c| c.is_ascii_hexdigit());
            *byte = u8::from_str_radix(part, 16).ok().filter(|_| is_number)?;
        }
        parts.next().is_none().then_some(())?;
        Mac::new(bytes)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hardware_address_is_read_in_every_usual_form_and_shown_in_one() {
        for text in ["02:00:0A:00:00:ff", "2:0:a:0:0:FF", "02-00-0a-00-00-ff"] {
            assert_eq!(Mac::parse(text).unwrap().to_string(), "02:00:0a:00:00:ff");
        }
    }

    #[test]
    fn what_no_single_station_has_is_refused() {
        for text in [
            "00:00:00:00:00:00",
            "ff:ff:ff:ff:ff:ff",
            "33:33:00:00:00:01",
            "01:00:5e:00:00:fb",
        ] {
            assert_eq!(Mac::parse(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_no_hardware_address_is_refused() {
        for text in [
            "",
            "02:00:00:00:00",
            "02:00:00:00:00:01:02",
            "02:00:00:00:00:",
            "02:00:00:00:00:+1",
            "02:00:00:00:00:100",
            "002:00:00:00:00:01",
            "02:00:00-00:00:01",
            "06-02:00:00:00:00:01",
            "1::2:3:4:5",
        ] {
            assert_eq!(Mac::parse(text), None, "{text}");
        }
    }
}
