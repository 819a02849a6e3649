//! A synchronous netlink conversation: requests out, acknowledgements in, with the kernel's own words when it
//! refuses. Shared by links and firewall, each of which makes its own messages.

use std::io;
use std::time::Duration;

use netlink_sys::Socket;
use rustix::net::sockopt::{Timeout, set_socket_timeout};

use super::{LabError, Namespace};

/// nlmsghdr: length, type, flags, sequence, port.
pub(super) const HEADER: usize = 16;
const NLMSG_ERROR: u16 = 2;
/// The error carries attributes behind the request's header.
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;
/// The kernel answers before send returns; this bounds a mistake in what is waited for.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// A socket that stays in the namespace it was opened for, whatever thread uses it.
#[derive(Debug)]
pub(super) struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    pub(super) fn open(namespace: &Namespace, protocol: isize) -> Result<Netlink, LabError> {
        let opened = namespace.run(|| {
            let mut socket = Socket::new(protocol)?;
            socket.bind_auto()?;
            socket.set_ext_ack(true)?;
            // Errors then repeat the header of the request only, so that their attributes are at a fixed place.
            socket.set_cap_ack(true)?;
            set_socket_timeout(&socket, Timeout::Recv, Some(LONGEST_WAIT))?;
            Ok(socket)
        })?;
        let socket = opened.map_err(|source| LabError::Netlink {
            operation: "open",
            object: format!("netlink socket in {}", namespace.name()),
            source,
            text: None,
        })?;
        Ok(Netlink {
            socket,
            sequence: 0,
        })
    }

    /// The number for the next message.
    pub(super) fn next_sequence(&mut self) -> u32 {
        self.sequence += 1;
        self.sequence
    }

    /// Sends one datagram of messages, of which `acknowledged` asked for an acknowledgement, and waits for those or
    /// the first refusal. Returns all else that came, whole messages.
    pub(super) fn exchange(
        &mut self,
        messages: &[u8],
        acknowledged: usize,
        operation: &'static str,
        object: &str,
    ) -> Result<Vec<Vec<u8>>, LabError> {
        let failed = |source, text| LabError::Netlink {
            operation,
            object: object.to_owned(),
            source,
            text,
        };
        self.socket
            .send(messages, 0)
            .map_err(|source| failed(source, None))?;
        let mut others = Vec::new();
        let mut missing = acknowledged;
        while missing > 0 {
            let (datagram, _) = self
                .socket
                .recv_from_full()
                .map_err(|source| failed(source, None))?;
            for message in split(&datagram) {
                match refusal(message) {
                    None => others.push(message.to_vec()),
                    Some((0, _)) => missing = missing.saturating_sub(1),
                    Some((code, text)) => {
                        return Err(failed(io::Error::from_raw_os_error(-code), text));
                    }
                }
            }
        }
        Ok(others)
    }
}

/// The whole messages of a datagram; what is cut off is left out.
fn split(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(*rest.first_chunk()?) as usize;
        let message = rest
            .get(..length)
            .filter(|message| message.len() >= HEADER)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// The code (0 for an acknowledgement, else a negative errno) and text of an NLMSG_ERROR.
fn refusal(message: &[u8]) -> Option<(i32, Option<String>)> {
    if u16_at(message, 4)? != NLMSG_ERROR {
        return None;
    }
    let code = i32::from_ne_bytes(*message.get(HEADER..)?.first_chunk()?);
    let has_text = u16_at(message, 6)? & NLM_F_ACK_TLVS != 0;
    let attributes = message.get(HEADER + 4 + HEADER..).filter(|_| has_text);
    Some((code, attributes.and_then(error_text)))
}

fn error_text(mut attributes: &[u8]) -> Option<String> {
    loop {
        let length = usize::from(u16_at(attributes, 0)?).max(4);
        if u16_at(attributes, 2)? == NLMSGERR_ATTR_MSG {
            let text = String::from_utf8_lossy(attributes.get(4..length)?);
            return Some(text.trim_end_matches('\0').to_owned());
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(offset..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
        let mut message = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        message.extend([0; 8]);
        message.extend(body);
        message
    }

    #[test]
    fn an_error_gives_its_code_and_the_kernels_words() {
        let mut body = (-17i32).to_ne_bytes().to_vec();
        body.extend([0; HEADER]);
        body.extend(8u16.to_ne_bytes());
        body.extend(2u16.to_ne_bytes());
        body.extend([0; 4]);
        body.extend(7u16.to_ne_bytes());
        body.extend(NLMSGERR_ATTR_MSG.to_ne_bytes());
        body.extend(b"no\0\0");
        let error = message(NLMSG_ERROR, NLM_F_ACK_TLVS, &body);
        assert_eq!(refusal(&error), Some((-17, Some("no".into()))));
    }

    #[test]
    fn a_cut_message_ends_the_datagram() {
        let mut datagram = message(16, 0, &[1, 2, 3, 4]);
        datagram.extend(&message(17, 0, &[0; 8])[..12]);
        assert_eq!(split(&datagram).count(), 1);
    }
}
