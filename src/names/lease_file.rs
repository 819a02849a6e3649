//! A lease file as it is found: what it is, its content tells. Servers write while we read; what was caught in the
//! middle of that is known for it.

use std::ffi::OsString;
use std::io::BufRead;
use std::path::{Path, PathBuf};

use super::disk::{self, FileError, Stamp, each_line};
use super::lease::Leases;
use super::{dnsmasq, kea, networkd};

/// How often files are read again that Kea exchanges meanwhile.
const ATTEMPTS: u32 = 3;
/// The names that Kea's clean-up gives to a memfile, in the order in which Kea reads them. The first holds what the
/// next two do.
const FINISHED: &str = ".completed";
const PARTS: [&str; 2] = [".2", ".1"];

/// What a lease file says.
pub struct Content {
    /// What is valid now.
    pub leases: Leases,
    /// False where the file was being rewritten: what was known before may be more.
    pub whole: bool,
}

/// Why a lease file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LeaseFileError {
    /// The file itself.
    #[error(transparent)]
    File(#[from] FileError),
    /// Nothing that we know.
    #[error("it is no lease file of Kea, dnsmasq or systemd-networkd")]
    Unknown,
    /// JSON, but not as networkd writes it. What stands there is not told: it may be anyone's.
    #[error("it is not the JSON that systemd-networkd writes, at line {line}, column {column}")]
    Json {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
}

impl From<std::io::Error> for LeaseFileError {
    fn from(error: std::io::Error) -> Self {
        LeaseFileError::File(error.into())
    }
}

/// What a lease file's state is known by: the file, and those that Kea's clean-up makes of it.
pub type Stamps = [Option<Stamp>; 4];

/// The stamps of the file at `path` and of what may be beside it.
pub fn stamps(path: &Path) -> Stamps {
    let [older, newer] = PARTS;
    ["", FINISHED, older, newer].map(|ending| disk::stamp(&beside(path, ending)))
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    name.into()
}

/// Reads what is at `path` at the time `now`, Unix time in seconds; `None` where nothing is.
pub fn read(path: &Path, now: u64, room: usize) -> Result<Option<Content>, LeaseFileError> {
    let before = stamps(path);
    let mut opened = disk::open(path)?;
    let beginning = match &mut opened {
        Some(reader) => reader.fill_buf()?,
        None => &[],
    };
    // When a clean-up begins, Kea's file is one of the others for a moment, and then an empty one.
    if (beginning.is_empty() || beginning.starts_with(kea::HEADER.as_bytes()))
        && let Some(content) = kea_files(path, now, room)?
    {
        return Ok(Some(content));
    }
    let is_json = matches!(beginning.trim_ascii_start().first(), Some(b'{' | b'['));
    let Some(reader) = opened else {
        return Ok(None);
    };
    let mut leases = Leases::new(now, room);
    if is_json {
        networkd::take(reader, &mut leases).map_err(|error| LeaseFileError::Json {
            line: error.line(),
            column: error.column(),
        })?;
        return Ok(Some(Content {
            leases,
            whole: true,
        }));
    }
    let ended = dnsmasq_lines(reader, &mut leases)?;
    let unchanged = stamps(path) == before;
    // It is emptied and then written: without a lease it may be on its way.
    let [stamp, ..] = before;
    let emptied = leases.is_empty() && stamp.is_some_and(|stamp| stamp.is_fresh(now));
    Ok(Some(Content {
        leases,
        whole: ended && unchanged && !emptied,
    }))
}

/// Whether the last line had its end.
fn dnsmasq_lines(reader: impl BufRead, leases: &mut Leases) -> Result<bool, LeaseFileError> {
    let (mut lines, mut taken, mut ended) = (0_u64, 0_u64, true);
    each_line(reader, |line, complete| {
        ended = complete;
        if complete && !line.is_empty() {
            lines += 1;
            taken += u64::from(dnsmasq::take(line, leases));
        }
    })?;
    if taken == 0 && lines > 0 {
        return Err(LeaseFileError::Unknown);
    }
    Ok(ended)
}

/// Reads the files that make up a memfile, again if they were exchanged meanwhile; `None` where there is none.
fn kea_files(path: &Path, now: u64, room: usize) -> Result<Option<Content>, LeaseFileError> {
    let mut attempt = 1;
    loop {
        let before = stamps(path);
        let mut leases = Leases::new(now, room);
        let finished = beside(path, FINISHED);
        let mut found = memfile(&finished, &mut leases)?;
        if !found {
            for part in PARTS.map(|ending| beside(path, ending)) {
                found |= memfile(&part, &mut leases)?;
            }
        }
        found |= memfile(path, &mut leases)?;
        let same = |(before, after): (&Option<Stamp>, &Option<Stamp>)| match (before, after) {
            // Rows that were appended are at worst not read yet.
            (Some(before), Some(after)) => before.is_of_same_file(after),
            (before, after) => before == after,
        };
        let whole = before.iter().zip(&stamps(path)).all(same);
        if whole || attempt == ATTEMPTS {
            return Ok(found.then_some(Content { leases, whole }));
        }
        attempt += 1;
    }
}

/// Takes in one file of Kea's; false where there is none, or one of something else.
fn memfile(path: &Path, leases: &mut Leases) -> Result<bool, LeaseFileError> {
    let Some(reader) = disk::open(path)? else {
        return Ok(false);
    };
    let mut columns = None;
    let mut is_header = true;
    each_line(reader, |line, complete| {
        if is_header {
            columns = kea::Columns::of(line);
            is_header = false;
        } else if complete && let Some(columns) = &columns {
            columns.take(line, leases);
        }
    })?;
    Ok(columns.is_some())
}

#[cfg(test)]
mod tests {
    use super::super::lease::tests::shown;
    use super::*;
    use std::fs;

    const HEADER: &str = "address,hwaddr,valid_lifetime,expire,hostname,state\n";

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Folder {
            Folder(tempfile::tempdir().unwrap())
        }

        fn path(&self) -> PathBuf {
            self.0.path().join("leases")
        }

        fn write(&self, ending: &str, text: &str) {
            fs::write(beside(&self.path(), ending), text).unwrap();
        }

        fn memfile(&self, ending: &str, names: &[(u8, &str)]) {
            let rows = names
                .iter()
                .map(|(last, name)| format!("10.0.0.{last},,9,200,{name},0\n"));
            self.write(ending, &(HEADER.to_owned() + &rows.collect::<String>()));
        }

        fn read(&self) -> Vec<String> {
            shown(&read(&self.path(), 100, 99).unwrap().unwrap().leases, 100)
        }
    }

    #[test]
    fn what_a_file_is_its_content_tells() {
        let folder = Folder::new();
        let error = |text: &str| {
            folder.write("", text);
            read(&folder.path(), 0, 9).err().unwrap().to_string()
        };
        assert!(error("nameserver 1.1.1.1\n").starts_with("it is no lease file"));
        assert_eq!(
            error("{\n \"Leases\": 5}"),
            "it is not the JSON that systemd-networkd writes, at line 2, column 13"
        );
        folder.write("", " [{\"Address\":[10,0,0,1],\"Hostname\":\"a\"}]");
        assert_eq!(folder.read(), ["10.0.0.1 a -"]);
        folder.write("", "0 02:00:00:00:00:05 10.0.0.1 b *\n");
        assert_eq!(folder.read(), ["10.0.0.1 b 02:00:00:00:00:05"]);
        folder.memfile("", &[(1, "c")]);
        assert_eq!(folder.read(), ["10.0.0.1 c -"]);
        folder.write("", HEADER.trim_end());
        assert_eq!(folder.read(), [""; 0], "Kea has just begun it");
        folder.write("", "");
        assert_eq!(folder.read(), [""; 0]);
        fs::remove_file(folder.path()).unwrap();
        assert!(read(&folder.path(), 0, 9).unwrap().is_none());
    }

    #[test]
    fn a_row_that_is_still_being_written_is_not_read() {
        let folder = Folder::new();
        folder.write(
            "",
            &format!("{HEADER}10.0.0.1,,9,200,a,0\n10.0.0.2,,9,200,b,0"),
        );
        assert_eq!(folder.read(), ["10.0.0.1 a -"]);
    }

    #[test]
    fn during_a_clean_up_the_files_are_read_that_kea_reads() {
        let folder = Folder::new();
        folder.memfile(".2", &[(1, "previous"), (2, "previous"), (3, "previous")]);
        folder.memfile(".1", &[(2, "input"), (3, "input")]);
        folder.memfile("", &[(3, "current")]);
        folder.memfile(".output", &[(1, "half")]);
        assert_eq!(
            folder.read(),
            [
                "10.0.0.1 previous -",
                "10.0.0.2 input -",
                "10.0.0.3 current -"
            ]
        );
        folder.memfile(".completed", &[(1, "completed")]);
        assert_eq!(
            folder.read(),
            ["10.0.0.1 completed -", "10.0.0.3 current -"]
        );
        folder.write("", "");
        let made_anew = ["10.0.0.1 completed -"];
        assert_eq!(folder.read(), made_anew, "it has no header yet");
        fs::remove_file(folder.path()).unwrap();
        assert_eq!(folder.read(), made_anew, "it is about to be made anew");
    }

    #[test]
    fn what_is_beside_a_file_of_others_is_not_keas() {
        let folder = Folder::new();
        folder.write(".1", "0 02:00:00:00:00:05 10.0.0.1 rotated *\n");
        assert!(read(&folder.path(), 0, 9).unwrap().is_none());
        folder.write("", "");
        assert_eq!(folder.read(), [""; 0]);
    }

    #[test]
    fn a_file_that_dnsmasq_is_rewriting_is_known_for_it() {
        let folder = Folder::new();
        let wall = super::super::clock::now().wall;
        let whole = |now| read(&folder.path(), now, 9).unwrap().unwrap().whole;
        folder.write("", "0 02:00:00:00:00:05 10.0.0.1 a *\n");
        assert!(whole(wall));
        folder.write("", "0 02:00:00:00:00:05 10.0.0.1 a *\n0 02:00");
        assert!(!whole(wall), "the last line has no end");
        folder.write("", "");
        assert!(!whole(wall), "it was emptied just now");
        assert!(whole(wall + 5), "and stayed empty");
    }
}
