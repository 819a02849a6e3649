//! What flows moved within one account, summed as it comes in four views: by inside host, by outside end, by service,
//! by flow. Every view sums to the same whole; each is bounded.

use std::net::IpAddr;

use crate::drilldown::attribution::Belongs;
use crate::drilldown::flow::{Ends, Flow, FlowKey, Service, key};
use crate::drilldown::rank::RankBy;
use crate::drilldown::scope::Scope;
use crate::drilldown::view::{Row, View};
use crate::kernel::conntrack::FlowRecord;
use crate::units::Volume;

/// What one sight of a flow adds.
#[derive(Debug, Clone, Copy)]
pub struct Credit<'a> {
    /// The flow.
    pub record: &'a FlowRecord,
    /// Which directions belong.
    pub belongs: Belongs,
    /// Of the original direction since the last sight; 0 where it does not belong.
    pub original: Volume,
    /// Of the reply direction since the last sight; 0 where it does not belong.
    pub reply: Volume,
    /// It counts whole: what its counters show, it has moved within the account.
    pub whole: bool,
    /// It has moved nothing before.
    pub first: bool,
}

/// One inside host's part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Host {
    /// Within the account, in the counter's direction.
    pub volume: Volume,
    /// Of that, what it sent; the rest it received.
    pub sent: Volume,
    /// How many flows.
    pub flows: u64,
    /// The largest of them.
    pub main: Ends,
    /// What the largest moved for this host.
    pub main_volume: Volume,
}

impl Row for Host {
    fn volume(&self) -> Volume {
        self.volume
    }
}

/// The four views.
#[derive(Debug)]
pub struct Tally {
    by: RankBy,
    moved: Volume,
    flows_total: u64,
    pub(super) hosts: View<IpAddr, Host>,
    pub(super) outside: View<IpAddr, Volume>,
    pub(super) services: View<Service, Volume>,
    pub(super) flows: View<FlowKey, Flow>,
}

/// What a direction moved for one host.
#[derive(Clone, Copy)]
struct Part {
    host: IpAddr,
    other: IpAddr,
    volume: Volume,
    sent: Volume,
}

impl Tally {
    /// Nothing moved; `by` says what the largest are, of which each view holds `rows_max`.
    pub fn new(by: RankBy, rows_max: usize) -> Self {
        Tally {
            by,
            moved: Volume::default(),
            flows_total: 0,
            hosts: View::new(rows_max),
            outside: View::new(rows_max),
            services: View::new(rows_max),
            flows: View::new(rows_max),
        }
    }

    /// What the largest are.
    pub fn by(&self) -> RankBy {
        self.by
    }

    /// By all flows.
    pub fn moved(&self) -> Volume {
        self.moved
    }

    /// Flows that moved anything.
    pub fn flows_total(&self) -> u64 {
        self.flows_total
    }

    /// Adds what a sight of a flow brought.
    pub fn add(&mut self, credit: Credit<'_>, scope: &Scope) {
        let grown = credit.original.plus(credit.reply);
        if grown == Volume::default() {
            return;
        }
        let weight = |volume| self.by.weight(volume).0;
        self.moved = self.moved.plus(grown);
        self.flows_total += u64::from(credit.first);
        let ends = Ends::of(&credit.record.original, &credit.record.reply);
        let flow = self
            .flows
            .row(key(credit.record), || returning(&credit), weight);
        flow.add(&credit);
        let service = self.services.row(ends.service, Volume::default, weight);
        *service = service.plus(grown);
        let grown = parts(ends, credit.original, credit.reply, scope);
        let moved = parts(ends, flow.original_moved, flow.reply_moved, scope);
        for part in grown.into_iter().flatten() {
            let outside = self.outside.row(part.other, Volume::default, weight);
            *outside = outside.plus(part.volume);
            let host = self.hosts.row(part.host, || Host::new(ends), weight);
            let of_this_host = |moved: &&Part| moved.host == part.host;
            let all = moved.iter().flatten().find(of_this_host);
            host.add(
                part,
                ends,
                all.map_or(part.volume, |all| all.volume),
                self.by,
            );
            host.flows += u64::from(credit.first);
        }
    }

    /// Whether the flow has a row.
    pub fn has(&self, record: &FlowRecord) -> bool {
        self.flows.get(&key(record)).is_some()
    }

