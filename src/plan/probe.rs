//! Temporary rules of a drilldown: within the scope of its counter they count the packets that no conntrack entry will
//! ever explain, and who sent them. They stand in a table of their own, just behind the counters and again where
//! nothing drops any more; what conntrack keeps passes them after one look. Pure: what is installed, as values.
//!
//! A packet whose flow is not confirmed counts where it arrives and again where it passes: the difference is what
//! was dropped, and conntrack never kept it. Counters that count behind the firewall need no second place.

use std::collections::BTreeMap;

use super::keys_of;
use super::ruleset::{Base, Field, Hook, KeyValue, Side};
use super::{INGRESS_PRIORITY, LEAVING_PRIORITY};
use crate::config::{Config, Selectors};

/// How many drilldowns have rules at a time: each costs what is not established a look at its scope.
pub const WATCHES_MAX: usize = 16;
/// How many sources of each family are told apart, in each of the two places. A flood under forged addresses fills
/// that much memory and no more; what does not fit is in the sums only.
pub const SOURCES_MAX: u32 = 4096;
/// By which people know the table.
pub const TABLE_COMMENT: &str = "managed by flowctl while a drilldown goes on";

/// Behind all that anyone may want to do with a packet; conntrack confirms a flow at the next, which is the last.
const PASSING_PRIORITY: i32 = i32::MAX - 1;
const INGRESS: &str = "ingress";
const INPUT: &str = "input";
const FORWARD: &str = "forward";
const PASSING: &str = "passing";
const LEAVING: &str = "leaving";
const OUTPUT: &str = "output";
const ICMP_ERRORS: &str = "icmp_errors";
const LOOPED: &str = "looped";

/// The table beside the one of that name.
pub fn table_name(main: &str) -> String {
    format!("{main}_drilldown")
}

/// The packets of one counter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watch {
    leaves: bool,
    scopes: Vec<Scope>,
}

/// Packets whose key is any of these.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Scope {
    fields: Vec<Field>,
    keys: Vec<Vec<KeyValue>>,
}

/// All that the table holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// Counter objects.
    pub counters: Vec<String>,
    /// Named sets.
    pub sets: Vec<Set>,
    /// Base chains and those that they jump to.
    pub chains: Vec<Chain>,
}

/// A named set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// Its name.
    pub name: String,
    /// What is in it.
    pub content: SetContent,
}

/// What a set holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetContent {
    /// Keys of packets, as in an object map.
    Keys {
        /// What a key is made of.
        fields: Vec<Field>,
        /// No two of them match one packet.
        keys: Vec<Vec<KeyValue>>,
    },
    /// Source addresses with a counter each, filled by rules up to [`SOURCES_MAX`].
    Sources(Family),
    /// The types of ICMP errors (IPv4).
    IcmpErrors,
    /// The packet types of copies that loop back.
    Looped,
}

/// Which internet protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Where a packet of it says who sent it.
    pub fn source(self) -> Field {
        match self {
            Family::V4 => Field::Source4,
            Family::V6 => Field::Source6,
        }
    }
}

/// A chain and its rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Its name.
    pub name: String,
    /// Where packets enter; `None` for a chain that is jumped to.
    pub base: Option<Base>,
    /// In order; each is what it asks of a packet and then does with it.
    pub rules: Vec<Vec<Term>>,
}

/// One term of a rule. None of them drops or changes a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Term {
    /// It is of that family.
    Family(Family),
    /// `ct state`: any of these.
    State(&'static [State]),
    /// `ct status`: whether conntrack keeps its flow. Neither, where it has none.
    Confirmed(bool),
    /// `ct direction reply`.
    Reply,
    /// `meta l4proto`.
    Protocol(u8),
    /// It is an ICMP error, where it is ICMP for IPv4; their types are in that set.
    IcmpError(&'static str),
    /// It is an ICMP error, where it is ICMPv6.
    Icmpv6Error,
    /// It arrives, or leaves, by `lo`.
    Loopback(Side),
    /// It is a looped copy of one of the router's own broadcasts or multicasts; their types are in that set.
    Looped(&'static str),
    /// Its key is in that set.
    Within {
        /// What the key is made of.
        fields: Vec<Field>,
        /// The set's name.
        set: String,
    },
    /// Counts in the object of that name.
    Count(String),
    /// Its source is not in that set.
    NotAmong(Family, String),
    /// Counts for its source in that set, where there is room.
    Remember(Family, String),
    /// Goes to that chain and comes back.
    Jump(String),
    /// Goes to that chain and comes back where this chain would.
    Goto(String),
    /// This chain has nothing more to do with it.
    Return,
}

/// What conntrack says of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It has no entry, and should have one.
    Invalid,
    /// Its flow has seen packets both ways.
    Established,
    /// Its flow is expected by another, or it is an error about another.
    Related,
    /// Its flow has seen packets one way, or this is the first.
    New,
    /// Conntrack was told to leave it alone.
    Untracked,
}

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];
const ICMP: u8 = 1;
const TCP: u8 = 6;
const ICMPV6: u8 = 58;

