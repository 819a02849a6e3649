//! Which conntrack label bits stand for which interface. Flows carry them as long as they live, so an interface keeps
//! its bits whatever becomes of the file around it, and bits of interfaces that went are the last to be used again.

use std::collections::{BTreeMap, BTreeSet};

use super::Config;
use crate::units::InterfaceName;

/// Bits of a conntrack label.
pub(super) const LABEL_BITS: u8 = 128;
/// Bits an interface takes: arrived by it, left by it.
pub(super) const BITS_AN_INTERFACE: u8 = 2;

/// The first label bit of each interface, those included that the configuration no longer has.
pub type LabelsByInterface = BTreeMap<InterfaceName, u8>;

impl Config {
    /// Which bits its interfaces have.
    pub fn labels(&self) -> LabelsByInterface {
        let interfaces = self.interfaces.iter();
        interfaces
            .map(|interface| (interface.name.clone(), interface.label))
            .collect()
    }

    /// Gives every interface the bits it has in `before`, and the others bits that none of them had, as far as there
    /// are any. Returns what to remember.
    pub fn keep_labels(&mut self, before: &LabelsByInterface) -> LabelsByInterface {
        let base = self.drilldown.label_base;
        let usable = |bit: u8| {
            bit >= base
                && (bit - base).is_multiple_of(BITS_AN_INTERFACE)
                && bit <= LABEL_BITS - BITS_AN_INTERFACE
        };
        let mut kept = LabelsByInterface::new();
        for interface in &self.interfaces {
            let known = before.get(&interface.name).copied();
            kept.extend(
                known
                    .filter(|bit| usable(*bit))
                    .map(|bit| (interface.name.clone(), bit)),
            );
        }
        let mut taken: BTreeSet<u8> = kept.values().copied().collect();
        let gone: LabelsByInterface = (before.iter())
            .filter(|(name, _)| self.interface(name).is_none())
            .map(|(name, bit)| (name.clone(), *bit))
            .collect();
        let remembered: BTreeSet<u8> = gone.values().copied().collect();
        for interface in &mut self.interfaces {
            interface.label = match kept.get(&interface.name) {
                Some(bit) => *bit,
                None => {
                    let free =
                        || (0..LABEL_BITS).filter(|bit| usable(*bit) && !taken.contains(bit));
                    let fresh = free().find(|bit| !remembered.contains(bit));
                    // A valid configuration has bits for all its interfaces.
                    fresh.or_else(|| free().next()).unwrap_or(interface.label)
                }
            };
            taken.insert(interface.label);
            kept.insert(interface.name.clone(), interface.label);
        }
        kept.extend(gone.into_iter().filter(|(_, bit)| !taken.contains(bit)));
        kept
    }
}

/// Whether a bit stood for another interface before, so that flows of then cannot be told from those of now.
pub fn contradict(before: &LabelsByInterface, now: &LabelsByInterface) -> bool {
    before.iter().any(|(name, bit)| match now.get(name) {
        Some(same) => same != bit,
        None => now.values().any(|taken| taken == bit),
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::config;
    use super::*;

    fn labels(text: &str, before: &LabelsByInterface) -> (Vec<u8>, LabelsByInterface) {
        let mut config = config(text);
        let kept = config.keep_labels(before);
        let bits = config.interfaces.iter().map(|interface| interface.label);
        (bits.collect(), kept)
    }

    fn interfaces(names: &[&str]) -> String {
        let lines = names
            .iter()
            .map(|name| format!("interfaces.{name}.device = \"{name}\"\n"));
        lines.collect()
    }

    #[test]
    fn an_interface_keeps_its_bits_when_others_come_and_go() {
        let (bits, kept) = labels(&interfaces(&["wan", "lan"]), &LabelsByInterface::new());
        assert_eq!(bits, [0, 2]);
        let (bits, kept) = labels(&interfaces(&["dmz", "lan"]), &kept);
        assert_eq!(bits, [4, 2], "not those of wan, whose flows may live on");
        let (bits, _) = labels(&interfaces(&["dmz", "lan", "wan"]), &kept);
        assert_eq!(bits, [4, 2, 0]);
    }

    #[test]
    fn bits_of_interfaces_that_went_are_used_again_when_there_are_no_others() {
        let base = "drilldown.label_base = 124\n";
        let (_, kept) = labels(
            &(base.to_owned() + &interfaces(&["a", "b"])),
            &LabelsByInterface::new(),
        );
        let (bits, kept) = labels(&(base.to_owned() + &interfaces(&["c", "b"])), &kept);
        assert_eq!(bits, [124, 126]);
        assert_eq!(kept.len(), 2, "a has lost its bits: {kept:?}");
    }

    #[test]
    fn bits_that_stand_for_another_interface_contradict_and_those_that_came_or_went_do_not() {
        let of = |names: &[&str]| config(&interfaces(names)).labels();
        let before = of(&["wan", "lan"]);
        for (now, wanted) in [
            (of(&["wan", "lan"]), false),
            (of(&["wan", "lan", "dmz"]), false),
            (of(&["wan"]), false),
            (of(&["lan", "wan"]), true),
            (of(&["lan"]), true),
            (of(&["wan", "dmz"]), true),
        ] {
            assert_eq!(contradict(&before, &now), wanted, "{now:?}");
        }
    }

    #[test]
    fn bits_below_another_base_are_given_up() {
        let (_, kept) = labels(&interfaces(&["wan", "lan"]), &LabelsByInterface::new());
        let text = "drilldown.label_base = 3\n".to_owned() + &interfaces(&["lan", "wan"]);
        assert_eq!(labels(&text, &kept).0, [3, 5]);
    }
}
