//! Conntrack's flows in the kernel: streamed, one at a time, never kept here. A dump never zeroes anything.

use netlink_sys::protocols::NETLINK_NETFILTER;

use super::attr::Writer;
use super::conntrack::{FlowRecord, message};
use super::error::KernelError;
use super::nft::FAMILY_ANY;
use super::socket::Netlink;

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
    /// without saying so.
    pub fn dump(&mut self, mut each: impl FnMut(&FlowRecord)) -> Result<(), KernelError> {
        let body = |w: &mut Writer| w.nfgen(FAMILY_ANY, 0);
        self.netlink
            .dump("read the flows", message::GET, body, |message| {
                each(&FlowRecord::decode(message.payload)?);
                Ok(())
            })?;
        Ok(())
    }
}
