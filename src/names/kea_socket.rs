//! A conversation with Kea over its control socket: one command, one answer, and Kea hangs up. It goes on in a thread of
//! its own, so that whoever wants to know waits no longer than they like.

use std::io::{self, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use super::clock;
use super::kea::{AnswerError, Command, take_answer};
use super::lease::Leases;
use crate::sink::ask::connect;

/// For connecting, sending and every piece of an answer.
const SILENCE_MAX: Duration = Duration::from_secs(1);
/// For a whole answer, which Kea makes before it sends the first piece.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Some 200,000 leases.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// Why there are no leases.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Nobody there, or not for us.
    #[error("cannot {operation}: {source}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The system's word.
        source: io::Error,
    },
    /// It took too long.
    #[error("Kea does not answer")]
    Silent,
    /// It answered something else.
    #[error("what answers is not Kea")]
    NotKea,
    /// It has no leases to tell.
    #[error(transparent)]
    Answer(AnswerError),
}

/// A conversation that goes on. It ends by itself, heard or not.
#[derive(Debug)]
pub struct Asking {
    answer: Receiver<Answered>,
}

/// How a conversation ended.
#[derive(Debug)]
pub struct Answered {
    /// All leases of the server.
    pub leases: Result<Leases, SocketError>,
    /// What it took.
    pub took: Duration,
}

impl Asking {
    /// Begins to ask the server behind the socket at `path`; leases that are over at `now` are left out, and so are those
    /// beyond `room`.
    pub fn begin(path: &Path, now: u64, room: usize) -> io::Result<Asking> {
        let (answered, answer) = sync_channel(1);
        let path = path.to_owned();
        let converse = move || {
            let begun = clock::uptime();
            let leases = ask(&path, now, room);
            let took = clock::uptime().saturating_sub(begun);
            // Nobody wants to know any more.
            let _ = answered.send(Answered { leases, took });
        };
        let thread = std::thread::Builder::new().name("kea".into());
        thread.spawn(converse)?;
        Ok(Asking { answer })
    }

    #[cfg(test)]
    pub fn of(answer: Receiver<Answered>) -> Asking {
        Asking { answer }
    }

    /// The answer, waited for that long at most; the conversation again where it goes on.
    pub fn wait(self, patience: Duration) -> Result<Answered, Asking> {
        match self.answer.recv_timeout(patience) {
            Ok(answered) => Ok(answered),
            Err(RecvTimeoutError::Timeout) => Err(self),
            // A panic of the thread was already printed by the panic hook.
            Err(RecvTimeoutError::Disconnected) => Ok(Answered {
                leases: Err(SocketError::Silent),
                took: ANSWER_MAX,
            }),
        }
    }
}

fn ask(path: &Path, now: u64, room: usize) -> Result<Leases, SocketError> {
    let mut leases = Leases::new(now, room);
    // Of the family that a server does not serve it has none, or knows no such command.
    let mut refusal = None;
    let mut answers = 0;
    for command in Command::ALL {
        match converse(path, command, &mut leases) {
            Ok(()) => answers += 1,
            Err(error @ SocketError::Answer(_)) => refusal = refusal.or(Some(error)),
            Err(error) => return Err(error),
        }
    }
    match refusal {
        Some(error) if answers == 0 => Err(error),
        _ => Ok(leases),
    }
}

fn converse(path: &Path, command: Command, leases: &mut Leases) -> Result<(), SocketError> {
    let failed = |operation| move |source| sort(operation, source);
    let mut stream = connect(path, SILENCE_MAX).map_err(failed("connect"))?;
    let request = command.request().as_bytes();
    stream.write_all(request).map_err(failed("ask"))?;
    let answer = Answer {
        stream,
        until: clock::uptime() + ANSWER_MAX,
    };
    let answer = BufReader::with_capacity(1 << 16, answer.take(ANSWER_BYTES_MAX));
    take_answer(answer, leases).map_err(|error| match error {
        AnswerError::Unreadable(error) => match error.io_error_kind() {
            Some(kind) => sort("read the answer", kind.into()),
            None => SocketError::NotKea,
        },
        error @ (AnswerError::Unsupported | AnswerError::Refused(_)) => SocketError::Answer(error),
    })
}

fn sort(operation: &'static str, source: io::Error) -> SocketError {
    let kind = source.kind();
    if kind == io::ErrorKind::WouldBlock || kind == io::ErrorKind::TimedOut {
        SocketError::Silent
    } else {
        SocketError::Io { operation, source }
    }
}

/// Each piece in its time, and all of them in theirs.
struct Answer {
    stream: UnixStream,
    until: Duration,
}

impl Read for Answer {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if clock::uptime() >= self.until {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::super::lease::tests::shown;
    use super::*;
    use std::os::unix::net::UnixListener;

    /// What is told of a server that answers its callers so, one after the other, and hangs up or does not.
    fn asked(answers: &'static [&'static str], hangs_up: bool) -> Result<Vec<String>, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("kea");
        let listener = UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || {
            let mut kept = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 64];
                let read = stream.read(&mut request).unwrap();
                assert!(request[..read].ends_with(b"-get-all\"}"));
                stream.write_all(answer.as_bytes()).unwrap();
                if !hangs_up {
                    kept.push(stream);
                }
            }
            kept
        });
        let answered = ask(&path, 0, 9);
        drop(server.join().unwrap());
        (answered.map(|leases| shown(&leases, 0))).map_err(|error| error.to_string())
    }

    const ONE: &str = r#"{"result":0,"arguments":{"leases":[{"ip-address":"10.0.0.1","cltt":1,"valid-lft":9,"hostname":"a"}]}}"#;
    const NO_SUCH: &str = r#"{ "result": 2, "text": "no" }"#;

    #[test]
    fn one_family_is_enough_and_nobody_is_waited_for() {
        assert_eq!(asked(&[ONE, NO_SUCH], true).unwrap(), ["10.0.0.1 a -"]);
        assert_eq!(asked(&[NO_SUCH, ONE], false).unwrap(), ["10.0.0.1 a -"]);
    }

    #[test]
    fn without_its_hook_kea_cannot_tell() {
        let error = asked(&[NO_SUCH, NO_SUCH], true).unwrap_err();
        assert!(error.contains("libdhcp_lease_cmds.so"), "{error}");
    }

    #[test]
    fn who_does_not_answer_or_is_not_kea_is_told() {
        assert_eq!(asked(&[""], false).unwrap_err(), "Kea does not answer");
        assert_eq!(
            asked(&["hello"], true).unwrap_err(),
            "what answers is not Kea"
        );
        assert_eq!(asked(&[""], true).unwrap_err(), "what answers is not Kea");
        let nobody = ask(Path::new("/nonexistent"), 0, 9)
            .unwrap_err()
            .to_string();
        assert!(
            nobody.starts_with("cannot connect: No such file"),
            "{nobody}"
        );
    }
}
