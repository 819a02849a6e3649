//! A file becomes a `Config`, or all of its problems at once. `parse` is pure; only `load` touches the disk.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

use super::labels::LabelsByInterface;
use super::problem::{Positions, Problem, printable};
use super::problems::Problems;
use super::reader::Table;
use super::tree::Node;
use super::{
    Config, counters, hosts, interfaces, settings, subnets, thresholds, tree_json, tree_toml,
};

/// Room for some ten thousand counters; more is not a configuration.
const FILE_SIZE_MAX: u64 = 4 << 20;

/// How a configuration file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// TOML 1.1.
    Toml,
    /// JSON to the letter: no comments, no trailing commas.
    Json,
}

impl Format {
    /// JSON where the name ends in `.json`, else TOML.
    pub fn of(path: &Path) -> Format {
        match path.extension() {
            Some(extension) if extension == "json" => Format::Json,
            _ => Format::Toml,
        }
    }
}

/// Why there is no `Config`. Whichever it is, the configuration is bad: exit code 78.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file, printable.
        path: String,
        /// What the system says.
        source: io::Error,
    },
    /// There is no file of which what was read once could be read again.
    #[error("{path} is not a regular file, so it is not read again")]
    NotRegular {
        /// The file, printable.
        path: String,
    },
    /// The file is too large to be a configuration.
    #[error("{path} has more than {FILE_SIZE_MAX} bytes")]
    TooLarge {
        /// The file, printable.
        path: String,
    },
    /// The file was read, and is wrong.
    #[error("{path} has {} problem(s)", problems.len())]
    Invalid {
        /// The file, printable.
        path: String,
        /// At least one, in the order of the file.
        problems: Vec<Problem>,
    },
}

impl LoadError {
    /// What is wrong, a text for each; beyond `most`, a last one says how many more there are.
    pub fn messages(&self, most: usize) -> Vec<String> {
        let LoadError::Invalid { path, problems } = self else {
            return vec![self.to_string()];
        };
        let first = problems.iter().take(most);
        let more = match problems.len().saturating_sub(most) {
            0 => None,
            more => Some(format!("{path}: and {more} more")),
        };
        first
            .map(|problem| format!("{path}:{problem}"))
            .chain(more)
            .collect()
    }
}

/// Reads and checks the file at `path`. Of a pipe it waits for the end.
pub fn load(path: &Path) -> Result<Config, LoadError> {
    let file = File::open(path).map_err(unreadable(path))?;
    read(path, file)
}

/// The same where somebody may have read it before: a pipe has nothing more to give, and nobody may ever write to it.
pub fn load_again(path: &Path) -> Result<Config, LoadError> {
    let mut options = File::options();
    // Whoever opens a FIFO otherwise waits until somebody writes to it.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = options.read(true).custom_flags(flags).open(path);
    let file = file.map_err(unreadable(path))?;
    let found = file.metadata().map_err(unreadable(path))?;
    if !found.is_file() {
        return Err(LoadError::NotRegular { path: shown(path) });
    }
    read(path, file)
}

fn shown(path: &Path) -> String {
    printable(&path.to_string_lossy())
}

fn unreadable(path: &Path) -> impl Fn(io::Error) -> LoadError {
    move |source| LoadError::Read {
        path: shown(path),
        source,
    }
}

fn read(path: &Path, file: File) -> Result<Config, LoadError> {
    let mut bytes = Vec::new();
    let mut file = file.take(FILE_SIZE_MAX + 1);
    file.read_to_end(&mut bytes).map_err(unreadable(path))?;
    if bytes.len() as u64 > FILE_SIZE_MAX {
        return Err(LoadError::TooLarge { path: shown(path) });
    }
    let parsed = match std::str::from_utf8(&bytes) {
        Ok(text) => parse(text, Format::of(path)),
        Err(error) => Err(vec![not_utf8(&bytes[..error.valid_up_to()])]),
    };
    parsed.map_err(|problems| LoadError::Invalid {
        path: shown(path),
        problems,
    })
}

fn not_utf8(valid: &[u8]) -> Problem {
    let valid = String::from_utf8_lossy(valid);
    let (line, column) = Positions::new(&valid).of(valid.len());
    Problem {
        key_path: String::new(),
        line,
        column,
        value: None,
        message: "not UTF-8 text".to_owned(),
        remedy: "save the file as UTF-8".to_owned(),
    }
}

/// The configuration that `text` is, or everything that is wrong with it, in the order of the file.
pub fn parse(text: &str, format: Format) -> Result<Config, Vec<Problem>> {
    let parsed = match format {
        Format::Toml => tree_toml::parse(text),
        Format::Json => tree_json::parse(text),
    };
    let mut problems = Problems::new(text, parsed.errors);
    let config = parsed.root.and_then(|root| document(&root, &mut problems));
    let found = problems.into_sorted();
    match config {
        Some(config) if found.is_empty() => Ok(config),
        _ => Err(found),
    }
}

/// Definitions are read before what refers to them. What is wrong is left out: with a problem there is no `Config`.
fn document(root: &Node, problems: &mut Problems<'_>) -> Option<Config> {
    let mut root = Table::open(root, problems)?;
    let tick = settings::tick(&mut root, problems);
    let table = settings::table(&mut root, problems);
    let interfaces = interfaces::read(&mut root, problems);
    let subnets = subnets::read(&mut root, problems);
    if table.is_static {
        subnets.stand_still(problems);
    }
    let counters = counters::read(&mut root, &table.name, &interfaces, &subnets, problems);
    let thresholds = thresholds::read(&mut root, &counters, problems);
    let drilldown = settings::drilldown(&mut root, interfaces.len(), problems);
    let log = settings::log(&mut root, problems);
    let control = settings::control(&mut root, problems);
    let hosts = hosts::hosts(&mut root, problems);
    let names = hosts::names(&mut root, problems);
    root.finish(problems);
    let mut config = Config {
        tick,
        table,
        interfaces: (interfaces.into_iter().filter_map(|draft| draft.finish())).collect(),
        subnets: (subnets.list.into_iter().filter_map(|draft| draft.finish())).collect(),
        counters: (counters.list.into_iter().filter_map(|draft| draft.finish())).collect(),
        thresholds,
        drilldown,
        log,
        control,
        hosts,
        names,
        labelled_since: None,
    };
    config.keep_labels(&LabelsByInterface::new());
    Some(config)
}
