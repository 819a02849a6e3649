//! The flows that drilldowns have seen, in common to all of them: what each counted at its last sight, so that the
//! next sight gives its growth. Compact and bounded: 36 bytes a flow, at most `FLOWS_MAX` of them.

use hashbrown::HashTable;

use crate::drilldown::fingerprint::{Fingerprint, Fingerprints};
use crate::drilldown::flow::{FlowKey, key};
use crate::drilldown::labels::{LabelBook, Remembered};
use crate::kernel::conntrack::FlowRecord;
use crate::units::Volume;

/// Flows kept: 36 MiB and an index of 10 MiB. What is seen beyond that counts when an event tells its end.
pub const FLOWS_MAX: usize = 1 << 20;
/// Complete dumps that may miss a flow before it is forgotten: one that runs while the kernel resizes its table
/// misses flows that live.
const MISSED_MAX: usize = 3;
/// Complete dumps for which a flow may be kept apart from a later one.
const KEPT_APART: usize = MISSED_MAX + 1;
/// Positions looked at from the expected one on, before the index is asked: dumps come in the same order, but for
/// flows that ended.
const LOOK_AHEAD: usize = 4;
/// Drilldowns for which it is known of each flow whether it has moved anything.
pub const SLOTS: u8 = 6;
/// Where the list of free places ends.
const NOWHERE: u32 = u32::MAX;

/// What a flow has done since it was last seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    /// Never seen before.
    New {
        /// Where it is kept; `None` where there is no room.
        place: Option<Place>,
    },
    /// Seen before.
    Known {
        /// Where it is kept.
        place: Place,
        /// Dumps begun since then; 0 is the one going on.
        age: u8,
        /// Of the original direction.
        original: Volume,
        /// Of the reply direction.
        reply: Volume,
        /// Counts that fell: someone zeroed them, and what they show has moved since then.
        zeroed: bool,
    },
    /// Its end was told already.
    Repeated,
}

impl Sight {
    /// Where the flow is kept, if it is.
    pub fn place(self) -> Option<Place> {
        match self {
            Sight::New { place } => place,
            Sight::Known { place, .. } => Some(place),
            Sight::Repeated => None,
        }
    }
}

/// Where a flow is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place(u32);

/// Flows seen.
#[derive(Debug)]
pub struct SeenFlows {
    flows_max: usize,
    flows: Vec<Seen>,
    positions: HashTable<u32>,
    free: u32,
    fingerprints: Fingerprints,
    labels: LabelBook,
    /// Complete dumps until no flow is kept apart from a later one any more.
    apart_for: usize,
    /// Where the dump going on should find its next flow.
    expected: usize,
    dump: u8,
    /// Nanoseconds since 1970.
    dump_began: u64,
    /// The newest first.
    complete: [Option<CompleteDump>; MISSED_MAX],
}

/// A dump that showed every flow.
#[derive(Debug, Clone, Copy)]
struct CompleteDump {
    number: u8,
    /// Nanoseconds since 1970.
    began: u64,
}

impl CompleteDump {
    /// Numbers wrap; a flow that is kept was seen in one of the last few.
    fn is_after(&self, number: u8) -> bool {
        (self.number.wrapping_sub(number) as i8) > 0
    }
}

/// One flow. The kernel's ids and tuples are not kept, only a fingerprint of them.
#[derive(Debug, Clone, Copy)]
struct Seen {
    fingerprint: Fingerprint,
    original_bytes: Bytes48,
    reply_bytes: Bytes48,
    original_packets: u32,
    reply_packets: u32,
    /// Of the start stamp, to tell two flows with one tuple and id apart; 0 where it is not known.
    start: u32,
    /// The dump that saw it last.
    dump: u8,
    marks: Marks,
    labels: Remembered,
}

/// Bit n below `SLOTS`: the flow has moved something for the drilldown in slot n. Above: ENDED, FREE.
#[derive(Debug, Clone, Copy, Default)]
struct Marks(u8);

