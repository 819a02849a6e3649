//! What addresses are called: by the configuration, by DHCP servers, by /etc/hosts and /etc/ethers; and which of them
//! belong to one device, by the kernel's neighbour table. Read only when asked to, which is while someone drills.
//! Parsers are pure; `disk`, `lease_file`, `kea_socket`, `listing`, `places` and `clock` touch the machine.

mod clock;
mod disk;
mod dnsmasq;
mod ethers;
mod hosts_file;
mod json;
mod kea;
mod kea_socket;
mod lease;
mod lease_file;
mod listing;
mod neighbourhood;
mod networkd;
mod places;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use self::lease::Lease;
use self::listing::Listing;
use self::neighbourhood::{NEIGHBOURS_MAX, Neighbourhood};
use self::places::Places;
use crate::config::{Config, Host};
use crate::drilldown::shares::{Device, Known, KnownHosts};
use crate::kernel::neighbours;
use crate::units::{HostName, Mac};

const HOSTS_FILE: &str = "/etc/hosts";
const ETHERS_FILE: &str = "/etc/ethers";

/// What addresses are called, as of the last look. However many leases, names and neighbours there are, at most some
/// 15 MB, and 10 MB more while leases are read anew.
#[derive(Debug)]
pub struct Names {
    configured: Configured,
    places: Places,
    hosts: Listing<IpAddr>,
    ethers: Listing<Mac>,
    neighbourhood: Neighbourhood,
    /// Unix time in seconds of the last look: leases that are over by then name nobody.
    now: u64,
}

/// `[hosts]`.
#[derive(Debug, Default)]
struct Configured {
    by_address: BTreeMap<IpAddr, HostName>,
    by_mac: BTreeMap<Mac, HostName>,
}

impl Configured {
    fn new(hosts: &[Host]) -> Configured {
        let mut configured = Configured::default();
        for host in hosts {
            let name = || host.name.clone();
            let addresses = host.addresses.iter();
            configured
                .by_address
                .extend(addresses.map(|address| (*address, name())));
            configured
                .by_mac
                .extend(host.macs.iter().map(|mac| (*mac, name())));
        }
        configured
    }
}

impl Names {
    /// What the configuration says. Reads nothing else.
    pub fn new(config: &Config) -> Names {
        Names {
            configured: Configured::new(&config.hosts),
            places: Places::new(config.names.leases.as_deref()),
            hosts: Listing::new(Path::new(HOSTS_FILE), hosts_file::line),
            ethers: Listing::new(Path::new(ETHERS_FILE), ethers::line),
            neighbourhood: Neighbourhood::default(),
            now: 0,
        }
    }

    /// Reads what changed since the last time, and the neighbour table of the calling thread's network namespace.
    /// Returns what could not be read, a sentence each; what was good before is kept. For a socket's answer it waits
    /// `patience` at most: one that comes later is taken the next time. No socket is asked again within 10 s.
    pub fn refresh(&mut self, patience: Duration) -> Vec<String> {
        let now = clock::now();
        self.now = now.wall;
        let mut troubles = self.places.refresh(&now, patience);
        troubles.extend(self.hosts.refresh());
        troubles.extend(self.ethers.refresh());
        match neighbours::read(NEIGHBOURS_MAX) {
            Ok(seen) => self.neighbourhood.learn(&seen),
            Err(error) => troubles.push(error.to_string()),
        }
        troubles
    }

    /// Forgets who was seen on the links. What files say is kept.
    pub fn forget(&mut self) {
        self.neighbourhood.forget();
    }

    fn mac(&self, address: IpAddr) -> Option<Mac> {
        let seen = self.neighbourhood.mac(address);
        seen.or_else(|| self.lent(address).find_map(|lease| lease.mac))
    }

    /// All leases of an address, the most believed first.
    fn lent(&self, address: IpAddr) -> impl Iterator<Item = &Lease> {
        let leases = self.places.leases();
        leases.filter_map(move |leases| leases.get(address, self.now))
    }

    /// The name in the lease that the device took last, IPv4 before IPv6: a server knows the device of those.
    fn lent_to(&self, mac: Mac) -> Option<&HostName> {
        let valid = (self.places.leases()).flat_map(|leases| leases.valid(self.now));
        let named = valid
            .filter(|(_, lease)| lease.mac == Some(mac))
            .filter_map(|(address, lease)| Some((address, lease, lease.name.as_ref()?)));
        let (.., name) = named.max_by_key(|(address, lease, _)| {
            (address.is_ipv4(), lease.expires.unwrap_or(u64::MAX))
        })?;
        Some(name)
    }
}

impl KnownHosts for Names {
    /// What is known of an address. The first name counts, in this order: `[hosts]` by address, then by hardware
    /// address; a lease of the address; for an IPv6 address, a lease of its device; /etc/hosts; /etc/ethers. The hardware
    /// address is that of the neighbour table, else that of the lease.
    fn known(&self, address: IpAddr) -> Known {
        let address = address.to_canonical();
        let mac = self.mac(address);
        let name = (self.configured.by_address.get(&address))
            .or_else(|| self.configured.by_mac.get(&mac?))
            .or_else(|| self.lent(address).find_map(|lease| lease.name.as_ref()))
            .or_else(|| self.lent_to(mac.filter(|_| address.is_ipv6())?))
            .or_else(|| self.hosts.name(&address))
            .or_else(|| self.ethers.name(&mac?));
        Known {
            name: name.map(ToString::to_string),
            mac: mac.map(|mac| mac.to_string()),
        }
    }

    /// Which device an address belongs to, as the neighbour table has it: two addresses are to be shown as one where
    /// theirs are equal.
    fn device(&self, address: IpAddr) -> Option<Device> {
        self.neighbourhood.device(address.to_canonical())
    }
}
