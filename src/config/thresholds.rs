//! `[thresholds.NAME]`: raise and clear become rates of one kind, percentages by the counter's capacity.

use std::time::Duration;

use super::counters::{Capacity, CounterDraft, CounterDrafts};
use super::problems::{Problems, Wrong};
use super::rate::{Level, level};
use super::reader::{Given, Table, name, named_entries};
use super::suggest::instead_of;
use super::tree::{Entry, Node};
use super::value::{boolean, duration, text};
use super::{Levels, Threshold};
use crate::units::{BitRate, PacketRate, ThresholdName};

const HOLD: Duration = Duration::from_secs(3);
const RELEASE: Duration = Duration::from_secs(10);

/// Clear where none is given, as a part of raise.
const CLEAR_OF_RAISE: f64 = 0.8;

/// `[thresholds]`, in the order of the file; those with a problem are left out.
pub(super) fn read(
    root: &mut Table<'_>,
    counters: &CounterDrafts<'_>,
    problems: &mut Problems<'_>,
) -> Vec<Threshold> {
    named_entries(root, "thresholds", problems)
        .iter()
        .filter_map(|entry| threshold(entry, counters, problems))
        .collect()
}

fn threshold(
    entry: &Entry,
    counters: &CounterDrafts<'_>,
    problems: &mut Problems<'_>,
) -> Option<Threshold> {
    let Entry {
        name: written,
        node,
    } = entry;
    let name = name(written, node, ThresholdName::new, problems);
    let mut table = Table::open(node, problems)?;
    let counter = counter(&mut table, counters, problems);
    let levels = levels(&mut table, counter, problems);
    let hold = table.read("hold", problems, duration);
    let release = table.read("release", problems, duration).or(RELEASE);
    let drilldown = table.read("drilldown", problems, boolean).or(true);
    if drilldown && let Some(counter) = counter {
        check_flows(&mut table, counter, problems);
    }
    table.finish(problems);
    let levels = levels?;
    Some(Threshold {
        name: name?,
        counter: counter?.name.clone()?,
        levels,
        // Any traffic at all is reason enough: waiting would miss a single packet.
        hold: hold.or(if raises_at_zero(levels) {
            Duration::ZERO
        } else {
            HOLD
        }),
        release,
        drilldown,
    })
}

/// A drilldown must know which flows belong to the counter.
fn check_flows(table: &mut Table<'_>, counter: &CounterDraft<'_>, problems: &mut Problems<'_>) {
    if counter.has_unknown_flows()
        && let Some(node) = table.take("counter")
    {
        let message = "is a counter of others that says nothing of its flows: no drilldown can tell who moved its bytes";
        let remedy = format!(
            "give in, out, from or to beside {}.existing, or drilldown = false here",
            counter.node.path
        );
        problems.undefined(node, Wrong::new(message, remedy));
    }
}

fn raises_at_zero(levels: Levels) -> bool {
    match levels {
        Levels::Bits { raise, .. } => raise.0 == 0.0,
        Levels::Packets { raise, .. } => raise.0 == 0.0,
    }
}

fn counter<'c, 'n>(
    table: &mut Table<'_>,
    counters: &'c CounterDrafts<'n>,
    problems: &mut Problems<'_>,
) -> Option<&'c CounterDraft<'n>> {
    let Some(node) = table.take("counter") else {
        let remedy = "add counter = \"NAME\", for example an interface's NAME_out";
        problems.missing(table.node, Wrong::new("has no counter", remedy));
        return None;
    };
    let written = problems.check(node, text(node, "write the name of a counter"))?;
    let counter = counters.find(written);
    if counter.is_none() {
        let define = "define it under counters, or use one that an interface or a subnet brings";
        let remedy = instead_of(written, counters.names(), define);
        problems.undefined(node, Wrong::new("is not a defined counter", remedy));
    }
    counter
}

