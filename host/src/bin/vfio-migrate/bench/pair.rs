//! The devices under measurement: the one that keeps its content, and the one that is loaded with a copy of it.
//!
//! Both must never run at once with one content: the copy is stopped before the other one runs on, and reset at
//! the end.
//!
//! Deliberately absent: a reset of the device that keeps its content. Where only that would help, whoever owns
//! it decides.

use std::time::Duration;

use vfio_migration_core::device::State;
use vfio_migration_core::session::drive::Device;
use vfio_migration_core::session::event::{Event, Trace};
use vfio_migration_core::session::{Cause, Code, Left};
use vfio_migration_host::interrupt::Interrupt;
use vfio_migration_host::trace::emit;
use vfio_migration_host::transfer::{Error, Place, Reason, Refused};

use crate::recover::keeps_its_state;
use crate::target::Target;

/// Both devices.
pub(super) struct Pair<'a> {
    pub(super) source: Side,
    pub(super) target: Option<Side>,
    pub(super) interrupt: &'a Interrupt,
}

/// One of the devices.
pub(super) struct Side {
    pub(super) device: Target,
    name: String,
    /// Where a failed transfer left it, if its content is gone.
    lost: Option<Left>,
    /// Whether it may hold a copy of the other one's content.
    is_copy: bool,
}

/// What went wrong, and with which device: 0 is the source, 1 the target.
pub(super) struct Wrong {
    pub(super) reason: Reason,
    pub(super) at: Option<usize>,
}

impl From<Reason> for Wrong {
    fn from(reason: Reason) -> Self {
        Self { reason, at: None }
    }
}

impl<'a> Pair<'a> {
    pub(super) fn new(source: Target, target: Option<Target>, interrupt: &'a Interrupt) -> Self {
        Self { source: Side::new(source), target: target.map(Side::new), interrupt }
    }

    /// Fails once a stop was asked for.
    pub(super) fn check_interrupt(&self) -> Result<(), Wrong> {
        if self.interrupt.asked().is_some() { Err(Reason::Interrupted.into()) } else { Ok(()) }
    }

    /// SETs a state of the source; returns how long the ioctl took.
    pub(super) fn set(&mut self, state: State) -> Result<Duration, Wrong> {
        self.source.set(state).map_err(|reason| Wrong { reason, at: Some(0) })
    }

    /// Stops the copy, and only then lets the source run on.
    pub(super) fn part(&mut self) -> Result<(), Wrong> {
        if let Some(target) = &mut self.target {
            target.set(State::Stop).map_err(|reason| Wrong { reason, at: Some(1) })?;
        }
        self.set(State::Running).map(drop)
    }

    /// Resets the copy and brings the source back to RUNNING, unless the copy runs and can't be stopped;
    /// returns where both are, and whether it is so.
    pub(super) fn end(&mut self) -> (Vec<(String, Left)>, bool) {
        let target = self.target.as_mut().map(|target| (target.name.clone(), target.empty()));
        let copy_runs = self.target.as_ref().is_some_and(|target| target.is_copy && target.runs());
        let mut devices = vec![(self.source.name.clone(), self.source.run_on(copy_runs))];
        devices.extend(target);
        (devices, copy_runs)
    }
}

impl Side {
    fn new(device: Target) -> Self {
        let name = device.identity.idstr();
        Self { device, name, lost: None, is_copy: false }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Stops it, to be loaded from now on.
    pub(super) fn become_a_copy(&mut self) -> Result<(), Wrong> {
        self.is_copy = true;
        self.set(State::Stop).map(drop).map_err(|reason| Wrong { reason, at: Some(1) })
    }

    /// Takes note of where a failed transfer left this device, the source, if that one took part.
    pub(super) fn failed(&mut self, error: Error) -> Wrong {
        let Error { reason, at, devices, .. } = error;
        let one = (devices.len() == 1 && reason.refused() == Refused::ByDevice).then_some(0);
        let name = at.or(one).and_then(|at| devices.get(at)).map(|(name, _)| name);
        let at = name.map(|name| usize::from(*name != self.name));
        let left = devices.iter().find(|(name, _)| *name == self.name).map(|(_, left)| *left);
        self.lost = left.filter(|left| matches!(left, Left::Reset | Left::Unknown));
        Wrong { reason, at }
    }

    /// SETs a state; returns how long the ioctl took.
    pub(super) fn set(&mut self, state: State) -> Result<Duration, Reason> {
        let result = self.device.held().set_state(state);
        let took = self.device.held().set_took();
        self.tell(Event::SetState { state, recovery: false, result }, Some(took));
        result.map(|()| took).map_err(|code| refused(state, code))
    }

    fn tell(&self, event: Event, took: Option<Duration>) {
        emit(&Trace { device: &self.name, event, took });
    }

    /// Whether it is in RUNNING, and no transfer has cost it its content.
    pub(super) fn runs_with_its_content(&self) -> bool {
        self.lost.is_none() && self.device.state() == State::Running
    }

    fn runs(&self) -> bool {
        match self.device.state() {
            State::Running | State::RunningP2p | State::PreCopy | State::PreCopyP2p => true,
            // Nothing is known of a device in ERROR.
            State::Error => true,
            State::Stop | State::StopCopy | State::Resuming => false,
        }
    }

    /// Brings it back to RUNNING with its content, if that is still there.
    fn run_on(&mut self, copy_runs: bool) -> Left {
        let state = self.device.state();
        if state != State::Running && keeps_its_state(state) && !copy_runs {
            // Where it is refused, the state that it is in tells.
            let _ = self.set(State::Running);
        }
        self.lost.unwrap_or(Left::At(self.device.state()))
    }

    /// Resets it, or stops it at least, if it may hold a copy.
    fn empty(&mut self) -> Left {
        if !self.is_copy {
            return Left::At(self.device.state());
        }
        let result = self.device.held().reset();
        self.tell(Event::Reset { result }, None);
        let state = self.device.state();
        if result.is_ok() && state == State::Running {
            self.is_copy = false;
            return Left::Reset;
        }
        if state != State::Stop && keeps_its_state(state) {
            // Where it is refused, the state that it is in tells.
            let _ = self.set(State::Stop);
        }
        Left::At(self.device.state())
    }
}

fn refused(state: State, code: Code) -> Reason {
    Reason::Session { place: Place::default(), cause: Cause::Refused { state, code } }
}
