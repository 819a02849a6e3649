//! The devices' own statistics (RTM_GETSTATS): an upper bound for what may have been missed while counting was
//! interrupted.

use netlink_sys::protocols::NETLINK_ROUTE;
use serde::{Deserialize, Serialize};

use super::attr::{Attributes, Malformed, Message};
use super::error::KernelError;
use super::links::Statistics;
use super::socket::Netlink;

const RTM_GETSTATS: u16 = 94;
/// IFLA_STATS_LINK_64, and the filter bit that asks for it alone.
const LINK_64: u16 = 1;
const FILTER_LINK_64: u32 = 1;
/// Length of `struct if_stats_msg`: family and padding, interface index, filter.
const STATS_HEADER: usize = 12;
/// The loopback device has index 1 in every network namespace.
const LOOPBACK: u32 = 1;

/// One device's statistics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceReading {
    /// The kernel's index of the device.
    pub index: u32,
    /// Since it exists.
    pub statistics: Statistics,
}

/// What a device has moved since it exists, both directions, in layer 2 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// The kernel's index of the device.
    pub index: u32,
    /// Received and sent.
    pub bytes: u64,
}

impl DeviceReading {
    /// Both directions together.
    pub fn moved(&self) -> Moved {
        let Statistics { received, sent } = self.statistics;
        Moved {
            index: self.index,
            bytes: received.bytes.saturating_add(sent.bytes),
        }
    }
}

/// A door to device statistics, in the network namespace of the thread that opened it.
pub struct Devices {
    netlink: Netlink,
    readings: Vec<DeviceReading>,
}

impl Devices {
    /// Opens a socket of its own.
    pub fn open() -> Result<Self, KernelError> {
        Ok(Devices {
            netlink: Netlink::open(NETLINK_ROUTE)?,
            readings: Vec::new(),
        })
    }

    /// Reads all devices, and replaces `moved` by what they have moved, by index.
    pub fn read(&mut self, moved: &mut Vec<Moved>) -> Result<(), KernelError> {
        let readings = &mut self.readings;
        readings.clear();
        let mut header = [0; STATS_HEADER];
        header[8..].copy_from_slice(&FILTER_LINK_64.to_ne_bytes());
        self.netlink.dump(
            "read device statistics",
            RTM_GETSTATS,
            |w| w.raw(&header),
            |message| {
                readings.extend(decode(message)?);
                Ok(())
            },
        )?;
        readings.sort_unstable_by_key(|device| device.index);
        moved.clear();
        moved.extend(readings.iter().map(DeviceReading::moved));
        Ok(())
    }

    /// All that the last reading said, by index.
    pub fn readings(&self) -> &[DeviceReading] {
        &self.readings
    }
}

fn decode(message: &Message<'_>) -> Result<Option<DeviceReading>, Malformed> {
    let header = message
        .payload
        .first_chunk::<STATS_HEADER>()
        .ok_or(Malformed::Length)?;
    let index = u32::from_ne_bytes([header[4], header[5], header[6], header[7]]);
    for attribute in Attributes::new(&message.payload[STATS_HEADER..]) {
        let attribute = attribute?;
        if attribute.kind == LINK_64 {
            return Ok(Some(DeviceReading {
                index,
                statistics: Statistics::decode(&attribute)?,
            }));
        }
    }
    Ok(None)
}

/// What all devices but the loopback device moved between two readings: a bound for counters that leave that one out.
/// `None` when a device of the first is gone or counts anew, since what it moved went with it.
pub fn moved_between(before: &[Moved], after: &[Moved]) -> Option<u64> {
    moved(before, after, |device| device.index != LOOPBACK)
}

/// The same, the loopback device included.
pub fn moved_by_all(before: &[Moved], after: &[Moved]) -> Option<u64> {
    moved(before, after, |_| true)
}

fn moved(before: &[Moved], after: &[Moved], which: impl Fn(&Moved) -> bool) -> Option<u64> {
    let of = |list: &[Moved], index| {
        list.binary_search_by_key(&index, |device: &Moved| device.index)
            .ok()
            .map(|at| list[at].bytes)
    };
    // One that is gone, or whose driver began to count anew.
    let fell = |device: &Moved| of(after, device.index).is_none_or(|now| now < device.bytes);
    if before.iter().any(fell) {
        return None;
    }
    let grown = |device: &Moved| {
        let earlier = of(before, device.index).unwrap_or(0);
        device.bytes.saturating_sub(earlier)
    };
    let devices = after.iter().filter(|device| which(device));
    Some(devices.map(grown).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_devices_moved_is_unknown_once_one_of_them_is_gone() {
        let device = |index, bytes| Moved { index, bytes };
        let before = [device(2, 100), device(3, 50)];
        assert_eq!(
            moved_between(&before, &[device(2, 160), device(3, 50), device(9, 7)]),
            Some(67)
        );
        assert_eq!(moved_between(&before, &[device(2, 160)]), None);
        let counts_anew = [device(2, 160), device(3, 20)];
        assert_eq!(moved_between(&before, &counts_anew), None);
        let with_loopback = [device(LOOPBACK, 10), device(2, 100)];
        let later = [device(LOOPBACK, 15), device(2, 107)];
        assert_eq!(moved_between(&with_loopback, &later), Some(7));
        assert_eq!(moved_by_all(&with_loopback, &later), Some(12));
        assert_eq!(moved_between(&[], &[]), Some(0));
    }
}
