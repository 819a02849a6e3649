//! What one counter's selectors mean for flows: the address sets, the label bits, the router's own addresses. Built
//! once a drilldown; `attribution` asks it for every flow.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::config::{Addresses, Config, Counter, Interface};
use crate::drilldown::nanoseconds;
use crate::drilldown::prefixes::PrefixSet;
use crate::kernel::conntrack::FlowRecord;
use crate::kernel::routes::Path;
use crate::units::{CounterName, DeviceName, DevicePattern, InterfaceName, SubnetName};

/// The flows that a counter could have counted.
#[derive(Debug, Clone)]
pub struct Scope {
    /// `None` where a host was asked for.
    pub(super) counter: Option<CounterName>,
    /// The host asked for: all that it sends and receives belongs.
    pub(super) host: Option<IpAddr>,
    pub(super) from: Option<PrefixSet>,
    pub(super) to: Option<PrefixSet>,
    pub(super) in_: Option<InterfaceChoice>,
    pub(super) out: Option<InterfaceChoice>,
    /// Whether the counter stands in forward and output rather than in ingress.
    pub(super) leaves: bool,
    /// Every label bit that flowctl sets.
    pub(super) our_labels: u128,
    /// Labels of flows that began before mean nothing, in nanoseconds since 1970.
    labelled_since: Option<u64>,
    /// Each device with the bits of its interface, as often as it is in one.
    labels_by_device: Vec<(DevicePattern, LabelBits)>,
    subnets: BTreeMap<SubnetName, PrefixSet>,
    /// All of these.
    inside: PrefixSet,
    own: BTreeSet<IpAddr>,
}

impl Scope {
    /// The scope of `counter`; `own` are the router's addresses, on all devices.
    pub fn new(config: &Config, counter: &Counter, own: &[IpAddr]) -> Self {
        let selectors = &counter.selectors;
        let prefixes = |addresses: &Option<Addresses>| {
            let prefixes = addresses.as_ref()?.prefixes();
            Some(PrefixSet::new(prefixes.iter().copied()))
        };
        let choice = |list: &Option<Vec<_>>| {
            let list = list.as_ref()?;
            Some(InterfaceChoice::new(config, list))
        };
        let all = (config.subnets.iter()).flat_map(|subnet| subnet.addresses.prefixes());
        let subnets = config.subnets.iter().map(|subnet| {
            let prefixes = subnet.addresses.prefixes().iter().copied();
            (subnet.name.clone(), PrefixSet::new(prefixes))
        });
        Scope {
            counter: Some(counter.name.clone()),
            host: None,
            from: prefixes(&selectors.from),
            to: prefixes(&selectors.to),
            in_: choice(&selectors.in_),
            out: choice(&selectors.out),
            leaves: selectors.leaves(),
            our_labels: (config.interfaces.iter())
                .map(label)
                .fold(0, |all, bits| all | bits.arrived | bits.left),
            labelled_since: config.labelled_since.map(nanoseconds),
            labels_by_device: labels_by_device(config),
            subnets: subnets.collect(),
            inside: PrefixSet::new(all.copied()),
            own: own.iter().copied().collect(),
        }
    }

    /// The scope of all that `host` sends and receives.
    pub fn of_host(host: IpAddr, own: &[IpAddr]) -> Self {
        Scope {
            counter: None,
            host: Some(host),
            from: None,
            to: None,
            in_: None,
            out: None,
            leaves: false,
            our_labels: 0,
            labelled_since: None,
            labels_by_device: Vec::new(),
            subnets: BTreeMap::new(),
            inside: PrefixSet::default(),
            own: own.iter().copied().collect(),
        }
    }

    /// The labels of a flow that are flowctl's and mean what they say.
    pub(super) fn labels_on(&self, flow: &FlowRecord) -> u128 {
        let too_old = |since| flow.start.is_some_and(|start| start < since);
        match self.labelled_since.is_some_and(too_old) {
            true => 0,
            false => flow.labels.unwrap_or(0) & self.our_labels,
        }
    }

    /// Whether an interface is asked for: then flows are judged by their labels.
    pub fn needs_labels(&self) -> bool {
        self.in_.is_some() || self.out.is_some()
    }