impl Watch {
    /// What these selectors mean; nothing where there are none.
    pub fn new(config: &Config, selectors: &Selectors) -> Watch {
        let shapes = if selectors.is_empty() {
            Vec::new()
        } else {
            keys_of(config, selectors)
        };
        let scopes = shapes
            .into_iter()
            .map(|(fields, keys)| Scope { fields, keys });
        Watch {
            leaves: selectors.leaves(),
            scopes: scopes.filter(|scope| !scope.keys.is_empty()).collect(),
        }
    }

    /// Whether it counts behind the firewall, where nothing is dropped after it.
    pub fn leaves(&self) -> bool {
        self.leaves
    }
}

/// The names of what counts for the drilldown of a number.
#[derive(Debug, Clone, Copy)]
pub struct Names(pub u32);

impl Names {
    /// Arrived while their flow was not confirmed.
    pub fn unconfirmed(self) -> String {
        format!("unconfirmed_{}", self.0)
    }

    /// The same where nothing drops them any more.
    pub fn passed(self) -> String {
        format!("passed_{}", self.0)
    }

    /// Not tracked, or invalid.
    pub fn untracked(self) -> String {
        format!("untracked_{}", self.0)
    }

    /// ICMP errors and resets.
    pub fn icmp_error(self) -> String {
        format!("icmp_error_{}", self.0)
    }

    /// The sources of what is unconfirmed or untracked.
    pub fn sources(self, family: Family) -> String {
        format!("sources{}_{}", digit(family), self.0)
    }

    /// The same of what passed.
    pub fn passed_sources(self, family: Family) -> String {
        format!("passed{}_{}", digit(family), self.0)
    }

    fn scope(self, scope: &Scope) -> String {
        let family = family(&scope.fields).map_or("", digit);
        format!("scope{family}_{}", self.0)
    }

    fn chain(self, what: &str) -> String {
        format!("{what}_{}", self.0)
    }
}

fn digit(family: Family) -> &'static str {
    match family {
        Family::V4 => "4",
        Family::V6 => "6",
    }
}

/// Which family a key is of; `None` where it has no address.
fn family(fields: &[Field]) -> Option<Family> {
    fields.iter().find_map(|field| match field {
        Field::Source4 | Field::Destination4 => Some(Family::V4),
        Field::Source6 | Field::Destination6 => Some(Family::V6),
        Field::ArrivesBy | Field::LeavesBy => None,
    })
}

impl Rules {
    /// Those of all drilldowns, by number.
    pub fn of(watches: &BTreeMap<u32, Watch>) -> Rules {
        let mut rules = Rules::default();
        if watches.is_empty() {
            return rules;
        }
        rules.add_set(ICMP_ERRORS, SetContent::IcmpErrors);
        rules.add_set(LOOPED, SetContent::Looped);
        for (number, watch) in watches {
            rules.add_objects(Names(*number), watch);
        }
        let arriving = watches.iter().filter(|(_, watch)| !watch.leaves);
        let leaving = watches.iter().filter(|(_, watch)| watch.leaves);
        rules.add_arriving(&arriving.collect::<Vec<_>>());
        rules.add_leaving(&leaving.collect::<Vec<_>>());
        rules
    }

    fn add_set(&mut self, name: &str, content: SetContent) {
        let name = name.to_owned();
        self.sets.push(Set { name, content });
    }

