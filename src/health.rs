//! Judges what makes numbers wrong or incomplete, each with its remedy. Pure: the facts are gathered elsewhere.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::config::{Config, Levels, Protect};
use crate::report::{Health, Severity};
use crate::units::{BitRate, DevicePattern, ExistingCounter};

/// Bytes are layer 3: a full Ethernet link reads about 94 % of its line rate.
const HIGHEST_USEFUL_SHARE: f64 = 0.9;
/// From this fill on, a burst may find no room for new flows.
const NEARLY_FULL: f64 = 0.8;

/// What the kernel and the files of this machine say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Whether flowctl's table is there.
    pub table_installed: bool,
    /// Whether there is one of its name that is not flowctl's.
    pub table_foreign: bool,
    /// Whether a daemon owns it, so that nobody else can change it.
    pub table_owned: bool,
    /// Of static rules, which flowctl only reads: what is to be said of them; `None` where there are none.
    pub static_rules: Option<StaticRules>,
    /// Counters of others that are to be read and do not exist.
    pub missing_existing: Vec<ExistingCounter>,
    /// nf_conntrack_acct; `None` where the kernel has no conntrack.
    pub accounting: Option<u64>,
    /// nf_conntrack_timestamp.
    pub timestamps: Option<u64>,
    /// nf_conntrack_events.
    pub events: Option<u64>,
    /// Flows in this network namespace.
    pub flows: u64,
    /// The machine-wide limit.
    pub flows_max: u64,
    /// Flowtables: traffic they carry is seen by no counter.
    pub flowtables: usize,
    /// Whether bridged frames pass the inet hooks: bridge-nf-call-iptables or -ip6tables.
    pub bridge_netfilter: bool,
    /// Files that flush the whole ruleset when they are loaded.
    pub flushing_files: Vec<PathBuf>,
    /// All devices, and whether they are switched on.
    pub up_by_device: BTreeMap<String, bool>,
}

/// A table that is loaded with the system's ruleset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StaticRules {
    /// Whether it is the one wanted.
    pub standing: Standing,
    /// Whether the configuration says that it is static, or it was only found so.
    pub configured: bool,
}

/// How the table that is there stands to the rules that the configuration would make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// There is none.
    Missing,
    /// It has these rules.
    AsConfigured,
    /// It was made for another configuration, or by another version of flowctl.
    Differs,
    /// It was made for this configuration, and has been changed since.
    Changed,
    /// A daemon of flowctl's installed it.
    Flowctls,
    /// Nothing says who made it.
    Unmarked,
}

/// Everything worth saying, the worst first.
pub fn judge(config: &Config, facts: &Facts) -> Vec<Health> {
    let mut found = Vec::new();
    if let Some(rules) = facts.static_rules {
        found.extend(judge_static(config, rules));
    } else if facts.table_foreign {
        found.push(entry(
            "table_foreign",
            Severity::Error,
            format!(
                "the table inet {} is not flowctl's, which leaves it alone: nothing is counted",
                config.table.name
            ),
            "rename it, or set another name under [table] in the configuration",
        ));
    } else if !facts.table_installed {
        found.push(entry(
            "table_missing",
            Severity::Error,
            format!(
                "the table inet {} is not installed: nothing is counted",
                config.table.name
            ),
            "start the daemon with `flowctl run`",
        ));
    }
    let is_static = facts.static_rules.is_some();
    if facts.table_installed
        && !facts.table_owned
        && !is_static
        && config.table.protect == Protect::Auto
    {
        found.push(entry(
            "table_unprotected",
            Severity::Info,
            "the table is not owned by a running daemon: whoever flushes the ruleset takes it away until it is \
             repaired, which takes less than a second while the daemon runs"
                .to_owned(),
            "start the daemon: on Linux 6.9 or newer, which has tables that are owned and outlive their owner, it owns the table",
        ));
    }
    found.extend(judge_existing(config, facts));
    if config.wants_conntrack() {
        judge_conntrack(facts, &mut found);
    }
    judge_paths(facts, &mut found);
    judge_devices(config, facts, &mut found);
    found.extend(config.thresholds.iter().filter_map(|threshold| {
        let Levels::Bits { raise, .. } = threshold.levels else { return None };
        let capacity = config.counter(&threshold.counter)?.capacity?;
        above_wire(raise, capacity).then(|| {
            entry(
                "raise_above_wire",
                Severity::Warning,
                format!(
                    "threshold {} raises above 90 % of the capacity of {}, which layer 3 bytes may never reach",
                    threshold.name, threshold.counter
                ),
                "set raise to 90% or less: a full Ethernet link reads about 94 %",
            )
        })
    }));
    found.sort_by_key(|entry| std::cmp::Reverse(entry.severity));
    found
}

