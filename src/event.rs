//! What happened, as one record each: the lines of the log. The JSON form is the contract of the log file.

use std::net::IpAddr;

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::drilldown::verdict::{Findings, FlowShare, HostShare, Verdict};
use crate::report::Severity;
use crate::units::{CounterName, SubnetName, ThresholdName};

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// When it happened.
    pub time: Timestamp,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Event {
    /// The daemon runs and its table is in force.
    Started {
        /// flowctl's version.
        version: String,
        /// How many counters.
        counters: usize,
        /// Worth knowing at a start, e.g. that conntrack was switched on.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        notes: Vec<String>,
    },
    /// The daemon ends; the table goes on counting.
    Stopped {
        /// Why.
        reason: String,
    },
    /// A threshold fires.
    Raised(Raised),
    /// A drilldown's interim top list.
    Flows(TopList),
    /// A drilldown has ended.
    Verdict(Box<Verdict>),
    /// A threshold is idle again.
    Cleared {
        /// The threshold.
        threshold: ThresholdName,
        /// The counter it watches.
        counter: CounterName,
        /// The drilldown that went with it, if any.
        drilldown: Option<String>,
    },
    /// An interval in which counts may be missing.
    Gap {
        /// The last good reading.
        from: Timestamp,
        /// When counting was in force again.
        to: Timestamp,
        /// What the devices' own statistics moved meanwhile; `None` where they cannot tell.
        bound_bytes: Option<u64>,
        /// What happened, and by whom if known.
        cause: String,
    },
    /// A counter in the kernel was found lower than before.
    Reset {
        /// `None` when many at once; then `counters` says how many.
        counter: Option<CounterName>,
        /// How many counters.
        counters: usize,
        /// The program, if known.
        by: Option<String>,
    },
    /// A health entry came or went.
    Health {
        /// The stable word.
        code: String,
        /// How much it matters.
        severity: Severity,
        /// What is the case.
        message: String,
        /// What to do.
        fix: String,
        /// False when it no longer holds.
        active: bool,
    },
    /// A subnet that follows devices has other prefixes now; its counters go on.
    Subnet {
        /// The subnet.
        subnet: SubnetName,
        /// What is in it from now on.
        prefixes: Vec<IpNet>,
        /// What was in it.
        before: Vec<IpNet>,
    },
    /// The time between conntrack dumps is another one, to keep within the CPU budget.
    Pace {
        /// From the end of a dump to the beginning of the next.
        interval_seconds: f64,
        /// What the last dump took.
        dump_seconds: f64,
        /// CPU time of that.
        dump_cpu_seconds: f64,
        /// Flows remembered for all drilldowns going on.
        flows: u64,
    },
    /// The configuration was read again.
    Config {
        /// `reloaded` or `rejected`.
        result: ConfigResult,
        /// What changed, or what is wrong.
        messages: Vec<String>,
    },
}

/// How a reload went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConfigResult {
    /// The new one is in force.
    Reloaded,
    /// The old one stays in force.
    Rejected,
}

/// A threshold fires. One of the two rates is `None`, by the threshold's kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Raised {
    /// The threshold.
    pub threshold: ThresholdName,
    /// The counter it watches.
    pub counter: CounterName,
    /// The drilldown that goes with it, if any.
    pub drilldown: Option<String>,
    /// The rate at this reading.
    pub bits_per_second: Option<f64>,
    /// The rate at this reading.
    pub packets_per_second: Option<f64>,
    /// The raise level, in the unit of the rate given.
    pub level: f64,
    /// Counted since the account began, at the last dump; `None` before the first.
    #[serde(default)]
    pub counted_bytes: Option<u64>,
    /// Found in flows by then.
    #[serde(default)]
    pub attributed_bytes: Option<u64>,
    /// What flows sum to beyond the counter by then.
    #[serde(default)]
    pub excess_bytes: Option<u64>,
    /// The top hosts so far; empty before the first dump.
    pub hosts: Vec<HostShare>,
    /// The top flows so far; empty before the first dump.
    pub flows: Vec<FlowShare>,
}

/// A drilldown's interim top list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TopList {
    /// The threshold; `None` on demand.
    pub threshold: Option<ThresholdName>,
    /// The counter; `None` where a host was asked for.
    pub counter: Option<CounterName>,
    /// The host asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<IpAddr>,
    /// The drilldown.
    pub drilldown: String,
    /// Counted so far; `None` where nothing counts.
    pub counted_bytes: Option<u64>,
    /// Who, so far.
    #[serde(flatten)]
    pub found: Findings,
}
