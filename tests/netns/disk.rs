//! A disk for the state directory that is a real one with an end: it is a small tmpfs in a mount namespace of its
//! own, which goes with the process that holds it.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// A small disk; gone when dropped.
pub struct Disk {
    holder: Child,
    _place: tempfile::TempDir,
    path: PathBuf,
}

impl Disk {
    /// An empty one that holds so many bytes.
    pub fn new(kibibytes: u32) -> Disk {
        let place = tempfile::tempdir().unwrap();
        let script =
            "mount -t tmpfs -o size=\"$1\"k,mode=0755 tmpfs \"$2\" && echo made && read -r end";
        let mut holder = Command::new("unshare")
            .args(["--mount", "sh", "-c", script, "disk"])
            .arg(kibibytes.to_string())
            .arg(place.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        let stdout = holder.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut said).unwrap();
        assert_eq!(said, "made\n");
        // Everyone reaches the disk by the holder's eyes.
        let seen = format!("/proc/{}/root{}", holder.id(), place.path().display());
        Disk {
            holder,
            _place: place,
            path: seen.into(),
        }
    }

    /// Its root directory.
    pub fn path(&self) -> PathBuf {
        self.path.clone()
    }

    /// Writes to it until not one byte more fits.
    pub fn fill(&self) {
        let mut ballast = std::fs::File::create(self.path.join("ballast")).unwrap();
        let full = loop {
            if let Err(error) = ballast.write_all(&[b'x'; 512]) {
                break error;
            }
        };
        assert_eq!(full.kind(), ErrorKind::StorageFull, "{full}");
    }

    /// Takes away what filled it.
    pub fn free(&self) {
        std::fs::remove_file(self.path.join("ballast")).unwrap();
    }

    /// Allows writing, or not.
    pub fn remount(&self, how: &str) {
        let place = self._place.path();
        let status = Command::new("nsenter")
            .arg(format!("--mount=/proc/{}/ns/mnt", self.holder.id()))
            .args(["mount", "-o", &format!("remount,{how}")])
            .arg(place)
            .status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
