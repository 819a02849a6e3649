//! The server of the control socket: one JSON line in, one JSON line out, then it closes; of a drilldown on demand many
//! come out. It answers from the last report, rendered at most once, and reaches the daemon by `try_send` only, so no
//! client can delay a tick.

use std::cmp::Reverse;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rustix::process::{Resource, getrlimit};
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::drill::{DrillRequest, Wanted, converse};
use super::reload::{Asker, Outcome};
use crate::demand::Wish;
use crate::report::Report;

/// After an accept failed for want of descriptors or memory, so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Descriptors that are not for clients: the daemon's own sockets, its log, and what is open for a moment only.
const OTHER_DESCRIPTORS: u64 = 32;

/// How long answers that are on their way may take when the server ends.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

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
    /// For taking the verdict of a drilldown, which nobody else has.
    pub verdict_time: Duration,
    /// For reading a configuration, from a disk that may be slow, and going over to it.
    pub reload_time: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 64,
            request_bytes: 4096,
            request_time: Duration::from_secs(2),
            answer_time: Duration::from_secs(5),
            verdict_time: Duration::from_secs(60),
            reload_time: Duration::from_secs(60),
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
#[derive(Debug)]
pub enum ControlRequest {
    /// End, and leave the table counting.
    Stop(Peer),
    /// Read the configuration again, and say what came of it.
    Reload(Asker),
    /// Begin a drilldown.
    Drill(Box<DrillRequest>),
    /// Give the verdict of that one.
    EndDrill(String),
}

#[derive(Debug, Deserialize)]
struct Request {
    request: String,
}

/// Answers clients until `stopped`; answers on their way are still given then. `listener` comes from
/// [`super::socket::bind`].
pub async fn serve<M: From<ControlRequest> + Send + 'static>(
    listener: UnixListener,
    reports: watch::Receiver<Option<Arc<Report>>>,
    requests: SyncSender<M>,
    limits: Limits,
    stopped: impl Future<Output = ()>,
) {
    let desk = Arc::new(Desk::new(reports, requests, limits));
    tokio::select! {
        () = accept(&listener, &desk) => {}
        () = stopped => {}
    }
    drop(listener);
    let mut awaiting = desk.awaiting.subscribe();
    // Who does not take an answer in time goes without.
    let _ = timeout(LAST_ANSWERS, awaiting.wait_for(|count| *count == 0)).await;
}

async fn accept<M: From<ControlRequest> + Send + 'static>(
    listener: &UnixListener,
    desk: &Arc<Desk<M>>,
) {
    let connections = desk.limits.connections.min(spare_descriptors()).max(1);
    let mut open: Vec<Open> = Vec::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                open.retain(|connection| !connection.task.is_finished());
                while open.len() >= connections {
                    open.remove(who_makes_room(&open, connections / 2))
                        .task
                        .abort();
                }
                let process = stream.peer_cred().ok().and_then(|peer| peer.pid());
                let (desk, lasting) = (Arc::clone(desk), Arc::new(AtomicBool::new(false)));
                let flag = Arc::clone(&lasting);
                let attended = tokio::spawn(async move { desk.attend(stream, &flag).await });
                open.push(Open {
                    process,
                    lasting,
                    task: attended.abort_handle(),
                });
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
        // A crowd in the backlog must not push a client out before its request was even looked at.
        tokio::task::yield_now().await;
    }
}

/// One connection.
struct Open {
    process: Option<i32>,
    /// It waits for what takes its time, however old it gets.
    lasting: Arc<AtomicBool>,
    task: AbortHandle,
}

/// The position of the connection that makes room: the oldest of the process that has the most, but for the first
/// `spared` of those that wait for what takes its time.
fn who_makes_room(open: &[Open], spared: usize) -> usize {
    let is_spared = |at: &usize| open[*at].lasting.load(Ordering::Relaxed);
    let spared: Vec<usize> = (0..open.len()).filter(is_spared).take(spared).collect();
    let candidates = (0..open.len()).filter(|at| !spared.contains(at));
    let candidates: Vec<(usize, Option<i32>)> =
        candidates.map(|at| (at, open[at].process)).collect();
    oldest_of_the_largest_crowd(&candidates)
}

/// Of connections by age, each with its position and its process.
fn oldest_of_the_largest_crowd(open: &[(usize, Option<i32>)]) -> usize {
    let crowd = |process| open.iter().filter(|(_, other)| *other == process).count();
    let largest = open
        .iter()
        .max_by_key(|(at, process)| (crowd(*process), Reverse(*at)));
    largest.map_or(0, |(at, _)| *at)
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
    /// How many clients wait for what takes its time.
    awaiting: watch::Sender<usize>,
}

impl<M: From<ControlRequest>> Desk<M> {
    fn new(
        reports: watch::Receiver<Option<Arc<Report>>>,
        requests: SyncSender<M>,
        limits: Limits,
    ) -> Self {
        Desk {
            reports,
            requests,
            limits,
            own_uid: rustix::process::geteuid().as_raw(),
            rendered: Mutex::new(None),
            awaiting: watch::Sender::new(0),
        }
    }

