//! `flowctl plan`: the ruleset as nft syntax, and what each counter will see as comments. It changes
//! nothing, and asks the kernel only which prefixes the devices have that a subnet follows.

use super::exit::ExitCode;
use super::{Options, configuration, output};
use crate::plan::{self, describe, text};
use crate::sink::state;

/// Prints it.
pub fn run(options: &Options) -> ExitCode {
    let mut config = match configuration::demand(options) {
        Ok(config) => config,
        Err(code) => return code,
    };
    // The label bits that a daemon has given to interfaces are those it would install again.
    if let Some(saved) = state::look(&options.state_dir) {
        config.keep_labels(&saved.labels);
    }
    output::print(&format!(
        "{}\n{}",
        text::render(&plan::compile(&config)),
        describe::render(&config)
    ))
}
