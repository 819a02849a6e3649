//! The sum of an account: what was counted against what flows explain, exact in integers. It decides by what cause
//! bytes stay unexplained; each cause takes at most what it can explain, and the rest is named unknown.

use crate::drilldown::verdict::Unexplained;

/// What is known of a counter and its flows when the account ends. All in bytes within the account.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Account {
    /// By the counter.
    pub counted: u64,
    /// By all flows that belong.
    pub flows: u64,
    /// The first complete dump, if there was one.
    pub first_dump: Option<FirstDump>,
    /// Counted at the reading before the last complete dump.
    pub counted_by_last_dump: u64,
    /// Packets that conntrack did not keep, as far as that was measured.
    pub missed: MissedBytes,
    /// Whether a flowtable carried flows that belong past the hooks.
    pub offloaded: bool,
    /// Whether flows that belong had no counters.
    pub no_accounting: bool,
    /// Whether someone zeroed conntrack's counts.
    pub zeroed: bool,
    /// Whether events, dumps or flows were lost, or ends of flows not told.
    pub lossy: bool,
}

/// Counted by rules in the same place as the counter: packets that no flow counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MissedBytes {
    /// Exempted from conntrack, or invalid to it.
    pub untracked: u64,
    /// Dropped before their flow was kept.
    pub unconfirmed: u64,
    /// ICMP errors.
    pub icmp_error: u64,
}

/// The dump that gives older flows their baseline.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FirstDump {
    /// Counted at the reading before it.
    pub counted_before: u64,
    /// Counted at the reading after it.
    pub counted_after: u64,
    /// What it showed of flows born inside the account.
    pub born: u64,
    /// Whether flows older than the account belong.
    pub older: bool,
}

/// The outcome: `attributed + unexplained = counted` and `attributed + excess = flows`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Balance {
    /// Counted and found in flows.
    pub attributed: u64,
    /// Found in flows beyond what was counted.
    pub excess: u64,
    /// Counted and not found in flows.
    pub unexplained: u64,
    /// The same by cause; sums to `unexplained`.
    pub causes: Unexplained,
}

impl Account {
    /// Draws the balance.
    pub fn balance(&self) -> Balance {
        let attributed = self.flows.min(self.counted);
        let unexplained = self.counted - attributed;
        Balance {
            attributed,
            excess: self.flows - attributed,
            unexplained,
            causes: self.causes(unexplained),
        }
    }

    fn causes(&self, unexplained: u64) -> Unexplained {
        let mut rest = unexplained;
        let mut take = |limit: u64| {
            let taken = rest.min(limit);
            rest -= taken;
            taken
        };
        // What was measured is known better than what is at most possible.
        let mut causes = Unexplained {
            untracked: take(self.missed.untracked),
            unconfirmed: take(self.missed.unconfirmed),
            icmp_error: take(self.missed.icmp_error),
            before_baseline: take(self.before_baseline_max()),
            skew: take(self.skew_max()),
            ..Unexplained::default()
        };
        if self.no_accounting {
            causes.no_accounting = rest;
        } else if self.zeroed {
            causes.gap = rest;
        } else if self.lossy {
            causes.events_lost = rest;
        } else if self.offloaded {
            causes.offloaded = rest;
        } else {
            causes.unknown = rest;
        }
        causes
    }

    /// What older flows can have moved before the first dump: all that was counted until then and is not younger.
    fn before_baseline_max(&self) -> u64 {
        self.first_dump
            .filter(|first| first.older)
            .map_or(0, |first| first.counted_before.saturating_sub(first.born))
    }

    /// What was counted while a baseline was taken, and after the last dump began.
    fn skew_max(&self) -> u64 {
        let Some(first) = self.first_dump else {
            return 0;
        };
        let (baseline, baseline_end) = if first.older {
            let width = first.counted_after.saturating_sub(first.counted_before);
            (width, first.counted_after)
        } else {
            (0, 0)
        };
        let tail_start = self.counted_by_last_dump.max(baseline_end);
        baseline.saturating_add(self.counted.saturating_sub(tail_start))
    }

    /// attributed / counted, at most 1; 1 where nothing was counted.
    pub fn coverage(&self) -> f64 {
        if self.counted == 0 {
            1.0
        } else {
            self.flows.min(self.counted) as f64 / self.counted as f64
        }
    }

    /// `bytes` of max(counted, all flows); 0 where both are 0.
    pub fn share(&self, bytes: u64) -> f64 {
        match self.counted.max(self.flows) {
            0 => 0.0,
            whole => bytes as f64 / whole as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account() -> Account {
        Account {
            counted: 1_000,
            flows: 300,
            first_dump: Some(FirstDump {
                counted_before: 400,
                counted_after: 500,
                born: 50,
                older: true,
            }),
            counted_by_last_dump: 900,
            ..Account::default()
        }
    }

    #[test]
    fn each_cause_takes_what_it_can_explain_and_the_rest_is_unknown() {
        let causes = account().balance().causes;
        assert_eq!((causes.before_baseline, causes.skew), (350, 200));
        assert_eq!(causes.unknown, 150);
    }

    #[test]
    fn a_single_dump_is_not_counted_as_skew_twice() {
        let mut account = account();
        account.counted_by_last_dump = 400;
        assert_eq!(account.skew_max(), 600);
    }

    #[test]
    fn without_an_older_flow_nothing_moved_before_the_baseline() {
        let mut account = account();
        account.first_dump = account.first_dump.map(|first| FirstDump {
            older: false,
            ..first
        });
        let causes = account.balance().causes;
        assert_eq!((causes.before_baseline, causes.skew), (0, 100));
    }

    #[test]
    fn missing_accounting_goes_before_lost_events() {
        let mut account = account();
        (account.no_accounting, account.lossy) = (true, true);
        let causes = account.balance().causes;
        assert_eq!(
            (causes.no_accounting, causes.events_lost, causes.unknown),
            (150, 0, 0)
        );
    }

    #[test]
    fn what_was_measured_goes_before_what_is_possible() {
        let mut account = account();
        account.missed = MissedBytes {
            untracked: 100,
            unconfirmed: 200,
            icmp_error: 300,
        };
        let causes = account.balance().causes;
        assert_eq!((causes.untracked, causes.unconfirmed), (100, 200));
        assert_eq!((causes.icmp_error, causes.before_baseline), (300, 100));
    }

    #[test]
    fn nothing_counted_is_wholly_covered_and_shared_by_nobody() {
        let nothing = Account::default();
        assert_eq!((nothing.coverage(), nothing.share(0)), (1.0, 0.0));
    }
}
