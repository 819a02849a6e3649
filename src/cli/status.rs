//! What `flowctl status` shows of a report: pure text, for people, at 80 columns and without colour too. It never
//! shortens a name and shows no foreign text unescaped.

use std::time::Duration;

use super::columns::{Align, Cell, lines, wrapped};
use super::exit::ExitCode;
use super::flows;
use super::format::{
    between, bit_rate, counted, duration, foreign, packet_rate, percent, time, volume,
};
use super::style::{Paint, Style};
use super::{counters, devices};
use crate::kernel::nft::Protection;
use crate::report::{DrilldownReport, Health, Report, Severity, StateWord, ThresholdReport};

/// Hosts and flows shown of a drilldown that goes on; the verdict names more.
const SHOWN: usize = 5;
/// Counters shown even where the terminal is too low for anything else.
const COUNTERS_MIN: usize = 3;

/// The whole status, every line ended.
pub fn render(report: &Report, style: &Style) -> String {
    let mut below: Vec<String> = Vec::new();
    for section in [
        thresholds(report, style),
        drilldowns(report, style),
        last_verdict(report, style),
        devices::render(report, style),
        health(report, style),
    ] {
        if !section.is_empty() {
            below.push(String::new());
            below.extend(section);
        }
    }
    let header = header(report, style);
    // A blank line, the heading, and the line that tells how many are not shown.
    let rows = style
        .height
        .map(|height| height.saturating_sub(header.len() + below.len() + 3))
        .map(|rows| rows.max(COUNTERS_MIN));
    let mut all = header;
    all.push(String::new());
    all.extend(counters::render(report, rows, style));
    all.extend(below);
    all.push(String::new());
    all.join("\n")
}

fn header(report: &Report, style: &Style) -> Vec<String> {
    let up = seconds(report.uptime_seconds);
    let tick = seconds(report.tick.interval_seconds);
    let load = if report.uptime_seconds > 0.0 {
        report.cost.cpu_seconds / report.uptime_seconds
    } else {
        0.0
    };
    let name = style.paint(
        Paint::Strong,
        &format!("flowctl {}", foreign(&report.version)),
    );
    let mut lines = vec![format!(
        "{name}, up {up}, tick {tick}, {}; costs {} of a core, {}",
        counted(report.counters.len() as u64, "counter"),
        percent(load),
        volume(report.cost.rss_bytes, style.units),
    )];
    lines.push(table(report, style));
    let mut troubles = Vec::new();
    if report.tick.missed > 0 {
        troubles.push(format!("{} missed", counted(report.tick.missed, "tick")));
    }
    if !troubles.is_empty() {
        lines.push(style.paint(Paint::Warn, &troubles.join(", ")));
    }
    lines
}

fn table(report: &Report, style: &Style) -> String {
    let protection = match report.table.protection {
        Protection::Owned => "protected from others",
        Protection::Plain => "not protected from others, repaired when they change it",
        Protection::Static => "loaded with the system's ruleset, only read",
    };
    let name = foreign(&report.table.name);
    match report.table.repairs {
        0 => style.paint(Paint::Faint, &format!("table {name} {protection}")),
        repairs => {
            let times = counted(repairs, "time");
            style.paint(Paint::Warn, &format!("table {name} {protection}: {times}"))
        }
    }
}

fn thresholds(report: &Report, style: &Style) -> Vec<String> {
    if report.thresholds.is_empty() {
        return Vec::new();
    }
    let heading = ["threshold", "state", "since", "now", "level", "counter"];
    let mut rows = vec![heading.map(|word| Cell::new(Paint::Faint, word)).to_vec()];
    for threshold in &report.thresholds {
        let (word, paint) = state(threshold.state);
        rows.push(vec![
            Cell::new(Paint::Strong, threshold.name.as_str()),
            Cell::new(paint, word),
            Cell::plain(duration(between(threshold.since, report.time))),
            Cell::plain(rate_now(report, threshold, style)),
            Cell::plain(level(threshold, style)),
            Cell::plain(threshold.counter.as_str()),
        ]);
    }
    let aligns = [
        Align::Left,
        Align::Left,
        Align::Right,
        Align::Right,
        Align::Left,
        Align::Left,
    ];
    lines(&rows, &aligns, style)
}

fn state(state: StateWord) -> (&'static str, Paint) {
    match state {
        StateWord::Idle => ("idle", Paint::Good),
        StateWord::Pending => ("pending", Paint::Warn),
        StateWord::Firing => ("firing", Paint::Alarm),
        StateWord::Clearing => ("clearing", Paint::Warn),
    }
}

