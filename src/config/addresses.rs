//! Addresses that a subnet or a selector means: prefixes as they are written, and those of the devices it follows,
//! whatever they are at the moment. A device without a prefix adds none, which is not the same as any.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::discover::{is_local, is_subnet};
use super::prefix::union;
use super::{Config, Counter, Subnet};
use crate::kernel::addresses::Address;
use crate::kernel::links::Link;
use crate::units::DevicePattern;

/// A set of addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addresses {
    written: Vec<IpNet>,
    follows: Vec<DevicePattern>,
    prefixes: Vec<IpNet>,
}

impl Addresses {
    /// These prefixes, and those of these devices, of which none is known yet.
    pub fn new(written: Vec<IpNet>, follows: Vec<DevicePattern>) -> Self {
        let written = union(written);
        Addresses {
            prefixes: written.clone(),
            written,
            follows: DevicePattern::union(&follows),
        }
    }

    /// The prefixes at the moment; none inside another.
    pub fn prefixes(&self) -> &[IpNet] {
        &self.prefixes
    }

    /// The devices whose prefixes it has, whatever they are; none covered by another.
    pub fn follows(&self) -> &[DevicePattern] {
        &self.follows
    }

    /// What is in any of them.
    pub(super) fn joined<'a>(parts: impl IntoIterator<Item = &'a Addresses>) -> Self {
        let (mut written, mut follows) = (Vec::new(), Vec::new());
        for part in parts {
            written.extend_from_slice(&part.written);
            follows.extend_from_slice(&part.follows);
        }
        Addresses::new(written, follows)
    }

    fn resolve(&mut self, connected: &Connected) {
        if !self.follows.is_empty() {
            let mut all = self.written.clone();
            all.extend(connected.of_devices(&self.follows));
            self.prefixes = union(all);
        }
    }
}

impl From<Vec<IpNet>> for Addresses {
    fn from(written: Vec<IpNet>) -> Self {
        Addresses::new(written, Vec::new())
    }
}

/// Which prefixes each device has neighbours in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Connected {
    prefixes_by_device: BTreeMap<String, Vec<IpNet>>,
}

impl Connected {
    /// What these addresses of these devices say. Link-local prefixes are everywhere and say nothing; deprecated and
    /// temporary addresses count as long as they are there.
    pub fn new(links: &[Link], addresses: &[Address]) -> Self {
        let names: BTreeMap<u32, &str> = links
            .iter()
            .map(|link| (link.index, link.name.as_str()))
            .collect();
        let mut prefixes_by_device: BTreeMap<String, Vec<IpNet>> = BTreeMap::new();
        for address in addresses.iter().filter(|address| !is_local(address)) {
            if let Some(name) = names.get(&address.device) {
                let prefixes = prefixes_by_device.entry((*name).to_owned()).or_default();
                prefixes.extend(
                    address
                        .connected()
                        .iter()
                        .filter(|prefix| is_subnet(prefix)),
                );
            }
        }
        for prefixes in prefixes_by_device.values_mut() {
            prefixes.sort();
            prefixes.dedup();
        }
        Connected { prefixes_by_device }
    }

    fn of_devices(&self, patterns: &[DevicePattern]) -> impl Iterator<Item = IpNet> {
        let is_meant = |name: &str| patterns.iter().any(|pattern| pattern.matches(name));
        let met = (self.prefixes_by_device.iter()).filter(move |(name, _)| is_meant(name));
        met.flat_map(|(_, prefixes)| prefixes).copied()
    }
}

impl Config {
    /// The same where devices have these prefixes.
    pub fn resolved(&self, connected: &Connected) -> Config {
        let mut config = self.clone();
        let subnets = config.subnets.iter_mut();
        subnets.for_each(|subnet| subnet.addresses.resolve(connected));
        let counters = config.counters.iter_mut();
        counters.for_each(|counter| counter.resolve(connected));
        config
    }

    /// The subnets whose prefixes are those of devices.
    pub fn followed(&self) -> impl Iterator<Item = &Subnet> {
        let subnets = self.subnets.iter();
        subnets.filter(|subnet| !subnet.addresses.follows.is_empty())
    }

    /// The keys of these subnets, in one text.
    pub fn followed_keys(&self) -> String {
        let keys = self
            .followed()
            .map(|subnet| format!("subnets.{}", subnet.name));
        keys.collect::<Vec<_>>().join(", ")
    }
}

impl Counter {
    /// Whether it is the same counter, whatever prefixes the devices that it follows have at the moment.
    pub fn is_written_as(&self, other: &Counter) -> bool {
        let written = |counter: &Counter| {
            let mut counter = counter.clone();
            counter.resolve(&Connected::default());
            counter
        };
        self == other || written(self) == written(other)
    }

