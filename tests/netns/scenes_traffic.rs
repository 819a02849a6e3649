//! Traffic that one generator a flow is too much for, or that it does not speak: sprays from thousands of ports, echo
//! requests, GRE. What is sent has arrived when a call returns, so what was sent is the truth.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::ops::Range;
use std::time::Duration;

use flowctl::lab::{Endpoint, Family, Host, Namespace, clock};
use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType, bind, ipproto, socket_with};

use crate::support::{eventually, pause};

/// Fewer than any queue on the way and a socket's own buffer hold.
const BURST: usize = 50;
const IPV4_HEADER: usize = 20;
const GRE_HEADER: [u8; 4] = [0, 0, 0x08, 0x00];

/// IP and UDP headers; those of an echo request are as long.
pub fn udp_headers(address: IpAddr) -> u64 {
    if address.is_ipv4() { 28 } else { 48 }
}

/// A server that takes datagrams and answers none, not even with an error.
pub struct Sink {
    socket: UdpSocket,
    pub address: SocketAddr,
    taken: u64,
}

impl Sink {
    pub fn open(end: Endpoint<'_>) -> Sink {
        Sink::of(port(end))
    }

    /// For GRE.
    pub fn raw(end: Endpoint<'_>) -> Sink {
        Sink::of(raw(end.namespace, end.address.ip(), ipproto::GRE))
    }

    fn of(socket: UdpSocket) -> Sink {
        socket.set_nonblocking(true).unwrap();
        Sink {
            address: socket.local_addr().unwrap(),
            socket,
            taken: 0,
        }
    }

    /// Waits until that many more have arrived.
    pub fn take(&mut self, more: usize) {
        let all = self.taken + more as u64;
        eventually("what was sent arrives", || {
            loop {
                match self.socket.recv(&mut [0; 2048]) {
                    Ok(_) => self.taken += 1,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => panic!("{error}"),
                }
            }
            assert!(self.taken <= all, "more arrived than was sent");
            (self.taken == all).then_some(())
        });
    }
}

/// A socket at an end of the lab; with port 0 at one that the kernel chooses.
pub fn port(end: Endpoint<'_>) -> UdpSocket {
    let socket = end.namespace.run(|| UdpSocket::bind(end.address));
    socket.unwrap().unwrap()
}

/// A datagram from each of these sockets to the sink, and all over again, so many rounds of so long each.
pub fn rounds(sockets: &[UdpSocket], sink: &mut Sink, payload: usize, count: u32, each: Duration) {
    let begun = clock::uptime().0;
    for round in 1..=count {
        for burst in sockets.chunks(BURST) {
            for socket in burst {
                socket.send_to(&vec![0; payload], sink.address).unwrap();
            }
            sink.take(burst.len());
        }
        pause((begun + each * round).saturating_sub(clock::uptime().0));
    }
}

/// One datagram from each of these ports of a host, evenly over that time; returns their bytes.
pub fn spray(
    host: &Host,
    ports: Range<u16>,
    sink: &mut Sink,
    payload: usize,
    lasting: Duration,
) -> u64 {
    let ports: Vec<u16> = ports.collect();
    let family = family(sink.address.ip());
    let (begun, bursts) = (clock::uptime().0, ports.len().div_ceil(BURST) as u32);
    for (burst, number) in ports.chunks(BURST).zip(1..) {
        for source in burst {
            let socket = port(host.end(family, *source));
            socket.send_to(&vec![0; payload], sink.address).unwrap();
        }
        sink.take(burst.len());
        pause((begun + lasting * number / bursts).saturating_sub(clock::uptime().0));
    }
    ports.len() as u64 * (payload as u64 + udp_headers(sink.address.ip()))
}

/// Echo requests of one flow.
#[derive(Debug, Clone, Copy)]
pub struct Echo {
    pub id: u16,
    pub payload: usize,
    pub count: usize,
}

