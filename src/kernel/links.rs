//! The devices of a network namespace (RTM_GETLINK, and the events RTM_NEWLINK and RTM_DELLINK, which carry the same
//! message): what they are called, what they are, and what they counted themselves.

use super::attr::{Attribute, Attributes, Malformed, Message, Writer};
use super::error::KernelError;
use super::socket::{DumpEnd, Netlink};

const RTM_GETLINK: u16 = 18;
/// Length of `struct ifinfomsg`: family, hardware type, index, flags, change mask.
const LINK_HEADER: usize = 16;
/// AF_BRIDGE: the message is about a bridge's port, not about the device.
const BRIDGE_FAMILY: u8 = 7;
/// ARPHRD_ETHER.
const ETHERNET: u16 = 1;
/// IFF_UP.
const UP: u32 = 1;
/// IFF_LOOPBACK.
const LOOPBACK: u32 = 1 << 3;

const IFLA_IFNAME: u16 = 3;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_LINKINFO: u16 = 18;
const IFLA_STATS64: u16 = 23;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_SLAVE_KIND: u16 = 4;

/// Kinds of devices whose packets leave once more, in other packets, by the device that carries them.
const TUNNELS: [&str; 16] = [
    "amt",
    "bareudp",
    "geneve",
    "gre",
    "gretap",
    "ip6gre",
    "ip6gretap",
    "ip6tnl",
    "ipip",
    "sit",
    "tun",
    "vti",
    "vti6",
    "vxlan",
    "wireguard",
    "xfrm",
];

/// One device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    /// The kernel's number for it; a device that is made anew gets another.
    pub index: u32,
    /// Any bytes but white space, `/` and `:`; what is not UTF-8 is replaced.
    pub name: String,
    /// `bridge`, `vlan`, `veth`, `wireguard`, `ppp` and so on; absent for hardware and for the loopback device.
    pub kind: Option<String>,
    /// Whether its packets have an Ethernet header, which its statistics count; those of a TAP device have, of a TUN device
    /// not, and both are of one kind.
    pub ethernet: bool,
    /// Index of the device that it stands on, as a VLAN on its Ethernet device; absent when it stands on none, or on one
    /// of another network namespace.
    pub lower: Option<u32>,
    /// Index of the bridge, bond or VRF that it belongs to; absent when it belongs to none.
    pub master: Option<u32>,
    /// What the device is to its master: `bridge` for a bridge's port, `bond`, `vrf` and so on; absent without one.
    pub port_kind: Option<String>,
    /// Whether it is switched on; a cable need not be plugged in.
    pub up: bool,
    /// Whether it is the loopback device.
    pub loopback: bool,
    /// Absent where the kernel leaves them out, as in a few events.
    pub statistics: Option<Statistics>,
}

/// What a device has counted since it was made, layer 2, both directions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statistics {
    /// What came in.
    pub received: DirectionStatistics,
    /// What was sent.
    pub sent: DirectionStatistics,
}

/// One direction of a device's statistics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DirectionStatistics {
    /// Bytes, headers of layer 2 included.
    pub bytes: u64,
    /// Packets; what was merged before the driver saw it is one.
    pub packets: u64,
    /// Packets that the device or its driver found broken.
    pub errors: u64,
    /// Packets that were well and found no room.
    pub dropped: u64,
}

impl Link {
    /// Reads one message of a dump or an event. `None` where it is about a bridge's port: a RTM_DELLINK of that
    /// family says that a device left its bridge, not that it is gone.
    pub fn decode(message: &Message<'_>) -> Result<Option<Link>, Malformed> {
        let (header, attributes) = message
            .payload
            .split_first_chunk::<LINK_HEADER>()
            .ok_or(Malformed::Length)?;
        if header[0] == BRIDGE_FAMILY {
            return Ok(None);
        }
        let word = |at: usize| {
            u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let flags = word(8);
        let mut link = Link {
            index: word(4),
            ethernet: u16::from_ne_bytes([header[2], header[3]]) == ETHERNET,
            up: flags & UP != 0,
            loopback: flags & LOOPBACK != 0,
            ..Link::default()
        };
        let mut elsewhere = false;
        for attribute in Attributes::new(attributes) {
            let attribute = attribute?;
            match attribute.kind {
                IFLA_LINK => link.lower = Some(u32::from_ne_bytes(attribute.array()?)),
                IFLA_LINK_NETNSID => elsewhere = true,
                IFLA_IFNAME => link.name = text(&attribute),
                IFLA_MASTER => link.master = Some(u32::from_ne_bytes(attribute.array()?)),
                IFLA_LINKINFO => link.describe(attribute.nested())?,
                IFLA_STATS64 => link.statistics = Some(Statistics::decode(&attribute)?),
                _ => {}
            }
        }
        // A tunnel on no device gives 0, a veth device its other end, which it does not stand on.
        let pair = link.kind.as_deref() == Some("veth");
        link.lower = link
            .lower
            .filter(|lower| *lower != 0 && !elsewhere && !pair);
        if link.name.is_empty() {
            return Err(Malformed::Missing {
                attribute: IFLA_IFNAME,
            });
        }
        Ok(Some(link))
    }

    /// Whether what it carries leaves by another device once more.
    pub fn is_tunnel(&self) -> bool {
        let kind = self.kind.as_deref();
        kind.is_some_and(|kind| TUNNELS.contains(&kind))
    }

    fn describe(&mut self, information: Attributes<'_>) -> Result<(), Malformed> {
        for attribute in information {
            let attribute = attribute?;
            match attribute.kind {
                IFLA_INFO_KIND => self.kind = Some(text(&attribute)),
                IFLA_INFO_SLAVE_KIND => self.port_kind = Some(text(&attribute)),
                _ => {}
            }
        }
        Ok(())
    }
}

impl Statistics {
    /// The first eight numbers of `struct rtnl_link_stats64`, machine byte order: packets, bytes, errors and drops,
    /// received before sent.
    pub(super) fn decode(attribute: &Attribute<'_>) -> Result<Statistics, Malformed> {
        let bytes: [u8; 64] = attribute.array()?;
        let mut numbers = [0; 8];
        for (number, bytes) in numbers.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *number = u64::from_ne_bytes(*bytes);
        }
        let direction = |first: usize| DirectionStatistics {
            packets: numbers[first],
            bytes: numbers[first + 2],
            errors: numbers[first + 4],
            dropped: numbers[first + 6],
        };
        Ok(Statistics {
            received: direction(0),
            sent: direction(1),
        })
    }
}

