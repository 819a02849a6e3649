//! The client of the control socket: one request, one answer, with a deadline for each step. It tells "no daemon
//! there" from "a daemon that does not answer as it should".

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde::Deserialize;

use super::reload::Reloaded;

/// For each of connecting, sending, and every piece of the answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// For what comes of a reload: the daemon gives itself a minute.
const RELOAD_PATIENCE: Duration = Duration::from_secs(70);
/// How often a status is asked for.
const ATTEMPTS: u32 = 5;
/// A status of 100,000 counters has about 60 MiB.
const ANSWER_BYTES_MAX: u64 = 256 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// No socket, or nobody behind it.
    #[error("no daemon answers on {path}: is `flowctl run` running?")]
    NotReachable {
        /// The socket.
        path: PathBuf,
    },
    /// The socket is there but not for this user.
    #[error("{path}: permission denied: this needs {needs}")]
    Denied {
        /// The socket.
        path: PathBuf,
        /// Who may.
        needs: String,
    },
    /// It did not answer in time.
    #[error("{path}: the daemon took longer than {} s to answer", .patience.as_secs())]
    TimedOut {
        /// The socket.
        path: PathBuf,
        /// How long it had.
        patience: Duration,
    },
    /// It hung up first.
    #[error(
        "{path}: the daemon closed the connection without an answer; it may be overloaded or stopping"
    )]
    Closed {
        /// The socket.
        path: PathBuf,
    },
    /// The answer has no end.
    #[error("{path}: the answer is longer than 256 MiB")]
    TooLong {
        /// The socket.
        path: PathBuf,
    },
    /// The daemon said no.
    #[error("the daemon refused {request}: {message}")]
    Refused {
        /// What was asked.
        request: String,
        /// Its reason.
        message: String,
    },
    /// The daemon does it for others only.
    #[error("the daemon refused {request}: {message}")]
    Forbidden {
        /// What was asked.
        request: String,
        /// For whom it does it.
        message: String,
    },
    /// The kernel refused.
    #[error("{path}: cannot {operation}: {source}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The socket.
        path: PathBuf,
        /// The kernel's word.
        source: io::Error,
    },
}

impl AskError {
    /// Whether nobody could be asked at all, as opposed to a bad answer.
    pub fn is_unreachable(&self) -> bool {
        matches!(
            self,
            AskError::NotReachable { .. } | AskError::Denied { .. }
        )
    }
}

#[derive(Deserialize)]
struct Refusal {
    error: String,
    #[serde(default)]
    forbidden: bool,
}

/// The daemon's answer to `request` (`status` or `stop`): one line of JSON, without its newline. A status is
/// asked for again when a crowd pushed it out; a command may have been heard.
pub fn ask(path: &Path, request: &str) -> Result<String, AskError> {
    let attempts = if request == "status" { ATTEMPTS } else { 1 };
    for _ in 1..attempts {
        match ask_once(path, request, PATIENCE) {
            Err(AskError::Closed { .. }) => {}
            answered => return answered,
        }
    }
    ask_once(path, request, PATIENCE)
}

/// What came of a reload that is asked for; it may take its time.
pub fn ask_to_reload(path: &Path) -> Result<Reloaded, AskError> {
    let answer = ask_once(path, "reload", RELOAD_PATIENCE)?;
    serde_json::from_str(&answer).map_err(|error| AskError::Io {
        operation: "understand the answer",
        path: path.to_owned(),
        source: error.into(),
    })
}

/// `patience` is for the answer.
fn ask_once(path: &Path, request: &str, patience: Duration) -> Result<String, AskError> {
    let mut stream = connect(path, PATIENCE).map_err(|source| sort(path, "connect", source))?;
    let line = format!("{}\n", serde_json::json!({ "request": request }));
    stream
        .write_all(line.as_bytes())
        .map_err(|source| sort(path, "send the request", source))?;
    stream
        .set_read_timeout(Some(patience))
        .map_err(|source| sort(path, "wait for the answer", source))?;

    let mut answer = String::new();
    BufReader::new(stream.take(ANSWER_BYTES_MAX))
        .read_line(&mut answer)
        .map_err(|source| sort_after(patience, path, "read the answer", source))?;
    if answer.len() as u64 >= ANSWER_BYTES_MAX {
        return Err(AskError::TooLong { path: path.into() });
    }
    if answer.pop() != Some('\n') {
        return Err(AskError::Closed { path: path.into() });
    }
    if answer.starts_with("{\"error\"")
        && let Ok(refusal) = serde_json::from_str::<Refusal>(&answer)
    {
        let (request, message) = (request.to_owned(), refusal.error);
        return Err(if refusal.forbidden {
            AskError::Forbidden { request, message }
        } else {
            AskError::Refused { request, message }
        });
    }
    Ok(answer)
}

