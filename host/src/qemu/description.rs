//! QEMU's description of a stream, the JSON behind the end byte: it alone says how long the sections of other devices are.
//!
//! A description comes last, behind what it describes, and nothing in the stream says where it begins. In a file it is
//! looked for from the end: its length must lead exactly to the file's last byte, and what is there must be JSON. The
//! walk checks the place once more when it arrives.
//!
//! Memory: what is read of the file, at most [`DESCRIPTION_MAX`] bytes and a head, and for each section's size, of which
//! 65536 are believed, some 200 bytes and its name. Fields and subsections are added up as they are read, and not kept.
//!
//! Deliberately absent: the fields' values and meanings.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::os::fd::AsFd;

use rustix::fs::{FileType, SeekFrom, fstat, seek};
use rustix::io::pread;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::walk::SECTIONS_MAX;
use crate::file::Error;

/// The longest description of a machine that is read, in bytes.
pub const DESCRIPTION_MAX: u64 = 16 << 20;

/// What a description says of the sections before it.
#[derive(Clone, Debug, Default)]
pub struct Description {
    /// Where it begins, in bytes from the stream's first: the type byte before its length.
    pub offset: u64,
    /// The bytes of its JSON.
    pub length: u64,
    /// The size of the target's pages, in bytes.
    pub page_size: Option<u64>,
    /// How many FULL sections it describes.
    pub devices: usize,
    /// The sizes of the payloads by name and instance, in the order of the sections that share both.
    sizes: Sizes,
}

impl Description {
    /// Finds the description of the stream that begins where `file` is positioned now, and leaves it there. Nothing where
    /// none ends with the file, and for a stream of ours, which has no section that wants one.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn find(file: impl AsFd) -> io::Result<Option<Self>> {
        let begin = seek(&file, SeekFrom::Current(0))?;
        let size = u64::try_from(fstat(&file)?.st_size).unwrap_or_default();
        let stream = size.saturating_sub(begin);
        let mut head = [0; OURS.len()];
        if stream < head.len() as u64 {
            return Ok(None);
        }
        read_at(&file, &mut head, begin)?;
        if head == OURS {
            return Ok(None);
        }
        let mut tail = Vec::new();
        for reach in REACH {
            tail.resize(usize::try_from(reach.min(stream)).unwrap_or_default(), 0);
            let from = size - tail.len() as u64;
            read_at(&file, &mut tail, from)?;
            if let Some(found) = find_in(&tail, stream - tail.len() as u64) {
                return Ok(Some(found));
            }
            if reach >= stream {
                break;
            }
        }
        Ok(None)
    }

    /// Reads the JSON of a description that begins at `offset` of the stream, or says why it can't.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(json: &[u8], offset: u64) -> Result<Self, String> {
        let parsed: Whole = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        if let Some(page_size) = parsed.page_size.filter(|size| !PAGE_SIZES.contains(size)) {
            return Err(format!("one with pages of {page_size} bytes"));
        }
        let Whole { page_size, devices: Devices { count: devices, sizes } } = parsed;
        Ok(Self { offset, length: json.len() as u64, page_size, devices, sizes })
    }

    /// The size of the payload of the next section of this name and instance, in bytes.
    pub(super) fn take(&mut self, name: &str, instance: u32) -> Option<u64> {
        self.sizes.get_mut(&(name.to_owned(), instance))?.pop_front()
    }

    /// Checks that every section that it describes was there.
    ///
    /// # Errors
    /// [`Error::Mismatch`].
    pub(super) fn all_taken(&self) -> Result<(), Error> {
        match self.sizes.iter().find(|(_, sizes)| !sizes.is_empty()) {
            None => Ok(()),
            Some(((name, instance), _)) => Err(Error::Mismatch {
                wanted: format!("a FULL of '{}', instance {instance}", name.escape_debug()),
                got: "none".into(),
            }),
        }
    }
}

/// Whether `fd` is a file, which can be read from both ends.
pub(super) fn is_file(fd: impl AsFd) -> bool {
    fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile)
}

/// The sizes of payloads by name and instance.
type Sizes = BTreeMap<(String, u32), VecDeque<u64>>;

#[derive(Deserialize)]
struct Whole {
    page_size: Option<u64>,
    #[serde(default)]
    devices: Devices,
}

/// What is kept of a list of devices.
#[derive(Default)]
struct Devices {
    count: usize,
    sizes: Sizes,
}

