//! Takes devices' states out of a stream that a QEMU wrote, and writes them as a stream of ours.
//!
//! The sections of each device that is wanted keep their records; what went by multifd's channels comes into the END
//! section as it would have without them, and the configuration into a FULL section. The stream is read to its last
//! byte before the new one gets its end, so that one which is not whole never looks so.
//!
//! Deliberately absent: the device's driver. A QEMU's stream does not name it; whoever has the new one checked against
//! a device must say it.

use std::fs::File;
use std::io::{self, Seek};
use std::mem;
use std::os::fd::AsFd;

use vfio_migration_core::session::Code;
use vfio_migration_core::session::drive::Transport;
use vfio_migration_core::stream::record::{self, Decoder, Tag, WORD, Wanted, Word, encode};
use vfio_migration_core::stream::section::{Begins, Continues, Item};

use super::pieces::{ChannelsError, Pieces};
use super::{Contents, Event, Family, Kind, Section, Walker};
use crate::errno::in_words;
use crate::file::{self, Description, Entry, FORMAT, Writer};
use crate::interrupt::Interrupt;
use crate::link::Link;

/// What to take out.
#[derive(Clone, Copy, Debug)]
pub struct Extract<'a> {
    /// The names of the devices' sections, for instance `0000:00:02.0/vfio`.
    pub sections: &'a [String],
    /// The driver of each of them, as the new stream's description is to tell it.
    pub drivers: &'a [String],
    /// The channels of multifd, where the machine moved devices' states by some; each is read from its beginning.
    pub channels: &'a [File],
    /// Ends the work.
    pub interrupt: Option<&'a Interrupt>,
}

/// Why no device's state could be taken out.
#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    /// The stream is damaged, or can't be read.
    #[error(transparent)]
    Stream(#[from] file::Error),
    /// A channel is damaged, or can't be read.
    #[error(transparent)]
    Channels(#[from] ChannelsError),
    /// A channel can't be read from its beginning.
    #[error("channel {channel} can't be read from its beginning: {error}")]
    Rewind {
        /// Which channel, from 0.
        channel: usize,
        /// The kernel's answer.
        error: io::Error,
    },
    /// The stream has no such section.
    #[error("wanted a section '{wanted}' of a VFIO device, got {}", listed(got))]
    Absent {
        /// The name that was wanted.
        wanted: String,
        /// The names of all VFIO sections.
        got: Vec<String>,
    },
    /// Two devices have sections of this name.
    #[error("wanted one device with the section '{name}', got two")]
    Twice {
        /// The name.
        name: String,
    },
    /// A section has another version.
    #[error("at byte {offset}: wanted version 1 of section '{name}', got {got}")]
    Version {
        /// The name.
        name: String,
        /// Where the section begins.
        offset: u64,
        /// Its version.
        got: u32,
    },
    /// The state of a device is not in the stream.
    #[error(
        "the stream has no stop-copy data of '{name}': they went by the channels of multifd, whose files are wanted \
         with it"
    )]
    Elsewhere {
        /// The name of the device's sections.
        name: String,
    },
    /// The packet of a device's configuration is damaged.
    #[error("the configuration of '{name}' on the channels is damaged: {error}")]
    Configuration {
        /// The name of the device's sections.
        name: String,
        /// What is wrong with it.
        error: record::Error,
    },
    /// The new stream could not be written.
    #[error("the stream could not be written at byte {offset}: {}", in_words(*code))]
    Write {
        /// Where.
        offset: u64,
        /// The kernel's answer.
        code: Code,
    },
    /// A stop was asked for.
    #[error("interrupted")]
    Interrupted,
}

impl<'a> Extract<'a> {
    /// Takes the devices out of the stream that `walker` is at the begin of, and writes them to `link`. `told` gets the
    /// bytes that were read so far, now and then. Returns what the new stream says of each device.
    ///
    /// # Errors
    /// [`ExtractError`]; what was written has no end then.
    pub fn run<In: Transport, Out: AsFd>(
        &self,
        mut walker: Walker<In>,
        link: Link<Out>,
        mut told: impl FnMut(u64),
    ) -> Result<Vec<Entry>, ExtractError> {
        let writer = Writer::begin(link).map_err(|code| ExtractError::Write { offset: 0, code })?;
        let devices = self.sections.iter().zip(self.drivers).map(|(name, driver)| Device::new(name, driver));
        let mut taking =
            Taking { plan: self, writer, devices: devices.collect(), begun: 0, seen: Vec::new() };
        loop {
            let (offset, page_size) = (walker.offset(), walker.page_size());
            told(offset);
            self.check_interrupt()?;
            match walker.next()? {
                Some(event) => taking.event(&event, page_size)?,
                None => return taking.end(),
            }
        }
    }

