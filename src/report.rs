//! Everything known at one tick, immutable: all that sinks and the command line ever see. Its JSON form is the
//! contract of `flowctl status --json`; adding keys is free, renaming one is not.

use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ask::Progress;
use crate::drilldown::verdict::{Findings, Verdict};
use crate::kernel::nft::Protection;
use crate::units::{CounterName, ExistingCounter, InterfaceName, ThresholdName};

/// The state of the daemon at its last tick.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// flowctl's version.
    pub version: String,
    /// The daemon's process id.
    pub pid: u32,
    /// Wall time of this tick.
    pub time: Timestamp,
    /// Since the daemon started.
    pub uptime_seconds: f64,
    /// The beat.
    pub tick: TickReport,
    /// The nftables table.
    pub table: TableReport,
    /// In the configuration's order.
    pub counters: Arc<Vec<CounterReport>>,
    /// In the configuration's order.
    #[serde(default)]
    pub interfaces: Vec<InterfaceReport>,
    /// In the configuration's order.
    pub thresholds: Vec<ThresholdReport>,
    /// Those going on.
    pub drilldowns: Vec<DrilldownReport>,
    /// The newest verdict since the daemon started.
    pub last_verdict: Option<Arc<Verdict>>,
    /// What makes numbers wrong or incomplete.
    pub health: Vec<Health>,
    /// What flowctl itself costs.
    pub cost: Cost,
}

/// The beat.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TickReport {
    /// Counts from 0.
    pub sequence: u64,
    /// As configured.
    pub interval_seconds: f64,
    /// Ticks that did not happen because one before was late.
    pub missed: u64,
    /// What the last reading of all counters took.
    pub read_microseconds: u64,
}

/// The nftables table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TableReport {
    /// Its name, family inet.
    pub name: String,
    /// Whether the daemon owns it, or repairs it.
    pub protection: Protection,
    /// How often it was repaired since the daemon started.
    pub repairs: u64,
}

/// One counter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CounterReport {
    /// Its name.
    pub name: CounterName,
    /// The counter of others that it reads, as `inet accounting wan_bytes_in`; `None` for one of flowctl's own.
    #[serde(default)]
    pub existing: Option<ExistingCounter>,
    /// flowctl's own total: never falls.
    pub bytes: u64,
    /// flowctl's own total: never falls.
    pub packets: u64,
    /// Over the last interval; 0 before the second reading.
    pub bits_per_second: f64,
    /// Over the last interval; 0 before the second reading.
    pub packets_per_second: f64,
    /// `None` when the configuration says nothing.
    pub capacity_bits_per_second: Option<f64>,
    /// How often the kernel's counter was found lower than before.
    pub resets: u64,
    /// Whether the kernel had it at the last reading.
    pub present: bool,
    /// The bit rates of the last ticks, oldest first.
    pub history_bits_per_second: History,
}

/// The newest rates of one counter, oldest first, at most `History::LENGTH`; without memory of its own, so that
/// a report of 10,000 counters costs no 10,000 allocations.
#[derive(Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(from = "Vec<f32>", into = "Vec<f32>")]
pub struct History {
    rates: [f32; History::LENGTH],
    length: usize,
}

impl History {
    /// How many rates are kept.
    pub const LENGTH: usize = 32;

    /// Adds the newest, forgets the oldest when full.
    pub fn push(&mut self, rate: f32) {
        if self.length == Self::LENGTH {
            self.rates.copy_within(1.., 0);
            self.length -= 1;
        }
        self.rates[self.length] = rate;
        self.length += 1;
    }
}

impl Default for History {
    fn default() -> Self {
        History {
            rates: [0.0; Self::LENGTH],
            length: 0,
        }
    }
}

impl std::ops::Deref for History {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.rates[..self.length]
    }
}

impl std::fmt::Debug for History {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl From<History> for Vec<f32> {
    fn from(history: History) -> Vec<f32> {
        history.to_vec()
    }
}

impl From<Vec<f32>> for History {
    fn from(rates: Vec<f32>) -> History {
        let mut history = History::default();
        rates.into_iter().for_each(|rate| history.push(rate));
        history
    }
}

/// One interface, as its devices see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InterfaceReport {
    /// Its name.
    pub name: InterfaceName,
    /// Those that are there.
    pub devices: Vec<DeviceReport>,
    /// Where devices and counters part.
    pub differences: Vec<DifferenceReport>,
}

/// One device. What it counts is layer 2, since it was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceReport {
    /// Its name.
    pub name: String,
    /// Whether it is switched on.
    pub up: bool,
    /// `None` where it has no speed, or no link.
    pub speed_bits_per_second: Option<f64>,
    /// What came in.
    pub received: DeviceDirectionReport,
    /// What was sent.
    pub sent: DeviceDirectionReport,
}

