//! The numbers of a run's operations, which of them a schedule strikes, and the log.
//!
//! Device, link and whoever drives them hold the same [`Bench`]. It notes for each operation what could have gone wrong
//! with it, whether it did or not.
//!
//! Deliberately absent: what a fault does. That is told by the device, the link and the driver.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::fault::{Fault, Kind, Kinds};
use super::log::{Ask, Entry};

/// How many operations a run may have; one that has more does not end.
pub const ENDLESS: usize = 300;

/// What the driver does with an operation's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// It tells the session.
    Tell,
    /// There is none, since the operation was not carried out, and it cancels.
    CancelBefore,
    /// It forgets it and cancels.
    CancelAfter,
    /// It keeps it until the other device has gone on.
    Late,
}

/// The schedule, the numbers and the log of one run.
#[derive(Clone, Debug)]
pub struct Bench(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    faults: Vec<Fault>,
    /// Whether the turn can go to another device.
    two: bool,
    /// The number of the operation before which the turn went to the other device last.
    paused: Cell<Option<usize>>,
    /// Whether the next operation is the first of an order.
    first: Cell<bool>,
    signal: Cell<Signal>,
    offers: RefCell<Vec<Kinds>>,
    met: RefCell<Vec<Fault>>,
    log: RefCell<Vec<Entry>>,
}

/// What a run leaves of its bench.
#[derive(Debug)]
pub struct Record {
    /// What was done.
    pub log: Vec<Entry>,
    /// What can go wrong with each operation.
    pub offers: Vec<Kinds>,
    /// What did, in the order of the schedule.
    pub met: Vec<Fault>,
}

impl Bench {
    /// A bench for this schedule. The turn can go to another device where there are `two`.
    #[must_use]
    pub fn new(faults: &[Fault], two: bool) -> Self {
        Self(Rc::new(Inner {
            faults: faults.to_vec(),
            two,
            paused: Cell::new(None),
            first: Cell::new(false),
            signal: Cell::new(Signal::Tell),
            offers: RefCell::default(),
            met: RefCell::default(),
            log: RefCell::default(),
        }))
    }

    /// Whether the guest resets the device before the next operation.
    #[must_use]
    pub fn guest_resets(&self) -> bool {
        self.strikes(Kind::GuestReset)
    }

    /// Whether the caller cancels in the place of the next order; otherwise it is given now.
    #[must_use]
    pub fn cancels_order(&self) -> bool {
        self.0.first.set(true);
        self.strikes(Kind::CancelIdle)
    }

    /// Whether the turn goes to the other device before the next operation; says so once.
    #[must_use]
    pub fn pauses(&self) -> bool {
        let number = Some(self.number());
        self.strikes(Kind::Pause) && self.0.paused.replace(number) != number
    }

    /// Begins an operation with which these things can go wrong: its number, and what does.
    ///
    /// # Panics
    /// When a loop that nobody can stop has far too many operations.
    pub fn begin(&self, ask: Ask, kinds: Kinds) -> (usize, Option<Kind>) {
        let number = self.number();
        assert!(number <= 2 * ENDLESS, "the run does not end");
        // All else commutes with what the other device does: nobody but its own session sees it.
        let moves = self.0.two && matches!(ask, Ask::Set(_) | Ask::Reset);
        let kinds = kinds
            .with(Kind::CancelIdle, self.0.first.take())
            .with(Kind::CancelBefore, true)
            .with(Kind::CancelAfter, true)
            .with(Kind::Pause, moves);
        let in_it = |kind: &Kind| kind.part() == 1 && kinds.contains(*kind) && self.strikes(*kind);
        let fault = self.0.faults.iter().map(|fault| fault.kind).find(in_it);
        let signal = match fault {
            Some(Kind::CancelBefore) => Signal::CancelBefore,
            Some(Kind::CancelAfter) => Signal::CancelAfter,
            _ if moves && self.strikes(Kind::Late) => Signal::Late,
            _ => Signal::Tell,
        };
        let late = moves && matches!(signal, Signal::Tell | Signal::Late);
        self.0.signal.set(signal);
        self.0.offers.borrow_mut().push(kinds.with(Kind::Late, late));
        (number, fault)
    }

    /// What becomes of the last operation's answer; says so once.
    #[must_use]
    pub fn signal(&self) -> Signal {
        self.0.signal.replace(Signal::Tell)
    }

    /// Adds a line to the log.
    pub fn note(&self, entry: Entry) {
        self.0.log.borrow_mut().push(entry);
    }

    /// The number of the next operation.
    #[must_use]
    pub fn number(&self) -> usize {
        self.0.offers.borrow().len()
    }

    /// Notes that a run has too many operations, where it has.
    #[must_use]
    pub fn is_endless(&self) -> bool {
        let endless = self.number() > ENDLESS;
        if endless {
            self.note(Entry::Stuck("the run does not end"));
        }
        endless
    }

    /// What the run leaves.
    #[must_use]
    pub fn record(&self) -> Record {
        Record { log: self.0.log.take(), offers: self.0.offers.take(), met: self.0.met.take() }
    }

    fn strikes(&self, kind: Kind) -> bool {
        let next = Fault { number: self.number(), kind };
        let strikes = self.0.faults.contains(&next);
        let mut met = self.0.met.borrow_mut();
        if strikes && met.last() != Some(&next) {
            met.push(next);
        }
        strikes
    }
}
