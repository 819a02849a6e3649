use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use proptest::prelude::*;

use super::ruleset::*;
use super::*;
use crate::config::*;
use crate::units::{CounterName, SubnetName};

/// A configuration with these interfaces, subnets and further counters, and no thresholds.
pub(crate) fn config(
    interfaces: &[(&str, &[&str])],
    subnets: &[(&str, &[&str])],
    counters: &[(&str, Selectors)],
) -> Config {
    let mut config = Config {
        tick: Duration::from_secs(1),
        table: TableConfig {
            name: "flowctl".into(),
            protect: Protect::Off,
        },
        interfaces: Vec::new(),
        subnets: Vec::new(),
        counters: Vec::new(),
        thresholds: Vec::new(),
        drilldown: DrilldownConfig {
            interval: Duration::from_secs(1),
            top: 10,
            max_duration: Duration::from_secs(600),
            cpu_budget: 0.05,
            label_base: 0,
        },
        log: LogConfig {
            path: "drilldowns.jsonl".into(),
            max_size: 1 << 24,
            keep: 4,
        },
        control: ControlConfig {
            socket: "/run/flowctl/control.sock".into(),
        },
    };
    for (name, devices) in interfaces {
        let name = InterfaceName::new(name).unwrap();
        let devices = devices
            .iter()
            .map(|device| DeviceName::new(device).unwrap())
            .collect();
        let in_ = Selectors {
            in_: Some(vec![name.clone()]),
            ..Selectors::default()
        };
        let out = Selectors {
            out: Some(vec![name.clone()]),
            ..Selectors::default()
        };
        config.counters.push(Counter {
            name: name.counter_in().unwrap(),
            existing: None,
            selectors: in_,
            capacity: None,
        });
        config.counters.push(Counter {
            name: name.counter_out().unwrap(),
            existing: None,
            selectors: out,
            capacity: None,
        });
        config.interfaces.push(Interface {
            name,
            devices,
            capacity_in: None,
            capacity_out: None,
            label: 0,
        });
    }
    for (name, prefixes) in subnets {
        let name = SubnetName::new(name).unwrap();
        let prefixes: Vec<IpNet> = prefixes
            .iter()
            .map(|prefix| prefix.parse().unwrap())
            .collect();
        let from = Selectors {
            from: Some(prefixes.clone()),
            ..Selectors::default()
        };
        let to = Selectors {
            to: Some(prefixes.clone()),
            ..Selectors::default()
        };
        config.counters.push(Counter {
            name: name.counter_from().unwrap(),
            existing: None,
            selectors: from,
            capacity: None,
        });
        config.counters.push(Counter {
            name: name.counter_to().unwrap(),
            existing: None,
            selectors: to,
            capacity: None,
        });
        config.subnets.push(Subnet { name, prefixes });
    }
    for (name, selectors) in counters {
        let name = CounterName::new(name).unwrap();
        config.counters.push(Counter {
            name,
            existing: None,
            selectors: selectors.clone(),
            capacity: None,
        });
    }
    config.keep_labels(&LabelsByInterface::new());
    config
}

/// Where a packet passes, and what the hooks see of it.
#[derive(Debug, Clone)]
struct Packet {
    source: IpAddr,
    destination: IpAddr,
    arrives: Option<DeviceName>,
    leaves: Option<DeviceName>,
}

/// The contract, read literally: every selector given must match, and the chain must be one that counts it.
fn naive(config: &Config, hook: Hook, packet: &Packet) -> Vec<CounterName> {
    let by = |names: &Option<Vec<InterfaceName>>, device: &Option<DeviceName>| match (names, device)
    {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(names), Some(device)) => names
            .iter()
            .any(|name| config.interface(name).unwrap().devices.contains(device)),
    };
    let within = |prefixes: &Option<Vec<IpNet>>, address: IpAddr| {
        prefixes
            .as_ref()
            .is_none_or(|prefixes| prefixes.iter().any(|prefix| prefix.contains(&address)))
    };
    let leaving_hook = hook != Hook::Prerouting;
    let mut names: Vec<CounterName> = config
        .counters
        .iter()
        .filter(|counter| {
            let s = &counter.selectors;
            s.leaves() == leaving_hook
                && by(&s.in_, &packet.arrives)
                && by(&s.out, &packet.leaves)
                && within(&s.from, packet.source)
                && within(&s.to, packet.destination)
        })
        .map(|counter| counter.name.clone())
        .collect();
    names.sort();
    names
}

