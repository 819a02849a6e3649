//! The answer when a drilldown ends. Its JSON form is the contract of the log's `verdict` record.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::units::{CounterName, ThresholdName};

/// Who moved the bytes of one counter, or of one host, within one account. Where something counted, always
/// `attributed + unexplained = counted`; every view with its remainder sums to `attributed + excess`, to the byte.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The threshold that asked; `None` on demand.
    pub threshold: Option<ThresholdName>,
    /// The counter explained; `None` where a host was asked for.
    pub counter: Option<CounterName>,
    /// The host asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<IpAddr>,
    /// The drilldown's id.
    pub drilldown: String,
    /// The last reading that was not above raise; on demand a reading made for the question.
    pub started: Timestamp,
    /// The reading at which the threshold was idle again, or at which the drilldown had to end.
    pub ended: Timestamp,
    /// Between the two, by boot time.
    pub duration_seconds: f64,
    /// The highest rate of one interval; `None` where nothing counted.
    pub peak_bits_per_second: Option<f64>,
    /// The highest rate of one interval; `None` where nothing counted.
    pub peak_packets_per_second: Option<f64>,
    /// The counter's bytes within the account; `None` where a host was asked for.
    pub counted_bytes: Option<u64>,
    /// The counter's packets within the account; `None` where a host was asked for.
    pub counted_packets: Option<u64>,
    /// attributed / counted, at most 1; 1 where nothing was counted, `None` where nothing counted.
    pub coverage: Option<f64>,
    /// counted - attributed.
    pub unexplained_bytes: Option<u64>,
    /// The same, by cause.
    pub unexplained: Option<Unexplained>,
    /// Why it ended, when not because the threshold was idle again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_by: Option<String>,
    /// Who.
    #[serde(flatten)]
    pub found: Findings,
    /// The answer as a sentence.
    pub text: String,
}

/// Who moved the bytes: four views of the same flows, each the largest first. Every view with its remainder sums to
/// `attributed + excess`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Findings {
    /// Found in flows, at most what was counted.
    pub attributed_bytes: u64,
    /// What flows sum to beyond the counter.
    pub excess_bytes: u64,
    /// Bytes of the hosts not named.
    pub hosts_remainder_bytes: u64,
    /// Bytes of the outside ends not named.
    pub outside_remainder_bytes: u64,
    /// Bytes of the services not named.
    pub services_remainder_bytes: u64,
    /// Bytes of the flows not named.
    pub flows_remainder_bytes: u64,
    /// How many hosts there were, named or not.
    pub hosts_total: u64,
    /// How many outside ends there were, named or not.
    pub outside_total: u64,
    /// How many services there were, named or not.
    pub services_total: u64,
    /// How many flows there were, named or not.
    pub flows_total: u64,
    /// Whether conntrack events or dumps were lost, or there was more than can be kept.
    pub lossy: bool,
    /// What makes the answer less than it could be, a sentence each.
    pub notes: Vec<String>,
    /// By inside host.
    pub hosts: Vec<HostShare>,
    /// By the other end of their flows.
    pub outside: Vec<EndShare>,
    /// By what the flows were opened to.
    pub services: Vec<ServiceShare>,
    /// By flow.
    pub flows: Vec<FlowShare>,
    /// Who sent what no flow explains, as far as that was measured: packets that conntrack did not keep.
    pub dropped: Vec<EndShare>,
}

/// Bytes that no flow explains, by cause; they sum to `unexplained_bytes`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Unexplained {
    /// Moved by flows older than the account before the first dump could see them.
    pub before_baseline: u64,
    /// Timing between dumps and readings alone.
    pub skew: u64,
    /// Packets that conntrack does not follow: exempted by a rule, or invalid to it.
    pub untracked: u64,
    /// Packets dropped before conntrack kept their flow.
    pub unconfirmed: u64,
    /// A flowtable carried flows past the hooks, and their counts were not brought up to date.
    pub offloaded: u64,
    /// Conntrack accounting was off when the flows were created.
    pub no_accounting: u64,
    /// Flows that ended unseen because events or dumps were lost.
    pub events_lost: u64,
    /// Someone zeroed conntrack's counts meanwhile.
    pub gap: u64,
    /// ICMP errors, which conntrack puts into no flow's counts.
    pub icmp_error: u64,
    /// None of the above.
    pub unknown: u64,
}

impl Unexplained {
    /// Of all causes.
    pub fn sum(&self) -> u64 {
        [
            self.before_baseline,
            self.skew,
            self.untracked,
            self.unconfirmed,
            self.offloaded,
            self.no_accounting,
            self.events_lost,
            self.gap,
            self.icmp_error,
            self.unknown,
        ]
        .iter()
        .sum()
    }
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
    /// All addresses of the device that traffic was put down to, the largest first.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// In the counter's direction, within the account.
    pub bytes: u64,
    /// In the counter's direction, within the account.
    pub packets: u64,
    /// bytes / max(counted, attributed + excess).
    pub share: f64,
}

/// One outside end's part, or one sender's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EndShare {
    /// The end that is not the host.
    pub address: IpAddr,
    /// Its name, if known.
    pub name: Option<String>,
    /// In the counter's direction, within the account.
    pub bytes: u64,
    /// In the counter's direction, within the account.
    pub packets: u64,
    /// bytes / max(counted, attributed + excess).
    pub share: f64,
}

/// One service's part: what flows were opened to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceShare {
    /// By name (tcp, udp, icmp, icmpv6, gre, esp, sctp), else the number as text.
    pub protocol: String,
    /// `None` for protocols without ports.
    pub port: Option<u16>,
    /// What the port is registered for, where it is widely known.
    pub name: Option<String>,
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
