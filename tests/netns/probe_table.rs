//! The table of the temporary rules: whose it is, when it goes, how it lists, and what it does to its neighbours.

use std::collections::BTreeSet;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use flowctl::config::{Config, Format, parse};
use flowctl::kernel::error::KernelError;
use flowctl::kernel::nft::message;
use flowctl::kernel::probe::Probe;
use flowctl::lab::{Family, Lab, LabOptions, Namespace};
use flowctl::plan::missed::Missed;
use flowctl::plan::probe::{SOURCES_MAX, WATCHES_MAX};
use flowctl::units::Volume;
use rustix::net::{
    AddressFamily, Protocol, SendFlags, SocketFlags, SocketType, sendto, socket_with,
};

use crate::exact::{masqueraded, volume};
use crate::listing::{assert_equal, assert_same, listed, on_the_wire, reloaded};
use crate::support::{Bench, eventually, gaps, lab, namespace, nft_in, run_in, stream};

const TABLE: &str = "flowctl_drilldown";
/// Every kind of scope: devices, wildcards, prefixes of one family and of both, where packets arrive and leave.
const CONFIG: &str = r#"
[interfaces.wan]
device = ["ppp*", "wan0"]
[interfaces.lan]
device = "br-lan"
[subnets]
home = ["10.77.1.0/24", "10.77.2.0/24", "fd77:1::/64"]
servers = ["255.255.255.0/24"]
[counters.home_by_wan]
in = ["wan", "lan"]
from = "home"
[counters.up]
from = "home"
out = "wan"
[counters.through]
in = "lan"
out = "lan"
to = "servers"
"#;

fn config() -> Config {
    parse(CONFIG, Format::Toml).unwrap()
}

fn open(namespace: &Namespace) -> Option<Probe> {
    match namespace.run(|| Probe::open("flowctl")).unwrap() {
        Err(KernelError::ForeignTable { name }) => {
            assert_eq!(name, TABLE);
            None
        }
        opened => opened.unwrap(),
    }
}

fn watch(probe: &mut Probe, number: u32, counter: &str) {
    let config = config();
    let mut counters = config.counters.iter();
    let counter = counters
        .find(|known| known.name.as_str() == counter)
        .unwrap();
    probe.watch(number, &counter.selectors, &config).unwrap();
}

/// With a watch on each kind of scope.
fn full(namespace: &Namespace) -> Probe {
    let mut probe = open(namespace).unwrap();
    for (number, counter) in ["wan_in", "lan_in", "home_from", "home_by_wan"]
        .iter()
        .enumerate()
    {
        watch(&mut probe, number as u32, counter);
    }
    for (number, counter) in ["wan_out", "home_to", "up", "through"].iter().enumerate() {
        watch(&mut probe, number as u32 + 10, counter);
    }
    probe
}

fn ruleset(namespace: &Namespace) -> String {
    nft_in(namespace, &["list", "ruleset"])
}

/// What nft prints of an owned table besides.
fn without_owner(listing: &str) -> String {
    let lines = listing.lines().filter(|line| *line != "\tflags owner");
    let lines: Vec<&str> = lines
        .map(|line| line.split(" # progname").next().unwrap())
        .collect();
    lines.join("\n") + "\n"
}

#[test]
fn it_is_there_while_something_is_watched_and_goes_with_its_socket() {
    let Some(namespace) = namespace() else { return };
    let mut probe = open(&namespace).unwrap();
    assert_eq!(ruleset(&namespace), "");
    watch(&mut probe, 7, "wan_in");
    watch(&mut probe, 8, "up");
    assert!(ruleset(&namespace).contains("flags owner"));
    probe.forget(7).unwrap();
    let rest = ruleset(&namespace);
    assert!(
        !rest.contains("_7") && rest.contains("untracked_8"),
        "{rest}"
    );
    probe.forget(8).unwrap();
    assert_eq!(ruleset(&namespace), "");
    watch(&mut probe, 9, "lan_in");
    assert_ne!(ruleset(&namespace), "");
    drop(probe);
    assert_eq!(ruleset(&namespace), "");
}

/// Set where this program is only to own a table until it is killed.
const OWNER: &str = "FLOWCTL_TEST_OWNER";

