//! All drilldowns going on and the flows they have seen in common: one dump and one stream of events feed all of them.
//! A flow is judged and remembered only where its addresses concern one of them.

use std::net::IpAddr;

use jiff::Timestamp;

use crate::drilldown::attribution::{Attribution, Belongs, inside_ends};
use crate::drilldown::scope::Scope;
use crate::drilldown::seen::{FLOWS_MAX, Place, SeenFlows, Sight};
use crate::drilldown::shares::KnownHosts;
use crate::drilldown::verdict::{Findings, Verdict};
use crate::drilldown::{AccountEnd, Bracket, Drilldown, Judged, free_slot, nanoseconds};
use crate::kernel::conntrack::FlowRecord;
use crate::kernel::routes::Path;
use crate::units::Volume;

/// Tells by which devices the ends of a flow are reached.
pub type PathOf<'a> = &'a mut dyn FnMut(IpAddr, IpAddr) -> Path;

/// All drilldowns going on.
#[derive(Debug)]
pub struct DrilldownSet {
    seen: SeenFlows,
    drilldowns: Vec<Drilldown>,
    /// What each drilldown makes of the flow at hand, in their order.
    attributions: Vec<Attribution>,
}

impl Default for DrilldownSet {
    fn default() -> Self {
        DrilldownSet {
            seen: SeenFlows::new(FLOWS_MAX),
            drilldowns: Vec::new(),
            attributions: Vec::new(),
        }
    }
}

impl DrilldownSet {
    /// Goes on with one more; its first dump is the next one that begins.
    pub fn begin(&mut self, mut drilldown: Drilldown) {
        drilldown.slot = free_slot(self.drilldowns.iter());
        if let Some(slot) = drilldown.slot {
            self.seen.clear_slot(slot);
        }
        self.drilldowns.push(drilldown);
    }

    /// All of them.
    pub fn drilldowns(&mut self) -> impl Iterator<Item = &mut Drilldown> {
        self.drilldowns.iter_mut()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.drilldowns.is_empty()
    }

    /// The one with that id.
    pub fn get_mut(&mut self, id: &str) -> Option<&mut Drilldown> {
        self.drilldowns
            .iter_mut()
            .find(|drilldown| drilldown.id() == id)
    }

    /// Whether the one with that id would go on just as it does in that scope.
    pub fn is_about(&self, id: &str, scope: &Scope) -> bool {
        let mut named = self
            .drilldowns
            .iter()
            .filter(|drilldown| drilldown.id() == id);
        named.all(|drilldown| drilldown.scope().judges_as(scope))
    }

    /// Forgets one; with the last one all flows are forgotten.
    pub fn discard(&mut self, id: &str) {
        self.drilldowns.retain(|drilldown| drilldown.id() != id);
        if self.drilldowns.is_empty() {
            self.seen = SeenFlows::new(FLOWS_MAX);
        }
    }

    /// Flows remembered.
    pub fn flows_seen(&self) -> usize {
        self.seen.len()
    }

    /// Whether births must be heard: what belongs is told by labels, and ends are told without them.
    pub fn needs_births(&self) -> bool {
        self.drilldowns
            .iter()
            .any(|drilldown| drilldown.scope().needs_labels())
    }

    /// The one inside address that all flows asked for have, where there is one.
    pub fn only_address(&self) -> Option<IpAddr> {
        let mut addresses = self
            .drilldowns
            .iter()
            .map(|drilldown| drilldown.scope().only_address());
        let first = addresses.next()??;
        addresses.all(|other| other == Some(first)).then_some(first)
    }

    /// A dump begins at `wall`. One that was begun and never ended is given up; what it showed stays known.
    pub fn begin_dump(&mut self, wall: Timestamp) {
        self.seen.begin_dump(nanoseconds(wall));
        self.drilldowns.iter_mut().for_each(Drilldown::begin_dump);
    }

    /// Takes one flow of the dump going on, whether it belongs or not.
    pub fn absorb(&mut self, record: &FlowRecord, path_of: PathOf<'_>) {
        if self.concerns(record) {
            let sight = self.seen.see(record);
            self.judge(record, sight, false, path_of);
        }
    }

