//! What must survive a restart, as small JSON files that are replaced atomically: one that every reading replaces and
//! a power cut may damage, and one that is on the disk for certain. Of those that can be read the newest counts; one
//! that cannot is moved aside, never overwritten. When to save is the daemon's decision.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use super::ownership::{Directory, open_regular};
use crate::config::{LIVE_TOTALS_FILE, LabelsByInterface, TOTALS_FILE};
use crate::kernel::devices::Moved;
use crate::meter::Carried;
use crate::plan::ruleset::Shape;
use crate::units::CounterName;

/// The form written by this version.
pub const VERSION: u32 = 1;

/// Everything that is kept.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Saved {
    /// The form: [`VERSION`].
    pub version: u32,
    /// Grows with every save: the highest is the newest.
    #[serde(default)]
    pub serial: u64,
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
    pub counters: BTreeMap<CounterName, Carried>,
    /// Values of the sysctls that flowctl changed, from before.
    pub sysctls: BTreeMap<String, String>,
    /// Which conntrack label bits stand for which interface.
    #[serde(default)]
    pub labels: LabelsByInterface,
    /// Since when flows have them, where they had others before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labelled_since: Option<Timestamp>,
    /// How much the table held; absent in saves of before there was this.
    #[serde(default)]
    pub shape: Option<Shape>,
    /// What the devices had moved at that time.
    #[serde(default)]
    pub devices: Vec<Moved>,
}

/// What the state directory holds.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The newest save that can be read; `None` if there is none.
    pub saved: Option<Saved>,
    /// Files that could not be read, and where they are now.
    pub damaged: Vec<StateError>,
}

/// Why totals could not be loaded or saved.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It is not what this version writes. It is kept under another name.
    #[error("{path}: not a totals file of version {VERSION} ({reason}); kept as {kept}")]
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

/// What was saved in `directory`. A file that cannot be read is moved aside.
pub fn load(directory: &Path) -> Result<Loaded, StateError> {
    let mut loaded = Loaded::default();
    for name in [TOTALS_FILE, LIVE_TOTALS_FILE] {
        let path = directory.join(name);
        match read(&path).map_err(failed("read", &path))? {
            Ok(found) => loaded.saved = newer(loaded.saved, found),
            Err(reason) => {
                let kept = free_name(directory, name);
                fs::rename(&path, &kept).map_err(failed("move aside", &path))?;
                loaded
                    .damaged
                    .push(StateError::Unreadable { path, kept, reason });
            }
        }
    }
    Ok(loaded)
}

/// The newest save in `directory` that can be read; changes nothing.
pub fn look(directory: &Path) -> Option<Saved> {
    let names = [TOTALS_FILE, LIVE_TOTALS_FILE].into_iter();
    let found = names.filter_map(|name| read(&directory.join(name)).ok()?.ok());
    found.fold(None, newer)
}

fn newer(one: Option<Saved>, other: Option<Saved>) -> Option<Saved> {
    let both = [one, other].into_iter().flatten();
    both.max_by_key(|saved| saved.serial)
}

/// `None` where there is no such file; the reason where it is not what this version writes.
fn read(path: &Path) -> io::Result<Result<Option<Saved>, String>> {
    let mut file = match open_regular(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Ok(None)),
        Err(error) => return Err(error),
    };
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    // A later version may have other keys: its number is read for itself.
    Ok(match serde_json::from_slice::<Form>(&text) {
        Ok(Form { version: VERSION }) => serde_json::from_slice(&text)
            .map(Some)
            .map_err(|error| error.to_string()),
        Ok(Form { version }) => Err(format!("it is of version {version}")),
        Err(error) => Err(error.to_string()),
    })
}

#[derive(Deserialize)]
struct Form {
    version: u32,
}

fn free_name(directory: &Path, name: &str) -> PathBuf {
    let mut number = 1_u32;
    loop {
        let candidate = directory.join(format!("{name}.corrupt-{number}"));
        if fs::symlink_metadata(&candidate).is_err() {
            return candidate;
        }
        number += 1;
    }
}

/// Saves in `directory`, which must exist. `durable`: returns only when it is on the disk.
pub fn save(directory: &Path, saved: &Saved, durable: bool) -> Result<(), StateError> {
    let name = if durable {
        TOTALS_FILE
    } else {
        LIVE_TOTALS_FILE
    };
    let path = directory.join(name);
    let new_name = format!("{name}.new");
    let new = directory.join(&new_name);
    let text = serde_json::to_vec(saved)
        .map_err(|error| failed("write", &path)(io::Error::other(error)))?;
    let place = Directory::open(directory).map_err(failed("use", directory))?;
    let mut file = make_anew(&place, new_name.as_ref()).map_err(failed("make", &new))?;
    file.write_all(&text).map_err(failed("write", &new))?;
    if durable {
        file.sync_all().map_err(failed("sync", &new))?;
    }
    drop(file);
    place
        .rename(new_name.as_ref(), name.as_ref())
        .map_err(failed("replace", &path))?;
    if durable {
        place.sync().map_err(failed("sync", directory))?;
    }
    Ok(())
}

