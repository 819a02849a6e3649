//! All drilldowns going on and the flows they have seen in common: one dump and one stream of events feed all of them.
//! A flow is judged and remembered only where its addresses concern one of them.

use std::net::IpAddr;

use jiff::Timestamp;

use crate::drilldown::attribution::{Attribution, Belongs, inside_ends};
use crate::drilldown::labels::Remembered;
use crate::drilldown::scope::Scope;
use crate::drilldown::seen::{FLOWS_MAX, Place, SeenFlows, Sight};
use crate::drilldown::shares::KnownHosts;
use crate::drilldown::verdict::{Findings, Verdict};
use crate::drilldown::{AccountEnd, Bracket, Drilldown, Judged, free_slot, nanoseconds};
use crate::kernel::conntrack::FlowRecord;
use crate::kernel::routes::Path;
use crate::units::Volume;

/// Tells by which devices the ends of a flow are reached; `None` where that cannot be asked now.
pub type PathOf<'a> = &'a mut dyn FnMut(IpAddr, IpAddr) -> Option<Path>;

/// Drilldowns with views of full size, some 3 MiB each; those beyond have an eighth of it.
const LARGE_MAX: usize = 8;

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
        if self.drilldowns.len() >= LARGE_MAX {
            drilldown.keep_less();
        }
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
        self.get(id)
            .is_none_or(|drilldown| drilldown.scope().judges_as(scope))
    }

    fn get(&self, id: &str) -> Option<&Drilldown> {
        self.drilldowns
            .iter()
            .find(|drilldown| drilldown.id() == id)
    }

    /// One goes on in another scope: its counter has other prefixes, or the router other addresses.
    pub fn go_on(&mut self, id: &str, scope: Scope) {
        let Some(drilldown) = self.get_mut(id) else {
            return;
        };
        let relabelled = drilldown.scope().our_labels != scope.our_labels;
        drilldown.go_on(scope);
        if relabelled {
            self.seen.forget_labels(|_| true);
        }
    }

    /// Routes, devices or interfaces may be others: what was judged by them is judged anew.
    pub fn forget_routes(&mut self) {
        self.seen.forget_labels(Remembered::is_by_route);
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
        self.remember(place, record);
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
        let drilldown = self.get(id)?;
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

    /// Labels that are not ours tell nothing.
    fn remember(&mut self, place: Option<Place>, record: &FlowRecord) {
        let Some(place) = place.filter(|_| record.labels.is_some()) else {
            return;
        };
        let scopes = self.drilldowns.iter().map(Drilldown::scope);
        let labels = scopes.fold(0, |all, scope| all | scope.labels_on(record));
        if labels != 0 {
            self.seen.remember_labels(place, labels, false);
        }
    }

    fn judge(&mut self, record: &FlowRecord, sight: Sight, ended: bool, path_of: PathOf<'_>) {
        let place = sight.place();
        self.remember(place, record);
        for (drilldown, attribution) in self.drilldowns.iter_mut().zip(&self.attributions) {
            let belongs = match attribution {
                Attribution::Foreign => None,
                Attribution::Belongs(belongs) => Some((*belongs, false)),
                Attribution::Unlabelled => {
                    judge_unlabelled(drilldown, record, place, &mut self.seen, path_of)
                }
            };
            if let Some((belongs, by_route)) = belongs {
                let judged = Judged {
                    sight,
                    belongs,
                    by_route,
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
) -> Option<(Belongs, bool)> {
    let scope = drilldown.scope();
    let (attribution, by_route) = match place.and_then(|place| seen.labels(place)) {
        Some((labels, by_route)) => {
            // What is remembered means what it says, however old the flow.
            let labelled = FlowRecord {
                labels: Some(labels),
                start: None,
                ..*record
            };
            (scope.attribute(&labelled), by_route)
        }
        None => {
            let (opener, peer) = inside_ends(record);
            let path = path_of(opener, peer)?;
            if let Some(place) = place {
                seen.remember_labels(place, scope.labels_of(&path), true);
            }
            (scope.attribute_by_path(record, &path), true)
        }
    };
    let Attribution::Belongs(belongs) = attribution else {
        return None;
    };
    let approximate = belongs.approximate || by_route;
    Some((
        Belongs {
            approximate,
            ..belongs
        },
        by_route,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Format, parse};
    use crate::drilldown::rank::RankBy;
    use crate::drilldown::tally::tests::record;
    use crate::drilldown::{AccountStart, nanoseconds};
    use crate::units::{CounterName, DeviceName, Uptime};

    const CONFIG: &str = "drilldown.label_base = 64\ninterfaces.wan.device = \"ppp0\"";
    /// Of the account's beginning, in the wall's nanoseconds.
    const START: u64 = 1_795_410_000_000_000_000;

    fn set() -> DrilldownSet {
        let config = parse(CONFIG, Format::Toml).unwrap();
        let counter = config.counter(&CounterName::new("wan_out").unwrap());
        let scope = Scope::new(&config, counter.unwrap(), &[]);
        let wall = Timestamp::from_nanosecond(START.into()).unwrap();
        let start = AccountStart {
            at: Uptime::default(),
            wall,
            quiet_since: wall,
            capacity: None,
            top: 10,
            rank_by: RankBy::Bytes,
        };
        let mut set = DrilldownSet::default();
        set.begin(Drilldown::new("d".to_owned(), None, scope, start));
        set.begin_dump(wall);
        set
    }

    fn flow(labels: Option<u128>, start: u64, bytes: u64) -> FlowRecord {
        FlowRecord {
            labels,
            start: Some(start),
            original_volume: Some(Volume { bytes, packets: 1 }),
            ..record("10.0.0.1", 1_000)
        }
    }

    fn by_wan(_: IpAddr, _: IpAddr) -> Option<Path> {
        Some(Path {
            opener: None,
            peer: Some(DeviceName::new("ppp0").unwrap()),
        })
    }

    fn moved(set: &DrilldownSet) -> u64 {
        set.drilldowns[0].tally.moved().bytes
    }

    #[test]
    fn labels_of_others_tell_nothing_and_routes_are_asked() {
        let mut set = set();
        set.absorb(&flow(Some(1), START + 1, 70), &mut by_wan);
        set.absorb(&flow(Some(1), START + 1, 90), &mut |_, _| None);
        assert_eq!(moved(&set), 90);
    }

    #[test]
    fn a_flow_is_judged_when_routes_can_be_asked_again() {
        let mut set = set();
        set.absorb(&flow(None, START + 1, 70), &mut |_, _| None);
        assert_eq!(moved(&set), 0);
        set.absorb(&flow(None, START + 1, 90), &mut by_wan);
        assert_eq!(moved(&set), 20);
        set.forget_routes();
        set.absorb(
            &flow(None, START + 1, 95),
            &mut |_, _| Some(Path::default()),
        );
        assert_eq!(moved(&set), 20);
    }

    #[test]
    fn what_begins_after_the_account_is_not_in_it() {
        let mut set = set();
        let end = Timestamp::from_nanosecond((START + 100).into()).unwrap();
        assert_eq!(nanoseconds(end), START + 100);
        set.get_mut("d").unwrap().close(end);
        set.absorb(&flow(None, START + 101, 70), &mut by_wan);
        assert_eq!(moved(&set), 0);
        let mut within = flow(None, START + 100, 70);
        within.id = 2;
        set.absorb(&within, &mut by_wan);
        assert_eq!(moved(&set), 70);
    }
}
