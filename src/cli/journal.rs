//! Standard error as the journal: there each line begins with its priority, as sd-daemon(3) has it. Elsewhere nothing is
//! added.

use std::io;
use std::sync::OnceLock;

use crate::event::{ConfigResult, Event};
use crate::report::Severity;

/// How much a line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// Something failed.
    Error,
    /// Numbers may be wrong.
    Warning,
    /// What an operator wants to see.
    Notice,
    /// The rest.
    Info,
}

impl Priority {
    /// Of what happened.
    pub fn of(event: &Event) -> Priority {
        match event {
            Event::Health { active: false, .. } => Priority::Info,
            Event::Health { severity, .. } => match severity {
                Severity::Error => Priority::Error,
                Severity::Warning => Priority::Warning,
                Severity::Info => Priority::Info,
            },
            Event::Config {
                result: ConfigResult::Rejected,
                ..
            } => Priority::Error,
            Event::Gap { .. } | Event::Reset { .. } => Priority::Warning,
            Event::Raised(_) | Event::Verdict(_) | Event::Cleared { .. } => Priority::Notice,
            Event::Started { .. }
            | Event::Stopped { .. }
            | Event::Flows(_)
            | Event::Subnet { .. }
            | Event::Pace { .. }
            | Event::Config { .. } => Priority::Info,
        }
    }

    fn prefix(self) -> &'static str {
        match self {
            Priority::Error => "<3>",
            Priority::Warning => "<4>",
            Priority::Notice => "<5>",
            Priority::Info => "<6>",
        }
    }
}

/// Lines for standard error, each ended: with their priority if that is the journal.
pub fn lines(text: String, priority: Priority) -> String {
    static IS_JOURNAL: OnceLock<bool> = OnceLock::new();
    if *IS_JOURNAL.get_or_init(is_journal) {
        prefixed(&text, priority)
    } else {
        text
    }
}

fn prefixed(text: &str, priority: Priority) -> String {
    let lines = text.lines();
    lines
        .map(|line| format!("{}{line}\n", priority.prefix()))
        .collect()
}

/// JOURNAL_STREAM names a device and an inode; standard error may have been turned elsewhere since.
fn is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    rustix::fs::fstat(io::stderr())
        .is_ok_and(|file| stream == format!("{}:{}", file.st_dev, file.st_ino))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_of_a_text_has_the_priority() {
        assert_eq!(prefixed("a\n  b\n", Priority::Warning), "<4>a\n<4>  b\n");
    }

    #[test]
    fn what_failed_matters_more_than_what_works_again() {
        let health = |severity, active| Event::Health {
            code: "log_write_failed".into(),
            severity,
            message: String::new(),
            fix: String::new(),
            active,
        };
        let of = |severity, active| Priority::of(&health(severity, active)).prefix();
        assert_eq!(of(Severity::Error, true), "<3>");
        assert_eq!(of(Severity::Warning, true), "<4>");
        assert_eq!(of(Severity::Error, false), "<6>");
    }
}
