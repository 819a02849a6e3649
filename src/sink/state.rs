//! The totals file: what must survive a restart, as one small JSON file that is replaced atomically. A file that
//! cannot be read is moved aside, never overwritten; when to save is the daemon's decision.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::units::{CounterName, Volume};

/// The form written by this version.
pub const VERSION: u32 = 1;
/// The file's name in the state directory.
pub const FILE_NAME: &str = "totals.json";

/// Everything that is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Saved {
    /// The form: [`VERSION`].
    pub version: u32,
    /// The kernel's boot id: under another one its counters began at 0 again.
    pub boot_id: String,
    /// The inode of the network namespace: in another one there are other counters.
    pub namespace: u64,
    /// The nftables table's name.
    pub table: String,
    /// The table's handle: under another one its counters began at 0 again.
    pub table_handle: u64,
    /// When this was saved.
    pub time: Timestamp,
    /// By counter.
    pub counters: BTreeMap<CounterName, SavedCounter>,
    /// Values of the sysctls that flowctl changed, from before.
    pub sysctls: BTreeMap<String, String>,
}

/// One counter's memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedCounter {
    /// flowctl's own total.
    pub total: Volume,
    /// The kernel's value that `total` includes.
    pub kernel: Volume,
    /// How often the kernel's value was found lower than before.
    pub resets: u64,
}

/// Why totals could not be loaded or saved.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It is not what this version writes. It is kept under another name; totals begin at 0.
    #[error(
        "{path}: not a totals file of version {VERSION} ({reason}); kept as {kept}, totals begin at 0"
    )]
    Unreadable {
        /// The totals file.
        path: PathBuf,
        /// Where its content is now.
        kept: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The kernel refused.
    #[error("{path}: cannot {operation}: {source}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's word.
        source: io::Error,
    },
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StateError {
    move |source| StateError::Io {
        operation,
        path: path.to_owned(),
        source,
    }
}

/// What was saved in `directory`; `None` if nothing ever was.
pub fn load(directory: &Path) -> Result<Option<Saved>, StateError> {
    let path = directory.join(FILE_NAME);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(failed("read", &path)(source)),
    };
    let reason = match serde_json::from_slice::<Saved>(&text) {
        Ok(saved) if saved.version == VERSION => return Ok(Some(saved)),
        Ok(saved) => format!("it is of version {}", saved.version),
        Err(error) => error.to_string(),
    };
    let kept = free_name(directory);
    fs::rename(&path, &kept).map_err(failed("move aside", &path))?;
    Err(StateError::Unreadable { path, kept, reason })
}

fn free_name(directory: &Path) -> PathBuf {
    let mut number = 1_u32;
    loop {
        let candidate = directory.join(format!("{FILE_NAME}.corrupt-{number}"));
        if fs::symlink_metadata(&candidate).is_err() {
            return candidate;
        }
        number += 1;
    }
}

/// Replaces what was saved in `directory`, which must exist. `durable`: returns only when it is on the disk.
pub fn save(directory: &Path, saved: &Saved, durable: bool) -> Result<(), StateError> {
    let path = directory.join(FILE_NAME);
    let new = directory.join(format!("{FILE_NAME}.new"));
    let text = serde_json::to_vec(saved)
        .map_err(|error| failed("write", &path)(io::Error::other(error)))?;
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o640)
        .open(&new)
        .map_err(failed("make", &new))?;
    file.write_all(&text).map_err(failed("write", &new))?;
    if durable {
        file.sync_all().map_err(failed("sync", &new))?;
    }
    drop(file);
    fs::rename(&new, &path).map_err(failed("replace", &path))?;
    if durable {
        File::open(directory)
            .and_then(|directory| directory.sync_all())
            .map_err(failed("sync", directory))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Saved {
        let counter = SavedCounter {
            total: Volume {
                bytes: u64::MAX,
                packets: 9,
            },
            kernel: Volume {
                bytes: 5,
                packets: 1,
            },
            resets: 2,
        };
        Saved {
            version: VERSION,
            boot_id: "b00f".to_owned(),
            namespace: 1,
            table: "flowctl".to_owned(),
            table_handle: 7,
            time: "2026-11-23T05:20:00Z".parse().unwrap(),
            counters: BTreeMap::from([(CounterName::new("wan_out").unwrap(), counter)]),
            sysctls: BTreeMap::from([(
                "net.netfilter.nf_conntrack_acct".to_owned(),
                "0".to_owned(),
            )]),
        }
    }

    #[test]
    fn what_was_saved_comes_back() {
        let directory = tempfile::tempdir().unwrap();
        assert!(load(directory.path()).unwrap().is_none());
        save(directory.path(), &example(), true).unwrap();
        save(directory.path(), &example(), false).unwrap();
        assert_eq!(load(directory.path()).unwrap(), Some(example()));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_unreadable_file_is_kept_under_another_name_each_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE_NAME);
        for (number, text) in [(1, ""), (2, "{\"version\":1}")] {
            fs::write(&path, text).unwrap();
            let error = load(directory.path()).unwrap_err().to_string();
            let kept = directory
                .path()
                .join(format!("totals.json.corrupt-{number}"));
            assert!(error.contains(&*kept.to_string_lossy()), "{error}");
            assert_eq!(fs::read_to_string(&kept).unwrap(), text);
            assert!(load(directory.path()).unwrap().is_none());
        }
    }

    #[test]
    fn a_later_versions_file_is_not_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let later = Saved {
            version: VERSION + 1,
            ..example()
        };
        save(directory.path(), &later, false).unwrap();
        let error = load(directory.path()).unwrap_err().to_string();
        assert!(error.contains("it is of version 2"), "{error}");
    }
}
