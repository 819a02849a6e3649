//! Where packets for the rest of the world go: the default routes of the main table, both families (RTM_GETROUTE).

use super::attr::{Attribute, Attributes, Malformed, Message, Writer};
use super::error::KernelError;
use super::socket::{DumpEnd, Netlink};

const RTM_GETROUTE: u16 = 26;
/// Length of `struct rtmsg`: family, length of destination and source, tos, table, protocol, scope, type, flags.
const ROUTE_HEADER: usize = 12;
/// AF_INET and AF_INET6.
const FAMILIES: [u8; 2] = [2, 10];
/// RT_TABLE_MAIN; rules may name others, which only some packets see.
const MAIN: u8 = 254;
/// RTN_UNICAST: it leads somewhere, unlike unreachable and blackhole routes.
const UNICAST: u8 = 1;
/// RTNH_F_DEAD: the device is down.
const DEAD: u8 = 1;
/// Length of `struct rtnexthop`: length (with attributes), flags, hops, index.
const HOP_HEADER: usize = 8;

/// RTA_OIF: the device's index; u32 in machine byte order; absent where several next hops share the route.
const OUT_DEVICE: u16 = 4;
/// RTA_PRIORITY: the metric; u32 in machine byte order; absent for 0.
const PRIORITY: u16 = 6;
/// RTA_MULTIPATH: the next hops that share the route.
const MULTIPATH: u16 = 9;

/// A default route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefaultRoute {
    /// Whether it is one of IPv6.
    pub v6: bool,
    /// The lowest one is used.
    pub metric: u32,
    /// Indexes of the devices of its next hops, in the kernel's order, none twice; those whose device is down are
    /// left out. Empty where the route only names a next hop object, which the kernel does when
    /// net.ipv4.nexthop_compat_mode is 0.
    pub devices: Vec<u32>,
}

impl DefaultRoute {
    /// Reads one message of a dump or an event; `None` where it is about another route. A route for packets from
    /// some sources only (`default from 2001:db8::/56`, as delegated prefixes have) is a default route for those.
    pub fn decode(message: &Message<'_>) -> Result<Option<DefaultRoute>, Malformed> {
        let (header, attributes) = message
            .payload
            .split_first_chunk::<ROUTE_HEADER>()
            .ok_or(Malformed::Length)?;
        let [family, destination_length, _, _, table, _, _, kind, ..] = *header;
        if destination_length != 0 || table != MAIN || kind != UNICAST {
            return Ok(None);
        }
        let mut route = DefaultRoute {
            v6: family == FAMILIES[1],
            metric: 0,
            devices: Vec::new(),
        };
        for attribute in Attributes::new(attributes) {
            let attribute = attribute?;
            match attribute.kind {
                OUT_DEVICE => route.add(u32::from_ne_bytes(attribute.array()?)),
                PRIORITY => route.metric = u32::from_ne_bytes(attribute.array()?),
                MULTIPATH => route.add_hops(&attribute)?,
                _ => {}
            }
        }
        Ok(Some(route))
    }

    fn add(&mut self, device: u32) {
        if !self.devices.contains(&device) {
            self.devices.push(device);
        }
    }

    fn add_hops(&mut self, hops: &Attribute<'_>) -> Result<(), Malformed> {
        let mut rest = hops.value;
        while let Some((header, _)) = rest.split_first_chunk::<HOP_HEADER>() {
            let [low, high, flags, _, device @ ..] = *header;
            if flags & DEAD == 0 {
                self.add(u32::from_ne_bytes(device));
            }
            let length = usize::from(u16::from_ne_bytes([low, high]));
            if length < HOP_HEADER {
                return Err(Malformed::Length);
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        }
        Ok(())
    }
}

/// Appends the default routes of the namespace in which `netlink` was opened, IPv4 before IPv6.
pub fn dump(netlink: &mut Netlink, routes: &mut Vec<DefaultRoute>) -> Result<DumpEnd, KernelError> {
    let mut end = DumpEnd { interrupted: false };
    for family in FAMILIES {
        let mut header = [0; ROUTE_HEADER];
        header[0] = family;
        let body = |w: &mut Writer| w.raw(&header);
        let dumped = netlink.dump("read the routes", RTM_GETROUTE, body, |message| {
            routes.extend(DefaultRoute::decode(message)?);
            Ok(())
        })?;
        end.interrupted |= dumped.interrupted;
    }
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::super::attr::recorded;
    use super::*;

    const V4: &str = include_str!("../../tests/fixtures/route/routes4.hex");
    const V6: &str = include_str!("../../tests/fixtures/route/routes6.hex");

    fn routes(hex: &str) -> Vec<(bool, u32, Vec<u32>)> {
        let decode = |message: &Message<'_>| DefaultRoute::decode(message).unwrap();
        let routes = recorded::each(hex, decode).into_iter().flatten();
        routes
            .map(|route| (route.v6, route.metric, route.devices))
            .collect()
    }

    #[test]
    fn only_default_routes_of_the_main_table_that_lead_somewhere_are_read() {
        assert_eq!(
            routes(V4),
            [(false, 50, vec![2, 5]), (false, 100, vec![2])],
            "not the one of table 77, not the unreachable one"
        );
        assert_eq!(
            routes(V6),
            [(true, 512, vec![3]), (true, 1024, vec![3])],
            "one of them is for packets from one prefix only"
        );
    }

    #[test]
    fn a_next_hop_whose_device_is_down_is_left_out_and_a_broken_one_is_an_error() {
        let hop = |length: u8, flags: u8, device: u8| [length, 0, flags, 0, device, 0, 0, 0];
        let read = |hops: &[[u8; 8]]| {
            let mut route = DefaultRoute {
                v6: false,
                metric: 0,
                devices: Vec::new(),
            };
            let attribute = Attribute {
                kind: MULTIPATH,
                value: &hops.concat(),
            };
            route.add_hops(&attribute).map(|()| route.devices)
        };
        let read_well = read(&[hop(8, 0, 7), hop(8, DEAD, 8), hop(8, 0, 9), hop(8, 0, 7)]);
        assert_eq!(read_well, Ok(vec![7, 9]));
        assert_eq!(read(&[hop(4, 0, 7)]), Err(Malformed::Length));
    }
}
