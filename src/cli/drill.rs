//! `flowctl drill`: a drilldown on demand. On a terminal a top list that is drawn in place and ends with the verdict;
//! elsewhere a line for each look, or a JSON object.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, sleep_until};

use super::DrillArgs;
use super::columns::wrapped;
use super::exit::ExitCode;
use super::flows;
use super::format::foreign;
use super::log_text;
use super::output::{self, Output, OutputError};
use super::style::Style;
use super::top::{self, Watched};
use super::watch::Screen;
use crate::demand::{About, Wish};
use crate::drilldown::verdict::Verdict;
use crate::event::{Event, Record};
use crate::sink::ask::AskError;
use crate::sink::conversation::{Begun, Conversation, Said};

/// Where nobody sits before a terminal to end it.
const LASTING_IN_A_PIPE: Duration = Duration::from_secs(30);
/// How long the verdict may take once it is asked for: the dump going on and a last one.
const VERDICT_WITHIN: Duration = Duration::from_secs(10);
/// The same after `--for`, where nobody waits at a terminal.
const VERDICT_WITHIN_UNASKED: Duration = Duration::from_secs(60);
/// How soon a closed output is noticed when there is nothing to print.
const OUTPUT_CHECK: Duration = Duration::from_millis(250);

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
enum DrillError {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("{0}")]
    Refused(String),
    #[error("the daemon went away before the verdict")]
    Gone,
    #[error("the verdict did not come in time")]
    Late,
    #[error("left without the verdict")]
    Left,
    #[error("cannot wait for the answer: {0}")]
    Wait(#[from] io::Error),
    #[error(transparent)]
    Output(#[from] OutputError),
}

impl DrillError {
    fn exit_code(&self) -> ExitCode {
        if let DrillError::Output(error) = self {
            return error.exit_code();
        }
        output::complain(self);
        match self {
            DrillError::Ask(error) if error.is_unreachable() => ExitCode::NotReachable,
            DrillError::Ask(_)
            | DrillError::Refused(_)
            | DrillError::Gone
            | DrillError::Late
            | DrillError::Left
            | DrillError::Wait(_)
            | DrillError::Output(_) => ExitCode::Failure,
        }
    }
}

/// Runs `flowctl drill` against the daemon behind `socket`.
pub fn run(args: &DrillArgs, socket: &Path, style: &Style) -> ExitCode {
    let about = match (&args.counter, args.host) {
        (Some(counter), _) => About::Counter(counter.clone()),
        (None, Some(host)) => About::Host(host),
        // The definition of the arguments demands one of them.
        (None, None) => return ExitCode::Usage,
    };
    let unasked = (!output::is_terminal()).then_some(LASTING_IN_A_PIPE);
    let wish = Wish {
        about,
        lasting: args.lasting.or(unasked),
    };
    let followed = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(DrillError::from)
        .and_then(|runtime| runtime.block_on(follow(&wish, args.json, socket, style)));
    match followed {
        Ok(()) => ExitCode::Ok,
        Err(error) => error.exit_code(),
    }
}

async fn follow(wish: &Wish, json: bool, socket: &Path, style: &Style) -> Result<(), DrillError> {
    let mut conversation = Conversation::open(socket, wish)?;
    let mut signals = Signals::listen()?;
    let mut display = Display::new(&wish.about, json, style);
    let mut deadline = wish
        .lasting
        .map(|lasting| Instant::now() + lasting + VERDICT_WITHIN_UNASKED);
    let mut check = tokio::time::interval(OUTPUT_CHECK);
    check.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut begun = false;
    loop {
        tokio::select! {
            said = conversation.next() => match said {
                Ok(Said::Begun(said)) => {
                    begun = true;
                    display.begin(&said)?;
                }
                Ok(Said::Record(record, line)) => {
                    if display.take(*record, &line)? {
                        return Ok(());
                    }
                }
                Ok(Said::Refused(reason)) => return Err(DrillError::Refused(reason)),
                Err(AskError::Closed { .. }) if begun => return Err(DrillError::Gone),
                Err(error) => return Err(error.into()),
            },
            leave = signals.next() => {
                if leave || display.ending {
                    return Err(DrillError::Left);
                }
                conversation.end().await;
                deadline = Some(Instant::now() + VERDICT_WITHIN);
                display.end()?;
            }
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                return Err(DrillError::Late);
            }
            _ = check.tick() => display.output.wait(0)?,
        }
    }
}

