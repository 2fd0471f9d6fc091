//! The receiving side of one device.
//!
//! Orders: [`Destination::resume`], one [`Destination::section`] for each section of the device, then
//! [`Destination::stop`] and [`Destination::run`]; where several devices migrate together, [`Destination::run_p2p`] for
//! each of them before `run` for any. A section is taken through its terminator and never a byte more.
//!
//! Once the device is in RESUMING, whatever goes wrong ends in a reset: nothing else aborts RESUMING, and a driver
//! that refused a `write` may let RESUMING → STOP succeed with half a state.
//!
//! Deliberately absent: section headers and footers, and a check that all data has come. A stream's integrity is the
//! caller's to check before it orders `stop`.

use super::{Cause, Code, Event, Failure, Left, Misuse, check_start};
use crate::device::recover::{Recovery, after_refusal};
use crate::device::{Features, State};
use crate::stream::record::{Decoder, Tag, Terminator, WORD, Wanted};

/// What a [`Destination`] wants done.
#[derive(Debug, PartialEq, Eq)]
pub enum DestinationEffect<'a> {
    /// SET this state.
    SetState(State),
    /// Take bytes off the link into these, from the front; fewer will do.
    Recv(&'a mut [u8]),
    /// One `write` of these bytes to the data fd; it may take fewer.
    WriteData(&'a [u8]),
    /// Take the whole body of the configuration off the link and apply it. Where none is expected this is an error to
    /// answer with: an answer of 0 bytes would take a damaged tag for a configuration.
    RecvConfig,
    /// Reset the device, then arm its interrupts again.
    Reset,
    /// Nothing: give the next order.
    Idle(DestinationPhase),
}

/// How an effect of a [`Destination`] went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DestinationDone {
    /// Answer to [`DestinationEffect::SetState`].
    SetState(Result<(), Code>),
    /// Answer to [`DestinationEffect::Recv`]: how many bytes came; 0 where the link has ended.
    Recv(Result<usize, Code>),
    /// Answer to [`DestinationEffect::WriteData`]: how many bytes the device took.
    WriteData(Result<usize, Code>),
    /// Answer to [`DestinationEffect::RecvConfig`]: the length of the body, in bytes.
    RecvConfig(Result<u64, Code>),
    /// Answer to [`DestinationEffect::Reset`].
    Reset(Result<(), Code>),
}

/// Where an idle [`Destination`] stands. It borrows nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum DestinationPhase {
    /// Nothing has begun; the device is in this state.
    Ready(State),
    /// The device is in RESUMING and takes its first section.
    Resuming,
    /// The device is in RESUMING; the last section ended like this.
    Section(Terminator),
    /// The device is in STOP with the new state in it.
    Stopped,
    /// The device is in RUNNING_P2P: it works, and starts no DMA to other devices.
    RunningP2p,
    /// The device runs.
    Running,
    /// The migration failed.
    Failed(Failure),
}

/// The receiving side of one device, on a buffer that the caller lends.
#[derive(Debug)]
pub struct Destination<'b> {
    buffer: &'b mut [u8],
    step: Step,
    decoder: Decoder,
    came_from: State,
    init_data_sent_agreed: bool,
    features: Features,
    /// Whether `poll` has asked for the present step.
    asked: bool,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Idle(DestinationPhase),
    SetState(Goal),
    RecvWord { have: usize },
    RecvData { left: u64 },
    WriteData { from: usize, to: usize },
    RecvConfig,
    Recover { state: State, cause: Cause },
    Reset { cause: Cause },
}

/// Where an order brings the device.
#[derive(Clone, Copy, Debug)]
enum Goal {
    Resuming,
    Stopped,
    RunningP2p,
    Running,
}

impl<'b> Destination<'b> {
    /// A destination for a device with `features` that GET says is in state `now`: RUNNING or STOP. With
    /// `switchover_ack` the source may send INIT_DATA_SENT, provided that the device has PRE_COPY.
    ///
    /// # Errors
    /// [`Misuse::SmallBuffer`] and [`Misuse::WrongState`].
    pub fn new(
        features: Features,
        now: State,
        switchover_ack: bool,
        buffer: &'b mut [u8],
    ) -> Result<Self, Misuse> {
        check_start(now, buffer)?;
        Ok(Self {
            buffer,
            step: Step::Idle(DestinationPhase::Ready(now)),
            decoder: Decoder::new(),
            came_from: now,
            init_data_sent_agreed: switchover_ack && features.pre_copy,
            features,
            asked: false,
        })
    }

