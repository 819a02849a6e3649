//! The contract read literally: one linear rule an entry, in a table of their own at the same hooks and priorities.
//! Written from the names that a configuration would have, so that nothing is shared with what is tested.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use flowctl::lab::Namespace;
use flowctl::units::Volume;
use serde_json::Value;

use crate::support::{Bench, Daemon, eventually, nft_in, pause};

/// How long a counter must not move to be believed.
const STILL: std::time::Duration = std::time::Duration::from_millis(100);

/// Interfaces, subnets and counters as an operator would write them.
#[derive(Debug, Clone, Default)]
pub struct Spec {
    /// Name and devices.
    pub interfaces: Vec<(String, Vec<String>)>,
    /// Name and prefixes.
    pub subnets: Vec<(String, Vec<String>)>,
    /// Name and selectors.
    pub counters: Vec<(String, Select)>,
    /// Further lines of the configuration.
    pub more: String,
}

/// The selectors of a counter: names of interfaces and subnets, or prefixes. Empty where not given.
#[derive(Debug, Clone, Default)]
pub struct Select {
    pub in_: Vec<String>,
    pub out: Vec<String>,
    pub from: Vec<String>,
    pub to: Vec<String>,
}

pub fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}

impl Spec {
    pub fn interface(mut self, name: &str, devices: &[&str]) -> Self {
        self.interfaces.push((name.into(), strings(devices)));
        self
    }

    pub fn subnet(mut self, name: &str, prefixes: &[&str]) -> Self {
        self.subnets.push((name.into(), strings(prefixes)));
        self
    }

    pub fn counter(mut self, name: &str, [in_, out, from, to]: [&[&str]; 4]) -> Self {
        let select = Select {
            in_: strings(in_),
            out: strings(out),
            from: strings(from),
            to: strings(to),
        };
        self.counters.push((name.into(), select));
        self
    }

    /// The configuration file.
    pub fn toml(&self) -> String {
        let mut text = String::from("tick = \"100ms\"\n");
        for (name, devices) in &self.interfaces {
            let _ = writeln!(text, "[interfaces.{name}]\ndevice = {devices:?}");
        }
        text.push_str("[subnets]\n");
        for (name, prefixes) in &self.subnets {
            let _ = writeln!(text, "{name} = {prefixes:?}");
        }
        for (name, select) in &self.counters {
            let _ = writeln!(text, "[counters.{name}]");
            let keys = [
                ("in", &select.in_),
                ("out", &select.out),
                ("from", &select.from),
                ("to", &select.to),
            ];
            for (key, values) in keys.into_iter().filter(|(_, values)| !values.is_empty()) {
                let _ = writeln!(text, "{key} = {values:?}");
            }
        }
        text + &self.more
    }

    /// Every counter, those of interfaces and subnets included.
    pub fn all_counters(&self) -> Vec<(String, Select)> {
        let mut all = Vec::new();
        for (name, _) in &self.interfaces {
            let names = vec![name.clone()];
            let (mut arrives, mut leaves) = (Select::default(), Select::default());
            (arrives.in_, leaves.out) = (names.clone(), names);
            all.push((format!("{name}_in"), arrives));
            all.push((format!("{name}_out"), leaves));
        }
        for (name, _) in &self.subnets {
            let names = vec![name.clone()];
            let (mut sends, mut receives) = (Select::default(), Select::default());
            (sends.from, receives.to) = (names.clone(), names);
            all.push((format!("{name}_from"), sends));
            all.push((format!("{name}_to"), receives));
        }
        all.extend(self.counters.iter().cloned());
        all
    }

    /// The table `inet naive`. A counter's rules are in a chain of its own that the first match leaves, so that a
    /// union counts once. Looped copies are known by the router's own addresses, given here one by one.
    pub fn naive(&self, own_addresses: &[&str]) -> String {
        let (mut head, mut arriving, mut leaving) = (String::new(), String::new(), String::new());
        for (name, select) in self.all_counters() {
            let _ = writeln!(head, " counter {name} {{ }}\n chain c_{name} {{");
            for rule in self.matches(&select) {
                let _ = writeln!(head, "  {rule} counter name {name} return");
            }
            head.push_str(" }\n");
            let leaves = !select.out.is_empty() || !select.to.is_empty();
            let jumps = if leaves { &mut leaving } else { &mut arriving };
            let _ = writeln!(jumps, "  jump c_{name}");
        }
        let mut looped = String::new();
        for address in own_addresses {
            let _ = writeln!(looped, "  {} saddr {address} return", protocol(address));
        }
        format!(
            "table inet naive {{\n{head}\
             chain ingress {{ type filter hook prerouting priority -90; policy accept;\n iifname lo return\n{looped}{arriving} }}\n\
             chain forward {{ type filter hook forward priority 90; policy accept;\n{leaving} }}\n\
             chain output {{ type filter hook output priority 90; policy accept;\n oifname lo return\n{leaving} }}\n}}\n"
        )
    }

