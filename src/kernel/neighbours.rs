//! Who is next to this machine on its links (RTM_GETNEIGH): which hardware address answered for an IP address. ARP's
//! table and that of IPv6's neighbour discovery.

use std::net::IpAddr;

use netlink_sys::protocols::NETLINK_ROUTE;

use super::attr::{Attributes, Malformed, Message, Writer};
use super::error::KernelError;
use super::socket::Netlink;
use crate::units::Mac;

const RTM_GETNEIGH: u16 = 30;
/// Length of `struct ndmsg`: family, 3 bytes of padding, index, state (u16), flags, type.
const NEIGHBOUR_HEADER: usize = 12;
/// AF_INET and AF_INET6; without a family the tables of bridges would come too.
const FAMILIES: [u8; 2] = [2, 10];

/// NUD_REACHABLE, NUD_STALE, NUD_DELAY, NUD_PROBE and NUD_PERMANENT: it has answered, or someone vouches for it. The
/// others are INCOMPLETE, FAILED and NOARP (of multicast and of links without neighbours).
const ANSWERED: u16 = 0x02 | 0x04 | 0x08 | 0x10 | 0x80;
/// NTF_PROXY: this machine answers for it.
const PROXY: u8 = 0x08;

/// NDA_DST: the address.
const ADDRESS: u16 = 1;
/// NDA_LLADDR: its hardware address, as long as the link has them; absent while nobody has answered.
const LINK_ADDRESS: u16 = 2;

/// An address and who answers for it on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbour {
    /// Index of the device.
    pub device: u32,
    /// The address.
    pub address: IpAddr,
    /// The hardware address.
    pub mac: Mac,
}

impl Neighbour {
    /// Reads one message of a dump or an event; `None` where it tells no station's hardware address.
    pub fn decode(message: &Message<'_>) -> Result<Option<Neighbour>, Malformed> {
        let (header, attributes) = message
            .payload
            .split_first_chunk::<NEIGHBOUR_HEADER>()
            .ok_or(Malformed::Length)?;
        let [_, _, _, _, d0, d1, d2, d3, s0, s1, flags, _] = *header;
        if u16::from_ne_bytes([s0, s1]) & ANSWERED == 0 || flags & PROXY != 0 {
            return Ok(None);
        }
        let (mut address, mut mac) = (None, None);
        for attribute in Attributes::new(attributes) {
            let attribute = attribute?;
            match attribute.kind {
                ADDRESS => address = attribute.ip(),
                LINK_ADDRESS => mac = <[u8; 6]>::try_from(attribute.value).ok().and_then(Mac::new),
                _ => {}
            }
        }
        let (Some(address), Some(mac)) = (address, mac) else {
            return Ok(None);
        };
        Ok((!address.is_multicast()).then_some(Neighbour {
            device: u32::from_ne_bytes([d0, d1, d2, d3]),
            address,
            mac,
        }))
    }
}

/// At most `most` neighbours of the calling thread's network namespace, IPv4 first.
pub fn read(most: usize) -> Result<Vec<Neighbour>, KernelError> {
    let mut netlink = Netlink::open(NETLINK_ROUTE)?;
    let mut neighbours = Vec::new();
    for family in FAMILIES {
        let mut header = [0; NEIGHBOUR_HEADER];
        header[0] = family;
        let body = |w: &mut Writer| w.raw(&header);
        netlink.dump("read the neighbour table", RTM_GETNEIGH, body, |message| {
            if neighbours.len() < most {
                neighbours.extend(Neighbour::decode(message)?);
            }
            Ok(())
        })?;
    }
    Ok(neighbours)
}

#[cfg(test)]
mod tests {
    use super::super::attr::recorded;
    use super::*;

    const NEIGHBOURS: &str = include_str!("../../tests/fixtures/route/neighbours.hex");

    fn neighbours(change: impl Fn(&mut Vec<u8>)) -> Vec<String> {
        let read = |message: &Message<'_>| {
            let mut payload = message.payload.to_vec();
            change(&mut payload);
            let message = Message {
                payload: &payload,
                ..*message
            };
            Neighbour::decode(&message).unwrap()
        };
        let found = recorded::each(NEIGHBOURS, read).into_iter().flatten();
        found
            .map(|found| format!("{} {} {}", found.device, found.address, found.mac))
            .collect()
    }

    #[test]
    fn only_who_has_answered_on_a_link_with_hardware_addresses_is_read() {
        let mut found = neighbours(|_| {});
        found.sort();
        assert_eq!(
            found,
            [
                "3 10.77.1.10 02:00:00:00:00:10",
                "3 10.77.1.11 02:00:00:00:00:11",
                "3 10.77.1.12 02:00:00:00:00:12",
                "3 fd77:1::10 02:00:00:00:00:10",
                "3 fd77:1::aa10 02:00:00:00:00:10",
            ],
            "not the incomplete ones, not NOARP, not multicast, not a group's hardware address"
        );
    }

    #[test]
    fn what_this_machine_answers_for_is_no_neighbour() {
        assert_eq!(neighbours(|payload| payload[10] |= PROXY), [""; 0]);
    }

    #[test]
    fn a_hardware_address_of_another_length_is_none() {
        let shorten = |payload: &mut Vec<u8>| {
            let at = payload.windows(4).position(|four| four == [10, 0, 2, 0]);
            if let Some(at) = at {
                payload[at] = 8;
                payload.drain(at + 8..at + 12);
            }
        };
        assert_eq!(neighbours(shorten), [""; 0]);
    }
}
