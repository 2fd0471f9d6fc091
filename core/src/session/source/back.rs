//! The way back of a [`Source`]: given up by the caller, broken by the data or the link, or refused by the kernel.
//!
//! What leads back names the first cause, and nothing that goes wrong on the way replaces it. A step that is refused on
//! the way back leaves a reset, and behind that the device is lost.
//!
//! Deliberately absent: which state follows a refusal. [`recover`](crate::device::recover) says that.

use super::{Source, SourcePhase, Step, Then};
use crate::device::State;
use crate::device::recover::{Recovery, after_refusal};
use crate::session::{Cause, Code, Event, Failure, Left};

impl Source<'_> {
    pub(super) fn give_up(&mut self, to: State) {
        let cause = match self.step {
            Step::Idle(SourcePhase::Failed(Failure { cause, device: Left::At(at) }))
            | Step::Recover { state: at, cause }
                if at != to && at != self.came_from =>
            {
                cause
            }
            Step::Idle(SourcePhase::Failed(_)) | Step::Recover { .. } | Step::Reset { .. } => return,
            Step::Idle(
                SourcePhase::Ready(_)
                | SourcePhase::SetUp
                | SourcePhase::PreCopy(_)
                | SourcePhase::Quiesced
                | SourcePhase::Copying
                | SourcePhase::Copied
                | SourcePhase::Stopped,
            )
            | Step::PrecopyInfo { .. }
            | Step::ReadData(_)
            | Step::Send { .. }
            | Step::SendConfig
            | Step::SetState { .. } => Cause::Cancelled,
        };
        self.go_to(to, cause);
    }

    /// As far back as the device may go while others stand.
    pub(super) fn way_back(&self) -> State {
        if self.lockstep { State::RunningP2p } else { self.came_from }
    }

    pub(super) fn go_back(&mut self, cause: Cause) {
        self.go_to(self.way_back(), cause);
    }

    pub(super) fn refused(&mut self, state: State, then: Then, code: Code) {
        let cause = Cause::Refused { state, code };
        let quiescing = then == Then::Quiesced;
        self.go(match after_refusal(state, self.came_from, quiescing) {
            Recovery::SetState(state) => Step::Recover { state, cause },
            Recovery::Reset => Step::Reset { cause },
        });
    }

    pub(super) fn recovered(&mut self, state: State, cause: Cause, result: Result<(), Code>) -> Event {
        match result {
            Ok(()) => {
                self.at = state;
                self.go(Step::Idle(SourcePhase::Failed(Failure { cause, device: Left::At(state) })));
            }
            Err(_) => self.go(Step::Reset { cause }),
        }
        Event::SetState { state, recovery: true, result }
    }

    pub(super) fn reset(&mut self, cause: Cause, result: Result<(), Code>) -> Event {
        let device = if result.is_ok() { Left::Reset } else { Left::Unknown };
        self.go(Step::Idle(SourcePhase::Failed(Failure { cause, device })));
        Event::Reset { result }
    }

    /// Brings the device to `state`; where a SET was asked for, it may not be where it was any more.
    fn go_to(&mut self, state: State, cause: Cause) {
        let asked_for = matches!(self.step, Step::SetState { .. } | Step::Recover { .. });
        self.go(if asked_for || self.at != state {
            Step::Recover { state, cause }
        } else {
            Step::Idle(SourcePhase::Failed(Failure { cause, device: Left::At(self.at) }))
        });
    }
}
