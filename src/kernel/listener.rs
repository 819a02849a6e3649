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
    /// How much of the buffer the last datagram filled.
    received: usize,
    operation: &'static str,
}

impl Listener {
    /// Listens to `groups` in the network namespace of the calling thread; `operation` is what errors say of it.
    pub fn open(
        protocol: isize,
        groups: &[u32],
        operation: &'static str,
    ) -> Result<Self, KernelError> {
        Self::with_room(RECEIVE_BYTES, protocol, groups, operation)
    }

    /// The same with a receive buffer of that many bytes, as SO_RCVBUF counts them: twice as much memory, each datagram
    /// with what the kernel keeps about it.
    pub fn with_room(
        bytes: usize,
        protocol: isize,
        groups: &[u32],
        operation: &'static str,
    ) -> Result<Self, KernelError> {
        let failed = |source| KernelError::Socket { operation, source };
        let mut socket = netlink_sys::Socket::new(protocol).map_err(failed)?;
        socket.bind_auto().map_err(failed)?;
        enlarge(bytes, |bytes, forced| {
            if forced {
                sockopt::set_socket_recv_buffer_size_force(&socket, bytes)
            } else {
                sockopt::set_socket_recv_buffer_size(&socket, bytes)
            }
        })
        .map_err(failed)?;
        let mut listener = Listener {
            socket,
            buffer: vec![0; BUFFER_BYTES],
            received: 0,
            operation,
        };
        groups.iter().try_for_each(|group| listener.join(*group))?;
        Ok(listener)
    }

    /// Listens to one group more.
    pub fn join(&mut self, group: u32) -> Result<(), KernelError> {
        let joined = self.socket.add_membership(group);
        joined.map_err(|source| self.failed(source))
    }

    /// Listens to it no longer; what it told before is still there to be read.
    pub fn leave(&mut self, group: u32) -> Result<(), KernelError> {
        let left = self.socket.drop_membership(group);
        left.map_err(|source| self.failed(source))
    }

    /// Waits for the next datagram, until `call` can be read, or for `patience` at most where there is one: without it
    /// a system that stands still costs nothing.
    pub fn wait(
        &mut self,
        call: BorrowedFd<'_>,
        patience: Option<Duration>,
    ) -> Result<Received<'_>, KernelError> {
        let patience = patience.and_then(|patience| Timespec::try_from(patience).ok());
        let mut waiting = [
            PollFd::from_borrowed_fd(call, PollFlags::IN),
            PollFd::from_borrowed_fd(self.socket.as_fd(), PollFlags::IN),
        ];
        match poll(&mut waiting, patience.as_ref()) {
            Ok(0) | Err(Errno::INTR) => return Ok(Received::Nothing),
            Ok(_) => {}
            Err(error) => return Err(self.failed(io::Error::from(error))),
        }
        if !waiting[0].revents().is_empty() {
            return Ok(Received::Called);
        }
        self.receive()
    }

    /// Takes what is there, and never waits.
    pub fn receive(&mut self) -> Result<Received<'_>, KernelError> {
        let flags = RecvFlags::DONTWAIT.bits() as i32;
        loop {
            match self.socket.recv_from(&mut &mut self.buffer[..], flags) {
                // Only the kernel is port 0: root could otherwise forge notifications.
                Ok((_, sender)) if sender.port_number() != 0 => {}
                Ok((received, _)) => {
                    self.received = received.min(BUFFER_BYTES);
                    return Ok(Received::Datagram(self.datagram()));
                }
                Err(error) => {
                    return match Errno::from_io_error(&error) {
                        Some(Errno::AGAIN | Errno::INTR) => Ok(Received::Nothing),
                        Some(Errno::NOBUFS) => Ok(Received::Lost),
                        _ => Err(self.failed(error)),
                    };
                }
            }
        }
    }

    /// The datagram that came last, until the next is taken.
    pub fn datagram(&self) -> &[u8] {
        &self.buffer[..self.received]
    }

    fn failed(&self, source: io::Error) -> KernelError {
        KernelError::Socket {
            operation: self.operation,
            source,
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
