//! What a stream holds in sum: by device and by phase.
//!
//! Deliberately absent: keys that a record has. Whoever collects records must not find a sum among them.

use std::collections::HashMap;

use serde::Serialize;
use vfio_migration_core::session::drive::Transport;
use vfio_migration_core::stream::multifd::Init;
use vfio_migration_host::file;
use vfio_migration_host::qemu::{ChannelEvent, Contents, Event, Kind, Phase, Section, Walker, go_together};

use super::pieces::{OnChannels, Pieces};

/// The sums.
#[derive(Default, Serialize)]
pub(super) struct Totals {
    pub(super) stream_bytes: u64,
    /// Of all VFIO devices, without the heads of the records.
    pub(super) data_bytes: u64,
    pub(super) data_records: u64,
    /// Whether the stream was read to its end; of a stream of ours, whether its checksum is right.
    pub(super) intact: bool,
    /// By name and instance, in the order in which they came.
    pub(super) devices: Vec<Device>,
    pub(super) phases: Vec<InPhase>,
    /// Of the channels beside the stream.
    pub(super) channels: Channels,
    /// By device, what the channels hold of its state.
    pub(super) multifd: Vec<OnChannels>,
    #[serde(skip)]
    places: HashMap<(String, u32), usize>,
    #[serde(skip)]
    bytes_by_phase: [InPhase; Phase::ALL.len()],
    #[serde(skip)]
    pieces: Pieces,
    /// What each channel began with.
    #[serde(skip)]
    inits: Vec<Init>,
}

/// The sums of all channels.
#[derive(Default, Serialize)]
pub(super) struct Channels {
    pub(super) files: u64,
    pub(super) bytes: u64,
    pub(super) memory_bytes: u64,
    pub(super) pages: u64,
    /// Of packets of devices' state, with their heads.
    pub(super) state_bytes: u64,
}

/// The sums of one device, or of memory.
#[derive(Serialize)]
pub(super) struct Device {
    pub(super) idstr: String,
    pub(super) instance: u32,
    pub(super) sections: u64,
    /// With headers and footers.
    pub(super) bytes: u64,
    /// Records of a VFIO device.
    pub(super) records: u64,
    /// Bytes of a VFIO device's data.
    pub(super) data_bytes: u64,
    /// Pages of memory.
    pub(super) pages: u64,
    /// Whether the stop-copy data of a VFIO device are missing: they went by channels that were not given.
    pub(super) elsewhere: bool,
    #[serde(skip)]
    has_full: bool,
}

/// The sums of one phase.
#[derive(Clone, Copy, Default, Serialize)]
pub(super) struct InPhase {
    pub(super) phase: &'static str,
    pub(super) sections: u64,
    /// All bytes, also those between the sections.
    pub(super) bytes: u64,
    /// Bytes of VFIO devices' data.
    pub(super) data_bytes: u64,
}

impl Totals {
    /// Counts what a walk told.
    pub(super) fn count(&mut self, event: &Event<'_>) {
        match event {
            Event::Configuration { length, .. } => self.phase(Phase::Setup).bytes += length,
            Event::Command { length, phase, .. } => self.phase(*phase).bytes += length,
            Event::Section(section) => {
                self.phase(section.phase).sections += 1;
                self.device(section).sections += 1;
            }
            Event::Payload { .. } => {}
            Event::SectionEnd { section, footer, contents, .. } => {
                self.section(section, footer + FOOTER, *contents);
            }
            Event::EndOfStream { .. } => self.phase(Phase::End).bytes += 1,
            Event::Description { length, .. } => self.phase(Phase::End).bytes += length,
        }
    }

    /// Notes where the stream ended, and counts what was read of a section within which it did.
    pub(super) fn stream_end(&mut self, walker: &Walker<impl Transport>) {
        self.stream_bytes = walker.offset();
        if let Some((section, contents)) = walker.under_way() {
            self.section(section, walker.offset(), contents);
        }
    }

