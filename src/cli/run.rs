//! `flowctl run`: the daemon in the foreground. On a terminal it draws the live status; elsewhere it writes each
//! record of its log in words to standard error, where a service manager keeps it.

use std::sync::Arc;

use tokio::sync::watch;

use super::exit::ExitCode;
use super::style::Style;
use super::watch::Screen;
use super::{Options, announce, configuration, output, status};
use crate::config::source::Sourced;
use crate::daemon::{self, Announce, Daemon, DaemonError};
use crate::report::Report;

/// Runs until SIGTERM, SIGINT or `flowctl remove`.
pub fn run(options: &Options) -> ExitCode {
    let Sourced {
        config,
        note,
        again,
    } = match configuration::read(options) {
        Ok(sourced) => sourced,
        Err(code) => return code,
    };
    let socket = options.socket_path(Some(&config));
    let (reports, seen) = watch::channel(None);
    let style = options.style();
    let live = output::is_terminal();
    if let Some(note) = note.as_ref().filter(|_| live) {
        // Elsewhere the record of the start says so, on standard error too.
        output::complain(note);
    }
    let (announce, announcements) = if live {
        (Box::new(|_: &_| {}) as Announce, None)
    } else {
        let style = Style::of_stderr(options.color, options.units.unwrap_or_default());
        match announce::start(style, std::io::stderr()) {
            Ok((announce, rest)) => (announce, Some(rest)),
            Err(error) => {
                output::complain(format_args!("cannot start a thread: {error}"));
                return ExitCode::Failure;
            }
        }
    };
    let started = Daemon::start(daemon::Options {
        config,
        source: Some(again),
        notes: note.into_iter().collect(),
        state_dir: options.state_dir.clone(),
        socket,
        signals: true,
        announce,
        reports,
    });
    let daemon = match started {
        Ok(daemon) => daemon,
        Err(error) => return complain(&error),
    };
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
    match ended {
        Ok(()) => ExitCode::Ok,
        Err(error) => complain(&error),
    }
}

/// Says why there is no daemon, and what to do.
pub fn complain(error: &DaemonError) -> ExitCode {
    if error.is_another_instance() {
        output::complain(error);
        ExitCode::AnotherInstance
    } else if error.is_privilege() {
        output::complain(format_args!(
            "{error}; CAP_NET_ADMIN in this network namespace is missing: run it as root, or grant the capability"
        ));
        ExitCode::MissingPrivilege
    } else {
        output::complain(error);
        ExitCode::Failure
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
