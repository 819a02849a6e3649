//! What thresholds at work ask of the daemon, and what the drilldowns answer: plain values that cross between the
//! loop and the thread that follows flows.

use std::time::Duration;

use crate::config::{Counter, Threshold};
use crate::drilldown::verdict::{FlowShare, HostShare};
use crate::event::Event;
use crate::units::{Tick, Volume};

/// What the daemon must do.
#[derive(Debug, Clone, PartialEq)]
pub enum Ask {
    /// Follow the flows behind a counter.
    Begin(Box<Inquiry>),
    /// What the counter has counted by now.
    Counted {
        /// The drilldown.
        id: String,
        /// Since the account began.
        counted: Volume,
        /// The kernel's value that goes with it.
        kernel: Volume,
    },
    /// Give the verdict.
    End(Box<Ending>),
    /// Forget it: the threshold never fired.
    Discard {
        /// The drilldown.
        id: String,
    },
}

/// Whom to look for.
#[derive(Debug, Clone, PartialEq)]
pub struct Inquiry {
    /// Unique among the drilldowns of this router.
    pub id: String,
    /// The threshold that asks.
    pub threshold: Threshold,
    /// The counter to explain.
    pub counter: Counter,
    /// The account begins here: the last reading that was not above raise.
    pub started: Tick,
}

/// How an account ends.
#[derive(Debug, Clone, PartialEq)]
pub struct Ending {
    /// The drilldown.
    pub id: String,
    /// The reading at which it ends.
    pub ended: Tick,
    /// Counted within the account.
    pub counted: Volume,
    /// The highest bit rate of one interval.
    pub peak_bits: f64,
    /// The highest packet rate of one interval.
    pub peak_packets: f64,
    /// Why, when not because the threshold is idle again.
    pub ended_by: Option<String>,
}

/// What a drilldown knows so far.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// The drilldown.
    pub id: String,
    /// Counted since the account began, at the last dump.
    pub counted_bytes: u64,
    /// Found in flows.
    pub attributed_bytes: u64,
    /// What flows sum to beyond the counter.
    pub excess_bytes: u64,
    /// Bytes of the hosts not named.
    pub hosts_remainder_bytes: u64,
    /// Bytes of the flows not named.
    pub flows_remainder_bytes: u64,
    /// The top hosts.
    pub hosts: Vec<HostShare>,
    /// The top flows.
    pub flows: Vec<FlowShare>,
    /// Conntrack dumps so far.
    pub dumps: u64,
    /// What the last dump took.
    pub dump_time: Duration,
    /// The time between dumps as the budget has it now.
    pub interval: Duration,
}

/// What one reading brought.
#[derive(Debug, Default, PartialEq)]
pub struct Outcome {
    /// For the log.
    pub events: Vec<Event>,
    /// For the drilldowns.
    pub asks: Vec<Ask>,
}
