//! Netlink attributes on the wire: a borrowing iterator to read them and a buffer to write messages made of them.
//! No attribute is known here; unknown ones are for the caller to skip, and no input makes the reader panic.

use std::net::IpAddr;

/// Length of `struct nlmsghdr`.
pub const HEADER_LENGTH: usize = 16;
/// Length of `struct nfgenmsg`, which follows the header in every nfnetlink message.
pub const NFGEN_LENGTH: usize = 4;
/// Mask that takes NLA_F_NESTED and NLA_F_NET_BYTEORDER off an attribute's type.
const TYPE_MASK: u16 = 0x3fff;
/// NLA_F_NESTED: demanded on nested attributes by strict parsers.
pub(super) const NESTED: u16 = 0x8000;

/// A message or attribute that contradicts its own lengths, or is shorter than its meaning needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A length field points outside the buffer or below its own header.
    #[error("a netlink length points outside its message")]
    Length,
    /// An attribute that must hold this many bytes holds fewer.
    #[error("netlink attribute {attribute} is shorter than {expected} bytes")]
    Short {
        /// The attribute's type.
        attribute: u16,
        /// How many bytes it must have.
        expected: usize,
    },
    /// A required attribute is missing.
    #[error("netlink attribute {attribute} is missing")]
    Missing {
        /// The attribute's type.
        attribute: u16,
    },
}

/// One attribute: its type without flags, and its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// Type with the flag bits taken off.
    pub kind: u16,
    /// The payload, padding not included.
    pub value: &'a [u8],
}

impl<'a> Attribute<'a> {
    /// A big-endian u16 at the payload's beginning.
    pub fn be16(&self) -> Result<u16, Malformed> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    /// A big-endian u32 at the payload's beginning.
    pub fn be32(&self) -> Result<u32, Malformed> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    /// A big-endian u64 at the payload's beginning.
    pub fn be64(&self) -> Result<u64, Malformed> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// The payload's first byte.
    pub fn u8(&self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    /// The payload up to its first NUL.
    pub fn text(&self) -> &'a [u8] {
        let end = self
            .value
            .iter()
            .position(|&byte| byte == 0)
            .unwrap_or(self.value.len());
        &self.value[..end]
    }

    /// The payload's first N bytes.
    pub fn array<const N: usize>(&self) -> Result<[u8; N], Malformed> {
        self.value
            .first_chunk::<N>()
            .copied()
            .ok_or(Malformed::Short {
                attribute: self.kind,
                expected: N,
            })
    }

    /// The payload as an IPv4 or IPv6 address, as its length tells.
    pub fn ip(&self) -> Option<IpAddr> {
        match self.value.len() {
            4 => <[u8; 4]>::try_from(self.value).ok().map(IpAddr::from),
            16 => <[u8; 16]>::try_from(self.value).ok().map(IpAddr::from),
            _ => None,
        }
    }

    /// The attributes nested in the payload.
    pub fn nested(&self) -> Attributes<'a> {
        Attributes::new(self.value)
    }
}

/// Walks a run of attributes; ends after the first malformed one.
#[derive(Debug, Clone)]
pub struct Attributes<'a> {
    rest: &'a [u8],
}

impl<'a> Attributes<'a> {
    /// Over the attributes that `bytes` begins with.
    pub fn new(bytes: &'a [u8]) -> Self {
        Attributes { rest: bytes }
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<Attribute<'a>, Malformed>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.rest;
        // Two loads; of four bytes the compiler makes no two numbers, and most of what decoding costs is spent here.
        let header = rest
            .split_first_chunk::<2>()
            .map(|(length, after)| (length, after.first_chunk::<2>()));
        let Some((length, Some(kind))) = header else {
            self.rest = &[];
            return (!rest.is_empty()).then_some(Err(Malformed::Length));
        };
        let length = usize::from(u16::from_ne_bytes(*length));
        let kind = u16::from_ne_bytes(*kind) & TYPE_MASK;
        let Some(value) = rest.get(4..length) else {
            self.rest = &[];
            return Some(Err(Malformed::Length));
        };
        self.rest = rest.get(align(length)..).unwrap_or(&[]);
        Some(Ok(Attribute { kind, value }))
    }
}

/// One netlink message of a datagram.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// nlmsg_type: subsystem << 8 | message for nfnetlink, or one of the control types.
    pub kind: u16,
    /// nlmsg_flags.
    pub flags: u16,
    /// nlmsg_seq: echoes the request's.
    pub sequence: u32,
    /// nlmsg_pid: the port of the socket that asked.
    pub port: u32,
    /// All that follows the header.
    pub payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// nfgenmsg.res_id: for nf_tables the low 16 bits of the generation.
    pub fn resource(&self) -> Result<u16, Malformed> {
        let bytes = self.payload.get(2..4).ok_or(Malformed::Length)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// nfgenmsg.nfgen_family.
    pub fn family(&self) -> Result<u8, Malformed> {
        self.payload.first().copied().ok_or(Malformed::Length)
    }

    /// The attributes after nfgenmsg.
    #[inline]
    pub fn attributes(&self) -> Result<Attributes<'a>, Malformed> {
        self.payload
            .get(NFGEN_LENGTH..)
            .map(Attributes::new)
            .ok_or(Malformed::Length)
    }
}