impl Marks {
    /// Its end was told; a dump that began before may still show it.
    const ENDED: u8 = 1 << SLOTS;
    /// A place for another one; the start is the next such place.
    const FREE: u8 = 2 << SLOTS;

    fn has(self, mark: u8) -> bool {
        self.0 & mark != 0
    }

    fn set(&mut self, mark: u8, on: bool) {
        self.0 = if on { self.0 | mark } else { self.0 & !mark };
    }
}

/// The low 48 bits of a byte count: growth is right while a flow moves less than 128 TiB from sight to sight.
#[derive(Debug, Clone, Copy, Default)]
struct Bytes48([u16; 3]);

impl SeenFlows {
    /// None seen; at most `flows_max` will be kept.
    pub fn new(flows_max: usize) -> Self {
        SeenFlows {
            flows_max: flows_max.min(NOWHERE as usize),
            flows: Vec::new(),
            positions: HashTable::new(),
            free: NOWHERE,
            fingerprints: Fingerprints::default(),
            labels: LabelBook::default(),
            apart_for: 0,
            expected: 0,
            dump: 0,
            dump_began: 0,
            complete: [None; MISSED_MAX],
        }
    }

    /// How many are kept.
    pub fn len(&self) -> usize {
        self.positions.len()
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }

    /// A dump begins at `wall`, nanoseconds since 1970.
    pub fn begin_dump(&mut self, wall: u64) {
        self.dump = self.dump.wrapping_add(1);
        self.dump_began = wall;
        self.expected = 0;
    }

    /// When the first complete dump began that did not show a flow any more; `None` where the last one showed it.
    pub fn missed_since(&self, key: &FlowKey) -> Option<u64> {
        let found = self.find(self.fingerprints.of(key));
        let mut complete = self.complete.iter().flatten().rev();
        let missed = complete.find(|complete| match found {
            Some(position) => complete.is_after(self.flows[position].dump),
            None => true,
        });
        missed.map(|complete| complete.began)
    }

    /// The dump going on showed every flow: those that it and others before did not show have ended.
    pub fn end_dump(&mut self) {
        self.apart_for = self.apart_for.saturating_sub(1);
        self.complete.rotate_right(1);
        self.complete[0] = Some(CompleteDump {
            number: self.dump,
            began: self.dump_began,
        });
        for position in 0..self.flows.len() {
            let seen = &self.flows[position];
            let kept_for = if seen.marks.has(Marks::ENDED) {
                1
            } else {
                MISSED_MAX
            };
            let missed = self.complete.iter().flatten();
            let missed = missed
                .filter(|complete| complete.is_after(seen.dump))
                .count();
            if !seen.marks.has(Marks::FREE) && missed >= kept_for {
                self.forget(position);
            }
        }
    }

    /// Takes a flow as a dump shows it.
    pub fn see(&mut self, record: &FlowRecord) -> Sight {
        let fingerprint = self.fingerprints.of(&key(record));
        let found = self.find_in_order(fingerprint);
        self.take(fingerprint, found, record)
    }

    /// Takes the last counts of a flow that ended.
    pub fn see_end(&mut self, record: &FlowRecord) -> Sight {
        let fingerprint = self.fingerprints.of(&key(record));
        let found = self.find(fingerprint);
        let sight = self.take(fingerprint, found, record);
        if let Some(Place(position)) = sight.place() {
            self.flows[position as usize].marks.set(Marks::ENDED, true);
        }
        sight
    }

    /// Takes a flow's birth: it has no counts yet. What it has moved is known from then on.
    pub fn see_birth(&mut self, record: &FlowRecord) -> Option<Place> {
        let fingerprint = self.fingerprints.of(&key(record));
        let empty = FlowRecord {
            original_volume: None,
            reply_volume: None,
            start: None,
            ..*record
        };
        match self.find(fingerprint) {
            Some(position) if self.flows[position].marks.has(Marks::ENDED) => {
                let fresh = Seen::new(fingerprint, &empty, self.dump);
                self.succeed(position, fresh)
            }
            Some(position) => Some(Place(position as u32)),
            None => self.insert(fingerprint, &empty),
        }
    }

