//! The file that `vfio-migrate save` writes: a QEMU migration stream that holds only VFIO sections.
//!
//! Preamble, a CONFIGURATION with an empty machine name (the mark of such a file), sections, the end byte, and a
//! description that ends in a checksum of every byte before it. Nothing may follow. `FORMAT.md` shows it byte by byte.
//!
//! Deliberately absent: a format of our own. QEMU loads these files as they are.

use rustix::fd::AsFd;
use serde::{Deserialize, Serialize};
use vfio_migration_core::session::Code;
use vfio_migration_core::session::drive::Transport;
use vfio_migration_core::stream::multifd;
use vfio_migration_core::stream::pci_config::find;
use vfio_migration_core::stream::section::{self, Item};
use vfio_migration_core::stream::{pci_config, record};

use crate::errno::in_words;
use crate::frame;
pub use crate::frame::{DESCRIPTION_MAX, FORMAT, Writer};
use crate::qemu::Unwalkable;

/// Our part of a stream's description.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// The version of this part, [`FORMAT`]; a reader refuses a higher one.
    pub format: u32,
    /// One entry a device.
    pub devices: Vec<Entry>,
}

/// What a description says of one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The name of its sections.
    pub idstr: String,
    /// Its kernel driver.
    pub driver: String,
    /// Its bus address or UUID on the machine where it was saved.
    pub address: String,
    /// The bytes of all its DATA records, without their heads.
    pub data_bytes: u64,
}

/// Why bytes are not such a file. Offsets count from the stream's first byte.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The link failed.
    #[error("the stream could not be read at byte {offset}: {}", in_words(*code))]
    Recv {
        /// Where.
        offset: u64,
        /// The kernel's answer.
        code: Code,
    },
    /// The stream ended too early.
    #[error("the stream ended at byte {offset}, wanted {missing} more bytes of {what}")]
    Ended {
        /// Where.
        offset: u64,
        /// Bytes that were wanted.
        missing: u64,
        /// What they belong to.
        what: &'static str,
    },
    /// A preamble, a header or a footer is damaged.
    #[error("at byte {offset}: {error}")]
    Section {
        /// Where it begins.
        offset: u64,
        /// What is wrong with it.
        error: section::Error,
    },
    /// A record is damaged.
    #[error("at byte {}: {error}", payload.saturating_add(error.offset()))]
    Record {
        /// Where the payload begins.
        payload: u64,
        /// What is wrong, counted from there.
        error: record::Error,
    },
    /// The body of a CONFIG record is not one of its device.
    #[error("at byte {offset}: {error}")]
    Body {
        /// Where the body begins.
        offset: u64,
        /// What is wrong, counted from there.
        error: pci_config::Error,
    },
    /// The stream does not go on as it must.
    #[error("at byte {offset}: wanted {wanted}, got {got}")]
    Unexpected {
        /// Where.
        offset: u64,
        /// What may stand there.
        wanted: &'static str,
        /// What stands there.
        got: String,
    },
    /// A multifd channel is damaged. The offset counts from the channel's first byte.
    #[error("at byte {offset}: {error}")]
    Channel {
        /// Where its begin or the packet's head is.
        offset: u64,
        /// What is wrong with it.
        error: multifd::Error,
    },
    /// The channels beside a stream do not hold what they must.
    #[error("wanted {wanted} on the channels, got {got}")]
    Channels {
        /// What they must hold.
        wanted: String,
        /// What they hold.
        got: String,
    },
    /// The body of a CONFIG record is damaged.
    #[error("at byte {offset}: {error}")]
    Config {
        /// Where the body begins.
        offset: u64,
        /// What is wrong with it, counted from there.
        error: find::Error,
    },
    /// The stream may be whole, but can't be read any further.
    #[error("at byte {offset}: {reason}")]
    Unwalkable {
        /// Where.
        offset: u64,
        /// Why not.
        reason: Unwalkable,
    },
    /// The description's checksum is not that of the bytes before it.
    #[error(
        "the stream is damaged: wanted crc32c {wanted:08x} of its first {covered} bytes, its description has {:?}",
        got.trim_end_matches("\"}")
    )]
    Checksum {
        /// The checksum of the bytes.
        wanted: u32,
        /// What the description says.
        got: String,
        /// How many bytes it covers.
        covered: u64,
    },
    /// The description can't be understood.
    #[error("at byte {offset}: wanted a description of ours, got one that {reason}")]
    Description {
        /// Where its JSON begins.
        offset: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// The description has a version that this program does not know.
    #[error("the description has format {got}, wanted at most {FORMAT}: a newer program wrote this file")]
    NewerFormat {
        /// Its version.
        got: u32,
    },
    /// The description does not fit the sections before it.
    #[error("wanted {wanted} by the description, got {got} in the sections before it")]
    Mismatch {
        /// What the description says.
        wanted: String,
        /// What was read.
        got: String,
    },
    /// Bytes follow the description.
    #[error("at byte {offset}: wanted the end of the stream behind its description, got more bytes")]
    Trailing {
        /// Where they begin.
        offset: u64,
    },
}

