//! One instance for each network namespace: an abstract Unix socket, whose names belong to the network namespace
//! and which vanishes with the process, however it dies.

use std::fmt;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use rustix::net::sockopt::socket_peercred;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

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
        "{0} runs flowctl in this network namespace already, or at least holds its lock (the abstract socket \
         @flowctl/instance); stop it first"
    )]
    Held(Holder),
    /// The kernel refused.
    #[error("cannot take the lock of this network namespace: {0}")]
    Socket(#[from] io::Error),
}

/// Who holds the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder(Option<(i32, u32)>);

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some((pid, uid)) => write!(f, "process {pid} of user {uid}"),
            None => f.write_str("a process that cannot be told"),
        }
    }
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
                Err(LockError::Held(Holder(holder())))
            }
            Err(error) => Err(LockError::Socket(error)),
        }
    }
}

/// Process and user behind the name. `None` where that one does not listen or has too many callers already: it is
/// never waited for.
fn holder() -> Option<(i32, u32)> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None);
    let socket = socket.ok()?;
    rustix::net::connect(&socket, &SocketAddrUnix::new_abstract_name(NAME).ok()?).ok()?;
    let holder = socket_peercred(&socket).ok()?;
    Some((holder.pid.as_raw_nonzero().get(), holder.uid.as_raw()))
}
