//! Layer 1: the records inside a VFIO section, for those who walk payloads without a session.
//!
//! Deliberately absent: the order of records. QEMU does not check it either; the sessions write one order.

use vfio_migration_core::stream::record::{self, Decoder, Tag, Terminator, Wanted, Word};

use crate::memory::{Plain, Storage, begin, bytes, check, check_if_wanted, open, put, write};
use crate::phase::vfio_cause;
use crate::status::{numbered, vfio_status};

/// What a record is. On the wire the number stands in 0xffffffffef100000, big-endian, in eight bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum vfio_tag {
    /// Ends a payload (VFIO_MIG_FLAG_END_OF_STATE).
    VFIO_TAG_END_OF_STATE = 1,
    /// The device's configuration: a body, then END_OF_STATE (VFIO_MIG_FLAG_DEV_CONFIG_STATE).
    VFIO_TAG_CONFIG = 2,
    /// The first record of a migration; END_OF_STATE must follow (VFIO_MIG_FLAG_DEV_SETUP_STATE).
    VFIO_TAG_SETUP = 3,
    /// A length and that many bytes of the device's state (VFIO_MIG_FLAG_DEV_DATA_STATE).
    VFIO_TAG_DATA = 4,
    /// The source has sent all initial data. Ends a payload (VFIO_MIG_FLAG_DEV_INIT_DATA_SENT).
    VFIO_TAG_INIT_DATA_SENT = 5,
    /// The configuration that came by multifd may be loaded. Ends a payload (VFIO_MIG_FLAG_DEV_CONFIG_LOAD_READY).
    VFIO_TAG_CONFIG_LOAD_READY = 6,
}

/// What a decoder wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum vfio_wanted_kind {
    /// The next VFIO_WORD bytes, for vfio_decoder_word.
    VFIO_WANTED_WORD = 1,
    /// `length` bytes of the device's state at most, for the device; then their number to vfio_decoder_data.
    VFIO_WANTED_DATA = 2,
    /// The body of a CONFIG record; then its length to vfio_decoder_config.
    VFIO_WANTED_CONFIG = 3,
    /// Nothing: the payload is whole, and ended with `tag`.
    VFIO_WANTED_NOTHING = 4,
}

/// What a payload goes on with.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct vfio_wanted {
    /// Of enum vfio_wanted_kind.
    pub kind: u32,
    /// VFIO_WANTED_NOTHING: of enum vfio_tag; otherwise 0.
    pub tag: u32,
    /// VFIO_WANTED_DATA: bytes; otherwise 0.
    pub length: u64,
    /// The bytes of the payload that were taken so far.
    pub offset: u64,
}

/// What a word turned out to be.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct vfio_word {
    /// The tag of a record, of enum vfio_tag; 0 for the length of a DATA record.
    pub tag: u32,
    /// The length of a DATA record in bytes, where `tag` is 0; otherwise 0.
    pub length: u64,
}

/// Walks one payload, word by word, without holding any of it; begun with vfio_decoder_init. It may be static.
#[repr(C)]
pub struct vfio_decoder {
    /// The decoder's.
    pub words: [u64; 5],
}

// SAFETY: repr(C), of integers.
unsafe impl Plain for vfio_wanted {}

// SAFETY: repr(C), of integers.
unsafe impl Plain for vfio_word {}

// SAFETY: repr(C), of integers.
unsafe impl Storage for vfio_decoder {
    type Session = Decoder;
    const MARK: usize = 0x7244_6563;
}

/// Writes the VFIO_WORD bytes of a record that is a tag alone, every one but DATA, to `out`.
///
/// VFIO_STATUS_UNKNOWN_VALUE where `tag` is not of enum vfio_tag.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_record_encode(tag: u32, out: *mut u8) -> vfio_status {
    let encoded = || {
        let record = record::encode(vfio_tag::from_raw(tag)?.into());
        // SAFETY: by the contract of this function there are so many bytes.
        unsafe { put(out, VFIO_WORD, &record) }
    };
    encoded().into()
}