    fn check_interrupt(&self) -> Result<(), ExtractError> {
        let asked = self.interrupt.is_some_and(|interrupt| interrupt.asked().is_some());
        if asked { Err(ExtractError::Interrupted) } else { Ok(()) }
    }
}

/// A device that is being taken out.
struct Device {
    entry: Entry,
    instance: u32,
    /// The id of its sections in the new stream; 0 before its START.
    id: u32,
    /// Whether its END had data, or those of the channels came into it.
    has_rest: bool,
    /// Whether there was a FULL section.
    has_full: bool,
    has_config: bool,
    /// Whether a section of the new stream is open.
    is_open: bool,
}

impl Device {
    fn new(name: &str, driver: &str) -> Self {
        let address = name.strip_suffix("/vfio").unwrap_or(name).to_owned();
        let entry = Entry { idstr: name.to_owned(), driver: driver.to_owned(), address, data_bytes: 0 };
        Self {
            entry,
            instance: 0,
            id: 0,
            has_rest: false,
            has_full: false,
            has_config: false,
            is_open: false,
        }
    }

    /// Whether all of its state has passed.
    fn is_whole(&self) -> bool {
        self.has_rest || (self.entry.data_bytes > 0 && (self.has_config || !self.has_full))
    }
}

struct Taking<'a, Out> {
    plan: &'a Extract<'a>,
    writer: Writer<Out>,
    devices: Vec<Device>,
    /// How many devices have begun.
    begun: u32,
    /// The names of all VFIO devices so far.
    seen: Vec<String>,
}