/// What is to be done about static rules is done by whoever loads them.
fn judge_static(config: &Config, rules: StaticRules) -> Vec<Health> {
    const LOAD: &str =
        "load what `flowctl plan --format nft` prints, or reload the service that does";
    let differ = |message: String, fix: &str| {
        vec![entry(
            "static_rules_differ",
            Severity::Warning,
            message,
            fix,
        )]
    };
    let table = &config.table.name;
    match rules.standing {
        Standing::Missing => {
            let message = format!(
                "the table inet {table}, which is loaded with the system's ruleset, is not there: nothing is counted"
            );
            let fix = match rules.configured {
                true => LOAD.to_owned(),
                false => {
                    format!("{LOAD}; or restart flowctl, which then installs a table of its own")
                }
            };
            vec![entry("table_missing", Severity::Error, message, &fix)]
        }
        Standing::AsConfigured if rules.configured => Vec::new(),
        Standing::AsConfigured => vec![entry(
            "static_rules_found",
            Severity::Info,
            format!(
                "the table inet {table} was loaded with the system's ruleset: flowctl reads it, and installs and repairs nothing"
            ),
            "nothing to do if that is meant: table.static = true in the configuration says so",
        )],
        // Only a table that is found so can be without being told from the configuration.
        Standing::Differs if config.followed().next().is_some() => {
            let names = config.followed_keys();
            differ(
                format!(
                    "the table inet {table} was loaded with the system's ruleset, and no such table is made from this \
                     configuration, in which {names} would follow devices"
                ),
                "write the prefixes as a list and load what `flowctl plan --format nft` prints, or take the table out of \
                 the system's ruleset, delete it and restart flowctl",
            )
        }
        Standing::Differs => differ(
            format!(
                "the table inet {table} was not made from this configuration by this flowctl: counters may be missing or \
                 count something else, and drilldowns may take one interface for another"
            ),
            LOAD,
        ),
        Standing::Changed => differ(
            format!(
                "rules of the table inet {table} were changed after it was loaded: counters may count something else"
            ),
            LOAD,
        ),
        Standing::Flowctls => differ(
            format!(
                "the table inet {table} was installed by flowctl itself before table.static was set: it goes on counting, \
                 but nothing loads it again when it is gone"
            ),
            // nft is refused to replace a table that outlived its owner.
            &format!(
                "take it away first (`flowctl remove`, or nft delete table inet {table} while flowctl runs); then {LOAD}"
            ),
        ),
        Standing::Unmarked => differ(
            format!(
                "the table inet {table} is none that `flowctl plan --format nft` printed: its counters may count anything"
            ),
            &format!("{LOAD}; or set another name under [table] in the configuration"),
        ),
    }
}

/// One entry for all that are missing.
fn judge_existing(config: &Config, facts: &Facts) -> Option<Health> {
    let first = facts.missing_existing.first()?;
    let reader =
        (config.counters.iter()).find(|counter| counter.existing.as_ref() == Some(first))?;
    let (name, others) = (&reader.name, facts.missing_existing.len() - 1);
    let message = match others {
        0 => {
            format!("the counter {first}, which {name} reads, does not exist: {name} stands still")
        }
        _ => format!(
            "the counter {first}, which {name} reads, and {others} more of others do not exist: what reads them \
             stands still"
        ),
    };
    Some(entry(
        "existing_missing",
        Severity::Warning,
        message,
        &format!("load the ruleset that declares it, or correct counters.{name}.existing"),
    ))
}

fn judge_conntrack(facts: &Facts, found: &mut Vec<Health>) {
    if facts.accounting.is_none() {
        found.push(entry(
            "conntrack_missing",
            Severity::Error,
            "the kernel has no connection tracking here: no drilldown can name anyone".to_owned(),
            "load the modules nf_conntrack and nf_conntrack_netlink",
        ));
        return;
    }
    if facts.accounting == Some(0) {
        found.push(entry(
            "conntrack_acct_off",
            Severity::Warning,
            "conntrack does not count bytes: drilldowns cannot attribute flows created now"
                .to_owned(),
            "sysctl net.netfilter.nf_conntrack_acct=1",
        ));
    }
    if facts.timestamps == Some(0) {
        found.push(entry(
            "conntrack_timestamp_off",
            Severity::Warning,
            "conntrack does not stamp flows: what a flow moved before a drilldown's first look stays unexplained"
                .to_owned(),
            "sysctl net.netfilter.nf_conntrack_timestamp=1",
        ));
    }
    if facts.events == Some(0) {
        found.push(entry(
            "conntrack_events_off",
            Severity::Warning,
            "conntrack tells no events: flows shorter than a drilldown's interval stay unexplained"
                .to_owned(),
            "sysctl net.netfilter.nf_conntrack_events=1",
        ));
    }
    if facts.flows_max > 0 && facts.flows as f64 >= NEARLY_FULL * facts.flows_max as f64 {
        found.push(entry(
            "conntrack_nearly_full",
            Severity::Warning,
            format!("conntrack holds {} of at most {} flows: new ones may be refused", facts.flows, facts.flows_max),
            "raise net.netfilter.nf_conntrack_max, or set drilldown = false to do without conntrack",
        ));
    }
    if facts.table_installed && facts.flows == 0 {
        found.push(entry(
            "conntrack_empty",
            Severity::Info,
            "conntrack knows no flow in this network namespace yet".to_owned(),
            "nothing to do if there is no traffic; else look for notrack rules",
        ));
    }
}

