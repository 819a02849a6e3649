//! What DHCP servers have promised: which address is whose, and until when. Bounded, and without what is over.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::units::{HostName, Mac};

/// Leases kept of all servers together: a whole /16, in about 10 MB.
pub const LEASES_MAX: usize = 1 << 16;

/// One address that was lent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Whose it is; `None` where the server does not know it, as for most of IPv6.
    pub mac: Option<Mac>,
    /// What it called itself, or was called by the server's configuration.
    pub name: Option<HostName>,
    /// Unix time in seconds from which on it is over; `None` for never.
    pub expires: Option<u64>,
}

impl Lease {
    fn is_over(&self, now: u64) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

/// The leases of one server, as far as they were valid when they were read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leases {
    /// Unix time in seconds.
    now: u64,
    room: usize,
    left_out: bool,
    by_address: BTreeMap<IpAddr, Lease>,
}

impl Leases {
    /// None yet, and room for so many. `now` is Unix time in seconds.
    pub fn new(now: u64, room: usize) -> Leases {
        Leases {
            now,
            room,
            left_out: false,
            by_address: BTreeMap::new(),
        }
    }

    /// What is said of an address now, instead of what was said before; one that is over is none.
    pub fn put(&mut self, address: IpAddr, lease: Lease) {
        if lease.is_over(self.now) {
            self.remove(address);
        } else if self.by_address.len() < self.room || self.by_address.contains_key(&address) {
            self.by_address.insert(address, lease);
        } else {
            self.left_out = true;
        }
    }

    /// The address is nobody's any more.
    pub fn remove(&mut self, address: IpAddr) {
        self.by_address.remove(&address);
    }

    /// Whose the address is at that time.
    pub fn get(&self, address: IpAddr, now: u64) -> Option<&Lease> {
        let lease = self.by_address.get(&address)?;
        (!lease.is_over(now)).then_some(lease)
    }

    /// All that are valid at that time, by address.
    pub fn valid(&self, now: u64) -> impl Iterator<Item = (&IpAddr, &Lease)> {
        let all = self.by_address.iter();
        all.filter(move |(_, lease)| !lease.is_over(now))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_address.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_address.is_empty()
    }

    /// Whether some found no room.
    pub fn left_out(&self) -> bool {
        self.left_out
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// What leases say at a time, one a line: address, name, hardware address.
    pub fn shown(leases: &Leases, now: u64) -> Vec<String> {
        let text = |part: Option<String>| part.unwrap_or("-".to_owned());
        let line = |(address, lease): (&IpAddr, &Lease)| {
            let name = text(lease.name.as_ref().map(ToString::to_string));
            let mac = text(lease.mac.as_ref().map(ToString::to_string));
            format!("{address} {name} {mac}")
        };
        leases.valid(now).map(line).collect()
    }

    fn lease(name: &str, expires: Option<u64>) -> Lease {
        Lease {
            mac: None,
            name: HostName::reduced(name),
            expires,
        }
    }

    fn address(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    #[test]
    fn a_lease_that_is_over_is_none_and_takes_the_earlier_with_it() {
        let mut leases = Leases::new(100, 9);
        leases.put(address(1), lease("earlier", None));
        leases.put(address(1), lease("over", Some(100)));
        leases.put(address(2), lease("valid", Some(101)));
        assert_eq!(shown(&leases, 100), ["10.0.0.2 valid -"]);
        assert_eq!(leases.get(address(2), 101), None, "by then it is over too");
    }

    #[test]
    fn what_finds_no_room_is_left_out_and_said() {
        let mut leases = Leases::new(0, 2);
        leases.put(address(1), lease("a", None));
        leases.put(address(2), lease("b", None));
        leases.put(address(2), lease("c", None));
        leases.put(address(3), lease("over", Some(0)));
        assert!(
            !leases.left_out(),
            "neither one that is there nor one that is over needs room"
        );
        leases.put(address(3), lease("d", None));
        assert!(leases.left_out());
        assert_eq!(shown(&leases, 0), ["10.0.0.1 a -", "10.0.0.2 c -"]);
    }
}
