//! One drilldown on demand over the control socket: lines go to the client until the verdict, whatever it sends asks for
//! that verdict, and when it is gone so is the drilldown. A slow client loses interim lists; nobody waits for it.

use std::future::pending;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::Duration;

use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{ReadHalf, WriteHalf};
use tokio::sync::watch;

use super::control::{ControlRequest, line, refusal};
use crate::demand::{About, Begun, Wish};
use crate::event::Record;
use crate::units::CounterName;

/// How soon the daemon is asked again whose inbox was full.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// What a client asks for: the keys of its request beside `request`.
#[derive(Debug, Deserialize)]
pub(super) struct Wanted {
    counter: Option<CounterName>,
    host: Option<IpAddr>,
    seconds: Option<f64>,
}

impl Wanted {
    /// The same as a wish, or what is wrong with it.
    pub(super) fn wish(self) -> Result<Wish, &'static str> {
        let about = match (self.counter, self.host) {
            (Some(counter), None) => About::Counter(counter),
            (None, Some(host)) => About::Host(host.to_canonical()),
            (Some(_), Some(_)) | (None, None) => return Err("give either a counter or a host"),
        };
        let lasting = self.seconds.map(Duration::try_from_secs_f64).transpose();
        let lasting = lasting.map_err(|_| "seconds is no length of time")?;
        Ok(Wish { about, lasting })
    }
}

/// The daemon's side of a drilldown that a client asks for. When nobody listens any more, the client is gone.
#[derive(Debug)]
pub struct DrillRequest {
    /// What it asks for.
    pub wish: Wish,
    /// What it is told; dropped without an end when the daemon stops.
    pub told: watch::Sender<Told>,
}

/// All that a client is to know, each interim list in the place of the one before.
#[derive(Debug, Default)]
pub struct Told {
    /// The drilldown goes on.
    pub begun: Option<Begun>,
    /// The newest interim list.
    pub list: Option<Arc<Record>>,
    /// The verdict, or why there is none.
    pub end: Option<Arc<Result<Record, String>>>,
}

/// The first line of an answer.
#[derive(Debug, Serialize)]
struct Accepted<'a> {
    accepted: &'static str,
    drilldown: &'a str,
    started: jiff::Timestamp,
    notes: &'a [String],
}

/// Serves one client to its end. `lasting` is set as long as its connection is not one of those that make room for
/// others; the verdict waits for a client that does not read it for `patience`.
pub(super) async fn converse<M: From<ControlRequest>>(
    stream: &mut UnixStream,
    wish: Wish,
    requests: &SyncSender<M>,
    patience: Duration,
    lasting: &AtomicBool,
) {
    let (sender, mut told) = watch::channel(Told::default());
    let request = ControlRequest::Drill(Box::new(DrillRequest { wish, told: sender }));
    if let Err(error) = requests.try_send(request.into()) {
        let reason = match error {
            TrySendError::Full(_) => "busy with earlier requests; try again",
            TrySendError::Disconnected(_) => STOPPING,
        };
        // A client that is gone needs no reason.
        let _ = stream.write_all(&refusal(reason)).await;
        return;
    }
    let settled = |told: &Told| told.begun.is_some() || told.end.is_some();
    let begun = match told.wait_for(settled).await {
        Ok(told) => told.begun.clone(),
        Err(_) => None,
    };
    lasting.store(begun.is_some(), Ordering::Relaxed);
    let id = begun.map(|begun| begun.id);
    let kept = told.clone();
    let (read, write) = stream.split();
    tokio::select! {
        _ = talk(write, told) => {}
        () = listen(read, requests, id) => {}
        () = overdue(kept, patience, lasting) => {}
    }
}

const STOPPING: &str = "the daemon is stopping";

/// Ends after the verdict, or with a client that is gone.
async fn talk(mut write: WriteHalf<'_>, mut told: watch::Receiver<Told>) -> io::Result<()> {
    let mut accepted = false;
    loop {
        let (begun, list, end) = {
            let told = told.borrow_and_update();
            (told.begun.clone(), told.list.clone(), told.end.clone())
        };
        if let Some(begun) = begun.filter(|_| !accepted) {
            write.write_all(&acceptance(&begun)).await?;
            accepted = true;
        }
        if let Some(end) = end {
            let last = match end.as_ref() {
                Ok(verdict) => rendered(verdict),
                Err(reason) => refusal(reason),
            };
            write.write_all(&last).await?;
            return write.shutdown().await;
        }
        // Nothing changes after it began but the list, until the end.
        if let Some(list) = list {
            write.write_all(&rendered(&list)).await?;
        }
        if told.changed().await.is_err() {
            write.write_all(&refusal(STOPPING)).await?;
            return write.shutdown().await;
        }
    }
}

fn acceptance(begun: &Begun) -> Bytes {
    rendered(&Accepted {
        accepted: "drill",
        drilldown: &begun.id,
        started: begun.started,
        notes: &begun.notes,
    })
}

fn rendered(value: &impl Serialize) -> Bytes {
    match serde_json::to_vec(value) {
        Ok(json) => line(json),
        Err(error) => refusal(&format!("cannot render the record: {error}")),
    }
}

/// Ends when the client is gone. Whatever it sends asks for the verdict, and so does that it sends no more.
async fn listen<M: From<ControlRequest>>(
    mut read: ReadHalf<'_>,
    requests: &SyncSender<M>,
    id: Option<String>,
) {
    let mut piece = [0_u8; 64];
    match read.read(&mut piece).await {
        Err(_) => return,
        Ok(0) if is_gone(&read) => return,
        Ok(_) => {}
    }
    if let Some(id) = id {
        while let Err(TrySendError::Full(_)) =
            requests.try_send(ControlRequest::EndDrill(id.clone()).into())
        {
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }
    // From here on it is the verdict that shows whether it is still there.
    pending().await
}

/// Whether the other end is closed, and not only for writing.
fn is_gone(read: &ReadHalf<'_>) -> bool {
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let stream: &UnixStream = read.as_ref();
    // No event is asked for: a hang-up is always reported.
    let mut stream = [PollFd::new(stream, PollFlags::empty())];
    let polled = poll(&mut stream, Some(&at_once));
    polled.is_err() || stream[0].revents().contains(PollFlags::HUP)
}

/// Ends when the verdict has not been taken for `patience`.
async fn overdue(mut told: watch::Receiver<Told>, patience: Duration, lasting: &AtomicBool) {
    // Where it is dropped without an end, that is told as one.
    let _ = told.wait_for(|told| told.end.is_some()).await;
    lasting.store(false, Ordering::Relaxed);
    tokio::time::sleep(patience).await;
}
