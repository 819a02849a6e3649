//! The ruleset in nft syntax, as `nft -f` loads it and as `nft -s list` prints it, but for the order in which the
//! kernel keeps device names. Nothing is installed from this text; it is for people, for golden tests and for
//! `flowctl plan`.

use std::fmt::Write;

use super::ruleset::{Chain, Element, Field, Hook, KeyValue, ObjectMap, Rule, Ruleset, Side};
use crate::units::CounterName;

/// The comment by which flowctl knows its own table again; the number is the layout's version.
pub const TABLE_COMMENT: &str = "managed by flowctl, layout 1";

/// The whole table, as flowctl installs it.
pub fn render(ruleset: &Ruleset) -> String {
    render_as(ruleset, TABLE_COMMENT)
}

/// The same with another comment.
pub fn render_as(ruleset: &Ruleset, comment: &str) -> String {
    let counters = ruleset.counters.iter().map(render_counter);
    let maps = ruleset.maps.iter().map(render_map);
    let chains = ruleset.chains.iter().map(render_chain);
    let blocks: Vec<String> = counters.chain(maps).chain(chains).collect();
    format!(
        "table inet {} {{\n\tcomment \"{comment}\"\n{}}}\n",
        ruleset.table,
        blocks.join("\n")
    )
}

fn render_counter(counter: &CounterName) -> String {
    format!("\tcounter {counter} {{\n\t}}\n")
}

fn render_map(map: &ObjectMap) -> String {
    let types: Vec<&str> = map.fields.iter().map(|field| field_type(*field)).collect();
    let flags = if map.is_interval() {
        "\t\tflags interval\n"
    } else {
        ""
    };
    let elements: Vec<String> = map.elements.iter().map(render_element).collect();
    let lines: Vec<String> = elements
        .chunks(elements_a_line(map))
        .map(|line| line.join(", "))
        .collect();
    format!(
        "\tmap {} {{\n\t\ttype {} : counter\n{flags}\t\telements = {{ {} }}\n\t}}\n",
        map.name,
        types.join(" . "),
        lines.join(",\n\t\t\t     ")
    )
}

/// As nft breaks lines.
fn elements_a_line(map: &ObjectMap) -> usize {
    match map.fields[..] {
        [Field::Source4 | Field::Destination4] => 2,
        _ => 1,
    }
}

fn render_element(element: &Element) -> String {
    let values: Vec<String> = element.key.iter().map(render_value).collect();
    format!("{} : \"{}\"", values.join(" . "), element.counter)
}

fn render_value(value: &KeyValue) -> String {
    match value {
        // nft prints a prefix that is one address without its length.
        KeyValue::Prefix(prefix) if prefix.prefix_len() == prefix.max_prefix_len() => {
            prefix.addr().to_string()
        }
        KeyValue::Prefix(prefix) => prefix.to_string(),
        KeyValue::Device(device) => format!("\"{device}\""),
    }
}

fn field_type(field: Field) -> &'static str {
    match field {
        Field::Source4 | Field::Destination4 => "ipv4_addr",
        Field::Source6 | Field::Destination6 => "ipv6_addr",
        Field::ArrivesBy | Field::LeavesBy => "ifname",
    }
}

fn field_expression(field: Field) -> &'static str {
    match field {
        Field::Source4 => "ip saddr",
        Field::Source6 => "ip6 saddr",
        Field::Destination4 => "ip daddr",
        Field::Destination6 => "ip6 daddr",
        Field::ArrivesBy => "iifname",
        Field::LeavesBy => "oifname",
    }
}

fn render_chain(chain: &Chain) -> String {
    let mut text = format!("\tchain {} {{\n", chain.name);
    if let Some(base) = chain.base {
        let place = match base.hook {
            Hook::Prerouting => {
                format!("hook prerouting priority dstnat + {}", base.priority + 100)
            }
            Hook::Input => format!("hook input priority {}", base.priority),
            Hook::Forward => format!("hook forward priority {}", base.priority),
            Hook::Output => format!("hook output priority {}", base.priority),
        };
        let _ = writeln!(text, "\t\ttype filter {place}; policy accept;");
    }
    for rule in &chain.rules {
        let _ = writeln!(text, "\t\t{}", render_rule(rule));
    }
    text.push_str("\t}\n");
    text
}

fn render_rule(rule: &Rule) -> String {
    match rule {
        Rule::ReturnLoopback(side) => format!("{} \"lo\" return", side_expression(*side)),
        Rule::ReturnLooped => {
            "meta pkttype { broadcast, multicast } fib saddr type local return".to_owned()
        }
        Rule::NewFlowsTo(chain) => format!("ct direction original ct state new jump {chain}"),
        Rule::Label { side, device, bit } => {
            format!("{} \"{device}\" ct label set {bit}", side_expression(*side))
        }
        Rule::Count { map, fields } => {
            let key: Vec<&str> = fields
                .iter()
                .map(|field| field_expression(*field))
                .collect();
            format!("counter name {} map @{map}", key.join(" . "))
        }
    }
}

fn side_expression(side: Side) -> &'static str {
    match side {
        Side::Arrives => "iifname",
        Side::Leaves => "oifname",
    }
}
