//! Writes flows into the conntrack of a namespace and takes them out again, through ctnetlink, without a packet: tables
//! of any size, and births and ends by the ten thousands a second. The kernel keeps of them what it keeps of others,
//! but nothing can be said of what they moved: counters begin at 0 and stay there.

use std::net::IpAddr;

use netlink_sys::protocols::NETLINK_NETFILTER;

use super::netlink::Netlink;
use super::{LabError, Namespace};
use crate::kernel::attr::Writer;
use crate::kernel::conntrack::{
    CTA_IP_V4_DST, CTA_IP_V4_SRC, CTA_IP_V6_DST, CTA_IP_V6_SRC, CTA_MARK, CTA_PROTO_DST_PORT,
    CTA_PROTO_ICMP_CODE, CTA_PROTO_ICMP_ID, CTA_PROTO_ICMP_TYPE, CTA_PROTO_ICMPV6_CODE,
    CTA_PROTO_ICMPV6_ID, CTA_PROTO_ICMPV6_TYPE, CTA_PROTO_NUM, CTA_PROTO_SRC_PORT, CTA_TUPLE_IP,
    CTA_TUPLE_ORIG, CTA_TUPLE_PROTO, CTA_TUPLE_REPLY, CTA_ZONE, Detail, Tuple, message, protocol,
};

const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
/// NLM_F_EXCL | NLM_F_CREATE: a flow that is there already is an error, not an update.
const NEW: u16 = 0x600;
/// So small that the default receive buffer holds an answer to each message of a batch, should all be refused.
const BATCH_BYTES: usize = 32 * 1024;

const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;

const CTA_TIMEOUT: u16 = 7;

/// A flow to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The first packet's direction.
    pub original: Tuple,
    /// The answer's; what differs from `original` turned round looks like NAT.
    pub reply: Tuple,
    /// The zone of both directions.
    pub zone: u16,
    /// The administrator's mark.
    pub mark: u32,
    /// The kernel ends it after so many seconds.
    pub timeout: u32,
}

impl Entry {
    /// A flow of datagrams without NAT, in the default zone, that lives for an hour.
    pub fn udp(source: (IpAddr, u16), destination: (IpAddr, u16)) -> Entry {
        let original = Tuple {
            source: source.0,
            destination: destination.0,
            protocol: protocol::UDP,
            detail: Detail::Ports {
                source: source.1,
                destination: destination.1,
            },
        };
        let reply = Tuple {
            source: destination.0,
            destination: source.0,
            protocol: protocol::UDP,
            detail: Detail::Ports {
                source: destination.1,
                destination: source.1,
            },
        };
        Entry {
            original,
            reply,
            zone: 0,
            mark: 0,
            timeout: 3_600,
        }
    }
}

/// The conntrack of one namespace.
#[derive(Debug)]
pub struct Conntrack {
    netlink: Netlink,
    writer: Writer,
}

impl Conntrack {
    /// Opens it. Whether flows get counters, stamps and events is decided by the namespace's sysctls when they are made.
    pub fn open(namespace: &Namespace) -> Result<Conntrack, LabError> {
        Ok(Conntrack {
            netlink: Netlink::open(namespace, NETLINK_NETFILTER)?,
            writer: Writer::new(),
        })
    }

    /// Makes these flows, in order, up to the first that the kernel refuses: EEXIST for one that is there, ENOMEM where
    /// the table is full.
    pub fn create(&mut self, entries: impl IntoIterator<Item = Entry>) -> Result<(), LabError> {
        self.send("make flows", message::NEW, NEW, entries, |w, entry| {
            begin(w, &entry.original);
            w.nest(CTA_TUPLE_ORIG, |w| write_tuple(w, &entry.original));
            w.nest(CTA_TUPLE_REPLY, |w| write_tuple(w, &entry.reply));
            w.be32(CTA_TIMEOUT, entry.timeout);
            write_zone(w, entry.zone);
            if entry.mark != 0 {
                w.be32(CTA_MARK, entry.mark);
            }
        })
    }

    /// Ends these flows, in order, up to the first that is not there: ENOENT.
    pub fn delete(&mut self, entries: impl IntoIterator<Item = Entry>) -> Result<(), LabError> {
        self.send("end flows", message::DELETE, 0, entries, |w, entry| {
            begin(w, &entry.original);
            w.nest(CTA_TUPLE_ORIG, |w| write_tuple(w, &entry.original));
            write_zone(w, entry.zone);
        })
    }

    /// Many messages in each datagram; the last asks for an answer, and what is refused is answered unasked.
    fn send(
        &mut self,
        operation: &'static str,
        kind: u16,
        flags: u16,
        entries: impl IntoIterator<Item = Entry>,
        body: impl Fn(&mut Writer, &Entry),
    ) -> Result<(), LabError> {
        let mut entries = entries.into_iter().peekable();
        self.writer.clear();
        while let Some(entry) = entries.next() {
            let is_last = self.writer.bytes().len() >= BATCH_BYTES || entries.peek().is_none();
            let flags = REQUEST | flags | if is_last { ACK } else { 0 };
            let sequence = self.netlink.next_sequence();
            self.writer
                .message(kind, flags, sequence, |w| body(w, &entry));
            if is_last {
                self.netlink
                    .exchange(self.writer.bytes(), 1, operation, "in conntrack")?;
                self.writer.clear();
            }
        }
        Ok(())
    }
}

fn begin(writer: &mut Writer, tuple: &Tuple) {
    let family = match tuple.source {
        IpAddr::V4(_) => NFPROTO_IPV4,
        IpAddr::V6(_) => NFPROTO_IPV6,
    };
    writer.nfgen(family, 0);
}

fn write_tuple(writer: &mut Writer, tuple: &Tuple) {
    writer.nest(CTA_TUPLE_IP, |w| {
        write_address(w, [CTA_IP_V4_SRC, CTA_IP_V6_SRC], tuple.source);
        write_address(w, [CTA_IP_V4_DST, CTA_IP_V6_DST], tuple.destination);
    });
    writer.nest(CTA_TUPLE_PROTO, |w| {
        w.attribute(CTA_PROTO_NUM, &[tuple.protocol]);
        match tuple.detail {
            Detail::None => {}
            Detail::Ports {
                source,
                destination,
            } => {
                w.attribute(CTA_PROTO_SRC_PORT, &source.to_be_bytes());
                w.attribute(CTA_PROTO_DST_PORT, &destination.to_be_bytes());
            }
            Detail::Icmp { id, kind, code } => {
                let [of_id, of_kind, of_code] = if tuple.protocol == protocol::ICMP {
                    [CTA_PROTO_ICMP_ID, CTA_PROTO_ICMP_TYPE, CTA_PROTO_ICMP_CODE]
                } else {
                    [
                        CTA_PROTO_ICMPV6_ID,
                        CTA_PROTO_ICMPV6_TYPE,
                        CTA_PROTO_ICMPV6_CODE,
                    ]
                };
                w.attribute(of_id, &id.to_be_bytes());
                w.attribute(of_kind, &[kind]);
                w.attribute(of_code, &[code]);
            }
        }
    });
}

fn write_address(writer: &mut Writer, [of_v4, of_v6]: [u16; 2], address: IpAddr) {
    match address {
        IpAddr::V4(address) => writer.attribute(of_v4, &address.octets()),
        IpAddr::V6(address) => writer.attribute(of_v6, &address.octets()),
    }
}

fn write_zone(writer: &mut Writer, zone: u16) {
    if zone != 0 {
        writer.attribute(CTA_ZONE, &zone.to_be_bytes());
    }
}
