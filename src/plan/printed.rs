//! The ruleset as a file that others load: whole, as often as they like, and with a comment by which flowctl knows that
//! the configuration made the table, and of which rules. The comment depends on the rules alone.

use super::ruleset::Ruleset;
use super::text;

/// What a table's comment says that was loaded; the digest of its rules follows. nft takes comments of up to 127 bytes.
const LOADED: &str = "loaded by configuration for flowctl, layout 1, rules ";

/// Who made a table, as far as its comment tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Maker {
    /// A daemon of flowctl's.
    Flowctl,
    /// Whoever loaded what `flowctl plan --format nft` printed.
    Configuration,
    /// Somebody else.
    Others,
}

impl Maker {
    /// Of a table with that comment. A mark of another layout is a mark too.
    pub fn of(comment: Option<&str>) -> Self {
        let mark = LOADED
            .split_once(", layout")
            .map_or(LOADED, |(mark, _)| mark);
        match comment {
            Some(text::TABLE_COMMENT) => Maker::Flowctl,
            Some(comment) if comment.starts_with(mark) => Maker::Configuration,
            Some(_) | None => Maker::Others,
        }
    }
}

/// The comment of the table when it is loaded with these rules.
pub fn comment(ruleset: &Ruleset) -> String {
    format!("{LOADED}{:016x}", digest(&text::render(ruleset)))
}

/// The file. Loaded again it replaces its own table, at once and with counters at 0.
pub fn render(ruleset: &Ruleset) -> String {
    let table = &ruleset.table;
    format!(
        "# Made by `flowctl plan --format nft`. Do not edit: change the configuration, and make it anew.\n\
         table inet {table}\n\
         delete table inet {table}\n\
         {}",
        text::render_as(ruleset, &comment(ruleset))
    )
}

/// FNV-1a, 64 bits, over the words of a text: how it is laid out does not matter.
fn digest(text: &str) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    let words = text.split_whitespace();
    let bytes = words.flat_map(|word| word.bytes().chain([b' ']));
    bytes.fold(OFFSET, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(PRIME)
    })
}

#[cfg(test)]
mod tests {
    use super::super::compile;
    use super::*;
    use crate::config::{Format, parse};

    fn ruleset(text: &str) -> Ruleset {
        compile(&parse(text, Format::Toml).unwrap())
    }

    #[test]
    fn the_digest_is_the_published_one() {
        // The test vector of FNV-1a for "foobar" has no blank at its end.
        assert_eq!(digest(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(digest("a\n\t b"), digest("a b"));
        assert_ne!(digest("a b"), digest("ab"));
    }

    #[test]
    fn the_comment_changes_with_the_rules_and_with_nothing_else() {
        let wan = "interfaces.wan.device = \"wan0\"\n";
        let one = comment(&ruleset(wan));
        assert!(one.len() <= 127, "{one}");
        let same = format!(
            "tick = \"5s\"\ntable.static = true\n{wan}interfaces.wan.capacity.in = \"1Gbit/s\""
        );
        assert_eq!(comment(&ruleset(&same)), one);
        for other in [
            "interfaces.wan.device = \"wan1\"\n",
            "interfaces.net.device = \"wan0\"\n",
            &format!("{wan}subnets.home = \"10.0.0.0/8\""),
            &format!("{wan}thresholds.t = {{ counter = \"wan_in\", raise = \"1kbit/s\" }}"),
            &format!("table.name = \"other\"\n{wan}"),
        ] {
            assert_ne!(comment(&ruleset(other)), one, "{other}");
        }
    }

    #[test]
    fn a_table_says_who_made_it() {
        let loaded = comment(&ruleset(""));
        assert_eq!(Maker::of(Some(&loaded)), Maker::Configuration);
        let later = loaded.replace("layout 1", "layout 2");
        assert_eq!(Maker::of(Some(&later)), Maker::Configuration);
        assert_eq!(Maker::of(Some(text::TABLE_COMMENT)), Maker::Flowctl);
        assert_eq!(Maker::of(Some("mine")), Maker::Others);
        assert_eq!(Maker::of(None), Maker::Others);
    }
}
