//! `flowctl plan`: the ruleset as nft syntax, with what each counter will see as comments or as a file to load. It
//! changes nothing, and asks the kernel only which prefixes the devices have that a subnet follows.

use super::exit::ExitCode;
use super::{Options, PlanArgs, PlanFormat, configuration, output};
use crate::plan::{self, describe, printed, text};
use crate::sink::state;

/// Prints it.
pub fn run(args: &PlanArgs, options: &Options) -> ExitCode {
    match args.format {
        PlanFormat::Text => explain(options),
        PlanFormat::Nft => print_file(options),
    }
}

fn explain(options: &Options) -> ExitCode {
    let mut config = match configuration::demand(options) {
        Ok(config) => config,
        Err(code) => return code,
    };
    // The label bits that a daemon has given to interfaces are those it would install again.
    if let Some(saved) = state::look(&options.state_dir).filter(|_| !config.table.is_static) {
        config.keep_labels(&saved.labels);
    }
    let ruleset = plan::compile(&config);
    let table = match config.table.is_static {
        true => text::render_as(&ruleset, &printed::comment(&ruleset)),
        false => text::render(&ruleset),
    };
    output::print(&format!("{table}\n{}", describe::render(&config)))
}

/// A function of the file alone: label bits that a daemon has given are no part of it, nor is what this machine has.
fn print_file(options: &Options) -> ExitCode {
    let config = match configuration::written(options) {
        Ok(config) => config,
        Err(code) => return code,
    };
    if config.followed().next().is_some() {
        output::complain(format_args!(
            "{}: follows devices, whose prefixes change, and a ruleset that is loaded as it is cannot; write the \
             prefixes as a list",
            config.followed_keys()
        ));
        return ExitCode::BadConfiguration;
    }
    output::print(&printed::render(&plan::compile(&config)))
}