    /// The one inside address that all flows in it have, where there is one.
    pub fn only_address(&self) -> Option<IpAddr> {
        let only = |set: &Option<PrefixSet>| set.as_ref().and_then(PrefixSet::only_address);
        self.host
            .or_else(|| only(&self.from))
            .or_else(|| only(&self.to))
    }

    /// The same for an account that began in another scope: who was in a subnet then, which is still one, is so until it
    /// ends.
    pub(super) fn after(mut self, before: &Scope) -> Self {
        for (name, prefixes) in &mut self.subnets {
            if let Some(before) = before.subnets.get(name) {
                prefixes.extend(before);
                self.inside.extend(before);
            }
        }
        self.own.extend(&before.own);
        self
    }

    /// Whether the same flows belong to the counter.
    pub(super) fn judges_as(&self, other: &Scope) -> bool {
        (&self.from, &self.to) == (&other.from, &other.to)
    }

    /// The labels that packets of the original direction get on that path.
    pub(super) fn labels_of(&self, path: &Path) -> u128 {
        let of = |device: &Option<DeviceName>, bits: fn(LabelBits) -> u128| {
            let is_meant = |pattern: &DevicePattern| {
                let name = device.as_ref();
                name.is_some_and(|name| pattern.matches(name.as_str()))
            };
            let met = (self.labels_by_device.iter()).filter(|(pattern, _)| is_meant(pattern));
            met.fold(0, |all, (_, labels)| all | bits(*labels))
        };
        of(&path.opener, |labels| labels.arrived) | of(&path.peer, |labels| labels.left)
    }

    /// Whether `address` is in a configured subnet.
    pub fn in_subnet(&self, address: IpAddr) -> bool {
        self.inside.contains(address)
    }

    /// Whether `address` is one of the router's own.
    pub fn is_own(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.own.contains(&address)
    }
}

/// Label bits that a flow's packets of the original direction set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LabelBits {
    /// Of the interfaces that they arrived by.
    pub arrived: u128,
    /// Of the interfaces that they left by.
    pub left: u128,
}

/// The interfaces that an `in` or `out` selector names, as label bits.
#[derive(Debug, Clone)]
pub(super) struct InterfaceChoice {
    /// Of all of them.
    pub chosen: LabelBits,
    /// Of each of them, with the bits that contradict it: those of interfaces not chosen that share no device with it.
    pub rivals: Vec<(LabelBits, LabelBits)>,
}

impl InterfaceChoice {
    fn new(config: &Config, names: &[InterfaceName]) -> Self {
        let none = LabelBits {
            arrived: 0,
            left: 0,
        };
        let mut choice = InterfaceChoice {
            chosen: none,
            rivals: Vec::new(),
        };
        for interface in chosen(config, names, true) {
            let bits = label(interface);
            let rivals = chosen(config, names, false)
                .filter(|other| !share_device(interface, other))
                .fold(none, |all, other| all.with(label(other)));
            choice.chosen = choice.chosen.with(bits);
            choice.rivals.push((bits, rivals));
        }
        choice
    }
}

impl LabelBits {
    fn with(self, other: LabelBits) -> LabelBits {
        LabelBits {
            arrived: self.arrived | other.arrived,
            left: self.left | other.left,
        }
    }
}

fn chosen<'a>(
    config: &'a Config,
    names: &[InterfaceName],
    wanted: bool,
) -> impl Iterator<Item = &'a Interface> {
    config
        .interfaces
        .iter()
        .filter(move |interface| names.contains(&interface.name) == wanted)
}

fn label(interface: &Interface) -> LabelBits {
    let bit = |number: u8| 1u128.checked_shl(number.into()).unwrap_or(0);
    LabelBits {
        arrived: bit(interface.label),
        left: bit(interface.label + 1),
    }
}

fn labels_by_device(config: &Config) -> Vec<(DevicePattern, LabelBits)> {
    let of = |interface: &Interface| {
        let bits = label(interface);
        let devices = interface.devices.clone();
        devices.into_iter().map(move |device| (device, bits))
    };
    config.interfaces.iter().flat_map(of).collect()
}

/// A packet by a common device rightly carries the labels of both.
fn share_device(a: &Interface, b: &Interface) -> bool {
    let shared = |device: &DevicePattern| b.devices.iter().any(|other| device.overlaps(other));
    a.devices.iter().any(shared)
}