/// A new file in the place of whatever a save that was broken off, or anybody else, left there.
fn make_anew(directory: &Directory, name: &OsStr) -> io::Result<File> {
    match directory.remove(name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => directory.make_new(name, OFlags::WRONLY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{InterfaceName, Volume};

    fn example(serial: u64) -> Saved {
        let counter = Carried {
            total: Volume {
                bytes: u64::MAX,
                packets: 9,
            },
            kernel: Volume {
                bytes: 5,
                packets: 1,
            },
            resets: 2,
            existing: None,
        };
        Saved {
            version: VERSION,
            serial,
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
            labels: LabelsByInterface::from([(InterfaceName::new("wan").unwrap(), 2)]),
            labelled_since: None,
            shape: Some(Shape::default()),
            devices: vec![Moved { index: 3, bytes: 4 }],
        }
    }

    #[test]
    fn whatever_has_the_name_of_a_new_save_makes_room_for_it() {
        let directory = tempfile::tempdir().unwrap();
        let new = directory.path().join(format!("{TOTALS_FILE}.new"));
        let saved = |serial| {
            save(directory.path(), &example(serial), true).unwrap();
            assert_eq!(load(directory.path()).unwrap().saved, Some(example(serial)));
        };
        fs::write(&new, "{\"version\": 1, \"and then the power").unwrap();
        saved(1);
        let other = directory.path().join("other");
        fs::write(&other, "of others").unwrap();
        std::os::unix::fs::symlink(&other, &new).unwrap();
        saved(2);
        fs::hard_link(&other, &new).unwrap();
        saved(3);
        assert_eq!(fs::read_to_string(&other).unwrap(), "of others");
        make_fifo(&new);
        saved(4);
    }

    #[test]
    fn a_fifo_in_the_place_of_totals_is_refused_and_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        make_fifo(&directory.path().join(TOTALS_FILE));
        assert!(look(directory.path()).is_none());
        let refused = load(directory.path()).unwrap_err().to_string();
        assert!(refused.contains("it is not a regular file"), "{refused}");
    }

    fn make_fifo(path: &Path) {
        rustix::fs::mkfifoat(rustix::fs::CWD, path, rustix::fs::Mode::RUSR).unwrap();
    }

    #[test]
    fn the_newest_save_comes_back() {
        let directory = tempfile::tempdir().unwrap();
        let loaded = || load(directory.path()).unwrap().saved;
        assert!(loaded().is_none());
        save(directory.path(), &example(1), true).unwrap();
        assert_eq!(loaded(), Some(example(1)));
        save(directory.path(), &example(2), false).unwrap();
        assert_eq!(loaded(), Some(example(2)));
        save(directory.path(), &example(3), true).unwrap();
        assert_eq!(loaded(), Some(example(3)));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    }

    #[test]
    fn an_unreadable_file_is_kept_under_another_name_each_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(TOTALS_FILE);
        for (number, text) in [(1, ""), (2, "{\"version\":1}")] {
            fs::write(&path, text).unwrap();
            let loaded = load(directory.path()).unwrap();
            let kept = directory
                .path()
                .join(format!("{TOTALS_FILE}.corrupt-{number}"));
            let said = loaded.damaged[0].to_string();
            assert!(said.contains(&*kept.to_string_lossy()), "{said}");
            assert_eq!(fs::read_to_string(&kept).unwrap(), text);
            assert!(load(directory.path()).unwrap().damaged.is_empty());
        }
    }

    #[test]
    fn what_a_power_cut_damages_is_made_up_for_by_what_was_on_the_disk() {
        let directory = tempfile::tempdir().unwrap();
        save(directory.path(), &example(1), true).unwrap();
        fs::write(directory.path().join(LIVE_TOTALS_FILE), [0; 100]).unwrap();
        let loaded = load(directory.path()).unwrap();
        assert_eq!(loaded.saved, Some(example(1)));
        assert_eq!(loaded.damaged.len(), 1);
    }

    #[test]
    fn a_later_versions_file_is_not_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let later = Saved {
            version: VERSION + 1,
            ..example(1)
        };
        let mut later = serde_json::to_value(later).unwrap();
        later.as_object_mut().unwrap().remove("counters").unwrap();
        fs::write(directory.path().join(TOTALS_FILE), later.to_string()).unwrap();
        let said = load(directory.path()).unwrap().damaged[0].to_string();
        assert!(said.contains("it is of version 2"), "{said}");
    }

    #[test]
    fn a_file_of_before_there_were_serials_can_be_read() {
        let directory = tempfile::tempdir().unwrap();
        let mut old = serde_json::to_value(example(0)).unwrap();
        for key in ["serial", "labels", "devices", "shape"] {
            old.as_object_mut().unwrap().remove(key).unwrap();
        }
        fs::write(directory.path().join(TOTALS_FILE), old.to_string()).unwrap();
        let saved = load(directory.path()).unwrap().saved.unwrap();
        assert_eq!((saved.serial, saved.table_handle), (0, 7));
    }
}
