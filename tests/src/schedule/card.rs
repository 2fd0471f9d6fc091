//! The kernel's side of a model device: states, data sessions, and what it holds.
//!
//! Written from the uapi's next-state table and its comments. Deliberately absent: core's `arc`. A test holds this walk
//! against the kernel's own answers.

use vfio_migration_core::device::State;
use vfio_migration_core::session::{Code, PrecopyInfo};

use super::fault::Kind;
use super::log::{Facts, Holds};
use super::setting::{Make, Role};
use crate::payload::content;

/// The kernel's answer to a state that the device can't go to, and to a state that is not whole.
pub const EINVAL: Code = Code(22);
/// The answer of a data fd whose session is over.
pub const ENODEV: Code = Code(19);

/// A handle of a data fd: the number of the session that it was opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataFd(u32);

/// What a read gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Got {
    /// These bytes; none is the end.
    Bytes(Vec<u8>),
    /// ENOMSG.
    Drained,
}

/// A device, as its driver sees it.
#[derive(Clone, Debug)]
pub struct Card {
    make: Make,
    state: State,
    passed: u8,
    session: Option<DataFd>,
    sessions: u32,
    /// Data fds that were given out and not closed.
    open: u32,
    holds: Holds,
    initial: usize,
    dirty: usize,
    rest: usize,
    /// Whether what becomes dirty has become so.
    dirtied: bool,
    read: usize,
    written: Vec<u8>,
    refused_write: bool,
    right_bytes: bool,
    reset_behind: bool,
    reset_by_guest: bool,
    refused_reset: bool,
}

impl Card {
    /// A device that nothing was done with.
    #[must_use]
    pub fn new(make: Make) -> Self {
        Self {
            make,
            state: make.state,
            passed: 0,
            session: None,
            sessions: 0,
            open: 0,
            holds: match make.role {
                Role::Source => Holds::Guests,
                Role::Destination => Holds::Nothing,
            },
            initial: 0,
            dirty: 0,
            rest: 0,
            dirtied: false,
            read: 0,
            written: vec![],
            refused_write: false,
            right_bytes: true,
            reset_behind: false,
            reset_by_guest: false,
            refused_reset: false,
        }
    }

    /// What it is made of.
    #[must_use]
    pub const fn make(&self) -> &Make {
        &self.make
    }

    /// GET.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// What is true of it.
    #[must_use]
    pub const fn facts(&self) -> Facts {
        Facts {
            state: self.state,
            passed: self.passed,
            holds: self.holds,
            reset_behind: self.reset_behind,
            reset_by_guest: self.reset_by_guest,
            refused_reset: self.refused_reset,
            data_fd: self.open > 0,
            right_bytes: self.right_bytes,
        }
    }

    /// Another operation begins, through which states are noted.
    pub const fn begin(&mut self) {
        self.passed = 0;
    }

    /// SET, which fails with `code` where `fault` says so.
    ///
    /// # Errors
    /// The device may be anywhere on the way then.
    pub fn set(&mut self, to: State, fault: Option<Kind>, code: Code) -> Result<Option<DataFd>, Code> {
        self.reset_behind = false;
        if next(self.make.flags, self.state, to).is_none() {
            return Err(EINVAL);
        }
        if fault == Some(Kind::Broken) {
            self.enter(State::Error);
            self.session = None;
            return Err(code);
        }
        let mut new = None;
        let mut steps = 0;
        while self.state != to {
            if fault == Some(Kind::Refused(steps)) {
                return Err(code);
            }
            new = self.step(next(self.make.flags, self.state, to).ok_or(EINVAL)?)?;
            steps += 1;
        }
        if fault == Some(Kind::Refused(steps)) {
            // The kernel could not give its answer, and closes the data fd that nobody knows of.
            if new.is_some() {
                self.open -= 1;
                self.session = None;
            }
            return Err(code);
        }
        Ok(new)
    }

