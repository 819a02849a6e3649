//! Which way a packet takes decides whether it arrives, leaves, both or neither: the router's own traffic, looped
//! copies, `lo`, tunnels, port forwards, and what the firewall drops.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use flowctl::lab::link::{Links, NewDevice, Vxlan};
use flowctl::lab::sysctl;
use flowctl::lab::topology::{LAN, UPLINK, WAN};
use flowctl::lab::{Endpoint, Ends, Family, Lab, Namespace, Protocol};
use flowctl::units::Volume;

use crate::exact::{BOTH, OWN, datagrams, masqueraded, of_both, send, udp, volume};
use crate::naive::{Beside, Spec};
use crate::support::{Bench, eventually};

fn ordinary() -> Spec {
    Spec::default()
        .interface("wan", &["wan0"])
        .interface("lan", &["br-lan"])
        .interface("iot", &["br-iot"])
        .subnet("home", &["10.77.1.0/24", "fd77:1::/64"])
        .subnet("uplink", &["203.0.113.0/24", "2001:db8:ffff::/64"])
        .counter("home_up", [&[], &["wan"], &["home"], &[]])
        .counter("home_through", [&["lan"], &["wan"], &[], &[]])
        .counter("wan_to_home", [&["wan"], &[], &[], &["home"]])
}

fn assert_counted(counted: &std::collections::BTreeMap<String, Volume>, wanted: &[(&str, Volume)]) {
    for (name, volume) in counted {
        let expected = wanted.iter().find(|(wanted, _)| wanted == name);
        let expected = expected.map_or_else(Volume::default, |(_, volume)| *volume);
        assert_eq!(*volume, expected, "{name}");
    }
}

/// Sends datagrams of 500 bytes to an address that nobody answers for, from a port of a device.
pub fn shout(namespace: &Namespace, source: &str, to: &str, device: &str, count: u64) {
    let index = Links::open(namespace).unwrap().index(device).unwrap();
    let sent = namespace.run(|| -> std::io::Result<()> {
        let socket = UdpSocket::bind(SocketAddr::new(source.parse().unwrap(), 0))?;
        let mut to = SocketAddr::new(to.parse().unwrap(), 9999);
        if let SocketAddr::V6(six) = &mut to {
            six.set_scope_id(index);
        } else {
            socket.set_broadcast(true)?;
            let from = source.parse::<Ipv4Addr>().unwrap();
            let option = rustix::net::sockopt::set_ip_multicast_if;
            option(&socket, &from)?;
        }
        for _ in 0..count {
            socket.send_to(&[0; 500], to)?;
        }
        Ok(())
    });
    sent.unwrap().unwrap();
}

/// Makes the router a listener, so that its own multicasts loop back to it. It reports its groups at once.
pub fn joined(router: &Namespace) -> [UdpSocket; 2] {
    let interval = format!("ipv4/conf/{LAN}/igmpv3_unsolicited_report_interval");
    sysctl::write(router, &[(&interval, "1")]).unwrap();
    let index = Links::open(router).unwrap().index(LAN).unwrap();
    let joined = router.run(|| -> std::io::Result<[UdpSocket; 2]> {
        let four = UdpSocket::bind("0.0.0.0:9998")?;
        four.join_multicast_v4(&"239.7.7.7".parse().unwrap(), &"10.77.1.1".parse().unwrap())?;
        let six = UdpSocket::bind("[::]:9997")?;
        six.join_multicast_v6(&"ff02::777".parse().unwrap(), index)?;
        Ok([four, six])
    });
    joined.unwrap().unwrap()
}

