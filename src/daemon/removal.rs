//! Taking everything away, with or without a daemon that could help: the table goes, totals stay.

use std::collections::BTreeSet;
use std::path::Path;

use super::identity::Identity;
use super::ledger::{Continuity, Ledger};
use super::lock::InstanceLock;
use super::memory::take_in;
use super::state_dir::StateDir;
use super::{DaemonError, clock};
use crate::kernel::error::KernelError;
use crate::kernel::facts;
use crate::kernel::nft::TableInfo;
use crate::kernel::nftables::Nftables;
use crate::sink::state::{self, Saved};
use crate::units::CounterName;

/// What was taken away.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Tables, by name.
    pub tables: Vec<String>,
    /// Tables that stay, by name: they are loaded with the system's ruleset, and not flowctl's to take away.
    pub kept: Vec<String>,
    /// Sysctls that have their old value again, as `name = value`.
    pub sysctls: Vec<String>,
    /// Worth saying: totals that could not be read, and where they are now.
    pub notes: Vec<String>,
}

/// Removes flowctl's tables (the one named, and the one that the state directory remembers), and gives sysctls
/// that flowctl changed their old values. A table that is loaded with the system's ruleset stays. No daemon may run
/// in this network namespace.
pub fn remove(table: &str, state_dir: &Path) -> Result<Removed, DaemonError> {
    let _lock = InstanceLock::take()?;
    let mut nftables = Nftables::open()?;
    let mut removed = Removed::default();
    let (state_dir, saved) = recalled(state_dir, &mut removed.notes)?;
    let names: BTreeSet<&str> = [table]
        .into_iter()
        .chain(saved.as_ref().map(|saved| saved.table.as_str()))
        .collect();
    for name in names {
        let found = match nftables.free_table(name) {
            Err(KernelError::StaticTable { name }) => {
                removed.kept.push(name);
                continue;
            }
            found => found?,
        };
        if let Some(found) = found {
            if let (Some(state_dir), Some(saved)) = (&state_dir, &saved)
                && saved.table == name
            {
                let kept = keep_totals(&mut nftables, saved, &found, state_dir);
                let lost = "what was counted since the daemon saved last is lost";
                let note = kept.err().map(|error| format!("{lost}: {error}"));
                removed.notes.extend(note);
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

/// What was saved, and the directory if it can be saved in. Neither is a reason to leave a table in place: what does not
/// work goes to `notes`.
fn recalled(
    path: &Path,
    notes: &mut Vec<String>,
) -> Result<(Option<StateDir>, Option<Saved>), DaemonError> {
    if !path.is_dir() {
        return Ok((None, None));
    }
    let opened = StateDir::open(path).and_then(|directory| {
        let loaded = directory.load()?;
        Ok((directory, loaded))
    });
    match opened {
        Ok((directory, loaded)) => {
            notes.extend(loaded.damaged.iter().map(ToString::to_string));
            Ok((Some(directory), loaded.saved))
        }
        Err(error) if error.is_another_instance() => Err(error),
        Err(error) => {
            notes.push(error.to_string());
            Ok((None, state::look(path)))
        }
    }
}

/// Counts what the table's counters counted since the daemon last saved.
fn keep_totals(
    nftables: &mut Nftables,
    saved: &Saved,
    found: &TableInfo,
    state_dir: &StateDir,
) -> Result<(), DaemonError> {
    let here = Identity::here()?;
    let table = saved.table.as_str();
    let continuity = Continuity::of(Some(saved), &here, table, Some(found));
    let mut ledger = Ledger::new(Some(saved.clone()), continuity, &here, table);
    let names: Vec<CounterName> = ledger.own_names().cloned().collect();
    take_in(nftables, table, &mut ledger, continuity, names)?;
    ledger.forget_kernel_values(|_| true);
    ledger.sysctls().clear();
    let last = ledger.snapshot((0, None), clock::tick(0), &[]);
    state::save(state_dir.path(), &last, true).map_err(|error| state_dir.failed(error))
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
