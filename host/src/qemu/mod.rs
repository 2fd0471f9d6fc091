//! Reads the migration stream of a whole machine, item by item, at its own pace and in bounded memory.
//!
//! [`Walker`] goes from the preamble to the last byte and tells of each [`Event`] with its place. Each section is read
//! by what it is, and none is searched for. Sections of VFIO devices are walked record by record and those of guest
//! memory (`ram`) page by page; how long the sections of other devices are, the [`Description`] at the stream's end
//! says, which only a file can give before its time. Where that begins is looked for from the file's end, and the walk
//! must arrive there. [`Channel`] goes through one of the channels beside a stream.
//!
//! ```no_run
//! use vfio_migration_host::qemu::{Event, Walker};
//!
//! let mut walker = Walker::open(std::fs::File::open("machine.bin")?, None)?;
//! while let Some(event) = walker.next()? {
//!     match event {
//!         Event::Section(section) => println!("{} {}", section.offset, section.idstr),
//!         // Joined, a section's pieces are its payload, with every tag.
//!         Event::Payload { section, bytes, .. } => println!("  {} bytes of {}", bytes.len(), section.id),
//!         _ => {}
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Deliberately absent: what other devices' sections mean, and loading anything.

use std::fmt;

use vfio_migration_core::session::drive::Transport;

use crate::file::{Error, Reader};

mod ahead;
mod channel;
mod configuration;
mod description;
mod event;
mod extract;
mod payload;
mod pieces;
mod ram;
mod walk;

pub use channel::{Channel, ChannelEvent, MemoryPacket, StatePacket, go_together};
pub use configuration::Configuration;
pub use description::{DESCRIPTION_MAX, Description};
pub use event::{Contents, Event, Family, Kind, Phase, Section, VfioRecords, command_name};
pub use extract::{Extract, ExtractError, Wanted};
pub(crate) use payload::Payload;
pub use payload::Record;
pub use pieces::ChannelsError;
pub use ram::{Block, Pages, RamEntries};
pub use walk::{PIECE, Walker};

/// Why a stream can't be read any further though it may be whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unwalkable {
    /// A section's length stands in the description at the stream's end, which a pipe does not give before its time.
    Pipe {
        /// The section, in words.
        section: String,
    },
    /// A section's length stands in the description, and the file has none.
    NoDescription {
        /// The section, in words.
        section: String,
    },
    /// The description at the file's end says nothing of a section.
    NotDescribed {
        /// The section, in words.
        section: String,
    },
    /// A device other than VFIO and memory has sections of its own while the machine runs; no description tells of them.
    Live {
        /// The section, in words.
        section: String,
    },
    /// The body of a CONFIG record can have two lengths, and nothing tells which.
    Config,
    /// The capability mapped-ram: memory lies at fixed places in the file, outside of the sections.
    MappedRam,
    /// Memory was moved by RDMA.
    Rdma,
    /// A stream of its own follows, within this one, which only post-copy has.
    Packaged,
    /// A part of the configuration that is not known.
    Subsection {
        /// Its name.
        name: String,
    },
}

impl fmt::Display for Unwalkable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pipe { section } => write!(
                f,
                "how long {section} is stands in the description, the last thing in the stream: from a pipe it can't be \
                 read any further, from a file it can"
            ),
            Self::NoDescription { section } => {
                write!(f, "how long {section} is stands in a description, and none is at the end of the file")
            }
            Self::NotDescribed { section } => {
                write!(f, "how long {section} is stands in no entry of the description at the end of the file")
            }
            Self::Live { section } => {
                write!(f, "how long {section} is can't be told: it is no VFIO device, and not described")
            }
            Self::Config => f.write_str("how long the CONFIG record is only its device knows: two lengths fit"),
            Self::MappedRam => f.write_str(
                "the capability mapped-ram is on: memory lies at fixed places of the file, and QEMU itself can't load \
                 a VFIO device from such a file; migrate without mapped-ram",
            ),
            Self::Rdma => f.write_str("memory was moved by RDMA, past the stream"),
            Self::Packaged => f.write_str("post-copy begins, which VFIO devices don't have"),
            Self::Subsection { name } => write!(
                f,
                "how long the subsection '{}' of the configuration is can't be told",
                name.escape_debug()
            ),
        }
    }
}

/// Reads the next `N` bytes, which belong to `what`.
fn array<const N: usize>(reader: &mut Reader<impl Transport>, what: &'static str) -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    reader.exact(&mut bytes, what)?;
    Ok(bytes)
}

/// Reads `count` bytes of `what` that nobody looks at.
fn skip(reader: &mut Reader<impl Transport>, count: u64, what: &'static str) -> Result<(), Error> {
    let mut bytes = [0; 4096];
    let mut left = count;
    while left > 0 {
        let piece = usize::try_from(left).unwrap_or(bytes.len()).min(bytes.len());
        left -= piece as u64;
        reader.exact(&mut bytes[..piece], what).map_err(|error| error.with_more(left))?;
    }
    Ok(())
}