#[test]
fn it_goes_when_its_process_is_killed() {
    if std::env::var_os(OWNER).is_some() {
        let mut probe = Probe::open("flowctl").unwrap().unwrap();
        watch(&mut probe, 1, "wan_in");
        std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
        return;
    }
    let Some(namespace) = namespace() else { return };
    let mut owner = Command::new(std::env::current_exe().unwrap());
    let own_name = "probe_table::it_goes_when_its_process_is_killed";
    owner.args(["--exact", own_name]).env(OWNER, "1");
    owner.stdin(Stdio::piped()).stdout(Stdio::null());
    let mut owner = namespace.run(|| owner.spawn()).unwrap().unwrap();
    eventually("the other process owns the table", || {
        ruleset(&namespace).contains("unconfirmed_1").then_some(())
    });
    assert!(open(&namespace).is_none(), "there is one already");
    owner.kill().unwrap();
    owner.wait().unwrap();
    assert_eq!(ruleset(&namespace), "");
}

#[test]
fn nobody_else_can_change_it_and_a_flush_passes_it_by() {
    let Some(lab) = masqueraded() else { return };
    let router = &lab.router;
    let mut probe = full(router);
    let before = without_owner(&listed(router));
    nft_in(router, &["flush", "ruleset"]);
    for refused in [
        &["delete", "table", "inet", TABLE][..],
        &["flush", "chain", "inet", TABLE, "ingress"],
        &["add", "table", "inet", TABLE],
    ] {
        let mut nft = Command::new("nft");
        nft.args(refused);
        let said = run_in(router, nft).stderr;
        let said = String::from_utf8(said).unwrap();
        assert!(
            said.contains("Operation not permitted"),
            "{refused:?}: {said}"
        );
    }
    let alone = without_owner(&listed(router));
    assert!(before.ends_with(&alone), "{before} {alone}");
    probe.forget(0).unwrap();
    watch(&mut probe, 0, "wan_in");
}

#[test]
fn a_table_of_others_is_left_alone() {
    let Some(namespace) = namespace() else { return };
    let mut early = open(&namespace).unwrap();
    nft_in(&namespace, &["add", "table", "inet", TABLE]);
    assert!(open(&namespace).is_none());
    let config = config();
    let selectors = &config.counters[0].selectors;
    let error = early.watch(1, selectors, &config).unwrap_err();
    assert!(error.to_string().contains("File exists"), "{error}");
    assert_eq!(early.read(1).unwrap(), Missed::default());
    assert_eq!(ruleset(&namespace), format!("table inet {TABLE} {{\n}}\n"));
    nft_in(&namespace, &["delete", "table", "inet", TABLE]);
    early.watch(1, selectors, &config).unwrap();
    // No table has such a name.
    let long = "a".repeat(255);
    assert!(
        namespace
            .run(|| Probe::open(&long))
            .unwrap()
            .unwrap()
            .is_none()
    );
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/netns/probe.nft")
}

#[test]
fn it_lists_loads_again_and_is_to_the_byte_what_nft_itself_would_install() {
    let Some(namespace) = namespace() else { return };
    let directory = tempfile::tempdir().unwrap();
    let probe = full(&namespace);
    let installed = without_owner(&listed(&namespace));
    assert_same(&reloaded(directory.path(), &installed), &installed);
    let with_values = without_owner(&ruleset(&namespace));
    assert_same(&reloaded(directory.path(), &with_values), &installed);
    if std::env::var_os("FLOWCTL_BLESS").is_some() {
        std::fs::write(golden(), &installed).unwrap();
    }
    let golden = std::fs::read_to_string(golden()).unwrap();
    assert_same(&installed, &golden);

    let theirs = Namespace::new("nft").unwrap();
    let file = directory.path().join("golden.nft");
    std::fs::write(&file, &golden).unwrap();
    nft_in(&theirs, &["-f", file.to_str().unwrap()]);
    let sets = golden
        .lines()
        .filter_map(|line| line.strip_prefix("\tset "));
    let sets: Vec<&str> = sets.map(|line| line.trim_end_matches(" {")).collect();
    let wire = |namespace| -> BTreeSet<String> {
        let all = on_the_wire(namespace, TABLE, &sets).into_iter();
        // The table itself differs in its owner.
        let of_table = format!("{:#x} ", message::GET_TABLE);
        all.filter(|line| !line.starts_with(&of_table)).collect()
    };
    assert_equal(&wire(&namespace), &wire(&theirs));
    drop(probe);
}

