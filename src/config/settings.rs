//! The keys that stand alone: tick, `[table]`, `[drilldown]`, `[log]`, `[control]`, each with its default and
//! its bounds.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::keyword::is_keyword;
use super::labels::{BITS_AN_INTERFACE, LABEL_BITS};
use super::problems::{Problems, Wrong};
use super::reader::{Given, Table};
use super::tree::Node;
use super::value::{
    absolute_path, boolean, duration, duration_within, file_path, integer_within, percentage, size,
    text,
};
use super::{ControlConfig, DrilldownConfig, LogConfig, Protect, TableConfig};

/// A shorter beat costs more than it tells, a longer one tells nothing in time.
const BEAT_MIN: Duration = Duration::from_millis(100);
const BEAT_MAX: Duration = Duration::from_secs(3600);
const BEAT_BOUNDS: &str = "a duration from \"100ms\" to \"1h\"";

/// Less would not hold one verdict.
const LOG_SIZE_MIN: u64 = 4096;
/// The totals in the state directory, beside the log: the file that waits for the disk.
pub const TOTALS_FILE: &str = "totals.json";
/// The file that does not: it survives the end of the process, not that of the machine.
pub const LIVE_TOTALS_FILE: &str = "totals-live.json";

/// `sun_path` in sockaddr_un, without the final zero byte.
const SOCKET_PATH_MAX: usize = 107;

fn open<'n>(
    root: &mut Table<'n>,
    key: &'static str,
    problems: &mut Problems<'_>,
) -> Option<Table<'n>> {
    let node = root.take(key)?;
    Table::open(node, problems)
}

fn beat(node: &Node) -> Result<Duration, Wrong> {
    duration_within(node, BEAT_MIN, BEAT_MAX, BEAT_BOUNDS)
}

/// `tick`.
pub(super) fn tick(root: &mut Table<'_>, problems: &mut Problems<'_>) -> Duration {
    root.read("tick", problems, beat).or(Duration::from_secs(1))
}

/// `[table]`.
pub(super) fn table(root: &mut Table<'_>, problems: &mut Problems<'_>) -> TableConfig {
    let mut config = TableConfig {
        name: "flowctl".to_owned(),
        protect: Protect::Auto,
        is_static: false,
    };
    if let Some(mut section) = open(root, "table", problems) {
        let name = section.read("name", problems, table_name);
        config.name = name.or(config.name);
        let protect = section.read("protect", problems, protect);
        config.protect = protect.or(config.protect);
        let is_static = section.read("static", problems, boolean);
        config.is_static = is_static.or(config.is_static);
        section.finish(problems);
    }
    config
}

fn table_name(node: &Node) -> Result<String, Wrong> {
    const REMEDY: &str = "write a name of a-z, A-Z, 0-9 and _ that does not start with a digit, at most 64 characters";
    let name = text(node, REMEDY)?;
    let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let goes_on = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !starts || !goes_on || name.len() > 64 {
        return Err(Wrong::new("is not a table's name", REMEDY));
    }
    if is_keyword(name) {
        let remedy = format!("choose another, such as \"flowctl_{name}\"");
        return Err(Wrong::new("is a keyword of nft", remedy));
    }
    Ok(name.to_owned())
}

fn protect(node: &Node) -> Result<Protect, Wrong> {
    const REMEDY: &str = "write \"auto\" or \"off\"";
    match text(node, REMEDY)? {
        "auto" => Ok(Protect::Auto),
        "off" => Ok(Protect::Off),
        _ => Err(Wrong::new("is not a kind of protection", REMEDY)),
    }
}