    /// Brings the device to RESUMING. What it held before is lost from here on.
    ///
    /// # Errors
    /// [`Misuse::WrongOrder`] unless the phase is [`DestinationPhase::Ready`].
    pub fn resume(&mut self) -> Result<(), Misuse> {
        let DestinationPhase::Ready(_) = self.idle()? else { return Err(Misuse::WrongOrder) };
        self.go(Step::SetState(Goal::Resuming));
        Ok(())
    }

    /// Takes one payload, through its terminator and not a byte more.
    ///
    /// # Errors
    /// [`Misuse::WrongOrder`] unless the phase is [`DestinationPhase::Resuming`] or [`DestinationPhase::Section`].
    pub fn section(&mut self) -> Result<(), Misuse> {
        self.resuming()?;
        self.decoder = Decoder::new();
        self.go(Step::RecvWord { have: 0 });
        Ok(())
    }

    /// Brings the device from RESUMING to STOP, which makes the driver accept or refuse the state as a whole.
    ///
    /// # Errors
    /// [`Misuse::WrongOrder`] unless the phase is [`DestinationPhase::Resuming`] or [`DestinationPhase::Section`].
    pub fn stop(&mut self) -> Result<(), Misuse> {
        self.resuming()?;
        self.go(Step::SetState(Goal::Stopped));
        Ok(())
    }

    /// Brings the device from STOP to RUNNING_P2P.
    ///
    /// # Errors
    /// [`Misuse::WrongOrder`] unless the phase is [`DestinationPhase::Stopped`]; [`Misuse::NoState`] where it has no
    /// P2P.
    pub fn run_p2p(&mut self) -> Result<(), Misuse> {
        let DestinationPhase::Stopped = self.idle()? else { return Err(Misuse::WrongOrder) };
        if !self.features.p2p {
            return Err(Misuse::NoState(State::RunningP2p));
        }
        self.go(Step::SetState(Goal::RunningP2p));
        Ok(())
    }

    /// Brings the device from STOP or RUNNING_P2P to RUNNING.
    ///
    /// # Errors
    /// [`Misuse::WrongOrder`] unless the phase is [`DestinationPhase::Stopped`] or [`DestinationPhase::RunningP2p`].
    pub fn run(&mut self) -> Result<(), Misuse> {
        let (DestinationPhase::Stopped | DestinationPhase::RunningP2p) = self.idle()? else {
            return Err(Misuse::WrongOrder);
        };
        self.go(Step::SetState(Goal::Running));
        Ok(())
    }

    /// Gives up: after `resume` the device is reset, before it nothing happens to it. Possible at any time. What was
    /// asked for last must not be in progress any more.
    pub fn cancel(&mut self) {
        let cause = Cause::Cancelled;
        self.go(match self.step {
            Step::Idle(DestinationPhase::Failed(_)) | Step::Recover { .. } | Step::Reset { .. } => return,
            Step::Idle(DestinationPhase::Ready(at)) => {
                Step::Idle(DestinationPhase::Failed(Failure { cause, device: Left::At(at) }))
            }
            Step::Idle(
                DestinationPhase::Resuming
                | DestinationPhase::Section(_)
                | DestinationPhase::Stopped
                | DestinationPhase::RunningP2p
                | DestinationPhase::Running,
            )
            | Step::SetState(_)
            | Step::RecvWord { .. }
            | Step::RecvData { .. }
            | Step::WriteData { .. }
            | Step::RecvConfig => Step::Reset { cause },
        });
    }

    /// The record that the last section stands in or failed in, or nothing between two records.
    #[must_use]
    pub const fn record(&self) -> Option<Tag> {
        self.decoder.record()
    }

