//! How a daemon comes up: takes the locks, remembers, installs, and only then answers anyone. What fails here leaves
//! nothing behind.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

use super::collector::Collector;
use super::demands::Askers;
use super::follow::Surroundings;
use super::ledger::Ledger;
use super::lock::InstanceLock;
use super::lookout::Lookout;
use super::memory::{Recalled, recall, recall_static};
use super::presence::Presence;
use super::reload::Loading;
use super::schedule::Schedule;
use super::service::Notifier;
use super::sinks::Sinks;
use super::state_dir::StateDir;
use super::static_table::StaticTable;
use super::table::Table;
use super::vitals::Vitals;
use super::watcher::Watcher;
use super::{Daemon, DaemonError, Message, Options, clock, keep, shell};
use crate::config::Config;
use crate::engine::{Engine, reset_events};
use crate::event::Event;
use crate::interfaces::InterfaceWatch;
use crate::kernel::facts;
use crate::kernel::nft::{Protection, TableInfo};
use crate::kernel::nftables::Nftables;
use crate::meter::Meter;
use crate::plan;
use crate::sink::socket;
use crate::units::Uptime;

/// Messages that may wait for the loop; those that wait for it are told so, or wait themselves.
const INBOX: usize = 256;

/// A table that counts, and all that is known of it and around it.
struct InForce {
    config: Arc<Config>,
    table: Table,
    ledger: Ledger,
    surroundings: Surroundings,
    lookout: Lookout,
    watcher: Watcher,
    /// What was found to have happened since the last run.
    events: Vec<Event>,
    /// The table of the last run, if that had another name: all it counted is in the ledger.
    retired: Option<String>,
    notes: Vec<String>,
}

/// Remembers, catches up, and installs.
fn put_in_force(
    options: &mut Options,
    mut table: Table,
    found: Option<&TableInfo>,
    state_dir: &StateDir,
    sender: &SyncSender<Message>,
) -> Result<InForce, DaemonError> {
    let Recalled {
        mut ledger,
        gap,
        reset,
        retired,
        notes,
    } = match table.is_static() {
        true => recall_static(state_dir, table.nftables(), &options.config)?,
        false => recall(state_dir, table.nftables(), found, &mut options.config)?,
    };
    options.config.labelled_since = ledger.labelled_since();
    let (lookout, network) = Lookout::start(sender.clone())?;
    let surroundings = Surroundings::new(network);
    let config = Arc::new(options.config.resolved(&surroundings.connected));
    // Before the table is installed: what others do to it from then on is heard.
    let watcher = Watcher::start(&config.table.name, table.port(), sender.clone())?;
    let installed = table.install(plan::compile(&config))?;
    let mut gap = gap.map(|(from, cause)| (from, cause, ledger.moved_since(table.moved())));
    if found.is_some() && installed.remade {
        ledger.forget_kernel_values(|_| true);
        let cause = "the table was made anew to be protected";
        gap.get_or_insert((installed.since, cause, installed.moved));
    }
    let gap = gap.map(|(from, cause, bound_bytes)| Event::Gap {
        from,
        to: clock::wall(),
        bound_bytes,
        cause: cause.to_owned(),
    });
    let mut events = reset_events(reset.iter());
    events.extend(gap);
    let notes = options.notes.drain(..).chain(notes).collect();
    Ok(InForce {
        config,
        table,
        ledger,
        surroundings,
        lookout,
        watcher,
        events,
        retired,
        notes,
    })
}

impl Daemon {
    /// Everything up to and including the first reading.
    pub fn start(mut options: Options) -> Result<Daemon, DaemonError> {
        let lock = InstanceLock::take()?;
        // Before anything is made, so that a missing privilege or a foreign table leaves no trace.
        let name = options.config.table.name.clone();
        let handed = std::mem::take(&mut options.handed);
        let kept = keep::take_up(handed, &options.config.table, &options.service)?;
        options.notes.extend(kept.note);
        let is_kept = kept.nftables.is_some();
        let (table, found) = Table::open(&options.config.table, kept.nftables)?;
        if table.is_static() {
            let configured = options.config.table.is_static;
            let note = StaticTable::note(&name, configured, found.as_ref());
            options.notes.push(note);
            // Found so, it is so for this run.
            options.config.table.is_static = true;
        }
        let state_dir = StateDir::open(&options.state_dir)?;
        // Opened while that is possible: what fails may be for want of descriptors.
        let makes = found.is_none() && !table.is_static();
        let undo = makes.then(Nftables::open).transpose()?;
        let started = Daemon::on(options, table, found.as_ref(), state_dir, lock);
        match started {
            Ok(mut daemon) => {
                daemon.have_kept(is_kept);
                Ok(daemon)
            }
            Err(error) => {
                if let Some(mut nftables) = undo {
                    // The first error is the one to tell.
                    let _ = nftables.remove(&name);
                }
                Err(error)
            }
        }
    }