/// `[drilldown]`; the label bits must be enough for so many `interfaces`.
pub(super) fn drilldown(
    root: &mut Table<'_>,
    interfaces: usize,
    problems: &mut Problems<'_>,
) -> DrilldownConfig {
    let mut config = DrilldownConfig {
        interval: Duration::from_secs(1),
        top: 10,
        max_duration: Duration::from_secs(600),
        cpu_budget: 0.05,
        label_base: 0,
    };
    let Some(mut section) = open(root, "drilldown", problems) else {
        return config;
    };
    (config.interval, config.max_duration) = durations(&mut section, &config, problems);
    let top = section.read("top", problems, |node| {
        integer_within(node, 1, 1000).map(|top| top as usize)
    });
    config.top = top.or(config.top);
    let budget = section.read("cpu_budget", problems, |node| {
        percentage(node).map(|percent| percent / 100.0)
    });
    config.cpu_budget = budget.or(config.cpu_budget);
    let base = section.read("label_base", problems, |node| label_base(node, interfaces));
    config.label_base = base.or(config.label_base);
    section.finish(problems);
    config
}

fn durations(
    section: &mut Table<'_>,
    default: &DrilldownConfig,
    problems: &mut Problems<'_>,
) -> (Duration, Duration) {
    let interval = section.read("interval", problems, beat);
    let at_least = match interval {
        Given::Is(interval) => interval,
        Given::Absent => default.interval,
        // Compared with nothing: one mistake, one problem.
        Given::Wrong => Duration::ZERO,
    };
    let max = section.read("max_duration", problems, |node| match duration(node)? {
        max if max < at_least => Err(Wrong::new(
            format!("is shorter than interval ({at_least:?})"),
            "write a longer duration, or a shorter interval",
        )),
        max => Ok(max),
    });
    if max == Given::Absent
        && at_least > default.max_duration
        && let Some(node) = section.take("interval")
    {
        let message = format!("is longer than max_duration ({:?})", default.max_duration);
        let remedy = "add max_duration, at least as long";
        problems.wrong(node, Wrong::new(message, remedy));
    }
    (interval.or(default.interval), max.or(default.max_duration))
}

fn label_base(node: &Node, interfaces: usize) -> Result<u8, Wrong> {
    let base = integer_within(node, 0, 126)?;
    let bits = usize::from(LABEL_BITS);
    let highest = bits.saturating_sub(usize::from(BITS_AN_INTERFACE) * interfaces);
    if interfaces <= bits / usize::from(BITS_AN_INTERFACE) && base as usize > highest {
        return Err(Wrong::new(
            format!("leaves too few of {LABEL_BITS} label bits for {interfaces} interfaces"),
            format!("write at most {highest}: every interface takes two"),
        ));
    }
    Ok(base as u8)
}

/// `[log]`.
pub(super) fn log(root: &mut Table<'_>, problems: &mut Problems<'_>) -> LogConfig {
    const REMEDY: &str = "write the path of a file, relative to the state directory or absolute";
    let mut config = LogConfig {
        path: PathBuf::from("drilldowns.jsonl"),
        max_size: 16 << 20,
        keep: 4,
    };
    if let Some(mut section) = open(root, "log", problems) {
        let path = section.read("path", problems, |node| match file_path(node, REMEDY)? {
            path if is_taken(&path) => Err(Wrong::new(
                "is where the totals are",
                "choose another name, such as \"drilldowns.jsonl\"",
            )),
            path => Ok(path),
        });
        config.path = path.or(config.path);
        let max_size = section.read("max_size", problems, |node| match size(node)? {
            small if small < LOG_SIZE_MIN => {
                Err(Wrong::new("is too small", "write at least \"4KiB\""))
            }
            size => Ok(size),
        });
        config.max_size = max_size.or(config.max_size);
        let keep = section.read("keep", problems, |node| integer_within(node, 0, 1000));
        config.keep = keep.or(config.keep);
        section.finish(problems);
    }
    config
}

/// Whether the totals have that name in the state directory, or a file that replaces or keeps them: those have an
/// ending more.
fn is_taken(log: &Path) -> bool {
    let name = log.strip_prefix(".").unwrap_or(log).to_string_lossy();
    let mut totals = [TOTALS_FILE, LIVE_TOTALS_FILE].into_iter();
    totals.any(|totals| match name.strip_prefix(totals) {
        Some(ending) => ending.is_empty() || ending.starts_with('.') && !ending.contains('/'),
        None => false,
    })
}

