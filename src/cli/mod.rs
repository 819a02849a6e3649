//! The command line: what can be asked, with which options, and where the answer is found. One file for each
//! command; none of them sees more of the daemon than its report and its log.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{ArgGroup, Args, Parser, Subcommand};

use crate::config::source::Source;
use crate::config::{Config, DurationError, parse_duration};
use crate::units::{CounterName, ThresholdName};

pub mod announce;
pub mod check;
pub mod columns;
pub mod configuration;
pub mod counters;
pub mod demo;
pub mod devices;
pub mod discover;
pub mod doctor;
pub mod drill;
pub mod exit;
pub mod flows;
pub mod format;
pub mod install;
pub mod journal;
pub mod log;
pub mod log_text;
pub mod output;
pub mod plan;
pub mod reload;
pub mod remove;
pub mod run;
pub mod status;
pub mod style;
pub mod top;
pub mod watch;

use exit::ExitCode;
use format::Units;
use style::{ColorChoice, Style};

/// Read when no other configuration is named.
pub const DEFAULT_CONFIG: &str = "/etc/flowctl/flowctl.toml";
/// Used when neither `--socket` nor a configuration says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/flowctl/control.sock";
/// Used when no configuration says otherwise; relative to the state directory.
pub const DEFAULT_LOG: &str = "drilldowns.jsonl";

const EXIT_STATUS: &str = "\
Exit status:
   0  done
   1  not done; for `status --check`: pending, or something makes numbers wrong
   2  for `status --check`: a threshold fires
   3  the daemon is not reachable
  64  the command line is not understood
  75  another instance runs in this network namespace
  77  a privilege is missing
  78  the configuration has problems, or is not there";

/// Count traffic with nftables for almost nothing, and learn who moved it the moment it matters.
#[derive(Debug, Parser)]
#[command(name = "flowctl", version, subcommand_required = true, after_long_help = EXIT_STATUS)]
pub struct Cli {
    /// For every command.
    #[command(flatten)]
    pub options: Options,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What every command accepts.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options for every command")]
pub struct Options {
    /// Read the configuration from FILE [default: /etc/flowctl/flowctl.toml; if it does not exist, what is found]
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// Keep totals and the log in DIR
    #[arg(
        long,
        value_name = "DIR",
        global = true,
        default_value = "/var/lib/flowctl"
    )]
    pub state_dir: PathBuf,
    /// Talk to the daemon through the Unix socket PATH [default: as configured, else /run/flowctl/control.sock]
    #[arg(long, value_name = "PATH", global = true)]
    pub socket: Option<PathBuf>,
    /// Scale rates and volumes alike [default: rates si, volumes iec]
    #[arg(long, global = true)]
    pub units: Option<Units>,
    /// When to use colours
    #[arg(long, value_name = "WHEN", global = true, value_enum, default_value_t)]
    pub color: ColorChoice,
}

/// What flowctl can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Count, watch and explain: the daemon, in the foreground
    Run(RunArgs),
    /// Show the whole job on a router of its own, without touching this machine
    Demo(DemoArgs),
    /// Show counters, rates, thresholds, drilldowns and health
    Status(StatusArgs),
    /// Show the nftables ruleset and what each counter will see; changes nothing
    Plan(PlanArgs),
    /// Check the configuration and name every problem in it
    Check(CheckArgs),
    /// Find interfaces and subnets, and print them as a configuration to keep
    Discover(DiscoverArgs),
    /// Ask who moves the bytes of a counter, or what a host moves, right now
    Drill(DrillArgs),
    /// Show verdicts, alerts and whatever else happened
    Log(LogArgs),
    /// Find what makes numbers wrong or incomplete, and how to fix it
    Doctor(DoctorArgs),
    /// Have the daemon read its configuration again, and say what came of it
    ///
    /// Exit status 0: the new configuration is in force. 78: it is rejected, for the problems that are named. 1: it could
    /// not be read or carried out for another reason, such as one of the kernel's. Unless it is 0, the configuration
    /// before stays in force.
    Reload(ReloadArgs),
    /// Stop the daemon and take its table away
    Remove(RemoveArgs),
    /// Print completions for a shell
    Completions(CompletionsArgs),
    /// Write the manual pages
    Man(ManArgs),
}

