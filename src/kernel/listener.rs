//! A netlink socket that listens to multicast groups: waits without a beat, takes word from the kernel only, and says
//! when something was lost. What a datagram means is the business of the monitors.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, sockopt};

use super::error::KernelError;
use super::socket::enlarge;

/// Holds the notifications of a large foreign transaction, or of thousands of devices; what does not fit is lost, and
/// that is noticed.
const RECEIVE_BYTES: usize = 1024 * 1024;
const BUFFER_BYTES: usize = 64 * 1024;

/// What came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received<'a> {
    /// Nothing, until the waiting was over.
    Nothing,
    /// Someone wants the waiting to end.
    Called,
    /// Datagrams were lost: anything may have happened.
    Lost,
    /// This.
    Datagram(&'a [u8]),
}

/// A listening socket.
pub struct Listener {
    socket: netlink_sys::Socket,
    buffer: Vec<u8>,
    operation: &'static str,
}

impl Listener {
    /// Listens to `groups` in the network namespace of the calling thread; `operation` is what errors say of it.
    pub fn open(
        protocol: isize,
        groups: &[u32],
        operation: &'static str,
    ) -> Result<Self, KernelError> {
        let failed = |source| KernelError::Socket { operation, source };
        let mut socket = netlink_sys::Socket::new(protocol).map_err(failed)?;
        socket.bind_auto().map_err(failed)?;
        enlarge(RECEIVE_BYTES, |bytes, forced| {
            if forced {
                sockopt::set_socket_recv_buffer_size_force(&socket, bytes)
            } else {
                sockopt::set_socket_recv_buffer_size(&socket, bytes)
            }
        })
        .map_err(failed)?;
        for group in groups {
            socket.add_membership(*group).map_err(failed)?;
        }
        Ok(Listener {
            socket,
            buffer: vec![0; BUFFER_BYTES],
            operation,
        })
    }

    /// Waits for the next datagram, until `call` can be read, or for `patience` at most where there is one: without it
    /// a system that stands still costs nothing.
    pub fn wait(
        &mut self,
        call: BorrowedFd<'_>,
        patience: Option<Duration>,
    ) -> Result<Received<'_>, KernelError> {
        let operation = self.operation;
        let failed = |source| KernelError::Socket { operation, source };
        let patience = patience.and_then(|patience| Timespec::try_from(patience).ok());
        let mut waiting = [
            PollFd::from_borrowed_fd(call, PollFlags::IN),
            PollFd::from_borrowed_fd(self.socket.as_fd(), PollFlags::IN),
        ];
        match poll(&mut waiting, patience.as_ref()) {
            Ok(0) | Err(Errno::INTR) => return Ok(Received::Nothing),
            Ok(_) => {}
            Err(error) => return Err(failed(io::Error::from(error))),
        }
        if !waiting[0].revents().is_empty() {
            return Ok(Received::Called);
        }
        let flags = RecvFlags::DONTWAIT.bits() as i32;
        let (received, sender) = match self.socket.recv_from(&mut &mut self.buffer[..], flags) {
            Ok(datagram) => datagram,
            Err(error) => {
                return match Errno::from_io_error(&error) {
                    Some(Errno::AGAIN | Errno::INTR) => Ok(Received::Nothing),
                    Some(Errno::NOBUFS) => Ok(Received::Lost),
                    _ => Err(failed(error)),
                };
            }
        };
        // Only the kernel is port 0: root could otherwise forge notifications.
        if sender.port_number() != 0 {
            return Ok(Received::Nothing);
        }
        Ok(Received::Datagram(
            &self.buffer[..received.min(BUFFER_BYTES)],
        ))
    }
}
