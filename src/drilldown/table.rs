//! The flows of one drilldown, from dump to dump. A flow is told by zone, original tuple and id; a repeated delivery
//! within a dump counts once. Bounded: beyond the cap flows lose their names, and the table says so.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use crate::drilldown::attribution::Belongs;
use crate::drilldown::flow::Flow;
use crate::kernel::conntrack::{FlowRecord, Tuple};
use crate::units::Volume;

/// Flows kept by name: some 240 MB at the worst, which only a flood of flows that all match one counter can fill.
pub const FLOWS_MAX: usize = 1 << 20;

/// The flows that belong to one counter within one account.
#[derive(Debug)]
pub struct FlowTable {
    /// Nanoseconds since 1970.
    account_start: u64,
    flows_max: usize,
    flows: Vec<Flow>,
    hasher: RandomState,
    /// The newest flow of each key's hash; older ones follow by `Flow::next`.
    position_by_hash: HashMap<u64, u32>,
    dumps_begun: u32,
    dumps_ended: u32,
    /// Nanoseconds since 1970 at which the dump going on began.
    dump_began: u64,
    older_seen: bool,
    no_accounting: bool,
    born_by_first_dump: Volume,
    other: Other,
}

/// Flows beyond the cap, as one sum.
#[derive(Debug, Default)]
struct Other {
    moved: Volume,
    in_last_dump: Volume,
    in_this_dump: Volume,
    overflowed: bool,
}

impl FlowTable {
    /// Empty, for an account that begins at `account_start` (nanoseconds since 1970), with at most `flows_max` flows.
    pub fn new(account_start: u64, flows_max: usize) -> Self {
        FlowTable {
            account_start,
            flows_max: flows_max.min(u32::MAX as usize),
            flows: Vec::new(),
            hasher: RandomState::new(),
            position_by_hash: HashMap::new(),
            dumps_begun: 0,
            dumps_ended: 0,
            dump_began: 0,
            older_seen: false,
            no_accounting: false,
            born_by_first_dump: Volume::default(),
            other: Other::default(),
        }
    }

    /// A dump begins at `wall` (nanoseconds since 1970). One that did not end before is forgotten, not what it showed.
    pub fn begin_dump(&mut self, wall: u64) {
        self.dumps_begun = self.dumps_begun.wrapping_add(1);
        self.dump_began = wall;
        self.other.in_this_dump = Volume::default();
    }

    /// Takes one flow of the dump going on.
    pub fn absorb(&mut self, record: &FlowRecord, belongs: Belongs) {
        self.no_accounting |= (belongs.original && record.original_volume.is_none())
            || (belongs.reply && record.reply_volume.is_none());
        let hash = self.hash(record);
        if let Some(position) = self.find(hash, record) {
            let flow = &mut self.flows[position];
            if flow.seen_in != self.dumps_begun {
                flow.see(record, belongs);
                flow.seen_in = self.dumps_begun;
            }
        } else if self.flows.len() < self.flows_max {
            self.insert(hash, record, belongs);
        } else {
            self.absorb_unnamed(record, belongs);
        }
    }

    /// Takes the last counters of a flow that ended, from an event. The dump going on may have shown it before and
    /// been read after: what it shows is old then.
    pub fn absorb_end(&mut self, record: &FlowRecord, belongs: Option<Belongs>) {
        let hash = self.hash(record);
        if let Some(position) = self.find(hash, record) {
            let flow = &mut self.flows[position];
            flow.see(record, flow.belongs);
            flow.seen_in = self.dumps_begun;
        } else if let Some(belongs) = belongs {
            self.absorb(record, belongs);
        }
    }

    /// The dump going on is complete: flows that it did not show have ended.
    pub fn end_dump(&mut self) {
        let (this_dump, began) = (self.dumps_begun, self.dump_began);
        for flow in &mut self.flows {
            if flow.seen_in != this_dump && flow.ended.is_none() {
                flow.ended = Some(began);
            }
        }
        if self.dumps_ended == 0 {
            self.born_by_first_dump = self.moved();
        }
        self.dumps_ended += 1;
        let grown = self.other.in_this_dump.since(self.other.in_last_dump);
        self.other.moved = self.other.moved.plus(grown);
        self.other.in_last_dump = self.other.in_this_dump;
    }