impl Description {
    /// Checks that it describes as many devices as were read.
    ///
    /// # Errors
    /// [`Error::Mismatch`].
    pub fn check_count(&self, read: usize) -> Result<(), Error> {
        let said = self.devices.len();
        if said == read {
            return Ok(());
        }
        Err(Error::Mismatch { wanted: format!("{said} devices"), got: format!("{read} devices") })
    }

    /// The entry of the device whose sections are named `idstr` and hold `data_bytes` bytes of data.
    ///
    /// # Errors
    /// [`Error::Mismatch`] where it says something else.
    pub fn entry(&self, idstr: &str, data_bytes: u64) -> Result<&Entry, Error> {
        let Some(entry) = self.devices.iter().find(|entry| entry.idstr == idstr) else {
            let names: Vec<_> = self.devices.iter().map(|entry| entry.idstr.as_str()).collect();
            return Err(Error::Mismatch { wanted: format!("{names:?}"), got: format!("{idstr:?}") });
        };
        if entry.data_bytes == data_bytes {
            return Ok(entry);
        }
        let wanted = format!("{} bytes of data", entry.data_bytes);
        Err(Error::Mismatch { wanted, got: format!("{data_bytes} bytes of data") })
    }
}

impl Error {
    /// The error of a read of a piece, behind which `more` bytes belong to the same thing.
    #[must_use]
    pub(crate) fn with_more(self, more: u64) -> Self {
        match self {
            Self::Ended { offset, missing, what } => Self::Ended { offset, missing: missing + more, what },
            error => error,
        }
    }

    /// Where in the stream it went wrong, in bytes, for an error that has a place.
    #[must_use]
    pub const fn offset(&self) -> Option<u64> {
        match *self {
            Self::Recv { offset, .. }
            | Self::Ended { offset, .. }
            | Self::Section { offset, .. }
            | Self::Body { offset, .. }
            | Self::Unexpected { offset, .. }
            | Self::Channel { offset, .. }
            | Self::Config { offset, .. }
            | Self::Unwalkable { offset, .. }
            | Self::Description { offset, .. }
            | Self::Trailing { offset } => Some(offset),
            Self::Record { payload, error } => Some(payload.saturating_add(error.offset())),
            Self::Checksum { covered, .. } => Some(covered),
            Self::NewerFormat { .. } | Self::Mismatch { .. } | Self::Channels { .. } => None,
        }
    }
}

impl From<frame::Error> for Error {
    fn from(error: frame::Error) -> Self {
        match error {
            frame::Error::Recv { offset, code } => Self::Recv { offset, code },
            frame::Error::Ended { offset, missing, what } => Self::Ended { offset, missing, what },
            frame::Error::Section { offset, error } => Self::Section { offset, error },
            frame::Error::NoChecksum { offset } => {
                Self::Description { offset, reason: "does not end in a checksum".into() }
            }
            frame::Error::Checksum { wanted, got, covered } => {
                Self::Checksum { wanted, got: String::from_utf8_lossy(&got).into_owned(), covered }
            }
            frame::Error::Nested { offset } => {
                Self::Description { offset, reason: format!("has more than {} levels", frame::NESTED_MAX) }
            }
            frame::Error::Misplaced { offset, got } => {
                let reason = format!("has a '{}' in a wrong place", got.escape_ascii());
                Self::Description { offset, reason }
            }
            frame::Error::Trailing { offset } => Self::Trailing { offset },
        }
    }
}

impl<Fd: AsFd> Writer<Fd> {
    /// Writes the end byte, the description and the checksum, and gives everything to the kernel.
    ///
    /// # Errors
    /// The link's answer.
    pub fn end(&mut self, description: &Description) -> Result<(), Code> {
        let whole = Whole { page_size: 4096, devices: [], ours: Some(description) };
        let mut json = serde_json::to_string(&whole).unwrap_or_default();
        json.truncate(json.len().saturating_sub(1));
        self.end_with(json.as_bytes())
    }
}

/// Reads a stream from a link and keeps its checksum, as [`frame::Reader`] does.
#[derive(Debug)]
pub struct Reader<T>(frame::Reader<T>);

impl<T: Transport> Reader<T> {
    /// A reader at a stream's first byte.
    pub const fn new(link: T) -> Self {
        Self(frame::Reader::new(link))
    }

    /// Begins to read a stream of ours: checks its preamble and that its CONFIGURATION has an empty name.
    ///
    /// # Errors
    /// [`Error`], among others [`Error::Unexpected`] for the stream of a whole machine, which has a name.
    pub fn begin(link: T) -> Result<Self, Error> {
        let mut reader = Self::new(link);
        reader.preamble()?;
        let offset = reader.offset();
        let got = match reader.item()? {
            Item::Configuration { name_length: 0 } => return Ok(reader),
            Item::Configuration { name_length } => {
                format!("a machine's name of {name_length} bytes: this is the stream of a whole machine")
            }
            item => show(&item),
        };
        Err(Error::Unexpected { offset, wanted: "a configuration with an empty machine name", got })
    }

