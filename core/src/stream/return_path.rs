//! The messages that go back: from the destination of a migration to its source.
//!
//! With switchover-ack a source goes on copying until [`Message::SwitchoverAck`] says that the destination's devices
//! have taken all initial data; the section's record that asks for it is INIT_DATA_SENT. Messages that postcopy and
//! recovery have are told by kind and length, so that a reader passes over them.
//! Source: the format that QEMU's `migration/migration.c` reads and writes; all numbers are big-endian.
//!
//! Deliberately absent: who sends what when. Up to QEMU 11.0 one SWITCHOVER_ACK speaks for all devices; 11.1 counts them
//! by device, and may want another after a device has begun anew.

use core::fmt;

/// What stands before a message's data: type and length.
pub const HEAD: usize = 4;

/// The longest message that [`Message::encode`] writes, in bytes.
pub const MESSAGE_MAX: usize = HEAD + 4;

/// A message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Message {
    /// The return path ends. The value is 0 where the destination has loaded all, else it has failed.
    Shut {
        /// The outcome.
        value: u32,
    },
    /// Answer to a PING of the stream.
    Pong {
        /// The PING's value.
        value: u32,
    },
    /// The devices have all initial data: the source may stop.
    SwitchoverAck,
    /// Another message: its head alone, behind which `length` bytes of data stand.
    Other {
        /// Any kind but the three above, which decoding gives as themselves.
        kind: Kind,
        /// Bytes behind the message's head.
        length: u16,
    },
}

/// What kind of message it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u16)]
pub enum Kind {
    /// The return path ends.
    #[doc(alias = "MIG_RP_MSG_SHUT")]
    Shut = 1,
    /// Answer to a PING.
    #[doc(alias = "MIG_RP_MSG_PONG")]
    Pong = 2,
    /// Postcopy asks for pages of a named block.
    #[doc(alias = "MIG_RP_MSG_REQ_PAGES_ID")]
    ReqPagesId = 3,
    /// Postcopy asks for pages of the same block.
    #[doc(alias = "MIG_RP_MSG_REQ_PAGES")]
    ReqPages = 4,
    /// Recovery tells which pages have come.
    #[doc(alias = "MIG_RP_MSG_RECV_BITMAP")]
    RecvBitmap = 5,
    /// Recovery goes on.
    #[doc(alias = "MIG_RP_MSG_RESUME_ACK")]
    ResumeAck = 6,
    /// The devices have all initial data.
    #[doc(alias = "MIG_RP_MSG_SWITCHOVER_ACK")]
    SwitchoverAck = 7,
}

/// Why bytes are not a message, or a message can't be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Error {
    /// The message is not whole: at least `wanted` bytes of it are needed, counted from its first.
    Short {
        /// Bytes from the message's first on.
        wanted: usize,
    },
    /// No message has this type.
    UnknownType {
        /// The type.
        got: u16,
    },
    /// Messages of this kind have another length.
    Length {
        /// The kind.
        kind: Kind,
        /// The length that they have.
        wanted: u16,
        /// The length in its place.
        got: u16,
    },
    /// The buffer can't hold the message.
    NoRoom {
        /// Bytes that the message has.
        wanted: usize,
        /// Bytes that there are.
        got: usize,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Short { wanted } => write!(f, "wanted {wanted} bytes of a message, got fewer"),
            Self::UnknownType { got } => {
                write!(f, "wanted the type of a message of the return path, got {got:#06x}")
            }
            Self::Length { kind, wanted, got } => {
                write!(f, "wanted {wanted} bytes of data in {kind}, got {got}")
            }
            Self::NoRoom { wanted, got } => write!(f, "wanted room for {wanted} bytes, got {got}"),
        }
    }
}

impl core::error::Error for Error {}

