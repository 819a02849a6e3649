//! By which devices the two ends of a flow are reached (RTM_GETROUTE), as the routes stand now: what is left to ask
//! about flows older than the label rules. Wrong under policy routing, so whatever rests on it is approximate.

use std::collections::HashMap;
use std::net::IpAddr;

use netlink_sys::protocols::NETLINK_ROUTE;
use rustix::net::netdevice::index_to_name;

use super::attr::{Attributes, Malformed, Message, Writer};
use super::error::KernelError;
use super::socket::Netlink;
use crate::units::DeviceName;

const RTM_GETROUTE: u16 = 26;
/// Length of `struct rtmsg`: family, destination's length, six more bytes, flags.
const ROUTE_HEADER: usize = 12;
/// RTA_DST: where to.
const DESTINATION: u16 = 1;
/// RTA_OIF: the device's index; u32 in machine byte order; absent for routes that lead nowhere.
const OUT_DEVICE: u16 = 4;
/// AF_INET and AF_INET6.
const FAMILIES: (u8, u8) = (2, 10);
/// A question costs about 2 us: a flood of addresses may cost a third of a second and a few megabytes, not more.
const ADDRESSES_MAX: usize = 1 << 17;

/// The devices by which a flow's ends are reached; `None` where no route is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Path {
    /// Packets of the original direction arrive by it.
    pub opener: Option<DeviceName>,
    /// Packets of the original direction leave by it.
    pub peer: Option<DeviceName>,
}

/// A door to the routes, in the network namespace of the thread that opened it. It asks once for each address.
pub struct Routes {
    netlink: Netlink,
    devices_by_address: HashMap<IpAddr, Option<DeviceName>>,
    names_by_index: HashMap<u32, Option<DeviceName>>,
}

impl Routes {
    /// Opens a socket of its own.
    pub fn open() -> Result<Self, KernelError> {
        Ok(Routes {
            netlink: Netlink::open(NETLINK_ROUTE)?,
            devices_by_address: HashMap::new(),
            names_by_index: HashMap::new(),
        })
    }

    /// Forgets what it was told: routes and devices change.
    pub fn forget(&mut self) {
        (self.devices_by_address, self.names_by_index) = Default::default();
    }

    /// Forgets which device has which index: by the next look another one may have it.
    pub fn forget_indexes(&mut self) {
        self.names_by_index.clear();
    }

    /// The way of the packets between who opened a flow and whom it reached.
    pub fn path(&mut self, opener: IpAddr, peer: IpAddr) -> Result<Path, KernelError> {
        Ok(Path {
            opener: self.device_to(opener)?,
            peer: self.device_to(peer)?,
        })
    }

    /// `None` where no route leads there. A cache that is full begins anew.
    fn device_to(&mut self, address: IpAddr) -> Result<Option<DeviceName>, KernelError> {
        if let Some(known) = self.devices_by_address.get(&address) {
            return Ok(known.clone());
        }
        if self.devices_by_address.len() >= ADDRESSES_MAX {
            self.devices_by_address.clear();
        }
        let device = self.ask(address)?.and_then(|index| self.name(index));
        self.devices_by_address.insert(address, device.clone());
        Ok(device)
    }

    fn ask(&mut self, address: IpAddr) -> Result<Option<u32>, KernelError> {
        let (family, octets) = match address {
            IpAddr::V4(v4) => (FAMILIES.0, v4.octets().to_vec()),
            IpAddr::V6(v6) => (FAMILIES.1, v6.octets().to_vec()),
        };
        let mut header = [0; ROUTE_HEADER];
        (header[0], header[1]) = (family, (octets.len() * 8) as u8);
        let body = |w: &mut Writer| {
            w.raw(&header);
            w.attribute(DESTINATION, &octets);
        };
        match self
            .netlink
            .get("look up a route", RTM_GETROUTE, body, decode)
        {
            Ok(found) => Ok(found.flatten()),
            // Unreachable, prohibited or black: no packet goes there.
            Err(KernelError::Refused { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn name(&mut self, index: u32) -> Option<DeviceName> {
        let netlink = &self.netlink;
        let read = || {
            let name = index_to_name(netlink, index).ok()?;
            DeviceName::new(&name).ok()
        };
        self.names_by_index
            .entry(index)
            .or_insert_with(read)
            .clone()
    }
}

fn decode(message: &Message<'_>) -> Result<Option<u32>, Malformed> {
    let attributes = message
        .payload
        .get(ROUTE_HEADER..)
        .ok_or(Malformed::Length)?;
    for attribute in Attributes::new(attributes) {
        let attribute = attribute?;
        if attribute.kind == OUT_DEVICE {
            return Ok(Some(u32::from_ne_bytes(attribute.array()?)));
        }
    }
    Ok(None)
}
