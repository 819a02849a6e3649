//! nf_tables on the wire, writing side: one atomic batch that carries out changes to the table. Counters that
//! stay are not mentioned, so they keep their values; either the whole batch is applied or nothing is.

use super::attr::Writer;
use super::expression::{self, PacketTypes};
use super::nft::{FAMILY_INET, OBJECT_COUNTER, comment_userdata, message};
use super::set::{self, HOST_BYTE_ORDER, KeySet, TYPE_PKTTYPE};
use super::socket::{ACK, APPEND, BATCH, CREATE, EXCLUSIVE, REQUEST};
use crate::plan::diff::Changes;
use crate::plan::ruleset::{Base, Element, ObjectMap, Rule, Ruleset};
use crate::plan::text::TABLE_COMMENT;

/// NFNL_SUBSYS_NFTABLES, as the batch's resource id.
const SUBSYSTEM: u16 = 10;
const BATCH_GENERATION: u16 = 1;
const POLICY_ACCEPT: u32 = 1;
const TABLE_USERDATA: u16 = 6;

const SET_ANONYMOUS: u32 = 0x1;
const SET_CONSTANT: u32 = 0x2;
/// Elements to a message: keeps the nested list far below its 64 KiB.
pub(super) const ELEMENTS_A_MESSAGE: usize = 256;

const PACKET_TYPES: PacketTypes = PacketTypes {
    name: "__set%d",
    id: 1,
};

/// A batch ready to be sent.
pub struct Batch {
    writer: Writer,
    objects: Vec<String>,
}

/// A part of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Counters and maps that come.
    Make,
    /// Elements, chains, and all rules.
    Switch,
    /// Maps and counters that go.
    Tidy,
}

impl Step {
    /// All of it, in the order in which it is carried out.
    pub const ALL: [Step; 3] = [Step::Make, Step::Switch, Step::Tidy];
}

/// The table that a batch is about.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// The ruleset's generation: the kernel refuses the batch when it is another by then.
    pub generation: u32,
    /// NFT_TABLE_F_*, as the table has or shall have them.
    pub flags: u32,
    /// Whether it is taken away first, with all in it.
    pub anew: bool,
}

impl Batch {
    /// The bytes of the datagram.
    pub fn bytes(&self) -> &[u8] {
        self.writer.bytes()
    }

    /// The sequence number of the last message, the one that is acknowledged.
    pub fn last(&self) -> u32 {
        self.objects.len() as u32 - 1
    }

    /// What the message of that sequence number is about.
    pub fn object(&self, sequence: u32) -> String {
        self.objects
            .get(sequence as usize)
            .cloned()
            .unwrap_or_default()
    }

    /// Carries out these parts of `changes`, which lead to `ruleset`, in this order.
    pub fn carry_out(
        ruleset: &Ruleset,
        changes: &Changes<'_>,
        target: Target,
        steps: &[Step],
    ) -> Batch {
        let mut batch = Batch::begin(target.generation);
        let table = ruleset.table.as_str();
        if target.anew {
            batch.add("the table", message::DEL_TABLE, 0, |w| w.text(1, table));
        }
        batch.table(table, target.flags, 0);
        for step in steps {
            match step {
                Step::Make => batch.make(table, changes),
                Step::Switch => batch.switch(ruleset, changes),
                Step::Tidy => batch.tidy(table, changes),
            }
        }
        // Once more, which changes nothing: the answer to the last message is that to the whole batch, and which of
        // the others are there depends on the configuration.
        batch.table(table, target.flags, ACK);
        batch.end()
    }

    fn make(&mut self, table: &str, changes: &Changes<'_>) {
        for counter in &changes.add_counters {
            self.counter(table, counter.as_str());
        }
        for (position, map) in changes.add_maps.iter().enumerate() {
            // Ids are unique within the batch; 1 is the set of packet types.
            self.map(table, map, position as u32 + 2);
            let elements: Vec<_> = map.elements.iter().collect();
            self.elements(message::NEW_ELEMENT, CREATE, table, map, &elements);
        }
    }

