//! Gathers what `health` judges: sysctls of this network namespace, flowtables, and files that flush the ruleset.

use std::fs;
use std::path::{Path, PathBuf};

use super::error::KernelError;
use super::links::Link;
use super::nftables::Nftables;
use crate::health::Facts;

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
    let (found, foreign) = match nftables.own_table(table) {
        Ok(found) => (found, false),
        Err(KernelError::ForeignTable { .. }) => (None, true),
        Err(error) => return Err(error),
    };
    Ok(Facts {
        table_installed: found.is_some(),
        table_foreign: foreign,
        table_owned: found.is_some_and(|table| table.owner.is_some()),
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
