//! The walk through a stream.
//!
//! Deliberately absent: seeking. A stream is read from its first byte to its last, so that a pipe will do where the
//! format allows it.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::mem;
use std::os::fd::AsFd;

use vfio_migration_core::session::drive::Transport;
use vfio_migration_core::stream::pci_config::BODY_MAX;
use vfio_migration_core::stream::pci_config::find::{self, Finder, Found, Progress};
use vfio_migration_core::stream::record::{Tag, WORD};
use vfio_migration_core::stream::section::{self, FOOTER, Item, SWITCHOVER_START};

use super::ahead::Ahead;
use super::description::is_file;
use super::event::PACKAGED;
use super::ram::{RAM_VERSION, Ram};
use super::{
    Block, Configuration, Contents, DESCRIPTION_MAX, Description, Event, Family, Kind, Payload, Phase,
    RamEntries, Section, Unwalkable, VfioRecords, skip,
};
use crate::file::{self, Error, Reader, show};
use crate::interrupt::Interrupt;
use crate::link::Link;

/// Reads a stream from a link; each call of [`Walker::next`] goes one thing further.
#[derive(Debug)]
pub struct Walker<T> {
    reader: Reader<Ahead<T>>,
    /// What was found at the end of a file, and nothing from a pipe.
    description: Option<Description>,
    is_file: bool,
    place: Place,
    phase: Phase,
    configuration: Configuration,
    /// The START sections by their ids.
    live: HashMap<u32, Section>,
    /// How many sections had a name of their own.
    begun: usize,
    /// Bytes of data of each VFIO device.
    data_bytes: BTreeMap<String, u64>,
    ram: Ram,
    /// The last section that began.
    section: Section,
    is_inside: bool,
    contents: Contents,
    bytes: Vec<u8>,
    ours: Option<file::Description>,
}

/// What the stream goes on with.
#[derive(Debug)]
enum Place {
    Preamble,
    Item,
    Vfio(Payload),
    Ram,
    Opaque(u64),
    /// Nothing that can be read, from this byte on.
    Unwalkable(u64, Unwalkable),
    Footer,
    Description,
    Nothing,
}

impl<Fd: AsFd> Walker<Link<Fd>> {
    /// A walk through the stream that begins where `fd` is positioned; in a file the description at its end is read
    /// first. What waits for it ends with ECANCELED when `interrupt` is asked.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn open(fd: Fd, interrupt: Option<Interrupt>) -> io::Result<Self> {
        let is_file = is_file(&fd);
        let description = if is_file { Description::find(&fd)? } else { None };
        Ok(Self { is_file, ..Self::new(Link::new(fd, interrupt), description) })
    }
}

impl<T: Transport> Walker<T> {
    /// A walk through what `link` gives, with the description of its end where that is known.
    pub fn new(link: T, description: Option<Description>) -> Self {
        Self {
            reader: Reader::new(Ahead::new(link)),
            is_file: description.is_some(),
            description,
            place: Place::Preamble,
            phase: Phase::default(),
            configuration: Configuration::default(),
            live: HashMap::new(),
            begun: 0,
            data_bytes: BTreeMap::new(),
            ram: Ram::new(),
            section: Section::none(),
            is_inside: false,
            contents: Contents::Opaque(0),
            bytes: Vec::new(),
            ours: None,
        }
    }

