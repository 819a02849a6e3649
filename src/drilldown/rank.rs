//! Ranks the flows of a drilldown and their inside hosts. Ties fall by address and tuple, never by chance, and what is
//! not named is summed: named + remainder = all.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::drilldown::flow::Flow;
use crate::drilldown::scope::Scope;
use crate::drilldown::table::FlowTable;
use crate::units::Volume;

/// What "most" means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RankBy {
    /// For a bit-rate threshold.
    Bytes,
    /// For a packet-rate threshold.
    Packets,
}

impl RankBy {
    /// Larger is more; the other count decides between equals.
    pub fn weight(self, volume: Volume) -> (u64, u64) {
        match self {
            RankBy::Bytes => (volume.bytes, volume.packets),
            RankBy::Packets => (volume.packets, volume.bytes),
        }
    }
}

/// The top of a table, and the sums of the rest. Flows that moved nothing within the account are left out.
#[derive(Debug, Clone)]
pub struct Ranking<'a> {
    /// The first are the largest.
    pub hosts: Vec<HostSum<'a>>,
    /// The first are the largest.
    pub flows: Vec<&'a Flow>,
    /// All hosts, named or not.
    pub hosts_total: usize,
    /// All flows kept, named or not.
    pub flows_total: usize,
    /// Of the hosts not named.
    pub hosts_remainder: Volume,
    /// Of the flows not named.
    pub flows_remainder: Volume,
    /// Of all flows, those beyond the table's cap too.
    pub moved: Volume,
}

/// One inside host's part.
#[derive(Debug, Clone, Copy)]
pub struct HostSum<'a> {
    /// The inside end.
    pub address: IpAddr,
    /// Within the account, in the counter's direction.
    pub volume: Volume,
    /// Of that, what it sent; the rest it received.
    pub sent: Volume,
    /// How many flows.
    pub flows: usize,
    /// The largest of them.
    pub main: &'a Flow,
    /// What the largest moved for this host.
    pub main_volume: Volume,
}

/// What one flow moved for one host.
struct Part {
    host: IpAddr,
    volume: Volume,
    sent: Volume,
}

/// The `top` hosts and flows of `table`.
pub fn rank<'a>(table: &'a FlowTable, scope: &Scope, top: usize, by: RankBy) -> Ranking<'a> {
    let mut flows: Vec<&Flow> = table
        .flows()
        .iter()
        .filter(|flow| flow.moved() != Volume::default())
        .collect();
    let mut hosts_by_address = BTreeMap::new();
    for flow in &flows {
        for part in parts(flow, scope).into_iter().flatten() {
            add_part(&mut hosts_by_address, part, flow, by);
        }
    }
    let mut hosts: Vec<HostSum<'a>> = hosts_by_address.into_values().collect();
    let (hosts_total, flows_total) = (hosts.len(), flows.len());
    keep_top(&mut hosts, top, |host| {
        (Reverse(by.weight(host.volume)), host.address)
    });
    keep_top(&mut flows, top, |flow| flow_order(flow, flow.moved(), by));
    let moved = table.moved();
    Ranking {
        hosts_remainder: rest(moved, hosts.iter().map(|host| host.volume)),
        flows_remainder: rest(moved, flows.iter().map(|flow| flow.moved())),
        hosts,
        flows,
        hosts_total,
        flows_total,
        moved,
    }
}

/// One part, or two where both directions belong and have different hosts.
fn parts(flow: &Flow, scope: &Scope) -> [Option<Part>; 2] {
    let (opener, peer) = flow.inside_ends();
    let part = |volume: Volume, sender, receiver| {
        let host = scope.host(sender, receiver);
        let sent = if host == sender {
            volume
        } else {
            Volume::default()
        };
        (volume != Volume::default()).then_some(Part { host, volume, sent })
    };
    match (
        part(flow.original_moved, opener, peer),
        part(flow.reply_moved, peer, opener),
    ) {
        (Some(one), Some(two)) if one.host == two.host => [
            Some(Part {
                host: one.host,
                volume: one.volume.plus(two.volume),
                sent: one.sent.plus(two.sent),
            }),
            None,
        ],
        (one, two) => [one, two],
    }
}

fn add_part<'a>(
    hosts_by_address: &mut BTreeMap<IpAddr, HostSum<'a>>,
    part: Part,
    flow: &'a Flow,
    by: RankBy,
) {
    let sum = hosts_by_address.entry(part.host).or_insert(HostSum {
        address: part.host,
        volume: Volume::default(),
        sent: Volume::default(),
        flows: 0,
        main: flow,
        main_volume: part.volume,
    });
    sum.volume = sum.volume.plus(part.volume);
    sum.sent = sum.sent.plus(part.sent);
    sum.flows += 1;
    if flow_order(flow, part.volume, by) < flow_order(sum.main, sum.main_volume, by) {
        (sum.main, sum.main_volume) = (flow, part.volume);
    }
}

fn flow_order(flow: &Flow, volume: Volume, by: RankBy) -> impl Ord + use<> {
    let weight = Reverse(by.weight(volume));
    (weight, flow.original, flow.zone, flow.id)
}

/// The first `top` in order; linear in what is left out.
fn keep_top<T, K: Ord>(rows: &mut Vec<T>, top: usize, order: impl Fn(&T) -> K) {
    if top < rows.len() {
        rows.select_nth_unstable_by_key(top, &order);
        rows.truncate(top);
    }
    rows.sort_unstable_by_key(order);
}

fn rest(all: Volume, named: impl Iterator<Item = Volume>) -> Volume {
    all.since(named.fold(Volume::default(), Volume::plus))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drilldown::attribution::Belongs;
    use crate::kernel::conntrack::{Detail, FlowRecord, Tuple};

    fn flow(port: u16) -> Flow {
        let tuple = Tuple {
            source: [10, 0, 0, 1].into(),
            destination: [10, 0, 0, 2].into(),
            protocol: 6,
            detail: Detail::Ports {
                source: port,
                destination: 80,
            },
        };
        let volume = Volume {
            bytes: 10,
            packets: 1,
        };
        let record = FlowRecord {
            original: tuple,
            reply: tuple,
            zone: 0,
            id: 1,
            status: 0,
            original_volume: Some(volume),
            reply_volume: None,
            start: None,
            stop: None,
            labels: None,
            mark: 0,
            tcp_state: None,
        };
        let belongs = Belongs {
            original: true,
            reply: false,
            approximate: false,
        };
        Flow::first_seen(&record, belongs, true)
    }

    #[test]
    fn equals_fall_by_tuple_whatever_order_they_came_in() {
        let flows: Vec<Flow> = (0..50).rev().map(flow).collect();
        let mut top: Vec<&Flow> = flows.iter().collect();
        keep_top(&mut top, 3, |flow| {
            flow_order(flow, flow.moved(), RankBy::Bytes)
        });
        let expected = [0, 1, 2].map(flow);
        assert_eq!(top, expected.iter().collect::<Vec<_>>());
    }

    #[test]
    fn packets_outweigh_bytes_where_they_rank() {
        let (many, large) = (
            Volume {
                bytes: 1,
                packets: 9,
            },
            Volume {
                bytes: 9,
                packets: 1,
            },
        );
        assert!(RankBy::Packets.weight(many) > RankBy::Packets.weight(large));
        assert!(RankBy::Bytes.weight(large) > RankBy::Bytes.weight(many));
    }
}
