//! One netlink socket: requests, dumps and acknowledgements. It knows no subsystem; what a message means is the
//! business of the codecs.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use netlink_sys::SocketAddr;
use rustix::io::Errno;
use rustix::net::RecvFlags;
use rustix::net::sockopt::{self, Timeout};

use super::attr::{Attributes, HEADER_LENGTH, Malformed, Message, Messages, Writer};
use super::error::KernelError;

/// NLM_F_REQUEST.
pub const REQUEST: u16 = 0x1;
/// NLM_F_ACK: answer even when all is well.
pub const ACK: u16 = 0x4;
/// NLM_F_ROOT | NLM_F_MATCH: all of them.
pub const DUMP: u16 = 0x300;
/// NLM_F_EXCL: refuse where it exists.
pub const EXCLUSIVE: u16 = 0x200;
/// NLM_F_CREATE: make it if it does not exist.
pub const CREATE: u16 = 0x400;
/// NLM_F_APPEND: for rules, after those that exist.
pub const APPEND: u16 = 0x800;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// NLM_F_DUMP_INTR: what is dumped changed meanwhile, so something may be missing.
const DUMP_INTERRUPTED: u16 = 0x10;
/// NLM_F_CAPPED: an error echoes only the request's header.
const CAPPED: u16 = 0x100;
/// NLM_F_ACK_TLVS: an error carries attributes.
const ACK_TLVS: u16 = 0x200;
/// NLMSGERR_ATTR_MSG: the kernel's words.
const ERROR_TEXT: u16 = 1;

/// The kernel fills dump datagrams up to 32 KiB; larger buffers change nothing, smaller ones cost.
const BUFFER_BYTES: usize = 64 * 1024;
/// The kernel answers at once; a longer silence is a defect that must not hang the daemon.
const PATIENCE: Duration = Duration::from_secs(10);

/// A dump of 100,000 counters has some 400; a socket in which more waits than this is none of flowctl's.
const STALE_DATAGRAMS_MAX: usize = 1 << 16;

/// The sequence number of BATCH_BEGIN. What the kernel refuses as a whole (no privilege, another generation, or at
/// the commit) it answers under this number, and may not read to the last message.
pub const BATCH: u32 = 0;

/// How a dump ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DumpEnd {
    /// What was dumped changed meanwhile: something may be missing.
    pub interrupted: bool,
}

/// A socket of one netlink protocol, in the network namespace of the thread that opened it.
pub struct Netlink {
    socket: netlink_sys::Socket,
    port: u32,
    sequence: u32,
    writer: Writer,
    buffer: Vec<u8>,
}

impl Netlink {
    /// Opens and binds; `protocol` is one of `netlink_sys::protocols`.
    pub fn open(protocol: isize) -> Result<Self, KernelError> {
        let failed = |source| KernelError::Socket {
            operation: "open a netlink socket",
            source,
        };
        let mut socket = netlink_sys::Socket::new(protocol).map_err(failed)?;
        let port = socket.bind_auto().map_err(failed)?.port_number();
        set_up(&socket).map_err(failed)?;
        Ok(Netlink::new(socket, port, 0))
    }

    /// Goes on with a socket that another process has used, perhaps to its sudden end: what was still to be said to that
    /// one is read and forgotten first, which ends a dump in the middle too.
    pub fn resume(socket: netlink_sys::Socket) -> Result<Self, KernelError> {
        let failed = |source| KernelError::Socket {
            operation: "go on with a netlink socket",
            source,
        };
        let mut netlink = Netlink::new(socket, 0, 0);
        netlink.sequence = netlink.forget().map_err(failed)?;
        set_up(&netlink.socket).map_err(failed)?;
        let mut address = SocketAddr::new(0, 0);
        netlink.socket.get_address(&mut address).map_err(failed)?;
        netlink.port = address.port_number();
        Ok(netlink)
    }

    fn new(socket: netlink_sys::Socket, port: u32, sequence: u32) -> Self {
        Netlink {
            socket,
            port,
            sequence,
            writer: Writer::new(),
            buffer: vec![0; BUFFER_BYTES],
        }
    }