    /// PRECOPY_INFO.
    ///
    /// # Errors
    /// ENODEV, and EINVAL outside of PRE_COPY.
    pub fn precopy_info(&mut self, fd: DataFd) -> Result<PrecopyInfo, Code> {
        self.check(fd)?;
        if !matches!(self.state, State::PreCopy | State::PreCopyP2p) {
            return Err(EINVAL);
        }
        let anew = self.initial + self.dirty == 0 && !self.dirtied;
        if anew {
            self.dirtied = true;
            *(if self.make.reinit { &mut self.initial } else { &mut self.dirty }) = self.make.dirty;
        }
        Ok(PrecopyInfo {
            initial_bytes: self.initial as u64,
            dirty_bytes: self.dirty as u64,
            reinit: anew && self.make.reinit,
        })
    }

    /// How many bytes a read could give now, as far as the data fd is alive.
    #[must_use]
    pub fn readable(&self, fd: Option<DataFd>) -> usize {
        if fd.is_none() || self.session != fd { 0 } else { self.initial + self.dirty + self.rest }
    }

    /// A read of up to `room` bytes.
    ///
    /// # Errors
    /// ENODEV.
    pub fn read(&mut self, fd: DataFd, room: usize) -> Result<Got, Code> {
        self.check(fd)?;
        let count = room.min(self.readable(Some(fd)));
        if count == 0 && self.state != State::StopCopy && self.make.enomsg {
            return Ok(Got::Drained);
        }
        let mut left = count;
        for part in [&mut self.initial, &mut self.dirty, &mut self.rest] {
            let taken = left.min(*part);
            *part -= taken;
            left -= taken;
        }
        let bytes = content(self.read + count)[self.read..].to_vec();
        self.read += count;
        Ok(Got::Bytes(bytes))
    }

    /// A write, which is refused with `refused` where there is a code.
    ///
    /// # Errors
    /// ENODEV, or that code.
    pub fn write(&mut self, fd: DataFd, bytes: &[u8], refused: Option<Code>) -> Result<usize, Code> {
        self.check(fd)?;
        if self.state != State::Resuming {
            return Err(ENODEV);
        }
        self.holds = Holds::Half;
        if let Some(code) = refused {
            self.refused_write = true;
            return Err(code);
        }
        self.written.extend_from_slice(bytes);
        self.right_bytes &= content(self.make.rest).starts_with(&self.written);
        Ok(bytes.len())
    }

    /// A write that takes nothing.
    ///
    /// # Errors
    /// ENODEV.
    pub fn write_nothing(&mut self, fd: DataFd) -> Result<usize, Code> {
        self.check(fd)?;
        self.holds = Holds::Half;
        self.refused_write = true;
        Ok(0)
    }

    /// A reset by the VMM, which is refused with `refused` where there is a code.
    ///
    /// # Errors
    /// That code.
    pub fn reset(&mut self, refused: Option<Code>) -> Result<(), Code> {
        self.refused_reset = refused.is_some();
        if let Some(code) = refused {
            return Err(code);
        }
        self.be_reset();
        self.reset_behind = false;
        Ok(())
    }

    /// A reset by the guest, of which the VMM is told nothing.
    pub fn be_reset_by_guest(&mut self) {
        self.be_reset();
        self.reset_behind = true;
        self.reset_by_guest = true;
    }

    /// The VMM closes a data fd.
    pub fn close(&mut self, _: DataFd) {
        self.open -= 1;
    }

    fn be_reset(&mut self) {
        self.session = None;
        self.holds = Holds::Lost;
        self.enter(State::Running);
    }

    fn step(&mut self, to: State) -> Result<Option<DataFd>, Code> {
        if (self.state, to) == (State::Resuming, State::Stop) {
            self.accept()?;
        }
        let new = gives_data_fd(self.state, to);
        if !keeps_data_fd(self.state, to) {
            self.session = None;
            (self.initial, self.dirty, self.rest) = (0, 0, 0);
        }
        if new && matches!(to, State::PreCopy | State::PreCopyP2p) {
            self.initial = self.make.initial;
            self.dirtied = false;
        }
        if to == State::StopCopy {
            self.rest = self.make.rest;
        }
        if to == State::Resuming {
            self.holds = Holds::Nothing;
            self.written.clear();
            self.refused_write = false;
            self.reset_by_guest = false;
        }
        self.enter(to);
        Ok(new.then(|| self.open_session()))
    }