    /// Notes when a flow ended, where it is one that may be named.
    pub fn end(&mut self, record: &FlowRecord) {
        if let Some(flow) = self.flows.get_mut(&key(record)) {
            flow.date(record);
        }
    }
}

/// A flow without a row. One that was let go and counts whole has moved all that it shows, but for this growth.
fn returning(credit: &Credit<'_>) -> Flow {
    let mut flow = Flow::new(credit.record);
    if credit.whole && !credit.first {
        let before = |belongs: bool, shown: Option<Volume>, grown: Volume| match shown {
            Some(shown) if belongs => shown.since(grown),
            _ => Volume::default(),
        };
        let (record, belongs) = (credit.record, credit.belongs);
        flow.original_moved = before(belongs.original, record.original_volume, credit.original);
        flow.reply_moved = before(belongs.reply, record.reply_volume, credit.reply);
    }
    flow
}

impl Flow {
    fn add(&mut self, credit: &Credit<'_>) {
        self.belongs = self.belongs.or(credit.belongs);
        self.original_moved = self.original_moved.plus(credit.original);
        self.reply_moved = self.reply_moved.plus(credit.reply);
        self.date(credit.record);
    }

    /// Takes over when it began and ended. Of several with one tuple and id, that is when the last did.
    fn date(&mut self, record: &FlowRecord) {
        let is_earlier = record.start.is_some() && record.start < self.start;
        if !is_earlier {
            self.start = record.start.or(self.start);
            self.ended = record.stop;
        }
    }
}

impl Host {
    fn new(ends: Ends) -> Self {
        Host {
            volume: Volume::default(),
            sent: Volume::default(),
            flows: 0,
            main: ends,
            main_volume: Volume::default(),
        }
    }

    fn add(&mut self, part: Part, ends: Ends, moved_by_flow: Volume, by: RankBy) {
        self.volume = self.volume.plus(part.volume);
        self.sent = self.sent.plus(part.sent);
        let (flow, main) = (by.weight(moved_by_flow), by.weight(self.main_volume));
        if flow > main || flow == main && ends <= self.main {
            (self.main, self.main_volume) = (ends, moved_by_flow);
        }
    }

    /// Both as one.
    pub(super) fn with(self, other: Host, by: RankBy) -> Host {
        let larger = if by.weight(other.main_volume) > by.weight(self.main_volume) {
            other
        } else {
            self
        };
        Host {
            volume: self.volume.plus(other.volume),
            sent: self.sent.plus(other.sent),
            flows: self.flows + other.flows,
            ..larger
        }
    }
}

