//! Files that names are read from: whether one is there, whether it changed, and its lines. None is read without an
//! end, and nothing but a regular file is opened for longer than it takes to see that it is none.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

/// Of a lease file: some 600,000 rows. Of other files as well.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Kea lets an administrator add a context of any length to a lease; what is longer than this is passed over.
const LINE_BYTES_MAX: u64 = 64 << 10;

/// Why a file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system's word.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It would take too long.
    #[error("it has more than 64 MiB")]
    TooLarge,
    /// A device, a pipe.
    #[error("it is no file")]
    NotAFile,
}

/// What a file is told by to be another one, or to have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// Whether it is the same file, however its content changed.
    pub fn is_of_same_file(&self, other: &Stamp) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }

    /// Whether it was written to within the last second before `wall`, Unix time in seconds.
    pub fn is_fresh(&self, wall: u64) -> bool {
        self.modified.0.unsigned_abs().saturating_add(1) >= wall
    }
}

/// The stamp of what is at `path`; `None` where nothing is, or nothing that may be looked at.
pub fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(path).ok()?;
    Some(Stamp {
        device: metadata.dev(),
        inode: metadata.ino(),
        size: metadata.size(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    })
}

/// Opens a file to read it to its end; `None` where there is none.
pub fn open(path: &Path) -> Result<Option<impl BufRead>, FileError> {
    // A pipe without a writer would be waited for.
    let nonblocking = OFlags::NONBLOCK.bits() as i32;
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(nonblocking)
        .open(path);
    let file: File = match opened {
        Ok(file) => file,
        Err(error) if is_missing(&error) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        Err(FileError::NotAFile)
    } else if metadata.len() > FILE_BYTES_MAX {
        Err(FileError::TooLarge)
    } else {
        Ok(Some(BufReader::with_capacity(
            1 << 16,
            file.take(FILE_BYTES_MAX),
        )))
    }
}

/// Whether there is nothing at that path.
pub fn is_missing(error: &io::Error) -> bool {
    let kind = error.kind();
    kind == io::ErrorKind::NotFound || kind == io::ErrorKind::NotADirectory
}

/// Hands on every line without its end, and whether it has one: the last may be still being written.
pub fn each_line(mut reader: impl BufRead, mut each: impl FnMut(&str, bool)) -> io::Result<()> {
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        let read = (&mut reader)
            .take(LINE_BYTES_MAX)
            .read_until(b'\n', &mut bytes)?;
        if read == 0 {
            return Ok(());
        }
        let complete = bytes.pop_if(|last| *last == b'\n').is_some();
        if !complete && read as u64 == LINE_BYTES_MAX {
            reader.skip_until(b'\n')?;
        } else {
            each(
                String::from_utf8_lossy(&bytes).trim_end_matches('\r'),
                complete,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(bytes: &[u8]) -> Vec<(String, bool)> {
        let mut lines = Vec::new();
        each_line(bytes, |line, complete| {
            lines.push((line.to_owned(), complete))
        })
        .unwrap();
        lines
    }

    #[test]
    fn every_line_is_told_with_whether_it_is_whole() {
        let owned = |line: &str, complete| (line.to_owned(), complete);
        assert_eq!(
            lines(b"a\n\nb\r\nc\xff"),
            [
                owned("a", true),
                owned("", true),
                owned("b", true),
                owned("c\u{fffd}", false)
            ]
        );
        assert_eq!(lines(b"a\n"), [owned("a", true)]);
        assert_eq!(lines(b""), []);
    }

    #[test]
    fn a_line_without_an_end_is_passed_over() {
        let long = "x".repeat(LINE_BYTES_MAX as usize);
        let text = format!("a\n{long}{long}y\nb\n{long}");
        let kept: Vec<String> = lines(text.as_bytes())
            .into_iter()
            .map(|line| line.0)
            .collect();
        assert_eq!(kept, ["a", "b"]);
    }

    #[test]
    fn only_files_of_a_bounded_length_are_opened() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("leases");
        assert!(matches!(open(&path), Ok(None)));
        assert!(matches!(open(&path.join("below")), Ok(None)));
        assert!(matches!(open(directory.path()), Err(FileError::NotAFile)));
        let file = File::create(&path).unwrap();
        file.set_len(FILE_BYTES_MAX).unwrap();
        assert!(matches!(open(&path), Ok(Some(_))));
        file.set_len(FILE_BYTES_MAX + 1).unwrap();
        assert!(matches!(open(&path), Err(FileError::TooLarge)));
        assert!(
            matches!(open(&path.join("below")), Ok(None)),
            "not below a file"
        );
        assert!(matches!(
            open(Path::new("/dev/zero")),
            Err(FileError::NotAFile)
        ));
        let pipe = directory.path().join("pipe");
        let mode = rustix::fs::Mode::RWXU;
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert!(matches!(open(&pipe), Err(FileError::NotAFile)));
    }
}
