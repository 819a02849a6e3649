//! Conntrack's flows in the kernel: streamed, one at a time, never kept here. A dump never zeroes anything.

use std::net::{IpAddr, Ipv4Addr};

use netlink_sys::protocols::NETLINK_NETFILTER;
use rustix::io::Errno;

use super::attr::{Message, Writer};
use super::conntrack::{FlowRecord, message};
use super::error::KernelError;
use super::flow_request::{End, family};
use super::nft::FAMILY_ANY;
use super::socket::{DumpEnd, Netlink};

const OPERATION: &str = "read the flows";

/// A door to conntrack, in the network namespace of the thread that opened it.
pub struct Flows {
    netlink: Netlink,
}

impl Flows {
    /// Opens a socket of its own.
    pub fn open() -> Result<Self, KernelError> {
        Ok(Flows {
            netlink: Netlink::open(NETLINK_NETFILTER)?,
        })
    }

    /// Hands every flow to `each`. The kernel may show a flow twice, and while its table is resized leave some out
    /// without saying so. After each chunk of 32 KiB at most, some 100 flows, `between` is called: a dump of a million
    /// flows takes seconds, in which events have to be read.
    pub fn dump(
        &mut self,
        each: impl FnMut(&FlowRecord),
        between: impl FnMut(),
    ) -> Result<(), KernelError> {
        self.request(|w| w.nfgen(FAMILY_ANY, 0), each, between)
    }

    /// Hands every flow to `each` that has one of its ends at that address, as `End` has it. For IPv4 these are two dumps
    /// that the kernel filters: it looks at each flow of its table and makes only those, and either dump may show a flow
    /// that the other has shown. For IPv6, and where the kernel knows no such filter, all flows of the family come and
    /// are filtered here.
    ///
    /// A filtered chunk is not full before the kernel has found enough: `between` may have to wait as long as the kernel
    /// takes for a walk over its whole table, 0.3 s for a million flows.
    pub fn dump_of(
        &mut self,
        address: IpAddr,
        each: impl FnMut(&FlowRecord),
        between: impl FnMut(),
    ) -> Result<(), KernelError> {
        self.dump_filtered(End::write_filter, address, each, between)
    }

    fn dump_filtered(
        &mut self,
        write_filter: fn(End, &mut Writer, Ipv4Addr),
        address: IpAddr,
        mut each: impl FnMut(&FlowRecord),
        mut between: impl FnMut(),
    ) -> Result<(), KernelError> {
        let is_of = |flow: &FlowRecord| End::BOTH.iter().any(|end| end.of(flow) == address);
        // What is older than the filter leaves it out.
        let mut having = |flow: &FlowRecord| {
            if is_of(flow) {
                each(flow);
            }
        };
        let IpAddr::V4(v4) = address else {
            return self.request(|w| w.nfgen(family(address), 0), having, between);
        };
        for end in End::BOTH {
            let filter = |w: &mut Writer| write_filter(end, w, v4);
            match self.request(filter, &mut having, &mut between) {
                Err(refused) if is_unknown(&refused) => {
                    return self.request(|w| w.nfgen(family(address), 0), having, between);
                }
                dumped => dumped?,
            }
            between();
        }
        Ok(())
    }

    fn request(
        &mut self,
        body: impl FnOnce(&mut Writer),
        mut each: impl FnMut(&FlowRecord),
        between: impl FnMut(),
    ) -> Result<(), KernelError> {
        let decode = |message: &Message<'_>| {
            each(&FlowRecord::decode(message.payload)?);
            Ok(())
        };
        let end = self
            .netlink
            .dump_in_chunks(OPERATION, message::GET, body, decode, between)?;
        whole(end)
    }
}

/// No kernel marks a dump of flows as interrupted so far; one that does has left some out.
fn whole(end: DumpEnd) -> Result<(), KernelError> {
    if end.interrupted {
        return Err(KernelError::Interrupted {
            operation: OPERATION,
        });
    }
    Ok(())
}

/// Whether the kernel refuses a filter because it cannot filter so.
fn is_unknown(refused: &KernelError) -> bool {
    matches!(refused.errno(), Some(Errno::OPNOTSUPP | Errno::INVAL))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::Namespace;
    use crate::lab::conntrack::{Conntrack, Entry};

    fn of(namespace: &Namespace, filter: fn(End, &mut Writer, Ipv4Addr)) -> Vec<IpAddr> {
        let address = IpAddr::from([10, 0, 0, 2]);
        let mut found = Vec::new();
        let dump = || {
            let mut flows = Flows::open().unwrap();
            let each = |flow: &FlowRecord| found.push(End::Opener.of(flow));
            flows.dump_filtered(filter, address, each, || {})
        };
        namespace.run(dump).unwrap().unwrap();
        found
    }

    #[test]
    fn a_dump_that_was_interrupted_is_an_error() {
        let end = |interrupted| whole(DumpEnd { interrupted });
        assert!(end(false).is_ok());
        assert!(matches!(end(true), Err(KernelError::Interrupted { .. })));
    }

    #[test]
    fn a_kernel_that_refuses_or_ignores_the_filter_gives_the_same_flows() {
        let Ok(namespace) = Namespace::new("alone") else {
            // Those in tests/netns say it loudly.
            return;
        };
        let entry = |last| {
            Entry::udp(
                (IpAddr::from([10, 0, 0, last]), 1_000),
                (IpAddr::from([198, 51, 100, 1]), 9),
            )
        };
        let mut conntrack = Conntrack::open(&namespace).unwrap();
        conntrack.create((1..5).map(entry)).unwrap();
        let refused: fn(End, &mut Writer, Ipv4Addr) = |end, w, address| {
            end.write_filter(w, address);
            // CTA_FILTER with a flag that does not exist.
            w.nest(25, |w| w.attribute(1, &(1_u32 << 31).to_ne_bytes()));
        };
        let ignored: fn(End, &mut Writer, Ipv4Addr) = |_, w, _| w.nfgen(2, 0);
        assert_eq!(of(&namespace, refused), [IpAddr::from([10, 0, 0, 2])]);
        let twice = [IpAddr::from([10, 0, 0, 2]); 2];
        assert_eq!(of(&namespace, ignored), twice);
        assert_eq!(of(&namespace, End::write_filter).len(), 1);
    }
}
