//! What goes wrong with a simulated device, and at which call.
//!
//! Each rule counts the calls of its own operation, whatever they answer. Deliberately absent: what a refused call
//! leaves behind; that is the device's.

use rustix::io::Errno;
use vfio_migration_core::device::State;

/// What a VMM asks of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// SET of any state.
    Set,
    /// SET of this state.
    SetTo(State),
    /// GET of the state.
    Get,
    /// A read of the data fd.
    Read,
    /// A write to the data fd.
    Write,
    /// `VFIO_MIG_GET_PRECOPY_INFO`.
    Info,
    /// `VFIO_DEVICE_RESET`.
    Reset,
    /// GET of MIG_DATA_SIZE.
    DataSize,
}

/// One call of an operation, or every one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// The operation.
    pub operation: Operation,
    /// Which of its calls, counted from 1; nothing: each.
    pub nth: Option<u64>,
}

/// A call that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The call.
    pub call: Call,
    /// Its answer.
    pub errno: Errno,
    /// Where it leaves the device.
    pub after: After,
}

/// Where a refused SET or reset leaves its device. Other operations leave it where it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum After {
    /// Where it was.
    #[default]
    Old,
    /// One step on its way, for SET. Where this was the last one, the state is the wanted one and the data fd that
    /// comes with it is lost, as where the kernel can't hand it out.
    First,
    /// In ERROR.
    Error,
}

impl Call {
    /// The call with the number `nth`, from 1.
    #[must_use]
    pub const fn nth(operation: Operation, nth: u64) -> Self {
        Self { operation, nth: Some(nth) }
    }

    /// Every call.
    #[must_use]
    pub const fn every(operation: Operation) -> Self {
        Self { operation, nth: None }
    }
}

impl Fault {
    /// `call` fails with EIO and leaves the device where it was.
    #[must_use]
    pub const fn eio(call: Call) -> Self {
        Self { call, errno: Errno::IO, after: After::Old }
    }

    /// The same with another answer.
    #[must_use]
    pub const fn with(self, errno: Errno) -> Self {
        Self { errno, ..self }
    }

    /// The same, leaving the device elsewhere.
    #[must_use]
    pub const fn leaving(self, after: After) -> Self {
        Self { after, ..self }
    }
}

/// The rules, each with the number of calls that it has seen.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    faults: Vec<(Fault, u64)>,
    resets: Vec<(Call, u64)>,
}

/// What is due at a call.
pub(super) struct Due {
    pub(super) guest_reset: bool,
    /// The first of the faults that are due.
    pub(super) fault: Option<Fault>,
}

impl Schedule {
    pub(super) fn new(faults: &[Fault], resets: &[Call]) -> Self {
        let mut schedule = Self::default();
        faults.iter().for_each(|fault| schedule.add_fault(*fault));
        resets.iter().for_each(|call| schedule.add_reset(*call));
        schedule
    }

    pub(super) fn add_fault(&mut self, fault: Fault) {
        self.faults.push((fault, 0));
    }

    pub(super) fn add_reset(&mut self, call: Call) {
        self.resets.push((call, 0));
    }

    /// Counts a call.
    pub(super) fn call(&mut self, operation: Operation) -> Due {
        let mut due = Due { guest_reset: false, fault: None };
        for (call, count) in &mut self.resets {
            due.guest_reset |= is_due(*call, count, operation);
        }
        for (fault, count) in &mut self.faults {
            if is_due(fault.call, count, operation) {
                due.fault = due.fault.or(Some(*fault));
            }
        }
        due
    }
}

fn is_due(call: Call, count: &mut u64, operation: Operation) -> bool {
    let concerned = match call.operation {
        Operation::Set => matches!(operation, Operation::Set | Operation::SetTo(_)),
        named => named == operation,
    };
    *count += u64::from(concerned);
    concerned && call.nth.is_none_or(|nth| nth == *count)
}
