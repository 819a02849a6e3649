//! `existing` under `[counters.NAME]`: a counter that someone else declared. It stands outside flowctl's own table, and
//! no two counters read the same one.

use super::problem::quoted;
use super::problems::{Problems, Wrong};
use super::suggest::nearest;
use super::tree::Node;
use super::value::text;
use crate::units::{ExistingCounter, ExistingCounterError, TableFamily};

const REMEDY: &str =
    "write a family, a table and a counter, such as \"inet accounting wan_bytes_in\"";

/// The counter that `node` names; `None`, and a problem, where there is none, or where `reader` knows who of those before
/// reads it.
pub(super) fn read<'n>(
    node: &Node,
    own_table: &str,
    reader: impl Fn(&ExistingCounter) -> Option<&'n Node>,
    problems: &mut Problems<'_>,
) -> Option<ExistingCounter> {
    let written = problems.check(node, text(node, REMEDY))?;
    let parsed = ExistingCounter::parse(written).map_err(|error| wrong(&error));
    let existing = problems.check(node, parsed)?;
    let table = existing.table();
    if table.family() == TableFamily::Inet && table.name() == own_table {
        let remedy = "leave existing out: in, out, from and to make a counter of flowctl's own";
        problems.wrong(node, Wrong::new("is in flowctl's own table", remedy));
        return None;
    }
    if let Some(other) = reader(&existing) {
        let (path, line) = (&other.path, problems.line(other.key.start));
        let message = format!("is read twice: by {path} on line {line} too");
        problems.wrong(node, Wrong::new(message, "keep one of the two"));
        return None;
    }
    Some(existing)
}

fn wrong(error: &ExistingCounterError) -> Wrong {
    let remedy = match error {
        ExistingCounterError::Family { word } => {
            match nearest(word, TableFamily::ALL.map(TableFamily::word)) {
                Some(near) => format!("did you mean {}?", quoted(near)),
                None => {
                    let families = TableFamily::ALL.map(TableFamily::word).join(", ");
                    format!("begin with one of {families}")
                }
            }
        }
        ExistingCounterError::Words | ExistingCounterError::Name => REMEDY.to_owned(),
    };
    Wrong::new(error.to_string(), remedy)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{config, messages, problems};
    use crate::units::BitRate;

    fn with(counters: &str) -> String {
        format!(
            "interfaces.wan = {{ device = \"ppp0\", capacity.out = \"50Mbit/s\" }}\n\
             interfaces.lan.device = \"br0\"\n[counters]\n{counters}\n"
        )
    }

    #[test]
    fn an_existing_counter_is_read_as_it_is_named() {
        let config = config(&with(
            "old = { existing = \"inet accounting in\", in = \"lan\", out = \"wan\" }",
        ));
        let old = config.counters.last().unwrap();
        let existing = old.existing.as_ref().unwrap();
        assert_eq!(existing.to_string(), "inet accounting in");
        assert_eq!(old.capacity, Some(BitRate(50e6)));
        assert!(old.selectors.leaves());
        let own: Vec<&str> = config.own_counters().map(|own| own.name.as_str()).collect();
        assert_eq!(own, ["wan_in", "wan_out", "lan_in", "lan_out"]);
    }

    #[test]
    fn what_names_no_counter_of_others_says_what_would() {
        let such_as =
            "write a family, a table and a counter, such as \"inet accounting wan_bytes_in\"";
        for (existing, message, remedy) in [
            (
                "\"accounting wan\"",
                "is not three words: a family, a table and a counter",
                such_as,
            ),
            (
                "\"inett accounting wan\"",
                "does not begin with a family of tables",
                "did you mean \"inet\"?",
            ),
            (
                "\"x accounting wan\"",
                "does not begin with a family of tables",
                "begin with one of inet, ip, ip6, bridge, arp, netdev",
            ),
            (
                "\"inet accounting {wan\"",
                "has a name that nft does not take: letters, digits, _, ., / and - are, at most 255 of them",
                such_as,
            ),
            (
                "\"inet flowctl wan_in\"",
                "is in flowctl's own table",
                "leave existing out: in, out, from and to make a counter of flowctl's own",
            ),
            ("true", "is true or false, not text in quotes", such_as),
        ] {
            let found = problems(&with(&format!("old.existing = {existing}")));
            assert_eq!(found.len(), 1, "{existing}");
            assert_eq!(found[0].key_path, "counters.old.existing");
            assert_eq!(
                (found[0].message.as_str(), found[0].remedy.as_str()),
                (message, remedy),
                "{existing}"
            );
        }
        let renamed = with("old.existing = \"inet mine a\"") + "[table]\nname = \"mine\"";
        assert_eq!(messages(&renamed), ["is in flowctl's own table"]);
        config(&with("old.existing = \"ip flowctl wan_in\""));
    }

    #[test]
    fn no_two_counters_read_the_same() {
        let text = with("a.existing = \"inet t c\"\nb.existing = \"inet  t c\"");
        assert_eq!(
            messages(&text),
            ["is read twice: by counters.a on line 4 too"]
        );
        config(&with("a.existing = \"inet t c\"\nb.existing = \"ip t c\""));
    }
}
