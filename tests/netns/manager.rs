//! A service manager for tests: it hears what a daemon says on its NOTIFY_SOCKET, keeps descriptors as it is asked to, and
//! hands them to the next daemon as descriptor 3.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flowctl::lab::clock;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

use crate::support::{Bench, Daemon, eventually, pause};

/// What was said, with the moment it was heard.
#[derive(Debug, Clone)]
pub struct Said {
    pub at: Duration,
    pub lines: Vec<String>,
}

#[derive(Default)]
struct Heard {
    said: Vec<Said>,
    kept: Vec<OwnedFd>,
}

/// It listens as long as it lives.
pub struct Manager {
    directory: tempfile::TempDir,
    heard: Arc<Mutex<Heard>>,
}

impl Manager {
    pub fn new() -> Manager {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        // As systemd's: whoever it starts as whatever user may tell it.
        for open in [directory.path(), &path] {
            std::fs::set_permissions(open, std::fs::Permissions::from_mode(0o777)).unwrap();
        }
        let heard = Arc::new(Mutex::new(Heard::default()));
        let shared = Arc::downgrade(&heard);
        socket
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        std::thread::spawn(move || {
            while let Some(heard) = shared.upgrade() {
                if let Some((lines, descriptors)) = receive(&socket) {
                    take(&mut heard.lock().unwrap(), lines, descriptors);
                }
            }
        });
        Manager { directory, heard }
    }

    /// The command with this manager to tell, which begins with a shell: a descriptor on standard input becomes number 3.
    pub fn command(&self, bench: &Bench<'_>, settings: &[(&str, &str)]) -> Command {
        self.command_by(&[], bench, settings)
    }

    /// The same begun by another program, such as setpriv, which becomes the daemon.
    pub fn command_by(
        &self,
        program: &[&str],
        bench: &Bench<'_>,
        settings: &[(&str, &str)],
    ) -> Command {
        let daemon = bench.command(&["run"]);
        let mut command = Command::new("sh");
        command
            .arg("-c")
            .arg("if [ -n \"$LISTEN_FDS\" ]; then exec 3<&0 </dev/null; export LISTEN_PID=$$; fi; exec \"$@\"")
            .arg("sh")
            .args(program)
            .arg(daemon.get_program())
            .args(daemon.get_args())
            .env("NOTIFY_SOCKET", self.directory.path().join("notify"));
        command.envs(settings.iter().copied());
        command
    }

    /// A daemon without anything handed over.
    pub fn start<'a>(&self, bench: &'a Bench<'_>, settings: &[(&str, &str)]) -> Daemon<'a> {
        bench.start_as(self.command(bench, settings))
    }

    /// One that is handed a descriptor under that name.
    pub fn start_with<'a>(&self, bench: &'a Bench<'_>, name: &str, handed: OwnedFd) -> Daemon<'a> {
        let settings = [("LISTEN_FDS", "1"), ("LISTEN_FDNAMES", name)];
        bench.start_from(self.command(bench, &settings), Stdio::from(handed))
    }

    /// All that was said so far.
    pub fn said(&self) -> Vec<Said> {
        self.heard.lock().unwrap().said.clone()
    }

    /// All lines of it that begin so, without that.
    pub fn values(&self, key: &str) -> Vec<String> {
        let said = self.said();
        let lines = said.iter().flat_map(|said| &said.lines);
        lines
            .filter_map(|line| Some(line.strip_prefix(key)?.to_owned()))
            .collect()
    }

    /// Waits until something said has all these lines; returns its place.
    pub fn await_lines(&self, lines: &[&str]) -> usize {
        eventually(&format!("it says {lines:?}"), || {
            let has = |said: &Said| {
                lines
                    .iter()
                    .all(|line| said.lines.iter().any(|l| l == line))
            };
            self.said().iter().position(has)
        })
    }

    /// A descriptor of what it keeps, which it goes on keeping.
    pub fn kept(&self) -> Option<OwnedFd> {
        let heard = self.heard.lock().unwrap();
        assert!(heard.kept.len() <= 1, "FileDescriptorStoreMax=1");
        heard.kept.first().map(|kept| kept.try_clone().unwrap())
    }

    /// Waits for the descriptor that it is asked to keep.
    pub fn await_kept(&self) -> OwnedFd {
        eventually("a descriptor is to be kept", || self.kept())
    }

    /// Closes what it keeps, as it does when the unit is stopped.
    pub fn release(&self) {
        self.heard.lock().unwrap().kept.clear();
    }
}

fn take(heard: &mut Heard, lines: Vec<String>, descriptors: Vec<OwnedFd>) {
    let is = |wanted: &str| lines.iter().any(|line| line == wanted);
    if is("FDSTOREREMOVE=1") {
        assert!(is("FDNAME=table"), "{lines:?}");
        let forgotten = std::mem::take(&mut heard.kept);
        // As systemd does: what it has forgotten it closes when it has time.
        std::thread::spawn(move || {
            pause(Duration::from_millis(400));
            drop(forgotten);
        });
    }
    if is("FDSTORE=1") {
        assert!(is("FDNAME=table") && is("FDPOLL=0"), "{lines:?}");
        heard.kept.extend(descriptors);
    }
    heard.said.push(Said {
        at: clock::uptime().0,
        lines,
    });
}

fn receive(socket: &UnixDatagram) -> Option<(Vec<String>, Vec<OwnedFd>)> {
    let mut text = [0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut text)];
    let received =
        rustix::net::recvmsg(socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC).ok()?;
    let descriptors = control.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(rights) => rights.collect(),
        _ => Vec::new(),
    });
    let descriptors = descriptors.collect();
    let lines = String::from_utf8(text[..received.bytes].to_vec()).unwrap();
    Some((lines.lines().map(str::to_owned).collect(), descriptors))
}
