//! What is made known of a reading: the report and the totals that go with it, saved before they are shown.

use std::sync::Arc;
use std::time::Duration;

use super::sinks::Publication;
use super::{Daemon, Trouble, clock};
use crate::interfaces;
use crate::report::{Report, TableReport, TickReport};

/// A save that must survive a power cut waits for the disk; it happens this often.
const DURABLE_INTERVAL: Duration = Duration::from_secs(60);

impl Daemon {
    /// Saves and shows what is known now.
    pub(super) fn publish(&mut self) {
        let since = clock::uptime().since(self.saved_durably_at);
        self.make_known(since >= DURABLE_INTERVAL);
    }

    /// The same, and whatever happens to the machine from here on, the totals are on the disk.
    pub(super) fn publish_durably(&mut self) {
        self.make_known(true);
    }

    fn make_known(&mut self, durable: bool) {
        let now = clock::uptime();
        self.ledger.remember(&self.meter);
        let table = (self.table.handle(), self.table.shape());
        let moved = self.table.moved();
        let saved = self.ledger.snapshot(table, self.last_good, moved);
        let report = Arc::new(self.report());
        self.notifier.show(&report);
        let reading = Publication {
            saved,
            durable,
            report,
        };
        let in_time = self.sinks.take(reading, now);
        if durable {
            self.saved_durably_at = now;
        }
        let late = "the state directory does not answer: totals shown now are not saved yet";
        self.note_trouble(Trouble {
            code: "totals_write_slow",
            error: (!in_time).then(|| late.to_owned()),
        });
    }

    fn report(&self) -> Report {
        let now = clock::uptime();
        Report {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            time: self.last_reading.tick.wall,
            uptime_seconds: now.since(self.started).as_secs_f64(),
            tick: TickReport {
                sequence: self.sequence,
                interval_seconds: self.config.tick.as_secs_f64(),
                missed: self.schedule.missed(),
                read_microseconds: self.last_reading.took.as_micros() as u64,
            },
            table: TableReport {
                name: self.config.table.name.clone(),
                protection: self.table.protection(),
                repairs: self.repairs,
            },
            counters: Arc::new(self.engine.counter_reports(&self.meter)),
            interfaces: self.interfaces.reports(
                &self.config,
                interfaces::DeviceFacts {
                    links: &self.surroundings.network.links,
                    speeds: &self.surroundings.speeds,
                    offload: self.vitals.offload(),
                },
            ),
            thresholds: self.engine.threshold_reports(),
            drilldowns: self.engine.drilldown_reports(),
            last_verdict: self.engine.last_verdict(),
            health: self.vitals.health(self.sinks.lost()),
            cost: clock::cost(),
        }
    }
}
