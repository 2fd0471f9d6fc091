//! Streams of whole machines: told event by event, and made by hand.
//!
//! Deliberately absent: core's encoders. What is made here is made from the format's description alone, so that a mistake
//! in ours does not meet itself.

use std::os::fd::AsFd;

use vfio_migration_core::session::drive::Transport;
use vfio_migration_host::file::Error;
use vfio_migration_host::qemu::{Contents, Event, Walker};

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
    walk(Walker::open(fd).unwrap())
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
    let mut walker = Walker::open(holding(bytes)).unwrap();
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
        Event::Command { offset, command, length } => format!("{offset} command {command} of {length}"),
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
