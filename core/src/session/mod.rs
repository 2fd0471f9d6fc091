//! Who acts next? A session asks for one effect at a time and is told its outcome.
//!
//! The caller gives an order, then answers what [`Source::poll`] or [`Destination::poll`] asks for until the session
//! is idle again. Here are the words that both roles share.
//!
//! Deliberately absent: I/O, a clock, and policy. When to stop copying and how long to wait is the caller's to say.

use core::fmt;

pub mod destination;
pub mod drive;
pub mod event;
pub mod fleet;
pub mod precopy;
pub mod source;

pub use destination::{Destination, DestinationDone, DestinationEffect, DestinationPhase};
pub use event::Event;
pub use fleet::Fleet;
pub use precopy::{Chunk, PrecopyInfo};
pub use source::{Source, SourceDone, SourceEffect, SourcePhase};

use crate::device::State;
use crate::stream::record;

/// The smallest buffer that a session takes, in bytes.
pub const BUFFER_MIN: usize = 64;

/// The number with which the kernel or the link refused; an errno on Linux.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Code(pub i32);

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error {}", self.0)
    }
}

/// What a read of the device's data fd gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum DataRead {
    /// So many bytes; 0 is the same as [`DataRead::End`].
    Bytes(usize),
    /// `read` failed with ENOMSG: nothing now, more may come. Only PRE_COPY may say so.
    Drained,
    /// `read` gave 0: the end in STOP_COPY; some drivers say it in PRE_COPY for "nothing now".
    End,
}

/// Why a session failed: the first thing that went wrong, whatever recovery met after it. Offsets count from the first
/// byte of the section's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Cause {
    /// The caller cancelled.
    Cancelled,
    /// The kernel refused a state.
    Refused {
        /// The state that was asked for.
        state: State,
        /// The kernel's answer.
        code: Code,
    },
    /// The device could not say how much PRE_COPY has left.
    PrecopyInfo(Code),
    /// The device's data could not be read.
    ReadData(Code),
    /// The device said "nothing now" (ENOMSG) in STOP_COPY, where only the end may follow the data.
    DrainedInStopCopy,
    /// The link refused bytes.
    Send(Code),
    /// The link took no byte: its other end is gone.
    SendClosed,
    /// The link refused the configuration's body.
    SendConfig(Code),
    /// The link gave an error in the place of bytes.
    Recv {
        /// Where the missing bytes belong.
        offset: u64,
        /// The link's answer.
        code: Code,
    },
    /// The link ended inside a payload.
    RecvClosed {
        /// Where the missing bytes belong.
        offset: u64,
        /// How many of them the record still wanted.
        missing: u64,
    },
    /// The device refused data.
    WriteData {
        /// Where the refused bytes stand.
        offset: u64,
        /// The kernel's answer.
        code: Code,
    },
    /// The device took no byte of its data.
    WriteDataZero {
        /// Where the bytes stand.
        offset: u64,
    },
    /// The configuration's body could not be read or is not this device's.
    RecvConfig {
        /// Where the body begins.
        offset: u64,
        /// The caller's answer.
        code: Code,
    },
    /// The payload is damaged.
    Record(record::Error),
    /// A record that this session was not told to expect.
    Unexpected {
        /// The record.
        tag: record::Tag,
        /// Where it begins.
        offset: u64,
    },
}

impl Cause {
    /// The number with which kernel or link refused, where one of them did.
    #[must_use]
    pub const fn code(&self) -> Option<Code> {
        match *self {
            Self::Refused { code, .. }
            | Self::PrecopyInfo(code)
            | Self::ReadData(code)
            | Self::Send(code)
            | Self::SendConfig(code)
            | Self::Recv { code, .. }
            | Self::WriteData { code, .. }
            | Self::RecvConfig { code, .. } => Some(code),
            Self::Cancelled
            | Self::DrainedInStopCopy
            | Self::SendClosed
            | Self::RecvClosed { .. }
            | Self::WriteDataZero { .. }
            | Self::Record(_)
            | Self::Unexpected { .. } => None,
        }
    }

