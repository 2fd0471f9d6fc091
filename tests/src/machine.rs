//! Streams of whole machines: told event by event, and made by hand.
//!
//! Deliberately absent: core's encoders. What is made here is made from the format's description alone, so that a mistake
//! in ours does not meet itself.

use std::os::fd::AsFd;

use byteorder::{BE, WriteBytesExt as _};
use vfio_migration_core::session::drive::Transport;
use vfio_migration_host::file::Error;
use vfio_migration_host::qemu::{Contents, Event, Walker};

use crate::payload::big_endian;
use crate::transfer::holding;

/// What a walk told: one line for each thing, with its offset, and the error that ended it.
#[derive(Debug)]
pub struct Told {
    /// The lines.
    pub lines: Vec<String>,
    /// Why the walk ended early.
    pub error: Option<Error>,
    /// The bytes that were read.
    pub bytes: u64,
}

impl Told {
    /// The lines that have `text` in them.
    #[must_use]
    pub fn with(&self, text: &str) -> Vec<&str> {
        self.lines.iter().map(String::as_str).filter(|line| line.contains(text)).collect()
    }

    /// The error in words, or nothing.
    #[must_use]
    pub fn says(&self) -> String {
        self.error.as_ref().map(ToString::to_string).unwrap_or_default()
    }
}

/// Walks a file that holds `bytes`.
///
/// # Panics
/// When there is no such file.
#[must_use]
pub fn walk_file(bytes: &[u8]) -> Told {
    walk_fd(holding(bytes))
}

/// Walks what `fd` gives.
///
/// # Panics
/// When the kernel does not tell what `fd` is.
#[must_use]
pub fn walk_fd(fd: impl AsFd) -> Told {
    walk(Walker::open(fd, None).unwrap())
}

/// Walks a link that can't be read from its end, as a pipe.
#[must_use]
pub fn walk_link(link: impl Transport) -> Told {
    walk(Walker::new(link, None))
}

