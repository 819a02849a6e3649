//! The server of the control socket: one JSON line in, one JSON line out, then it closes. It answers from the last
//! report, rendered at most once, and reaches the daemon by `try_send` only, so no client can delay a tick.

use std::cmp::Reverse;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rustix::process::{Resource, getrlimit};
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::report::Report;

/// After an accept failed for want of descriptors or memory, so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Descriptors that are not for clients: the daemon's own sockets, its log, and what is open for a moment only.
const OTHER_DESCRIPTORS: u64 = 32;

/// What a client may take of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once, fewer where the process may not have so many descriptors; one more closes the oldest.
    pub connections: usize,
    /// Length of a request, its newline included.
    pub request_bytes: usize,
    /// From the connection to the end of the request.
    pub request_time: Duration,
    /// For taking the answer.
    pub answer_time: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 64,
            request_bytes: 4096,
            request_time: Duration::from_secs(2),
            answer_time: Duration::from_secs(5),
        }
    }
}

/// Who asked, by the kernel's word (SO_PEERCRED).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// `None` where the kernel does not say.
    pub pid: Option<i32>,
    /// The effective user when it connected.
    pub uid: u32,
}

/// What the daemon is asked to do; the client was allowed to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlRequest {
    /// End, and leave the table counting.
    Stop(Peer),
    /// Read the configuration again.
    Reload(Peer),
}

#[derive(Debug, Deserialize)]
struct Request {
    request: String,
}

/// Answers clients until it is dropped. `listener` comes from [`super::socket::bind`].
pub async fn serve<M: From<ControlRequest> + Send + 'static>(
    listener: UnixListener,
    reports: watch::Receiver<Option<Arc<Report>>>,
    requests: SyncSender<M>,
    limits: Limits,
) {
    let desk = Arc::new(Desk {
        reports,
        requests,
        limits,
        own_uid: rustix::process::geteuid().as_raw(),
        rendered: Mutex::new(None),
    });
    let connections = limits.connections.min(spare_descriptors()).max(1);
    let mut open: Vec<(Option<i32>, AbortHandle)> = Vec::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                open.retain(|(_, connection)| !connection.is_finished());
                while open.len() >= connections {
                    open.remove(oldest_of_the_largest_crowd(&open)).1.abort();
                }
                let process = stream.peer_cred().ok().and_then(|peer| peer.pid());
                let desk = Arc::clone(&desk);
                let attended = tokio::spawn(async move { desk.attend(stream).await });
                open.push((process, attended.abort_handle()));
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
        // A crowd in the backlog must not push a client out before its request was even looked at.
        tokio::task::yield_now().await;
    }
}

/// The position of the connection that makes room: the oldest of the process that has the most.
fn oldest_of_the_largest_crowd<T>(open: &[(Option<i32>, T)]) -> usize {
    let crowd = |process| open.iter().filter(|(other, _)| *other == process).count();
    let positions = 0..open.len();
    positions
        .max_by_key(|at| (crowd(open[*at].0), Reverse(*at)))
        .unwrap_or(0)
}

fn spare_descriptors() -> usize {
    match getrlimit(Resource::Nofile).current {
        Some(most) => most.saturating_sub(OTHER_DESCRIPTORS) as usize,
        None => usize::MAX,
    }
}

/// What all connections share.
struct Desk<M> {
    reports: watch::Receiver<Option<Arc<Report>>>,
    requests: SyncSender<M>,
    limits: Limits,
    own_uid: u32,
    rendered: Mutex<Option<(Arc<Report>, Bytes)>>,
}

impl<M: From<ControlRequest>> Desk<M> {
    async fn attend(&self, mut stream: UnixStream) {
        let Ok(credentials) = stream.peer_cred() else {
            return;
        };
        let peer = Peer {
            pid: credentials.pid(),
            uid: credentials.uid(),
        };
        let line = timeout(
            self.limits.request_time,
            read_line(&mut stream, self.limits.request_bytes),
        );
        let answer = match line.await {
            Ok(Ok(line)) if line.is_empty() => return,
            Ok(Ok(line)) => self.answer(&line, peer).await,
            Ok(Err(ReadError::TooLong)) => {
                let limit = self.limits.request_bytes;
                refusal(&format!("a request has at most {limit} bytes"))
            }
            Ok(Err(ReadError::Io)) => return,
            Err(_) => refusal("no request came in time"),
        };
        // A client that does not take its answer has given it up.
        let _ = timeout(self.limits.answer_time, async {
            stream.write_all(&answer).await?;
            stream.shutdown().await
        })
        .await;
    }

    async fn answer(&self, line: &[u8], peer: Peer) -> Bytes {
        let request: Request = match serde_json::from_slice(line) {
            Ok(request) => request,
            Err(error) => return refusal(&format!("not a request: {error}")),
        };
        match request.request.as_str() {
            "status" => self.status().await,
            "stop" => self.pass_on("stop", ControlRequest::Stop(peer), peer),
            "reload" => self.pass_on("reload", ControlRequest::Reload(peer), peer),
            unknown => refusal(&format!(
                "unknown request {unknown:?}; known are status, stop and reload"
            )),
        }
    }

