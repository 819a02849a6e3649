//! `flowctl reload`: has the daemon read its configuration again, waits for what comes of it, and prints that.

use super::exit::ExitCode;
use super::format::{counted, foreign};
use super::{Options, configuration, output};
use crate::config::source::SourceError;
use crate::config::{self, Config};
use crate::sink::ask::{AskError, ask_to_reload};
use crate::sink::reload::{PROBLEMS_MAX, Reloaded};

const STAYS: &str = "the configuration before stays in force";

/// Asks the daemon, which judges the file; here it only says where the daemon listens, if it can be read at all: a pipe is
/// not for whoever asks.
pub fn run(options: &Options) -> ExitCode {
    let loaded = (options.config_path()).map(|path| config::load_again(&path));
    let config: Option<&Config> = loaded.as_ref().and_then(|loaded| loaded.as_ref().ok());
    let answer = ask_to_reload(&options.socket_path(config));
    match (answer, loaded) {
        (Err(error), Some(Err(bad))) if error.is_unreachable() => {
            configuration::refuse(&SourceError::File(bad))
        }
        (answer, _) => tell(answer),
    }
}

fn tell(answer: Result<Reloaded, AskError>) -> ExitCode {
    match answer {
        Ok(Reloaded::Reloaded(messages)) => output::print(&render(&messages)),
        Ok(Reloaded::Rejected(problems)) => {
            output::complain_at_length(&render_rejected(&problems));
            ExitCode::BadConfiguration
        }
        Ok(Reloaded::Failed(why)) => {
            output::complain(format!("{why}; {STAYS}"));
            ExitCode::Failure
        }
        Err(error) => {
            output::complain(&error);
            code_of(&error)
        }
    }
}

fn code_of(error: &AskError) -> ExitCode {
    if matches!(error, AskError::Forbidden { .. }) {
        ExitCode::MissingPrivilege
    } else if error.is_unreachable() {
        ExitCode::NotReachable
    } else {
        ExitCode::Failure
    }
}

fn render(messages: &[String]) -> String {
    if messages.is_empty() {
        return "reloaded; no counter and no threshold came or went\n".to_owned();
    }
    let lines = messages
        .iter()
        .map(|message| format!("{}\n", foreign(message)));
    ["reloaded\n".to_owned()].into_iter().chain(lines).collect()
}

/// Every problem on a line of its own, and last what that means.
fn render_rejected(problems: &[String]) -> String {
    let lines = problems
        .iter()
        .map(|problem| format!("{}\n", foreign(problem)));
    let last = match problems.len() {
        told @ ..=PROBLEMS_MAX => format!("{}; {STAYS}\n", counted(told as u64, "problem")),
        // The last of them said how many more there are.
        _ => format!("{STAYS}\n"),
    };
    lines.chain([last]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_and_what_is_wrong_stand_on_lines_of_their_own() {
        let messages = ["counters added: iot_from, iot_to".to_owned()];
        assert_eq!(
            render(&messages),
            "reloaded\ncounters added: iot_from, iot_to\n"
        );
        assert!(render(&[]).contains("no counter and no threshold"));
        let many = vec!["x".to_owned(); PROBLEMS_MAX + 1];
        let last = format!("x\nx\n{STAYS}\n");
        assert!(render_rejected(&many).ends_with(&last));
        let problems = [
            "a.toml:1:1: tick\u{1b}[2J".to_owned(),
            "a.toml:2:1: x".to_owned(),
        ];
        assert_eq!(
            render_rejected(&problems),
            "a.toml:1:1: tick\\u{1b}[2J\na.toml:2:1: x\n2 problems; the configuration before stays in force\n"
        );
    }
}
