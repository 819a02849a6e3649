use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use proptest::prelude::*;

use super::ruleset::*;
use super::*;
use crate::config::*;
use crate::units::{CounterName, DeviceName, SubnetName};

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
            is_static: false,
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
        hosts: Vec::new(),
        names: NamesConfig { leases: None },
        labelled_since: None,
    };
    for (name, devices) in interfaces {
        let name = InterfaceName::new(name).unwrap();
        let devices = devices
            .iter()
            .map(|device| DevicePattern::new(device).unwrap())
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
            from: Some(prefixes.clone().into()),
            ..Selectors::default()
        };
        let to = Selectors {
            to: Some(prefixes.clone().into()),
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
        let addresses = prefixes.into();
        config.subnets.push(Subnet { name, addresses });
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
        (Some(names), Some(device)) => names.iter().any(|name| {
            let mut written = config.interface(name).unwrap().devices.iter();
            written.any(|written| is_meant(&written.to_string(), device.as_str()))
        }),
    };
    let within = |addresses: &Option<Addresses>, address: IpAddr| {
        addresses.as_ref().is_none_or(|addresses| {
            let mut prefixes = addresses.prefixes().iter();
            prefixes.any(|prefix| prefix.contains(&address))
        })
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

/// Whether a device is meant by what is written of it.
fn is_meant(written: &str, device: &str) -> bool {
    match written.strip_suffix('*') {
        Some(beginning) => device.starts_with(beginning),
        None => device == written,
    }
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
        (Field::ArrivesBy, KeyValue::Device(_)) => holds(value, &packet.arrives),
        (Field::LeavesBy, KeyValue::Device(_)) => holds(value, &packet.leaves),
        _ => panic!("{field:?} cannot hold {value:?}"),
    }
}

/// Whether the kernel finds a device's name in an interval.
fn holds(value: &KeyValue, device: &Option<DeviceName>) -> bool {
    let (first, last) = value.bounds();
    device.as_ref().is_some_and(|device| {
        let mut name = device.as_str().as_bytes().to_vec();
        name.resize(16, 0);
        (first..=last).contains(&name)
    })
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

/// As the configuration hands them over: none inside another.
fn addresses() -> impl Strategy<Value = Addresses> {
    // None at all is what a device without a prefix brings.
    proptest::collection::vec(prefix(), 0..4)
        .prop_map(|prefixes| IpNet::aggregate(&prefixes).into())
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
        of(addresses()),
        of(addresses()),
    )
        .prop_filter("at least one selector", |(a, b, c, d)| {
            a.is_some() || b.is_some() || c.is_some() || d.is_some()
        })
        .prop_map(|(in_, out, from, to)| Selectors { in_, out, from, to })
}

