//! `flowctl remove`: asks a running daemon to stop, then takes the table away, whether a daemon answered or not.

use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use super::exit::ExitCode;
use super::format::foreign;
use super::{Options, configuration, output, run};
use crate::daemon::{self, DaemonError, Removed};
use crate::kernel::error::KernelError;
use crate::kernel::nftables::Nftables;
use crate::sink::ask::{AskError, ask};
use crate::sink::socket;

/// How long a daemon may take to end, which gives its last verdicts first: as long as a service manager lets it.
const PATIENCE_ATTEMPTS: u32 = 900;
/// How long the kernel may take to take the table and the state directory from a process that has ended.
const RELEASE_ATTEMPTS: u32 = 20;
const PATIENCE_STEP: Duration = Duration::from_millis(100);
const DEFAULT_TABLE: &str = "flowctl";

/// Stops and removes.
pub fn run(options: &Options) -> ExitCode {
    let config = match configuration::look(options) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let table = config
        .as_ref()
        .map_or(DEFAULT_TABLE, |config| config.table.name.as_str());
    // What could not be finished is not begun: without privilege, or with a foreign table, the daemon goes on.
    match Nftables::open().and_then(|mut nftables| nftables.own_table(table)) {
        Ok(_) | Err(KernelError::StaticTable { .. }) => {}
        Err(error) => return run::complain(&DaemonError::Kernel(error)),
    }
    let socket = options.socket_path(config.as_ref());
    let stopped = match stop(&socket) {
        Ok(stopped) => stopped,
        Err(error @ AskError::TimedOut { .. }) => {
            output::complain(format_args!(
                "{error}; it may still stop when it goes on, and leaves its table and sysctls then: run this again when it has \
                 ended"
            ));
            return ExitCode::Failure;
        }
        Err(error) => {
            output::complain(error);
            return ExitCode::Failure;
        }
    };
    match remove(table, &options.state_dir, stopped) {
        Ok(removed) => {
            socket::clear(&socket);
            output::print(&render(&removed, &options.state_dir, stopped))
        }
        Err(error) if stopped && error.is_lock_held() => {
            output::complain(format_args!(
                "the daemon was asked to stop and has not ended after {} s, so its table is still there ({error}): run this \
                 again when it has ended",
                (PATIENCE_STEP * PATIENCE_ATTEMPTS).as_secs()
            ));
            ExitCode::AnotherInstance
        }
        Err(error) => run::complain(&error),
    }
}

/// Whether a daemon was asked to stop.
fn stop(socket: &Path) -> Result<bool, AskError> {
    match ask(socket, "stop") {
        Ok(_) | Err(AskError::Closed { .. }) => Ok(true),
        Err(error) if error.is_unreachable() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes as soon as the daemon that was asked to stop has ended.
fn remove(table: &str, state_dir: &Path, stopped: bool) -> Result<Removed, DaemonError> {
    let remove = || daemon::remove(table, state_dir);
    let removed = remove();
    if !stopped {
        return removed;
    }
    let is_alive = DaemonError::is_lock_held;
    let in_the_way = |error: &DaemonError| error.is_another_instance() && !error.is_lock_held();
    let ended = retry(removed, PATIENCE_ATTEMPTS, is_alive, remove);
    retry(ended, RELEASE_ATTEMPTS, in_the_way, remove)
}

/// Tries so often while what is in the way may pass.
fn retry(
    mut last: Result<Removed, DaemonError>,
    attempts: u32,
    passes: impl Fn(&DaemonError) -> bool,
    again: impl Fn() -> Result<Removed, DaemonError>,
) -> Result<Removed, DaemonError> {
    let (_never, silence) = mpsc::channel::<()>();
    for _ in 0..attempts {
        if !last.as_ref().is_err_and(&passes) {
            return last;
        }
        // Nothing is ever sent: this only waits.
        let _ = silence.recv_timeout(PATIENCE_STEP);
        last = again();
    }
    last
}

fn render(removed: &Removed, state_dir: &Path, stopped: bool) -> String {
    let mut text = String::new();
    if stopped {
        text.push_str("stopped the daemon\n");
    }
    for table in &removed.tables {
        text.push_str(&format!("removed table inet {table}\n"));
    }
    for sysctl in &removed.sysctls {
        text.push_str(&format!("restored {sysctl}\n"));
    }
    for note in &removed.notes {
        text.push_str(&format!("{}\n", foreign(note)));
    }
    for table in &removed.kept {
        text.push_str(&format!(
            "table inet {table} stays: it is loaded with the system's ruleset; take it out of there, or until it is loaded \
             again: nft delete table inet {table}\n"
        ));
    }
    if removed.tables.is_empty() && removed.kept.is_empty() {
        text.push_str("no table of flowctl's was there\n");
    }
    text.push_str(&format!(
        "totals and the log stay in {}\n",
        foreign(&state_dir.to_string_lossy())
    ));
    text
}
