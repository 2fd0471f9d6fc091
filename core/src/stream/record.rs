//! Layer 1: the records inside a VFIO section.
//!
//! Each begins with a big-endian u64 tag. DATA goes on with a u64 length and that many bytes; CONFIG with a body whose
//! length only its owner knows and an END_OF_STATE; SETUP must be followed by END_OF_STATE. A payload is a list of
//! records up to its terminator. Nothing here reads a byte past the record that it is at, so records can be embedded
//! in any stream.
//! Source: the format that QEMU's `hw/vfio/migration.c` reads and writes, 5.2 to 11.1.
//!
//! Deliberately absent: the order of records. QEMU does not check it either; the sessions write one order.

use core::fmt;

/// What a record is, the last of its first eight bytes on the wire; [`Tag::raw`] has all eight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u8)]
pub enum Tag {
    /// Ends a payload.
    #[doc(alias = "VFIO_MIG_FLAG_END_OF_STATE")]
    EndOfState = 1,
    /// The device's configuration: a body, then END_OF_STATE.
    #[doc(alias = "VFIO_MIG_FLAG_DEV_CONFIG_STATE")]
    Config = 2,
    /// The first record of a migration; END_OF_STATE must follow.
    #[doc(alias = "VFIO_MIG_FLAG_DEV_SETUP_STATE")]
    Setup = 3,
    /// A length and that many bytes of the device's state.
    #[doc(alias = "VFIO_MIG_FLAG_DEV_DATA_STATE")]
    Data = 4,
    /// The source has sent all initial data. Ends a payload in the place of END_OF_STATE.
    #[doc(alias = "VFIO_MIG_FLAG_DEV_INIT_DATA_SENT")]
    InitDataSent = 5,
    /// The configuration that came by multifd may be loaded. Ends a payload in the place of END_OF_STATE.
    #[doc(alias = "VFIO_MIG_FLAG_DEV_CONFIG_LOAD_READY")]
    ConfigLoadReady = 6,
}

impl Tag {
    /// Every tag, in the order of their numbers.
    pub const ALL: [Self; 6] =
        [Self::EndOfState, Self::Config, Self::Setup, Self::Data, Self::InitDataSent, Self::ConfigLoadReady];

    /// The tag with the number `raw`, or nothing where QEMU has none.
    #[must_use]
    pub fn from_raw(raw: u64) -> Option<Self> {
        Self::ALL.iter().copied().find(|tag| tag.raw() == raw)
    }

    /// The tag's number.
    #[must_use]
    pub const fn raw(self) -> u64 {
        MARK | self as u64
    }

    /// The name in QEMU's source without its prefix, for instance `DATA`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::EndOfState => "END_OF_STATE",
            Self::Config => "CONFIG",
            Self::Setup => "SETUP",
            Self::Data => "DATA",
            Self::InitDataSent => "INIT_DATA_SENT",
            Self::ConfigLoadReady => "CONFIG_LOAD_READY",
        }
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What all tags have in common; the lowest byte tells them apart.
const MARK: u64 = 0xffff_ffff_ef10_0000;

/// The bytes of a tag, and of a DATA record's length.
pub const WORD: usize = 8;

/// What stands before the bytes of a DATA record: tag and length.
pub const DATA_HEAD: usize = 2 * WORD;

/// The bytes of a record that is a tag alone, every one but DATA.
#[must_use]
pub fn encode(tag: Tag) -> [u8; WORD] {
    tag.raw().to_be_bytes()
}

/// What stands before the `length` bytes of a DATA record.
#[must_use]
pub fn encode_data_head(length: u64) -> [u8; DATA_HEAD] {
    (u128::from(Tag::Data.raw()) << 64 | u128::from(length)).to_be_bytes()
}

/// What ended a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Terminator {
    /// END_OF_STATE.
    EndOfState,
    /// INIT_DATA_SENT.
    InitDataSent,
    /// CONFIG_LOAD_READY.
    ConfigLoadReady,
}

/// What a [`Decoder`] wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Wanted {
    /// The next [`WORD`] bytes, for [`Decoder::word`].
    Word,
    /// Bytes of the device's state, this many at most, for the device; then their number to [`Decoder::data`].
    Data(u64),
    /// The body of a CONFIG record, read by whoever knows its layout; then its length to [`Decoder::config`].
    Config,
    /// Nothing: the payload is whole. The section's footer follows, or whatever the surrounding stream has there.
    Nothing(Terminator),
}

