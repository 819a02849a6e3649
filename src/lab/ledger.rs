//! What one generator has sent and received, readable at any time while it works. Each gauge has one writer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::latch::Latch;
use crate::units::{BitRate, Volume};

/// Bytes and packets that went by one point.
#[derive(Debug, Default)]
pub(super) struct Gauge {
    bytes: AtomicU64,
    packets: AtomicU64,
}

impl Gauge {
    pub(super) fn add(&self, bytes: u64, packets: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        // Released last: who sees the packet sees its bytes.
        self.packets.fetch_add(packets, Ordering::Release);
    }

    pub(super) fn packets(&self) -> u64 {
        self.packets.load(Ordering::Acquire)
    }

    pub(super) fn volume(&self) -> Volume {
        let packets = self.packets();
        Volume {
            bytes: self.bytes.load(Ordering::Relaxed),
            packets,
        }
    }
}

/// One direction.
#[derive(Debug, Default)]
pub(super) struct Leg {
    pub(super) sent: Gauge,
    pub(super) received: Gauge,
    /// Set when nothing more will be sent.
    pub(super) done: Latch,
}

impl Leg {
    fn moved(&self) -> Moved {
        // Received first, so that it is never more than sent.
        let received = self.received.volume();
        Moved {
            sent: self.sent.volume(),
            received,
        }
    }
}

/// Both directions, and the orders to stop and to go at another rate.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) up: Leg,
    pub(super) down: Leg,
    pub(super) stop: Latch,
    /// `None`: as it was started.
    rate: Mutex<Option<BitRate>>,
}

impl Ledger {
    pub(super) fn set_rate(&self, rate: BitRate) {
        *self.rate.lock().unwrap_or_else(PoisonError::into_inner) = Some(rate);
    }

    pub(super) fn rate(&self) -> Option<BitRate> {
        *self.rate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn totals(&self) -> Totals {
        Totals {
            up: self.up.moved(),
            down: self.down.moved(),
        }
    }
}

/// One direction of a generator's traffic. UDP: layer 3 bytes and packets, exact. TCP: payload bytes as handed to
/// and taken from the sockets, and no packets, since only the kernel knows those.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moved {
    /// What the sending socket took.
    pub sent: Volume,
    /// What the other end got.
    pub received: Volume,
}

/// What a generator moved: up from client to server, down from server to client.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// From client to server.
    pub up: Moved,
    /// From server to client.
    pub down: Moved,
}
