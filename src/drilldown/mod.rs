//! Who moved the bytes of one counter: pure, fed with conntrack dumps and readings. One dump may feed many
//! drilldowns. When to dump and when an account ends is decided elsewhere.

pub mod account;
pub mod attribution;
#[cfg(test)]
mod attribution_tests;
pub mod flow;
pub mod prefixes;
pub mod rank;
pub mod scope;
pub mod shares;
pub mod table;
pub mod text;
pub mod verdict;

use std::net::IpAddr;

use jiff::Timestamp;

use crate::drilldown::account::{Account, FirstDump};
use crate::drilldown::attribution::Attribution;
use crate::drilldown::rank::{RankBy, Ranking, rank};
use crate::drilldown::scope::Scope;
use crate::drilldown::shares::{Known, flow_shares, host_shares};
use crate::drilldown::table::{FLOWS_MAX, FlowTable};
use crate::drilldown::text::Sentence;
use crate::drilldown::verdict::{Findings, FlowShare, HostShare, Verdict};
use crate::kernel::conntrack::FlowRecord;
use crate::kernel::routes::Path;
use crate::units::{BitRate, ThresholdName, Uptime, Volume};

/// Where an account begins, and how its answer is given.
#[derive(Debug, Clone, PartialEq)]
pub struct AccountStart {
    /// The last reading that was not above raise.
    pub at: Uptime,
    /// The same moment on the clock of conntrack's stamps.
    pub wall: Timestamp,
    /// The counter's, for the sentence.
    pub capacity: Option<BitRate>,
    /// How many hosts and flows are named.
    pub top: usize,
    /// By the threshold's kind.
    pub rank_by: RankBy,
}

/// What was counted since the account began, at the readings around a dump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    /// Since the account began.
    pub counted: Volume,
    /// The highest rate of one interval.
    pub peak_bits_per_second: f64,
    /// The highest rate of one interval.
    pub peak_packets_per_second: f64,
    /// Why, when not because the threshold is idle again.
    pub ended_by: Option<String>,
}

/// What a drilldown knows so far.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// Found in flows, at most what was counted.
    pub attributed_bytes: u64,
    /// What flows sum to beyond the counter.
    pub excess_bytes: u64,
    /// Bytes of the hosts not named.
    pub hosts_remainder_bytes: u64,
    /// Bytes of the flows not named.
    pub flows_remainder_bytes: u64,
    /// The top hosts.
    pub hosts: Vec<HostShare>,
    /// The top flows.
    pub flows: Vec<FlowShare>,
    /// Complete dumps.
    pub dumps: u32,
    /// Flows of the last complete dump that had no label to be judged by.
    pub unlabelled_flows: u64,
}

/// The search for the flows behind one counter, within one account.
#[derive(Debug)]
pub struct Drilldown {
    id: String,
    threshold: Option<ThresholdName>,
    scope: Scope,
    start: AccountStart,
    table: FlowTable,
    first_dump: Option<FirstDump>,
    counted_by_last_dump: Volume,
    unlabelled_in_this_dump: u64,
    unlabelled_in_last_dump: u64,
    lost: bool,
}

impl Drilldown {
    /// Nothing found yet.
    pub fn new(
        id: String,
        threshold: Option<ThresholdName>,
        scope: Scope,
        start: AccountStart,
    ) -> Self {
        let table = FlowTable::new(nanoseconds(start.wall), FLOWS_MAX);
        Drilldown {
            id,
            threshold,
            scope,
            start,
            table,
            first_dump: None,
            counted_by_last_dump: Volume::default(),
            unlabelled_in_this_dump: 0,
            unlabelled_in_last_dump: 0,
            lost: false,
        }
    }

    /// As in the log.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Goes on where the counter has other prefixes, or the router other addresses. What was found so far stays.
    pub fn go_on(&mut self, scope: Scope) {
        self.scope = scope.after(&self.scope);
    }

    /// Whether it would go on just as it does.
    pub fn is_about(&self, scope: &Scope) -> bool {
        self.scope.judges_as(scope)
    }

    /// A dump begins at `wall`. One that was begun and never ended is given up; what it showed stays known.
    pub fn begin_dump(&mut self, wall: Timestamp) {
        self.table.begin_dump(nanoseconds(wall));
        self.unlabelled_in_this_dump = 0;
    }

    /// Takes one flow of the dump going on, whether it belongs or not. False when it cannot be judged for want of a
    /// label: then `absorb_by_path` may take it.
    pub fn absorb(&mut self, record: &FlowRecord) -> bool {
        match self.scope.attribute(record) {
            Attribution::Belongs(belongs) => self.table.absorb(record, belongs),
            Attribution::Unlabelled => {
                self.unlabelled_in_this_dump += 1;
                return false;
            }
            Attribution::Foreign => {}
        }
        true
    }

    /// Takes one unlabelled flow of the dump going on by the way its packets go.
    pub fn absorb_by_path(&mut self, record: &FlowRecord, path: &Path) {
        if let Attribution::Belongs(belongs) = self.scope.attribute_by_path(record, path) {
            self.table.absorb(record, belongs);
        }
    }

