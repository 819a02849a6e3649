//! All counters: those that every interface and subnet brings, and `[counters.NAME]`. Each has a name that no
//! other has and that nft accepts, selectors that some packet can match or a counter of others that it reads, and a
//! capacity where the links have one.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::existing;
use super::interfaces::{self, InterfaceDraft};
use super::keyword::is_keyword;
use super::problems::{Problems, Wrong};
use super::reader::{Given, Table, name, named_entries};
use super::subnets::{self, SubnetDraft, SubnetDrafts};
use super::tree::{Entry, Node};
use super::{Addresses, Counter, Selectors};
use crate::units::{BitRate, CounterName, ExistingCounter, InterfaceName, NameError};

/// What a percentage of a counter's capacity can be taken of.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Capacity {
    Known(BitRate),
    /// These keys are missing.
    NotSaid(Vec<String>),
    /// No interface is selected: there is no link to fill.
    NoLink,
    /// What it depends on was wrong, and is reported.
    Wrong,
}

/// A counter as far as it could be read: thresholds may refer to it all the same.
pub(super) struct CounterDraft<'n> {
    /// What makes it: its own key, an interface's or a subnet's.
    pub node: &'n Node,
    pub name: Option<CounterName>,
    /// Where it names a counter of others.
    existing_node: Option<&'n Node>,
    existing: Option<ExistingCounter>,
    /// Whether any selector is given, right or wrong.
    selects: bool,
    selectors: Selectors,
    pub capacity: Capacity,
}

impl CounterDraft<'_> {
    /// Whether it is someone else's and nobody says which flows belong to it.
    pub(super) fn has_unknown_flows(&self) -> bool {
        self.existing.is_some() && !self.selects
    }

    /// `None` where its name was wrong.
    pub(super) fn finish(self) -> Option<Counter> {
        Some(Counter {
            name: self.name?,
            existing: self.existing,
            selectors: self.selectors,
            capacity: match self.capacity {
                Capacity::Known(rate) => Some(rate),
                Capacity::NotSaid(_) | Capacity::NoLink | Capacity::Wrong => None,
            },
        })
    }
}

/// The counters, implicit ones first, and where each name stands among them.
#[derive(Default)]
pub(super) struct CounterDrafts<'n> {
    pub list: Vec<CounterDraft<'n>>,
    index_by_name: BTreeMap<String, usize>,
    index_by_existing: BTreeMap<ExistingCounter, usize>,
}

impl<'n> CounterDrafts<'n> {
    pub(super) fn find(&self, name: &str) -> Option<&CounterDraft<'n>> {
        self.index_by_name.get(name).map(|index| &self.list[*index])
    }

    /// The counter that reads that one of others.
    pub(super) fn reader(&self, existing: &ExistingCounter) -> Option<&CounterDraft<'n>> {
        let index = self.index_by_existing.get(existing);
        index.map(|index| &self.list[*index])
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.index_by_name.keys().map(String::as_str)
    }

    fn add(&mut self, written: &str, draft: CounterDraft<'n>, problems: &mut Problems<'_>) {
        if let Some(other) = self.find(written) {
            let line = problems.line(other.node.key.start);
            let message = format!(
                "given twice: {} on line {line} makes it too",
                other.node.path
            );
            let wrong = Wrong::new(message, "choose another name");
            problems.wrong_key(draft.node, wrong);
            return;
        }
        if is_keyword(written) {
            let remedy = format!("choose another name, such as \"{written}_bytes\"");
            let wrong = Wrong::new("is a keyword of nft, not a counter's name", remedy);
            problems.wrong_key(draft.node, wrong);
        }
        self.index_by_name
            .insert(written.to_owned(), self.list.len());
        if let Some(existing) = &draft.existing {
            self.index_by_existing
                .insert(existing.clone(), self.list.len());
        }
        self.list.push(draft);
    }

    /// The counters `NAME_in` and `NAME_out`, or `NAME_from` and `NAME_to`, of what `node` defines.
    fn add_implicit(
        &mut self,
        node: &'n Node,
        pair: [(Result<CounterName, NameError>, Selectors, Capacity); 2],
        problems: &mut Problems<'_>,
    ) {
        if pair.iter().any(|(name, ..)| name.is_err()) {
            let message =
                "is too long: the names of its counters would be longer than 64 characters";
            problems.wrong_key(
                node,
                Wrong::new(message, "use a name of at most 59 characters"),
            );
            return;
        }
        for (name, selectors, capacity) in pair {
            let Ok(name) = name else { continue };
            let draft = CounterDraft {
                node,
                name: Some(name.clone()),
                existing_node: None,
                existing: None,
                selects: true,
                selectors,
                capacity,
            };
            self.add(name.as_str(), draft, problems);
        }
    }
}