/// What the ruleset counts. Panics when one map has two answers for a packet, which the kernel would refuse.
fn counted(ruleset: &Ruleset, hook: Hook, packet: &Packet) -> Vec<CounterName> {
    let Some(chain) = ruleset
        .chains
        .iter()
        .find(|chain| chain.base.is_some_and(|base| base.hook == hook))
    else {
        return Vec::new();
    };
    let mut names = Vec::new();
    for rule in &chain.rules {
        let Rule::Count { map, fields } = rule else {
            continue;
        };
        let map = ruleset
            .maps
            .iter()
            .find(|candidate| candidate.name == *map)
            .unwrap();
        assert_eq!(map.fields, *fields);
        let mut hits = map.elements.iter().filter(|e| {
            e.key
                .iter()
                .zip(fields)
                .all(|(k, f)| field_matches(*f, k, packet))
        });
        names.extend(hits.next().map(|element| element.counter.clone()));
        assert!(
            hits.next().is_none(),
            "two elements of {} match {packet:?}",
            map.name
        );
    }
    names.sort();
    names
}

fn field_matches(field: Field, value: &KeyValue, packet: &Packet) -> bool {
    match (field, value) {
        (Field::Source4 | Field::Source6, KeyValue::Prefix(prefix)) => {
            prefix.contains(&packet.source)
        }
        (Field::Destination4 | Field::Destination6, KeyValue::Prefix(prefix)) => {
            prefix.contains(&packet.destination)
        }
        (Field::ArrivesBy, KeyValue::Device(device)) => packet.arrives.as_ref() == Some(device),
        (Field::LeavesBy, KeyValue::Device(device)) => packet.leaves.as_ref() == Some(device),
        _ => panic!("{field:?} cannot hold {value:?}"),
    }
}

/// Few addresses and lengths, so that prefixes nest and packets hit.
fn prefix() -> impl Strategy<Value = IpNet> {
    let four = (
        0u8..4,
        0u8..4,
        prop_oneof![Just(0u8), Just(8), Just(16), Just(23), Just(24), Just(32)],
    );
    let four = four.prop_map(|(a, b, length)| {
        IpNet::new(Ipv4Addr::new(10, a, b, 0).into(), length)
            .unwrap()
            .trunc()
    });
    let six = (
        0u16..3,
        prop_oneof![Just(0u8), Just(16), Just(48), Just(64), Just(128)],
    );
    let six = six.prop_map(|(a, length)| {
        IpNet::new(Ipv6Addr::new(0xfd00, 0, 0, a, 0, 0, 0, 0).into(), length)
            .unwrap()
            .trunc()
    });
    prop_oneof![3 => four, 1 => six]
}

/// A list as the configuration hands it over: none inside another.
fn prefixes() -> impl Strategy<Value = Vec<IpNet>> {
    proptest::collection::vec(prefix(), 1..4).prop_map(|prefixes| IpNet::aggregate(&prefixes))
}

fn interfaces() -> impl Strategy<Value = Vec<InterfaceName>> {
    proptest::sample::subsequence(vec!["wan", "lan", "vpn"], 1..3).prop_map(|names| {
        names
            .into_iter()
            .map(|name| InterfaceName::new(name).unwrap())
            .collect()
    })
}

fn selectors() -> impl Strategy<Value = Selectors> {
    use proptest::option::of;
    (
        of(interfaces()),
        of(interfaces()),
        of(prefixes()),
        of(prefixes()),
    )
        .prop_filter("at least one selector", |(a, b, c, d)| {
            a.is_some() || b.is_some() || c.is_some() || d.is_some()
        })
        .prop_map(|(in_, out, from, to)| Selectors { in_, out, from, to })
}

