//! Listens to conntrack: which flows begin and end, as the kernel tells it, and when it could not tell all. What a flow
//! is decides `conntrack`; nothing is kept here but what one datagram still holds.

use std::os::fd::{AsFd, BorrowedFd};

use netlink_sys::protocols::NETLINK_NETFILTER;

use super::attr::{HEADER_LENGTH, Malformed, Message, Messages};
use super::conntrack::{FlowRecord, message};
use super::error::KernelError;
use super::listener::{Listener, Received};

/// NFNLGRP_CONNTRACK_NEW.
const BIRTHS: u32 = 1;
/// NFNLGRP_CONNTRACK_DESTROY.
const ENDS: u32 = 3;
/// NLM_F_EXCL | NLM_F_CREATE: a flow that did not exist, where an update of one that did has neither.
const NEW_FLAGS: u16 = 0x600;

/// How much may wait, as SO_RCVBUF counts it: the kernel takes twice as much, and only while events wait. Each is a
/// datagram of its own, for which 1,280 bytes are counted (a buffer of 1,024 with struct sk_buff), so this is 39,000
/// events. 50,000 flows that begin and end within a second make 30,000 in the 0.3 s for which their reader may be away:
/// so long does the kernel walk over a table of a million flows for one chunk of a filtered dump.
const RECEIVE_BYTES: usize = 24 * 1024 * 1024;
/// NLMSG_ALIGNTO.
const ALIGNMENT: usize = 4;

const OPERATION: &str = "listen for flows that begin and end";

/// What happened to a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlowEvent {
    /// It was confirmed: its first packet passed, or a program made it. With mark and labels; without counters and start.
    Born(FlowRecord),
    /// It is no more. With counters, start and stop where they were kept; without labels.
    Ended(FlowRecord),
}

/// An event and who caused it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// What happened.
    pub event: FlowEvent,
    /// The netlink port of the program that asked for it (`conntrack -D`, `-F`, `-I`), often its process id; 0 when the
    /// kernel did it by itself.
    pub by: u32,
}

impl Told {
    /// Decodes a message of the groups NEW and DESTROY; `None` for whatever else it may be.
    pub fn decode(message: &Message<'_>) -> Result<Option<Told>, Malformed> {
        let event: fn(FlowRecord) -> FlowEvent = match message.kind {
            message::NEW if message.flags & NEW_FLAGS == NEW_FLAGS => FlowEvent::Born,
            message::DELETE => FlowEvent::Ended,
            _ => return Ok(None),
        };
        Ok(Some(Told {
            event: event(FlowRecord::decode(message.payload)?),
            by: message.port,
        }))
    }
}

/// What was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "it is taken apart at once; a box would be an allocation for each event"
)]
pub enum Heard {
    /// Nothing is waiting.
    Nothing,
    /// Events were lost, or could not be read. The kernel says so before it hands out those that are still waiting, and
    /// loses more until all of these are read: whoever looks at the flows anew should do it after the next `Nothing`.
    Lost,
    /// This.
    Told(Told),
}

/// A listening socket, in the network namespace of the thread that opened it.
pub struct FlowEvents {
    listener: Listener,
    /// Where in the listener's datagram the next message begins; at its end when all were told.
    next: usize,
    births: bool,
}

impl FlowEvents {
    /// Listens to the ends of flows, and to their births where these are wanted too.
    pub fn open(births: bool) -> Result<Self, KernelError> {
        let listener = Listener::with_room(RECEIVE_BYTES, NETLINK_NETFILTER, &[ENDS], OPERATION)?;
        let mut events = FlowEvents {
            listener,
            next: 0,
            births: false,
        };
        events.listen_to_births(births)?;
        Ok(events)
    }

    /// Listens to births from now on, or no longer. Those that are waiting are still told.
    pub fn listen_to_births(&mut self, births: bool) -> Result<(), KernelError> {
        if births && !self.births {
            self.listener.join(BIRTHS)?;
        } else if !births && self.births {
            self.listener.leave(BIRTHS)?;
        }
        self.births = births;
        Ok(())
    }