    /// Reads the stream's preamble.
    ///
    /// # Errors
    /// [`Error`].
    pub fn preamble(&mut self) -> Result<(), Error> {
        Ok(self.0.preamble()?)
    }

    /// Reads a section's header, the end byte or the description's head.
    ///
    /// # Errors
    /// [`Error`].
    pub fn item(&mut self) -> Result<Item<'_>, Error> {
        Ok(self.0.item()?)
    }

    /// Puts the last item back: [`Reader::item`] gives it again. Nothing may have been read since.
    pub fn unread(&mut self) {
        self.0.unread();
    }

    /// Reads the footer of section `id`.
    ///
    /// # Errors
    /// [`Error`].
    pub fn footer(&mut self, id: u32) -> Result<(), Error> {
        Ok(self.0.footer(id)?)
    }

    /// Reads the description behind the end byte, checks the checksum, and that nothing follows.
    ///
    /// # Errors
    /// [`Error`].
    pub fn end(&mut self) -> Result<Description, Error> {
        let offset = self.offset();
        let length = match self.item()? {
            Item::Description { length } if length <= DESCRIPTION_MAX => length as usize,
            item => {
                let got = show(&item);
                return Err(Error::Unexpected { offset, wanted: "a description of at most 64 KiB", got });
            }
        };
        let offset = self.offset();
        let mut json = vec![0; length];
        self.0.description(&mut json)?;
        describe(&json, offset)
    }

    /// The bytes of the stream that were read so far.
    pub const fn offset(&self) -> u64 {
        self.0.offset()
    }

    /// The link, for a look at what comes; what is read from it past the reader is missing from the checksum.
    pub(crate) const fn link(&mut self) -> &mut T {
        self.0.link()
    }

    /// Checks that the stream has ended.
    ///
    /// # Errors
    /// [`Error::Trailing`] where it goes on, and [`Error::Recv`].
    pub(crate) fn nothing_more(&mut self) -> Result<(), Error> {
        Ok(self.0.nothing_more()?)
    }

    /// Fills `buffer`, which belongs to `what`.
    ///
    /// # Errors
    /// [`Error::Recv`] and [`Error::Ended`].
    pub fn exact(&mut self, buffer: &mut [u8], what: &'static str) -> Result<(), Error> {
        Ok(self.0.exact(buffer, what)?)
    }
}

impl<T: Transport> Transport for Reader<T> {
    fn send(&mut self, bytes: &[u8]) -> Result<usize, Code> {
        self.0.send(bytes)
    }

    fn recv(&mut self, buffer: &mut [u8]) -> Result<usize, Code> {
        self.0.recv(buffer)
    }

    fn send_config(&mut self) -> Result<(), Code> {
        self.0.send_config()
    }

    fn recv_config(&mut self) -> Result<u64, Code> {
        self.0.recv_config()
    }
}

/// An item in words.
#[must_use]
pub fn show(item: &Item<'_>) -> String {
    match item {
        Item::Begin { kind, id, name, instance, version } => format!(
            "{} of section {id} '{}', instance {instance}, version {version}",
            kind.name(),
            name.escape_ascii()
        ),
        Item::Continue { kind, id } => format!("{} of section {id}", kind.name()),
        Item::Configuration { .. } => "a configuration".into(),
        Item::Subsection { name, .. } => format!("the subsection '{}'", name.escape_ascii()),
        Item::Command { command, .. } => format!("the command {command}"),
        Item::EndOfStream => "the end of the stream".into(),
        Item::Description { .. } => "a description".into(),
    }
}

/// A whole description: what QEMU's tools look for, and ours.
#[derive(Serialize, Deserialize)]
struct Whole<T> {
    page_size: u32,
    #[serde(skip_deserializing)]
    devices: [(); 0],
    #[serde(rename = "vfio-migration")]
    ours: Option<T>,
}

/// The version alone, so that a newer description can be told from a damaged one.
#[derive(Deserialize)]
struct Version {
    format: u32,
}

fn describe(json: &[u8], offset: u64) -> Result<Description, Error> {
    let refuse =
        |error: serde_json::Error| Error::Description { offset, reason: format!("can't be read: {error}") };
    let missing = || Error::Description { offset, reason: "has no key vfio-migration".into() };
    let version: Whole<Version> = serde_json::from_slice(json).map_err(refuse)?;
    let Version { format: got } = version.ours.ok_or_else(missing)?;
    if got > FORMAT {
        return Err(Error::NewerFormat { got });
    }
    let whole: Whole<Description> = serde_json::from_slice(json).map_err(refuse)?;
    whole.ours.ok_or_else(missing)
}
