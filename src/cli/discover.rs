//! `flowctl discover`: what there is to count on this machine, as a configuration to keep. It changes nothing and
//! needs no privilege.

use super::exit::ExitCode;
use super::{configuration, output};
use crate::config::source;

/// Prints it.
pub fn run() -> ExitCode {
    match source::found() {
        Ok(found) => output::print(&found.text()),
        Err(error) => configuration::refuse(&error),
    }
}
