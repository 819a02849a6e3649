//! The addresses of this machine (RTM_GETADDR): traffic to and from them is the router's own, and the prefixes they
//! are in are its networks.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_sys::protocols::NETLINK_ROUTE;

use super::attr::{Attributes, Malformed, Message, Writer};
use super::error::KernelError;
use super::socket::{DumpEnd, Netlink};

const RTM_GETADDR: u16 = 22;
/// Length of `struct ifaddrmsg`: family, prefix length, flags, scope, index. All zero asks for every family and
/// device.
const ADDRESS_HEADER: usize = 8;
/// IFA_ADDRESS: the address; on a point-to-point link the peer's.
const ADDRESS: u16 = 1;
/// IFA_LOCAL: the own address, where the kernel tells the two apart.
const LOCAL: u16 = 2;
/// IFA_FLAGS: all flags as a u32 in machine byte order; the header has room for eight.
const FLAGS: u16 = 8;

/// RT_SCOPE_HOST: from here on an address means nothing to other machines.
const SCOPE_HOST: u8 = 254;
/// IFA_F_SECONDARY, which for IPv6 is IFA_F_TEMPORARY.
const TEMPORARY: u32 = 0x01;
/// IFA_F_DEPRECATED.
const DEPRECATED: u32 = 0x20;
/// IFA_F_TENTATIVE.
const TENTATIVE: u32 = 0x40;
/// IFA_F_PERMANENT.
const PERMANENT: u32 = 0x80;

/// An address of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Index of the device.
    pub device: u32,
    /// The own address.
    pub address: IpAddr,
    /// Who is at the other end of a point-to-point link; absent where it is not said.
    pub peer: Option<IpAddr>,
    /// How many bits of the address every neighbour has in common with it; for IPv4 with a peer, with the peer.
    pub prefix_length: u8,
    /// Means nothing outside this machine, as 127.0.0.1 does.
    pub host_only: bool,
    /// IPv6: it is still being asked whether someone else has it.
    pub tentative: bool,
    /// IPv6: a privacy address that will be replaced.
    pub temporary: bool,
    /// No new flow begins from it: its prefix is on its way out.
    pub deprecated: bool,
    /// It has no lifetime: nobody's router or DHCP server takes it back.
    pub permanent: bool,
}

impl Address {
    /// Reads one message of a dump or an event; `None` where it is neither IPv4 nor IPv6.
    pub fn decode(message: &Message<'_>) -> Result<Option<Address>, Malformed> {
        let (header, attributes) = message
            .payload
            .split_first_chunk::<ADDRESS_HEADER>()
            .ok_or(Malformed::Length)?;
        let [_, prefix_length, flags, scope, device @ ..] = *header;
        let mut flags = u32::from(flags);
        let (mut address, mut local) = (None, None);
        for attribute in Attributes::new(attributes) {
            let attribute = attribute?;
            match attribute.kind {
                ADDRESS => address = attribute.ip(),
                LOCAL => local = attribute.ip(),
                FLAGS => flags = u32::from_ne_bytes(attribute.array()?),
                _ => {}
            }
        }
        let Some(own) = local.or(address) else {
            return Ok(None);
        };
        Ok(Some(Address {
            device: u32::from_ne_bytes(device),
            address: own,
            peer: address.filter(|address| *address != own),
            prefix_length,
            host_only: scope >= SCOPE_HOST,
            tentative: flags & TENTATIVE != 0,
            temporary: own.is_ipv6() && flags & TEMPORARY != 0,
            deprecated: flags & DEPRECATED != 0,
            permanent: flags & PERMANENT != 0,
        }))
    }

    /// The prefixes in which the kernel reaches others by this address without a gateway, no host bits set. With a
    /// peer these are for IPv4 the peer's prefix, for IPv6 the own prefix and the peer. An address that shares all
    /// of its bits, and has no peer, has no neighbour: none.
    pub fn connected(&self) -> Vec<IpNet> {
        let of = |address: IpAddr, length: u8| {
            IpNet::new(address, length)
                .map(|prefix| prefix.trunc())
                .ok()
        };
        let reached = match (self.address, self.peer) {
            (IpAddr::V4(_), Some(peer)) => [of(peer, self.prefix_length), None],
            (IpAddr::V6(_), Some(peer)) => [of(self.address, self.prefix_length), of(peer, 128)],
            (_, None) => [of(self.address, self.prefix_length), None],
        };
        let alone = IpNet::from(self.address);
        let others = reached.into_iter().flatten();
        others.filter(|prefix| *prefix != alone).collect()
    }
}