    async fn status(&self) -> Bytes {
        let mut reports = self.reports.clone();
        let first = timeout(self.limits.request_time, reports.wait_for(Option::is_some)).await;
        let report = match first {
            Ok(Ok(report)) => report.clone(),
            Ok(Err(_)) | Err(_) => None,
        };
        match report {
            Some(report) => self.render(report),
            None => refusal("no tick yet: the daemon is starting"),
        }
    }

    fn render(&self, report: Arc<Report>) -> Bytes {
        let mut rendered = self.rendered.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, line)) = rendered.as_ref()
            && Arc::ptr_eq(of, &report)
        {
            return line.clone();
        }
        let line = match serde_json::to_vec(report.as_ref()) {
            Ok(json) => line(json),
            Err(error) => return refusal(&format!("cannot render the report: {error}")),
        };
        *rendered = Some((report, line.clone()));
        line
    }

    fn pass_on(&self, word: &str, request: ControlRequest, peer: Peer) -> Bytes {
        if !may_command(peer.uid, self.own_uid) {
            let own = self.own_uid;
            return refusal(&format!(
                "{word} is for root and user {own}; you are user {}",
                peer.uid
            ));
        }
        match self.requests.try_send(request.into()) {
            Ok(()) => line(format!("{{\"accepted\":\"{word}\"}}").into_bytes()),
            Err(TrySendError::Full(_)) => refusal("busy with earlier requests; try again"),
            Err(TrySendError::Disconnected(_)) => refusal("the daemon is stopping"),
        }
    }
}

fn may_command(peer_uid: u32, own_uid: u32) -> bool {
    peer_uid == 0 || peer_uid == own_uid
}

enum ReadError {
    TooLong,
    Io,
}

/// The first line without its newline; what comes before the end of the stream counts as a line.
async fn read_line(stream: &mut UnixStream, limit: usize) -> Result<Vec<u8>, ReadError> {
    let mut line = Vec::new();
    let mut piece = [0_u8; 512];
    loop {
        let count = stream.read(&mut piece).await.map_err(|_| ReadError::Io)?;
        if count == 0 {
            return Ok(line);
        }
        line.extend_from_slice(&piece[..count]);
        let end = line.iter().position(|byte| *byte == b'\n');
        if end.unwrap_or(line.len()) >= limit {
            return Err(ReadError::TooLong);
        }
        if let Some(end) = end {
            line.truncate(end);
            return Ok(line);
        }
    }
}

fn refusal(message: &str) -> Bytes {
    line(
        serde_json::json!({ "error": message })
            .to_string()
            .into_bytes(),
    )
}

fn line(mut json: Vec<u8>) -> Bytes {
    json.push(b'\n');
    json.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Report {
        serde_json::from_str(include_str!("../../tests/data/report.json")).unwrap()
    }

    #[test]
    fn only_root_and_the_daemons_own_user_may_command() {
        assert!(may_command(0, 990));
        assert!(may_command(990, 990));
        assert!(!may_command(1000, 990));
        assert!(!may_command(1000, 0));
    }

    #[test]
    fn who_has_the_most_connections_makes_room() {
        let open = |processes: &[i32]| -> usize {
            let open: Vec<_> = processes
                .iter()
                .map(|process| (Some(*process), ()))
                .collect();
            oldest_of_the_largest_crowd(&open)
        };
        assert_eq!(open(&[1, 2, 3, 2]), 1);
        assert_eq!(open(&[1, 2, 3]), 0, "of as many the oldest");
        assert_eq!(open(&[5]), 0);
    }

    #[test]
    fn a_report_is_rendered_once() {
        let (_, reports) = watch::channel(None);
        let (requests, _) = std::sync::mpsc::sync_channel::<ControlRequest>(1);
        let desk = Desk {
            reports,
            requests,
            limits: Limits::default(),
            own_uid: 0,
            rendered: Mutex::new(None),
        };
        let report = Arc::new(example());
        let first = desk.render(Arc::clone(&report));
        assert_eq!(
            first.as_ptr(),
            desk.render(Arc::clone(&report)).as_ptr(),
            "the same bytes"
        );
        let next = desk.render(Arc::new(example()));
        assert_ne!(first.as_ptr(), next.as_ptr(), "another report, other bytes");
        assert_eq!(first, next);
    }

    #[test]
    fn a_request_the_daemon_has_no_room_for_is_refused_at_once() {
        let (_, reports) = watch::channel(None);
        let (requests, waiting) = std::sync::mpsc::sync_channel::<ControlRequest>(1);
        let desk = Desk {
            reports,
            requests,
            limits: Limits::default(),
            own_uid: 0,
            rendered: Mutex::new(None),
        };
        let peer = Peer {
            pid: Some(7),
            uid: 0,
        };
        let stop = ControlRequest::Stop(peer);
        assert_eq!(
            desk.pass_on("stop", stop, peer),
            "{\"accepted\":\"stop\"}\n"
        );
        assert!(desk.pass_on("stop", stop, peer).starts_with(b"{\"error\""));
        assert_eq!(waiting.try_recv(), Ok(stop));
    }
}
