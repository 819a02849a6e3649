//! nf_tables on the wire, writing side, rules: each rule of the plan as the list of expressions that `nft` itself
//! would compile it to, so that `nft list` prints it back as written.

use super::attr::Writer;
use super::nft::OBJECT_COUNTER;
use crate::plan::probe::{Family, State, Term};
use crate::plan::ruleset::{Field, KeyValue, Rule, Side};
use crate::units::DevicePattern;

const LIST_ELEMENT: u16 = 1;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
/// Nested data: a value, or a verdict.
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;

/// Register 1: 16 bytes, the same memory as the first four 4-byte registers.
const REGISTER: u32 = 1;
/// The first 4-byte register.
const REGISTER_32: u32 = 8;
/// The register that holds the verdict.
const REGISTER_VERDICT: u32 = 0;

/// enum nft_meta_keys.
const META_IIFNAME: u32 = 6;
const META_OIFNAME: u32 = 7;
const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;
const META_PKTTYPE: u32 = 19;
/// enum nft_ct_keys.
const CT_STATE: u32 = 0;
const CT_DIRECTION: u32 = 1;
const CT_STATUS: u32 = 2;
const CT_LABELS: u32 = 13;
/// NF_CT_STATE_BIT of each state, in the machine's byte order.
const STATE_INVALID: u32 = 1;
const STATE_ESTABLISHED: u32 = 2;
const STATE_RELATED: u32 = 4;
const STATE_NEW: u32 = 8;
const STATE_UNTRACKED: u32 = 64;
/// IPS_CONFIRMED, in the machine's byte order.
const STATUS_CONFIRMED: u32 = 8;
const DIRECTION_REPLY: u8 = 1;
const CMP_EQUAL: u32 = 0;
const CMP_NOT_EQUAL: u32 = 1;
const CMP_LESS: u32 = 2;
const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;
/// NFT_FIB_RESULT_ADDRTYPE, NFTA_FIB_F_SADDR, RTN_LOCAL.
const FIB_ADDRESS_TYPE: u32 = 3;
const FIB_SOURCE: u32 = 1;
const ROUTE_LOCAL: u32 = 2;
const VERDICT_RETURN: i32 = -5;
const VERDICT_GOTO: i32 = -4;
const VERDICT_JUMP: i32 = -3;
const PAYLOAD_NETWORK_HEADER: u32 = 1;
const PAYLOAD_TRANSPORT_HEADER: u32 = 2;
/// ICMPv6 types below are errors (RFC 4443, 2.1).
const ICMPV6_FIRST_INFORMATION: u8 = 128;
/// NFT_LOOKUP_F_INV.
const LOOKUP_INVERTED: u32 = 1;
/// NFT_DYNSET_OP_UPDATE.
const DYNSET_UPDATE: u32 = 1;

/// The set of packet types that `ReturnLooped` looks up: its name and its id within the batch.
pub struct PacketTypes {
    /// `__set%d`: the kernel picks the number.
    pub name: &'static str,
    /// Unique within the batch.
    pub id: u32,
}

/// The expressions of one rule, as the payload of NFTA_RULE_EXPRESSIONS.
pub fn write(w: &mut Writer, rule: &Rule, packet_types: &PacketTypes) {
    match rule {
        Rule::ReturnLoopback(side) => {
            compare_loopback(w, *side);
            verdict(w, VERDICT_RETURN, None);
        }
        Rule::ReturnLooped => {
            meta(w, META_PKTTYPE, REGISTER);
            anonymous_lookup(w, packet_types);
            source_is_local(w);
            verdict(w, VERDICT_RETURN, None);
        }
        Rule::NewFlowsTo(chain) => {
            ct_load(w, CT_DIRECTION);
            compare(w, CMP_EQUAL, &[0]);
            ct_load(w, CT_STATE);
            mask(w, STATE_NEW.to_ne_bytes());
            compare(w, CMP_NOT_EQUAL, &[0; 4]);
            verdict(w, VERDICT_JUMP, Some(chain));
        }
        Rule::Label { side, device, bit } => write_label(w, *side, device, *bit),
        Rule::Count { map, fields } => write_count(w, map, fields),
    }
}

/// The expressions of one rule of a drilldown; sets are looked up by name.
pub fn write_terms(w: &mut Writer, rule: &[Term]) {
    for term in rule {
        write_term(w, term);
    }
}

