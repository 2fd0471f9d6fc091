//! What of a stream goes into a picture, gathered while it is read.
//!
//! What stands close together is joined once there is much of it, so that a picture of any stream takes the same memory
//! and has the same size.
//!
//! Deliberately absent: pixels. [`svg`](super::svg) knows how wide a byte is.

use std::collections::HashMap;

use vfio_migration_core::session::drive::Transport;
use vfio_migration_core::stream::multifd::Content;
use vfio_migration_core::stream::record::Tag;
use vfio_migration_core::stream::section::SWITCHOVER_START;
use vfio_migration_host::file;
use vfio_migration_host::qemu::{ChannelEvent, Contents, Event, Family, Kind, Phase, Section, Walker};

/// What is drawn of a stream.
#[derive(Default)]
pub(super) struct Picture {
    /// The machine's name, empty in a stream of ours.
    pub(super) machine: String,
    pub(super) lanes: Vec<Lane>,
    pub(super) channels: Vec<Lane>,
    /// Where each phase begins and ends; nothing for one that is not there.
    pub(super) phases: [Option<(u64, u64)>; Phase::ALL.len()],
    /// Whether a command said that the machine stands still from here on.
    pub(super) switchover: bool,
    pub(super) bytes: u64,
    /// Where the walk ended early, and why.
    pub(super) damage: Option<(u64, String)>,
    places: HashMap<(String, u32), usize>,
}

/// A row of the picture.
pub(super) struct Lane {
    pub(super) name: String,
    pub(super) row: Row,
    pub(super) bytes: u64,
    /// DATA records or packets.
    pub(super) data_records: u64,
    pub(super) data_bytes: u64,
    pub(super) pages: u64,
    /// How many devices it is of.
    pub(super) devices: u64,
    pub(super) strips: [Strip; Ink::ALL.len()],
}

/// What a row is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Row {
    /// What belongs to no device.
    Stream,
    Memory,
    Vfio,
    Others,
    Channel,
}

/// What something is drawn as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ink {
    Start,
    Part,
    End,
    Full,
    Memory,
    Opaque,
    Frame,
    Description,
    Data,
    Config,
    Setup,
    InitDataSent,
    ConfigLoadReady,
    EndOfState,
    /// What was read of a section that is cut or damaged.
    Broken,
}

/// Things of one kind in one lane.
#[derive(Clone, Default)]
pub(super) struct Strip {
    pub(super) spans: Vec<Span>,
    /// What is closer together than this is joined.
    grain: u64,
}

/// Bytes from one to another.
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub(super) begin: u64,
    pub(super) end: u64,
    /// How many things they are.
    pub(super) things: u64,
}

impl Ink {
    /// All of them, in the order in which they are drawn over each other.
    pub(super) const ALL: [Self; 15] = [
        Self::Start,
        Self::Part,
        Self::End,
        Self::Full,
        Self::Memory,
        Self::Opaque,
        Self::Frame,
        Self::Description,
        Self::EndOfState,
        Self::Data,
        Self::Config,
        Self::Setup,
        Self::InitDataSent,
        Self::ConfigLoadReady,
        Self::Broken,
    ];

    const fn of_section(kind: Kind) -> Self {
        match kind {
            Kind::Start => Self::Start,
            Kind::Part => Self::Part,
            Kind::End => Self::End,
            Kind::Full => Self::Full,
        }
    }

    const fn of_record(tag: Tag) -> Self {
        match tag {
            Tag::EndOfState => Self::EndOfState,
            Tag::Config => Self::Config,
            Tag::Setup => Self::Setup,
            Tag::Data => Self::Data,
            Tag::InitDataSent => Self::InitDataSent,
            Tag::ConfigLoadReady => Self::ConfigLoadReady,
        }
    }
}

impl Strip {
    fn add(&mut self, begin: u64, end: u64) {
        self.spans.push(Span { begin, end, things: 1 });
        if self.spans.len() <= SPANS_MAX {
            return;
        }
        self.join();
        // Room for as many again before all are looked at once more.
        while self.spans.len() > SPANS_MAX / 2 {
            self.grain = self.grain.saturating_mul(2).max(1);
            self.join();
        }
    }

