//! Devices, addresses, routes and neighbours of one namespace over rtnetlink. Every verb is one request and waits
//! for the kernel's answer; devices are named, never numbered.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;
use std::time::Duration;

use ipnet::IpNet;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::link::{
    BridgeStpState, InfoBridge, InfoData, InfoKind, InfoVeth, InfoVxlan, LinkAttribute, LinkFlags,
    LinkInfo, LinkMessage, State,
};
use netlink_sys::protocols::NETLINK_ROUTE;

use super::latch::Latch;
use super::netlink::Netlink;
use super::rtnl;
use super::{LabError, Namespace, clock};
use crate::units::Volume;

/// A device that is to be made.
#[derive(Debug, Clone, Copy)]
pub struct NewDevice<'a> {
    /// At most 15 bytes.
    pub name: &'a str,
    /// The hardware address; `None` lets the kernel choose.
    pub mac: Option<[u8; 6]>,
    /// Whether TCP may hand over several segments merged into one packet. Without it counters see each packet as
    /// an Ethernet would carry it.
    pub merge: bool,
}

/// The far end of a VXLAN tunnel with one peer.
#[derive(Debug, Clone, Copy)]
pub struct Vxlan {
    /// The network identifier, 24 bits.
    pub id: u32,
    /// Our end outside the tunnel.
    pub local: Ipv4Addr,
    /// The peer's end outside the tunnel.
    pub remote: Ipv4Addr,
    /// UDP destination port.
    pub port: u16,
}

/// The devices of one namespace; usable from any thread.
#[derive(Debug)]
pub struct Links {
    netlink: Netlink,
}

impl Links {
    /// Opens a conversation with the kernel about that namespace.
    pub fn open(namespace: &Namespace) -> Result<Links, LabError> {
        let netlink = Netlink::open(namespace, NETLINK_ROUTE)?;
        Ok(Links { netlink })
    }

    /// A cable: `near` here, `far` in another namespace. Both are down.
    pub fn add_veth(
        &mut self,
        near: NewDevice<'_>,
        far: NewDevice<'_>,
        there: &Namespace,
    ) -> Result<(), LabError> {
        let mut peer = described(far);
        peer.attributes
            .push(LinkAttribute::NetNsFd(there.fd().as_raw_fd()));
        self.add(
            near,
            InfoKind::Veth,
            Some(InfoData::Veth(InfoVeth::Peer(peer))),
        )
    }

    /// A bridge that forwards at once: no spanning tree, no delay, no multicast snooping.
    pub fn add_bridge(&mut self, device: NewDevice<'_>) -> Result<(), LabError> {
        let options = vec![
            InfoBridge::ForwardDelay(0),
            InfoBridge::StpState(BridgeStpState::Disabled),
            InfoBridge::MulticastSnooping(false),
        ];
        self.add(device, InfoKind::Bridge, Some(InfoData::Bridge(options)))
    }

    /// A tunnel over UDP.
    pub fn add_vxlan(&mut self, device: NewDevice<'_>, vxlan: Vxlan) -> Result<(), LabError> {
        let options = vec![
            InfoVxlan::Id(vxlan.id),
            InfoVxlan::Local(vxlan.local),
            InfoVxlan::Group(vxlan.remote),
            InfoVxlan::Port(vxlan.port),
        ];
        self.add(device, InfoKind::Vxlan, Some(InfoData::Vxlan(options)))
    }

    /// Makes a device a port of a bridge.
    pub fn enslave(&mut self, device: &str, bridge: &str) -> Result<(), LabError> {
        let bridge = self.index(bridge)?;
        self.change("enslave", device, LinkAttribute::Controller(bridge))
    }

    /// Sets the largest packet.
    pub fn set_mtu(&mut self, device: &str, mtu: u32) -> Result<(), LabError> {
        self.change("set the MTU of", device, LinkAttribute::Mtu(mtu))
    }

    /// Gives a device another name; it must be down on kernels before 6.1.
    pub fn rename(&mut self, device: &str, name: &str) -> Result<(), LabError> {
        let index = self.index(device)?;
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.ask(Message::SetLink(link), 0, "rename", device)
            .map(drop)
    }

    /// Switches a device on.
    pub fn up(&mut self, device: &str) -> Result<(), LabError> {
        let mut link = named(device);
        link.header.flags = LinkFlags::Up;
        link.header.change_mask = LinkFlags::Up;
        self.ask(Message::SetLink(link), 0, "switch on", device)
            .map(drop)
    }

    /// Switches a device off.
    pub fn down(&mut self, device: &str) -> Result<(), LabError> {
        let mut link = named(device);
        link.header.change_mask = LinkFlags::Up;
        self.ask(Message::SetLink(link), 0, "switch off", device)
            .map(drop)
    }

    /// Removes a device; of a cable, both ends.
    pub fn delete(&mut self, device: &str) -> Result<(), LabError> {
        self.ask(Message::DelLink(named(device)), 0, "delete", device)
            .map(drop)
    }

    /// Gives a device an address, at once usable (no duplicate address detection).
    pub fn add_address(&mut self, device: &str, network: IpNet) -> Result<(), LabError> {
        let message = rtnl::address(self.index(device)?, network);
        let object = format!("{network} on {device}");
        self.ask(message, NLM_F_CREATE | NLM_F_EXCL, "add address", &object)
            .map(drop)
    }