/// One part, or two where both directions belong and have different hosts.
fn parts(ends: Ends, original: Volume, reply: Volume, scope: &Scope) -> [Option<Part>; 2] {
    let part = |volume: Volume, sender, receiver| {
        let host = scope.host(sender, receiver);
        let (other, sent) = if host == sender {
            (receiver, volume)
        } else {
            (sender, Volume::default())
        };
        (volume != Volume::default()).then_some(Part {
            host,
            other,
            volume,
            sent,
        })
    };
    let (opener, opened) = (ends.opener, ends.opened);
    match (part(original, opener, opened), part(reply, opened, opener)) {
        (Some(one), Some(two)) if one.host == two.host => [
            Some(Part {
                volume: one.volume.plus(two.volume),
                sent: one.sent.plus(two.sent),
                ..one
            }),
            None,
        ],
        (one, two) => [one, two],
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::drilldown::view::ROWS_MAX;
    use crate::kernel::conntrack::{Detail, Tuple, protocol};

    pub fn record(source: &str, port: u16) -> FlowRecord {
        let (source, far): (IpAddr, IpAddr) = match source.parse().unwrap() {
            IpAddr::V4(v4) => (v4.into(), [203, 0, 113, 9].into()),
            IpAddr::V6(v6) => (v6.into(), "2001:db8::9".parse().unwrap()),
        };
        let tuple = |source, destination, detail| Tuple {
            source,
            destination,
            protocol: protocol::TCP,
            detail,
        };
        let ports = |source, destination| Detail::Ports {
            source,
            destination,
        };
        FlowRecord {
            original: tuple(source, far, ports(port, 443)),
            reply: tuple(far, source, ports(443, port)),
            zone: 0,
            id: 1,
            status: 0,
            original_volume: Some(Volume::default()),
            reply_volume: Some(Volume::default()),
            start: Some(1),
            stop: None,
            labels: None,
            mark: 0,
            tcp_state: None,
        }
    }

    /// Of a counter that counts what 10.0.0.0/8 and fd00::/8 send.
    pub fn host_scope() -> Scope {
        use crate::config::{Format, parse};
        let config = parse(
            "subnets.home = [\"10.0.0.0/8\", \"fd00::/8\"]",
            Format::Toml,
        )
        .unwrap();
        let name = crate::units::CounterName::new("home_from").unwrap();
        Scope::new(&config, config.counter(&name).unwrap(), &[])
    }

    pub fn add(tally: &mut Tally, scope: &Scope, source: &str, bytes: u64) {
        add_flow(tally, scope, &record(source, 1_000), bytes, true);
    }

    fn add_flow(tally: &mut Tally, scope: &Scope, record: &FlowRecord, bytes: u64, first: bool) {
        let belongs = Belongs {
            original: true,
            ..Belongs::default()
        };
        let credit = Credit {
            record,
            belongs,
            original: Volume { bytes, packets: 1 },
            reply: Volume::default(),
            whole: true,
            first,
        };
        tally.add(credit, scope);
    }

    #[test]
    fn every_view_has_all_that_moved() {
        let (mut tally, scope) = (Tally::new(RankBy::Bytes, ROWS_MAX), host_scope());
        for (source, bytes) in [("10.0.0.1", 5), ("10.0.0.2", 7), ("10.0.0.1", 9)] {
            add(&mut tally, &scope, source, bytes);
        }
        let sum = |volumes: Vec<u64>| volumes.iter().sum::<u64>();
        let hosts = tally.hosts.rows().iter().map(|(_, host)| host.volume.bytes);
        let outside = tally.outside.rows().iter().map(|(_, volume)| volume.bytes);
        let services = tally.services.rows().iter().map(|(_, volume)| volume.bytes);
        let flows = tally
            .flows
            .rows()
            .iter()
            .map(|(_, flow)| flow.moved().bytes);
        assert_eq!([sum(hosts.collect()), sum(outside.collect())], [21, 21]);
        assert_eq!([sum(services.collect()), sum(flows.collect())], [21, 21]);
        assert_eq!(tally.moved().bytes, 21);
    }

    #[test]
    fn the_late_end_of_an_earlier_flow_does_not_end_the_row_of_the_next() {
        let (mut tally, scope) = (Tally::new(RankBy::Bytes, ROWS_MAX), host_scope());
        let dated = |start, stop| FlowRecord {
            start: Some(start),
            stop,
            ..record("10.0.0.1", 1)
        };
        add_flow(&mut tally, &scope, &dated(20, None), 5, true);
        add_flow(&mut tally, &scope, &dated(10, Some(19)), 7, true);
        tally.end(&dated(10, Some(19)));
        let flow = |tally: &Tally| *tally.flows.get(&key(&dated(20, None))).unwrap();
        assert_eq!((flow(&tally).start, flow(&tally).ended), (Some(20), None));
        assert_eq!(flow(&tally).moved().bytes, 12);
        tally.end(&dated(20, Some(30)));
        assert_eq!(flow(&tally).ended, Some(30));
    }

    #[test]
    fn a_flow_that_counts_whole_comes_back_with_all_it_has_moved() {
        let (mut tally, scope) = (Tally::new(RankBy::Bytes, ROWS_MAX), host_scope());
        let mut elephant = record("10.0.0.1", 1);
        let shown = |bytes| Some(Volume { bytes, packets: 1 });
        elephant.original_volume = shown(1);
        add_flow(&mut tally, &scope, &elephant, 1, true);
        for port in 0..u16::MAX {
            add_flow(&mut tally, &scope, &record("10.0.0.2", port), 2, true);
        }
        assert!(!tally.has(&elephant));
        elephant.original_volume = shown(1_001);
        add_flow(&mut tally, &scope, &elephant, 1_000, false);
        let rows = tally.flows.rows();
        let row = rows.iter().find(|(found, _)| *found == key(&elephant));
        assert_eq!(row.map(|(_, flow)| flow.moved().bytes), Some(1_001));
        assert_eq!(tally.flows_total(), 1 + u64::from(u16::MAX));
    }
}
