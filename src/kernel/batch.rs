//! nf_tables on the wire, writing side: one atomic batch that carries out changes to the table. Counters that
//! stay are not mentioned, so they keep their values; either the whole batch is applied or nothing is.

use super::attr::Writer;
use super::expression::{self, PacketTypes};
use super::nft::{FAMILY_INET, OBJECT_COUNTER, comment_userdata, message};
use super::socket::{ACK, APPEND, BATCH, CREATE, REQUEST};
use crate::plan::diff::Changes;
use crate::plan::ruleset::{Chain, Element, Field, KeyValue, ObjectMap, Rule, Ruleset};
use crate::plan::text::TABLE_COMMENT;

/// NFNL_SUBSYS_NFTABLES, as the batch's resource id.
const SUBSYSTEM: u16 = 10;
const BATCH_GENERATION: u16 = 1;
const POLICY_ACCEPT: u32 = 1;
const TABLE_USERDATA: u16 = 6;

/// nft's numbers of data types, which it needs to print keys; the kernel only stores them.
const TYPE_IPV4: u32 = 7;
const TYPE_IPV6: u32 = 8;
const TYPE_IFNAME: u32 = 41;
const TYPE_PKTTYPE: u32 = 31;
/// Bits by which nft shifts the types of a concatenation.
const TYPE_BITS: u32 = 6;

const SET_ANONYMOUS: u32 = 0x1;
const SET_CONSTANT: u32 = 0x2;
const SET_INTERVAL: u32 = 0x4;
const SET_OBJECT: u32 = 0x40;
const SET_CONCAT: u32 = 0x80;
const ELEMENT_INTERVAL_END: u32 = 1;
/// Elements to a message: keeps the nested list far below its 64 KiB.
const ELEMENTS_A_MESSAGE: usize = 256;
/// nft's userdata by which it prints the keys of a set: key byte order (0) is the host's (1) or the network's (2). In
/// a concatenation each field has its own.
const HOST_BYTE_ORDER: [u8; 6] = userdata(0, 1);
const NETWORK_BYTE_ORDER: [u8; 6] = userdata(0, 2);
/// nft's userdata for the last interval of a map when nothing ends it: flags (1) are "open" (1).
const OPEN_INTERVAL: [u8; 6] = userdata(1, 1);

const PACKET_TYPES: PacketTypes = PacketTypes {
    name: "__set%d",
    id: 1,
};

/// A batch ready to be sent.
pub struct Batch {
    writer: Writer,
    objects: Vec<String>,
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

    /// Installs `changes`, then all rules of `ruleset`.
    pub fn install(ruleset: &Ruleset, changes: &Changes<'_>, target: Target) -> Batch {
        let mut batch = Batch::begin(target.generation);
        let table = ruleset.table.as_str();
        if target.anew {
            batch.add("the table", message::DEL_TABLE, 0, |w| w.text(1, table));
        }
        batch.table(table, target.flags, 0);
        batch.add("the rules", message::DEL_RULE, 0, |w| w.text(1, table));
        for (map, elements) in &changes.remove_elements {
            batch.elements(message::DEL_ELEMENT, 0, table, map, elements);
        }
        for map in &changes.remove_maps {
            batch.named("map", map, message::DEL_SET, table, 2);
        }
        for chain in &changes.remove_chains {
            batch.named("chain", chain, message::DEL_CHAIN, table, 3);
        }
        for counter in &changes.remove_counters {
            batch.add_named("counter", counter, message::DEL_OBJECT, 0, |w| {
                object(w, table, counter)
            });
        }
        for counter in &changes.add_counters {
            batch.add_named(
                "counter",
                counter.as_str(),
                message::NEW_OBJECT,
                CREATE,
                |w| {
                    object(w, table, counter.as_str());
                    w.nest(4, |_| {});
                },
            );
        }
        for (position, map) in changes.add_maps.iter().enumerate() {
            // Ids are unique within the batch; 1 is the set of packet types.
            batch.map(table, map, position as u32 + 2);
            batch.elements(
                message::NEW_ELEMENT,
                CREATE,
                table,
                map,
                &map.elements.iter().collect::<Vec<_>>(),
            );
        }
        for (map, elements) in &changes.add_elements {
            batch.elements(message::NEW_ELEMENT, CREATE, table, map, elements);
        }
        // Those that stay too: someone may have changed their policy.
        for chain in &ruleset.chains {
            batch.chain(table, chain);
        }
        batch.rules(ruleset);
        // Once more, which changes nothing: the answer to the last message is that to the whole batch, and which of
        // the others are there depends on the configuration.
        batch.table(table, target.flags, ACK);
        batch.end()
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

    fn begin(generation: u32) -> Batch {
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

    fn end(mut self) -> Batch {
        let sequence = self.objects.len() as u32;
        self.writer
            .message(message::BATCH_END, REQUEST, sequence, |w| {
                w.nfgen(0, SUBSYSTEM)
            });
        self
    }

    fn add(&mut self, object: &str, kind: u16, flags: u16, body: impl FnOnce(&mut Writer)) {
        let sequence = self.objects.len() as u32;
        self.objects.push(object.to_owned());
        self.writer.message(kind, REQUEST | flags, sequence, |w| {
            w.nfgen(FAMILY_INET, 0);
            body(w);
        });
    }

    fn add_named(
        &mut self,
        what: &str,
        name: &str,
        kind: u16,
        flags: u16,
        body: impl FnOnce(&mut Writer),
    ) {
        self.add(&format!("{what} {name}"), kind, flags, body);
    }

    fn named(&mut self, what: &str, name: &str, kind: u16, table: &str, attribute: u16) {
        self.add_named(what, name, kind, 0, |w| {
            w.text(1, table);
            w.text(attribute, name);
        });
    }

    fn table(&mut self, table: &str, table_flags: u32, flags: u16) {
        self.add("the table", message::NEW_TABLE, CREATE | flags, |w| {
            w.text(1, table);
            w.be32(2, table_flags);
            w.attribute(TABLE_USERDATA, &comment_userdata(TABLE_COMMENT));
        });
    }

    fn map(&mut self, table: &str, map: &ObjectMap, id: u32) {
        let concatenated = map.fields.len() > 1;
        let interval = if map.is_interval() { SET_INTERVAL } else { 0 };
        let concat = if concatenated && map.is_interval() {
            SET_CONCAT
        } else {
            0
        };
        let key_type = map
            .fields
            .iter()
            .fold(0, |key, field| key << TYPE_BITS | data_type(*field));
        let key_length: usize = map.fields.iter().map(|field| field.width()).sum();
        self.add_named("map", &map.name, message::NEW_SET, CREATE, |w| {
            w.text(1, table);
            w.text(2, &map.name);
            w.be32(3, SET_OBJECT | interval | concat);
            w.be32(4, key_type);
            w.be32(5, key_length as u32);
            w.be32(15, OBJECT_COUNTER);
            w.be32(10, id);
            match map.fields[..] {
                [field] if field.is_address() => w.attribute(13, &NETWORK_BYTE_ORDER),
                [_] => w.attribute(13, &HOST_BYTE_ORDER),
                _ => {}
            }
            if concat != 0 {
                w.nest(9, |w| {
                    w.nest(2, |w| {
                        map.fields.iter().for_each(|field| field_length(w, *field))
                    })
                });
            }
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
        for chunk in elements.chunks(ELEMENTS_A_MESSAGE) {
            self.add_named("elements of map", &map.name, kind, flags, |w| {
                w.text(1, table);
                w.text(2, &map.name);
                w.nest(3, |w| {
                    chunk
                        .iter()
                        .for_each(|element| write_element(w, map, element))
                });
            });
        }
    }

    fn chain(&mut self, table: &str, chain: &Chain) {
        self.add_named("chain", chain.name, message::NEW_CHAIN, CREATE, |w| {
            w.text(1, table);
            w.text(3, chain.name);
            if let Some(base) = chain.base {
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
                let flags = CREATE | APPEND;
                self.add_named(
                    "a rule of chain",
                    chain.name,
                    message::NEW_RULE,
                    flags,
                    |w| {
                        w.text(1, table);
                        w.text(2, chain.name);
                        w.nest(4, |w| expression::write(w, rule, &PACKET_TYPES));
                    },
                );
            }
        }
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
                        w.nest(1, |w| key(w, 1, &[packet_type]));
                    }
                });
            },
        );
    }
}