    /// Counts what stands on a channel.
    pub(super) fn count_packet(&mut self, event: &ChannelEvent<'_>) {
        match event {
            ChannelEvent::Init(init) => self.inits.push(*init),
            ChannelEvent::Memory(packet) => {
                self.channels.memory_bytes += packet.length;
                self.channels.pages += u64::from(packet.normal_pages) + u64::from(packet.zero_pages);
            }
            ChannelEvent::State(_) => {}
            ChannelEvent::Bytes { packet, last, .. } => {
                if *last {
                    self.channels.state_bytes += packet.length;
                    self.pieces.take(packet);
                }
            }
        }
    }

    /// Notes where a channel ended.
    pub(super) fn channel_end(&mut self, offset: u64) {
        self.channels.files += 1;
        self.channels.bytes += offset;
    }

    /// Checks that the channels can be of one migration, and hold each device's state whole.
    pub(super) fn check_pieces(&self) -> Result<(), file::Error> {
        let mut inits = self.inits.iter().enumerate();
        let alien = inits.find(|(at, init)| !self.inits[..*at].iter().all(|other| go_together(init, other)));
        if let Some((_, Init { id, uuid })) = alien {
            let wanted = "numbers of their own and one uuid".into();
            let got = format!("number {id} of the machine {uuid:02x?} beside others");
            return Err(file::Error::Channels { wanted, got });
        }
        self.pieces.check()
    }

    /// Ends the sums; `intact` says whether nothing was wrong.
    pub(super) fn end(&mut self, intact: bool) {
        self.intact = intact;
        self.multifd = self.pieces.sums();
        for device in &mut self.devices {
            let is_it =
                |found: &OnChannels| (&found.idstr, found.instance) == (&device.idstr, device.instance);
            device.elsewhere &= device.has_full && !self.multifd.iter().any(is_it);
        }
        let phases = Phase::ALL.iter().zip(self.bytes_by_phase);
        self.phases = phases
            .map(|(phase, sums)| InPhase { phase: phase.name(), ..sums })
            .filter(|sums| sums.bytes > 0)
            .collect();
    }

    fn section(&mut self, section: &Section, end: u64, contents: Contents) {
        let bytes = end.saturating_sub(section.offset);
        let device = self.device(section);
        device.bytes += bytes;
        let data_bytes = match contents {
            Contents::Ram(found) => {
                device.pages += found.pages();
                0
            }
            Contents::Vfio(found) => {
                // With multifd neither END nor FULL has more than what ends them.
                device.elsewhere = match section.kind {
                    Kind::Start | Kind::Part => false,
                    Kind::End => found.data_records == 0,
                    Kind::Full => device.elsewhere && found.records == 1,
                };
                device.has_full |= section.kind == Kind::Full;
                device.records += found.records;
                device.data_bytes += found.data_bytes;
                self.data_records += found.data_records;
                found.data_bytes
            }
            Contents::Opaque(_) => 0,
        };
        self.data_bytes += data_bytes;
        let phase = self.phase(section.phase);
        phase.bytes += bytes;
        phase.data_bytes += data_bytes;
    }

    fn phase(&mut self, phase: Phase) -> &mut InPhase {
        &mut self.bytes_by_phase[phase as usize]
    }

    fn device(&mut self, section: &Section) -> &mut Device {
        let Section { idstr, instance, .. } = section;
        let next = self.devices.len();
        let place = *self.places.entry((idstr.clone(), *instance)).or_insert(next);
        if place == next {
            self.devices.push(Device {
                idstr: idstr.clone(),
                instance: *instance,
                sections: 0,
                bytes: 0,
                records: 0,
                data_bytes: 0,
                pages: 0,
                elsewhere: false,
                has_full: false,
            });
        }
        &mut self.devices[place]
    }
}

/// The bytes of a footer.
const FOOTER: u64 = 5;