fn text(attribute: &Attribute<'_>) -> String {
    String::from_utf8_lossy(attribute.text()).into_owned()
}

/// Appends all devices of the namespace in which `netlink` was opened, in the kernel's order.
pub fn dump(netlink: &mut Netlink, links: &mut Vec<Link>) -> Result<DumpEnd, KernelError> {
    let body = |w: &mut Writer| w.raw(&[0; LINK_HEADER]);
    netlink.dump("read the devices", RTM_GETLINK, body, |message| {
        links.extend(Link::decode(message)?);
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::super::attr::recorded;
    use super::*;

    const LINKS: &str = include_str!("../../tests/fixtures/route/links.hex");

    fn links() -> Vec<Link> {
        let decode = |message: &Message<'_>| Link::decode(message).unwrap().unwrap();
        recorded::each(LINKS, decode)
    }

    #[test]
    fn what_a_kernel_sent_is_read() {
        let shown: Vec<String> = links()
            .iter()
            .map(|link| {
                format!(
                    "{} {} {} {:?} {:?} {}",
                    link.index,
                    link.name,
                    link.kind.as_deref().unwrap_or("-"),
                    link.master,
                    link.port_kind,
                    if link.up { "up" } else { "down" }
                )
            })
            .collect();
        assert_eq!(
            shown,
            [
                "1 lo - None None up",
                "2 wan0 veth None None up",
                "3 br-lan bridge None None up",
                "4 port1 veth Some(3) Some(\"bridge\") up",
                "5 br-lan.20 macvlan None None up",
                "6 tun0 tun None None up",
                "7 ifb9 ifb None None down",
            ]
        );
        let standing = links()
            .iter()
            .filter_map(|link| link.lower)
            .collect::<Vec<_>>();
        assert_eq!(standing, [3], "the macvlan on its bridge");
        let of = |has: fn(&Link) -> bool| {
            let having = links().into_iter().filter(has);
            having.map(|link| link.name).collect::<Vec<_>>()
        };
        assert_eq!(
            of(|link| link.ethernet),
            ["wan0", "br-lan", "port1", "br-lan.20", "ifb9"]
        );
        assert_eq!(of(Link::is_tunnel), ["tun0"]);
        let loopback: Vec<bool> = links().iter().map(|link| link.loopback).collect();
        assert_eq!(loopback, [true, false, false, false, false, false, false]);
    }

    #[test]
    fn statistics_keep_their_directions_apart() {
        let mut bytes = [0; 192];
        for (position, byte) in bytes.chunks_mut(8).enumerate() {
            byte[0] = position as u8 + 1;
        }
        let attribute = Attribute {
            kind: IFLA_STATS64,
            value: &bytes,
        };
        let direction = |packets, bytes, errors, dropped| DirectionStatistics {
            bytes,
            packets,
            errors,
            dropped,
        };
        let read = Statistics::decode(&attribute).unwrap();
        assert_eq!(read.received, direction(1, 3, 5, 7));
        assert_eq!(read.sent, direction(2, 4, 6, 8));
        let links = links();
        let wan0 = links[1].statistics.unwrap();
        assert_eq!(wan0.received, direction(5, 426, 0, 0));
        assert_eq!(wan0.sent, direction(5, 426, 0, 0));
        assert_eq!(links[2].statistics.unwrap().sent, direction(0, 0, 0, 4));
    }

    #[test]
    fn a_message_about_a_bridges_port_is_not_about_a_device() {
        let of_bridge = |message: &Message<'_>| {
            let mut payload = message.payload.to_vec();
            payload[0] = BRIDGE_FAMILY;
            let message = Message {
                payload: &payload,
                ..*message
            };
            Link::decode(&message).unwrap()
        };
        assert!(recorded::each(LINKS, of_bridge).iter().all(Option::is_none));
    }

    #[test]
    fn a_message_that_is_cut_off_is_an_error() {
        let cut = |message: &Message<'_>| {
            let payload = &message.payload[..message.payload.len() - 5];
            Link::decode(&Message {
                payload,
                ..*message
            })
        };
        assert!(recorded::each(LINKS, cut).iter().all(Result::is_err));
    }
}