/// `[control]`.
pub(super) fn control(root: &mut Table<'_>, problems: &mut Problems<'_>) -> ControlConfig {
    let mut config = ControlConfig {
        socket: PathBuf::from("/run/flowctl/control.sock"),
    };
    if let Some(mut section) = open(root, "control", problems) {
        let socket = section.read("socket", problems, socket_path);
        config.socket = socket.or(config.socket);
        section.finish(problems);
    }
    config
}

fn socket_path(node: &Node) -> Result<PathBuf, Wrong> {
    const REMEDY: &str = "write an absolute path such as \"/run/flowctl/control.sock\"";
    let path = absolute_path(node, REMEDY)?;
    if path.as_os_str().len() > SOCKET_PATH_MAX {
        let message = format!("is longer than the {SOCKET_PATH_MAX} bytes of a socket's path");
        return Err(Wrong::new(message, "choose a shorter path"));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{config, messages};

    #[test]
    fn an_empty_file_is_all_defaults() {
        let config = config("");
        assert_eq!(config.tick, std::time::Duration::from_secs(1));
        assert_eq!(config.table.name, "flowctl");
        assert_eq!(config.drilldown.cpu_budget, 0.05);
        assert_eq!(config.log.max_size, 16 * 1024 * 1024);
        let socket = std::path::Path::new("/run/flowctl/control.sock");
        assert_eq!(config.control.socket, socket);
    }

    #[test]
    fn every_bound_is_kept() {
        for (text, message) in [
            ("tick = \"99ms\"", "is too short"),
            ("tick = \"61m\"", "is too long"),
            ("drilldown.interval = \"99ms\"", "is too short"),
            ("drilldown.top = 0", "is out of bounds"),
            ("drilldown.top = 1001", "is out of bounds"),
            ("drilldown.cpu_budget = \"101%\"", "is more than 100 %"),
            ("drilldown.label_base = 127", "is out of bounds"),
            (
                "drilldown.max_duration = \"500ms\"",
                "is shorter than interval (1s)",
            ),
            (
                "drilldown.interval = \"11m\"",
                "is longer than max_duration (600s)",
            ),
            ("log.max_size = \"4095B\"", "is too small"),
            ("log.path = \"totals.json\"", "is where the totals are"),
            (
                "log.path = \"./totals.json.new\"",
                "is where the totals are",
            ),
            ("log.path = \"totals-live.json\"", "is where the totals are"),
            (
                "log.path = \"totals-live.json.corrupt-1\"",
                "is where the totals are",
            ),
            ("log.keep = 1001", "is out of bounds"),
            ("log.path = \"\"", "names no file"),
            ("control.socket = \"a.sock\"", "is a relative path"),
            ("table.protect = \"on\"", "is not a kind of protection"),
            ("table.name = \"0a\"", "is not a table's name"),
            ("table.name = \"inet\"", "is a keyword of nft"),
        ] {
            assert_eq!(messages(text), [message], "{text}");
        }
        let long = format!("control.socket = \"/{}\"", "a".repeat(107));
        assert!(messages(&long)[0].starts_with("is longer than the 107 bytes"));
    }

    #[test]
    fn the_bounds_themselves_are_fine() {
        config("tick = \"100ms\"\ntable.name = \"_Flow1\"\ntable.protect = \"off\"");
        config(
            "tick = \"1h\"\ndrilldown = { top = 1000, label_base = 126, cpu_budget = \"100%\" }",
        );
        config("log = { max_size = \"4KiB\", keep = 0 }\ndrilldown.max_duration = \"1s\"");
        config("log.path = \"totals.jsonl\"");
        config("log.path = \"/totals.json\"");
    }

    #[test]
    fn label_bits_are_enough_for_all_interfaces() {
        let interfaces = "[interfaces]\na.device = \"a\"\nb.device = \"b\"\n";
        config(&format!("drilldown.label_base = 124\n{interfaces}"));
        let message = "leaves too few of 128 label bits for 2 interfaces";
        let text = format!("drilldown.label_base = 125\n{interfaces}");
        assert_eq!(messages(&text), [message]);
    }

    #[test]
    fn a_wrong_interval_is_one_problem() {
        let text = "drilldown = { interval = \"5\", max_duration = \"500ms\" }";
        assert_eq!(messages(text), ["has no unit"]);
    }
}
