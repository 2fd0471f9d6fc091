//! The bytes of a state, and those that contents are made of. Numbers are little-endian.
//!
//! A state begins with a header of [`HEADER_LEN`] bytes:
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 8 | `"VFIO-SIM"` |
//! | 8 | 4 | version: 1 plain, 2 in records |
//! | 12 | 4 | how many bytes of initial content stand behind the header; 0 in version 1 |
//! | 16 | 8 | the content's length |
//!
//! In version 1 the whole content follows, and nothing else. In version 2 the initial content follows, from offset 0
//! of the content on, and then records in any number, each with a head of 16 bytes:
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 8 | where in the content the record's bytes belong |
//! | 8 | 8 | how many there are |
//! | 16 | as many | the bytes |
//!
//! What comes later replaces what came before. A header in the place of a record starts the initial content anew. A
//! record of length 0 is the end; its offset is the sum of all content bytes before it, repeated ones included.
//!
//! Deliberately absent: when which bytes travel; that is `saving`'s.

/// The length of a state's header in bytes.
pub const HEADER_LEN: usize = 24;
pub(super) const MAGIC: &[u8; 8] = b"VFIO-SIM";
/// The length of a record's head in bytes.
pub(super) const RECORD_LEN: usize = 16;

/// What a header says of the state behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    Plain,
    Records { initial: usize },
}

pub(super) fn header(size: usize, layout: Layout) -> [u8; HEADER_LEN] {
    let (version, initial) = match layout {
        Layout::Plain => (1_u32, 0),
        Layout::Records { initial } => (2, initial),
    };
    let mut bytes = [0; HEADER_LEN];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&version.to_le_bytes());
    bytes[12..16].copy_from_slice(&u32::try_from(initial).unwrap_or(u32::MAX).to_le_bytes());
    bytes[16..].copy_from_slice(&(size as u64).to_le_bytes());
    bytes
}

/// What `bytes` say, where they are the header of a device with `size` bytes of content.
pub(super) fn parse_header(size: usize, bytes: &[u8]) -> Option<Layout> {
    let initial = usize::try_from(u32::from_le_bytes(*bytes.get(12..)?.first_chunk()?)).ok()?;
    let layouts = [Layout::Plain, Layout::Records { initial: initial.min(size) }];
    layouts.into_iter().find(|layout| header(size, *layout) == bytes)
}

pub(super) fn record(offset: u64, length: u64) -> [u8; RECORD_LEN] {
    let mut bytes = [0; RECORD_LEN];
    bytes[..8].copy_from_slice(&offset.to_le_bytes());
    bytes[8..].copy_from_slice(&length.to_le_bytes());
    bytes
}

/// A record's offset and length.
pub(super) fn parse_record(bytes: &[u8]) -> Option<(u64, u64)> {
    let (offset, rest) = bytes.split_first_chunk()?;
    Some((u64::from_le_bytes(*offset), u64::from_le_bytes(*rest.first_chunk()?)))
}

/// Copies as much as both have room for; returns how much.
pub(super) fn copy(from: &[u8], to: &mut [u8]) -> usize {
    let len = from.len().min(to.len());
    to[..len].copy_from_slice(&from[..len]);
    len
}

/// splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
pub(super) fn generate(seed: u64, size: usize) -> Vec<u8> {
    let mut content = vec![0; size];
    let mut state = seed;
    for place in content.chunks_mut(8) {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        copy(&(mixed ^ (mixed >> 31)).to_le_bytes(), place);
    }
    content
}
