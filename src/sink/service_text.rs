//! What the service manager shows of the daemon: one short sentence, and how a daemon that cannot run says why. A
//! sentence is another one only when something changed; rates that move do not make it so.

use crate::drilldown::text::{bits, packet_rate, percent};
use crate::report::{Report, Severity, StateWord, ThresholdReport};

/// Thresholds that are said by name.
const SAID: usize = 3;
/// A datagram of more than 4096 bytes is not read by systemd.
const TEXT_BYTES_MAX: usize = 1000;

/// A report as one sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Headline {
    /// What is the case, without figures that move: two of a kind need not be said twice.
    kind: String,
    /// The sentence.
    pub text: String,
}

impl Headline {
    /// Of a report; `None` where `told` says it already.
    pub fn unless_told(report: &Report, told: Option<&Headline>) -> Option<Headline> {
        let kind = sentence(report, usize::MAX, said);
        if told.is_some_and(|told| told.kind == kind) {
            return None;
        }
        let text =
            |threshold: &ThresholdReport| format!("{}{}", said(threshold), rate(report, threshold));
        Some(Headline {
            kind,
            text: clean(&sentence(report, SAID, text)),
        })
    }
}

/// Why the daemon does not run, of all that is wrong.
pub fn failure(problems: &[String]) -> String {
    let Some((first, more)) = problems.split_first() else {
        return "ended".to_owned();
    };
    let first = clean(first);
    match more.len() {
        0 => first,
        1 => format!("{first}; and 1 more problem, see the journal"),
        more => format!("{first}; and {more} more problems, see the journal"),
    }
}

fn sentence(report: &Report, most: usize, say: impl Fn(&ThresholdReport) -> String) -> String {
    let mut awake: Vec<&ThresholdReport> = (report.thresholds.iter())
        .filter(|threshold| threshold.state != StateWord::Idle)
        .collect();
    awake.sort_by_key(|threshold| urgency(threshold.state));
    let counters = match report.counters.len() {
        1 => "1 counter".to_owned(),
        many => format!("{many} counters"),
    };
    let mut clauses: Vec<String> = awake.iter().take(most).map(|t| say(t)).collect();
    if let more @ 1.. = awake.len().saturating_sub(most) {
        clauses.push(format!("{more} more thresholds are awake"));
    }
    if clauses.is_empty() {
        let quiet = if report.thresholds.is_empty() {
            ""
        } else {
            ", all quiet"
        };
        clauses.push(format!("{counters}{quiet}"));
    }
    let errors = report.health.iter();
    let mut errors: Vec<&str> = errors
        .filter(|entry| entry.severity == Severity::Error)
        .map(|entry| entry.code.as_str())
        .collect();
    errors.sort_unstable();
    errors.dedup();
    if !errors.is_empty() {
        let codes = errors.join(", ");
        clauses.push(format!("{codes}: `flowctl status` says what to do"));
    }
    clauses.join("; ")
}

fn urgency(state: StateWord) -> u8 {
    match state {
        StateWord::Firing => 0,
        StateWord::Clearing => 1,
        StateWord::Pending => 2,
        StateWord::Idle => 3,
    }
}

fn said(threshold: &ThresholdReport) -> String {
    let (name, counter) = (&threshold.name, &threshold.counter);
    match threshold.state {
        StateWord::Firing => format!("{name} fires on {counter}"),
        StateWord::Pending => format!("{name} is pending on {counter}"),
        StateWord::Clearing => format!("{name} is clearing on {counter}"),
        StateWord::Idle => format!("{name} is idle"),
    }
}

/// How much the counter has now: of its capacity where that is known.
fn rate(report: &Report, threshold: &ThresholdReport) -> String {
    let mut counters = report.counters.iter();
    let Some(counter) = counters.find(|counter| counter.name == threshold.counter) else {
        return String::new();
    };
    let capacity = counter.capacity_bits_per_second;
    match (threshold.raise_bits_per_second, capacity) {
        (None, _) => format!(": {}", packet_rate(counter.packets_per_second)),
        (Some(_), Some(capacity)) if capacity > 0.0 => {
            let share = percent(counter.bits_per_second / capacity);
            format!(": {share} of capacity")
        }
        (Some(_), _) => format!(": {}", bits(counter.bits_per_second)),
    }
}