/// Appends all addresses of the namespace in which `netlink` was opened.
pub fn dump(netlink: &mut Netlink, addresses: &mut Vec<Address>) -> Result<DumpEnd, KernelError> {
    let body = |w: &mut Writer| w.raw(&[0; ADDRESS_HEADER]);
    netlink.dump(
        "read this machine's addresses",
        RTM_GETADDR,
        body,
        |message| {
            addresses.extend(Address::decode(message)?);
            Ok(())
        },
    )
}

/// All own addresses of the calling thread's network namespace.
pub fn own() -> Result<Vec<IpAddr>, KernelError> {
    let mut addresses = Vec::new();
    dump(&mut Netlink::open(NETLINK_ROUTE)?, &mut addresses)?;
    Ok((addresses.iter().map(|address| address.address)).collect())
}

#[cfg(test)]
mod tests {
    use super::super::attr::recorded;
    use super::*;

    const ADDRESSES: &str = include_str!("../../tests/fixtures/route/addresses.hex");

    fn addresses() -> Vec<Address> {
        let decode = |message: &Message<'_>| Address::decode(message).unwrap().unwrap();
        recorded::each(ADDRESSES, decode)
    }

    fn of(text: &str) -> Address {
        let own: IpAddr = text.parse().unwrap();
        let found = addresses()
            .into_iter()
            .find(|address| address.address == own);
        found.unwrap()
    }

    fn connected(text: &str) -> Vec<String> {
        of(text).connected().iter().map(IpNet::to_string).collect()
    }

    #[test]
    fn what_a_kernel_sent_is_read() {
        let shown: Vec<String> = addresses()
            .iter()
            .filter(|address| !address.address.to_string().starts_with("fe80"))
            .map(|address| format!("{} {}", address.device, address.address))
            .collect();
        assert_eq!(
            shown,
            [
                "1 127.0.0.1",
                "2 203.0.113.2",
                "3 10.77.1.1",
                "5 10.77.20.1",
                "6 10.9.0.1",
                "6 10.8.0.1",
                "1 ::1",
                "3 2001:db8:1::1",
                "3 fd77:1::1",
                "6 fd09::1"
            ]
        );
        assert!(of("::1").host_only && !of("10.77.1.1").host_only);
        assert!(of("10.77.1.1").permanent && !of("2001:db8:1::1").permanent);
        assert!(of("2001:db8:1::1").deprecated && !of("fd77:1::1").deprecated);
        assert!(of("fd77:1::1").tentative && !of("fd09::1").tentative);
    }

    #[test]
    fn an_address_is_in_the_network_that_it_shares_with_neighbours() {
        assert_eq!(connected("10.77.1.1"), ["10.77.1.0/24"]);
        assert_eq!(connected("fd77:1::1"), ["fd77:1::/64"]);
        assert_eq!(connected("10.8.0.1"), [""; 0], "nobody else is in a /32");
    }

    #[test]
    fn a_peer_is_a_neighbour_and_takes_the_prefix_with_it_in_ipv4_only() {
        assert_eq!(of("10.9.0.1").peer, Some([10, 9, 0, 2].into()));
        assert_eq!(connected("10.9.0.1"), ["10.9.0.2/32"]);
        assert_eq!(connected("fd09::1"), ["fd09::/64", "fd09::2/128"]);
    }

    #[test]
    fn a_secondary_address_is_temporary_in_ipv6_only() {
        let marked = |message: &Message<'_>| {
            let mut payload = message.payload.to_vec();
            let at = payload.windows(4).rposition(|four| four == [8, 0, 8, 0]);
            payload[at.unwrap() + 4] |= 1;
            let message = Message {
                payload: &payload,
                ..*message
            };
            Address::decode(&message).unwrap().unwrap()
        };
        let marked = recorded::each(ADDRESSES, marked);
        assert!(
            marked
                .iter()
                .all(|address| address.temporary == address.address.is_ipv6())
        );
    }
}
