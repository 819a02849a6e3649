//! What the devices of each interface counted themselves, beside flowctl's counters. Where the two part, something
//! passes one of them by, and the difference gets a name. Pure: it is handed readings and devices.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::{Config, Interface};
use crate::kernel::devices::DeviceReading;
use crate::kernel::links::{DirectionStatistics, Link, Statistics};
use crate::meter::Meter;
use crate::report::{
    DeviceDirectionReport, DeviceReport, DifferenceCause, DifferenceReport, InterfaceReport,
};
use crate::units::{CounterName, Uptime};

/// Counts are compared over one to two of these: shorter, timing alone makes a difference.
const WINDOW: Duration = Duration::from_secs(10);
/// An Ethernet header: devices count layer 2, counters layer 3.
const ETHERNET_HEADER: u64 = 14;
/// Below this share of the larger count, headers that merging of packets saves may be the whole difference.
const SHARE_MIN: f64 = 0.1;
/// Less than this in a window is not worth a word.
const BYTES_MIN: u64 = 1 << 20;

/// What is known of the devices beside the counters.
#[derive(Debug, Default)]
pub struct InterfaceWatch {
    /// Of each interface's counters in the meter, in and out.
    positions: Vec<[Option<usize>; 2]>,
    /// The newest two readings: rates are between them.
    before: Option<Moment>,
    now: Option<Moment>,
    /// Where the comparison begins, and where the next one will.
    baseline: Option<Moment>,
    next_baseline: Option<Moment>,
}

/// Devices and counters at one reading.
#[derive(Debug, Clone)]
struct Moment {
    at: Uptime,
    /// By index.
    devices: Vec<DeviceReading>,
    /// Of each interface, in the configuration's order: bytes in and out.
    counted: Vec<[u64; 2]>,
}

/// What else is known of the devices.
#[derive(Debug, Clone, Copy)]
pub struct DeviceFacts<'a> {
    /// All devices.
    pub links: &'a [Link],
    /// Bits per second, by index, where a device has a speed.
    pub speeds: &'a BTreeMap<u32, f64>,
    /// Whether there are flowtables, which carry traffic past the counters.
    pub offload: bool,
}

impl InterfaceWatch {
    /// Looks at the interfaces and counters of `config` from now on.
    pub fn configure(&mut self, config: &Config) {
        let positions = config.counter_positions();
        let of = |name: Option<CounterName>| name.and_then(|name| positions.get(&name).copied());
        let interfaces = config.interfaces.iter().map(|interface| &interface.name);
        self.positions = interfaces
            .map(|name| [of(name.counter_in().ok()), of(name.counter_out().ok())])
            .collect();
        self.begin_again();
    }

    /// Takes a reading: the devices' statistics from just before that of the counters in `meter`.
    pub fn observe(&mut self, at: Uptime, devices: &[DeviceReading], meter: &Meter) {
        let counted = |position: Option<usize>| {
            let metered = position.and_then(|at| meter.counters().get(at));
            metered.map_or(0, |metered| metered.total.bytes)
        };
        let moment = Moment {
            at,
            devices: devices.to_vec(),
            counted: (self.positions.iter())
                .map(|pair| pair.map(counted))
                .collect(),
        };
        let outlived = |baseline: &Option<Moment>| {
            (baseline.as_ref()).is_none_or(|baseline| at.since(baseline.at) >= WINDOW)
        };
        if outlived(&self.next_baseline) {
            self.baseline = self.next_baseline.replace(moment.clone());
        }
        self.before = self.now.replace(moment);
    }

    /// Counting was interrupted, or is by other counters now: what was before is not compared.
    pub fn begin_again(&mut self) {
        (self.baseline, self.next_baseline) = (None, None);
    }

    /// Every interface with its devices, in the configuration's order.
    pub fn reports(&self, config: &Config, facts: DeviceFacts<'_>) -> Vec<InterfaceReport> {
        let interfaces = config.interfaces.iter().enumerate();
        interfaces
            .map(|(position, interface)| InterfaceReport {
                name: interface.name.clone(),
                devices: (devices_of(interface, facts.links))
                    .map(|link| self.device(link, facts.speeds))
                    .collect(),
                differences: self.differences(position, interface, facts),
            })
            .collect()
    }

    fn device(&self, link: &Link, speeds: &BTreeMap<u32, f64>) -> DeviceReport {
        let of = |moment: &Option<Moment>| {
            let moment = moment.as_ref()?;
            Some((moment.at, moment.device(link.index)?))
        };
        let now = of(&self.now);
        let before = of(&self.before);
        let seconds = now
            .zip(before)
            .map(|((now, _), (before, _))| now.since(before).as_secs_f64());
        let direction = |pick: fn(&Statistics) -> DirectionStatistics| {
            let counted = now
                .map(|(_, statistics)| pick(&statistics))
                .unwrap_or_default();
            let earlier = before.map(|(_, statistics)| pick(&statistics));
            let moved = earlier.map(|earlier| counted.bytes.saturating_sub(earlier.bytes));
            let rate = moved.zip(seconds.filter(|seconds| *seconds > 0.0));
            DeviceDirectionReport {
                bytes: counted.bytes,
                packets: counted.packets,
                errors: counted.errors,
                dropped: counted.dropped,
                bits_per_second: rate.map_or(0.0, |(bytes, seconds)| bytes as f64 * 8.0 / seconds),
            }
        };
        DeviceReport {
            name: link.name.clone(),
            up: link.up,
            speed_bits_per_second: speeds.get(&link.index).copied(),
            received: direction(|statistics| statistics.received),
            sent: direction(|statistics| statistics.sent),
        }
    }

