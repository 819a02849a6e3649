//! What an earlier run left, made to fit what the kernel has now: what was counted meanwhile is taken in, a table that
//! was not the one saved is believed in nothing, and what may be missing is said.

use std::collections::{BTreeSet, HashSet};

use jiff::Timestamp;

use super::dump::{dump, rebase};
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
use crate::units::{CounterName, Volume};

/// What is known at a start.
pub struct Recalled {
    /// All of it.
    pub ledger: Ledger,
    /// Since when counts may be missing, and why.
    pub gap: Option<(Timestamp, &'static str)>,
    /// Counters that were found lower than before.
    pub reset: Vec<CounterName>,
    /// The table of another name that the last run had: taken in, and to be taken away once all is saved.
    pub retired: Option<String>,
    /// Worth saying.
    pub notes: Vec<String>,
}

/// What was taken in of a table.
#[derive(Debug, Default)]
pub struct TakenIn {
    /// Whether a counter that had counted was gone.
    pub lost: bool,
    /// Counters that were found lower than before.
    pub reset: Vec<CounterName>,
}

/// Reads the state directory, the table `found` under the configuration's name and one of another name that the last run
/// had, and gives the interfaces the label bits that flows know them by.
pub fn recall(
    state_dir: &StateDir,
    nftables: &mut Nftables,
    found: Option<&TableInfo>,
    config: &mut Config,
) -> Result<Recalled, DaemonError> {
    let here = Identity::here()?;
    let table = config.table.name.as_str();
    let loaded = state_dir.load()?;
    let notes = notes_of(&loaded);
    let saved = loaded.saved;
    // The moment of the last save, where a table was counting then.
    let counting = saved.as_ref().filter(|saved| saved.table_handle != 0);
    let saved_at = counting.map(|saved| saved.time);
    let continuity = Continuity::of(saved.as_ref(), &here, table, found);
    let retiring = retiring(nftables, saved.as_ref(), table)?;
    let left_as = counting.and_then(|saved| saved.shape);
    let damaged = match (continuity, left_as) {
        (Continuity::Unbroken, Some(shape)) => nftables.shape(table)? != shape,
        _ => false,
    };
    let mut taken = TakenIn::default();
    let (mut ledger, since_then) = match &retiring {
        Some((name, old)) => {
            let since_then = Continuity::of(saved.as_ref(), &here, name, Some(old));
            let mut ledger = Ledger::new(saved, since_then, &here, table);
            let names = ledger.own_names().cloned().collect();
            taken = take_in(nftables, name, &mut ledger, since_then, names)?;
            ledger.forget_kernel_values(|_| true);
            (ledger, since_then)
        }
        None => (Ledger::new(saved, continuity, &here, table), continuity),
    };
    if found.is_some() {
        let wanted: BTreeSet<CounterName> = (config.own_counters())
            .map(|counter| counter.name.clone())
            .collect();
        let gone = ledger.own_names().filter(|name| !wanted.contains(name));
        let names = wanted.iter().chain(gone).cloned().collect();
        let more = take_in(nftables, table, &mut ledger, continuity, names)?;
        ledger.forget_kernel_values(|name| !wanted.contains(name));
        taken.lost |= more.lost;
        taken.reset.extend(more.reset);
    }
    *ledger.labels() = config.keep_labels(ledger.labels());
    let cause = match since_then {
        Continuity::Broken(broken) => broken.cause(),
        Continuity::Unknown | Continuity::Unbroken => {
            (taken.lost || damaged).then_some("the table was changed while flowctl did not run")
        }
    };
    Ok(Recalled {
        ledger,
        gap: saved_at.zip(cause),
        reset: taken.reset,
        retired: retiring.map(|(name, _)| name),
        notes,
    })
}

/// The same where the table is loaded with the system's ruleset: nothing of it is taken in before it is read, and label
/// bits are those of the configuration, as in the rules that were made from it.
pub fn recall_static(
    state_dir: &StateDir,
    nftables: &mut Nftables,
    config: &Config,
) -> Result<Recalled, DaemonError> {
    let here = Identity::here()?;
    let table = config.table.name.as_str();
    let loaded = state_dir.load()?;
    let notes = notes_of(&loaded);
    let saved = loaded.saved;
    if let Some((name, _)) = retiring(nftables, saved.as_ref(), table)? {
        return Err(KernelError::LeftTable { name }.into());
    }
    let counting = saved.as_ref().filter(|saved| saved.table_handle != 0);
    let saved_at = counting.map(|saved| saved.time);
    let continuity = Continuity::of_kernel(saved.as_ref(), &here);
    let cause = match continuity {
        Continuity::Broken(broken) => broken.cause(),
        // That a table of the same name is another one shows when it is read.
        Continuity::Unknown | Continuity::Unbroken => {
            let renamed = counting.is_some_and(|saved| saved.table != table);
            renamed.then_some("the table that is read has another name now")
        }
    };
    Ok(Recalled {
        ledger: Ledger::of_static(saved, continuity, &here, table),
        gap: saved_at.zip(cause),
        reset: Vec::new(),
        retired: None,
        notes,
    })
}

fn notes_of(loaded: &Loaded) -> Vec<String> {
    let go_on = match &loaded.saved {
        Some(saved) => format!("totals go on from those of {}", saved.time),
        None => "totals begin with what the kernel's counters hold".to_owned(),
    };
    let damaged = loaded.damaged.iter();
    damaged.map(|error| format!("{error}; {go_on}")).collect()
}

/// Takes into the ledger what our own counters of these names hold, as far as it is news.
pub fn take_in(
    nftables: &mut Nftables,
    table: &str,
    ledger: &mut Ledger,
    continuity: Continuity,
    names: Vec<CounterName>,
) -> Result<TakenIn, KernelError> {
    let mut meter = Meter::new(names.into_iter().map(|name| {
        let carried = ledger.carried_own(&name);
        (name, carried)
    }));
    if let Continuity::Broken(_) = continuity {
        rebase(nftables, table, &mut meter)?;
    }
    meter.begin();
    let read = dump(nftables, table, &mut meter)?;
    meter.end(clock::uptime());
    let fell = |name: &CounterName, resets| resets > ledger.carried_own(name).resets;
    let reset = (meter.counters().iter())
        .filter(|counter| fell(&counter.name, counter.resets))
        .map(|counter| counter.name.clone())
        .collect();
    ledger.remember(&meter);
    if read.interrupted {
        // Who was left out is not gone for that.
        return Ok(TakenIn { lost: false, reset });
    }
    let unread: HashSet<&CounterName> = (meter.counters().iter())
        .filter(|counter| counter.read_at.is_none())
        .map(|counter| &counter.name)
        .collect();
    let lost = (unread.iter()).any(|name| ledger.carried_own(name).kernel != Volume::default());
    ledger.forget_kernel_values(|name| unread.contains(name));
    Ok(TakenIn { lost, reset })
}

/// The table of the last run where the configuration names another now. One of that name that is someone else's by now
/// stays.
fn retiring(
    nftables: &mut Nftables,
    saved: Option<&Saved>,
    table: &str,
) -> Result<Option<(String, TableInfo)>, KernelError> {
    let Some(saved) = saved.filter(|saved| saved.table != table) else {
        return Ok(None);
    };
    match nftables.own_table(&saved.table) {
        Ok(found) => Ok(found.map(|old| (saved.table.clone(), old))),
        Err(KernelError::ForeignTable { .. } | KernelError::StaticTable { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
