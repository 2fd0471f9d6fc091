//! `vfio-migrate inspect`.
//!
//! Deliberately absent: the bytes of data and configurations. They mean something to the driver alone, and may hold a
//! guest's secrets.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;

use serde::Serialize;
use vfio_migration_core::stream::record::{DATA_HEAD, Decoder, Tag, WORD, Wanted, Word};
use vfio_migration_core::stream::section::{Begins, Continues, Item};
use vfio_migration_host::file::{self, Description, Reader, show};
use vfio_migration_host::link::Link;

use crate::stdio::{self, json};
use crate::{Fail, IO, Outcome, STREAM, stdout_failed};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  vfio-migrate inspect card.state
  vfio-migrate inspect card.state --json | jq '.sections[].records[]'

A damaged file is shown up to its damage, and the stream of a whole machine up to the first section of another device;
the program then ends with 4.")]
pub(crate) struct Arguments {
    /// The file to read, or - for standard input
    file: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What a stream holds, as far as it could be read.
#[derive(Default, Serialize)]
struct Contents {
    /// The machine's name; empty in a stream that holds only VFIO sections.
    machine: Option<String>,
    sections: Vec<Section>,
    /// Where the end byte stands.
    end: Option<u64>,
    description: Option<Description>,
    totals: Totals,
    damage: Option<Damage>,
}

/// A section; its records' offsets count from the stream's first byte.
#[derive(Serialize)]
struct Section {
    section: &'static str,
    id: u32,
    idstr: Option<String>,
    instance: Option<u32>,
    version: Option<u32>,
    begins: u64,
    payload: u64,
    records: Vec<Record>,
    footer: Option<u64>,
}

#[derive(Serialize)]
struct Record {
    record: &'static str,
    offset: u64,
    /// The whole record, with its tag.
    length: u64,
}

#[derive(Default, Serialize)]
struct Totals {
    stream_bytes: u64,
    data_bytes: u64,
    data_records: u64,
    /// Whether the stream is whole and its checksum right.
    intact: bool,
}

#[derive(Serialize)]
struct Damage {
    at: u64,
    message: String,
}

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let input = stdio::input(&arguments.file, "FILE -")?;
    let mut walk = Walk {
        reader: Reader::new(Link::new(input, None)),
        contents: Contents::default(),
        piece: vec![0; PIECE],
    };
    let outcome = walk.all();
    let Walk { reader, mut contents, .. } = walk;
    contents.totals.stream_bytes = reader.offset();
    contents.totals.intact = outcome.is_ok();
    let failed = matches!(&outcome, Err(file::Error::Recv { .. }));
    contents.damage = outcome.err().map(|error| Damage {
        at: error.offset().unwrap_or(contents.totals.stream_bytes),
        message: error.to_string(),
    });
    let mut out = io::BufWriter::new(io::stdout().lock());
    let written = if arguments.json { json(&mut out, &contents) } else { print(&mut out, &contents) };
    written.and_then(|()| out.flush()).map_err(stdout_failed)?;
    match contents.damage {
        None => Ok(()),
        Some(Damage { message, .. }) => {
            let error = anyhow::anyhow!("{}: {message}", arguments.file.display());
            Err(Fail { exit: if failed { IO } else { STREAM }, error })
        }
    }
}

struct Walk {
    reader: Reader<Link>,
    contents: Contents,
    /// Where data go that nobody looks at.
    piece: Vec<u8>,
}

impl Walk {
    fn all(&mut self) -> Result<(), file::Error> {
        self.reader.preamble()?;
        self.configuration()?;
        while self.section()? {}
        let description = self.contents.description.insert(self.reader.end()?);
        for (name, data_bytes) in data_of_devices(&self.contents.sections) {
            description.entry(name, data_bytes)?;
        }
        Ok(())
    }

