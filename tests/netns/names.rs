//! Names from real servers: Kea told over its control socket, with its clean-up, and dnsmasq that serves a real client;
//! and devices as the kernel's neighbour table has them.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use flowctl::config::{Format, parse};
use flowctl::drilldown::shares::KnownHosts;
use flowctl::lab::link::{Links, NewDevice};
use flowctl::lab::{LabOptions, Namespace, clock};
use flowctl::names::Names;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::dhcp::{Dnsmasq, Kea, ask_for_address};
use crate::support::{Bench, allowed, eventually, lab, namespace, pause};

/// For real servers, which answer.
const PATIENCE: Duration = Duration::from_secs(10);

fn names_from(leases: &Path, hosts: &str) -> Names {
    let text = format!("names.leases = {leases:?}\n[hosts]\n{hosts}\n");
    Names::new(&parse(&text, Format::Toml).unwrap())
}

/// What an address is called, and whose it is.
fn known(names: &Names, address: &str) -> (Option<String>, Option<String>) {
    let known = names.known(address.parse().unwrap());
    (known.name, known.mac)
}

fn name(names: &Names, address: &str) -> Option<String> {
    known(names, address).0
}

/// Names that were read now, without any trouble.
fn fresh(leases: &Path) -> Names {
    let mut names = names_from(leases, "");
    assert_eq!(names.refresh(PATIENCE), Vec::<String>::new());
    names
}

#[test]
fn what_kea_lends_is_known_from_its_file_and_from_its_socket() {
    if !allowed() {
        return;
    }
    let Some(kea) = Kea::start(4, true, 0) else {
        return;
    };
    kea.lend(
        "192.168.1.5",
        "02:00:00:00:00:05",
        "nas.example.org.",
        json!({}),
    );
    let hostile = "a,b \u{1b}[31m;\"x'&#x2c";
    let for_ever = json!({ "valid-lft": u32::MAX });
    kea.lend("192.168.1.6", "02:00:00:00:00:06", hostile, for_ever);
    kea.lend(
        "192.168.1.7",
        "02:00:00:00:00:07",
        "gone",
        json!({ "user-context": { "a": "b,c" } }),
    );
    kea.tell("lease4-del", &json!({ "ip-address": "192.168.1.7" }));
    kea.lend(
        "192.168.1.8",
        "02:00:00:00:00:08",
        "declined",
        json!({ "state": 1 }),
    );
    kea.lend(
        "192.168.1.9",
        "02:00:00:00:00:09",
        "short",
        json!({ "valid-lft": 1 }),
    );
    kea.lend("192.168.1.10", "02:00:00:00:00:0a", "", json!({}));
    pause(Duration::from_millis(2100));
    for place in [kea.memfile(), kea.socket()] {
        let names = fresh(&place);
        let some = |text: &str| Some(text.to_owned());
        let nas = (some("nas.example.org"), some("02:00:00:00:00:05"));
        assert_eq!(known(&names, "192.168.1.5"), nas, "{place:?}");
        let reduced = name(&names, "192.168.1.6").unwrap();
        assert_eq!(reduced, "a_b___31m__x___x2c", "{place:?}");
        for nobody in ["192.168.1.7", "192.168.1.8", "192.168.1.9"] {
            assert_eq!(known(&names, nobody), (None, None), "{place:?} {nobody}");
        }
        let nameless = (None, some("02:00:00:00:00:0a"));
        assert_eq!(known(&names, "192.168.1.10"), nameless, "{place:?}");
    }
}

#[test]
fn what_kea_takes_back_is_forgotten() {
    if !allowed() {
        return;
    }
    let Some(kea) = Kea::start(4, true, 0) else {
        return;
    };
    kea.lend("192.168.1.5", "02:00:00:00:00:05", "nas", json!({}));
    let mut names = fresh(&kea.memfile());
    assert_eq!(name(&names, "192.168.1.5").as_deref(), Some("nas"));
    let renamed = json!({ "ip-address": "192.168.1.5", "hw-address": "02:00:00:00:00:05", "hostname": "disk" });
    kea.tell("lease4-update", &renamed);
    eventually("the new name", || {
        names.refresh(PATIENCE);
        (name(&names, "192.168.1.5").as_deref() == Some("disk")).then_some(())
    });
    kea.tell("lease4-del", &json!({ "ip-address": "192.168.1.5" }));
    eventually("no name", || {
        names.refresh(PATIENCE);
        name(&names, "192.168.1.5").is_none().then_some(())
    });
}

