//! What goes wrong in a run: which call of which device, and how.
//!
//! Deliberately absent: two calls that fail at once, but for a reset. All pairs and triples are tried in
//! `tests/tests`, on devices that are faster than a kernel's.

use std::collections::BTreeMap;
use std::fmt;

use super::scene::Side;

/// A call of a device that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// Whose call.
    pub(super) side: Side,
    /// Which kind of call.
    pub(super) operation: Operation,
    /// Which one of them, counted from 1.
    pub(super) nth: u64,
    /// How.
    pub(super) kind: Kind,
    /// Whether the reset that may follow is refused too.
    pub(super) reset_fails: bool,
}

/// A kind of call that a command makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Set,
    Get,
    Read,
    Write,
    Info,
    Size,
}

/// How a call goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It answers EIO; a SET ends in one of these places.
    Refused(End),
    /// A guest resets the device just before.
    GuestReset,
    /// It answers EINTR, once.
    Interrupted,
}

/// Where a refused SET leaves its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Old,
    Midway,
    Error,
}

impl Operation {
    /// All of them.
    pub(super) const ALL: [Self; 6] = [Self::Set, Self::Get, Self::Read, Self::Write, Self::Info, Self::Size];

    /// What the device calls it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Set => "set",
            Self::Get => "get",
            Self::Read => "read",
            Self::Write => "write",
            Self::Info => "info",
            Self::Size => "size",
        }
    }
}

impl Fault {
    /// All that may go wrong with the calls that a run without faults has made of a device: with each of them, and
    /// of those that move data with the first, the middle and the last one.
    pub(super) fn all(side: Side, calls: &BTreeMap<String, u64>) -> Vec<Self> {
        let mut faults = Vec::new();
        for operation in Operation::ALL {
            let count = calls.get(operation.name()).copied().unwrap_or_default();
            let mut places: Vec<u64> = match operation {
                Operation::Read | Operation::Write if count > 0 => vec![1, count.div_ceil(2), count],
                Operation::Read | Operation::Write => Vec::new(),
                Operation::Set | Operation::Get | Operation::Info | Operation::Size => (1..=count).collect(),
            };
            places.dedup();
            for nth in places {
                let fault = |(kind, reset_fails)| Self { side, operation, nth, kind, reset_fails };
                faults.extend(kinds(operation).map(fault));
            }
        }
        faults
    }

    /// Whether it is a refused transfer of data, and nothing else.
    pub(super) fn is_of_data(&self) -> bool {
        let moves = match self.operation {
            Operation::Read | Operation::Write => true,
            Operation::Set | Operation::Get | Operation::Info | Operation::Size => false,
        };
        moves && self.kind == Kind::Refused(End::Old) && !self.reset_fails
    }

    /// What the device is told.
    pub(super) fn lines(self) -> String {
        let (name, nth) = (self.operation.name(), self.nth);
        let how = match self.kind {
            Kind::Refused(End::Old) => format!("{EIO}"),
            Kind::Refused(End::Midway) => format!("{EIO} midway"),
            Kind::Refused(End::Error) => format!("{EIO} error"),
            Kind::GuestReset => "flr".to_string(),
            Kind::Interrupted => format!("{EINTR}"),
        };
        let reset = if self.reset_fails { format!("\nreset 0 {EPERM}") } else { String::new() };
        format!("{name} {nth} {how}{reset}")
    }

    /// Whether a guest resets the device of this side.
    pub(super) fn is_guest_reset_of(self, side: Side) -> bool {
        self.side == side && self.kind == Kind::GuestReset
    }

    /// Whether nobody may see it: the call is repeated, or was only for people.
    pub(super) fn is_invisible(self) -> bool {
        match self.kind {
            Kind::Interrupted => true,
            Kind::Refused(_) => self.operation == Operation::Size,
            Kind::GuestReset => false,
        }
    }

    /// Whether a message of a command that fails says so of it.
    pub(super) fn is_named_by(self, message: &str) -> bool {
        let refused = match self.operation {
            Operation::Set => "the device refused ",
            // Before anything is done, or before a SET, which is refused then.
            Operation::Get => "",
            Operation::Read => "data could not be read",
            Operation::Write => "refused the data",
            Operation::Info => "refused PRECOPY_INFO",
            Operation::Size => "MIG_DATA_SIZE",
        };
        match self.kind {
            Kind::Refused(_) => message.contains(refused) && message.contains("Input/output error"),
            // What was open is gone, or something came that was not to be opened.
            Kind::GuestReset => {
                let answers = ["No such device", "Bad file descriptor", "Invalid argument"];
                answers.iter().any(|answer| message.contains(answer))
            }
            Kind::Interrupted => false,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of the {}", self.lines().replace('\n', ", "), self.side.name())
    }
}

/// All ways in which a call may go wrong; true: with a refused reset.
fn kinds(operation: Operation) -> impl Iterator<Item = (Kind, bool)> {
    let ends: &[End] = match operation {
        Operation::Set => &[End::Old, End::Midway, End::Error],
        Operation::Get | Operation::Read | Operation::Write | Operation::Info | Operation::Size => {
            &[End::Old]
        }
    };
    let refused = ends.iter().map(|&end| Kind::Refused(end));
    let all = refused.chain([Kind::GuestReset]).flat_map(|kind| [(kind, false), (kind, true)]);
    all.chain([(Kind::Interrupted, false)])
}

const EPERM: i32 = 1;
const EINTR: i32 = 4;
const EIO: i32 = 5;