/// All counters of a file whose interfaces and subnets are read.
pub(super) fn read<'n>(
    root: &mut Table<'n>,
    own_table: &str,
    interfaces: &[InterfaceDraft<'n>],
    subnets: &SubnetDrafts<'n>,
    problems: &mut Problems<'_>,
) -> CounterDrafts<'n> {
    let mut counters = CounterDrafts::default();
    for interface in interfaces {
        of_interface(&mut counters, interface, problems);
    }
    for subnet in &subnets.list {
        of_subnet(&mut counters, subnet, problems);
    }
    for Entry {
        name: written,
        node,
    } in named_entries(root, "counters", problems)
    {
        let mut draft = declared(written, node, interfaces, subnets, problems);
        if let Some(node) = draft.existing_node {
            let reader = |existing: &_| counters.reader(existing).map(|draft| draft.node);
            draft.existing = existing::read(node, own_table, reader, problems);
        }
        counters.add(written, draft, problems);
    }
    counters
}

fn of_interface<'n>(
    counters: &mut CounterDrafts<'n>,
    interface: &InterfaceDraft<'n>,
    problems: &mut Problems<'_>,
) {
    let Some(name) = &interface.name else { return };
    let in_ = Selectors {
        in_: Some(vec![name.clone()]),
        ..Selectors::default()
    };
    let out = Selectors {
        out: Some(vec![name.clone()]),
        ..Selectors::default()
    };
    let pair = [
        (name.counter_in(), in_, capacity_in(&[interface])),
        (name.counter_out(), out, capacity_out(&[interface])),
    ];
    counters.add_implicit(interface.node, pair, problems);
}

fn of_subnet<'n>(
    counters: &mut CounterDrafts<'n>,
    subnet: &SubnetDraft<'n>,
    problems: &mut Problems<'_>,
) {
    let Some(name) = &subnet.name else { return };
    let from = Selectors {
        from: subnet.addresses.clone(),
        ..Selectors::default()
    };
    let to = Selectors {
        to: subnet.addresses.clone(),
        ..Selectors::default()
    };
    let pair = [
        (name.counter_from(), from, Capacity::NoLink),
        (name.counter_to(), to, Capacity::NoLink),
    ];
    counters.add_implicit(subnet.node, pair, problems);
}

fn declared<'n>(
    written: &str,
    node: &'n Node,
    interfaces: &[InterfaceDraft<'n>],
    subnets: &SubnetDrafts<'n>,
    problems: &mut Problems<'_>,
) -> CounterDraft<'n> {
    let mut draft = CounterDraft {
        node,
        name: name(written, node, CounterName::new, problems),
        existing_node: None,
        existing: None,
        selects: false,
        selectors: Selectors::default(),
        capacity: Capacity::Wrong,
    };
    let Some(mut table) = Table::open(node, problems) else {
        return draft;
    };
    draft.existing_node = table.take("existing");
    let selected = Selected::read(&mut table, interfaces, subnets, problems);
    draft.selects = !selected.is_nothing();
    if !draft.selects && draft.existing_node.is_none() {
        let remedy = "add at least one of in, out, from and to";
        problems.missing(node, Wrong::new("selects nothing", remedy));
    }
    draft.capacity = selected.capacity();
    draft.selectors = selected.into_selectors();
    table.finish(problems);
    draft
}

/// What the keys of a counter name.
struct Selected<'i, 'n> {
    in_: Given<Vec<&'i InterfaceDraft<'n>>>,
    out: Given<Vec<&'i InterfaceDraft<'n>>>,
    from: Given<Addresses>,
    to: Given<Addresses>,
}