    fn switch(&mut self, ruleset: &Ruleset, changes: &Changes<'_>) {
        let table = ruleset.table.as_str();
        self.add("the rules", message::DEL_RULE, 0, |w| w.text(1, table));
        for (map, elements) in &changes.remove_elements {
            self.elements(message::DEL_ELEMENT, 0, table, map, elements);
        }
        for chain in &changes.remove_chains {
            self.named("chain", chain, message::DEL_CHAIN, table, 3);
        }
        for (map, elements) in &changes.add_elements {
            self.elements(message::NEW_ELEMENT, CREATE, table, map, elements);
        }
        // Those that stay too: someone may have changed their policy.
        for chain in &ruleset.chains {
            self.chain(table, chain.name, chain.base);
        }
        self.rules(ruleset);
    }

    fn tidy(&mut self, table: &str, changes: &Changes<'_>) {
        for map in &changes.remove_maps {
            self.named("map", map, message::DEL_SET, table, 2);
        }
        for counter in &changes.remove_counters {
            self.remove_counter(table, counter);
        }
    }

    /// Takes the table away.
    pub fn remove(table: &str, generation: u32) -> Batch {
        let mut batch = Batch::begin(generation);
        batch.add("the table", message::DEL_TABLE, ACK, |w| w.text(1, table));
        batch.end()
    }

    /// Gives an existing table these flags.
    pub fn adopt(table: &str, flags: u32, generation: u32) -> Batch {
        Batch::probe(table, flags, generation).end()
    }

    /// Asks whether the kernel takes a table with these flags. Without an end nothing of it is applied.
    pub fn probe(table: &str, flags: u32, generation: u32) -> Batch {
        let mut batch = Batch::begin(generation);
        batch.table(table, flags, ACK);
        batch
    }

    pub(super) fn begin(generation: u32) -> Batch {
        let mut batch = Batch {
            writer: Writer::new(),
            objects: vec!["the batch".to_owned()],
        };
        batch
            .writer
            .message(message::BATCH_BEGIN, REQUEST, BATCH, |w| {
                w.nfgen(0, SUBSYSTEM);
                w.be32(BATCH_GENERATION, generation);
            });
        batch
    }

    pub(super) fn end(mut self) -> Batch {
        let sequence = self.objects.len() as u32;
        self.writer
            .message(message::BATCH_END, REQUEST, sequence, |w| {
                w.nfgen(0, SUBSYSTEM)
            });
        self
    }

    pub(super) fn add(
        &mut self,
        object: &str,
        kind: u16,
        flags: u16,
        body: impl FnOnce(&mut Writer),
    ) {
        let sequence = self.objects.len() as u32;
        self.objects.push(object.to_owned());
        self.writer.message(kind, REQUEST | flags, sequence, |w| {
            w.nfgen(FAMILY_INET, 0);
            body(w);
        });
    }

    pub(super) fn add_named(
        &mut self,
        what: &str,
        name: &str,
        kind: u16,
        flags: u16,
        body: impl FnOnce(&mut Writer),
    ) {
        self.add(&format!("{what} {name}"), kind, flags, body);
    }

    pub(super) fn named(&mut self, what: &str, name: &str, kind: u16, table: &str, attribute: u16) {
        self.add_named(what, name, kind, 0, |w| {
            w.text(1, table);
            w.text(attribute, name);
        });
    }

    fn table(&mut self, table: &str, table_flags: u32, flags: u16) {
        self.commented_table(table, TABLE_COMMENT, table_flags, flags);
    }

    pub(super) fn commented_table(
        &mut self,
        table: &str,
        comment: &str,
        table_flags: u32,
        flags: u16,
    ) {
        self.add("the table", message::NEW_TABLE, CREATE | flags, |w| {
            w.text(1, table);
            w.be32(2, table_flags);
            w.attribute(TABLE_USERDATA, &comment_userdata(comment));
        });
    }

    pub(super) fn counter(&mut self, table: &str, name: &str) {
        self.add_named("counter", name, message::NEW_OBJECT, CREATE, |w| {
            object(w, table, name);
            w.nest(4, |_| {});
        });
    }

