//! Ranked hosts and flows as the log and the status show them: inside addresses first, the outside view where it
//! differs, protocols by name, stamps as time.

use std::net::IpAddr;

use jiff::Timestamp;

use crate::drilldown::flow::Flow;
use crate::drilldown::rank::Ranking;
use crate::drilldown::verdict::{FlowShare, HostShare};
use crate::kernel::conntrack::{Detail, protocol};

/// What is known of an address besides its traffic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// Its name.
    pub name: Option<String>,
    /// Its hardware address.
    pub mac: Option<String>,
}

/// The named hosts, each with its share of the whole.
pub fn host_shares(
    ranking: &Ranking<'_>,
    share: impl Fn(u64) -> f64,
    known: &dyn Fn(IpAddr) -> Known,
) -> Vec<HostShare> {
    ranking
        .hosts
        .iter()
        .map(|host| {
            let Known { name, mac } = known(host.address);
            HostShare {
                address: host.address,
                name,
                mac,
                addresses: vec![host.address],
                bytes: host.volume.bytes,
                packets: host.volume.packets,
                share: share(host.volume.bytes),
            }
        })
        .collect()
}

/// The named flows, each with its share of the whole.
pub fn flow_shares(ranking: &Ranking<'_>, share: impl Fn(u64) -> f64) -> Vec<FlowShare> {
    ranking
        .flows
        .iter()
        .map(|flow| flow_share(flow, share(flow.moved().bytes)))
        .collect()
}

/// The opener is the original source. What the outside saw is in the other tuple's destination.
fn flow_share(flow: &Flow, share: f64) -> FlowShare {
    let (source, destination) = flow.inside_ends();
    let (source_port, original_port) = ports(flow.original.detail);
    let (destination_port, reply_port) = ports(flow.reply.detail);
    let outside_source = (flow.reply.destination, reply_port);
    let outside_destination = (flow.original.destination, original_port);
    let source_nat = (outside_source != (source, source_port)).then_some(outside_source);
    let destination_nat =
        (outside_destination != (destination, destination_port)).then_some(outside_destination);
    let icmp = match flow.original.detail {
        Detail::Icmp { id, kind, code } => Some((id, kind, code)),
        Detail::Ports { .. } | Detail::None => None,
    };
    let moved = flow.moved();
    FlowShare {
        protocol: protocol_name(flow.original.protocol),
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
        ended: flow.ended.and_then(stamp),
        approximate: flow.belongs.approximate,
    }
}

/// Source and destination port; `None` for protocols without ports.
pub(super) fn ports(detail: Detail) -> (Option<u16>, Option<u16>) {
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
