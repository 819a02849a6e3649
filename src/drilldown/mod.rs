//! Who moved the bytes of one counter, or of one host: pure, fed with sights of flows and with readings. When to look
//! and when an account ends is decided elsewhere; `set` lets one look feed many drilldowns.

pub mod account;
pub mod attribution;
#[cfg(test)]
mod attribution_tests;
pub mod fingerprint;
pub mod flow;
pub mod labels;
pub mod notes;
pub mod pace;
pub mod prefixes;
pub mod rank;
pub mod scope;
pub mod seen;
pub mod services;
pub mod set;
pub mod shares;
pub mod tally;
pub mod text;
pub mod verdict;
pub mod view;

use std::net::IpAddr;

use jiff::Timestamp;

use crate::drilldown::account::{Account, FirstDump, MissedBytes};
use crate::drilldown::attribution::Belongs;
use crate::drilldown::flow::FlowKey;
use crate::drilldown::notes::{Circumstances, Limits};
use crate::drilldown::rank::{RankBy, Ranking, rank};
use crate::drilldown::scope::Scope;
use crate::drilldown::seen::{SLOTS, SeenFlows, Sight};
use crate::drilldown::shares::{KnownHosts, Shares};
use crate::drilldown::tally::{Credit, Tally};
use crate::drilldown::text::{About, Sentence};
use crate::drilldown::verdict::{Findings, Verdict};
use crate::drilldown::view::ROWS_MAX;
use crate::kernel::conntrack::FlowRecord;
use crate::plan::missed::Missed;
use crate::units::{BitRate, ThresholdName, Uptime, Volume};

/// IPS_OFFLOAD and IPS_HW_OFFLOAD (nf_conntrack_common.h): a flowtable carries the flow past the hooks.
const OFFLOADED: u32 = 1 << 14 | 1 << 15;

/// Where an account begins, and how its answer is given.
#[derive(Debug, Clone, PartialEq)]
pub struct AccountStart {
    /// The last reading that was not above raise.
    pub at: Uptime,
    /// The same moment on the clock of conntrack's stamps.
    pub wall: Timestamp,
    /// Flows born since then count whole: at or before `wall`, with nothing counted in between.
    pub quiet_since: Timestamp,
    /// The counter's, for the sentence.
    pub capacity: Option<BitRate>,
    /// How many rows of each view are named.
    pub top: usize,
    /// By the threshold's kind.
    pub rank_by: RankBy,
}

/// What was counted since the account began, at the readings around a dump.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bracket {
    /// At the last reading before the dump began.
    pub before: Volume,
    /// At the first reading after it ended; the newest, where that one is not yet known.
    pub after: Volume,
}

/// Where an account ends.
#[derive(Debug, Clone, PartialEq)]
pub struct AccountEnd {
    /// The reading at which the threshold was idle again, or at which the drilldown had to end.
    pub at: Uptime,
    /// The same moment.
    pub wall: Timestamp,
    /// What the counter counted; `None` where nothing counted.
    pub counted: Option<Counted>,
    /// Why, when not because the threshold is idle again.
    pub ended_by: Option<String>,
}

/// What a counter counted within an account.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Counted {
    /// From its first reading to its last.
    pub volume: Volume,
    /// The highest bit rate of one interval.
    pub peak_bits: f64,
    /// The highest packet rate of one interval.
    pub peak_packets: f64,
    /// Times that it was found reset or made anew.
    pub gaps: u32,
}

/// The search for the flows behind one counter, or of one host, within one account.
#[derive(Debug)]
pub struct Drilldown {
    id: String,
    threshold: Option<ThresholdName>,
    scope: Scope,
    start: AccountStart,
    tally: Tally,
    circumstances: Circumstances,
    limits: Limits,
    missed: Missed,
    first_dump: Option<FirstDump>,
    counted_by_last_dump: Volume,
    older_seen: bool,
    /// Among those for which the flows seen know what has moved.
    slot: Option<u8>,
    dumps_begun: u32,
    dumps_ended: u32,
    /// Nanoseconds since 1970: what is born since then counts whole.
    whole_since: u64,
    /// Nanoseconds since 1970, once it is over.
    closed_at: Option<u64>,
}

/// What there is to know of a flow besides its record, at one sight.
#[derive(Debug, Clone, Copy)]
pub struct Judged {
    /// What it has done since the last sight.
    pub sight: Sight,
    /// Which directions belong to this drilldown.
    pub belongs: Belongs,
    /// Whether routes say so, for want of a label.
    pub by_route: bool,
    /// Whether its end was told.
    pub ended: bool,
}

impl Drilldown {
    /// Nothing found yet.
    pub fn new(
        id: String,
        threshold: Option<ThresholdName>,
        scope: Scope,
        start: AccountStart,
    ) -> Self {
        let whole_since = nanoseconds(start.quiet_since);
        Drilldown {
            id,
            threshold,
            scope,
            tally: Tally::new(start.rank_by, ROWS_MAX),
            start,
            circumstances: Circumstances::default(),
            limits: Limits::default(),
            missed: Missed::default(),
            first_dump: None,
            counted_by_last_dump: Volume::default(),
            older_seen: false,
            slot: None,
            dumps_begun: 0,
            dumps_ended: 0,
            whole_since,
            closed_at: None,
        }
    }

