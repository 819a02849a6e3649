//! Ranks what a tally holds. Ties fall by address and tuple, never by chance, and what is not named is summed:
//! named + remainder = all.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::drilldown::flow::{Flow, FlowKey, Service};
use crate::drilldown::shares::KnownHosts;
use crate::drilldown::tally::{Host, Tally};
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

/// The top of each view, and the sums of the rest.
#[derive(Debug, Clone)]
pub struct Ranking {
    /// By inside host.
    pub hosts: Ranked<HostSum>,
    /// By outside end.
    pub outside: Ranked<(IpAddr, Volume)>,
    /// By service.
    pub services: Ranked<(Service, Volume)>,
    /// By flow.
    pub flows: Ranked<(FlowKey, Flow)>,
    /// Of all flows.
    pub moved: Volume,
}

/// The top of one view.
#[derive(Debug, Clone)]
pub struct Ranked<T> {
    /// The first are the largest.
    pub named: Vec<T>,
    /// Of those not named.
    pub remainder: Volume,
    /// How many there were, named or not.
    pub total: u64,
    /// Whether one that is not named may have moved more than one that is: there were more than can be kept.
    pub uncertain: bool,
}

/// One inside host's part: a device with one address or several.
#[derive(Debug, Clone)]
pub struct HostSum {
    /// Those that moved anything, the largest first.
    pub addresses: Vec<IpAddr>,
    /// Of all of them.
    pub host: Host,
}

impl HostSum {
    /// The one that moved most.
    pub fn address(&self) -> IpAddr {
        self.addresses[0]
    }
}

/// The `top` rows of each view of `tally`; `known` tells which addresses are one device.
pub fn rank(tally: &Tally, top: usize, known: &dyn KnownHosts) -> Ranking {
    let whole = Whole {
        by: tally.by(),
        moved: tally.moved(),
        top,
    };
    let hosts = devices(tally, known);
    let joined = (tally.hosts.rows().len() - hosts.len()) as u64;
    Ranking {
        hosts: whole.ranked(
            hosts,
            tally.hosts.keys() - joined,
            tally.hosts.lacking(),
            |row| (row.host.volume, row.address()),
        ),
        outside: whole.ranked(
            tally.outside.rows().to_vec(),
            tally.outside.keys(),
            tally.outside.lacking(),
            |row| (row.1, row.0),
        ),
        services: whole.ranked(
            tally.services.rows().to_vec(),
            tally.services.keys(),
            tally.services.lacking(),
            |row| (row.1, row.0),
        ),
        flows: whole.ranked(
            tally.flows.rows().to_vec(),
            tally.flows_total(),
            tally.flows.lacking(),
            |row| (row.1.moved(), (row.0.2, row.0.0, row.0.1)),
        ),
        moved: tally.moved(),
    }
}

/// What all rows are parts of.
struct Whole {
    by: RankBy,
    moved: Volume,
    top: usize,
}

impl Whole {
    fn ranked<T, K: Ord>(
        &self,
        mut rows: Vec<T>,
        total: u64,
        lacking: Volume,
        of: impl Fn(&T) -> (Volume, K),
    ) -> Ranked<T> {
        let order = |row: &T| {
            let (volume, key) = of(row);
            (Reverse(self.by.weight(volume)), key)
        };
        if self.top < rows.len() {
            rows.select_nth_unstable_by_key(self.top, order);
            rows.truncate(self.top);
        }
        rows.sort_unstable_by_key(order);
        let named = rows.iter().map(|row| of(row).0);
        let smallest = named.clone().map(|volume| self.by.weight(volume).0).min();
        Ranked {
            remainder: self
                .moved
                .since(named.fold(Volume::default(), Volume::plus)),
            uncertain: smallest.is_some_and(|least| self.by.weight(lacking).0 >= least),
            total,
            named: rows,
        }
    }
}

/// All hosts, those of one device as one.
fn devices(tally: &Tally, known: &dyn KnownHosts) -> Vec<HostSum> {
    let by = tally.by();
    let mut rows = tally.hosts.rows().to_vec();
    rows.sort_unstable_by_key(|(address, host)| (Reverse(by.weight(host.volume)), *address));
    let mut sums: Vec<HostSum> = Vec::with_capacity(rows.len());
    let mut positions_by_device = BTreeMap::new();
    for (address, host) in rows {
        let device = known.device(address);
        let position =
            device.map(|device| *positions_by_device.entry(device).or_insert(sums.len()));
        match position.and_then(|position| sums.get_mut(position)) {
            Some(sum) => {
                sum.addresses.push(address);
                sum.host = sum.host.with(host, by);
            }
            None => sums.push(HostSum {
                addresses: vec![address],
                host,
            }),
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drilldown::shares::{Device, Known};
    use crate::units::Mac;

    fn volume(bytes: u64, packets: u64) -> Volume {
        Volume { bytes, packets }
    }

    #[test]
    fn equals_fall_by_key_whatever_order_they_came_in() {
        let whole = Whole {
            by: RankBy::Bytes,
            moved: volume(500, 50),
            top: 3,
        };
        let rows: Vec<u32> = (0..50).rev().collect();
        let ranked = whole.ranked(rows, 50, Volume::default(), |row| (volume(10, 1), *row));
        assert_eq!(ranked.named, [0, 1, 2]);
        assert_eq!((ranked.remainder.bytes, ranked.uncertain), (470, false));
    }

    #[test]
    fn a_row_that_others_may_exceed_is_uncertain() {
        let whole = Whole {
            by: RankBy::Bytes,
            moved: volume(500, 50),
            top: 1,
        };
        let ranked = |lacking| whole.ranked(vec![7], 2, lacking, |row| (volume(10, 1), *row));
        assert!(!ranked(volume(9, 0)).uncertain && ranked(volume(10, 0)).uncertain);
    }

    #[test]
    fn packets_outweigh_bytes_where_they_rank() {
        let (many, large) = (volume(1, 9), volume(9, 1));
        assert!(RankBy::Packets.weight(many) > RankBy::Packets.weight(large));
        assert!(RankBy::Bytes.weight(large) > RankBy::Bytes.weight(many));
    }

    struct OneDevice;

    impl KnownHosts for OneDevice {
        fn known(&self, _: IpAddr) -> Known {
            Known::default()
        }

        fn device(&self, address: IpAddr) -> Option<Device> {
            Mac::new([2, 0, 0, 0, 0, 1])
                .filter(|_| address.is_ipv6())
                .map(Device)
        }
    }

    #[test]
    fn addresses_of_one_device_are_one_row() {
        use crate::drilldown::tally::tests::{add, host_scope};
        let mut tally = Tally::new(RankBy::Bytes, 10);
        for (source, bytes) in [("fd00::1", 100), ("10.0.0.2", 150), ("fd00::2", 120)] {
            add(&mut tally, &host_scope(), source, bytes);
        }
        let ranking = rank(&tally, 10, &OneDevice);
        let hosts = &ranking.hosts.named;
        assert_eq!(
            hosts[0].addresses,
            ["fd00::2", "fd00::1"].map(|a| a.parse::<IpAddr>().unwrap())
        );
        assert_eq!((hosts[0].host.volume.bytes, hosts[0].host.flows), (220, 2));
        assert_eq!((ranking.hosts.total, hosts.len()), (2, 2));
    }
}
