//! What each counter will see, in words, for `flowctl plan`.

use crate::config::{Addresses, Config, Counter, Selectors};
use crate::units::{DevicePattern, InterfaceName};

/// One line a counter, as nft comments, so that the whole output of `flowctl plan` stays loadable.
pub fn render(config: &Config) -> String {
    let mut text = String::from("# What each counter sees (bytes are layer 3):\n");
    for counter in &config.counters {
        text.push_str(&format!(
            "#   {}: {}\n",
            counter.name,
            sentence(config, counter)
        ));
    }
    if config.table.is_static {
        text.push_str(
            "# table.static: flowctl installs none of this, it reads what is loaded. `flowctl plan --format nft` prints the\n\
             # file to load.\n",
        );
    }
    if config.wants_conntrack() {
        text.push_str(
            "# A threshold asks for a drilldown: the ct rules above switch connection tracking on for this network\n\
             # namespace, which costs every packet and can refuse new flows when its table is full. Set\n\
             # drilldown = false on every threshold to do without.\n",
        );
    } else {
        text.push_str(
            "# No threshold asks for a drilldown: no ct rule, conntrack is left as it is.\n",
        );
    }
    text
}

fn sentence(config: &Config, counter: &Counter) -> String {
    let Some(existing) = &counter.existing else {
        return format!(
            "{} ({})",
            packets(config, &counter.selectors),
            place(&counter.selectors)
        );
    };
    let read = format!(
        "what the counter {} of table {} counts, which is someone else's and only read",
        existing.counter(),
        existing.table()
    );
    if counter.selectors.is_empty() {
        read
    } else {
        format!(
            "{read}; in drilldowns {}",
            packets(config, &counter.selectors)
        )
    }
}

/// Which packets they are.
fn packets(config: &Config, selectors: &Selectors) -> String {
    let mut words = vec![
        if selectors.leaves() {
            "what leaves"
        } else {
            "what arrives"
        }
        .to_owned(),
    ];
    if let Some(names) = &selectors.out {
        words.push(format!("by {}", devices(config, names)));
    }
    if let Some(names) = &selectors.in_ {
        let verb = if selectors.leaves() {
            "having arrived by"
        } else {
            "by"
        };
        words.push(format!("{verb} {}", devices(config, names)));
    }
    if let Some(addresses) = &selectors.from {
        words.push(format!("from {}", addresses_in_words(addresses)));
    }
    if let Some(addresses) = &selectors.to {
        words.push(format!("to {}", addresses_in_words(addresses)));
    }
    words.join(" ")
}

/// Where flowctl counts them.
fn place(selectors: &Selectors) -> &'static str {
    match (selectors.leaves(), selectors.in_.is_some()) {
        (false, _) => {
            "after destination NAT, before the firewall; what is for the router itself included"
        }
        (true, false) => {
            "after the firewall, before source NAT; forwarded and made by the router itself"
        }
        (true, true) => "after the firewall, before source NAT; forwarded only",
    }
}

fn devices(config: &Config, names: &[InterfaceName]) -> String {
    let interfaces = names.iter().filter_map(|name| config.interface(name));
    let devices = DevicePattern::union(interfaces.flat_map(|interface| &interface.devices));
    let names: Vec<String> = devices.iter().map(ToString::to_string).collect();
    names.join(" or ")
}

/// The prefixes at the moment, and which devices they follow.
pub fn addresses_in_words(addresses: &Addresses) -> String {
    let join = |texts: Vec<String>| texts.join(" or ");
    let prefixes = join(
        addresses
            .prefixes()
            .iter()
            .map(ToString::to_string)
            .collect(),
    );
    if addresses.follows().is_empty() {
        return prefixes;
    }
    let devices = join(
        addresses
            .follows()
            .iter()
            .map(ToString::to_string)
            .collect(),
    );
    if prefixes.is_empty() {
        format!("nowhere now ({devices} has no prefix)")
    } else {
        format!("{prefixes} (following {devices})")
    }
}
