//! Compiles the configuration into a ruleset whose cost per packet does not grow with the number of counters:
//! counters that use the same selectors share one object map. Pure; nothing is installed here.

pub mod content;
pub mod describe;
pub mod diff;
pub mod layers;
pub mod missed;
pub mod printed;
pub mod probe;
pub mod ruleset;
pub mod succession;
pub mod text;

use std::collections::BTreeMap;

use ipnet::IpNet;

use crate::config::{Config, Counter, Selectors};
use crate::units::{DevicePattern, InterfaceName};
use ruleset::{Base, Chain, Element, Field, Hook, KeyValue, ObjectMap, Rule, Ruleset, Side};

/// After destination NAT (dstnat is -100) and after replies are un-NATed, so that inside addresses are seen.
const INGRESS_PRIORITY: i32 = -90;
/// After the firewall's filter chains (filter is 0), before source NAT (srcnat is 100).
const LEAVING_PRIORITY: i32 = 90;

const LABEL_IN: &str = "label_in";
const LABEL_OUT: &str = "label_out";

/// The ruleset for a configuration. Counters of others have no part in it.
pub fn compile(config: &Config) -> Ruleset {
    let arriving = maps_of(config, false);
    let leaving = maps_of(config, true);
    let chains = chains(config, &arriving, &leaving);
    let mut maps = arriving;
    maps.extend(leaving);
    maps.sort_by(|a, b| a.name.cmp(&b.name));
    Ruleset {
        table: config.table.name.clone(),
        counters: config
            .own_counters()
            .map(|counter| counter.name.clone())
            .collect(),
        maps,
        chains,
    }
}

/// The object maps of all counters that count what arrives, or of those that count what leaves.
fn maps_of(config: &Config, leaves: bool) -> Vec<ObjectMap> {
    let mut elements_by_shape: BTreeMap<Vec<Field>, Vec<Element>> = BTreeMap::new();
    for counter in config
        .own_counters()
        .filter(|counter| counter.selectors.leaves() == leaves)
    {
        for (shape, element) in elements_of(config, counter) {
            elements_by_shape.entry(shape).or_default().push(element);
        }
    }
    let layered = elements_by_shape
        .into_iter()
        .flat_map(|(fields, elements)| {
            layers::spread(elements)
                .into_iter()
                .enumerate()
                .map(move |(layer, elements)| ObjectMap {
                    name: format!("{}_{layer}", shape_name(&fields)),
                    fields: fields.clone(),
                    elements,
                })
        });
    layered.collect()
}

/// Every key of a counter, with the shape it belongs to.
fn elements_of(config: &Config, counter: &Counter) -> Vec<(Vec<Field>, Element)> {
    let shapes = keys_of(config, &counter.selectors).into_iter();
    let elements = shapes.flat_map(|(fields, keys)| {
        keys.into_iter().map(move |key| {
            let counter = counter.name.clone();
            (fields.clone(), Element { key, counter })
        })
    });
    elements.collect()
}

/// What a packet's key must be to match, by the fields the key is made of: the product of the selectors, once for
/// each family.
fn keys_of(config: &Config, selectors: &Selectors) -> Vec<(Vec<Field>, Vec<Vec<KeyValue>>)> {
    let families: &[bool] = if selectors.from.is_some() || selectors.to.is_some() {
        &[false, true]
    } else {
        &[false]
    };
    let mut shapes = Vec::new();
    for &six in families {
        let mut fields = Vec::new();
        let mut keys: Vec<Vec<KeyValue>> = vec![Vec::new()];
        if let Some(addresses) = &selectors.from {
            fields.push(if six { Field::Source6 } else { Field::Source4 });
            keys = product(keys, &prefixes_of_family(addresses.prefixes(), six));
        }
        if let Some(addresses) = &selectors.to {
            fields.push(if six {
                Field::Destination6
            } else {
                Field::Destination4
            });
            keys = product(keys, &prefixes_of_family(addresses.prefixes(), six));
        }
        if let Some(names) = &selectors.in_ {
            fields.push(Field::ArrivesBy);
            keys = product(keys, &devices_of(config, names));
        }
        if let Some(names) = &selectors.out {
            fields.push(Field::LeavesBy);
            keys = product(keys, &devices_of(config, names));
        }
        shapes.push((fields, keys));
    }
    shapes
}