fn levels(
    table: &mut Table<'_>,
    counter: Option<&CounterDraft<'_>>,
    problems: &mut Problems<'_>,
) -> Option<Levels> {
    let raise = table.read("raise", problems, level);
    let clear = table.read("clear", problems, level);
    let raise = match (raise, table.take("raise")) {
        (Given::Is(raise), Some(node)) => (raise, node),
        (Given::Absent, _) => {
            let remedy = "add raise = \"40Mbit/s\", \"20kpps\" or \"80%\"";
            problems.missing(table.node, Wrong::new("has no raise", remedy));
            return None;
        }
        _ => return None,
    };
    let clear = match (clear, table.take("clear")) {
        (Given::Is(clear), Some(node)) => Some((clear, node)),
        (Given::Absent, _) => None,
        _ => return None,
    };
    if let Some((clear, node)) = clear
        && is_packets(clear) != is_packets(raise.0)
    {
        let message = "is of another kind than raise";
        let remedy = "use packet rates for both or for neither";
        problems.wrong(node, Wrong::new(message, remedy));
        return None;
    }
    let (raise_amount, clear_amount) = amounts(raise, clear, counter, problems)?;
    Some(if is_packets(raise.0) {
        Levels::Packets {
            raise: PacketRate(raise_amount),
            clear: PacketRate(clear_amount),
        }
    } else {
        Levels::Bits {
            raise: BitRate(raise_amount),
            clear: BitRate(clear_amount),
        }
    })
}

/// Raise and clear, of one kind, in units per second.
fn amounts(
    raise: (Level, &Node),
    clear: Option<(Level, &Node)>,
    counter: Option<&CounterDraft<'_>>,
    problems: &mut Problems<'_>,
) -> Option<(f64, f64)> {
    let levels = [Some(raise), clear];
    let percentage = levels
        .into_iter()
        .flatten()
        .find(|(level, _)| is_percentage(*level));
    let capacity = match percentage {
        Some((_, node)) => capacity(node, counter, problems),
        None => Some(0.0),
    };
    // Two percentages compare without it.
    let base = match clear {
        Some((clear, _)) if is_percentage(raise.0) && is_percentage(clear) => {
            capacity.or(Some(1.0))
        }
        _ => capacity,
    }?;
    let raise_amount = amount(raise.0, base);
    let clear_amount = match clear {
        Some((clear, _)) => amount(clear, base),
        None => raise_amount * CLEAR_OF_RAISE,
    };
    match clear {
        Some((_, node)) if clear_amount > raise_amount => {
            let remedy = "write at most what raise says, or leave it out for 80 % of raise";
            problems.wrong(node, Wrong::new("is above raise", remedy));
            None
        }
        _ => capacity.map(|_| (raise_amount, clear_amount)),
    }
}

fn is_packets(level: Level) -> bool {
    matches!(level, Level::Packets(_))
}

fn is_percentage(level: Level) -> bool {
    matches!(level, Level::Percent(_))
}

fn amount(level: Level, capacity: f64) -> f64 {
    match level {
        Level::Bits(rate) => rate.0,
        Level::Packets(rate) => rate.0,
        Level::Percent(percent) => capacity * percent / 100.0,
    }
}

