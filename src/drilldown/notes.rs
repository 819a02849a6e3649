//! What makes an answer less than it could be, as sentences: what was lost, what others did to conntrack meanwhile,
//! what the kernel was not told to keep.

use std::collections::BTreeMap;

/// What went on while a drilldown did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Circumstances {
    /// Times that conntrack events were lost.
    pub overruns: u64,
    /// Dumps that failed, and why the last one did.
    pub failed_dumps: u64,
    /// The reason of the last one.
    pub dump_error: Option<String>,
    /// Times that the counter itself was found reset or made anew.
    pub counter_gaps: u32,
    /// Someone zeroed conntrack's counts.
    pub zeroed: bool,
    /// Flows that other programs deleted, by program.
    pub deleted_by_program: BTreeMap<String, u64>,
    /// `net.netfilter.nf_conntrack_acct` was seen off.
    pub accounting_off: bool,
    /// `net.netfilter.nf_conntrack_timestamp` was seen off.
    pub stamps_off: bool,
    /// `net.netfilter.nf_conntrack_events` was seen off, or the events cannot be heard.
    pub events_off: bool,
    /// `net.netfilter.nf_conntrack_events` was seen at 2: flows that began while nobody listened tell no end.
    pub ends_untold: bool,
    /// No rules may count for a while what conntrack does not keep: the configuration alone changes the ruleset.
    pub drops_uncounted: bool,
}

/// What a drilldown itself knows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// A flowtable carried flows that belong past the hooks.
    pub offloaded: bool,
    /// Flows that belong had no counters.
    pub no_accounting: bool,
    /// Flows that were judged by routes, for they had no label.
    pub unlabelled: u64,
    /// There were more flows than are kept.
    pub overflowed: bool,
    /// Rows that are not named may have moved more than some that are.
    pub uncertain: bool,
}

impl Circumstances {
    /// Whether anything was lost.
    pub fn lossy(&self) -> bool {
        self.overruns > 0 || self.failed_dumps > 0
    }

    /// What is to be said.
    pub fn notes(&self, limits: Limits) -> Vec<String> {
        let mut notes = Vec::new();
        if self.overruns > 0 {
            notes.push(format!(
                "conntrack events were lost {}: flows that ended between two dumps may be missing",
                times(self.overruns)
            ));
        }
        if self.failed_dumps > 0 {
            notes.push(format!(
                "conntrack or a counter could not be read {}: {}",
                times(self.failed_dumps),
                self.dump_error.as_deref().unwrap_or("no reason given")
            ));
        }
        if self.counter_gaps > 0 {
            notes.push(format!(
                "the counter was reset or made anew {}: what it missed is in no figure here but excess_bytes, see the gaps in the log",
                times(self.counter_gaps.into())
            ));
        }
        for (program, flows) in &self.deleted_by_program {
            let flows = match flows {
                1 => "1 flow was".to_owned(),
                more => format!("{more} flows were"),
            };
            notes.push(format!(
                "{flows} flushed or deleted from conntrack by {program}"
            ));
        }
        if limits.unlabelled > 0 {
            notes.push(format!(
                "{} flows without a label were judged by the routes of now",
                limits.unlabelled
            ));
        }
        let fixed = self.fixed(limits).into_iter();
        notes.extend(fixed.filter(|(is, _)| *is).map(|(_, note)| note.to_owned()));
        notes
    }

    /// Sentences that need no figure, each with whether it is to be said.
    fn fixed(&self, limits: Limits) -> [(bool, &'static str); 9] {
        [
            (
                self.zeroed,
                "conntrack's counts were zeroed by another program: what flows had moved since the dump before is missing",
            ),
            (
                limits.no_accounting || self.accounting_off,
                "conntrack accounting is off, or was when flows began: they have no bytes (net.netfilter.nf_conntrack_acct)",
            ),
            (
                self.stamps_off,
                "conntrack stamps are off: what flows moved before the first dump is missing (net.netfilter.nf_conntrack_timestamp)",
            ),
            (
                self.events_off,
                "conntrack tells no events: flows shorter than the time between dumps may be missing (net.netfilter.nf_conntrack_events)",
            ),
            (
                self.ends_untold && !self.events_off,
                "conntrack tells events only of flows that began while somebody listened: how much older ones moved last may be missing (net.netfilter.nf_conntrack_events is 2, not 1)",
            ),
            (
                self.drops_uncounted,
                "table.static lets no rules count what conntrack does not keep: what is unexplained has fewer causes",
            ),
            (
                limits.offloaded,
                "a flowtable carries flows past conntrack and the counters: both may lack bytes of them",
            ),
            (
                limits.overflowed,
                "there were more flows than are kept: what some of them moved is missing",
            ),
            (
                limits.uncertain,
                "there were more rows than are kept: the order of the smallest ones named is uncertain",
            ),
        ]
    }
}

fn times(count: u64) -> String {
    match count {
        1 => "once".to_owned(),
        more => format!("{more} times"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_said_of_a_drilldown_without_trouble() {
        let quiet = Circumstances::default();
        assert_eq!(quiet.notes(Limits::default()), [""; 0]);
        assert!(!quiet.lossy());
    }

    #[test]
    fn a_counter_that_was_made_anew_is_said() {
        let gaps = Circumstances {
            counter_gaps: 2,
            ends_untold: true,
            events_off: true,
            ..Circumstances::default()
        };
        let notes = gaps.notes(Limits::default());
        assert!(notes[0].contains("reset or made anew 2 times"), "{notes:?}");
        assert!(notes[1].contains("tells no events") && notes.len() == 2);
    }

    #[test]
    fn who_deleted_flows_is_named() {
        let flushed = Circumstances {
            deleted_by_program: [("conntrack (pid 7)".to_owned(), 200)].into(),
            overruns: 1,
            ..Circumstances::default()
        };
        let notes = flushed.notes(Limits::default());
        assert!(notes[0].starts_with("conntrack events were lost once"));
        assert_eq!(
            notes[1],
            "200 flows were flushed or deleted from conntrack by conntrack (pid 7)"
        );
        assert!(flushed.lossy());
    }
}
