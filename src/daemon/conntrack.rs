//! Conntrack as the thread that follows flows has it: dumps and events, and the routes for flows without labels.
//! It carries what the kernel tells into the drilldowns, and keeps account of what it cost and what went wrong.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;

use super::clock;
use crate::drilldown::set::DrilldownSet;
use crate::kernel::conntrack::FlowRecord;
use crate::kernel::error::KernelError;
use crate::kernel::flow_events::{FlowEvent, FlowEvents, Heard, Told};
use crate::kernel::flows::Flows;
use crate::kernel::routes::{Path, Routes};

/// Other programs that delete flows and are told apart; a script may start a new one for each flow.
const PROGRAMS_MAX: usize = 4;
/// How the others are called.
const MANY: &str = "other programs";

/// Open while drilldowns go on.
pub struct Conntrack {
    flows: Flows,
    /// `None` where events cannot be heard.
    events: Option<FlowEvents>,
    routes: Routes,
    programs_by_port: BTreeMap<u32, String>,
}

/// What came of listening.
#[derive(Debug, Default)]
pub struct Listened {
    /// Events were lost so many times.
    pub overruns: u64,
    /// Flows that other programs deleted, by program.
    pub deleted_by_program: BTreeMap<String, u64>,
    /// A route could not be asked for.
    pub routes_error: Option<KernelError>,
    /// Events cannot be heard any more.
    pub events_error: Option<KernelError>,
}

/// What events and dumps are carried into, and what came of it.
struct Carrier<'a> {
    set: &'a mut DrilldownSet,
    routes: &'a mut Routes,
    programs_by_port: &'a mut BTreeMap<u32, String>,
    listened: Listened,
}

impl Conntrack {
    /// In the network namespace of the calling thread.
    pub fn open() -> Result<Self, KernelError> {
        Ok(Conntrack {
            flows: Flows::open()?,
            events: None,
            routes: Routes::open()?,
            programs_by_port: BTreeMap::new(),
        })
    }

    /// Listens to what the drilldowns need to hear.
    pub fn listen_for(&mut self, set: &DrilldownSet) -> Result<(), KernelError> {
        let births = set.needs_births();
        match &mut self.events {
            Some(events) => events.listen_to_births(births),
            None => {
                self.events = Some(FlowEvents::open(births)?);
                Ok(())
            }
        }
    }

    /// Whether events can be heard.
    pub fn listens(&self) -> bool {
        self.events.is_some()
    }

    /// Routes and devices have changed, or may have.
    pub fn forget_routes(&mut self) {
        self.routes.forget();
    }

    /// Carries all events that wait into the drilldowns.
    pub fn drain(&mut self, set: &mut DrilldownSet) -> Listened {
        let mut carrier = Carrier {
            set,
            routes: &mut self.routes,
            programs_by_port: &mut self.programs_by_port,
            listened: Listened::default(),
        };
        carrier.drain(&mut self.events);
        carrier.listened
    }

    /// One dump for all drilldowns, with the events that come meanwhile. Flows without labels are judged by routes.
    pub fn dump(&mut self, set: &mut DrilldownSet) -> (Result<(), KernelError>, Listened) {
        self.routes.forget_indexes();
        set.begin_dump(clock::wall());
        let only = set.only_address();
        let carrier = RefCell::new(Carrier {
            set,
            routes: &mut self.routes,
            programs_by_port: &mut self.programs_by_port,
            listened: Listened::default(),
        });
        let events = &mut self.events;
        let each = |record: &FlowRecord| carrier.borrow_mut().flow(record);
        let between = || carrier.borrow_mut().drain(events);
        let dumped = match only {
            Some(address) => self.flows.dump_of(address, each, between),
            None => self.flows.dump(each, between),
        };
        // A dump itself ends flows whose time is over, and shows them no more: what they moved last is in their events.
        let mut carrier = carrier.into_inner();
        carrier.drain(&mut self.events);
        (dumped, carrier.listened)
    }
}

impl Carrier<'_> {
    fn flow(&mut self, record: &FlowRecord) {
        let (routes, error) = (&mut *self.routes, &mut self.listened.routes_error);
        self.set.absorb(record, &mut |opener, peer| {
            path(routes, error, opener, peer)
        });
    }

    fn drain(&mut self, events: &mut Option<FlowEvents>) {
        let Some(listening) = events else {
            return;
        };
        loop {
            match listening.next() {
                Ok(Heard::Nothing) => return,
                Ok(Heard::Lost) => self.listened.overruns += 1,
                Ok(Heard::Told(told)) => self.event(&told),
                Err(error) => {
                    self.listened.events_error = Some(error);
                    *events = None;
                    return;
                }
            }
        }
    }

    fn event(&mut self, told: &Told) {
        match &told.event {
            FlowEvent::Born(record) => self.set.absorb_birth(record),
            FlowEvent::Ended(record) => {
                let (routes, error) = (&mut *self.routes, &mut self.listened.routes_error);
                self.set.absorb_end(record, &mut |opener, peer| {
                    path(routes, error, opener, peer)
                });
                if told.by != 0 {
                    self.note_deleted(told.by);
                }
            }
        }
    }

    fn note_deleted(&mut self, port: u32) {
        let program = match self.programs_by_port.get(&port) {
            Some(program) => program.clone(),
            None if self.programs_by_port.len() < PROGRAMS_MAX => {
                let program = program(port);
                self.programs_by_port.insert(port, program.clone());
                program
            }
            None => MANY.to_owned(),
        };
        *self.listened.deleted_by_program.entry(program).or_default() += 1;
    }
}

/// `conntrack (process 4711)`: a program's first netlink socket has its process id as port. It may be gone by now.
fn program(port: u32) -> String {
    match fs::read_to_string(format!("/proc/{port}/comm")) {
        Ok(name) => format!("{} (process {port})", printable(name.trim())),
        Err(_) => format!("another program (netlink port {port})"),
    }
}

/// A process may give itself any name.
fn printable(name: &str) -> String {
    let plain = |character: char| character.is_ascii_graphic();
    name.chars()
        .map(|c| if plain(c) { c } else { '_' })
        .collect()
}

fn path(
    routes: &mut Routes,
    failed: &mut Option<KernelError>,
    opener: IpAddr,
    peer: IpAddr,
) -> Option<Path> {
    let path = routes.path(opener, peer);
    path.map_err(|error| *failed = Some(error)).ok()
}
