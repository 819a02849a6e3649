//! The ctnetlink codec: one message's bytes become a `FlowRecord`, in place and without allocating. What the kernel
//! leaves out stays absent, never 0; attributes of newer kernels are skipped. Sockets are elsewhere.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::kernel::attr::{Attribute, Attributes, Malformed, NESTED, NFGEN_LENGTH};
use crate::units::Volume;

/// Message types: NFNL_SUBSYS_CTNETLINK << 8 with `enum cntl_msg_types` (nfnetlink_conntrack.h).
pub mod message {
    /// A flow, in a dump or as a NEW or UPDATE event: IPCTNL_MSG_CT_NEW.
    pub const NEW: u16 = 1 << 8;
    /// The request for a dump: IPCTNL_MSG_CT_GET.
    pub const GET: u16 = 1 << 8 | 1;
    /// A flow that ended, as an event: IPCTNL_MSG_CT_DELETE.
    pub const DELETE: u16 = 1 << 8 | 2;
}

pub(crate) const CTA_TUPLE_ORIG: u16 = 1;
pub(crate) const CTA_TUPLE_REPLY: u16 = 2;
const CTA_STATUS: u16 = 3;
const CTA_PROTOINFO: u16 = 4;
pub(crate) const CTA_MARK: u16 = 8;
const CTA_COUNTERS_ORIG: u16 = 9;
const CTA_COUNTERS_REPLY: u16 = 10;
const CTA_ID: u16 = 12;
pub(crate) const CTA_ZONE: u16 = 18;
const CTA_TIMESTAMP: u16 = 20;
const CTA_LABELS: u16 = 22;

pub(crate) const CTA_TUPLE_IP: u16 = 1;
pub(crate) const CTA_TUPLE_PROTO: u16 = 2;
const CTA_TUPLE_ZONE: u16 = 3;

pub(crate) const CTA_IP_V4_SRC: u16 = 1;
pub(crate) const CTA_IP_V4_DST: u16 = 2;
pub(crate) const CTA_IP_V6_SRC: u16 = 3;
pub(crate) const CTA_IP_V6_DST: u16 = 4;

pub(crate) const CTA_PROTO_NUM: u16 = 1;
pub(crate) const CTA_PROTO_SRC_PORT: u16 = 2;
pub(crate) const CTA_PROTO_DST_PORT: u16 = 3;
pub(crate) const CTA_PROTO_ICMP_ID: u16 = 4;
pub(crate) const CTA_PROTO_ICMP_TYPE: u16 = 5;
pub(crate) const CTA_PROTO_ICMP_CODE: u16 = 6;
pub(crate) const CTA_PROTO_ICMPV6_ID: u16 = 7;
pub(crate) const CTA_PROTO_ICMPV6_TYPE: u16 = 8;
pub(crate) const CTA_PROTO_ICMPV6_CODE: u16 = 9;

const CTA_PROTOINFO_TCP: u16 = 1;
const CTA_PROTOINFO_TCP_STATE: u16 = 1;
const CTA_COUNTERS_PACKETS: u16 = 1;
const CTA_COUNTERS_BYTES: u16 = 2;
const CTA_TIMESTAMP_START: u16 = 1;
const CTA_TIMESTAMP_STOP: u16 = 2;

/// IP protocol numbers that decide how a tuple is read and named.
pub mod protocol {
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// DCCP.
    pub const DCCP: u8 = 33;
    /// GRE.
    pub const GRE: u8 = 47;
    /// ESP.
    pub const ESP: u8 = 50;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// SCTP.
    pub const SCTP: u8 = 132;
    /// UDP-Lite.
    pub const UDPLITE: u8 = 136;
}

/// What tells two flows of one protocol between the same addresses apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Detail {
    /// The protocol has neither ports nor ICMP fields; GRE keys are not kept.
    None,
    /// TCP, UDP, UDP-Lite, DCCP and SCTP.
    Ports {
        /// Of the source.
        source: u16,
        /// Of the destination.
        destination: u16,
    },
    /// ICMP and ICMPv6.
    Icmp {
        /// Echo identifier; 0 where the type has none.
        id: u16,
        /// ICMP type.
        kind: u8,
        /// ICMP code.
        code: u8,
    },
}

/// One direction of a flow, as its packets' headers have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tuple {
    /// Who sends.
    pub source: IpAddr,
    /// To whom.
    pub destination: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// Ports or ICMP fields.
    pub detail: Detail,
}

