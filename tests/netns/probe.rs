//! The temporary rules of a drilldown on the real kernel, beside what was really sent: what they count is what no flow
//! explains, to the byte.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use flowctl::config::{Config, Format, parse};
use flowctl::kernel::flows::Flows;
use flowctl::kernel::nftables::Nftables;
use flowctl::kernel::probe::Probe;
use flowctl::lab::topology::{LAN, UPLINK};
use flowctl::lab::{
    Direction, Endpoint, Ends, Family, Generator, LabOptions, Namespace, Protocol, TcpLoad, sysctl,
};
use flowctl::plan::{self, missed::Missed};
use flowctl::units::{BitRate, Volume};

use crate::exact::{BOTH, datagrams, masqueraded, of_both, send, udp, volume};
use crate::naive;
use crate::paths::{acquaint, joined, shout};
use crate::support::{lab, nft_in, pause};

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

/// The rules of a drilldown on each counter of a router, beside the counters.
struct Scene<'a> {
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

    /// What the counter itself says, at this moment.
    fn counted_now(&self, counter: &str) -> Volume {
        naive::counters(self.router, "flowctl")[counter]
    }

    /// The same, once nothing moves any more.
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
pub fn throw(namespace: &Namespace, from: IpAddr, to: SocketAddr, count: u64) {
    let thrown = namespace.run(|| -> std::io::Result<()> {
        let socket = UdpSocket::bind(SocketAddr::new(from, 0))?;
        (0..count).try_for_each(|_| socket.send_to(&[0; 500], to).map(drop))
    });
    thrown.unwrap().unwrap();
}