#[test]
fn each_drilldown_counts_for_itself_and_goes_on_in_another_scope() {
    let Some(lab) = masqueraded() else { return };
    let mut probe = open(&lab.router).unwrap();
    let nobody = lab.server(Family::V4, 1, 7000).address;
    let drops = "add table inet fw; add chain inet fw forward { type filter hook forward priority 0; policy drop; }";
    nft_in(&lab.router, &[drops]);
    let throw = |host: usize, count| {
        let from = lab.lan[host].v4;
        crate::probe::throw(&lab.lan[host].namespace, from, nobody, count);
        (from, volume(Family::V4, count))
    };
    let unconfirmed = |probe: &mut Probe, number| {
        let missed = probe.read(number).unwrap();
        (missed.unconfirmed.packets, missed.sources)
    };
    watch(&mut probe, 1, "lan_in");
    let first = throw(0, 10);
    watch(&mut probe, 2, "home_from");
    let second = throw(1, 20);
    assert_eq!(unconfirmed(&mut probe, 1), (30, vec![second, first]));
    assert_eq!(unconfirmed(&mut probe, 2), (20, vec![second]));
    // Of nothing that is sent here.
    watch(&mut probe, 1, "wan_in");
    throw(0, 5);
    assert_eq!(unconfirmed(&mut probe, 1), (30, vec![second, first]));
    assert_eq!(unconfirmed(&mut probe, 2).0, 25);
    watch(&mut probe, 1, "lan_in");
    throw(0, 5);
    assert_eq!(unconfirmed(&mut probe, 1).0, 35);
    probe.forget(2).unwrap();
    throw(0, 5);
    assert_eq!(unconfirmed(&mut probe, 1).0, 40);
    assert_eq!(probe.read(2).unwrap(), Missed::default());
    watch(&mut probe, 2, "home_from");
    assert_eq!(probe.read(2).unwrap(), Missed::default());
    // From where packets arrive to where they leave.
    watch(&mut probe, 1, "wan_out");
    assert_eq!(probe.read(1).unwrap(), Missed::default());
    watch(&mut probe, 1, "lan_in");
    throw(0, 5);
    assert_eq!(unconfirmed(&mut probe, 1).0, 5);
}

#[test]
fn there_is_an_end_to_how_many_are_watched() {
    let Some(namespace) = namespace() else { return };
    let mut probe = open(&namespace).unwrap();
    let most = WATCHES_MAX as u32;
    (0..most + 5).for_each(|number| watch(&mut probe, number, "wan_in"));
    let listing = ruleset(&namespace);
    assert!(
        listing.contains(&format!("unconfirmed_{}", most - 1)),
        "{listing}"
    );
    assert!(
        !listing.contains(&format!("unconfirmed_{most}")),
        "{listing}"
    );
    assert_eq!(probe.read(most).unwrap(), Missed::default());
    probe.forget(most).unwrap();
    probe.forget(0).unwrap();
    watch(&mut probe, most, "wan_in");
    assert!(ruleset(&namespace).contains(&format!("unconfirmed_{most}")));
}

/// Of the protocols for experiments (RFC 3692), whose packets have nothing that anyone checks.
const EXPERIMENT: u8 = 253;

/// A packet of 100 bytes, the header's checksum left to the kernel.
fn packet(from: IpAddr, to: IpAddr) -> Vec<u8> {
    let mut packet = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let head = [0x45, 0, 0, 100, 0, 0, 0, 0, 64, EXPERIMENT, 0, 0];
            [&head[..], &from.octets(), &to.octets()].concat()
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let head = [0x60, 0, 0, 0, 0, 60, EXPERIMENT, 64];
            [&head[..], &from.octets(), &to.octets()].concat()
        }
        mixed => panic!("{mixed:?}"),
    };
    packet.resize(100, 0);
    packet
}

/// A packet of each family to a server from each of these addresses, which nobody has.
fn forge(lab: &Lab, server: u8, numbers: Range<u32>) -> Volume {
    let host = &lab.lan[0].namespace;
    let to = [Family::V4, Family::V6].map(|family| lab.server(family, server, 0).address);
    let count = numbers.len() as u64;
    let sent = host.run(|| -> rustix::io::Result<()> {
        let raw = |family| {
            let all = Protocol::from_raw(std::num::NonZero::new(255).unwrap());
            socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, Some(all))
        };
        let sockets = [raw(AddressFamily::INET)?, raw(AddressFamily::INET6)?];
        for number in numbers {
            let four = IpAddr::from(Ipv4Addr::from_bits(0x0b00_0000 + number));
            let six = IpAddr::from(Ipv6Addr::from_bits((0xfd99 << 112) + u128::from(number)));
            for ((from, to), socket) in [four, six].into_iter().zip(to).zip(&sockets) {
                let packet = packet(from, to.ip());
                sendto(socket, &packet, SendFlags::empty(), &to)?;
            }
        }
        Ok(())
    });
    sent.unwrap().unwrap();
    Volume {
        bytes: count * 200,
        packets: count * 2,
    }
}

