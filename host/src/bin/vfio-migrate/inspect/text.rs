//! A stream for people: a line for each thing, as it is read, and the sums at the end.
//!
//! Deliberately absent: colour and width. The lines are made for `grep` and `less`.

use std::io::{self, Write};
use std::path::Path;

use indicatif::BinaryBytes;
use vfio_migration_core::stream::multifd::{Content, INIT};
use vfio_migration_host::file;
use vfio_migration_host::qemu::{
    ChannelEvent, Configuration, Contents, Event, Kind, MemoryPacket, Pages, RamEntries, Section,
    StatePacket, command_name,
};

use super::Report;
use super::config::PciConfig;
use super::pieces::OnChannels;
use super::totals::{Channels, Totals};

/// The lines, written to `out`.
pub(super) struct Text<W> {
    out: W,
    began: bool,
    /// The packets of memory that were not told yet.
    memory: Memory,
}

impl<W: Write> Text<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, began: false, memory: Memory::default() }
    }

    fn line(&mut self, offset: u64, length: u64, what: &str) -> io::Result<()> {
        self.head()?;
        writeln!(self.out, "{offset:>12} {length:>12}  {what}")
    }

    fn more(&mut self, what: &str) -> io::Result<()> {
        writeln!(self.out, "{:25}  {what}", "")
    }

    fn head(&mut self) -> io::Result<()> {
        if !self.began {
            self.began = true;
            writeln!(self.out, "{:>12} {:>12}  what", "offset", "bytes")?;
        }
        Ok(())
    }

    fn configuration(&mut self, length: u64, configuration: &Configuration) -> io::Result<()> {
        if configuration.is_ours() {
            let what = "preamble, configuration without a machine's name: only VFIO sections follow";
            return self.line(0, length, what);
        }
        let machine = configuration.machine.escape_debug();
        self.line(0, length, &format!("preamble, configuration of machine '{machine}'"))?;
        let Configuration { target_page_bits, capabilities, uuid, .. } = configuration;
        if let Some(bits) = target_page_bits {
            self.more(&format!("pages of 2^{bits} bytes"))?;
        }
        if let Some(uuid) = uuid {
            self.more(&format!("uuid {:032x}", u128::from_be_bytes(*uuid)))?;
        }
        for capability in capabilities {
            self.more(&format!("capability {}", capability.escape_debug()))?;
        }
        Ok(())
    }

    fn section(&mut self, section: &Section) -> io::Result<()> {
        let Section { kind, id, idstr, instance, .. } = section;
        let mut what = format!("{} of section {id} '{}'", kind.name(), idstr.escape_debug());
        if *instance > 0 {
            what.push_str(&format!(", instance {instance}"));
        }
        self.line(section.offset, section.payload - section.offset, &what)
    }

    fn section_end(&mut self, event: &Event<'_>) -> io::Result<()> {
        let Event::SectionEnd { section, footer, contents, blocks } = event else { return Ok(()) };
        let length = footer - section.payload;
        match contents {
            Contents::Vfio(_) => {}
            Contents::Opaque(_) => self.line(section.payload, length, "  of the device")?,
            Contents::Ram(found) => {
                self.line(section.payload, length, &format!("  {}", pages(found)))?;
                for block in blocks.iter().filter(|_| section.kind == Kind::Start) {
                    let (name, length) = (block.name.escape_debug(), BinaryBytes(block.length));
                    self.more(&format!("    block '{name}', {length}"))?;
                }
            }
        }
        self.line(*footer, 5, "  footer")
    }

    /// Tells of the packets of memory that came in a row.
    fn memory(&mut self) -> io::Result<()> {
        let Memory { offset, length, packets, normal, zero, syncs } = std::mem::take(&mut self.memory);
        if packets == 0 {
            return Ok(());
        }
        let what = format!("{packets} packets of memory, {normal} pages, {zero} zero pages, {syncs} SYNC");
        self.line(offset, length, &what)
    }

    fn error(&mut self, offset: u64, error: Option<&file::Error>) -> io::Result<()> {
        let Some(error) = error else { return Ok(()) };
        let what = match error {
            file::Error::Unwalkable { .. } => "not read any further",
            _ => "damaged or unknown",
        };
        writeln!(self.out, "{:>12} {:>12}  {what}: {error}", error.offset().unwrap_or(offset), "-")
    }

    fn totals(&mut self, totals: &Totals) -> io::Result<()> {
        let out = &mut self.out;
        writeln!(
            out,
            "\n{:<34} {:>8} {:>12} {:>12} {:>8}",
            "device", "sections", "bytes", "of data", "records"
        )?;
        for device in &totals.devices {
            let mut name = device.idstr.escape_debug().to_string();
            if device.instance > 0 {
                name.push_str(&format!(", instance {}", device.instance));
            }
            let (data, records) = match (device.records, device.pages) {
                (0, 0) => (String::new(), String::new()),
                (0, pages) => (format!("{pages} pages"), String::new()),
                (records, _) => (device.data_bytes.to_string(), records.to_string()),
            };
            let row =
                format!("{name:<34} {:>8} {:>12} {data:>12} {records:>8}", device.sections, device.bytes);
            writeln!(out, "{}", row.trim_end())?;
        }
        writeln!(out, "\n{:<34} {:>8} {:>12} {:>12}", "phase", "sections", "bytes", "of data")?;
        for phase in &totals.phases {
            let (sections, bytes, data) = (phase.sections, phase.bytes, phase.data_bytes);
            writeln!(out, "{:<34} {sections:>8} {bytes:>12} {data:>12}", phase.phase)?;
        }
        self.channel_totals(totals)?;
        for device in totals.devices.iter().filter(|device| device.elsewhere) {
            let name = device.idstr.escape_debug();
            writeln!(
                self.out,
                "'{name}': its stop-copy data went by multifd's channels, which are seen with --channel"
            )?;
        }
        let Totals { stream_bytes, data_bytes, data_records, .. } = totals;
        writeln!(
            self.out,
            "\n{data_bytes} bytes of state in {data_records} DATA records; {stream_bytes} bytes were read"
        )
    }

    fn channel_totals(&mut self, totals: &Totals) -> io::Result<()> {
        let out = &mut self.out;
        if totals.channels.files > 0 {
            let Channels { files, bytes, memory_bytes, pages, state_bytes } = totals.channels;
            writeln!(
                out,
                "\n{files} channels, {bytes} bytes: {memory_bytes} of {pages} pages of memory, {state_bytes} of devices"
            )?;
        }
        for device in &totals.multifd {
            let OnChannels { idstr, pieces, data_bytes, whole, .. } = device;
            let (idstr, whole) = (idstr.escape_debug(), if *whole { "whole" } else { "not whole" });
            writeln!(
                out,
                "'{idstr}' on the channels: {data_bytes} bytes of data in {pieces} packets, {whole}"
            )?;
        }
        Ok(())
    }
}

