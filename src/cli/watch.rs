//! `flowctl status`: asks the daemon once or again and again, and prints what it says. On a terminal a watch redraws
//! in place and gives the screen back however it ends; elsewhere it prints one report after the other.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::MissedTickBehavior;

use super::StatusArgs;
use super::exit::ExitCode;
use super::format::counted;
use super::output::{self, Output, OutputError};
use super::status::{check_line, exit_code_for_check, render};
use super::style::{Paint, Style};
use crate::report::Report;
use crate::sink::ask::{AskError, ask};

/// Why there is no status.
#[derive(Debug, thiserror::Error)]
enum StatusError {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("the daemon's answer is not understood, it may be of another version: {0}")]
    Answer(#[from] serde_json::Error),
    #[error("cannot watch: {0}")]
    Watch(#[from] io::Error),
    #[error(transparent)]
    Output(#[from] OutputError),
}

impl StatusError {
    fn exit_code(&self) -> ExitCode {
        if let StatusError::Output(error) = self {
            return error.exit_code();
        }
        output::complain(self);
        match self {
            // Anything else would read as a warning of a daemon that is well enough to warn.
            StatusError::Ask(_) => ExitCode::NotReachable,
            StatusError::Answer(_) | StatusError::Watch(_) | StatusError::Output(_) => {
                ExitCode::Failure
            }
        }
    }
}

/// Runs `flowctl status` against the daemon behind `socket`.
pub fn run(args: &StatusArgs, socket: &Path, style: &Style) -> ExitCode {
    let result = match args.watch {
        Some(period) => watch(args.json, period, socket, style),
        None => once(args, socket, style),
    };
    result.unwrap_or_else(|error| error.exit_code())
}

fn once(args: &StatusArgs, socket: &Path, style: &Style) -> Result<ExitCode, StatusError> {
    let answer = ask(socket, "status")?;
    let report: Report = serde_json::from_str(&answer)?;
    let mut output = Output::default();
    if args.json {
        output.line(&answer)?;
    } else if args.check {
        output.write(&check_line(&report, style))?;
    } else {
        output.write(&render(&report, style))?;
    }
    output.flush()?;
    Ok(if args.check {
        exit_code_for_check(&report)
    } else {
        ExitCode::Ok
    })
}

fn watch(
    json: bool,
    period: Duration,
    socket: &Path,
    style: &Style,
) -> Result<ExitCode, StatusError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(async {
        if output::is_terminal() && !json {
            watch_on_screen(period, socket, style).await
        } else {
            watch_in_lines(json, period, socket, style).await
        }
    });
    // A daemon that does not answer must not hold up the end.
    runtime.shutdown_background();
    result
}

async fn watch_on_screen(
    period: Duration,
    socket: &Path,
    style: &Style,
) -> Result<ExitCode, StatusError> {
    let mut beat = Beat::new(period, socket)?;
    let mut screen: Option<Screen> = None;
    let mut last = String::new();
    while let Some(answer) = beat.answer().await {
        let (style, height) = style.on_screen();
        let report = answer
            .map_err(StatusError::from)
            .and_then(|answer| Ok(serde_json::from_str::<Report>(&answer)?));
        let trouble = match report {
            Ok(report) => {
                last = render(&report, &style);
                String::new()
            }
            Err(error) if screen.is_none() => return Err(error),
            // The daemon may be back at the next beat.
            Err(error) => style.paint(Paint::Alarm, &error.to_string()) + "\n\n",
        };
        let screen = match &mut screen {
            Some(screen) => screen,
            None => screen.insert(Screen::enter()?),
        };
        screen.draw(&format!("{trouble}{last}"), height)?;
    }
    Ok(ExitCode::Ok)
}

async fn watch_in_lines(
    json: bool,
    period: Duration,
    socket: &Path,
    style: &Style,
) -> Result<ExitCode, StatusError> {
    let mut beat = Beat::new(period, socket)?;
    let mut output = Output::default();
    let mut first = true;
    while let Some(answer) = beat.answer().await {
        let answer = answer?;
        if json {
            output.line(&answer)?;
        } else {
            if !std::mem::take(&mut first) {
                output.line("")?;
            }
            output.write(&render(&serde_json::from_str(&answer)?, style))?;
        }
        output.flush()?;
    }
    Ok(ExitCode::Ok)
}

/// Asks the daemon once a period until a signal ends it.
struct Beat {
    interval: tokio::time::Interval,
    ends: [Signal; 3],
    socket: PathBuf,
}

impl Beat {
    fn new(period: Duration, socket: &Path) -> Result<Beat, io::Error> {
        let mut interval = tokio::time::interval(period);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Beat {
            interval,
            ends: [
                signal(SignalKind::interrupt())?,
                signal(SignalKind::terminate())?,
                signal(SignalKind::hangup())?,
            ],
            socket: socket.to_owned(),
        })
    }

    /// The next answer; `None` once a signal came.
    async fn answer(&mut self) -> Option<Result<String, AskError>> {
        let [interrupt, terminate, hangup] = &mut self.ends;
        let interval = &mut self.interval;
        let socket = self.socket.clone();
        let next = async {
            interval.tick().await;
            tokio::task::spawn_blocking(move || ask(&socket, "status")).await
        };
        tokio::select! {
            answer = next => answer.ok(),
            _ = interrupt.recv() => None,
            _ = terminate.recv() => None,
            _ = hangup.recv() => None,
        }
    }
}

/// The terminal's alternate screen; the user's own comes back when this is dropped.
pub struct Screen(Output);

impl Screen {
    /// Switches to the alternate screen, without cursor and line wrap.
    pub fn enter() -> Result<Screen, OutputError> {
        let mut screen = Screen(Output::default());
        screen.0.write("\x1b[?1049h\x1b[?25l\x1b[?7l")?;
        screen.0.flush()?;
        Ok(screen)
    }

    /// Shows as many lines of `text` as fit into `height` rows, without flicker.
    pub fn draw(&mut self, text: &str, height: usize) -> Result<(), OutputError> {
        self.0.write(&frame(text, height))?;
        self.0.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.0.write("\x1b[?7h\x1b[?25h\x1b[?1049l");
        let _ = self.0.flush();
    }
}

/// Overwrites the screen line by line, and clears what is left of each line and below the last.
fn frame(text: &str, height: usize) -> String {
    let count = text.lines().count();
    let shown = if count > height {
        height.saturating_sub(1)
    } else {
        count
    };
    let mut frame = String::from("\x1b[H");
    for line in text.lines().take(shown) {
        frame.push_str(line);
        frame.push_str("\x1b[K\r\n");
    }
    if shown < count {
        let below = counted((count - shown) as u64, "more line");
        frame.push_str(&format!("{below}, for a higher window\x1b[K"));
    } else {
        frame.truncate(frame.trim_end_matches("\r\n").len());
    }
    frame.push_str("\x1b[J");
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_never_scrolls() {
        assert_eq!(frame("a\nb\n", 2), "\x1b[Ha\x1b[K\r\nb\x1b[K\x1b[J");
        assert_eq!(
            frame("a\nb\nc\n", 2),
            "\x1b[Ha\x1b[K\r\n2 more lines, for a higher window\x1b[K\x1b[J"
        );
    }
}