impl<'i, 'n> Selected<'i, 'n> {
    fn read(
        table: &mut Table<'n>,
        interfaces: &'i [InterfaceDraft<'n>],
        subnets: &SubnetDrafts<'n>,
        problems: &mut Problems<'_>,
    ) -> Self {
        let mut interfaces_of = |key| match table.take(key) {
            None => Given::Absent,
            Some(node) => interfaces::referenced(node, interfaces, problems),
        };
        let (in_, out) = (interfaces_of("in"), interfaces_of("out"));
        let mut addresses_of = |key| match table.take(key) {
            None => Given::Absent,
            Some(node) => subnets::referenced(node, subnets, problems),
        };
        let (from, to) = (addresses_of("from"), addresses_of("to"));
        if let (Given::Is(from), Given::Is(to), Some(node)) = (&from, &to, table.take("to"))
            && !share_a_family(from, to)
        {
            let message = "can never match: from has only one IP version, to only the other";
            let remedy = "use prefixes of one IP version in both";
            problems.wrong(node, Wrong::new(message, remedy));
        }
        Selected { in_, out, from, to }
    }

    fn is_nothing(&self) -> bool {
        self.in_.is_absent() && self.out.is_absent() && self.from.is_absent() && self.to.is_absent()
    }

    /// A counter with `out` counts what leaves; only one without is bounded by what its links bring in.
    fn capacity(&self) -> Capacity {
        match (&self.in_, &self.out) {
            (_, Given::Is(out)) => capacity_out(out),
            (_, Given::Wrong) | (Given::Wrong, Given::Absent) => Capacity::Wrong,
            (Given::Is(in_), Given::Absent) => capacity_in(in_),
            (Given::Absent, Given::Absent) => Capacity::NoLink,
        }
    }

    fn into_selectors(self) -> Selectors {
        let names = |drafts: Vec<&InterfaceDraft<'_>>| {
            (drafts.iter().filter_map(|draft| draft.name.clone())).collect::<Vec<InterfaceName>>()
        };
        Selectors {
            in_: self.in_.known().map(names),
            out: self.out.known().map(names),
            from: self.from.known(),
            to: self.to.known(),
        }
    }
}

/// Whether they do, or may one day: what devices bring is not known.
fn share_a_family(from: &Addresses, to: &Addresses) -> bool {
    let is_four = |prefix: &IpNet| matches!(prefix, IpNet::V4(_));
    let is_six = |prefix: &IpNet| matches!(prefix, IpNet::V6(_));
    if !from.follows().is_empty() || !to.follows().is_empty() {
        return true;
    }
    let (from, to) = (from.prefixes(), to.prefixes());
    (from.iter().any(is_four) && to.iter().any(is_four))
        || (from.iter().any(is_six) && to.iter().any(is_six))
}

