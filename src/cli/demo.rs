//! `flowctl demo`: tells the show as it happens, and at its end sets what flowctl found beside what was sent. No
//! line is wider than 80 columns.

use std::ops::ControlFlow;

use super::columns::wrapped;
use super::exit::ExitCode;
use super::format::{bar, bit_rate, percent, volume};
use super::output::{Output, OutputError};
use super::style::{Paint, Style};
use super::{DemoArgs, Options, log_text, output, run};
use crate::demo::{self, CAPACITY, DemoError, Moment, Outcome, Sent};
use crate::event::Event;
use crate::lab::{LabError, enter_own_users};
use crate::report::{CounterReport, Report, StateWord};

const WIDTH: usize = 80;
/// How wide the full uplink is drawn.
const BAR_WIDTH: usize = 14;
/// Below the words that say what happened.
const INDENT: &str = "         ";

/// Plays the show; succeeds when flowctl was right.
pub fn run(args: &DemoArgs, options: &Options) -> ExitCode {
    if let Err(error) = enter_own_users() {
        return forbidden("a user namespace", &error);
    }
    let style = options.style();
    let mut teller = Teller::new(&style);
    let mut unheard = None;
    let mut observe = |moment: Moment<'_>| {
        if args.json {
            return ControlFlow::Continue(());
        }
        match teller.tell(moment) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                unheard = Some(error);
                ControlFlow::Break(())
            }
        }
    };
    let played = demo::run(args.seconds, &mut observe);
    if let Some(error) = unheard {
        return error.exit_code();
    }
    match played {
        Ok(outcome) => conclude(&outcome, args.json, &style),
        Err(error) => complain(&error),
    }
}

/// Tells a report a second, every change of the threshold, and what is worth a line of its own.
struct Teller<'a> {
    style: &'a Style,
    output: Output,
    told_at: f64,
    state: Option<StateWord>,
}

impl<'a> Teller<'a> {
    fn new(style: &'a Style) -> Self {
        Teller {
            style,
            output: Output::default(),
            told_at: f64::NEG_INFINITY,
            state: None,
        }
    }

    fn tell(&mut self, moment: Moment<'_>) -> Result<(), OutputError> {
        let text = match moment {
            Moment::Stage(text) => stage(&text, self.state.is_none(), self.style),
            Moment::Record(record) => match &record.event {
                event @ (Event::Raised(_) | Event::Verdict(_) | Event::Cleared { .. }) => {
                    happened(event, self.style)
                }
                Event::Started { .. }
                | Event::Stopped { .. }
                | Event::Flows(_)
                | Event::Gap { .. }
                | Event::Reset { .. }
                | Event::Health { .. }
                | Event::Subnet { .. }
                | Event::Pace { .. }
                | Event::Config { .. } => return Ok(()),
            },
            Moment::Report(report) => {
                let state = report.thresholds.first().map(|threshold| threshold.state);
                if state == self.state && report.uptime_seconds - self.told_at < 1.0 {
                    return Ok(());
                }
                (self.state, self.told_at) = (state, report.uptime_seconds);
                line(report, self.style)
            }
        };
        self.output.write(&text)?;
        self.output.flush()
    }
}

/// The first act comes with the heading of what follows.
fn stage(text: &str, first: bool, style: &Style) -> String {
    if !first {
        let text = format!("------- {text}");
        return format!("{}\n", style.paint(Paint::Strong, &text));
    }
    let heading = format!(
        "{:>7}  {:<26}  {:>11}  {:>15}  uplink_full",
        "time", "wan_out, 50 Mbit/s", "wan_in", "iot_to_internet"
    );
    format!(
        "{}\nAll of it in network namespaces; nothing of this machine is touched.\n\n{}\n",
        style.paint(Paint::Strong, text),
        style.paint(Paint::Faint, &heading)
    )
}

fn line(report: &Report, style: &Style) -> String {
    let bits = |name: &str| {
        let named = |counter: &&CounterReport| counter.name.as_str() == name;
        let counter = report.counters.iter().find(named);
        counter.map_or(0.0, |counter| counter.bits_per_second)
    };
    let rate = |name: &str| bit_rate(bits(name), style.units);
    let (word, paint) = match report.thresholds.first().map(|threshold| threshold.state) {
        None | Some(StateWord::Idle) => ("idle", Paint::Good),
        Some(StateWord::Pending) => ("pending", Paint::Warn),
        Some(StateWord::Firing) => ("firing", Paint::Alarm),
        Some(StateWord::Clearing) => ("clearing", Paint::Warn),
    };
    let drawn = format!("{:<BAR_WIDTH$}", bar(bits("wan_out") / CAPACITY, BAR_WIDTH));
    format!(
        "{:5.1} s  {:>11} {}  {:>11}  {:>15}  {}\n",
        report.uptime_seconds,
        rate("wan_out"),
        style.paint(paint, &drawn),
        rate("wan_in"),
        rate("iot_to_internet"),
        style.paint(paint, word),
    )
}