/// Walks the messages of one datagram; ends after the first malformed one.
#[derive(Debug, Clone)]
pub struct Messages<'a> {
    rest: &'a [u8],
}

impl<'a> Messages<'a> {
    /// Over the messages of a received datagram.
    pub fn new(datagram: &'a [u8]) -> Self {
        Messages { rest: datagram }
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, Malformed>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let Some((header, _)) = self.rest.split_first_chunk::<HEADER_LENGTH>() else {
            self.rest = &[];
            return Some(Err(Malformed::Length));
        };
        let word = |at: usize| {
            u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let length = word(0) as usize;
        if length < HEADER_LENGTH || length > self.rest.len() {
            self.rest = &[];
            return Some(Err(Malformed::Length));
        }
        let message = Message {
            kind: u16::from_ne_bytes([header[4], header[5]]),
            flags: u16::from_ne_bytes([header[6], header[7]]),
            sequence: word(8),
            port: word(12),
            payload: &self.rest[HEADER_LENGTH..length],
        };
        self.rest = self.rest.get(align(length)..).unwrap_or(&[]);
        Some(Ok(message))
    }
}

/// Rounds up to netlink's alignment of 4 bytes.
const fn align(length: usize) -> usize {
    (length + 3) & !3
}

/// Messages being written, one after the other.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// Nothing written yet.
    pub fn new() -> Self {
        Writer::default()
    }

    /// Forgets what was written, keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }

    /// All that was written.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Writes one message; `body` writes what follows the header.
    pub fn message(
        &mut self,
        kind: u16,
        flags: u16,
        sequence: u32,
        body: impl FnOnce(&mut Writer),
    ) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        body(self);
        let length = (self.bytes.len() - start) as u32;
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
        self.pad();
    }

    /// Bytes as they are, for fixed headers.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// nfgenmsg: family, version 0, resource id.
    pub fn nfgen(&mut self, family: u8, resource: u16) {
        let [high, low] = resource.to_be_bytes();
        self.raw(&[family, 0, high, low]);
    }

    /// An attribute with these bytes.
    pub fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.raw(&((value.len() + 4) as u16).to_ne_bytes());
        self.raw(&kind.to_ne_bytes());
        self.raw(value);
        self.pad();
    }

    /// A big-endian u32.
    pub fn be32(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_be_bytes());
    }

    /// A text with its closing NUL.
    pub fn text(&mut self, kind: u16, value: &str) {
        self.raw(&((value.len() + 5) as u16).to_ne_bytes());
        self.raw(&kind.to_ne_bytes());
        self.raw(value.as_bytes());
        self.raw(&[0]);
        self.pad();
    }

    /// An attribute made of attributes. The caller keeps it below 64 KiB.
    pub fn nest(&mut self, kind: u16, body: impl FnOnce(&mut Writer)) {
        let start = self.bytes.len();
        self.raw(&[0; 2]);
        self.raw(&(kind | NESTED).to_ne_bytes());
        body(self);
        let length = (self.bytes.len() - start) as u16;
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(align(self.bytes.len()), 0);
    }
}

/// What a kernel sent, written down: one message a line, in hexadecimal digits.
#[cfg(test)]
pub(crate) mod recorded {
    use super::{Message, Messages};

    /// What `read` makes of each message.
    pub(crate) fn each<T>(hex: &str, mut read: impl FnMut(&Message<'_>) -> T) -> Vec<T> {
        let byte = |line: &str, at: usize| u8::from_str_radix(&line[at..at + 2], 16).unwrap();
        let read_line = |line: &str| {
            let bytes: Vec<u8> = (0..line.len())
                .step_by(2)
                .map(|at| byte(line, at))
                .collect();
            let mut messages = Messages::new(&bytes);
            read(&messages.next().unwrap().unwrap())
        };
        hex.lines().map(read_line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut writer = Writer::new();
        writer.message(0x0a12, 5, 7, |w| {
            w.nfgen(1, 0x1234);
            w.text(1, "abc");
            w.nest(2, |w| w.be32(3, 99));
        });
        let message = Messages::new(writer.bytes()).next().unwrap().unwrap();
        assert_eq!(
            (message.kind, message.flags, message.sequence),
            (0x0a12, 5, 7)
        );
        assert_eq!((message.family(), message.resource()), (Ok(1), Ok(0x1234)));
        let attributes: Vec<_> = message.attributes().unwrap().map(Result::unwrap).collect();
        assert_eq!((attributes[0].kind, attributes[0].text()), (1, &b"abc"[..]));
        assert_eq!(attributes[1].kind, 2, "the nested flag is masked");
        let inner = attributes[1].nested().next().unwrap().unwrap();
        assert_eq!((inner.kind, inner.be32()), (3, Ok(99)));
        assert_eq!(
            inner.be64(),
            Err(Malformed::Short {
                attribute: 3,
                expected: 8
            })
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic_or_loop(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let messages = Messages::new(&bytes).inspect(|message| {
                if let Ok(attributes) = message.and_then(|m| m.attributes()) {
                    assert!(attributes.count() <= 50);
                }
            });
            prop_assert!(messages.count() <= 20);
            prop_assert!(Attributes::new(&bytes).count() <= 51);
        }
    }
}