/// What a word turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Word {
    /// The tag of a record.
    Tag(Tag),
    /// The length of a DATA record, in bytes.
    DataLength(u64),
}

/// Why bytes are not a payload. `offset` counts from the payload's first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Error {
    /// A record's tag was wanted, and no tag has this number.
    UnknownTag {
        /// Where the eight bytes begin.
        offset: u64,
        /// Their value.
        got: u64,
    },
    /// `after` wants an END_OF_STATE behind it, and there was something else.
    Unterminated {
        /// The record that is not terminated.
        after: Tag,
        /// Where the eight bytes behind it begin.
        offset: u64,
        /// Their value.
        got: u64,
    },
}

impl Error {
    /// Where in the payload it is, in bytes.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        match *self {
            Self::UnknownTag { offset, .. } | Self::Unterminated { offset, .. } => offset,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::UnknownTag { offset, got } => {
                write!(f, "wanted a record's tag at byte {offset} of the payload, got {got:#018x}")
            }
            Self::Unterminated { after, offset, got } => {
                write!(
                    f,
                    "wanted END_OF_STATE behind {after} at byte {offset} of the payload, got {got:#018x}"
                )
            }
        }
    }
}

impl core::error::Error for Error {}

/// Walks one payload, word by word, without holding any of it.
#[derive(Clone, Debug)]
pub struct Decoder {
    place: Place,
    offset: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Tag,
    DataLength,
    Data(u64),
    Config,
    EndAfter(Tag),
    End(Terminator),
}

impl Decoder {
    /// A decoder at a payload's first byte.
    #[must_use]
    pub const fn new() -> Self {
        Self { place: Place::Tag, offset: 0 }
    }

    /// What the payload goes on with.
    #[must_use]
    pub const fn wanted(&self) -> Wanted {
        match self.place {
            Place::Tag | Place::DataLength | Place::EndAfter(_) => Wanted::Word,
            Place::Data(left) => Wanted::Data(left),
            Place::Config => Wanted::Config,
            Place::End(terminator) => Wanted::Nothing(terminator),
        }
    }

    /// The bytes of the payload that were taken so far.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// The record that the next bytes belong to, or nothing between two records.
    #[must_use]
    pub const fn record(&self) -> Option<Tag> {
        match self.place {
            Place::Tag | Place::End(_) => None,
            Place::DataLength | Place::Data(_) => Some(Tag::Data),
            Place::Config => Some(Tag::Config),
            Place::EndAfter(tag) => Some(tag),
        }
    }

    /// Takes the next word.
    ///
    /// # Errors
    /// The word can't stand here; the decoder stays where it was. Without [`Wanted::Word`] the call changes nothing
    /// and says what the word would have been as a length.
    pub fn word(&mut self, bytes: [u8; WORD]) -> Result<Word, Error> {
        let got = u64::from_be_bytes(bytes);
        let offset = self.offset;
        let (place, word) = match self.place {
            Place::Tag => {
                let tag = Tag::from_raw(got).ok_or(Error::UnknownTag { offset, got })?;
                (after_tag(tag), Word::Tag(tag))
            }
            Place::EndAfter(after) if got != Tag::EndOfState.raw() => {
                return Err(Error::Unterminated { after, offset, got });
            }
            Place::EndAfter(_) => (Place::End(Terminator::EndOfState), Word::Tag(Tag::EndOfState)),
            Place::DataLength => (data_or_tag(got), Word::DataLength(got)),
            Place::Data(_) | Place::Config | Place::End(_) => return Ok(Word::DataLength(got)),
        };
        self.place = place;
        self.offset = offset.saturating_add(WORD as u64);
        Ok(word)
    }

    /// Takes note of `count` bytes of a DATA record; more than [`Wanted::Data`] said count as that many.
    pub fn data(&mut self, count: u64) {
        if let Place::Data(left) = self.place {
            self.place = data_or_tag(left.saturating_sub(count));
            self.offset = self.offset.saturating_add(count.min(left));
        }
    }