    /// Takes an address from a device.
    pub fn remove_address(&mut self, device: &str, network: IpNet) -> Result<(), LabError> {
        let message = rtnl::no_address(self.index(device)?, network);
        let object = format!("{network} on {device}");
        self.ask(message, 0, "remove address", &object).map(drop)
    }

    /// Adds a route through a gateway; the default route is 0.0.0.0/0 or ::/0.
    pub fn add_route(&mut self, destination: IpNet, gateway: IpAddr) -> Result<(), LabError> {
        let object = format!("{destination} via {gateway}");
        let message = rtnl::route(destination, gateway);
        self.ask(message, NLM_F_CREATE | NLM_F_EXCL, "add route", &object)
            .map(drop)
    }

    /// Tells a device the hardware address of a neighbour, for good, so that nobody has to ask for it.
    pub fn add_neighbour(
        &mut self,
        device: &str,
        neighbour: IpAddr,
        mac: [u8; 6],
    ) -> Result<(), LabError> {
        let message = rtnl::neighbour(self.index(device)?, neighbour, mac);
        let object = format!("{neighbour} on {device}");
        self.ask(message, NLM_F_CREATE | NLM_F_EXCL, "add neighbour", &object)
            .map(drop)
    }

    /// The device's number in its namespace.
    pub fn index(&mut self, device: &str) -> Result<u32, LabError> {
        Ok(self.describe(device)?.header.index)
    }

    /// Waits until all of these devices are operational.
    pub fn wait_up(&mut self, devices: &[&str], longest: Duration) -> Result<(), LabError> {
        let begun = clock::uptime();
        let pause = Latch::default();
        for device in devices {
            while !self.is_up(device)? {
                let waited = clock::uptime().since(begun);
                if waited > longest {
                    let device = (*device).to_owned();
                    return Err(LabError::NotUp { device, waited });
                }
                pause.wait(Duration::from_millis(1));
            }
        }
        Ok(())
    }

    /// What the device itself has counted, layer 2: received and sent.
    pub fn statistics(&mut self, device: &str) -> Result<(Volume, Volume), LabError> {
        let attributes = self.describe(device)?.attributes;
        let found = attributes.iter().find_map(|attribute| {
            let LinkAttribute::Stats64(stats) = attribute else {
                return None;
            };
            let received = Volume {
                bytes: stats.rx_bytes,
                packets: stats.rx_packets,
            };
            let sent = Volume {
                bytes: stats.tx_bytes,
                packets: stats.tx_packets,
            };
            Some((received, sent))
        });
        found.ok_or_else(|| incomplete("read the statistics of", device))
    }

    fn is_up(&mut self, device: &str) -> Result<bool, LabError> {
        let state = LinkAttribute::OperState(State::Up);
        Ok(self.describe(device)?.attributes.contains(&state))
    }

    fn describe(&mut self, device: &str) -> Result<LinkMessage, LabError> {
        let operation = "find";
        let answers = self.ask(Message::GetLink(named(device)), 0, operation, device)?;
        let found = answers.iter().find_map(|answer| {
            let answer = NetlinkMessage::<Message>::deserialize(answer).ok()?;
            let NetlinkPayload::InnerMessage(Message::NewLink(link)) = answer.payload else {
                return None;
            };
            Some(link)
        });
        found.ok_or_else(|| incomplete(operation, device))
    }

    fn add(
        &mut self,
        device: NewDevice<'_>,
        kind: InfoKind,
        data: Option<InfoData>,
    ) -> Result<(), LabError> {
        let mut link = described(device);
        let mut info = vec![LinkInfo::Kind(kind)];
        info.extend(data.map(LinkInfo::Data));
        link.attributes.push(LinkAttribute::LinkInfo(info));
        self.ask(
            Message::NewLink(link),
            NLM_F_CREATE | NLM_F_EXCL,
            "create device",
            device.name,
        )
        .map(drop)
    }

    fn change(
        &mut self,
        operation: &'static str,
        device: &str,
        to: LinkAttribute,
    ) -> Result<(), LabError> {
        let mut link = named(device);
        link.attributes.push(to);
        self.ask(Message::SetLink(link), 0, operation, device)
            .map(drop)
    }

    fn ask(
        &mut self,
        message: Message,
        flags: u16,
        operation: &'static str,
        object: &str,
    ) -> Result<Vec<Vec<u8>>, LabError> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        request.header.sequence_number = self.netlink.next_sequence();
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.netlink.exchange(&bytes, 1, operation, object)
    }
}

/// The kernel acknowledged but did not say what was asked.
fn incomplete(operation: &'static str, device: &str) -> LabError {
    LabError::Netlink {
        operation,
        object: device.to_owned(),
        source: io::ErrorKind::InvalidData.into(),
        text: None,
    }
}

fn named(device: &str) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.attributes
        .push(LinkAttribute::IfName(device.to_owned()));
    link
}

fn described(device: NewDevice<'_>) -> LinkMessage {
    let mut link = named(device.name);
    link.attributes
        .extend(device.mac.map(|mac| LinkAttribute::Address(mac.to_vec())));
    if !device.merge {
        link.attributes.push(LinkAttribute::GsoMaxSegs(1));
    }
    link
}