    /// The next event; never waits. Poll this value's descriptor only after `Nothing`: before that, one datagram may
    /// hold more events.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator would end at the first Nothing"
    )]
    pub fn next(&mut self) -> Result<Heard, KernelError> {
        loop {
            if let Some(heard) = take(self.listener.datagram(), &mut self.next) {
                return Ok(heard);
            }
            match self.listener.receive()? {
                Received::Nothing | Received::Called => return Ok(Heard::Nothing),
                Received::Lost => return Ok(Heard::Lost),
                Received::Datagram(_) => self.next = 0,
            }
        }
    }
}

impl AsFd for FlowEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

/// The next event of a datagram from `at` on, which moves behind it. What cannot be read may have been an event.
fn take(datagram: &[u8], at: &mut usize) -> Option<Heard> {
    loop {
        let rest = datagram.get(*at..).unwrap_or_default();
        let told = match Messages::new(rest).next()? {
            Ok(message) => {
                *at += (HEADER_LENGTH + message.payload.len()).next_multiple_of(ALIGNMENT);
                Told::decode(&message)
            }
            Err(malformed) => {
                *at = datagram.len();
                Err(malformed)
            }
        };
        match told {
            Ok(None) => {}
            Ok(Some(told)) => return Some(Heard::Told(told)),
            Err(_) => return Some(Heard::Lost),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::attr::Writer;

    const DESTROY: &str = include_str!("../../tests/fixtures/conntrack/destroy.hex");

    /// What the kernel sent of the first flow that ended, from the nfgenmsg on.
    fn flow() -> Vec<u8> {
        let line = DESTROY.lines().next().unwrap();
        let byte = |at| u8::from_str_radix(&line[at..at + 2], 16).unwrap();
        (0..line.len()).step_by(2).map(byte).collect()
    }

    fn heard(datagram: &[u8]) -> Vec<Heard> {
        let mut at = 0;
        std::iter::from_fn(|| take(datagram, &mut at)).collect()
    }

    fn is_end(heard: &Heard) -> bool {
        matches!(heard, Heard::Told(told) if matches!(told.event, FlowEvent::Ended(_)))
    }

    #[test]
    fn each_message_of_a_datagram_is_told_and_an_update_is_no_birth() {
        let mut writer = Writer::new();
        writer.message(message::DELETE, 0, 0, |w| w.raw(&flow()));
        writer.message(message::NEW, 0, 0, |w| w.raw(&flow()));
        writer.message(message::NEW, 0x400, 0, |w| w.raw(&flow()));
        writer.message(message::NEW, NEW_FLAGS, 0, |w| w.raw(&flow()));
        let heard = heard(writer.bytes());
        assert_eq!(heard.len(), 2);
        assert!(is_end(&heard[0]));
        assert!(matches!(&heard[1], Heard::Told(told) if matches!(told.event, FlowEvent::Born(_))));
    }

    #[test]
    fn what_cannot_be_read_is_lost_and_the_rest_of_the_datagram_is_not() {
        let mut writer = Writer::new();
        writer.message(message::DELETE, 0, 0, |w| w.raw(&flow()[..50]));
        writer.message(message::DELETE, 0, 0, |w| w.raw(&flow()));
        let heard = heard(writer.bytes());
        assert_eq!((heard.len(), heard[0]), (2, Heard::Lost));
        assert!(is_end(&heard[1]));
    }

    #[test]
    fn a_length_that_points_outside_ends_the_datagram_with_a_loss() {
        let mut writer = Writer::new();
        writer.message(message::DELETE, 0, 0, |w| w.raw(&flow()));
        let mut datagram = writer.bytes().to_vec();
        datagram.extend([0xff, 0xff, 0, 0]);
        datagram.extend([0; 12]);
        let heard = heard(&datagram);
        assert_eq!((heard.len(), heard[1]), (2, Heard::Lost));
    }
}
