//! The service manager, told over the socket that NOTIFY_SOCKET names. Nothing ever waits for it but a barrier, which says
//! how long; without such a socket nothing happens and all is well.

use std::io::{self, IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType,
};
use sd_notify::NotifyState;

/// Under which the table's socket is kept.
pub const TABLE: &str = "table";

/// A way to the service manager, or none; a clone is the same one.
#[derive(Debug, Clone, Default)]
pub struct Service(Option<Arc<Link>>);

#[derive(Debug)]
struct Link {
    socket: OwnedFd,
    address: SocketAddrUnix,
}

impl Service {
    /// The one that started this process, if it wants to be told.
    pub fn of_environment() -> io::Result<Service> {
        let path = std::env::var_os("NOTIFY_SOCKET").unwrap_or_default();
        Service::at(path.as_bytes())
    }

    /// The one that listens at that path; `@` begins an abstract name, and an empty path means that there is none.
    pub fn at(path: &[u8]) -> io::Result<Service> {
        let address = match path {
            [] => return Ok(Service::default()),
            [b'@', name @ ..] => SocketAddrUnix::new_abstract_name(name)?,
            path => SocketAddrUnix::new(path)?,
        };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
        Ok(Service(Some(Arc::new(Link { socket, address }))))
    }

    /// Whether there is one.
    pub fn is_there(&self) -> bool {
        self.0.is_some()
    }

    /// Tells it all of this at once. What cannot be sent right now is an error and not sent later.
    pub fn tell(&self, states: &[NotifyState<'_>]) -> io::Result<()> {
        self.send(states, None)
    }

    /// Has it keep a socket over a restart, whatever happens to that meanwhile.
    pub fn keep(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        let name = format!("FDNAME={TABLE}");
        let states = ["FDSTORE=1", "FDPOLL=0", &name].map(NotifyState::Custom);
        self.send(&states, Some(socket))
    }

    /// Has it close what it keeps.
    pub fn forget(&self) -> io::Result<()> {
        let name = format!("FDNAME={TABLE}");
        self.tell(&["FDSTOREREMOVE=1", &name].map(NotifyState::Custom))
    }

    /// Waits until it has read all that it was told, but not longer than `patience`.
    pub fn barrier(&self, patience: Duration) -> io::Result<()> {
        if !self.is_there() {
            return Ok(());
        }
        let (mut ours, theirs) = UnixStream::pair()?;
        self.send(&[NotifyState::Custom("BARRIER=1")], Some(theirs.as_fd()))?;
        drop(theirs);
        ours.set_read_timeout(Some(patience))?;
        // It closes its end when all before is done.
        ours.read(&mut [0]).map(drop)
    }

    fn send(&self, states: &[NotifyState<'_>], handed: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let Some(link) = &self.0 else {
            return Ok(());
        };
        let text: Vec<String> = states.iter().map(ToString::to_string).collect();
        let text = text.join("\n");
        let descriptors: Vec<BorrowedFd<'_>> = handed.into_iter().collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(&descriptors));
        }
        rustix::net::sendmsg_addr(
            &link.socket,
            &link.address,
            &[IoSlice::new(text.as_bytes())],
            &mut control,
            SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
        )?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    fn heard(socket: &UnixDatagram) -> String {
        let mut text = [0; 4096];
        let length = socket.recv(&mut text).unwrap();
        String::from_utf8_lossy(&text[..length]).into_owned()
    }

    #[test]
    fn without_a_service_manager_nothing_happens() {
        let nobody = Service::default();
        assert!(!nobody.is_there());
        assert!(!Service::at(b"").unwrap().is_there());
        nobody.tell(&[NotifyState::Ready]).unwrap();
        nobody.forget().unwrap();
        nobody.barrier(Duration::from_secs(60)).unwrap();
    }

    #[test]
    fn it_is_told_by_path_and_by_abstract_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let by_path = UnixDatagram::bind(&path).unwrap();
        let service = Service::at(path.as_os_str().as_bytes()).unwrap();
        let states = [NotifyState::Ready, NotifyState::Status("12 counters")];
        service.tell(&states).unwrap();
        assert_eq!(heard(&by_path), "READY=1\nSTATUS=12 counters");
        let name = format!("flowctl-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let by_name = UnixDatagram::bind_addr(&address).unwrap();
        let service = Service::at(format!("@{name}").as_bytes()).unwrap();
        service.forget().unwrap();
        assert_eq!(heard(&by_name), "FDSTOREREMOVE=1\nFDNAME=table");
    }

    #[test]
    fn one_that_does_not_read_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let deaf = UnixDatagram::bind(&path).unwrap();
        let service = Service::at(path.as_os_str().as_bytes()).unwrap();
        let full = (0..10_000).find_map(|_| service.tell(&[NotifyState::Watchdog]).err());
        assert_eq!(full.unwrap().kind(), io::ErrorKind::WouldBlock);
        drop(deaf);
        let gone = service.tell(&[NotifyState::Watchdog]).unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn a_barrier_ends_when_its_descriptor_is_closed_and_not_before() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let service = Service::at(path.as_os_str().as_bytes()).unwrap();
        let late = service.barrier(Duration::from_millis(50)).unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::WouldBlock);
        let reader = std::thread::spawn(move || {
            // A descriptor for which there is no room is closed.
            assert_eq!(heard(&manager), "BARRIER=1");
            assert_eq!(heard(&manager), "BARRIER=1");
        });
        service.barrier(Duration::from_secs(20)).unwrap();
        reader.join().unwrap();
    }
}
