//! One instance for each network namespace: an abstract Unix socket, whose names belong to the network namespace
//! and which vanishes with the process, however it dies.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

use rustix::net::sockopt::socket_peercred;

const NAME: &[u8] = b"flowctl/instance";

/// Held as long as the daemon runs.
#[derive(Debug)]
pub struct InstanceLock {
    _listener: UnixListener,
}

/// Why the lock could not be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process holds it.
    #[error(
        "process {pid} of user {uid} runs flowctl in this network namespace already, or at least holds its lock \
         (the abstract socket @flowctl/instance); stop it first"
    )]
    Held {
        /// The holder; 0 when it cannot be told from here.
        pid: i32,
        /// The holder's user.
        uid: u32,
    },
    /// The kernel refused.
    #[error("cannot take the lock of this network namespace: {0}")]
    Socket(#[from] io::Error),
}

impl InstanceLock {
    /// Takes the lock of the calling thread's network namespace.
    pub fn take() -> Result<Self, LockError> {
        let address = SocketAddr::from_abstract_name(NAME)?;
        match UnixListener::bind_addr(&address) {
            Ok(listener) => Ok(InstanceLock {
                _listener: listener,
            }),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                let holder = UnixStream::connect_addr(&address)?;
                let holder = socket_peercred(&holder).map_err(io::Error::from)?;
                Err(LockError::Held {
                    pid: holder.pid.as_raw_nonzero().get(),
                    uid: holder.uid.as_raw(),
                })
            }
            Err(error) => Err(LockError::Socket(error)),
        }
    }
}