impl<W: Write> Report for Text<W> {
    fn event(&mut self, event: &Event<'_>, config: Option<&PciConfig>) -> io::Result<()> {
        match event {
            Event::Configuration { length, configuration } => self.configuration(*length, configuration),
            Event::Command { offset, command, length, .. } => {
                let name = command_name(*command).unwrap_or("unknown");
                self.line(*offset, *length, &format!("command {name} ({command})"))
            }
            Event::Section(section) => self.section(section),
            Event::Payload { record, .. } => {
                let Some(record) = record else { return Ok(()) };
                self.line(record.offset, record.length, &format!("  {}", record.tag))?;
                let lines = config.map(PciConfig::lines).unwrap_or_default();
                lines.iter().try_for_each(|line| self.more(&format!("    {line}")))
            }
            Event::SectionEnd { .. } => self.section_end(event),
            Event::EndOfStream { offset } => self.line(*offset, 1, "end of the sections"),
            Event::Description { offset, length, ours: Some(ours), .. } => {
                self.line(*offset, *length, "description; its checksum is right, and nothing follows")?;
                ours.devices.iter().try_for_each(|device| {
                    let (idstr, driver) = (device.idstr.escape_debug(), device.driver.escape_debug());
                    self.more(&format!("'{idstr}' of driver {driver}, {} bytes of data", device.data_bytes))
                })
            }
            Event::Description { offset, length, description, ours: None } => {
                let devices = description.devices;
                let what = format!("description of {devices} devices; each was there, and nothing follows");
                self.line(*offset, *length, &what)
            }
        }
    }

    fn stream_end(&mut self, offset: u64, error: Option<&file::Error>) -> io::Result<()> {
        self.head()?;
        self.error(offset, error)
    }

    fn channel(&mut self, path: &Path) -> io::Result<()> {
        writeln!(self.out, "\nchannel {}", path.to_string_lossy().escape_debug())?;
        self.began = false;
        self.head()
    }

    fn packet(&mut self, event: &ChannelEvent<'_>, config: Option<&PciConfig>) -> io::Result<()> {
        match event {
            ChannelEvent::Init(init) => self.line(0, INIT as u64, &format!("begin of channel {}", init.id)),
            ChannelEvent::Memory(packet) => {
                self.memory.take(packet);
                Ok(())
            }
            ChannelEvent::State(packet) => {
                self.memory()?;
                let StatePacket { offset, length, idstr, index, content, .. } = packet;
                let what = match content {
                    Content::Data => "DATA",
                    Content::Config => "CONFIG",
                };
                self.line(*offset, *length, &format!("packet {index} of '{}', {what}", idstr.escape_debug()))
            }
            ChannelEvent::Bytes { .. } => {
                let lines = config.map(PciConfig::lines).unwrap_or_default();
                lines.iter().try_for_each(|line| self.more(&format!("    {line}")))
            }
        }
    }

    fn channel_end(&mut self, offset: u64, error: Option<&file::Error>) -> io::Result<()> {
        self.memory()?;
        self.error(offset, error)
    }

    fn end(&mut self, totals: &Totals) -> io::Result<()> {
        self.totals(totals)?;
        self.out.flush()
    }
}

/// Packets of memory in a row.
#[derive(Default)]
struct Memory {
    offset: u64,
    length: u64,
    packets: u64,
    normal: u64,
    zero: u64,
    syncs: u64,
}

impl Memory {
    fn take(&mut self, packet: &MemoryPacket) {
        if self.length == 0 {
            self.offset = packet.offset;
        }
        self.length += packet.length;
        self.packets += 1;
        self.normal += u64::from(packet.normal_pages);
        self.zero += u64::from(packet.zero_pages);
        self.syncs += u64::from(packet.sync);
    }
}

fn pages(found: &RamEntries) -> String {
    let RamEntries { normal, zero, xbzrle, compressed, flushes, list_bytes } = *found;
    let counted =
        [(normal, "pages"), (zero, "zero pages"), (xbzrle, "xbzrle pages"), (compressed, "compressed pages")];
    let counted = counted.into_iter().filter(|(pages, _)| pages.count > 0);
    let mut parts: Vec<_> =
        counted.map(|(Pages { count, bytes }, what)| format!("{count} {what} in {bytes} bytes")).collect();
    if list_bytes > 0 {
        parts.insert(0, "the list of blocks".into());
    }
    if flushes > 0 {
        parts.push(format!("{flushes} flushes of the channels"));
    }
    if parts.is_empty() { "no page".into() } else { parts.join(", ") }
}
