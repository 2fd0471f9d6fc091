//! Saves devices into a stream, and loads them from one, with every check and every recovery.
//!
//! [`save`] copies what it can while the devices work, if that is wanted, stops them in lockstep and copies the rest.
//! [`load`] checks who wrote the stream before a driver gets a byte of it, and that the stream is whole and undamaged
//! before a device leaves RESUMING. [`hand_over`] does both at once, and the sources go back if the destinations can't.
//!
//! Deliberately absent: files, what devices are opened by, and signals; the program has those.

use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::io::Errno;
use vfio_migration_core::device::{Features, State};
use vfio_migration_core::session::drive::{Device, Transport};
use vfio_migration_core::session::precopy::Forecast;
use vfio_migration_core::session::{Cause, Code, Event, Left, Misuse};
use vfio_migration_core::stream::pci_config::{Body, Layout};
use vfio_migration_core::stream::record::Tag;
use vfio_migration_core::stream::section::{Begins, Continues};

use crate::errno::{code, in_words};
use crate::file::{self, Entry};
use crate::open::Identity;
use crate::pci::{self, Applied, Function};
use crate::sim::Assigned;

mod check;
mod config;
mod hand_over;
mod lanes;
mod load;
mod outlet;
mod precopy;
mod save;
mod together;
mod walk;

pub use check::{check, check_sides, check_together};
pub use hand_over::hand_over;
pub use load::{Load, load};
pub use precopy::PreCopy;
pub use save::{Save, save};

/// The most devices that go into one stream.
pub const DEVICES_MAX: usize = 64;

/// A device that also has an estimate of its state, and a configuration where it is a PCI function.
pub trait Migratable: Device + Send {
    /// The driver's estimate of the bytes that STOP_COPY gives now, `VFIO_DEVICE_FEATURE_MIG_DATA_SIZE`; nothing, or
    /// 0, where it has none.
    fn data_size(&self) -> Option<u64>;

    /// What the length of its CONFIG record's body follows from; nothing where it is no PCI function.
    ///
    /// # Errors
    /// The configuration space can't be read.
    fn config_layout(&self) -> Result<Option<Layout>, pci::Refused> {
        Ok(None)
    }

    /// The body of its CONFIG record. A VMM that has set up the function for its guest has more to say in it than the
    /// kernel: it is asked when the device stands still.
    ///
    /// # Errors
    /// The device has none, or it can't be read.
    fn config(&mut self) -> Result<Vec<u8>, pci::Refused> {
        Err(pci::Refused::NoFunction)
    }

    /// Sets what a CONFIG record of this device's layout says, once its section is through; the device is in RESUMING.
    ///
    /// # Errors
    /// It is of another kind of function, or the kernel refused; the device is reset then.
    fn apply_config(&mut self, body: &Body<'_>) -> Result<Applied, pci::Refused> {
        let _ = body;
        Err(pci::Refused::NoFunction)
    }
}

impl<Fd: AsFd + Send> Migratable for crate::device::Device<Fd> {
    fn data_size(&self) -> Option<u64> {
        self.data_size().ok()
    }

    fn config_layout(&self) -> Result<Option<Layout>, pci::Refused> {
        Function::of(self.fd())?.map(|function| function.layout()).transpose()
    }

    fn config(&mut self) -> Result<Vec<u8>, pci::Refused> {
        Function::of(self.fd())?.ok_or(pci::Refused::NoFunction)?.body()
    }

    fn apply_config(&mut self, body: &Body<'_>) -> Result<Applied, pci::Refused> {
        Function::of(self.fd())?.ok_or(pci::Refused::NoFunction)?.apply(body)
    }
}

impl Migratable for Assigned {
    fn data_size(&self) -> Option<u64> {
        self.data_size().ok()
    }

    fn config_layout(&self) -> Result<Option<Layout>, pci::Refused> {
        self.sim.config_space().map(|space| pci::layout_of(&space)).transpose()
    }