    async fn attend(&self, mut stream: UnixStream, lasting: &AtomicBool) {
        let Ok(credentials) = stream.peer_cred() else {
            return;
        };
        let peer = Peer {
            pid: credentials.pid(),
            uid: credentials.uid(),
        };
        let request = timeout(
            self.limits.request_time,
            read_line(&mut stream, self.limits.request_bytes),
        );
        let answer = match request.await {
            Ok(Ok(line)) if line.is_empty() => return,
            Ok(Ok(line)) => match self.answer(&line, peer).await {
                Reply::Line(answer) => answer,
                Reply::Drill(wish) => {
                    let _counted = Counted::new(&self.awaiting);
                    let patience = self.limits.verdict_time;
                    converse(&mut stream, wish, &self.requests, patience, lasting).await;
                    return;
                }
                Reply::Reload(outcome) => {
                    let _counted = Counted::new(&self.awaiting);
                    lasting.store(true, Ordering::Relaxed);
                    self.reloaded(outcome).await
                }
            },
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

    async fn answer(&self, line: &[u8], peer: Peer) -> Reply {
        let request: Request = match serde_json::from_slice(line) {
            Ok(request) => request,
            Err(error) => return Reply::Line(refusal(&format!("not a request: {error}"))),
        };
        Reply::Line(match request.request.as_str() {
            "status" => self.status().await,
            "stop" => match self.pass_on("stop", ControlRequest::Stop(peer), peer) {
                Ok(()) => Bytes::from_static(b"{\"accepted\":\"stop\"}\n"),
                Err(refused) => refused,
            },
            "reload" => {
                let (asker, outcome) = oneshot::channel();
                match self.pass_on("reload", ControlRequest::Reload(asker), peer) {
                    Ok(()) => return Reply::Reload(outcome),
                    Err(refused) => refused,
                }
            }
            "drill" => match wish(line) {
                Ok(wish) => return Reply::Drill(wish),
                Err(wrong) => refusal(&wrong),
            },
            unknown => refusal(&format!(
                "unknown request {unknown:?}; known are status, drill, stop and reload"
            )),
        })
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

    fn pass_on(&self, word: &str, request: ControlRequest, peer: Peer) -> Result<(), Bytes> {
        if !may_command(peer.uid, self.own_uid) {
            return Err(forbidden(word, self.own_uid, peer.uid));
        }
        self.requests
            .try_send(request.into())
            .map_err(|error| match error {
                TrySendError::Full(_) => refusal("busy with earlier requests; try again"),
                TrySendError::Disconnected(_) => refusal("the daemon is stopping"),
            })
    }

    /// Waits for what comes of a reload, and until the report that is shown shows it.
    async fn reloaded(&self, outcome: oneshot::Receiver<Outcome>) -> Bytes {
        let Outcome { reloaded, sequence } = match timeout(self.limits.reload_time, outcome).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => return refusal("the daemon is stopping"),
            Err(_) => return refusal("it takes long; `flowctl log` will tell what came of it"),
        };
        let mut reports = self.reports.clone();
        let shows = |report: &Option<Arc<Report>>| {
            (report.as_ref()).is_some_and(|report| report.tick.sequence >= sequence)
        };
        // Where the disk does not answer, reports are late; the outcome is what it is.
        let _ = timeout(self.limits.request_time, reports.wait_for(shows)).await;
        match serde_json::to_vec(&reloaded) {
            Ok(json) => line(json),
            Err(error) => refusal(&format!("cannot render the outcome: {error}")),
        }
    }
}

/// What a request is answered with.
enum Reply {
    Line(Bytes),
    Drill(Wish),
    Reload(oneshot::Receiver<Outcome>),
}

/// Counts one more as long as it is there.
struct Counted<'a>(&'a watch::Sender<usize>);

impl<'a> Counted<'a> {
    fn new(count: &'a watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        Counted(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

fn wish(line: &[u8]) -> Result<Wish, String> {
    let wanted: Wanted =
        serde_json::from_slice(line).map_err(|error| format!("not a request: {error}"))?;
    Ok(wanted.wish()?)
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

/// Why a request is not granted, as an answer.
pub(super) fn refusal(message: &str) -> Bytes {
    line(
        serde_json::json!({ "error": message })
            .to_string()
            .into_bytes(),
    )
}

/// The same to someone who may not ask for it.
fn forbidden(word: &str, own_uid: u32, uid: u32) -> Bytes {
    let error = format!("{word} is for root and user {own_uid}; you are user {uid}");
    let answer = serde_json::json!({ "error": error, "forbidden": true });
    line(answer.to_string().into_bytes())
}

/// With its end.
pub(super) fn line(mut json: Vec<u8>) -> Bytes {
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
            let open: Vec<_> = (processes.iter().enumerate())
                .map(|(at, process)| (at, Some(*process)))
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
        let desk = Desk::new(reports, requests, Limits::default());
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
        let desk = Desk::new(reports, requests, Limits::default());
        let peer = Peer {
            pid: Some(7),
            uid: 0,
        };
        let stop = || desk.pass_on("stop", ControlRequest::Stop(peer), peer);
        assert!(stop().is_ok());
        assert!(stop().unwrap_err().starts_with(b"{\"error\""));
        assert!(matches!(waiting.try_recv(), Ok(ControlRequest::Stop(who)) if who == peer));
    }

    #[tokio::test]
    async fn who_waits_for_a_drilldown_makes_no_room_unless_they_are_too_many() {
        let open = |lasting: &[bool]| -> Vec<Open> {
            let open = lasting.iter().map(|lasting| Open {
                process: Some(1),
                lasting: Arc::new(AtomicBool::new(*lasting)),
                task: tokio::spawn(async {}).abort_handle(),
            });
            open.collect()
        };
        assert_eq!(who_makes_room(&open(&[true, true, false, false]), 2), 2);
        assert_eq!(who_makes_room(&open(&[true, true, true, false]), 2), 2);
        assert_eq!(who_makes_room(&open(&[true]), 0), 0);
    }
}
