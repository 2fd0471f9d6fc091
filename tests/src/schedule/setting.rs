//! What a run is about: a device, a script, and what becomes of it in the end.
//!
//! Deliberately absent: faults; those are the schedule's.

use vfio_migration_core::device::{Features, State};

use super::orders::Order;
use crate::payload::{CONFIG, END, INIT_DATA_SENT, SETUP, content, data};

/// The side that a device is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It is saved.
    Source,
    /// It is loaded.
    Destination,
}

/// What a model device is made of.
#[derive(Clone, Copy, Debug)]
pub struct Make {
    /// Its side.
    pub role: Role,
    /// The uapi's migration flags.
    pub flags: u64,
    /// The state that it begins in.
    pub state: State,
    /// Bytes of initial data in PRE_COPY.
    pub initial: usize,
    /// Bytes that become dirty once, when PRECOPY_INFO is asked with nothing left.
    pub dirty: usize,
    /// Whether these are initial data begun anew.
    pub reinit: bool,
    /// Whether "nothing now" is ENOMSG in PRE_COPY, and not 0.
    pub enomsg: bool,
    /// Bytes that come in STOP_COPY alone; for a destination, all bytes of the state.
    pub rest: usize,
    /// Whether RESUMING → STOP refuses half a state. One real driver lets it pass.
    pub strict: bool,
    /// The most bytes that one read, write, send or receive takes.
    pub piece: usize,
}

/// What is run.
#[derive(Clone, Debug)]
pub struct Setting {
    /// What it is called.
    pub name: &'static str,
    /// The device.
    pub make: Make,
    /// Whether INIT_DATA_SENT was agreed on.
    pub ack: bool,
    /// The orders.
    pub script: &'static [Order],
    /// Whether a source retreats before it cancels in the end.
    pub retreats: bool,
    /// What comes from the link.
    pub incoming: Vec<u8>,
}

impl Make {
    /// A device that is saved: three bytes of initial data, two that become dirty, four in STOP_COPY alone.
    #[must_use]
    pub const fn source(flags: u64, state: State) -> Self {
        let role = Role::Source;
        let (initial, dirty, rest) = (3, 2, 4);
        let (reinit, enomsg, strict) = (false, true, true);
        Self { role, flags, state, initial, dirty, reinit, enomsg, rest, strict, piece: usize::MAX }
    }

    /// A device that is loaded, with a state of five bytes.
    #[must_use]
    pub const fn destination(flags: u64, state: State, strict: bool) -> Self {
        Self { role: Role::Destination, rest: 5, strict, ..Self::source(flags, state) }
    }

    /// The features that the flags say.
    ///
    /// # Panics
    /// When STOP_COPY is missing.
    #[must_use]
    pub fn features(&self) -> Features {
        Features::from_raw(self.flags).expect("a device that migrates")
    }
}

impl Setting {
    /// A device that is saved by `script`.
    #[must_use]
    pub const fn source(name: &'static str, flags: u64, state: State, script: &'static [Order]) -> Self {
        let make = Make::source(flags, state);
        Self { name, make, ack: true, script, retreats: false, incoming: vec![] }
    }

    /// A device that is loaded by `script` from `incoming`.
    #[must_use]
    pub const fn destination(
        name: &'static str,
        make: Make,
        script: &'static [Order],
        incoming: Vec<u8>,
    ) -> Self {
        Self { name, make, ack: true, script, retreats: false, incoming }
    }

    /// The setting, with its flags and where the device comes from, for reports.
    #[must_use]
    pub fn title(&self) -> String {
        let Make { flags, state, strict, .. } = self.make;
        let ending = if self.retreats { ", retreats" } else { "" };
        let lenient = if strict { "" } else { ", lenient driver" };
        format!("{}, flags {flags}, from {state}{ending}{lenient}", self.name)
    }
}

/// The length of a configuration's body, in bytes.
pub const CONFIG_BODY: [u8; 4] = *b"conf";

/// START, END with the whole state, FULL: a load of [`LOAD`](super::orders::LOAD).
#[must_use]
pub fn start_end_full() -> Vec<u8> {
    [&SETUP[..], &END, &data(&content(5)), &END, &CONFIG, &CONFIG_BODY, &END].concat()
}

/// PART with three bytes and INIT_DATA_SENT, END with two: a load of [`LOAD_P2P`](super::orders::LOAD_P2P).
#[must_use]
pub fn part_end() -> Vec<u8> {
    let whole = content(5);
    [&data(&whole[..3])[..], &INIT_DATA_SENT, &data(&whole[3..]), &END].concat()
}

/// END with the whole state: a load of [`LOAD_END`](super::orders::LOAD_END).
#[must_use]
pub fn end_alone() -> Vec<u8> {
    [&data(&content(5))[..], &END].concat()
}
