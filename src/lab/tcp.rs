//! TCP generators: one connection, payload counted at both sockets.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};

use super::ledger::{Ledger, Leg};
use super::pace::Pace;
use super::traffic::{Direction, Ends, Prepared, TcpLoad, Work, failed};
use super::{LabError, clock};
use crate::units::{BitRate, Uptime};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a blocked end looks whether it is to stop.
const IO_TIMEOUT: Duration = Duration::from_millis(50);
/// After the sender's end, so many empty waits in a row mean that the connection is cut.
const LAST_WAITS: u32 = 40;
const LARGEST_WRITE: usize = 64 << 10;
/// A paced sender writes what is due in this time at once.
const WRITES_PER_SECOND: f64 = 200.0;
const SMALLEST_WRITE: usize = 1448;

/// A stream of payload bytes.
#[derive(Debug, Clone, Copy)]
struct Stream {
    rate: Option<BitRate>,
    bytes: u64,
    deadline: Uptime,
}

impl Stream {
    fn write_size(&self) -> usize {
        self.rate.map_or(LARGEST_WRITE, |BitRate(rate)| {
            ((rate / 8.0 / WRITES_PER_SECOND) as usize).clamp(SMALLEST_WRITE, LARGEST_WRITE)
        })
    }
}

/// Connects and says what each thread does.
pub(super) fn prepare(
    name: &str,
    ends: &Ends<'_>,
    load: &TcpLoad,
    ledger: &Arc<Ledger>,
) -> Result<Prepared, LabError> {
    let listener = ends
        .server
        .namespace
        .run(|| TcpListener::bind(ends.server.address))?;
    let listener = listener.map_err(failed(name, "listen"))?;
    let local = listener.local_addr().map_err(failed(name, "listen"))?;
    let destination = ends.through.unwrap_or(local);
    let client = ends
        .client
        .namespace
        .run(|| open(ends.client.address, destination))?;
    let client = client.map_err(failed(name, "connect"))?;
    let source = client.local_addr().map_err(failed(name, "connect"))?;
    let server = accept(&listener).map_err(failed(name, "accept"))?;
    let stream = Stream {
        rate: load.rate,
        bytes: load.bytes,
        deadline: Uptime(clock::uptime().0 + load.longest),
    };
    let (sending, receiving) = (ledger.clone(), ledger.clone());
    let work: Vec<Work> = match load.direction {
        Direction::Upload | Direction::Exchange { .. } => vec![
            Box::new(move || send(client, stream, &sending.up, &sending)),
            Box::new(move || receive(server, &receiving.up)),
        ],
        Direction::Download => vec![
            Box::new(move || send(server, stream, &sending.down, &sending)),
            Box::new(move || receive(client, &receiving.down)),
        ],
    };
    Ok(Prepared {
        source,
        destination,
        work,
    })
}

/// Sends until all is sent, it is too late or it is told to stop.
fn send(mut socket: TcpStream, stream: Stream, leg: &Leg, ledger: &Ledger) -> io::Result<()> {
    let buffer = vec![0; stream.write_size()];
    let mut pace = Pace::new(stream.rate, clock::uptime());
    let mut left = stream.bytes;
    let sent = (|| {
        while left > 0 {
            let now = clock::uptime();
            pace.change(ledger.rate());
            if ledger.stop.wait(pace.due_in(now)) || now > stream.deadline {
                break;
            }
            let next = buffer
                .len()
                .min(usize::try_from(left).unwrap_or(usize::MAX));
            match socket.write(&buffer[..next]) {
                Ok(written) => {
                    leg.sent.add(written as u64, 0);
                    pace.spend(written as u64);
                    left -= written as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        socket.shutdown(Shutdown::Write)
    })();
    leg.done.set();
    sent
}

/// Counts what comes until the sender has closed.
fn receive(mut socket: TcpStream, leg: &Leg) -> io::Result<()> {
    let mut buffer = vec![0; LARGEST_WRITE];
    let mut empty_waits = 0;
    while empty_waits < LAST_WAITS {
        match socket.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => {
                empty_waits = 0;
                leg.received.add(length as u64, 0);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                empty_waits += u32::from(leg.done.is_set());
            }
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

/// The standard library cannot bind a connection's own end.
fn open(address: SocketAddr, destination: SocketAddr) -> io::Result<TcpStream> {
    let family = if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    bind(&socket, &address)?;
    // Connecting takes the send timeout as its own.
    set_socket_timeout(&socket, Timeout::Send, Some(CONNECT_TIMEOUT))?;
    connect(&socket, &destination)?;
    bounded(TcpStream::from(socket))
}

fn accept(listener: &TcpListener) -> io::Result<TcpStream> {
    let timeout = Timespec {
        tv_sec: CONNECT_TIMEOUT.as_secs() as i64,
        tv_nsec: 0,
    };
    let mut waiting = [PollFd::new(listener, PollFlags::IN)];
    if poll(&mut waiting, Some(&timeout))? == 0 {
        return Err(io::ErrorKind::TimedOut.into());
    }
    bounded(listener.accept()?.0)
}

fn bounded(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(IO_TIMEOUT))?;
    stream.set_write_timeout(Some(IO_TIMEOUT))?;
    Ok(stream)
}