    fn config(&mut self) -> Result<Vec<u8>, pci::Refused> {
        let space = self.sim.config_space().ok_or(pci::Refused::NoFunction)?;
        Ok(pci::body(&space, pci::layout_of(&space)?))
    }

    fn apply_config(&mut self, body: &Body<'_>) -> Result<Applied, pci::Refused> {
        pci::check(body, &self.sim.config_space().ok_or(pci::Refused::NoFunction)?)?;
        let applied = Applied::of(body);
        self.sim.write_command(applied.command);
        Ok(applied)
    }
}

/// A device that takes part in a transfer, and what it may use.
#[derive(Debug)]
pub struct Member<'a, D> {
    /// The device.
    pub device: &'a mut D,
    /// What its driver can do.
    pub features: Features,
    /// The state that GET says.
    pub now: State,
    /// Which device it is.
    pub identity: &'a Identity,
    /// The name of its sections: [`Identity::idstr`], or what a QEMU calls its device.
    pub idstr: String,
    /// The session's buffer, at least 64 bytes.
    pub buffer: &'a mut [u8],
}

/// Where devices are to which nothing was done yet, with their names.
fn lefts<D>(members: &[Member<'_, D>]) -> impl Iterator<Item = (String, Left)> {
    members.iter().map(|member| (member.idstr.clone(), Left::At(member.now)))
}

/// Whoever is told what happens to the devices, beside `tracing`. A closure that takes an [`Event`] is one.
pub trait Watch: Sync {
    /// Something was done to or for `device`.
    fn event(&self, device: &str, event: &Event);

    /// `device` has loaded its initial data, and so have `all` others that have pre-copy: then the switchover may be
    /// acknowledged.
    fn initial_data_loaded(&self, device: &str, all: bool) {
        let _ = (device, all);
    }
}

impl<F: Fn(&Event) + Sync> Watch for F {
    fn event(&self, _: &str, event: &Event) {
        self(event);
    }
}

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
    /// What the stream says of each device.
    pub entries: Vec<Entry>,
    /// The bytes of the whole stream.
    pub stream_bytes: u64,
    /// The system calls that moved data out of or into the devices.
    pub pieces: u64,
    /// How long the devices stood still: from the first that was asked to be quiet or to stop, or from the stream's
    /// last byte at a destination, until all ran again, or until the stream was kept if they stay stopped.
    pub downtime: Duration,
    /// Bytes of the devices' data that were moved while they stood still; 0 of a load, which does not know.
    pub downtime_bytes: u64,
    /// What a load has set of each device's configuration, where the stream has one.
    pub configs: Vec<Option<Applied>>,
}

/// Why a transfer failed, and where it left the devices.
#[derive(Debug)]
pub struct Error {
    /// What went wrong first.
    pub reason: Reason,
    /// At which of `devices` it did, where it was one of several.
    pub at: Option<usize>,
    /// Where each device is now, with its name.
    pub devices: Vec<(String, Left)>,
    /// Whether the stream was saved to its last byte and kept before it went wrong: it holds the devices' state then.
    pub stream_is_whole: bool,
    /// Whether the destinations of a hand-over have the state and run: then the sources must not.
    pub handed_over: bool,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((name, _)) = self.at.and_then(|at| self.devices.get(at)) {
            write!(f, "'{name}': ")?;
        }
        write!(f, "{}{}", self.reason, self.where_devices_are())?;
        if self.handed_over {
            f.write_str("; the state has arrived and runs there, a source that runs has to be stopped")?;
        }
        if self.stream_is_whole { f.write_str("; the stream is whole and can be loaded") } else { Ok(()) }
    }
}

impl std::error::Error for Error {}

impl Error {
    /// Of a transfer in which `reason` came up at the device `index`.
    fn new(reason: Reason, index: usize, devices: Vec<(String, Left)>) -> Self {
        let at = (devices.len() > 1 && reason.is_of_one_device()).then_some(index);
        Self { reason, at, devices, stream_is_whole: false, handed_over: false }
    }

    /// Of a transfer that was refused before anything was done to a device.
    #[must_use]
    pub fn of_nothing(reason: Reason) -> Self {
        Self { reason, at: None, devices: Vec::new(), stream_is_whole: false, handed_over: false }
    }