/// Of the threshold's counter, in the threshold's unit.
fn rate_now(report: &Report, threshold: &ThresholdReport, style: &Style) -> String {
    let Some(counter) = report
        .counters
        .iter()
        .find(|counter| counter.name == threshold.counter)
    else {
        return "?".to_owned();
    };
    match threshold.raise_bits_per_second {
        Some(_) => bit_rate(counter.bits_per_second, style.units),
        None => packet_rate(counter.packets_per_second, style.units),
    }
}

/// The level that decides about the next state.
fn level(threshold: &ThresholdReport, style: &Style) -> String {
    let raised = matches!(threshold.state, StateWord::Firing | StateWord::Clearing);
    let (word, bits, packets) = if raised {
        (
            "clear",
            threshold.clear_bits_per_second,
            threshold.clear_packets_per_second,
        )
    } else {
        (
            "raise",
            threshold.raise_bits_per_second,
            threshold.raise_packets_per_second,
        )
    };
    match (bits, packets) {
        (Some(bits), _) => format!("{word} {}", bit_rate(bits, style.units)),
        (None, Some(packets)) => format!("{word} {}", packet_rate(packets, style.units)),
        (None, None) => String::new(),
    }
}

fn drilldowns(report: &Report, style: &Style) -> Vec<String> {
    let each = report.drilldowns.iter().enumerate();
    each.flat_map(|(position, drilldown)| {
        let blank = (position > 0).then(String::new);
        blank
            .into_iter()
            .chain(one_drilldown(report, drilldown, style))
    })
    .collect()
}

fn one_drilldown(report: &Report, drilldown: &DrilldownReport, style: &Style) -> Vec<String> {
    let what = flows::about(drilldown.counter.as_ref(), drilldown.host);
    let title = style.paint(Paint::Strong, &format!("drilldown of {what}"));
    let so_far = flows::so_far(drilldown.counted_bytes, &drilldown.found, style);
    let asker = match &drilldown.threshold {
        Some(threshold) => format!("for {threshold}"),
        None => "on demand".to_owned(),
    };
    let mut all = vec![format!(
        "{title} {asker}, {}: {so_far}",
        duration(between(drilldown.started, report.time)),
    )];
    let hosts = drilldown.found.hosts.iter().take(SHOWN).enumerate();
    let hosts = hosts.map(|(position, host)| {
        let what = if position == 0 { "hosts" } else { "" };
        share_row(what, host.share, host.bytes, flows::host(host), style)
    });
    let flows = drilldown.found.flows.iter().take(SHOWN).enumerate();
    let flows = flows.map(|(position, flow)| {
        let what = if position == 0 { "flows" } else { "" };
        share_row(what, flow.share, flow.bytes, flows::flow(flow), style)
    });
    let rows: Vec<Vec<Cell>> = hosts.chain(flows).collect();
    let aligns = [Align::Left, Align::Right, Align::Right, Align::Left];
    all.extend(lines(&rows, &aligns, style));
    all
}

fn share_row(what: &str, share: f64, bytes: u64, who: String, style: &Style) -> Vec<Cell> {
    vec![
        Cell::new(Paint::Faint, format!("  {what}").trim_end()),
        Cell::plain(percent(share)),
        Cell::plain(volume(bytes, style.units)),
        Cell::plain(who),
    ]
}

fn last_verdict(report: &Report, style: &Style) -> Vec<String> {
    let Some(verdict) = &report.last_verdict else {
        return Vec::new();
    };
    let title = style.paint(Paint::Strong, "last verdict");
    let when = time(verdict.ended, report.time, &style.timezone);
    let ago = duration(between(verdict.ended, report.time));
    let mut all = vec![format!("{title} at {when}, {ago} ago")];
    all.extend(wrapped(&foreign(&verdict.text), style.width, "  "));
    all
}

/// What needs somebody, in full; what is merely worth knowing is left to the doctor.
fn health(report: &Report, style: &Style) -> Vec<String> {
    let (notes, pressing): (Vec<&Health>, Vec<&Health>) = report
        .health
        .iter()
        .partition(|entry| entry.severity == Severity::Info);
    let mut all: Vec<String> = pressing
        .into_iter()
        .flat_map(|entry| one_health(entry, style))
        .collect();
    if !notes.is_empty() {
        let note = format!(
            "{} in `flowctl doctor`",
            counted(notes.len() as u64, "note")
        );
        all.push(style.paint(Paint::Faint, &note));
    }
    all
}

fn one_health(entry: &Health, style: &Style) -> Vec<String> {
    let (word, paint) = match entry.severity {
        Severity::Info => ("info", Paint::Faint),
        Severity::Warning => ("warning", Paint::Warn),
        Severity::Error => ("error", Paint::Alarm),
    };
    let message = format!("{} ({})", foreign(&entry.message), foreign(&entry.code));
    let mut all = wrapped(&message, style.width.saturating_sub(word.len() + 1), "");
    if let Some(first) = all.first_mut() {
        *first = format!("{} {first}", style.paint(paint, word));
    }
    for line in all.iter_mut().skip(1) {
        line.insert_str(0, "  ");
    }
    if !entry.fix.is_empty() {
        let fix = format!("fix: {}", foreign(&entry.fix));
        all.extend(wrapped(&fix, style.width, "  "));
    }
    all
}