    /// All flows kept, in the order of their first sight.
    pub fn flows(&self) -> &[Flow] {
        &self.flows
    }

    /// What flows beyond the cap moved.
    pub fn other(&self) -> Volume {
        self.other.moved
    }

    /// What all flows moved within the account.
    pub fn moved(&self) -> Volume {
        self.flows
            .iter()
            .fold(self.other.moved, |sum, flow| sum.plus(flow.moved()))
    }

    /// Complete dumps.
    pub fn dumps(&self) -> u32 {
        self.dumps_ended
    }

    /// What the flows born inside the account had moved at the first complete dump.
    pub fn born_by_first_dump(&self) -> Volume {
        self.born_by_first_dump
    }

    /// Whether a flow older than the account belongs.
    pub fn older_seen(&self) -> bool {
        self.older_seen
    }

    /// Whether a flow that belongs had no counters.
    pub fn no_accounting(&self) -> bool {
        self.no_accounting
    }

    /// Whether there were more flows than can be kept.
    pub fn overflowed(&self) -> bool {
        self.other.overflowed
    }

    fn insert(&mut self, hash: u64, record: &FlowRecord, belongs: Belongs) {
        // Without stamps a flow is new if a whole dump did not show it.
        let born_inside = record
            .start
            .map_or(self.dumps_ended > 0, |start| start >= self.account_start);
        self.older_seen |= !born_inside;
        let mut flow = Flow::first_seen(record, belongs, born_inside);
        flow.seen_in = self.dumps_begun;
        flow.next = self.position_by_hash.insert(hash, self.flows.len() as u32);
        self.flows.push(flow);
    }

    /// Only the sum over a dump is known, so only its growth counts, and only of flows that count whole.
    fn absorb_unnamed(&mut self, record: &FlowRecord, belongs: Belongs) {
        self.other.overflowed = true;
        if record.start.is_none_or(|start| start < self.account_start) {
            return;
        }
        let whole = Flow::first_seen(record, belongs, true).moved();
        self.other.in_this_dump = self.other.in_this_dump.plus(whole);
    }

    fn find(&self, hash: u64, record: &FlowRecord) -> Option<usize> {
        let mut position = *self.position_by_hash.get(&hash)?;
        loop {
            let flow = &self.flows[position as usize];
            if key(flow.zone, flow.id, &flow.original)
                == key(record.zone, record.id, &record.original)
            {
                return Some(position as usize);
            }
            position = flow.next?;
        }
    }

    fn hash(&self, record: &FlowRecord) -> u64 {
        self.hasher
            .hash_one(key(record.zone, record.id, &record.original))
    }
}

