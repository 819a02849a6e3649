//! nf_tables on the wire, writing side, sets and maps: their kind, the types that nft needs to print their keys, and
//! elements as the kernel's backends want them.

use super::attr::Writer;
use super::nft::OBJECT_COUNTER;
use crate::plan::ruleset::{Field, KeyValue, ObjectMap, is_interval};

/// nft's numbers of data types, which it needs to print keys; the kernel only stores them.
const TYPE_IPV4: u32 = 7;
const TYPE_IPV6: u32 = 8;
const TYPE_IFNAME: u32 = 41;
const TYPE_ICMP_TYPE: u32 = 14;
pub(super) const TYPE_PKTTYPE: u32 = 31;
/// Bits by which nft shifts the types of a concatenation.
const TYPE_BITS: u32 = 6;

const SET_INTERVAL: u32 = 0x4;
const SET_EVAL: u32 = 0x20;
const SET_OBJECT: u32 = 0x40;
const SET_CONCAT: u32 = 0x80;
const ELEMENT_INTERVAL_END: u32 = 1;
/// nft's userdata by which it prints the keys of a set: key byte order (0) is the host's (1) or the network's (2). In
/// a concatenation each field has its own.
pub(super) const HOST_BYTE_ORDER: [u8; 6] = userdata(0, 1);
const NETWORK_BYTE_ORDER: [u8; 6] = userdata(0, 2);
/// nft's userdata for the last interval of a map when nothing ends it: flags (1) are "open" (1).
const OPEN_INTERVAL: [u8; 6] = userdata(1, 1);

/// A set whose keys are those of packets, or a map from them to counters.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeySet<'a> {
    /// What a key is made of.
    pub fields: &'a [Field],
    /// Whether it holds intervals rather than single keys.
    pub interval: bool,
    /// Whether it is a map.
    pub objects: bool,
}

impl<'a> KeySet<'a> {
    pub(super) fn of_map(map: &'a ObjectMap) -> Self {
        KeySet {
            fields: &map.fields,
            interval: map.is_interval(),
            objects: true,
        }
    }

    pub(super) fn of_keys(fields: &'a [Field], keys: &[Vec<KeyValue>]) -> Self {
        KeySet {
            fields,
            interval: is_interval(fields, keys.iter().map(Vec::as_slice)),
            objects: false,
        }
    }

    /// Intervals of one field are in the kernel's tree, where an end is an element of its own.
    fn is_tree(&self) -> bool {
        self.interval && self.fields.len() == 1
    }
}

/// The attributes of NEWSET that follow its name; the id is unique within the batch.
pub(super) fn write(w: &mut Writer, set: &KeySet<'_>, id: u32) {
    let interval = if set.interval { SET_INTERVAL } else { 0 };
    let concat = if set.interval && set.fields.len() > 1 {
        SET_CONCAT
    } else {
        0
    };
    let object = if set.objects { SET_OBJECT } else { 0 };
    let key_type = set
        .fields
        .iter()
        .fold(0, |key, field| key << TYPE_BITS | data_type(*field));
    let key_length: usize = set.fields.iter().map(|field| field.width()).sum();
    w.be32(3, object | interval | concat);
    w.be32(4, key_type);
    w.be32(5, key_length as u32);
    if set.objects {
        w.be32(15, OBJECT_COUNTER);
    }
    w.be32(10, id);
    match set.fields[..] {
        [field] if field.is_address() => w.attribute(13, &NETWORK_BYTE_ORDER),
        [_] => w.attribute(13, &HOST_BYTE_ORDER),
        _ => {}
    }
    if concat != 0 {
        w.nest(9, |w| {
            w.nest(2, |w| {
                set.fields.iter().for_each(|field| field_length(w, *field))
            })
        });
    }
}

/// The same of a set that rules fill with source addresses, up to that many.
pub(super) fn write_dynamic(w: &mut Writer, field: Field, size: u32, id: u32) {
    w.be32(3, SET_EVAL);
    w.be32(4, data_type(field));
    w.be32(5, field.width() as u32);
    w.be32(10, id);
    w.attribute(13, &NETWORK_BYTE_ORDER);
    w.nest(9, |w| w.be32(1, size));
}

/// The same of a set of ICMP types.
pub(super) fn write_icmp_types(w: &mut Writer, id: u32) {
    write_bytes(w, id, TYPE_ICMP_TYPE, &NETWORK_BYTE_ORDER);
}

/// The same of a set of packet types.
pub(super) fn write_packet_types(w: &mut Writer, id: u32) {
    write_bytes(w, id, TYPE_PKTTYPE, &HOST_BYTE_ORDER);
}

/// The same of a set of single bytes; type and order are for nft, which prints them.
fn write_bytes(w: &mut Writer, id: u32, data_type: u32, byte_order: &[u8]) {
    w.be32(3, 0);
    w.be32(4, data_type);
    w.be32(5, 1);
    w.be32(10, id);
    w.attribute(13, byte_order);
}

/// One element: a key (exact), a key with its inclusive end (concatenation), or a beginning and an exclusive end
/// (one field: the kernel's tree of intervals).
pub(super) fn write_element(
    w: &mut Writer,
    set: &KeySet<'_>,
    values: &[KeyValue],
    object: Option<&str>,
) {
    let bounds = values.iter().map(KeyValue::bounds);
    let (first, last): (Vec<Vec<u8>>, Vec<Vec<u8>>) = bounds.unzip();
    let (first, last) = (first.concat(), last.concat());
    let tree = set.is_tree();
    let after = if tree { successor(&last) } else { None };
    w.nest(1, |w| {
        write_key(w, 1, &first);
        if set.interval && !tree {
            write_key(w, 10, &last);
        }
        if let Some(object) = object {
            w.text(9, object);
        }
        if tree && after.is_none() {
            w.attribute(6, &OPEN_INTERVAL);
        }
    });
    if let Some(after) = after {
        w.nest(1, |w| {
            write_key(w, 1, &after);
            w.be32(3, ELEMENT_INTERVAL_END);
        });
    }
}

/// A key, or the end of one.
pub(super) fn write_key(w: &mut Writer, attribute: u16, value: &[u8]) {
    w.nest(attribute, |w| w.attribute(1, value));
}

/// One number as nft keeps it beside sets and elements: type, length, value in the machine's byte order.
const fn userdata(kind: u8, value: u32) -> [u8; 6] {
    let [a, b, c, d] = value.to_ne_bytes();
    [kind, 4, a, b, c, d]
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
