//! Decisions, drawn from the fuzzer's bytes.
//!
//! An input begins with settings, a fixed number of bytes for each target; then a byte says how many bytes of decisions
//! follow. The rest is what the target is fed with. Where the decisions are used up all goes well, so that short inputs
//! get far.
//!
//! Deliberately absent: what a decision does. That is told by the device, the link and whoever drives them.

use std::cell::Cell;
use std::rc::Rc;

use vfio_migration_core::session::Code;

/// Decisions, which all that hold a clone draw in turn.
#[derive(Clone, Debug)]
pub struct Chance(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    bytes: Vec<u8>,
    next: Cell<usize>,
    failures: Cell<i32>,
    closed: Cell<bool>,
}

/// How an operation goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// As it should.
    Well,
    /// So many bytes are taken or given, where there is room for more.
    Short(usize),
    /// It fails with this code, which tells it from every other.
    Failed(Code),
    /// Nothing is taken or given any more.
    Closed,
    /// A SET fails with this code after so many steps.
    Refused(u8, Code),
    /// A SET fails with this code and leaves the device in ERROR.
    Broken(Code),
    /// The guest resets the device right before.
    GuestReset,
    /// The caller cancels, and the operation is not carried out.
    CancelBefore,
    /// The operation is carried out and not reported: the caller cancels.
    CancelAfter,
    /// Something else is reported first.
    Misreport,
}

/// Takes an input apart: its settings, its decisions, and the rest. What is missing is 0.
#[must_use]
pub fn split<const N: usize>(input: &[u8]) -> ([u8; N], Chance, &[u8]) {
    let mut settings = [0; N];
    let (head, rest) = input.split_at(input.len().min(N));
    settings[..head.len()].copy_from_slice(head);
    let (&count, rest) = rest.split_first().unwrap_or((&0, &[]));
    let (bytes, rest) = rest.split_at(rest.len().min(usize::from(count)));
    (settings, Chance::new(bytes), rest)
}

/// The input that [`split`] takes apart into these settings, no decision, and `rest`.
#[must_use]
pub fn join(settings: &[u8], rest: &[u8]) -> Vec<u8> {
    [settings, &[0], rest].concat()
}

impl Chance {
    /// These decisions.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        let (next, failures, closed) = (Cell::new(0), Cell::new(0), Cell::new(false));
        Self(Rc::new(Inner { bytes: bytes.to_vec(), next, failures, closed }))
    }

    /// How many decisions there were in the beginning.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.bytes.len()
    }

    /// The next byte, or 0 where there is none.
    #[must_use]
    pub fn byte(&self) -> u8 {
        let at = self.0.next.get();
        self.0.next.set(at + 1);
        self.0.bytes.get(at).copied().unwrap_or(0)
    }

    /// How the next operation goes.
    #[must_use]
    pub fn turn(&self) -> Turn {
        match self.byte() {
            byte @ 128..160 => Turn::Short(usize::from(byte - 127)),
            160..176 => Turn::Failed(self.code()),
            176..184 => {
                self.0.closed.set(true);
                Turn::Closed
            }
            184..188 => Turn::Broken(self.code()),
            byte @ 188..196 => Turn::Refused((byte - 188) / 2, self.code()),
            196..200 => Turn::GuestReset,
            200..208 => Turn::CancelBefore,
            208..216 => Turn::CancelAfter,
            216..224 => Turn::Misreport,
            _ => Turn::Well,
        }
    }

    /// Whether an operation found its link closed.
    #[must_use]
    pub fn has_closed(&self) -> bool {
        self.0.closed.get()
    }

    fn code(&self) -> Code {
        self.0.failures.set(self.0.failures.get() + 1);
        Code(1000 + self.0.failures.get())
    }
}
