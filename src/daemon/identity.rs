//! Which kernel and which network namespace this is: a saved kernel value is only worth something where both, and
//! the table's handle, are the same.

use std::fs;
use std::os::unix::fs::MetadataExt;

use super::DaemonError;

/// The place in which counters live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The kernel's id of this boot.
    pub boot_id: String,
    /// The inode of the calling thread's network namespace.
    pub namespace: u64,
}

impl Identity {
    /// Of the calling thread.
    pub fn here() -> Result<Self, DaemonError> {
        let failed = |source| DaemonError::System {
            operation: "tell this network namespace from others",
            source,
        };
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").map_err(failed)?;
        let namespace = fs::metadata("/proc/thread-self/ns/net").map_err(failed)?;
        Ok(Identity {
            boot_id: boot_id.trim().to_owned(),
            namespace: namespace.ino(),
        })
    }
}