/// One conntrack entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowRecord {
    /// The first packet's direction, before any NAT.
    pub original: Tuple,
    /// The answer's direction as expected on the wire; its difference from `original` is the NAT.
    pub reply: Tuple,
    /// The zone of the original direction; 0 is the default zone.
    pub zone: u16,
    /// The kernel's hash of the entry; not unique by itself.
    pub id: u32,
    /// IPS_* bits (nf_conntrack_common.h).
    pub status: u32,
    /// What the original direction moved since the flow began; absent when accounting was off then.
    pub original_volume: Option<Volume>,
    /// What the reply direction moved since the flow began; absent when accounting was off then.
    pub reply_volume: Option<Volume>,
    /// Nanoseconds since 1970 at which the flow began; absent when stamps were off then.
    pub start: Option<u64>,
    /// Nanoseconds since 1970 at which it ended; only in a DESTROY event, and only with stamps.
    pub stop: Option<u64>,
    /// Label bits, bit n worth 1 << n; absent when the flow has no label extension or no bit is set, and in DESTROY.
    pub labels: Option<u128>,
    /// The administrator's mark; 0 where the kernel has none.
    pub mark: u32,
    /// `enum tcp_conntrack`; absent for other protocols.
    pub tcp_state: Option<u8>,
}

impl FlowRecord {
    /// To be filled in: a record is built where it stays, as copies of it cost more than what is in it.
    const BLANK: FlowRecord = FlowRecord {
        original: Tuple::BLANK,
        reply: Tuple::BLANK,
        zone: 0,
        id: 0,
        status: 0,
        original_volume: None,
        reply_volume: None,
        start: None,
        stop: None,
        labels: None,
        mark: 0,
        tcp_state: None,
    };

    /// Decodes the payload of a NEW or DELETE message: nfgenmsg (4 bytes), then attributes.
    pub fn decode(payload: &[u8]) -> Result<FlowRecord, Malformed> {
        let body = payload.get(NFGEN_LENGTH..).ok_or(Malformed::Length)?;
        let mut record = FlowRecord::BLANK;
        let mut seen = Seen::default();
        for attribute in Attributes::new(body) {
            record.take(attribute?, &mut seen)?;
        }
        seen.check()?;
        Ok(record)
    }

    #[inline]
    fn take(&mut self, attribute: Attribute<'_>, seen: &mut Seen) -> Result<(), Malformed> {
        match attribute.kind {
            // Nested; always there.
            CTA_TUPLE_ORIG => {
                if let Some(zone) = self.original.fill(attribute)? {
                    self.zone = zone;
                }
                seen.original = true;
            }
            // Nested; always there.
            CTA_TUPLE_REPLY => {
                self.reply.fill(attribute)?;
                seen.reply = true;
            }
            // IPS_* bits; be32; always there in dumps.
            CTA_STATUS => self.status = attribute.be32()?,
            // Nested by protocol; absent for protocols without state and in some events.
            CTA_PROTOINFO => self.tcp_state = decode_tcp_state(attribute)?,
            // The mark; be32; absent when 0 (events) or not compiled in.
            CTA_MARK => self.mark = attribute.be32()?,
            // Moved since the flow began; nested; absent without accounting and in NEW.
            CTA_COUNTERS_ORIG => self.original_volume = Some(decode_volume(attribute)?),
            // The same of the reply direction.
            CTA_COUNTERS_REPLY => self.reply_volume = Some(decode_volume(attribute)?),
            // The entry's hash; be32; always there.
            CTA_ID => {
                self.id = attribute.be32()?;
                seen.id = true;
            }
            // The zone of both directions; be16; absent in the default zone and where directions differ.
            CTA_ZONE => self.zone = attribute.be16()?,
            // Nested; absent without stamps and in NEW.
            CTA_TIMESTAMP => (self.start, self.stop) = decode_stamps(attribute)?,
            // Bitmap of the host's longs; absent without the extension, when empty, and in DESTROY.
            CTA_LABELS => self.labels = Some(decode_labels(attribute)?),
            _ => {}
        }
        Ok(())
    }
}

/// Which of the attributes came that must.
#[derive(Default)]
struct Seen {
    original: bool,
    reply: bool,
    id: bool,
}

impl Seen {
    fn check(&self) -> Result<(), Malformed> {
        demand(self.original, CTA_TUPLE_ORIG)?;
        demand(self.reply, CTA_TUPLE_REPLY)?;
        demand(self.id, CTA_ID)
    }
}

