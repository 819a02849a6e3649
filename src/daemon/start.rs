//! How a daemon comes up: takes the lock, remembers, catches up with what the kernel counted meanwhile, installs,
//! and only then answers anyone. What fails here leaves nothing behind.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use super::collector::Collector;
use super::identity::Identity;
use super::ledger::Ledger;
use super::lock::InstanceLock;
use super::schedule::Schedule;
use super::shell::Shell;
use super::sinks::Sinks;
use super::table::Table;
use super::vitals::Vitals;
use super::watcher::Watcher;
use super::{Daemon, DaemonError, Options, clock, never};
use crate::config::Config;
use crate::engine::Engine;
use crate::event::Event;
use crate::kernel::facts;
use crate::kernel::nftables::Nftables;
use crate::meter::Meter;
use crate::plan;
use crate::sink::socket;
use crate::sink::state::{self, Saved, StateError};
use crate::units::Uptime;

/// Messages that may wait for the loop; those that wait for it are told so, or wait themselves.
const INBOX: usize = 256;

impl Daemon {
    /// Everything up to and including the first reading.
    pub fn start(options: Options) -> Result<Daemon, DaemonError> {
        let config = options.config;
        let system = |operation| move |source| DaemonError::System { operation, source };
        let lock = InstanceLock::take()?;
        let identity =
            Identity::here().map_err(system("tell this network namespace from others"))?;
        // Before anything is made, so that a missing privilege or a foreign table leaves no trace.
        let (mut table, found) = Table::open(plan::compile(&config))?;
        make_state_dir(&options.state_dir)?;
        let (listener, socket_file) = socket::bind(&options.socket)?;
        let (saved, mut notes) = load(&options.state_dir, options.notes)?;

        let (sender, inbox) = sync_channel(INBOX);
        let watcher = Watcher::start(&config.table.name, table.port(), sender.clone())?;
        let mut ledger = Ledger::new(saved.clone(), &identity, &config.table.name, found.as_ref());
        catch_up(&mut table, &mut ledger, &config, found.is_some())?;
        retire_old_table(
            table.nftables(),
            saved.as_ref(),
            &config,
            &mut ledger,
            &identity,
        )?;
        table.install()?;
        let names = config
            .counters
            .iter()
            .map(|counter| (counter.name.clone(), ledger.carried(&counter.name)));
        let mut meter = Meter::new(names.collect::<Vec<_>>());
        let reading = table.read(&mut meter, 0)?;
        let mut engine = Engine::new(Arc::clone(&config), reading.tick);
        let first = engine.observe(reading.tick, &meter);

        let collector = Collector::start(Arc::clone(&config), sender.clone())
            .map_err(system("start the thread that follows flows"))?;
        let sinks = Sinks::start(
            &options.state_dir,
            config.log.clone(),
            options.announce,
            sender.clone(),
        )
        .map_err(system("start the thread that writes"))?;
        let shell = Shell::start(
            listener,
            options.reports.subscribe(),
            sender.clone(),
            options.signals,
        )
        .map_err(system("start the thread that answers"))?;
        let mut daemon = Daemon {
            schedule: Schedule::new(config.tick, clock::monotonic()),
            config,
            source: options.source,
            identity,
            inbox,
            sender,
            table,
            meter,
            engine,
            ledger,
            sequence: 0,
            last_reading: never(reading.tick),
            repairs: 0,
            started: clock::uptime(),
            saved_at: Uptime::default(),
            saved_durably_at: Uptime::default(),
            vitals: Vitals::default(),
            reports: options.reports,
            collector,
            sinks,
            shell,
            watcher,
            _socket: socket_file,
            _lock: lock,
        };
        daemon.last_reading = reading;
        notes.extend(daemon.prepare_conntrack());
        let counters = daemon.config.counters.len();
        daemon.log(Event::Started {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            counters,
            notes,
        });
        daemon.carry_out(first);
        daemon.check_vitals();
        daemon.publish();
        daemon.save(true);
        Ok(daemon)
    }