fn judge_paths(facts: &Facts, found: &mut Vec<Health>) {
    if facts.flowtables > 0 {
        found.push(entry(
            "flowtables_present",
            Severity::Warning,
            format!(
                "{} flowtable(s) carry traffic past every counter",
                facts.flowtables
            ),
            "remove the flow offload rules, or accept that offloaded flows are not counted",
        ));
    }
    if facts.bridge_netfilter {
        found.push(entry(
            "bridge_netfilter_on",
            Severity::Warning,
            "bridged frames pass the inet hooks: traffic between ports of one bridge is counted too".to_owned(),
            "sysctl net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0",
        ));
    }
    let flushing = facts.flushing_files.iter();
    // Static rules are in what is loaded, or are missed and not repaired.
    let repaired = !facts.table_owned && facts.static_rules.is_none();
    for file in flushing.filter(|_| repaired) {
        found.push(entry(
            "ruleset_flushed_on_reload",
            Severity::Info,
            format!("{} flushes the whole ruleset when it is loaded: a daemon that runs repairs its table within a \
                     second, and states the gap", file.display()),
            "flush only the tables of that file: `table inet NAME {}` and `delete table inet NAME` for each, instead of `flush ruleset`",
        ));
    }
}

fn judge_devices(config: &Config, facts: &Facts, found: &mut Vec<Health>) {
    for interface in &config.interfaces {
        let key = format!("interfaces.{}.device", interface.name);
        let missing = |device| missing(device, &key, "nothing is counted there", facts);
        let devices = DevicePattern::union(&interface.devices);
        found.extend(devices.iter().filter_map(missing));
    }
    for subnet in config.followed() {
        let key = format!("subnets.{}.device", subnet.name);
        let without = "the subnet goes by its addresses";
        let missing = |device| missing(device, &key, without, facts);
        let devices = subnet.addresses.follows();
        let before = found.len();
        found.extend(devices.iter().filter_map(missing));
        if found.len() == before && subnet.addresses.prefixes().is_empty() {
            let names: Vec<String> = devices.iter().map(ToString::to_string).collect();
            let names = names.join(" or ");
            found.push(entry(
                "subnet_without_prefix",
                Severity::Warning,
                format!(
                    "subnet {} follows {names}, which has no address: its counters count nothing",
                    subnet.name
                ),
                &format!("give {names} an address, or write another device under {key}"),
            ));
        }
    }
}

/// The entry for a device that is not there, or not switched on.
fn missing(device: &DevicePattern, key: &str, consequence: &str, facts: &Facts) -> Option<Health> {
    let is_meant = |(name, _): &(&String, &bool)| device.matches(name);
    let mut meant = facts.up_by_device.iter().filter(is_meant).peekable();
    let absent = meant.peek().is_none();
    if meant.any(|(_, up)| *up) {
        return None;
    }
    let what = match (device.is_wildcard(), absent) {
        (true, true) => format!("no device matches {device}"),
        (true, false) => format!("all devices that match {device} are down"),
        (false, true) => format!("there is no device {device}"),
        (false, false) => format!("device {device} is down"),
    };
    Some(entry(
        "device_missing",
        Severity::Warning,
        format!("{what}, which {key} names: {consequence}"),
        &format!("bring {device} up, or write another device under {key}"),
    ))
}

fn above_wire(raise: BitRate, capacity: BitRate) -> bool {
    raise.0 > capacity.0 * HIGHEST_USEFUL_SHARE
}

/// A health entry.
pub fn entry(code: &str, severity: Severity, message: String, fix: &str) -> Health {
    Health {
        code: code.to_owned(),
        severity,
        message,
        fix: fix.to_owned(),
    }
}