    /// Takes a flow's end from an event, with its last counts.
    pub fn absorb_end(&mut self, record: &FlowRecord, path_of: PathOf<'_>) {
        if self.concerns(record) {
            let sight = self.seen.see_end(record);
            self.judge(record, sight, true, path_of);
        }
    }

    /// Takes a flow's birth from an event: its end will be told without labels.
    pub fn absorb_birth(&mut self, record: &FlowRecord) {
        if !self.concerns(record) {
            return;
        }
        let place = self.seen.see_birth(record);
        if let Some((place, labels)) = place.zip(record.labels) {
            self.seen.remember_labels(place, labels, false);
        }
    }

    /// The dump going on showed every flow; `brackets` are what each drilldown's counter had counted around it.
    pub fn end_dump(&mut self, bracket_of: impl Fn(&str) -> Bracket) {
        self.seen.end_dump();
        for drilldown in &mut self.drilldowns {
            let bracket = bracket_of(drilldown.id());
            drilldown.end_dump(bracket);
        }
    }

    /// What the drilldown knows, where `counted` is what its counter has counted since the account began.
    pub fn findings(
        &self,
        id: &str,
        counted: Option<Volume>,
        known: &dyn KnownHosts,
    ) -> Option<Findings> {
        let drilldown = self
            .drilldowns
            .iter()
            .find(|drilldown| drilldown.id() == id)?;
        Some(drilldown.findings(counted, known, &self.seen).0)
    }

    /// Ends one with its answer.
    pub fn finish(&mut self, id: &str, end: AccountEnd, known: &dyn KnownHosts) -> Option<Verdict> {
        let position = self
            .drilldowns
            .iter()
            .position(|drilldown| drilldown.id() == id)?;
        let drilldown = self.drilldowns.remove(position);
        let verdict = drilldown.verdict(end, known, &self.seen);
        self.discard(id);
        Some(verdict)
    }

    /// Whether any drilldown may want the flow; what each makes of it is kept for `judge`.
    fn concerns(&mut self, record: &FlowRecord) -> bool {
        let attribute = |drilldown: &Drilldown| drilldown.scope().attribute(record);
        self.attributions.clear();
        self.attributions
            .extend(self.drilldowns.iter().map(attribute));
        self.attributions
            .iter()
            .any(|of| *of != Attribution::Foreign)
    }

    fn judge(&mut self, record: &FlowRecord, sight: Sight, ended: bool, path_of: PathOf<'_>) {
        let place = place_of(sight);
        if let Some((place, labels)) = place.zip(record.labels) {
            self.seen.remember_labels(place, labels, false);
        }
        for (drilldown, attribution) in self.drilldowns.iter_mut().zip(&self.attributions) {
            let belongs = match attribution {
                Attribution::Foreign => None,
                Attribution::Belongs(belongs) => Some(*belongs),
                Attribution::Unlabelled => {
                    judge_unlabelled(drilldown, record, place, &mut self.seen, path_of)
                }
            };
            if let Some(belongs) = belongs {
                let judged = Judged {
                    sight,
                    belongs,
                    ended,
                };
                drilldown.take(record, judged, &mut self.seen);
            }
        }
    }
}

/// By the labels that the flow had before, else by its routes, which are asked once.
fn judge_unlabelled(
    drilldown: &Drilldown,
    record: &FlowRecord,
    place: Option<Place>,
    seen: &mut SeenFlows,
    path_of: PathOf<'_>,
) -> Option<Belongs> {
    let scope = drilldown.scope();
    let (labels, by_route) = match place.and_then(|place| seen.labels(place)) {
        Some(known) => known,
        None => {
            let (opener, peer) = inside_ends(record);
            let labels = scope.labels_of(&path_of(opener, peer));
            if let Some(place) = place {
                seen.remember_labels(place, labels, true);
            }
            (labels, true)
        }
    };
    let labelled = FlowRecord {
        labels: Some(labels),
        ..*record
    };
    match scope.attribute(&labelled) {
        Attribution::Belongs(belongs) => Some(Belongs {
            approximate: belongs.approximate || by_route,
            ..belongs
        }),
        Attribution::Foreign | Attribution::Unlabelled => None,
    }
}

fn place_of(sight: Sight) -> Option<Place> {
    match sight {
        Sight::New { place } => place,
        Sight::Known { place, .. } => Some(place),
        Sight::Repeated => None,
    }
}
