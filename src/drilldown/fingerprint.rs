//! Fingerprints of flows: keyed hashes of all that tells one from another, small enough for a million to be kept.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;

use crate::drilldown::flow::FlowKey;
use crate::kernel::conntrack::Detail;

/// One flow's: two of a million share one with a probability of one in 30 million.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u32; 2]);

/// Makes them, with a key of its own.
#[derive(Debug, Default)]
pub struct Fingerprints {
    hasher: RandomState,
}

impl Fingerprint {
    fn new(hash: u64) -> Self {
        Fingerprint([hash as u32, (hash >> 32) as u32])
    }

    /// For a table of them: it is a keyed hash already.
    pub fn hash(self) -> u64 {
        let [low, high] = self.0.map(u64::from);
        low | high << 32
    }
}

impl Fingerprints {
    /// Of a flow.
    pub fn of(&self, key: &FlowKey) -> Fingerprint {
        Fingerprint::new(self.hasher.hash_one(packed(key)))
    }

    /// Of the flow with that start, where another one has its tuple and its id, and their fingerprint.
    pub fn apart(&self, fingerprint: Fingerprint, start: u32) -> Fingerprint {
        Fingerprint::new(self.hasher.hash_one((fingerprint, start)))
    }
}

/// All that tells a flow apart, as a few numbers: to hash many small fields one by one takes longer.
fn packed((zone, id, original): &FlowKey) -> [u64; 6] {
    let (source, destination) = (bits(original.source), bits(original.destination));
    let detail = match original.detail {
        Detail::None => 0,
        Detail::Ports {
            source,
            destination,
        } => 1 << 32 | u64::from(source) << 16 | u64::from(destination),
        Detail::Icmp { id, kind, code } => {
            2 << 32 | u64::from(id) << 16 | u64::from(kind) << 8 | u64::from(code)
        }
    };
    let versions = u64::from(original.source.is_ipv6());
    let rest = u64::from(*zone) << 16 | u64::from(original.protocol) << 8 | versions;
    [
        source as u64,
        (source >> 64) as u64,
        destination as u64,
        (destination >> 64) as u64,
        detail,
        u64::from(*id) << 32 | rest,
    ]
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u32::from(v4).into(),
        IpAddr::V6(v6) => v6.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drilldown::flow::key;
    use crate::drilldown::tally::tests::record;

    #[test]
    fn flows_that_differ_in_anything_are_packed_apart() {
        let base = key(&record("10.0.0.1", 1_000));
        let with = |change: &dyn Fn(&mut FlowKey)| {
            let mut changed = base;
            change(&mut changed);
            packed(&changed)
        };
        let icmp = |id, kind, code| Detail::Icmp { id, kind, code };
        let all = [
            packed(&base),
            with(&|key| key.0 = 1),
            with(&|key| key.1 = 2),
            with(&|key| key.2.source = "10.0.0.2".parse().unwrap()),
            with(&|key| key.2.source = "::10.0.0.1".parse().unwrap()),
            with(&|key| key.2.destination = "10.0.0.1".parse().unwrap()),
            with(&|key| key.2.protocol = 17),
            with(&|key| key.2.detail = Detail::None),
            with(&|key| key.2.detail = icmp(1_000, 1, 187)),
            with(&|key| key.2.detail = icmp(1_000, 1, 188)),
            with(&|key| key.2.detail = icmp(1_000, 2, 187)),
        ];
        let apart: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(apart.len(), all.len());
    }
}