/// What ends it.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    fn listen() -> Result<Signals, io::Error> {
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for one; true when nobody is there any more to read a verdict.
    async fn next(&mut self) -> bool {
        tokio::select! {
            _ = self.interrupt.recv() => false,
            _ = self.terminate.recv() => false,
            _ = self.hang_up.recv() => true,
        }
    }
}

/// What is printed of it.
struct Display<'a> {
    form: Form,
    what: String,
    style: &'a Style,
    output: Output,
    ending: bool,
}

enum Form {
    Json,
    Lines,
    /// From the first thing said until the verdict.
    Screen(Option<(Screen, Box<Watched>)>),
}

impl Display<'_> {
    fn new<'a>(about: &About, json: bool, style: &'a Style) -> Display<'a> {
        Display {
            form: match (json, output::is_terminal()) {
                (true, _) => Form::Json,
                (false, false) => Form::Lines,
                (false, true) => Form::Screen(None),
            },
            what: flows::about(about.counter(), about.host()),
            style,
            output: Output::default(),
            ending: false,
        }
    }

    fn begin(&mut self, begun: &Begun) -> Result<(), OutputError> {
        match &mut self.form {
            Form::Json | Form::Lines => {
                let notes = begun.notes.iter();
                notes.for_each(|note| output::complain(format_args!("note: {note}")));
            }
            Form::Screen(screen) => {
                let watched = Watched::new(self.what.clone(), begun.started, begun.notes.clone());
                *screen = Some((Screen::enter()?, Box::new(watched)));
            }
        }
        self.draw()
    }

    /// True when it was the last.
    fn take(&mut self, record: Record, line: &str) -> Result<bool, OutputError> {
        if let Event::Verdict(verdict) = &record.event {
            self.conclude(verdict, &record, line)?;
            return Ok(true);
        }
        match &mut self.form {
            Form::Json => self.output.line(line)?,
            Form::Lines => {
                let text = log_text::line(&record, self.style);
                self.output.write(&text)?;
            }
            Form::Screen(screen) => {
                if let (Some((_, watched)), Event::Flows(list)) = (screen, record.event) {
                    watched.take(record.time, list);
                }
            }
        }
        self.draw()?;
        Ok(false)
    }

    fn conclude(
        &mut self,
        verdict: &Verdict,
        record: &Record,
        line: &str,
    ) -> Result<(), OutputError> {
        match &mut self.form {
            Form::Json => self.output.line(line)?,
            Form::Lines => {
                self.output.write(&log_text::line(record, self.style))?;
                self.output.write(&top::verdict(verdict, self.style))?;
            }
            Form::Screen(screen) => {
                // The user's own screen comes back first.
                drop(screen.take());
                for line in wrapped(&foreign(&verdict.text), self.style.width, "") {
                    self.output.line(&line)?;
                }
                self.output.write(&top::verdict(verdict, self.style))?;
            }
        }
        self.output.flush()
    }

    fn end(&mut self) -> Result<(), OutputError> {
        self.ending = true;
        if let Form::Screen(Some((_, watched))) = &mut self.form {
            watched.ending = true;
        }
        self.draw()
    }

    fn draw(&mut self) -> Result<(), OutputError> {
        if let Form::Screen(Some((screen, watched))) = &mut self.form {
            let (style, height) = self.style.on_screen();
            return screen.draw(&watched.render(&style), height);
        }
        self.output.flush()
    }
}
