//! Hosts in a verdict under the names that real DHCP servers gave them.

use std::net::IpAddr;

use flowctl::event::Event;
use flowctl::lab::topology::{LAN, UPLINK};
use flowctl::lab::{Endpoint, Ends, Family, Lab, LabOptions, link::Links};
use serde_json::json;

use crate::dhcp::{Dnsmasq, Kea, ask_for_address};
use crate::scenes_stage::{ANY, M, config, datagrams, sent, udp};
use crate::support::{Bench, lab};

/// From an address that the host has besides its own; returns the bytes.
fn upload(lab: &Lab, position: usize, network: &str, count: u64) -> (IpAddr, u64) {
    let network: ipnet::IpNet = network.parse().unwrap();
    let host = &lab.lan[position];
    let mut links = Links::open(&host.namespace).unwrap();
    links.add_address(UPLINK, network).unwrap();
    let client = Endpoint {
        namespace: &host.namespace,
        address: (network.addr(), 0).into(),
    };
    let ends = Ends::new(client, lab.server(Family::V4, 0, 9));
    let upload = udp("upload", &ends, &datagrams(4.0 * M, 1000, count));
    (network.addr(), sent(upload))
}

#[test]
fn a_verdict_calls_hosts_as_kea_and_dnsmasq_do() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let Some(kea) = Kea::start(4, true, 0) else {
        return;
    };
    kea.lend(
        "192.168.1.5",
        "02:00:00:00:00:05",
        "nas.example.org.",
        json!({}),
    );
    let Some(dnsmasq) = Dnsmasq::start(&lab.router, LAN, "10.77.1.100,10.77.1.100") else {
        return;
    };
    if ask_for_address(&lab.lan[1].namespace, UPLINK, "printer").is_none() {
        return;
    }
    let mut router = Links::open(&lab.router).unwrap();
    router
        .add_address(LAN, "192.168.1.1/24".parse().unwrap())
        .unwrap();
    let text = config(&[("wan_out", ANY)]);
    let leases = [kea.memfile(), dnsmasq.leases()];
    let bench = Bench::new(&lab.router, &format!("names.leases = {leases:?}\n{text}"));
    let daemon = bench.start();
    let nas = upload(&lab, 0, "192.168.1.5/24", 300);
    let printer = upload(&lab, 1, "10.77.1.100/24", 200);
    let verdict = daemon.await_record("a verdict", |event| match event {
        Event::Verdict(verdict) => Some(*verdict),
        _ => None,
    });
    let hosts = verdict.found.hosts.iter();
    let named: Vec<_> = hosts
        .map(|host| ((host.address, host.bytes), host.name.as_deref()))
        .collect();
    let expected = [(nas, Some("nas.example.org")), (printer, Some("printer"))];
    assert_eq!(named, expected, "{verdict:#?}");
    assert!(
        verdict.text.contains("nas.example.org (192.168.1.5)"),
        "{}",
        verdict.text
    );
}
