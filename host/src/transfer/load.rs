//! Loads a device from a stream.
//!
//! Who wrote the stream is checked before the driver gets a byte of it, where the name of its first section tells, and
//! that the stream is whole and undamaged before the device leaves RESUMING.
//!
//! Deliberately absent: the body of a CONFIG record, whose layout belongs to a PCI device. It is refused.

use vfio_migration_core::device::{Features, State};
use vfio_migration_core::session::drive::{self, Device, Transport};
use vfio_migration_core::session::{Code, Destination, DestinationPhase, Event, Failure, Left};
use vfio_migration_core::stream::section::{Begins, Continues, Item};

use super::{Error, Job, Kind, Leave, Place, Reason, Report, SECTION_VERSION};
use crate::file::{self, Entry, Reader, show};
use crate::open::{Identity, UNKNOWN_DRIVER};

/// Loads `device`, which has `features`, from `link`. With `force` a stream of another kind of device, or into a device
/// of unknown kind, is not refused. A device that was left in the middle of a migration is reset first, once the
/// stream's first section was accepted.
///
/// # Errors
/// [`Error`]; the device is as it was where the stream was refused by its first section, reset to RUNNING where
/// something went wrong later, or the error says where it is.
pub fn load(
    device: &mut impl Device,
    link: impl Transport,
    features: Features,
    force: bool,
    job: Job<'_>,
    mut observe: impl FnMut(&Event),
) -> Result<Report, Error> {
    let failed = |device| move |reason| Error { reason, device, stream_is_whole: false };
    let untouched = failed(Left::At(job.now));
    let identity = (!force).then_some(job.identity);
    let mut reader = Reader::begin(link).map_err(|error| untouched(error.into()))?;
    let section = first_section(&mut reader, identity).map_err(untouched)?;
    let now = made_ready(device, job.now, &mut observe).map_err(failed(Left::Unknown))?;
    let destination = Destination::new(features, now, false, job.buffer)
        .map_err(|misuse| failed(Left::At(now))(misuse.into()))?;
    let mut loading =
        Loading { destination, device, reader, observe, section, identity, data_bytes: 0, pieces: 0 };
    match loading.all(job.leave) {
        Ok(entry) => Ok(Report { entry, stream_bytes: loading.reader.offset(), pieces: loading.pieces }),
        Err(reason) => Err(loading.give_up(reason)),
    }
}

/// The section that a device's sections refer to.
struct Section {
    id: u32,
    name: String,
}

/// Reads the header of the first section, which must be the START of a device that `identity` may be loaded from.
fn first_section(
    reader: &mut Reader<impl Transport>,
    identity: Option<&Identity>,
) -> Result<Section, Reason> {
    let offset = reader.offset();
    let wanted = "the START section of a VFIO device, instance 0, version 1";
    let section = match reader.item()? {
        Item::Begin { kind: Begins::Start, id, name, instance: 0, version: SECTION_VERSION }
            if name.ends_with(NAME_END) && !String::from_utf8_lossy(name).contains(char::is_control) =>
        {
            Section { id, name: String::from_utf8_lossy(name).into_owned() }
        }
        item => return Err(file::Error::Unexpected { offset, wanted, got: show(&item) }.into()),
    };
    let unknown = identity.is_some_and(|identity| identity.driver == UNKNOWN_DRIVER);
    let written_by = driver_of(&section.name).or(unknown.then_some("which its name does not tell"));
    check_driver(identity, written_by)?;
    Ok(section)
}

/// The driver in a name of ours, `<driver>@<address>/vfio`. A QEMU's name has none; on POWER it may begin in `pci@`.
fn driver_of(name: &str) -> Option<&str> {
    name.split_once('@').map(|(driver, _)| driver).filter(|&driver| driver != "pci")
}

fn check_driver(identity: Option<&Identity>, got: Option<&str>) -> Result<(), Reason> {
    match (identity, got) {
        (Some(Identity { driver, .. }), Some(got)) if driver != got || driver == UNKNOWN_DRIVER => {
            Err(Reason::OtherDriver { wanted: driver.clone(), got: got.to_owned() })
        }
        (_, _) => Ok(()),
    }
}

