//! `vfio-migrate inspect`.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;

use rustix::fs::OFlags;
use serde::Serialize;
use vfio_migration_core::stream::record::{Decoder, Tag, WORD, Wanted, Word};
use vfio_migration_core::stream::section::{Begins, Continues, Item};
use vfio_migration_host::file::{self, Description, Reader, show};
use vfio_migration_host::link::Link;

use crate::{Fail, Outcome, stdio, stdout_failed};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  vfio-migrate inspect card.state
  vfio-migrate inspect card.state --json | jq '.sections[].records[]'

A damaged file is shown up to its damage; the program then ends with 4.")]
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
    let input = if arguments.file.as_os_str() == "-" {
        stdio::input()?
    } else {
        let failed = |error| Fail::io(arguments.file.display(), error);
        stdio::interruptible(File::open(&arguments.file).map_err(failed)?.into(), OFlags::RDONLY)
            .map_err(failed)?
    };
    let mut walk = Walk { reader: Reader::new(Link::new(input, None)), contents: Contents::default() };
    let outcome = walk.all();
    let Walk { reader, mut contents } = walk;
    contents.totals.stream_bytes = reader.offset();
    contents.totals.intact = outcome.is_ok();
    contents.damage = outcome.err().map(|Damaged(message)| Damage { at: reader.offset(), message });
    let mut out = io::BufWriter::new(io::stdout().lock());
    let written = if arguments.json {
        serde_json::to_writer_pretty(&mut out, &contents)
            .map_err(io::Error::from)
            .and_then(|()| writeln!(out))
    } else {
        print(&mut out, &contents)
    };
    written.and_then(|()| out.flush()).map_err(stdout_failed)?;
    match contents.damage {
        None => Ok(()),
        Some(damage) => Err(Fail::stream(anyhow::anyhow!("{}", damage.message))),
    }
}

/// Why a walk ended before its stream did.
struct Damaged(String);

impl From<file::Error> for Damaged {
    fn from(error: file::Error) -> Self {
        Self(error.to_string())
    }
}

struct Walk {
    reader: Reader<Link>,
    contents: Contents,
}

impl Walk {
    fn all(&mut self) -> Result<(), Damaged> {
        self.reader.preamble()?;
        self.configuration()?;
        while self.section()? {}
        self.contents.description = Some(self.reader.end()?);
        Ok(())
    }

    fn configuration(&mut self) -> Result<(), Damaged> {
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
    fn section(&mut self) -> Result<bool, Damaged> {
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
            return Err(Damaged(format!(
                "at byte {begins}: section {id} is not that of a VFIO device, and has no length: what follows can't be read"
            )));
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

    fn records(&mut self) -> Result<(), Damaged> {
        let payload = self.reader.offset();
        let mut decoder = Decoder::new();
        loop {
            match decoder.wanted() {
                Wanted::Word => self.word(&mut decoder, payload)?,
                Wanted::Data(left) => self.data(&mut decoder, left)?,
                Wanted::Config => {
                    let at = self.reader.offset();
                    return Err(Damaged(format!(
                        "at byte {at}: the length of a CONFIG record's body is known to its device only: what follows can't be read"
                    )));
                }
                Wanted::Nothing(_) => return Ok(()),
            }
        }
    }

    fn word(&mut self, decoder: &mut Decoder, payload: u64) -> Result<(), Damaged> {
        let offset = self.reader.offset();
        let mut bytes = [0; WORD];
        self.reader.exact(&mut bytes, "a record")?;
        match decoder.word(bytes) {
            Ok(Word::Tag(Tag::Data)) => {}
            Ok(Word::Tag(tag)) => self.record(tag, offset, WORD as u64),
            Ok(Word::DataLength(0)) => self.record(Tag::Data, offset - WORD as u64, 2 * WORD as u64),
            Ok(Word::DataLength(_)) => {}
            Err(error) => return Err(Damaged(format!("at byte {offset} (payload at {payload}): {error}"))),
        }
        Ok(())
    }

    fn data(&mut self, decoder: &mut Decoder, length: u64) -> Result<(), Damaged> {
        let offset = self.reader.offset() - 2 * WORD as u64;
        let mut piece = vec![0; PIECE];
        let mut left = length;
        while left > 0 {
            let count = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            self.reader.exact(&mut piece[..count], "a DATA record")?;
            left -= count as u64;
        }
        decoder.data(length);
        self.contents.totals.data_bytes += length;
        self.contents.totals.data_records += 1;
        self.record(Tag::Data, offset, length + 2 * WORD as u64);
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

fn unexpected(offset: u64, wanted: &'static str, item: &Item<'_>) -> Damaged {
    file::Error::Unexpected { offset, wanted, got: show(item) }.into()
}

fn print(out: &mut impl Write, contents: &Contents) -> io::Result<()> {
    writeln!(out, "{:>12} {:>12}  what", "offset", "bytes")?;
    match contents.machine.as_deref() {
        Some("") => {
            line(out, 0, 13, "preamble, configuration without a machine's name: only VFIO sections follow")?
        }
        Some(name) => {
            line(out, 0, 13 + name.len() as u64, &format!("preamble, configuration of machine '{name}'"))?
        }
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
    let name = section.idstr.as_ref().map(|name| format!(" '{name}'")).unwrap_or_default();
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
