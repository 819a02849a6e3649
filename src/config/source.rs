//! Where a configuration comes from: a file, or where nobody wrote one, what the kernel says is there. Reading it
//! again may give another one.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::discover::{Discovery, discover};
use super::problem::printable;
use super::{Config, LoadError, load, load_again};
use crate::kernel::error::KernelError;
use crate::kernel::network::Network;

/// Where to look for a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// This file, which must be there.
    File(PathBuf),
    /// This file if it is there, else what is found.
    FileOrDiscovery(PathBuf),
}

/// A configuration, and how it came about.
#[derive(Debug, Clone, PartialEq)]
pub struct Sourced {
    /// The configuration.
    pub config: Config,
    /// Worth telling the operator: what was found; `None` where it was read from a file.
    pub note: Option<String>,
    /// Where to look the next time: a file that was read once must be there from then on, so that one that is gone
    /// for a moment does not take all thresholds with it.
    pub again: Source,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The file is bad or, where it must be there, missing.
    #[error(transparent)]
    File(#[from] LoadError),
    /// The kernel does not say what is there.
    #[error("cannot find out what there is to count: {0}")]
    Kernel(#[from] KernelError),
    /// There is nothing to count.
    #[error(
        "found nothing to count: no device but the loopback device is up and has an address; set up the network, write a configuration, or name one with --config FILE"
    )]
    Nothing,
}

impl SourceError {
    /// What is wrong, a text for each; beyond `most`, a last one says how many more there are.
    pub fn messages(&self, most: usize) -> Vec<String> {
        match self {
            SourceError::File(error) => error.messages(most),
            SourceError::Kernel(_) | SourceError::Nothing => vec![self.to_string()],
        }
    }
}

impl Source {
    /// Reads the file, or looks at the calling thread's network namespace.
    pub fn read(&self) -> Result<Sourced, SourceError> {
        self.read_by(load)
    }

    /// The same while a daemon runs with what was read before: only a regular file is read again.
    pub fn read_again(&self) -> Result<Sourced, SourceError> {
        self.read_by(load_again)
    }

    fn read_by(
        &self,
        load: impl FnOnce(&Path) -> Result<Config, LoadError>,
    ) -> Result<Sourced, SourceError> {
        let path = match self {
            Source::FileOrDiscovery(path) if is_absent(path) => {
                let shown = printable(&path.to_string_lossy());
                let found = found()?;
                let note = format!(
                    "there is no {shown}, so what was found is counted: {}; `flowctl discover` prints it as a configuration to keep",
                    found.summary()
                );
                return Ok(Sourced {
                    config: of(&found)?,
                    note: Some(note),
                    again: self.clone(),
                });
            }
            Source::File(path) | Source::FileOrDiscovery(path) => path,
        };
        Ok(Sourced {
            config: load(path)?,
            note: None,
            again: Source::File(path.clone()),
        })
    }
}

/// A link that leads nowhere and a directory that may not be entered are no absence: someone wrote a configuration.
fn is_absent(path: &Path) -> bool {
    let looked = std::fs::symlink_metadata(path);
    looked.is_err_and(|error| error.kind() == ErrorKind::NotFound)
}

/// What there is to count in the calling thread's network namespace; at least one interface.
pub fn found() -> Result<Discovery, SourceError> {
    let found = discover(&Network::read()?);
    if found.is_empty() {
        return Err(SourceError::Nothing);
    }
    Ok(found)
}

fn of(found: &Discovery) -> Result<Config, LoadError> {
    found.config().map_err(|problems| LoadError::Invalid {
        path: "what was found".to_owned(),
        problems,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_is_read_once_and_what_stands_in_its_place_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("flowctl.toml");
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU).unwrap();
        let written = path.clone();
        let writer = std::thread::spawn(move || std::fs::write(written, "tick = \"2s\""));
        let read = Source::FileOrDiscovery(path.clone()).read().unwrap();
        writer.join().unwrap().unwrap();
        assert_eq!(read.config.tick.as_secs(), 2);
        let refused = read.again.read_again().unwrap_err();
        assert_eq!(
            refused.to_string(),
            format!(
                "{} is not a regular file, so it is not read again",
                path.display()
            )
        );
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "tick = \"3s\"").unwrap();
        let read = read.again.read_again().unwrap();
        assert_eq!(read.config.tick.as_secs(), 3);
    }

    #[test]
    fn a_link_that_leads_nowhere_is_a_file_that_cannot_be_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("flowctl.toml");
        assert!(is_absent(&path));
        std::os::unix::fs::symlink("nowhere", &path).unwrap();
        assert!(!is_absent(&path));
        assert!(matches!(
            Source::FileOrDiscovery(path).read(),
            Err(SourceError::File(LoadError::Read { .. }))
        ));
    }
}