impl<Out: AsFd> Taking<'_, Out> {
    fn event(&mut self, event: &Event<'_>, page_size: u64) -> Result<(), ExtractError> {
        match *event {
            Event::Section(section) if section.family == Family::Vfio => self.section(section),
            Event::Payload { section, bytes, tag, .. } => self.payload(section, bytes, tag, page_size),
            Event::SectionEnd { section, contents: Contents::Vfio(records), .. } => {
                self.section_end(section, records.data_bytes)
            }
            Event::Section(_)
            | Event::SectionEnd { .. }
            | Event::Configuration { .. }
            | Event::Command { .. }
            | Event::EndOfStream { .. }
            | Event::Description { .. } => Ok(()),
        }
    }

    /// Which of the devices a section is of, if of any.
    fn wanted(&self, section: &Section) -> Option<usize> {
        self.devices.iter().position(|device| device.entry.idstr == section.idstr)
    }

    fn section(&mut self, section: &Section) -> Result<(), ExtractError> {
        if section.kind == Kind::Start && !self.seen.contains(&section.idstr) {
            self.seen.push(section.idstr.clone());
        }
        let Some(index) = self.wanted(section) else { return Ok(()) };
        let name = section.idstr.clone();
        if section.version != VERSION {
            return Err(ExtractError::Version { name, offset: section.offset, got: section.version });
        }
        match section.kind {
            Kind::Start if self.devices[index].id != 0 => Err(ExtractError::Twice { name }),
            Kind::Start => {
                self.begun += 1;
                (self.devices[index].id, self.devices[index].instance) = (self.begun, section.instance);
                self.begin(index, Begins::Start)
            }
            Kind::Part => self.go_on(index, Continues::Part),
            Kind::End => self.go_on(index, Continues::End),
            Kind::Full => {
                self.devices[index].has_full = true;
                Ok(())
            }
        }
    }

    /// Passes a piece of a payload on. In a file nobody acknowledges a switchover, so INIT_DATA_SENT ends a payload as
    /// END_OF_STATE does; a FULL section without a configuration is left out.
    fn payload(
        &mut self,
        section: &Section,
        bytes: &[u8],
        tag: Tag,
        page_size: u64,
    ) -> Result<(), ExtractError> {
        let Some(index) = self.wanted(section) else { return Ok(()) };
        let device = &mut self.devices[index];
        match (section.kind, tag) {
            (Kind::End, Tag::Data) => device.has_rest = true,
            (Kind::End, Tag::EndOfState) if !device.has_rest && !self.plan.channels.is_empty() => {
                return self.rest_of_channels(index, page_size);
            }
            (Kind::Full, Tag::Config) if !device.is_open && !device.has_config => {
                device.has_config = true;
                self.begin(index, Begins::Full)?;
            }
            (Kind::Full, _) if !device.is_open => return Ok(()),
            _ => {}
        }
        match tag {
            Tag::InitDataSent => self.write(&encode(Tag::EndOfState)),
            Tag::Data | Tag::EndOfState | Tag::Config | Tag::Setup | Tag::ConfigLoadReady => {
                self.write(bytes)
            }
        }
    }

    fn section_end(&mut self, section: &Section, data_bytes: u64) -> Result<(), ExtractError> {
        let Some(index) = self.wanted(section) else { return Ok(()) };
        let device = &mut self.devices[index];
        device.entry.data_bytes += data_bytes;
        if mem::take(&mut device.is_open) { self.footer(index) } else { Ok(()) }
    }

    /// Writes what the channels have of a device in the place of an END_OF_STATE that is alone in its END section.
    fn rest_of_channels(&mut self, index: usize, page_size: u64) -> Result<(), ExtractError> {
        for (channel, mut file) in self.plan.channels.iter().enumerate() {
            file.rewind().map_err(|error| ExtractError::Rewind { channel, error })?;
        }
        let device = &mut self.devices[index];
        device.has_rest = true;
        let (name, instance) = (device.entry.idstr.clone(), device.instance);
        let mut pieces = Pieces::new(self.plan.channels, &name, instance, page_size);
        let mut decoder = Decoder::new();
        pieces.payload(|bytes| {
            self.plan.check_interrupt()?;
            self.piece(index, &mut decoder, bytes)
        })
    }

    /// Writes a record's head, a part of its data, or a whole configuration with the END_OF_STATE behind it. The
    /// configuration gets a FULL section of its own.
    fn piece(&mut self, index: usize, decoder: &mut Decoder, bytes: &[u8]) -> Result<(), ExtractError> {
        let name = &self.devices[index].entry.idstr;
        let damaged = |error| ExtractError::Configuration { name: name.clone(), error };
        match decoder.wanted() {
            Wanted::Word => {
                let mut is_config = false;
                for word in bytes.as_chunks().0 {
                    is_config |= decoder.word(*word).map_err(damaged)? == Word::Tag(Tag::Config);
                }
                if is_config {
                    self.devices[index].has_config = true;
                    self.write(&encode(Tag::EndOfState))?;
                    self.footer(index)?;
                    self.begin(index, Begins::Full)?;
                }
            }
            Wanted::Data(_) => {
                decoder.data(bytes.len() as u64);
                self.devices[index].entry.data_bytes += bytes.len() as u64;
            }
            Wanted::Config | Wanted::Nothing(_) => {
                decoder.config(bytes.len().saturating_sub(WORD) as u64);
                decoder.word(bytes.last_chunk().copied().unwrap_or_default()).map_err(damaged)?;
            }
        }
        self.write(bytes)
    }

    /// Ends the new stream, if it has all that was wanted.
    fn end(mut self) -> Result<Vec<Entry>, ExtractError> {
        for device in &self.devices {
            let name = device.entry.idstr.clone();
            if device.id == 0 {
                return Err(ExtractError::Absent { wanted: name, got: self.seen });
            }
            if !device.is_whole() {
                return Err(ExtractError::Elsewhere { name });
            }
        }
        let devices: Vec<_> = self.devices.into_iter().map(|device| device.entry).collect();
        let description = Description { format: FORMAT, devices };
        let offset = self.writer.offset();
        self.writer.end(&description).map_err(|code| ExtractError::Write { offset, code })?;
        Ok(description.devices)
    }

    fn begin(&mut self, index: usize, kind: Begins) -> Result<(), ExtractError> {
        let Device { id, ref entry, .. } = self.devices[index];
        let name = entry.idstr.clone();
        self.item(index, &Item::Begin { kind, id, name: name.as_bytes(), instance: 0, version: VERSION })
    }

    fn go_on(&mut self, index: usize, kind: Continues) -> Result<(), ExtractError> {
        let id = self.devices[index].id;
        self.item(index, &Item::Continue { kind, id })
    }

    fn item(&mut self, index: usize, item: &Item<'_>) -> Result<(), ExtractError> {
        self.devices[index].is_open = true;
        let offset = self.writer.offset();
        self.writer.item(item).map_err(|code| ExtractError::Write { offset, code })
    }

    fn footer(&mut self, index: usize) -> Result<(), ExtractError> {
        let offset = self.writer.offset();
        self.writer.footer(self.devices[index].id).map_err(|code| ExtractError::Write { offset, code })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), ExtractError> {
        let offset = self.writer.offset();
        self.writer.all(bytes).map_err(|code| ExtractError::Write { offset, code })
    }
}

fn listed(names: &[String]) -> String {
    match names {
        [] => "a stream without any".into(),
        names => names.iter().map(|name| format!("'{}'", name.escape_debug())).collect::<Vec<_>>().join(", "),
    }
}

/// The version of a VFIO section.
const VERSION: u32 = 1;
