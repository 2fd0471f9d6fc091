//! The device under test: each call as it is, with the kernel's answer.
//!
//! A lab knows where the device is as far as answered calls tell, never by what GET says: a driver may lie there, and
//! only the rules about GET must see it. The way back to RUNNING is by SETs where the device is known to be in a state
//! that has one, else by a reset. ERROR is never left by a SET, which the kernel warns of. GET is believed at the end
//! alone, where it is said that the device runs.
//!
//! Deliberately absent: recovery as a VMM does it, and `Device`, which hides what a driver gets wrong.

use std::fmt;
use std::os::fd::BorrowedFd;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::io::{Errno, Result as Answer};
use vfio_migration_core::device::arc::path;
use vfio_migration_core::device::{Features, State};
use vfio_migration_core::session::event::{Event, Trace};

use super::data::Data;
use super::words::{name, said};
use crate::device::Unsupported;
use crate::errno::code;
use crate::interrupt::Interrupt;
use crate::ioctl;
use crate::trace::emit;

/// A device that is not in RUNNING, and can't be brought there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stuck {
    /// Where GET says that it is, where it knows.
    pub at: Option<State>,
    /// What its reset answered.
    pub reset: Answer<()>,
}

/// A device that nobody else uses, behind its file descriptor.
#[derive(Debug)]
pub struct Lab<'a> {
    fd: BorrowedFd<'a>,
    interrupt: Interrupt,
    flags: u64,
    features: Option<Features>,
    /// Where the device is; nothing after a refused SET that has moved it.
    at: Option<State>,
    /// The data fds of the session that is going on. They are closed when it has ended.
    kept: Vec<Data>,
    /// Whether the device holds something else than what it was found with.
    emptied: bool,
    /// Whether the device may hold something with which it must not run.
    wrong: bool,
    /// What events call the device.
    name: String,
}

impl<'a> Lab<'a> {
    /// Asks the device behind `fd` for its flags and its state. Reads and writes end when `interrupt` is asked; events of
    /// SETs and resets call the device `name`.
    ///
    /// # Errors
    /// The device has no migration v2, or does not say where it is.
    pub fn new(fd: BorrowedFd<'a>, name: String, interrupt: Interrupt) -> Result<Self, Unsupported> {
        let flags = ioctl::get_migration(fd).map_err(|errno| match errno {
            Errno::NOTTY => Unsupported::NoMigration,
            errno => Unsupported::NotAsked(errno),
        })?;
        let number = ioctl::get_device_state(fd).map_err(Unsupported::NoState)?;
        let at = State::from_raw(number).ok_or(Unsupported::UnknownState(number))?;
        let features = Features::from_raw(flags);
        let kept = Vec::new();
        Ok(Self { fd, interrupt, flags, features, at: Some(at), kept, emptied: false, wrong: false, name })
    }

    /// The driver's migration flags.
    #[must_use]
    pub const fn flags(&self) -> u64 {
        self.flags
    }

    /// Where the device is, where that is known.
    #[must_use]
    pub const fn state(&self) -> Option<State> {
        self.at
    }

    /// The request to stop that ends reads and writes.
    pub(super) const fn interrupt(&self) -> &Interrupt {
        &self.interrupt
    }

    /// The driver's features, where it has STOP_COPY.
    pub(super) const fn features(&self) -> Option<Features> {
        self.features
    }

    /// The states that the driver has, without ERROR.
    pub(super) fn states(&self) -> impl Iterator<Item = State> + use<> {
        let features = self.features;
        let has = move |state: &State| features.is_some_and(|features| features.have(*state));
        State::ALL.into_iter().filter(|&state| state != State::Error).filter(has)
    }

    /// Whether the driver has `state`.
    pub(super) fn has(&self, state: State) -> bool {
        self.states().any(|known| known == state)
    }