    /// RESUMING → STOP: the driver looks at what it was given. A lenient one lets half a state pass.
    fn accept(&mut self) -> Result<(), Code> {
        if self.written.len() == self.make.rest && self.right_bytes && !self.refused_write {
            self.holds = Holds::Guests;
        } else if self.make.strict {
            return Err(EINVAL);
        }
        Ok(())
    }

    fn open_session(&mut self) -> DataFd {
        self.sessions += 1;
        self.open += 1;
        let fd = DataFd(self.sessions);
        self.session = Some(fd);
        fd
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.passed |= 1 << state.raw();
    }

    fn check(&self, fd: DataFd) -> Result<(), Code> {
        if self.session == Some(fd) { Ok(()) } else { Err(ENODEV) }
    }
}

/// `vfio_mig_get_next_state`: the table gives the next step, again while the driver does not have that state.
#[must_use]
pub fn next(flags: u64, current: State, requested: State) -> Option<State> {
    let has = |state: u32| NEEDS[state as usize] & flags == NEEDS[state as usize];
    let (mut step, to) = (current.raw(), requested.raw());
    if !has(step) || !has(to) {
        return None;
    }
    loop {
        step = NEXT[step as usize][to as usize];
        if step == State::Error.raw() {
            return None;
        }
        if has(step) {
            return State::from_raw(step);
        }
    }
}

/// How many steps a SET takes, where it can be done.
#[must_use]
pub fn steps(flags: u64, from: State, to: State) -> Option<u8> {
    let (mut at, mut steps) = (from, 0);
    next(flags, at, to)?;
    while at != to {
        at = next(flags, at, to)?;
        steps += 1;
    }
    Some(steps)
}

/// What a SET does to the data fd: `Some(true)` where a new one comes, `Some(false)` where the old one goes on, nothing
/// where neither.
#[must_use]
pub fn data_fd(flags: u64, from: State, to: State) -> Option<bool> {
    let (mut at, mut kept) = (from, true);
    let mut new = false;
    while at != to {
        let step = next(flags, at, to)?;
        kept &= keeps_data_fd(at, step);
        new = gives_data_fd(at, step);
        at = step;
    }
    if new { Some(true) } else { kept.then_some(false) }
}

fn gives_data_fd(from: State, to: State) -> bool {
    use State::{PreCopy, PreCopyP2p, Resuming, Running, RunningP2p, Stop, StopCopy};
    matches!((from, to), (Running, PreCopy) | (RunningP2p, PreCopyP2p) | (Stop, StopCopy | Resuming))
}

fn keeps_data_fd(from: State, to: State) -> bool {
    use State::{PreCopy, PreCopyP2p, StopCopy};
    matches!((from, to), (PreCopy, PreCopyP2p | StopCopy) | (PreCopyP2p, PreCopy | StopCopy))
}

/// The next step from a state (row) to another one (column), by the uapi's numbers.
const NEXT: [[u32; 8]; 8] = [
    [0, 0, 0, 0, 0, 0, 0, 0],
    [0, 1, 5, 3, 4, 5, 5, 5],
    [0, 5, 2, 5, 5, 5, 6, 5],
    [0, 1, 1, 3, 1, 1, 0, 0],
    [0, 1, 1, 1, 4, 1, 1, 1],
    [0, 1, 2, 1, 1, 5, 2, 7],
    [0, 2, 2, 7, 2, 2, 6, 7],
    [0, 5, 5, 3, 5, 5, 6, 7],
];

/// The flags that a driver needs for each state; none has ERROR.
const NEEDS: [u64; 8] = [u64::MAX, 1, 1, 1, 1, 3, 5, 7];