    /// As in the log.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whose flows belong.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Goes on where the counter has other prefixes, or the router other addresses. What was found so far stays.
    pub fn go_on(&mut self, scope: Scope) {
        self.scope = scope.after(&self.scope);
    }

    /// What went on meanwhile, for the caller to note.
    pub fn circumstances(&mut self) -> &mut Circumstances {
        &mut self.circumstances
    }

    /// What temporary rules have counted by now.
    pub fn note_missed(&mut self, missed: Missed) {
        self.missed = missed;
    }

    fn begin_dump(&mut self) {
        self.dumps_begun = self.dumps_begun.saturating_add(1);
    }

    /// Its account ended at that moment: what begins later is not in it.
    pub fn close(&mut self, ended: Timestamp) {
        self.closed_at = Some(nanoseconds(ended));
    }

    /// There are many drilldowns: this one keeps less.
    fn keep_less(&mut self) {
        self.tally = Tally::new(self.start.rank_by, ROWS_MAX / 8);
    }

    /// Takes one flow that belongs.
    fn take(&mut self, record: &FlowRecord, judged: Judged, seen: &mut SeenFlows) {
        let too_late = |start: u64| self.closed_at.is_some_and(|closed| start > closed);
        if judged.sight == Sight::Repeated || record.start.is_some_and(too_late) {
            return;
        }
        let (belongs, place) = (judged.belongs, judged.sight.place());
        self.limits.offloaded |= record.status & OFFLOADED != 0;
        self.limits.no_accounting |= (belongs.original && record.original_volume.is_none())
            || (belongs.reply && record.reply_volume.is_none());
        let born_inside = self.is_born_inside(record);
        self.older_seen |= !born_inside;
        // What finds no room counts once, when its end is told.
        let counts = place.is_some() || judged.ended;
        self.limits.overflowed |= !counts;
        let grown = self.grown(record, judged.sight, born_inside);
        if let Some((original, reply)) = grown.filter(|_| counts) {
            let of = |belongs: bool, volume| if belongs { volume } else { Volume::default() };
            let (original, reply) = (of(belongs.original, original), of(belongs.reply, reply));
            let moves = original.plus(reply) != Volume::default();
            let first = moves && self.is_first_move(record, place, seen);
            self.limits.unlabelled += u64::from(first && judged.by_route);
            let credit = Credit {
                record,
                belongs,
                original,
                reply,
                whole: born_inside && record.start.is_some(),
                first,
            };
            self.tally.add(credit, &self.scope);
        }
        if judged.ended {
            self.tally.end(record);
        }
    }

    /// Whether it counts whole. Without stamps a flow is new if a whole dump did not show it, and all had room.
    fn is_born_inside(&self, record: &FlowRecord) -> bool {
        match record.start {
            Some(start) => start >= self.whole_since,
            None => self.dumps_ended > 0 && !self.limits.overflowed,
        }
    }

    /// What this sight adds, of the original and of the reply direction; `None` where it is but a baseline.
    fn grown(
        &mut self,
        record: &FlowRecord,
        sight: Sight,
        born_inside: bool,
    ) -> Option<(Volume, Volume)> {
        if let Sight::Known {
            age,
            original,
            reply,
            zeroed,
            ..
        } = sight
        {
            self.circumstances.zeroed |= zeroed;
            // Seen since this drilldown began: what it showed before is accounted for.
            if u32::from(age) < self.dumps_begun {
                return Some((original, reply));
            }
        }
        let shown = |volume: Option<Volume>| volume.unwrap_or_default();
        born_inside.then(|| (shown(record.original_volume), shown(record.reply_volume)))
    }

    fn is_first_move(
        &self,
        record: &FlowRecord,
        place: Option<seen::Place>,
        seen: &mut SeenFlows,
    ) -> bool {
        match (place, self.slot) {
            (Some(place), Some(slot)) => seen.first_move(place, slot),
            _ => !self.tally.has(record),
        }
    }

    /// The dump going on showed every flow.
    fn end_dump(&mut self, bracket: Bracket) {
        self.dumps_ended = self.dumps_ended.saturating_add(1);
        self.counted_by_last_dump = bracket.before;
        self.first_dump.get_or_insert(FirstDump {
            counted_before: bracket.before.bytes,
            counted_after: bracket.after.bytes,
            born: self.tally.moved().bytes,
            older: false,
        });
    }