    /// The labels that it was last seen with.
    pub fn labels(&self, place: Place) -> Option<(u128, bool)> {
        self.labels.recall(self.flows[place.0 as usize].labels)
    }

    /// Keeps a flow's labels, for its end is told without; `by_route` where they are what routes say.
    pub fn remember_labels(&mut self, place: Place, labels: u128, by_route: bool) {
        let remembered = self.labels.remember(labels, by_route);
        self.flows[place.0 as usize].labels = remembered;
    }

    /// Forgets the labels that are no longer right.
    pub fn forget_labels(&mut self, wrong: impl Fn(Remembered) -> bool) {
        for seen in self.flows.iter_mut().filter(|seen| wrong(seen.labels)) {
            seen.labels = Remembered::NOTHING;
        }
    }

    /// Notes that a flow moved something for the drilldown in `slot`, below `SLOTS`; true the first time.
    pub fn first_move(&mut self, place: Place, slot: u8) -> bool {
        let marks = &mut self.flows[place.0 as usize].marks;
        let first = !marks.has(1 << slot);
        marks.set(1 << slot, true);
        first
    }

    /// The drilldown in `slot` is another one from now on.
    pub fn clear_slot(&mut self, slot: u8) {
        for seen in &mut self.flows {
            seen.marks.set(1 << slot, false);
        }
    }

    /// Takes counts of a flow. `found` is where its fingerprint was found, if anywhere: there is the flow of that tuple and
    /// id that began last, as far as is known. Others are kept apart from it, by their starts too, for an end may be told
    /// later than the next beginning.
    fn take(
        &mut self,
        fingerprint: Fingerprint,
        found: Option<usize>,
        record: &FlowRecord,
    ) -> Sight {
        let start = start_of(record);
        let is_it = |position: usize| self.flows[position].start == start;
        let may_be_apart = self.apart_for > 0 && start != 0 && !found.is_some_and(is_it);
        let apart = || self.fingerprints.apart(fingerprint, start);
        let found_apart = may_be_apart.then(|| self.find(apart())).flatten();
        let position = match (found_apart, found) {
            (Some(apart), _) => {
                self.apart_for = KEPT_APART;
                apart
            }
            (None, Some(found)) if self.flows[found].is_another(record) => {
                let place = self.take_another(found, apart(), record);
                return Sight::New { place };
            }
            (None, Some(found)) => found,
            (None, None) => {
                let place = self.insert(fingerprint, record);
                return Sight::New { place };
            }
        };
        let dump = self.dump;
        let seen = &mut self.flows[position];
        if seen.marks.has(Marks::ENDED) {
            return Sight::Repeated;
        }
        seen.grow(record, dump, Place(position as u32))
    }

    /// Takes a flow that has the tuple and the id of the one at that position; `None` where there is no room for both.
    fn take_another(
        &mut self,
        position: usize,
        apart: Fingerprint,
        record: &FlowRecord,
    ) -> Option<Place> {
        let last = &self.flows[position];
        if is_before(start_of(record), last.start) {
            self.apart_for = KEPT_APART;
            return self.insert(apart, record);
        }
        let fresh = Seen::new(last.fingerprint, record, self.dump);
        self.succeed(position, fresh)
    }

    /// Puts another flow in the place of one with the same tuple and id, which is kept apart. Where there is no room for
    /// that, one whose end is told goes, and another one stays.
    fn succeed(&mut self, position: usize, fresh: Seen) -> Option<Place> {
        let before = self.flows[position];
        let fingerprint = self.fingerprints.apart(before.fingerprint, before.start);
        let kept = self.keep(Seen {
            fingerprint,
            ..before
        });
        if kept.is_none() && !before.marks.has(Marks::ENDED) {
            return None;
        }
        self.apart_for = KEPT_APART;
        self.flows[position] = fresh;
        Some(Place(position as u32))
    }

