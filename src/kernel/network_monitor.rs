//! Listens to changes of devices and their addresses (RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR). It says
//! that there was one and about which device; what the network is then is read anew, since events may be lost.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use netlink_sys::protocols::NETLINK_ROUTE;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, sockopt};

use super::attr::{Malformed, Messages};
use super::error::KernelError;
use super::links::Link;
use super::socket::enlarge;

/// RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR and RTNLGRP_IPV6_IFADDR.
const GROUPS: [u32; 3] = [1, 5, 9];
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
/// Holds the events of thousands of devices; what does not fit is noticed as lost.
const RECEIVE_BYTES: usize = 1024 * 1024;
const BUFFER_BYTES: usize = 64 * 1024;
const OPERATION: &str = "listen for changes of devices and addresses";

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
    socket: netlink_sys::Socket,
    buffer: Vec<u8>,
}

impl NetworkMonitor {
    /// Listens in the network namespace of the calling thread.
    pub fn open() -> Result<Self, KernelError> {
        let mut socket = netlink_sys::Socket::new(NETLINK_ROUTE).map_err(failed)?;
        socket.bind_auto().map_err(failed)?;
        enlarge(RECEIVE_BYTES, |bytes, forced| {
            if forced {
                sockopt::set_socket_recv_buffer_size_force(&socket, bytes)
            } else {
                sockopt::set_socket_recv_buffer_size(&socket, bytes)
            }
        })
        .map_err(failed)?;
        for group in GROUPS {
            socket.add_membership(group).map_err(failed)?;
        }
        Ok(NetworkMonitor {
            socket,
            buffer: vec![0; BUFFER_BYTES],
        })
    }

    /// Waits for the next event, until `call` can be read, or for `patience` at most where there is one: without it a
    /// network that stands still costs nothing.
    pub fn listen(
        &mut self,
        call: BorrowedFd<'_>,
        patience: Option<Duration>,
    ) -> Result<Heard, KernelError> {
        let patience = patience.and_then(|patience| Timespec::try_from(patience).ok());
        let mut waiting = [
            PollFd::from_borrowed_fd(call, PollFlags::IN),
            PollFd::from_borrowed_fd(self.socket.as_fd(), PollFlags::IN),
        ];
        match poll(&mut waiting, patience.as_ref()) {
            Ok(0) | Err(Errno::INTR) => return Ok(Heard::Silence),
            Ok(_) => {}
            Err(error) => return Err(failed(error.into())),
        }
        if !waiting[0].revents().is_empty() {
            return Ok(Heard::Called);
        }
        let flags = RecvFlags::DONTWAIT.bits() as i32;
        let (received, sender) = match self.socket.recv_from(&mut &mut self.buffer[..], flags) {
            Ok(datagram) => datagram,
            Err(error) => {
                return match Errno::from_io_error(&error) {
                    Some(Errno::AGAIN | Errno::INTR) => Ok(Heard::Silence),
                    Some(Errno::NOBUFS) => Ok(Heard::Lost),
                    _ => Err(failed(error)),
                };
            }
        };
        // Only the kernel is port 0: root could otherwise forge events.
        if sender.port_number() != 0 {
            return Ok(Heard::Silence);
        }
        let buffer = &self.buffer[..received.min(BUFFER_BYTES)];
        Ok(read(buffer).unwrap_or(Heard::Lost))
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

fn failed(source: io::Error) -> KernelError {
    KernelError::Socket {
        operation: OPERATION,
        source,
    }
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