#[test]
fn a_flood_under_forged_addresses_is_summed_and_fills_no_more_than_there_is_room_for() {
    let Some(lab) = masqueraded() else { return };
    let mut probe = open(&lab.router).unwrap();
    let (nobody, open_to_all) = (
        lab.server(Family::V4, 1, 7000),
        lab.server(Family::V4, 2, 0),
    );
    let drops = "add table inet fw; add chain inet fw forward { type filter hook forward priority 0; policy drop; }; \
                 add rule inet fw forward ip daddr 198.51.100.12 accept; \
                 add rule inet fw forward ip6 daddr 2001:db8:64::12 accept";
    nft_in(&lab.router, &[drops]);
    watch(&mut probe, 1, "lan_in");
    let host = &lab.lan[1];
    let throw = |count| {
        crate::probe::throw(&host.namespace, host.v4, nobody.address, count);
        volume(Family::V4, count)
    };
    let known = throw(50);
    let many = SOURCES_MAX + 1000;
    let forged = forge(&lab, 1, 0..many);
    // Others come through: they take no room from those that are known.
    forge(&lab, 2, many..2 * many);
    crate::probe::flows_of_one(host.end(Family::V4, 0), open_to_all, 20);
    let known = known.plus(throw(50));
    let missed = probe.read(1).unwrap();
    assert_eq!(missed.unconfirmed, forged.plus(known));
    assert_eq!(missed.sources[0], (host.v4, known));
    assert_eq!(missed.sources.len(), 16);
    for family in ["4", "6"] {
        let set = nft_in(
            &lab.router,
            &["list", "set", "inet", TABLE, &format!("sources{family}_1")],
        );
        assert_eq!(set.matches("counter packets").count(), SOURCES_MAX as usize);
    }
    // An operator's backup, full as it is.
    let directory = tempfile::tempdir().unwrap();
    let again = reloaded(directory.path(), &without_owner(&ruleset(&lab.router)));
    assert!(again.contains("passed4_1"), "{again}");
}

#[test]
fn a_running_daemon_takes_no_notice_of_it() {
    let options = LabOptions {
        merge: false,
        ..LabOptions::default()
    };
    let Some(lab) = lab(options) else { return };
    let toml = "tick = \"100ms\"\n[interfaces.lan]\ndevice = \"br-lan\"\n[subnets]\nhome = [\"10.77.1.0/24\"]\n";
    let bench = Bench::new(&lab.router, toml);
    let daemon = bench.start();
    let upload = stream(&lab, 200, 16e6);
    let mut probe = open(&lab.router).unwrap();
    let began = daemon.status().tick.sequence;
    let mut number = 0;
    eventually("some ticks pass", || {
        watch(&mut probe, number, "lan_in");
        watch(&mut probe, number + 1, "up");
        probe.read(number).unwrap();
        probe.forget(number + 1).unwrap();
        probe.forget(number).unwrap();
        number += 2;
        (daemon.status().tick.sequence > began + 20).then_some(())
    });
    upload.stop();
    let sent = upload.finish().unwrap().up.sent;
    let report = daemon.settle();
    let counter = daemon.counter("home_from");
    assert_eq!((counter.bytes, counter.packets), (sent.bytes, sent.packets));
    assert_eq!((counter.resets, report.table.repairs), (0, 0));
    assert_eq!(gaps(&bench), []);
    // What an owner would adopt is not what goes again in a moment.
    watch(&mut probe, 1, "lan_in");
    let discovered = bench.flowctl(&["discover", "--adopt"]);
    let discovered = String::from_utf8(discovered.stdout).unwrap();
    assert!(
        discovered.contains("no named counters of others"),
        "{discovered}"
    );
    drop(probe);
    daemon.kill();
    assert!(bench.flowctl(&["remove"]).status.success());
    assert_eq!(ruleset(&lab.router).matches("flowctl").count(), 0);
}