fn product(keys: Vec<Vec<KeyValue>>, values: &[KeyValue]) -> Vec<Vec<KeyValue>> {
    let mut longer = Vec::with_capacity(keys.len() * values.len());
    for key in keys {
        for value in values {
            longer.push(key.iter().cloned().chain([value.clone()]).collect());
        }
    }
    longer
}

fn prefixes_of_family(prefixes: &[IpNet], six: bool) -> Vec<KeyValue> {
    let of_family = prefixes
        .iter()
        .filter(|prefix| matches!(prefix, IpNet::V6(_)) == six);
    of_family.map(|prefix| KeyValue::Prefix(*prefix)).collect()
}

/// The devices of these interfaces, a shared one once, and none that a wildcard among them covers.
fn devices_of(config: &Config, names: &[InterfaceName]) -> Vec<KeyValue> {
    let interfaces = names.iter().filter_map(|name| config.interface(name));
    let devices = DevicePattern::union(interfaces.flat_map(|interface| &interface.devices));
    devices.into_iter().map(KeyValue::Device).collect()
}

fn shape_name(fields: &[Field]) -> String {
    let words: Vec<&str> = fields
        .iter()
        .map(|field| match field {
            Field::Source4 => "from4",
            Field::Source6 => "from6",
            Field::Destination4 => "to4",
            Field::Destination6 => "to6",
            Field::ArrivesBy => "in",
            Field::LeavesBy => "out",
        })
        .collect();
    words.join("_")
}

/// Label chains where a drilldown may need them, then those base chains that have something to do.
fn chains(config: &Config, arriving: &[ObjectMap], leaving: &[ObjectMap]) -> Vec<Chain> {
    let mut chains = Vec::new();
    if config.wants_conntrack() {
        chains.push(Chain {
            name: LABEL_IN,
            base: None,
            rules: label_rules(config, Side::Arrives),
        });
        chains.push(Chain {
            name: LABEL_OUT,
            base: None,
            rules: label_rules(config, Side::Leaves),
        });
    }
    let base = |hook, priority| Some(Base { hook, priority });
    let new_flows_to = |chain| config.wants_conntrack().then_some(Rule::NewFlowsTo(chain));

    let mut ingress = vec![Rule::ReturnLoopback(Side::Arrives), Rule::ReturnLooped];
    ingress.extend(new_flows_to(LABEL_IN));
    ingress.extend(arriving.iter().map(count));
    chains.push(Chain {
        name: "ingress",
        base: base(Hook::Prerouting, INGRESS_PRIORITY),
        rules: ingress,
    });

    let mut forward = Vec::from_iter(new_flows_to(LABEL_OUT));
    forward.extend(leaving.iter().map(count));
    chains.push(Chain {
        name: "forward",
        base: base(Hook::Forward, LEAVING_PRIORITY),
        rules: forward,
    });

    // What the router makes itself has no device it arrived by: maps that ask for one cannot match here.
    let mut output = vec![Rule::ReturnLoopback(Side::Leaves)];
    output.extend(new_flows_to(LABEL_OUT));
    output.extend(
        leaving
            .iter()
            .filter(|map| !map.fields.contains(&Field::ArrivesBy))
            .map(count),
    );
    chains.push(Chain {
        name: "output",
        base: base(Hook::Output, LEAVING_PRIORITY),
        rules: output,
    });

    chains.retain(|chain| chain.base.is_none() || chain.rules.iter().any(Rule::has_effect));
    chains
}

fn count(map: &ObjectMap) -> Rule {
    Rule::Count {
        map: map.name.clone(),
        fields: map.fields.clone(),
    }
}

fn label_rules(config: &Config, side: Side) -> Vec<Rule> {
    let mut rules = Vec::new();
    for interface in &config.interfaces {
        let bit = match side {
            Side::Arrives => interface.label,
            Side::Leaves => interface.label + 1,
        };
        let devices = DevicePattern::union(&interface.devices);
        let label = |device| Rule::Label { side, device, bit };
        rules.extend(devices.into_iter().map(label));
    }
    rules
}

impl Rule {
    /// Whether a chain with only this rule would be worth a packet's time.
    fn has_effect(&self) -> bool {
        !matches!(self, Rule::ReturnLoopback(_) | Rule::ReturnLooped)
    }
}

#[cfg(test)]
pub(crate) mod tests;
