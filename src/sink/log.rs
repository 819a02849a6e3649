//! The log file: one record a line, each by a single write, rotated by size. A write that fails is reported and
//! costs that record only; what a crash left half written costs that line only.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{OFlags, fstat};

use super::ownership::Directory;
use crate::event::Record;

/// Why a record is not in the log, or the log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
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
    /// Only a part was written; most often the disk is full.
    #[error(
        "{path}: only {written} of a record's {length} bytes could be written: is the disk full?"
    )]
    Torn {
        /// The log.
        path: PathBuf,
        /// What got in.
        written: usize,
        /// What should have.
        length: usize,
    },
    /// The record has no JSON form.
    #[error("cannot render a record: {0}")]
    Render(#[from] serde_json::Error),
}

pub(super) fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LogError {
    move |source| LogError::Io {
        operation,
        path: path.to_owned(),
        source,
    }
}

/// The rotated file `number` of the log at `path`: `drilldowns.jsonl.1` is the newest.
pub(super) fn rotated(path: &Path, number: u32) -> PathBuf {
    rotated_name(path.as_os_str(), number).into()
}

fn rotated_name(name: &OsStr, number: u32) -> OsString {
    let mut name = name.to_owned();
    name.push(format!(".{number}"));
    name
}

/// The log, open for appending.
#[derive(Debug)]
pub struct LogFile {
    state_dir: PathBuf,
    /// As it is named: seen from the state directory, or absolute.
    named: PathBuf,
    /// Where that is.
    path: PathBuf,
    max_size: u64,
    keep: u32,
    file: File,
    size: u64,
    /// Whether the last line has no end, so that the next record must begin with one.
    torn: bool,
}

impl LogFile {
    /// Opens or makes (0640) the log at `named`, which is rotated before it grows beyond `max_size` bytes; `keep`
    /// rotated files are kept. A last line without an end gets one. `named` is seen from the state directory, which is
    /// used through whatever links, or absolute; either way root follows no link of `named` itself that is in another
    /// user's directory.
    pub fn open(
        state_dir: &Path,
        named: &Path,
        max_size: u64,
        keep: u32,
    ) -> Result<LogFile, LogError> {
        let path = state_dir.join(named);
        let directory = Directory::make(state_dir, directory_of(named))
            .map_err(failed("make the directory", directory_of(&path)))?;
        let mut file = open_to_append(&directory, &path)?;
        let size = file.metadata().map_err(failed("look at", &path))?.len();
        let mut log = LogFile {
            torn: has_torn_end(&mut file, size).map_err(failed("read", &path))?,
            state_dir: state_dir.to_owned(),
            named: named.to_owned(),
            path,
            max_size,
            keep,
            file,
            size,
        };
        if log.torn && log.file.write(b"\n").is_ok_and(|written| written == 1) {
            log.torn = false;
            log.size += 1;
        }
        Ok(log)
    }

    /// Appends one record. After an error the record is lost, and the next one is tried as if nothing had happened.
    pub fn append(&mut self, record: &Record) -> Result<(), LogError> {
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        let directory = Directory::reach(&self.state_dir, directory_of(&self.named))
            .map_err(failed("use the directory", directory_of(&self.path)))?;
        self.reopen_if_moved(&directory)?;
        if self.size > 0 && self.size.saturating_add(line.len() as u64) > self.max_size {
            self.rotate(&directory)?;
        }
        if self.torn {
            line.insert(0, b'\n');
        }
        let written = self
            .file
            .write(&line)
            .map_err(failed("write to", &self.path))?;
        if written == line.len() {
            self.size += written as u64;
            self.torn = false;
            return Ok(());
        }
        // Half a record is taken back, so that every line stays a record.
        if self.file.set_len(self.size).is_err() {
            self.size += written as u64;
            self.torn = true;
        }
        Err(LogError::Torn {
            path: self.path.clone(),
            written,
            length: line.len(),
        })
    }

    /// Somebody else may have moved or removed the file, logrotate for one.
    fn reopen_if_moved(&mut self, directory: &Directory) -> Result<(), LogError> {
        let look = failed("look at", &self.path);
        let ours = fstat(&self.file).map_err(|error| look(error.into()))?;
        let there = directory.look(name_of(&self.path)?);
        if there.is_ok_and(|there| (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)) {
            self.size = ours.st_size.cast_unsigned();
            return Ok(());
        }
        self.start_afresh(directory)
    }

    fn start_afresh(&mut self, directory: &Directory) -> Result<(), LogError> {
        self.file = open_to_append(directory, &self.path)?;
        let look = failed("look at", &self.path);
        self.size = self.file.metadata().map_err(look)?.len();
        self.torn = false;
        Ok(())
    }

    fn rotate(&mut self, directory: &Directory) -> Result<(), LogError> {
        if self.keep == 0 {
            self.file
                .set_len(0)
                .map_err(failed("truncate", &self.path))?;
            self.size = 0;
            self.torn = false;
            return Ok(());
        }
        let name = name_of(&self.path)?;
        let rotated = |number| rotated_name(name, number);
        let rename = |from: &OsStr, to: &OsStr| {
            let path = self.path.with_file_name(from);
            directory.rename(from, to).map_err(failed("rotate", &path))
        };
        let mut surplus = self.keep.saturating_add(1);
        while directory.remove(&rotated(surplus)).is_ok() {
            surplus = surplus.saturating_add(1);
        }
        let free = (1..self.keep)
            .find(|number| !directory.has(&rotated(*number)))
            .unwrap_or(self.keep);
        for number in (1..free).rev() {
            rename(&rotated(number), &rotated(number + 1))?;
        }
        rename(name, &rotated(1))?;
        self.start_afresh(directory)
    }
}

