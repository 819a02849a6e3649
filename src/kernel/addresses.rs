//! The addresses of this machine (RTM_GETADDR): traffic to and from them is the router's own.

use std::net::IpAddr;

use netlink_sys::protocols::NETLINK_ROUTE;

use super::attr::{Attributes, Malformed, Message};
use super::error::KernelError;
use super::socket::Netlink;

const RTM_GETADDR: u16 = 22;
/// Length of `struct ifaddrmsg`; all zero asks for every family and device.
const ADDRESS_HEADER: usize = 8;
/// IFA_ADDRESS: the address; on a point-to-point link the peer's.
const ADDRESS: u16 = 1;
/// IFA_LOCAL: the own address, where the kernel tells the two apart.
const LOCAL: u16 = 2;

/// All addresses of the calling thread's network namespace.
pub fn own() -> Result<Vec<IpAddr>, KernelError> {
    let mut found = Vec::new();
    let body = |w: &mut super::attr::Writer| w.raw(&[0; ADDRESS_HEADER]);
    Netlink::open(NETLINK_ROUTE)?.dump(
        "read this machine's addresses",
        RTM_GETADDR,
        body,
        |message| {
            found.extend(decode(message)?);
            Ok(())
        },
    )?;
    Ok(found)
}

fn decode(message: &Message<'_>) -> Result<Option<IpAddr>, Malformed> {
    let attributes = message
        .payload
        .get(ADDRESS_HEADER..)
        .ok_or(Malformed::Length)?;
    let (mut address, mut local) = (None, None);
    for attribute in Attributes::new(attributes) {
        let attribute = attribute?;
        match attribute.kind {
            ADDRESS => address = ip(attribute.value),
            LOCAL => local = ip(attribute.value),
            _ => {}
        }
    }
    Ok(local.or(address))
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}
