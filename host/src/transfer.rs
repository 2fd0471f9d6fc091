//! Saves a device into a stream, and loads one from a stream, with every check and every recovery.
//!
//! `load` checks who wrote the stream before the driver gets a byte of it, and that the stream is whole and undamaged
//! before the device leaves RESUMING.
//!
//! Deliberately absent: files, names and signals; the program has those.

use std::os::fd::AsFd;

use vfio_migration_core::device::{Features, State};
use vfio_migration_core::session::drive::{self, Device, Transport};
use vfio_migration_core::session::{
    Cause, Code, DataRead, Destination, DestinationPhase, Event, Failure, Left, Misuse, Source, SourcePhase,
};
use vfio_migration_core::stream::record::Tag;
use vfio_migration_core::stream::section::{Begins, Continues, Item};

use crate::file::{self, Description, Entry, FORMAT, Reader, Writer, errno, show};
use crate::link::Link;
use crate::open::{Identity, UNKNOWN_DRIVER};

/// Where a device is left when all went well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Leave {
    /// In RUNNING.
    #[default]
    Running,
    /// In STOP.
    Stopped,
}

/// What was saved or loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What the stream says of the device.
    pub entry: Entry,
    /// The bytes of the whole stream.
    pub stream_bytes: u64,
    /// The system calls that moved data out of or into the device.
    pub pieces: u64,
}

/// Why a transfer failed, and where it left the device.
#[derive(Debug, thiserror::Error)]
#[error("{reason}; {device}")]
pub struct Error {
    /// What went wrong first.
    pub reason: Reason,
    /// Where the device is now.
    pub device: Left,
}

/// What went wrong first.
#[derive(Debug, thiserror::Error)]
pub enum Reason {
    /// The device's session failed inside a section, or between two.
    #[error("{}{cause}{}", place.at(cause), in_words(cause))]
    Session {
        /// Where in the stream.
        place: Place,
        /// What.
        cause: Cause,
    },
    /// The stream is not a file of ours, or damaged between payloads.
    #[error(transparent)]
    Stream(#[from] file::Error),
    /// The stream could not be written.
    #[error("the stream could not be written at byte {offset}: {}", errno(*code))]
    Write {
        /// Where.
        offset: u64,
        /// The kernel's answer.
        code: Code,
    },
    /// The stream is of another kind of device.
    #[error(
        "the stream is of a device of driver '{got}', wanted '{wanted}'; the driver of a file descriptor is said with \
         fd:N,driver=NAME"
    )]
    OtherDriver {
        /// This device's driver.
        wanted: String,
        /// The stream's.
        got: String,
    },
    /// The description does not fit the sections before it.
    #[error("the description says {wanted}, the stream has {got}")]
    Mismatch {
        /// What the description says.
        wanted: String,
        /// What was read.
        got: String,
    },
    /// The device can't be used like this.
    #[error(transparent)]
    Misuse(#[from] Misuse),
}

/// Whose refusal a [`Reason`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The device's.
    ByDevice,
    /// The reader's, of the stream.
    Stream,
    /// The file's or the connection's.
    Io,
}

/// Where in a stream a session failed.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// Kind and name of the section, and the offset of its payload.
    section: Option<(&'static str, String, u64)>,
    record: Option<Tag>,
}

impl Reason {
    /// Whose refusal this is.
    #[must_use]
    pub fn refused(&self) -> Refused {
        match self {
            Self::Session { cause, .. } => match cause {
                Cause::Refused { .. }
                | Cause::ReadData(_)
                | Cause::DrainedInStopCopy
                | Cause::WriteData { .. }
                | Cause::WriteDataZero { .. } => Refused::ByDevice,
                Cause::RecvClosed { .. }
                | Cause::Record(_)
                | Cause::Unexpected { .. }
                | Cause::RecvConfig { .. } => Refused::Stream,
                Cause::Cancelled
                | Cause::Send(_)
                | Cause::SendClosed
                | Cause::SendConfig(_)
                | Cause::Recv { .. } => Refused::Io,
            },
            Self::Stream(file::Error::Recv { .. }) | Self::Write { .. } => Refused::Io,
            Self::Stream(_) | Self::OtherDriver { .. } | Self::Mismatch { .. } => Refused::Stream,
            Self::Misuse(_) => Refused::ByDevice,
        }
    }
}

impl Place {
    /// The section, the record and the byte of the stream at which `cause` came up, for the front of a message.
    fn at(&self, cause: &Cause) -> String {
        let Some((kind, name, payload)) = &self.section else { return String::new() };
        let record = self.record.map(|record| format!(", record {record}")).unwrap_or_default();
        let byte =
            cause.offset().map(|offset| format!(", byte {} of the stream", payload.saturating_add(offset)));
        format!("section {kind} of '{name}'{record}{}: ", byte.unwrap_or_default())
    }
}

