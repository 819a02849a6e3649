//! Random configurations, installed one over the other by the daemon's own code, and random packets: every counter
//! equals naive rules. `FLOWCTL_SEED` repeats a run.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use fastrand::Rng;
use flowctl::config::{Config, Format, parse};
use flowctl::kernel::error::KernelError;
use flowctl::kernel::nftables::Nftables;
use flowctl::lab::{Lab, LabOptions, Namespace, clock};
use flowctl::plan;
use flowctl::plan::ruleset::Ruleset;
use flowctl::units::{TableFamily, Volume};

use crate::exact::OWN;
use crate::naive::{self, Select, Spec};
use crate::support::lab;

/// A time in which a slow machine has dozens of cases too.
const DURATION: Duration = Duration::from_secs(15);
const FEWEST_CASES: u32 = 25;
const PACKETS: usize = 12;
const PORT: u16 = 7777;
/// Names and wildcards that cover them, each other, or nothing.
const DEVICES: [&str; 9] = [
    "wan0", "br-lan", "br-iot", "nope0", "wan*", "br-*", "b*", "br-l*", "nope*",
];
/// Nested, equal, adjacent, at both ends of all addresses, and one host each.
const PREFIXES: [&str; 24] = [
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.77.0.0/16",
    "10.77.0.0/23",
    "10.77.1.0/24",
    "10.77.2.0/24",
    "10.77.1.8/29",
    "10.77.1.11",
    "10.77.1.12",
    "10.77.2.11",
    "198.51.100.0/24",
    "198.51.100.10",
    "128.0.0.0/1",
    "255.255.255.255",
    "::/0",
    "fd00::/8",
    "fd77::/16",
    "fd77:1::/64",
    "fd77:2::/64",
    "fd77:1::11",
    "fd77:1::12",
    "2001:db8::/32",
    "2001:db8:64::10",
    "ffff::/16",
];

/// One to `most` of the pool, now and then one twice.
fn some(random: &mut Rng, pool: &[&str], most: usize) -> Vec<String> {
    let count = random.usize(1..=most);
    (0..count)
        .map(|_| pool[random.usize(..pool.len())].to_owned())
        .collect()
}

fn random_spec(random: &mut Rng) -> Spec {
    let mut spec = Spec::default();
    for name in ["alpha", "beta", "gamma"] {
        let mut devices = some(random, &DEVICES, 3);
        devices.sort();
        devices.dedup();
        spec.interfaces.push((name.into(), devices));
    }
    for at in 0..random.usize(..5) {
        let prefixes = some(random, &PREFIXES, 4);
        spec.subnets.push((format!("net{at}"), prefixes));
    }
    let nets: Vec<String> = spec.subnets.iter().map(|(name, _)| name.clone()).collect();
    let sources: Vec<&str> = PREFIXES
        .into_iter()
        .chain(nets.iter().map(String::as_str))
        .collect();
    for at in 0..random.usize(..12) {
        let mut links = || match random.bool() {
            true => some(random, &["alpha", "beta", "gamma"], 2),
            false => Vec::new(),
        };
        let (mut in_, mut out) = (links(), links());
        for names in [&mut in_, &mut out] {
            names.sort();
            names.dedup();
        }
        let mut addresses = || match random.bool() {
            true => some(random, &sources, 3),
            false => Vec::new(),
        };
        let (from, to) = (addresses(), addresses());
        let select = Select { in_, out, from, to };
        spec.counters.push((format!("extra{at}"), select));
    }
    if random.bool() {
        spec.more = "[thresholds.one]\ncounter = \"alpha_in\"\nraise = \"1Gbit/s\"\n".into();
    }
    spec
}

/// A valid configuration: counters that the configuration refuses (nothing selected, no common family) are left out.
fn valid(random: &mut Rng) -> (Spec, Config) {
    let mut spec = random_spec(random);
    let all = std::mem::take(&mut spec.counters);
    for counter in all {
        spec.counters.push(counter);
        if parse(&spec.toml(), Format::Toml).is_err() {
            spec.counters.pop();
        }
    }
    let config = parse(&spec.toml(), Format::Toml).unwrap();
    (spec, config)
}

/// A socket that sends and receives at one address.
struct Station {
    socket: UdpSocket,
    address: SocketAddr,
}

fn station(namespace: &Namespace, address: IpAddr) -> Station {
    let address = SocketAddr::new(address, PORT);
    let socket = namespace.run(|| UdpSocket::bind(address)).unwrap().unwrap();
    let patience = Some(Duration::from_secs(10));
    socket.set_read_timeout(patience).unwrap();
    Station { socket, address }
}

