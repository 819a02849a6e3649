//! `flowctl plan`: the ruleset as nft syntax, and what each counter will see as comments. It asks the kernel
//! nothing and changes nothing.

use super::exit::ExitCode;
use super::{Options, configuration, output};
use crate::plan::{self, describe, text};

/// Prints it.
pub fn run(options: &Options) -> ExitCode {
    match configuration::demand(options) {
        Ok(config) => output::print(&format!(
            "{}\n{}",
            text::render(&plan::compile(&config)),
            describe::render(&config)
        )),
        Err(code) => code,
    }
}