    /// The file descriptor, for calls that the state has nothing to do with.
    pub(super) const fn fd(&self) -> BorrowedFd<'a> {
        self.fd
    }

    /// Whether a reset has taken what the device was found with.
    pub(super) const fn is_emptied(&self) -> bool {
        self.emptied
    }

    /// The device has been given what it was found with.
    pub(super) const fn is_filled_again(&mut self) {
        self.emptied = false;
    }

    /// GET of the state's number.
    pub(super) fn get(&self) -> Answer<u32> {
        ioctl::get_device_state(self.fd)
    }

    /// SET of a number, and a data fd where one comes, which is kept open until the session has ended.
    pub(super) fn set_number(&mut self, number: u32) -> Answer<Option<Data>> {
        let before = self.get();
        let began = Instant::now();
        let answer = ioctl::set_device_state(self.fd, number);
        if let Some(state) = State::from_raw(number) {
            let result = answer.as_ref().map(drop).map_err(|&errno| code(errno));
            self.tell(Event::SetState { state, recovery: false, result }, began);
        }
        match answer {
            Ok(fd) => {
                self.at = State::from_raw(number);
                let data = fd.map(|fd| Data::new(fd, self.interrupt.clone())).transpose()?;
                self.kept.extend(data.clone());
                Ok(data)
            }
            Err(errno) => {
                if self.get() != before {
                    self.at = None;
                }
                Err(errno)
            }
        }
    }

    /// SET of a state.
    pub(super) fn set(&mut self, state: State) -> Answer<Option<Data>> {
        self.set_number(state.raw())
    }

    /// A reset. Where the device is then, it is asked; a refused one may have moved it too. Where someone has the
    /// device for a moment (vfio-pci says EAGAIN then), it is tried again.
    pub(super) fn reset(&mut self) -> Answer<()> {
        let before = self.get();
        let began = Instant::now();
        let end = began + BUSY;
        let mut answer = ioctl::device_reset(self.fd);
        while answer == Err(Errno::AGAIN) && Instant::now() < end {
            sleep(MOMENT);
            answer = ioctl::device_reset(self.fd);
        }
        self.tell(Event::Reset { result: answer.map_err(code) }, began);
        if answer.is_ok() {
            self.emptied = true;
            self.wrong = false;
            self.at = self.get().ok().and_then(State::from_raw);
        } else if self.get() != before {
            self.at = None;
        }
        answer
    }

    fn tell(&self, event: Event, began: Instant) {
        emit(&Trace { device: &self.name, event, took: Some(began.elapsed()) });
    }

    /// Nothing is known of the device any more: a reset is the way home.
    pub(super) const fn is_lost(&mut self) {
        self.at = None;
    }

    /// The device may hold what is no whole state: a reset is the only way home.
    pub(super) const fn holds_wrong(&mut self) {
        self.at = None;
        self.wrong = true;
    }

    /// Closes the data fds of the session, although it goes on.
    pub(super) fn close(&mut self) {
        self.kept.clear();
    }

    /// Brings the device to RUNNING, with its content where that can be.
    ///
    /// # Errors
    /// It does not come back.
    pub(super) fn home(&mut self) -> Result<(), Stuck> {
        let by_set = match self.at {
            Some(State::Running) => true,
            at => at.is_some_and(has_way_back) && self.set(State::Running).is_ok(),
        };
        let arrived = if by_set { Ok(()) } else { self.home_by_reset() };
        self.kept.clear();
        arrived
    }

    /// As [`Lab::home`], for the last time: the device is asked whether it is there.
    pub(super) fn leave(&mut self) -> Result<(), Stuck> {
        self.home()?;
        if self.get() == Ok(State::Running.raw()) {
            return Ok(());
        }
        let reset = self.reset();
        self.at = self.get().ok().and_then(State::from_raw);
        self.home()?;
        match self.get().ok().and_then(State::from_raw) {
            Some(State::Running) => Ok(()),
            at => Err(Stuck { at, reset }),
        }
    }

    /// Brings the device to `to` step by step, from RUNNING, as a VMM would; where a step is refused, by one SET.
    /// Returns the session's data fd, where one came.
    ///
    /// # Errors
    /// Why the device did not get there, in words.
    pub(super) fn reach(&mut self, to: State) -> Result<Option<Data>, String> {
        self.home()?;
        let steps = self.steps(to).ok_or_else(|| format!("the driver has no {to}"))?;
        if let Ok(data) = self.go(steps) {
            return Ok(data);
        }
        self.home()?;
        self.set(to).map_err(|errno| format!("{to} is refused: {}", name(errno)))
    }

    /// Stops a running device step by step, and does not try a second time.
    pub(super) fn stop(&mut self) -> Result<(), String> {
        let steps = self.steps(State::Stop).unwrap_or_default();
        self.go(steps).map(drop).map_err(|errno| format!("{} is refused: {}", State::Stop, name(errno)))
    }

    fn go(&mut self, steps: Vec<State>) -> Answer<Option<Data>> {
        let mut data = None;
        for step in steps {
            let came = self.set(step)?;
            data = data.or(came);
        }
        Ok(data)
    }

    /// The steps from RUNNING to `to`: to PRE_COPY_P2P over PRE_COPY, as a VMM goes.
    fn steps(&self, to: State) -> Option<Vec<State>> {
        let features = self.features?;
        let way = |from, to| path(features, from, to).map(|steps| steps.to_vec());
        match to {
            State::PreCopyP2p => Some([way(State::Running, State::PreCopy)?, vec![to]].concat()),
            State::Error
            | State::Stop
            | State::Running
            | State::StopCopy
            | State::Resuming
            | State::RunningP2p
            | State::PreCopy => way(State::Running, to),
        }
    }

    fn home_by_reset(&mut self) -> Result<(), Stuck> {
        let reset = self.reset();
        if reset.is_ok() && self.at == Some(State::Running) {
            return Ok(());
        }
        let at = self.get().ok().and_then(State::from_raw);
        let may_run = !self.wrong && at.is_some_and(has_way_back);
        let by_set = may_run && self.set(State::Running).is_ok();
        if by_set || at == Some(State::Running) {
            self.at = Some(State::Running);
            return Ok(());
        }
        Err(Stuck { at, reset })
    }
}

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.at.map_or("no state that GET knows", State::name);
        let reset = said(&self.reset);
        write!(f, "the device is in {at} and does not come back: its reset answered {reset}")
    }
}

impl std::error::Error for Stuck {}

impl From<Stuck> for String {
    fn from(stuck: Stuck) -> Self {
        stuck.to_string()
    }
}

/// Whether a SET may lead from `state` to RUNNING. Between a half load and RUNNING stands a reset.
const fn has_way_back(state: State) -> bool {
    match state {
        State::Error | State::Resuming => false,
        State::Stop
        | State::Running
        | State::StopCopy
        | State::RunningP2p
        | State::PreCopy
        | State::PreCopyP2p => true,
    }
}

/// Whether `VFIO_DEVICE_GET_INFO` says that the device can be reset.
pub(super) fn says_reset(lab: &Lab<'_>) -> Answer<bool> {
    const FLAGS_RESET: u32 = 1 << 0;
    ioctl::device_get_info(lab.fd()).map(|info| info.flags & FLAGS_RESET != 0)
}

/// How long a device may be busy when it is reset.
const BUSY: Duration = Duration::from_secs(1);
/// How long to wait before a reset is tried again.
const MOMENT: Duration = Duration::from_millis(10);
