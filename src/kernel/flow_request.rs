//! What is asked of ctnetlink: all flows, or those of one address. Pure; what comes back reads `conntrack`.

use std::net::{IpAddr, Ipv4Addr};

use super::attr::{HEADER_LENGTH, NFGEN_LENGTH, Writer};
use super::conntrack::{
    CTA_IP_V4_SRC, CTA_TUPLE_IP, CTA_TUPLE_ORIG, CTA_TUPLE_REPLY, FlowRecord, message,
};

const NLM_F_REQUEST_DUMP: u16 = 0x301;

const CTA_FILTER: u16 = 25;
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const CTA_FILTER_REPLY_FLAGS: u16 = 2;
/// CTA_FILTER_F_CTA_IP_SRC (nf_internals.h): the tuple's source is compared, nothing else of it.
const BY_SOURCE: u32 = 1;

const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;

/// The request for a dump of all flows of all families.
pub fn dump_request(sequence: u32) -> Vec<u8> {
    const LENGTH: u32 = (HEADER_LENGTH + NFGEN_LENGTH) as u32;
    let mut request = Vec::with_capacity(LENGTH as usize);
    request.extend(LENGTH.to_ne_bytes());
    request.extend(message::GET.to_ne_bytes());
    request.extend(NLM_F_REQUEST_DUMP.to_ne_bytes());
    request.extend(sequence.to_ne_bytes());
    // Port 0: the kernel fills it in. AF_UNSPEC, version 0, resource 0.
    request.extend([0; 8]);
    request
}

/// One of the two ends of a flow, by the address that it has itself, whatever NAT shows of it to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Who sent the first packet.
    Opener,
    /// Who answers.
    Peer,
}

impl End {
    /// All that a flow has.
    pub const BOTH: [End; 2] = [End::Opener, End::Peer];

    /// Its address in a flow.
    pub fn of(self, record: &FlowRecord) -> IpAddr {
        match self {
            End::Opener => record.original.source,
            End::Peer => record.reply.source,
        }
    }

    /// The body of a request for a dump of the flows that have this end at that address. Kernels before 5.8 do not know
    /// the filter and dump all flows of IPv4. There is none for IPv6: the kernel compares such addresses the wrong way
    /// round and leaves out just the flows that were asked for (ctnetlink_filter_match_tuple, 5.8 to 6.18 at least).
    pub fn write_filter(self, writer: &mut Writer, address: Ipv4Addr) {
        let (tuple, flags) = match self {
            End::Opener => (CTA_TUPLE_ORIG, CTA_FILTER_ORIG_FLAGS),
            End::Peer => (CTA_TUPLE_REPLY, CTA_FILTER_REPLY_FLAGS),
        };
        // A filter by tuple needs the family: the kernel reads the address by it.
        writer.nfgen(family(address.into()), 0);
        writer.nest(tuple, |w| {
            w.nest(CTA_TUPLE_IP, |w| {
                w.attribute(CTA_IP_V4_SRC, &address.octets());
            });
        });
        // Flags in the host's byte order, unlike all other numbers of ctnetlink.
        writer.nest(CTA_FILTER, |w| {
            w.attribute(flags, &BY_SOURCE.to_ne_bytes());
        });
    }
}

/// nfgen_family: a dump has only the flows of this one.
pub fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => NFPROTO_IPV4,
        IpAddr::V6(_) => NFPROTO_IPV6,
    }
}
