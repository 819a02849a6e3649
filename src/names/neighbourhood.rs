//! Which addresses belong to one device. A device is known by its hardware address: its IPv6 addresses are joined,
//! privacy addresses among them, and its IPv4 address too, where it has but one. Several IPv4 addresses behind one
//! hardware address are several hosts behind a router or a proxy, which stay apart.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::drilldown::shares::Device;
use crate::kernel::neighbours::Neighbour;
use crate::units::Mac;

/// Addresses remembered of neighbours that are gone: the kernel itself keeps about a thousand, and some 2 MB must do.
pub const NEIGHBOURS_MAX: usize = 1 << 15;

/// Whom the kernel has seen, remembered: a privacy address is soon forgotten by it, not by a verdict.
#[derive(Debug, Default)]
pub struct Neighbourhood {
    mac_by_address: BTreeMap<IpAddr, Mac>,
    /// How many IPv4 addresses each has.
    v4_by_mac: BTreeMap<Mac, usize>,
}

impl Neighbourhood {
    /// Takes in what a look at the kernel's table saw. What an address says now replaces what it said before; where two
    /// links disagree on an address, it is nobody's.
    pub fn learn(&mut self, seen: &[Neighbour]) {
        let mut now: BTreeMap<IpAddr, Option<Mac>> = BTreeMap::new();
        for neighbour in seen {
            now.entry(neighbour.address)
                .and_modify(|mac| *mac = mac.filter(|mac| *mac == neighbour.mac))
                .or_insert(Some(neighbour.mac));
        }
        let remembered = self.mac_by_address.len() + now.len();
        if remembered > NEIGHBOURS_MAX {
            self.mac_by_address.clear();
        }
        for (address, mac) in now {
            match mac {
                Some(mac) => self.mac_by_address.insert(address, mac),
                None => self.mac_by_address.remove(&address),
            };
        }
        self.v4_by_mac.clear();
        let v4 = (self.mac_by_address.iter()).filter(|(address, _)| address.is_ipv4());
        for (_, mac) in v4 {
            *self.v4_by_mac.entry(*mac).or_default() += 1;
        }
    }

    /// Forgets everyone.
    pub fn forget(&mut self) {
        *self = Neighbourhood::default();
    }

    /// Who answers, or answered, for an address.
    pub fn mac(&self, address: IpAddr) -> Option<Mac> {
        self.mac_by_address.get(&address).copied()
    }

    /// The device that an address is one of; `None` where that is not known, and for each of several IPv4 addresses
    /// behind one hardware address.
    pub fn device(&self, address: IpAddr) -> Option<Device> {
        let mac = self.mac(address)?;
        let apart = address.is_ipv4() && self.v4_by_mac.get(&mac).is_some_and(|known| *known > 1);
        (!apart).then_some(Device(mac))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(text: &[&str]) -> Vec<Neighbour> {
        let neighbour = |line: &&str| {
            let words: Vec<&str> = line.split(' ').collect();
            Neighbour {
                device: words[0].parse().unwrap(),
                address: words[1].parse().unwrap(),
                mac: Mac::parse(words[2]).unwrap(),
            }
        };
        text.iter().map(neighbour).collect()
    }

    fn joined(neighbourhood: &Neighbourhood, a: &str, b: &str) -> bool {
        let device = |text: &str| neighbourhood.device(text.parse().unwrap());
        device(a).is_some() && device(a) == device(b)
    }

    #[test]
    fn privacy_addresses_and_the_one_ipv4_address_are_one_device() {
        let mut known = Neighbourhood::default();
        known.learn(&seen(&[
            "3 10.0.0.5 2:0:0:0:0:5",
            "3 fd00::5 2:0:0:0:0:5",
            "3 fd00::aaaa 2:0:0:0:0:5",
            "3 fd00::6 2:0:0:0:0:6",
        ]));
        assert!(joined(&known, "fd00::5", "fd00::aaaa"));
        assert!(joined(&known, "fd00::5", "10.0.0.5"));
        assert!(!joined(&known, "fd00::5", "fd00::6"));
        assert!(!joined(&known, "fd00::7", "fd00::8"), "nobody knows them");
    }

    #[test]
    fn several_ipv4_addresses_behind_one_hardware_address_stay_apart() {
        let mut known = Neighbourhood::default();
        known.learn(&seen(&[
            "3 10.0.0.5 2:0:0:0:0:5",
            "3 10.0.0.6 2:0:0:0:0:5",
            "3 fd00::5 2:0:0:0:0:5",
            "3 fd00::6 2:0:0:0:0:5",
        ]));
        assert!(!joined(&known, "10.0.0.5", "10.0.0.6"));
        assert!(!joined(&known, "10.0.0.5", "fd00::5"));
        assert!(joined(&known, "fd00::5", "fd00::6"));
    }

    #[test]
    fn who_was_seen_once_is_remembered_until_someone_else_answers() {
        let mut known = Neighbourhood::default();
        known.learn(&seen(&["3 fd00::5 2:0:0:0:0:5", "3 fd00::6 2:0:0:0:0:5"]));
        known.learn(&seen(&["3 fd00::5 2:0:0:0:0:5"]));
        assert!(
            joined(&known, "fd00::5", "fd00::6"),
            "the kernel forgot it, not we"
        );
        known.learn(&seen(&["3 fd00::6 2:0:0:0:0:6"]));
        assert!(!joined(&known, "fd00::5", "fd00::6"));
        known.forget();
        assert_eq!(known.mac("fd00::5".parse().unwrap()), None);
    }

    #[test]
    fn an_address_on_which_two_links_disagree_is_nobodys() {
        let mut known = Neighbourhood::default();
        known.learn(&seen(&["3 fe80::1 2:0:0:0:0:5", "4 fe80::1 2:0:0:0:0:5"]));
        assert!(known.device("fe80::1".parse().unwrap()).is_some());
        known.learn(&seen(&[
            "3 fe80::1 2:0:0:0:0:5",
            "4 fe80::1 2:0:0:0:0:6",
            "5 fe80::1 2:0:0:0:0:6",
        ]));
        assert_eq!(known.device("fe80::1".parse().unwrap()), None);
    }

    #[test]
    fn memory_of_those_that_are_gone_has_an_end() {
        let mut known = Neighbourhood::default();
        let mac = Mac::parse("2:0:0:0:0:5").unwrap();
        for round in 0..5_u32 {
            let many = (0..10_000_u32).map(|number| Neighbour {
                device: 3,
                address: IpAddr::from((u128::from(round * 10_000 + number)).to_be_bytes()),
                mac,
            });
            known.learn(&many.collect::<Vec<_>>());
            assert!(known.mac_by_address.len() <= NEIGHBOURS_MAX);
        }
        let last = IpAddr::from(49_999_u128.to_be_bytes());
        assert_eq!(known.mac(last), Some(mac), "those of now are there");
    }
}
