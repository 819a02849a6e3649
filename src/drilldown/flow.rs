//! One flow as a drilldown names it: its ends, what it moved within the account, when it began and ended.

use std::net::IpAddr;

use crate::drilldown::attribution::Belongs;
use crate::drilldown::view::Row;
use crate::kernel::conntrack::{Detail, FlowRecord, Tuple};
use crate::units::Volume;

/// What tells a flow from others: conntrack's zone, its hash of the entry, and the tuple before any NAT.
pub type FlowKey = (u16, u32, Tuple);

/// The key of a flow.
pub fn key(record: &FlowRecord) -> FlowKey {
    (record.zone, record.id, record.original)
}

/// A flow that belongs to the counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// As expected on the wire.
    pub reply: Tuple,
    /// Which directions the counter counts.
    pub belongs: Belongs,
    /// What the original direction moved within the account; stays 0 where it does not belong.
    pub original_moved: Volume,
    /// What the reply direction moved within the account; stays 0 where it does not belong.
    pub reply_moved: Volume,
    /// Nanoseconds since 1970; `None` where stamps are off.
    pub start: Option<u64>,
    /// Nanoseconds since 1970, where its end was told.
    pub ended: Option<u64>,
}

/// Who opened a flow, whom it reached, and what for: inside addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ends {
    /// Who opened it.
    pub opener: IpAddr,
    /// Whom it reached.
    pub opened: IpAddr,
    /// What it was opened to.
    pub service: Service,
}

/// What a flow was opened to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Service {
    /// IP protocol number.
    pub protocol: u8,
    /// `None` for protocols without ports.
    pub port: Option<u16>,
}

impl Ends {
    /// At flowctl's hooks original packets go from the original source to the reply source.
    pub fn of(original: &Tuple, reply: &Tuple) -> Self {
        let port = match reply.detail {
            Detail::Ports { source, .. } => Some(source),
            Detail::Icmp { .. } | Detail::None => None,
        };
        Ends {
            opener: original.source,
            opened: reply.source,
            service: Service {
                protocol: original.protocol,
                port,
            },
        }
    }
}

impl Flow {
    /// One that has moved nothing yet.
    pub fn new(record: &FlowRecord) -> Self {
        Flow {
            reply: record.reply,
            belongs: Belongs::default(),
            original_moved: Volume::default(),
            reply_moved: Volume::default(),
            start: record.start,
            ended: None,
        }
    }

    /// In both directions that belong.
    pub fn moved(&self) -> Volume {
        self.original_moved.plus(self.reply_moved)
    }
}

impl Row for Flow {
    fn volume(&self) -> Volume {
        self.moved()
    }
}
