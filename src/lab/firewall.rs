//! The lab router's own firewall, table `inet lab_nat`: masquerading, port forwards and drops. It stands apart from
//! flowctl's table as an operator's would, and is made without the nft program.

use std::net::{IpAddr, SocketAddr};

use netlink_sys::protocols::NETLINK_NETFILTER;

use super::netlink::Netlink;
use super::nft::{self, Attributes, Base, BaseChain, Batch, Meta};
use super::{Family, LabError, Namespace, Protocol};

const TABLE: &str = "lab_nat";
const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;
/// IFNAMSIZ: nf_tables compares whole device names in this width.
const DEVICE_WIDTH: usize = 16;
/// The destination port, in TCP and UDP alike.
const PORT_OFFSET: u32 = 2;

const PREROUTING: BaseChain = BaseChain {
    name: "prerouting",
    kind: "nat",
    hook: 0,
    priority: -100,
};
const FORWARD: BaseChain = BaseChain {
    name: "forward",
    kind: "filter",
    hook: 2,
    priority: 0,
};
const POSTROUTING: BaseChain = BaseChain {
    name: "postrouting",
    kind: "nat",
    hook: 4,
    priority: 100,
};

/// The firewall of one namespace.
#[derive(Debug)]
pub struct Firewall {
    netlink: Netlink,
}

impl Firewall {
    /// Opens it; there are no rules, and no conntrack, before the first is added.
    pub fn open(namespace: &Namespace) -> Result<Firewall, LabError> {
        let netlink = Netlink::open(namespace, NETLINK_NETFILTER)?;
        Ok(Firewall { netlink })
    }

    /// What leaves by that device carries the device's address as its source.
    pub fn masquerade(&mut self, family: Family, device: &str) -> Result<(), LabError> {
        let mut rule = Vec::from(nft::meta_is(Meta::OifName, &padded(device)));
        rule.extend(nft::meta_is(Meta::NfProto, &[nfproto(family)]));
        rule.push(nft::masquerade());
        self.add_rule(POSTROUTING, rule, &format!("masquerade on {device}"))
    }

    /// What arrives by that device for `outside` goes to `inside`; both of one family.
    pub fn forward_port(
        &mut self,
        device: &str,
        protocol: Protocol,
        outside: SocketAddr,
        inside: SocketAddr,
    ) -> Result<(), LabError> {
        let mut rule = Vec::from(nft::meta_is(Meta::IifName, &padded(device)));
        rule.extend(addressed_to(protocol, outside));
        rule.extend(nft::destination_nat(
            nfproto(family(inside.ip())),
            &octets(inside.ip()),
            inside.port(),
        ));
        self.add_rule(PREROUTING, rule, &format!("{outside} to {inside}"))
    }

    /// Drops what is forwarded from an address to an address and port.
    pub fn drop_flow(
        &mut self,
        protocol: Protocol,
        source: IpAddr,
        destination: SocketAddr,
    ) -> Result<(), LabError> {
        let offset = if source.is_ipv4() { 12 } else { 8 };
        let mut rule = addressed_to(protocol, destination);
        rule.extend(nft::payload_is(Base::Network, offset, &octets(source)));
        rule.push(nft::drop());
        self.add_rule(
            FORWARD,
            rule,
            &format!("drop from {source} to {destination}"),
        )
    }

    /// Takes all of the lab's rules away; fine when there are none.
    pub fn remove(&mut self) -> Result<(), LabError> {
        let mut batch = Batch::new();
        // Adding first makes deleting succeed when it is absent.
        batch.add_table(TABLE);
        batch.delete_table(TABLE);
        self.apply(batch, "remove", TABLE)
    }

    fn add_rule(
        &mut self,
        chain: BaseChain,
        rule: Vec<Attributes>,
        object: &str,
    ) -> Result<(), LabError> {
        let mut batch = Batch::new();
        batch.add_table(TABLE);
        batch.add_chain(TABLE, chain);
        batch.add_rule(TABLE, chain, rule);
        self.apply(batch, "add rule", object)
    }

    fn apply(
        &mut self,
        batch: Batch,
        operation: &'static str,
        object: &str,
    ) -> Result<(), LabError> {
        let acknowledged = batch.acknowledged;
        self.netlink
            .exchange(&batch.finish(), acknowledged, operation, object)
            .map(drop)
    }
}

fn addressed_to(protocol: Protocol, destination: SocketAddr) -> Vec<Attributes> {
    let family = family(destination.ip());
    let offset = match family {
        Family::V4 => 16,
        Family::V6 => 24,
    };
    let mut rule = Vec::from(nft::meta_is(Meta::NfProto, &[nfproto(family)]));
    rule.extend(nft::meta_is(Meta::L4Proto, &[protocol.number()]));
    rule.extend(nft::payload_is(
        Base::Network,
        offset,
        &octets(destination.ip()),
    ));
    rule.extend(nft::payload_is(
        Base::Transport,
        PORT_OFFSET,
        &destination.port().to_be_bytes(),
    ));
    rule
}

fn family(address: IpAddr) -> Family {
    if address.is_ipv4() {
        Family::V4
    } else {
        Family::V6
    }
}

fn nfproto(family: Family) -> u8 {
    match family {
        Family::V4 => NFPROTO_IPV4,
        Family::V6 => NFPROTO_IPV6,
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn padded(device: &str) -> Vec<u8> {
    let mut name = device.as_bytes().to_vec();
    name.resize(DEVICE_WIDTH, 0);
    name
}
