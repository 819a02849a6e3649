//! What must change in the kernel to get from one ruleset to another. Counters that stay are not touched, so they
//! keep their values; rules are few and are always written anew.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use super::content::Content;
use super::ruleset::{Chain, Element, ObjectMap, Ruleset};
use crate::units::CounterName;

/// What the table holds: all that is needed to replace what is not as wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Counter objects.
    pub counters: BTreeSet<String>,
    /// Named sets and maps, with their content.
    pub maps: BTreeMap<String, Content>,
    /// Chains, with hook number and priority for base chains.
    pub chains: BTreeMap<String, Option<(u32, i32)>>,
}

/// The change: first what comes beside what is there, then all rules are written anew, and at last goes what no rule looks
/// into any more.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes<'a> {
    /// Elements to take out of maps that stay.
    pub remove_elements: Vec<(&'a ObjectMap, Vec<&'a Element>)>,
    /// Maps to delete, by name.
    pub remove_maps: Vec<String>,
    /// Chains to delete, by name.
    pub remove_chains: Vec<String>,
    /// Counters to delete, by name.
    pub remove_counters: Vec<String>,
    /// Counters to create.
    pub add_counters: Vec<&'a CounterName>,
    /// Maps to create with all their elements.
    pub add_maps: Vec<&'a ObjectMap>,
    /// Elements to put into maps that stay.
    pub add_elements: Vec<(&'a ObjectMap, Vec<&'a Element>)>,
}

/// From whatever the table holds to `new`: a map that is not exactly as wanted is made anew.
pub fn replace<'a>(existing: &Inventory, new: &'a Ruleset) -> Changes<'a> {
    let wanted: BTreeSet<&str> = new.counters.iter().map(CounterName::as_str).collect();
    let keep_chain = |chain: &Chain| {
        existing
            .chains
            .get(chain.name)
            .is_some_and(|base| *base == place(chain))
    };
    let kept_chains: BTreeSet<&str> = new
        .chains
        .iter()
        .filter(|chain| keep_chain(chain))
        .map(|chain| chain.name)
        .collect();
    let keep_map = |map: &&ObjectMap| {
        existing
            .maps
            .get(&map.name)
            .is_some_and(|content| *content == Content::of(map))
    };
    let kept_maps: BTreeSet<&str> = new
        .maps
        .iter()
        .filter(keep_map)
        .map(|map| map.name.as_str())
        .collect();
    Changes {
        remove_maps: existing
            .maps
            .keys()
            .filter(|name| !kept_maps.contains(name.as_str()))
            .cloned()
            .collect(),
        remove_chains: existing
            .chains
            .keys()
            .filter(|name| !kept_chains.contains(name.as_str()))
            .cloned()
            .collect(),
        remove_counters: existing
            .counters
            .iter()
            .filter(|name| !wanted.contains(name.as_str()))
            .cloned()
            .collect(),
        add_counters: new
            .counters
            .iter()
            .filter(|name| !existing.counters.contains(name.as_str()))
            .collect(),
        add_maps: new
            .maps
            .iter()
            .filter(|map| !kept_maps.contains(map.name.as_str()))
            .collect(),
        ..Changes::default()
    }
}

/// From `old`, known to be in force unharmed, to `new`.
pub fn between<'a>(old: &'a Ruleset, new: &'a Ruleset) -> Changes<'a> {
    let old_counters: BTreeSet<&CounterName> = old.counters.iter().collect();
    let new_counters: BTreeSet<&CounterName> = new.counters.iter().collect();
    let old_maps: BTreeMap<&str, &ObjectMap> = old
        .maps
        .iter()
        .map(|map| (map.name.as_str(), map))
        .collect();
    let new_maps: BTreeMap<&str, &ObjectMap> = new
        .maps
        .iter()
        .map(|map| (map.name.as_str(), map))
        .collect();
    // A map's name says its fields, so a map of the same name and kind differs only in its elements.
    let stays = |map: &ObjectMap| {
        let [old, new] = [&old_maps, &new_maps].map(|maps| maps.get(map.name.as_str()));
        old.zip(new)
            .is_some_and(|(old, new)| old.is_interval() == new.is_interval())
    };
    let mut changes = Changes {
        remove_maps: (old.maps.iter())
            .filter(|map| !stays(map))
            .map(|map| map.name.clone())
            .collect(),
        remove_chains: missing_chains(old, new)
            .map(|chain| chain.name.to_owned())
            .collect(),
        remove_counters: old_counters
            .difference(&new_counters)
            .map(ToString::to_string)
            .collect(),
        add_counters: new_counters.difference(&old_counters).copied().collect(),
        add_maps: new.maps.iter().filter(|map| !stays(map)).collect(),
        ..Changes::default()
    };
    for new_map in new.maps.iter().filter(|map| stays(map)) {
        let Some(old_map) = old_maps.get(new_map.name.as_str()) else {
            continue;
        };
        let (removed, added) = differences(&old_map.elements, &new_map.elements);
        if !removed.is_empty() {
            changes.remove_elements.push((old_map, removed));
        }
        if !added.is_empty() {
            changes.add_elements.push((new_map, added));
        }
    }
    changes
}

/// What only the first has, and what only the second has, both sorted.
pub(super) fn differences<'e>(
    old: &'e [Element],
    new: &'e [Element],
) -> (Vec<&'e Element>, Vec<&'e Element>) {
    let (mut removed, mut added) = (Vec::new(), Vec::new());
    let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return (removed, added),
            (Some(old), Some(new)) => old.cmp(new),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
        };
        match order {
            Ordering::Less => removed.extend(old.next()),
            Ordering::Greater => added.extend(new.next()),
            Ordering::Equal => {
                old.next();
                new.next();
            }
        }
    }
}

fn missing_chains<'a>(of: &'a Ruleset, in_: &'a Ruleset) -> impl Iterator<Item = &'a Chain> {
    of.chains
        .iter()
        .filter(|chain| !in_.chains.iter().any(|other| other.name == chain.name))
}

/// Hook number and priority, as the kernel reports them.
fn place(chain: &Chain) -> Option<(u32, i32)> {
    chain.base.map(|base| (base.hook.number(), base.priority))
}