/// A connection in which no step takes longer than `patience`. The send timeout bounds the connect too: a full backlog
/// would otherwise hold it forever.
pub(crate) fn connect(path: &Path, patience: Duration) -> Result<UnixStream, io::Error> {
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    set_socket_timeout(&socket, Timeout::Send, Some(patience))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(patience))?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(UnixStream::from(socket))
}

pub(super) fn sort(path: &Path, operation: &'static str, source: io::Error) -> AskError {
    sort_after(PATIENCE, path, operation, source)
}

/// The same after another patience.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "ErrorKind is open-ended; what is not named here is told as it is"
)]
fn sort_after(
    patience: Duration,
    path: &Path,
    operation: &'static str,
    source: io::Error,
) -> AskError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            AskError::NotReachable { path }
        }
        io::ErrorKind::PermissionDenied => AskError::Denied {
            needs: who_may(&path),
            path,
        },
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            AskError::TimedOut { path, patience }
        }
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => AskError::Closed { path },
        _ => AskError::Io {
            operation,
            path,
            source,
        },
    }
}

fn who_may(path: &Path) -> String {
    // Its directory, where that is what shuts this user out: it has the same group, as systemd makes it.
    let Some(metadata) = path.ancestors().find_map(|path| fs::metadata(path).ok()) else {
        return "root".to_owned();
    };
    if metadata.gid() == 0 {
        return "root".to_owned();
    }
    let groups = fs::read_to_string("/etc/group").unwrap_or_default();
    match group_name(&groups, metadata.gid()) {
        Some(name) => format!("root or the group {name}"),
        None => format!("root or the group with the id {}", metadata.gid()),
    }
}

/// From the text of /etc/group: `name:password:gid:members`.
fn group_name(groups: &str, gid: u32) -> Option<&str> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(gid)).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    fn answered_with(answer: &'static [u8]) -> Result<String, AskError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = String::new();
            BufReader::new(stream.try_clone().unwrap())
                .read_line(&mut request)
                .unwrap();
            stream.write_all(answer).unwrap();
            request
        });
        let result = ask_once(&path, "status", PATIENCE);
        assert_eq!(server.join().unwrap(), "{\"request\":\"status\"}\n");
        result
    }

    #[test]
    fn an_answer_is_one_line() {
        assert_eq!(answered_with(b"{\"a\":1}\nrest").unwrap(), "{\"a\":1}");
    }

    #[test]
    fn an_answer_without_an_end_is_no_answer() {
        let error = answered_with(b"{\"a\":").unwrap_err();
        assert!(matches!(error, AskError::Closed { .. }));
        assert!(!error.is_unreachable());
    }

    #[test]
    fn a_status_that_was_pushed_out_is_asked_for_again_and_a_command_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || {
            for _ in 0..3 {
                drop(listener.accept().unwrap());
            }
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = String::new();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            reader.read_line(&mut request).unwrap();
            stream.write_all(b"{}\n").unwrap();
        });
        let error = ask(&path, "stop").unwrap_err();
        assert!(matches!(
            error,
            AskError::Closed { .. } | AskError::Io { .. }
        ));
        assert_eq!(ask(&path, "status").unwrap(), "{}");
        server.join().unwrap();
    }

    #[test]
    fn the_daemons_reason_for_a_refusal_is_passed_on() {
        let error = answered_with(b"{\"error\":\"busy\"}\n").unwrap_err();
        assert_eq!(error.to_string(), "the daemon refused status: busy");
    }

    #[test]
    fn an_absent_and_a_dead_socket_are_both_unreachable() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        assert!(ask(&path, "status").unwrap_err().is_unreachable());
        drop(UnixListener::bind(&path).unwrap());
        let error = ask(&path, "status").unwrap_err();
        assert!(error.is_unreachable());
        assert!(error.to_string().contains("is `flowctl run` running?"));
    }

    #[test]
    fn a_group_is_found_by_its_id() {
        let groups = "root:x:0:\nflowctl:x:990:nina\n";
        assert_eq!(group_name(groups, 990), Some("flowctl"));
        assert_eq!(group_name(groups, 99), None);
    }
}
