//! What every function answers.
//!
//! Deliberately absent: the numbers behind an answer. The caller has them: it gave them in the call.

use vfio_migration_core::session::Misuse;
use vfio_migration_core::stream::section;

/// What a function answers. But for VFIO_STATUS_OK it is the caller's mistake, or says of bytes that they are not what
/// was wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum vfio_status {
    /// It was done.
    VFIO_STATUS_OK = 0,
    /// The order is not possible in the session's phase, or an order is still being carried out.
    VFIO_STATUS_WRONG_ORDER = 1,
    /// What was reported is not what was asked for last, or nothing was asked for since the last order.
    VFIO_STATUS_WRONG_DONE = 2,
    /// More bytes were reported than were offered.
    VFIO_STATUS_TOO_MANY = 3,
    /// The buffer is shorter than VFIO_BUFFER_MIN.
    VFIO_STATUS_SMALL_BUFFER = 4,
    /// The device's driver does not have the state that the order leads to.
    VFIO_STATUS_NO_STATE = 5,
    /// A migration can't begin in this state: only in RUNNING, or in STOP for the device of a paused machine.
    VFIO_STATUS_WRONG_STATE = 6,
    /// A pointer is NULL that must not be.
    VFIO_STATUS_NULL = 7,
    /// A pointer is not aligned for its type.
    VFIO_STATUS_MISALIGNED = 8,
    /// The storage holds no session of this kind, or one that was copied here from elsewhere.
    VFIO_STATUS_NOT_INITIALISED = 9,
    /// A number names nothing: a kind, a state, a tag.
    VFIO_STATUS_UNKNOWN_VALUE = 10,
    /// The features lack STOP_COPY: such a device can't be migrated.
    VFIO_STATUS_NOT_MIGRATABLE = 11,
    /// The buffer is longer than any memory can be, or overlaps the session's storage.
    VFIO_STATUS_BAD_MEMORY = 12,
    /// The bytes are not whole; the length says how many are wanted at least.
    VFIO_STATUS_SHORT = 13,
    /// There is too little room; the length says how much is wanted.
    VFIO_STATUS_NO_ROOM = 14,
    /// The bytes are not what was wanted.
    VFIO_STATUS_DAMAGED = 15,
}

impl From<Result<(), vfio_status>> for vfio_status {
    fn from(result: Result<(), vfio_status>) -> Self {
        result.err().unwrap_or(Self::VFIO_STATUS_OK)
    }
}

impl From<Misuse> for vfio_status {
    fn from(misuse: Misuse) -> Self {
        match misuse {
            Misuse::WrongOrder => Self::VFIO_STATUS_WRONG_ORDER,
            Misuse::WrongDone => Self::VFIO_STATUS_WRONG_DONE,
            Misuse::TooMany { .. } => Self::VFIO_STATUS_TOO_MANY,
            Misuse::SmallBuffer { .. } => Self::VFIO_STATUS_SMALL_BUFFER,
            Misuse::NoState(_) => Self::VFIO_STATUS_NO_STATE,
            Misuse::WrongState(_) => Self::VFIO_STATUS_WRONG_STATE,
        }
    }
}

impl From<&section::Error> for vfio_status {
    fn from(error: &section::Error) -> Self {
        match error {
            section::Error::Short { .. } => Self::VFIO_STATUS_SHORT,
            section::Error::NoRoom { .. } => Self::VFIO_STATUS_NO_ROOM,
            section::Error::UnknownType { .. }
            | section::Error::Preamble { .. }
            | section::Error::Footer { .. } => Self::VFIO_STATUS_DAMAGED,
        }
    }
}

impl vfio_status {
    /// In words.
    pub(crate) const fn words(self) -> &'static str {
        match self {
            Self::VFIO_STATUS_OK => "done",
            Self::VFIO_STATUS_WRONG_ORDER => "the order is not possible now",
            Self::VFIO_STATUS_WRONG_DONE => "what was reported was not asked for",
            Self::VFIO_STATUS_TOO_MANY => "more bytes were reported than were offered",
            Self::VFIO_STATUS_SMALL_BUFFER => "wanted a buffer of at least 64 bytes, got fewer",
            Self::VFIO_STATUS_NO_STATE => "wanted a state that the device's driver does not have",
            Self::VFIO_STATUS_WRONG_STATE => "wanted a device in RUNNING or STOP, got another state",
            Self::VFIO_STATUS_NULL => "wanted a pointer, got NULL",
            Self::VFIO_STATUS_MISALIGNED => "wanted a pointer that is aligned for its type",
            Self::VFIO_STATUS_NOT_INITIALISED => {
                "wanted storage in which a session was begun, and which was not copied since"
            }
            Self::VFIO_STATUS_UNKNOWN_VALUE => {
                "wanted a number of an enumeration, got one that it does not have"
            }
            Self::VFIO_STATUS_NOT_MIGRATABLE => "wanted a device with STOP_COPY",
            Self::VFIO_STATUS_BAD_MEMORY => {
                "wanted a buffer that fits into memory beside the session's storage"
            }
            Self::VFIO_STATUS_SHORT => "wanted more bytes of an item",
            Self::VFIO_STATUS_NO_ROOM => "wanted more room",
            Self::VFIO_STATUS_DAMAGED => "wanted other bytes here",
        }
    }
}

/// Gives an enumeration `from_raw`: which of it a number names. All its members must be listed, or it does not compile.
/// The enumeration itself stands outside, where the header is made from it.
macro_rules! numbered {
    ($of:ident { $($member:ident),+ $(,)? }) => {
        impl $of {
            const ALL: &[Self] = &[$(Self::$member),+];
            const _LISTED: fn(Self) = |of| match of { $(Self::$member)|+ => () };

            /// The member with a number.
            pub(crate) fn from_raw(raw: u32) -> Result<Self, crate::status::vfio_status> {
                let mut all = Self::ALL.iter().copied();
                all.find(|of| *of as u32 == raw).ok_or(crate::status::vfio_status::VFIO_STATUS_UNKNOWN_VALUE)
            }
        }
    };
}
pub(crate) use numbered;

numbered!(vfio_status {
    VFIO_STATUS_OK,
    VFIO_STATUS_WRONG_ORDER,
    VFIO_STATUS_WRONG_DONE,
    VFIO_STATUS_TOO_MANY,
    VFIO_STATUS_SMALL_BUFFER,
    VFIO_STATUS_NO_STATE,
    VFIO_STATUS_WRONG_STATE,
    VFIO_STATUS_NULL,
    VFIO_STATUS_MISALIGNED,
    VFIO_STATUS_NOT_INITIALISED,
    VFIO_STATUS_UNKNOWN_VALUE,
    VFIO_STATUS_NOT_MIGRATABLE,
    VFIO_STATUS_BAD_MEMORY,
    VFIO_STATUS_SHORT,
    VFIO_STATUS_NO_ROOM,
    VFIO_STATUS_DAMAGED,
});

// The words say the number.
const _: () = assert!(vfio_migration_core::session::BUFFER_MIN == 64);
