//! The log of a run: what was ordered, done, told and reported, and what was true of the device.
//!
//! Deliberately absent: what it means; that is [`check`](super::check).

use vfio_migration_core::device::State;
use vfio_migration_core::session::Code;

use super::orders::Order;
use super::session::Phase;

/// An operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// SET of this state.
    Set(State),
    /// PRECOPY_INFO.
    Info,
    /// A read of the data fd.
    Read,
    /// A write of the data fd.
    Write,
    /// A reset of the device.
    Reset,
    /// Bytes are given to the link.
    Send,
    /// Bytes are taken from the link.
    Recv,
    /// The configuration's body is given to the link.
    SendConfig,
    /// The configuration's body is taken from the link.
    RecvConfig,
}

/// How an operation went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Well.
    Ok,
    /// So many bytes of those that were offered; for a configuration's body, its length.
    Count {
        /// Bytes that were offered.
        offered: usize,
        /// Bytes that were taken or given.
        got: usize,
    },
    /// ENOMSG.
    Drained,
    /// An error.
    Error(Code),
    /// It was not carried out.
    NotDone,
}

/// What a device holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// Nothing of a guest's: a destination before the first byte was written.
    Nothing,
    /// The guest's state, whole.
    Guests,
    /// A part of the guest's state, or a whole one that the driver has not accepted yet.
    Half,
    /// Nothing any more: it was reset.
    Lost,
}

/// What is true of a device, whatever a session believes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its state.
    pub state: State,
    /// The states that it went through in the last operation, one bit each.
    pub passed: u8,
    /// What it holds.
    pub holds: Holds,
    /// Whether the guest has reset it since the VMM's last SET or reset.
    pub reset_behind: bool,
    /// Whether the guest has reset it since the migration began; for a destination, since RESUMING.
    pub reset_by_guest: bool,
    /// Whether it has refused a reset, so that nothing is known of it.
    pub refused_reset: bool,
    /// Whether the VMM has a data fd open.
    pub data_fd: bool,
    /// Whether all that was written into it so far is what the other side sent.
    pub right_bytes: bool,
}

/// One line of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// An order was given to the session of this device.
    Order(usize, Order),
    /// An operation was done with this device or its link. A link's says nothing of the device.
    Did {
        /// The device.
        who: usize,
        /// The operation's number.
        number: usize,
        /// The operation.
        ask: Ask,
        /// How it went.
        answer: Answer,
        /// What is true of the device now.
        facts: Option<Facts>,
    },
    /// The last operation's answer was given to the session.
    Told(usize),
    /// The session is idle in this phase.
    Idle(usize, Phase, Facts),
    /// All orders were given that could be; the caller may still give up.
    End,
    /// Whoever drives the sessions can't go on.
    Stuck(&'static str),
}
