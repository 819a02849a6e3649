//! /etc/ethers (ethers(5)): a hardware address and its name, or its IP address, which is none.

use crate::units::{HostName, Mac};

/// The hardware address of a line and its name; `None` where it names none.
pub fn line(text: &str) -> Option<(Mac, HostName)> {
    let text = text.split('#').next()?;
    let mut words = text.split_ascii_whitespace();
    let mac = Mac::parse(words.next()?)?;
    Some((mac, HostName::reduced(words.next()?)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_a_hardware_address_and_its_name() {
        let shown = |text| line(text).map(|(mac, name)| format!("{mac} {name}"));
        assert_eq!(
            shown("2:0:0:0:0:5 nas # disk").unwrap(),
            "02:00:00:00:00:05 nas"
        );
        assert_eq!(
            shown("02:00:00:00:00:06\ttv'").unwrap(),
            "02:00:00:00:00:06 tv_"
        );
        for nothing in [
            "",
            "# 2:0:0:0:0:5 a",
            "2:0:0:0:0:5",
            "2:0:0:0:0:5 192.168.1.5",
            "nas 2:0:0:0:0:5",
        ] {
            assert_eq!(shown(nothing), None, "{nothing}");
        }
    }
}
