//! What was told, read by the keys of its JSON as another program would read it: verdicts and alerts of the log, and
//! the drilldowns of the status.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::support::{Bench, Daemon};

/// A verdict about a counter that a threshold asked for.
#[derive(Debug, Clone, Deserialize)]
pub struct Verdict {
    pub threshold: String,
    pub counter: String,
    pub started: Timestamp,
    pub ended: Timestamp,
    pub counted_bytes: u64,
    pub counted_packets: u64,
    pub attributed_bytes: u64,
    pub excess_bytes: u64,
    pub coverage: f64,
    pub unexplained_bytes: u64,
    /// By cause.
    pub unexplained: BTreeMap<String, u64>,
    pub flows_remainder_bytes: u64,
    pub hosts_total: u64,
    pub flows_total: u64,
    pub lossy: bool,
    pub hosts: Vec<Host>,
    pub flows: Vec<Flow>,
    pub text: String,
    /// What makes it less than it could be, a sentence each.
    #[serde(default)]
    notes: Vec<String>,
    pub outside: Option<Vec<End>>,
    pub outside_remainder_bytes: Option<u64>,
    pub services: Option<Vec<Service>>,
    pub services_remainder_bytes: Option<u64>,
    /// Who sent what no flow explains.
    #[serde(default)]
    pub dropped: Vec<End>,
}

/// The part of an end that is no inside host, or of a sender.
#[derive(Debug, Clone, Deserialize)]
pub struct End {
    pub address: IpAddr,
    pub bytes: u64,
}

/// The part of what flows were opened to.
#[derive(Debug, Clone, Deserialize)]
pub struct Service {
    pub protocol: String,
    pub port: Option<u16>,
    pub name: Option<String>,
    pub bytes: u64,
}

/// One inside host's part.
#[derive(Debug, Clone, Deserialize)]
pub struct Host {
    pub address: IpAddr,
    /// All of one device, where that is known.
    #[serde(default)]
    addresses: Vec<IpAddr>,
    pub bytes: u64,
    pub share: f64,
}

/// One flow's part.
#[derive(Debug, Clone, Deserialize)]
pub struct Flow {
    pub protocol: String,
    pub source: IpAddr,
    pub source_port: Option<u16>,
    pub destination: IpAddr,
    pub destination_port: Option<u16>,
    nat_source: Option<IpAddr>,
    nat_source_port: Option<u16>,
    nat_destination: Option<IpAddr>,
    nat_destination_port: Option<u16>,
    pub icmp_type: Option<u8>,
    pub icmp_code: Option<u8>,
    pub icmp_id: Option<u16>,
    pub bytes: u64,
    pub packets: u64,
    pub share: f64,
    pub started: Option<Timestamp>,
    pub approximate: bool,
}

/// An alert.
#[derive(Debug, Clone, Deserialize)]
pub struct Raised {
    pub hosts: Vec<Host>,
}

impl Verdict {
    /// Bytes that this cause explains why they are unexplained.
    pub fn because_of(&self, cause: &str) -> u64 {
        self.unexplained.get(cause).copied().unwrap_or(0)
    }

    /// A note says so.
    pub fn assert_noted(&self, word: &str) {
        let mut notes = self.notes.iter();
        assert!(
            notes.any(|note| note.to_lowercase().contains(word)),
            "{word}: {self:#?}"
        );
    }

    /// The host of that address.
    pub fn host(&self, address: IpAddr) -> &Host {
        let mut hosts = self.hosts.iter();
        let found = hosts.find(|host| host.addresses().contains(&address));
        found.unwrap_or_else(|| panic!("{address} is not in {self:#?}"))
    }

    /// The flow that begins at that port.
    pub fn flow(&self, source_port: u16) -> &Flow {
        let mut flows = self.flows.iter();
        let found = flows.find(|flow| flow.source_port == Some(source_port));
        found.unwrap_or_else(|| panic!("no flow from port {source_port} in {self:#?}"))
    }

    /// The hosts' addresses, the first is the largest.
    pub fn named(&self) -> Vec<IpAddr> {
        self.hosts.iter().map(|host| host.address).collect()
    }
}

impl Host {
    /// All that it goes by.
    pub fn addresses(&self) -> Vec<IpAddr> {
        match self.addresses[..] {
            [] => vec![self.address],
            _ => self.addresses.clone(),
        }
    }
}

impl Flow {
    /// Source and destination as the outside sees them, where they differ.
    pub fn outside(&self) -> [Option<SocketAddr>; 2] {
        let end = |address: Option<IpAddr>, port: Option<u16>| {
            address.map(|address| SocketAddr::new(address, port.unwrap_or(0)))
        };
        [
            end(self.nat_source, self.nat_source_port),
            end(self.nat_destination, self.nat_destination_port),
        ]
    }
}

/// All records of that event so far, in order.
pub fn told<T: DeserializeOwned>(bench: &Bench<'_>, event: &str) -> Vec<T> {
    let lines = bench.lines().into_iter();
    let of_event = lines.filter(|line| line["event"] == event);
    of_event
        .map(|line| serde_json::from_value(line).unwrap())
        .collect()
}

/// All verdicts of that threshold so far.
pub fn verdicts(bench: &Bench<'_>, threshold: &str) -> Vec<Verdict> {
    let mut verdicts: Vec<Verdict> = told(bench, "verdict");
    verdicts.retain(|verdict| verdict.threshold == threshold);
    verdicts
}

/// The most that a drilldown in the status has found; `None` while there is none.
pub fn found_bytes(daemon: &Daemon<'_>) -> Option<u64> {
    let status = serde_json::to_value(daemon.status()).unwrap();
    let drilldowns = status["drilldowns"].as_array().unwrap().iter();
    drilldowns
        .map(|drilldown| drilldown["attributed_bytes"].as_u64().unwrap())
        .max()
}

/// The newest verdict that the status has.
pub fn last_verdict(daemon: &Daemon<'_>) -> Option<Verdict> {
    let status = serde_json::to_value(daemon.status()).unwrap();
    serde_json::from_value::<Option<Verdict>>(status["last_verdict"].clone()).unwrap()
}
