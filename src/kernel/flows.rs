//! Conntrack's flows in the kernel: streamed, one at a time, never kept here. A dump never zeroes anything.

use std::net::IpAddr;

use netlink_sys::protocols::NETLINK_NETFILTER;
use rustix::io::Errno;

use super::attr::{Message, Writer};
use super::conntrack::{End, FlowRecord, message};
use super::error::KernelError;
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

    /// Hands every flow to `each` that has one of its ends at that address, as `End` has it: two dumps that the kernel
    /// filters, which look at each flow of its table and make only those. Either may show a flow that the other has
    /// shown. Where the kernel knows no such filter, all flows come and are filtered here.
    ///
    /// A filtered chunk is not full before the kernel has found enough: `between` may have to wait as long as the kernel
    /// takes for a walk over its whole table, 0.3 s for a million flows.
    pub fn dump_of(
        &mut self,
        address: IpAddr,
        mut each: impl FnMut(&FlowRecord),
        mut between: impl FnMut(),
    ) -> Result<(), KernelError> {
        for end in [End::Opener, End::Peer] {
            let filter = |w: &mut Writer| end.write_filter(w, address);
            // What is older than the filter leaves it out.
            let having = |record: &FlowRecord| {
                if end.of(record) == address {
                    each(record);
                }
            };
            match self.request(filter, having, &mut between) {
                Err(refused) if is_unknown(&refused) => {
                    return self.dump_all_of(address, each, between);
                }
                dumped => dumped?,
            }
            between();
        }
        Ok(())
    }

    fn dump_all_of(
        &mut self,
        address: IpAddr,
        mut each: impl FnMut(&FlowRecord),
        between: impl FnMut(),
    ) -> Result<(), KernelError> {
        let having = |record: &FlowRecord| {
            if End::Opener.of(record) == address || End::Peer.of(record) == address {
                each(record);
            }
        };
        self.dump(having, between)
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
