//! Where one ruleset succeeds another, by way of which a packet is never missed. While the kernel changes a map, a packet may
//! find in it neither what it held nor what it will hold. So a map is left alone where an element of a counter that stays
//! would come, go, or move to another map: a successor of another name is made beside it, the rules go over to that one
//! at once, and back when the map is what it shall be.

use std::collections::{BTreeMap, BTreeSet};

use super::content::Content;
use super::diff::{self, Inventory};
use super::ruleset::{Element, Field, ObjectMap, Rule, Ruleset};
use crate::units::CounterName;

/// By way of which ruleset `new` succeeds `old`, which is in force: `new` with successors for some of its maps. `None`
/// where each map can change in place.
pub fn between(old: &Ruleset, new: &Ruleset) -> Option<Ruleset> {
    let moved = moved(old, new);
    let taken: BTreeSet<&str> = old.maps.iter().map(|map| map.name.as_str()).collect();
    let names = (new.maps.iter()).filter_map(|map| {
        let before = old.maps.iter().find(|old| old.name == map.name)?;
        let goes_on = before.is_interval() == map.is_interval() && !moved.contains(&*map.name);
        (!goes_on).then(|| (map.name.as_str(), free(&map.name, &taken)))
    });
    let names: BTreeMap<&str, String> = names.collect();
    (!names.is_empty() || !moved.is_empty()).then(|| renamed(new, &names))
}

/// The same where `existing` is what the table holds: a map that is not exactly as wanted has a successor.
pub fn replacing(existing: &Inventory, new: &Ruleset) -> Option<Ruleset> {
    let taken: BTreeSet<&str> = existing.maps.keys().map(String::as_str).collect();
    let names = (new.maps.iter()).filter_map(|map| {
        let found = existing.maps.get(&map.name);
        let is_wanted = found.is_some_and(|found| *found == Content::of(map));
        (!is_wanted).then(|| (map.name.as_str(), free(&map.name, &taken)))
    });
    let names: BTreeMap<&str, String> = names.collect();
    (!names.is_empty() && !taken.is_empty()).then(|| renamed(new, &names))
}

/// The name itself, or with a letter where it is taken.
fn free(name: &str, taken: &BTreeSet<&str>) -> String {
    let mut successors = ('b'..='z').map(|letter| format!("{name}{letter}"));
    match taken.contains(name) {
        false => name.to_owned(),
        true => successors
            .find(|name| !taken.contains(name.as_str()))
            .unwrap_or_else(|| name.to_owned()),
    }
}

fn renamed(ruleset: &Ruleset, names: &BTreeMap<&str, String>) -> Ruleset {
    let mut ruleset = ruleset.clone();
    let rules = (ruleset.chains.iter_mut()).flat_map(|chain| &mut chain.rules);
    let of_rules = rules.filter_map(|rule| {
        let Rule::Count { map, .. } = rule else {
            return None;
        };
        Some(map)
    });
    let of_maps = ruleset.maps.iter_mut().map(|map| &mut map.name);
    for name in of_maps.chain(of_rules) {
        if let Some(other) = names.get(name.as_str()) {
            name.clone_from(other);
        }
    }
    ruleset
}

/// The elements that go from a map or come to it, of one counter.
#[derive(Default)]
struct Steps<'r> {
    go: Vec<(&'r str, &'r Element)>,
    come: Vec<(&'r str, &'r Element)>,
}

/// The maps in which packets of a counter that stays would find another element, or would find it no more.
fn moved<'r>(old: &'r Ruleset, new: &'r Ruleset) -> BTreeSet<&'r str> {
    let [before, after] = [old, new].map(by_name);
    let names: BTreeSet<&str> = before.keys().chain(after.keys()).copied().collect();
    let mut steps: BTreeMap<(&[Field], &CounterName), Steps<'_>> = BTreeMap::new();
    for name in names {
        let maps = [before.get(name), after.get(name)];
        let [old, new] = maps.map(|map| map.map_or(&[][..], |map| map.elements.as_slice()));
        let fields = maps.into_iter().flatten().next();
        let fields = fields.map_or(&[][..], |map| map.fields.as_slice());
        let (go, come) = diff::differences(old, new);
        for element in go {
            let of_counter = steps.entry((fields, &element.counter)).or_default();
            of_counter.go.push((name, element));
        }
        for element in come {
            let of_counter = steps.entry((fields, &element.counter)).or_default();
            of_counter.come.push((name, element));
        }
    }
    let mut moved = BTreeSet::new();
    for Steps { go, come } in steps.values() {
        for (from, goes) in go {
            for (to, comes) in come {
                if goes.overlaps(comes) {
                    moved.extend([*from, *to]);
                }
            }
        }
    }
    moved
}

fn by_name(ruleset: &Ruleset) -> BTreeMap<&str, &ObjectMap> {
    let maps = ruleset.maps.iter();
    maps.map(|map| (map.name.as_str(), map)).collect()
}
