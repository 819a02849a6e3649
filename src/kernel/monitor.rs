//! Listens to what others do to the ruleset (NFNLGRP_NFTABLES) and says when it concerns flowctl's table. It
//! repairs nothing.

use std::io;
use std::time::Duration;

use netlink_sys::protocols::NETLINK_NETFILTER;
use rustix::io::Errno;
use rustix::net::sockopt::{self, Timeout};

use super::attr::Messages;
use super::error::KernelError;
use super::nft::{self, Generation, message};
use super::socket::enlarge;

/// NFNLGRP_NFTABLES.
const GROUP: u32 = 7;
/// Holds the notifications of a large foreign transaction; what does not fit is noticed as lost.
const RECEIVE_BYTES: usize = 1024 * 1024;
const BUFFER_BYTES: usize = 64 * 1024;
const OPERATION: &str = "listen for ruleset changes";

/// What was heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// Nothing that concerns the table.
    Quiet,
    /// A transaction that was not ours touched the table.
    Touched {
        /// The program that made it, where the kernel says it.
        by: Option<String>,
    },
    /// Notifications were lost: anything may have happened.
    Lost,
}

/// A listening socket.
pub struct Monitor {
    socket: netlink_sys::Socket,
    buffer: Vec<u8>,
    table: String,
    own_port: u32,
    touched: bool,
}

impl Monitor {
    /// Listens for changes to `table` (family inet) that are not made through the socket of port `own_port`.
    /// `patience` is how long `listen` waits.
    pub fn open(table: &str, own_port: u32, patience: Duration) -> Result<Self, KernelError> {
        let failed = |source: io::Error| KernelError::Socket {
            operation: OPERATION,
            source,
        };
        let mut socket = netlink_sys::Socket::new(NETLINK_NETFILTER).map_err(failed)?;
        socket.bind_auto().map_err(failed)?;
        enlarge(RECEIVE_BYTES, |bytes, forced| {
            if forced {
                sockopt::set_socket_recv_buffer_size_force(&socket, bytes)
            } else {
                sockopt::set_socket_recv_buffer_size(&socket, bytes)
            }
        })
        .map_err(failed)?;
        sockopt::set_socket_timeout(&socket, Timeout::Recv, Some(patience))
            .map_err(|error| failed(error.into()))?;
        socket.add_membership(GROUP).map_err(failed)?;
        Ok(Monitor {
            socket,
            buffer: vec![0; BUFFER_BYTES],
            table: table.to_owned(),
            own_port,
            touched: false,
        })
    }

    /// Waits for the next datagram and says what it means.
    pub fn listen(&mut self) -> Result<Notice, KernelError> {
        let (received, sender) = match self.socket.recv_from(&mut &mut self.buffer[..], 0) {
            Ok(datagram) => datagram,
            Err(error) => {
                return match Errno::from_io_error(&error) {
                    Some(Errno::AGAIN | Errno::INTR) => Ok(Notice::Quiet),
                    Some(Errno::NOBUFS) => Ok(Notice::Lost),
                    _ => Err(KernelError::Socket {
                        operation: OPERATION,
                        source: error,
                    }),
                };
            }
        };
        // Only the kernel is port 0: root could otherwise forge notifications.
        if sender.port_number() != 0 {
            return Ok(Notice::Quiet);
        }
        self.read(received)
    }

    fn read(&mut self, received: usize) -> Result<Notice, KernelError> {
        let malformed = |source| KernelError::Malformed {
            operation: OPERATION,
            source,
        };
        let mut notice = Notice::Quiet;
        for message in Messages::new(&self.buffer[..received]) {
            let message = message.map_err(malformed)?;
            if message.port == self.own_port {
                continue;
            }
            if message.kind != message::NEW_GENERATION {
                self.touched |= nft::is_about(&message, &self.table).map_err(malformed)?;
            } else if std::mem::take(&mut self.touched) {
                notice = Notice::Touched {
                    by: Generation::decode(&message).map_err(malformed)?.program,
                };
            }
        }
        Ok(notice)
    }
}