fn stations(lab: &Lab) -> Vec<Station> {
    let mut all = Vec::new();
    for host in lab.lan.iter().chain(&lab.iot) {
        all.push(station(&host.namespace, host.v4));
        all.push(station(&host.namespace, host.v6));
    }
    for family in crate::exact::BOTH {
        for position in 0..2 {
            let server = lab.server(family, position, 0);
            all.push(station(server.namespace, server.address.ip()));
        }
    }
    all.extend(OWN.map(|address| station(&lab.router, address.parse().unwrap())));
    all
}

/// Sends packets between random stations; each has passed all hooks when it arrives.
fn exchange(random: &mut Rng, stations: &[Station]) -> String {
    let mut told = String::new();
    for _ in 0..PACKETS {
        let from = &stations[random.usize(..stations.len())];
        let peers: Vec<&Station> = stations
            .iter()
            .filter(|to| to.address.is_ipv4() == from.address.is_ipv4())
            .filter(|to| to.address != from.address)
            .collect();
        let to = peers[random.usize(..peers.len())];
        let payload = vec![0; random.usize(1..1200)];
        from.socket.send_to(&payload, to.address).unwrap();
        let (length, _) = to.socket.recv_from(&mut [0; 2000]).unwrap();
        assert_eq!(length, payload.len());
        told += &format!("{} > {}: {length}\n", from.address, to.address);
    }
    told
}

/// Hosts of one bridge would ask for each other aloud; one host a bridge asks nobody.
fn quiet_lab() -> Option<Lab> {
    lab(LabOptions {
        lan_hosts: 1,
        iot_hosts: 1,
        masquerade: false,
        ..LabOptions::default()
    })
}

/// Changes the ruleset in force, as a reload does, or replaces it, whatever it is, as a start does. Returns it.
fn install(
    router: &Namespace,
    before: Option<&Ruleset>,
    config: &Config,
    by_change: bool,
) -> Ruleset {
    let ruleset = plan::compile(config);
    let installed = router.run(|| {
        let mut nftables = Nftables::open()?;
        match before.filter(|_| by_change) {
            Some(before) => {
                let table = nftables.table(TableFamily::Inet, "flowctl")?;
                let changed = nftables.change(before, &ruleset, table.unwrap().handle)?;
                assert!(changed, "the daemon would fall back to replacing");
                Ok::<_, KernelError>(())
            }
            None => nftables.install(&ruleset).map(drop),
        }
    });
    installed.unwrap().unwrap();
    ruleset
}

fn run_case(
    lab: &Lab,
    stations: &[Station],
    random: &mut Rng,
    before: Option<&Ruleset>,
) -> Ruleset {
    let (spec, config) = valid(random);
    let directory = tempfile::tempdir().unwrap();
    naive::load(&lab.router, directory.path(), &spec.naive(&OWN));
    let former = before.map(|_| naive::counters(&lab.router, "flowctl"));
    let ruleset = install(&lab.router, before, &config, random.bool());
    let start = naive::counters(&lab.router, "flowctl");
    for (name, volume) in &start {
        let kept = former.as_ref().and_then(|former| former.get(name));
        let wanted = kept.copied().unwrap_or_default();
        assert_eq!(*volume, wanted, "{name} keeps its value, or is new");
    }
    let told = exchange(random, stations);
    let ours = naive::counters(&lab.router, "flowctl");
    let naive = naive::counters(&lab.router, "naive");
    let names: Vec<&String> = naive.keys().collect();
    assert_eq!(ours.keys().collect::<Vec<_>>(), names, "{}", spec.toml());
    for (name, volume) in &naive {
        let grown: Volume = ours[name].since(start[name]);
        assert_eq!(grown, *volume, "{name} of\n{}with\n{told}", spec.toml());
    }
    ruleset
}

#[test]
fn random_configurations_count_what_naive_rules_count() {
    let Some(lab) = quiet_lab() else { return };
    let seed = std::env::var("FLOWCTL_SEED").map_or(1, |seed| seed.parse().unwrap());
    let stations = stations(&lab);
    let until = clock::uptime().0 + DURATION;
    let mut before = None;
    let mut cases = 0;
    while clock::uptime().0 < until || cases < FEWEST_CASES {
        eprintln!("FLOWCTL_SEED={} case {cases}", seed + u64::from(cases));
        let mut random = Rng::with_seed(seed + u64::from(cases));
        before = Some(run_case(&lab, &stations, &mut random, before.as_ref()));
        cases += 1;
    }
}
