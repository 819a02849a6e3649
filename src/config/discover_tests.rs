use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use proptest::prelude::*;

use super::discover::{Discovery, discover};
use super::{Config, Connected, Format, parse};
use crate::kernel::addresses::Address;
use crate::kernel::default_routes::DefaultRoute;
use crate::kernel::links::Link;
use crate::kernel::network::Network;
use crate::units::DevicePattern;

/// A network in words: devices by name, their index is their place from 1.
#[derive(Default)]
struct Sketch(Network);

impl Sketch {
    fn device(mut self, name: &str, kind: &str, addresses: &[&str]) -> Self {
        let index = self.0.links.len() as u32 + 1;
        self.0.links.push(Link {
            index,
            name: name.to_owned(),
            kind: (!kind.is_empty()).then(|| kind.to_owned()),
            up: true,
            ..Link::default()
        });
        let addresses = addresses.iter().map(|text| address(index, text));
        self.0.addresses.extend(addresses);
        self
    }

    fn last(mut self, change: impl FnOnce(&mut Link)) -> Self {
        change(self.0.links.last_mut().unwrap());
        self
    }

    fn port(self, name: &str, kind: &str, master: &str) -> Self {
        let master = self.index(master);
        self.device(name, "", &[]).last(|link| {
            link.master = Some(master);
            link.port_kind = Some(kind.to_owned());
        })
    }

    fn default_route(mut self, v6: bool, metric: u32, devices: &[&str]) -> Self {
        let devices = devices.iter().map(|name| self.index(name)).collect();
        self.0.default_routes.push(DefaultRoute {
            v6,
            metric,
            devices,
        });
        self
    }

    fn index(&self, name: &str) -> u32 {
        let mut links = self.0.links.iter();
        links.find(|link| link.name == name).unwrap().index
    }

    fn found(&self) -> Discovery {
        discover(&self.0)
    }
}

/// `own/length`, or `own>peer/length`.
fn address(device: u32, text: &str) -> Address {
    let (addresses, length) = text.split_once('/').unwrap();
    let (own, peer) = match addresses.split_once('>') {
        Some((own, peer)) => (own, Some(peer.parse().unwrap())),
        None => (addresses, None),
    };
    Address {
        device,
        address: own.parse().unwrap(),
        peer,
        prefix_length: length.parse().unwrap(),
        host_only: false,
        tentative: false,
        temporary: false,
        deprecated: false,
        permanent: true,
    }
}

/// `name: devices` for each interface.
fn interfaces(found: &Discovery) -> Vec<String> {
    (found.interfaces.iter())
        .map(|interface| {
            let devices: Vec<&str> = (interface.devices.iter().map(|d| d.as_str())).collect();
            format!("{}: {}", interface.name, devices.join(" "))
        })
        .collect()
}

/// `name: prefixes` for each subnet.
fn subnets(found: &Discovery) -> Vec<String> {
    (found.subnets.iter())
        .map(|subnet| {
            let prefixes: Vec<String> = subnet.prefixes.iter().map(IpNet::to_string).collect();
            format!("{}: {}", subnet.name, prefixes.join(" "))
        })
        .collect()
}

fn home() -> Sketch {
    Sketch::default()
        .device("lo", "", &["127.0.0.1/8", "::1/128"])
        .last(|lo| lo.loopback = true)
        .device("eth0", "", &["fe80::1/64"])
        .device(
            "br-lan",
            "bridge",
            &["192.168.1.1/24", "fd00:1::1/64", "fe80::2/64"],
        )
        .port("eth1", "bridge", "br-lan")
        .device("br-lan.20", "vlan", &["192.168.20.1/24"])
        .device("ppp0", "ppp", &["198.51.100.7>198.51.100.1/32"])
        .default_route(false, 0, &["ppp0"])
}

#[test]
fn a_home_router_has_a_way_out_and_its_networks() {
    let found = home().found();
    assert_eq!(
        interfaces(&found),
        ["wan: ppp0", "br_lan: br-lan", "br_lan_20: br-lan.20"]
    );
    assert_eq!(
        subnets(&found),
        [
            "br_lan: 192.168.1.0/24 fd00:1::/64",
            "br_lan_20: 192.168.20.0/24"
        ]
    );
    let left_out = [("eth0", "has no address"), ("eth1", "is a port of br-lan")];
    let left_out = left_out.map(|(device, reason)| (device.to_owned(), reason.to_owned()));
    assert_eq!(found.left_out, left_out);
}

