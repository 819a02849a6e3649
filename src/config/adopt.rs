//! The named counters of a running ruleset as configuration: each gets a name of its own that flowctl takes. Pure text:
//! nothing is known here of the kernel, nor which flows belong to a counter.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::keyword::is_keyword;
use super::naming::{first_free, shaped};
use crate::units::{CounterName, ExistingCounter, TableFamily};

/// Before a counter's name that does not begin with a letter.
const PREFIX: &str = "c_";

/// A section for each of `counters` but those in `own_tables`, which are flowctl's. The names `taken` are those that the
/// rest of the configuration has. Empty where there is no counter.
pub fn render(
    counters: &[ExistingCounter],
    own_tables: &[&str],
    taken: &BTreeSet<String>,
) -> String {
    let is_own = |counter: &&ExistingCounter| {
        let table = counter.table();
        table.family() == TableFamily::Inet && own_tables.contains(&table.name())
    };
    let others: BTreeSet<&ExistingCounter> =
        counters.iter().filter(|counter| !is_own(counter)).collect();
    if others.is_empty() {
        return String::new();
    }
    let mut text = String::from(
        "# Counters that this machine's ruleset declares; flowctl only reads them. Give in, out, from or to beside existing\n\
         # to say which flows belong to one: a threshold with a drilldown needs that.\n",
    );
    let mut taken = taken.clone();
    for counter in others {
        let name = free_name(counter, &taken);
        let _ = write!(text, "[counters.{name}]\nexisting = \"{counter}\"\n\n");
        taken.insert(name);
    }
    text.pop();
    text
}

/// The counter's own name as far as it can be kept, then with its table's name before it, then numbered.
fn free_name(counter: &ExistingCounter, taken: &BTreeSet<String>) -> String {
    let short = shaped(counter.counter(), PREFIX);
    let long = format!("{}_{}", counter.table().name(), counter.counter());
    first_free([short], shaped(&long, PREFIX), |name| {
        !taken.contains(name) && !is_keyword(name) && CounterName::new(name).is_ok()
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::config;
    use super::*;

    fn existing(text: &str) -> ExistingCounter {
        ExistingCounter::parse(text).unwrap()
    }

    /// The names that these counters get, beside interface `wan`, by what they read.
    fn adopted(counters: &[&str]) -> Vec<(String, String)> {
        let counters: Vec<ExistingCounter> = counters.iter().map(|text| existing(text)).collect();
        let taken = ["wan_in", "wan_out"].map(str::to_owned).into();
        let text = render(&counters, &["flowctl"], &taken);
        let config = config(&format!("interfaces.wan.device = \"e\"\n{text}"));
        let read = config.counters.iter().filter_map(|counter| {
            let existing = counter.existing.as_ref()?;
            Some((counter.name.to_string(), existing.to_string()))
        });
        read.collect()
    }

    #[test]
    fn named_counters_become_sections() {
        let text = render(
            &[existing("ip t b"), existing("inet t a")],
            &["flowctl"],
            &BTreeSet::new(),
        );
        let (_, sections) = text.split_once("needs that.\n").unwrap();
        assert_eq!(
            sections,
            "[counters.a]\nexisting = \"inet t a\"\n\n[counters.b]\nexisting = \"ip t b\"\n"
        );
        let own = ["flowctl", "flowctl_drilldown"];
        assert_eq!(render(&[], &own, &BTreeSet::new()), "");
        let counters = ["inet flowctl a", "inet flowctl_drilldown passed_1"].map(existing);
        assert_eq!(render(&counters, &own, &BTreeSet::new()), "");
    }

    #[test]
    fn names_are_ones_that_flowctl_takes_and_no_two_the_same() {
        let pair = |name: &str, read: &str| (name.to_owned(), read.to_owned());
        let long = "x".repeat(200);
        let read = adopted(&[
            "inet flowctl mine",
            "inet fw4 wan_in",
            "inet fw4 Wan-In.4",
            "inet fw4 wan_in_4",
            "inet fw4 0day",
            "inet fw4 counter",
            "ip fw4 wan_in_4",
            &format!("ip6 fw4 {long}"),
            &format!("ip6 fw4 {long}y"),
        ]);
        assert_eq!(
            read,
            [
                pair("c_0day", "inet fw4 0day"),
                pair("wan_in_4", "inet fw4 Wan-In.4"),
                pair("fw4_counter", "inet fw4 counter"),
                pair("fw4_wan_in", "inet fw4 wan_in"),
                pair("fw4_wan_in_4", "inet fw4 wan_in_4"),
                pair("fw4_wan_in_4_2", "ip fw4 wan_in_4"),
                pair(&"x".repeat(64), &format!("ip6 fw4 {long}")),
                pair(
                    &format!("fw4_{}", "x".repeat(60)),
                    &format!("ip6 fw4 {long}y")
                ),
            ]
        );
    }

    proptest! {
        #[test]
        fn whatever_a_ruleset_declares_is_a_configuration(
            names in proptest::collection::btree_set(("[a-cA-C_.][a-c0-9_./-]{0,3}", "[a-bA-B_][a-b1_.-]{0,70}"), 1..40)
        ) {
            let texts: Vec<String> = (names.iter())
                .map(|(table, counter)| format!("inet {table} {counter}"))
                .collect();
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            prop_assert_eq!(adopted(&texts).len(), names.len());
        }
    }
}
