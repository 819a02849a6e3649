//! What a network namespace looks like at one moment: its devices, their addresses, and the way out. Needs no
//! privilege.

use netlink_sys::protocols::NETLINK_ROUTE;

use super::addresses::{self, Address};
use super::default_routes::{self, DefaultRoute};
use super::error::KernelError;
use super::links::{self, Link};
use super::socket::Netlink;

/// A dump that something changed in the middle of is made again, so often at most.
const ATTEMPTS: u32 = 3;

/// Devices, addresses and default routes, in the kernel's order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Network {
    /// Every device, the loopback device too.
    pub links: Vec<Link>,
    /// Every address of theirs.
    pub addresses: Vec<Address>,
    /// Of the main table, both families.
    pub default_routes: Vec<DefaultRoute>,
}

impl Network {
    /// Of the calling thread's network namespace. Where devices, addresses and routes never keep still, what the last
    /// attempt saw.
    pub fn read() -> Result<Network, KernelError> {
        let mut netlink = Netlink::open(NETLINK_ROUTE)?;
        read(|network| {
            let interrupted = dump_devices(&mut netlink, network)?;
            let routes = default_routes::dump(&mut netlink, &mut network.default_routes)?;
            Ok(interrupted || routes.interrupted)
        })
    }
}

/// A door to devices and addresses that stays open, in the network namespace of the thread that opened it.
pub struct NetworkReader {
    netlink: Netlink,
}

impl NetworkReader {
    /// Opens a socket of its own.
    pub fn open() -> Result<Self, KernelError> {
        Ok(NetworkReader {
            netlink: Netlink::open(NETLINK_ROUTE)?,
        })
    }

    /// Devices and addresses as they are now, without any route.
    pub fn read(&mut self) -> Result<Network, KernelError> {
        read(|network| dump_devices(&mut self.netlink, network))
    }
}

/// Makes the dumps again while they are interrupted.
fn read(
    mut dump: impl FnMut(&mut Network) -> Result<bool, KernelError>,
) -> Result<Network, KernelError> {
    let mut attempt = 1;
    loop {
        let mut network = Network::default();
        let interrupted = dump(&mut network)?;
        if attempt == ATTEMPTS || !interrupted {
            return Ok(network);
        }
        attempt += 1;
    }
}

fn dump_devices(netlink: &mut Netlink, network: &mut Network) -> Result<bool, KernelError> {
    let links = links::dump(netlink, &mut network.links)?;
    let addresses = addresses::dump(netlink, &mut network.addresses)?;
    Ok(links.interrupted || addresses.interrupted)
}
