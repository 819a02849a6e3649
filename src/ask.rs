//! What thresholds at work, and those who want a drilldown now, ask of the daemon, and what the drilldowns answer:
//! plain values that cross between the loop and the thread that follows flows.

use std::net::IpAddr;
use std::time::Duration;

use crate::config::Counter;
pub use crate::drilldown::Counted;
use crate::drilldown::rank::RankBy;
use crate::drilldown::verdict::Findings;
use crate::event::Event;
use crate::units::{ThresholdName, Tick, Volume};

/// What the daemon must do.
#[derive(Debug, Clone, PartialEq)]
pub enum Ask {
    /// Follow the flows behind a counter.
    Begin(Box<Inquiry>),
    /// What the counter has counted by now.
    Counted {
        /// The drilldown.
        id: String,
        /// Since the account began.
        counted: Volume,
        /// The kernel's value that goes with it.
        kernel: Volume,
    },
    /// Give the verdict.
    End(Box<Ending>),
    /// Forget it: the threshold never fired.
    Discard {
        /// The drilldown.
        id: String,
    },
}

/// Whom to look for.
#[derive(Debug, Clone, PartialEq)]
pub struct Inquiry {
    /// Unique among the drilldowns of this router.
    pub id: String,
    /// The threshold that asks; `None` on demand.
    pub threshold: Option<ThresholdName>,
    /// Whose traffic.
    pub question: Question,
    /// What "most" means.
    pub rank_by: RankBy,
    /// The account begins here: the last reading that was not above raise.
    pub started: Tick,
}

/// Whose traffic is to be explained.
#[derive(Debug, Clone, PartialEq)]
pub enum Question {
    /// All that a counter counts.
    Counter(Box<Counter>),
    /// All that an inside address sends and receives.
    Host(IpAddr),
}

/// How an account ends.
#[derive(Debug, Clone, PartialEq)]
pub struct Ending {
    /// The drilldown.
    pub id: String,
    /// The reading at which it ends.
    pub ended: Tick,
    /// `None` where nothing counted.
    pub counted: Option<Counted>,
    /// Why, when not because the threshold is idle again.
    pub ended_by: Option<String>,
}

/// What a drilldown knows so far.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// The drilldown.
    pub id: String,
    /// Counted since the account began, at the last dump; `None` where nothing counts.
    pub counted_bytes: Option<u64>,
    /// Who.
    pub found: Findings,
    /// Conntrack dumps so far.
    pub dumps: u64,
    /// What the last dump took.
    pub dump_time: Duration,
    /// The time between dumps as the budget has it now.
    pub interval: Duration,
}

/// What one reading brought.
#[derive(Debug, Default, PartialEq)]
pub struct Outcome {
    /// For the log.
    pub events: Vec<Event>,
    /// For the drilldowns.
    pub asks: Vec<Ask>,
    /// For those who asked for a drilldown themselves.
    pub answers: Vec<Answer>,
}

/// What somebody who asked for a drilldown is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The drilldown.
    pub id: String,
    /// An interim list or the verdict; or why there will be no verdict.
    pub told: Result<Event, String>,
}