    /// Where each device is, for the end of a message.
    #[must_use]
    pub fn where_devices_are(&self) -> String {
        match &self.devices[..] {
            [(_, left)] => format!("; {left}"),
            several => several.iter().map(|(name, left)| format!("; '{name}': {left}")).collect(),
        }
    }
}

/// What went wrong first.
#[derive(Debug, thiserror::Error)]
pub enum Reason {
    /// The device's session failed inside a section, or between two.
    #[error("{}{cause}{}", place.at(cause), said_by_kernel(cause))]
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
    #[error("the stream could not be written at byte {offset}: {}", in_words(*code))]
    Write {
        /// Where.
        offset: u64,
        /// The kernel's answer.
        code: Code,
    },
    /// The stream is of another kind of device.
    #[error(
        "the stream is of a device of driver '{}', wanted '{wanted}'; the driver of a file descriptor is said with \
         fd:N,driver=NAME",
        got.escape_debug()
    )]
    OtherDriver {
        /// This device's driver.
        wanted: String,
        /// The stream's.
        got: String,
    },
    /// The saved stream could not be kept: the caller's `keep` failed.
    #[error("the stream could not be kept: {0}")]
    Keep(io::Error),
    /// The device was left in the middle of a migration and refused the reset before a load.
    #[error("the device was left in {state} and refused its reset: {}", in_words(*code))]
    NotReset {
        /// The state it was found in.
        state: State,
        /// The kernel's answer.
        code: Code,
    },
    /// The stream has fewer devices than were given.
    #[error("wanted the state of {wanted} devices in the stream, got {got}")]
    FewerDevices {
        /// How many were given.
        wanted: usize,
        /// How many the stream has.
        got: usize,
    },
    /// The stream has more devices than were given.
    #[error("wanted the state of {wanted} devices in the stream, got one more, '{name}'")]
    MoreDevices {
        /// How many were given.
        wanted: usize,
        /// The name of the next.
        name: String,
    },
    /// The devices can't migrate together.
    #[error("{0}")]
    NotTogether(String),
    /// Pre-copy went on for longer than [`PreCopy::patience`] without a prospect of a short enough stop.
    #[error("pre-copy will not converge: {0}; allow a longer downtime, or save without pre-copy")]
    WillNotConverge(Forecast),
    /// The destinations have not acknowledged the switchover for longer than [`PreCopy::patience`].
    #[error(
        "pre-copy could stop, but of {sent} times that initial data were sent, {loaded} were loaded; a driver whose \
         initial bytes never end has to be saved without pre-copy"
    )]
    NotAcknowledged {
        /// How many INIT_DATA_SENT were sent.
        sent: usize,
        /// How many of them the destinations have acknowledged.
        loaded: usize,
    },
    /// There is no link between the two sides of a hand-over.
    #[error("there is no pair of sockets: {0}")]
    NoLink(io::Error),
    /// A stop was asked for while nothing was being read or written.
    #[error("interrupted")]
    Interrupted,
    /// The device's configuration can't be read, or the stream's is not one of this device.
    #[error("{}{refused}", place.section())]
    Config {
        /// Where in the stream.
        place: Place,
        /// What is wrong with it.
        refused: Box<pci::Refused>,
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
    section: Option<(Kind, String, u64)>,
    record: Option<Tag>,
}

impl Reason {
    /// That of a configuration.
    fn config(place: Place, refused: pci::Refused) -> Self {
        Self::Config { place, refused: refused.into() }
    }

    /// Whether it went wrong with one device, and not with the stream or the link that it shares with others.
    fn is_of_one_device(&self) -> bool {
        match self {
            Self::Session { .. } => self.refused() == Refused::ByDevice,
            Self::OtherDriver { .. } | Self::NotReset { .. } | Self::Config { .. } | Self::Misuse(_) => true,
            Self::Stream(_)
            | Self::Write { .. }
            | Self::FewerDevices { .. }
            | Self::MoreDevices { .. }
            | Self::NotTogether(_)
            | Self::WillNotConverge(_)
            | Self::NotAcknowledged { .. }
            | Self::NoLink(_)
            | Self::Keep(_)
            | Self::Interrupted => false,
        }
    }

