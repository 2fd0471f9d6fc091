//! The payload of a VFIO section, read piece by piece.
//!
//! Deliberately absent: what the pieces mean to their device.

use vfio_migration_core::session::drive::Transport;
use vfio_migration_core::stream::pci_config::{self, Body, Layout};
use vfio_migration_core::stream::record::{Decoder, Tag, Terminator, WORD, Wanted, Word};

use crate::file::{Error, Reader};

/// A record of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Which one.
    pub tag: Tag,
    /// Where its tag begins, in bytes from the stream's first.
    pub offset: u64,
    /// Its bytes with its tag: of DATA with length and data, of CONFIG with the body, and without the END_OF_STATE that
    /// follows.
    pub length: u64,
}

/// A payload that is under way.
#[derive(Debug)]
pub(crate) struct Payload {
    decoder: Decoder,
    begins: u64,
    /// The record that the last bytes belong to.
    tag: Tag,
    /// Where it begins.
    record: u64,
    config: Config,
    /// How long it must be, where that is known.
    length: Option<u64>,
}

/// What is known of the body of a CONFIG record.
#[derive(Debug)]
enum Config {
    /// Nothing: it is refused.
    Refused,
    /// The bytes that are left of it.
    Left(u64),
    /// What its length follows from.
    Layout(Layout),
}

/// One step through a payload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    /// Which record the bytes belong to.
    pub(crate) tag: Tag,
    /// How many of the bytes are the device's data.
    pub(crate) data: u64,
    /// The record that ends with the bytes.
    pub(crate) record: Option<Record>,
}

impl Payload {
    /// A payload at its first byte, `begins` of the stream; a CONFIG record in it is refused, since its length is not
    /// known.
    pub(crate) const fn new(begins: u64) -> Self {
        let config = Config::Refused;
        Self { decoder: Decoder::new(), begins, tag: Tag::EndOfState, record: begins, config, length: None }
    }

    /// A payload for a device whose CONFIG record has this layout; without one it is refused.
    pub(crate) fn of_device(begins: u64, layout: Option<Layout>) -> Self {
        Self { config: layout.map_or(Config::Refused, Config::Layout), ..Self::new(begins) }
    }

    /// A payload whose length is known, so that of a CONFIG record too.
    pub(crate) const fn sized(begins: u64, length: u64) -> Self {
        let config = Config::Left(length.saturating_sub(2 * WORD as u64));
        Self { config, length: Some(length), ..Self::new(begins) }
    }

    /// Whether a CONFIG record goes on whose length is not known.
    pub(crate) const fn is_at_unknown_config(&self) -> bool {
        matches!((self.decoder.wanted(), &self.config), (Wanted::Config, Config::Refused))
    }

    /// Says how long the body of the CONFIG record is that goes on.
    pub(crate) const fn set_config(&mut self, length: u64) {
        self.config = Config::Left(length);
    }

    /// Checks that a payload that was read to its end is as long as it must be.
    ///
    /// # Errors
    /// [`Error::Unexpected`].
    pub(crate) fn check_length(&self, reader: &Reader<impl Transport>) -> Result<(), Error> {
        let (offset, got) = (reader.offset(), reader.offset() - self.begins);
        let Some(length) = self.length.filter(|&length| length != got) else { return Ok(()) };
        let (wanted, got) =
            ("a section as long as its description", format!("{got} bytes, described are {length}"));
        Err(Error::Unexpected { offset, wanted, got })
    }

    /// What stood at its end, once it is whole.
    pub(crate) const fn terminator(&self) -> Option<Terminator> {
        match self.decoder.wanted() {
            Wanted::Nothing(terminator) => Some(terminator),
            Wanted::Word | Wanted::Data(_) | Wanted::Config => None,
        }
    }

