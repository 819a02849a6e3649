//! A record of the log in words: one line for each event, and below a verdict the hosts it names.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;

use super::flows;
use super::format::{
    between, bit_rate, counted, date_and_time, duration, foreign, packet_rate, percent, volume,
};
use super::style::{Paint, Style};
use crate::drilldown::verdict::{Findings, HostShare, Verdict};
use crate::event::{ConfigResult, Event, Raised, Record, TopList};
use crate::report::Severity;
use crate::units::{CounterName, ThresholdName};

/// The longest word, `started`; the texts begin in one column.
const WORD_WIDTH: usize = 7;

/// The record as one line or more, each ended.
pub fn render(record: &Record, style: &Style) -> String {
    let mut line = line(record, style);
    if let Event::Verdict(verdict) = &record.event {
        for host in &verdict.found.hosts {
            line.push_str(&host_line(host, style));
        }
        line.push_str(&remainder_line(verdict, style));
    }
    line
}

/// The record as one line, ended.
pub fn line(record: &Record, style: &Style) -> String {
    let (word, paint, text) = in_words(&record.event, style);
    let when = date_and_time(record.time, &style.timezone);
    let word = style.paint(paint, &format!("{word:WORD_WIDTH$}"));
    format!("{}  {word}  {text}\n", style.paint(Paint::Faint, &when))
}

/// One word for the kind of event with its colour, and what happened.
pub fn in_words(event: &Event, style: &Style) -> (&'static str, Paint, String) {
    match event {
        Event::Started {
            version,
            counters,
            notes,
        } => {
            let mut text = format!(
                "flowctl {} with {}",
                foreign(version),
                counted(*counters as u64, "counter")
            );
            for note in notes {
                text.push_str("; ");
                text.push_str(&foreign(note));
            }
            ("started", Paint::Strong, text)
        }
        Event::Stopped { reason } => ("stopped", Paint::Strong, foreign(reason).into_owned()),
        Event::Raised(event) => ("raised", Paint::Alarm, raised(event, style)),
        Event::Flows(top) => ("flows", Paint::Faint, top_list(top, style)),
        Event::Verdict(verdict) => (
            "verdict",
            Paint::Strong,
            foreign(&verdict.text).into_owned(),
        ),
        Event::Cleared {
            threshold, counter, ..
        } => ("cleared", Paint::Good, format!("{threshold}: {counter}")),
        Event::Gap {
            from,
            to,
            bound_bytes,
            cause,
        } => (
            "gap",
            Paint::Warn,
            gap(*from, *to, *bound_bytes, cause, style),
        ),
        Event::Reset {
            counter,
            counters,
            by,
        } => (
            "reset",
            Paint::Warn,
            reset(counter.as_ref(), *counters, by.as_deref()),
        ),
        Event::Health {
            code,
            severity,
            message,
            fix,
            active,
        } => health(code, *severity, message, fix, *active),
        Event::Subnet {
            subnet,
            prefixes,
            before,
        } => {
            let (now, before) = (listed(prefixes), listed(before));
            (
                "subnet",
                Paint::Plain,
                format!("{subnet} is {now}, was {before}"),
            )
        }
        Event::Pace {
            interval_seconds,
            dump_seconds,
            flows,
            ..
        } => (
            "pace",
            Paint::Plain,
            pace(*interval_seconds, *dump_seconds, *flows),
        ),
        Event::Config { result, messages } => config(*result, messages),
    }
}

fn listed(prefixes: &[IpNet]) -> String {
    if prefixes.is_empty() {
        return "nowhere".to_owned();
    }
    let texts: Vec<String> = prefixes.iter().map(ToString::to_string).collect();
    texts.join(", ")
}

fn reset(counter: Option<&CounterName>, counters: usize, by: Option<&str>) -> String {
    let which = match counter {
        Some(counter) => counter.to_string(),
        None => counted(counters as u64, "counter"),
    };
    let by = by.map_or(Cow::Borrowed("another program"), foreign);
    format!("{which} by {by}; totals are kept")
}

fn config(result: ConfigResult, messages: &[String]) -> (&'static str, Paint, String) {
    let (word, paint) = match result {
        ConfigResult::Reloaded => ("reloaded", Paint::Strong),
        ConfigResult::Rejected => ("rejected, the old one stays in force", Paint::Alarm),
    };
    let messages = messages.join("; ");
    let colon = if messages.is_empty() { "" } else { ": " };
    (
        "config",
        paint,
        format!("{word}{colon}{}", foreign(&messages)),
    )
}