/// `flowctl run`.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {}

/// `flowctl demo`.
#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// Let it last about N seconds
    #[arg(
        long,
        value_name = "N",
        default_value_t = crate::demo::SECONDS_DEFAULT,
        value_parser = clap::value_parser!(u32).range(i64::from(crate::demo::SECONDS_MIN)..=3600)
    )]
    pub seconds: u32,
    /// Print one JSON object at the end: the verdict, and beside it what the generators really sent
    #[arg(long)]
    pub json: bool,
}

/// `flowctl status`.
#[derive(Debug, Clone, Args)]
pub struct StatusArgs {
    /// Print the report as one line of JSON
    #[arg(long)]
    pub json: bool,
    /// Show it again every S seconds, until interrupted [default for S: 1]
    #[arg(
        long,
        value_name = "S",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "1",
        value_parser = parse_period,
        conflicts_with = "check"
    )]
    pub watch: Option<Duration>,
    /// Sum it up in one line and in the exit status: 0 ok, 1 pending or warning, 2 firing, 3 daemon not reachable
    #[arg(long)]
    pub check: bool,
}

/// `flowctl plan`.
#[derive(Debug, Clone, Args)]
pub struct PlanArgs {
    /// Print the ruleset to be read, or as a file that `nft -f` loads any number of times
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub format: PlanFormat,
}

/// What `flowctl plan` prints.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum PlanFormat {
    /// The ruleset, and what each counter will see
    #[default]
    Text,
    /// A ruleset file for static rules, which the daemon then uses and never changes
    Nft,
}

/// `flowctl check`.
#[derive(Debug, Clone, Args)]
pub struct CheckArgs {}

/// `flowctl discover`.
#[derive(Debug, Clone, Args)]
pub struct DiscoverArgs {
    /// Add the named counters that the running ruleset has, to be read and never modified (needs CAP_NET_ADMIN)
    #[arg(long)]
    pub adopt: bool,
}

/// `flowctl drill`.
#[derive(Debug, Clone, Args)]
#[command(group(ArgGroup::new("about").required(true).args(["counter", "host"])))]
pub struct DrillArgs {
    /// Who moves the bytes of this counter
    #[arg(value_name = "COUNTER", value_parser = CounterName::new)]
    pub counter: Option<CounterName>,
    /// What the inside address ADDR sends and receives, with whom
    #[arg(long, value_name = "ADDR")]
    pub host: Option<IpAddr>,
    /// End after T, such as 30s or 5m [default: on a terminal at Ctrl-C, else 30s; never later than max_duration]
    #[arg(long = "for", value_name = "T", value_parser = parse_lasting)]
    pub lasting: Option<Duration>,
    /// Print records as in the log, one JSON object a line: flows after each look, and at the end the verdict
    #[arg(long)]
    pub json: bool,
}

/// `flowctl log`.
#[derive(Debug, Clone, Args)]
pub struct LogArgs {
    /// Print the records as they are, one JSON object a line
    #[arg(long)]
    pub json: bool,
    /// Begin at T: a time (2026-11-23T05:20:00Z), a date (2026-11-23), or so long ago (2h, 30m, 7d)
    #[arg(long, value_name = "T")]
    pub since: Option<log::Since>,
    /// Show only what concerns the counter NAME
    #[arg(long, value_name = "NAME", value_parser = CounterName::new)]
    pub counter: Option<CounterName>,
    /// Show only what concerns the threshold NAME
    #[arg(long, value_name = "NAME", value_parser = ThresholdName::new)]
    pub threshold: Option<ThresholdName>,
    /// Go on as the log grows, until interrupted
    #[arg(long, short)]
    pub follow: bool,
}

/// `flowctl doctor`.
#[derive(Debug, Clone, Args)]
pub struct DoctorArgs {
    /// Print the findings as one line of JSON
    #[arg(long)]
    pub json: bool,
}

/// `flowctl reload`.
#[derive(Debug, Clone, Args)]
pub struct ReloadArgs {}

/// `flowctl remove`.
#[derive(Debug, Clone, Args)]
pub struct RemoveArgs {}

