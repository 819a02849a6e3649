//! Arguments in, exit code out.

use std::process::ExitCode;

use flowctl::cli::{self, Command, configuration};

fn main() -> ExitCode {
    match cli::parse(std::env::args_os()) {
        Ok(cli) => dispatch(&cli).unwrap_or_else(|code| code).into(),
        Err(code) => code.into(),
    }
}

fn dispatch(cli: &cli::Cli) -> Result<cli::exit::ExitCode, cli::exit::ExitCode> {
    let options = &cli.options;
    Ok(match &cli.command {
        Command::Run(_) => cli::run::run(options),
        Command::Demo(args) => cli::demo::run(args, options),
        Command::Status(args) => {
            let config = configuration::look(options)?;
            cli::watch::run(
                args,
                &options.socket_path(config.as_ref()),
                &options.style(),
            )
        }
        Command::Plan(_) => cli::plan::run(options),
        Command::Check(_) => cli::check::run(options),
        Command::Discover(args) => cli::discover::run(args),
        Command::Drill(args) => {
            let config = configuration::look(options)?;
            cli::drill::run(
                args,
                &options.socket_path(config.as_ref()),
                &options.style(),
            )
        }
        Command::Log(args) => {
            let config = configuration::look(options)?;
            cli::log::run(args, &options.log_path(config.as_ref()), &options.style())
        }
        Command::Doctor(args) => cli::doctor::run(args, options),
        Command::Reload(_) => cli::reload::run(options),
        Command::Remove(_) => cli::remove::run(options),
    })
}