    fn on(
        mut options: Options,
        table: Table,
        found: Option<&TableInfo>,
        state_dir: StateDir,
        lock: InstanceLock,
    ) -> Result<Daemon, DaemonError> {
        let thread = |operation| move |source: io::Error| DaemonError::System { operation, source };
        let (listener, socket) = socket::bind(&options.socket)?;
        let shell = shell::Prepared::new(listener, options.signals)
            .map_err(thread("listen for clients and signals"))?;
        let (sender, inbox) = sync_channel(INBOX);
        let InForce {
            config,
            mut table,
            ledger,
            surroundings,
            lookout,
            watcher,
            events,
            retired,
            notes,
        } = put_in_force(&mut options, table, found, &state_dir, &sender)?;
        let names =
            (config.counters.iter()).map(|counter| (counter.name.clone(), ledger.carried(counter)));
        let mut meter = Meter::new(names.collect::<Vec<_>>());
        table.follow(&meter, ledger.last_devices());
        let reading = table.read(&mut meter, 0)?;
        let mut engine = Engine::new(Arc::clone(&config), reading.tick);
        let first = engine.observe(reading.tick, &meter);
        let mut presence = Presence::default();
        presence.reconfigure(&config, &surroundings.network.links);
        let mut interfaces = InterfaceWatch::default();
        interfaces.configure(&config);

        let collector = Collector::start(Arc::clone(&config), sender.clone())
            .map_err(thread("start the thread that follows flows"))?;
        let sinks = Sinks::start(
            state_dir.path(),
            config.log.clone(),
            options.announce,
            options.reports.clone(),
            sender.clone(),
        )
        .map_err(thread("start the thread that writes"))?;
        let seen = options.reports.subscribe();
        let notifier = Notifier::new(options.service, options.watchdog, clock::monotonic());
        let shell = shell
            .start(seen.clone(), sender.clone())
            .map_err(thread("start the thread that answers"))?;
        let mut daemon = Daemon {
            schedule: Schedule::new(config.tick, clock::monotonic()),
            config,
            source: options.source,
            loading: Loading::default(),
            inbox,
            sender,
            table,
            meter,
            engine,
            ledger,
            sequence: 0,
            last_reading: reading,
            last_good: reading.tick,
            repairs: 0,
            started: clock::uptime(),
            saved_durably_at: Uptime::default(),
            vitals: Vitals::default(),
            collector,
            askers: Askers::default(),
            sinks,
            notifier,
            seen,
            shell,
            watcher,
            lookout,
            surroundings,
            presence,
            interfaces,
            _socket: socket,
            _state_dir: state_dir,
            _lock: lock,
        };
        daemon.tell_start(notes, events);
        daemon.carry_out(first);
        daemon.check_vitals();
        daemon.publish_durably();
        if let Some(name) = retired {
            daemon.table.nftables().remove(&name)?;
        }
        Ok(daemon)
    }

    /// Has the socket that owns the table kept over a restart, unless it is kept already.
    fn have_kept(&mut self, is_kept: bool) {
        if self.table.protection() == Protection::Owned && !is_kept {
            self.notifier.keep(self.table.nftables().as_fd());
        }
    }

    /// What a start is worth telling of.
    fn tell_start(&mut self, mut notes: Vec<String>, events: Vec<Event>) {
        notes.extend(self.prepare_conntrack());
        self.log(Event::Started {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            counters: self.config.counters.len(),
            notes,
        });
        let gaps = self.table.take_foreign_gaps();
        let events = events.into_iter().chain(gaps);
        events.for_each(|event| self.log(event));
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
                    .sysctls()
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
