//! The lease file of dnsmasq (lease.c in its source): `expiry mac address name client-id` for IPv4, and after a line
//! with the server's DUID `expiry iaid address name duid` for IPv6.

use std::net::IpAddr;

use super::lease::{Lease, Leases};
use crate::units::{HostName, Mac};

/// Begins the line between the families.
const DUID: &str = "duid ";
/// What stands for a name that is not known.
const NAMELESS: &str = "*";

/// Takes in one line, without its end; false where it is none of such a file.
pub fn take(line: &str, leases: &mut Leases) -> bool {
    if line.starts_with(DUID) {
        return true;
    }
    let mut words = line.split_ascii_whitespace();
    let (Some(expiry), Some(station), Some(address), Some(name)) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return false;
    };
    let (Ok(expiry), Ok(address)) = (expiry.parse::<u64>(), address.parse::<IpAddr>()) else {
        return false;
    };
    let lease = Lease {
        mac: Mac::parse(station).filter(|_| address.is_ipv4()),
        name: (name != NAMELESS)
            .then(|| HostName::reduced(name))
            .flatten(),
        // 0 is for ever.
        expires: (expiry != 0).then_some(expiry),
    };
    leases.put(address, lease);
    true
}

#[cfg(test)]
mod tests {
    use super::super::lease::tests::shown;
    use super::*;

    /// Written by dnsmasq 2.90.
    const LEASES: &str = include_str!("../../tests/fixtures/leases/dnsmasq.leases");

    #[test]
    fn what_dnsmasq_wrote_is_read() {
        let mut leases = Leases::new(1_795_570_650, 9);
        assert!(LEASES.lines().all(|line| take(line, &mut leases)));
        let found = shown(&leases, 1_795_570_650);
        assert_eq!(
            found,
            [
                "192.168.1.110 printer 02:00:00:00:00:77",
                "fd00:1::135 laptop -"
            ],
            "the nameless one is over"
        );
    }

    #[test]
    fn zero_is_for_ever_and_a_star_is_no_name() {
        let mut leases = Leases::new(5, 9);
        assert!(take("0 02:00:00:00:00:05 10.0.0.1 * 01:02", &mut leases));
        assert!(take("9 06-02:00:00:00:00:05 10.0.0.2 a;b *", &mut leases));
        let far = u64::MAX;
        assert_eq!(
            shown(&leases, 5),
            ["10.0.0.1 - 02:00:00:00:00:05", "10.0.0.2 a_b -"]
        );
        assert_eq!(shown(&leases, far).len(), 1);
    }

    #[test]
    fn what_is_no_line_of_such_a_file_is_told() {
        let mut leases = Leases::new(0, 9);
        for line in [
            "",
            "x 02:00:00:00:00:05 10.0.0.1 a *",
            "9 1 10.0.0 a *",
            "9 1 10.0.0.1",
        ] {
            assert!(!take(line, &mut leases), "{line}");
        }
        assert!(leases.is_empty());
    }
}
