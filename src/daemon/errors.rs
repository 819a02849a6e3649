//! Why a daemon does not start, or ends: sorted by what the operator can do about it.

use std::io;
use std::path::PathBuf;

use super::lock::LockError;
use crate::kernel::error::KernelError;
use crate::sink::socket::ControlError;

/// A daemon's end.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// Another instance runs in this network namespace.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The control socket cannot be had.
    #[error("control socket {0}")]
    Control(#[from] ControlError),
    /// The state directory cannot be used.
    #[error("state directory {path}: {source}; name another one with --state-dir")]
    StateDir {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another process uses the state directory.
    #[error(
        "state directory {path}: another flowctl uses it, in this or in another network namespace; give each its own with --state-dir"
    )]
    StateDirInUse {
        /// The directory.
        path: PathBuf,
    },
    /// The kernel does not do what is asked.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// A thread could not be started, or this machine told from others.
    #[error("cannot {operation}: {source}")]
    System {
        /// What was tried.
        operation: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// A thread ended by itself: going on would be half a daemon.
    #[error("the {thread} ended: {error}")]
    Thread {
        /// Which.
        thread: &'static str,
        /// Why.
        error: String,
    },
}

impl DaemonError {
    /// Whether another instance is the reason.
    pub fn is_another_instance(&self) -> bool {
        matches!(
            self,
            DaemonError::Lock(LockError::Held(_))
                | DaemonError::Control(ControlError::InUse { .. })
                | DaemonError::StateDirInUse { .. }
                | DaemonError::Kernel(KernelError::OwnedTable { .. })
        )
    }

    /// Whether a process of this network namespace holds the instance lock.
    pub fn is_lock_held(&self) -> bool {
        matches!(self, DaemonError::Lock(LockError::Held(_)))
    }

    /// Whether CAP_NET_ADMIN is what is missing.
    pub fn is_privilege(&self) -> bool {
        matches!(self, DaemonError::Kernel(error) if error.is_privilege())
    }
}