/// The state of a device that can be loaded: what one holds that was left in a migration would be overwritten anyhow.
fn made_ready(
    device: &mut impl Device,
    now: State,
    observe: &mut impl FnMut(&Event),
) -> Result<State, Reason> {
    if matches!(now, State::Running | State::Stop) {
        return Ok(now);
    }
    let result = device.reset();
    observe(&Event::Reset { result });
    result.map(|()| State::Running).map_err(|code: Code| Reason::NotReset { state: now, code })
}

struct Loading<'a, 'b, 'c, D, T, O> {
    destination: Destination<'b>,
    device: &'a mut D,
    reader: Reader<T>,
    observe: O,
    section: Section,
    /// The device that the stream must fit, unless it is forced.
    identity: Option<&'c Identity>,
    data_bytes: u64,
    pieces: u64,
}

impl<D: Device, T: Transport, O: FnMut(&Event)> Loading<'_, '_, '_, D, T, O> {
    fn all(&mut self, leave: Leave) -> Result<Entry, Reason> {
        self.destination.resume()?;
        self.order(Place::default())?;
        self.payload(Kind::Begin(Begins::Start))?;
        let mut ended = false;
        while let Some(kind) = self.next_section(ended)? {
            self.payload(kind)?;
            ended |= matches!(kind, Kind::Continue(Continues::End));
        }
        let entry = self.reader.end()?.take(&self.section.name, self.data_bytes)?;
        check_driver(self.identity, Some(&entry.driver))?;
        self.destination.stop()?;
        self.order(Place::default())?;
        if leave == Leave::Running {
            self.destination.run()?;
            self.order(Place::default())?;
        }
        Ok(entry)
    }

    /// The kind of the device's next section, or nothing at the end byte. Behind the END stands a FULL at most.
    fn next_section(&mut self, ended: bool) -> Result<Option<Kind>, Reason> {
        let offset = self.reader.offset();
        let wanted = if ended {
            "a FULL of the device, or the end of the stream"
        } else {
            "a PART or END of the device"
        };
        let Section { id, name } = &self.section;
        match self.reader.item()? {
            Item::Continue { kind, id: got } if got == *id && !ended => Ok(Some(Kind::Continue(kind))),
            Item::Begin {
                kind: Begins::Full,
                id: got,
                name: full,
                instance: 0,
                version: SECTION_VERSION,
            } if got == *id && full == name.as_bytes() && ended => Ok(Some(Kind::Begin(Begins::Full))),
            Item::EndOfStream if ended => Ok(None),
            item => Err(file::Error::Unexpected { offset, wanted, got: show(&item) }.into()),
        }
    }

    fn payload(&mut self, kind: Kind) -> Result<(), Reason> {
        let section = Some((kind.name(), self.section.name.clone(), self.reader.offset()));
        self.destination.section()?;
        self.order(Place { section, record: None })?;
        Ok(self.reader.footer(self.section.id)?)
    }

    fn order(&mut self, mut place: Place) -> Result<(), Reason> {
        let phase = drive::destination(&mut self.destination, self.device, &mut self.reader, |event| {
            if let Event::WriteData { result: Ok(bytes), .. } = event {
                self.data_bytes += *bytes as u64;
                self.pieces += 1;
            }
            (self.observe)(event);
        })?;
        match phase {
            DestinationPhase::Failed(Failure { cause, .. }) => {
                place.record = self.destination.record();
                Err(Reason::Session { place, cause })
            }
            _ => Ok(()),
        }
    }

    fn give_up(mut self, reason: Reason) -> Error {
        self.destination.cancel();
        let phase =
            drive::destination(&mut self.destination, self.device, &mut self.reader, &mut self.observe);
        let device = match phase {
            Ok(DestinationPhase::Failed(Failure { device, .. })) => device,
            Ok(_) | Err(_) => Left::Unknown,
        };
        Error { reason, device, stream_is_whole: false }
    }
}

/// What the name of every VFIO section ends in.
const NAME_END: &[u8] = b"vfio";