    /// One text for every combination of entries.
    fn matches(&self, select: &Select) -> Vec<String> {
        let devices = |names: &[String], word: &str| -> Vec<String> {
            let listed = names.iter().flat_map(|name| find(&self.interfaces, name));
            listed
                .map(|device| format!("{word} \"{device}\""))
                .collect()
        };
        let prefixes = |names: &[String], word: &str| -> Vec<String> {
            let is_prefix = |name: &&String| name.contains(['.', ':']);
            let direct = names.iter().filter(is_prefix);
            let by_name = names.iter().filter(|name| !is_prefix(name));
            let by_name = by_name.flat_map(|name| find(&self.subnets, name));
            direct
                .chain(by_name)
                .map(|prefix| address_match(prefix, word))
                .collect()
        };
        let keys = [
            devices(&select.in_, "iifname"),
            devices(&select.out, "oifname"),
            prefixes(&select.from, "saddr"),
            prefixes(&select.to, "daddr"),
        ];
        let mut rules = vec![String::new()];
        for key in keys.into_iter().filter(|key| !key.is_empty()) {
            rules = rules
                .iter()
                .flat_map(|rule| key.iter().map(move |value| format!("{rule} {value}")))
                .collect();
        }
        rules.retain(|rule| !(rule.contains("ip ") && rule.contains("ip6 ")));
        rules
    }
}

fn find<'a>(list: &'a [(String, Vec<String>)], name: &str) -> &'a [String] {
    &list.iter().find(|(known, _)| known == name).unwrap().1
}

fn protocol(address: &str) -> &'static str {
    if address.contains(':') { "ip6" } else { "ip" }
}

/// Written as a range of all addresses where it is everything, so that the protocol stays visible.
fn address_match(prefix: &str, word: &str) -> String {
    let everything = match prefix {
        "0.0.0.0/0" => "0.0.0.0-255.255.255.255",
        "::/0" => "::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        other => other,
    };
    format!("{} {word} {everything}", protocol(prefix))
}

/// The naive table, loaded in a namespace; a former one goes.
pub fn load(namespace: &Namespace, directory: &Path, text: &str) {
    let file = directory.join("naive.nft");
    let renewed = format!("table inet naive\ndelete table inet naive\n{text}");
    std::fs::write(&file, renewed).unwrap();
    nft_in(namespace, &["-f", file.to_str().unwrap()]);
}

/// All named counters of a table, as the nft program reads them.
pub fn counters(namespace: &Namespace, table: &str) -> BTreeMap<String, Volume> {
    let text = nft_in(
        namespace,
        &["-j", "list", "counters", "table", "inet", table],
    );
    let json: Value = serde_json::from_str(&text).unwrap();
    let objects = json["nftables"].as_array().unwrap().iter();
    objects
        .filter_map(|object| object.get("counter"))
        .map(|counter| {
            let number = |key: &str| counter[key].as_u64().unwrap();
            let volume = Volume {
                bytes: number("bytes"),
                packets: number("packets"),
            };
            (counter["name"].as_str().unwrap().to_owned(), volume)
        })
        .collect()
}

/// The same, once nothing moves any more.
pub fn settled(namespace: &Namespace, table: &str) -> BTreeMap<String, Volume> {
    let mut before = counters(namespace, table);
    for _ in 0..100 {
        pause(STILL);
        let now = counters(namespace, table);
        if now == before {
            return now;
        }
        before = now;
    }
    panic!("table {table} never came to rest");
}

/// A daemon and the naive rules beside each other.
pub struct Beside<'a> {
    pub daemon: Daemon<'a>,
    spec: &'a Spec,
}

impl<'a> Beside<'a> {
    /// Loads the naive rules and starts the daemon.
    pub fn start(bench: &'a Bench<'a>, spec: &'a Spec, own_addresses: &[&str]) -> Self {
        load(bench.namespace, bench.path(), &spec.naive(own_addresses));
        Beside {
            daemon: bench.start(),
            spec,
        }
    }

    /// Waits until all is counted, and asserts that the daemon, the kernel's objects and the naive rules say the
    /// same of every counter. Returns what they say.
    pub fn agreed(&self) -> BTreeMap<String, Volume> {
        let namespace = self.daemon.bench.namespace;
        let (naive, report, objects) = eventually("nothing moves between two readings", || {
            let naive = settled(namespace, "naive");
            let report = self.daemon.settle();
            let objects = counters(namespace, "flowctl");
            (counters(namespace, "naive") == naive).then_some((naive, report, objects))
        });
        for (name, _) in self.spec.all_counters() {
            let ours = report.counters.iter().find(|c| c.name.as_str() == name);
            let ours = ours.map(|counter| Volume {
                bytes: counter.bytes,
                packets: counter.packets,
            });
            assert_eq!(
                ours,
                naive.get(&name).copied(),
                "{name} and its naive rules"
            );
            assert_eq!(ours, objects.get(&name).copied(), "{name} and its object");
        }
        assert_eq!(report.counters.len(), naive.len());
        naive
    }
}
