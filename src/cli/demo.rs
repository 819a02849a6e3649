//! `flowctl demo`: tells the show as it happens, and at its end sets what flowctl found beside what was sent.

use super::exit::ExitCode;
use super::format::{bit_rate, percent, volume};
use super::style::{Paint, Style};
use super::{DemoArgs, Options, log_text, output, run};
use crate::demo::{self, DemoError, Moment, Outcome};
use crate::event::Event;
use crate::lab::LabError;
use crate::report::{Report, StateWord};

/// Plays the show; succeeds when flowctl was right.
pub fn run(args: &DemoArgs, options: &Options) -> ExitCode {
    let style = options.style();
    let json = args.json;
    let mut last_told = f64::NEG_INFINITY;
    let mut told = |moment: Moment<'_>| {
        if json {
            return;
        }
        let text = match moment {
            Moment::Stage(text) => {
                format!("{}\n", style.paint(Paint::Strong, &format!("== {text}")))
            }
            Moment::Record(record) => match record.event {
                Event::Raised(_) | Event::Verdict(_) | Event::Cleared { .. } => {
                    log_text::render(record, &style)
                }
                Event::Started { .. }
                | Event::Stopped { .. }
                | Event::Flows(_)
                | Event::Gap { .. }
                | Event::Reset { .. }
                | Event::Health { .. }
                | Event::Config { .. } => return,
            },
            Moment::Report(report) if report.uptime_seconds - last_told >= 1.0 => {
                last_told = report.uptime_seconds;
                line(report, &style)
            }
            Moment::Report(_) => return,
        };
        // A closed output is noticed at the end.
        let _ = output::print(&text);
    };
    match demo::run(args.seconds, &mut told) {
        Ok(outcome) => conclude(&outcome, json, &style),
        Err(error) => complain(&error),
    }
}

fn line(report: &Report, style: &Style) -> String {
    let rate = |name: &str| {
        let counter = report
            .counters
            .iter()
            .find(|counter| counter.name.as_str() == name);
        bit_rate(
            counter.map_or(0.0, |counter| counter.bits_per_second),
            style.units,
        )
    };
    let state = report
        .thresholds
        .first()
        .map_or(StateWord::Idle, |threshold| threshold.state);
    let (word, paint) = match state {
        StateWord::Idle => ("idle", Paint::Good),
        StateWord::Pending => ("pending", Paint::Warn),
        StateWord::Firing => ("firing", Paint::Alarm),
        StateWord::Clearing => ("clearing", Paint::Warn),
    };
    format!(
        "{:5.1} s   wan_out {:>12}   wan_in {:>12}   home_from {:>12}   iot_to_internet {:>12}   uplink_full {}\n",
        report.uptime_seconds,
        rate("wan_out"),
        rate("wan_in"),
        rate("home_from"),
        rate("iot_to_internet"),
        style.paint(paint, word),
    )
}

fn conclude(outcome: &Outcome, json: bool, style: &Style) -> ExitCode {
    let mistakes = outcome.mistakes();
    let printed = if json {
        output::print(&format!("{}\n", as_json(outcome, &mistakes)))
    } else {
        output::print(&comparison(outcome, &mistakes, style))
    };
    if mistakes.is_empty() {
        printed
    } else {
        ExitCode::Failure
    }
}

fn as_json(outcome: &Outcome, mistakes: &[String]) -> serde_json::Value {
    let sent: Vec<_> = outcome
        .sent
        .iter()
        .map(|sent| {
            serde_json::json!({
                "address": sent.address, "role": sent.role, "bytes": sent.bytes, "share": sent.share,
            })
        })
        .collect();
    serde_json::json!({
        "verdict": outcome.verdict,
        "generator": {
            "started": outcome.verdict.started,
            "ended": outcome.verdict.ended,
            "bytes": outcome.sent.iter().map(|sent| sent.bytes).sum::<u64>(),
            "hosts": sent,
        },
        "states": outcome.states,
        "status": *outcome.report,
        "mistakes": mistakes,
        "right": mistakes.is_empty(),
    })
}

fn comparison(outcome: &Outcome, mistakes: &[String], style: &Style) -> String {
    let mut text = format!(
        "\n{}\n",
        style.paint(Paint::Strong, "what flowctl found beside what was sent:")
    );
    text.push_str(&format!(
        "{:<14} {:<24} {:>22} {:>22}\n",
        "host", "", "sent", "found"
    ));
    for sent in &outcome.sent {
        let found = outcome
            .verdict
            .hosts
            .iter()
            .find(|host| host.address == sent.address);
        let found = found.map_or_else(String::new, |host| {
            format!(
                "{} {}",
                volume(host.bytes, style.units),
                percent(host.share)
            )
        });
        let truth = format!(
            "{} {}",
            volume(sent.bytes, style.units),
            percent(sent.share)
        );
        text.push_str(&format!(
            "{:<14} {:<24} {truth:>22} {found:>22}\n",
            sent.address.to_string(),
            sent.role
        ));
    }
    text.push_str(
        "(sent: TCP without its headers, and without the acknowledgements of a download)\n",
    );
    let cost = outcome.report.cost;
    text.push_str(&format!(
        "explained {} of what wan_out counted; the whole demo, traffic included, cost {:.2} s of CPU\n",
        percent(outcome.verdict.coverage),
        cost.cpu_seconds
    ));
    for mistake in mistakes {
        text.push_str(&format!(
            "{}\n",
            style.paint(Paint::Alarm, &format!("wrong: {mistake}"))
        ));
    }
    if mistakes.is_empty() {
        text.push_str("The right host, with the right share. The router and everything on it is gone again.\n");
    }
    text
}

fn complain(error: &DemoError) -> ExitCode {
    match error {
        DemoError::Lab(LabError::Namespace { source, .. })
            if source.kind() == std::io::ErrorKind::PermissionDenied =>
        {
            output::complain(format_args!(
                "{error}; CAP_SYS_ADMIN is missing: run it as root, e.g. `sudo flowctl demo`"
            ));
            ExitCode::MissingPrivilege
        }
        DemoError::Daemon(error) => run::complain(error),
        DemoError::Lab(_)
        | DemoError::System { .. }
        | DemoError::Interrupted
        | DemoError::NoVerdict(_) => {
            output::complain(error);
            ExitCode::Failure
        }
    }
}