impl Message {
    /// Writes the message, of another kind its head, to the front of `out` and returns how many bytes that is.
    ///
    /// # Errors
    /// [`Error::NoRoom`] ([`MESSAGE_MAX`] always suffices); [`Error::Length`] where messages of its kind have another.
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, Error> {
        let (kind, length, value) = match *self {
            Self::Shut { value } => (Kind::Shut, VALUE, Some(value)),
            Self::Pong { value } => (Kind::Pong, VALUE, Some(value)),
            Self::SwitchoverAck => (Kind::SwitchoverAck, 0, None),
            Self::Other { kind, length } => (kind, length, None),
        };
        check_length(kind, length)?;
        let ([a, b], [c, d]) = (kind.raw().to_be_bytes(), length.to_be_bytes());
        match value.map(u32::to_be_bytes) {
            Some([e, f, g, h]) => put(out, [a, b, c, d, e, f, g, h]),
            None => put(out, [a, b, c, d]),
        }
    }

    /// Takes a message, of another kind its head, off the front of `bytes`; returns it and how many bytes that is.
    ///
    /// # Errors
    /// [`Error::Short`] says how many bytes to come back with; read exactly those, none is of the next message.
    /// [`Error::UnknownType`] and [`Error::Length`] say why this is no message.
    pub fn decode(bytes: &[u8]) -> Result<(Self, usize), Error> {
        let &[a, b, c, d] = bytes.first_chunk().ok_or(Error::Short { wanted: HEAD })?;
        let (kind, length) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        let kind = Kind::from_raw(kind).ok_or(Error::UnknownType { got: kind })?;
        check_length(kind, length)?;
        match kind {
            Kind::Shut => Ok((Self::Shut { value: value(bytes)? }, MESSAGE_MAX)),
            Kind::Pong => Ok((Self::Pong { value: value(bytes)? }, MESSAGE_MAX)),
            Kind::SwitchoverAck => Ok((Self::SwitchoverAck, HEAD)),
            Kind::ReqPagesId | Kind::ReqPages | Kind::RecvBitmap | Kind::ResumeAck => {
                Ok((Self::Other { kind, length }, HEAD))
            }
        }
    }
}

impl Kind {
    /// Every kind, in the order of their numbers.
    pub const ALL: [Self; 7] = [
        Self::Shut,
        Self::Pong,
        Self::ReqPagesId,
        Self::ReqPages,
        Self::RecvBitmap,
        Self::ResumeAck,
        Self::SwitchoverAck,
    ];