#[test]
fn ipv6_leases_of_kea_are_addresses_and_no_prefixes() {
    if !allowed() {
        return;
    }
    let Some(kea) = Kea::start(6, true, 0) else {
        return;
    };
    kea.lend("fd00:1::5", "02:00:00:00:00:05", "nas", json!({}));
    let delegated = json!({ "type": "IA_PD", "prefix-len": 64 });
    kea.lend("fd00:1:0:1::", "02:00:00:00:00:06", "router", delegated);
    for place in [kea.memfile(), kea.socket()] {
        let names = fresh(&place);
        assert_eq!(
            name(&names, "fd00:1::5").as_deref(),
            Some("nas"),
            "{place:?}"
        );
        assert_eq!(name(&names, "fd00:1:0:1::"), None, "{place:?}");
    }
}

#[test]
fn no_name_is_lost_while_kea_cleans_up() {
    if !allowed() {
        return;
    }
    let Some(kea) = Kea::start(4, true, 1) else {
        return;
    };
    kea.lend("192.168.1.5", "02:00:00:00:00:05", "nas", json!({}));
    let previous = kea.memfile().with_extension("csv.2");
    let until = clock::uptime().0 + Duration::from_secs(5);
    let (mut looks, mut cleaned) = (0, false);
    while clock::uptime().0 < until {
        // New ones each time: nothing can be kept from before.
        let names = fresh(&kea.memfile());
        assert_eq!(
            name(&names, "192.168.1.5").as_deref(),
            Some("nas"),
            "look {looks}"
        );
        looks += 1;
        cleaned |= previous.exists();
    }
    assert!(
        cleaned && looks > 100,
        "{looks} looks, cleaned up: {cleaned}"
    );
}

#[test]
fn a_socket_that_cannot_tell_or_does_not_answer_is_told() {
    if !allowed() {
        return;
    }
    let (Some(mute), Some(kea)) = (Kea::start(4, false, 0), Kea::start(4, true, 0)) else {
        return;
    };
    let said = names_from(&mute.socket(), "").refresh(PATIENCE);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(
        said[0].contains("/socket: Kea has not loaded its hook library"),
        "{said:?}"
    );
    kea.signal(Signal::STOP);
    let before = clock::uptime().0;
    let said = names_from(&kea.socket(), "").refresh(PATIENCE);
    let took = clock::uptime().0 - before;
    kea.signal(Signal::CONT);
    assert!(
        said[0].ends_with("/socket: Kea does not answer"),
        "{said:?}"
    );
    assert!(took < Duration::from_millis(2500), "{took:?}");
}

/// A router and a host on one link, with a hardware address that is known and three IPv6 addresses.
fn link() -> Option<(Namespace, Namespace)> {
    let router = namespace()?;
    let host = Namespace::new("host").unwrap();
    let device = |name, last| NewDevice {
        name,
        mac: Some([2, 0, 0, 0, 0, last]),
        merge: true,
    };
    let mut links = Links::open(&router).unwrap();
    links
        .add_veth(device("lan0", 1), device("eth0", 5), &host)
        .unwrap();
    let mut host_links = Links::open(&host).unwrap();
    let network = |text: &str| text.parse().unwrap();
    links
        .add_address("lan0", network("192.168.1.1/24"))
        .unwrap();
    links.add_address("lan0", network("fd00:1::1/64")).unwrap();
    for address in ["fd00:1::5/64", "fd00:1::aaaa/64", "fd00:1::bbbb/64"] {
        host_links.add_address("eth0", network(address)).unwrap();
    }
    links.up("lan0").unwrap();
    host_links.up("eth0").unwrap();
    links.wait_up(&["lan0"], Duration::from_secs(5)).unwrap();
    Some((router, host))
}

/// Not before dnsmasq has lent it: it asks whether anyone has it.
fn take_address(host: &Namespace) {
    let mut links = Links::open(host).unwrap();
    let network = "192.168.1.77/24".parse().unwrap();
    links.add_address("eth0", network).unwrap();
}

/// A datagram from the router to an address of the host makes the kernel ask whose it is.
fn greet(router: &Namespace, address: &str) {
    let address = SocketAddr::new(address.parse().unwrap(), 9);
    let any: SocketAddr = if address.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    }
    .parse()
    .unwrap();
    let sent = router.run(|| UdpSocket::bind(any)?.send_to(b"hello", address));
    sent.unwrap().unwrap();
}