fn packet() -> impl Strategy<Value = Packet> {
    let device = || {
        let known = proptest::sample::select(vec!["ppp0", "wg0", "br-lan", "eth9"]);
        proptest::option::of(known.prop_map(|name| DeviceName::new(name).unwrap()))
    };
    let four = ((0u8..5, 0u8..5, 0u8..2), (0u8..5, 0u8..5, 0u8..2)).prop_map(|(a, b)| {
        let address = |(x, y, z)| IpAddr::from(Ipv4Addr::new(10, x, y, z));
        (address(a), address(b))
    });
    let six = ((0u16..4, 0u16..2), (0u16..4, 0u16..2)).prop_map(|(a, b)| {
        let address = |(x, y)| IpAddr::from(Ipv6Addr::new(0xfd00, 0, 0, x, 0, 0, 0, y));
        (address(a), address(b))
    });
    (prop_oneof![3 => four, 1 => six], device(), device()).prop_map(
        |((source, destination), arrives, leaves)| Packet {
            source,
            destination,
            arrives,
            leaves,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn object_maps_count_exactly_what_naive_matching_counts(
        extra in proptest::collection::vec(selectors(), 0..12),
        packets in proptest::collection::vec(packet(), 40),
    ) {
        let named: Vec<(String, Selectors)> =
            extra.into_iter().enumerate().map(|(at, selectors)| (format!("c{at}"), selectors)).collect();
        let counters: Vec<(&str, Selectors)> = named.iter().map(|(n, s)| (n.as_str(), s.clone())).collect();
        // lan and vpn share wg0: a device in two interfaces counts in both.
        let config = config(
            &[("wan", &["ppp0"]), ("lan", &["br-lan", "wg0"]), ("vpn", &["wg0"])],
            &[("site", &["10.0.0.0/8"]), ("part", &["10.1.0.0/16", "fd00::/16"])],
            &counters,
        );
        let ruleset = compile(&config);
        for packet in &packets {
            let arriving = Packet { leaves: None, ..packet.clone() };
            prop_assert_eq!(counted(&ruleset, Hook::Prerouting, &arriving), naive(&config, Hook::Prerouting, &arriving));
            if packet.arrives.is_some() {
                prop_assert_eq!(counted(&ruleset, Hook::Forward, packet), naive(&config, Hook::Forward, packet));
            }
            let made_here = Packet { arrives: None, ..packet.clone() };
            prop_assert_eq!(counted(&ruleset, Hook::Output, &made_here), naive(&config, Hook::Output, &made_here));
        }
    }

    #[test]
    fn a_diff_applied_gives_the_new_ruleset(
        before in proptest::collection::vec(selectors(), 0..8),
        after in proptest::collection::vec(selectors(), 0..8),
    ) {
        let build = |list: Vec<Selectors>| {
            let named: Vec<(String, Selectors)> =
                list.into_iter().enumerate().map(|(at, selectors)| (format!("c{at}"), selectors)).collect();
            let counters: Vec<(&str, Selectors)> = named.iter().map(|(n, s)| (n.as_str(), s.clone())).collect();
            compile(&config(&[("wan", &["ppp0"]), ("lan", &["br-lan", "wg0"]), ("vpn", &["wg0"])], &[], &counters))
        };
        let (old, new) = (build(before), build(after));
        let changes = diff::between(&old, &new);
        let mut maps: BTreeMap<String, BTreeSet<Element>> =
            old.maps.iter().map(|map| (map.name.clone(), map.elements.iter().cloned().collect())).collect();
        for (map, elements) in &changes.remove_elements {
            for element in elements {
                prop_assert!(maps.get_mut(&map.name).unwrap().remove(*element));
            }
        }
        for name in &changes.remove_maps {
            prop_assert!(maps.remove(name).is_some());
        }
        for map in &changes.add_maps {
            prop_assert!(maps.insert(map.name.clone(), map.elements.iter().cloned().collect()).is_none());
        }
        for (map, elements) in &changes.add_elements {
            for element in elements {
                prop_assert!(maps.get_mut(&map.name).unwrap().insert((*element).clone()));
            }
        }
        let wanted: BTreeMap<String, BTreeSet<Element>> =
            new.maps.iter().map(|map| (map.name.clone(), map.elements.iter().cloned().collect())).collect();
        prop_assert_eq!(maps, wanted);
        prop_assert_eq!(diff::between(&new, &new), diff::Changes::default());
    }
}

#[test]
fn rules_do_not_grow_with_the_number_of_counters() {
    let subnets: Vec<(String, String)> = (0..1000)
        .map(|at| {
            (
                format!("s{at}"),
                format!("10.{}.{}.0/24", at / 256, at % 256),
            )
        })
        .collect();
    let prefixes: Vec<[&str; 1]> = subnets
        .iter()
        .map(|(_, prefix)| [prefix.as_str()])
        .collect();
    let listed: Vec<(&str, &[&str])> = subnets
        .iter()
        .zip(&prefixes)
        .map(|((name, _), prefix)| (name.as_str(), &prefix[..]))
        .collect();
    let ruleset = compile(&config(&[], &listed, &[]));
    assert_eq!(ruleset.counters.len(), 2000);
    let rules: usize = ruleset.chains.iter().map(|chain| chain.rules.len()).sum();
    assert_eq!(
        rules,
        2 + 1 + 2 + 1,
        "two returns and one map in ingress, one map in forward, return and map in output"
    );
}

#[test]
fn without_a_drilldown_no_ct_rule_is_installed() {
    let ruleset = compile(&config(&[("wan", &["ppp0"])], &[], &[]));
    assert!(!text::render(&ruleset).contains("ct "));
}

#[test]
fn a_nested_prefix_and_a_shared_device_get_a_layer_of_their_own() {
    let config = config(
        &[
            ("wan", &["ppp0"]),
            ("lan", &["wg0", "br0"]),
            ("vpn", &["wg0"]),
        ],
        &[
            ("site", &["10.0.0.0/8"]),
            ("part", &["10.1.0.0/16"]),
            ("host", &["10.1.2.3/32"]),
        ],
        &[],
    );
    let names: Vec<String> = compile(&config)
        .maps
        .into_iter()
        .map(|map| map.name)
        .collect();
    let wanted = [
        "from4_0", "from4_1", "from4_2", "in_0", "in_1", "out_0", "out_1", "to4_0", "to4_1",
        "to4_2",
    ];
    assert_eq!(names, wanted);
}