    fn add_chain(&mut self, name: &str, base: Option<Base>, rules: Vec<Vec<Term>>) {
        let name = name.to_owned();
        self.chains.push(Chain { name, base, rules });
    }

    /// What counts, and the chains in which it does.
    fn add_objects(&mut self, names: Names, watch: &Watch) {
        self.counters
            .extend([names.untracked(), names.icmp_error()]);
        for scope in &watch.scopes {
            let content = SetContent::Keys {
                fields: scope.fields.clone(),
                keys: scope.keys.clone(),
            };
            self.add_set(&names.scope(scope), content);
        }
        for family in FAMILIES {
            self.add_set(&names.sources(family), SetContent::Sources(family));
        }
        let remember = FAMILIES.map(|family| {
            let set = names.sources(family);
            vec![Term::Family(family), Term::Remember(family, set)]
        });
        self.add_chain(&names.chain("sources"), None, remember.into());
        if watch.leaves {
            self.add_chain(&names.chain("left"), None, left(names));
            return;
        }
        self.counters.extend([names.unconfirmed(), names.passed()]);
        for family in FAMILIES {
            self.add_set(&names.passed_sources(family), SetContent::Sources(family));
        }
        self.add_chain(&names.chain("arrived"), None, arrived(names));
        self.add_chain(&names.chain("passed"), None, passed(names));
    }

    /// Where packets arrive, and where nothing drops them any more.
    fn add_arriving(&mut self, watches: &[(&u32, &Watch)]) {
        if watches.iter().all(|(_, watch)| watch.scopes.is_empty()) {
            return;
        }
        let base = |hook, priority| Some(Base { hook, priority });
        let mut ingress = vec![
            vec![Term::State(&[State::Established]), Term::Return],
            vec![
                Term::State(&[State::New]),
                Term::Confirmed(true),
                Term::Return,
            ],
            vec![Term::Loopback(Side::Arrives), Term::Return],
            vec![Term::Looped(LOOPED), Term::Return],
        ];
        ingress.extend(jumps(watches, "arrived"));
        self.add_chain(
            INGRESS,
            base(Hook::Prerouting, INGRESS_PRIORITY + 1),
            ingress,
        );
        // What loops back was sent, and with that its flow confirmed or never tracked: it does not come here.
        self.add_chain(PASSING, None, jumps(watches, "passed"));
        for (chain, hook) in [(INPUT, Hook::Input), (FORWARD, Hook::Forward)] {
            let not_yet = vec![Term::Confirmed(false), Term::Jump(PASSING.to_owned())];
            self.add_chain(chain, base(hook, PASSING_PRIORITY), vec![not_yet]);
        }
    }

    /// Where packets leave.
    fn add_leaving(&mut self, watches: &[(&u32, &Watch)]) {
        if watches.iter().all(|(_, watch)| watch.scopes.is_empty()) {
            return;
        }
        let tracked = || vec![Term::State(&[State::Established, State::New]), Term::Return];
        let base = |hook| {
            let priority = LEAVING_PRIORITY + 1;
            Some(Base { hook, priority })
        };
        let mut forward = vec![tracked()];
        forward.extend(jumps(watches, "left"));
        self.add_chain(LEAVING, base(Hook::Forward), forward);
        // What the router makes itself has no device it arrived by.
        let by_device = |term: &Term| matches!(term, Term::Within { fields, .. } if fields.contains(&Field::ArrivesBy));
        let jumps = jumps(watches, "left").into_iter();
        let jumps = jumps.filter(|rule| !rule.iter().any(by_device));
        let mut output = vec![tracked(), vec![Term::Loopback(Side::Leaves), Term::Return]];
        output.extend(jumps);
        self.add_chain(OUTPUT, base(Hook::Output), output);
    }
}

/// A rule for each scope that goes to a chain of its drilldown.
fn jumps(watches: &[(&u32, &Watch)], chain: &str) -> Vec<Vec<Term>> {
    let mut rules = Vec::new();
    for (number, watch) in watches {
        let names = Names(**number);
        for scope in &watch.scopes {
            let mut rule = Vec::from_iter(family(&scope.fields).map(Term::Family));
            rule.push(Term::Within {
                fields: scope.fields.clone(),
                set: names.scope(scope),
            });
            rule.push(Term::Jump(names.chain(chain)));
            rules.push(rule);
        }
    }
    rules
}