    fn resolve(&mut self, connected: &Connected) {
        let selectors = &mut self.selectors;
        let sets = [&mut selectors.from, &mut selectors.to]
            .into_iter()
            .flatten();
        sets.for_each(|addresses| addresses.resolve(connected));
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::config;
    use super::*;

    const CONFIG: &str = r#"
        interfaces.wan.device = "ppp0"
        [subnets]
        guests.device = "br-guests"
        tunnels.device = ["wg*", "tun0"]
        home = "192.168.1.0/24"
        [counters]
        up = { from = ["guests", "home", "192.168.1.64/26"], out = "wan" }
        across = { from = "home", to = "tunnels" }
    "#;

    fn link(index: u32, name: &str) -> Link {
        Link {
            index,
            name: name.to_owned(),
            ..Link::default()
        }
    }

    fn address(device: u32, text: &str) -> Address {
        let prefix: IpNet = text.parse().unwrap();
        Address {
            device,
            address: prefix.addr(),
            peer: None,
            prefix_length: prefix.prefix_len(),
            host_only: false,
            tentative: false,
            temporary: false,
            deprecated: false,
            permanent: false,
        }
    }

    fn connected(addresses: &[(u32, &str)]) -> Connected {
        let links = [
            link(2, "br-guests"),
            link(3, "wg0"),
            link(4, "wg1"),
            link(5, "br-lan"),
        ];
        // How long an address lasts says nothing about which packets pass.
        let addresses: Vec<Address> = (addresses.iter().enumerate())
            .map(|(at, (device, text))| Address {
                deprecated: at % 2 == 0,
                temporary: at % 3 == 0,
                tentative: at % 5 == 0,
                ..address(*device, text)
            })
            .collect();
        Connected::new(&links, &addresses)
    }

    fn shown(addresses: &Addresses) -> Vec<String> {
        addresses.prefixes().iter().map(IpNet::to_string).collect()
    }

    #[test]
    fn a_followed_subnet_has_the_prefixes_of_its_devices_and_before_that_none() {
        let config = config(CONFIG);
        assert_eq!(shown(&config.subnets[0].addresses), [""; 0]);
        let there = connected(&[
            (2, "10.0.5.1/24"),
            (2, "2001:db8::1/64"),
            (2, "2001:db8::9999/64"),
            (2, "fe80::1/64"),
            (2, "169.254.1.1/16"),
            (3, "10.8.0.1/24"),
            (4, "10.9.0.1/32"),
            (5, "10.1.0.1/24"),
        ]);
        let resolved = config.resolved(&there);
        let of = |at: usize| shown(&resolved.subnets[at].addresses);
        assert_eq!(of(0), ["10.0.5.0/24", "2001:db8::/64"]);
        assert_eq!(of(1), ["10.8.0.0/24"]);
        assert_eq!(of(2), ["192.168.1.0/24"]);
        assert_eq!(resolved.followed().count(), 2);
    }

    #[test]
    fn counters_that_name_it_follow_too_beside_what_is_written() {
        let config = config(CONFIG);
        let from = |config: &Config, name: &str| {
            let mut counters = config.counters.iter();
            let counter = counters
                .find(|counter| counter.name.as_str() == name)
                .unwrap();
            shown(counter.selectors.from.as_ref().unwrap())
        };
        assert_eq!(from(&config, "up"), ["192.168.1.0/24"]);
        let resolved = config.resolved(&connected(&[(2, "10.0.5.1/24")]));
        assert_eq!(from(&resolved, "up"), ["192.168.1.0/24", "10.0.5.0/24"]);
        assert_eq!(from(&resolved, "guests_from"), ["10.0.5.0/24"]);
        let moved = resolved.resolved(&connected(&[(2, "192.168.0.1/16")]));
        assert_eq!(from(&moved, "up"), ["192.168.0.0/16"], "a union");
        assert_eq!(moved.resolved(&Connected::default()), config);
    }

    #[test]
    fn a_counter_stays_the_same_when_prefixes_change_and_not_when_the_file_does() {
        let before = config(CONFIG).resolved(&connected(&[(2, "10.0.5.1/24")]));
        let after = config(CONFIG).resolved(&connected(&[(2, "10.0.6.1/24")]));
        for (one, other) in before.counters.iter().zip(&after.counters) {
            assert!(one.is_written_as(other), "{}", one.name);
        }
        let edited =
            config(&CONFIG.replace("guests.device = \"br-guests\"", "guests = \"10.0.5.0/24\""));
        let differs = |at: usize| !before.counters[at].is_written_as(&edited.counters[at]);
        let differing: Vec<&str> = (0..before.counters.len())
            .filter(|at| differs(*at))
            .map(|at| before.counters[at].name.as_str())
            .collect();
        assert_eq!(differing, ["guests_from", "guests_to", "up"]);
    }
}