impl Tuple {
    const BLANK: Tuple = Tuple {
        source: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        destination: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        protocol: 0,
        detail: Detail::None,
    };

    /// The zone of this direction, where it has one of its own.
    fn fill(&mut self, outer: Attribute<'_>) -> Result<Option<u16>, Malformed> {
        if self.fill_usual(outer.value) {
            return Ok(None);
        }
        self.fill_any(outer)
    }

    /// What nearly all flows have, TCP or UDP over IPv4 and no zone, as the kernel writes it: read at fixed places, a third
    /// of what a record costs. False, and nothing is filled in, for any other form.
    fn fill_usual(&mut self, value: &[u8]) -> bool {
        const FORM: [(usize, [u8; 4]); 7] = [
            (0, header(20, CTA_TUPLE_IP | NESTED)),
            (4, header(8, CTA_IP_V4_SRC)),
            (12, header(8, CTA_IP_V4_DST)),
            (20, header(28, CTA_TUPLE_PROTO | NESTED)),
            (24, header(5, CTA_PROTO_NUM)),
            (32, header(6, CTA_PROTO_SRC_PORT)),
            (40, header(6, CTA_PROTO_DST_PORT)),
        ];
        let Ok(value) = <&[u8; 48]>::try_from(value) else {
            return false;
        };
        let word = |at: usize| [value[at], value[at + 1], value[at + 2], value[at + 3]];
        let port = |at: usize| u16::from_be_bytes([value[at], value[at + 1]]);
        if !FORM.iter().all(|&(at, header)| word(at) == header)
            || !matches!(value[28], protocol::TCP | protocol::UDP)
        {
            return false;
        }
        *self = Tuple {
            source: Ipv4Addr::from(word(8)).into(),
            destination: Ipv4Addr::from(word(16)).into(),
            protocol: value[28],
            detail: Detail::Ports {
                source: port(36),
                destination: port(44),
            },
        };
        true
    }

    fn fill_any(&mut self, outer: Attribute<'_>) -> Result<Option<u16>, Malformed> {
        let (mut addresses, mut layer4, mut zone) = (false, false, None);
        for attribute in outer.nested() {
            let attribute = attribute?;
            match attribute.kind {
                // Nested; always there.
                CTA_TUPLE_IP => {
                    self.fill_addresses(attribute)?;
                    addresses = true;
                }
                // Nested; always there.
                CTA_TUPLE_PROTO => {
                    (self.protocol, self.detail) = decode_layer4(attribute)?;
                    layer4 = true;
                }
                // Zone of this direction alone; be16; absent when both share one.
                CTA_TUPLE_ZONE => zone = Some(attribute.be16()?),
                _ => {}
            }
        }
        demand(addresses, CTA_TUPLE_IP)?;
        demand(layer4, CTA_TUPLE_PROTO)?;
        Ok(zone)
    }

    fn fill_addresses(&mut self, outer: Attribute<'_>) -> Result<(), Malformed> {
        let (mut source, mut destination) = (false, false);
        for attribute in outer.nested() {
            let attribute = attribute?;
            // Addresses in network order; those of the other family are absent.
            match attribute.kind {
                CTA_IP_V4_SRC => (self.source, source) = (v4(attribute)?, true),
                CTA_IP_V4_DST => (self.destination, destination) = (v4(attribute)?, true),
                CTA_IP_V6_SRC => (self.source, source) = (v6(attribute)?, true),
                CTA_IP_V6_DST => (self.destination, destination) = (v6(attribute)?, true),
                _ => {}
            }
        }
        demand(source, CTA_IP_V4_SRC)?;
        demand(destination, CTA_IP_V4_DST)
    }
}

/// An attribute's header as the kernel writes it.
const fn header(length: u16, kind: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (length.to_ne_bytes(), kind.to_ne_bytes());
    [a, b, c, d]
}

fn v4(attribute: Attribute<'_>) -> Result<IpAddr, Malformed> {
    Ok(Ipv4Addr::from(attribute.array::<4>()?).into())
}

fn v6(attribute: Attribute<'_>) -> Result<IpAddr, Malformed> {
    Ok(Ipv6Addr::from(attribute.array::<16>()?).into())
}

fn missing(attribute: u16) -> Malformed {
    Malformed::Missing { attribute }
}

fn demand(seen: bool, attribute: u16) -> Result<(), Malformed> {
    if seen {
        Ok(())
    } else {
        Err(missing(attribute))
    }
}