    /// Joins what is closer together than the grain; what is larger stays as it is.
    fn join(&mut self) {
        let (grain, mut joined) = (self.grain, Vec::<Span>::new());
        for span in self.spans.drain(..) {
            match joined.last_mut().filter(|last| span.end - last.begin <= grain) {
                Some(last) => (last.end, last.things) = (span.end, last.things + span.things),
                None => joined.push(span),
            }
        }
        self.spans = joined;
    }
}

impl Lane {
    fn new(name: &str, row: Row) -> Self {
        Self {
            name: name.into(),
            row,
            bytes: 0,
            data_records: 0,
            data_bytes: 0,
            pages: 0,
            devices: 0,
            strips: Default::default(),
        }
    }

    fn add(&mut self, ink: Ink, begin: u64, end: u64) {
        self.strips[ink as usize].add(begin, end);
    }
}

impl Picture {
    /// Takes what a walk told.
    pub(super) fn take(&mut self, event: &Event<'_>) {
        match event {
            Event::Configuration { length, configuration } => {
                self.machine.clone_from(&configuration.machine);
                self.frame(Phase::Setup, 0, *length);
            }
            Event::Command { offset, command, length, phase } => {
                self.switchover |= *command == SWITCHOVER_START;
                self.frame(*phase, *offset, offset + length);
            }
            Event::Section(section) => {
                let is_new = !self.places.contains_key(&key(section));
                let lane = self.lane(section);
                lane.devices += u64::from(is_new && lane.row == Row::Others || lane.devices == 0);
            }
            Event::Payload { section, record, .. } => {
                if let Some(record) = record {
                    let (begin, end) = (record.offset, record.offset + record.length);
                    self.lane(section).add(Ink::of_record(record.tag), begin, end);
                }
            }
            Event::SectionEnd { section, footer, contents, .. } => {
                self.section(section, footer + 5, contents)
            }
            Event::EndOfStream { offset } => self.frame(Phase::End, *offset, offset + 1),
            Event::Description { offset, length, .. } => {
                self.phase(Phase::End, *offset, offset + length);
                self.stream().add(Ink::Description, *offset, offset + length);
                self.stream().bytes += length;
            }
        }
    }

    /// Takes how the walk ended.
    pub(super) fn stream_end(&mut self, walker: &Walker<impl Transport>, error: Option<&file::Error>) {
        let offset = walker.offset();
        self.bytes = offset;
        let begin = self.phases.iter().flatten().map(|(_, end)| *end).max().unwrap_or_default();
        if begin < offset {
            self.phase(walker.phase(), begin, offset);
        }
        if let Some(error) = error {
            self.damage = Some((error.offset().unwrap_or(offset), error.to_string()));
            match walker.under_way() {
                Some((section, _)) => self.lane(section).add(Ink::Broken, section.offset, offset),
                None => self.stream().add(Ink::Broken, begin, offset),
            }
        }
        self.lanes.sort_by_key(|lane| lane.row);
    }

    /// Begins a channel.
    pub(super) fn channel(&mut self, name: &str) {
        self.channels.push(Lane::new(name, Row::Channel));
    }

    /// Takes what stands on the channel that began last.
    pub(super) fn packet(&mut self, event: &ChannelEvent<'_>) {
        let Some(lane) = self.channels.last_mut() else { return };
        match event {
            ChannelEvent::Init(_) => lane.add(Ink::Frame, 0, 64),
            ChannelEvent::Memory(packet) => {
                let ink = if packet.block.is_empty() { Ink::Frame } else { Ink::Memory };
                lane.pages += u64::from(packet.normal_pages) + u64::from(packet.zero_pages);
                lane.add(ink, packet.offset, packet.offset + packet.length);
            }
            ChannelEvent::State(packet) => {
                let ink = match packet.content {
                    Content::Data => Ink::Data,
                    Content::Config => Ink::Config,
                };
                if packet.content == Content::Data {
                    lane.data_records += 1;
                    lane.data_bytes += u64::from(packet.bytes);
                }
                lane.add(ink, packet.offset, packet.offset + packet.length);
            }
            ChannelEvent::Bytes { .. } => {}
        }
    }