    fn differences(
        &self,
        position: usize,
        interface: &Interface,
        facts: DeviceFacts<'_>,
    ) -> Vec<DifferenceReport> {
        let (Some(from), Some(to)) = (&self.baseline, &self.now) else {
            return Vec::new();
        };
        let links: Vec<&Link> = devices_of(interface, facts.links).collect();
        let layer_3 = |pick: fn(&Statistics) -> DirectionStatistics| {
            let mut sum = 0;
            for link in &links {
                let (first, last) = (from.device(link.index)?, to.device(link.index)?);
                let (first, last) = (pick(&first), pick(&last));
                let header = if link.ethernet { ETHERNET_HEADER } else { 0 };
                let bytes = last.bytes.checked_sub(first.bytes)?;
                sum += bytes.saturating_sub(header * last.packets.checked_sub(first.packets)?);
            }
            Some(sum)
        };
        let counted = |side: usize| {
            let (first, last) = (from.counted.get(position)?, to.counted.get(position)?);
            last[side].checked_sub(first[side])
        };
        let seconds = to.at.since(from.at).as_secs_f64();
        let name = &interface.name;
        let sides = [
            (
                name.counter_in().ok(),
                layer_3(|statistics| statistics.received),
                counted(0),
            ),
            (
                name.counter_out().ok(),
                layer_3(|statistics| statistics.sent),
                counted(1),
            ),
        ];
        let mut found = Vec::new();
        for (side, (counter, devices, counted)) in sides.into_iter().enumerate() {
            let (Some(counter), Some(device_bytes), Some(counted_bytes)) =
                (counter, devices, counted)
            else {
                continue;
            };
            if !parted(device_bytes, counted_bytes) {
                continue;
            }
            let leaves = side == 1;
            if let Some(cause) = cause(&links, device_bytes > counted_bytes, leaves, facts) {
                found.push(DifferenceReport {
                    counter,
                    device_bytes,
                    counted_bytes,
                    seconds,
                    cause,
                });
            }
        }
        found
    }
}

impl Moment {
    fn device(&self, index: u32) -> Option<Statistics> {
        let found = (self.devices).binary_search_by_key(&index, |device| device.index);
        found.ok().map(|at| self.devices[at].statistics)
    }
}

fn devices_of<'a>(interface: &'a Interface, links: &'a [Link]) -> impl Iterator<Item = &'a Link> {
    links.iter().filter(|link| {
        let mut devices = interface.devices.iter();
        devices.any(|device| device.matches(&link.name))
    })
}

/// More than headers, timing and rounding make.
fn parted(devices: u64, counted: u64) -> bool {
    let difference = devices.abs_diff(counted);
    difference >= BYTES_MIN && difference as f64 > SHARE_MIN * devices.max(counted) as f64
}