#[test]
fn broadcasts_and_multicasts_count_once_and_looped_copies_not_at_all() {
    let Some(lab) = masqueraded() else { return };
    let spec = ordinary();
    let _listening = joined(&lab.router);
    let bench = Bench::new(&lab.router, &spec.toml());
    crate::support::pause(std::time::Duration::from_millis(500));
    let beside = Beside::start(&bench, &spec, &OWN);
    let before = beside.agreed();

    shout(&lab.router, "10.77.1.1", "10.77.1.255", LAN, 100);
    shout(&lab.router, "10.77.1.1", "255.255.255.255", LAN, 10);
    shout(&lab.router, "10.77.1.1", "239.7.7.7", LAN, 20);
    shout(&lab.router, "fd77:1::1", "ff02::777", LAN, 30);
    let own = beside.agreed();
    let sent = volume(Family::V4, 130).plus(volume(Family::V6, 30));
    assert_eq!(own["lan_out"].since(before["lan_out"]), sent);
    let to_home = own["home_to"].since(before["home_to"]);
    assert_eq!(
        to_home,
        volume(Family::V4, 100),
        "only 10.77.1.255 is in home"
    );
    assert_eq!(own["lan_in"], before["lan_in"], "looped copies");
    assert_eq!(own["home_from"], before["home_from"], "looped copies");

    let host = &lab.lan[0].namespace;
    shout(host, "10.77.1.11", "10.77.1.255", UPLINK, 40);
    shout(host, "10.77.1.11", "239.7.7.7", UPLINK, 50);
    shout(host, "fd77:1::11", "ff02::777", UPLINK, 60);
    let of_host = beside.agreed();
    let arrived = volume(Family::V4, 90).plus(volume(Family::V6, 60));
    assert_eq!(of_host["lan_in"].since(own["lan_in"]), arrived);
    assert_eq!(of_host["home_from"].since(own["home_from"]), arrived);
    for name in ["lan_out", "home_to", "wan_out", "iot_out"] {
        assert_eq!(of_host[name], own[name], "{name}");
    }
}

fn router(lab: &Lab, address: &str) -> SocketAddr {
    assert!(OWN.contains(&address), "{lab:?}");
    SocketAddr::new(address.parse().unwrap(), 0)
}

#[test]
fn the_routers_own_traffic_leaves_and_what_is_for_it_only_arrives() {
    let Some(lab) = masqueraded() else { return };
    let spec = ordinary();
    let bench = Bench::new(&lab.router, &spec.toml());
    let beside = Beside::start(&bench, &spec, &OWN);
    for (family, inside) in [(Family::V4, "10.77.1.1"), (Family::V6, "fd77:1::1")] {
        let own = Endpoint {
            namespace: &lab.router,
            address: router(&lab, inside),
        };
        let host = lab.lan[0].end(family, 0);
        send(
            &Ends::new(lab.router_end(family, 0), lab.server(family, 0, 0)),
            10,
        );
        send(
            &Ends::new(lab.server(family, 0, 0), lab.router_end(family, 0)),
            20,
        );
        send(&Ends::new(own, host), 30);
        send(&Ends::new(host, own), 40);
        // From inside to the address outside: it arrives by the LAN and goes no further.
        send(&Ends::new(host, lab.router_end(family, 0)), 50);
        // To its own addresses: all of it over lo.
        send(&Ends::new(lab.router_end(family, 0), own), 1000);
        send(&Ends::new(own, own), 1000);
    }
    assert_counted(
        &beside.agreed(),
        &[
            ("wan_out", of_both(10)),
            ("wan_in", of_both(20)),
            ("lan_out", of_both(30)),
            ("home_to", of_both(30)),
            ("lan_in", of_both(90)),
            ("home_from", of_both(90)),
        ],
    );
}

#[test]
fn a_port_forward_is_seen_with_inside_addresses_both_ways() {
    let Some(lab) = masqueraded() else { return };
    let spec = ordinary();
    let bench = Bench::new(&lab.router, &spec.toml());
    let beside = Beside::start(&bench, &spec, &OWN);
    for family in BOTH {
        let inside = lab.lan[1].end(family, 53);
        let outside = SocketAddr::new(lab.wan_address(family), 5353);
        let mut firewall = lab.firewall().unwrap();
        firewall
            .forward_port(WAN, Protocol::Udp, outside, inside.address)
            .unwrap();
        let ends = Ends {
            through: Some(outside),
            ..Ends::new(lab.server(family, 5, 0), inside)
        };
        let mut load = datagrams(70);
        load.direction = flowctl::lab::Direction::Exchange { reply: 500 };
        assert_eq!(udp(&ends, &load).down.received.packets, 70);
    }
    let all = of_both(70);
    assert_counted(
        &beside.agreed(),
        &[
            ("wan_in", all),
            ("lan_out", all),
            ("home_to", all),
            ("wan_to_home", all),
            ("lan_in", all),
            ("home_from", all),
            ("wan_out", all),
            ("home_up", all),
            ("home_through", all),
        ],
    );
}

