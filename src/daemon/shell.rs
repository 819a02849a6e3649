//! The thread that faces outside: signals and the control socket, on a current-thread runtime. It reaches the loop
//! only through the inbox and reads only finished reports.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::thread::JoinHandle;

use tokio::net::UnixListener;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{oneshot, watch};

use super::Message;
use crate::report::Report;
use crate::sink::control::{self, ControlRequest, Limits, Peer};

/// Reports, each replacing the one before; `None` before the first tick.
pub type Reports = watch::Receiver<Option<Arc<Report>>>;

/// All that the thread needs of the system, so that nothing is wanting once it is to start.
pub struct Prepared {
    runtime: Runtime,
    listener: UnixListener,
    signals: Option<Signals>,
}

/// The running thread.
pub struct Shell {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Prepared {
    /// To serve `listener` and, if asked to, listen for SIGTERM, SIGINT and SIGHUP.
    pub fn new(listener: std::os::unix::net::UnixListener, signals: bool) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let guard = runtime.enter();
        let listener = UnixListener::from_std(listener)?;
        let signals = signals.then(Signals::listen).transpose()?;
        drop(guard);
        Ok(Prepared {
            runtime,
            listener,
            signals,
        })
    }

    /// Answers from now on.
    pub fn start(self, reports: Reports, inbox: SyncSender<Message>) -> io::Result<Shell> {
        let (stop, stopped) = oneshot::channel();
        let requests = inbox.clone();
        let stopped = async {
            let _ = stopped.await;
        };
        let limits = Limits::default();
        let serve = async move {
            tokio::select! {
                () = control::serve(self.listener, reports, requests, limits, stopped) => {}
                () = Signals::forward(self.signals, inbox) => {}
            }
        };
        let runtime = self.runtime;
        let thread = std::thread::Builder::new()
            .name("shell".into())
            .spawn(move || runtime.block_on(serve))?;
        Ok(Shell { stop, thread })
    }
}

impl Shell {
    /// Ends the thread; open connections are closed, those that wait for a verdict as soon as they have it.
    pub fn finish(self) {
        let _ = self.stop.send(());
        // A panic of the thread was already printed by the panic hook.
        let _ = self.thread.join();
    }
}

impl From<ControlRequest> for Message {
    fn from(request: ControlRequest) -> Message {
        let by = |peer: Peer| match peer.pid {
            Some(pid) => format!("asked by process {pid} of user {}", peer.uid),
            None => format!("asked by user {}", peer.uid),
        };
        match request {
            ControlRequest::Stop(peer) => Message::Stop {
                reason: by(peer),
                for_good: true,
            },
            ControlRequest::Reload(asker) => Message::Reload(Some(asker)),
            ControlRequest::Drill(request) => Message::Drill(request),
            ControlRequest::EndDrill(drilldown) => Message::EndDrill { drilldown },
        }
    }
}

fn stop(signal: &str) -> Message {
    Message::Stop {
        reason: signal.to_owned(),
        for_good: false,
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn forward(signals: Option<Signals>, inbox: SyncSender<Message>) {
        let Some(mut signals) = signals else {
            return std::future::pending().await;
        };
        loop {
            let message = tokio::select! {
                _ = signals.terminate.recv() => stop("SIGTERM"),
                _ = signals.interrupt.recv() => stop("SIGINT"),
                _ = signals.hang_up.recv() => Message::Reload(None),
            };
            // A full inbox means that the loop is behind: it must still hear this.
            let inbox = inbox.clone();
            let sent = tokio::task::spawn_blocking(move || inbox.send(message).is_ok()).await;
            if !sent.unwrap_or(false) {
                return std::future::pending().await;
            }
        }
    }
}
