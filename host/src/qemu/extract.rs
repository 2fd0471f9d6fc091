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
use vfio_migration_core::stream::pci_config::{BODY_MAX, find};
use vfio_migration_core::stream::record::{self, Decoder, Tag, WORD, Word, encode};
use vfio_migration_core::stream::section::{Begins, Continues, Item, footer};

use super::pieces::{ChannelsError, Pieces};
use super::walk::config_in;
use super::{Contents, Event, Family, Kind, Section, Walker};
use crate::errno::in_words;
use crate::file::{self, Description, Entry, FORMAT, Writer};
use crate::interrupt::Interrupt;
use crate::link::Link;
use crate::open::UNKNOWN_DRIVER;

/// A device to take out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The name of its sections, for instance `0000:00:02.0/vfio`.
    pub section: String,
    /// Its driver, as the new stream's description is to tell it; [`UNKNOWN_DRIVER`] where nobody can say, but for the
    /// description of a stream of ours.
    pub driver: String,
}

/// What to take out.
#[derive(Clone, Copy, Debug)]
pub struct Extract<'a> {
    /// The devices, no two with sections of one name.
    pub devices: &'a [Wanted],
    /// The channels of multifd, where the machine moved devices' states by some; each is read from its beginning.
    pub channels: &'a [File],
    /// Ends the reading of channels; the reading of the stream and the writing end by those of their links.
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
        /// The names of the VFIO sections that there are, of the first 64 where there are more.
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
    /// A device's sections stop before their END: its state is not whole.
    #[error("wanted an END section of '{name}', got the end of the stream")]
    Unended {
        /// The name of the device's sections.
        name: String,
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
    /// A section or a record stands where QEMU writes none: START, PARTs, END and a FULL with a configuration at most.
    #[error("at byte {offset}: wanted {wanted} of '{name}', got {got}")]
    OutOfPlace {
        /// The name of the device's sections.
        name: String,
        /// Where it begins.
        offset: u64,
        /// What may stand there.
        wanted: &'static str,
        /// What stands there.
        got: &'static str,
    },
    /// A device's state is in its sections, and on the channels once more.
    #[error("wanted the stop-copy data of '{name}' in its END section or on the channels, got both")]
    Both {
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
    /// A device's configuration is none, so that in a stream without its length nobody could find its end.
    #[error("the configuration of '{name}' is none: {}", none(found, *got))]
    NoConfiguration {
        /// The name of the device's sections.
        name: String,
        /// How long a configuration would be that begins like it, nothing where that can't be told, or why none begins so.
        found: Result<Option<usize>, find::Error>,
        /// Its bytes.
        got: usize,
    },
    /// The new stream could not be written.
    #[error("the stream could not be written at byte {offset}: {}", in_words(*code))]
    Write {
        /// Where.
        offset: u64,
        /// The kernel's answer.
        code: Code,
    },
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
        let devices = self.devices.iter().map(Device::new).collect();
        let mut taking = Taking { plan: self, writer, devices, begun: 0, seen: Vec::new() };
        loop {
            let page_size = walker.page_size();
            told(walker.offset());
            match walker.next()? {
                Some(event) => taking.event(&event, page_size)?,
                None => return taking.end(),
            }
        }
    }
}

/// A device that is being taken out.
struct Device {
    entry: Entry,
    instance: u32,
    /// The id of its sections in the new stream; 0 before its START.
    id: u32,
    stage: Stage,
    /// Whether its END had data, or those of the channels came into it.
    has_rest: bool,
    has_config: bool,
    /// The body of its configuration while it passes, up to a byte more than the longest.
    config: Vec<u8>,
    /// Whether a section of the new stream is open.
    is_open: bool,
}

/// How far a device's sections are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Before,
    Going,
    Ended,
    Full,
}

impl Device {
    fn new(Wanted { section: idstr, driver }: &Wanted) -> Self {
        let address = idstr.strip_suffix("/vfio").unwrap_or(idstr).to_owned();
        let entry = Entry { idstr: idstr.clone(), driver: driver.clone(), address, data_bytes: 0 };
        let (has_rest, has_config, is_open) = (false, false, false);
        let (stage, config) = (Stage::Before, Vec::new());
        Self { entry, instance: 0, id: 0, stage, has_rest, has_config, config, is_open }
    }

    /// Takes over from a description of ours what its user has not said.
    fn know(&mut self, ours: &Description) {
        let Entry { idstr, driver, address, .. } = &mut self.entry;
        let told = ours.devices.iter().find(|told| told.idstr == *idstr);
        if let Some(told) = told.filter(|_| driver == UNKNOWN_DRIVER) {
            driver.clone_from(&told.driver);
            address.clone_from(&told.address);
        }
    }

    /// Whether all of its state has passed. With multifd neither END nor FULL has anything.
    fn is_whole(&self) -> bool {
        let has_full = self.stage == Stage::Full;
        self.has_rest || self.has_config || (self.entry.data_bytes > 0 && !has_full)
    }