fn write_term(w: &mut Writer, term: &Term) {
    match term {
        Term::Family(family) => {
            meta(w, META_NFPROTO, REGISTER);
            compare(w, CMP_EQUAL, &[nfproto(*family)]);
        }
        Term::State(states) => {
            ct_load(w, CT_STATE);
            let bits = states
                .iter()
                .fold(0, |bits, state| bits | state_bit(*state));
            mask(w, bits.to_ne_bytes());
            compare(w, CMP_NOT_EQUAL, &[0; 4]);
        }
        Term::Confirmed(wanted) => {
            ct_load(w, CT_STATUS);
            mask(w, STATUS_CONFIRMED.to_ne_bytes());
            let operation = if *wanted { CMP_NOT_EQUAL } else { CMP_EQUAL };
            compare(w, operation, &[0; 4]);
        }
        Term::Reply => {
            ct_load(w, CT_DIRECTION);
            compare(w, CMP_EQUAL, &[DIRECTION_REPLY]);
        }
        Term::Protocol(number) => {
            meta(w, META_L4PROTO, REGISTER);
            compare(w, CMP_EQUAL, &[*number]);
        }
        Term::IcmpError(set) => {
            payload(w, PAYLOAD_TRANSPORT_HEADER, 0, 1, REGISTER);
            lookup(w, set);
        }
        Term::Icmpv6Error => {
            payload(w, PAYLOAD_TRANSPORT_HEADER, 0, 1, REGISTER);
            compare(w, CMP_LESS, &[ICMPV6_FIRST_INFORMATION]);
        }
        Term::Loopback(side) => compare_loopback(w, *side),
        Term::Looped(set) => {
            meta(w, META_PKTTYPE, REGISTER);
            lookup(w, set);
            source_is_local(w);
        }
        Term::Within { fields, set } => {
            load_key(w, fields);
            lookup(w, set);
        }
        Term::NotAmong(family, set) => {
            load_key(w, &[family.source()]);
            expression(w, "lookup", |w| {
                w.be32(2, REGISTER);
                w.text(1, set);
                w.be32(5, LOOKUP_INVERTED);
            });
        }
        Term::Count(counter) => expression(w, "objref", |w| {
            w.be32(1, OBJECT_COUNTER);
            w.text(2, counter);
        }),
        Term::Remember(family, set) => write_remember(w, *family, set),
        Term::Jump(chain) => verdict(w, VERDICT_JUMP, Some(chain)),
        Term::Goto(chain) => verdict(w, VERDICT_GOTO, Some(chain)),
        Term::Return => verdict(w, VERDICT_RETURN, None),
    }
}

/// A new element gets a counter of its own, which then counts this packet too.
fn write_remember(w: &mut Writer, family: Family, set: &str) {
    load_key(w, &[family.source()]);
    expression(w, "dynset", |w| {
        w.text(1, set);
        w.be32(3, DYNSET_UPDATE);
        w.be32(4, REGISTER);
        w.nest(7, |w| {
            w.text(EXPRESSION_NAME, "counter");
            w.nest(EXPRESSION_DATA, |_| {});
        });
    });
}

fn nfproto(family: Family) -> u8 {
    match family {
        Family::V4 => NFPROTO_IPV4,
        Family::V6 => NFPROTO_IPV6,
    }
}

fn state_bit(state: State) -> u32 {
    match state {
        State::Invalid => STATE_INVALID,
        State::Established => STATE_ESTABLISHED,
        State::Related => STATE_RELATED,
        State::New => STATE_NEW,
        State::Untracked => STATE_UNTRACKED,
    }
}

fn write_label(w: &mut Writer, side: Side, device: &DevicePattern, bit: u8) {
    if device.is_wildcard() {
        // Only as many bytes as are given.
        compare_device(w, side, device.stem().as_bytes());
    } else {
        compare_device(w, side, &KeyValue::Device(device.clone()).bounds().0);
    }
    // The kernel ORs these 128 bits into the flow's label; bits are numbered in the machine's byte order.
    let label = (1u128 << bit).to_ne_bytes();
    expression(w, "immediate", |w| {
        w.be32(1, REGISTER);
        w.nest(2, |w| w.attribute(DATA_VALUE, &label));
    });
    expression(w, "ct", |w| {
        w.be32(2, CT_LABELS);
        w.be32(4, REGISTER);
    });
}

