//! What to count where nobody has written it down: interfaces and subnets from the devices, addresses and routes that
//! are handed in. The way out is `wan`, everything else is named after its device. Thresholds are not guessed:
//! nobody knows what an uplink carries.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::interfaces::INTERFACES_MAX;
use super::naming::{first_free, shaped};
use super::prefix::{self, union};
use super::problem::printable;
use super::{Config, Format, Problem, parse};
use crate::kernel::addresses::Address;
use crate::kernel::default_routes::DefaultRoute;
use crate::kernel::links::Link;
use crate::kernel::network::Network;
use crate::units::DeviceName;

/// The interface of the way out.
const WAN: &str = "wan";
/// The interface of all devices beyond the limit.
const OTHERS: &str = "others";
/// Before a device's name that does not begin with a letter.
const PREFIX: &str = "dev_";
/// A port of a VRF receives its packets itself; those of any other master arrive by the master.
const VRF: &str = "vrf";

/// What was found, as it goes into a configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Discovery {
    /// Whether the first interface is the way out.
    has_wan: bool,
    /// The way out first, then by the devices' indexes; at most 64.
    pub interfaces: Vec<FoundInterface>,
    /// By the devices' indexes.
    pub subnets: Vec<FoundSubnet>,
    /// Devices that are not counted, but the loopback device, each with the reason.
    pub left_out: Vec<(String, String)>,
}

/// An interface that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct FoundInterface {
    /// `wan`, or after its device; the shape of a name.
    pub name: String,
    /// At least one, none of them in another interface.
    pub devices: Vec<DeviceName>,
    /// What is worth knowing of it, sentences.
    pub remarks: Vec<String>,
}

/// A subnet that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct FoundSubnet {
    /// After its device; the shape of a name.
    pub name: String,
    /// At least one, none inside another, none also in another subnet.
    pub prefixes: Vec<IpNet>,
    /// Its device, where a prefix has a lifetime: then what comes after it belongs to the subnet too.
    pub follows: Option<DeviceName>,
    /// What is worth knowing of it, sentences.
    pub remarks: Vec<String>,
}

/// A device that may carry packets, and its addresses that mean something to others.
struct Candidate<'n> {
    link: &'n Link,
    device: DeviceName,
    addresses: Vec<&'n Address>,
}

/// What to count on such a network.
///
/// The way out is the device of the default route with the lowest metric, of IPv4 and of IPv6; where several next
/// hops share that route, or several routes that metric, all of their devices, since each of them carries a part of
/// what leaves. Tunnels are passed over where a default route leads through anything else: what they carry leaves by
/// that once more.
pub fn discover(network: &Network) -> Discovery {
    let mut left_out = Vec::new();
    let candidates = candidates(network, &mut left_out);
    let uplinks = uplinks(network, &candidates);
    let mut names = Names::default();
    let wan = wan(&uplinks, &mut names);
    let has_wan = wan.is_some();
    let rest: Vec<(String, &Candidate<'_>)> = candidates
        .iter()
        .filter(|candidate| {
            let index = candidate.link.index;
            !uplinks.iter().any(|uplink| uplink.link.index == index)
        })
        .map(|candidate| (names.take(candidate.device.as_str()), candidate))
        .collect();
    let mut interfaces: Vec<FoundInterface> = wan.into_iter().collect();
    interfaces.extend(after_devices(network, &rest, interfaces.len(), &mut names));
    let inside = rest
        .iter()
        .filter(|(_, candidate)| !leads_out(network, candidate));
    Discovery {
        has_wan,
        interfaces,
        subnets: subnets(inside),
        left_out,
    }
}

impl Discovery {
    /// Whether there is nothing to count.
    pub fn is_empty(&self) -> bool {
        self.interfaces.is_empty()
    }

    /// The interface of the way out; `None` without a default route.
    pub fn wan(&self) -> Option<&FoundInterface> {
        let first = self.interfaces.first();
        first.filter(|_| self.has_wan)
    }

    /// The configuration that [`Discovery::text`] is. There are no problems in it, or this module is wrong.
    pub fn config(&self) -> Result<Config, Vec<Problem>> {
        parse(&self.text(), Format::Toml)
    }
}

/// Devices that are switched on, no port of another and, unless a default route leads there, have an address that
/// means something to others.
fn candidates<'n>(
    network: &'n Network,
    left_out: &mut Vec<(String, String)>,
) -> Vec<Candidate<'n>> {
    let mut links: Vec<&Link> = network.links.iter().filter(|link| !link.loopback).collect();
    links.sort_by_key(|link| link.index);
    let mut found = Vec::new();
    for link in links {
        match candidate(network, link) {
            Ok(candidate) => found.push(candidate),
            Err(reason) => left_out.push((printable(&link.name), reason)),
        }
    }
    found
}