    fn configuration(&mut self) -> Result<(), file::Error> {
        let offset = self.reader.offset();
        match self.reader.item()? {
            Item::Configuration { name_length } if name_length <= NAME_MAX => {
                let mut name = vec![0; name_length as usize];
                self.reader.exact(&mut name, "the machine's name")?;
                self.contents.machine = Some(String::from_utf8_lossy(&name).into_owned());
                Ok(())
            }
            item => Err(unexpected(offset, "a configuration with a name of at most 255 bytes", &item)),
        }
    }

    /// Walks one section; false at the end byte.
    fn section(&mut self) -> Result<bool, file::Error> {
        let begins = self.reader.offset();
        let mut section = match self.reader.item()? {
            Item::Begin { kind, id, name, instance, version } => begun(kind, id, name, instance, version),
            Item::Continue { kind, id } => continued(kind, id),
            Item::EndOfStream => {
                self.contents.end = Some(begins);
                return Ok(false);
            }
            item => return Err(unexpected(begins, "a section or the end of the stream", &item)),
        };
        section.begins = begins;
        section.payload = self.reader.offset();
        let id = section.id;
        if section.idstr.is_none() {
            section.idstr = self.name_of(id);
        }
        let known = section.idstr.as_deref().is_some_and(|name| name.ends_with("vfio"));
        self.contents.sections.push(section);
        if !known {
            let name = self.name_of(id).unwrap_or_default();
            return Err(unknown(begins, format!("section {id} '{}' of another device", name.escape_debug())));
        }
        self.records()?;
        let footer = self.reader.offset();
        self.reader.footer(id)?;
        if let Some(section) = self.contents.sections.last_mut() {
            section.footer = Some(footer);
        }
        Ok(true)
    }

    fn name_of(&self, id: u32) -> Option<String> {
        self.contents.sections.iter().find(|section| section.id == id)?.idstr.clone()
    }

    fn records(&mut self) -> Result<(), file::Error> {
        let payload = self.reader.offset();
        let mut decoder = Decoder::new();
        loop {
            match decoder.wanted() {
                Wanted::Word => self.word(&mut decoder, payload)?,
                Wanted::Data(left) => self.data(&mut decoder, left)?,
                Wanted::Config => {
                    let offset = self.reader.offset();
                    return Err(unknown(
                        offset,
                        "a CONFIG record, whose layout only its device knows".into(),
                    ));
                }
                Wanted::Nothing(_) => return Ok(()),
            }
        }
    }

    fn word(&mut self, decoder: &mut Decoder, payload: u64) -> Result<(), file::Error> {
        let offset = self.reader.offset();
        let mut bytes = [0; WORD];
        self.reader.exact(&mut bytes, "a record")?;
        match decoder.word(bytes) {
            Ok(Word::Tag(Tag::Data)) => {}
            Ok(Word::Tag(tag)) => self.record(tag, offset, WORD as u64),
            Ok(Word::DataLength(0)) => self.record(Tag::Data, offset - WORD as u64, DATA_HEAD as u64),
            Ok(Word::DataLength(_)) => {}
            Err(error) => return Err(file::Error::Record { payload, error }),
        }
        Ok(())
    }

    fn data(&mut self, decoder: &mut Decoder, length: u64) -> Result<(), file::Error> {
        let offset = self.reader.offset() - DATA_HEAD as u64;
        let mut left = length;
        while left > 0 {
            let count = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            left -= count as u64;
            self.reader.exact(&mut self.piece[..count], "a DATA record").map_err(|error| match error {
                file::Error::Ended { offset, missing, what } => {
                    file::Error::Ended { offset, missing: missing.saturating_add(left), what }
                }
                error => error,
            })?;
        }
        decoder.data(length);
        self.contents.totals.data_bytes += length;
        self.contents.totals.data_records += 1;
        self.record(Tag::Data, offset, length + DATA_HEAD as u64);
        Ok(())
    }

    fn record(&mut self, tag: Tag, offset: u64, length: u64) {
        if let Some(section) = self.contents.sections.last_mut() {
            section.records.push(Record { record: tag.name(), offset, length });
        }
    }
}