/// What the percentage at `node` is taken of; `None`, and a problem, where nobody said.
fn capacity(
    node: &Node,
    counter: Option<&CounterDraft<'_>>,
    problems: &mut Problems<'_>,
) -> Option<f64> {
    match &counter?.capacity {
        Capacity::Known(rate) => return Some(rate.0),
        Capacity::Wrong => {}
        Capacity::NotSaid(keys) => {
            let message = "is a percentage of a capacity that is not given";
            let remedy = format!("add {}, or write a rate", keys.join(" and "));
            problems.undefined(node, Wrong::new(message, remedy));
        }
        Capacity::NoLink => {
            let message =
                "is a percentage, but the counter selects no interface and so has no capacity";
            problems.undefined(
                node,
                Wrong::new(message, "write a rate such as \"40Mbit/s\""),
            );
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::{config, messages, problems};
    use super::super::{Levels, Threshold};
    use crate::units::{BitRate, PacketRate};

    fn with(threshold: &str) -> String {
        format!(
            r#"
            interfaces.wan = {{ device = "ppp0", capacity.out = "50Mbit/s" }}
            subnets.home = "10.0.0.0/8"
            thresholds.t = {{ counter = "wan_out", {threshold} }}
            "#
        )
    }

    fn threshold(text: &str) -> Threshold {
        config(&with(text)).thresholds.remove(0)
    }

    fn bits(raise: f64, clear: f64) -> Levels {
        Levels::Bits {
            raise: BitRate(raise),
            clear: BitRate(clear),
        }
    }

    #[test]
    fn defaults_follow_from_raise() {
        let full = threshold("raise = \"80%\"");
        assert_eq!(full.levels, bits(40e6, 32e6));
        assert_eq!(full.hold, Duration::from_secs(3));
        assert_eq!(full.release, Duration::from_secs(10));
        assert!(full.drilldown);
        let any = threshold("raise = \"0bit/s\"");
        assert_eq!(any.levels, bits(0.0, 0.0));
        assert_eq!(any.hold, Duration::ZERO);
        assert_eq!(threshold("raise = \"0pps\"").hold, Duration::ZERO);
    }

    #[test]
    fn percentages_are_of_the_capacity() {
        let both = threshold("raise = \"80%\", clear = \"60%\"");
        assert_eq!(both.levels, bits(40e6, 30e6));
        let mixed = threshold("raise = \"45Mbit/s\", clear = \"50%\"");
        assert_eq!(mixed.levels, bits(45e6, 25e6));
        let equal = threshold("raise = \"33.3%\", clear = \"33.3%\"");
        assert!(matches!(equal.levels, Levels::Bits { raise, clear } if raise == clear));
    }

    #[test]
    fn packet_rates_are_a_kind_of_their_own() {
        let expected = Levels::Packets {
            raise: PacketRate(20e3),
            clear: PacketRate(5e3),
        };
        let packets = threshold("raise = \"20kpps\", clear = \"5kpps\"");
        assert_eq!(packets.levels, expected);
        for (raise, clear) in [
            ("20kpps", "1Mbit/s"),
            ("1Mbit/s", "1pps"),
            ("20kpps", "50%"),
        ] {
            let text = with(&format!("raise = \"{raise}\", clear = \"{clear}\""));
            assert_eq!(messages(&text), ["is of another kind than raise"], "{text}");
        }
    }

    #[test]
    fn clear_is_not_above_raise() {
        for levels in [
            "raise = \"60%\", clear = \"80%\"",
            "raise = \"10Mbit/s\", clear = \"11Mbit/s\"",
            "raise = \"10Mbit/s\", clear = \"80%\"",
            "raise = \"0bit/s\", clear = \"1bit/s\"",
            "raise = \"10pps\", clear = \"11pps\"",
        ] {
            assert_eq!(messages(&with(levels)), ["is above raise"], "{levels}");
        }
    }

    #[test]
    fn a_percentage_needs_the_capacity_of_its_direction() {
        let text = with("raise = \"80%\", clear = \"60%\"");
        let found = problems(&text.replace("wan_out", "wan_in"));
        assert_eq!(found.len(), 1);
        assert_eq!(
            found[0].remedy,
            "add interfaces.wan.capacity.in, or write a rate"
        );
        let found = messages(&text.replace("wan_out", "home_to"));
        assert!(found[0].contains("selects no interface"));
        let both = text.replace("wan_out", "wan_in").replace("60%", "90%");
        assert_eq!(messages(&both).len(), 2);
    }

    #[test]
    fn a_drilldown_needs_to_know_the_flows_of_a_counter_of_others() {
        let with = |counter: &str, drilldown: &str| {
            format!(
                "interfaces.wan.device = \"ppp0\"\n[counters]\nold = {{ existing = \"inet t c\"{counter} }}\n\
                 [thresholds]\nt = {{ counter = \"old\", raise = \"1pps\"{drilldown} }}\n"
            )
        };
        let found = problems(&with("", ""));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].key_path, "thresholds.t.counter");
        assert_eq!(
            found[0].remedy,
            "give in, out, from or to beside counters.old.existing, or drilldown = false here"
        );
        config(&with("", ", drilldown = false"));
        config(&with(", in = \"wan\"", ""));
        let wrong = messages(&with(", from = \"nowhere\"", ""));
        assert_eq!(wrong, ["is not a defined subnet"]);
    }

    #[test]
    fn what_is_required_is_missed() {
        assert_eq!(
            messages("[thresholds.t]\n"),
            ["has no counter", "has no raise"]
        );
        assert_eq!(messages(&with("hold = \"1s\"")), ["has no raise"]);
        let unknown = problems("thresholds.t = { counter = \"wan_out\", raise = \"1pps\" }");
        assert_eq!(unknown[0].message, "is not a defined counter");
    }
}