    /// Reads a word, or at most `piece` bytes of data, to the end of `bytes`; nothing where the payload is whole.
    ///
    /// # Errors
    /// [`Error`].
    pub(crate) fn step(
        &mut self,
        reader: &mut Reader<impl Transport>,
        bytes: &mut Vec<u8>,
        piece: usize,
    ) -> Result<Option<Step>, Error> {
        match self.decoder.wanted() {
            Wanted::Word => self.word(reader, bytes).map(Some),
            Wanted::Data(left) => {
                let data = read(reader, bytes, left, piece, "a record")?;
                self.decoder.data(data);
                Ok(Some(Step { tag: Tag::Data, data, record: self.ended(reader, data == left) }))
            }
            Wanted::Config => self.body(reader, bytes, piece).map(Some),
            Wanted::Nothing(_) => Ok(None),
        }
    }

    fn word(&mut self, reader: &mut Reader<impl Transport>, bytes: &mut Vec<u8>) -> Result<Step, Error> {
        let offset = reader.offset();
        let mut word = [0; WORD];
        reader.exact(&mut word, "a record")?;
        bytes.extend_from_slice(&word);
        let payload = self.begins;
        let ends = match self.decoder.word(word).map_err(|error| Error::Record { payload, error })? {
            Word::Tag(tag) => {
                (self.tag, self.record) = (tag, offset);
                !matches!(tag, Tag::Data | Tag::Config)
            }
            Word::DataLength(length) => length == 0,
        };
        Ok(Step { tag: self.tag, data: 0, record: self.ended(reader, ends) })
    }

    fn body(
        &mut self,
        reader: &mut Reader<impl Transport>,
        bytes: &mut Vec<u8>,
        piece: usize,
    ) -> Result<Step, Error> {
        let left = match &mut self.config {
            Config::Left(left) => left,
            Config::Layout(layout) => {
                let layout = *layout;
                return self.laid_out(reader, bytes, layout);
            }
            Config::Refused => {
                let (offset, wanted) = (reader.offset(), "DATA or the end of the payload");
                return Err(Error::Unexpected { offset, wanted, got: "CONFIG".into() });
            }
        };
        *left -= read(reader, bytes, *left, piece, "a CONFIG record")?;
        let ends = *left == 0;
        if ends {
            self.decoder.config(reader.offset() - self.record - WORD as u64);
        }
        Ok(Step { tag: Tag::Config, data: 0, record: self.ended(reader, ends) })
    }

    /// Reads a body at once, with the END_OF_STATE behind it, which alone tells whether it has ended.
    fn laid_out(
        &mut self,
        reader: &mut Reader<impl Transport>,
        bytes: &mut Vec<u8>,
        layout: Layout,
    ) -> Result<Step, Error> {
        let (offset, from) = (reader.offset(), bytes.len());
        let length = loop {
            let wanted = match Body::decode(layout, &bytes[from..]) {
                Ok((_, length)) => break length,
                Err(pci_config::Error::Short { wanted }) => wanted,
                Err(error) => return Err(Error::Body { offset, error }),
            };
            let have = bytes.len();
            bytes.resize(from + wanted, 0);
            reader.exact(&mut bytes[have..], "a CONFIG record")?;
        };
        self.decoder.config(length as u64);
        let payload = self.begins;
        let behind = bytes[from + length..].first_chunk().copied().unwrap_or_default();
        self.decoder.word(behind).map_err(|error| Error::Record { payload, error })?;
        Ok(Step { tag: Tag::Config, data: 0, record: self.ended(reader, true) })
    }

    /// The record that ends where `reader` is, if one does.
    fn ended(&self, reader: &Reader<impl Transport>, ends: bool) -> Option<Record> {
        let (tag, offset) = (self.tag, self.record);
        ends.then(|| Record { tag, offset, length: reader.offset() - offset })
    }
}

/// Reads at most `piece` of the `left` bytes of `what` to the end of `bytes`; returns how many.
fn read(
    reader: &mut Reader<impl Transport>,
    bytes: &mut Vec<u8>,
    left: u64,
    piece: usize,
    what: &'static str,
) -> Result<u64, Error> {
    let from = bytes.len();
    let count = usize::try_from(left).unwrap_or(piece).min(piece);
    bytes.resize(from + count, 0);
    let beyond = left - count as u64;
    reader.exact(&mut bytes[from..], what).map_err(|error| error.with_more(beyond))?;
    Ok(count as u64)
}