fn raised(event: &Raised, style: &Style) -> String {
    let (rate, level) = match (event.bits_per_second, event.packets_per_second) {
        (Some(bits), _) => (
            bit_rate(bits, style.units),
            bit_rate(event.level, style.units),
        ),
        (None, Some(packets)) => (
            packet_rate(packets, style.units),
            packet_rate(event.level, style.units),
        ),
        (None, None) => ("?".to_owned(), "?".to_owned()),
    };
    let (threshold, counter) = (&event.threshold, &event.counter);
    let mut text = format!("{threshold}: {counter} at {rate}, above {level}");
    if let Some(host) = event.hosts.first() {
        text.push_str(&format!("; {} {}", percent(host.share), flows::host(host)));
    }
    if let Some(flow) = event.flows.first() {
        text.push_str(&format!(", {}", flows::flow(flow)));
    }
    text
}

fn top_list(top: &TopList, style: &Style) -> String {
    let hosts: Vec<String> = top
        .found
        .hosts
        .iter()
        .take(3)
        .map(|host| format!("{} {}", percent(host.share), flows::host(host)))
        .collect();
    format!(
        "{}{}; {}",
        asked(top.threshold.as_ref(), top.counter.as_ref(), top.host),
        explained(top.counted_bytes, &top.found, style),
        if hosts.is_empty() {
            "no host yet".to_owned()
        } else {
            hosts.join(", ")
        }
    )
}

/// `uplink_full: wan_out`, or what was asked for on demand.
fn asked(
    threshold: Option<&ThresholdName>,
    counter: Option<&CounterName>,
    host: Option<IpAddr>,
) -> String {
    let what = flows::about(counter, host);
    match threshold {
        Some(threshold) => format!("{threshold}: {what}"),
        None => what,
    }
}

fn explained(counted: Option<u64>, found: &Findings, style: &Style) -> String {
    match counted {
        Some(counted) => format!(
            ", {} of {} explained",
            volume(found.attributed_bytes.min(counted), style.units),
            volume(counted, style.units)
        ),
        None => format!(", {}", volume(found.attributed_bytes, style.units)),
    }
}

fn gap(
    from: Timestamp,
    to: Timestamp,
    bound_bytes: Option<u64>,
    cause: &str,
    style: &Style,
) -> String {
    let bound = match bound_bytes {
        Some(bytes) => format!("at most {} missed", volume(bytes, style.units)),
        None => "how much was missed cannot be known".to_owned(),
    };
    let length = duration(between(from, to));
    format!("{length} without counting: {}; {bound}", foreign(cause))
}

fn pace(interval: f64, dump: f64, flows: u64) -> String {
    let seconds = |seconds: f64| {
        let whole = Duration::try_from_secs_f64(seconds).unwrap_or_default();
        duration(whole)
    };
    format!(
        "conntrack is dumped every {}: a dump took {dump:.3} s, {} remembered",
        seconds(interval),
        counted(flows, "flow")
    )
}

fn health(
    code: &str,
    severity: Severity,
    message: &str,
    fix: &str,
    active: bool,
) -> (&'static str, Paint, String) {
    let paint = match severity {
        _ if !active => Paint::Good,
        Severity::Info => Paint::Plain,
        Severity::Warning => Paint::Warn,
        Severity::Error => Paint::Alarm,
    };
    let (code, message) = (foreign(code), foreign(message));
    if !active {
        return ("health", paint, format!("over: {message} ({code})"));
    }
    let fix = if fix.is_empty() {
        String::new()
    } else {
        format!("; fix: {}", foreign(fix))
    };
    ("health", paint, format!("{message} ({code}){fix}"))
}

fn host_line(host: &HostShare, style: &Style) -> String {
    let (share, bytes) = (percent(host.share), volume(host.bytes, style.units));
    format!("{:21}{share:>5}  {bytes:>9}  {}\n", "", flows::host(host))
}

/// The hosts not named, if any.
fn remainder_line(verdict: &Verdict, style: &Style) -> String {
    let found = &verdict.found;
    let others = found.hosts_total.saturating_sub(found.hosts.len() as u64);
    if others == 0 {
        return String::new();
    }
    let bytes = volume(found.hosts_remainder_bytes, style.units);
    let hosts = counted(others, "more host");
    format!("{:28}{bytes:>9}  {hosts}\n", "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::format::Units;
    use crate::report::Report;

    const RECORDS: &str = include_str!("../../tests/data/log.jsonl");

    #[test]
    fn every_kind_of_event_reads_like_this() {
        let style = Style {
            color: false,
            units: Units::Usual,
            width: 80,
            height: None,
            timezone: jiff::tz::TimeZone::UTC,
        };
        let text: String = RECORDS
            .lines()
            .map(|line| render(&serde_json::from_str(line).unwrap(), &style))
            .collect();
        assert_eq!(text, include_str!("../../tests/data/log.txt"), "{text}");
    }

    #[test]
    fn a_verdict_survives_the_way_through_the_log() {
        let report: Report =
            serde_json::from_str(include_str!("../../tests/data/report.json")).unwrap();
        let verdict = report.last_verdict.unwrap().as_ref().clone();
        let record = Record {
            time: verdict.ended,
            event: Event::Verdict(Box::new(verdict)),
        };
        let line = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&line).unwrap(), record);
    }
}