    /// Where in the payload it went wrong, for a cause that has a place there.
    #[must_use]
    pub const fn offset(&self) -> Option<u64> {
        match *self {
            Self::Recv { offset, .. }
            | Self::RecvClosed { offset, .. }
            | Self::WriteData { offset, .. }
            | Self::WriteDataZero { offset }
            | Self::RecvConfig { offset, .. }
            | Self::Unexpected { offset, .. } => Some(offset),
            Self::Record(error) => Some(error.offset()),
            Self::Cancelled
            | Self::Refused { .. }
            | Self::PrecopyInfo(_)
            | Self::ReadData(_)
            | Self::DrainedInStopCopy
            | Self::Send(_)
            | Self::SendClosed
            | Self::SendConfig(_) => None,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cancelled => f.write_str("cancelled"),
            Self::Refused { state, code } => write!(f, "the device refused {state}: {code}"),
            Self::PrecopyInfo(code) => write!(f, "the device refused PRECOPY_INFO: {code}"),
            Self::ReadData(code) => write!(f, "the device's data could not be read: {code}"),
            Self::DrainedInStopCopy => {
                f.write_str("the device answered ENOMSG in STOP_COPY, wanted data or the end")
            }
            Self::Send(code) => write!(f, "the link refused bytes: {code}"),
            Self::SendClosed => f.write_str("the link took no byte, its other end is gone"),
            Self::SendConfig(code) => write!(f, "the configuration could not be sent: {code}"),
            Self::Recv { offset, code } => {
                write!(f, "the link failed at byte {offset} of the payload: {code}")
            }
            Self::RecvClosed { offset, missing } => {
                write!(
                    f,
                    "the stream ended at byte {offset} of the payload, wanted {missing} more bytes of a record"
                )
            }
            Self::WriteData { offset, code } => {
                write!(f, "the device refused the data at byte {offset} of the payload: {code}")
            }
            Self::WriteDataZero { offset } => {
                write!(f, "the device took nothing of the data at byte {offset} of the payload")
            }
            Self::RecvConfig { offset, code } => {
                write!(f, "the configuration at byte {offset} of the payload was refused: {code}")
            }
            Self::Record(error) => error.fmt(f),
            Self::Unexpected { tag, offset } => {
                write!(f, "wanted a record that was agreed on at byte {offset} of the payload, got {tag}")
            }
        }
    }
}

/// Where a failed session left its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Left {
    /// In this state.
    At(State),
    /// Reset: RUNNING, but the guest's state in it is gone and its interrupts must be armed again.
    Reset,
    /// The reset was refused too. Nothing is known of the device.
    Unknown,
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(state) => write!(f, "the device is in {state}"),
            Self::Reset => f.write_str("the device was reset to RUNNING, its former content is gone"),
            Self::Unknown => f.write_str("the device refused its reset, its state is unknown"),
        }
    }
}

/// How a session failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Failure {
    /// What went wrong first.
    pub cause: Cause,
    /// Where the device is now.
    pub device: Left,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.cause, self.device)
    }
}

impl core::error::Error for Failure {}

/// The caller's mistake. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Misuse {
    /// The order is not possible in the session's phase, or an order is still being carried out.
    WrongOrder,
    /// What was reported is not what `poll` asked for last, or `poll` has not asked since the last order.
    WrongDone,
    /// More bytes were reported than were offered.
    TooMany {
        /// Bytes that the effect offered.
        offered: usize,
        /// Bytes that were reported.
        got: usize,
    },
    /// The buffer is shorter than [`BUFFER_MIN`].
    SmallBuffer {
        /// Its length in bytes.
        got: usize,
    },
    /// The device's driver does not have this state.
    NoState(State),
    /// A migration can't begin in this state: only in RUNNING, or in STOP for the device of a paused machine.
    WrongState(State),
}

impl fmt::Display for Misuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongOrder => f.write_str("the order is not possible now"),
            Self::WrongDone => f.write_str("what was reported was not asked for"),
            Self::TooMany { offered, got } => write!(f, "{got} bytes were reported, {offered} were offered"),
            Self::SmallBuffer { got } => {
                write!(f, "wanted a buffer of at least {BUFFER_MIN} bytes, got {got}")
            }
            Self::NoState(state) => write!(f, "wanted a device that has {state}"),
            Self::WrongState(state) => write!(f, "wanted a device in RUNNING or STOP, got {state}"),
        }
    }
}

impl core::error::Error for Misuse {}

/// Checks what both roles want of their caller at the start.
fn check_start(now: State, buffer: &[u8]) -> Result<(), Misuse> {
    if buffer.len() < BUFFER_MIN {
        return Err(Misuse::SmallBuffer { got: buffer.len() });
    }
    match now {
        State::Running | State::Stop => Ok(()),
        State::Error
        | State::StopCopy
        | State::Resuming
        | State::RunningP2p
        | State::PreCopy
        | State::PreCopyP2p => Err(Misuse::WrongState(now)),
    }
}
