//! The devices' own statistics (RTM_GETSTATS): an upper bound for what may have been missed while counting was
//! interrupted.

use netlink_sys::protocols::NETLINK_ROUTE;
use serde::{Deserialize, Serialize};

use super::attr::{Attributes, Malformed, Message};
use super::error::KernelError;
use super::socket::Netlink;

const RTM_GETSTATS: u16 = 94;
/// IFLA_STATS_LINK_64, and the filter bit that asks for it alone.
const LINK_64: u16 = 1;
const FILTER_LINK_64: u32 = 1;
/// Length of `struct if_stats_msg`: family and padding, interface index, filter.
const STATS_HEADER: usize = 12;
/// The loopback device has index 1 in every network namespace.
const LOOPBACK: u32 = 1;

/// What a device has moved since it exists, both directions, in layer 2 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// The kernel's index of the device.
    pub index: u32,
    /// Received and sent.
    pub bytes: u64,
}

/// A door to device statistics, in the network namespace of the thread that opened it.
pub struct Devices {
    netlink: Netlink,
}

impl Devices {
    /// Opens a socket of its own.
    pub fn open() -> Result<Self, KernelError> {
        Ok(Devices {
            netlink: Netlink::open(NETLINK_ROUTE)?,
        })
    }

    /// Replaces `moved` by the state of all devices but the loopback device, by index.
    pub fn read(&mut self, moved: &mut Vec<Moved>) -> Result<(), KernelError> {
        moved.clear();
        let mut header = [0; STATS_HEADER];
        header[8..].copy_from_slice(&FILTER_LINK_64.to_ne_bytes());
        self.netlink.dump(
            "read device statistics",
            RTM_GETSTATS,
            |w| w.raw(&header),
            |message| {
                moved.extend(decode(message)?.filter(|device| device.index != LOOPBACK));
                Ok(())
            },
        )?;
        moved.sort_unstable_by_key(|device| device.index);
        Ok(())
    }
}

fn decode(message: &Message<'_>) -> Result<Option<Moved>, Malformed> {
    let header = message
        .payload
        .first_chunk::<STATS_HEADER>()
        .ok_or(Malformed::Length)?;
    let index = u32::from_ne_bytes([header[4], header[5], header[6], header[7]]);
    for attribute in Attributes::new(&message.payload[STATS_HEADER..]) {
        let attribute = attribute?;
        if attribute.kind == LINK_64 {
            // struct rtnl_link_stats64, machine byte order: packets received, sent, then bytes received, sent.
            let numbers: [u8; 32] = attribute.array()?;
            let number = |at: usize| {
                numbers[at..at + 8]
                    .try_into()
                    .map(u64::from_ne_bytes)
                    .unwrap_or(0)
            };
            return Ok(Some(Moved {
                index,
                bytes: number(16).saturating_add(number(24)),
            }));
        }
    }
    Ok(None)
}

/// What all devices moved between two readings; `None` when a device of the first is gone, since what it moved
/// went with it.
pub fn moved_between(before: &[Moved], after: &[Moved]) -> Option<u64> {
    let of = |list: &[Moved], index| {
        list.binary_search_by_key(&index, |device: &Moved| device.index)
            .ok()
            .map(|at| list[at].bytes)
    };
    if before
        .iter()
        .any(|device| of(after, device.index).is_none())
    {
        return None;
    }
    Some(
        after
            .iter()
            .map(|device| {
                device
                    .bytes
                    .saturating_sub(of(before, device.index).unwrap_or(0))
            })
            .sum(),
    )
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
        assert_eq!(moved_between(&[], &[]), Some(0));
    }
}
