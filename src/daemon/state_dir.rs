//! The state directory while a daemon uses it: made where it is missing, and used by one process at a time, whatever
//! network namespace that is in. The lock is on the directory itself and vanishes with the process.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::DaemonError;
use crate::sink::ownership::Directory;
use crate::sink::state::{self, Loaded, StateError};

/// The directory, ours alone as long as this lives.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    _locked: File,
}

impl StateDir {
    /// Makes the directory (0750) where it is missing.
    pub fn open(path: &Path) -> Result<Self, DaemonError> {
        let failed = |source| DaemonError::StateDir {
            path: path.to_owned(),
            source,
        };
        let make = || {
            if !path.is_dir() {
                Directory::make(Path::new("."), path)?;
            }
            tempfile::tempfile_in(path).map(drop)?;
            File::open(path)
        };
        let directory = make().map_err(failed)?;
        match directory.try_lock() {
            Ok(()) => Ok(StateDir {
                path: path.to_owned(),
                _locked: directory,
            }),
            Err(TryLockError::WouldBlock) => Err(DaemonError::StateDirInUse {
                path: path.to_owned(),
            }),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What an earlier run saved.
    pub fn load(&self) -> Result<Loaded, DaemonError> {
        state::load(&self.path).map_err(|error| self.failed(error))
    }

    /// The error of a daemon that cannot do without.
    pub fn failed(&self, error: StateError) -> DaemonError {
        DaemonError::StateDir {
            path: self.path.clone(),
            source: io::Error::other(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_uses_a_state_directory() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("made");
        let first = StateDir::open(&path).unwrap();
        let second = StateDir::open(&path).unwrap_err();
        assert!(second.is_another_instance());
        assert!(second.to_string().contains("--state-dir"), "{second}");
        drop(first);
        StateDir::open(&path).unwrap();
        assert_eq!(
            std::fs::read_dir(&path).unwrap().count(),
            0,
            "nothing is left"
        );
    }
}
