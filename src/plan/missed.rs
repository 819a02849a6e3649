//! What no conntrack entry explains, as the temporary rules of a drilldown counted it: pure arithmetic on what was read.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::units::Volume;

/// How many sources are named.
const SOURCES_NAMED: usize = 16;

/// Packets of one counter that belong to no flow conntrack keeps, since the rules are there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Missed {
    /// Of packets that conntrack was told not to track, or judges invalid.
    pub untracked: Volume,
    /// Of packets that were dropped before conntrack kept their flow: by the firewall, or because there was no way on.
    pub unconfirmed: Volume,
    /// Of ICMP errors, and of the resets by which a firewall rejects: they belong to a flow that does not count them.
    pub icmp_error: Volume,
    /// Who sent what is `untracked` or `unconfirmed`, largest first, at most 16. Sums to at most those two.
    pub sources: Vec<(IpAddr, Volume)>,
}

/// The rules' counters at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Arrived while conntrack had not yet kept their flow.
    pub unconfirmed: Volume,
    /// The same where nothing drops them any more. Read after `unconfirmed`.
    pub passed: Volume,
    /// See [`Missed::untracked`].
    pub untracked: Volume,
    /// See [`Missed::icmp_error`].
    pub icmp_error: Volume,
    /// `unconfirmed` and `untracked` by source, as far as there was room.
    pub by_source: BTreeMap<IpAddr, Volume>,
    /// `passed` by source, of those only. Read after `by_source`.
    pub passed_by_source: BTreeMap<IpAddr, Volume>,
}

impl Missed {
    /// What arrived and did not pass, with what conntrack does not track at all.
    pub fn of(counts: Counts) -> Missed {
        let passed = |source: &IpAddr| counts.passed_by_source.get(source).copied();
        let stayed = counts.by_source.iter().map(|(source, arrived)| {
            let passed = passed(source).unwrap_or_default();
            (*source, arrived.since(passed))
        });
        let mut sources: Vec<(IpAddr, Volume)> =
            stayed.filter(|(_, stayed)| stayed.packets > 0).collect();
        // Stable: sources of the same volume stay in the order of their addresses.
        sources.sort_by_key(|(_, volume)| std::cmp::Reverse((volume.bytes, volume.packets)));
        sources.truncate(SOURCES_NAMED);
        let unconfirmed = counts.unconfirmed.since(counts.passed);
        // What passes while the sums are read is missing from them, and from no source.
        let mut rest = counts.untracked.plus(unconfirmed);
        for (_, volume) in &mut sources {
            volume.bytes = volume.bytes.min(rest.bytes);
            volume.packets = volume.packets.min(rest.packets);
            rest = rest.since(*volume);
        }
        Missed {
            untracked: counts.untracked,
            unconfirmed,
            icmp_error: counts.icmp_error,
            sources,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(packets: u64) -> Volume {
        Volume {
            bytes: packets * 100,
            packets,
        }
    }

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn what_passed_was_not_dropped() {
        let missed = Missed::of(Counts {
            unconfirmed: volume(10),
            passed: volume(7),
            untracked: volume(2),
            icmp_error: volume(1),
            by_source: [(address(1), volume(5)), (address(2), volume(7))].into(),
            passed_by_source: [(address(1), volume(5)), (address(2), volume(2))].into(),
        });
        assert_eq!(missed.unconfirmed, volume(3));
        assert_eq!(missed.untracked, volume(2));
        assert_eq!(missed.icmp_error, volume(1));
        assert_eq!(missed.sources, [(address(2), volume(5))]);
    }

    #[test]
    fn what_passes_while_it_is_read_makes_nothing_negative() {
        let missed = Missed::of(Counts {
            unconfirmed: volume(10),
            passed: volume(11),
            by_source: [(address(1), volume(10))].into(),
            passed_by_source: [(address(1), volume(11))].into(),
            ..Counts::default()
        });
        assert_eq!(missed, Missed::default());
    }

    #[test]
    fn sources_are_no_more_than_the_sums() {
        let by_source = [(address(1), volume(5)), (address(2), volume(4))];
        let missed = Missed::of(Counts {
            unconfirmed: volume(9),
            passed: volume(2),
            by_source: by_source.into(),
            ..Counts::default()
        });
        let named = [(address(1), volume(5)), (address(2), volume(2))];
        assert_eq!(missed.sources, named);
    }

    #[test]
    fn the_largest_sources_are_named() {
        let by_source = (0..40).map(|last| (address(last), volume(u64::from(last) / 2)));
        let missed = Missed::of(Counts {
            unconfirmed: volume(1_000),
            by_source: by_source.collect(),
            ..Counts::default()
        });
        let named: Vec<IpAddr> = missed.sources.iter().map(|(source, _)| *source).collect();
        let pairs = (12..20_u8).rev().flat_map(|pair| [pair * 2, pair * 2 + 1]);
        assert_eq!(named, pairs.map(address).collect::<Vec<_>>());
    }
}