    /// Takes a flow's end from an event. The event has no labels: a flow that no dump showed needs those of its NEW
    /// event in `record`, or stays unjudged where the counter asks for an interface.
    pub fn absorb_end(&mut self, record: &FlowRecord) {
        let belongs = match self.scope.attribute(record) {
            Attribution::Belongs(belongs) => Some(belongs),
            Attribution::Unlabelled | Attribution::Foreign => None,
        };
        self.table.absorb_end(record, belongs);
    }

    /// The dump going on showed every flow.
    pub fn end_dump(&mut self, bracket: Bracket) {
        self.table.end_dump();
        self.unlabelled_in_last_dump = self.unlabelled_in_this_dump;
        self.counted_by_last_dump = bracket.before;
        self.first_dump.get_or_insert(FirstDump {
            counted_before: bracket.before.bytes,
            counted_after: bracket.after.bytes,
            born: self.table.born_by_first_dump().bytes,
            older: false,
        });
    }

    /// Conntrack events or parts of a dump were lost.
    pub fn lost(&mut self) {
        self.lost = true;
    }

    /// Whether anything was lost, or there were more flows than can be kept.
    pub fn lossy(&self) -> bool {
        self.lost || self.table.overflowed()
    }

    /// What is known, where `counted` is what the counter has counted since the account began.
    pub fn progress(&self, counted: Volume, known: &dyn Fn(IpAddr) -> Known) -> Progress {
        let ranking = self.ranking();
        let account = self.account(counted, ranking.moved);
        let balance = account.balance();
        Progress {
            attributed_bytes: balance.attributed,
            excess_bytes: balance.excess,
            hosts_remainder_bytes: ranking.hosts_remainder.bytes,
            flows_remainder_bytes: ranking.flows_remainder.bytes,
            hosts: host_shares(&ranking, |bytes| account.share(bytes), known),
            flows: flow_shares(&ranking, |bytes| account.share(bytes)),
            dumps: self.table.dumps(),
            unlabelled_flows: self.unlabelled_in_last_dump,
        }
    }

    /// The answer; `known` gives what is known of an address.
    pub fn finish(self, end: AccountEnd, known: &dyn Fn(IpAddr) -> Known) -> Verdict {
        let ranking = self.ranking();
        let account = self.account(end.counted, ranking.moved);
        let balance = account.balance();
        let hosts = host_shares(&ranking, |bytes| account.share(bytes), known);
        let flows = flow_shares(&ranking, |bytes| account.share(bytes));
        let text = self.text(&end, &ranking, known);
        Verdict {
            counter: Some(self.scope.counter.clone()),
            started: self.start.wall,
            ended: end.wall,
            duration_seconds: end.at.since(self.start.at).as_secs_f64(),
            peak_bits_per_second: Some(end.peak_bits_per_second),
            peak_packets_per_second: Some(end.peak_packets_per_second),
            host: None,
            counted_bytes: Some(end.counted.bytes),
            counted_packets: Some(end.counted.packets),
            coverage: Some(account.coverage()),
            unexplained_bytes: Some(balance.unexplained),
            unexplained: Some(balance.causes),
            ended_by: end.ended_by,
            found: Findings {
                attributed_bytes: balance.attributed,
                excess_bytes: balance.excess,
                hosts_remainder_bytes: ranking.hosts_remainder.bytes,
                flows_remainder_bytes: ranking.flows_remainder.bytes,
                hosts_total: ranking.hosts_total as u64,
                flows_total: ranking.flows_total as u64,
                lossy: self.lossy(),
                hosts,
                flows,
                ..Findings::default()
            },
            text,
            threshold: self.threshold,
            drilldown: self.id,
        }
    }

    fn ranking(&self) -> Ranking<'_> {
        rank(&self.table, &self.scope, self.start.top, self.start.rank_by)
    }

    fn account(&self, counted: Volume, moved: Volume) -> Account {
        Account {
            counted: counted.bytes,
            flows: moved.bytes,
            first_dump: self.first_dump.map(|first| FirstDump {
                older: self.table.older_seen(),
                ..first
            }),
            counted_by_last_dump: self.counted_by_last_dump.bytes,
            no_accounting: self.table.no_accounting(),
            lossy: self.lossy(),
        }
    }

    fn text(
        &self,
        end: &AccountEnd,
        ranking: &Ranking<'_>,
        known: &dyn Fn(IpAddr) -> Known,
    ) -> String {
        let sentence = Sentence {
            counter: &self.scope.counter,
            capacity: self.start.capacity,
            peak_bits_per_second: end.peak_bits_per_second,
            peak_packets_per_second: end.peak_packets_per_second,
            duration: end.at.since(self.start.at),
            by: self.start.rank_by,
            counted: end.counted,
            unexplained: end.counted.since(ranking.moved),
            ranking,
        };
        sentence.render(&|address| known(address).name)
    }
}

/// As conntrack stamps: since 1970, never negative.
fn nanoseconds(time: Timestamp) -> u64 {
    u64::try_from(time.as_nanosecond()).unwrap_or(0)
}
