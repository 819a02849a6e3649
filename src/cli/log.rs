//! `flowctl log`: prints the records of the log, as lines for people or as they are, and goes on as the log grows if
//! asked to. It reads files only; the daemon need not run.

use std::io;
use std::path::Path;
use std::str::FromStr;

use jiff::civil::DateTime;
use jiff::{Span, Timestamp, ZonedDateTime};

use super::LogArgs;
use super::exit::ExitCode;
use super::format::counted;
use super::log_text::render;
use super::output::{self, Output, OutputError};
use super::style::Style;
use crate::sink::log::LogError;
use crate::sink::log_reader::{Filter, LogReader};

/// How long a new record may take to be seen with `--follow`.
const FOLLOW_MILLISECONDS: u32 = 250;

/// `--since`.
#[derive(Debug, Clone)]
pub enum Since {
    /// A moment.
    Moment(Timestamp),
    /// A date, or a date and a time of day, in the local time zone.
    Local(DateTime),
    /// So long before now.
    Ago(Span),
}

/// Why a `--since` was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SinceError {
    /// In no form that is understood.
    #[error(
        "expected a time such as 2026-11-23T05:20:00Z, a date such as 2026-11-23, or a span such as 2h, 30m or 7d"
    )]
    Form,
    /// Farther than the calendar goes.
    #[error("lies outside of the calendar")]
    Calendar,
}

impl FromStr for Since {
    type Err = SinceError;

    fn from_str(text: &str) -> Result<Since, SinceError> {
        if let Ok(moment) = text.parse() {
            return Ok(Since::Moment(moment));
        }
        if let Ok(local) = text.parse() {
            return Ok(Since::Local(local));
        }
        match text.parse::<Span>() {
            Ok(span) if !span.is_negative() => Ok(Since::Ago(span)),
            Ok(_) | Err(_) => Err(SinceError::Form),
        }
    }
}

impl Since {
    /// The moment meant, seen from `now`.
    pub fn resolve(&self, now: &ZonedDateTime) -> Result<Timestamp, SinceError> {
        match self {
            Since::Moment(moment) => Ok(*moment),
            Since::Local(local) => local
                .to_zoned_datetime(now.time_zone().clone())
                .map(|zoned| zoned.timestamp())
                .map_err(|_| SinceError::Calendar),
            Since::Ago(span) => now
                .checked_sub(*span)
                .map(|zoned| zoned.timestamp())
                .map_err(|_| SinceError::Calendar),
        }
    }
}

/// Runs `flowctl log` on the log at `path`.
pub fn run(args: &LogArgs, path: &Path, style: &Style) -> ExitCode {
    #[expect(
        clippy::disallowed_methods,
        reason = "a span given by the user ends at the moment of the command"
    )]
    let now = Timestamp::now().to_zoned_datetime(style.timezone.clone());
    let since = match args
        .since
        .as_ref()
        .map(|since| since.resolve(&now))
        .transpose()
    {
        Ok(since) => since,
        Err(error) => {
            output::complain(format!("--since {error}"));
            return ExitCode::Usage;
        }
    };
    let filter = Filter {
        since,
        counter: args.counter.clone(),
        threshold: args.threshold.clone(),
    };
    let mut reader = match LogReader::open(path, filter) {
        Ok(reader) => reader,
        Err(error) => return refused(&error),
    };
    let result = print_all(&mut reader, args, style);
    if reader.malformed() > 0 {
        let lines = counted(reader.malformed(), "line");
        output::complain(format!("skipped {lines} of the log: no records"));
    }
    match result {
        Ok(()) => ExitCode::Ok,
        Err(PrintError::Log(error)) => refused(&error),
        Err(PrintError::Output(error)) => error.exit_code(),
    }
}

enum PrintError {
    Log(LogError),
    Output(OutputError),
}

impl From<OutputError> for PrintError {
    fn from(error: OutputError) -> PrintError {
        PrintError::Output(error)
    }
}

fn print_all(reader: &mut LogReader, args: &LogArgs, style: &Style) -> Result<(), PrintError> {
    let mut output = Output::default();
    loop {
        while let Some(line) = reader.next_line().map_err(PrintError::Log)? {
            if args.json {
                output.line(&line.raw)?;
            } else {
                output.write(&render(&line.record, style))?;
            }
        }
        if !args.follow {
            return Ok(output.flush()?);
        }
        output.wait(FOLLOW_MILLISECONDS)?;
    }
}

fn refused(error: &LogError) -> ExitCode {
    let kind = match error {
        LogError::Io { source, .. } => Some(source.kind()),
        LogError::Torn { .. } | LogError::Render(_) => None,
    };
    if kind == Some(io::ErrorKind::PermissionDenied) {
        output::complain(format!(
            "{error}; the log is for root and its owner: run this as root"
        ));
        return ExitCode::MissingPrivilege;
    }
    if kind == Some(io::ErrorKind::NotFound) {
        output::complain(format!(
            "{error}; has `flowctl run` run with this --state-dir?"
        ));
        return ExitCode::Failure;
    }
    output::complain(error);
    ExitCode::Failure
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(text: &str) -> Result<String, SinceError> {
        let now: ZonedDateTime = "2026-11-23T06:20:00+01:00[Europe/Berlin]".parse().unwrap();
        let since: Since = text.parse()?;
        since.resolve(&now).map(|moment| moment.to_string())
    }

    #[test]
    fn since_takes_a_time_a_date_or_a_span() {
        let is = |text, moment: &str| assert_eq!(resolved(text).unwrap(), moment, "{text}");
        is("2026-11-23T05:00:00Z", "2026-11-23T05:00:00Z");
        is("2026-11-23T05:00:00+01:00", "2026-11-23T04:00:00Z");
        is("2026-11-23", "2026-11-22T23:00:00Z");
        is("2026-11-23T05:00", "2026-11-23T04:00:00Z");
        is("2h", "2026-11-23T03:20:00Z");
        is("1h30m", "2026-11-23T03:50:00Z");
        is("7d", "2026-11-16T05:20:00Z");
    }

    #[test]
    fn since_refuses_what_it_does_not_understand() {
        for text in ["", "yesterday", "-2h", "2", "2026-13-01"] {
            assert_eq!(resolved(text), Err(SinceError::Form), "{text}");
        }
        assert_eq!(resolved("19000y"), Err(SinceError::Calendar));
    }
}
