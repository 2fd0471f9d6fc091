//! Saves a device into a stream, and loads one from a stream, with every check and every recovery.
//!
//! `load` checks who wrote the stream before the driver gets a byte of it, and that the stream is whole and undamaged
//! before the device leaves RESUMING.
//!
//! Deliberately absent: files, names and signals; the program has those.

use std::io;

use rustix::io::Errno;
use vfio_migration_core::device::State;
use vfio_migration_core::session::{Cause, Code, Left, Misuse};
use vfio_migration_core::stream::record::Tag;
use vfio_migration_core::stream::section::{Begins, Continues};

use crate::errno::{code, in_words};
use crate::file::{self, Entry};
use crate::open::Identity;

mod load;
mod save;

pub use load::load;
pub use save::save;

/// Where a device is left when all went well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Leave {
    /// In RUNNING.
    #[default]
    Running,
    /// In STOP.
    Stopped,
}

/// What was saved or loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What the stream says of the device.
    pub entry: Entry,
    /// The bytes of the whole stream.
    pub stream_bytes: u64,
    /// The system calls that moved data out of or into the device.
    pub pieces: u64,
}

/// Why a transfer failed, and where it left the device.
#[derive(Debug, thiserror::Error)]
#[error("{reason}; {device}{}", if *stream_is_whole { "; the stream is whole and can be loaded" } else { "" })]
pub struct Error {
    /// What went wrong first.
    pub reason: Reason,
    /// Where the device is now.
    pub device: Left,
    /// Whether the stream was saved to its last byte and kept before it went wrong: it holds the device's state then.
    pub stream_is_whole: bool,
}

/// What went wrong first.
#[derive(Debug, thiserror::Error)]
pub enum Reason {
    /// The device's session failed inside a section, or between two.
    #[error("{}{cause}{}", place.at(cause), said_by_kernel(cause))]
    Session {
        /// Where in the stream.
        place: Place,
        /// What.
        cause: Cause,
    },
    /// The stream is not a file of ours, or damaged between payloads.
    #[error(transparent)]
    Stream(#[from] file::Error),
    /// The stream could not be written.
    #[error("the stream could not be written at byte {offset}: {}", in_words(*code))]
    Write {
        /// Where.
        offset: u64,
        /// The kernel's answer.
        code: Code,
    },
    /// The stream is of another kind of device.
    #[error(
        "the stream is of a device of driver '{}', wanted '{wanted}'; the driver of a file descriptor is said with \
         fd:N,driver=NAME",
        got.escape_debug()
    )]
    OtherDriver {
        /// This device's driver.
        wanted: String,
        /// The stream's.
        got: String,
    },
    /// The saved stream could not be kept: the caller's `keep` failed.
    #[error("the stream could not be kept: {0}")]
    Keep(io::Error),
    /// The device was left in the middle of a migration and refused the reset before a load.
    #[error("the device was left in {state} and refused its reset: {}", in_words(*code))]
    NotReset {
        /// The state it was found in.
        state: State,
        /// The kernel's answer.
        code: Code,
    },
    /// The device can't be used like this.
    #[error(transparent)]
    Misuse(#[from] Misuse),
}

/// Whose refusal a [`Reason`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The device's.
    ByDevice,
    /// The reader's, of the stream.
    Stream,
    /// The file's or the connection's.
    Io,
}

/// Where in a stream a session failed.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// Kind and name of the section, and the offset of its payload.
    section: Option<(&'static str, String, u64)>,
    record: Option<Tag>,
}

impl Reason {
    /// Whether a read or a write was given up because a stop was asked for.
    #[must_use]
    pub fn is_interrupt(&self) -> bool {
        let answer = match self {
            Self::Session { cause, .. } => cause.code(),
            Self::Stream(file::Error::Recv { code, .. }) | Self::Write { code, .. } => Some(*code),
            Self::Stream(_)
            | Self::Keep(_)
            | Self::NotReset { .. }
            | Self::OtherDriver { .. }
            | Self::Misuse(_) => None,
        };
        answer == Some(code(Errno::CANCELED))
    }

    /// Whose refusal this is.
    #[must_use]
    pub fn refused(&self) -> Refused {
        match self {
            Self::Session { cause, .. } => match cause {
                Cause::Refused { .. }
                | Cause::ReadData(_)
                | Cause::DrainedInStopCopy
                | Cause::WriteData { .. }
                | Cause::WriteDataZero { .. } => Refused::ByDevice,
                Cause::RecvClosed { .. }
                | Cause::Record(_)
                | Cause::Unexpected { .. }
                | Cause::RecvConfig { .. } => Refused::Stream,
                Cause::Cancelled
                | Cause::Send(_)
                | Cause::SendClosed
                | Cause::SendConfig(_)
                | Cause::Recv { .. } => Refused::Io,
            },
            Self::Stream(file::Error::Recv { .. }) | Self::Write { .. } | Self::Keep(_) => Refused::Io,
            Self::Stream(_) | Self::OtherDriver { .. } => Refused::Stream,
            Self::NotReset { .. } | Self::Misuse(_) => Refused::ByDevice,
        }
    }
}

impl Place {
    /// The section, the record and the byte of the stream at which `cause` came up, for the front of a message.
    fn at(&self, cause: &Cause) -> String {
        let Some((kind, name, payload)) = &self.section else { return String::new() };
        let record = self.record.map(|record| format!(", record {record}")).unwrap_or_default();
        let byte =
            cause.offset().map(|offset| format!(", byte {} of the stream", payload.saturating_add(offset)));
        format!("section {kind} of '{name}'{record}{}: ", byte.unwrap_or_default())
    }
}

/// What a transfer must know of its device, and what it may use.
#[derive(Debug)]
pub struct Job<'a> {
    /// The state that GET says.
    pub now: State,
    /// Which device it is.
    pub identity: &'a Identity,
    /// Where to leave it when all went well.
    pub leave: Leave,
    /// The session's buffer, at least 64 bytes.
    pub buffer: &'a mut [u8],
}

/// The kind of a section.
#[derive(Clone, Copy)]
enum Kind {
    Begin(Begins),
    Continue(Continues),
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Begin(kind) => kind.name(),
            Self::Continue(kind) => kind.name(),
        }
    }
}

/// The kernel's answer in words, where there is one.
fn said_by_kernel(cause: &Cause) -> String {
    cause.code().map(|code| format!(" ({})", in_words(code))).unwrap_or_default()
}

/// The version of a VFIO section.
const SECTION_VERSION: u32 = 1;
