//! Gathers what `health` judges: sysctls of this network namespace, flowtables, and files that flush the ruleset.

use std::fs;
use std::path::{Path, PathBuf};

use super::error::KernelError;
use super::links::Link;
use super::nft::TableInfo;
use super::nftables::Nftables;
use crate::config::TableConfig;
use crate::health::{Facts, Standing};
use crate::plan::printed::{self, Maker};
use crate::plan::ruleset::Ruleset;
use crate::units::TableFamily;

const CONNTRACK: &str = "/proc/sys/net/netfilter/nf_conntrack_";
const BRIDGE: [&str; 2] = [
    "/proc/sys/net/bridge/bridge-nf-call-iptables",
    "/proc/sys/net/bridge/bridge-nf-call-ip6tables",
];
/// Where distributions keep the ruleset that their nftables service loads.
const RULESET_FILES: [&str; 3] = [
    "/etc/nftables.conf",
    "/etc/sysconfig/nftables.conf",
    "/etc/nftables.nft",
];

/// The conntrack sysctls a drilldown needs, with the value it needs.
pub const NEEDED_SYSCTLS: [(&str, &str); 3] = [("acct", "1"), ("timestamp", "1"), ("events", "1")];

/// What is so in the calling thread's network namespace, which has these devices, but for what counters of
/// others are missing.
pub fn gather(nftables: &mut Nftables, table: &str, links: &[Link]) -> Result<Facts, KernelError> {
    let found = nftables.table(TableFamily::Inet, table)?;
    let maker = found.as_ref().map(TableInfo::maker);
    Ok(Facts {
        table_installed: matches!(maker, Some(Maker::Flowctl | Maker::Configuration)),
        table_foreign: maker == Some(Maker::Others),
        table_owned: found.is_some_and(|table| table.owner.is_some()),
        static_rules: None,
        missing_existing: Vec::new(),
        accounting: conntrack("acct"),
        timestamps: conntrack("timestamp"),
        events: conntrack("events"),
        flows: conntrack("count").unwrap_or(0),
        flows_max: conntrack("max").unwrap_or(0),
        flowtables: nftables.flowtables()?,
        bridge_netfilter: BRIDGE.iter().any(|path| number(Path::new(path)) == Some(1)),
        flushing_files: RULESET_FILES
            .iter()
            .map(PathBuf::from)
            .filter(|path| flushes(path))
            .collect(),
        up_by_device: (links.iter())
            .map(|link| (link.name.clone(), link.up))
            .collect(),
    })
}

/// Whether the table of the configuration is loaded with the system's ruleset, by what it says or as it is found.
pub fn is_static(nftables: &mut Nftables, table: &TableConfig) -> Result<bool, KernelError> {
    let found = nftables.table(TableFamily::Inet, &table.name)?;
    let was_loaded = found.as_ref().map(TableInfo::maker) == Some(Maker::Configuration);
    Ok(table.is_static || was_loaded)
}

/// How the table in the kernel stands to these rules, which the configuration would make.
pub fn standing(nftables: &mut Nftables, wanted: &Ruleset) -> Result<Standing, KernelError> {
    let Some(found) = nftables.table(TableFamily::Inet, &wanted.table)? else {
        return Ok(Standing::Missing);
    };
    Ok(match found.maker() {
        Maker::Flowctl => Standing::Flowctls,
        Maker::Others => Standing::Unmarked,
        Maker::Configuration if found.comment != Some(printed::comment(wanted)) => {
            Standing::Differs
        }
        Maker::Configuration if nftables.shape(&wanted.table)? != wanted.shape() => {
            Standing::Changed
        }
        Maker::Configuration => Standing::AsConfigured,
    })
}

/// A conntrack sysctl of the calling thread's network namespace.
pub fn conntrack(name: &str) -> Option<u64> {
    number(Path::new(&format!("{CONNTRACK}{name}")))
}

/// Sets a conntrack sysctl of the calling thread's network namespace.
pub fn set_conntrack(name: &str, value: &str) -> std::io::Result<()> {
    fs::write(format!("{CONNTRACK}{name}"), value)
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn flushes(path: &Path) -> bool {
    let Ok(text) = fs::read_to_string(path) else {
        return false;
    };
    text.lines().any(|line| {
        line.split('#')
            .next()
            .unwrap_or_default()
            .trim()
            .starts_with("flush ruleset")
    })
}