fn write_count(w: &mut Writer, map: &str, fields: &[Field]) {
    let family = fields.iter().find_map(|field| match field {
        Field::Source4 | Field::Destination4 => Some(NFPROTO_IPV4),
        Field::Source6 | Field::Destination6 => Some(NFPROTO_IPV6),
        Field::ArrivesBy | Field::LeavesBy => None,
    });
    if let Some(family) = family {
        meta(w, META_NFPROTO, REGISTER);
        compare(w, CMP_EQUAL, &[family]);
    }
    load_key(w, fields);
    expression(w, "objref", |w| {
        w.be32(3, REGISTER_32);
        w.text(4, map);
    });
}

/// A packet's key into the registers from the first 4-byte one on.
fn load_key(w: &mut Writer, fields: &[Field]) {
    let mut register = REGISTER_32;
    for field in fields {
        match field {
            Field::Source4 => payload(w, PAYLOAD_NETWORK_HEADER, 12, 4, register),
            Field::Source6 => payload(w, PAYLOAD_NETWORK_HEADER, 8, 16, register),
            Field::Destination4 => payload(w, PAYLOAD_NETWORK_HEADER, 16, 4, register),
            Field::Destination6 => payload(w, PAYLOAD_NETWORK_HEADER, 24, 16, register),
            Field::ArrivesBy => meta(w, META_IIFNAME, register),
            Field::LeavesBy => meta(w, META_OIFNAME, register),
        }
        register += (field.width() / 4) as u32;
    }
}

fn expression(w: &mut Writer, name: &str, data: impl FnOnce(&mut Writer)) {
    w.nest(LIST_ELEMENT, |w| {
        w.text(EXPRESSION_NAME, name);
        w.nest(EXPRESSION_DATA, data);
    });
}

fn meta(w: &mut Writer, key: u32, register: u32) {
    expression(w, "meta", |w| {
        w.be32(2, key);
        w.be32(1, register);
    });
}

fn compare(w: &mut Writer, operation: u32, value: &[u8]) {
    expression(w, "cmp", |w| {
        w.be32(1, REGISTER);
        w.be32(2, operation);
        w.nest(3, |w| w.attribute(DATA_VALUE, value));
    });
}

/// nft compares device names over all 16 bytes, the padding included.
fn compare_loopback(w: &mut Writer, side: Side) {
    let mut name = [0; 16];
    name[..2].copy_from_slice(b"lo");
    compare_device(w, side, &name);
}

fn compare_device(w: &mut Writer, side: Side, name: &[u8]) {
    let key = match side {
        Side::Arrives => META_IIFNAME,
        Side::Leaves => META_OIFNAME,
    };
    meta(w, key, REGISTER);
    compare(w, CMP_EQUAL, name);
}

fn lookup(w: &mut Writer, set: &str) {
    expression(w, "lookup", |w| {
        w.be32(2, REGISTER);
        w.text(1, set);
    });
}

fn anonymous_lookup(w: &mut Writer, set: &PacketTypes) {
    expression(w, "lookup", |w| {
        w.be32(2, REGISTER);
        w.text(1, set.name);
        w.be32(4, set.id);
    });
}

fn source_is_local(w: &mut Writer) {
    expression(w, "fib", |w| {
        w.be32(1, REGISTER);
        w.be32(2, FIB_ADDRESS_TYPE);
        w.be32(3, FIB_SOURCE);
    });
    compare(w, CMP_EQUAL, &ROUTE_LOCAL.to_ne_bytes());
}

fn ct_load(w: &mut Writer, key: u32) {
    expression(w, "ct", |w| {
        w.be32(2, key);
        w.be32(1, REGISTER);
    });
}

fn mask(w: &mut Writer, bits: [u8; 4]) {
    expression(w, "bitwise", |w| {
        w.be32(1, REGISTER);
        w.be32(2, REGISTER);
        w.be32(3, 4);
        w.nest(4, |w| w.attribute(DATA_VALUE, &bits));
        w.nest(5, |w| w.attribute(DATA_VALUE, &[0; 4]));
    });
}

fn payload(w: &mut Writer, header: u32, offset: u32, length: u32, register: u32) {
    expression(w, "payload", |w| {
        w.be32(1, register);
        w.be32(2, header);
        w.be32(3, offset);
        w.be32(4, length);
    });
}

fn verdict(w: &mut Writer, code: i32, chain: Option<&str>) {
    expression(w, "immediate", |w| {
        w.be32(1, REGISTER_VERDICT);
        w.nest(2, |w| {
            w.nest(DATA_VERDICT, |w| {
                w.be32(1, code as u32);
                if let Some(chain) = chain {
                    w.text(2, chain);
                }
            });
        });
    });
}
