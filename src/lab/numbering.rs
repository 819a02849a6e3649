//! Who has which address in the lab: 10.77.N.0/24 and fd77:N::/64 inside, 203.0.113.0/24 and 2001:db8:ffff::/64
//! between router and internet, servers 198.51.100.10 to .19 and 2001:db8:64::10 to ::19. An IPv6 address ends in
//! the digits of its IPv4 twin.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::Family;

/// How many servers the internet has.
pub(super) const SERVERS: u8 = 10;

/// In an inside subnet; the router is 1, hosts begin with 11.
pub(super) fn inside(family: Family, subnet: u8, host: u8) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, 77, subnet, host).into(),
        Family::V6 => Ipv6Addr::new(0xfd77, subnet.into(), 0, 0, 0, 0, 0, digits(host)).into(),
    }
}

/// On the uplink; the provider's router is 1, ours is 2.
pub(super) fn uplink(family: Family, host: u8) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(203, 0, 113, host).into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, digits(host)).into(),
    }
}

/// A server on the internet, counted from 0.
pub(super) fn server(family: Family, position: u8) -> IpAddr {
    let host = 10 + position % SERVERS;
    match family {
        Family::V4 => Ipv4Addr::new(198, 51, 100, host).into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0x64, 0, 0, 0, 0, digits(host)).into(),
    }
}

/// What holds all inside subnets.
pub(super) fn all_inside(family: Family) -> IpNet {
    match family {
        Family::V4 => network(Ipv4Addr::new(10, 77, 0, 0).into(), 16),
        Family::V6 => network(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0).into(), 16),
    }
}

/// Everything.
pub(super) fn anywhere(family: Family) -> IpNet {
    match family {
        Family::V4 => network(Ipv4Addr::UNSPECIFIED.into(), 0),
        Family::V6 => network(Ipv6Addr::UNSPECIFIED.into(), 0),
    }
}

/// An address with the prefix length of the lab's links.
pub(super) fn on_link(address: IpAddr) -> IpNet {
    network(address, if address.is_ipv4() { 24 } else { 64 })
}

/// An address alone.
pub(super) fn alone(address: IpAddr) -> IpNet {
    IpNet::from(address)
}

/// A locally administered hardware address.
pub(super) fn mac(subnet: u8, host: u8) -> [u8; 6] {
    [0x02, 0x77, 0, 0, subnet, host]
}

fn network(address: IpAddr, prefix_length: u8) -> IpNet {
    IpNet::new_assert(address, prefix_length)
}

/// 11 becomes 0x11, so that the text of an IPv6 address shows the same digits.
fn digits(number: u8) -> u16 {
    let number = u16::from(number);
    number / 100 * 0x100 + number / 10 % 10 * 0x10 + number % 10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_address_ends_in_the_digits_of_its_twin() {
        assert_eq!(inside(Family::V4, 1, 11).to_string(), "10.77.1.11");
        assert_eq!(inside(Family::V6, 1, 11).to_string(), "fd77:1::11");
        assert_eq!(inside(Family::V6, 2, 104).to_string(), "fd77:2::104");
        assert_eq!(server(Family::V6, 9).to_string(), "2001:db8:64::19");
    }
}
