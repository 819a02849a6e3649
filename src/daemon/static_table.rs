//! A table that is loaded with the system's ruleset, because the configuration says so or because it was found so: whether
//! its rules are those that the configuration would make. It changes nothing and repairs nothing.

use std::sync::Arc;

use super::{Daemon, clock};
use crate::config::{Config, TableConfig};
use crate::health::{Standing, StaticRules};
use crate::kernel::error::KernelError;
use crate::kernel::facts;
use crate::kernel::nft::TableInfo;
use crate::kernel::nftables::Nftables;
use crate::plan::printed::Maker;
use crate::plan::ruleset::Ruleset;
use crate::units::TableFamily;

/// What is known of it.
#[derive(Debug)]
pub struct StaticTable {
    configured: bool,
    /// How the table of that handle stood, 0 where there was none.
    judged: Option<(u64, Standing)>,
}

impl StaticTable {
    /// `None` where the table is flowctl's own to install.
    pub fn look(
        config: &TableConfig,
        nftables: &mut Nftables,
    ) -> Result<Option<Self>, KernelError> {
        let is_static = facts::is_static(nftables, config)?;
        Ok(is_static.then_some(StaticTable {
            configured: config.is_static,
            judged: None,
        }))
    }

    /// Whether the configuration says that the table is static.
    pub fn is_configured(&self) -> bool {
        self.configured
    }

    /// How the table stands to the rules wanted. What it holds is compared once, until others change it.
    pub fn judge(
        &mut self,
        nftables: &mut Nftables,
        wanted: &Ruleset,
    ) -> Result<StaticRules, KernelError> {
        let found = nftables.table(TableFamily::Inet, &wanted.table)?;
        let handle = found.map_or(0, |table| table.handle);
        let known = self.judged.filter(|(judged, _)| *judged == handle);
        let standing = match known {
            Some((_, standing)) => standing,
            None => facts::standing(nftables, wanted)?,
        };
        self.judged = Some((handle, standing));
        Ok(StaticRules {
            standing,
            configured: self.configured,
        })
    }

    /// Others changed it, or other rules are wanted.
    pub fn forget(&mut self) {
        self.judged = None;
    }

    /// What a start says of it. `found`: what has its name.
    pub fn note(table: &str, configured: bool, found: Option<&TableInfo>) -> String {
        let what = match configured {
            true if found.map(TableInfo::maker) == Some(Maker::Flowctl) => {
                "was installed by flowctl itself before table.static was set"
            }
            true => "is loaded with the system's ruleset (table.static is set)",
            false => "is loaded with the system's ruleset (it was found there)",
        };
        format!(
            "the table inet {table} {what}: flowctl reads it, and installs and repairs nothing in this run"
        )
    }
}

impl Daemon {
    /// The rules wanted are in force, with their label bits.
    pub(super) fn note_labels(&mut self) {
        let labels = self.config.labels();
        self.ledger.note_labels(labels, clock::wall());
        let labelled_since = self.ledger.labelled_since();
        if self.config.labelled_since != labelled_since {
            let config = Config {
                labelled_since,
                ..(*self.config).clone()
            };
            self.config = Arc::new(config);
            self.engine.follow(Arc::clone(&self.config));
            self.collector.reconfigure(Arc::clone(&self.config));
        }
    }

    /// Whether counters were not read that the table should have.
    pub(super) fn lacks_static_counters(&self) -> bool {
        let name = self.config.table.name.as_str();
        let mut missing = self.meter.missing_existing();
        self.last_reading.missing_existing > 0
            && missing.any(|counter| counter.is_in(TableFamily::Inet, name))
    }

    /// Others changed the table that they load: the next tick reads it, and what is wrong with it is said now.
    pub(super) fn note_load(&mut self) {
        // Where it cannot be read now, the bound of a gap is a wider one; the next tick says what is wrong.
        let _ = self.table.note_load();
        self.vitals.recheck();
        self.check_vitals();
    }
}
