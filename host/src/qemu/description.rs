//! QEMU's description of a stream, the JSON behind the end byte: it alone says how long the sections of other devices are.
//!
//! A description comes last, behind what it describes, and nothing in the stream says where it begins. In a file it is
//! looked for from the end: its length must lead exactly to the file's last byte, and what is there must be JSON. The
//! walk checks the place once more when it arrives.
//!
//! Deliberately absent: the fields' values and meanings. Their sizes are added up.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::AsFd;

use rustix::fs::{FileType, SeekFrom, fstat, seek};
use rustix::io::pread;
use serde::Deserialize;

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
    sizes: HashMap<(String, u32), VecDeque<u64>>,
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
            return Err(format!("has pages of {page_size} bytes"));
        }
        let devices = parsed.devices.len();
        let mut sizes = HashMap::<_, VecDeque<_>>::new();
        for device in parsed.devices {
            let size = device.size.unwrap_or_else(|| bytes_of(&device.fields, &device.subsections));
            sizes.entry((device.name, device.instance_id)).or_default().push_back(size);
        }
        Ok(Self { offset, length: json.len() as u64, page_size: parsed.page_size, devices, sizes })
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

#[derive(Deserialize)]
struct Whole {
    page_size: Option<u64>,
    #[serde(default)]
    devices: Vec<Device>,
}

#[derive(Deserialize)]
struct Device {
    name: String,
    #[serde(default)]
    instance_id: u32,
    /// Of a device without a list of fields that QEMU knows.
    size: Option<u64>,
    #[serde(default)]
    fields: Vec<Field>,
    #[serde(default)]
    subsections: Vec<Subsection>,
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
    fields: Vec<Field>,
    #[serde(default)]
    subsections: Vec<Subsection>,
}

/// The bytes of fields and of the subsections behind them.
fn bytes_of(fields: &[Field], subsections: &[Subsection]) -> u64 {
    let fields = fields.iter().map(|field| field.size.saturating_mul(field.array_len.unwrap_or(1)));
    let subsections = subsections.iter().map(|subsection| {
        let head = SUBSECTION_HEAD + subsection.vmsd_name.len() as u64;
        head.saturating_add(bytes_of(&subsection.fields, &subsection.subsections))
    });
    fields.chain(subsections).fold(0, u64::saturating_add)
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