/// What a transfer must know of its device, and what it may use.
#[derive(Debug)]
pub struct Job<'a> {
    /// The driver's features.
    pub features: Features,
    /// The state that GET says.
    pub now: State,
    /// Which device it is.
    pub identity: &'a Identity,
    /// Where to leave it when all went well.
    pub leave: Leave,
    /// The session's buffer, at least 64 bytes.
    pub buffer: &'a mut [u8],
}

impl Identity {
    /// The name that a device's sections have by default, `<driver>@<address>/vfio`.
    #[must_use]
    pub fn idstr(&self) -> String {
        format!("{}@{}/vfio", self.driver, self.address)
    }
}

/// Saves `device` into `link`, in sections named `idstr` ([`Identity::idstr`], or what a QEMU calls its device).
///
/// # Errors
/// [`Error`]; the device is back in the state that it came from, or the error says where it is.
pub fn save<Fd: AsFd>(
    device: &mut impl Device,
    link: Link<Fd>,
    idstr: &str,
    job: Job<'_>,
    observe: impl FnMut(&Event),
) -> Result<Report, Error> {
    let untouched = |reason| Error { reason, device: Left::At(job.now) };
    let source = Source::new(job.now, job.buffer).map_err(|misuse| untouched(misuse.into()))?;
    let writer = Writer::begin(link).map_err(|code| untouched(Reason::Write { offset: 0, code }))?;
    let Identity { driver, address } = job.identity.clone();
    let entry = Entry { idstr: idstr.to_owned(), driver, address, data_bytes: 0 };
    let mut saving = Saving { source, device, writer, observe, entry, pieces: 0 };
    match saving.all(job.leave) {
        Ok(stream_bytes) => Ok(Report { entry: saving.entry, stream_bytes, pieces: saving.pieces }),
        Err(reason) => Err(saving.give_up(reason)),
    }
}

/// Loads `device` from `link`. With `force` a stream of another kind of device is not refused.
///
/// # Errors
/// [`Error`]; the device is as it was where the stream was refused by its first section's name, reset to RUNNING where
/// something went wrong later, or the error says where it is.
pub fn load(
    device: &mut impl Device,
    link: impl Transport,
    force: bool,
    job: Job<'_>,
    observe: impl FnMut(&Event),
) -> Result<Report, Error> {
    let untouched = |reason| Error { reason, device: Left::At(job.now) };
    let destination = Destination::new(job.features, job.now, false, job.buffer)
        .map_err(|misuse| untouched(misuse.into()))?;
    let reader = Reader::begin(link).map_err(|error| untouched(error.into()))?;
    let driver = (!force).then_some(job.identity.driver.as_str());
    let mut loading = Loading { destination, device, reader, observe, driver, data_bytes: 0, pieces: 0 };
    match loading.all(job.leave) {
        Ok(entry) => Ok(Report { entry, stream_bytes: loading.reader.offset(), pieces: loading.pieces }),
        Err(reason) => Err(loading.give_up(reason)),
    }
}

struct Saving<'a, 'b, D, Fd, O> {
    source: Source<'b>,
    device: &'a mut D,
    writer: Writer<Fd>,
    observe: O,
    entry: Entry,
    pieces: u64,
}

impl<D: Device, Fd: AsFd, O: FnMut(&Event)> Saving<'_, '_, D, Fd, O> {
    fn all(&mut self, leave: Leave) -> Result<u64, Reason> {
        self.source.setup()?;
        self.section(Kind::Begin(Begins::Start))?;
        self.source.stop()?;
        self.order(Place::default())?;
        self.source.copy_rest()?;
        self.section(Kind::Continue(Continues::End))?;
        let description = Description { format: FORMAT, devices: vec![self.entry.clone()] };
        let (length, _) = self.writer.end(&description).map_err(|code| self.write_error(code))?;
        self.source.finish()?;
        self.order(Place::default())?;
        if leave == Leave::Running {
            self.source.run()?;
            self.order(Place::default())?;
        }
        Ok(length)
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
        match drive::source(&mut self.source, self.device, &mut self.writer, &mut self.observe) {
            Ok(SourcePhase::Failed(Failure { device, .. })) => Error { reason, device },
            Ok(_) | Err(_) => Error { reason, device: Left::Unknown },
        }
    }
}

struct Loading<'a, 'b, 'c, D, T, O> {
    destination: Destination<'b>,
    device: &'a mut D,
    reader: Reader<T>,
    observe: O,
    /// The driver that the stream must be of, unless any will do.
    driver: Option<&'c str>,
    data_bytes: u64,
    pieces: u64,
}