fn key(zone: u16, id: u32, original: &Tuple) -> (u16, u32, Tuple) {
    (zone, id, *original)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::conntrack::Detail;

    const ORIGINAL: Belongs = Belongs {
        original: true,
        reply: false,
        approximate: false,
    };

    fn record(port: u16, start: Option<u64>, bytes: u64) -> FlowRecord {
        let tuple = |source: u16, destination: u16| Tuple {
            source: [10, 0, 0, 1].into(),
            destination: [10, 0, 0, 2].into(),
            protocol: 6,
            detail: Detail::Ports {
                source,
                destination,
            },
        };
        FlowRecord {
            original: tuple(port, 80),
            reply: tuple(80, port),
            zone: 0,
            id: 1,
            status: 0,
            original_volume: Some(Volume { bytes, packets: 1 }),
            reply_volume: None,
            start,
            stop: None,
            labels: None,
            mark: 0,
            tcp_state: None,
        }
    }

    fn dump(table: &mut FlowTable, wall: u64, records: &[FlowRecord]) {
        table.begin_dump(wall);
        for record in records {
            table.absorb(record, ORIGINAL);
        }
        table.end_dump();
    }

    #[test]
    fn a_stamp_tells_whether_a_flow_counts_whole() {
        let mut table = FlowTable::new(100, 10);
        let flows = [record(1, Some(99), 5_000), record(2, Some(100), 70)];
        dump(&mut table, 110, &flows);
        assert_eq!(table.moved().bytes, 70);
        assert!(table.older_seen());
        dump(&mut table, 120, &[record(1, Some(99), 5_001)]);
        assert_eq!(table.moved().bytes, 71);
    }

    #[test]
    fn without_stamps_a_flow_is_new_if_a_whole_dump_did_not_show_it() {
        let mut table = FlowTable::new(100, 10);
        table.begin_dump(110);
        table.absorb(&record(1, None, 10), ORIGINAL);
        dump(&mut table, 111, &[record(2, None, 10)]);
        assert_eq!(table.moved().bytes, 0);
        dump(&mut table, 120, &[record(3, None, 10)]);
        assert_eq!(table.moved().bytes, 10);
    }

    #[test]
    fn a_repeated_delivery_counts_once_and_a_missing_flow_has_ended() {
        let mut table = FlowTable::new(100, 10);
        dump(
            &mut table,
            110,
            &[record(1, Some(105), 10), record(1, Some(105), 12)],
        );
        assert_eq!((table.flows().len(), table.moved().bytes), (1, 10));
        dump(&mut table, 120, &[]);
        assert_eq!(
            (table.flows()[0].ended, table.moved().bytes),
            (Some(120), 10)
        );
        dump(&mut table, 130, &[record(1, Some(105), 15)]);
        assert_eq!((table.flows()[0].ended, table.moved().bytes), (None, 15));
    }

    #[test]
    fn a_new_flow_with_an_old_ones_tuple_and_id_counts_from_zero() {
        let mut table = FlowTable::new(100, 10);
        dump(&mut table, 110, &[record(1, Some(50), 1_000)]);
        dump(&mut table, 120, &[record(1, Some(115), 1_200)]);
        assert_eq!(table.moved().bytes, 1_200);
    }

    #[test]
    fn what_an_event_told_is_newer_than_the_dump_going_on() {
        let mut table = FlowTable::new(100, 10);
        dump(&mut table, 110, &[record(1, Some(105), 10)]);
        table.begin_dump(120);
        let mut end = record(1, Some(105), 90);
        end.stop = Some(119);
        table.absorb_end(&end, None);
        table.absorb(&record(1, Some(105), 50), ORIGINAL);
        table.end_dump();
        assert_eq!(
            (table.moved().bytes, table.flows()[0].ended),
            (90, Some(119))
        );
    }

    #[test]
    fn flows_beyond_the_cap_are_summed_and_admitted() {
        let mut table = FlowTable::new(100, 2);
        let young = |port, bytes| record(port, Some(101), bytes);
        let old = record(9, Some(1), 1_000_000);
        dump(
            &mut table,
            110,
            &[young(1, 1), young(2, 2), young(3, 30), young(4, 40), old],
        );
        assert_eq!((table.flows().len(), table.other().bytes), (2, 70));
        dump(
            &mut table,
            120,
            &[young(1, 1), young(2, 2), young(3, 35), young(4, 45), old],
        );
        assert_eq!((table.other().bytes, table.moved().bytes), (80, 83));
        dump(&mut table, 130, &[young(4, 45)]);
        assert_eq!(table.other().bytes, 80);
        assert!(table.overflowed());
    }

    #[test]
    fn flows_whose_hashes_collide_stay_apart() {
        let mut table = FlowTable::new(100, 10);
        table.begin_dump(110);
        for port in [1, 2, 3] {
            table.insert(7, &record(port, Some(101), port.into()), ORIGINAL);
        }
        let found = [1, 2, 3, 4].map(|port| table.find(7, &record(port, None, 0)));
        assert_eq!(found, [Some(0), Some(1), Some(2), None]);
    }
}
