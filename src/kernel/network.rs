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
        let mut attempt = 1;
        loop {
            let mut network = Network::default();
            let ends = [
                links::dump(&mut netlink, &mut network.links)?,
                addresses::dump(&mut netlink, &mut network.addresses)?,
                default_routes::dump(&mut netlink, &mut network.default_routes)?,
            ];
            if attempt == ATTEMPTS || !ends.iter().any(|end| end.interrupted) {
                return Ok(network);
            }
            attempt += 1;
        }
    }
}