    /// Takes note of the body of a CONFIG record, `length` bytes long.
    pub fn config(&mut self, length: u64) {
        if self.place == Place::Config {
            self.place = Place::EndAfter(Tag::Config);
            self.offset = self.offset.saturating_add(length);
        }
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

fn after_tag(tag: Tag) -> Place {
    match tag {
        Tag::EndOfState => Place::End(Terminator::EndOfState),
        Tag::Config => Place::Config,
        Tag::Setup => Place::EndAfter(Tag::Setup),
        Tag::Data => Place::DataLength,
        Tag::InitDataSent => Place::End(Terminator::InitDataSent),
        Tag::ConfigLoadReady => Place::End(Terminator::ConfigLoadReady),
    }
}

fn data_or_tag(left: u64) -> Place {
    if left == 0 { Place::Tag } else { Place::Data(left) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tag_is_its_bytes() {
        assert_eq!(encode(Tag::EndOfState), [0xff, 0xff, 0xff, 0xff, 0xef, 0x10, 0x00, 0x01]);
        assert_eq!(encode(Tag::Config), [0xff, 0xff, 0xff, 0xff, 0xef, 0x10, 0x00, 0x02]);
        assert_eq!(encode(Tag::Setup), [0xff, 0xff, 0xff, 0xff, 0xef, 0x10, 0x00, 0x03]);
        assert_eq!(encode(Tag::InitDataSent), [0xff, 0xff, 0xff, 0xff, 0xef, 0x10, 0x00, 0x05]);
        assert_eq!(encode(Tag::ConfigLoadReady), [0xff, 0xff, 0xff, 0xff, 0xef, 0x10, 0x00, 0x06]);
    }

    #[test]
    fn a_data_head_is_tag_and_length_also_past_four_gibibytes() {
        let head = encode_data_head(0x0123_4567_89ab_cdef);
        assert_eq!(head[..8], [0xff, 0xff, 0xff, 0xff, 0xef, 0x10, 0x00, 0x04]);
        assert_eq!(head[8..], [0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef]);
    }

    #[test]
    fn a_payload_is_walked_record_by_record() {
        let mut decoder = Decoder::new();
        let tag = |low| [0xff, 0xff, 0xff, 0xff, 0xef, 0x10, 0, low];
        assert_eq!(decoder.word(tag(4)), Ok(Word::Tag(Tag::Data)));
        assert_eq!(decoder.word([0, 0, 0, 0, 0, 0, 0, 5]), Ok(Word::DataLength(5)));
        assert_eq!(decoder.wanted(), Wanted::Data(5));
        decoder.data(2);
        assert_eq!(decoder.wanted(), Wanted::Data(3));
        decoder.data(3);
        assert_eq!((decoder.wanted(), decoder.offset()), (Wanted::Word, 21));
        assert_eq!(decoder.word(tag(2)), Ok(Word::Tag(Tag::Config)));
        assert_eq!(decoder.wanted(), Wanted::Config);
        decoder.config(300);
        let unterminated =
            Error::Unterminated { after: Tag::Config, offset: 329, got: 0xffff_ffff_ef10_0003 };
        assert_eq!(decoder.word(tag(3)), Err(unterminated));
        assert_eq!(decoder.word(tag(1)), Ok(Word::Tag(Tag::EndOfState)));
        assert_eq!(decoder.wanted(), Wanted::Nothing(Terminator::EndOfState));
    }

    #[test]
    fn an_unknown_tag_names_its_place_and_value() {
        let mut decoder = Decoder::new();
        let error = Error::UnknownTag { offset: 0, got: 0xffff_ffff_ef10_0007 };
        assert_eq!(decoder.word([0xff, 0xff, 0xff, 0xff, 0xef, 0x10, 0, 7]), Err(error));
        assert_eq!(decoder.wanted(), Wanted::Word);
    }

    #[test]
    fn an_empty_data_record_is_skipped() {
        let mut decoder = Decoder::new();
        decoder.word([0xff, 0xff, 0xff, 0xff, 0xef, 0x10, 0, 4]).unwrap();
        decoder.word([0; 8]).unwrap();
        assert_eq!((decoder.wanted(), decoder.offset()), (Wanted::Word, 16));
    }
}