/// Protocol number and what the protocol has besides.
fn decode_layer4(outer: Attribute<'_>) -> Result<(u8, Detail), Malformed> {
    let mut number = None;
    let (mut source, mut destination, mut id, mut icmp_kind, mut code) = (0, 0, 0, 0, 0);
    for attribute in outer.nested() {
        let attribute = attribute?;
        match attribute.kind {
            // IP protocol; u8; always there.
            CTA_PROTO_NUM => number = Some(attribute.u8()?),
            // be16; absent for protocols without ports, but GRE sends its keys here.
            CTA_PROTO_SRC_PORT => source = attribute.be16()?,
            CTA_PROTO_DST_PORT => destination = attribute.be16()?,
            // Echo identifier; be16; ICMP only.
            CTA_PROTO_ICMP_ID | CTA_PROTO_ICMPV6_ID => id = attribute.be16()?,
            // u8; ICMP only; the reply tuple has the answer's type.
            CTA_PROTO_ICMP_TYPE | CTA_PROTO_ICMPV6_TYPE => icmp_kind = attribute.u8()?,
            // u8; ICMP only.
            CTA_PROTO_ICMP_CODE | CTA_PROTO_ICMPV6_CODE => code = attribute.u8()?,
            _ => {}
        }
    }
    let number = number.ok_or(missing(CTA_PROTO_NUM))?;
    let detail = match number {
        protocol::TCP | protocol::UDP | protocol::UDPLITE | protocol::DCCP | protocol::SCTP => {
            Detail::Ports {
                source,
                destination,
            }
        }
        protocol::ICMP | protocol::ICMPV6 => Detail::Icmp {
            id,
            kind: icmp_kind,
            code,
        },
        _ => Detail::None,
    };
    Ok((number, detail))
}

fn decode_volume(outer: Attribute<'_>) -> Result<Volume, Malformed> {
    let (mut packets, mut length) = (None, None);
    for attribute in outer.nested() {
        let attribute = attribute?;
        match attribute.kind {
            // Packets since the flow began; be64; always there.
            CTA_COUNTERS_PACKETS => packets = Some(attribute.be64()?),
            // Layer 3 bytes since the flow began; be64; always there.
            CTA_COUNTERS_BYTES => length = Some(attribute.be64()?),
            _ => {}
        }
    }
    Ok(Volume {
        bytes: length.ok_or(missing(CTA_COUNTERS_BYTES))?,
        packets: packets.ok_or(missing(CTA_COUNTERS_PACKETS))?,
    })
}

fn decode_stamps(outer: Attribute<'_>) -> Result<(Option<u64>, Option<u64>), Malformed> {
    let (mut start, mut stop) = (None, None);
    for attribute in outer.nested() {
        let attribute = attribute?;
        match attribute.kind {
            // Nanoseconds since 1970; be64; always there.
            CTA_TIMESTAMP_START => start = Some(attribute.be64()?),
            // Nanoseconds since 1970; be64; absent while the flow lives.
            CTA_TIMESTAMP_STOP => stop = Some(attribute.be64()?),
            _ => {}
        }
    }
    // The kernel stamps 0 where it has not stamped yet.
    Ok((start.filter(|&at| at != 0), stop.filter(|&at| at != 0)))
}

fn decode_tcp_state(outer: Attribute<'_>) -> Result<Option<u8>, Malformed> {
    for protocol in outer.nested() {
        let protocol = protocol?;
        if protocol.kind != CTA_PROTOINFO_TCP {
            continue;
        }
        for attribute in protocol.nested() {
            let attribute = attribute?;
            // `enum tcp_conntrack`; u8.
            if attribute.kind == CTA_PROTOINFO_TCP_STATE {
                return attribute.u8().map(Some);
            }
        }
    }
    Ok(None)
}

/// The kernel's bitmap is an array of native longs, the lowest bits in the first.
fn decode_labels(attribute: Attribute<'_>) -> Result<u128, Malformed> {
    const LONG: usize = size_of::<usize>();
    let bitmap: [u8; 16] = attribute.array()?;
    let mut labels = 0u128;
    for (position, bytes) in bitmap.chunks_exact(LONG).enumerate() {
        let mut long = [0; LONG];
        long.copy_from_slice(bytes);
        labels |= (usize::from_ne_bytes(long) as u128) << (position * LONG * 8);
    }
    Ok(labels)
}