    /// What is wanted now. Asking twice changes nothing; "not yet" is said by not completing.
    pub fn poll(&mut self) -> DestinationEffect<'_> {
        self.asked = true;
        match self.step {
            Step::Idle(phase) => DestinationEffect::Idle(phase),
            Step::SetState(goal) => DestinationEffect::SetState(goal.state()),
            Step::Recover { state, .. } => DestinationEffect::SetState(state),
            Step::RecvWord { have } => {
                DestinationEffect::Recv(self.buffer.get_mut(have..WORD).unwrap_or_default())
            }
            Step::RecvData { left } => DestinationEffect::Recv(room(self.buffer, left)),
            Step::WriteData { from, to } => {
                DestinationEffect::WriteData(self.buffer.get(from..to).unwrap_or_default())
            }
            Step::RecvConfig => DestinationEffect::RecvConfig,
            Step::Reset { .. } => DestinationEffect::Reset,
        }
    }

    /// Takes the outcome of what [`Destination::poll`] asked for; the only way forward.
    ///
    /// # Errors
    /// [`Misuse::WrongDone`] and [`Misuse::TooMany`].
    pub fn complete(&mut self, done: DestinationDone) -> Result<Event, Misuse> {
        if !self.asked {
            return Err(Misuse::WrongDone);
        }
        match self.step {
            Step::SetState(goal) => {
                let DestinationDone::SetState(result) = done else { return Err(Misuse::WrongDone) };
                Ok(self.set(goal, result))
            }
            Step::RecvWord { have } => {
                let DestinationDone::Recv(result) = done else { return Err(Misuse::WrongDone) };
                self.word(have, result)
            }
            Step::RecvData { left } => {
                let DestinationDone::Recv(result) = done else { return Err(Misuse::WrongDone) };
                self.data(left, result)
            }
            Step::WriteData { from, to } => {
                let DestinationDone::WriteData(result) = done else { return Err(Misuse::WrongDone) };
                self.wrote(from, to, result)
            }
            Step::RecvConfig => {
                let DestinationDone::RecvConfig(result) = done else { return Err(Misuse::WrongDone) };
                Ok(self.configured(result))
            }
            Step::Recover { state, cause } => {
                let DestinationDone::SetState(result) = done else { return Err(Misuse::WrongDone) };
                Ok(self.recovered(state, cause, result))
            }
            Step::Reset { cause } => {
                let DestinationDone::Reset(result) = done else { return Err(Misuse::WrongDone) };
                Ok(self.reset(cause, result))
            }
            Step::Idle(_) => Err(Misuse::WrongDone),
        }
    }

    fn set(&mut self, goal: Goal, result: Result<(), Code>) -> Event {
        let state = goal.state();
        self.go(match result {
            Ok(()) => Step::Idle(goal.phase()),
            Err(code) => {
                let cause = Cause::Refused { state, code };
                match after_refusal(state, self.came_from, false) {
                    Recovery::SetState(state) => Step::Recover { state, cause },
                    Recovery::Reset => Step::Reset { cause },
                }
            }
        });
        Event::SetState { state, recovery: false, result }
    }

    fn recovered(&mut self, state: State, cause: Cause, result: Result<(), Code>) -> Event {
        self.go(match result {
            Ok(()) => Step::Idle(DestinationPhase::Failed(Failure { cause, device: Left::At(state) })),
            Err(_) => Step::Reset { cause },
        });
        Event::SetState { state, recovery: true, result }
    }

    fn word(&mut self, have: usize, result: Result<usize, Code>) -> Result<Event, Misuse> {
        let offered = WORD.saturating_sub(have);
        let offset = self.decoder.offset().saturating_add(have as u64);
        match result {
            Ok(0) => self.abort(Cause::RecvClosed { offset, missing: offered as u64 }),
            Ok(got) if got > offered => return Err(Misuse::TooMany { offered, got }),
            Ok(got) if got < offered => self.go(Step::RecvWord { have: have.saturating_add(got) }),
            Ok(_) => self.decode(),
            Err(code) => self.abort(Cause::Recv { offset, code }),
        }
        Ok(Event::Recv { offered, result })
    }

    fn decode(&mut self) {
        let word = self.buffer.first_chunk().copied().unwrap_or_default();
        match self.decoder.word(word) {
            Ok(_) => self.go_on(),
            Err(error) => self.abort(Cause::Record(error)),
        }
    }

    fn data(&mut self, left: u64, result: Result<usize, Code>) -> Result<Event, Misuse> {
        let offered = room(self.buffer, left).len();
        let offset = self.decoder.offset();
        match result {
            Ok(0) => self.abort(Cause::RecvClosed { offset, missing: left }),
            Ok(got) if got > offered => return Err(Misuse::TooMany { offered, got }),
            Ok(got) => self.go(Step::WriteData { from: 0, to: got }),
            Err(code) => self.abort(Cause::Recv { offset, code }),
        }
        Ok(Event::Recv { offered, result })
    }

    fn wrote(&mut self, from: usize, to: usize, result: Result<usize, Code>) -> Result<Event, Misuse> {
        let offered = to.saturating_sub(from);
        let offset = self.decoder.offset();
        match result {
            Ok(0) => self.abort(Cause::WriteDataZero { offset }),
            Ok(got) if got > offered => return Err(Misuse::TooMany { offered, got }),
            Ok(got) => {
                self.decoder.data(got as u64);
                if got < offered {
                    self.go(Step::WriteData { from: from.saturating_add(got), to });
                } else {
                    self.go_on();
                }
            }
            Err(code) => self.abort(Cause::WriteData { offset, code }),
        }
        Ok(Event::WriteData { offered, result })
    }

    fn configured(&mut self, result: Result<u64, Code>) -> Event {
        match result {
            Ok(length) => {
                self.decoder.config(length);
                self.go_on();
            }
            Err(code) => self.abort(Cause::RecvConfig { offset: self.decoder.offset(), code }),
        }
        Event::RecvConfig { result }
    }

    fn reset(&mut self, cause: Cause, result: Result<(), Code>) -> Event {
        let device = if result.is_ok() { Left::Reset } else { Left::Unknown };
        self.go(Step::Idle(DestinationPhase::Failed(Failure { cause, device })));
        Event::Reset { result }
    }

    /// The step that the payload's next bytes want.
    fn go_on(&mut self) {
        let unexpected = |tag: Tag, end: u64| Step::Reset {
            cause: Cause::Unexpected { tag, offset: end.saturating_sub(WORD as u64) },
        };
        self.go(match self.decoder.wanted() {
            Wanted::Word => Step::RecvWord { have: 0 },
            Wanted::Data(left) => Step::RecvData { left },
            Wanted::Config => Step::RecvConfig,
            Wanted::Nothing(Terminator::InitDataSent) if !self.init_data_sent_agreed => {
                unexpected(Tag::InitDataSent, self.decoder.offset())
            }
            Wanted::Nothing(Terminator::ConfigLoadReady) => {
                unexpected(Tag::ConfigLoadReady, self.decoder.offset())
            }
            Wanted::Nothing(terminator @ (Terminator::EndOfState | Terminator::InitDataSent)) => {
                Step::Idle(DestinationPhase::Section(terminator))
            }
        });
    }

    fn abort(&mut self, cause: Cause) {
        self.go(Step::Reset { cause });
    }

    fn go(&mut self, step: Step) {
        self.step = step;
        self.asked = false;
    }

    fn idle(&self) -> Result<&DestinationPhase, Misuse> {
        if let Step::Idle(phase) = &self.step { Ok(phase) } else { Err(Misuse::WrongOrder) }
    }

    fn resuming(&self) -> Result<(), Misuse> {
        match self.idle()? {
            DestinationPhase::Resuming | DestinationPhase::Section(_) => Ok(()),
            DestinationPhase::Ready(_)
            | DestinationPhase::Stopped
            | DestinationPhase::RunningP2p
            | DestinationPhase::Running
            | DestinationPhase::Failed(_) => Err(Misuse::WrongOrder),
        }
    }
}

impl Goal {
    const fn state(self) -> State {
        match self {
            Self::Resuming => State::Resuming,
            Self::Stopped => State::Stop,
            Self::RunningP2p => State::RunningP2p,
            Self::Running => State::Running,
        }
    }

    const fn phase(self) -> DestinationPhase {
        match self {
            Self::Resuming => DestinationPhase::Resuming,
            Self::Stopped => DestinationPhase::Stopped,
            Self::RunningP2p => DestinationPhase::RunningP2p,
            Self::Running => DestinationPhase::Running,
        }
    }
}

/// Where the next bytes of a DATA record go: the whole buffer, or as much of it as the record has left.
fn room(buffer: &mut [u8], left: u64) -> &mut [u8] {
    let end = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
    buffer.get_mut(..end).unwrap_or_default()
}
