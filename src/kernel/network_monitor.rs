//! Listens to changes of devices and their addresses (RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR). It says
//! that there was one and about which device; what the network is then is read anew, since events may be lost.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use netlink_sys::protocols::NETLINK_ROUTE;

use super::attr::{Malformed, Messages};
use super::error::KernelError;
use super::links::Link;
use super::listener::{Listener, Received};

/// RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR and RTNLGRP_IPV6_IFADDR.
const GROUPS: [u32; 3] = [1, 5, 9];
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;

/// What was heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// Nothing, until the waiting was over.
    Silence,
    /// Someone wants the waiting to end.
    Called,
    /// Something about an address, or about a bridge's port.
    Change,
    /// Something about a device.
    Device {
        /// As it is now, or was.
        link: Box<Link>,
        /// Whether it is no more.
        gone: bool,
    },
    /// Events were lost or cannot be read: anything may have happened.
    Lost,
}

/// A listening socket.
pub struct NetworkMonitor {
    listener: Listener,
}

impl NetworkMonitor {
    /// Listens in the network namespace of the calling thread.
    pub fn open() -> Result<Self, KernelError> {
        let operation = "listen for changes of devices and addresses";
        Ok(NetworkMonitor {
            listener: Listener::open(NETLINK_ROUTE, &GROUPS, operation)?,
        })
    }

    /// Waits for the next event, until `call` can be read, or for `patience` at most where there is one.
    pub fn listen(
        &mut self,
        call: BorrowedFd<'_>,
        patience: Option<Duration>,
    ) -> Result<Heard, KernelError> {
        Ok(match self.listener.wait(call, patience)? {
            Received::Nothing => Heard::Silence,
            Received::Called => Heard::Called,
            Received::Lost => Heard::Lost,
            Received::Datagram(datagram) => read(datagram).unwrap_or(Heard::Lost),
        })
    }
}

/// The kernel sends one message in each datagram.
fn read(datagram: &[u8]) -> Result<Heard, Malformed> {
    let mut heard = Heard::Change;
    for message in Messages::new(datagram) {
        let message = message?;
        if let RTM_NEWLINK | RTM_DELLINK = message.kind
            && let Some(link) = Link::decode(&message)?
        {
            heard = Heard::Device {
                link: Box::new(link),
                gone: message.kind == RTM_DELLINK,
            };
        }
    }
    Ok(heard)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_that_is_cut_off_is_one_that_was_lost() {
        let mut link = vec![0; 16];
        link.extend([9, 0, 3, 0]);
        link.extend(b"ppp0\0\0\0\0");
        let length = (16 + link.len()) as u32;
        let mut event = length.to_ne_bytes().to_vec();
        event.extend(RTM_DELLINK.to_ne_bytes());
        event.extend([0; 10]);
        event.extend(link);
        let link = Box::new(Link {
            name: "ppp0".to_owned(),
            ..Link::default()
        });
        let heard = Heard::Device { link, gone: true };
        assert_eq!(read(&event), Ok(heard));
        assert!(read(&event[..event.len() - 8]).is_err());
    }
}