    /// Takes where the channel ended.
    pub(super) fn channel_end(&mut self, offset: u64) {
        if let Some(lane) = self.channels.last_mut() {
            lane.bytes = offset;
        }
    }

    fn section(&mut self, section: &Section, end: u64, contents: &Contents) {
        let begin = section.offset;
        self.phase(section.phase, begin, end);
        let lane = self.lane(section);
        lane.bytes += end - begin;
        lane.add(Ink::of_section(section.kind), begin, end);
        match contents {
            Contents::Ram(found) => {
                lane.pages += found.pages();
                lane.add(Ink::Memory, section.payload, end - 5);
            }
            Contents::Vfio(found) => {
                lane.data_records += found.data_records;
                lane.data_bytes += found.data_bytes;
            }
            Contents::Opaque(_) => lane.add(Ink::Opaque, section.payload, end - 5),
        }
    }

    /// What belongs to no device.
    fn frame(&mut self, phase: Phase, begin: u64, end: u64) {
        self.phase(phase, begin, end);
        let lane = self.stream();
        lane.add(Ink::Frame, begin, end);
        lane.bytes += end - begin;
    }

    fn phase(&mut self, phase: Phase, begin: u64, end: u64) {
        let place = &mut self.phases[phase as usize];
        *place = Some((place.map_or(begin, |(begin, _)| begin), end));
    }

    fn stream(&mut self) -> &mut Lane {
        self.named(&(String::new(), 0), "stream", Row::Stream)
    }

    fn lane(&mut self, section: &Section) -> &mut Lane {
        let lanes = self.lanes.iter().filter(|lane| lane.row == Row::Vfio).count();
        let (name, row) = match section.family {
            Family::Ram => ("memory", Row::Memory),
            Family::Vfio if lanes < LANES_MAX || self.places.contains_key(&key(section)) => {
                (section.idstr.as_str(), Row::Vfio)
            }
            Family::Vfio | Family::Opaque => ("other devices", Row::Others),
        };
        let numbered = match (row, section.instance) {
            (Row::Vfio, 1..) => format!("{name}, instance {}", section.instance),
            _ => name.to_owned(),
        };
        self.named(&key(section), &numbered, row)
    }

    /// The lane of a device; all that are not VFIO's share one.
    fn named(&mut self, key: &(String, u32), name: &str, row: Row) -> &mut Lane {
        let shared = self.lanes.iter().position(|lane| lane.row == row && row != Row::Vfio);
        let next = self.lanes.len();
        let place = *self.places.entry(key.clone()).or_insert(shared.unwrap_or(next));
        if place == next {
            self.lanes.push(Lane::new(name, row));
        }
        &mut self.lanes[place]
    }
}

fn key(section: &Section) -> (String, u32) {
    (section.idstr.clone(), section.instance)
}

/// The most things of one kind that are drawn in a lane.
const SPANS_MAX: usize = 400;
/// The most lanes of VFIO devices.
const LANES_MAX: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_beyond_counting_are_joined_and_none_is_lost() {
        let mut strip = Strip::default();
        for at in 0..100_000 {
            strip.add(at * 10, at * 10 + 7);
            assert!(strip.spans.len() <= SPANS_MAX, "{at}");
        }
        assert_eq!(strip.spans.iter().map(|span| span.things).sum::<u64>(), 100_000);
        assert_eq!((strip.spans[0].begin, strip.spans.last().map(|span| span.end)), (0, Some(999_997)));
        assert!(strip.spans.windows(2).all(|pair| pair[0].end <= pair[1].begin), "in order, apart");
    }

    #[test]
    fn a_large_thing_among_many_small_ones_stays_itself() {
        let mut strip = Strip::default();
        for at in 0..1000 {
            strip.add(at * 10, at * 10 + 7);
        }
        strip.add(10_000, 50_000_000);
        (0..1000).for_each(|at| strip.add(50_000_000 + at * 10, 50_000_000 + at * 10 + 7));
        assert!(
            strip.spans.iter().any(|span| (span.begin, span.end, span.things) == (10_000, 50_000_000, 1))
        );
    }
}
