//! What can go wrong at the door to Linux: always with the operation, the object and the kernel's own words.

use std::io;

use super::attr::Malformed;

/// A failed operation.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// A socket could not be opened, written or read.
    #[error("cannot {operation}: {source}")]
    Socket {
        /// What was tried.
        operation: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The kernel answered with an error.
    #[error("the kernel refused to {operation}{}: {source}{}", of(.object), said(.message))]
    Refused {
        /// What was asked.
        operation: &'static str,
        /// Of which object; empty when the operation says all.
        object: String,
        /// The kernel's error number.
        source: io::Error,
        /// The kernel's extended-ack text.
        message: Option<String>,
    },
    /// The kernel's answer could not be read.
    #[error("cannot {operation}: {source}")]
    Malformed {
        /// What was asked.
        operation: &'static str,
        /// What is wrong with the answer.
        source: Malformed,
    },
    /// Others kept changing the ruleset.
    #[error("cannot {operation}: the ruleset was changed by others {attempts} times meanwhile")]
    Contended {
        /// What was tried.
        operation: &'static str,
        /// How often.
        attempts: u32,
    },
    /// What was dumped changed meanwhile, so that something may be missing.
    #[error("cannot {operation} as a whole: it changed meanwhile")]
    Interrupted {
        /// What was asked.
        operation: &'static str,
    },
    /// A table of our name that flowctl did not make.
    #[error(
        "table inet {name} exists and is not flowctl's: rename it, or set another name under [table] in the configuration"
    )]
    ForeignTable {
        /// The table's name.
        name: String,
    },
    /// A table that the configuration loads: nothing in it is flowctl's to change.
    #[error(
        "table inet {name} was loaded with the system's ruleset and is not flowctl's to change: restart flowctl, which then reads it"
    )]
    StaticTable {
        /// The table's name.
        name: String,
    },
    /// A table of flowctl's of another name, which nobody would read any more.
    #[error(
        "table inet {name}, which flowctl installed before, is still there and table.static lets flowctl change nothing: run `flowctl remove` first"
    )]
    LeftTable {
        /// The table's name.
        name: String,
    },
    /// A table of flowctl's that another process owns.
    #[error(
        "table inet {name} is owned by another process (netlink port {port}): another flowctl, or systemd, which keeps the table's socket while it restarts flowctl; stop that first (`systemctl stop flowctl` where it is a service)"
    )]
    OwnedTable {
        /// The table's name.
        name: String,
        /// The owner's netlink port, often its process id.
        port: u32,
    },
}

fn of(object: &str) -> String {
    if object.is_empty() {
        String::new()
    } else {
        format!(" {object}")
    }
}

fn said(message: &Option<String>) -> String {
    message
        .as_ref()
        .map(|text| format!(" ({text})"))
        .unwrap_or_default()
}

impl KernelError {
    /// The kernel's error number, if it was one.
    pub fn errno(&self) -> Option<rustix::io::Errno> {
        match self {
            KernelError::Socket { source, .. } | KernelError::Refused { source, .. } => {
                rustix::io::Errno::from_io_error(source)
            }
            KernelError::Malformed { .. }
            | KernelError::Contended { .. }
            | KernelError::Interrupted { .. }
            | KernelError::ForeignTable { .. }
            | KernelError::StaticTable { .. }
            | KernelError::LeftTable { .. }
            | KernelError::OwnedTable { .. } => None,
        }
    }

    /// Whether it failed for want of CAP_NET_ADMIN.
    pub fn is_privilege(&self) -> bool {
        matches!(
            self.errno(),
            Some(rustix::io::Errno::PERM | rustix::io::Errno::ACCESS)
        )
    }
}