    /// The next thing, or nothing behind the last byte and behind an error.
    ///
    /// # Errors
    /// [`Error`], behind which nothing more can be told; among others [`Error::Unwalkable`] where nothing is damaged.
    #[expect(clippy::should_implement_trait, reason = "what it gives borrows from the walk")]
    pub fn next(&mut self) -> Result<Option<Event<'_>>, Error> {
        match mem::replace(&mut self.place, Place::Nothing) {
            Place::Preamble => self.preamble().map(Some),
            Place::Item => self.item().map(Some),
            Place::Vfio(payload) => self.vfio(payload).map(Some),
            Place::Ram => {
                let mut found = RamEntries::default();
                let outcome = self.ram.payload(&mut self.reader, &mut found);
                self.contents = Contents::Ram(found);
                outcome?;
                self.footer().map(Some)
            }
            Place::Opaque(length) => {
                self.contents = Contents::Opaque(length);
                skip(&mut self.reader, length, "a device's section")?;
                self.footer().map(Some)
            }
            Place::Unwalkable(offset, reason) => Err(Error::Unwalkable { offset, reason }),
            Place::Footer => self.footer().map(Some),
            Place::Description => self.end(),
            Place::Nothing => Ok(None),
        }
    }

    /// The bytes that were read so far.
    pub const fn offset(&self) -> u64 {
        self.reader.offset()
    }

    /// Where in the migration the walk is.
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// The size of a page of the machine, in bytes.
    pub const fn page_size(&self) -> u64 {
        self.ram.page_size
    }

    /// The section that the walk is in, and what of it was read: where an error ended the walk, what came before it.
    pub fn under_way(&self) -> Option<(&Section, Contents)> {
        self.is_inside.then_some((&self.section, self.contents))
    }

    /// The blocks of guest memory, as far as they are known.
    pub fn blocks(&self) -> &[Block] {
        self.ram.blocks()
    }

    fn preamble(&mut self) -> Result<Event<'_>, Error> {
        self.reader.preamble()?;
        let offset = self.reader.offset();
        self.configuration = Configuration::read(&mut self.reader)?;
        self.ram.ignore_shared = self.configuration.has("x-ignore-shared");
        let bits = self.configuration.target_page_bits;
        let described = self.description.as_ref().and_then(|description| description.page_size);
        self.ram.page_size = bits.map(|bits| 1 << bits).or(described).unwrap_or(self.ram.page_size);
        self.place = match self.configuration.has("mapped-ram") {
            true => Place::Unwalkable(offset, Unwalkable::MappedRam),
            false => Place::Item,
        };
        Ok(Event::Configuration { length: self.reader.offset(), configuration: &self.configuration })
    }

    /// Reads a section's header, a command or the end byte.
    fn item(&mut self) -> Result<Event<'_>, Error> {
        let offset = self.reader.offset();
        match self.reader.item()? {
            Item::Begin { kind, id, name, instance, version } => {
                let (kind, idstr) = (kind.into(), String::from_utf8_lossy(name).into_owned());
                let family = Family::of(&idstr);
                let section = Section { kind, family, id, idstr, instance, version, ..Section::none() };
                self.section(Section { offset, ..section })
            }
            Item::Continue { kind, id } => {
                let kind = Kind::from(kind);
                let Some(start) = self.live.get(&id) else {
                    let (wanted, got) =
                        ("a section that a START began", format!("{} of section {id}", kind.name()));
                    return Err(Error::Unexpected { offset, wanted, got });
                };
                self.section(Section { kind, offset, ..start.clone() })
            }
            Item::Command { command, length } => self.command(offset, command, length),
            Item::EndOfStream => {
                (self.phase, self.place) = (Phase::End, Place::Description);
                Ok(Event::EndOfStream { offset })
            }
            item @ (Item::Configuration { .. } | Item::Subsection { .. } | Item::Description { .. }) => {
                Err(Error::Unexpected {
                    offset,
                    wanted: "a section or the end of the stream",
                    got: show(&item),
                })
            }
        }
    }

    /// Reads the data of a command.
    fn command(&mut self, offset: u64, command: u16, length: u16) -> Result<Event<'_>, Error> {
        if command == PACKAGED {
            return Err(Error::Unwalkable { offset, reason: Unwalkable::Packaged });
        }
        skip(&mut self.reader, length.into(), "a command")?;
        if command == SWITCHOVER_START {
            self.phase = self.phase.max(Phase::StopCopy);
        }
        self.place = Place::Item;
        let (length, phase) = (self.reader.offset() - offset, self.phase);
        Ok(Event::Command { offset, command, length, phase })
    }

    /// Begins a section whose header was read.
    fn section(&mut self, mut section: Section) -> Result<Event<'_>, Error> {
        let offset = section.offset;
        let named = matches!(section.kind, Kind::Start | Kind::Full);
        self.begun += usize::from(named);
        if named && self.begun > SECTIONS_MAX {
            let (wanted, got) = ("at most 65536 sections with a name", "one more".into());
            return Err(Error::Unexpected { offset, wanted, got });
        }
        if named && section.family == Family::Ram && section.version != RAM_VERSION {
            let (wanted, got) =
                ("a section of guest memory of version 4", format!("version {}", section.version));
            return Err(Error::Unexpected { offset, wanted, got });
        }
        if section.kind == Kind::Start && self.live.contains_key(&section.id) {
            let wanted = "a section with an id of its own";
            return Err(Error::Unexpected { offset, wanted, got: format!("{} once more", section.show()) });
        }
        self.phase = self.phase.at(section.kind);
        (section.payload, section.phase) = (self.reader.offset(), self.phase);
        self.place = self.inside(&section);
        if section.kind == Kind::Start {
            self.live.insert(section.id, section.clone());
        }
        (self.section, self.is_inside) = (section, true);
        Ok(Event::Section(&self.section))
    }

    /// What the payload of a section is read as.
    fn inside(&mut self, section: &Section) -> Place {
        let description = self.description.as_mut().filter(|_| section.kind == Kind::Full);
        let size = description.and_then(|description| description.take(&section.idstr, section.instance));
        let (begins, section_in_words) = (section.payload, || section.show());
        match (section.family, section.kind, size) {
            (Family::Vfio, _, size) => {
                self.contents = Contents::Vfio(VfioRecords::default());
                Place::Vfio(size.map_or(Payload::new(begins), |length| Payload::sized(begins, length)))
            }
            (Family::Ram, Kind::Start | Kind::Part | Kind::End, _) => {
                self.contents = Contents::Ram(RamEntries::default());
                Place::Ram
            }
            (_, Kind::Full, Some(length)) => {
                self.contents = Contents::Opaque(length);
                Place::Opaque(length)
            }
            (_, kind, _) => {
                self.contents = Contents::Opaque(0);
                let section = section_in_words();
                let reason = match (kind, &self.description) {
                    (Kind::Start | Kind::Part | Kind::End, _) => Unwalkable::Live { section },
                    (Kind::Full, Some(_)) => Unwalkable::NotDescribed { section },
                    (Kind::Full, None) if self.is_file => Unwalkable::NoDescription { section },
                    (Kind::Full, None) => Unwalkable::Pipe { section },
                };
                Place::Unwalkable(begins, reason)
            }
        }
    }

    /// Reads the next piece of a VFIO section.
    fn vfio(&mut self, mut payload: Payload) -> Result<Event<'_>, Error> {
        let offset = self.reader.offset();
        if payload.is_at_unknown_config() {
            payload.set_config(config_length(&mut self.reader, self.section.id)?);
        }
        self.bytes.clear();
        let Some(step) = payload.step(&mut self.reader, &mut self.bytes, PIECE)? else {
            return self.footer();
        };
        let (tag, record) = (step.tag, step.record);
        if let Contents::Vfio(found) = &mut self.contents {
            found.data_bytes += step.data;
            found.records += u64::from(record.is_some());
            found.data_records += u64::from(record.is_some_and(|record| record.tag == Tag::Data));
            found.terminator = payload.terminator();
        }
        self.place = match payload.terminator() {
            None => Place::Vfio(payload),
            Some(_) => {
                payload.check_length(&self.reader)?;
                Place::Footer
            }
        };
        Ok(Event::Payload { section: &self.section, offset, bytes: &self.bytes, tag, record })
    }

    fn footer(&mut self) -> Result<Event<'_>, Error> {
        let footer = self.reader.offset();
        self.reader.footer(self.section.id)?;
        if let Contents::Vfio(found) = self.contents {
            *self.data_bytes.entry(self.section.idstr.clone()).or_default() += found.data_bytes;
        }
        (self.place, self.is_inside) = (Place::Item, false);
        let (section, contents) = (&self.section, self.contents);
        Ok(Event::SectionEnd { section, footer, contents, blocks: self.ram.blocks() })
    }

    /// Reads what is behind the end byte.
    fn end(&mut self) -> Result<Option<Event<'_>>, Error> {
        let offset = self.reader.offset();
        if self.configuration.is_ours() {
            let ours = self.reader.end()?;
            ours.check_count(self.data_bytes.len())?;
            for (name, data_bytes) in &self.data_bytes {
                ours.entry(name, *data_bytes)?;
            }
            self.ours = Some(ours);
        } else if !self.described(offset)? {
            return Ok(None);
        }
        let (length, ours) = (self.reader.offset() - offset, self.ours.as_ref());
        let description = self.description.get_or_insert_default();
        Ok(Some(Event::Description { offset, length, description, ours }))
    }

    /// Reads the description of a machine and checks that it is the one that the walk relied on. A stream may do without:
    /// then it is false.
    fn described(&mut self, offset: u64) -> Result<bool, Error> {
        let length = match self.reader.item() {
            Ok(Item::Description { length }) if u64::from(length) <= DESCRIPTION_MAX => length as usize,
            Err(Error::Ended { offset: at, .. }) if at == offset && self.description.is_none() => {
                return Ok(false);
            }
            Ok(item) => {
                let got = show(&item);
                return Err(Error::Unexpected { offset, wanted: "a description of at most 16 MiB", got });
            }
            Err(error) => return Err(error),
        };
        let mut json = vec![0; length];
        self.reader.exact(&mut json, "the description")?;
        self.reader.nothing_more()?;
        let wanted = "a description of the stream's devices";
        let found =
            Description::parse(&json, offset).map_err(|got| Error::Unexpected { offset, wanted, got })?;
        match &self.description {
            None => self.description = Some(found),
            Some(used) if used.offset != offset => {
                let got = format!("one at {offset}, where the file's end led to one at {}", used.offset);
                return Err(Error::Unexpected { offset, wanted, got });
            }
            Some(used) => used.all_taken()?,
        }
        Ok(true)
    }
}