    /// Whether a read or a write was given up because a stop was asked for.
    #[must_use]
    pub fn is_interrupt(&self) -> bool {
        let answer = match self {
            Self::Session { cause, .. } => cause.code(),
            Self::Stream(file::Error::Recv { code, .. }) | Self::Write { code, .. } => Some(*code),
            Self::Interrupted => return true,
            Self::Stream(_)
            | Self::Keep(_)
            | Self::NotReset { .. }
            | Self::OtherDriver { .. }
            | Self::FewerDevices { .. }
            | Self::MoreDevices { .. }
            | Self::NotTogether(_)
            | Self::WillNotConverge(_)
            | Self::NotAcknowledged { .. }
            | Self::NoLink(_)
            | Self::Config { .. }
            | Self::Misuse(_) => None,
        };
        answer == Some(code(Errno::CANCELED))
    }

    /// Whose refusal this is.
    #[must_use]
    pub fn refused(&self) -> Refused {
        match self {
            Self::Session { cause, .. } => match cause {
                Cause::Refused { .. }
                | Cause::PrecopyInfo(_)
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
            Self::Stream(file::Error::Recv { .. })
            | Self::Write { .. }
            | Self::Keep(_)
            | Self::NoLink(_)
            | Self::Interrupted => Refused::Io,
            Self::Stream(_)
            | Self::OtherDriver { .. }
            | Self::FewerDevices { .. }
            | Self::MoreDevices { .. } => Refused::Stream,
            Self::Config { refused, .. } => match **refused {
                pci::Refused::Kernel(..) => Refused::ByDevice,
                pci::Refused::NoFunction
                | pci::Refused::Body { .. }
                | pci::Refused::Ended { .. }
                | pci::Refused::Differs(_) => Refused::Stream,
            },
            Self::NotReset { .. }
            | Self::NotTogether(_)
            | Self::WillNotConverge(_)
            | Self::NotAcknowledged { .. }
            | Self::Misuse(_) => Refused::ByDevice,
        }
    }
}

impl Place {
    /// The section, for the front of a message.
    fn section(&self) -> String {
        let name = |(kind, name, payload): &(Kind, String, u64)| {
            format!(
                "section {} of '{name}', which has its payload at byte {payload} of the stream: ",
                kind.name()
            )
        };
        self.section.as_ref().map(name).unwrap_or_default()
    }

    /// The section, the record and the byte of the stream at which `cause` came up, for the front of a message.
    fn at(&self, cause: &Cause) -> String {
        let Some((kind, name, payload)) = &self.section else { return String::new() };
        let record = self.record.map(|record| format!(", record {record}")).unwrap_or_default();
        let byte =
            cause.offset().map(|offset| format!(", byte {} of the stream", payload.saturating_add(offset)));
        format!("section {} of '{name}'{record}{}: ", kind.name(), byte.unwrap_or_default())
    }
}

/// The kind of a section.
#[derive(Clone, Copy, Debug)]
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

/// A link for sessions that only bring their device back: nothing is sent or received any more.
struct Closed;

impl Transport for Closed {
    fn send(&mut self, _: &[u8]) -> Result<usize, Code> {
        Err(code(Errno::PIPE))
    }

    fn recv(&mut self, _: &mut [u8]) -> Result<usize, Code> {
        Err(code(Errno::PIPE))
    }

    fn send_config(&mut self) -> Result<(), Code> {
        Err(code(Errno::PIPE))
    }

    fn recv_config(&mut self) -> Result<u64, Code> {
        Err(code(Errno::PIPE))
    }
}

/// The kernel's answer in words, where there is one.
fn said_by_kernel(cause: &Cause) -> String {
    cause.code().map(|code| format!(" ({})", in_words(code))).unwrap_or_default()
}

/// The version of a VFIO section.
const SECTION_VERSION: u32 = 1;
