//! The few nf_tables messages that the lab's firewall is made of, as bytes (linux/netfilter/nf_tables.h). Integers
//! in attributes are big-endian.

use super::netlink::HEADER;

const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_CREATE: u16 = 0x400;
const NLM_F_APPEND: u16 = 0x800;
const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEWTABLE: u16 = SUBSYSTEM << 8;
const DELTABLE: u16 = SUBSYSTEM << 8 | 2;
const NEWCHAIN: u16 = SUBSYSTEM << 8 | 3;
const NEWRULE: u16 = SUBSYSTEM << 8 | 6;
const NFPROTO_UNSPEC: u8 = 0;
const NFPROTO_INET: u8 = 1;
const NESTED: u16 = 0x8000;

/// Attributes in a row.
#[derive(Debug, Default)]
pub(super) struct Attributes(Vec<u8>);

impl Attributes {
    pub(super) fn bytes(mut self, kind: u16, value: &[u8]) -> Attributes {
        self.0.extend((4 + value.len() as u16).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    pub(super) fn number(self, kind: u16, value: u32) -> Attributes {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub(super) fn text(self, kind: u16, value: &str) -> Attributes {
        self.bytes(kind, &[value.as_bytes(), &[0]].concat())
    }

    pub(super) fn nest(self, kind: u16, inner: Attributes) -> Attributes {
        self.bytes(kind | NESTED, &inner.0)
    }
}

/// Where a base chain stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct BaseChain {
    pub(super) name: &'static str,
    /// `nat` or `filter`.
    pub(super) kind: &'static str,
    /// NF_INET_*.
    pub(super) hook: u32,
    pub(super) priority: i32,
}

/// Messages that are applied all or not at all.
#[derive(Debug, Default)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    /// How many messages ask for an acknowledgement.
    pub(super) acknowledged: usize,
}

impl Batch {
    pub(super) fn new() -> Batch {
        let mut batch = Batch::default();
        batch.message(
            BATCH_BEGIN,
            NLM_F_REQUEST,
            NFPROTO_UNSPEC,
            &Attributes::default(),
        );
        batch
    }

    pub(super) fn add_table(&mut self, table: &str) {
        self.change(
            NEWTABLE,
            NLM_F_CREATE,
            &Attributes::default().text(1, table),
        );
    }

    pub(super) fn delete_table(&mut self, table: &str) {
        self.change(DELTABLE, 0, &Attributes::default().text(1, table));
    }

    pub(super) fn add_chain(&mut self, table: &str, chain: BaseChain) {
        let hook = Attributes::default()
            .number(1, chain.hook)
            .bytes(2, &chain.priority.to_be_bytes());
        let attributes = Attributes::default()
            .text(1, table)
            .text(3, chain.name)
            .nest(4, hook)
            .text(7, chain.kind);
        self.change(NEWCHAIN, NLM_F_CREATE, &attributes);
    }

    pub(super) fn add_rule(&mut self, table: &str, chain: BaseChain, expressions: Vec<Attributes>) {
        let list = expressions
            .into_iter()
            .fold(Attributes::default(), |list, expression| {
                list.nest(1, expression)
            });
        let attributes = Attributes::default()
            .text(1, table)
            .text(2, chain.name)
            .nest(4, list);
        self.change(NEWRULE, NLM_F_CREATE | NLM_F_APPEND, &attributes);
    }

    /// The whole batch.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.message(
            BATCH_END,
            NLM_F_REQUEST,
            NFPROTO_UNSPEC,
            &Attributes::default(),
        );
        self.bytes
    }

    fn change(&mut self, kind: u16, flags: u16, attributes: &Attributes) {
        self.acknowledged += 1;
        self.message(
            kind,
            NLM_F_REQUEST | NLM_F_ACK | flags,
            NFPROTO_INET,
            attributes,
        );
    }

    fn message(&mut self, kind: u16, flags: u16, family: u8, attributes: &Attributes) {
        // For begin and end the resource is the subsystem; for all others it is not looked at.
        let resource = SUBSYSTEM.to_be_bytes();
        let length = (HEADER + 4 + attributes.0.len()) as u32;
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(flags.to_ne_bytes());
        self.bytes.extend([0; 8]);
        self.bytes.extend([family, 0, resource[0], resource[1]]);
        self.bytes.extend(&attributes.0);
    }
}

fn expression(name: &str, data: Attributes) -> Attributes {
    Attributes::default().text(1, name).nest(2, data)
}

/// What `meta` can load.
#[derive(Debug, Clone, Copy)]
#[repr(u32)]
pub(super) enum Meta {
    IifName = 6,
    OifName = 7,
    NfProto = 15,
    L4Proto = 16,
}

/// Where `payload` loads from.
#[derive(Debug, Clone, Copy)]
#[repr(u32)]
pub(super) enum Base {
    Network = 1,
    Transport = 2,
}

pub(super) fn meta_is(key: Meta, value: &[u8]) -> [Attributes; 2] {
    let load = Attributes::default().number(1, 1).number(2, key as u32);
    [expression("meta", load), equals(value)]
}

pub(super) fn payload_is(base: Base, offset: u32, value: &[u8]) -> [Attributes; 2] {
    let load = Attributes::default()
        .number(1, 1)
        .number(2, base as u32)
        .number(3, offset)
        .number(4, value.len() as u32);
    [expression("payload", load), equals(value)]
}

fn equals(value: &[u8]) -> Attributes {
    let data = Attributes::default().bytes(1, value);
    expression(
        "cmp",
        Attributes::default()
            .number(1, 1)
            .number(2, 0)
            .nest(3, data),
    )
}

pub(super) fn masquerade() -> Attributes {
    expression("masq", Attributes::default())
}

/// Destination NAT to an address and port.
pub(super) fn destination_nat(nfproto: u8, address: &[u8], port: u16) -> [Attributes; 3] {
    let nat = Attributes::default()
        .number(1, 1)
        .number(2, nfproto.into())
        .number(3, 1)
        .number(5, 2);
    [
        immediate(1, address),
        immediate(2, &port.to_be_bytes()),
        expression("nat", nat),
    ]
}

fn immediate(register: u32, value: &[u8]) -> Attributes {
    let data = Attributes::default().bytes(1, value);
    expression(
        "immediate",
        Attributes::default().number(1, register).nest(2, data),
    )
}

pub(super) fn drop() -> Attributes {
    // NFT_REG_VERDICT is register 0 and NF_DROP is code 0.
    let verdict = Attributes::default().nest(2, Attributes::default().number(1, 0));
    expression(
        "immediate",
        Attributes::default().number(1, 0).nest(2, verdict),
    )
}
