//! Ranked hosts and flows as the log and the status show them: inside addresses first, the outside view where it
//! differs, protocols by name, stamps as time.

use std::net::IpAddr;

use jiff::Timestamp;

use crate::drilldown::flow::{Flow, FlowKey, Service};
use crate::drilldown::rank::{HostSum, Ranked, Ranking};
use crate::drilldown::services;
use crate::drilldown::verdict::{EndShare, FlowShare, HostShare, ServiceShare};
use crate::kernel::conntrack::{Detail, protocol};
use crate::units::{Mac, Volume};

/// What is known of an address besides its traffic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// Its name.
    pub name: Option<String>,
    /// Its hardware address.
    pub mac: Option<String>,
}

/// A device on a link, by its hardware address, whatever addresses it has besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Device(pub Mac);

/// Who knows hosts by more than their addresses.
pub trait KnownHosts {
    /// What is known of an address.
    fn known(&self, address: IpAddr) -> Known;

    /// The device that an address belongs to: addresses with the same one are one host.
    fn device(&self, address: IpAddr) -> Option<Device>;
}

/// Nobody is known.
impl KnownHosts for () {
    fn known(&self, _: IpAddr) -> Known {
        Known::default()
    }

    fn device(&self, _: IpAddr) -> Option<Device> {
        None
    }
}

/// Gives each row of a ranking its share and what is known of it.
pub struct Shares<'a> {
    /// A part of the whole.
    pub share: &'a dyn Fn(u64) -> f64,
    /// Names and hardware addresses.
    pub known: &'a dyn KnownHosts,
    /// When a flow whose end nobody told was missed by a dump, if it was.
    pub missed: &'a dyn Fn(&FlowKey) -> Option<u64>,
}

impl Shares<'_> {
    /// The named hosts.
    pub fn hosts(&self, ranking: &Ranking) -> Vec<HostShare> {
        let share = |host: &HostSum| {
            let known = host
                .addresses
                .iter()
                .map(|address| self.known.known(*address));
            let (names, macs): (Vec<_>, Vec<_>) =
                known.map(|known| (known.name, known.mac)).unzip();
            HostShare {
                address: host.address(),
                name: names.into_iter().flatten().next(),
                mac: macs.into_iter().flatten().next(),
                addresses: host.addresses.clone(),
                bytes: host.host.volume.bytes,
                packets: host.host.volume.packets,
                share: (self.share)(host.host.volume.bytes),
            }
        };
        ranking.hosts.named.iter().map(share).collect()
    }

    /// The named outside ends, or senders.
    pub fn ends(&self, ends: &[(IpAddr, Volume)]) -> Vec<EndShare> {
        let share = |(address, volume): &(IpAddr, Volume)| EndShare {
            address: *address,
            name: self.known.known(*address).name,
            bytes: volume.bytes,
            packets: volume.packets,
            share: (self.share)(volume.bytes),
        };
        ends.iter().map(share).collect()
    }

    /// The named services.
    pub fn services(&self, ranked: &Ranked<(Service, Volume)>) -> Vec<ServiceShare> {
        let share = |(service, volume): &(Service, Volume)| ServiceShare {
            protocol: protocol_name(service.protocol),
            port: service.port,
            name: services::name(*service).map(str::to_owned),
            bytes: volume.bytes,
            packets: volume.packets,
            share: (self.share)(volume.bytes),
        };
        ranked.named.iter().map(share).collect()
    }

    /// The named flows.
    pub fn flows(&self, ranked: &Ranked<(FlowKey, Flow)>) -> Vec<FlowShare> {
        let share = |(key, flow): &(FlowKey, Flow)| {
            let ended = flow.ended.or_else(|| (self.missed)(key));
            flow_share(key, flow, ended, (self.share)(flow.moved().bytes))
        };
        ranked.named.iter().map(share).collect()
    }
}

/// The opener is the original source. What the outside saw is in the other tuple's destination.
fn flow_share(key: &FlowKey, flow: &Flow, ended: Option<u64>, share: f64) -> FlowShare {
    let (_, _, original) = key;
    let (source, destination) = (original.source, flow.reply.source);
    let (source_port, original_port) = ports(original.detail);
    let (destination_port, reply_port) = ports(flow.reply.detail);
    let outside_source = (flow.reply.destination, reply_port);
    let outside_destination = (original.destination, original_port);
    let source_nat = (outside_source != (source, source_port)).then_some(outside_source);
    let destination_nat =
        (outside_destination != (destination, destination_port)).then_some(outside_destination);
    let icmp = match original.detail {
        Detail::Icmp { id, kind, code } => Some((id, kind, code)),
        Detail::Ports { .. } | Detail::None => None,
    };
    let moved = flow.moved();
    FlowShare {
        protocol: protocol_name(original.protocol),
        source,
        source_port,
        destination,
        destination_port,
        nat_source: source_nat.map(|nat| nat.0),
        nat_source_port: source_nat.and_then(|nat| nat.1),
        nat_destination: destination_nat.map(|nat| nat.0),
        nat_destination_port: destination_nat.and_then(|nat| nat.1),
        icmp_type: icmp.map(|icmp| icmp.1),
        icmp_code: icmp.map(|icmp| icmp.2),
        icmp_id: icmp.map(|icmp| icmp.0),
        bytes: moved.bytes,
        packets: moved.packets,
        share,
        started: flow.start.and_then(stamp),
        ended: ended.and_then(stamp),
        approximate: flow.belongs.approximate,
    }
}

/// Source and destination port; `None` for protocols without ports.
fn ports(detail: Detail) -> (Option<u16>, Option<u16>) {
    match detail {
        Detail::Ports {
            source,
            destination,
        } => (Some(source), Some(destination)),
        Detail::Icmp { .. } | Detail::None => (None, None),
    }
}

/// By name where operators say the name, else the number.
pub(super) fn protocol_name(number: u8) -> String {
    let name = match number {
        protocol::TCP => "tcp",
        protocol::UDP => "udp",
        protocol::ICMP => "icmp",
        protocol::ICMPV6 => "icmpv6",
        protocol::GRE => "gre",
        protocol::ESP => "esp",
        protocol::SCTP => "sctp",
        _ => return number.to_string(),
    };
    name.to_owned()
}

/// `None` for a stamp that no calendar holds, as a clock that stepped can leave it.
fn stamp(nanoseconds: u64) -> Option<Timestamp> {
    Timestamp::from_nanosecond(nanoseconds.into()).ok()
}