fn candidate<'n>(network: &'n Network, link: &'n Link) -> Result<Candidate<'n>, String> {
    if let Some(kind) = link.port_kind.as_deref().filter(|kind| *kind != VRF) {
        let master = network
            .links
            .iter()
            .find(|other| Some(other.index) == link.master);
        return Err(match master {
            Some(master) => format!("is a port of {}", printable(&master.name)),
            None => format!("is a port of a {}", printable(kind)),
        });
    }
    if !link.up {
        return Err("is down".to_owned());
    }
    let of_device = |address: &&Address| address.device == link.index && !is_local(address);
    let addresses: Vec<&Address> = network.addresses.iter().filter(of_device).collect();
    let is_routed =
        (network.default_routes.iter()).any(|route| route.devices.contains(&link.index));
    if addresses.is_empty() && !is_routed {
        return Err("has no address".to_owned());
    }
    match DeviceName::new(&link.name) {
        Ok(device) => Ok(Candidate {
            link,
            device,
            addresses,
        }),
        Err(_) => Err("has a name that no configuration can hold".to_owned()),
    }
}

/// Whether an address says nothing about which packets pass: everyone has such ones.
pub(super) fn is_local(address: &Address) -> bool {
    address.host_only
        || match address.address {
            IpAddr::V4(own) => own.is_link_local() || own.is_loopback(),
            IpAddr::V6(own) => own.is_unicast_link_local() || own.is_loopback(),
        }
}

/// The devices that are the way out, IPv4's first, none twice.
fn uplinks<'c, 'n>(network: &Network, candidates: &'c [Candidate<'n>]) -> Vec<&'c Candidate<'n>> {
    let of_route = |route: &DefaultRoute| {
        let known = |index| candidates.iter().find(|known| known.link.index == index);
        let devices: Vec<&Candidate<'_>> =
            route.devices.iter().copied().filter_map(known).collect();
        (route.v6, route.metric, devices)
    };
    let mut routes: Vec<_> = network.default_routes.iter().map(of_route).collect();
    let mut devices = routes.iter().flat_map(|(_, _, devices)| devices);
    if devices.any(|candidate| !candidate.link.is_tunnel()) {
        for (_, _, devices) in &mut routes {
            devices.retain(|candidate| !candidate.link.is_tunnel());
        }
    }
    routes.retain(|(_, _, devices)| !devices.is_empty());
    let mut found: Vec<&Candidate<'_>> = Vec::new();
    for family in [false, true] {
        let routes = routes.iter().filter(|(v6, ..)| *v6 == family);
        let lowest = routes.clone().map(|(_, metric, _)| metric).min();
        for (_, _, devices) in routes.filter(|(_, metric, _)| Some(metric) == lowest) {
            for candidate in devices {
                if !found
                    .iter()
                    .any(|known| known.link.index == candidate.link.index)
                {
                    found.push(candidate);
                }
            }
        }
    }
    found
}

