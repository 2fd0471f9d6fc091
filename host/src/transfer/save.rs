//! Saves a device into a stream.
//!
//! The stream is kept before the device leaves STOP_COPY: until then a failure brings the device back with its state,
//! and after that the state is in the stream.
//!
//! Deliberately absent: pre-copy. The device is stopped from its first byte to its last.

use std::io;
use std::os::fd::AsFd;

use vfio_migration_core::session::drive::{self, Device};
use vfio_migration_core::session::{Code, DataRead, Event, Failure, Left, Source, SourcePhase};
use vfio_migration_core::stream::section::{Begins, Continues, Item};

use super::{Error, Job, Kind, Leave, Place, Reason, Report, SECTION_VERSION};
use crate::file::{Description, Entry, FORMAT, Writer};
use crate::link::Link;
use crate::open::Identity;

/// Saves `device` into `link`, in sections named `idstr` ([`Identity::idstr`], or what a QEMU calls its device).
/// `keep` is called once the stream is whole: what it has to do so that the stream will not get lost.
///
/// # Errors
/// [`Error`]; the device is back in the state that it came from, or the error says where it is.
pub fn save<Fd: AsFd>(
    device: &mut impl Device,
    link: Link<Fd>,
    idstr: &str,
    job: Job<'_>,
    keep: impl FnOnce() -> io::Result<()>,
    observe: impl FnMut(&Event),
) -> Result<Report, Error> {
    let untouched = |reason| Error { reason, device: Left::At(job.now), stream_is_whole: false };
    let source = Source::new(job.now, job.buffer).map_err(|misuse| untouched(misuse.into()))?;
    let writer = Writer::begin(link).map_err(|code| untouched(Reason::Write { offset: 0, code }))?;
    let Identity { driver, address } = job.identity.clone();
    let entry = Entry { idstr: idstr.to_owned(), driver, address, data_bytes: 0 };
    let mut saving = Saving { source, device, writer, observe, entry, pieces: 0, kept: false };
    match saving.all(job.leave, keep) {
        Ok(()) => {
            let stream_bytes = saving.writer.offset();
            Ok(Report { entry: saving.entry, stream_bytes, pieces: saving.pieces })
        }
        Err(reason) => Err(saving.give_up(reason)),
    }
}

struct Saving<'a, 'b, D, Fd, O> {
    source: Source<'b>,
    device: &'a mut D,
    writer: Writer<Fd>,
    observe: O,
    entry: Entry,
    pieces: u64,
    kept: bool,
}

impl<D: Device, Fd: AsFd, O: FnMut(&Event)> Saving<'_, '_, D, Fd, O> {
    fn all(&mut self, leave: Leave, keep: impl FnOnce() -> io::Result<()>) -> Result<(), Reason> {
        self.source.setup()?;
        self.section(Kind::Begin(Begins::Start))?;
        self.source.stop()?;
        self.order(Place::default())?;
        self.source.copy_rest()?;
        self.section(Kind::Continue(Continues::End))?;
        let description = Description { format: FORMAT, devices: vec![self.entry.clone()] };
        self.writer.end(&description).map_err(|code| self.write_error(code))?;
        keep().map_err(Reason::Keep)?;
        self.kept = true;
        self.source.finish()?;
        self.order(Place::default())?;
        if leave == Leave::Running {
            self.source.run()?;
            self.order(Place::default())?;
        }
        Ok(())
    }

    /// Writes a section whose payload is the source's present order.
    fn section(&mut self, kind: Kind) -> Result<(), Reason> {
        let name = self.entry.idstr.as_bytes();
        let item = match kind {
            Kind::Begin(kind) => {
                Item::Begin { kind, id: SECTION_ID, name, instance: 0, version: SECTION_VERSION }
            }
            Kind::Continue(kind) => Item::Continue { kind, id: SECTION_ID },
        };
        self.writer.item(&item).map_err(|code| self.write_error(code))?;
        let section = Some((kind.name(), self.entry.idstr.clone(), self.writer.offset()));
        self.order(Place { section, record: None })?;
        self.writer.footer(SECTION_ID).map_err(|code| self.write_error(code))
    }

    fn order(&mut self, place: Place) -> Result<(), Reason> {
        let phase = drive::source(&mut self.source, self.device, &mut self.writer, |event| {
            if let Event::ReadData { result: Ok(DataRead::Bytes(bytes)), .. } = event {
                self.entry.data_bytes += *bytes as u64;
                self.pieces += 1;
            }
            (self.observe)(event);
        })?;
        match phase {
            SourcePhase::Failed(Failure { cause, .. }) => Err(Reason::Session { place, cause }),
            _ => Ok(()),
        }
    }

    fn write_error(&self, code: Code) -> Reason {
        Reason::Write { offset: self.writer.offset(), code }
    }

    fn give_up(mut self, reason: Reason) -> Error {
        self.source.cancel();
        let phase = drive::source(&mut self.source, self.device, &mut self.writer, &mut self.observe);
        let device = match phase {
            Ok(SourcePhase::Failed(Failure { device, .. })) => device,
            Ok(_) | Err(_) => Left::Unknown,
        };
        Error { reason, device, stream_is_whole: self.kept }
    }
}

/// The id of a file's only device. Not 0: a QEMU that looks for a PART's or END's section by its id finds the first of
/// those that it has not loaded yet, which all have 0.
const SECTION_ID: u32 = 1;