    /// Sets what a drilldown needs of conntrack, where one is asked for and where it may; says what it did.
    pub(super) fn prepare_conntrack(&mut self) -> Vec<String> {
        if !self.config.wants_conntrack() {
            return Vec::new();
        }
        let mut notes =
            vec!["a threshold asks for a drilldown: connection tracking is on".to_owned()];
        for (name, wanted) in facts::NEEDED_SYSCTLS {
            let Some(found) = facts::conntrack(name) else {
                continue;
            };
            if found.to_string() == wanted {
                continue;
            }
            // Where it may not be written, the health check says what to do.
            if facts::set_conntrack(name, wanted).is_ok() {
                self.ledger
                    .sysctls
                    .entry(name.to_owned())
                    .or_insert(found.to_string());
                notes.push(format!(
                    "set net.netfilter.nf_conntrack_{name} = {wanted} (was {found})"
                ));
            }
        }
        notes
    }
}

fn make_state_dir(path: &Path) -> Result<(), DaemonError> {
    let made = DirBuilder::new().recursive(true).mode(0o750).create(path);
    let usable = made.and_then(|()| tempfile::tempfile_in(path).map(drop));
    usable.map_err(|source: io::Error| DaemonError::StateDir {
        path: path.to_owned(),
        source,
    })
}

/// What was saved, and with the `notes` so far what is worth saying about it.
fn load(
    state_dir: &Path,
    mut notes: Vec<String>,
) -> Result<(Option<Saved>, Vec<String>), DaemonError> {
    match state::load(state_dir) {
        Ok(saved) => Ok((saved, notes)),
        Err(error @ StateError::Unreadable { .. }) => {
            notes.push(error.to_string());
            Ok((None, notes))
        }
        Err(error @ StateError::Io { .. }) => Err(DaemonError::StateDir {
            path: state_dir.to_owned(),
            source: io::Error::other(error.to_string()),
        }),
    }
}

/// Takes into the ledger what the table's counters counted while no daemon ran.
fn catch_up(
    table: &mut Table,
    ledger: &mut Ledger,
    config: &Config,
    exists: bool,
) -> Result<(), DaemonError> {
    if !exists {
        return Ok(());
    }
    let mut names: Vec<_> = config
        .counters
        .iter()
        .map(|counter| counter.name.clone())
        .collect();
    names.extend(
        ledger
            .names()
            .filter(|name| config.counter(name).is_none())
            .cloned(),
    );
    let mut meter = Meter::new(names.into_iter().map(|name| {
        let carried = ledger.carried(&name);
        (name, carried)
    }));
    table.read(&mut meter, 0)?;
    ledger.remember(&meter);
    let unread = meter
        .counters()
        .iter()
        .filter(|counter| counter.read_at.is_none());
    let unread: Vec<_> = unread.map(|counter| counter.name.clone()).collect();
    ledger.forget_kernel_values(|name| unread.contains(name) || config.counter(name).is_none());
    Ok(())
}

/// The configuration names another table than the last run's: that one is read a last time and taken away.
fn retire_old_table(
    nftables: &mut Nftables,
    saved: Option<&Saved>,
    config: &Config,
    ledger: &mut Ledger,
    identity: &Identity,
) -> Result<(), DaemonError> {
    let Some(saved) = saved.filter(|saved| saved.table != config.table.name) else {
        return Ok(());
    };
    let Ok(Some(old)) = nftables.own_table(&saved.table) else {
        return Ok(());
    };
    let mut before = Ledger::new(Some(saved.clone()), identity, &saved.table, Some(&old));
    let names: Vec<_> = before.names().cloned().collect();
    let mut meter = Meter::new(names.into_iter().map(|name| {
        let carried = before.carried(&name);
        (name, carried)
    }));
    meter.begin();
    let now = clock::uptime();
    nftables.counters(&saved.table, |record| meter.record(record, now))?;
    meter.end();
    before.remember(&meter);
    before.forget_kernel_values(|_| true);
    nftables.remove(&saved.table)?;
    *ledger = before;
    Ok(())
}
