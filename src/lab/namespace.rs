//! Network namespaces without a name: a namespace lives as long as a descriptor, a socket, a thread or a process is
//! in it, so nothing is left behind however the program ends. One of two files with unsafe code.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use rustix::fs::{Mode, OFlags};
use rustix::thread::{CapabilitySet, LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use super::LabError;

/// A network namespace; a clone is the same one.
#[derive(Debug, Clone)]
pub struct Namespace {
    name: Arc<str>,
    fd: Arc<OwnedFd>,
}

impl Namespace {
    /// Makes an empty one, its loopback device down. The name appears in errors and thread names only.
    pub fn new(name: &str) -> Result<Namespace, LabError> {
        let fd = thread::scope(|scope| {
            let helper = thread::Builder::new()
                .name(name.into())
                .spawn_scoped(scope, unshared)?;
            helper
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
        .map_err(|source| failed("make", name, source))?;
        Ok(Namespace {
            name: name.into(),
            fd: Arc::new(fd),
        })
    }

    /// Its name in the lab.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `work` on a thread in this namespace and waits for it. Threads and processes that `work` starts, and
    /// sockets that it opens, are in this namespace too, and stay. A panic in `work` goes on in the caller.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        thread::scope(|scope| {
            let helper = thread::Builder::new()
                .name(self.name.to_string())
                .spawn_scoped(scope, || {
                    move_into_link_name_space(self.fd(), Some(LinkNameSpaceType::Network))?;
                    Ok(work())
                })?;
            helper
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
        .map_err(|source| failed("enter", &self.name, source))
    }

    /// Starts a thread in this namespace that may outlive the caller.
    pub fn spawn<T: Send + 'static>(
        &self,
        thread_name: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<T>, LabError> {
        let builder = thread::Builder::new().name(thread_name.into());
        self.run(|| builder.spawn(work))?
            .map_err(|source| failed("start a thread in", &self.name, source))
    }

    /// For setns, or to move a device here.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// For `nsenter --net=PATH` by hand, valid while this value lives.
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.fd.as_raw_fd()).into()
    }
}

/// Where this process may not make network namespaces: makes it root in a user namespace of its own, where it may.
/// Must come before the process has a second thread. Fails where the machine does not allow user namespaces.
#[expect(
    unsafe_code,
    reason = "unshare can split a thread's descriptor table from that of the others; NEWUSER does not"
)]
pub fn enter_own_users() -> io::Result<()> {
    let capabilities = rustix::thread::capabilities(None)?;
    if capabilities.effective.contains(CapabilitySet::SYS_ADMIN) {
        return Ok(());
    }
    let (user, group) = (rustix::process::getuid(), rustix::process::getgid());
    // SAFETY: only CLONE_NEWUSER is given, so descriptors, file system and memory stay shared between all threads.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWUSER)? };
    // Without privileges outside, a group may be mapped only once groups can no longer be dropped.
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", format!("0 {} 1", user.as_raw()))?;
    std::fs::write("/proc/self/gid_map", format!("0 {} 1", group.as_raw()))
}

/// A new namespace; the calling thread stays in it, so it must be one that ends at once.
#[expect(
    unsafe_code,
    reason = "unshare can split a thread's descriptor table from that of the others; NEWNET does not"
)]
fn unshared() -> io::Result<OwnedFd> {
    // SAFETY: only CLONE_NEWNET is given, so descriptors, file system and memory stay shared between all threads.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET)? };
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(
        "/proc/thread-self/ns/net",
        flags,
        Mode::empty(),
    )?)
}

fn failed(operation: &'static str, name: &str, source: io::Error) -> LabError {
    LabError::Namespace {
        operation,
        name: name.into(),
        source,
    }
}