/// Sends them from `from`, where that address is, and sees each answered; returns the bytes of one way.
pub fn ping(namespace: &Namespace, from: IpAddr, to: IpAddr, echo: Echo) -> u64 {
    let protocol = match family(from) {
        Family::V4 => ipproto::ICMP,
        Family::V6 => ipproto::ICMPV6,
    };
    let socket = raw(namespace, from, protocol);
    socket.connect(SocketAddr::new(to, 0)).unwrap();
    let patience = Some(Duration::from_secs(10));
    socket.set_read_timeout(patience).unwrap();
    let mut left = echo.count;
    while left > 0 {
        let burst = left.min(BURST);
        for number in 0..burst {
            let request = echo_request(family(from), echo, (left - number) as u16);
            socket.send(&request).unwrap();
        }
        (0..burst).for_each(|_| await_reply(&socket, family(from), echo.id));
        left -= burst;
    }
    let headers = udp_headers(from) as usize;
    (echo.count * (echo.payload + headers)) as u64
}

/// So many GRE packets; returns their bytes.
pub fn tunnel(host: &Host, sink: &mut Sink, payload: usize, count: usize) -> u64 {
    let socket = raw(&host.namespace, host.v4, ipproto::GRE);
    let packet = [&GRE_HEADER[..], &vec![0; payload]].concat();
    let mut left = count;
    while left > 0 {
        let burst = left.min(BURST);
        (0..burst).for_each(|_| {
            socket.send_to(&packet, sink.address).unwrap();
        });
        sink.take(burst);
        left -= burst;
    }
    (count * (packet.len() + IPV4_HEADER)) as u64
}

fn family(address: IpAddr) -> Family {
    if address.is_ipv4() {
        Family::V4
    } else {
        Family::V6
    }
}

/// The standard library's datagram socket does for raw ones what it does for UDP.
fn raw(namespace: &Namespace, address: IpAddr, protocol: Protocol) -> UdpSocket {
    let domain = match family(address) {
        Family::V4 => AddressFamily::INET,
        Family::V6 => AddressFamily::INET6,
    };
    let opened = namespace.run(|| {
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(domain, SocketType::RAW, flags, Some(protocol))?;
        bind(&socket, &SocketAddr::new(address, 0))?;
        std::io::Result::Ok(UdpSocket::from(socket))
    });
    opened.unwrap().unwrap()
}

/// RFC 792 and RFC 4443: type, code, checksum, identifier, sequence. Over IPv6 the kernel fills in the checksum.
fn echo_request(family: Family, echo: Echo, sequence: u16) -> Vec<u8> {
    let kind = match family {
        Family::V4 => 8,
        Family::V6 => 128,
    };
    let mut packet = vec![kind, 0, 0, 0];
    packet.extend(echo.id.to_be_bytes());
    packet.extend(sequence.to_be_bytes());
    packet.resize(8 + echo.payload, 0);
    if family == Family::V4 {
        let words = packet.chunks(2).map(|pair| {
            let low = pair.get(1).copied().unwrap_or(0);
            u32::from(u16::from_be_bytes([pair[0], low]))
        });
        let sum: u32 = words.sum();
        let folded = (sum >> 16) + (sum & 0xffff);
        let checksum = !(folded as u16 + (folded >> 16) as u16);
        packet[2..4].copy_from_slice(&checksum.to_be_bytes());
    }
    packet
}

/// A raw socket gets every ICMP packet of the host; over IPv4 with its IP header.
fn await_reply(socket: &UdpSocket, family: Family, id: u16) {
    let (kind, at) = match family {
        Family::V4 => (0, IPV4_HEADER),
        Family::V6 => (129, 0),
    };
    loop {
        let mut packet = [0; 2048];
        let length = socket.recv(&mut packet).unwrap();
        let message = &packet[at..length];
        if message[0] == kind && message[4..6] == id.to_be_bytes() {
            return;
        }
    }
}
