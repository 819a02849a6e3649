//! Scenes about where: several subnets behind one interface, pairs of places, a device with more than one address, and
//! conntrack zones in which one tuple is two flows.

use std::net::IpAddr;
use std::time::Duration;

use flowctl::lab::link::Links;
use flowctl::lab::topology::{IOT, LAN};
use flowctl::lab::{self, Endpoint, Ends, Family, Generator, Lab, LabOptions};

use crate::scenes_stage::{
    ANY, M, assert_complete, assert_exact, assert_share, config, datagrams, sent, udp, verdict,
};
use crate::scenes_traffic::{Sink, port, rounds};
use crate::support::{Bench, lab};
use crate::told::Host;

/// One more address of a host.
fn add_address(lab: &Lab, bridge: &str, host: &lab::Host, network: &str) -> IpAddr {
    let network = network.parse().unwrap();
    lab.add_address(bridge, host, network).unwrap();
    network.addr()
}

/// That many datagrams from there to a server of that number.
fn upload(lab: &Lab, host: &lab::Host, address: IpAddr, server: u8, count: u64) -> Generator {
    let client = Endpoint {
        namespace: &host.namespace,
        address: (address, 0).into(),
    };
    let family = if address.is_ipv4() {
        Family::V4
    } else {
        Family::V6
    };
    let ends = Ends::new(client, lab.server(family, server, 443));
    udp("upload", &ends, &datagrams(4.0 * M, 1000, count))
}

/// That many datagrams from one host to another.
fn across(from: &lab::Host, to: &lab::Host, count: u64) -> Generator {
    let ends = Ends::new(from.end(Family::V4, 0), to.end(Family::V4, 0));
    udp("across", &ends, &datagrams(4.0 * M, 1000, count))
}

#[test]
fn an_interface_with_three_subnets_behind_it_names_the_host_in_each() {
    let options = LabOptions {
        lan_hosts: 4,
        ..LabOptions::default()
    };
    let Some(lab) = lab(options) else { return };
    let mut router = Links::open(&lab.router).unwrap();
    for address in ["10.77.4.1/24", "10.77.5.1/24"] {
        router.add_address(LAN, address.parse().unwrap()).unwrap();
    }
    let office = add_address(&lab, LAN, &lab.lan[1], "10.77.4.11/24");
    let guest = add_address(&lab, LAN, &lab.lan[2], "10.77.5.11/24");
    let subnets = config(&[("lan_in", ANY), ("wan_out", ANY), ("lan_out", ANY)]).replace(
        "[counters]",
        "office = \"10.77.4.0/24\"\nguests = \"10.77.5.0/24\"\n[counters]",
    );
    let bench = Bench::new(&lab.router, &subnets);
    let daemon = bench.start();
    let [home, second, third, fourth] = [0, 1, 2, 3].map(|position| &lab.lan[position]);
    let uploads = [
        (home.v4, upload(&lab, home, home.v4, 0, 100)),
        (office, upload(&lab, second, office, 1, 400)),
        (guest, upload(&lab, third, guest, 2, 300)),
        (fourth.v6, upload(&lab, fourth, fourth.v6, 3, 200)),
    ];
    let truth = uploads.map(|(address, upload)| (address, sent(upload)));
    for counter in ["lan_in", "wan_out"] {
        assert_exact(&verdict(&daemon, counter), &truth);
    }
}

#[test]
fn pair_counters_take_their_pair_and_nothing_beside_it() {
    let options = LabOptions {
        iot_hosts: 3,
        ..LabOptions::default()
    };
    let Some(lab) = lab(options) else { return };
    let counters = ["things_to_internet", "things_to_home", "iot_in"];
    let bench = Bench::new(
        &lab.router,
        &config(&counters.map(|counter| (counter, ANY))),
    );
    let daemon = bench.start();
    let [one, other, third] = [0, 1, 2].map(|position| &lab.iot[position]);
    // All at the same time, so that each account is open while the others' traffic passes.
    let of_things = [
        upload(&lab, one, one.v4, 0, 300),
        upload(&lab, third, third.v6, 1, 200),
        across(other, &lab.lan[0], 150),
        across(one, &lab.lan[1], 250),
    ];
    let of_nobody = [
        across(&lab.lan[2], one, 400),
        upload(&lab, &lab.lan[2], lab.lan[2].v4, 2, 400),
    ];
    let [to_internet, more, to_home, most] = of_things.map(sent);
    let _ = of_nobody.map(sent);
    let outside = [(one.v4, to_internet), (third.v6, more)];
    assert_exact(&verdict(&daemon, "things_to_internet"), &outside);
    let pair = [(other.v4, to_home), (one.v4, most)];
    assert_exact(&verdict(&daemon, "things_to_home"), &pair);
    let senders = [
        (one.v4, to_internet + most),
        (other.v4, to_home),
        (third.v6, more),
    ];
    assert_exact(&verdict(&daemon, "iot_in"), &senders);
}