#[test]
fn its_configuration_reads_like_this() {
    let expected = "\
# What flowctl found on this machine: counters only. Keep it as /etc/flowctl/flowctl.toml and change what you know
# better. `flowctl check` names mistakes, `flowctl plan` shows what each counter will see.

# The way out: the default route's device.
[interfaces.wan]
device = \"ppp0\"
# How much the line carries, which nothing on this machine knows:
#capacity = { in = \"500Mbit/s\", out = \"50Mbit/s\" }

# A bridge: what its ports carry is counted here.
[interfaces.br_lan]
device = \"br-lan\"

[interfaces.br_lan_20]
device = \"br-lan.20\"

[subnets]
br_lan = [\"192.168.1.0/24\", \"fd00:1::/64\"]
br_lan_20 = [\"192.168.20.0/24\"]

# When to look closer and name who moved the bytes; the percentage is one of the capacity above. It switches
# connection tracking on, which costs every packet a little.
#[thresholds.wan_full]
#counter = \"wan_out\"
#raise = \"80%\"
#clear = \"60%\"

# Left out:
#   eth0 has no address
#   eth1 is a port of br-lan
";
    assert_eq!(home().found().text(), expected);
}

/// With the `#` taken off all lines that have no space behind it.
fn without_marks(text: &str) -> String {
    (text.lines())
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if !rest.starts_with(' ') => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect()
}

#[test]
fn the_next_steps_work_as_they_stand() {
    let without_wan = Sketch::default().device("eth0", "", &["10.0.0.1/8"]);
    for (sketch, counter) in [(home(), "wan_out"), (without_wan, "eth0_out")] {
        let text = without_marks(&sketch.found().text());
        let config = parse(&text, Format::Toml).unwrap();
        assert_eq!(config.thresholds[0].counter.as_str(), counter);
    }
}

#[test]
fn without_a_default_route_there_is_no_wan_and_that_is_said() {
    let found = Sketch::default()
        .device("eth0", "", &["10.0.0.1/8"])
        .found();
    assert_eq!(interfaces(&found), ["eth0: eth0"]);
    assert!(found.wan().is_none());
    assert!(found.text().contains("There is no default route"));
    assert!(!home().found().text().contains("There is no default route"));
    let so_called = Sketch::default().device("wan", "", &["10.0.0.1/8"]).found();
    assert_eq!(interfaces(&so_called), ["wan: wan"]);
    assert!(so_called.text().contains("There is no default route"));
}

#[test]
fn all_devices_of_the_best_routes_are_the_way_out_and_others_are_named() {
    let two = || {
        Sketch::default()
            .device("eth0", "", &["192.0.2.2/30"])
            .device("eth1", "", &["198.51.100.2/30"])
            .device("lte", "", &["10.64.0.2/29"])
            .device("lan", "", &["10.0.0.1/24"])
    };
    let shared = two()
        .default_route(false, 10, &["eth1", "eth0"])
        .default_route(false, 20, &["lte"]);
    let tied = two()
        .default_route(false, 10, &["eth1"])
        .default_route(false, 10, &["eth0"])
        .default_route(false, 20, &["lte"]);
    let families = two()
        .default_route(true, 1024, &["eth0"])
        .default_route(false, 10, &["eth1"])
        .default_route(false, 20, &["lte"]);
    for sketch in [shared, tied, families] {
        let found = sketch.found();
        assert_eq!(
            interfaces(&found),
            ["wan: eth1 eth0", "lte: lte", "lan: lan"]
        );
        assert_eq!(
            subnets(&found),
            ["lan: 10.0.0.0/24"],
            "a backup is not inside"
        );
    }
}

#[test]
fn a_tunnel_is_the_way_out_only_where_there_is_no_other() {
    let tunnel = Sketch::default()
        .device("eth0", "", &["192.0.2.2/30"])
        .device("he-ipv6", "sit", &["2001:db8:5::2/64"])
        .default_route(true, 1024, &["he-ipv6"]);
    assert_eq!(interfaces(&tunnel.found()), ["wan: he-ipv6", "eth0: eth0"]);
    let both = tunnel.default_route(false, 0, &["eth0"]);
    assert_eq!(interfaces(&both.found()), ["wan: eth0", "he_ipv6: he-ipv6"]);
    assert_eq!(both.found().subnets, []);
    let vpn = Sketch::default()
        .device("eth0", "", &["192.0.2.2/30"])
        .device("tun0", "tun", &["10.8.0.2/24"])
        .default_route(false, 50, &["tun0"])
        .default_route(false, 100, &["eth0"]);
    assert_eq!(interfaces(&vpn.found()), ["wan: eth0", "tun0: tun0"]);
}

#[test]
fn a_device_that_is_down_or_unaddressed_is_left_out_and_an_unaddressed_way_out_is_not() {
    let found = Sketch::default()
        .device("off", "", &["10.0.0.1/8"])
        .last(|link| link.up = false)
        .device("host", "", &["10.1.0.1/16"])
        .device("silent", "", &["169.254.3.4/16", "fe80::1/64"])
        .device("ppp0", "ppp", &[])
        .device("ünï", "", &["10.2.0.1/16"])
        .default_route(false, 0, &["ppp0"])
        .found();
    assert_eq!(interfaces(&found), ["wan: ppp0", "host: host"]);
    let reasons: Vec<&str> = (found.left_out.iter().map(|(_, reason)| reason.as_str())).collect();
    assert_eq!(
        reasons,
        [
            "is down",
            "has no address",
            "has a name that no configuration can hold"
        ]
    );
}

#[test]
fn ports_count_as_their_master_and_members_of_a_vrf_as_themselves() {
    let found = Sketch::default()
        .device("bond0", "bond", &["10.0.0.1/24"])
        .port("eth0", "bond", "bond0")
        .device("blue", "vrf", &[])
        .port("eth1", "vrf", "blue");
    let index = found.index("eth1");
    let mut network = found.0;
    network.addresses.push(address(index, "10.1.0.1/24"));
    let found = discover(&network);
    assert_eq!(interfaces(&found), ["bond0: bond0", "eth1: eth1"]);
}

#[test]
fn names_take_the_shape_of_a_name_and_are_numbered_where_they_collide() {
    let found = Sketch::default()
        .device("wan", "", &["10.1.0.1/16"])
        .device("br-a", "", &["10.2.0.1/16"])
        .device("br.a", "", &["10.3.0.1/16"])
        .device("br_a_2", "", &["10.4.0.1/16"])
        .device("6in4", "", &["10.5.0.1/16"])
        .device("LAN", "", &["10.6.0.1/16"])
        .device("ip", "", &["10.7.0.1/16"])
        .device("eth0", "", &["192.0.2.2/30"])
        .default_route(false, 0, &["eth0"])
        .found();
    let names: Vec<&str> = (found.interfaces.iter().map(|i| i.name.as_str())).collect();
    assert_eq!(
        names,
        [
            "wan", "wan_2", "br_a", "br_a_2", "br_a_2_2", "dev_6in4", "lan", "ip"
        ]
    );
    found.config().unwrap();
}

#[test]
fn a_subnet_is_where_neighbours_are() {
    let found = Sketch::default()
        .device("nested", "", &["10.0.0.1/8", "10.1.0.1/16", "10.0.0.2/8"])
        .device("first", "", &["10.9.0.1/16", "fd00::1/64"])
        .device("second", "", &["10.9.0.2/16", "10.10.0.1/16"])
        .device("third", "", &["fd00::3/64"])
        .device(
            "host",
            "",
            &["10.11.0.1/32", "::ffff:10.0.0.1/120", "fd01::1/0"],
        )
        .device(
            "peer",
            "",
            &["10.12.0.1>10.13.0.1/32", "fd02::1>fd03::1/64"],
        )
        .found();
    assert_eq!(
        subnets(&found),
        [
            "nested: 10.0.0.0/8",
            "first: 10.9.0.0/16 fd00::/64",
            "second: 10.10.0.0/16",
            "peer: 10.13.0.1/32 fd02::/64 fd03::1/128",
        ]
    );
    assert_eq!(found.interfaces.len(), 6);
    let text = found.text();
    assert!(
        text.contains("# 10.9.0.0/16 is on second too, and is counted here.\n"),
        "{text}"
    );
    assert!(
        text.contains("# fd00::/64 is on third too, and is counted here.\n"),
        "{text}"
    );
}

#[test]
fn a_device_with_a_prefix_that_has_a_lifetime_is_followed() {
    let mut network = home().0;
    for address in &mut network.addresses {
        address.permanent = !address.address.to_string().starts_with("fd00:1::");
    }
    let text = discover(&network).text();
    let marked: Vec<&str> = (text.lines().filter(|line| line.contains("lifetime"))).collect();
    assert_eq!(marked.len(), 1, "{text}");
    let remark =
        "fd00:1::/64 has a lifetime: the prefixes of its device are followed as they change.";
    assert_eq!(marked[0], format!("# {remark}"));
    assert!(
        text.contains("\nbr_lan = { device = \"br-lan\" }\n"),
        "{text}"
    );
    let fixed = discover(&home().0).config().unwrap();
    let connected = Connected::new(&network.links, &network.addresses);
    let followed = discover(&network).config().unwrap().resolved(&connected);
    assert_eq!(counters(&followed).len(), counters(&fixed).len());
    let prefixes = |config: &Config| -> Vec<Vec<IpNet>> {
        let subnets = config.subnets.iter();
        subnets
            .map(|subnet| subnet.addresses.prefixes().to_vec())
            .collect()
    };
    assert_eq!(
        prefixes(&followed),
        prefixes(&fixed),
        "the same at this moment"
    );
}

#[test]
fn what_is_beyond_64_interfaces_is_counted_together() {
    let many = |count: usize| {
        let mut sketch = Sketch::default().device("eth0", "", &["192.0.2.2/30"]);
        for n in 1..count {
            sketch = sketch.device(&format!("v{n}"), "vlan", &[&format!("10.0.{n}.1/24")]);
        }
        sketch.default_route(false, 0, &["eth0"]).found()
    };
    assert_eq!(many(64).interfaces.len(), 64);
    assert_eq!(interfaces(&many(64))[63], "v63: v63");
    let found = many(67);
    assert_eq!(found.interfaces.len(), 64);
    assert_eq!(interfaces(&found)[63], "others: v63 v64 v65 v66");
    assert_eq!(found.subnets.len(), 66);
    assert_eq!(found.config().unwrap().interfaces.len(), 64);
}

#[test]
fn nothing_found_is_an_empty_configuration() {
    let found = discover(&Network::default());
    assert!(found.is_empty());
    assert_eq!(found.config().unwrap(), parse("", Format::Toml).unwrap());
}

fn any_link() -> impl Strategy<Value = (String, &'static str, Option<u8>, bool, bool)> {
    let name = prop_oneof!["[a-cA-C0-9._é-]{1,4}", "[ -~]{1,15}", "br[-._]?[12]"];
    let kind = prop::sample::select(&["", "bridge", "vlan", "ppp", "sit", "vrf"][..]);
    let up = prop::bool::weighted(0.9);
    (
        name,
        kind,
        prop::option::weighted(0.2, 0_u8..80),
        up,
        prop::bool::weighted(0.05),
    )
}

fn any_ip() -> impl Strategy<Value = IpAddr> {
    // Few different ones, so that prefixes meet.
    let v4 = (0_u8..3, 0_u8..3, any::<u8>()).prop_map(|(a, b, c)| IpAddr::from([10, a, b, c]));
    let v6 = (0_u16..3, 0_u16..3, any::<u16>())
        .prop_map(|(a, b, c)| IpAddr::from([0xfd00, a, 0, b, 0, 0, 0, c]));
    prop_oneof![
        4 => v4,
        4 => v6,
        1 => any::<[u8; 4]>().prop_map(IpAddr::from),
        1 => any::<[u8; 16]>().prop_map(IpAddr::from),
        1 => any::<[u8; 4]>().prop_map(|v4| std::net::Ipv4Addr::from(v4).to_ipv6_mapped().into()),
    ]
}

fn any_address() -> impl Strategy<Value = (u8, IpAddr, Option<IpAddr>, u8, bool)> {
    let peer = prop::option::weighted(0.2, any_ip());
    (0_u8..80, any_ip(), peer, 0_u8..=128, any::<bool>())
}

prop_compose! {
    fn any_network()(
        links in prop::collection::vec(any_link(), 0..80),
        addresses in prop::collection::vec(any_address(), 0..150),
        routes in prop::collection::vec((any::<bool>(), 0_u32..3, prop::collection::vec(0_u8..80, 0..3)), 0..4),
    ) -> Network {
        let mut names = BTreeSet::new();
        let links = links.into_iter().enumerate().map(|(index, (name, kind, master, up, loopback))| Link {
            index: index as u32,
            name: if names.insert(name.clone()) { name } else { format!("dev{index}") },
            kind: (!kind.is_empty()).then(|| kind.to_owned()),
            lower: None,
            master: master.map(u32::from),
            port_kind: master.map(|_| "bridge".to_owned()),
            ethernet: true,
            up,
            loopback,
            statistics: None,
        });
        let addresses = addresses.into_iter().map(|(device, own, peer, length, permanent)| Address {
            peer: peer.filter(|peer| peer.is_ipv4() == own.is_ipv4() && *peer != own),
            prefix_length: if own.is_ipv4() { length / 4 } else { length },
            permanent,
            ..address(device.into(), &format!("{own}/0"))
        });
        let default_routes = routes.into_iter().map(|(v6, metric, devices)| DefaultRoute {
            v6,
            metric,
            devices: devices.into_iter().map(u32::from).collect(),
        });
        Network { links: links.collect(), addresses: addresses.collect(), default_routes: default_routes.collect() }
    }
}

/// What a configuration counts, by name.
fn counters(config: &Config) -> Vec<String> {
    (config.counters.iter())
        .map(|counter| format!("{counter:?}"))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn whatever_is_found_is_a_valid_configuration_of_all_that_carries_packets(network in any_network()) {
        let found = discover(&network);
        let config = found.config().unwrap();
        prop_assert!(config.interfaces.len() <= 64 && config.thresholds.is_empty());
        prop_assert_eq!(config.counters.len(), 2 * (found.interfaces.len() + found.subnets.len()));
        let marked = parse(&without_marks(&found.text()), Format::Toml);
        if !found.is_empty() {
            prop_assert_eq!(counters(&marked.unwrap()).len(), counters(&config).len());
        }
        // Nothing between the values and the text is lost.
        for (found, read) in found.interfaces.iter().zip(&config.interfaces) {
            let devices: Vec<DevicePattern> = found.devices.iter().cloned().map(DevicePattern::from).collect();
            prop_assert_eq!((&found.name[..], &devices), (read.name.as_str(), &read.devices));
        }
        let now = config.resolved(&Connected::new(&network.links, &network.addresses));
        for (found, read) in found.subnets.iter().zip(&now.subnets) {
            prop_assert_eq!(&found.name[..], read.name.as_str());
            let prefixes = read.addresses.prefixes();
            match &found.follows {
                None => prop_assert_eq!(&found.prefixes[..], prefixes),
                // What it shares with another device it has too.
                Some(_) => prop_assert!(found.prefixes.iter().all(|prefix| prefixes.contains(prefix))),
            }
        }
        // Each device but the loopback device is counted once, or left out with a reason.
        let counted = config.interfaces.iter().map(|interface| interface.devices.len()).sum::<usize>();
        let devices = network.links.iter().filter(|link| !link.loopback).count();
        prop_assert_eq!(counted + found.left_out.len(), devices);
        // No fixed prefix is in two subnets, and all of them are where some address is.
        let prefixes: Vec<IpNet> = config.subnets.iter().flat_map(|s| s.addresses.prefixes().to_vec()).collect();
        prop_assert_eq!(prefixes.iter().collect::<BTreeSet<_>>().len(), prefixes.len());
        let connected: BTreeSet<IpNet> = network.addresses.iter().flat_map(Address::connected).collect();
        prop_assert!(prefixes.iter().all(|prefix| connected.contains(prefix)));
    }
}
