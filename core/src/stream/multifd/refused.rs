//! What a [`Receiver`](super::Receiver) does not take: pieces from its peer, answers from its caller.
//!
//! Deliberately absent: what is wrong with a head's bytes; decoding says that.

use core::fmt;

/// Why the pieces on the channels are not the state of a device. Their heads are wrong, not their data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Refused {
    /// A second piece with the same number.
    Twice {
        /// The number.
        index: u32,
    },
    /// A piece with a number past that of the configuration, or a configuration that is not the last.
    BeyondLast {
        /// The number of the configuration.
        last: u32,
        /// The number of the piece.
        got: u32,
    },
    /// Each channel that goes on has a piece at its head that can't be kept.
    Beyond {
        /// The number of the piece that is missing.
        next: u32,
        /// The least number that a channel has at its head.
        nearest: u32,
        /// The length of that piece in bytes.
        length: u32,
        /// How many pieces can be kept.
        slots: usize,
        /// How many bytes each of them can have.
        slot: usize,
    },
    /// All channels have ended.
    Missing {
        /// The number of the piece that is missing.
        next: u32,
    },
    /// A channel has ended within a piece.
    Cut {
        /// The number of the piece.
        index: u32,
        /// Bytes of it that are missing.
        missing: usize,
    },
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Twice { index } => write!(f, "wanted packet {index} of the device once, got it twice"),
            Self::BeyondLast { last, got } => write!(
                f,
                "wanted no packet of the device behind {last}, which has the configuration, got {got}"
            ),
            Self::Beyond { next, nearest, length, slots, slot } => write!(
                f,
                "wanted packet {next} of the device on a channel, got {nearest} with {length} bytes as the nearest; \
                 {slots} packets of {slot} bytes can be kept"
            ),
            Self::Missing { next } => {
                write!(f, "wanted packet {next} of the device, got the end of every channel")
            }
            Self::Cut { index, missing } => {
                write!(
                    f,
                    "wanted {missing} more bytes of packet {index} of the device, got the channel's end"
                )
            }
        }
    }
}

impl core::error::Error for Refused {}

/// An answer that does not fit; it has changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Misuse {
    /// What was reported was not asked for, or of a channel that can't have it.
    WrongDone,
    /// There is no such channel.
    NoChannel {
        /// How many there are.
        wanted: usize,
        /// The number of the channel.
        got: usize,
    },
    /// More bytes were reported than were offered.
    TooMany {
        /// Bytes that were offered.
        offered: usize,
        /// Bytes that were reported.
        got: usize,
    },
}

impl fmt::Display for Misuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::WrongDone => f.write_str("what was reported was not asked for"),
            Self::NoChannel { wanted, got } => write!(f, "wanted one of {wanted} channels, got number {got}"),
            Self::TooMany { offered, got } => write!(f, "{got} bytes were reported, {offered} were offered"),
        }
    }
}

impl core::error::Error for Misuse {}
