//! What a walk through a stream tells.
//!
//! Deliberately absent: the bytes of memory and of other devices. They are counted.

use vfio_migration_core::stream::record::{Tag, Terminator};
use vfio_migration_core::stream::section::{Begins, Continues};

use super::{Block, Configuration, Description, RamEntries, Record};
use crate::file;

/// One thing in a stream. Offsets count from the stream's first byte.
#[derive(Debug)]
pub enum Event<'a> {
    /// The preamble and the CONFIGURATION; they begin the stream.
    Configuration {
        /// Bytes of both.
        length: u64,
        /// What it says.
        configuration: &'a Configuration,
    },
    /// The source tells the destination something, between two sections.
    Command {
        /// Where its type byte is.
        offset: u64,
        /// Its number, see [`command_name`].
        command: u16,
        /// Bytes with the type byte and the data.
        length: u64,
        /// When in the migration it was written.
        phase: Phase,
    },
    /// A section begins: its header was read.
    Section(&'a Section),
    /// Bytes of a VFIO section's payload, tags and all, as they pass; joined they are the payload.
    Payload {
        /// The section.
        section: &'a Section,
        /// Where they begin.
        offset: u64,
        /// The bytes, at most [`super::PIECE`].
        bytes: &'a [u8],
        /// Which record they belong to.
        tag: Tag,
        /// The record that ends with them, if one does.
        record: Option<Record>,
    },
    /// A section was read to its end.
    SectionEnd {
        /// The section.
        section: &'a Section,
        /// Where its footer begins.
        footer: u64,
        /// What it held.
        contents: Contents,
        /// The blocks of guest memory, as far as they are known.
        blocks: &'a [Block],
    },
    /// No section follows.
    EndOfStream {
        /// Where its byte is.
        offset: u64,
    },
    /// The description, the last thing in a stream.
    Description {
        /// Where its type byte is.
        offset: u64,
        /// Bytes with the head.
        length: u64,
        /// What it says of a whole machine's devices.
        description: &'a Description,
        /// What it says in a stream of ours; its checksum is right, and it fits the sections.
        ours: Option<&'a file::Description>,
    },
}

/// A section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// START, PART, END or FULL.
    pub kind: Kind,
    /// What its payload is.
    pub family: Family,
    /// The number by which later sections and the footer refer to it.
    pub id: u32,
    /// Its name (`idstr`), of a PART or END that of its START. What is not UTF-8 in it is replaced.
    pub idstr: String,
    /// Tells sections of one name apart.
    pub instance: u32,
    /// The version of its payload's layout.
    pub version: u32,
    /// Where its type byte is.
    pub offset: u64,
    /// Where its payload begins.
    pub payload: u64,
    /// When in the migration it was written.
    pub phase: Phase,
}

impl Section {
    /// The section in words.
    #[must_use]
    pub fn show(&self) -> String {
        let Self { kind, id, idstr, instance, .. } = self;
        format!("{} of section {id} '{}', instance {instance},", kind.name(), idstr.escape_debug())
    }

    /// What stands in the place of a section where there was none yet.
    pub(super) const fn none() -> Self {
        Self {
            kind: Kind::Full,
            family: Family::Opaque,
            id: 0,
            idstr: String::new(),
            instance: 0,
            version: 0,
            offset: 0,
            payload: 0,
            phase: Phase::Setup,
        }
    }
}

/// The kind of a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// The first of a device that has several.
    Start,
    /// One between START and END.
    Part,
    /// The last one of those that START began.
    End,
    /// The only one, or one behind END.
    Full,
}

impl Kind {
    /// The name in QEMU's source without its prefix.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Start => Begins::Start.name(),
            Self::Part => Continues::Part.name(),
            Self::End => Continues::End.name(),
            Self::Full => Begins::Full.name(),
        }
    }
}

impl From<Begins> for Kind {
    fn from(kind: Begins) -> Self {
        match kind {
            Begins::Start => Self::Start,
            Begins::Full => Self::Full,
        }
    }
}

impl From<Continues> for Kind {
    fn from(kind: Continues) -> Self {
        match kind {
            Continues::Part => Self::Part,
            Continues::End => Self::End,
        }
    }
}

/// What a section's payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// Guest memory.
    Ram,
    /// Records of a VFIO device.
    Vfio,
    /// Something whose length the description tells.
    Opaque,
}

impl Family {
    pub(super) fn of(idstr: &str) -> Self {
        match idstr {
            "ram" => Self::Ram,
            "vfio" => Self::Vfio,
            _ if idstr.ends_with("/vfio") => Self::Vfio,
            _ => Self::Opaque,
        }
    }
}

/// When in a migration something was written. A stream goes through them in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// The configuration and the START sections.
    #[default]
    Setup,
    /// From the first PART on: mostly while the machine runs.
    Iterations,
    /// From SWITCHOVER_START or the first END on: the machine stands still.
    StopCopy,
    /// The FULL sections behind the last END.
    Devices,
    /// The end byte and the description.
    End,
}

impl Phase {
    /// All of them, in their order.
    pub const ALL: [Self; 5] = [Self::Setup, Self::Iterations, Self::StopCopy, Self::Devices, Self::End];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Setup => "setup",
            Self::Iterations => "iterations",
            Self::StopCopy => "stop-copy",
            Self::Devices => "devices",
            Self::End => "end",
        }
    }

    /// The phase once a section of this kind has begun.
    pub(super) fn at(self, kind: Kind) -> Self {
        let begins = match kind {
            Kind::Start => Self::Setup,
            Kind::Part => Self::Iterations,
            Kind::End => Self::StopCopy,
            // Some devices are written before the first START.
            Kind::Full if self < Self::StopCopy => self,
            Kind::Full => Self::Devices,
        };
        self.max(begins)
    }
}

/// What a section held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contents {
    /// Entries of guest memory.
    Ram(RamEntries),
    /// Records of a VFIO device.
    Vfio(VfioRecords),
    /// So many bytes.
    Opaque(u64),
}

/// What the payload of a VFIO section held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VfioRecords {
    /// Records of every kind.
    pub records: u64,
    /// DATA records.
    pub data_records: u64,
    /// Their bytes, without their heads.
    pub data_bytes: u64,
    /// What ended it, once it has ended.
    pub terminator: Option<Terminator>,
}

/// The name of a command in QEMU's source without its prefix, or nothing where QEMU has none.
#[must_use]
pub const fn command_name(command: u16) -> Option<&'static str> {
    Some(match command {
        1 => "OPEN_RETURN_PATH",
        2 => "PING",
        3 => "POSTCOPY_ADVISE",
        4 => "POSTCOPY_LISTEN",
        5 => "POSTCOPY_RUN",
        6 => "POSTCOPY_RAM_DISCARD",
        PACKAGED => "PACKAGED",
        8 => "ENABLE_COLO",
        9 => "POSTCOPY_RESUME",
        10 => "RECV_BITMAP",
        11 => "SWITCHOVER_START",
        _ => return None,
    })
}

/// The command behind which a stream within the stream follows.
pub(super) const PACKAGED: u16 = 7;
