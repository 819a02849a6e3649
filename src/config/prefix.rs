//! Prefixes: `192.168.1.0/24`, `fd00:1::/64`, or an address alone for one host. Host bits are an error rather
//! than cut off, since the writer may have meant the one host.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::problems::Wrong;

/// Whether `text` is meant as an address or prefix: no name has these characters.
pub(super) fn looks_like_prefix(text: &str) -> bool {
    text.contains(['.', ':', '/'])
}

/// A prefix without host bits.
pub(super) fn prefix(text: &str) -> Result<IpNet, Wrong> {
    let Some(prefix) = parsed(text) else {
        let remedy = "write a prefix such as \"192.168.1.0/24\" or \"fd00:1::/64\"";
        return Err(Wrong::new("is not a prefix", remedy));
    };
    let network = prefix.trunc();
    if let IpNet::V6(six) = network
        && six.prefix_len() >= 96
        && let Some(four) = six.addr().to_ipv4_mapped()
    {
        return Err(Wrong::new(
            "is an IPv4 prefix written as IPv6, which no packet carries",
            format!("write \"{four}/{}\"", six.prefix_len() - 96),
        ));
    }
    if network != prefix {
        return Err(Wrong::new(
            format!("has host bits set; the network is {network}"),
            format!(
                "write \"{network}\", or \"{}\" for the one host",
                prefix.addr()
            ),
        ));
    }
    Ok(prefix)
}

/// Without leading zeros: to some programs they make a number octal.
fn parsed(text: &str) -> Option<IpNet> {
    let Some((address, length)) = text.split_once('/') else {
        return text.parse().ok().map(|address: IpAddr| address.into());
    };
    let is_plain = length == "0" || length.starts_with(|digit: char| matches!(digit, '1'..='9'));
    let length = is_plain.then(|| length.parse().ok()).flatten()?;
    IpNet::new(address.parse().ok()?, length).ok()
}

/// The same set of addresses without any prefix that lies inside another, in the same order.
pub(super) fn union(prefixes: Vec<IpNet>) -> Vec<IpNet> {
    let mut kept: BTreeSet<IpNet> = BTreeSet::new();
    let mut sorted = prefixes.clone();
    sorted.sort();
    let mut last: Option<IpNet> = None;
    for prefix in sorted {
        // In this order a prefix comes after those that contain it, and nothing foreign in between.
        if !last.is_some_and(|last| last.contains(&prefix)) {
            last = Some(prefix);
            kept.insert(prefix);
        }
    }
    let mut union = prefixes;
    union.retain(|prefix| kept.remove(prefix));
    union
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| prefix(text).unwrap()).collect()
    }

    #[test]
    fn an_address_alone_is_one_host() {
        let shown: Vec<String> = all(&["192.168.1.5", "fd00::5", "0.0.0.0/0"])
            .iter()
            .map(IpNet::to_string)
            .collect();
        assert_eq!(shown, ["192.168.1.5/32", "fd00::5/128", "0.0.0.0/0"]);
    }

    #[test]
    fn host_bits_are_an_error_that_names_the_network() {
        let wrong = prefix("192.168.1.5/24").unwrap_err();
        assert_eq!(
            wrong.message,
            "has host bits set; the network is 192.168.1.0/24"
        );
        assert!(prefix("fd00::1/64").is_err());
    }

    #[test]
    fn an_ipv4_mapped_prefix_is_an_error_that_names_the_ipv4_one() {
        let wrong = prefix("::ffff:192.168.1.0/120").unwrap_err();
        assert_eq!(wrong.remedy, "write \"192.168.1.0/24\"");
        assert!(prefix("::ffff:192.168.1.5").is_err());
    }

    #[test]
    fn what_is_no_prefix_is_refused() {
        for text in [
            "192.168.1.0/33",
            "192.168.1",
            "fe80::1%eth0",
            "",
            "/24",
            "1.2.3.4/",
            "1.2.3.4/+8",
            "010.0.0.0/8",
            "10.0.0.0/08",
            "10.0.0.0/8/8",
        ] {
            assert!(prefix(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_union_has_no_prefix_inside_another() {
        let given = all(&[
            "10.1.2.0/24",
            "fd00::/64",
            "10.0.0.0/8",
            "192.168.1.0/24",
            "10.0.0.0/8",
            "fd00::/48",
            "9.255.255.255",
        ]);
        let expected = all(&["10.0.0.0/8", "192.168.1.0/24", "fd00::/48", "9.255.255.255"]);
        assert_eq!(union(given), expected);
    }
}