/// One direction of a device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct DeviceDirectionReport {
    /// Headers of layer 2 included.
    pub bytes: u64,
    /// As the driver saw them.
    pub packets: u64,
    /// Broken ones.
    pub errors: u64,
    /// Whole ones that found no room.
    pub dropped: u64,
    /// Over the last interval; 0 before the second reading.
    pub bits_per_second: f64,
}

/// Devices and a counter that part over the last seconds, by more than headers and timing make.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DifferenceReport {
    /// The counter.
    pub counter: CounterName,
    /// What the interface's devices moved in its direction, layer 3 as far as that can be told.
    pub device_bytes: u64,
    /// What it counted meanwhile.
    pub counted_bytes: u64,
    /// Over so long.
    pub seconds: f64,
    /// What explains it best.
    pub cause: DifferenceCause,
}

/// Why devices and counters part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DifferenceCause {
    /// A flowtable carries flows past the hooks.
    Offloaded,
    /// The device is a port: frames pass from one to another below layer 3, and counters see the bridge.
    Bridged,
    /// VLANs or tunnels stand on the device: their packets carry the names of those.
    DevicesAbove,
    /// More was offered to the device's queue than it sent; or policy IPsec made packets pass a second time, as ESP.
    DroppedByQueue,
    /// Not IP, or dropped before flowctl's hook.
    Unseen,
}

/// A threshold's state, as a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StateWord {
    /// At or below raise.
    Idle,
    /// Above raise, not yet for as long as hold.
    Pending,
    /// Raised.
    Firing,
    /// At or below clear, not yet for as long as release.
    Clearing,
}

/// One threshold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ThresholdReport {
    /// Its name.
    pub name: ThresholdName,
    /// The counter it watches.
    pub counter: CounterName,
    /// Where it stands.
    pub state: StateWord,
    /// Since when.
    pub since: Timestamp,
    /// `None` for a packet-rate threshold.
    pub raise_bits_per_second: Option<f64>,
    /// `None` for a packet-rate threshold.
    pub clear_bits_per_second: Option<f64>,
    /// `None` for a bit-rate threshold.
    pub raise_packets_per_second: Option<f64>,
    /// `None` for a bit-rate threshold.
    pub clear_packets_per_second: Option<f64>,
}

/// A drilldown that goes on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DrilldownReport {
    /// Its id, as in the log.
    pub id: String,
    /// The threshold that asked; `None` on demand.
    pub threshold: Option<ThresholdName>,
    /// The counter it explains; `None` where a host was asked for.
    pub counter: Option<CounterName>,
    /// The host asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<IpAddr>,
    /// Where the account begins.
    pub started: Timestamp,
    /// Counted since then, up to the last dump; `None` where nothing counts.
    pub counted_bytes: Option<u64>,
    /// attributed / counted, at most 1; `None` before anything was counted.
    pub coverage: Option<f64>,
    /// Who, so far.
    #[serde(flatten)]
    pub found: Findings,
    /// How many conntrack dumps so far.
    pub dumps: u64,
    /// What the last dump took, in microseconds.
    pub dump_microseconds: u64,
    /// The time between dumps as the budget has it now, in seconds.
    pub interval_seconds: f64,
}

impl DrilldownReport {
    /// With what it has found so far, if it has looked yet.
    pub fn with(self, progress: Option<&Progress>) -> Self {
        let Some(progress) = progress else {
            return self;
        };
        let attributed = progress.found.attributed_bytes as f64;
        let counted = progress.counted_bytes.filter(|counted| *counted > 0);
        DrilldownReport {
            counted_bytes: progress.counted_bytes,
            coverage: counted.map(|counted| (attributed / counted as f64).min(1.0)),
            found: progress.found.clone(),
            dumps: progress.dumps,
            dump_microseconds: progress.dump_time.as_micros() as u64,
            interval_seconds: progress.interval.as_secs_f64(),
            ..self
        }
    }
}

/// How much a health entry matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Numbers may be incomplete.
    Warning,
    /// flowctl cannot do its job.
    Error,
}

/// Something that makes numbers wrong or incomplete, with its remedy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// A stable word, e.g. `conntrack_acct_off`.
    pub code: String,
    /// How much it matters.
    pub severity: Severity,
    /// What is the case.
    pub message: String,
    /// What to do.
    pub fix: String,
}

/// What flowctl itself costs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// User and system time since the start.
    pub cpu_seconds: f64,
    /// Resident memory now.
    pub rss_bytes: u64,
}