fn happened(event: &Event, style: &Style) -> String {
    let (word, paint, text) = log_text::in_words(event, style);
    let mut text = wrapped(&text, WIDTH, INDENT).join("\n");
    text.replace_range(..INDENT.len(), &style.paint(paint, &format!("{word:>7}  ")));
    text.push('\n');
    text
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
    let title = "What each host really sent meanwhile, and what flowctl found:";
    let mut text = format!("\n{}\n", style.paint(Paint::Strong, title));
    let heading = format!("{:<36}{:>17}{:>22}", "", "sent", "found");
    text.push_str(&format!("{}\n", style.paint(Paint::Faint, &heading)));
    for (position, sent) in outcome.sent.iter().enumerate() {
        let row = compared(sent, outcome, style);
        let paint = if position == 0 {
            Paint::Strong
        } else {
            Paint::Plain
        };
        text.push_str(&format!("{}\n", style.paint(paint, &row)));
    }
    let cost = outcome.report.cost;
    let explained = format!(
        "flowctl explains {} of what wan_out counted. Sent is without TCP's headers and acknowledgements, found is \
         with them. All of this, traffic included, cost {:.1} s of CPU.",
        percent(outcome.verdict.coverage.unwrap_or_default()),
        cost.cpu_seconds
    );
    text.push_str(&format!(
        "\n{}\n",
        wrapped(&explained, WIDTH, "").join("\n")
    ));
    for mistake in mistakes {
        let lines = wrapped(&format!("wrong: {mistake}"), WIDTH, "").join("\n");
        text.push_str(&format!("{}\n", style.paint(Paint::Alarm, &lines)));
    }
    if mistakes.is_empty() {
        let right = "The right host, with the right share.";
        text.push_str(&style.paint(Paint::Good, right));
        text.push_str(" The router and all on it is gone again.\n");
    }
    text
}

fn compared(sent: &Sent, outcome: &Outcome, style: &Style) -> String {
    let amount = |bytes, share| format!("{:>10} {:>6}", volume(bytes, style.units), percent(share));
    let hosts = &outcome.verdict.found.hosts;
    let found = hosts.iter().find(|host| host.address == sent.address);
    let found = found.map_or_else(String::new, |host| amount(host.bytes, host.share));
    format!(
        "{:<12}{:<24}{}{found:>22}",
        sent.address.to_string(),
        sent.role,
        amount(sent.bytes, sent.share)
    )
}

/// What forbids user namespaces to ordinary users, and at which value.
const FORBIDDING: [(&str, &str, &str); 3] = [
    ("user.max_user_namespaces", "0", "10000"),
    ("kernel.unprivileged_userns_clone", "0", "1"),
    ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
];

/// Says that this machine lets this user have no namespaces, and what would.
fn forbidden(what: &str, error: &std::io::Error) -> ExitCode {
    let value = |name: &str| {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        std::fs::read_to_string(path).unwrap_or_default()
    };
    let forbids = FORBIDDING
        .iter()
        .find(|(name, forbidding, _)| value(name).trim() == *forbidding);
    let or = forbids.map_or(String::new(), |(name, _, allowing)| {
        format!(", or allow user namespaces with `sysctl {name}={allowing}`")
    });
    output::complain(format_args!(
        "this machine does not allow {what} without CAP_SYS_ADMIN ({error}): run it as root, e.g. `sudo flowctl demo`{or}"
    ));
    ExitCode::MissingPrivilege
}

fn complain(error: &DemoError) -> ExitCode {
    match error {
        DemoError::Lab(LabError::Namespace { source, .. })
            if source.kind() == std::io::ErrorKind::PermissionDenied =>
        {
            forbidden("a network namespace", source)
        }
        DemoError::Daemon(error) => run::complain(error),
        DemoError::Lab(_)
        | DemoError::System { .. }
        | DemoError::Unwatched
        | DemoError::Interrupted
        | DemoError::NoVerdict(_) => {
            output::complain(error);
            ExitCode::Failure
        }
    }
}