fn walk<T: Transport>(mut walker: Walker<T>) -> Told {
    let mut lines = Vec::new();
    let error = loop {
        match walker.next() {
            Ok(Some(event)) => lines.extend(line(&event)),
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    Told { lines, error, bytes: walker.offset() }
}

/// The bytes of every VFIO section from its payload's first byte to its last, joined from the events.
///
/// # Panics
/// When the walk does not come to its end.
#[must_use]
pub fn payloads(bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let mut walker = Walker::open(holding(bytes), None).unwrap();
    let mut found: Vec<(u64, Vec<u8>)> = Vec::new();
    while let Some(event) = walker.next().unwrap() {
        if let Event::Payload { section, offset, bytes, .. } = event {
            if found.last().is_none_or(|(begins, _)| *begins != section.payload) {
                found.push((section.payload, Vec::new()));
            }
            let (begins, payload) = found.last_mut().unwrap();
            assert_eq!(offset, *begins + payload.len() as u64);
            payload.extend(bytes);
        }
    }
    found
}

fn line(event: &Event<'_>) -> Option<String> {
    Some(match event {
        Event::Configuration { length, configuration } => {
            format!("0 configuration of '{}' to {length}", configuration.machine)
        }
        Event::Command { offset, command, length, .. } => format!("{offset} command {command} of {length}"),
        Event::Section(section) => format!("{} {} {}", section.offset, section.show(), section.phase.name()),
        Event::Payload { record, .. } => {
            let record = record.as_ref()?;
            format!("{} {} of {}", record.offset, record.tag, record.length)
        }
        Event::SectionEnd { footer, contents, .. } => format!("{footer} footer, {}", held(*contents)),
        Event::EndOfStream { offset } => format!("{offset} end"),
        Event::Description { offset, length, .. } => format!("{offset} description of {length}"),
    })
}

fn held(contents: Contents) -> String {
    match contents {
        Contents::Opaque(bytes) => format!("{bytes} bytes"),
        Contents::Vfio(found) => format!("{} bytes of data in {}", found.data_bytes, found.data_records),
        Contents::Ram(found) => format!(
            "{} normal, {} zero, {} xbzrle, {} compressed pages, {} flushes",
            found.normal.count, found.zero.count, found.xbzrle.count, found.compressed.count, found.flushes
        ),
    }
}

/// A stream that is made by hand.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// Its bytes so far.
    pub bytes: Vec<u8>,
    /// The entries of its description.
    devices: Vec<String>,
}

impl Machine {
    /// A stream with a preamble and the configuration of a machine called `pc`, whose subsections are these.
    #[must_use]
    pub fn new(subsections: &[(&str, &[u8])]) -> Self {
        let mut machine = Self { bytes: b"QEVM\0\0\0\x03\x07\0\0\0\x02pc".to_vec(), devices: vec![] };
        for (name, body) in subsections {
            machine
                .put(&[5, name.len().try_into().unwrap()])
                .put(name.as_bytes())
                .put(&[0, 0, 0, 1])
                .put(body);
        }
        machine
    }

    /// Any bytes.
    pub fn put(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// A section with a name: type byte 1 for START or 4 for FULL. That of memory is of version 4, any other of 1.
    pub fn begin(&mut self, kind: u8, id: u32, name: &str, instance: u32, payload: &[u8]) -> &mut Self {
        self.put(&[kind]).number(id).put(&[name.len().try_into().unwrap()]).put(name.as_bytes());
        let version: u32 = if name == "ram" { 4 } else { 1 };
        self.number(instance).number(version).put(payload).footer(id)
    }

    /// A section with an id alone: type byte 2 for PART or 3 for END.
    pub fn more(&mut self, kind: u8, id: u32, payload: &[u8]) -> &mut Self {
        self.put(&[kind]).number(id).put(payload).footer(id)
    }

    /// Describes a FULL: `more` is the rest of its JSON object.
    pub fn describe(&mut self, name: &str, instance: u32, more: &str) -> &mut Self {
        self.devices.push(format!("{{\"name\": \"{name}\", \"instance_id\": {instance}, {more}}}"));
        self
    }

    /// The whole stream, with the end byte and the description.
    #[must_use]
    pub fn end(&self) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        let json = format!("{{\"page_size\": 4096, \"devices\": [{}]}}", self.devices.join(", "));
        bytes.extend([0, 6]);
        bytes.write_u32::<BE>(json.len().try_into().unwrap()).unwrap();
        bytes.extend(json.as_bytes());
        bytes
    }

    fn number(&mut self, number: u32) -> &mut Self {
        self.bytes.write_u32::<BE>(number).unwrap();
        self
    }

    fn footer(&mut self, id: u32) -> &mut Self {
        self.put(&[0x7e]).number(id)
    }
}

/// The payload of a START of memory with one block, `pc.ram`, of `length` bytes.
#[must_use]
pub fn ram_start(length: u64) -> Vec<u8> {
    [&big_endian(length | 4)[..], b"\x06pc.ram", &big_endian(length), &RAM_END].concat()
}

/// An entry of memory with its block's name: an address with flags, and what follows the name.
#[must_use]
pub fn ram_entry(word: u64, more: &[u8]) -> Vec<u8> {
    [&big_endian(word)[..], b"\x06pc.ram", more].concat()
}

/// What ends the payload of a section of memory.
pub const RAM_END: [u8; 8] = [0, 0, 0, 0, 0, 0, 0, 0x10];

/// The payload of a VFIO section: this record, `END_OF_STATE`.
#[must_use]
pub fn vfio(record: &[u8]) -> Vec<u8> {
    [record, &[0xff, 0xff, 0xff, 0xff, 0xef, 0x10, 0, 1]].concat()
}

/// A DATA record.
#[must_use]
pub fn data(bytes: &[u8]) -> Vec<u8> {
    let head: [u8; 8] = [0xff, 0xff, 0xff, 0xff, 0xef, 0x10, 0, 4];
    [&head[..], &big_endian(bytes.len() as u64), bytes].concat()
}

/// A SETUP record.
pub const SETUP: [u8; 8] = [0xff, 0xff, 0xff, 0xff, 0xef, 0x10, 0, 3];