    /// Fails unless the body that has passed is that of a configuration.
    fn check_config(&mut self) -> Result<(), ExtractError> {
        let mut bytes = mem::take(&mut self.config);
        let got = bytes.len();
        bytes.extend(encode(Tag::EndOfState));
        bytes.extend(footer(self.id));
        let found = config_in(&bytes, self.id);
        if found == Ok(Some(got)) {
            return Ok(());
        }
        Err(ExtractError::NoConfiguration { name: self.entry.idstr.clone(), found, got })
    }

    fn out_of_place(&self, offset: u64, wanted: &'static str, got: &'static str) -> ExtractError {
        ExtractError::OutOfPlace { name: self.entry.idstr.clone(), offset, wanted, got }
    }
}

struct Taking<'a, Out> {
    plan: &'a Extract<'a>,
    writer: Writer<Out>,
    devices: Vec<Device>,
    /// How many devices have begun.
    begun: u32,
    /// The names of the first VFIO devices.
    seen: Vec<String>,
}

impl<Out: AsFd> Taking<'_, Out> {
    fn event(&mut self, event: &Event<'_>, page_size: u64) -> Result<(), ExtractError> {
        match *event {
            Event::Section(section) if section.family == Family::Vfio => self.section(section),
            Event::Payload { section, offset, bytes, tag, .. } => {
                let Some(index) = self.wanted(section) else { return Ok(()) };
                self.check_record(index, section.kind, tag, offset)?;
                self.payload(index, section.kind, bytes, tag, page_size)
            }
            Event::SectionEnd { section, contents: Contents::Vfio(records), .. } => {
                self.section_end(section, records.data_bytes)
            }
            // A stream of ours says what QEMU's does not.
            Event::Description { ours: Some(ours), .. } => {
                for device in &mut self.devices {
                    device.know(ours);
                }
                Ok(())
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
        let is_new = self.seen.len() < SEEN_MAX && !self.seen.contains(&section.idstr);
        if section.kind == Kind::Start && is_new {
            self.seen.push(section.idstr.clone());
        }
        let Some(index) = self.wanted(section) else { return Ok(()) };
        let name = section.idstr.clone();
        if section.version != VERSION {
            return Err(ExtractError::Version { name, offset: section.offset, got: section.version });
        }
        let device = &mut self.devices[index];
        match (device.stage, section.kind) {
            (Stage::Before, Kind::Start) => {
                self.begun += 1;
                (device.id, device.instance, device.stage) = (self.begun, section.instance, Stage::Going);
                self.begin(index, Begins::Start)
            }
            (_, Kind::Start) => Err(ExtractError::Twice { name }),
            (Stage::Going, Kind::Part) => self.go_on(index, Continues::Part),
            (Stage::Going, Kind::End) => {
                device.stage = Stage::Ended;
                self.go_on(index, Continues::End)
            }
            // It begins with its configuration, where it has one.
            (Stage::Ended, Kind::Full) => {
                device.stage = Stage::Full;
                Ok(())
            }
            (stage, kind) => {
                let wanted = match stage {
                    Stage::Before => "a START",
                    Stage::Going => "a PART or END",
                    Stage::Ended => "a FULL at most",
                    Stage::Full => "no more sections",
                };
                Err(device.out_of_place(section.offset, wanted, kind.name()))
            }
        }
    }

    /// Fails where QEMU does not write such a record into such a section.
    fn check_record(&self, index: usize, kind: Kind, tag: Tag, offset: u64) -> Result<(), ExtractError> {
        let device = &self.devices[index];
        let (may, wanted) = match kind {
            Kind::Start => (matches!(tag, Tag::Setup | Tag::EndOfState), "SETUP in the START"),
            Kind::Part => (
                matches!(tag, Tag::Data | Tag::EndOfState | Tag::InitDataSent),
                "DATA or the end of the payload in a PART",
            ),
            Kind::End => (matches!(tag, Tag::Data | Tag::EndOfState), "DATA or END_OF_STATE in the END"),
            Kind::Full => (
                matches!(tag, Tag::EndOfState | Tag::ConfigLoadReady)
                    || tag == Tag::Config && (device.is_open || !device.has_config),
                "one CONFIG or the end of the payload in the FULL",
            ),
        };
        if may { Ok(()) } else { Err(device.out_of_place(offset, wanted, tag.name())) }
    }

    /// Passes a piece of a payload on. In a file nobody acknowledges a switchover, so INIT_DATA_SENT ends a payload as
    /// END_OF_STATE does; a FULL section without a configuration is left out.
    fn payload(
        &mut self,
        index: usize,
        kind: Kind,
        bytes: &[u8],
        tag: Tag,
        page_size: u64,
    ) -> Result<(), ExtractError> {
        let device = &mut self.devices[index];
        match (kind, tag) {
            (Kind::End, Tag::Data) => device.has_rest = true,
            (Kind::End, Tag::EndOfState) if !self.plan.channels.is_empty() => {
                return self.end_with_channels(index, page_size);
            }
            (Kind::Full, Tag::Config) if !device.is_open => {
                device.has_config = true;
                self.begin(index, Begins::Full)?;
            }
            (Kind::Full, Tag::Config) => {
                let room = (BODY_MAX + 1).saturating_sub(device.config.len());
                device.config.extend_from_slice(&bytes[..room.min(bytes.len())]);
            }
            (Kind::Full, Tag::EndOfState) if device.is_open => device.check_config()?,
            (Kind::Full, _) if !device.is_open => return Ok(()),
            _ => {}
        }
        let is_end = tag == Tag::InitDataSent;
        if is_end { self.write(&encode(Tag::EndOfState)) } else { self.write(bytes) }
    }

    fn section_end(&mut self, section: &Section, data_bytes: u64) -> Result<(), ExtractError> {
        let Some(index) = self.wanted(section) else { return Ok(()) };
        let device = &mut self.devices[index];
        device.entry.data_bytes += data_bytes;
        if mem::take(&mut device.is_open) { self.footer(index) } else { Ok(()) }
    }

    /// Ends an END section: with what the channels have of the device where it has no data itself, and with the
    /// configuration in a FULL section of its own.
    fn end_with_channels(&mut self, index: usize, page_size: u64) -> Result<(), ExtractError> {
        for (channel, mut file) in self.plan.channels.iter().enumerate() {
            file.rewind().map_err(|error| ExtractError::Rewind { channel, error })?;
        }
        let device = &mut self.devices[index];
        let had_data = mem::replace(&mut device.has_rest, true);
        let (name, instance) = (device.entry.idstr.clone(), device.instance);
        let mut pieces = Pieces::new(self.plan.channels, &name, instance, page_size, self.plan.interrupt);
        if had_data {
            return match pieces.are_there()? {
                true => Err(ExtractError::Both { name }),
                false => self.write(&encode(Tag::EndOfState)),
            };
        }
        let mut decoder = Decoder::new();
        pieces.payload(|bytes| self.piece(index, &mut decoder, bytes))
    }

    /// Writes a record's head, a part of its data, or a whole configuration with the END_OF_STATE behind it.
    fn piece(&mut self, index: usize, decoder: &mut Decoder, bytes: &[u8]) -> Result<(), ExtractError> {
        let name = self.devices[index].entry.idstr.clone();
        match decoder.wanted() {
            record::Wanted::Word => {
                let mut is_config = false;
                for word in bytes.as_chunks().0 {
                    let word = decoder.word(*word);
                    let word =
                        word.map_err(|error| ExtractError::Configuration { name: name.clone(), error })?;
                    is_config |= word == Word::Tag(Tag::Config);
                }
                if is_config {
                    self.devices[index].has_config = true;
                    self.write(&encode(Tag::EndOfState))?;
                    self.footer(index)?;
                    self.begin(index, Begins::Full)?;
                }
            }
            record::Wanted::Data(_) => {
                decoder.data(bytes.len() as u64);
                self.devices[index].entry.data_bytes += bytes.len() as u64;
            }
            // It comes at once, and what would follow it makes it too long.
            record::Wanted::Config | record::Wanted::Nothing(_) => {
                let (body, _) = bytes.split_at(bytes.len().saturating_sub(WORD));
                decoder.config(body.len() as u64);
                self.devices[index].config = body.to_vec();
                let end = bytes.last_chunk().copied().unwrap_or_default();
                decoder.word(end).map_err(|error| ExtractError::Configuration { name, error })?;
                self.devices[index].check_config()?;
            }
        }
        self.write(bytes)
    }

    /// Ends the new stream, if it has all that was wanted.
    fn end(mut self) -> Result<Vec<Entry>, ExtractError> {
        for device in &self.devices {
            let name = device.entry.idstr.clone();
            if device.stage == Stage::Before {
                return Err(ExtractError::Absent { wanted: name, got: self.seen });
            }
            if device.stage == Stage::Going {
                return Err(ExtractError::Unended { name });
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

/// Why `got` bytes are no configuration.
fn none(found: &Result<Option<usize>, find::Error>, got: usize) -> String {
    match found {
        Ok(Some(wanted)) => format!("wanted {wanted} bytes, got {got}"),
        Ok(None) => format!("wanted one whose length can be told, got {got} bytes"),
        Err(error) => error.to_string(),
    }
}

fn listed(names: &[String]) -> String {
    match names {
        [] => "a stream without any".into(),
        names => names.iter().map(|name| format!("'{}'", name.escape_debug())).collect::<Vec<_>>().join(", "),
    }
}

/// The most names that are told where one is not there.
const SEEN_MAX: usize = 64;
/// The version of a VFIO section.
const VERSION: u32 = 1;