/// Writes the VFIO_DATA_HEAD bytes that stand before the `length` bytes of a DATA record to `out`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_record_encode_data_head(length: u64, out: *mut u8) -> vfio_status {
    // SAFETY: by the contract of this function there are so many bytes.
    unsafe { put(out, VFIO_DATA_HEAD, &record::encode_data_head(length)) }.into()
}

/// Begins a decoder at a payload's first byte.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_decoder_init(decoder: *mut vfio_decoder) -> vfio_status {
    // SAFETY: the contract of this function is that of `begin`.
    unsafe { begin(decoder, || Ok(Decoder::new())) }.into()
}

/// Writes into `wanted` what the payload goes on with.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_decoder_wanted(
    decoder: *mut vfio_decoder,
    wanted: *mut vfio_wanted,
) -> vfio_status {
    let told = || {
        check(wanted)?;
        // SAFETY: the contract of this function is that of `open`.
        let decoder = unsafe { open(decoder) }?;
        // SAFETY: by the contract of this function `wanted` is the caller's, and no part of the decoder.
        unsafe { write(wanted, vfio_wanted::new(decoder)) }
    };
    told().into()
}

/// Takes the next VFIO_WORD bytes. Unless they are NULL, `word` says what they are, and `cause` why they can't stand
/// here; each is written in its case alone.
///
/// VFIO_STATUS_DAMAGED where the word can't stand here; the decoder stays where it was. VFIO_STATUS_WRONG_ORDER where
/// no word is wanted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_decoder_word(
    decoder: *mut vfio_decoder,
    bytes: *const u8,
    word: *mut vfio_word,
    cause: *mut vfio_cause,
) -> vfio_status {
    let taken = || {
        check_if_wanted(word)?;
        check_if_wanted(cause)?;
        // SAFETY: by the contract of this function there are so many bytes.
        let bytes = unsafe { array(bytes) }?;
        // SAFETY: the contract of this function is that of `open`.
        let decoder = unsafe { open(decoder) }?;
        if decoder.wanted() != Wanted::Word {
            return Err(vfio_status::VFIO_STATUS_WRONG_ORDER);
        }
        match decoder.word(bytes) {
            // SAFETY: by the contract of this function `word` is NULL or the caller's.
            Ok(taken) => unsafe { write(word, taken.into()) },
            Err(error) => {
                // SAFETY: by the contract of this function `cause` is NULL or the caller's.
                unsafe { write(cause, error.into()) }?;
                Err(vfio_status::VFIO_STATUS_DAMAGED)
            }
        }
    };
    taken().into()
}

/// Takes note of `count` bytes of a DATA record.
///
/// VFIO_STATUS_WRONG_ORDER where no data are wanted, VFIO_STATUS_TOO_MANY where fewer are.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_decoder_data(decoder: *mut vfio_decoder, count: u64) -> vfio_status {
    let taken = || {
        // SAFETY: the contract of this function is that of `open`.
        let decoder = unsafe { open(decoder) }?;
        match decoder.wanted() {
            Wanted::Data(left) if count <= left => decoder.data(count),
            Wanted::Data(_) => return Err(vfio_status::VFIO_STATUS_TOO_MANY),
            Wanted::Word | Wanted::Config | Wanted::Nothing(_) => {
                return Err(vfio_status::VFIO_STATUS_WRONG_ORDER);
            }
        }
        Ok(())
    };
    taken().into()
}

/// Takes note of the body of a CONFIG record, `length` bytes long.
///
/// VFIO_STATUS_WRONG_ORDER where none is wanted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_decoder_config(decoder: *mut vfio_decoder, length: u64) -> vfio_status {
    let taken = || {
        // SAFETY: the contract of this function is that of `open`.
        let decoder = unsafe { open(decoder) }?;
        if decoder.wanted() != Wanted::Config {
            return Err(vfio_status::VFIO_STATUS_WRONG_ORDER);
        }
        decoder.config(length);
        Ok(())
    };
    taken().into()
}

