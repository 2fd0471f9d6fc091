//! A stream as one JSON object, written while it is read.
//!
//! Deliberately absent: memory of what was written. What a stream repeats without end goes out as it comes, and only the
//! commands, of which there are a few, are kept for the object's end.

use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;
use serde_json::{Value, json};
use vfio_migration_core::stream::multifd::Content;
use vfio_migration_host::file;
use vfio_migration_host::qemu::{
    Block, ChannelEvent, Contents, Event, Pages, RamEntries, Section, command_name,
};

use super::Report;
use super::config::PciConfig;
use super::totals::Totals;

/// The object, written to `out`.
pub(super) struct Json<W> {
    out: W,
    place: Place,
    commands: Vec<Value>,
    end: Option<u64>,
    description: Value,
    config: Option<Value>,
    /// The number of the channel that is told.
    id: Option<u8>,
    /// The configurations on it.
    configs: Vec<Value>,
}

/// How far the object is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Nothing,
    Sections {
        any: bool,
    },
    /// Within the records of a section.
    Records {
        any: bool,
    },
}

impl<W: Write> Json<W> {
    pub(super) const fn new(out: W) -> Self {
        Self {
            out,
            place: Place::Nothing,
            commands: Vec::new(),
            end: None,
            description: Value::Null,
            config: None,
            id: None,
            configs: Vec::new(),
        }
    }

    fn begin(&mut self, machine: Value, configuration: Value) -> io::Result<()> {
        self.place = Place::Sections { any: false };
        write!(
            self.out,
            "{{\n  \"machine\": {machine},\n  \"configuration\": {configuration},\n  \"sections\": ["
        )
    }

    fn section(&mut self, section: &Section) -> io::Result<()> {
        let comma = if self.place == (Place::Sections { any: true }) { "," } else { "" };
        self.place = Place::Records { any: false };
        let Section { kind, id, idstr, instance, version, offset, payload, phase, .. } = section;
        write!(
            self.out,
            "{comma}\n    {{\"section\": \"{}\", \"id\": {id}, \"idstr\": {}, \"instance\": {instance}, \"version\": {version}, \
             \"phase\": \"{}\", \"begins\": {offset}, \"payload\": {payload}, \"records\": [",
            kind.name(),
            Value::from(idstr.as_str()),
            phase.name(),
        )
    }

    fn record(&mut self, record: &impl Serialize) -> io::Result<()> {
        let comma = if self.place == (Place::Records { any: true }) { "," } else { "" };
        self.place = Place::Records { any: true };
        write!(self.out, "{comma}\n      {}", serde_json::to_string(record)?)
    }

    /// Ends a section; one that is damaged has no footer.
    fn section_end(&mut self, held: Option<Value>, footer: Option<u64>) -> io::Result<()> {
        self.place = Place::Sections { any: true };
        self.out.write_all(b"]")?;
        if let Some(config) = self.config.take() {
            write!(self.out, ", \"config\": {config}")?;
        }
        if let Some(held) = held {
            write!(self.out, ", \"held\": {held}")?;
        }
        write!(self.out, ", \"footer\": {}}}", Value::from(footer))
    }
}

impl<W: Write> Report for Json<W> {
    fn event(&mut self, event: &Event<'_>, config: Option<&PciConfig>) -> io::Result<()> {
        match event {
            Event::Configuration { configuration, .. } => {
                let more = json!({
                    "target_page_bits": configuration.target_page_bits,
                    "capabilities": configuration.capabilities,
                    "uuid": configuration.uuid.map(|uuid| format!("{:032x}", u128::from_be_bytes(uuid))),
                });
                self.begin(configuration.machine.as_str().into(), more)
            }
            Event::Command { offset, command, length, phase } => {
                if self.commands.len() < COMMANDS_MAX {
                    self.commands.push(json!({
                        "command": command, "name": command_name(*command), "at": offset, "bytes": length,
                        "phase": phase.name(),
                    }));
                }
                Ok(())
            }
            Event::Section(section) => self.section(section),
            Event::Payload { record, .. } => {
                if let Some(config) = config {
                    self.config = Some(serde_json::to_value(config)?);
                }
                let Some(record) = record else { return Ok(()) };
                self.record(&Record {
                    record: record.tag.name(),
                    offset: record.offset,
                    length: record.length,
                })
            }
            Event::SectionEnd { footer, contents, blocks, .. } => {
                let held = held(*contents, blocks);
                self.section_end(held, Some(*footer))
            }
            Event::EndOfStream { offset } => {
                self.end = Some(*offset);
                Ok(())
            }
            Event::Description { offset, length, description, ours } => {
                self.description = match ours {
                    Some(ours) => serde_json::to_value(ours)?,
                    None => json!({
                        "at": offset, "bytes": length, "page_size": description.page_size,
                        "described": description.devices,
                    }),
                };
                Ok(())
            }
        }
    }