/// Why devices moved more than was counted, or less. `None` where that is as it should be.
fn cause(
    links: &[&Link],
    uncounted: bool,
    leaves: bool,
    facts: DeviceFacts<'_>,
) -> Option<DifferenceCause> {
    if !uncounted {
        // What passes twice, as by policy IPsec, counts twice, and no device tells of it: of what arrives nothing can
        // be said, of what leaves the queue is the other possibility.
        return leaves.then_some(DifferenceCause::DroppedByQueue);
    }
    let all = facts.links.iter();
    let carries = |link: &&Link| all.clone().any(|above| above.lower == Some(link.index));
    Some(if links.iter().any(|link| link.port_kind.is_some()) {
        DifferenceCause::Bridged
    } else if facts.offload {
        DifferenceCause::Offloaded
    } else if links.iter().any(carries) {
        DifferenceCause::DevicesAbove
    } else {
        DifferenceCause::Unseen
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Format, parse};
    use crate::kernel::nft::CounterRecord;
    use crate::meter::Carried;

    const MEGABYTE: u64 = 1_000_000;
    const SMALL_PACKET: u64 = 64;

    fn config() -> Config {
        parse("interfaces.wan.device = \"wan*\"", Format::Toml).unwrap()
    }

    fn link(index: u32, name: &str) -> Link {
        Link {
            index,
            name: name.to_owned(),
            up: true,
            ..Link::default()
        }
    }

    /// What the devices received and sent at each second, and what was counted in and out meanwhile.
    fn watched(seconds: u64, moved: [u64; 2], counted: [u64; 2]) -> InterfaceWatch {
        let config = config();
        let names = config.counters.iter().map(|counter| counter.name.clone());
        let mut meter = Meter::new(names.map(|name| (name, Carried::default())));
        let mut watch = InterfaceWatch::default();
        watch.configure(&config);
        for second in 0..=seconds {
            let direction = |bytes: u64| DirectionStatistics {
                bytes: bytes * second,
                packets: bytes * second / SMALL_PACKET,
                ..DirectionStatistics::default()
            };
            let devices = [DeviceReading {
                index: 2,
                statistics: Statistics {
                    received: direction(moved[0]),
                    sent: direction(moved[1]),
                },
            }];
            let at = Uptime(Duration::from_secs(second));
            meter.begin();
            for (name, bytes) in [("wan_in", counted[0]), ("wan_out", counted[1])] {
                meter.record(CounterRecord {
                    name: name.as_bytes(),
                    bytes: bytes * second,
                    packets: 0,
                });
            }
            meter.end(at);
            watch.observe(at, &devices, &meter);
        }
        watch
    }

    fn reports(watch: &InterfaceWatch, links: &[Link], offload: bool) -> InterfaceReport {
        let speeds = BTreeMap::from([(2, 1e9)]);
        let facts = DeviceFacts {
            links,
            speeds: &speeds,
            offload,
        };
        watch.reports(&config(), facts).remove(0)
    }

    fn causes(report: &InterfaceReport) -> Vec<(&str, DifferenceCause)> {
        let differences = report.differences.iter();
        differences
            .map(|difference| (difference.counter.as_str(), difference.cause))
            .collect()
    }

    #[test]
    fn a_device_has_its_rates_and_its_speed() {
        let watch = watched(12, [MEGABYTE, 2 * MEGABYTE], [MEGABYTE, 2 * MEGABYTE]);
        let report = reports(&watch, &[link(2, "wan0"), link(3, "lan0")], false);
        assert_eq!(report.devices.len(), 1);
        let device = &report.devices[0];
        assert_eq!(device.name, "wan0");
        assert_eq!(device.received.bits_per_second, 8e6);
        assert_eq!(device.sent.bits_per_second, 16e6);
        assert_eq!(device.speed_bits_per_second, Some(1e9));
        assert!(report.differences.is_empty(), "{report:?}");
    }

    #[test]
    fn what_no_counter_saw_has_a_name() {
        let watch = watched(12, [MEGABYTE, MEGABYTE], [MEGABYTE, 0]);
        let wan = link(2, "wan0");
        let of = |links: &[Link], offload| reports(&watch, links, offload);
        let difference = |cause| vec![("wan_out", cause)];
        let unseen = of(std::slice::from_ref(&wan), false);
        assert_eq!(causes(&unseen), difference(DifferenceCause::Unseen));
        assert_eq!(unseen.differences[0].device_bytes, 12 * MEGABYTE);
        let offloaded = of(std::slice::from_ref(&wan), true);
        assert_eq!(causes(&offloaded), difference(DifferenceCause::Offloaded));
        let port = Link {
            port_kind: Some("bridge".to_owned()),
            ..wan.clone()
        };
        assert_eq!(
            causes(&of(&[port], true)),
            difference(DifferenceCause::Bridged)
        );
        let above = Link {
            lower: Some(2),
            ..link(5, "vlan20")
        };
        let carries = of(&[wan, above], false);
        assert_eq!(causes(&carries), difference(DifferenceCause::DevicesAbove));
    }

    #[test]
    fn what_a_queue_drops_was_counted_and_not_sent() {
        let watch = watched(12, [MEGABYTE, MEGABYTE], [MEGABYTE, 8 * MEGABYTE]);
        let report = reports(&watch, &[link(2, "wan0")], false);
        assert_eq!(
            causes(&report),
            [("wan_out", DifferenceCause::DroppedByQueue)]
        );
    }

    #[test]
    fn ethernet_headers_are_no_difference_where_there_are_any() {
        let headers = MEGABYTE / SMALL_PACKET * ETHERNET_HEADER;
        let watch = watched(12, [MEGABYTE; 2], [MEGABYTE - headers; 2]);
        let of = |ethernet| {
            let link = Link {
                ethernet,
                ..link(2, "wan0")
            };
            causes(&reports(&watch, &[link], false)).len()
        };
        assert_eq!((of(true), of(false)), (0, 2));
    }

    #[test]
    fn a_moment_a_few_headers_or_another_device_are_no_difference() {
        let early = watched(5, [9 * MEGABYTE; 2], [0; 2]);
        assert_eq!(causes(&reports(&early, &[link(2, "wan0")], false)), []);
        let headers = watched(12, [105 * MEGABYTE; 2], [100 * MEGABYTE; 2]);
        assert_eq!(causes(&reports(&headers, &[link(2, "wan0")], false)), []);
        let anew = watched(12, [9 * MEGABYTE; 2], [0; 2]);
        assert_eq!(causes(&reports(&anew, &[link(7, "wan0")], false)), []);
        let mut again = watched(12, [9 * MEGABYTE; 2], [0; 2]);
        again.begin_again();
        assert_eq!(causes(&reports(&again, &[link(2, "wan0")], false)), []);
    }
}
