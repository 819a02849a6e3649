//! The only place that writes to standard output and standard error. A reader that went away (`flowctl log | head`)
//! ends the command quietly.

use std::fmt::Display;
use std::io::{self, BufWriter, IsTerminal, Stdout, Write};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::exit::ExitCode;
use super::format::foreign;
use super::journal::{self, Priority};

/// Why no more can be printed.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// Nobody reads any more.
    #[error("standard output is closed")]
    Closed,
    /// The kernel refused.
    #[error("cannot write to standard output: {0}")]
    Io(io::Error),
}

impl From<io::Error> for OutputError {
    fn from(error: io::Error) -> OutputError {
        if error.kind() == io::ErrorKind::BrokenPipe {
            OutputError::Closed
        } else {
            OutputError::Io(error)
        }
    }
}

impl OutputError {
    /// How the command ends: quietly if nobody reads any more.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            OutputError::Closed => ExitCode::Ok,
            OutputError::Io(_) => {
                complain(self);
                ExitCode::Failure
            }
        }
    }
}

/// Standard output, buffered until [`Output::flush`].
#[derive(Debug)]
pub struct Output(BufWriter<Stdout>);

impl Default for Output {
    fn default() -> Output {
        Output(BufWriter::new(io::stdout()))
    }
}

impl Output {
    /// Writes `text` as it is.
    pub fn write(&mut self, text: &str) -> Result<(), OutputError> {
        Ok(self.0.write_all(text.as_bytes())?)
    }

    /// Writes `text` and a newline.
    pub fn line(&mut self, text: &str) -> Result<(), OutputError> {
        self.write(text)?;
        self.write("\n")
    }

    /// Hands everything on.
    pub fn flush(&mut self) -> Result<(), OutputError> {
        Ok(self.0.flush()?)
    }

    /// Waits; ends early, with an error, when the reader goes away.
    pub fn wait(&mut self, milliseconds: u32) -> Result<(), OutputError> {
        self.flush()?;
        let time = Timespec {
            tv_sec: i64::from(milliseconds / 1000),
            tv_nsec: i64::from(milliseconds % 1000) * 1_000_000,
        };
        // No event is asked for: errors and hang-ups are always reported.
        let mut stdout = [PollFd::new(self.0.get_ref(), PollFlags::empty())];
        match poll(&mut stdout, Some(&time)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => Ok(()),
            Ok(_) => Err(OutputError::Closed),
            Err(error) => Err(OutputError::Io(error.into())),
        }
    }
}

/// Prints `text` as it is; the command then ends with the code returned.
pub fn print(text: &str) -> ExitCode {
    let mut output = Output::default();
    match output.write(text).and_then(|()| output.flush()) {
        Ok(()) => ExitCode::Ok,
        Err(error) => error.exit_code(),
    }
}

/// Tells the user what went wrong, in one line on standard error. What the message quotes cannot steer the terminal.
pub fn complain(message: impl Display) {
    let message = message.to_string();
    let line = format!("flowctl: {}\n", foreign(&message));
    // Nowhere is left to complain about a closed standard error.
    let _ = io::stderr().write_all(journal::lines(line, Priority::Error).as_bytes());
}

/// Tells the user more than one line of what went wrong, as it is, on standard error.
pub fn complain_at_length(text: &str) {
    let text = journal::lines(text.to_owned(), Priority::Error);
    // Nowhere is left to complain about a closed standard error.
    let _ = io::stderr().write_all(text.as_bytes());
}

/// Whether standard output is a terminal.
pub fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Columns and rows of the terminal; `None` where standard output is none or does not say.
pub fn terminal_size() -> Option<(usize, usize)> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then_some((size.ws_col.into(), size.ws_row.into()))
}
