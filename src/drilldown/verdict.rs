//! The answer when a drilldown ends. Its JSON form is the contract of the log's `verdict` record.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::units::{CounterName, ThresholdName};

/// Who moved the bytes of one counter, within one account. Always `attributed + unexplained = counted` and
/// `hosts + hosts_remainder = flows + flows_remainder = attributed + excess`, to the byte.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The threshold that asked.
    pub threshold: ThresholdName,
    /// The counter explained.
    pub counter: CounterName,
    /// The drilldown's id.
    pub drilldown: String,
    /// The last reading that was not above raise.
    pub started: Timestamp,
    /// The reading at which the threshold was idle again, or at which the drilldown had to end.
    pub ended: Timestamp,
    /// Between the two, by boot time.
    pub duration_seconds: f64,
    /// The highest rate of one interval.
    pub peak_bits_per_second: f64,
    /// The highest rate of one interval.
    pub peak_packets_per_second: f64,
    /// The counter's bytes within the account.
    pub counted_bytes: u64,
    /// The counter's packets within the account.
    pub counted_packets: u64,
    /// Of those, found in flows.
    pub attributed_bytes: u64,
    /// What flows sum to beyond the counter.
    pub excess_bytes: u64,
    /// attributed / counted, at most 1; 1 where nothing was counted.
    pub coverage: f64,
    /// counted - attributed.
    pub unexplained_bytes: u64,
    /// The same, by cause.
    pub unexplained: Unexplained,
    /// Bytes of the hosts not named.
    pub hosts_remainder_bytes: u64,
    /// Bytes of the flows not named.
    pub flows_remainder_bytes: u64,
    /// How many hosts there were, named or not.
    pub hosts_total: usize,
    /// How many flows there were, named or not.
    pub flows_total: usize,
    /// Whether conntrack events or dumps were lost.
    pub lossy: bool,
    /// Why it ended, when not because the threshold was idle again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_by: Option<String>,
    /// Ranked by bytes, or by packets for a packet-rate threshold.
    pub hosts: Vec<HostShare>,
    /// Ranked by bytes, or by packets for a packet-rate threshold.
    pub flows: Vec<FlowShare>,
    /// The answer as a sentence.
    pub text: String,
}

/// Bytes that no flow explains, by cause; they sum to `unexplained_bytes`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Unexplained {
    /// Moved by flows older than the account before the first dump could see them.
    pub before_baseline: u64,
    /// Timing between dumps and readings alone.
    pub skew: u64,
    /// Conntrack accounting was off when the flows were created.
    pub no_accounting: u64,
    /// Flows that ended unseen because events or dumps were lost.
    pub events_lost: u64,
    /// None of the above.
    pub unknown: u64,
}

/// One inside host's part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostShare {
    /// The inside end.
    pub address: IpAddr,
    /// Its name, if known.
    pub name: Option<String>,
    /// Its hardware address, if known.
    pub mac: Option<String>,
    /// In the counter's direction, within the account.
    pub bytes: u64,
    /// In the counter's direction, within the account.
    pub packets: u64,
    /// bytes / max(counted, attributed + excess).
    pub share: f64,
}

/// One flow's part. Source is who opened it; addresses and ports are the inside view, `nat_` ones the outside
/// view where it differs. For ICMP the ports are `None` and the `icmp_` keys are given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FlowShare {
    /// By name (tcp, udp, icmp, icmpv6, gre, esp, sctp), else the number as text.
    pub protocol: String,
    /// Who opened it.
    pub source: IpAddr,
    /// `None` for protocols without ports.
    pub source_port: Option<u16>,
    /// Where to.
    pub destination: IpAddr,
    /// `None` for protocols without ports.
    pub destination_port: Option<u16>,
    /// The source as the outside sees it, where it differs.
    pub nat_source: Option<IpAddr>,
    /// With `nat_source`.
    pub nat_source_port: Option<u16>,
    /// The destination as the outside sees it, where it differs.
    pub nat_destination: Option<IpAddr>,
    /// With `nat_destination`.
    pub nat_destination_port: Option<u16>,
    /// ICMP only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp_type: Option<u8>,
    /// ICMP only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp_code: Option<u8>,
    /// ICMP only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp_id: Option<u16>,
    /// In the counter's direction, within the account.
    pub bytes: u64,
    /// In the counter's direction, within the account.
    pub packets: u64,
    /// bytes / max(counted, attributed + excess).
    pub share: f64,
    /// Conntrack's own stamp; `None` where stamps are off.
    pub started: Option<Timestamp>,
    /// `None` while it lives.
    pub ended: Option<Timestamp>,
    /// Whether it is uncertain that the flow belongs to the counter.
    pub approximate: bool,
}
