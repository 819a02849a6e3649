//! /etc/hosts (hosts(5)): an address, its name, and further names.

use std::net::IpAddr;

use crate::units::HostName;

/// The address of a line and its first name; `None` where it names none.
pub fn line(text: &str) -> Option<(IpAddr, HostName)> {
    let text = text.split('#').next()?;
    let mut words = text.split_ascii_whitespace();
    let address = words.next()?.parse::<IpAddr>().ok()?.to_canonical();
    // Lists against advertisements give names of others to no address at all.
    let is_an_address = !address.is_unspecified();
    let name = HostName::reduced(words.next()?)?;
    is_an_address.then_some((address, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_an_address_and_its_name_first() {
        let shown = |text| line(text).map(|(address, name)| format!("{address} {name}"));
        assert_eq!(
            shown("192.168.1.5\tnas.lan nas # disk").unwrap(),
            "192.168.1.5 nas.lan"
        );
        assert_eq!(shown("  fd00::5 nas;\u{1b}").unwrap(), "fd00::5 nas__");
        for nothing in [
            "",
            "# 10.0.0.1 a",
            "10.0.0.1",
            "10.0.0.1 #a",
            "0.0.0.0 ads",
            "fe80::1%lan a",
            "nas 10.0.0.1",
        ] {
            assert_eq!(shown(nothing), None, "{nothing}");
        }
    }
}
