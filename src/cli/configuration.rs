//! Which configuration a command works with, and what the user is told when there is none that can be used.

use std::path::Path;

use super::check::render_problems;
use super::exit::ExitCode;
use super::{Options, output};
use crate::config::{self, Config, LoadError};

/// The configuration of a command that cannot do without; otherwise it is said what is missing or wrong.
pub fn demand(options: &Options) -> Result<Config, ExitCode> {
    match options.config_path() {
        Some(path) => load(&path),
        None => {
            output::complain(format_args!(
                "no configuration: write {} or name one with --config FILE",
                super::DEFAULT_CONFIG
            ));
            Err(ExitCode::BadConfiguration)
        }
    }
}

/// The configuration of a command that can do without: one that is named must be good, the usual one may be
/// missing or bad, since the daemon may well run with the one before.
pub fn look(options: &Options) -> Result<Option<Config>, ExitCode> {
    match &options.config {
        Some(path) => load(path).map(Some),
        None => Ok(options
            .config_path()
            .and_then(|path| config::load(&path).ok())),
    }
}

fn load(path: &Path) -> Result<Config, ExitCode> {
    config::load(path).map_err(|error| {
        complain(&error);
        ExitCode::BadConfiguration
    })
}

/// All that is wrong with a file.
pub fn complain(error: &LoadError) {
    match error {
        LoadError::Invalid { path, problems } => {
            output::complain_at_length(&render_problems(path, problems))
        }
        LoadError::Read { .. } | LoadError::TooLarge { .. } => output::complain(error),
    }
}
