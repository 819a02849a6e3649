//! Reading the log back: over the rotated files, oldest first, then on as it grows. Lines that are no records are
//! skipped and counted; a rotation while reading neither loses nor repeats a record.

use std::collections::VecDeque;
use std::fs::{self, File, Metadata};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::io::Errno;

use super::log::{LogError, failed, rotated};
use super::ownership::open_regular;
use crate::event::{Event, Record};
use crate::units::{CounterName, ThresholdName};

/// A verdict with 1,000 hosts and flows has about 500 KB.
const LINE_BYTES_MAX: usize = 16 << 20;

/// Which records are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// From this moment on.
    pub since: Option<Timestamp>,
    /// Those that name this counter.
    pub counter: Option<CounterName>,
    /// Those that name this threshold.
    pub threshold: Option<ThresholdName>,
}

impl Filter {
    /// Whether `record` is wanted.
    pub fn admits(&self, record: &Record) -> bool {
        let late_enough = self.since.is_none_or(|since| record.time >= since);
        let (counter, threshold) = (counter_of(&record.event), threshold_of(&record.event));
        let of_counter = (self.counter.as_ref()).is_none_or(|wanted| counter == Some(wanted));
        let of_threshold = (self.threshold.as_ref()).is_none_or(|wanted| threshold == Some(wanted));
        late_enough && of_counter && of_threshold
    }
}

/// The counter that an event names.
pub fn counter_of(event: &Event) -> Option<&CounterName> {
    match event {
        Event::Raised(raised) => Some(&raised.counter),
        Event::Flows(top) => top.counter.as_ref(),
        Event::Verdict(verdict) => verdict.counter.as_ref(),
        Event::Cleared { counter, .. } => Some(counter),
        Event::Reset { counter, .. } => counter.as_ref(),
        Event::Started { .. }
        | Event::Stopped { .. }
        | Event::Gap { .. }
        | Event::Health { .. }
        | Event::Subnet { .. }
        | Event::Pace { .. }
        | Event::Config { .. } => None,
    }
}

/// The threshold that an event names.
pub fn threshold_of(event: &Event) -> Option<&ThresholdName> {
    match event {
        Event::Raised(raised) => Some(&raised.threshold),
        Event::Flows(top) => top.threshold.as_ref(),
        Event::Verdict(verdict) => verdict.threshold.as_ref(),
        Event::Cleared { threshold, .. } => Some(threshold),
        Event::Reset { .. }
        | Event::Started { .. }
        | Event::Stopped { .. }
        | Event::Gap { .. }
        | Event::Health { .. }
        | Event::Subnet { .. }
        | Event::Pace { .. }
        | Event::Config { .. } => None,
    }
}

/// One record as it stands in the log.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// The JSON text, without its newline.
    pub raw: String,
    /// What it says.
    pub record: Record,
}

/// A file by what it is, not by its name.
type Identity = (u64, u64);

/// The log at one path, read from its oldest record on.
#[derive(Debug)]
pub struct LogReader {
    path: PathBuf,
    filter: Filter,
    current: BufReader<File>,
    newer: VecDeque<File>,
    partial: Vec<u8>,
    /// Inside a line longer than the limit.
    overlong: bool,
    malformed: u64,
}

impl LogReader {
    /// Opens the log at `path` with all its rotated files.
    pub fn open(path: &Path, filter: Filter) -> Result<LogReader, LogError> {
        let mut newer = newer_than(path, None)?;
        let Some(oldest) = newer.pop_front() else {
            return Err(failed("open", path)(Errno::NOENT.into()));
        };
        Ok(LogReader {
            path: path.to_owned(),
            filter,
            current: BufReader::new(oldest),
            newer,
            partial: Vec::new(),
            overlong: false,
            malformed: 0,
        })
    }

    /// The next record that the filter admits; `None` when there is no more now. It may be asked again later.
    pub fn next_line(&mut self) -> Result<Option<Line>, LogError> {
        loop {
            if self.read_to_newline()? {
                if let Some(line) = self.take_line() {
                    return Ok(Some(line));
                }
            } else if let Some(next) = self.newer.pop_front() {
                self.current = BufReader::new(next);
                if !self.partial.is_empty()
                    && let Some(line) = self.take_line()
                {
                    return Ok(Some(line));
                }
            } else {
                if self.rewind_if_truncated()? {
                    continue;
                }
                // What was written to the current file before it was rotated is read first: the loop goes round.
                self.newer = newer_than(&self.path, Some(self.current.get_ref()))?;
                if self.newer.is_empty() {
                    return Ok(None);
                }
            }
        }
    }