fn wan(uplinks: &[&Candidate<'_>], names: &mut Names) -> Option<FoundInterface> {
    let remark = match uplinks.len() {
        0 => return None,
        1 => "The way out: the default route's device.",
        _ => "The ways out: the devices of the default routes, counted together.",
    };
    let devices = uplinks.iter().map(|candidate| candidate.device.clone());
    Some(FoundInterface {
        name: names.take(WAN),
        devices: devices.collect(),
        remarks: vec![remark.to_owned()],
    })
}

/// An interface for each, or where these would be too many together with those `before`, one for all beyond.
fn after_devices(
    network: &Network,
    named: &[(String, &Candidate<'_>)],
    before: usize,
    names: &mut Names,
) -> Vec<FoundInterface> {
    let room = INTERFACES_MAX - before;
    let alone = if named.len() > room {
        room - 1
    } else {
        named.len()
    };
    let (alone, beyond) = named.split_at(alone);
    let of_one = |(name, candidate): &(String, &Candidate<'_>)| FoundInterface {
        name: name.clone(),
        devices: vec![candidate.device.clone()],
        remarks: remarks(network, candidate),
    };
    let mut interfaces: Vec<FoundInterface> = alone.iter().map(of_one).collect();
    if !beyond.is_empty() {
        let remark = format!("All others together: there are at most {INTERFACES_MAX} interfaces.");
        let devices = beyond.iter().map(|(_, candidate)| candidate.device.clone());
        interfaces.push(FoundInterface {
            name: names.take(OTHERS),
            devices: devices.collect(),
            remarks: vec![remark],
        });
    }
    interfaces
}

fn remarks(network: &Network, candidate: &Candidate<'_>) -> Vec<String> {
    let mut remarks = Vec::new();
    if candidate.link.kind.as_deref() == Some("bridge") {
        remarks.push("A bridge: what its ports carry is counted here.".to_owned());
    }
    if leads_out(network, candidate) {
        let remark = if candidate.link.is_tunnel() {
            "A tunnel that a default route leads through; what it carries leaves by wan once more."
        } else {
            "Another way out, by a default route that is not the best."
        };
        remarks.push(remark.to_owned());
    }
    remarks
}

/// Whether any default route leads there: then its neighbours are not inside.
fn leads_out(network: &Network, candidate: &Candidate<'_>) -> bool {
    let index = &candidate.link.index;
    let mut routes = network.default_routes.iter();
    routes.any(|route| route.devices.contains(index))
}

/// A subnet for each device that has neighbours; a prefix belongs to the first device that has it.
fn subnets<'c, 'n: 'c>(
    inside: impl Iterator<Item = &'c (String, &'c Candidate<'n>)>,
) -> Vec<FoundSubnet> {
    let mut found: Vec<FoundSubnet> = Vec::new();
    for (name, candidate) in inside {
        let connected: Vec<(IpNet, bool)> = candidate
            .addresses
            .iter()
            .flat_map(|address| {
                let usable = address.connected().into_iter().filter(is_subnet);
                usable.map(|prefix| (prefix, address.permanent))
            })
            .collect();
        let mut prefixes = union(connected.iter().map(|(prefix, _)| *prefix).collect());
        prefixes.retain(|prefix| {
            let first = (found.iter_mut()).find(|subnet| subnet.prefixes.contains(prefix));
            first
                .map(|first| first.also_on(prefix, candidate))
                .is_none()
        });
        let fleeting = (prefixes.iter()).filter(|prefix| !connected.contains(&(**prefix, true)));
        let remarks: Vec<String> = fleeting
            .map(|prefix| format!("{prefix} has a lifetime: the prefixes of its device are followed as they change."))
            .collect();
        if !prefixes.is_empty() {
            found.push(FoundSubnet {
                name: name.clone(),
                follows: (!remarks.is_empty()).then(|| candidate.device.clone()),
                remarks,
                prefixes,
            });
        }
    }
    found
}

impl FoundSubnet {
    fn also_on(&mut self, prefix: &IpNet, candidate: &Candidate<'_>) {
        let device = &candidate.device;
        self.remarks
            .push(format!("{prefix} is on {device} too, and is counted here."));
    }
}

/// Whether the configuration takes a prefix that is not everything and not of one link only.
pub(super) fn is_subnet(prefix: &IpNet) -> bool {
    let is_local = match prefix.addr() {
        IpAddr::V4(address) => address.is_link_local() || address.is_loopback(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    prefix.prefix_len() > 0 && !is_local && prefix::prefix(&prefix.to_string()).is_ok()
}

/// The names given so far.
#[derive(Default)]
struct Names(BTreeSet<String>);

impl Names {
    /// A name like `wanted` that no other has.
    fn take(&mut self, wanted: &str) -> String {
        let name = first_free([], shaped(wanted, PREFIX), |name| !self.0.contains(name));
        self.0.insert(name.clone());
        name
    }
}