/// So many flows of one datagram, all of which arrive.
pub fn flows_of_one(client: Endpoint<'_>, server: Endpoint<'_>, count: u64) {
    let received = server.namespace.run(|| UdpSocket::bind(server.address));
    let received = received.unwrap().unwrap();
    let patience = Some(Duration::from_secs(5));
    received.set_read_timeout(patience).unwrap();
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

fn firewall(hook: &str, priority: i32, rules: &str) -> String {
    format!(
        "table inet fw {{ chain {hook} {{ type filter hook {hook} priority {priority}; {rules} }}; }}"
    )
}

#[test]
fn what_is_not_tracked_is_counted_on_both_sides_whether_it_is_dropped_or_not() {
    let Some(lab) = masqueraded() else { return };
    let mut scene = Scene::new(&lab.router);
    let aside = firewall("prerouting", -300, "udp dport { 7000, 7001 } notrack;");
    nft(&lab.router, &aside);
    let drops = "table inet fw { chain forward { type filter hook forward priority 0; udp dport 7001 drop; }; }";
    nft(&lab.router, drops);
    for family in BOTH {
        let (host, other) = (lab.lan[0].end(family, 0), lab.lan[1].end(family, 0));
        send(&Ends::new(host, lab.iot[0].end(family, 7000)), 40);
        let to = lab.server(family, 1, 7001).address;
        throw(other.namespace, other.address.ip(), to, 70);
        send(&Ends::new(host, lab.server(family, 1, 8000)), 10);
        // What is not tracked is not masqueraded, and a server has no way to answer it.
        send(&Ends::new(host, lab.server(family, 1, 7000)), 20);
    }
    let of = |host: usize, packets: u64| {
        let of = |family| {
            (
                lab.lan[host].end(family, 0).address.ip(),
                volume(family, packets),
            )
        };
        [of(Family::V6), of(Family::V4)]
    };
    let untracked = |untracked, sources: &[(IpAddr, Volume)]| Missed {
        untracked,
        sources: sources.to_vec(),
        ..Missed::default()
    };
    let arrived = untracked(of_both(130), &[of(1, 70), of(0, 60)].concat());
    let left = untracked(of_both(20), &of(0, 20));
    scene.assert_missed(&[
        ("lan_in", arrived.clone()),
        ("home_from", arrived.clone()),
        ("home_by_lan", arrived),
        ("wan_out", left.clone()),
        ("up", left.clone()),
        ("through", left),
        ("things_to", untracked(of_both(40), &of(0, 40))),
    ]);
    assert_eq!(scene.counted("lan_in"), of_both(140));
}

/// ICMP errors as fast as they come.
fn let_errors_flow(namespace: &Namespace) {
    let masks = [("ipv4/icmp_ratemask", "0"), ("ipv6/icmp/ratelimit", "0")];
    sysctl::write(namespace, &masks).unwrap();
}

/// What an error about a datagram of 500 bytes has: the datagram's first bytes, as far as they may be sent.
fn errors(family: Family, count: u64) -> Volume {
    let whole = volume(family, 1).bytes;
    let bytes = match family {
        Family::V4 => 20 + 8 + whole.min(548),
        Family::V6 => 40 + 8 + whole.min(1232),
    };
    Volume {
        bytes: count * bytes,
        packets: count,
    }
}

fn icmp_error(icmp_error: Volume) -> Missed {
    Missed {
        icmp_error,
        ..Missed::default()
    }
}

#[test]
fn errors_about_a_flow_are_not_in_it_and_are_counted_where_they_arrive_and_leave() {
    let Some(lab) = masqueraded() else { return };
    let mut scene = Scene::new(&lab.router);
    let_errors_flow(&lab.internet);
    for family in BOTH {
        let host = lab.lan[0].end(family, 0);
        let closed = lab.server(family, 3, 6000).address;
        throw(host.namespace, host.address.ip(), closed, 25);
        flows_of_one(host, lab.server(family, 3, 0), 5);
    }
    let told = errors(Family::V4, 25).plus(errors(Family::V6, 25));
    assert_eq!(scene.counted("wan_in"), told);
    assert_eq!(scene.counted("lan_out"), told);
    let told = icmp_error(told);
    let names = ["wan_in", "lan_out", "home_to"];
    scene.assert_missed(&names.map(|name| (name, told.clone())));
}

#[test]
fn what_a_firewall_rejects_is_dropped_and_its_answers_are_in_no_flow() {
    let Some(lab) = masqueraded() else { return };
    let mut scene = Scene::new(&lab.router);
    let_errors_flow(&lab.router);
    let rules = "udp dport 6000 reject; tcp dport 6000 reject with tcp reset;";
    nft(&lab.router, &firewall("forward", 0, rules));
    let mut answers = Volume::default();
    for family in BOTH {
        let host = lab.lan[0].end(family, 0);
        let closed = lab.server(family, 3, 6000).address;
        throw(host.namespace, host.address.ip(), closed, 25);
        answers = answers.plus(errors(family, 25));
        for _ in 0..10 {
            let opened = host.namespace.run(|| TcpStream::connect(closed));
            let error = opened.unwrap().unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
        }
        // A reset without options.
        let reset = if family == Family::V4 { 40 } else { 60 };
        answers = answers.plus(Volume {
            bytes: 10 * reset,
            packets: 10,
        });
        send(&Ends::new(host, lab.server(family, 3, 6001)), 10);
    }
    assert_eq!(scene.counted("lan_out"), answers);
    let told = icmp_error(answers);
    // 10 more each were let through.
    let rejected = scene.counted("lan_in").since(of_both(10));
    assert_eq!(rejected.packets, 70);
    let missed = scene.missed("lan_in");
    assert_eq!(missed.unconfirmed, rejected);
    let dropped = unconfirmed(rejected, &missed.sources);
    scene.assert_missed(&[
        ("lan_in", dropped.clone()),
        ("home_from", dropped.clone()),
        ("home_by_lan", dropped),
        ("lan_out", told.clone()),
        ("home_to", told),
    ]);
}

#[test]
fn copies_that_loop_back_are_none_of_a_hosts_and_a_hosts_own_are_dropped_where_nobody_listens() {
    let Some(lab) = masqueraded() else { return };
    let _listening = joined(&lab.router);
    pause(Duration::from_millis(500));
    let mut scene = Scene::new(&lab.router);
    let copies = || {
        shout(&lab.router, "10.77.1.1", "10.77.1.255", LAN, 100);
        shout(&lab.router, "10.77.1.1", "239.7.7.7", LAN, 20);
        shout(&lab.router, "fd77:1::1", "ff02::777", LAN, 30);
    };
    copies();
    assert_eq!(scene.counted("lan_out").packets, 150);
    scene.assert_missed(&[]);
    // What is not tracked leaves once.
    nft(
        &lab.router,
        &firewall("output", -300, "udp dport 9999 notrack;"),
    );
    copies();
    let left = scene.missed("lan_out");
    assert_eq!(left.untracked.packets, 150);
    for arrived in ["lan_in", "home_from"] {
        assert_eq!(scene.missed(arrived), Missed::default(), "{arrived}");
    }
    nft(&lab.router, "delete table inet fw");
    let host = &lab.lan[0];
    shout(&host.namespace, "10.77.1.11", "10.77.1.255", UPLINK, 40);
    shout(&host.namespace, "10.77.1.11", "239.9.9.9", UPLINK, 50);
    shout(&host.namespace, "fd77:1::11", "ff02::777", UPLINK, 60);
    assert_eq!(scene.counted("lan_in").packets, 150);
    // Of a multicast group that nobody has joined.
    let dropped = volume(Family::V4, 50);
    let dropped = unconfirmed(dropped, &[(host.v4, dropped)]);
    for name in ["lan_in", "home_from", "home_by_lan"] {
        assert_eq!(scene.missed(name), dropped, "{name}");
    }
}

#[test]
fn what_the_router_tells_itself_is_none_of_a_hosts() {
    let Some(lab) = masqueraded() else { return };
    let mut scene = Scene::new(&lab.router);
    let_errors_flow(&lab.router);
    let nobody = "[fd77:1::1]:6000".parse().unwrap();
    throw(&lab.router, "fd77:1::1".parse().unwrap(), nobody, 10);
    let nobody = "10.77.1.1:6000".parse().unwrap();
    throw(&lab.router, "10.77.1.1".parse().unwrap(), nobody, 10);
    scene.assert_missed(&[]);
    // To a host, the same are told.
    throw(&lab.lan[0].namespace, lab.lan[0].v4, nobody, 10);
    let told = icmp_error(errors(Family::V4, 10));
    scene.assert_missed(&[("lan_out", told.clone()), ("home_to", told)]);
}

#[test]
fn bridged_frames_that_pass_the_hooks_are_not_dropped() {
    // Not every kernel has br_netfilter.
    if !std::path::Path::new("/proc/sys/net/bridge/bridge-nf-call-iptables").exists() {
        return;
    }
    let options = LabOptions {
        bridge_nf: true,
        merge: false,
        ..LabOptions::default()
    };
    let Some(lab) = lab(options) else { return };
    acquaint(&lab);
    let mut scene = Scene::new(&lab.router);
    for family in BOTH {
        let (client, server) = (lab.lan[0].end(family, 0), lab.lan[1].end(family, 0));
        flows_of_one(client, server, 30);
    }
    assert_eq!(scene.counted("lan_in"), of_both(30));
    scene.assert_missed(&[]);
}

#[test]
fn what_conntrack_judges_invalid_is_counted() {
    let options = LabOptions {
        masquerade: false,
        conntrack: None,
        merge: false,
        ..LabOptions::default()
    };
    let Some(lab) = lab(options) else { return };
    nft(&lab.router, &firewall("forward", 0, "ct state new accept;"));
    let strict = [("netfilter/nf_conntrack_tcp_loose", "0")];
    sysctl::write(&lab.router, &strict).unwrap();
    nft(&lab.router, "delete table inet fw");
    let load = TcpLoad {
        direction: Direction::Upload,
        rate: Some(BitRate(2e6)),
        bytes: u64::MAX,
        longest: Duration::from_secs(60),
    };
    let ends = Ends::new(lab.lan[0].end(Family::V4, 0), lab.server(Family::V4, 0, 0));
    // Conntrack is strict and did not see its beginning.
    let upload = Generator::tcp("strange", &ends, &load).unwrap();
    let mut scene = Scene::new(&lab.router);
    let before = scene.counted_now("lan_in");
    pause(Duration::from_millis(500));
    upload.stop();
    upload.finish().unwrap();
    let after = scene.counted("lan_in");
    let missed = scene.missed("lan_in");
    let untracked = missed.untracked;
    // The counter was there a moment earlier.
    let counted = (after.since(before).bytes, after.bytes);
    assert!(counted.0 > 10_000, "{counted:?}");
    assert!(
        (counted.0..=counted.1).contains(&untracked.bytes),
        "{missed:?} {counted:?}"
    );
    assert_eq!(missed.sources, [(lab.lan[0].v4, untracked)]);
}

/// What the flows of hosts in the LAN moved outwards.
fn explained(router: &Namespace) -> Volume {
    let home = |address: IpAddr| match address {
        IpAddr::V4(four) => four.octets()[..3] == [10, 77, 1],
        IpAddr::V6(six) => six.segments()[..2] == [0xfd77, 1],
    };
    let mut flows = router.run(Flows::open).unwrap().unwrap();
    let mut by_tuple = BTreeMap::new();
    let dumped = flows.dump(
        |flow| {
            if home(flow.original.source) {
                by_tuple.insert(flow.original, flow.original_volume.unwrap());
            }
        },
        || {},
    );
    dumped.unwrap();
    by_tuple.into_values().fold(Volume::default(), Volume::plus)
}

#[test]
fn flows_and_what_was_missed_are_what_was_counted_whatever_comes() {
    for seed in 0..4 {
        let Some(lab) = masqueraded() else { return };
        let mut scene = Scene::new(&lab.router);
        nft(
            &lab.router,
            &firewall("prerouting", -300, "udp dport 7000 notrack;"),
        );
        nft(&lab.router, &firewall("input", 0, "udp dport 7001 drop;"));
        let forward = "udp dport 7002 drop; udp dport 7003 reject; ct state new limit rate over 3/second drop;";
        nft(&lab.router, &firewall("forward", 0, forward));
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..40 {
            let family = *random.choice(&BOTH).unwrap();
            let host = random.choice(&lab.lan).unwrap();
            let own = SocketAddr::new(lab.wan_address(family), 0);
            let server = lab.server(family, random.u8(0..9), 0).address;
            let mut to = *random.choice(&[own, server, server]).unwrap();
            to.set_port(random.u16(6999..7005));
            let from = host.end(family, 0).address.ip();
            throw(&host.namespace, from, to, random.u64(1..30));
        }
        let counted = scene.counted("home_from");
        let missed = scene.missed("home_from");
        let explained = explained(&lab.router);
        let parts = [missed.untracked, missed.unconfirmed, missed.icmp_error];
        let sum = parts.into_iter().fold(explained, Volume::plus);
        assert_eq!(sum, counted, "seed {seed}: {explained:?} {missed:?}");
        let sources = missed.sources.iter().map(|(_, volume)| *volume);
        let by_source = sources.fold(Volume::default(), Volume::plus);
        assert_eq!(
            by_source,
            missed.untracked.plus(missed.unconfirmed),
            "seed {seed}"
        );
        let nothing = Volume::default();
        assert!(
            missed.untracked != nothing && missed.unconfirmed != nothing && explained != nothing
        );
    }
}

/// Packets that a reading may find between the two places where they count, at the same moment.
const ON_THEIR_WAY: u64 = 2;

#[test]
fn a_reading_while_flows_come_takes_none_of_them_for_dropped() {
    let Some(lab) = masqueraded() else { return };
    let mut scene = Scene::new(&lab.router);
    let (client, server) = (lab.lan[0].end(Family::V4, 0), lab.server(Family::V4, 0, 0));
    let readings = thread::scope(|scope| {
        let flows = scope.spawn(|| flows_of_one(client, server, 5000));
        let mut readings = Vec::new();
        while !flows.is_finished() {
            readings.push(scene.missed("lan_in"));
        }
        flows.join().unwrap();
        readings
    });
    assert!(readings.len() > 100, "{}", readings.len());
    for missed in readings {
        assert!(missed.unconfirmed.packets <= ON_THEIR_WAY, "{missed:?}");
        let by_source = missed.sources.iter().map(|(_, volume)| volume.packets);
        assert!(by_source.sum::<u64>() <= ON_THEIR_WAY, "{missed:?}");
    }
    assert_eq!(scene.counted("lan_in").packets, 5000);
    scene.assert_missed(&[]);
}