/// The exit status of `flowctl status --check`. Clearing counts as firing until the threshold is idle.
pub fn exit_code_for_check(report: &Report) -> ExitCode {
    let any = |states: &[StateWord]| {
        report
            .thresholds
            .iter()
            .any(|threshold| states.contains(&threshold.state))
    };
    let unwell = report
        .health
        .iter()
        .any(|entry| entry.severity >= Severity::Warning);
    if any(&[StateWord::Firing, StateWord::Clearing]) {
        ExitCode::Firing
    } else if any(&[StateWord::Pending]) || unwell {
        ExitCode::Warning
    } else {
        ExitCode::Ok
    }
}

/// The status in one line, for `flowctl status --check`.
pub fn check_line(report: &Report, style: &Style) -> String {
    let code = exit_code_for_check(report);
    let word = if code == ExitCode::Firing {
        "firing"
    } else if code == ExitCode::Ok {
        "ok"
    } else {
        "warning"
    };
    let mut reasons: Vec<String> = Vec::new();
    for threshold in &report.thresholds {
        if threshold.state != StateWord::Idle {
            let (state, _) = state(threshold.state);
            let rate = rate_now(report, threshold, style);
            let (name, counter) = (&threshold.name, &threshold.counter);
            reasons.push(format!("{name} is {state} ({counter} at {rate})"));
        }
    }
    for entry in &report.health {
        if entry.severity >= Severity::Warning {
            reasons.push(foreign(&entry.message).into_owned());
        }
    }
    if reasons.is_empty() {
        let counters = counted(report.counters.len() as u64, "counter");
        let thresholds = counted(report.thresholds.len() as u64, "threshold");
        reasons.push(format!("{counters}, {thresholds}"));
    }
    format!("{word}: {}\n", reasons.join("; "))
}

fn seconds(seconds: f64) -> String {
    duration(Duration::try_from_secs_f64(seconds).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::format::Units;

    fn example() -> Report {
        serde_json::from_str(include_str!("../../tests/data/report.json")).unwrap()
    }

    fn style(width: usize) -> Style {
        Style {
            color: false,
            units: Units::Usual,
            width,
            height: None,
            timezone: jiff::tz::TimeZone::UTC,
        }
    }

    #[test]
    fn a_report_reads_like_this() {
        let text = render(&example(), &style(80));
        assert_eq!(text, include_str!("../../tests/data/status.txt"), "{text}");
    }

    #[test]
    fn every_line_fits_into_80_columns() {
        for line in render(&example(), &style(80)).lines() {
            assert!(line.chars().count() <= 80, "{line}");
            assert_eq!(line, line.trim_end());
        }
    }

    #[test]
    fn colour_changes_nothing_but_the_colour() {
        let colored = Style {
            color: true,
            ..style(80)
        };
        let text = render(&example(), &colored);
        assert!(text.contains("\x1b[1;31mfiring\x1b[0m"));
        let mut plain = text;
        for code in ["0", "1", "2", "32", "33", "1;31"] {
            plain = plain.replace(&format!("\x1b[{code}m"), "");
        }
        assert_eq!(plain, render(&example(), &style(80)));
    }

    #[test]
    fn a_low_terminal_shows_the_busiest_counters_and_all_that_is_wrong() {
        let low = Style {
            height: Some(20),
            ..style(80)
        };
        let text = render(&example(), &low);
        assert!(text.contains("wan_in "), "{text}");
        assert!(text.contains("and 1 more counter\n"), "{text}");
        assert!(text.contains("fix: sysctl"), "{text}");
    }

    #[test]
    fn firing_outranks_pending_and_warnings() {
        let mut report = example();
        assert_eq!(exit_code_for_check(&report), ExitCode::Firing);
        report.thresholds[0].state = StateWord::Clearing;
        assert_eq!(exit_code_for_check(&report), ExitCode::Firing);
        report.thresholds[0].state = StateWord::Idle;
        assert_eq!(exit_code_for_check(&report), ExitCode::Warning);
        report.health[0].severity = Severity::Info;
        assert_eq!(exit_code_for_check(&report), ExitCode::Ok);
        assert_eq!(
            check_line(&report, &style(80)),
            "ok: 4 counters, 2 thresholds\n"
        );
        report.thresholds[1].state = StateWord::Pending;
        assert_eq!(exit_code_for_check(&report), ExitCode::Warning);
        assert_eq!(
            check_line(&report, &style(80)),
            "warning: flood is pending (wan_in at 27.4 kpps)\n"
        );
    }
}