fn icmp_errors(names: Names) -> [Vec<Term>; 2] {
    FAMILIES.map(|family| {
        let (protocol, error) = match family {
            Family::V4 => (ICMP, Term::IcmpError(ICMP_ERRORS)),
            Family::V6 => (ICMPV6, Term::Icmpv6Error),
        };
        let counted = Term::Count(names.icmp_error());
        let family = Term::Family(family);
        vec![
            family,
            Term::Protocol(protocol),
            error,
            counted,
            Term::Return,
        ]
    })
}

fn untracked(names: Names) -> Vec<Term> {
    vec![
        Term::State(&[State::Invalid, State::Untracked]),
        Term::Count(names.untracked()),
        Term::Goto(names.chain("sources")),
    ]
}

fn arrived(names: Names) -> Vec<Vec<Term>> {
    let not_yet = vec![
        Term::Confirmed(false),
        Term::Count(names.unconfirmed()),
        Term::Goto(names.chain("sources")),
    ];
    let mut rules = vec![not_yet];
    rules.extend(icmp_errors(names));
    rules.push(untracked(names));
    rules
}

/// Only sources that are known where packets arrive: then there is room for all of them. To find one in a set would count
/// it there; to miss one does not.
fn passed(names: Names) -> Vec<Vec<Term>> {
    let mut rules = vec![vec![Term::Count(names.passed())]];
    for family in FAMILIES {
        let unknown = Term::NotAmong(family, names.sources(family));
        rules.push(vec![Term::Family(family), unknown, Term::Return]);
        let passed = Term::Remember(family, names.passed_sources(family));
        rules.push(vec![Term::Family(family), passed]);
    }
    rules
}

/// A reset that is related and a reply is the firewall's own answer to a packet it rejects: it carries that packet's
/// flow, which does not count it.
fn left(names: Names) -> Vec<Vec<Term>> {
    let mut rules = Vec::from(icmp_errors(names));
    rules.push(vec![
        Term::State(&[State::Related]),
        Term::Reply,
        Term::Protocol(TCP),
        Term::Count(names.icmp_error()),
        Term::Return,
    ]);
    rules.push(untracked(names));
    rules
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Format, parse};

    const CONFIG: &str = r#"
[interfaces.wan]
device = "wan0"
[subnets]
home = ["10.0.0.0/24"]
guests = { device = "br-guests" }
"#;

    fn rules(selectors: &[Selectors]) -> Rules {
        let config = parse(CONFIG, Format::Toml).unwrap();
        let watches = selectors.iter().map(|given| Watch::new(&config, given));
        Rules::of(&(1..).zip(watches).collect())
    }

    fn of(counter: &str) -> Selectors {
        let config = parse(CONFIG, Format::Toml).unwrap();
        let mut counters = config.counters.into_iter();
        let counter = counters.find(|known| known.name.as_str() == counter);
        counter.unwrap().selectors
    }

    fn base_chains(rules: &Rules) -> Vec<&str> {
        let base = rules.chains.iter().filter(|chain| chain.base.is_some());
        base.map(|chain| chain.name.as_str()).collect()
    }

    #[test]
    fn packets_pass_no_hook_that_nothing_is_watched_at() {
        assert_eq!(rules(&[]), Rules::default());
        let arriving = rules(&[of("wan_in")]);
        assert_eq!(base_chains(&arriving), ["ingress", "input", "forward"]);
        let leaving = rules(&[of("wan_out")]);
        assert_eq!(base_chains(&leaving), ["leaving", "output"]);
    }

    #[test]
    fn no_selectors_and_no_prefixes_are_nothing_rather_than_anything() {
        for nothing in [Selectors::default(), of("guests_from"), of("guests_to")] {
            assert_eq!(base_chains(&rules(&[nothing])), Vec::<&str>::new());
        }
        let home = rules(&[of("home_from")]);
        let scopes = home.sets.iter().filter(|set| set.name.starts_with("scope"));
        let names: Vec<&str> = scopes.map(|set| set.name.as_str()).collect();
        assert_eq!(names, ["scope4_1"], "of the only family it has");
    }
}