/// One number as nft keeps it beside sets and elements: type, length, value in the machine's byte order.
const fn userdata(kind: u8, value: u32) -> [u8; 6] {
    let [a, b, c, d] = value.to_ne_bytes();
    [kind, 4, a, b, c, d]
}

/// PACKET_BROADCAST and PACKET_MULTICAST of linux/if_packet.h.
const PACKET_BROADCAST: u8 = 1;
const PACKET_MULTICAST: u8 = 2;

fn object(w: &mut Writer, table: &str, name: &str) {
    w.text(1, table);
    w.text(2, name);
    w.be32(3, OBJECT_COUNTER);
}

fn data_type(field: Field) -> u32 {
    match field {
        Field::Source4 | Field::Destination4 => TYPE_IPV4,
        Field::Source6 | Field::Destination6 => TYPE_IPV6,
        Field::ArrivesBy | Field::LeavesBy => TYPE_IFNAME,
    }
}

fn field_length(w: &mut Writer, field: Field) {
    w.nest(1, |w| w.be32(1, field.width() as u32));
}

fn key(w: &mut Writer, attribute: u16, value: &[u8]) {
    w.nest(attribute, |w| w.attribute(1, value));
}

/// One element: a key (exact), a key with its inclusive end (concatenation), or a beginning and an exclusive end
/// (one address: the kernel's tree of intervals).
fn write_element(w: &mut Writer, map: &ObjectMap, element: &Element) {
    let bounds = element.key.iter().map(KeyValue::bounds);
    let (first, last): (Vec<Vec<u8>>, Vec<Vec<u8>>) = bounds.unzip();
    let (first, last) = (first.concat(), last.concat());
    let tree = map.is_interval() && map.fields.len() == 1;
    let after = if tree { successor(&last) } else { None };
    w.nest(1, |w| {
        key(w, 1, &first);
        if map.is_interval() && !tree {
            key(w, 10, &last);
        }
        w.text(9, element.counter.as_str());
        if tree && after.is_none() {
            w.attribute(6, &OPEN_INTERVAL);
        }
    });
    if let Some(after) = after {
        w.nest(1, |w| {
            key(w, 1, &after);
            w.be32(3, ELEMENT_INTERVAL_END);
        });
    }
}

/// The next value in big-endian order; `None` after the highest.
fn successor(value: &[u8]) -> Option<Vec<u8>> {
    let mut next = value.to_vec();
    for byte in next.iter_mut().rev() {
        let (sum, carried) = byte.overflowing_add(1);
        *byte = sum;
        if !carried {
            return Some(next);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_successor_carries_and_ends() {
        assert_eq!(successor(&[10, 0, 0, 255]), Some(vec![10, 0, 1, 0]));
        assert_eq!(successor(&[255, 255]), None);
    }
}
