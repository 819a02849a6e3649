//! What the rules cost a forwarded packet: ours, the same as linear rules, and none.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use flowctl::config::{self, Config, Format};
use flowctl::kernel::nftables::Nftables;
use flowctl::lab::{Direction, Ends, Family, Generator, Lab, LabOptions, UdpLoad};
use flowctl::plan;

use crate::setup::{head, median, row, subnets};

const SIZES: [usize; 3] = [10, 100, 1_000];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Rules {
    None,
    Ours(usize),
    Linear(usize),
}

impl Rules {
    /// Long lists are slow: as many packets as take about as long as with none.
    fn packets(self, packets: u64) -> u64 {
        match self {
            Rules::Linear(size) if size > 10 => packets * 10 / size as u64,
            Rules::None | Rules::Ours(_) | Rules::Linear(_) => packets,
        }
    }
}

pub fn run(quick: bool) {
    let options = LabOptions {
        lan_hosts: 1,
        iot_hosts: 0,
        masquerade: false,
        conntrack: None,
        ..LabOptions::default()
    };
    let lab = Lab::build(&options).unwrap();
    let (rounds, packets) = if quick { (3, 30_000) } else { (15, 100_000) };
    let variants: Vec<Rules> = [Rules::None]
        .into_iter()
        .chain(
            SIZES
                .into_iter()
                .flat_map(|size| [Rules::Ours(size), Rules::Linear(size)]),
        )
        .collect();
    let mut costs: Vec<Vec<f64>> = vec![Vec::new(); variants.len()];
    for _ in 0..rounds {
        for (variant, cost) in variants.iter().zip(&mut costs) {
            install(&lab, *variant);
            cost.push(nanoseconds_a_packet(&lab, variant.packets(packets)));
            remove(&lab, *variant);
        }
    }
    let of = |wanted: Rules| {
        let at = variants
            .iter()
            .position(|variant| *variant == wanted)
            .unwrap();
        median(costs[at].clone())
    };
    let none = of(Rules::None);
    head(
        "Forwarding one packet, nanoseconds (64 bytes of UDP, sender and receiver included)",
        &[
            "subnets",
            "no rules",
            "flowctl",
            "added",
            "linear rules",
            "added",
        ],
    );
    for size in SIZES {
        let (ours, linear) = (of(Rules::Ours(size)), of(Rules::Linear(size)));
        row(&[
            size.to_string(),
            format!("{none:.0}"),
            format!("{ours:.0}"),
            format!("{:+.0}", ours - none),
            format!("{linear:.0}"),
            format!("{:+.0}", linear - none),
        ]);
    }
    println!(
        "\n1,000 subnets cost {:.2} times what 10 cost a packet with flowctl's rules, {:.2} times with linear ones.",
        of(Rules::Ours(1_000)) / of(Rules::Ours(10)),
        of(Rules::Linear(1_000)) / of(Rules::Linear(10)),
    );
}

fn config(size: usize) -> Config {
    config::parse(&subnets(size), Format::Toml).unwrap()
}

fn install(lab: &Lab, rules: Rules) {
    match rules {
        Rules::None => {}
        Rules::Ours(size) => {
            let ruleset = plan::compile(&config(size));
            lab.router
                .run(|| Nftables::open().unwrap().install(&ruleset).unwrap())
                .unwrap();
        }
        Rules::Linear(size) => nft(lab, &linear(&config(size))),
    }
}

fn remove(lab: &Lab, rules: Rules) {
    match rules {
        Rules::None => {}
        Rules::Ours(_) => {
            lab.router
                .run(|| Nftables::open().unwrap().remove("flowctl").unwrap())
                .unwrap();
        }
        Rules::Linear(_) => nft(lab, "delete table inet linear"),
    }
}

/// The same counters at the same hooks, one rule each.
fn linear(config: &Config) -> String {
    let mut text = String::from("table inet linear {\n");
    for counter in &config.counters {
        text.push_str(&format!("counter {} {{ }}\n", counter.name));
    }
    let rules = |key: &str| -> String {
        let mut rules = String::new();
        for counter in &config.counters {
            let selectors = &counter.selectors;
            let addresses = if key == "saddr" {
                &selectors.from
            } else {
                &selectors.to
            };
            for prefix in addresses.iter().flat_map(|addresses| addresses.prefixes()) {
                rules.push_str(&format!(
                    "ip {key} {prefix} counter name {}\n",
                    counter.name
                ));
            }
        }
        rules
    };
    let (from, to) = (rules("saddr"), rules("daddr"));
    for (hook, priority, rules) in [
        ("prerouting", -90, &from),
        ("forward", 90, &to),
        ("output", 90, &to),
    ] {
        text.push_str(&format!(
            "chain {hook} {{\ntype filter hook {hook} priority {priority}; policy accept;\n{rules}}}\n"
        ));
    }
    text + "}\n"
}

pub fn nft(lab: &Lab, text: &str) {
    let loaded = lab.router.run(|| {
        let mut child = Command::new("nft")
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
        child.wait().unwrap()
    });
    assert!(loaded.unwrap().success());
}

fn nanoseconds_a_packet(lab: &Lab, packets: u64) -> f64 {
    let ends = Ends::new(lab.lan[0].end(Family::V4, 0), lab.server(Family::V4, 0, 9));
    let load = UdpLoad {
        direction: Direction::Upload,
        payload: 64,
        rate: None,
        datagrams: packets,
        longest: Duration::from_secs(60),
    };
    let began = Instant::now();
    let totals = Generator::udp("load", &ends, &load)
        .unwrap()
        .finish()
        .unwrap();
    let took = began.elapsed();
    assert_eq!(totals.up.received.packets, packets, "all of them arrive");
    took.as_secs_f64() * 1e9 / packets as f64
}
