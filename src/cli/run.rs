//! `flowctl run`: the daemon in the foreground. On a terminal it draws the live status; elsewhere it writes each
//! record of its log in words to standard error, where a service manager keeps it.

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::watch;

use super::announce::Announcements;
use super::exit::ExitCode;
use super::style::Style;
use super::watch::Screen;
use super::{Options, announce, configuration, output, status};
use crate::config::source::Sourced;
use crate::daemon::{self, Announce, Daemon, DaemonError};
use crate::kernel::handed::{self, Handed};
use crate::report::Report;
use crate::sink::service::Service;
use crate::sink::service_text;

/// How long the service manager may take to hear why there is no daemon.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Why `run` ends without having been asked to.
struct Failure {
    code: ExitCode,
    /// All that is wrong; each was said on standard error.
    problems: Vec<String>,
}

/// Runs until SIGTERM, SIGINT or `flowctl remove`.
pub fn run(options: &Options) -> ExitCode {
    // Before anything else is opened.
    let handed = handed::take();
    let service = Service::of_environment().unwrap_or_else(|error| {
        output::complain(format_args!("NOTIFY_SOCKET is of no use: {error}"));
        Service::default()
    });
    let handed = handed.unwrap_or_else(|error| {
        output::complain(format_args!("LISTEN_FDS is of no use: {error}"));
        Vec::new()
    });
    match serve(options, service.clone(), handed) {
        Ok(()) => ExitCode::Ok,
        Err(Failure { code, problems }) => {
            let words = service_text::failure(&problems);
            // It was said on standard error already, which nobody can do more than read.
            let _ = service
                .tell(&[NotifyState::Status(&words)])
                .and_then(|()| service.barrier(LAST_WORDS));
            code
        }
    }
}

fn serve(options: &Options, service: Service, handed: Vec<Handed>) -> Result<(), Failure> {
    let Sourced {
        config,
        note,
        again,
    } = options.source().read().map_err(|error| Failure {
        code: configuration::refuse(&error),
        problems: error.messages(usize::MAX),
    })?;
    let socket = options.socket_path(Some(&config));
    let (reports, seen) = watch::channel(None);
    let live = output::is_terminal();
    if let Some(note) = note.as_ref().filter(|_| live) {
        // Elsewhere the record of the start says so, on standard error too.
        output::complain(note);
    }
    let (announce, announcements) = announcer(options, live)?;
    let daemon = Daemon::start(daemon::Options {
        config,
        source: Some(again),
        notes: note.into_iter().collect(),
        state_dir: options.state_dir.clone(),
        socket,
        signals: true,
        announce,
        reports,
        service,
        watchdog: sd_notify::watchdog_enabled(),
        handed,
    })
    .map_err(|error| failure(&error))?;
    let style = options.style();
    let drawing = live.then(|| {
        std::thread::Builder::new()
            .name("screen".into())
            .spawn(move || draw(seen, &style))
    });
    let ended = daemon.run();
    if let Some(Ok(thread)) = drawing {
        // A panic of the thread was already printed by the panic hook.
        let _ = thread.join();
    }
    if let Some(announcements) = announcements {
        announcements.finish();
    }
    ended.map_err(|error| failure(&error))
}

/// Who says what happens on standard error, where the live status is not drawn instead.
fn announcer(options: &Options, live: bool) -> Result<(Announce, Option<Announcements>), Failure> {
    if live {
        return Ok((Box::new(|_: &_| {}), None));
    }
    let style = Style::of_stderr(options.color, options.units.unwrap_or_default());
    match announce::start(style, std::io::stderr()) {
        Ok((announce, rest)) => Ok((announce, Some(rest))),
        Err(error) => {
            let problem = format!("cannot start a thread: {error}");
            output::complain(&problem);
            Err(Failure {
                code: ExitCode::Failure,
                problems: vec![problem],
            })
        }
    }
}

fn failure(error: &DaemonError) -> Failure {
    Failure {
        code: complain(error),
        problems: vec![explain(error)],
    }
}

/// Says why there is no daemon, and what to do.
pub fn complain(error: &DaemonError) -> ExitCode {
    output::complain(explain(error));
    if error.is_another_instance() {
        ExitCode::AnotherInstance
    } else if error.is_privilege() {
        ExitCode::MissingPrivilege
    } else {
        ExitCode::Failure
    }
}

fn explain(error: &DaemonError) -> String {
    if error.is_privilege() && !error.is_another_instance() {
        format!(
            "{error}; CAP_NET_ADMIN in this network namespace is missing: run it as root, or grant the capability"
        )
    } else {
        error.to_string()
    }
}

/// Draws each report until the daemon ends.
fn draw(mut reports: watch::Receiver<Option<Arc<Report>>>, style: &Style) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().build() else {
        return;
    };
    let Ok(mut screen) = Screen::enter() else {
        return;
    };
    while runtime.block_on(reports.changed()).is_ok() {
        let report = reports.borrow_and_update().clone();
        if let Some(report) = report {
            let (style, height) = style.on_screen();
            if screen
                .draw(&status::render(&report, &style), height)
                .is_err()
            {
                return;
            }
        }
    }
}
