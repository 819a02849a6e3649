//! The temporary rules of a drilldown on the real kernel, beside what was really sent: what they count is what no flow
//! explains, to the byte.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use flowctl::config::{Config, Format, parse};
use flowctl::kernel::nftables::Nftables;
use flowctl::kernel::probe::Probe;
use flowctl::lab::{Endpoint, Ends, Family, Namespace, Protocol};
use flowctl::plan::{self, missed::Missed};
use flowctl::units::Volume;

use crate::exact::{datagrams, masqueraded, of_both, send, udp, volume};
use crate::naive;
use crate::support::nft_in;

const CONFIG: &str = r#"
[interfaces.wan]
device = "wan*"
[interfaces.lan]
device = "br-lan"
[subnets]
home = ["10.77.1.0/24", "fd77:1::/64"]
things = ["10.77.2.0/24", "fd77:2::/64"]
[counters.home_by_lan]
in = "lan"
from = "home"
[counters.up]
from = "home"
out = "wan"
[counters.through]
in = "lan"
out = "wan"
"#;

/// A drilldown on each counter of a router, beside the counters.
pub struct Scene<'a> {
    router: &'a Namespace,
    config: Config,
    probe: Probe,
}

impl<'a> Scene<'a> {
    fn new(router: &'a Namespace) -> Self {
        Scene::with(router, CONFIG)
    }

    fn with(router: &'a Namespace, text: &str) -> Self {
        let config = parse(text, Format::Toml).unwrap();
        let ruleset = plan::compile(&config);
        let installed = router.run(|| Nftables::open()?.install(&ruleset));
        installed.unwrap().unwrap();
        let mut probe = open(router).unwrap();
        for (number, counter) in config.counters.iter().enumerate() {
            probe
                .watch(number as u32, &counter.selectors, &config)
                .unwrap();
        }
        Scene {
            router,
            config,
            probe,
        }
    }

    fn number(&self, counter: &str) -> u32 {
        let mut counters = self.config.counters.iter();
        counters
            .position(|known| known.name.as_str() == counter)
            .unwrap() as u32
    }

    fn missed(&mut self, counter: &str) -> Missed {
        let number = self.number(counter);
        self.probe.read(number).unwrap()
    }

    /// What the counter itself says.
    fn counted(&self, counter: &str) -> Volume {
        naive::settled(self.router, "flowctl")[counter]
    }

    /// Asserts that those of these counters missed that, by those sources, and that all others missed nothing.
    fn assert_missed(&mut self, wanted: &[(&str, Missed)]) {
        let names: Vec<String> = (self.config.counters.iter())
            .map(|counter| counter.name.to_string())
            .collect();
        for name in names {
            let wanted = wanted.iter().find(|(wanted, _)| *wanted == name);
            let wanted = wanted.map(|(_, missed)| missed.clone()).unwrap_or_default();
            assert_eq!(self.missed(&name), wanted, "{name}");
        }
    }
}

fn open(namespace: &Namespace) -> Option<Probe> {
    namespace.run(|| Probe::open("flowctl")).unwrap().unwrap()
}

fn nft(namespace: &Namespace, text: &str) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("rules.nft");
    std::fs::write(&file, text).unwrap();
    nft_in(namespace, &["-f", file.to_str().unwrap()]);
}

fn unconfirmed(unconfirmed: Volume, sources: &[(IpAddr, Volume)]) -> Missed {
    Missed {
        unconfirmed,
        sources: sources.to_vec(),
        ..Missed::default()
    }
}

/// Datagrams of 500 bytes to whoever listens there or not.
fn throw(namespace: &Namespace, from: IpAddr, to: SocketAddr, count: u64) {
    let thrown = namespace.run(|| -> std::io::Result<()> {
        let socket = UdpSocket::bind(SocketAddr::new(from, 0))?;
        (0..count).try_for_each(|_| socket.send_to(&[0; 500], to).map(drop))
    });
    thrown.unwrap().unwrap();
}

/// So many flows of one datagram, all of which arrive.
fn flows_of_one(client: Endpoint<'_>, server: Endpoint<'_>, count: u64) {
    let received = server.namespace.run(|| UdpSocket::bind(server.address));
    let received = received.unwrap().unwrap();
    for _ in 0..count {
        throw(
            client.namespace,
            client.address.ip(),
            received.local_addr().unwrap(),
            1,
        );
        received.recv(&mut [0; 1500]).unwrap();
    }
}

#[test]
fn what_the_firewall_drops_is_counted_and_what_it_lets_through_is_not() {
    let Some(lab) = masqueraded() else { return };
    let mut scene = Scene::new(&lab.router);
    nft(
        &lab.router,
        "table inet fw { chain input { type filter hook input priority 0; udp dport 9999 drop; }; }",
    );
    let (dropped, refused) = (of_both(80), of_both(30));
    for (family, inside) in [(Family::V4, "10.77.1.1"), (Family::V6, "fd77:1::1")] {
        let ends = Ends::new(lab.lan[0].end(family, 0), lab.server(family, 4, 9000));
        let mut firewall = lab.firewall().unwrap();
        let source = ends.client.address.ip();
        let stopped = firewall.drop_flow(Protocol::Udp, source, ends.server.address);
        stopped.unwrap();
        assert_eq!(udp(&ends, &datagrams(80)).up.received.packets, 0);
        // To the router itself, for which the other chain is.
        let router = SocketAddr::new(inside.parse().unwrap(), 9999);
        let host = &lab.lan[1];
        throw(
            &host.namespace,
            host.end(family, 0).address.ip(),
            router,
            30,
        );
        // Through it and to it: one flow of many packets, and many of one.
        let free = lab.lan[2].end(family, 0);
        send(&Ends::new(free, lab.server(family, 4, 9000)), 50);
        flows_of_one(free, lab.server(family, 5, 0), 60);
        let own = Endpoint {
            namespace: &lab.router,
            address: SocketAddr::new(router.ip(), 0),
        };
        flows_of_one(free, own, 60);
    }
    assert_eq!(scene.counted("lan_in"), of_both(80 + 30 + 50 + 60 + 60));
    let sources = |family, bytes: Volume, host: usize| {
        let address = lab.lan[host].end(family, 0).address.ip();
        (address, bytes)
    };
    let missed = unconfirmed(
        dropped.plus(refused),
        &[
            sources(Family::V6, volume(Family::V6, 80), 0),
            sources(Family::V4, volume(Family::V4, 80), 0),
            sources(Family::V6, volume(Family::V6, 30), 1),
            sources(Family::V4, volume(Family::V4, 30), 1),
        ],
    );
    let of_lan = ["lan_in", "home_from", "home_by_lan"];
    scene.assert_missed(&of_lan.map(|name| (name, missed.clone())));
}
