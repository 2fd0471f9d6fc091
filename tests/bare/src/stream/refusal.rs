//! Why a migration failed, in words: what was wanted, what was got, and where.
//!
//! Deliberately absent: a way on. Whoever has a refusal in hands has brought the device back before, where it may go
//! back.

use core::fmt::{self, Write as _};

use heapless::{String, Vec};
use vfio_migration_core::session::{Code, Failure, Misuse};
use vfio_migration_core::stream::section::{self, Item};

use super::depth;
use crate::device::DRIVER;

/// Why a migration failed. Offsets count from the stream's first byte.
pub(crate) enum Refusal {
    /// The session's own answer, with where the device is; offsets in it count from its payload, which begins there.
    Session { payload: u64, failure: Failure },
    /// A mistake in this program.
    Misuse(Misuse),
    /// The line failed.
    Line { offset: u64, code: Code },
    /// Nothing came any more.
    Ended { offset: u64, missing: usize, what: &'static str },
    /// A preamble, a header or a footer is damaged.
    Section { offset: u64, error: section::Error },
    /// The stream does not go on as it must.
    Unexpected { offset: u64, wanted: &'static str, got: String<SHOWN> },
    /// The stream is of another kind of device.
    Driver { offset: u64, got: Vec<u8, SHOWN> },
    /// The checksum is not that of the bytes before it.
    Checksum { covered: u64, wanted: String<10>, got: Vec<u8, 10> },
    /// The description, which begins at `offset`, is not one to parse.
    Depth { offset: u64, error: depth::Error },
    /// The description does not fit what came.
    Description { offset: u64, reason: &'static str },
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self::Session { payload: 0, failure }
    }
}

impl From<Misuse> for Refusal {
    fn from(misuse: Misuse) -> Self {
        Self::Misuse(misuse)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Session { payload, failure: Failure { cause, .. } } => match cause.offset() {
                Some(offset) => {
                    write!(f, "at byte {}: in the payload from byte {payload} on, {cause}", payload + offset)
                }
                None => cause.fmt(f),
            },
            Self::Misuse(misuse) => misuse.fmt(f),
            Self::Line { offset, code } => write!(f, "at byte {offset}: the line failed: {code}"),
            Self::Ended { offset, missing, what } => {
                write!(f, "at byte {offset}: the stream ended, wanted {missing} more bytes of {what}")
            }
            Self::Section { offset, error } => write!(f, "at byte {offset}: {error}"),
            Self::Unexpected { offset, wanted, got } => {
                write!(f, "at byte {offset}: wanted {wanted}, got {got}")
            }
            Self::Driver { offset, got } => write!(
                f,
                "at byte {offset}: wanted a device of driver '{DRIVER}', got '{}'",
                got.escape_ascii()
            ),
            Self::Checksum { covered, wanted, got } => {
                let got = got.strip_suffix(b"\"}").unwrap_or(got).escape_ascii();
                write!(f, "at byte {covered}: wanted crc32c {} of all before it, got {got}", &wanted[..8])
            }
            Self::Depth { offset, error } => write!(f, "at byte {}: {error}", offset + error.offset()),
            Self::Description { offset, reason } => {
                write!(
                    f,
                    "at byte {offset}: wanted a description that fits the sections, got one that {reason}"
                )
            }
        }
    }
}

/// An item in words.
pub(crate) fn show(item: &Item<'_>) -> String<SHOWN> {
    let mut text = String::new();
    let _ = match item {
        Item::Configuration { name_length } => {
            write!(text, "a configuration with a name of {name_length} bytes")
        }
        Item::Subsection { .. } => write!(text, "a subsection"),
        Item::Begin { kind, id, instance, version, .. } => {
            write!(text, "{} of section {id}, instance {instance}, version {version}", kind.name())
        }
        Item::Continue { kind, id } => write!(text, "{} of section {id}", kind.name()),
        Item::Command { command, .. } => write!(text, "the command {command}"),
        Item::EndOfStream => write!(text, "the end of the stream"),
        Item::Description { length } => write!(text, "a description of {length} bytes"),
    };
    text
}

/// Room for an item in words, and for a name; what is longer is cut.
pub(crate) const SHOWN: usize = 64;
