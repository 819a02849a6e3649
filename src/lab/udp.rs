//! UDP generators. A sender never has more datagrams on their way than the queues between the ends hold, so that
//! what it sent is what arrives unless something in between drops on purpose.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_recv_buffer_size_force};
use rustix::net::{RecvFlags, recvfrom};

use super::ledger::{Ledger, Leg};
use super::pace::Pace;
use super::traffic::{Direction, Ends, Prepared, UdpLoad, Work, failed};
use super::{LabError, clock};
use crate::units::{BitRate, Uptime};

/// Well below netdev_max_backlog (1,000), the shortest queue between two ends.
const MOST_IN_FLIGHT: u64 = 256;
/// What has not arrived this long after the sender paused for it is lost.
const LOST_AFTER: Duration = Duration::from_millis(20);
/// Who has nothing to send or to take rests at least this long, and then does at once what is due.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
const READ_TIMEOUT: Duration = Duration::from_millis(20);
/// After the sender's end, so many empty waits in a row mean that the rest is lost.
const LAST_WAITS: u32 = 15;
const RECEIVE_BUFFER: usize = 8 << 20;
const MTU: u16 = 1500;

/// A stream of equal datagrams.
#[derive(Debug, Clone, Copy)]
struct Stream {
    payload: usize,
    /// IP and UDP headers.
    overhead: usize,
    rate: Option<BitRate>,
    datagrams: u64,
    deadline: Uptime,
}

impl Stream {
    fn packet_bytes(&self) -> u64 {
        (self.payload + self.overhead) as u64
    }
}

/// Opens the sockets and says what each thread does.
pub(super) fn prepare(
    name: &str,
    ends: &Ends<'_>,
    load: &UdpLoad,
    ledger: &Arc<Ledger>,
) -> Result<Prepared, LabError> {
    let server = ends.server.namespace.run(|| open(ends.server.address))?;
    let server = server.map_err(failed(name, "open the server's socket"))?;
    let local = server
        .local_addr()
        .map_err(failed(name, "open the server's socket"))?;
    let destination = ends.through.unwrap_or(local);
    let client = ends
        .client
        .namespace
        .run(|| connected(ends.client.address, destination))?;
    let client = client.map_err(failed(name, "open the client's socket"))?;
    let source = client
        .local_addr()
        .map_err(failed(name, "open the client's socket"))?;
    let overhead = if source.is_ipv4() { 28 } else { 48 };
    let stream = Stream {
        payload: fitting(load.payload, overhead),
        overhead,
        rate: load.rate,
        datagrams: load.datagrams,
        deadline: Uptime(clock::uptime().0 + load.longest),
    };
    let work = match load.direction {
        Direction::Upload => upload(client, server, stream, ledger),
        Direction::Download => download(client, server, stream, ledger),
        Direction::Exchange { reply } => {
            let replies = client
                .try_clone()
                .map_err(failed(name, "copy the client's socket"))?;
            exchange(
                client,
                replies,
                server,
                stream,
                fitting(reply, overhead),
                ledger,
            )
        }
    };
    Ok(Prepared {
        source,
        destination,
        work,
    })
}

fn upload(client: UdpSocket, server: UdpSocket, stream: Stream, ledger: &Arc<Ledger>) -> Vec<Work> {
    let (sending, receiving) = (ledger.clone(), ledger.clone());
    vec![
        Box::new(move || send(&client, stream, &sending.up, &sending)),
        Box::new(move || receive(&server, stream.overhead, &receiving.up, |_| Ok(()))),
    ]
}

fn download(
    client: UdpSocket,
    server: UdpSocket,
    stream: Stream,
    ledger: &Arc<Ledger>,
) -> Vec<Work> {
    let (asking, answering) = (ledger.clone(), ledger.clone());
    let request = Stream {
        datagrams: 1,
        rate: None,
        ..stream
    };
    vec![
        Box::new(move || {
            send(&client, request, &asking.up, &asking)?;
            receive(&client, stream.overhead, &asking.down, |_| Ok(()))
        }),
        Box::new(move || {
            let asked = receive(&server, stream.overhead, &answering.up, |client| {
                server.connect(client)
            });
            if answering.up.received.packets() == 0 {
                answering.down.done.set();
                return asked;
            }
            asked.and(send(&server, stream, &answering.down, &answering))
        }),
    ]
}