    fn insert(&mut self, fingerprint: Fingerprint, record: &FlowRecord) -> Option<Place> {
        self.keep(Seen::new(fingerprint, record, self.dump))
    }

    fn keep(&mut self, fresh: Seen) -> Option<Place> {
        let fingerprint = fresh.fingerprint;
        let position = if self.free != NOWHERE {
            let position = self.free;
            self.free = self.flows[position as usize].start;
            self.flows[position as usize] = fresh;
            position
        } else if self.flows.len() < self.flows_max {
            self.flows.push(fresh);
            (self.flows.len() - 1) as u32
        } else {
            return None;
        };
        let flows = &self.flows;
        self.positions
            .insert_unique(fingerprint.hash(), position, |at| {
                flows[*at as usize].fingerprint.hash()
            });
        Some(Place(position))
    }

    fn forget(&mut self, position: usize) {
        let fingerprint = self.flows[position].fingerprint;
        let entry = self
            .positions
            .find_entry(fingerprint.hash(), |at| *at as usize == position);
        if let Ok(entry) = entry {
            entry.remove();
        }
        let seen = &mut self.flows[position];
        seen.marks = Marks(Marks::FREE);
        seen.start = self.free;
        self.free = position as u32;
    }

    /// As dumps show flows in the same order again, the next one is mostly the next here: memory is read forwards.
    fn find_in_order(&mut self, fingerprint: Fingerprint) -> Option<usize> {
        let window = self.flows.iter().enumerate().skip(self.expected);
        let found = window
            .take(LOOK_AHEAD)
            .find(|(_, seen)| seen.fingerprint == fingerprint && !seen.marks.has(Marks::FREE));
        let position = match found {
            Some((position, _)) => position,
            None => self.find(fingerprint)?,
        };
        self.expected = position + 1;
        Some(position)
    }

    fn find(&self, fingerprint: Fingerprint) -> Option<usize> {
        let found = self.positions.find(fingerprint.hash(), |at| {
            self.flows[*at as usize].fingerprint == fingerprint
        })?;
        Some(*found as usize)
    }
}

impl Seen {
    fn new(fingerprint: Fingerprint, record: &FlowRecord, dump: u8) -> Self {
        let mut seen = Seen {
            fingerprint,
            original_bytes: Bytes48::default(),
            reply_bytes: Bytes48::default(),
            original_packets: 0,
            reply_packets: 0,
            start: start_of(record),
            dump,
            marks: Marks::default(),
            labels: Remembered::NOTHING,
        };
        seen.rebase(record);
        seen
    }

    /// Another flow has got the same tuple and the same id.
    fn is_another(&self, record: &FlowRecord) -> bool {
        let start = start_of(record);
        self.start != 0 && start != 0 && self.start != start
    }

    fn grow(&mut self, record: &FlowRecord, dump: u8, place: Place) -> Sight {
        let age = dump.wrapping_sub(self.dump);
        let (original, original_fell) = growth(
            (self.original_bytes, self.original_packets),
            record.original_volume,
        );
        let (reply, reply_fell) =
            growth((self.reply_bytes, self.reply_packets), record.reply_volume);
        self.rebase(record);
        if self.start == 0 {
            self.start = start_of(record);
        }
        self.dump = dump;
        Sight::Known {
            place,
            age,
            original,
            reply,
            zeroed: original_fell || reply_fell,
        }
    }

    fn rebase(&mut self, record: &FlowRecord) {
        if let Some(now) = record.original_volume {
            self.original_bytes = Bytes48::new(now.bytes);
            self.original_packets = now.packets as u32;
        }
        if let Some(now) = record.reply_volume {
            self.reply_bytes = Bytes48::new(now.bytes);
            self.reply_packets = now.packets as u32;
        }
    }
}

