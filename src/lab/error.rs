//! Why the lab could not be built or used: always the operation, its object, and what the kernel said.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why the lab could not be built or used.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// A namespace could not be made or entered; EPERM without root or a user namespace.
    #[error("cannot {operation} network namespace {name}: {source}")]
    Namespace {
        /// What was tried.
        operation: &'static str,
        /// The namespace's name in the lab.
        name: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A netlink request failed.
    #[error("cannot {operation} {object}: {source}{}", text.as_deref().map(|text| format!(" ({text})")).unwrap_or_default())]
    Netlink {
        /// What was tried.
        operation: &'static str,
        /// The device, address, route or rule.
        object: String,
        /// The kernel's answer.
        source: io::Error,
        /// The kernel's own words about it (extended ack), where it gave any.
        text: Option<String>,
    },
    /// A sysctl could not be written. ENOENT where the kernel module behind it is not loaded.
    #[error("cannot write {value} to {}: {source}", path.display())]
    Sysctl {
        /// The file below /proc/sys.
        path: PathBuf,
        /// What was to be written.
        value: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A file of the kernel's could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A device did not become operational.
    #[error("device {device} is not up after {waited:?}")]
    NotUp {
        /// Its name.
        device: String,
        /// How long it was waited for.
        waited: Duration,
    },
    /// Options that no lab can have.
    #[error("{option} is {value}, at most {most} is possible")]
    TooMany {
        /// Which option.
        option: &'static str,
        /// Its value.
        value: usize,
        /// The bound.
        most: usize,
    },
    /// A generator could not start, or ended early.
    #[error("generator {generator} cannot {operation}: {source}")]
    Traffic {
        /// Its name.
        generator: String,
        /// What was tried.
        operation: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}
