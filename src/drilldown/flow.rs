//! One flow as a drilldown remembers it: where its counts began, what it moved within the account, when it ended.
//! It decides what a new sight of the counters adds; a count that falls never takes anything away.

use std::net::IpAddr;

use crate::drilldown::attribution::Belongs;
use crate::kernel::conntrack::{FlowRecord, Tuple};
use crate::units::Volume;

/// A flow that belongs to the counter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// Before any NAT.
    pub original: Tuple,
    /// As expected on the wire.
    pub reply: Tuple,
    /// Conntrack's zone.
    pub zone: u16,
    /// Conntrack's hash of the entry.
    pub id: u32,
    /// Which directions the counter counts.
    pub belongs: Belongs,
    /// What the original direction moved within the account; stays 0 where it does not belong.
    pub original_moved: Volume,
    /// What the reply direction moved within the account; stays 0 where it does not belong.
    pub reply_moved: Volume,
    /// Nanoseconds since 1970; `None` where stamps are off.
    pub start: Option<u64>,
    /// Nanoseconds since 1970: the kernel's stop, else the dump that missed it.
    pub ended: Option<u64>,
    /// The dump that saw it last.
    pub(super) seen_in: u32,
    /// The next flow whose key has the same hash.
    pub(super) next: Option<u32>,
    original_last: Volume,
    reply_last: Volume,
}

impl Flow {
    /// At first sight. What a flow born inside the account shows counts whole; what an older one shows is its baseline.
    pub fn first_seen(record: &FlowRecord, belongs: Belongs, born_inside: bool) -> Self {
        let mut flow = Flow {
            original: record.original,
            reply: record.reply,
            zone: record.zone,
            id: record.id,
            belongs,
            original_moved: Volume::default(),
            reply_moved: Volume::default(),
            start: record.start,
            ended: record.stop,
            seen_in: 0,
            next: None,
            original_last: Volume::default(),
            reply_last: Volume::default(),
        };
        if born_inside {
            flow.see(record, belongs);
        } else {
            flow.rebase(record);
        }
        flow
    }

    /// Takes the counters as they are now.
    pub fn see(&mut self, record: &FlowRecord, belongs: Belongs) {
        if self.start != record.start && record.start.is_some() {
            // Another flow has got the same tuple and the same hash; all of it is new.
            (self.original_last, self.reply_last) = Default::default();
            self.start = record.start;
        }
        self.belongs = self.belongs.or(belongs);
        if self.belongs.original {
            let grown = growth(self.original_last, record.original_volume);
            self.original_moved = self.original_moved.plus(grown);
        }
        if self.belongs.reply {
            let grown = growth(self.reply_last, record.reply_volume);
            self.reply_moved = self.reply_moved.plus(grown);
        }
        self.rebase(record);
        self.ended = record.stop;
    }

    /// Within the account, in the counter's direction or directions.
    pub fn moved(&self) -> Volume {
        self.original_moved.plus(self.reply_moved)
    }

    /// Who opened the flow and whom it reached, in inside addresses.
    pub fn inside_ends(&self) -> (IpAddr, IpAddr) {
        (self.original.source, self.reply.source)
    }

    fn rebase(&mut self, record: &FlowRecord) {
        self.original_last = record.original_volume.unwrap_or(self.original_last);
        self.reply_last = record.reply_volume.unwrap_or(self.reply_last);
    }
}

impl Belongs {
    fn or(self, other: Belongs) -> Belongs {
        Belongs {
            original: self.original || other.original,
            reply: self.reply || other.reply,
            approximate: self.approximate || other.approximate,
        }
    }
}

/// A fall means that someone zeroed conntrack's counters: what they show has moved since then.
fn growth(last: Volume, now: Option<Volume>) -> Volume {
    let Some(now) = now else {
        return Volume::default();
    };
    let fell = now.bytes < last.bytes || now.packets < last.packets;
    if fell { now } else { now.since(last) }
}