impl Bytes48 {
    fn new(bytes: u64) -> Self {
        Bytes48([bytes as u16, (bytes >> 16) as u16, (bytes >> 32) as u16])
    }

    fn get(self) -> u64 {
        let [low, middle, high] = self.0.map(u64::from);
        low | middle << 16 | high << 32
    }
}

/// What was added to the last counts, and whether they fell: what is shown then has moved since they were zeroed.
fn growth(last: (Bytes48, u32), now: Option<Volume>) -> (Volume, bool) {
    const MASK: u64 = (1 << 48) - 1;
    let Some(now) = now else {
        return (Volume::default(), false);
    };
    let bytes = now.bytes.wrapping_sub(last.0.get()) & MASK;
    if bytes > MASK / 2 {
        return (now, true);
    }
    let packets = (now.packets as u32).wrapping_sub(last.1);
    if packets > u32::MAX / 2 {
        return (now, true);
    }
    let packets = packets.into();
    (Volume { bytes, packets }, false)
}

/// An odd number of steps of 65 us, modulo 78 hours: two flows with the same tuple and id are hardly nearer. 0 where
/// it is not known.
fn start_of(record: &FlowRecord) -> u32 {
    record.start.map_or(0, |start| (start >> 16) as u32 | 1)
}

/// Whether one start is before another, where there are less than 39 hours in between.
fn is_before(start: u32, other: u32) -> bool {
    (start.wrapping_sub(other) as i32) < 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drilldown::tally::tests::record;
    use proptest::prelude::*;

    fn flow(port: u16, start: Option<u64>, bytes: u64) -> FlowRecord {
        FlowRecord {
            start,
            original_volume: Some(Volume { bytes, packets: 1 }),
            reply_volume: None,
            ..record("10.0.0.1", port)
        }
    }

    const START: Option<u64> = Some(1_795_410_000_000_000_000);
    const LATER: Option<u64> = Some(1_795_410_000_500_000_000);
    const LAST: Option<u64> = Some(1_795_410_002_000_000_000);

    fn dump(seen: &mut SeenFlows, records: &[FlowRecord]) -> Vec<Sight> {
        seen.begin_dump(0);
        let sights = records.iter().map(|record| seen.see(record)).collect();
        seen.end_dump();
        sights
    }

    /// What the original direction grew by, and what else the sight says.
    fn grown(sight: Sight) -> Option<(u64, u8, bool)> {
        match sight {
            Sight::Known {
                original,
                age,
                zeroed,
                ..
            } => Some((original.bytes, age, zeroed)),
            Sight::New { .. } | Sight::Repeated => None,
        }
    }

    fn is_new(sight: Sight) -> bool {
        matches!(sight, Sight::New { .. })
    }

    #[test]
    fn a_flow_is_small() {
        assert_eq!(size_of::<Seen>(), 36);
    }

    #[test]
    fn the_next_sight_tells_the_growth_in_whatever_order_flows_come() {
        let mut seen = SeenFlows::new(100);
        let at = |bytes| move |port| flow(port, START, bytes);
        let first: Vec<_> = (0..50).map(at(100)).collect();
        assert!(
            dump(&mut seen, &first)
                .iter()
                .all(|sight| grown(*sight).is_none())
        );
        let mut second: Vec<_> = (0..50).map(at(170)).collect();
        second.rotate_left(20);
        second.swap(3, 40);
        for sight in dump(&mut seen, &second) {
            assert_eq!(grown(sight), Some((70, 1, false)));
        }
        assert_eq!(seen.len(), 50);
    }

    #[test]
    fn a_repeated_delivery_adds_only_what_moved_in_between() {
        let mut seen = SeenFlows::new(10);
        let sights = dump(&mut seen, &[flow(1, START, 10), flow(1, START, 12)]);
        assert_eq!(grown(sights[1]), Some((2, 0, false)));
    }

    #[test]
    fn what_a_dump_still_shows_of_a_flow_that_ended_adds_nothing() {
        let mut seen = SeenFlows::new(10);
        dump(&mut seen, &[flow(1, START, 10)]);
        seen.begin_dump(0);
        assert_eq!(
            grown(seen.see_end(&flow(1, START, 90))),
            Some((80, 1, false))
        );
        assert_eq!(seen.see(&flow(1, START, 50)), Sight::Repeated);
        assert_eq!(seen.see_end(&flow(1, START, 90)), Sight::Repeated);
        seen.end_dump();
        assert_eq!(seen.len(), 1);
        dump(&mut seen, &[]);
        assert!(seen.is_empty());
    }

    #[test]
    fn a_flow_that_began_anew_with_the_same_tuple_counts_from_nothing() {
        let mut seen = SeenFlows::new(10);
        dump(&mut seen, &[flow(1, START, 1_000)]);
        assert!(is_new(dump(&mut seen, &[flow(1, LATER, 1_200)])[0]));
        assert_eq!(
            grown(seen.see(&flow(1, LATER, 1_300))),
            Some((100, 0, false))
        );
        seen.see_end(&flow(1, LATER, 1_300));
        assert!(is_new(seen.see(&flow(1, LAST, 7))));
    }

    #[test]
    fn the_end_of_a_flow_is_its_own_where_another_has_its_tuple_and_id_already() {
        let mut seen = SeenFlows::new(10);
        dump(&mut seen, &[flow(1, START, 1_000)]);
        assert!(is_new(seen.see(&flow(1, LATER, 50))));
        assert_eq!(
            grown(seen.see_end(&flow(1, START, 1_070))),
            Some((70, 0, false))
        );
        assert_eq!(seen.see_end(&flow(1, START, 1_070)), Sight::Repeated);
        let still = dump(&mut seen, &[flow(1, LATER, 90)]);
        assert_eq!(grown(still[0]), Some((40, 1, false)));
        dump(&mut seen, &[flow(1, LATER, 90)]);
        assert_eq!(seen.len(), 1);
    }

    #[test]
    fn an_end_that_is_told_late_of_a_flow_never_seen_is_not_that_of_the_next() {
        let mut seen = SeenFlows::new(10);
        dump(&mut seen, &[flow(1, LATER, 50)]);
        assert!(is_new(seen.see_end(&flow(1, START, 1_000))));
        assert_eq!(seen.see_end(&flow(1, START, 1_000)), Sight::Repeated);
        for bytes in [90, 130] {
            let sights = dump(&mut seen, &[flow(1, LATER, bytes)]);
            assert_eq!(grown(sights[0]), Some((40, 1, false)));
        }
        assert_eq!(seen.len(), 1);
    }

    #[test]
    fn a_birth_has_nothing_of_the_flow_that_had_its_tuple_and_id() {
        let mut seen = SeenFlows::new(10);
        seen.begin_dump(0);
        seen.see_end(&flow(1, START, 1_000));
        seen.see_birth(&flow(1, None, 0));
        assert_eq!(seen.see(&flow(1, START, 900)), Sight::Repeated);
        assert_eq!(grown(seen.see(&flow(1, LATER, 5))), Some((5, 0, false)));
        assert_eq!(seen.see_end(&flow(1, START, 1_000)), Sight::Repeated);
        assert_eq!(grown(seen.see_end(&flow(1, LATER, 7))), Some((2, 0, false)));
    }

    #[test]
    fn a_count_that_fell_was_zeroed_and_what_it_shows_has_moved_since() {
        let mut seen = SeenFlows::new(10);
        dump(&mut seen, &[flow(1, START, 1_000)]);
        assert_eq!(
            grown(dump(&mut seen, &[flow(1, START, 30)])[0]),
            Some((30, 1, true))
        );
        assert_eq!(
            grown(dump(&mut seen, &[flow(1, START, 40)])[0]),
            Some((10, 1, false))
        );
    }

    #[test]
    fn a_birth_keeps_labels_for_the_end_and_growth_begins_at_nothing() {
        let mut seen = SeenFlows::new(10);
        seen.begin_dump(0);
        let place = seen.see_birth(&flow(1, None, 0)).unwrap();
        seen.remember_labels(place, 5 << 64, false);
        let sight = seen.see_end(&flow(1, START, 77));
        assert_eq!(
            (grown(sight), seen.labels(place)),
            (Some((77, 0, false)), Some((5 << 64, false)))
        );
    }

    #[test]
    fn one_dump_that_misses_a_flow_does_not_end_it() {
        let mut seen = SeenFlows::new(10);
        dump(&mut seen, &[flow(1, START, 10)]);
        for _ in 0..2 {
            dump(&mut seen, &[]);
        }
        assert_eq!(
            grown(dump(&mut seen, &[flow(1, START, 15)])[0]),
            Some((5, 3, false))
        );
        for _ in 0..3 {
            dump(&mut seen, &[]);
        }
        assert!(seen.is_empty());
    }

    #[test]
    fn there_is_room_again_when_flows_have_ended() {
        let mut seen = SeenFlows::new(2);
        let all = [1, 2, 3].map(|port| flow(port, START, 1));
        let sights = dump(&mut seen, &all);
        assert_eq!(sights[2], Sight::New { place: None });
        seen.see_end(&all[0]);
        dump(&mut seen, &all[1..2]);
        assert!(matches!(seen.see(&all[2]), Sight::New { place: Some(_) }));
        assert_eq!(seen.len(), 2);
    }

    #[test]
    fn bytes_beyond_what_is_kept_still_grow_rightly() {
        let mut seen = SeenFlows::new(2);
        dump(&mut seen, &[flow(1, START, (1 << 48) - 10)]);
        assert_eq!(
            grown(dump(&mut seen, &[flow(1, START, (1 << 48) + 20)])[0]),
            Some((30, 1, false))
        );
    }

    #[test]
    fn only_complete_dumps_miss_a_flow() {
        let mut seen = SeenFlows::new(10);
        let flows = [flow(1, START, 10), flow(2, START, 10)];
        let mut dump_at = |wall, shown: &[FlowRecord], complete: bool| {
            seen.begin_dump(wall);
            for record in shown {
                seen.see(record);
            }
            if complete {
                seen.end_dump();
            }
            [1, 2].map(|port| seen.missed_since(&key(&flow(port, START, 0))))
        };
        assert_eq!(dump_at(100, &flows, true), [None, None]);
        assert_eq!(dump_at(110, &flows[..1], false), [None, None]);
        assert_eq!(dump_at(120, &flows[..1], true), [None, Some(120)]);
        assert_eq!(dump_at(130, &[], true), [Some(130), Some(120)]);
    }

    #[test]
    fn what_routes_said_is_forgotten_and_what_packets_set_is_not() {
        let mut seen = SeenFlows::new(10);
        seen.begin_dump(0);
        let place = |sight: Sight| sight.place().unwrap();
        let guessed = place(seen.see(&flow(1, START, 1)));
        let set = place(seen.see(&flow(2, START, 1)));
        seen.remember_labels(guessed, 1, true);
        seen.remember_labels(set, 2, false);
        seen.forget_labels(Remembered::is_by_route);
        assert_eq!(
            (seen.labels(guessed), seen.labels(set)),
            (None, Some((2, false)))
        );
    }

    #[test]
    fn where_there_is_no_room_for_two_flows_with_one_tuple_the_first_goes_on() {
        let mut seen = SeenFlows::new(1);
        seen.begin_dump(0);
        seen.see(&flow(1, START, 100));
        assert_eq!(seen.see(&flow(1, LATER, 5)), Sight::New { place: None });
        assert_eq!(
            grown(seen.see_end(&flow(1, START, 110))),
            Some((10, 0, false))
        );
        assert!(is_new(seen.see_end(&flow(1, LATER, 9))));
    }

    #[test]
    fn a_flow_that_seems_to_have_begun_earlier_counts_once_though_the_clock_was_set_back() {
        let mut seen = SeenFlows::new(10);
        dump(&mut seen, &[flow(1, LATER, 100)]);
        seen.see_end(&flow(1, LATER, 100));
        assert!(is_new(seen.see(&flow(1, START, 10))));
        for bytes in (20..=100).step_by(10) {
            let sights = dump(&mut seen, &[flow(1, START, bytes)]);
            assert_eq!(grown(sights[0]).map(|(bytes, ..)| bytes), Some(10));
        }
        assert_eq!(seen.len(), 1);
    }

    /// Flows of one tuple and id, one after the other, as events and dumps tell of them.
    #[derive(Debug, Clone, Copy)]
    enum Moment {
        Grow(u64),
        Succeed,
        ShowNext,
        ReadShown,
        Hear,
        EndDump,
    }

    fn moments() -> impl Strategy<Value = Vec<Moment>> {
        let moment = prop_oneof![
            3 => (1u64..100).prop_map(Moment::Grow),
            2 => Just(Moment::Succeed),
            2 => Just(Moment::ShowNext),
            2 => Just(Moment::ReadShown),
            4 => Just(Moment::Hear),
            1 => Just(Moment::EndDump),
        ];
        proptest::collection::vec(moment, 1..60)
    }

    enum Told {
        Birth,
        End(Box<FlowRecord>),
    }

    /// What is counted of all that is told.
    struct Counted {
        seen: SeenFlows,
        bytes: u64,
    }

    impl Counted {
        fn add(&mut self, record: &FlowRecord, sight: Sight) {
            self.bytes += match sight {
                Sight::New { .. } => record.original_volume.unwrap().bytes,
                Sight::Known { original, .. } => original.bytes,
                Sight::Repeated => 0,
            };
        }

        fn read(&mut self, shown: Option<FlowRecord>) {
            if let Some(record) = shown {
                let sight = self.seen.see(&record);
                self.add(&record, sight);
            }
        }

        fn hear(&mut self, told: Option<Told>) {
            match told {
                Some(Told::Birth) => drop(self.seen.see_birth(&flow(1, None, 0))),
                Some(Told::End(record)) => {
                    let sight = self.seen.see_end(&record);
                    self.add(&record, sight);
                }
                None => {}
            }
        }
    }

    proptest! {
        #[test]
        fn whatever_tells_of_flows_with_one_tuple_and_id_in_whatever_order_each_byte_counts_once(
            moments in moments(), births: bool,
        ) {
            let mut counted = Counted { seen: SeenFlows::new(100), bytes: 0 };
            let (mut lives, mut moved, mut alive) = (0, 0, flow(1, START, 0));
            let (mut told, mut shown) = (std::collections::VecDeque::new(), None);
            counted.seen.begin_dump(0);
            let end = [Moment::Succeed, Moment::EndDump];
            for moment in moments.into_iter().chain(end) {
                match moment {
                    Moment::Grow(bytes) => {
                        moved += bytes;
                        alive.original_volume.as_mut().unwrap().bytes += bytes;
                    }
                    Moment::Succeed => {
                        told.push_back(Told::End(Box::new(alive)));
                        lives += 1;
                        alive = flow(1, START.map(|start| start + lives * 1_000_000), 0);
                        if births {
                            told.push_back(Told::Birth);
                        }
                    }
                    // The kernel fills the next answer when the one before is read.
                    Moment::ShowNext => shown = shown.or(Some(alive)),
                    Moment::ReadShown => counted.read(shown.take()),
                    Moment::Hear => counted.hear(told.pop_front()),
                    Moment::EndDump => {
                        counted.read(shown.take());
                        counted.read(Some(alive));
                        while let Some(event) = told.pop_front() {
                            counted.hear(Some(event));
                        }
                        counted.seen.end_dump();
                        counted.seen.begin_dump(0);
                    }
                }
            }
            prop_assert_eq!(counted.bytes, moved);
        }
    }
}
