//! The messages that go back from the destination of a migration to its source, as a QEMU sends and wants them.
//!
//! Deliberately absent: who sends what when.

use vfio_migration_core::stream::return_path::{self, Error, Kind, Message};

use crate::memory::{Plain, bytes, check, put, read, write};
use crate::status::vfio_status;

/// What kind of message it is, by QEMU's numbers.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub enum vfio_message_kind {
    /// The return path ends: `value` is 0 where the destination has loaded all, else it has failed.
    VFIO_MESSAGE_SHUT = 1,
    /// Answer to a PING of the stream: its `value`.
    VFIO_MESSAGE_PONG = 2,
    /// Postcopy asks for pages of a named block; `length` bytes of data follow.
    VFIO_MESSAGE_REQ_PAGES_ID = 3,
    /// Postcopy asks for pages of the same block; `length` bytes of data follow.
    VFIO_MESSAGE_REQ_PAGES = 4,
    /// Recovery tells which pages have come; `length` bytes of data follow.
    VFIO_MESSAGE_RECV_BITMAP = 5,
    /// Recovery goes on; `length` bytes of data follow.
    VFIO_MESSAGE_RESUME_ACK = 6,
    /// The devices have all initial data, of which INIT_DATA_SENT told: the source may stop.
    VFIO_MESSAGE_SWITCHOVER_ACK = 7,
}

/// A message of the return path. What its kind does not name is 0 when decoded, and not looked at when encoded.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct vfio_message {
    /// Of enum vfio_message_kind.
    pub kind: u32,
    /// The value of a SHUT or PONG.
    pub value: u32,
    /// Bytes of data that follow a message that postcopy or recovery has; at most 65535.
    pub length: u32,
}

// SAFETY: repr(C), of integers.
unsafe impl Plain for vfio_message {}

/// Writes the message, of one with data its head, to the front of the `room` bytes of `out`, and how many bytes that is
/// into `length`, which may be NULL.
///
/// VFIO_STATUS_NO_ROOM where `out` is too short, VFIO_MESSAGE_MAX bytes always suffice; then `length` is what was wanted.
/// VFIO_STATUS_UNKNOWN_VALUE for a kind that is none and a length that no message of its kind has.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_message_encode(
    message: *const vfio_message,
    out: *mut u8,
    room: usize,
    length: *mut usize,
) -> vfio_status {
    let encoded = || {
        check(out)?;
        // SAFETY: by the contract of this function the caller has written `message`.
        let message = Message::try_from(unsafe { read(message) }?)?;
        let mut whole = [0; return_path::MESSAGE_MAX];
        let size = message.encode(&mut whole).map_err(|_| vfio_status::VFIO_STATUS_UNKNOWN_VALUE)?;
        // SAFETY: by the contract of this function `length` is NULL or the caller's.
        unsafe { write(length, size) }?;
        let whole = whole.get(..size).ok_or(vfio_status::VFIO_STATUS_NO_ROOM)?;
        // SAFETY: by the contract of this function `out` has so much room.
        unsafe { put(out, room, whole) }
    };
    encoded().into()
}

/// Takes a message, of one with data its head, off the front of the `count` bytes, into `message`, and how many bytes
/// that is into `length`.
///
/// VFIO_STATUS_SHORT: come back with `length` bytes; read exactly those, none is of the next message.
/// VFIO_STATUS_DAMAGED where no known message begins here, or one of a length that its kind does not have.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_message_decode(
    bytes_: *const u8,
    count: usize,
    message: *mut vfio_message,
    length: *mut usize,
) -> vfio_status {
    let decoded = || {
        check(message)?;
        check(length)?;
        // SAFETY: by the contract of this function there are so many bytes.
        match Message::decode(unsafe { bytes(bytes_, count) }?) {
            Ok((found, taken)) => {
                // SAFETY: by the contract of this function `message` is the caller's.
                unsafe { write(message, found.into()) }?;
                // SAFETY: by the contract of this function `length` is the caller's.
                unsafe { write(length, taken) }
            }
            Err(Error::Short { wanted }) => {
                // SAFETY: by the contract of this function `length` is the caller's.
                unsafe { write(length, wanted) }?;
                Err(vfio_status::VFIO_STATUS_SHORT)
            }
            Err(Error::UnknownType { .. } | Error::Length { .. } | Error::NoRoom { .. }) => {
                Err(vfio_status::VFIO_STATUS_DAMAGED)
            }
        }
    };
    decoded().into()
}

impl TryFrom<vfio_message> for Message {
    type Error = vfio_status;

    fn try_from(raw: vfio_message) -> Result<Self, vfio_status> {
        let vfio_message { value, length, .. } = raw;
        let unknown = vfio_status::VFIO_STATUS_UNKNOWN_VALUE;
        let kind = u16::try_from(raw.kind).ok().and_then(Kind::from_raw).ok_or(unknown)?;
        Ok(match kind {
            Kind::Shut => Self::Shut { value },
            Kind::Pong => Self::Pong { value },
            Kind::SwitchoverAck => Self::SwitchoverAck,
            Kind::ReqPagesId | Kind::ReqPages | Kind::RecvBitmap | Kind::ResumeAck => {
                Self::Other { kind, length: u16::try_from(length).map_err(|_| unknown)? }
            }
        })
    }
}

impl From<Message> for vfio_message {
    fn from(message: Message) -> Self {
        let of =
            |kind: Kind, value, length: u16| Self { kind: kind.raw().into(), value, length: length.into() };
        match message {
            Message::Shut { value } => of(Kind::Shut, value, 0),
            Message::Pong { value } => of(Kind::Pong, value, 0),
            Message::SwitchoverAck => of(Kind::SwitchoverAck, 0, 0),
            Message::Other { kind, length } => of(kind, 0, length),
        }
    }
}

/// The longest message that is encoded, in bytes.
pub const VFIO_MESSAGE_MAX: usize = 8;

// The header's numbers are core's.
const _: () = {
    use vfio_message_kind as of;
    assert!(VFIO_MESSAGE_MAX == return_path::MESSAGE_MAX);
    assert!(of::VFIO_MESSAGE_SHUT as u16 == Kind::Shut.raw());
    assert!(of::VFIO_MESSAGE_PONG as u16 == Kind::Pong.raw());
    assert!(of::VFIO_MESSAGE_REQ_PAGES_ID as u16 == Kind::ReqPagesId.raw());
    assert!(of::VFIO_MESSAGE_REQ_PAGES as u16 == Kind::ReqPages.raw());
    assert!(of::VFIO_MESSAGE_RECV_BITMAP as u16 == Kind::RecvBitmap.raw());
    assert!(of::VFIO_MESSAGE_RESUME_ACK as u16 == Kind::ResumeAck.raw());
    assert!(of::VFIO_MESSAGE_SWITCHOVER_ACK as u16 == Kind::SwitchoverAck.raw());
};