    /// The kind with the number `raw`, or nothing where QEMU has none that may be sent.
    #[must_use]
    pub fn from_raw(raw: u16) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.raw() == raw)
    }

    /// The kind's number.
    #[must_use]
    pub const fn raw(self) -> u16 {
        self as u16
    }

    /// The name in QEMU's source without its prefix, for instance `SWITCHOVER_ACK`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Shut => "SHUT",
            Self::Pong => "PONG",
            Self::ReqPagesId => "REQ_PAGES_ID",
            Self::ReqPages => "REQ_PAGES",
            Self::RecvBitmap => "RECV_BITMAP",
            Self::ResumeAck => "RESUME_ACK",
            Self::SwitchoverAck => "SWITCHOVER_ACK",
        }
    }

    /// The length that all messages of the kind have, where they have one.
    const fn length(self) -> Option<u16> {
        match self {
            Self::Shut | Self::Pong | Self::ResumeAck => Some(VALUE),
            Self::ReqPages => Some(12),
            Self::SwitchoverAck => Some(0),
            Self::ReqPagesId | Self::RecvBitmap => None,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

fn check_length(kind: Kind, got: u16) -> Result<(), Error> {
    match kind.length() {
        Some(wanted) if wanted != got => Err(Error::Length { kind, wanted, got }),
        Some(_) | None => Ok(()),
    }
}

/// The value behind the head.
fn value(bytes: &[u8]) -> Result<u32, Error> {
    let &[_, _, _, _, a, b, c, d] = bytes.first_chunk().ok_or(Error::Short { wanted: MESSAGE_MAX })?;
    Ok(u32::from_be_bytes([a, b, c, d]))
}

fn put<const N: usize>(out: &mut [u8], bytes: [u8; N]) -> Result<usize, Error> {
    let got = out.len();
    *out.first_chunk_mut().ok_or(Error::NoRoom { wanted: N, got })? = bytes;
    Ok(N)
}

/// The bytes of a value.
const VALUE: u16 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGES: [(Message, &[u8]); 7] = [
        (Message::Shut { value: 1 }, &[0, 1, 0, 4, 0, 0, 0, 1]),
        (Message::Pong { value: 0x0102_0304 }, &[0, 2, 0, 4, 1, 2, 3, 4]),
        (Message::Other { kind: Kind::ReqPagesId, length: 0x0102 }, &[0, 3, 1, 2]),
        (Message::Other { kind: Kind::ReqPages, length: 12 }, &[0, 4, 0, 12]),
        (Message::Other { kind: Kind::RecvBitmap, length: 7 }, &[0, 5, 0, 7]),
        (Message::Other { kind: Kind::ResumeAck, length: 4 }, &[0, 6, 0, 4]),
        (Message::SwitchoverAck, &[0, 7, 0, 0]),
    ];

    #[test]
    fn each_message_is_its_bytes() {
        for (message, bytes) in MESSAGES {
            let mut out = [0xa5; MESSAGE_MAX + 1];
            assert_eq!(message.encode(&mut out), Ok(bytes.len()), "{message:?}");
            assert_eq!(&out[..bytes.len()], bytes, "{message:?}");
            assert!(out[bytes.len()..].iter().all(|&byte| byte == 0xa5), "{message:?} wrote past its end");
        }
    }

    #[test]
    fn a_message_is_decoded_from_its_bytes_and_leaves_what_follows() {
        for (message, bytes) in MESSAGES {
            let mut followed = [0xff; MESSAGE_MAX + 3];
            followed[..bytes.len()].copy_from_slice(bytes);
            assert_eq!(Message::decode(&followed), Ok((message, bytes.len())));
        }
    }

    #[test]
    fn a_message_that_is_cut_asks_for_its_head_then_for_its_value() {
        for (message, bytes) in MESSAGES {
            for have in 0..bytes.len() {
                let wanted = if have < HEAD { HEAD } else { MESSAGE_MAX };
                assert_eq!(Message::decode(&bytes[..have]), Err(Error::Short { wanted }), "{message:?}");
            }
        }
    }

    #[test]
    fn a_flipped_bit_of_a_head_gives_another_message_or_none() {
        for (message, bytes) in MESSAGES {
            for bit in 0..bytes.len() * 8 {
                let mut flipped = [0; MESSAGE_MAX];
                flipped[..bytes.len()].copy_from_slice(bytes);
                flipped[bit / 8] ^= 1 << (bit % 8);
                let answer = Message::decode(&flipped);
                assert!(answer.is_err() || answer.is_ok_and(|(other, _)| other != message), "bit {bit}");
            }
        }
    }

    #[test]
    fn every_number_is_a_kind_of_its_own_or_refused() {
        for raw in 0..=u16::MAX {
            let [high, low] = raw.to_be_bytes();
            let answer = Message::decode(&[high, low, 0, 9]);
            match (Kind::from_raw(raw), raw) {
                (Some(kind), 3 | 5) => assert_eq!(answer, Ok((Message::Other { kind, length: 9 }, HEAD))),
                (Some(kind), 1 | 2 | 4 | 6 | 7) => {
                    let wanted = kind.length().unwrap();
                    assert_eq!(answer, Err(Error::Length { kind, wanted, got: 9 }));
                }
                (None, 0 | 8..) => assert_eq!(answer, Err(Error::UnknownType { got: raw })),
                (kind, _) => panic!("{raw} is {kind:?}"),
            }
        }
    }

    #[test]
    fn a_message_without_room_or_with_a_wrong_length_is_not_written() {
        for (message, bytes) in MESSAGES {
            for got in 0..bytes.len() {
                let mut out = [0xa5; MESSAGE_MAX];
                assert_eq!(message.encode(&mut out[..got]), Err(Error::NoRoom { wanted: bytes.len(), got }));
                assert_eq!(out, [0xa5; MESSAGE_MAX]);
            }
        }
        let message = Message::Other { kind: Kind::ResumeAck, length: 5 };
        let error = Error::Length { kind: Kind::ResumeAck, wanted: 4, got: 5 };
        assert_eq!(message.encode(&mut [0; MESSAGE_MAX]), Err(error));
    }
}