#[test]
fn a_client_of_dnsmasq_has_the_name_it_gave_with_all_of_its_addresses() {
    let Some((router, host)) = link() else { return };
    let Some(dnsmasq) = Dnsmasq::start(&router, "lan0", "192.168.1.77,192.168.1.77") else {
        return;
    };
    if ask_for_address(&host, "eth0", "printer").is_none() {
        return;
    }
    take_address(&host);
    let mut names = names_from(&dnsmasq.leases(), "");
    eventually("the lease is known", || {
        assert_eq!(
            router.run(|| names.refresh(PATIENCE)).unwrap(),
            Vec::<String>::new()
        );
        name(&names, "192.168.1.77")
    });
    let addresses = ["192.168.1.77", "fd00:1::5", "fd00:1::aaaa", "fd00:1::bbbb"];
    let printer = (
        Some("printer".to_owned()),
        Some("02:00:00:00:00:05".to_owned()),
    );
    eventually("the kernel has met them all", || {
        addresses.iter().for_each(|address| greet(&router, address));
        pause(Duration::from_millis(50));
        router.run(|| names.refresh(PATIENCE)).unwrap();
        let met = addresses
            .iter()
            .all(|address| known(&names, address) == printer);
        met.then_some(())
    });
    let devices = addresses.map(|address| names.device(address.parse().unwrap()));
    assert!(devices[0].is_some());
    assert!(
        devices.iter().all(|device| *device == devices[0]),
        "{devices:?}"
    );
}

#[test]
fn who_aged_out_of_the_kernels_table_is_remembered() {
    let Some((router, host)) = link() else {
        return;
    };
    take_address(&host);
    let mut names = names_from(Path::new("/nonexistent"), "nas = \"02:00:00:00:00:05\"");
    let device = |names: &Names, text: &str| names.device(text.parse().unwrap());
    eventually("the kernel has met them", || {
        greet(&router, "fd00:1::aaaa");
        greet(&router, "192.168.1.77");
        pause(Duration::from_millis(50));
        router.run(|| names.refresh(PATIENCE)).unwrap();
        let both = device(&names, "fd00:1::aaaa").and(device(&names, "192.168.1.77"));
        both.map(|_| ())
    });
    // A device that goes down takes its neighbours with it.
    Links::open(&router).unwrap().down("lan0").unwrap();
    let mut others = names_from(Path::new("/nonexistent"), "");
    router.run(|| others.refresh(PATIENCE)).unwrap();
    assert_eq!(
        device(&others, "fd00:1::aaaa"),
        None,
        "the kernel has forgotten it"
    );
    router.run(|| names.refresh(PATIENCE)).unwrap();
    assert_eq!(
        device(&names, "fd00:1::aaaa"),
        device(&names, "192.168.1.77")
    );
    assert_eq!(name(&names, "fd00:1::aaaa").as_deref(), Some("nas"));
}

#[test]
fn hosts_of_the_lab_are_devices_of_two_addresses_each() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let mut names = names_from(Path::new("/nonexistent"), "");
    lab.router.run(|| names.refresh(PATIENCE)).unwrap();
    let devices: Vec<_> = (lab.lan.iter())
        .map(|host| [host.v4, host.v6].map(|address: IpAddr| names.device(address)))
        .collect();
    for [v4, v6] in &devices {
        assert!(v4.is_some() && v4 == v6, "{devices:?}");
    }
    assert!(devices[0] != devices[1]);
}

#[test]
fn the_doctor_says_which_leases_cannot_be_read() {
    let Some(namespace) = namespace() else { return };
    let config = |leases: &str| {
        format!(
            "names.leases = [{leases}]\n[interfaces.wan]\ndevice = \"lo0\"\n[thresholds.t]\ncounter = \"wan_in\"\nraise = \"1Mbit/s\"\n"
        )
    };
    let bench = Bench::new(&namespace, &config("\"/nonexistent/leases\""));
    let found = |bench: &Bench<'_>| {
        let output = bench.flowctl(&["doctor", "--json"]);
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        let found = found["health"].as_array().unwrap().clone();
        found
            .into_iter()
            .find(|entry| entry["code"] == "names_unreadable")
    };
    let entry = found(&bench).unwrap();
    assert_eq!(
        entry["message"],
        "cannot read /nonexistent/leases: it does not exist"
    );
    bench.configure(&config(""));
    assert_eq!(found(&bench), None);
}
