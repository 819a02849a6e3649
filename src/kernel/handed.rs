//! Descriptors that a service manager hands to the process as it starts, in LISTEN_FDS' way. Each gets one owner here,
//! so that what nobody wants is closed. One of two files with unsafe code.

use std::io;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::net::{AddressFamily, netlink, sockopt};

use super::error::KernelError;
use super::socket::Netlink;

/// One of them.
#[derive(Debug)]
pub struct Handed {
    name: String,
    descriptor: OwnedFd,
}

/// What may be wrong with one that should be a socket of nf_tables.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// It is something else.
    #[error("it is not a netlink socket of netfilter")]
    Other,
    /// The kernel refused.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

/// All that this process was handed; a second call finds nothing. It must be the first thing that the process does: a
/// descriptor opened before it could be taken for one that was handed over.
#[expect(
    unsafe_code,
    reason = "numbers in the environment become descriptors that are owned"
)]
pub fn take() -> io::Result<Vec<Handed>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Ok(Vec::new());
    }
    let numbers = sd_notify::listen_fds()?;
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':').map(str::to_owned);
    let handed = numbers.map(|number| Handed {
        name: names.next().unwrap_or_default(),
        // SAFETY: LISTEN_PID is this process, and the descriptor is open, which `listen_fds` has looked at. It was
        // handed to this process before anything else was opened, and the guard above lets nobody own it twice.
        descriptor: unsafe { OwnedFd::from_raw_fd(number) },
    });
    Ok(handed.collect())
}

impl Handed {
    /// A descriptor under a name.
    pub fn new(name: &str, descriptor: OwnedFd) -> Handed {
        Handed {
            name: name.to_owned(),
            descriptor,
        }
    }

    /// What it was called when it was handed in for keeping.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The socket of netfilter that it is, ready for use.
    #[expect(
        unsafe_code,
        reason = "netlink-sys makes a socket of a descriptor no other way"
    )]
    pub fn netfilter(self) -> Result<Netlink, Unusable> {
        let is_netfilter = sockopt::socket_domain(&self.descriptor) == Ok(AddressFamily::NETLINK)
            && sockopt::socket_protocol(&self.descriptor) == Ok(Some(netlink::NETFILTER));
        if !is_netfilter {
            return Err(Unusable::Other);
        }
        // SAFETY: the descriptor is open and gives up its owner here; the socket is the next one, and the only one.
        let socket = unsafe { netlink_sys::Socket::from_raw_fd(self.descriptor.into_raw_fd()) };
        Ok(Netlink::resume(socket)?)
    }
}
