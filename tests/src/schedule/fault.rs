//! What can go wrong with an operation.
//!
//! Deliberately absent: what a fault does. That is told by the device, the link and whoever drives them.

use vfio_migration_core::session::Code;

/// Something that goes wrong, or merely otherwise than usual, at an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The guest resets the device behind the VMM's back, right before the operation.
    GuestReset,
    /// Right before the operation, where it is the first of an order, the caller cancels and does not give the order.
    CancelIdle,
    /// Right before the operation the turn goes to the other device, as far as that one comes.
    Pause,
    /// A SET fails when so many steps of its way are done; when all are, the answer alone got lost.
    Refused(u8),
    /// A SET fails and leaves the device in ERROR.
    Broken,
    /// Any other operation fails.
    Failed,
    /// The link has ended, or takes nothing any more; the device takes nothing.
    Closed,
    /// A read in STOP_COPY says ENOMSG, which is legal in PRE_COPY alone.
    Drained,
    /// One byte is taken or given where there is room for more.
    Short,
    /// The operation was asked for and is not carried out: the caller cancels.
    CancelBefore,
    /// The operation is carried out and not reported: the caller cancels.
    CancelAfter,
    /// The operation is carried out, and before it is reported the turn goes to the other device.
    Late,
}

/// A set of [`Kind`]s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kinds(u16);

/// A kind of fault at the operation with this number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fault {
    /// The operation's number; the first of a run has 0.
    pub number: usize,
    /// What happens.
    pub kind: Kind,
}

impl Kind {
    /// Every kind; the longest way of a SET has four steps.
    pub const ALL: [Self; 16] = [
        Self::GuestReset,
        Self::CancelIdle,
        Self::Pause,
        Self::Refused(0),
        Self::Refused(1),
        Self::Refused(2),
        Self::Refused(3),
        Self::Refused(4),
        Self::Broken,
        Self::Failed,
        Self::Closed,
        Self::Drained,
        Self::Short,
        Self::CancelBefore,
        Self::CancelAfter,
        Self::Late,
    ];

    const fn bit(self) -> u16 {
        match self {
            Self::GuestReset => 1 << 0,
            Self::CancelIdle => 1 << 1,
            Self::Pause => 1 << 2,
            Self::Refused(steps) => 1 << (3 + steps),
            Self::Broken => 1 << 8,
            Self::Failed => 1 << 9,
            Self::Closed => 1 << 10,
            Self::Drained => 1 << 11,
            Self::Short => 1 << 12,
            Self::CancelBefore => 1 << 13,
            Self::CancelAfter => 1 << 14,
            Self::Late => 1 << 15,
        }
    }

    /// Before the operation, in it, or behind it: an operation can meet one of each.
    #[must_use]
    pub const fn part(self) -> u8 {
        match self {
            Self::GuestReset | Self::CancelIdle | Self::Pause => 0,
            Self::Late => 2,
            Self::Refused(_)
            | Self::Broken
            | Self::Failed
            | Self::Closed
            | Self::Drained
            | Self::Short
            | Self::CancelBefore
            | Self::CancelAfter => 1,
        }
    }

    /// Whether the run goes on as if nothing had happened.
    #[must_use]
    pub const fn is_harmless(self) -> bool {
        matches!(self, Self::Short | Self::Pause | Self::Late)
    }
}

impl Kinds {
    /// These kinds.
    #[must_use]
    pub fn of(kinds: &[Kind]) -> Self {
        kinds.iter().fold(Self::default(), |set, &kind| set.with(kind, true))
    }

    /// This set, and `kind` too where that is `possible`.
    #[must_use]
    pub fn with(self, kind: Kind, possible: bool) -> Self {
        if possible { Self(self.0 | kind.bit()) } else { self }
    }

    /// This set, but for the cancels.
    #[must_use]
    pub fn without_cancel(self) -> Self {
        let cancels = Self::of(&[Kind::CancelIdle, Kind::CancelBefore, Kind::CancelAfter]);
        Self(self.0 & !cancels.0)
    }

    /// Whether `kind` is in the set.
    #[must_use]
    pub fn contains(self, kind: Kind) -> bool {
        self.0 & kind.bit() > 0
    }

    /// Each kind in the set.
    pub fn iter(self) -> impl Iterator<Item = Kind> {
        Kind::ALL.into_iter().filter(move |kind| self.contains(*kind))
    }
}

/// The code of an error that the schedule asked for, which tells it from every other.
#[must_use]
pub fn own_code(number: usize) -> Code {
    Code(i32::try_from(number).map_or(i32::MAX, |number| number + 1000))
}