    /// How many lines were no records, a last line without an end among them.
    pub fn malformed(&self) -> u64 {
        self.malformed + u64::from(!self.partial.is_empty())
    }

    /// Adds to `partial`; true when a whole line is in it.
    fn read_to_newline(&mut self) -> Result<bool, LogError> {
        loop {
            let room = LINE_BYTES_MAX - self.partial.len();
            let count = (&mut self.current)
                .take(room as u64)
                .read_until(b'\n', &mut self.partial)
                .map_err(failed("read", &self.path))?;
            if self.partial.last() == Some(&b'\n') {
                return Ok(true);
            }
            if self.partial.len() < LINE_BYTES_MAX || count == 0 {
                return Ok(false);
            }
            self.partial.clear();
            self.overlong = true;
        }
    }

    fn take_line(&mut self) -> Option<Line> {
        let bytes = std::mem::take(&mut self.partial);
        let overlong = std::mem::take(&mut self.overlong);
        let text = String::from_utf8(bytes).unwrap_or_default();
        let raw = text.trim_end_matches('\n');
        match serde_json::from_str::<Record>(raw) {
            Ok(record) if !overlong => {
                let raw = raw.to_owned();
                self.filter.admits(&record).then_some(Line { raw, record })
            }
            Ok(_) | Err(_) => {
                self.malformed += 1;
                None
            }
        }
    }

    fn rewind_if_truncated(&mut self) -> Result<bool, LogError> {
        let look = |error| failed("look at", &self.path)(error);
        let position = self.current.stream_position().map_err(look)?;
        let length = self.current.get_ref().metadata().map_err(look)?.len();
        if length >= position {
            return Ok(false);
        }
        self.current.seek(SeekFrom::Start(0)).map_err(look)?;
        self.partial.clear();
        Ok(true)
    }
}

fn identity(file: &Metadata) -> Identity {
    (file.dev(), file.ino())
}