    pub(super) fn remove_counter(&mut self, table: &str, name: &str) {
        self.add_named("counter", name, message::DEL_OBJECT, 0, |w| {
            object(w, table, name)
        });
    }

    fn map(&mut self, table: &str, map: &ObjectMap, id: u32) {
        let flags = CREATE | EXCLUSIVE;
        self.add_named("map", &map.name, message::NEW_SET, flags, |w| {
            w.text(1, table);
            w.text(2, &map.name);
            set::write(w, &KeySet::of_map(map), id);
        });
    }

    fn elements(
        &mut self,
        kind: u16,
        flags: u16,
        table: &str,
        map: &ObjectMap,
        elements: &[&Element],
    ) {
        let keys = KeySet::of_map(map);
        for chunk in elements.chunks(ELEMENTS_A_MESSAGE) {
            self.add_named("elements of map", &map.name, kind, flags, |w| {
                w.text(1, table);
                w.text(2, &map.name);
                w.nest(3, |w| {
                    for element in chunk {
                        let counter = element.counter.as_str();
                        set::write_element(w, &keys, &element.key, Some(counter));
                    }
                });
            });
        }
    }

    pub(super) fn chain(&mut self, table: &str, name: &str, base: Option<Base>) {
        self.add_named("chain", name, message::NEW_CHAIN, CREATE, |w| {
            w.text(1, table);
            w.text(3, name);
            if let Some(base) = base {
                w.nest(4, |w| {
                    w.be32(1, base.hook.number());
                    w.be32(2, base.priority as u32);
                });
                w.be32(5, POLICY_ACCEPT);
                w.text(7, "filter");
            }
        });
    }

    /// All rules.
    fn rules(&mut self, ruleset: &Ruleset) {
        let table = ruleset.table.as_str();
        for chain in &ruleset.chains {
            // The kernel refuses an anonymous set that no rule uses.
            if chain.rules.contains(&Rule::ReturnLooped) {
                self.packet_types(table);
            }
            for rule in &chain.rules {
                self.rule(table, chain.name, |w| {
                    expression::write(w, rule, &PACKET_TYPES);
                });
            }
        }
    }

    /// One rule at the end of a chain; `expressions` writes them.
    pub(super) fn rule(&mut self, table: &str, chain: &str, expressions: impl FnOnce(&mut Writer)) {
        let flags = CREATE | APPEND;
        self.add_named("a rule of chain", chain, message::NEW_RULE, flags, |w| {
            w.text(1, table);
            w.text(2, chain);
            w.nest(4, expressions);
        });
    }

    /// The anonymous set { broadcast, multicast }; it goes with the rule that uses it.
    fn packet_types(&mut self, table: &str) {
        self.add("the set of packet types", message::NEW_SET, CREATE, |w| {
            w.text(1, table);
            w.text(2, PACKET_TYPES.name);
            w.be32(3, SET_ANONYMOUS | SET_CONSTANT);
            w.be32(4, TYPE_PKTTYPE);
            w.be32(5, 1);
            w.be32(10, PACKET_TYPES.id);
            w.attribute(13, &HOST_BYTE_ORDER);
            w.nest(9, |w| w.be32(1, 2));
        });
        self.add(
            "the set of packet types",
            message::NEW_ELEMENT,
            CREATE,
            |w| {
                w.text(1, table);
                w.text(2, PACKET_TYPES.name);
                w.be32(4, PACKET_TYPES.id);
                w.nest(3, |w| {
                    for packet_type in [PACKET_BROADCAST, PACKET_MULTICAST] {
                        w.nest(1, |w| set::write_key(w, 1, &[packet_type]));
                    }
                });
            },
        );
    }
}

/// PACKET_BROADCAST and PACKET_MULTICAST of linux/if_packet.h.
pub(super) const PACKET_BROADCAST: u8 = 1;
pub(super) const PACKET_MULTICAST: u8 = 2;

fn object(w: &mut Writer, table: &str, name: &str) {
    w.text(1, table);
    w.text(2, name);
    w.be32(3, OBJECT_COUNTER);
}