/// `flowctl completions`.
#[derive(Debug, Clone, Args)]
pub struct CompletionsArgs {
    /// Which shell
    #[arg(value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}

/// `flowctl man`.
#[derive(Debug, Clone, Args)]
pub struct ManArgs {
    /// Write flowctl.1 and a page for each command into DIR, which is made if it is not there
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
}

/// Why a period was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a number of seconds from 0.1 to 86400")]
struct PeriodError;

fn parse_period(text: &str) -> Result<Duration, PeriodError> {
    let seconds: f64 = text.parse().map_err(|_| PeriodError)?;
    if (0.1..=86_400.0).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err(PeriodError)
    }
}

/// Why `--for` was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum LastingError {
    #[error(transparent)]
    Form(#[from] DurationError),
    #[error("is no time at all")]
    Zero,
}

fn parse_lasting(text: &str) -> Result<Duration, LastingError> {
    let lasting = parse_duration(text)?;
    (!lasting.is_zero())
        .then_some(lasting)
        .ok_or(LastingError::Zero)
}

/// The command line as typed, or how the process ends: 0 after help and version, 64 when it is not understood.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli, ExitCode> {
    Cli::try_parse_from(arguments).map_err(|error| {
        // A closed output leaves nobody to tell.
        let _ = error.print();
        if matches!(
            error.kind(),
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
        ) {
            ExitCode::Ok
        } else {
            ExitCode::Usage
        }
    })
}

impl Options {
    /// The configuration to read: the one named, else the usual one if it exists.
    pub fn config_path(&self) -> Option<PathBuf> {
        let usual = PathBuf::from(DEFAULT_CONFIG);
        self.config
            .clone()
            .or_else(|| usual.exists().then_some(usual))
    }

    /// Where the configuration of a command comes from that cannot do without: what is found, if there is no file.
    pub fn source(&self) -> Source {
        match &self.config {
            Some(path) => Source::File(path.clone()),
            None => Source::FileOrDiscovery(DEFAULT_CONFIG.into()),
        }
    }

    /// Where the daemon listens.
    pub fn socket_path(&self, config: Option<&Config>) -> PathBuf {
        let configured = config.map(|config| config.control.socket.clone());
        self.socket
            .clone()
            .or(configured)
            .unwrap_or_else(|| DEFAULT_SOCKET.into())
    }

    /// Where the log is.
    pub fn log_path(&self, config: Option<&Config>) -> PathBuf {
        match config {
            Some(config) => self.state_dir.join(&config.log.path),
            None => self.state_dir.join(DEFAULT_LOG),
        }
    }

    /// How output to standard output looks.
    pub fn style(&self) -> Style {
        Style::of_stdout(self.color, self.units.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parsed(line: &str) -> Result<Cli, ExitCode> {
        parse(line.split(' ').map(OsString::from))
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_are_accepted_before_and_after_the_command() {
        for line in [
            "flowctl --socket /s status --watch=0.5",
            "flowctl status --watch=0.5 --socket /s",
        ] {
            let cli = parsed(line).unwrap();
            assert_eq!(cli.options.socket_path(None), PathBuf::from("/s"));
            let Command::Status(args) = cli.command else {
                panic!("{line}");
            };
            assert_eq!(args.watch, Some(Duration::from_millis(500)));
        }
    }

    #[test]
    fn what_is_not_understood_is_a_usage_error_and_help_is_not() {
        for line in [
            "flowctl",
            "flowctl stauts",
            "flowctl status --watch=0",
            "flowctl status --watch --check",
            "flowctl log --since yesterday",
            "flowctl log --counter Wan",
            "flowctl log --threshold Full",
            "flowctl drill",
            "flowctl drill Wan",
            "flowctl drill wan_out --host 10.0.0.1",
            "flowctl drill --host router",
            "flowctl drill wan_out --for 30",
            "flowctl drill wan_out --for 0s",
            "flowctl demo --seconds 0",
            "flowctl --units usual status",
        ] {
            assert_eq!(parsed(line).unwrap_err(), ExitCode::Usage, "{line}");
        }
        for line in [
            "flowctl --help",
            "flowctl status --help",
            "flowctl --version",
        ] {
            assert_eq!(parsed(line).unwrap_err(), ExitCode::Ok, "{line}");
        }
    }
}