    /// Reads all there is, and returns the last sequence number that was in it: those after it no answer has had.
    fn forget(&mut self) -> io::Result<u32> {
        let flags = RecvFlags::DONTWAIT.bits() as i32;
        let mut sequence = 0;
        for _ in 0..STALE_DATAGRAMS_MAX {
            match self.socket.recv(&mut &mut self.buffer[..], flags) {
                Ok(received) => {
                    let messages = Messages::new(&self.buffer[..received]).flatten();
                    sequence = messages.last().map_or(sequence, |last| last.sequence);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(sequence),
                // Told once each: that answers were lost, or that a signal came.
                Err(error) if is_passing(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other("there is no end of what waits in it"))
    }

    /// The address by which the kernel names this socket in notifications.
    pub fn port(&self) -> u32 {
        self.port
    }

    /// Sends one request that dumps, and hands every answer to `each`.
    pub fn dump(
        &mut self,
        operation: &'static str,
        kind: u16,
        body: impl FnOnce(&mut Writer),
        each: impl FnMut(&Message<'_>) -> Result<(), Malformed>,
    ) -> Result<DumpEnd, KernelError> {
        self.dump_in_chunks(operation, kind, body, each, || {})
    }

    /// The same with a pause between the chunks that the dump comes in, 32 KiB at most each: `between` is called when all
    /// of one was handed to `each`, before the next is taken. The kernel waits meanwhile, with one chunk made.
    pub fn dump_in_chunks(
        &mut self,
        operation: &'static str,
        kind: u16,
        body: impl FnOnce(&mut Writer),
        mut each: impl FnMut(&Message<'_>) -> Result<(), Malformed>,
        mut between: impl FnMut(),
    ) -> Result<DumpEnd, KernelError> {
        self.request(operation, kind, REQUEST | DUMP, body)?;
        let mut interrupted = false;
        loop {
            let received = receive(&self.socket, &mut self.buffer, operation)?;
            for message in Messages::new(&self.buffer[..received]) {
                let message =
                    message.map_err(|source| KernelError::Malformed { operation, source })?;
                if message.sequence != self.sequence {
                    continue;
                }
                interrupted |= message.flags & DUMP_INTERRUPTED != 0;
                match message.kind {
                    NLMSG_DONE => {
                        return done(operation, &message).map(|()| DumpEnd { interrupted });
                    }
                    NLMSG_ERROR => {
                        if let Some(refused) = refusal(operation, String::new(), &message) {
                            return Err(refused);
                        }
                    }
                    _ => each(&message)
                        .map_err(|source| KernelError::Malformed { operation, source })?,
                }
            }
            between();
        }
    }

    /// Sends one request for one object. `None` when there is no such object.
    pub fn get<T>(
        &mut self,
        operation: &'static str,
        kind: u16,
        body: impl FnOnce(&mut Writer),
        read: impl FnOnce(&Message<'_>) -> Result<T, Malformed>,
    ) -> Result<Option<T>, KernelError> {
        self.request(operation, kind, REQUEST, body)?;
        loop {
            let received = receive(&self.socket, &mut self.buffer, operation)?;
            for message in Messages::new(&self.buffer[..received]) {
                let message =
                    message.map_err(|source| KernelError::Malformed { operation, source })?;
                if message.sequence != self.sequence {
                    continue;
                }
                if message.kind != NLMSG_ERROR {
                    return read(&message)
                        .map(Some)
                        .map_err(|source| KernelError::Malformed { operation, source });
                }
                match refusal(operation, String::new(), &message) {
                    Some(refused) if refused.errno() == Some(Errno::NOENT) => return Ok(None),
                    Some(refused) => return Err(refused),
                    None => {}
                }
            }
        }
    }

    fn request(
        &mut self,
        operation: &'static str,
        kind: u16,
        flags: u16,
        body: impl FnOnce(&mut Writer),
    ) -> Result<(), KernelError> {
        self.sequence = self.sequence.wrapping_add(1);
        self.writer.clear();
        self.writer.message(kind, flags, self.sequence, body);
        send(&self.socket, self.writer.bytes(), operation)
    }

    /// Sends a whole batch in one datagram and waits for the answer to message `last`, the only one that asks for
    /// one. `object(sequence)` names what the message of that sequence number was about.
    pub fn transact(
        &mut self,
        operation: &'static str,
        batch: &[u8],
        last: u32,
        object: impl Fn(u32) -> String,
    ) -> Result<(), KernelError> {
        // A datagram must fit the send buffer as a whole; the forced size is not capped by net.core.wmem_max.
        enlarge(batch.len() + 4096, |bytes, forced| {
            if forced {
                sockopt::set_socket_send_buffer_size_force(&self.socket, bytes)
            } else {
                sockopt::set_socket_send_buffer_size(&self.socket, bytes)
            }
        })
        .map_err(|source| KernelError::Socket { operation, source })?;
        send(&self.socket, batch, operation)?;
        let mut first_refusal = None;
        loop {
            let received = receive(&self.socket, &mut self.buffer, operation)?;
            for message in Messages::new(&self.buffer[..received]) {
                let message =
                    message.map_err(|source| KernelError::Malformed { operation, source })?;
                if message.kind != NLMSG_ERROR {
                    continue;
                }
                let refused = refusal(operation, object(message.sequence), &message);
                let of_whole = message.sequence == BATCH && refused.is_some();
                let answered_last = message.sequence == last || of_whole;
                first_refusal = first_refusal.or(refused);
                if answered_last {
                    return self.drained(first_refusal);
                }
            }
        }
    }

    /// Reads what the kernel still has to say of a batch, so that it is not taken for the answer to the next.
    fn drained(&mut self, refusal: Option<KernelError>) -> Result<(), KernelError> {
        let flags = RecvFlags::DONTWAIT.bits() as i32;
        while self.socket.recv(&mut &mut self.buffer[..], flags).is_ok() {}
        refusal.map_or(Ok(()), Err)
    }
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// ERESTART: the ruleset's generation is not the one the batch expects.
pub const ERESTART: Errno = Errno::from_raw_os_error(85);

/// Sets a buffer's size whatever the limits; within them where that is refused, as it is in every user namespace but
/// the first.
pub(super) fn enlarge(
    bytes: usize,
    set: impl Fn(usize, bool) -> Result<(), Errno>,
) -> io::Result<()> {
    match set(bytes, true) {
        Err(Errno::PERM) => Ok(set(bytes, false)?),
        result => Ok(result?),
    }
}

/// What every socket has, whoever used it before.
fn set_up(socket: &netlink_sys::Socket) -> io::Result<()> {
    rustix::io::ioctl_fionbio(socket, false)?;
    // Connected to the kernel: other processes cannot send to this socket.
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.set_ext_ack(true)?;
    socket.set_cap_ack(true)?;
    Ok(sockopt::set_socket_timeout(
        socket,
        Timeout::Recv,
        Some(PATIENCE),
    )?)
}

fn is_passing(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::NOBUFS | Errno::INTR))
}

fn send(
    socket: &netlink_sys::Socket,
    bytes: &[u8],
    operation: &'static str,
) -> Result<(), KernelError> {
    socket
        .send(bytes, 0)
        .map(|_| ())
        .map_err(|source| KernelError::Socket { operation, source })
}

fn receive(
    socket: &netlink_sys::Socket,
    buffer: &mut [u8],
    operation: &'static str,
) -> Result<usize, KernelError> {
    let failed = |source| KernelError::Socket { operation, source };
    let length = buffer.len();
    loop {
        match socket.recv(&mut &mut *buffer, RecvFlags::TRUNC.bits() as i32) {
            Ok(received) if received > length => {
                return Err(failed(io::Error::other(
                    "a netlink datagram was larger than the buffer",
                )));
            }
            Ok(received) => return Ok(received),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
}

/// NLMSG_DONE carries the dump's own result.
fn done(operation: &'static str, message: &Message<'_>) -> Result<(), KernelError> {
    match error_number(message) {
        Some(number) if number < 0 => Err(KernelError::Refused {
            operation,
            object: String::new(),
            source: io::Error::from_raw_os_error(-number),
            message: None,
        }),
        _ => Ok(()),
    }
}

/// The error an NLMSG_ERROR stands for; `None` for an acknowledgement.
fn refusal(operation: &'static str, object: String, message: &Message<'_>) -> Option<KernelError> {
    let number = error_number(message)?;
    if number == 0 {
        return None;
    }
    let source = io::Error::from_raw_os_error(number.saturating_neg());
    Some(KernelError::Refused {
        operation,
        object,
        source,
        message: error_text(message),
    })
}

fn error_number(message: &Message<'_>) -> Option<i32> {
    message
        .payload
        .first_chunk::<4>()
        .map(|bytes| i32::from_ne_bytes(*bytes))
}

fn error_text(message: &Message<'_>) -> Option<String> {
    if message.flags & ACK_TLVS == 0 {
        return None;
    }
    let echoed = message.payload.get(4..)?;
    let echoed_length = match message.flags & CAPPED {
        0 => u32::from_ne_bytes(*echoed.first_chunk::<4>()?) as usize,
        _ => HEADER_LENGTH,
    };
    let attributes = Attributes::new(echoed.get(echoed_length.next_multiple_of(4)..)?);
    let text = attributes
        .flatten()
        .find(|attribute| attribute.kind == ERROR_TEXT)?
        .text();
    Some(String::from_utf8_lossy(text).into_owned())
}