fn directory_of(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

fn name_of(path: &Path) -> Result<&OsStr, LogError> {
    let nameless = || failed("open", path)(ErrorKind::IsADirectory.into());
    path.file_name().ok_or_else(nameless)
}

fn open_to_append(directory: &Directory, path: &Path) -> Result<File, LogError> {
    let access = OFlags::RDWR | OFlags::APPEND;
    directory
        .open_or_make(name_of(path)?, access)
        .map_err(failed("open", path))
}

fn has_torn_end(file: &mut File, size: u64) -> Result<bool, io::Error> {
    if size == 0 {
        return Ok(false);
    }
    let mut last = [0];
    file.seek(SeekFrom::Start(size - 1))?;
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    fn record(reason: &str) -> Record {
        Record {
            time: "2026-11-23T05:20:00Z".parse().unwrap(),
            event: Event::Stopped {
                reason: reason.to_owned(),
            },
        }
    }

    fn reasons(path: &Path) -> Vec<String> {
        let text = fs::read_to_string(path).unwrap();
        assert!(text.ends_with('\n'));
        text.lines()
            .map(
                |line| match serde_json::from_str::<Record>(line).map(|record| record.event) {
                    Ok(Event::Stopped { reason }) => reason,
                    Ok(other) => panic!("{other:?}"),
                    Err(_) => format!("malformed {}", line.len()),
                },
            )
            .collect()
    }

    #[test]
    fn a_full_file_is_rotated_and_only_so_many_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let two_lines = 2 * (serde_json::to_vec(&record("0")).unwrap().len() as u64 + 1);
        let mut log = LogFile::open(directory.path(), "log".as_ref(), two_lines, 2).unwrap();
        for number in 0..9 {
            log.append(&record(&number.to_string())).unwrap();
        }
        assert_eq!(reasons(&path), ["8"]);
        assert_eq!(reasons(&rotated(&path, 1)), ["6", "7"]);
        assert_eq!(reasons(&rotated(&path, 2)), ["4", "5"]);
        assert!(!rotated(&path, 3).exists());
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o640
        );
    }

    #[test]
    fn keep_0_truncates() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut log = LogFile::open(directory.path(), "log".as_ref(), 1, 0).unwrap();
        for number in 0..3 {
            log.append(&record(&number.to_string())).unwrap();
        }
        assert_eq!(reasons(&path), ["2"]);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_line_torn_by_a_crash_costs_that_line_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        fs::write(&path, "{\"time\":\"2026").unwrap();
        let mut log = LogFile::open(directory.path(), "log".as_ref(), 1 << 20, 1).unwrap();
        log.append(&record("after")).unwrap();
        assert_eq!(reasons(&path), ["malformed 13", "after"]);
    }

    #[test]
    fn a_full_disk_costs_the_record_and_the_next_begins_on_a_fresh_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut log = LogFile::open(directory.path(), "log".as_ref(), 1 << 20, 1).unwrap();
        log.append(&record("before")).unwrap();
        let disk = std::mem::replace(&mut log.file, File::create("/dev/full").unwrap());
        (log.named, log.path) = ("/dev/full".into(), "/dev/full".into());
        let error = log.append(&record("lost")).unwrap_err();
        assert!(matches!(error, LogError::Io { .. }), "{error}");
        (log.file, log.named, log.path) = (disk, "log".into(), path.clone());
        (&log.file).write_all(b"{\"half").unwrap();
        log.torn = true;
        log.append(&record("after")).unwrap();
        assert_eq!(reasons(&path), ["before", "malformed 6", "after"]);
    }

    #[test]
    fn a_file_moved_away_by_others_is_not_written_to() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut log = LogFile::open(directory.path(), "log".as_ref(), 1 << 20, 1).unwrap();
        log.append(&record("before")).unwrap();
        fs::rename(&path, directory.path().join("moved")).unwrap();
        log.append(&record("after")).unwrap();
        assert_eq!(reasons(&path), ["after"]);
    }

    #[test]
    fn the_state_directory_is_used_through_links_of_another_user_and_the_log_below_it_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let home = directory.path().join("home");
        let disk = directory.path().join("disk");
        for path in [&home, &disk] {
            fs::create_dir(path).unwrap();
            if chown(path, Some(4321), Some(1234)).is_err() {
                eprintln!("SKIPPED, no privileges: this is not root");
                return;
            }
        }
        let elsewhere = tempfile::tempdir().unwrap();
        symlink(&disk, home.join("state")).unwrap();
        symlink(elsewhere.path(), disk.join("logs")).unwrap();
        let state_dir = home.join("state");
        let open = |named: &Path| LogFile::open(&state_dir, named, 1 << 20, 1);
        let mut log = open("log".as_ref()).unwrap();
        log.append(&record("through a link")).unwrap();
        assert_eq!(reasons(&disk.join("log")), ["through a link"]);
        for named in [Path::new("logs/log"), &state_dir.join("log")] {
            let refused = open(named).unwrap_err().to_string();
            assert!(refused.contains("in a directory of user 4321"), "{refused}");
        }
        assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    }
}