    /// What is known, where `counted` is what the counter has counted since the account began.
    fn findings(
        &self,
        counted: Option<Volume>,
        known: &dyn KnownHosts,
        seen: &SeenFlows,
    ) -> (Findings, Account, Ranking) {
        let ranking = rank(&self.tally, self.start.top, known);
        let account = self.account(counted, ranking.moved);
        let balance = account.balance();
        let shares = Shares {
            share: &|bytes| account.share(bytes),
            known,
            missed: &|key: &FlowKey| seen.missed_since(key),
        };
        let uncertain = ranking.hosts.uncertain
            || ranking.outside.uncertain
            || ranking.services.uncertain
            || ranking.flows.uncertain;
        let findings = Findings {
            attributed_bytes: balance.attributed,
            excess_bytes: balance.excess,
            hosts_remainder_bytes: ranking.hosts.remainder.bytes,
            outside_remainder_bytes: ranking.outside.remainder.bytes,
            services_remainder_bytes: ranking.services.remainder.bytes,
            flows_remainder_bytes: ranking.flows.remainder.bytes,
            hosts_total: ranking.hosts.total,
            outside_total: ranking.outside.total,
            services_total: ranking.services.total,
            flows_total: ranking.flows.total,
            lossy: self.lossy(),
            notes: self.circumstances.notes(Limits {
                uncertain,
                ..self.limits
            }),
            hosts: shares.hosts(&ranking),
            outside: shares.ends(&ranking.outside.named),
            services: shares.services(&ranking.services),
            flows: shares.flows(&ranking.flows),
            dropped: shares.ends(&self.missed.sources),
        };
        (findings, account, ranking)
    }

    /// The answer.
    fn verdict(mut self, end: AccountEnd, known: &dyn KnownHosts, seen: &SeenFlows) -> Verdict {
        self.circumstances.counter_gaps = end.counted.map_or(0, |counted| counted.gaps);
        let counted = end.counted.map(|counted| counted.volume);
        let (found, account, ranking) = self.findings(counted, known, seen);
        let balance = account.balance();
        let unconfirmed = balance.causes.unconfirmed;
        let text = self.text(&end, &ranking, unconfirmed, known);
        let counting = end.counted.is_some();
        Verdict {
            counter: self.scope.counter.clone(),
            host: self.scope.host,
            started: self.start.wall,
            ended: end.wall,
            duration_seconds: end.at.since(self.start.at).as_secs_f64(),
            peak_bits_per_second: end.counted.map(|counted| counted.peak_bits),
            peak_packets_per_second: end.counted.map(|counted| counted.peak_packets),
            counted_bytes: counted.map(|counted| counted.bytes),
            counted_packets: counted.map(|counted| counted.packets),
            coverage: counting.then(|| account.coverage()),
            unexplained_bytes: counting.then_some(balance.unexplained),
            unexplained: counting.then_some(balance.causes),
            ended_by: end.ended_by,
            found,
            text,
            threshold: self.threshold,
            drilldown: self.id,
        }
    }

    /// Whether anything was lost, or there were more flows than can be kept.
    fn lossy(&self) -> bool {
        self.circumstances.lossy() || self.limits.overflowed
    }

    fn account(&self, counted: Option<Volume>, moved: Volume) -> Account {
        Account {
            // Where nothing counted, what flows moved is the whole.
            counted: counted.unwrap_or(moved).bytes,
            flows: moved.bytes,
            first_dump: self.first_dump.map(|first| FirstDump {
                older: self.older_seen,
                ..first
            }),
            counted_by_last_dump: self.counted_by_last_dump.bytes,
            missed: MissedBytes {
                untracked: self.missed.untracked.bytes,
                unconfirmed: self.missed.unconfirmed.bytes,
                icmp_error: self.missed.icmp_error.bytes,
            },
            offloaded: self.limits.offloaded,
            no_accounting: self.limits.no_accounting,
            zeroed: self.circumstances.zeroed,
            lossy: self.lossy() || self.circumstances.events_off,
        }
    }

    fn text(
        &self,
        end: &AccountEnd,
        ranking: &Ranking,
        dropped: u64,
        known: &dyn KnownHosts,
    ) -> String {
        let counted = end.counted.unwrap_or_default();
        let about = match (&self.scope.counter, self.scope.host) {
            (Some(name), _) => About::Counter {
                name,
                capacity: self.start.capacity,
                peak_bits_per_second: counted.peak_bits,
                peak_packets_per_second: counted.peak_packets,
            },
            (None, host) => About::Host(host.unwrap_or(IpAddr::from([0; 4]))),
        };
        let unexplained = counted.volume.since(ranking.moved);
        let sentence = Sentence {
            about,
            duration: end.at.since(self.start.at),
            by: self.start.rank_by,
            counted: counted.volume,
            unexplained,
            dropped: Volume {
                bytes: dropped,
                packets: (self.missed.unconfirmed.packets).min(unexplained.packets),
            },
            dropped_most_from: self.missed.sources.first().map(|source| source.0),
            ranking,
            known,
        };
        sentence.render()
    }
}

/// As conntrack stamps: since 1970, never negative.
fn nanoseconds(time: Timestamp) -> u64 {
    u64::try_from(time.as_nanosecond()).unwrap_or(0)
}

/// A drilldown's place among those of a set.
fn free_slot<'a>(taken: impl Iterator<Item = &'a Drilldown> + Clone) -> Option<u8> {
    (0..SLOTS).find(|slot| !taken.clone().any(|other| other.slot == Some(*slot)))
}