fn packet() -> impl Strategy<Value = Packet> {
    let device = || {
        let names = vec!["ppp0", "ppp1", "ppp", "ppq", "wg0", "wg", "br-lan", "eth9"];
        let known = proptest::sample::select(names);
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

/// Of each of three interfaces: names, and wildcards that cover them, each other, or nothing.
fn devices() -> impl Strategy<Value = Vec<Vec<&'static str>>> {
    let pool = vec![
        "ppp0", "ppp1", "ppp*", "ppq*", "p*", "wg0", "wg*", "br-lan", "b*",
    ];
    proptest::collection::vec(proptest::sample::subsequence(pool, 1..4), 3)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn object_maps_count_exactly_what_naive_matching_counts(
        devices in devices(),
        extra in proptest::collection::vec(selectors(), 0..12),
        packets in proptest::collection::vec(packet(), 40),
    ) {
        let named: Vec<(String, Selectors)> =
            extra.into_iter().enumerate().map(|(at, selectors)| (format!("c{at}"), selectors)).collect();
        let counters: Vec<(&str, Selectors)> = named.iter().map(|(n, s)| (n.as_str(), s.clone())).collect();
        let config = config(
            &[("wan", &devices[0]), ("lan", &devices[1]), ("vpn", &devices[2])],
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
        before in (devices(), proptest::collection::vec(selectors(), 0..8)),
        after in (devices(), proptest::collection::vec(selectors(), 0..8)),
    ) {
        let build = |(devices, list): (Vec<Vec<&str>>, Vec<Selectors>)| {
            let named: Vec<(String, Selectors)> =
                list.into_iter().enumerate().map(|(at, selectors)| (format!("c{at}"), selectors)).collect();
            let counters: Vec<(&str, Selectors)> = named.iter().map(|(n, s)| (n.as_str(), s.clone())).collect();
            compile(&config(&[("wan", &devices[0]), ("lan", &devices[1]), ("vpn", &devices[2])], &[], &counters))
        };
        let (old, new) = (build(before), build(after));
        let changes = diff::between(&old, &new);
        // A map that stays is of the kind it was.
        let kind = |map: &ObjectMap| (map.name.clone(), map.is_interval());
        let mut kinds: BTreeMap<String, bool> = old.maps.iter().map(kind).collect();
        kinds.retain(|name, _| !changes.remove_maps.contains(name));
        kinds.extend(changes.add_maps.iter().map(|map| kind(map)));
        prop_assert_eq!(kinds, new.maps.iter().map(kind).collect());
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
fn a_wildcard_over_a_device_of_another_interface_gets_a_layer_and_over_its_own_none() {
    let config = config(
        &[
            ("wan", &["ppp0", "ppp*"]),
            ("backup", &["ppp1"]),
            ("lan", &["br0"]),
        ],
        &[],
        &[],
    );
    let ruleset = compile(&config);
    let shown: Vec<(&str, bool, Vec<String>)> = (ruleset.maps.iter())
        .map(|map| {
            let values = map.elements.iter().map(|element| &element.key[0]);
            let shown = values.map(|value| match value {
                KeyValue::Device(device) => device.to_string(),
                KeyValue::Prefix(prefix) => prefix.to_string(),
            });
            (map.name.as_str(), map.is_interval(), shown.collect())
        })
        .collect();
    let texts = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        shown[..2],
        [
            ("in_0", true, texts(&["br0", "ppp*"])),
            ("in_1", false, texts(&["ppp1"])),
        ]
    );
    assert!(text::render(&ruleset).contains(
        "map in_0 {\n\t\ttype ifname : counter\n\t\tflags interval\n\t\telements = { \"br0\" : \"lan_in\",\n"
    ));
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

#[test]
fn a_map_in_which_a_counter_that_stays_moves_has_a_successor_and_others_go_on() {
    let of = |subnets: &[(&str, &[&str])]| compile(&config(&[("wan", &["ppp0"])], subnets, &[]));
    let home: (&str, &[&str]) = ("home", &["10.1.0.0/16"]);
    let around: (&str, &[&str]) = ("around", &["10.0.0.0/8"]);
    let beside: (&str, &[&str]) = ("beside", &["192.168.0.0/16"]);
    let by = |old: &Ruleset, new: &Ruleset| {
        let by = succession::between(old, new)?;
        let of_rules = (by.chains.iter().flat_map(|chain| &chain.rules)).filter_map(|rule| {
            let Rule::Count { map, .. } = rule else {
                return None;
            };
            Some(map.clone())
        });
        let names: Vec<String> = by.maps.iter().map(|map| map.name.clone()).collect();
        let of_rules: BTreeSet<String> = of_rules.collect();
        assert_eq!(of_rules, names.iter().cloned().collect());
        Some(names.join(" "))
    };
    let (alone, wide) = (of(&[home]), of(&[home, around]));
    let expected = |names: &str| Some(names.to_owned());
    assert_eq!(by(&alone, &of(&[home, beside])), None);
    assert_eq!(by(&wide, &of(&[home, around, beside])), None);
    assert_eq!(by(&wide, &wide), None);
    assert_eq!(
        by(&alone, &wide),
        expected("from4_0b from4_1 in_0 out_0 to4_0b to4_1")
    );
    assert_eq!(by(&wide, &alone), expected("from4_0b in_0 out_0 to4_0b"));
    let wildcard = compile(&config(&[("wan", &["ppp0"]), ("x", &["dum*"])], &[], &[]));
    let named = compile(&config(&[("wan", &["ppp0"])], &[], &[]));
    assert_eq!(by(&named, &wildcard), expected("in_0b out_0b"));
}
