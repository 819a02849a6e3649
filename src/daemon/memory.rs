//! What an earlier run left, made to fit what the kernel has now: what was counted meanwhile is taken in, a table that
//! was not the one saved is believed in nothing, and what may be missing is said.

use std::collections::{BTreeSet, HashSet};

use jiff::Timestamp;

use super::dump::dump;
use super::identity::Identity;
use super::ledger::{Continuity, Ledger};
use super::state_dir::StateDir;
use super::{DaemonError, clock};
use crate::config::Config;
use crate::kernel::error::KernelError;
use crate::kernel::nft::TableInfo;
use crate::kernel::nftables::Nftables;
use crate::meter::Meter;
use crate::sink::state::{Loaded, Saved};
use crate::units::{CounterName, TableFamily, Volume};

/// What is known at a start.
pub struct Recalled {
    /// All of it.
    pub ledger: Ledger,
    /// Since when counts may be missing, and why.
    pub gap: Option<(Timestamp, &'static str)>,
    /// Worth saying.
    pub notes: Vec<String>,
}

/// Reads the state directory and the table `found` under the configuration's name, takes away a table of another
/// name that the last run had, and gives the interfaces the label bits that flows know them by.
pub fn recall(
    state_dir: &StateDir,
    nftables: &mut Nftables,
    found: Option<&TableInfo>,
    config: &mut Config,
) -> Result<Recalled, DaemonError> {
    let here = Identity::here().map_err(|source| DaemonError::System {
        operation: "tell this network namespace from others",
        source,
    })?;
    let table = config.table.name.as_str();
    let loaded = state_dir.load()?;
    let notes = notes_of(&loaded);
    let saved = loaded.saved;
    let continuity = Continuity::of(saved.as_ref(), &here, table, found);
    let saved_at = saved.as_ref().map(|saved| saved.time);
    let mut gap = match continuity {
        Continuity::Broken(broken) => saved_at.zip(broken.cause()),
        Continuity::Unknown | Continuity::Unbroken => None,
    };
    let mut ledger = match retire_old_table(nftables, saved.as_ref(), table, &here)? {
        Some(ledger) => ledger,
        None => Ledger::new(saved, continuity, &here, table),
    };
    if found.is_some() {
        let wanted: BTreeSet<CounterName> = (config.own_counters())
            .map(|counter| counter.name.clone())
            .collect();
        let gone = ledger.own_names().filter(|name| !wanted.contains(name));
        let names = wanted.iter().chain(gone).cloned().collect();
        let lost = take_in(nftables, table, &mut ledger, continuity, names)?;
        ledger.forget_kernel_values(|name| !wanted.contains(name));
        let cause = "counters were deleted while flowctl did not run";
        gap = gap.or(saved_at.filter(|_| lost).map(|at| (at, cause)));
    }
    *ledger.labels() = config.keep_labels(ledger.labels());
    Ok(Recalled { ledger, gap, notes })
}

fn notes_of(loaded: &Loaded) -> Vec<String> {
    let go_on = match &loaded.saved {
        Some(saved) => format!("totals go on from those of {}", saved.time),
        None => "totals begin with what the kernel's counters hold".to_owned(),
    };
    let damaged = loaded.damaged.iter();
    damaged.map(|error| format!("{error}; {go_on}")).collect()
}

/// Takes into the ledger what our own counters of these names hold, as far as it is news. Returns whether one that had
/// counted was gone.
pub fn take_in(
    nftables: &mut Nftables,
    table: &str,
    ledger: &mut Ledger,
    continuity: Continuity,
    names: Vec<CounterName>,
) -> Result<bool, KernelError> {
    let mut meter = Meter::new(names.into_iter().map(|name| {
        let carried = ledger.carried_own(&name);
        (name, carried)
    }));
    if let Continuity::Broken(_) = continuity {
        nftables.counters(TableFamily::Inet, table, |record| meter.rebase(record))?;
    }
    meter.begin();
    dump(nftables, table, &mut meter)?;
    meter.end(clock::uptime());
    ledger.remember(&meter);
    let unread: HashSet<&CounterName> = (meter.counters().iter())
        .filter(|counter| counter.read_at.is_none())
        .map(|counter| &counter.name)
        .collect();
    let lost = (unread.iter()).any(|name| ledger.carried_own(name).kernel != Volume::default());
    ledger.forget_kernel_values(|name| unread.contains(name));
    Ok(lost)
}

/// The configuration names another table than the last run's: that one is read a last time and taken away.
fn retire_old_table(
    nftables: &mut Nftables,
    saved: Option<&Saved>,
    table: &str,
    here: &Identity,
) -> Result<Option<Ledger>, DaemonError> {
    let Some(saved) = saved.filter(|saved| saved.table != table) else {
        return Ok(None);
    };
    // One of that name that is someone else's by now stays.
    let Ok(Some(old)) = nftables.own_table(&saved.table) else {
        return Ok(None);
    };
    let continuity = Continuity::of(Some(saved), here, &saved.table, Some(&old));
    let mut ledger = Ledger::new(Some(saved.clone()), continuity, here, table);
    let names = ledger.own_names().cloned().collect();
    take_in(nftables, &saved.table, &mut ledger, continuity, names)?;
    ledger.forget_kernel_values(|_| true);
    nftables.remove(&saved.table)?;
    Ok(Some(ledger))
}