#[test]
fn two_privacy_addresses_of_one_device_are_all_there_is_of_it() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let device = &lab.lan[0];
    let privacy = [
        "fd77:1::1234:5678:9abc:def0/64",
        "fd77:1::fedc:ba98:7654:3210/64",
    ]
    .map(|network| add_address(&lab, LAN, device, network));
    let bench = Bench::new(&lab.router, &config(&[("wan_out", ANY)]));
    let daemon = bench.start();
    let uploads = [
        upload(&lab, device, privacy[0], 0, 300),
        upload(&lab, device, privacy[1], 1, 250),
        // More than either, less than both.
        upload(&lab, &lab.lan[1], lab.lan[1].v6, 2, 400),
    ];
    let [first, second, other] = uploads.map(sent);
    let of_device = first + second;
    let verdict = verdict(&daemon, "wan_out");
    assert_complete(&verdict);
    let all = of_device + other;
    assert_eq!(verdict.counted_bytes, all);
    let is_device = |host: &&Host| privacy.iter().any(|own| host.addresses().contains(own));
    let rows: Vec<&Host> = verdict.hosts.iter().filter(is_device).collect();
    let named: u64 = rows.iter().map(|row| row.bytes).sum();
    assert_eq!(named, of_device);
    let [row] = rows[..] else {
        panic!("one device is one row: {verdict:#?}")
    };
    assert_eq!(row.addresses(), privacy, "the largest first");
    assert_eq!(verdict.hosts[0].bytes, named, "one device is ahead");
    assert_share("the device", row.share, named as f64 / all as f64);
}

/// A zone for each of the two bridges.
pub fn separate_zones(bench: &Bench<'_>) {
    let zones = "add table inet zones; \
        add chain inet zones early { type filter hook prerouting priority raw; }; \
        add rule inet zones early iifname br-lan ct zone set 1; \
        add rule inet zones early iifname br-iot ct zone set 2";
    bench.nft(&[zones]);
}

/// Gives a thing the address that a host of the LAN has, as two sites behind a provider's router may have.
pub fn twin(lab: &Lab) -> IpAddr {
    let twin = add_address(lab, IOT, &lab.iot[0], "10.77.1.11/32");
    assert_eq!(twin, lab.lan[0].v4);
    twin
}

#[test]
fn one_tuple_in_two_conntrack_zones_is_two_flows() {
    let options = LabOptions {
        masquerade: false,
        ..LabOptions::default()
    };
    let Some(lab) = lab(options) else { return };
    let twin = twin(&lab);
    let bench = Bench::new(&lab.router, &config(&[("wan_out", ANY), ("lan_in", ANY)]));
    separate_zones(&bench);
    let daemon = bench.start();
    let mut sink = Sink::open(lab.server(Family::V4, 0, 53));
    let places = [(&lab.lan[0], 9), (&lab.iot[0], 4)];
    for (host, count) in places {
        let client = Endpoint {
            namespace: &host.namespace,
            address: (twin, 7000).into(),
        };
        rounds(&[port(client)], &mut sink, 1000, count, Duration::ZERO);
    }
    let both = verdict(&daemon, "wan_out");
    assert_exact(&both, &[(twin, 13 * 1028)]);
    let flows: Vec<_> = (both.flows.iter())
        .map(|flow| (flow.source, flow.source_port, flow.bytes))
        .collect();
    let wanted = [(twin, Some(7000), 9 * 1028), (twin, Some(7000), 4 * 1028)];
    assert_eq!(flows, wanted);
    assert_exact(&verdict(&daemon, "lan_in"), &[(twin, 9 * 1028)]);
}