impl<D: Device, T: Transport, O: FnMut(&Event)> Loading<'_, '_, '_, D, T, O> {
    fn all(&mut self, leave: Leave) -> Result<Entry, Reason> {
        let (id, name) = self.start()?;
        self.check_driver(driver_of(&name))?;
        self.destination.resume()?;
        self.order(Place::default())?;
        self.payload(id, &name, Kind::Begin(Begins::Start))?;
        while let Some(kind) = self.next_section(id, &name)? {
            self.payload(id, &name, kind)?;
        }
        let entry = self.description(&name)?;
        self.destination.stop()?;
        self.order(Place::default())?;
        if leave == Leave::Running {
            self.destination.run()?;
            self.order(Place::default())?;
        }
        Ok(entry)
    }

    /// The id and the name of the first section, which must be a START.
    fn start(&mut self) -> Result<(u32, String), Reason> {
        let offset = self.reader.offset();
        let wanted = "the START section of a VFIO device, instance 0, version 1";
        match self.reader.item()? {
            Item::Begin { kind: Begins::Start, id, name, instance: 0, version: SECTION_VERSION }
                if name.ends_with(NAME_END) =>
            {
                Ok((id, String::from_utf8_lossy(name).into_owned()))
            }
            item => Err(file::Error::Unexpected { offset, wanted, got: show(&item) }.into()),
        }
    }

    /// The kind of the device's next section, or nothing at the end byte.
    fn next_section(&mut self, id: u32, name: &str) -> Result<Option<Kind>, Reason> {
        let offset = self.reader.offset();
        let wanted = "a PART or END of the same section id, or the end of the stream";
        match self.reader.item()? {
            Item::Continue { kind, id: got } if got == id => Ok(Some(Kind::Continue(kind))),
            Item::Begin {
                kind: Begins::Full,
                id: got,
                name: full,
                instance: 0,
                version: SECTION_VERSION,
            } if got == id && full == name.as_bytes() => Ok(Some(Kind::Begin(Begins::Full))),
            Item::EndOfStream => Ok(None),
            item => Err(file::Error::Unexpected { offset, wanted, got: show(&item) }.into()),
        }
    }

    fn payload(&mut self, id: u32, name: &str, kind: Kind) -> Result<(), Reason> {
        let section = Some((kind.name(), name.to_owned(), self.reader.offset()));
        self.destination.section()?;
        self.order(Place { section, record: None })?;
        Ok(self.reader.footer(id)?)
    }

    fn description(&mut self, name: &str) -> Result<Entry, Reason> {
        let mut description = self.reader.end()?;
        let named = description.devices.iter().position(|entry| entry.idstr == name);
        let Some(entry) = named.map(|index| description.devices.swap_remove(index)) else {
            let wanted = format!("devices {:?}", description.devices.iter().map(|entry| &entry.idstr));
            return Err(Reason::Mismatch { wanted, got: format!("'{name}'") });
        };
        self.check_driver(Some(&entry.driver))?;
        if entry.data_bytes != self.data_bytes {
            let wanted = format!("{} bytes of data", entry.data_bytes);
            return Err(Reason::Mismatch { wanted, got: format!("{} bytes of data", self.data_bytes) });
        }
        Ok(entry)
    }

    fn check_driver(&self, got: Option<&str>) -> Result<(), Reason> {
        match (self.driver, got) {
            (Some(wanted), Some(got)) if wanted != got || wanted == UNKNOWN_DRIVER => {
                Err(Reason::OtherDriver { wanted: wanted.to_owned(), got: got.to_owned() })
            }
            (_, _) => Ok(()),
        }
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
        match drive::destination(&mut self.destination, self.device, &mut self.reader, &mut self.observe) {
            Ok(DestinationPhase::Failed(Failure { device, .. })) => Error { reason, device },
            Ok(_) | Err(_) => Error { reason, device: Left::Unknown },
        }
    }
}

/// The kind of a section.
#[derive(Clone, Copy)]
enum Kind {
    Begin(Begins),
    Continue(Continues),
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Begin(kind) => kind.name(),
            Self::Continue(kind) => kind.name(),
        }
    }
}

/// The driver in a name of ours, `<driver>@<address>/vfio`; a QEMU's name has none.
fn driver_of(name: &str) -> Option<&str> {
    name.split_once('@').map(|(driver, _)| driver)
}

/// The kernel's answer in words, where there is one.
fn in_words(cause: &Cause) -> String {
    cause.code().map(|code| format!(" ({})", errno(code))).unwrap_or_default()
}

/// What the name of every VFIO section ends in.
const NAME_END: &[u8] = b"vfio";

/// The id of a file's only device. Not 0: a QEMU that looks for a PART's or END's section by its id finds the first of
/// those that it has not loaded yet, which all have 0.
const SECTION_ID: u32 = 1;
const SECTION_VERSION: u32 = 1;