#[derive(Deserialize)]
struct Device {
    name: String,
    #[serde(default)]
    instance_id: u32,
    /// Of a device without a list of fields that QEMU knows.
    size: Option<u64>,
    #[serde(default)]
    fields: Sum<Field>,
    #[serde(default)]
    subsections: Sum<Subsection>,
}

/// A field; of a struct or an array its size has everything in it.
#[derive(Deserialize)]
struct Field {
    size: u64,
    /// How many of it there are, each of this size.
    array_len: Option<u64>,
}

#[derive(Deserialize)]
struct Subsection {
    vmsd_name: String,
    #[serde(default)]
    fields: Sum<Field>,
    #[serde(default)]
    subsections: Sum<Subsection>,
}

/// Something that is some bytes long.
trait Length {
    fn bytes(&self) -> u64;
}

/// The bytes of a list of things, none of which is kept.
struct Sum<T> {
    bytes: u64,
    of: PhantomData<T>,
}

impl Length for Device {
    fn bytes(&self) -> u64 {
        self.size.unwrap_or_else(|| self.fields.bytes.saturating_add(self.subsections.bytes))
    }
}

impl Length for Field {
    fn bytes(&self) -> u64 {
        self.size.saturating_mul(self.array_len.unwrap_or(1))
    }
}

impl Length for Subsection {
    fn bytes(&self) -> u64 {
        let head = SUBSECTION_HEAD + self.vmsd_name.len() as u64;
        head.saturating_add(self.fields.bytes).saturating_add(self.subsections.bytes)
    }
}

impl<T> Default for Sum<T> {
    fn default() -> Self {
        Self { bytes: 0, of: PhantomData }
    }
}

impl<'de, T: Deserialize<'de> + Length> Deserialize<'de> for Sum<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Self::default())
    }
}

impl<'de, T: Deserialize<'de> + Length> Visitor<'de> for Sum<T> {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of things with sizes")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<Self, A::Error> {
        while let Some(item) = list.next_element::<T>()? {
            self.bytes = self.bytes.saturating_add(item.bytes());
        }
        Ok(self)
    }
}

impl<'de> Deserialize<'de> for Devices {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Self::default())
    }
}

impl<'de> Visitor<'de> for Devices {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of devices")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<Self, A::Error> {
        while let Some(device) = list.next_element::<Device>()? {
            if self.count == SECTIONS_MAX {
                return Err(A::Error::custom("one of more than 65536 devices"));
            }
            let size = device.bytes();
            self.count += 1;
            self.sizes.entry((device.name, device.instance_id)).or_default().push_back(size);
        }
        Ok(self)
    }
}

/// Looks for a description that ends with `tail`, whose first byte is at `from` of the stream.
fn find_in(tail: &[u8], from: u64) -> Option<Description> {
    let ends = |at: usize| {
        let [DESCRIPTION, a, b, c, d] = *tail.get(at..)?.first_chunk()? else { return None };
        let json = tail.get(at + HEAD..)?;
        (u64::from(u32::from_be_bytes([a, b, c, d])) == json.len() as u64).then_some(json)
    };
    (0..tail.len()).rev().find_map(|at| {
        let json = ends(at).filter(|json| json.starts_with(b"{"))?;
        Description::parse(json, from + at as u64).ok()
    })
}

fn read_at(file: &impl AsFd, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !buffer.is_empty() {
        match pread(file, &mut *buffer, offset)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                buffer = &mut buffer[count..];
                offset += count as u64;
            }
        }
    }
    Ok(())
}

/// How far from the end a description is looked for, step by step.
const REACH: [u64; 3] = [256 << 10, 2 << 20, DESCRIPTION_MAX + HEAD as u64];
/// What a stream begins with that holds only VFIO sections: preamble, a configuration with an empty name.
const OURS: [u8; 13] = *b"QEVM\0\0\0\x03\x07\0\0\0\0";
/// The type byte of a description.
const DESCRIPTION: u8 = 0x06;
/// What stands before the JSON: type byte and length.
const HEAD: usize = 5;
/// What stands before a subsection's fields beside its name: type byte, the name's length, version.
const SUBSECTION_HEAD: u64 = 6;
/// The sizes of pages that a target can have.
const PAGE_SIZES: [u64; 9] =
    [1 << 10, 1 << 11, 1 << 12, 1 << 13, 1 << 14, 1 << 15, 1 << 16, 1 << 17, 1 << 18];
