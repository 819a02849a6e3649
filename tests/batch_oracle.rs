//! The batches that install the examples, read by netlink-packet-netfilter: an independent reader must find in them
//! what was planned, and write the same bytes again.

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "an oracle reads what it has types for, and a panic is the report"
)]

use std::path::Path;

use flowctl::config::load;
use flowctl::kernel::batch::{Batch, Step, Target};
use flowctl::plan::diff::{self, Inventory};
use flowctl::plan::ruleset::{Hook, Ruleset};
use flowctl::plan::{self, text::TABLE_COMMENT};
use netlink_packet_core::{NetlinkBuffer, NetlinkMessage, NetlinkPayload};
use netlink_packet_netfilter::nftables::{
    ChainAttribute, NfTablesMessage, RuleAttribute, SetAttribute, SetElementList, TableAttribute,
};
use netlink_packet_netfilter::{NetfilterMessage, NetfilterMessageInner};

const TARGET: Target = Target {
    generation: 77,
    flags: 0,
    anew: false,
};

fn rulesets() -> Vec<Ruleset> {
    let names = ["home-router", "vlan-router", "nested-prefixes"];
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("rulesets");
    names
        .map(|name| plan::compile(&load(&directory.join(format!("{name}.toml"))).unwrap()))
        .into()
}

/// Each message with its own bytes.
fn messages(batch: &[u8]) -> Vec<(NetlinkMessage<NetfilterMessage>, &[u8])> {
    let mut rest = batch;
    let mut found = Vec::new();
    while !rest.is_empty() {
        let length = NetlinkBuffer::new(rest).length() as usize;
        let (message, others) = rest.split_at(length);
        found.push((NetlinkMessage::deserialize(message).unwrap(), message));
        rest = others;
    }
    found
}

/// The reader forgets NLA_F_NESTED, the highest bit of an attribute's type, where it has no type for the content.
fn same_but_for_nesting(ours: &[u8], read: &[u8]) -> bool {
    let type_high = if cfg!(target_endian = "big") { 2 } else { 3 };
    let pairs = ours.iter().zip(read).enumerate();
    ours.len() == read.len()
        && pairs
            .filter(|(_, (a, b))| a != b)
            .all(|(at, (a, b))| at % 4 == type_high && a ^ b == 0x80)
}

fn installed(ruleset: &Ruleset) -> Vec<NfTablesMessage> {
    let changes = diff::replace(&Inventory::default(), ruleset);
    let batch = Batch::carry_out(ruleset, &changes, TARGET, &Step::ALL);
    let mut tables = Vec::new();
    for (position, (message, bytes)) in messages(batch.bytes()).into_iter().enumerate() {
        assert_eq!(message.header.sequence_number as usize, position);
        let NetlinkPayload::InnerMessage(inner) = &message.payload else {
            panic!("not a netfilter message");
        };
        // Of the batch's begin and end the reader keeps no attributes.
        let NetfilterMessageInner::NfTables(read) = inner.inner.clone() else {
            continue;
        };
        tables.push(read);
        assert_eq!(message.buffer_len(), bytes.len(), "{message:?}");
        let mut again = vec![0; bytes.len()];
        message.serialize(&mut again);
        assert!(same_but_for_nesting(&again, bytes), "{again:?} {message:?}");
    }
    tables
}

fn pick<'a, T, R>(list: &'a [T], take: impl Fn(&'a T) -> Option<R>) -> Vec<R> {
    list.iter().filter_map(take).collect()
}

#[test]
fn an_independent_reader_finds_table_chains_and_rules() {
    for ruleset in rulesets() {
        let messages = installed(&ruleset);
        let NfTablesMessage::NewTable(table) = &messages[0] else {
            panic!("the table comes first");
        };
        assert!(
            table
                .attributes
                .contains(&TableAttribute::Name("flowctl".into()))
        );
        let comment = pick(&table.attributes, |attribute| match attribute {
            TableAttribute::UserData(data) => Some(data.clone()),
            _ => None,
        });
        assert!(comment[0].ends_with(format!("{TABLE_COMMENT}\0").as_bytes()));

        let chains = pick(&messages, |message| match message {
            NfTablesMessage::NewChain(chain) => Some(chain),
            _ => None,
        });
        assert_eq!(chains.len(), ruleset.chains.len());
        for (chain, planned) in chains.iter().zip(&ruleset.chains) {
            let name = ChainAttribute::Name(planned.name.into());
            assert!(chain.attributes.contains(&name));
            let policy = chain.attributes.contains(&ChainAttribute::Policy(1));
            assert_eq!(policy, planned.base.is_some(), "accepts");
        }

        let rules = pick(&messages, |message| match message {
            NfTablesMessage::NewRule(rule) => Some(rule),
            _ => None,
        });
        let planned: Vec<&str> = ruleset
            .chains
            .iter()
            .flat_map(|chain| chain.rules.iter().map(|_| chain.name))
            .collect();
        let of_chain = pick(&rules, |rule| {
            rule.attributes
                .iter()
                .find_map(|attribute| match attribute {
                    RuleAttribute::Chain(chain) => Some(chain.as_str()),
                    _ => None,
                })
        });
        assert_eq!(of_chain, planned);
    }
}

#[test]
fn an_independent_reader_finds_maps_and_their_elements() {
    for ruleset in rulesets() {
        let messages = installed(&ruleset);
        let sets = pick(&messages, |message| match message {
            NfTablesMessage::NewSet(set) => Some(&set.attributes),
            _ => None,
        });
        for map in &ruleset.maps {
            let name = SetAttribute::Name(map.name.clone());
            let set = sets.iter().find(|set| set.contains(&name)).unwrap();
            let length: usize = map.fields.iter().map(|field| field.width()).sum();
            assert!(set.contains(&SetAttribute::KeyLen(length as u32)));
            assert!(set.contains(&SetAttribute::ObjectType(1)), "counters");
        }
        let lists = pick(&messages, |message| match message {
            NfTablesMessage::NewSetElement(elements) => Some(&elements.attributes),
            _ => None,
        });
        let referred: usize = lists
            .iter()
            .flat_map(|list| list.iter())
            .map(|attribute| match attribute {
                SetElementList::Elements(elements) => {
                    let text = format!("{elements:?}");
                    text.matches("ObjectRefrence").count()
                }
                _ => 0,
            })
            .sum();
        let planned: usize = ruleset.maps.iter().map(|map| map.elements.len()).sum();
        assert_eq!(referred, planned);
    }
}

#[test]
fn only_what_the_reader_has_no_types_for_is_unknown_to_it() {
    for ruleset in rulesets() {
        for message in installed(&ruleset) {
            let text = format!("{message:?}");
            let known = ["objref", "fib", "ct"];
            let unknown = text.matches("Other").count();
            let excused: usize = known
                .iter()
                .map(|name| text.matches(&format!("Name(\"{name}\")")).count())
                .sum();
            let is_object = matches!(message, NfTablesMessage::NewObject(_));
            assert!(is_object || unknown <= excused, "{text}");
        }
    }
}

#[test]
fn chains_hook_where_the_contract_says() {
    for ruleset in rulesets() {
        let text = format!("{:?}", installed(&ruleset));
        for chain in &ruleset.chains {
            let Some(base) = chain.base else { continue };
            let (hook, priority) = match base.hook {
                Hook::Prerouting => ("PreRouting", -90),
                Hook::Input => panic!("nothing counts there"),
                Hook::Forward => ("Forward", 90),
                Hook::Output => ("LocalOut", 90),
            };
            assert_eq!(base.priority, priority);
            assert!(text.contains(hook), "{hook} in {text}");
        }
    }
}
