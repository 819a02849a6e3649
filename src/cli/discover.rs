//! `flowctl discover`: what there is to count on this machine, as a configuration to keep. It changes nothing, and
//! needs a privilege only to look into tables of others.

use std::collections::BTreeSet;

use super::exit::ExitCode;
use super::{DiscoverArgs, configuration, output, run};
use crate::config::adopt;
use crate::config::discover::Discovery;
use crate::config::source;
use crate::daemon::DaemonError;
use crate::kernel::error::KernelError;
use crate::kernel::nftables::Nftables;
use crate::plan::probe;

/// Prints it.
pub fn run(args: &DiscoverArgs) -> ExitCode {
    let found = match source::found() {
        Ok(found) => found,
        Err(error) => return configuration::refuse(&error),
    };
    let mut text = found.text();
    if args.adopt {
        match adopted(&found) {
            Ok(counters) if counters.is_empty() => {
                text.push_str("\n# The ruleset has no named counters of others.\n");
            }
            Ok(counters) => text.push_str(&format!("\n{counters}")),
            Err(error) => return run::complain(&DaemonError::Kernel(error)),
        }
    }
    output::print(&text)
}

/// The named counters of the running ruleset but flowctl's own, each under a name that is free beside what is `found`.
fn adopted(found: &Discovery) -> Result<String, KernelError> {
    let counters = Nftables::open()?.named_counters()?;
    // What was found is a valid configuration of the default table.
    let config = found.config().ok();
    let table = config.as_ref().map(|config| config.table.name.clone());
    let table = table.unwrap_or_default();
    let own_tables = [table.as_str(), &probe::table_name(&table)];
    let taken: BTreeSet<String> = (config.iter())
        .flat_map(|config| &config.counters)
        .map(|counter| counter.name.to_string())
        .collect();
    Ok(adopt::render(&counters, &own_tables, &taken))
}
