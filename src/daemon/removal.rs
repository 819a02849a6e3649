//! Taking everything away, with or without a daemon that could help: the table goes, totals stay.

use std::collections::BTreeSet;
use std::path::Path;

use super::identity::Identity;
use super::ledger::Ledger;
use super::lock::InstanceLock;
use super::{DaemonError, clock};
use crate::kernel::facts;
use crate::kernel::nftables::Nftables;
use crate::meter::Meter;
use crate::sink::state;
use crate::units::CounterName;

/// What was taken away.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Tables, by name.
    pub tables: Vec<String>,
    /// Sysctls that have their old value again, as `name = value`.
    pub sysctls: Vec<String>,
}

/// Removes flowctl's tables (the one named, and the one that the state directory remembers), and gives sysctls
/// that flowctl changed their old values. No daemon may run in this network namespace.
pub fn remove(table: &str, state_dir: &Path) -> Result<Removed, DaemonError> {
    let _lock = InstanceLock::take()?;
    let mut nftables = Nftables::open()?;
    // Totals that cannot be read are no reason to leave the table in place.
    let saved = state::load(state_dir).ok().flatten();
    let names: BTreeSet<&str> = [table]
        .into_iter()
        .chain(saved.as_ref().map(|saved| saved.table.as_str()))
        .collect();
    let mut removed = Removed::default();
    for name in names {
        if nftables.own_table(name)?.is_some() {
            if let Some(saved) = &saved {
                keep_totals(&mut nftables, saved, name, state_dir)?;
            }
            nftables.remove(name)?;
            removed.tables.push(name.to_owned());
        }
    }
    if let Some(saved) = saved {
        restore_sysctls(saved.sysctls, &mut removed);
    }
    Ok(removed)
}

/// Counts what the table's counters counted since the daemon last saved.
fn keep_totals(
    nftables: &mut Nftables,
    saved: &state::Saved,
    table: &str,
    state_dir: &Path,
) -> Result<(), DaemonError> {
    let identity = Identity::here().map_err(|source| DaemonError::System {
        operation: "tell this network namespace from others",
        source,
    })?;
    let found = nftables.own_table(table)?;
    let mut ledger = Ledger::new(Some(saved.clone()), &identity, table, found.as_ref());
    let names: Vec<CounterName> = ledger.names().cloned().collect();
    let mut meter = Meter::new(names.into_iter().map(|name| {
        let carried = ledger.carried(&name);
        (name, carried)
    }));
    let tick = clock::tick(0);
    meter.begin();
    nftables.counters(table, |record| meter.record(record, tick.at))?;
    meter.end();
    ledger.remember(&meter);
    ledger.forget_kernel_values(|_| true);
    ledger.sysctls.clear();
    state::save(state_dir, &ledger.saved(&identity, table, 0, tick), true).map_err(|error| {
        DaemonError::StateDir {
            path: state_dir.to_owned(),
            source: std::io::Error::other(error.to_string()),
        }
    })
}

fn restore_sysctls(before: std::collections::BTreeMap<String, String>, removed: &mut Removed) {
    for (name, value) in before {
        let ours = facts::NEEDED_SYSCTLS
            .iter()
            .find(|(needed, _)| *needed == name)
            .map(|(_, wanted)| *wanted);
        let unchanged = facts::conntrack(&name)
            .map(|found| found.to_string())
            .as_deref()
            == ours;
        if unchanged && facts::set_conntrack(&name, &value).is_ok() {
            removed
                .sysctls
                .push(format!("net.netfilter.nf_conntrack_{name} = {value}"));
        }
    }
}