/// One line of bounded length: a newline would begin another assignment.
fn clean(text: &str) -> String {
    let one_line = |character: char| {
        if character.is_control() {
            ' '
        } else {
            character
        }
    };
    let mut clean: String = text.chars().map(one_line).collect();
    if clean.len() > TEXT_BYTES_MAX {
        let end = (0..=TEXT_BYTES_MAX)
            .rev()
            .find(|at| clean.is_char_boundary(*at));
        clean.truncate(end.unwrap_or(0));
        clean.push('…');
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn report(states: &[StateWord]) -> Report {
        let mut report: Report =
            serde_json::from_str(include_str!("../../tests/data/report.json")).unwrap();
        let example = report.thresholds[0].clone();
        let threshold = |(number, state): (usize, &StateWord)| ThresholdReport {
            name: crate::units::ThresholdName::new(&format!("limit{number}")).unwrap(),
            state: *state,
            ..example.clone()
        };
        report.thresholds = states.iter().enumerate().map(threshold).collect();
        report.health.clear();
        let watched = example.counter;
        let mut counter = report.counters[0].clone();
        counter.name = watched;
        counter.bits_per_second = 45.5e6;
        counter.capacity_bits_per_second = Some(50e6);
        report.counters = Arc::new(vec![counter; 12]);
        report
    }

    fn headline(report: &Report) -> Headline {
        Headline::unless_told(report, None).unwrap()
    }

    fn text(report: &Report) -> String {
        headline(report).text
    }

    #[test]
    fn what_is_quiet_and_what_fires_is_said_in_a_sentence() {
        use StateWord::{Clearing, Firing, Idle, Pending};
        assert_eq!(text(&report(&[])), "12 counters");
        assert_eq!(text(&report(&[Idle])), "12 counters, all quiet");
        assert_eq!(
            text(&report(&[Pending, Idle, Firing])),
            "limit2 fires on wan_out: 91 % of capacity; limit0 is pending on wan_out: 91 % of capacity"
        );
        let many = text(&report(&[Pending, Pending, Clearing, Firing, Pending]));
        assert!(many.ends_with("; 2 more thresholds are awake"), "{many}");
    }

    #[test]
    fn a_rate_that_moves_is_the_same_sentence_and_another_state_is_not() {
        let before = report(&[StateWord::Firing]);
        let mut later = before.clone();
        Arc::make_mut(&mut later.counters)[0].bits_per_second = 50e6;
        let (before, later) = (headline(&before), headline(&later));
        assert_ne!(before.text, later.text);
        assert_eq!(before.kind, later.kind);
        let other = headline(&report(&[StateWord::Clearing]));
        assert_ne!(other.kind, later.kind);
    }

    #[test]
    fn where_no_capacity_is_known_the_rate_is_said() {
        let mut report = report(&[StateWord::Firing]);
        Arc::make_mut(&mut report.counters)[0].capacity_bits_per_second = None;
        assert_eq!(text(&report), "limit0 fires on wan_out: 45.5 Mbit/s");
        report.thresholds[0].raise_bits_per_second = None;
        Arc::make_mut(&mut report.counters)[0].packets_per_second = 20_000.0;
        assert_eq!(text(&report), "limit0 fires on wan_out: 20 kpps");
    }

    #[test]
    fn what_keeps_flowctl_from_its_work_is_said_and_a_warning_is_not() {
        let mut report = report(&[StateWord::Idle]);
        let mut say = |severity| {
            report.health = vec![crate::health::entry(
                "log_write_failed",
                severity,
                String::new(),
                "",
            )];
            text(&report)
        };
        assert_eq!(say(Severity::Warning), "12 counters, all quiet");
        assert_eq!(
            say(Severity::Error),
            "12 counters, all quiet; log_write_failed: `flowctl status` says what to do"
        );
    }

    #[test]
    fn what_is_wrong_in_several_places_is_said_once() {
        let mut report = report(&[]);
        let codes = [
            "totals_write_failed",
            "log_write_failed",
            "totals_write_failed",
        ];
        let error = |code| crate::health::entry(code, Severity::Error, String::new(), "");
        report.health = codes.map(error).into();
        assert_eq!(
            text(&report),
            "12 counters; log_write_failed, totals_write_failed: `flowctl status` says what to do"
        );
    }

    #[test]
    fn a_failure_names_the_first_problem_and_counts_the_others_in_one_short_line() {
        let problems = [
            "a.toml:1:2: tick:\nREADY=1".to_owned(),
            "b".into(),
            "c".into(),
        ];
        assert_eq!(
            failure(&problems),
            "a.toml:1:2: tick: READY=1; and 2 more problems, see the journal"
        );
        assert_eq!(failure(&problems[1..2]), "b");
        let long = failure(&["ü".repeat(3000)]);
        assert!(long.len() < 1010 && long.ends_with('…'), "{}", long.len());
    }
}
