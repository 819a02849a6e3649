//! `flowctl completions` and `flowctl man`: what a package installs beside the program, made from the definition of the
//! command line, so that it never says anything else than `--help`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::CommandFactory;

use super::exit::ExitCode;
use super::{Cli, CompletionsArgs, ManArgs, output};

/// Why there are no manual pages.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the manual pages to {directory}: {source}")]
struct ManError {
    directory: PathBuf,
    source: io::Error,
}

/// Prints the completions for a shell.
pub fn completions(args: &CompletionsArgs) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "flowctl", &mut script);
    output::print(&String::from_utf8_lossy(&script))
}

/// Writes `flowctl.1` and a page for each command.
pub fn man(args: &ManArgs) -> ExitCode {
    match write_pages(&args.directory) {
        Ok(()) => ExitCode::Ok,
        Err(error) => {
            output::complain(error);
            ExitCode::Failure
        }
    }
}

fn write_pages(directory: &Path) -> Result<(), ManError> {
    fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), directory))
        .map_err(|source| ManError {
            directory: directory.to_owned(),
            source,
        })
}
