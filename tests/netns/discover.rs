//! Without a configuration: the lab's router is found as it is, counted right, and printed as a configuration that
//! gives the same.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Output};

use flowctl::event::{ConfigResult, Event};
use flowctl::lab::link::{Links, NewDevice};
use flowctl::lab::sysctl;
use flowctl::lab::topology::{LAN, UPLINK};
use flowctl::lab::{Direction, Endpoint, Ends, Family, Lab, LabOptions, Namespace, UdpLoad};
use flowctl::report::Report;
use flowctl::units::Volume;

use crate::exact::{BOTH, datagrams, of_both, send, udp, volume};
use crate::support::{Bench, Daemon, eventually, lab, namespace, run_in};

const USUAL: &str = "/etc/flowctl/flowctl.toml";

/// `flowctl ARGUMENTS` with this bench's state and socket, but without its configuration.
fn unconfigured(bench: &Bench<'_>, arguments: &[&str]) -> Command {
    assert!(
        !std::path::Path::new(USUAL).exists(),
        "{USUAL} is in the way"
    );
    let mut command = Command::new(env!("CARGO_BIN_EXE_flowctl"));
    command
        .args(arguments)
        .arg("--state-dir")
        .arg(bench.state_dir())
        .arg("--socket")
        .arg(bench.socket());
    command
}

