//! Names for maps where one ruleset succeeds another, such that no packet is missed. While the kernel changes a map, a packet
//! may find in it neither what it held nor what it will hold. So a map is left alone where an element of a counter that stays
//! would come, go, or move to another map: its successor has another name, is made beside it, and the rules go over from
//! one to the other at once.

use std::collections::{BTreeMap, BTreeSet};

use super::content::Content;
use super::diff::{self, Inventory};
use super::ruleset::{Element, Field, ObjectMap, Rule, Ruleset};
use crate::units::CounterName;

/// Gives maps of `new` the names that they have in `old`, which is in force, or others where they cannot take over in
/// place. Returns whether there are such: then they must be there before the rules go over to them.
pub fn succeed(old: &Ruleset, new: &mut Ruleset) -> bool {
    let moved = moved(old, new);
    let taken: BTreeSet<&str> = old.maps.iter().map(|map| map.name.as_str()).collect();
    let mut renamed = !moved.is_empty();
    let names = names(new, |map| {
        let before = old.maps.iter().find(|old| plain(&old.name) == map.name)?;
        if before.is_interval() == map.is_interval() && !moved.contains(&map.name) {
            return Some(before.name.clone());
        }
        renamed = true;
        Some(free(&map.name, &taken))
    });
    rename(new, &names);
    renamed
}

/// The same where `existing` is what the table holds: a map that is not exactly as wanted has a successor.
pub fn replace(existing: &Inventory, new: &mut Ruleset) -> bool {
    let taken: BTreeSet<&str> = existing.maps.keys().map(String::as_str).collect();
    let mut remade = false;
    let names = names(new, |map| {
        let content = Content::of(map);
        let same = existing.maps.iter();
        let mut same = same.filter(|(name, _)| plain(name) == map.name);
        if let Some((name, _)) = same.find(|(_, found)| **found == content) {
            return Some(name.clone());
        }
        remade = true;
        Some(free(&map.name, &taken))
    });
    rename(new, &names);
    remade && !taken.is_empty()
}

/// A name without the letter that tells a successor.
fn plain(name: &str) -> &str {
    let number = name.rfind(|character: char| character.is_ascii_digit());
    number.map_or(name, |at| &name[..=at])
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

fn names(
    new: &Ruleset,
    mut name_of: impl FnMut(&ObjectMap) -> Option<String>,
) -> BTreeMap<String, String> {
    let named = |map: &ObjectMap| Some((map.name.clone(), name_of(map)?));
    new.maps.iter().filter_map(named).collect()
}

fn rename(ruleset: &mut Ruleset, names: &BTreeMap<String, String>) {
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
}

/// The elements that go from a map or come to it, of one counter.
#[derive(Default)]
struct Steps<'r> {
    go: Vec<(&'r str, &'r Element)>,
    come: Vec<(&'r str, &'r Element)>,
}

/// The maps, by their plain names, in which packets of a counter that stays would find another element, or would find it
/// no more.
fn moved(old: &Ruleset, new: &Ruleset) -> BTreeSet<String> {
    let [before, after] = [old, new].map(by_plain_name);
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
                    moved.extend([from, to].map(|name| (*name).to_owned()));
                }
            }
        }
    }
    moved
}

fn by_plain_name(ruleset: &Ruleset) -> BTreeMap<&str, &ObjectMap> {
    let maps = ruleset.maps.iter();
    maps.map(|map| (plain(&map.name), map)).collect()
}
