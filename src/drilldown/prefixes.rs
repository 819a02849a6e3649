//! A set of addresses given as prefixes, asked once a flow: sorted disjoint ranges and a binary search. Nested and
//! repeated prefixes are one range.

use std::net::IpAddr;

use ipnet::IpNet;

/// Addresses given as prefixes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PrefixSet {
    /// First and last address of each range, ascending, disjoint.
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl PrefixSet {
    /// All addresses in any of `prefixes`.
    pub fn new(prefixes: impl IntoIterator<Item = IpNet>) -> Self {
        let mut set = PrefixSet::default();
        for prefix in prefixes {
            match prefix {
                IpNet::V4(net) => set.v4.push((net.network().into(), net.broadcast().into())),
                IpNet::V6(net) => set.v6.push((net.network().into(), net.broadcast().into())),
            }
        }
        keep_outermost(&mut set.v4);
        keep_outermost(&mut set.v6);
        set
    }

    /// Takes in what `other` has.
    pub fn extend(&mut self, other: &PrefixSet) {
        self.v4.extend(&other.v4);
        self.v6.extend(&other.v6);
        keep_outermost(&mut self.v4);
        keep_outermost(&mut self.v6);
    }

    /// The address, where there is but one.
    pub fn only_address(&self) -> Option<IpAddr> {
        match (self.v4.as_slice(), self.v6.as_slice()) {
            ([(first, last)], []) if first == last => Some(IpAddr::V4((*first).into())),
            ([], [(first, last)]) if first == last => Some(IpAddr::V6((*first).into())),
            _ => None,
        }
    }

    /// Whether `address` is in one of the prefixes.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => covers(&self.v4, address.into()),
            IpAddr::V6(address) => covers(&self.v6, address.into()),
        }
    }
}

/// Two prefixes are nested or disjoint, so after sorting an inner one follows its outer one.
fn keep_outermost<T: Copy + Ord>(ranges: &mut Vec<(T, T)>) {
    ranges.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
    let mut last = None;
    ranges.retain(|&(_, end)| {
        let outermost = last.is_none_or(|outer| end > outer);
        if outermost {
            last = Some(end);
        }
        outermost
    });
}

fn covers<T: Copy + Ord>(ranges: &[(T, T)], address: T) -> bool {
    let following = ranges.partition_point(|&(start, _)| start <= address);
    following
        .checked_sub(1)
        .is_some_and(|at| address <= ranges[at].1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nested_prefixes_are_one_range() {
        let nets = ["10.1.0.0/16", "10.0.0.0/8", "10.0.0.0/24", "0.0.0.0/32"];
        let set = PrefixSet::new(nets.map(|net| net.parse().unwrap()));
        assert_eq!(set.v4.len(), 2);
        assert!(set.contains("10.255.0.1".parse().unwrap()));
        assert!(!set.contains("11.0.0.0".parse().unwrap()));
        assert!(!set.contains("::10.1.0.1".parse().unwrap()));
    }

    proptest! {
        #[test]
        fn agrees_with_asking_every_prefix(
            nets in prop::collection::vec((any::<u8>(), 0u8..=32), 0..20),
            address in any::<u8>(),
        ) {
            let net = |(last, length): (u8, u8)| {
                ipnet::Ipv4Net::new([10, 0, 0, last].into(), length).unwrap().trunc()
            };
            let nets: Vec<IpNet> = nets.into_iter().map(net).map(IpNet::V4).collect();
            let address = IpAddr::from([10, 0, 0, address]);
            let naive = nets.iter().any(|net| net.contains(&address));
            prop_assert_eq!(PrefixSet::new(nets).contains(address), naive);
        }
    }
}