/// The same to its end, which a daemon that starts where none should does not reach by itself.
fn flowctl(bench: &Bench<'_>, arguments: &[&str]) -> Output {
    let command = unconfigured(bench, arguments);
    let mut bounded = Command::new("timeout");
    bounded
        .arg("20")
        .arg(command.get_program())
        .args(command.get_args());
    run_in(bench.namespace, bounded)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// What a command prints that succeeds.
fn printed(bench: &Bench<'_>, arguments: &[&str]) -> String {
    let output = flowctl(bench, arguments);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// `ip ARGUMENTS` in a namespace; whether it did that.
fn try_ip(namespace: &Namespace, arguments: &str) -> bool {
    let mut command = Command::new("ip");
    command.args(arguments.split(' '));
    run_in(namespace, command).status.success()
}

fn ip(namespace: &Namespace, arguments: &str) {
    assert!(try_ip(namespace, arguments), "ip {arguments}");
}

fn counted(report: &Report) -> BTreeMap<String, Volume> {
    let volume = |bytes, packets| Volume { bytes, packets };
    (report.counters.iter())
        .map(|counter| {
            let name = counter.name.as_str().to_owned();
            (name, volume(counter.bytes, counter.packets))
        })
        .collect()
}

/// The notes of the last start.
fn started(daemon: &Daemon<'_>) -> Vec<String> {
    daemon.await_record("the start", |event| match event {
        Event::Started { notes, .. } => Some(notes),
        _ => None,
    })
}

/// Uploads from a host of each kind and from the router, and answers; what every counter must say of it.
fn traffic(lab: &Lab) -> Vec<(&'static str, Volume)> {
    for family in BOTH {
        let server = |port| lab.server(family, 0, port);
        send(&Ends::new(lab.lan[0].end(family, 0), server(9)), 40);
        send(&Ends::new(lab.iot[0].end(family, 0), server(10)), 30);
        send(&Ends::new(lab.router_end(family, 0), server(11)), 20);
        let across = Ends::new(lab.iot[0].end(family, 0), lab.lan[1].end(family, 9));
        send(&across, 5);
        // As large as a question, so that one size fits all.
        let asked = UdpLoad {
            direction: Direction::Exchange { reply: 500 },
            ..datagrams(7)
        };
        let exchange = Ends::new(lab.lan[2].end(family, 0), server(12));
        assert_eq!(udp(&exchange, &asked).down.received.packets, 7);
    }
    vec![
        ("wan_in", of_both(7)),
        ("wan_out", of_both(40 + 30 + 20 + 7)),
        ("br_lan_in", of_both(40 + 7)),
        ("br_lan_out", of_both(5 + 7)),
        ("br_iot_in", of_both(30 + 5)),
        ("br_iot_out", of_both(0)),
        ("br_lan_from", of_both(40 + 7)),
        ("br_lan_to", of_both(5 + 7)),
        ("br_iot_from", of_both(30 + 5)),
        ("br_iot_to", of_both(0)),
    ]
}

#[test]
fn the_labs_router_is_found_counted_right_and_printed_as_what_was_counted() {
    let Some(lab) = lab(LabOptions {
        masquerade_v6: true,
        merge: false,
        ..LabOptions::default()
    }) else {
        return;
    };
    let bench = Bench::new(&lab.router, "");
    let daemon = bench.start_as(unconfigured(&bench, &["run"]));
    let expected = traffic(&lab);
    let report = daemon.settle();
    let found = counted(&report);
    for (name, volume) in &expected {
        assert_eq!(found.get(*name), Some(volume), "{name}");
    }
    assert_eq!(found.len(), expected.len(), "{found:?}");
    assert_eq!(report.thresholds.len(), 0);
    let note = format!(
        "there is no {USUAL}, so what was found is counted: wan (wan0), 2 other interfaces and 2 subnets; \
         `flowctl discover` prints it as a configuration to keep"
    );
    assert_eq!(started(&daemon), [&note[..]]);
    let said = daemon.stop();
    assert_eq!(said.matches(&note).count(), 1, "{said}");

    bench.configure(&printed(&bench, &["discover"]));
    let check = bench.flowctl(&["check"]);
    assert_eq!(check.status.code(), Some(0), "{}", text(&check.stderr));
    let plan = text(&bench.flowctl(&["plan"]).stdout);
    assert_eq!(plan, printed(&bench, &["plan"]), "the same ruleset");
    let daemon = bench.start();
    assert_eq!(started(&daemon), [""; 0]);
    assert_eq!(counted(&daemon.settle()), found, "the same counters go on");
}

#[test]
fn every_command_says_what_it_uses_where_there_is_no_configuration() {
    let Some(namespace) = namespace() else { return };
    let bench = Bench::new(&namespace, "");
    ip(&namespace, "link add eth0 type veth peer name far");
    ip(&namespace, "link set eth0 up");
    ip(&namespace, "address add 192.0.2.2/24 dev eth0");
    let note = "1 interface and 1 subnet, no way out since there is no default route";
    for command in ["check", "plan"] {
        let output = flowctl(&bench, &[command]);
        assert_eq!(output.status.code(), Some(0), "{command}");
        let said = text(&output.stderr);
        assert!(said.contains(note), "{command}: {said}");
        assert_eq!(said.lines().count(), 1, "{command}: {said}");
        let shown = text(&output.stdout);
        assert!(shown.contains("inet flowctl"), "{command}: {shown}");
    }
    let doctor = printed(&bench, &["doctor"]);
    assert!(doctor.contains(note), "{doctor}");
    let discovered = printed(&bench, &["discover"]);
    assert!(discovered.contains("[interfaces.eth0]"), "{discovered}");
    assert!(
        discovered.contains("There is no default route"),
        "{discovered}"
    );
    assert_eq!(
        bench.nft(&["list", "ruleset"]),
        "",
        "none of these touched anything"
    );
}

#[test]
fn without_any_network_nothing_starts_and_it_is_said_why() {
    let Some(namespace) = namespace() else { return };
    let bench = Bench::new(&namespace, "");
    ip(&namespace, "link set lo up");
    for command in ["run", "plan", "check", "discover"] {
        let output = flowctl(&bench, &[command]);
        assert_eq!(output.status.code(), Some(78), "{command}");
        let said = text(&output.stderr);
        assert!(said.contains("found nothing to count"), "{command}: {said}");
        assert_eq!(text(&output.stdout), "", "{command}");
    }
    let doctor = printed(&bench, &["doctor"]);
    assert!(doctor.contains("nothing_to_count"), "{doctor}");
    assert_eq!(bench.nft(&["list", "ruleset"]), "");
    assert!(!bench.state_dir().exists(), "nothing is left behind");
}

/// Keeps a device from reporting its multicast groups, which would be counted.
fn without_ipv6(namespace: &Namespace, device: &str) {
    let key = format!("ipv6/conf/{device}/disable_ipv6");
    sysctl::write(namespace, &[(&key, "1")]).unwrap();
}

/// A second cable to the internet, and an IPv4 default route that shares both.
fn share_the_way_out(lab: &Lab) {
    let device = |name| NewDevice {
        name,
        mac: None,
        merge: false,
    };
    let mut router = Links::open(&lab.router).unwrap();
    let (near, far) = (device("wan1"), device("eth1"));
    router.add_veth(near, far, &lab.internet).unwrap();
    without_ipv6(&lab.router, "wan1");
    without_ipv6(&lab.internet, "eth1");
    router.up("wan1").unwrap();
    Links::open(&lab.internet).unwrap().up("eth1").unwrap();
    ip(&lab.router, "address add 203.0.114.2/24 dev wan1");
    ip(&lab.internet, "address add 203.0.114.1/24 dev eth1");
    let hops = "nexthop via 203.0.113.1 dev wan0 nexthop via 203.0.114.1 dev wan1";
    ip(&lab.router, &format!("-4 route replace default {hops}"));
}

#[test]
fn a_default_route_over_two_devices_makes_both_of_them_wan() {
    let Some(lab) = lab(LabOptions {
        lan_hosts: 1,
        iot_hosts: 0,
        masquerade: false,
        merge: false,
        ..LabOptions::default()
    }) else {
        return;
    };
    share_the_way_out(&lab);
    let bench = Bench::new(&lab.router, "");
    let discovered = printed(&bench, &["discover"]);
    assert!(
        discovered.contains("device = [\"wan0\", \"wan1\"]"),
        "{discovered}"
    );
    let daemon = bench.start_as(unconfigured(&bench, &["run"]));
    let mut router = Links::open(&lab.router).unwrap();
    let before = router.statistics("wan1").unwrap().1.packets;
    for position in 0..10 {
        let server = lab.server(Family::V4, position, 9);
        send(&Ends::new(lab.lan[0].end(Family::V4, 0), server), 10);
    }
    let by_second = router.statistics("wan1").unwrap().1.packets - before;
    assert!(
        (10..100).contains(&by_second),
        "{by_second} of 100 took the second way"
    );
    let found = counted(&daemon.settle());
    assert_eq!(found["wan_out"], volume(Family::V4, 100));
    assert_eq!(found["br_lan_in"], volume(Family::V4, 100));
    assert_eq!(found.len(), 6, "{found:?}");
}

/// A device on top of the LAN's bridge with a network of its own, and the LAN host in it. A VLAN where the kernel has
/// them, else a macvlan, whose packets take the same way.
fn stack_on_the_bridge(lab: &Lab) -> [Endpoint<'_>; 2] {
    // Known to the host, since otherwise the bridge would answer for the device on top of it.
    const MAC: &str = "02:77:20:00:00:01";
    let host = &lab.lan[0].namespace;
    let add = format!("link add link {LAN} name {LAN}.20 address {MAC}");
    let mut uplink = UPLINK;
    if try_ip(&lab.router, &format!("{add} type vlan id 20")) {
        ip(
            host,
            &format!("link add link {UPLINK} name vlan20 type vlan id 20"),
        );
        without_ipv6(host, "vlan20");
        ip(host, "link set vlan20 up");
        uplink = "vlan20";
    } else {
        eprintln!("this kernel has no VLANs: a macvlan stands for one");
        ip(&lab.router, &format!("{add} type macvlan mode private"));
    }
    ip(&lab.router, &format!("link set {LAN}.20 up"));
    ip(
        &lab.router,
        &format!("address add 10.77.20.1/24 dev {LAN}.20"),
    );
    ip(host, &format!("address add 10.77.20.11/24 dev {uplink}"));
    ip(
        host,
        &format!("neighbour add 10.77.20.1 lladdr {MAC} dev {uplink}"),
    );
    let end = |namespace, address: [u8; 4], port| Endpoint {
        namespace,
        address: SocketAddr::new(IpAddr::from(address), port),
    };
    [
        end(host, [10, 77, 20, 11], 0),
        end(&lab.router, [10, 77, 20, 1], 9),
    ]
}

#[test]
fn a_device_on_top_of_a_bridge_counts_as_itself() {
    let Some(lab) = lab(LabOptions {
        lan_hosts: 1,
        iot_hosts: 0,
        merge: false,
        ..LabOptions::default()
    }) else {
        return;
    };
    let [host, router] = stack_on_the_bridge(&lab);
    let bench = Bench::new(&lab.router, "");
    let discovered = printed(&bench, &["discover"]);
    assert!(discovered.contains("is a port of br-lan"), "{discovered}");
    let daemon = bench.start_as(unconfigured(&bench, &["run"]));
    send(&Ends::new(host, router), 60);
    let found = counted(&daemon.settle());
    assert_eq!(found["br_lan_20_in"], volume(Family::V4, 60));
    assert_eq!(found["br_lan_20_from"], volume(Family::V4, 60));
    assert_eq!(found["br_lan_in"], Volume::default());
    assert_eq!(found["br_lan_from"], Volume::default());
}

/// The same command with an empty /etc of its own, which is seen from outside below /proc/PID/root.
fn with_own_etc(command: &Command) -> Command {
    let mut own = Command::new("unshare");
    let script = "mount -t tmpfs none /etc && exec \"$0\" \"$@\"";
    own.args(["--mount", "--", "sh", "-c", script])
        .arg(command.get_program())
        .args(command.get_args());
    own
}

/// What the reload said that was asked for now.
fn reload(daemon: &Daemon<'_>) -> (ConfigResult, Vec<String>) {
    let reloads = || {
        let records = daemon.bench.records().into_iter();
        let said = records.filter_map(|record| match record.event {
            Event::Config { result, messages } => Some((result, messages)),
            _ => None,
        });
        said.collect::<Vec<_>>()
    };
    let before = reloads().len();
    daemon.signal(rustix::process::Signal::HUP);
    eventually("a reload", || reloads().into_iter().nth(before))
}

#[test]
fn a_reload_looks_again_until_somebody_has_written_the_file() {
    let Some(namespace) = namespace() else { return };
    let bench = Bench::new(&namespace, "");
    for name in ["eth0", "eth1"] {
        ip(
            &namespace,
            &format!("link add {name} type veth peer name {name}-far"),
        );
        ip(&namespace, &format!("link set {name} up"));
    }
    ip(&namespace, "address add 192.0.2.2/24 dev eth0");
    let daemon = bench.start_as(with_own_etc(&unconfigured(&bench, &["run"])));

    ip(&namespace, "address add 10.0.0.1/24 dev eth1");
    ip(&namespace, "route add default via 192.0.2.1");
    let (result, messages) = reload(&daemon);
    assert_eq!(result, ConfigResult::Reloaded, "{messages:?}");
    let expected = [
        "wan (eth0), 1 other interface and 1 subnet",
        "counters added: wan_in, wan_out, eth1_in, eth1_out, eth1_from, eth1_to",
        "counters removed: eth0_in, eth0_out, eth0_from, eth0_to",
    ];
    assert_eq!(messages.len(), expected.len(), "{messages:?}");
    for (message, expected) in messages.iter().zip(expected) {
        assert!(message.contains(expected), "{message}");
    }

    ip(&namespace, "link set eth0 down");
    ip(&namespace, "link set eth1 down");
    let (result, messages) = reload(&daemon);
    assert_eq!(result, ConfigResult::Rejected);
    assert!(
        messages[0].contains("found nothing to count"),
        "{messages:?}"
    );
    assert_eq!(daemon.status().counters.len(), 6, "nothing changed");

    let etc = format!("/proc/{}/root/etc/flowctl", daemon.pid());
    std::fs::create_dir(&etc).unwrap();
    let written = "[interfaces.mine]\ndevice = \"eth0\"\n";
    std::fs::write(format!("{etc}/flowctl.toml"), written).unwrap();
    let (result, messages) = reload(&daemon);
    assert_eq!(result, ConfigResult::Reloaded, "{messages:?}");
    assert_eq!(messages[0], "counters added: mine_in, mine_out");
    assert!(
        messages.iter().all(|message| !message.contains("found")),
        "{messages:?}"
    );
    assert_eq!(daemon.status().counters.len(), 2);

    std::fs::remove_file(format!("{etc}/flowctl.toml")).unwrap();
    ip(&namespace, "link set eth0 up");
    let (result, messages) = reload(&daemon);
    assert_eq!(
        result,
        ConfigResult::Rejected,
        "a file that was there stays wanted"
    );
    assert!(messages[0].contains("cannot read"), "{messages:?}");
    assert_eq!(daemon.status().counters.len(), 2);
}

#[test]
fn what_the_ruleset_counts_already_is_adopted_as_it_is() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let bench = Bench::new(&lab.router, "");
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("rulesets");
    let ruleset = directory.join("accounting.nft");
    bench.nft(&["-f", ruleset.to_str().unwrap()]);
    let adopt = || {
        let output = run_in(&lab.router, unconfigured(&bench, &["discover", "--adopt"]));
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let text = adopt();
    bench.configure(&text);
    let daemon = bench.start();
    let report = daemon.settle();
    for name in ["wan_bytes_in", "wan_bytes_out", "lan_to_wan"] {
        let counter = daemon.counter(name);
        let existing = counter.existing.unwrap().to_string();
        assert_eq!(existing, format!("inet accounting {name}"));
        assert!(counter.present);
    }
    assert!(
        report
            .counters
            .iter()
            .any(|counter| counter.name.as_str() == "wan_in")
    );
    drop(daemon);
    assert_eq!(adopt(), text, "flowctl's own counters are none of others");
}