/// How long the body of the CONFIG record is that `reader` has before it, by what is in it and behind it.
fn config_length(reader: &mut Reader<Ahead<impl Transport>>, id: u32) -> Result<u64, Error> {
    let offset = reader.offset();
    let bytes = reader.link().peek(BODY_MAX + WORD + FOOTER).map_err(|code| Error::Recv { offset, code })?;
    match config_in(bytes, id) {
        Ok(Some(length)) => Ok(length as u64),
        Ok(None) => Err(Error::Unwalkable { offset, reason: Unwalkable::Config }),
        Err(error) => Err(Error::Config { offset, error }),
    }
}

/// How long the body is that `bytes` begin with, END_OF_STATE and the footer of section `id` behind it; nothing where two
/// lengths fit.
///
/// # Errors
/// No length fits.
pub(super) fn config_in(bytes: &[u8], id: u32) -> Result<Option<usize>, find::Error> {
    let mut finder = Finder::new();
    finder.take(bytes);
    finder.end();
    let footer_behind = |found: &&Found| {
        let behind = bytes.get(found.length + WORD..).and_then(<[u8]>::first_chunk::<FOOTER>);
        behind.is_some_and(|behind| *behind == section::footer(id))
    };
    Ok(match finder.progress()? {
        Progress::Empty => Some(0),
        Progress::Found(found) => Some(found.length),
        Progress::Ambiguous(both) => match both.iter().filter(footer_behind).collect::<Vec<_>>()[..] {
            [found] => Some(found.length),
            _ => None,
        },
        Progress::Wanted(_) | Progress::Beyond { .. } => None,
    })
}

/// The most bytes that one event has of a payload.
pub const PIECE: usize = 64 * 1024;
/// The most sections with a name that are believed.
pub(super) const SECTIONS_MAX: usize = 65536;