/// The log's files that are newer than the one given, oldest first; all of them if `None` is given. Where the given
/// one is gone, the log itself and those that were written to after it: rotation may have passed a slow reader by, or
/// somebody removed that file alone.
fn newer_than(path: &Path, given: Option<&File>) -> Result<VecDeque<File>, LogError> {
    let look = |error| failed("look at", path)(error);
    let given = given.map(File::metadata).transpose().map_err(look)?;
    let given_identity = given.as_ref().map(identity);
    let written = |file: &Metadata| (file.mtime(), file.mtime_nsec());
    let mut files: VecDeque<File> = VecDeque::new();
    let mut seen: Vec<Identity> = Vec::new();
    let highest = if given.is_none() {
        highest_number(path)
    } else {
        0
    };
    let mut number = 0;
    loop {
        let name = if number == 0 {
            path.to_owned()
        } else {
            rotated(path, number)
        };
        match open_regular(&name) {
            Ok(file) => {
                let metadata = file.metadata().map_err(look)?;
                let this = identity(&metadata);
                if given_identity == Some(this) {
                    return Ok(files);
                }
                let is_newer =
                    (given.as_ref()).is_none_or(|given| written(&metadata) > written(given));
                // A rotation while we look moves a file on by one name.
                if !seen.contains(&this) && (is_newer || number == 0) {
                    seen.push(this);
                    files.push_front(file);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if number > highest {
                    break;
                }
            }
            Err(error) => return Err(failed("open", &name)(error)),
        }
        number += 1;
    }
    Ok(files)
}

/// The highest number among the rotated files; 0 if there are none.
fn highest_number(path: &Path) -> u32 {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return 0;
    };
    let directory = if directory.as_os_str().is_empty() {
        Path::new(".")
    } else {
        directory
    };
    let prefix = format!("{}.", name.to_string_lossy());
    fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            name.strip_prefix(&prefix)?.parse::<u32>().ok()
        })
        .filter(|number| *number < 10_000)
        .max()
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::log::LogFile;
    use std::io::Write;

    fn reset(number: usize) -> Record {
        Record {
            time: Timestamp::from_second(1_800_000_000 + number as i64).unwrap(),
            event: Event::Reset {
                counter: CounterName::new(if number.is_multiple_of(2) {
                    "even"
                } else {
                    "odd"
                })
                .ok(),
                counters: number,
                by: None,
            },
        }
    }

    fn numbers(reader: &mut LogReader) -> Vec<usize> {
        let mut numbers = Vec::new();
        while let Some(line) = reader.next_line().unwrap() {
            let Event::Reset { counters, .. } = line.record.event else {
                panic!("{line:?}");
            };
            numbers.push(counters);
        }
        numbers
    }

    #[test]
    fn all_files_are_read_oldest_first_and_then_on_as_they_rotate() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut log = LogFile::open(directory.path(), "log".as_ref(), 200, 50).unwrap();
        (0..7).for_each(|number| log.append(&reset(number)).unwrap());
        let mut reader = LogReader::open(&path, Filter::default()).unwrap();
        assert_eq!(numbers(&mut reader), [0, 1, 2, 3, 4, 5, 6]);
        (7..20).for_each(|number| log.append(&reset(number)).unwrap());
        assert_eq!(numbers(&mut reader), (7..20).collect::<Vec<_>>());
        assert_eq!(reader.malformed(), 0);
    }

    #[test]
    fn what_rotation_has_left_is_read_by_who_was_passed_by_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        // A file for each record.
        let mut log = LogFile::open(directory.path(), "log".as_ref(), 1, 3).unwrap();
        log.append(&reset(1)).unwrap();
        let mut reader = LogReader::open(&path, Filter::default()).unwrap();
        assert_eq!(numbers(&mut reader), [1]);
        let long_ago = std::time::SystemTime::UNIX_EPOCH;
        File::open(&path).unwrap().set_modified(long_ago).unwrap();
        (2..10).for_each(|number| log.append(&reset(number)).unwrap());
        assert_eq!(numbers(&mut reader), [6, 7, 8, 9]);
        fs::remove_file(&path).unwrap();
        assert_eq!(numbers(&mut reader), [0; 0], "those before it were read");
        log.append(&reset(10)).unwrap();
        assert_eq!(numbers(&mut reader), [10]);
    }

    #[test]
    fn a_truncated_log_is_followed_from_its_new_beginning() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut log = LogFile::open(directory.path(), "log".as_ref(), 250, 0).unwrap();
        log.append(&reset(1)).unwrap();
        log.append(&reset(2)).unwrap();
        let mut reader = LogReader::open(&path, Filter::default()).unwrap();
        assert_eq!(numbers(&mut reader), [1, 2]);
        log.append(&reset(3)).unwrap();
        assert_eq!(numbers(&mut reader), [3]);
    }

    #[test]
    fn lines_that_are_no_records_are_skipped_and_counted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let good = serde_json::to_string(&reset(1)).unwrap();
        let mut text = vec![b'x'; LINE_BYTES_MAX];
        write!(text, "{good}\n\u{1}\n{{}}\n{good}\n").unwrap();
        text.extend_from_slice(b"\xff\n{\"ti");
        fs::write(&path, text).unwrap();
        let mut reader = LogReader::open(&path, Filter::default()).unwrap();
        assert_eq!(numbers(&mut reader), [1]);
        assert_eq!(reader.malformed(), 5);
    }

    #[test]
    fn a_line_that_is_still_being_written_is_read_when_it_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let text = serde_json::to_string(&reset(4)).unwrap() + "\n";
        let mut file = File::create(&path).unwrap();
        file.write_all(&text.as_bytes()[..20]).unwrap();
        let mut reader = LogReader::open(&path, Filter::default()).unwrap();
        assert!(numbers(&mut reader).is_empty());
        file.write_all(&text.as_bytes()[20..]).unwrap();
        assert_eq!(numbers(&mut reader), [4]);
        assert_eq!(reader.malformed(), 0);
    }

    #[test]
    fn a_filter_admits_by_time_and_by_counter() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut log = LogFile::open(directory.path(), "log".as_ref(), 1 << 20, 1).unwrap();
        (0..8).for_each(|number| log.append(&reset(number)).unwrap());
        let filter = Filter {
            since: Some(reset(3).time),
            counter: CounterName::new("even").ok(),
            threshold: None,
        };
        let mut reader = LogReader::open(&path, filter).unwrap();
        assert_eq!(numbers(&mut reader), [4, 6]);
    }

    #[test]
    fn a_filter_admits_by_threshold_what_one_threshold_did() {
        let admitted = |threshold, counter| {
            let filter = Filter {
                threshold: ThresholdName::new(threshold).ok(),
                counter,
                ..Filter::default()
            };
            let records = include_str!("../../tests/data/log.jsonl").lines();
            let records = records.map(|line| serde_json::from_str::<Record>(line).unwrap());
            records.filter(|record| filter.admits(record)).count()
        };
        assert_eq!(admitted("uplink_full", None), 4);
        assert_eq!(admitted("flood", None), 1);
        assert_eq!(admitted("flood", CounterName::new("wan_out").ok()), 0);
        assert_eq!(admitted("other", None), 0);
    }

    #[test]
    fn a_fifo_is_no_log_and_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR).unwrap();
        let refused = LogReader::open(&path, Filter::default()).unwrap_err();
        assert!(
            refused.to_string().contains("not a regular file"),
            "{refused}"
        );
    }
}
