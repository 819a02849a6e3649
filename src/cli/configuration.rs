//! Which configuration a command works with, and what the user is told when there is none that can be used.

use super::exit::ExitCode;
use super::format::counted;
use super::{DEFAULT_CONFIG, Options, output};
use crate::config::source::{SourceError, Sourced};
use crate::config::{self, Config, Connected, LoadError, Problem};
use crate::kernel::network::NetworkReader;

/// The configuration of a command that cannot do without: from the file, else what is found, which is told; otherwise
/// it is said what is missing or wrong. Subnets that follow devices have the prefixes of this moment.
pub fn demand(options: &Options) -> Result<Config, ExitCode> {
    let sourced = options.source().read();
    let Sourced { config, note, .. } = sourced.map_err(|error| refuse(&error))?;
    if let Some(note) = note {
        output::complain(note);
    }
    if config.followed().next().is_none() {
        return Ok(config);
    }
    match NetworkReader::open().and_then(|mut reader| reader.read()) {
        Ok(network) => Ok(config.resolved(&Connected::new(&network.links, &network.addresses))),
        Err(error) => {
            output::complain(error);
            Err(ExitCode::Failure)
        }
    }
}

/// The same from the file alone, with prefixes as they are written.
pub fn written(options: &Options) -> Result<Config, ExitCode> {
    let path = options.config.clone();
    let path = path.unwrap_or_else(|| DEFAULT_CONFIG.into());
    config::load(&path).map_err(|error| {
        complain(&error);
        ExitCode::BadConfiguration
    })
}

/// Says why there is no configuration.
pub fn refuse(error: &SourceError) -> ExitCode {
    match error {
        SourceError::File(error) => complain(error),
        SourceError::Nothing => output::complain(error),
        SourceError::Kernel(_) => {
            output::complain(error);
            return ExitCode::Failure;
        }
    }
    ExitCode::BadConfiguration
}

/// The configuration of a command that can do without: one that is named must be good, unless it is only asked for
/// the socket and that is named too; the usual one may be missing or bad, since the daemon may well run with the
/// one before.
pub fn look(options: &Options) -> Result<Option<Config>, ExitCode> {
    let Some(path) = &options.config else {
        return Ok(options
            .config_path()
            .and_then(|path| config::load(&path).ok()));
    };
    match config::load(path) {
        Ok(config) => Ok(Some(config)),
        Err(LoadError::Invalid { .. }) if options.socket.is_some() => Ok(None),
        Err(error) => {
            complain(&error);
            Err(ExitCode::BadConfiguration)
        }
    }
}

/// All that is wrong with a file.
fn complain(error: &LoadError) {
    match error {
        LoadError::Invalid { path, problems } => {
            output::complain_at_length(&render_problems(path, problems))
        }
        LoadError::Read { .. } | LoadError::NotRegular { .. } | LoadError::TooLarge { .. } => {
            output::complain(error)
        }
    }
}

/// One line for each problem, in the form that editors jump to (`file:line:column: `), and a last one that counts
/// them. `path` is printable.
fn render_problems(path: &str, problems: &[Problem]) -> String {
    let lines = problems.iter().map(|problem| format!("{path}:{problem}\n"));
    lines
        .chain([counted(problems.len() as u64, "problem") + "\n"])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Format, parse};

    #[test]
    fn problems_are_lines_that_an_editor_jumps_to() {
        let problems = parse("tick = 1\n[tabel]\n", Format::Toml).unwrap_err();
        assert_eq!(
            render_problems("a.toml", &problems),
            "a.toml:1:8: tick: 1 has no unit; write \"1s\", \"1ms\" or \"1m\"\n\
             a.toml:2:2: tabel: unknown key; did you mean \"table\"?\n\
             2 problems\n"
        );
    }
}
