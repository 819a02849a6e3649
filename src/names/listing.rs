//! A file of names that an administrator keeps, a line each: /etc/hosts and /etc/ethers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::disk::{self, FileError, Stamp, each_line};
use super::places::cannot_read;
use crate::units::HostName;

/// Names kept of one file: more are a list against advertisements.
const NAMES_MAX: usize = 1 << 14;

/// What such a file says, by what it gives names to.
#[derive(Debug)]
pub struct Listing<K> {
    path: PathBuf,
    line: fn(&str) -> Option<(K, HostName)>,
    stamp: Option<Stamp>,
    names: BTreeMap<K, HostName>,
}

impl<K: Ord> Listing<K> {
    /// The file at `path`, whose lines mean what `line` says. Reads nothing.
    pub fn new(path: &Path, line: fn(&str) -> Option<(K, HostName)>) -> Self {
        Listing {
            path: path.to_owned(),
            line,
            stamp: None,
            names: BTreeMap::new(),
        }
    }

    /// Reads it where it changed; returns why it could not, a sentence. It need not exist.
    pub fn refresh(&mut self) -> Option<String> {
        let stamp = disk::stamp(&self.path);
        if stamp.is_some() && stamp == self.stamp {
            return None;
        }
        match self.read() {
            Ok(names) => {
                (self.names, self.stamp) = (names, stamp);
                None
            }
            Err(error) => Some(cannot_read(&self.path, &error.to_string())),
        }
    }

    /// The first name that is given counts, as it does for whoever else reads these files.
    fn read(&self) -> Result<BTreeMap<K, HostName>, FileError> {
        let mut names = BTreeMap::new();
        let Some(reader) = disk::open(&self.path)? else {
            return Ok(names);
        };
        each_line(reader, |text, _| {
            if names.len() < NAMES_MAX
                && let Some((key, name)) = (self.line)(text)
            {
                names.entry(key).or_insert(name);
            }
        })?;
        Ok(names)
    }

    /// What it calls `key`.
    pub fn name(&self, key: &K) -> Option<&HostName> {
        self.names.get(key)
    }
}

#[cfg(test)]
mod tests {
    use super::super::hosts_file;
    use super::*;
    use std::net::IpAddr;

    #[test]
    fn a_file_is_read_when_it_changed_and_what_was_good_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hosts");
        let mut hosts = Listing::new(&path, hosts_file::line);
        let address: IpAddr = [10, 0, 0, 1].into();
        assert_eq!(hosts.refresh(), None, "it need not be there");
        std::fs::write(&path, "10.0.0.1 first other\n10.0.0.1 second").unwrap();
        assert_eq!(hosts.refresh(), None);
        assert_eq!(hosts.name(&address).unwrap().as_str(), "first");
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(hosts.refresh().unwrap().ends_with("/hosts: it is no file"));
        assert_eq!(hosts.name(&address).unwrap().as_str(), "first");
        std::fs::remove_dir(&path).unwrap();
        assert_eq!(hosts.refresh(), None);
        assert_eq!(hosts.name(&address), None);
    }
}
