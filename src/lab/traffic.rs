//! Generators: one flow each, between two ends of the lab, bounded in time and amount by construction, that know to
//! the byte what they moved. How the bytes are sent is the business of the UDP and TCP files.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use jiff::Timestamp;

use super::ledger::Ledger;
use super::{LabError, Namespace, Totals, clock, tcp, udp};
use crate::units::BitRate;

/// What a generator speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Datagrams, none fragmented.
    Udp,
    /// One connection.
    Tcp,
}

impl Protocol {
    /// As in the IP header.
    pub fn number(self) -> u8 {
        match self {
            Protocol::Udp => 17,
            Protocol::Tcp => 6,
        }
    }
}

/// A place in the lab where traffic begins or ends.
#[derive(Debug, Clone, Copy)]
pub struct Endpoint<'a> {
    /// Where the socket is.
    pub namespace: &'a Namespace,
    /// Its own address; with port 0 the kernel chooses one.
    pub address: SocketAddr,
}

/// Between whom.
#[derive(Debug, Clone, Copy)]
pub struct Ends<'a> {
    /// Who opens the flow.
    pub client: Endpoint<'a>,
    /// Who answers it.
    pub server: Endpoint<'a>,
    /// What the client addresses, where that is not the server's own address: a port forward.
    pub through: Option<SocketAddr>,
}

impl<'a> Ends<'a> {
    /// Client and server address each other directly.
    pub fn new(client: Endpoint<'a>, server: Endpoint<'a>) -> Ends<'a> {
        Ends {
            client,
            server,
            through: None,
        }
    }
}

/// Which way the bytes go; it is always the client who opens the flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From client to server.
    Upload,
    /// From server to client; with UDP after one datagram from the client.
    Download,
    /// UDP only: the server answers every datagram with one of this payload. With TCP the same as an upload.
    Exchange {
        /// Payload bytes of an answer.
        reply: u16,
    },
}

/// What a UDP generator sends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct UdpLoad {
    /// Which way.
    pub direction: Direction,
    /// Payload bytes of a datagram; cut to what fits an unfragmented packet (1472, over IPv6 1452).
    pub payload: u16,
    /// In layer 3 bits; `None` for as fast as the receiver keeps up, without loss.
    pub rate: Option<BitRate>,
    /// It ends after this many datagrams,
    pub datagrams: u64,
    /// or after this time.
    pub longest: Duration,
}

/// What a TCP generator sends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TcpLoad {
    /// Which way.
    pub direction: Direction,
    /// In payload bits; `None` for as fast as TCP goes.
    pub rate: Option<BitRate>,
    /// It ends after this many payload bytes,
    pub bytes: u64,
    /// or after this time.
    pub longest: Duration,
}

/// One flow and the threads that keep it going. Dropped, it stops.
#[derive(Debug)]
pub struct Generator {
    /// What it is called in a timeline and in errors.
    pub name: String,
    /// The client's own address and port, before any NAT.
    pub source: SocketAddr,
    /// What the client addresses, before any NAT.
    pub destination: SocketAddr,
    /// What it speaks.
    pub protocol: Protocol,
    /// Before this it had sent nothing.
    pub started: Timestamp,
    ledger: Arc<Ledger>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

/// What one of a generator's threads does.
pub(super) type Work = Box<dyn FnOnce() -> io::Result<()> + Send>;

/// Sockets in place, and what is to be done with them.
pub(super) struct Prepared {
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
    pub(super) work: Vec<Work>,
}

impl Generator {
    /// Opens both sockets and starts to send.
    pub fn udp(name: &str, ends: &Ends<'_>, load: &UdpLoad) -> Result<Generator, LabError> {
        Generator::start(name, Protocol::Udp, |ledger| {
            udp::prepare(name, ends, load, ledger)
        })
    }

    /// Connects, which takes until the server has answered, and starts to send.
    pub fn tcp(name: &str, ends: &Ends<'_>, load: &TcpLoad) -> Result<Generator, LabError> {
        Generator::start(name, Protocol::Tcp, |ledger| {
            tcp::prepare(name, ends, load, ledger)
        })
    }

    fn start(
        name: &str,
        protocol: Protocol,
        prepare: impl FnOnce(&Arc<Ledger>) -> Result<Prepared, LabError>,
    ) -> Result<Generator, LabError> {
        let ledger = Arc::new(Ledger::default());
        let Prepared {
            source,
            destination,
            work,
        } = prepare(&ledger)?;
        let mut generator = Generator {
            name: name.to_owned(),
            source,
            destination,
            protocol,
            started: clock::wall(),
            ledger,
            threads: Vec::new(),
        };
        for work in work {
            let thread = thread::Builder::new()
                .name(name.to_owned())
                .spawn(work)
                .map_err(failed(name, "start a thread"))?;
            generator.threads.push(thread);
        }
        Ok(generator)
    }

    /// What it has moved so far.
    pub fn totals(&self) -> Totals {
        self.ledger.totals()
    }

    /// From now on the same flow goes at this rate.
    pub fn set_rate(&self, rate: BitRate) {
        self.ledger.set_rate(rate);
    }

    /// Tells it to send no more; what is on its way still arrives.
    pub fn stop(&self) {
        self.ledger.stop.set();
    }

    /// Whether it has ended by itself or after a stop.
    pub fn is_finished(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Waits until it has ended by itself, or after a stop, and all that arrives has arrived.
    pub fn finish(mut self) -> Result<Totals, LabError> {
        self.join()?;
        Ok(self.totals())
    }

    pub(super) fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    fn join(&mut self) -> Result<(), LabError> {
        let results: Vec<io::Result<()>> = self
            .threads
            .drain(..)
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err(io::Error::other("its thread panicked")))
            })
            .collect();
        results
            .into_iter()
            .collect::<io::Result<()>>()
            .map_err(failed(&self.name, "go on"))
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        self.stop();
        // Nobody is left to hear how it ended; who wants to know calls finish.
        let _ = self.join();
    }
}

pub(super) fn failed(generator: &str, operation: &'static str) -> impl Fn(io::Error) -> LabError {
    move |source| LabError::Traffic {
        generator: generator.to_owned(),
        operation,
        source,
    }
}