/// So many bytes of the caller's.
///
/// # Safety
/// `pointer` is NULL, or points to `N` bytes that are there, were written, and that nobody changes meanwhile.
pub(crate) unsafe fn array<const N: usize>(pointer: *const u8) -> Result<[u8; N], vfio_status> {
    // SAFETY: the contract of this function is that of `bytes`.
    let bytes = unsafe { bytes(pointer, N) }?;
    bytes.first_chunk().copied().ok_or(vfio_status::VFIO_STATUS_SHORT)
}

impl vfio_wanted {
    fn new(decoder: &Decoder) -> Self {
        use vfio_wanted_kind as of;
        let (kind, tag, length) = match decoder.wanted() {
            Wanted::Word => (of::VFIO_WANTED_WORD, 0, 0),
            Wanted::Data(length) => (of::VFIO_WANTED_DATA, 0, length),
            Wanted::Config => (of::VFIO_WANTED_CONFIG, 0, 0),
            Wanted::Nothing(terminator) => (of::VFIO_WANTED_NOTHING, vfio_tag::from(terminator) as u32, 0),
        };
        Self { kind: kind as u32, tag, length, offset: decoder.offset() }
    }
}

impl From<Word> for vfio_word {
    fn from(word: Word) -> Self {
        match word {
            Word::Tag(tag) => Self { tag: vfio_tag::from(tag) as u32, length: 0 },
            Word::DataLength(length) => Self { tag: 0, length },
        }
    }
}

impl From<Tag> for vfio_tag {
    fn from(tag: Tag) -> Self {
        match tag {
            Tag::EndOfState => Self::VFIO_TAG_END_OF_STATE,
            Tag::Config => Self::VFIO_TAG_CONFIG,
            Tag::Setup => Self::VFIO_TAG_SETUP,
            Tag::Data => Self::VFIO_TAG_DATA,
            Tag::InitDataSent => Self::VFIO_TAG_INIT_DATA_SENT,
            Tag::ConfigLoadReady => Self::VFIO_TAG_CONFIG_LOAD_READY,
        }
    }
}

impl From<vfio_tag> for Tag {
    fn from(tag: vfio_tag) -> Self {
        match tag {
            vfio_tag::VFIO_TAG_END_OF_STATE => Self::EndOfState,
            vfio_tag::VFIO_TAG_CONFIG => Self::Config,
            vfio_tag::VFIO_TAG_SETUP => Self::Setup,
            vfio_tag::VFIO_TAG_DATA => Self::Data,
            vfio_tag::VFIO_TAG_INIT_DATA_SENT => Self::InitDataSent,
            vfio_tag::VFIO_TAG_CONFIG_LOAD_READY => Self::ConfigLoadReady,
        }
    }
}

impl From<Terminator> for vfio_tag {
    fn from(terminator: Terminator) -> Self {
        match terminator {
            Terminator::EndOfState => Self::VFIO_TAG_END_OF_STATE,
            Terminator::InitDataSent => Self::VFIO_TAG_INIT_DATA_SENT,
            Terminator::ConfigLoadReady => Self::VFIO_TAG_CONFIG_LOAD_READY,
        }
    }
}

numbered!(vfio_tag {
    VFIO_TAG_END_OF_STATE,
    VFIO_TAG_CONFIG,
    VFIO_TAG_SETUP,
    VFIO_TAG_DATA,
    VFIO_TAG_INIT_DATA_SENT,
    VFIO_TAG_CONFIG_LOAD_READY,
});

/// The bytes of a tag, and of a DATA record's length.
pub const VFIO_WORD: usize = 8;
/// What stands before the bytes of a DATA record: tag and length, in bytes.
pub const VFIO_DATA_HEAD: usize = 16;

// cbindgen takes numbers, not names of another crate.
const _: () = {
    assert!(VFIO_WORD == record::WORD);
    assert!(VFIO_DATA_HEAD == record::DATA_HEAD);
    assert!(Tag::EndOfState.raw() & 0xffff == vfio_tag::VFIO_TAG_END_OF_STATE as u64);
    assert!(Tag::ConfigLoadReady.raw() & 0xffff == vfio_tag::VFIO_TAG_CONFIG_LOAD_READY as u64);
};