fn begun(kind: Begins, id: u32, name: &[u8], instance: u32, version: u32) -> Section {
    let idstr = Some(String::from_utf8_lossy(name).into_owned());
    let (instance, version) = (Some(instance), Some(version));
    Section { section: kind.name(), id, idstr, instance, version, ..empty() }
}

fn continued(kind: Continues, id: u32) -> Section {
    Section { section: kind.name(), id, ..empty() }
}

const fn empty() -> Section {
    Section {
        section: "",
        id: 0,
        idstr: None,
        instance: None,
        version: None,
        begins: 0,
        payload: 0,
        records: Vec::new(),
        footer: None,
    }
}

fn unexpected(offset: u64, wanted: &'static str, item: &Item<'_>) -> file::Error {
    file::Error::Unexpected { offset, wanted, got: show(item) }
}

/// What has no length in the stream: nothing behind it can be found.
fn unknown(offset: u64, got: String) -> file::Error {
    file::Error::Unexpected { offset, wanted: "a VFIO section or record whose end can be told", got }
}

/// Each device's name with the bytes of its DATA records.
fn data_of_devices(sections: &[Section]) -> BTreeMap<&str, u64> {
    let mut devices = BTreeMap::new();
    for section in sections {
        let data = section.records.iter().filter(|record| record.record == Tag::Data.name());
        let bytes: u64 = data.map(|record| record.length - DATA_HEAD as u64).sum();
        *devices.entry(section.idstr.as_deref().unwrap_or_default()).or_default() += bytes;
    }
    devices
}

fn print(out: &mut impl Write, contents: &Contents) -> io::Result<()> {
    writeln!(out, "{:>12} {:>12}  what", "offset", "bytes")?;
    match contents.machine.as_deref() {
        Some("") => {
            line(out, 0, 13, "preamble, configuration without a machine's name: only VFIO sections follow")?
        }
        Some(name) => line(
            out,
            0,
            13 + name.len() as u64,
            &format!("preamble, configuration of machine '{}'", name.escape_debug()),
        )?,
        None => {}
    }
    for section in &contents.sections {
        print_section(out, section)?;
    }
    if let Some(end) = contents.end {
        line(out, end, 1, "end of the sections")?;
    }
    if let (Some(description), Some(end)) = (&contents.description, contents.end) {
        let length = contents.totals.stream_bytes - end - 1;
        line(out, end + 1, length, "description; its checksum is right, and nothing follows")?;
        for device in &description.devices {
            writeln!(
                out,
                "{:27}'{}' of driver {}, {} bytes of data",
                "", device.idstr, device.driver, device.data_bytes
            )?;
        }
    }
    if let Some(damage) = &contents.damage {
        writeln!(out, "{:>12} {:>12}  damaged or unknown: {}", damage.at, "-", damage.message)?;
    }
    let Totals { data_bytes, data_records, .. } = contents.totals;
    writeln!(out, "{data_bytes} bytes of state in {data_records} DATA records")
}

fn print_section(out: &mut impl Write, section: &Section) -> io::Result<()> {
    let name = section.idstr.as_ref().map(|name| format!(" '{}'", name.escape_debug())).unwrap_or_default();
    let what = format!("{} of section {}{name}", section.section, section.id);
    line(out, section.begins, section.payload - section.begins, &what)?;
    for record in &section.records {
        line(out, record.offset, record.length, &format!("  {}", record.record))?;
    }
    section.footer.map_or(Ok(()), |footer| line(out, footer, 5, "  footer"))
}

fn line(out: &mut impl Write, offset: u64, length: u64, what: &str) -> io::Result<()> {
    writeln!(out, "{offset:>12} {length:>12}  {what}")
}

/// Bytes of data that are read at once.
const PIECE: usize = 64 * 1024;
/// The longest name of a machine that is believed.
const NAME_MAX: u32 = 255;