fn capacity_in(interfaces: &[&InterfaceDraft<'_>]) -> Capacity {
    sum(interfaces, "in", |interface| interface.capacity_in)
}

fn capacity_out(interfaces: &[&InterfaceDraft<'_>]) -> Capacity {
    sum(interfaces, "out", |interface| interface.capacity_out)
}

fn sum(
    interfaces: &[&InterfaceDraft<'_>],
    direction: &str,
    of: impl Fn(&InterfaceDraft<'_>) -> Given<BitRate>,
) -> Capacity {
    let mut total = 0.0;
    let mut missing = Vec::new();
    for interface in interfaces {
        match of(interface) {
            Given::Is(rate) => total += rate.0,
            Given::Absent => missing.push(format!("{}.capacity.{direction}", interface.node.path)),
            Given::Wrong => return Capacity::Wrong,
        }
    }
    if missing.is_empty() {
        Capacity::Known(BitRate(total))
    } else {
        Capacity::NotSaid(missing)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::super::tests::{config, messages, problems};
    use crate::units::BitRate;

    const LINKS: &str = r#"
        [interfaces]
        wan = { device = "ppp0", capacity = { in = "500Mbit/s", out = "50Mbit/s" } }
        lte = { device = "wwan0", capacity = "10Mbit/s" }
        lan.device = "br0"
        [subnets]
        home = ["192.168.1.0/24", "fd00::/64"]
        iot = "192.168.20.0/24"
        [counters]
    "#;

    fn with_links(counters: &str) -> String {
        format!("{LINKS}{counters}\n")
    }

    fn names(config: &Config) -> Vec<&str> {
        (config.counters.iter().map(|counter| counter.name.as_str())).collect()
    }

    #[test]
    fn interfaces_and_subnets_bring_two_counters_each_before_the_declared() {
        let text = "counters.up.out = \"wan\"\nsubnets.a = \"::1\"\ninterfaces.wan.device = \"e\"";
        assert_eq!(
            names(&config(text)),
            ["wan_in", "wan_out", "a_from", "a_to", "up"]
        );
    }

    #[test]
    fn prefixes_and_subnet_names_mix_and_become_a_union() {
        let text =
            with_links("a = { from = [\"iot\", \"192.168.20.7\", \"10.0.0.0/8\"], out = \"wan\" }");
        let config = config(&text);
        let from = config.counters.last().unwrap().selectors.from.as_ref();
        let shown: Vec<String> = from
            .unwrap()
            .prefixes()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(shown, ["192.168.20.0/24", "10.0.0.0/8"]);
    }

    #[test]
    fn capacity_is_that_of_the_direction_summed_over_the_interfaces() {
        for (counter, capacity) in [
            ("out = [\"wan\", \"lte\"]", Some(60e6)),
            ("in = [\"wan\", \"lte\"]", Some(510e6)),
            ("in = \"lan\", out = \"wan\"", Some(50e6)),
            ("in = \"wan\", to = \"iot\"", Some(500e6)),
            ("out = [\"wan\", \"lan\"]", None),
            ("out = [\"wan\", \"wan\"]", Some(50e6)),
            ("from = \"iot\"", None),
        ] {
            let config = config(&with_links(&format!("c = {{ {counter} }}")));
            let counter_capacity = config.counters.last().unwrap().capacity;
            assert_eq!(counter_capacity, capacity.map(BitRate), "{counter}");
        }
    }

    #[test]
    fn a_counter_selects_something_that_is_defined_and_can_match() {
        for (counter, message) in [
            ("c = {}", "selects nothing"),
            ("c.in = \"wann\"", "is not a defined interface"),
            ("c.from = \"hom\"", "is not a defined subnet"),
            (
                "c.from = \"192.168.1.5/24\"",
                "has host bits set; the network is 192.168.1.0/24",
            ),
            ("c.from = \"192.168.1\"", "is not a prefix"),
            ("c.out = []", "is empty"),
            ("c.to = []", "is empty"),
            (
                "c = { from = \"iot\", to = \"fd00::/64\" }",
                "can never match: from has only one IP version, to only the other",
            ),
        ] {
            assert_eq!(messages(&with_links(counter)), [message], "{counter}");
        }
        config(&with_links("c = { from = \"home\", to = \"fd00:2::/64\" }"));
    }

    #[test]
    fn a_reference_to_nothing_suggests_the_nearest_name() {
        let found = problems(&with_links("c = { in = \"wann\", to = \"hom\" }"));
        let remedies: Vec<&str> = found
            .iter()
            .map(|problem| problem.remedy.as_str())
            .collect();
        assert_eq!(
            remedies,
            ["did you mean \"wan\"?", "did you mean \"home\"?"]
        );
    }

    #[test]
    fn a_name_that_another_counter_has_names_both_places() {
        let found = messages("[interfaces.wan]\ndevice = \"e\"\n[counters.wan_in]\nin = \"wan\"\n");
        assert_eq!(
            found,
            ["given twice: interfaces.wan on line 1 makes it too"]
        );
    }

    #[test]
    fn a_counter_is_not_named_like_a_keyword_of_nft() {
        let message = "is a keyword of nft, not a counter's name";
        assert_eq!(messages(&with_links("ip.in = \"wan\"")), [message]);
        config("interfaces.ip.device = \"e\"");
    }

    #[test]
    fn a_name_leaves_room_for_the_suffixes() {
        let interface = |length| format!("interfaces.{}.device = \"e\"", "a".repeat(length));
        config(&interface(60));
        assert!(messages(&interface(61))[0].starts_with("is too long"));
        let subnet = |length| format!("subnets.{} = \"::1\"", "a".repeat(length));
        config(&subnet(59));
        assert!(messages(&subnet(60))[0].starts_with("is too long"));
    }

    #[test]
    fn a_wrong_definition_is_not_reported_again_where_it_is_used() {
        let text = r#"
            interfaces.Wan = { device = "e", capacity = "50" }
            subnets.home = "10.0.0.1/8"
            counters.c = { out = "Wan", from = "home", to = "::/0" }
            thresholds.t = { counter = "c", raise = "80%" }
        "#;
        assert_eq!(messages(text).len(), 3);
    }
}
