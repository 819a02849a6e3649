//! What the temporary rules of a drilldown cost a packet: of flows that conntrack keeps, and of those that the firewall
//! drops.

use std::net::UdpSocket;

use flowctl::config::{self, Config, Format};
use flowctl::kernel::nftables::Nftables;
use flowctl::kernel::probe::Probe;
use flowctl::lab::{Endpoint, Family, Lab, LabOptions};
use flowctl::plan;
use flowctl::plan::probe::WATCHES_MAX;

use crate::packet::nft;
use crate::setup::{head, median, row, thread_cpu};

const CONFIG: &str = r#"
[interfaces.wan]
device = "wan0"
[interfaces.lan]
device = "br-lan"
[subnets]
home = ["10.77.1.0/24", "fd77:1::/64"]
[thresholds.watched]
counter = "lan_in"
raise = "1Gbit/s"
"#;
/// Port that the firewall lets nothing through to.
const CLOSED: u16 = 7000;
const FIREWALL: &str = "table inet fw { chain forward { type filter hook forward priority 0; udp dport 7000 drop; }; }";

/// Which counters a drilldown goes on for.
type Watched = (&'static str, &'static [&'static str], usize);

const WATCHED: [Watched; 4] = [
    ("none", &[], 0),
    ("lan_in (arrives)", &["lan_in"], 1),
    ("wan_out (leaves)", &["wan_out"], 1),
    ("16 of both", &["lan_in", "wan_out"], WATCHES_MAX),
];

/// What a packet is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Traffic {
    /// Of a flow that is answered.
    Answered,
    /// Of a flow that is not.
    OneWay,
    /// The first of its flow, always, because the firewall drops it.
    Dropped,
}

const TRAFFIC: [Traffic; 3] = [Traffic::Answered, Traffic::OneWay, Traffic::Dropped];

pub fn run(quick: bool) {
    let options = LabOptions {
        lan_hosts: 1,
        iot_hosts: 0,
        masquerade: false,
        ..LabOptions::default()
    };
    let lab = Lab::build(&options).unwrap();
    nft(&lab, FIREWALL);
    let config = config::parse(CONFIG, Format::Toml).unwrap();
    let ruleset = plan::compile(&config);
    let installed = lab.router.run(|| Nftables::open()?.install(&ruleset));
    installed.unwrap().unwrap();
    let (rounds, packets) = if quick { (5, 20_000) } else { (21, 50_000) };
    let mut costs = [(); WATCHED.len()].map(|()| [(); TRAFFIC.len()].map(|()| Vec::new()));
    for _ in 0..rounds {
        for (watched, costs) in WATCHED.iter().zip(&mut costs) {
            let probe = watch(&lab, &config, watched);
            for (traffic, costs) in TRAFFIC.iter().zip(costs) {
                costs.push(nanoseconds_a_packet(&lab, *traffic, packets));
            }
            drop(probe);
        }
    }
    head(
        "One packet while drilldowns go on, nanoseconds of CPU (64 bytes of UDP, the sender included)",
        &[
            "drilldowns",
            "flow answered",
            "added",
            "flow one way",
            "added",
            "dropped by the firewall",
            "added",
        ],
    );
    let medians = costs.map(|of_watched| of_watched.map(median));
    for ((name, ..), of_watched) in WATCHED.iter().zip(&medians) {
        let mut cells = vec![(*name).to_owned()];
        for (cost, without) in of_watched.iter().zip(&medians[0]) {
            cells.extend([format!("{cost:.0}"), format!("{:+.0}", cost - without)]);
        }
        row(&cells);
    }
}

fn watch(lab: &Lab, config: &Config, (_, counters, count): &Watched) -> Probe {
    let probe = lab.router.run(|| Probe::open("flowctl"));
    let mut probe = probe.unwrap().unwrap().unwrap();
    for (number, name) in counters.iter().cycle().take(*count).enumerate() {
        let mut known = config.counters.iter();
        let counter = known
            .find(|counter| counter.name.as_str() == *name)
            .unwrap();
        let watched = probe.watch(number as u32, &counter.selectors, config);
        watched.unwrap();
    }
    probe
}

/// CPU of the sender, in whose context the kernel forwards. Who receives does not take what comes.
fn nanoseconds_a_packet(lab: &Lab, traffic: Traffic, packets: u64) -> f64 {
    let port = if traffic == Traffic::Dropped {
        CLOSED
    } else {
        0
    };
    let (host, server) = (
        lab.lan[0].end(Family::V4, 0),
        lab.server(Family::V4, 0, port),
    );
    let bound = |end: Endpoint<'_>| end.namespace.run(|| UdpSocket::bind(end.address).unwrap());
    let (host, server) = (bound(host).unwrap(), bound(server).unwrap());
    host.connect(server.local_addr().unwrap()).unwrap();
    if traffic != Traffic::Dropped {
        host.send(&[0; 64]).unwrap();
        let (_, from) = server.recv_from(&mut [0; 64]).unwrap();
        if traffic == Traffic::Answered {
            server.send_to(&[0; 64], from).unwrap();
            host.recv(&mut [0; 64]).unwrap();
        }
    }
    let began = thread_cpu();
    for _ in 0..packets {
        host.send(&[0; 64]).unwrap();
    }
    (thread_cpu() - began).as_secs_f64() * 1e9 / packets as f64
}