#[test]
fn what_the_firewall_drops_has_arrived_and_has_not_left() {
    let Some(lab) = masqueraded() else { return };
    let spec = ordinary();
    let bench = Bench::new(&lab.router, &spec.toml());
    let beside = Beside::start(&bench, &spec, &OWN);
    for family in BOTH {
        let ends = Ends::new(lab.lan[0].end(family, 0), lab.server(family, 4, 9000));
        let mut firewall = lab.firewall().unwrap();
        let source = ends.client.address.ip();
        firewall
            .drop_flow(Protocol::Udp, source, ends.server.address)
            .unwrap();
        assert_eq!(udp(&ends, &datagrams(80)).up.received.packets, 0);
        let free = Ends::new(lab.lan[1].end(family, 0), lab.server(family, 4, 9000));
        send(&free, 5);
    }
    assert_counted(
        &beside.agreed(),
        &[
            ("lan_in", of_both(85)),
            ("home_from", of_both(85)),
            ("wan_out", of_both(5)),
            ("home_up", of_both(5)),
            ("home_through", of_both(5)),
        ],
    );
}

const NEAR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const FAR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// Outer IPv4, UDP, VXLAN and the inner Ethernet header.
const TUNNEL_HEADERS: u64 = 20 + 8 + 8 + 14;

/// One end of a tunnel between the router and the internet.
fn tunnel_end(
    namespace: &Namespace,
    outer: [&str; 2],
    inner: [&str; 2],
    far: [&str; 2],
    near: bool,
) {
    let (own, other) = if near {
        (NEAR_MAC, FAR_MAC)
    } else {
        (FAR_MAC, NEAR_MAC)
    };
    let mut links = Links::open(namespace).unwrap();
    let device = NewDevice {
        name: "vx0",
        mac: Some(own),
        merge: false,
    };
    let vxlan = Vxlan {
        id: 7,
        local: outer[0].parse().unwrap(),
        remote: outer[1].parse().unwrap(),
        port: 4789,
    };
    links.add_vxlan(device, vxlan).unwrap();
    links.up("vx0").unwrap();
    for address in inner {
        links.add_address("vx0", address.parse().unwrap()).unwrap();
    }
    for address in far {
        let address: IpAddr = address.parse().unwrap();
        links.add_neighbour("vx0", address, other).unwrap();
    }
}

fn tunnel(lab: &Lab) {
    let (ours, theirs) = ("203.0.113.2", "203.0.113.1");
    let near = ["192.0.2.1/24", "2001:db8:7::1/64"];
    let far = ["192.0.2.2/24", "2001:db8:7::2/64"];
    let address = |end: &'static str| end.split_once('/').unwrap().0;
    tunnel_end(&lab.router, [ours, theirs], near, far.map(address), true);
    tunnel_end(&lab.internet, [theirs, ours], far, near.map(address), false);
    // Only what the second host asks for comes back by the tunnel.
    let mut links = Links::open(&lab.internet).unwrap();
    for (host, gateway) in [(lab.lan[1].v4, near[0]), (lab.lan[1].v6, near[1])] {
        links
            .add_route(host.into(), address(gateway).parse().unwrap())
            .unwrap();
    }
    for at in 0..2 {
        let (near, far) = (address(near[at]), address(far[at]));
        for (namespace, from, to) in [(&lab.router, near, far), (&lab.internet, far, near)] {
            eventually("the tunnel has its addresses and routes", || {
                let reached = || UdpSocket::bind((from, 0))?.connect((to, 9));
                namespace.run(reached).unwrap().ok()
            });
        }
    }
}

