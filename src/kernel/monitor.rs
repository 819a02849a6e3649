//! Listens to what others do to the ruleset (NFNLGRP_NFTABLES) and says when it concerns flowctl's table. It
//! repairs nothing.

use std::os::fd::BorrowedFd;

use netlink_sys::protocols::NETLINK_NETFILTER;

use super::attr::{Malformed, Messages};
use super::error::KernelError;
use super::listener::{Listener, Received};
use super::nft::{self, Generation, message};

/// NFNLGRP_NFTABLES.
const GROUP: u32 = 7;
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
    /// Someone wants the listening to end.
    Called,
}

/// A listening socket.
pub struct Monitor {
    listener: Listener,
    table: String,
    own_port: u32,
    touched: bool,
}

impl Monitor {
    /// Listens for changes to `table` (family inet) that are not made through the socket of port `own_port`.
    pub fn open(table: &str, own_port: u32) -> Result<Self, KernelError> {
        Ok(Monitor {
            listener: Listener::open(NETLINK_NETFILTER, &[GROUP], OPERATION)?,
            table: table.to_owned(),
            own_port,
            touched: false,
        })
    }

    /// Waits for the next datagram, or until `call` can be read, and says what it means.
    pub fn listen(&mut self, call: BorrowedFd<'_>) -> Result<Notice, KernelError> {
        let malformed = |source| KernelError::Malformed {
            operation: OPERATION,
            source,
        };
        match self.listener.wait(call, None)? {
            Received::Nothing => Ok(Notice::Quiet),
            Received::Called => Ok(Notice::Called),
            Received::Lost => Ok(Notice::Lost),
            Received::Datagram(datagram) => {
                let read = read(datagram, &self.table, self.own_port, &mut self.touched);
                read.map_err(malformed)
            }
        }
    }
}

/// `touched`: whether the transaction that is being told has touched the table so far.
fn read(
    datagram: &[u8],
    table: &str,
    own_port: u32,
    touched: &mut bool,
) -> Result<Notice, Malformed> {
    let mut notice = Notice::Quiet;
    for message in Messages::new(datagram) {
        let message = message?;
        if message.port == own_port {
            continue;
        }
        if message.kind != message::NEW_GENERATION {
            *touched |= nft::is_about(&message, table)?;
        } else if std::mem::take(touched) {
            notice = Notice::Touched {
                by: Generation::decode(&message)?.program,
            };
        }
    }
    Ok(notice)
}