fn exchange(
    client: UdpSocket,
    replies: UdpSocket,
    server: UdpSocket,
    stream: Stream,
    reply: usize,
    ledger: &Arc<Ledger>,
) -> Vec<Work> {
    let (asking, answering, hearing) = (ledger.clone(), ledger.clone(), ledger.clone());
    let answer = vec![0; reply];
    vec![
        Box::new(move || send(&client, stream, &asking.up, &asking)),
        Box::new(move || {
            let answered = receive(&server, stream.overhead, &answering.up, |client| {
                server.send_to(&answer, client)?;
                answering.down.sent.add((reply + stream.overhead) as u64, 1);
                Ok(())
            });
            answering.down.done.set();
            answered
        }),
        Box::new(move || receive(&replies, stream.overhead, &hearing.down, |_| Ok(()))),
    ]
}

/// Sends until all is sent, it is too late or it is told to stop.
fn send(socket: &UdpSocket, stream: Stream, leg: &Leg, ledger: &Ledger) -> io::Result<()> {
    let buffer = vec![0; stream.payload];
    let mut pace = Pace::new(stream.rate, clock::uptime());
    let mut lost = 0;
    let sent = (|| {
        while leg.sent.packets() < stream.datagrams {
            let now = clock::uptime();
            pace.change(ledger.rate());
            let pause = pace.due_in(now);
            let stopped = if pause.is_zero() {
                ledger.stop.is_set()
            } else {
                ledger.stop.wait(pause.max(SHORTEST_PAUSE))
            };
            if stopped || now > stream.deadline {
                break;
            }
            lost += await_arrival(leg, lost);
            match socket.send(&buffer) {
                Ok(_) => {
                    leg.sent.add(stream.packet_bytes(), 1);
                    pace.spend(stream.packet_bytes());
                }
                // An ICMP error about an earlier datagram; this one was not sent.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    })();
    leg.done.set();
    sent
}

/// Pauses while too many datagrams are on their way. Returns how many of them have to be given up.
fn await_arrival(leg: &Leg, lost: u64) -> u64 {
    let pause = super::latch::Latch::default();
    let begun = clock::uptime();
    loop {
        let in_flight = leg
            .sent
            .packets()
            .saturating_sub(leg.received.packets() + lost);
        if in_flight < MOST_IN_FLIGHT {
            return 0;
        }
        if clock::uptime().since(begun) > LOST_AFTER {
            return in_flight;
        }
        pause.wait(Duration::from_micros(100));
    }
}

/// Counts what comes, and does `each` with its sender, until all that was sent has come or the rest is lost. Rests
/// whenever nothing is left to take, so that a thousand datagrams do not wake it a thousand times.
fn receive(
    socket: &UdpSocket,
    overhead: usize,
    leg: &Leg,
    mut each: impl FnMut(SocketAddr) -> io::Result<()>,
) -> io::Result<()> {
    let mut buffer = vec![0; MTU.into()];
    let mut empty_waits = 0;
    let mut flags = RecvFlags::empty();
    while empty_waits < LAST_WAITS {
        match recvfrom(socket, &mut buffer, flags) {
            Ok((_, length, from)) => {
                (empty_waits, flags) = (0, RecvFlags::DONTWAIT);
                leg.received.add((length + overhead) as u64, 1);
                if let Some(from) = from.and_then(|from| SocketAddr::try_from(from).ok()) {
                    each(from)?;
                }
            }
            Err(Errno::AGAIN) if flags.is_empty() => empty_waits += u32::from(leg.done.is_set()),
            Err(Errno::AGAIN) => {
                leg.done.wait(SHORTEST_PAUSE);
                flags = RecvFlags::empty();
            }
            Err(Errno::CONNREFUSED) => {}
            Err(error) => return Err(error.into()),
        }
        if leg.done.is_set() && leg.received.packets() >= leg.sent.packets() {
            break;
        }
    }
    Ok(())
}

fn open(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(address)?;
    // Without CAP_NET_ADMIN over the machine, as in a user namespace, rmem_max is the bound.
    if set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER).is_err() {
        set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER)?;
    }
    socket.set_read_timeout(Some(READ_TIMEOUT))?;
    Ok(socket)
}

fn connected(address: SocketAddr, destination: SocketAddr) -> io::Result<UdpSocket> {
    let socket = open(address)?;
    socket.connect(destination)?;
    Ok(socket)
}

fn fitting(payload: u16, overhead: usize) -> usize {
    usize::from(payload).min(usize::from(MTU) - overhead)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_waits_for_a_full_path_and_gives_up_what_does_not_arrive() {
        let leg = Leg::default();
        leg.sent.add(0, MOST_IN_FLIGHT - 1);
        assert_eq!(await_arrival(&leg, 0), 0);
        leg.sent.add(0, 1);
        assert_eq!(await_arrival(&leg, 0), MOST_IN_FLIGHT);
        assert_eq!(await_arrival(&leg, MOST_IN_FLIGHT), 0);
    }
}