#[test]
fn a_tunnel_counts_inside_and_its_carrier_outside_and_no_packet_is_both() {
    let Some(lab) = masqueraded() else { return };
    tunnel(&lab);
    crate::support::pause(std::time::Duration::from_millis(500));
    let spec = ordinary()
        .interface("tunnel", &["vx0"])
        .subnet("behind", &["192.0.2.0/24", "2001:db8:7::/64"])
        .counter(
            "lan_or_tunnel_to_wan",
            [&["lan", "tunnel"], &["wan"], &[], &[]],
        )
        .counter("lan_to_tunnel", [&["lan"], &["tunnel"], &[], &["behind"]])
        .counter("tunnel_to_lan", [&["tunnel"], &["lan"], &[], &["home"]])
        .counter("wan_to_lan", [&["wan"], &["lan"], &[], &[]]);
    let own: Vec<&str> = OWN
        .into_iter()
        .chain(["192.0.2.1", "2001:db8:7::1"])
        .collect();
    let bench = Bench::new(&lab.router, &spec.toml());
    let beside = Beside::start(&bench, &spec, &own);
    let carried = |inner: Volume| Volume {
        bytes: inner.bytes + inner.packets * TUNNEL_HEADERS,
        packets: inner.packets,
    };
    for (family, far) in [(Family::V4, "192.0.2.2"), (Family::V6, "2001:db8:7::2")] {
        let server = Endpoint {
            namespace: &lab.internet,
            address: SocketAddr::new(far.parse().unwrap(), 0),
        };
        let mut load = datagrams(90);
        load.direction = flowctl::lab::Direction::Exchange { reply: 500 };
        let exchange = Ends::new(lab.lan[1].end(family, 0), server);
        assert_eq!(udp(&exchange, &load).down.received.packets, 90);
        let near = if family == Family::V4 {
            "192.0.2.1"
        } else {
            "2001:db8:7::1"
        };
        let own = Endpoint {
            namespace: &lab.router,
            address: SocketAddr::new(near.parse().unwrap(), 0),
        };
        send(&Ends::new(own, server), 15);
    }
    assert_counted(
        &beside.agreed(),
        &[
            ("lan_in", of_both(90)),
            ("home_from", of_both(90)),
            ("tunnel_out", of_both(105)),
            ("behind_to", of_both(105)),
            ("lan_to_tunnel", of_both(90)),
            ("wan_out", carried(of_both(105))),
            ("uplink_from", carried(of_both(90))),
            ("uplink_to", carried(of_both(105))),
            ("wan_in", carried(of_both(90))),
            ("tunnel_in", of_both(90)),
            ("behind_from", of_both(90)),
            ("lan_out", of_both(90)),
            ("home_to", of_both(90)),
            ("tunnel_to_lan", of_both(90)),
        ],
    );
}

/// Tells two hosts of the LAN each other's hardware address, so that nobody has to ask for it aloud.
pub fn acquaint(lab: &Lab) {
    for (host, other, number) in [(0, 1, 12), (1, 0, 11)] {
        let mut links = Links::open(&lab.lan[host].namespace).unwrap();
        for address in [lab.lan[other].v4, lab.lan[other].v6] {
            let mac = [2, 0x77, 0, 0, 1, number];
            links.add_neighbour(UPLINK, address, mac).unwrap();
        }
    }
}

#[test]
fn hosts_of_one_bridge_are_not_seen_and_those_of_two_are() {
    let Some(lab) = masqueraded() else { return };
    acquaint(&lab);
    let spec = ordinary();
    let bench = Bench::new(&lab.router, &spec.toml());
    let beside = Beside::start(&bench, &spec, &OWN);
    for family in BOTH {
        let host = lab.lan[0].end(family, 0);
        send(&Ends::new(host, lab.lan[1].end(family, 0)), 1000);
        send(&Ends::new(host, lab.iot[0].end(family, 0)), 25);
    }
    assert_counted(
        &beside.agreed(),
        &[
            ("lan_in", of_both(25)),
            ("home_from", of_both(25)),
            ("iot_out", of_both(25)),
        ],
    );
}