    fn stream_end(&mut self, offset: u64, error: Option<&file::Error>) -> io::Result<()> {
        if self.place == Place::Nothing {
            self.begin(Value::Null, Value::Null)?;
        }
        if matches!(self.place, Place::Records { .. }) {
            self.section_end(None, None)?;
        }
        let told = |error: &file::Error| ended(offset, error);
        let (stopped, damage) = match error {
            Some(error @ file::Error::Unwalkable { .. }) => (told(error), Value::Null),
            error => (Value::Null, error.map_or(Value::Null, told)),
        };
        let fields = [
            ("commands", std::mem::take(&mut self.commands).into()),
            ("end", self.end.into()),
            ("description", self.description.take()),
            ("stopped", stopped),
            ("damage", damage),
        ];
        self.out.write_all(b"\n  ]")?;
        for (name, value) in fields {
            write!(self.out, ",\n  \"{name}\": {value}")?;
        }
        self.out.write_all(b",\n  \"channels\": [")?;
        self.place = Place::Sections { any: false };
        Ok(())
    }

    fn channel(&mut self, path: &Path) -> io::Result<()> {
        let comma = if self.place == (Place::Sections { any: true }) { "," } else { "" };
        self.place = Place::Records { any: false };
        let path = Value::from(path.to_string_lossy());
        write!(self.out, "{comma}\n    {{\"channel\": {path}, \"packets\": [")
    }

    fn packet(&mut self, event: &ChannelEvent<'_>, config: Option<&PciConfig>) -> io::Result<()> {
        match event {
            ChannelEvent::Init(init) => {
                self.id = Some(init.id);
                Ok(())
            }
            ChannelEvent::Memory(packet) => self.record(&json!({
                "packet": "memory", "at": packet.offset, "bytes": packet.length, "pages": packet.normal_pages,
                "zero_pages": packet.zero_pages, "sync": packet.sync, "block": packet.block,
            })),
            ChannelEvent::State(packet) => {
                let content = match packet.content {
                    Content::Data => "DATA",
                    Content::Config => "CONFIG",
                };
                self.record(&json!({
                    "packet": content, "at": packet.offset, "bytes": packet.length, "data_bytes": packet.bytes,
                    "idstr": packet.idstr, "instance": packet.instance, "index": packet.index,
                }))
            }
            ChannelEvent::Bytes { .. } => {
                if let Some(config) = config.filter(|_| self.configs.len() < CONFIGS_MAX) {
                    self.configs.push(serde_json::to_value(config)?);
                }
                Ok(())
            }
        }
    }

    fn channel_end(&mut self, offset: u64, error: Option<&file::Error>) -> io::Result<()> {
        self.place = Place::Sections { any: true };
        let damage = error.map_or(Value::Null, |error| ended(offset, error));
        let (id, configs) = (Value::from(self.id.take()), Value::from(std::mem::take(&mut self.configs)));
        write!(
            self.out,
            "], \"id\": {id}, \"channel_bytes\": {offset}, \"configs\": {configs}, \"damage\": {damage}}}"
        )
    }

    fn end(&mut self, totals: &Totals) -> io::Result<()> {
        write!(self.out, "\n  ],\n  \"totals\": {}\n}}\n", serde_json::to_string(totals)?)?;
        self.out.flush()
    }
}

fn ended(offset: u64, error: &file::Error) -> Value {
    json!({ "at": error.offset().unwrap_or(offset), "message": error.to_string() })
}

/// A record, with the keys by which other programs find it.
#[derive(Serialize)]
struct Record {
    record: &'static str,
    offset: u64,
    length: u64,
}

/// What a section held that has no records.
fn held(contents: Contents, blocks: &[Block]) -> Option<Value> {
    let pages = |pages: Pages| json!({ "pages": pages.count, "bytes": pages.bytes });
    match contents {
        Contents::Vfio(_) => None,
        Contents::Opaque(bytes) => Some(json!({ "bytes": bytes })),
        Contents::Ram(RamEntries { normal, zero, xbzrle, compressed, flushes, list_bytes }) => {
            let blocks = blocks.iter().filter(|_| list_bytes > 0);
            let blocks = blocks.map(|block| json!({ "name": block.name, "bytes": block.length }));
            Some(json!({
                "normal": pages(normal), "zero": pages(zero), "xbzrle": pages(xbzrle),
                "compressed": pages(compressed), "flushes": flushes, "blocks": blocks.collect::<Vec<_>>(),
            }))
        }
    }
}

/// The most commands that are told.
const COMMANDS_MAX: usize = 4096;
/// The most configurations of a channel that are told.
const CONFIGS_MAX: usize = 64;
