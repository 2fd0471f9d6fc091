//! What can be wrong in one place of a stream.
//!
//! Deliberately absent: all places. Each kind of damage stands for itself here; each byte's turn comes in `tests/tests`.

use std::fs;
use std::ops::Range;

use anyhow::{Context as _, Result};

use super::section;
use crate::stream::{Section, sections};

/// A whole stream, and the sections of the device in it.
pub(super) struct Intact {
    bytes: Vec<u8>,
    device: Vec<Section>,
    end: usize,
}

impl Intact {
    /// Reads a file.
    pub(super) fn read(path: &str) -> Result<Self> {
        let bytes = fs::read(path)?;
        let all = sections(path)?;
        let end = all.last().context("no section")?.place.end;
        let device = all.into_iter().filter(|one| one.name == section(0)).collect();
        Ok(Self { bytes, device, end })
    }

    fn section(&self, kind: &str) -> Option<&Section> {
        self.device.iter().find(|section| section.kind == kind)
    }

    /// The last data that the device gets: the tag, the length and the bytes.
    fn data(&self) -> Option<(Range<usize>, Range<usize>, Range<usize>)> {
        let records = self.device.iter().flat_map(|section| &section.records);
        let (_, place) = records.rev().find(|(name, _)| name == "DATA")?;
        let Range { start, end } = *place;
        Some((start..start + 8, start + 8..start + 16, start + 16..end))
    }

    /// The stream with other bytes in a place.
    fn with(&self, place: Range<usize>, new: &[u8]) -> Vec<u8> {
        [&self.bytes[..place.start], new, &self.bytes[place.end..]].concat()
    }

    /// The stream with the last data's length this much larger and other bytes for them.
    fn with_data(&self, more: i64, bytes: impl Fn(&[u8]) -> Vec<u8>) -> Option<Vec<u8>> {
        let (_, length, data) = self.data()?;
        let new = (data.len() as u64).wrapping_add_signed(more).to_be_bytes();
        Some(self.with(length.start..data.end, &[&new[..], &bytes(&self.bytes[data])].concat()))
    }

    /// The stream with a bit of each of these bytes turned.
    fn flipped(&self, places: impl IntoIterator<Item = usize>) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        places.into_iter().for_each(|place| bytes[place] ^= 1);
        bytes
    }
}

/// A kind of damage: what it is, and the damaged stream; nothing where the stream has no such place.
pub(super) type Damage = (&'static str, fn(&Intact) -> Option<Vec<u8>>);

/// All kinds; the first one is none.
pub(super) const DAMAGES: &[Damage] = &[
    ("nothing", |intact| Some(intact.bytes.clone())),
    ("the tag of the last data is unknown", |intact| Some(intact.flipped([intact.data()?.0.end - 2]))),
    ("cut in the middle of the last data", |intact| {
        let data = intact.data()?.2;
        Some(intact.bytes[..data.start + data.len() / 2].to_vec())
    }),
    ("the length of the last data is larger by 1", |intact| intact.with_data(1, <[u8]>::to_vec)),
    ("the length of the last data is larger by 2^40", |intact| intact.with_data(1 << 40, <[u8]>::to_vec)),
    ("the last data are shorter by a byte", |intact| {
        intact.with_data(-1, |data| data[..data.len() - 1].to_vec())
    }),
    ("the last data are longer by a byte", |intact| intact.with_data(1, |data| [data, &[0]].concat())),
    ("a bit in the last data is turned", |intact| {
        let data = intact.data()?.2;
        Some(intact.flipped([data.start + data.len() * 3 / 5]))
    }),
    ("a bit of the first data's first byte is turned", |intact| {
        let mut records = intact.device.iter().flat_map(|section| &section.records);
        let (_, first) = records.find(|(name, _)| name == "DATA")?;
        Some(intact.flipped([first.start + 16]))
    }),
    ("END_OF_STATE of the END section is missing", |intact| {
        let payload = intact.section("END")?.payload.end;
        Some(intact.with(payload - 8..payload, &[]))
    }),
    ("the END section's footer is missing", |intact| {
        let section = intact.section("END")?;
        Some(intact.with(section.payload.end..section.place.end, &[]))
    }),
    ("the END section's footer has another id", |intact| {
        Some(intact.flipped([intact.section("END")?.place.end - 1]))
    }),
    ("the END section has an id that never began", |intact| {
        let begins = intact.section("END")?.place.start;
        Some(intact.with(begins + 1..begins + 5, &[0, 0, 0xff, 0xff]))
    }),
    ("the START section is missing", |intact| Some(intact.with(intact.section("START")?.place.clone(), &[]))),
    ("the END section is missing", |intact| Some(intact.with(intact.section("END")?.place.clone(), &[]))),
    ("the sections are named after another device", |intact| {
        let mut bytes = intact.bytes.clone();
        let begin = intact.device.iter().filter(|section| ["START", "FULL"].contains(&section.kind.as_str()));
        begin.for_each(|section| bytes[section.place.start + 6 + "0000:00:02".len() - 1] = b'9');
        Some(bytes)
    }),
    ("the START section has version 2", |intact| {
        Some(
            intact.with(
                intact.section("START")?.payload.start - 1..intact.section("START")?.payload.start,
                &[2],
            ),
        )
    }),
    ("the version in the CONFIG record is 3", |intact| {
        let config = intact.section("FULL")?.payload.start + 8;
        Some(intact.with(config..config + 4, &[0, 0, 0, 3]))
    }),
    ("the CONFIG record is shorter by a byte", |intact| {
        let end = intact.section("FULL")?.payload.end - 8;
        Some(intact.with(end - 1..end, &[]))
    }),
    ("a bit of the vendor's number in the CONFIG record is turned", |intact| {
        Some(intact.flipped([intact.section("FULL")?.payload.start + 8 + 4]))
    }),
    ("the description is cut", |intact| Some(intact.bytes[..intact.bytes.len() - 5].to_vec())),
    ("the description is missing", |intact| Some(intact.bytes[..=intact.end].to_vec())),
];
