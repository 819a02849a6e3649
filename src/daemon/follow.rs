//! What the loop makes of changes of devices and addresses: subnets that follow devices get their prefixes, in the
//! table, for the thresholds and for drilldowns that go on; devices that were gone and are back leave a gap in the log.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;

use super::lookout::Sighting;
use super::to_its_end::to_its_end;
use super::{Daemon, Message, Trouble, clock};
use crate::config::{Config, Connected, Subnet};
use crate::event::Event;
use crate::kernel::devices::Moved;
use crate::kernel::network::Network;
use crate::plan;
use crate::plan::ruleset::Ruleset;

/// The code of the health entry while prefixes cannot be put in force.
const TROUBLE: &str = "prefixes_not_followed";

/// The network as last seen, and how far the configuration in force goes by it.
pub struct Surroundings {
    /// Devices and addresses.
    pub network: Network,
    /// Bits per second by device index, where there is a speed.
    pub speeds: BTreeMap<u32, f64>,
    /// What follows of them for subnets.
    pub connected: Arc<Connected>,
    /// What the configuration in force was resolved with.
    pub in_force: Arc<Connected>,
    /// When the first change was heard that is not in force yet, and what devices had moved before it.
    changed: Option<(Timestamp, Vec<Moved>)>,
    /// Whether a thread resolves the configuration at the moment.
    resolving: bool,
}

/// A configuration with the prefixes of the moment.
pub struct Resolved {
    /// Made of this one.
    basis: Arc<Config>,
    connected: Arc<Connected>,
    config: Arc<Config>,
    ruleset: Ruleset,
}

impl Surroundings {
    /// In which a configuration is being resolved.
    pub fn new(network: Network) -> Self {
        let connected = Arc::new(Connected::new(&network.links, &network.addresses));
        Surroundings {
            network,
            speeds: BTreeMap::new(),
            in_force: Arc::clone(&connected),
            connected,
            changed: None,
            resolving: false,
        }
    }

    fn own(&self) -> BTreeSet<IpAddr> {
        let addresses = self.network.addresses.iter();
        addresses.map(|address| address.address).collect()
    }
}

impl Daemon {
    /// Takes what was seen when changes had settled.
    pub(super) fn look_around(&mut self, sighting: Sighting) {
        let stirred = self.presence.stirred();
        for gap in self.presence.see(&sighting, clock::wall()) {
            self.log(gap);
        }
        let own = self.surroundings.own();
        let before = std::mem::replace(&mut self.surroundings.network, sighting.network);
        let network = &self.surroundings.network;
        let devices_changed = devices(&before) != devices(network);
        let connected = Connected::new(&network.links, &network.addresses);
        if devices_changed {
            self.interfaces.begin_again();
            self.vitals.recheck();
        }
        if devices_changed || own != self.surroundings.own() {
            self.collector.reconfigure(Arc::clone(&self.config));
        }
        if connected != *self.surroundings.connected {
            self.surroundings.connected = Arc::new(connected);
            self.surroundings.changed = self.surroundings.changed.take().or(stirred);
            self.follow();
        }
    }

    /// Goes over to the prefixes of the moment where the configuration in force has others. They are worked out on a
    /// thread of its own, as that takes a while where there are many counters.
    pub(super) fn follow(&mut self) {
        if self.table.is_static() {
            // Its rules have the prefixes that they were made with.
            return;
        }
        let surroundings = &mut self.surroundings;
        if surroundings.resolving || Arc::ptr_eq(&surroundings.connected, &surroundings.in_force) {
            return;
        }
        let basis = Arc::clone(&self.config);
        let connected = Arc::clone(&surroundings.connected);
        if basis.followed().next().is_none() {
            surroundings.in_force = connected;
            surroundings.changed = None;
            return;
        }
        let sender = self.sender.clone();
        let resolve = move || {
            let config = basis.resolved(&connected);
            Box::new(Resolved {
                ruleset: plan::compile(&config),
                config: Arc::new(config),
                basis,
                connected,
            })
        };
        let resolve = move || {
            let resolved = to_its_end("works prefixes out", resolve);
            // A daemon that has ended meanwhile needs no configuration.
            let _ = sender.send(Message::Resolved(resolved));
        };
        let thread = std::thread::Builder::new().name("resolver".into());
        match thread.spawn(resolve) {
            Ok(_) => self.surroundings.resolving = true,
            Err(error) => self.note_trouble(Trouble {
                code: TROUBLE,
                error: Some(format!("cannot start a thread: {error}")),
            }),
        }
    }

    /// Puts prefixes in force. Counters are not touched, whatever the prefixes; where it fails, the next tick tries
    /// again.
    pub(super) fn carry_over(&mut self, resolved: Result<Box<Resolved>, String>) {
        self.surroundings.resolving = false;
        let resolved = match resolved {
            Ok(resolved) => resolved,
            Err(why) => {
                self.note_trouble(Trouble {
                    code: TROUBLE,
                    error: Some(why),
                });
                return;
            }
        };
        if !Arc::ptr_eq(&resolved.basis, &self.config)
            || !Arc::ptr_eq(&resolved.connected, &self.surroundings.connected)
        {
            // Another configuration, or another change, came between.
            self.follow();
            return;
        }
        let changes = changes(&self.config, &resolved.config);
        let changed = match changes.is_empty() {
            true => Ok(()),
            false => self.change_table(resolved.ruleset),
        };
        self.note_trouble(Trouble {
            code: TROUBLE,
            error: changed.as_ref().err().map(ToString::to_string),
        });
        if changed.is_err() {
            return;
        }
        self.surroundings.in_force = resolved.connected;
        self.config = Arc::clone(&resolved.config);
        self.engine.follow(Arc::clone(&resolved.config));
        self.collector.reconfigure(resolved.config);
        self.tell(changes);
        self.vitals.recheck();
    }

    /// Logs subnets that are not what they were, and once the network of the moment is in force, what packets of new
    /// prefixes may have gone uncounted until then.
    pub(super) fn tell(&mut self, changes: Vec<Event>) {
        if self.table.is_static() {
            return;
        }
        let gains = |change: &Event| matches!(change, Event::Subnet { prefixes, before, .. } if prefixes.iter().any(|prefix| !before.contains(prefix)));
        let gained = changes.iter().any(gains);
        for change in changes {
            self.log(change);
        }
        let surroundings = &mut self.surroundings;
        if !Arc::ptr_eq(&surroundings.in_force, &surroundings.connected) {
            return;
        }
        let changed = surroundings.changed.take();
        if let Some((from, moved)) = changed.filter(|_| gained) {
            let bound_bytes = self.table.moved_since(&moved);
            self.log(Event::Gap {
                from,
                to: clock::wall(),
                bound_bytes,
                cause: "subnets had new prefixes that were not counted yet".to_owned(),
            });
        }
    }
}

/// Names of devices, and whether they are switched on.
fn devices(network: &Network) -> BTreeSet<(&str, bool)> {
    let links = network.links.iter();
    links.map(|link| (link.name.as_str(), link.up)).collect()
}

/// A record for each subnet that follows devices and is not what it was.
pub fn changes(old: &Config, new: &Config) -> Vec<Event> {
    let event = |new: &Subnet| {
        let old = old.subnets.iter().find(|old| old.name == new.name)?;
        let (prefixes, before) = (new.addresses.prefixes(), old.addresses.prefixes());
        (prefixes != before).then(|| Event::Subnet {
            subnet: new.name.clone(),
            prefixes: prefixes.to_vec(),
            before: before.to_vec(),
        })
    };
    new.followed().filter_map(event).collect()
}
