//! The sending side of one device.
//!
//! Orders on the way of a stop-copy migration: [`Source::setup`], [`Source::stop`], [`Source::copy_rest`], for a PCI
//! device [`Source::config`], then [`Source::finish`]. `setup`, `copy_rest` and `config` each write the payload of
//! one section, the other orders write nothing.
//!
//! What goes wrong with the data or the link brings the device back to the state it came from, as [`Source::cancel`]
//! does; what the kernel refuses is followed by what [`recover`](crate::device::recover) says.
//!
//! Deliberately absent: section headers and footers, and the body of the configuration. The caller writes them.

use super::{Cause, Code, DataRead, Event, Failure, Left, Misuse, check_start};
use crate::device::State;
use crate::device::recover::{Recovery, after_refusal};
use crate::stream::record::{self, DATA_HEAD, Tag, WORD};

/// Where in a source's buffer data are read to; in front of them is the place of a DATA record's head.
pub const DATA_AT: usize = DATA_HEAD;

/// Bytes of a source's buffer that are no data: a DATA record's head in front, a terminator behind. A buffer of whole
/// pages and so many bytes more, in which the data begin with a page, lets a driver copy whole pages.
pub const HEADERS: usize = DATA_HEAD + WORD;

/// What a [`Source`] wants done.
#[derive(Debug, PartialEq, Eq)]
pub enum SourceEffect<'a> {
    /// SET this state.
    SetState(State),
    /// One `read` of the data fd into these bytes.
    ReadData(&'a mut [u8]),
    /// Give these bytes to the link; it may take fewer.
    Send(&'a [u8]),
    /// Give the whole body of the configuration to the link.
    SendConfig,
    /// Reset the device, then arm its interrupts again.
    Reset,
    /// Nothing: give the next order.
    Idle(SourcePhase),
}

/// How an effect of a [`Source`] went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceDone {
    /// Answer to [`SourceEffect::SetState`].
    SetState(Result<(), Code>),
    /// Answer to [`SourceEffect::ReadData`].
    ReadData(Result<DataRead, Code>),
    /// Answer to [`SourceEffect::Send`]: how many bytes the link took; 0 where its other end is gone.
    Send(Result<usize, Code>),
    /// Answer to [`SourceEffect::SendConfig`].
    SendConfig(Result<(), Code>),
    /// Answer to [`SourceEffect::Reset`].
    Reset(Result<(), Code>),
}

/// Where an idle [`Source`] stands. It borrows nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum SourcePhase {
    /// Nothing has begun; the device is in this state.
    Ready(State),
    /// The START payload is out; the device is as it was.
    SetUp,
    /// The device is in STOP_COPY and its data are still in it.
    Copying,
    /// The device is in STOP_COPY and all its data are out.
    Copied,
    /// The device is in STOP; the migration is over for this side.
    Stopped,
    /// The migration failed.
    Failed(Failure),
}

/// The sending side of one device, on a buffer that the caller lends.
#[derive(Debug)]
pub struct Source<'b> {
    buffer: &'b mut [u8],
    step: Step,
    /// The state that the last completed step left the device in.
    at: State,
    came_from: State,
    /// Whether `poll` has asked for the present step.
    asked: bool,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Idle(SourcePhase),
    SetState { state: State, then: SourcePhase },
    ReadData,
    Send { from: usize, to: usize, then: Then },
    SendConfig,
    Recover { state: State, cause: Cause },
    Reset { cause: Cause },
}

/// What follows bytes that are out.
#[derive(Clone, Copy, Debug)]
enum Then {
    ReadData,
    SendConfig,
    Idle(SourcePhase),
}

impl<'b> Source<'b> {
    /// A source for a device that GET says is in state `now`: RUNNING, or STOP for a paused machine's device. The
    /// buffer's length less [`HEADERS`] is the largest piece of data that is read at once.
    ///
    /// # Errors
    /// [`Misuse::SmallBuffer`] and [`Misuse::WrongState`].
    pub fn new(now: State, buffer: &'b mut [u8]) -> Result<Self, Misuse> {
        check_start(now, buffer)?;
        let step = Step::Idle(SourcePhase::Ready(now));
        Ok(Self { buffer, step, at: now, came_from: now, asked: false })
    }

    /// Writes a START payload: SETUP, END_OF_STATE.
    ///
    /// # Errors
    /// [`Misuse::WrongOrder`] unless the phase is [`SourcePhase::Ready`].
    pub fn setup(&mut self) -> Result<(), Misuse> {
        let SourcePhase::Ready(_) = self.idle()? else { return Err(Misuse::WrongOrder) };
        self.put(0, record::encode(Tag::Setup));
        self.put(WORD, record::encode(Tag::EndOfState));
        self.send(2 * WORD, Then::Idle(SourcePhase::SetUp));
        Ok(())
    }

    /// Brings the device to STOP_COPY. The machine's processors must have stopped.
    ///
    /// # Errors
    /// [`Misuse::WrongOrder`] unless the phase is [`SourcePhase::SetUp`].
    pub fn stop(&mut self) -> Result<(), Misuse> {
        let SourcePhase::SetUp = self.idle()? else { return Err(Misuse::WrongOrder) };
        self.go(Step::SetState { state: State::StopCopy, then: SourcePhase::Copying });
        Ok(())
    }

    /// Writes an END payload: DATA until the device has no more, END_OF_STATE; the latter alone where all is copied.
    ///
    /// # Errors
    /// [`Misuse::WrongOrder`] unless the phase is [`SourcePhase::Copying`] or [`SourcePhase::Copied`].
    pub fn copy_rest(&mut self) -> Result<(), Misuse> {
        match self.idle()? {
            SourcePhase::Copying => self.go(Step::ReadData),
            SourcePhase::Copied => self.send_end(),
            SourcePhase::Ready(_) | SourcePhase::SetUp | SourcePhase::Stopped | SourcePhase::Failed(_) => {
                return Err(Misuse::WrongOrder);
            }
        }
        Ok(())
    }

    /// Writes a FULL payload: CONFIG, the body by the caller, END_OF_STATE.
    ///
    /// # Errors
    /// [`Misuse::WrongOrder`] unless the phase is [`SourcePhase::Copied`].
    pub fn config(&mut self) -> Result<(), Misuse> {
        let SourcePhase::Copied = self.idle()? else { return Err(Misuse::WrongOrder) };
        self.put(0, record::encode(Tag::Config));
        self.send(WORD, Then::SendConfig);
        Ok(())
    }

    /// Brings the device from STOP_COPY to STOP, which costs time in firmware and so is an order of its own: give it
    /// once the last byte is on its way.
    ///
    /// # Errors
    /// [`Misuse::WrongOrder`] unless the phase is [`SourcePhase::Copied`].
    pub fn finish(&mut self) -> Result<(), Misuse> {
        let SourcePhase::Copied = self.idle()? else { return Err(Misuse::WrongOrder) };
        self.go(Step::SetState { state: State::Stop, then: SourcePhase::Stopped });
        Ok(())
    }

    /// Brings a finished device back to RUNNING, for a machine that goes on after its state was saved.
    ///
    /// # Errors
    /// [`Misuse::WrongOrder`] unless the phase is [`SourcePhase::Stopped`].
    pub fn run(&mut self) -> Result<(), Misuse> {
        let SourcePhase::Stopped = self.idle()? else { return Err(Misuse::WrongOrder) };
        self.go(Step::SetState { state: State::Running, then: SourcePhase::Ready(State::Running) });
        Ok(())
    }

    /// Gives up: the device goes back to the state it came from. Possible at any time, also after a failure that left
    /// the device in another state. What was asked for last must not be in progress any more. A payload that was
    /// begun stays cut: close the link.
    pub fn cancel(&mut self) {
        let cause = match self.step {
            Step::Idle(SourcePhase::Failed(Failure { cause, device: Left::At(at) }))
            | Step::Recover { state: at, cause }
                if at != self.came_from =>
            {
                cause
            }
            Step::Idle(SourcePhase::Failed(_)) | Step::Recover { .. } | Step::Reset { .. } => return,
            Step::Idle(
                SourcePhase::Ready(_)
                | SourcePhase::SetUp
                | SourcePhase::Copying
                | SourcePhase::Copied
                | SourcePhase::Stopped,
            )
            | Step::ReadData
            | Step::Send { .. }
            | Step::SendConfig
            | Step::SetState { .. } => Cause::Cancelled,
        };
        self.go_back(cause);
    }

    /// What is wanted now. Asking twice changes nothing; "not yet" is said by not completing.
    pub fn poll(&mut self) -> SourceEffect<'_> {
        self.asked = true;
        match self.step {
            Step::Idle(phase) => SourceEffect::Idle(phase),
            Step::SetState { state, .. } | Step::Recover { state, .. } => SourceEffect::SetState(state),
            Step::ReadData => SourceEffect::ReadData(room(self.buffer)),
            Step::Send { from, to, .. } => SourceEffect::Send(self.buffer.get(from..to).unwrap_or_default()),
            Step::SendConfig => SourceEffect::SendConfig,
            Step::Reset { .. } => SourceEffect::Reset,
        }
    }

    /// Takes the outcome of what [`Source::poll`] asked for; the only way forward.
    ///
    /// # Errors
    /// [`Misuse::WrongDone`] and [`Misuse::TooMany`].
    pub fn complete(&mut self, done: SourceDone) -> Result<Event, Misuse> {
        if !self.asked {
            return Err(Misuse::WrongDone);
        }
        match self.step {
            Step::SetState { state, then } => {
                let SourceDone::SetState(result) = done else { return Err(Misuse::WrongDone) };
                Ok(self.set(state, then, result))
            }
            Step::ReadData => {
                let SourceDone::ReadData(result) = done else { return Err(Misuse::WrongDone) };
                self.read(result)
            }
            Step::Send { from, to, then } => {
                let SourceDone::Send(result) = done else { return Err(Misuse::WrongDone) };
                self.sent(from, to, then, result)
            }
            Step::SendConfig => {
                let SourceDone::SendConfig(result) = done else { return Err(Misuse::WrongDone) };
                Ok(self.sent_config(result))
            }
            Step::Recover { state, cause } => {
                let SourceDone::SetState(result) = done else { return Err(Misuse::WrongDone) };
                Ok(self.recovered(state, cause, result))
            }
            Step::Reset { cause } => {
                let SourceDone::Reset(result) = done else { return Err(Misuse::WrongDone) };
                Ok(self.reset(cause, result))
            }
            Step::Idle(_) => Err(Misuse::WrongDone),
        }
    }

    fn set(&mut self, state: State, then: SourcePhase, result: Result<(), Code>) -> Event {
        match result {
            Ok(()) => {
                self.at = state;
                if let SourcePhase::Ready(state) = then {
                    self.came_from = state;
                }
                self.go(Step::Idle(then));
            }
            Err(code) => self.refused(state, code),
        }
        Event::SetState { state, recovery: false, result }
    }

    fn refused(&mut self, state: State, code: Code) {
        let cause = Cause::Refused { state, code };
        self.go(match after_refusal(state, self.came_from, false) {
            Recovery::SetState(state) => Step::Recover { state, cause },
            Recovery::Reset => Step::Reset { cause },
        });
    }

    fn recovered(&mut self, state: State, cause: Cause, result: Result<(), Code>) -> Event {
        match result {
            Ok(()) => {
                self.at = state;
                self.go(Step::Idle(SourcePhase::Failed(Failure { cause, device: Left::At(state) })));
            }
            Err(_) => self.go(Step::Reset { cause }),
        }
        Event::SetState { state, recovery: true, result }
    }

    fn read(&mut self, result: Result<DataRead, Code>) -> Result<Event, Misuse> {
        let offered = room(self.buffer).len();
        match result {
            Ok(DataRead::Bytes(0) | DataRead::End) => self.send_end(),
            Ok(DataRead::Bytes(got)) if got > offered => return Err(Misuse::TooMany { offered, got }),
            Ok(DataRead::Bytes(got)) => {
                self.put(0, record::encode_data_head(got as u64));
                self.send(DATA_HEAD.saturating_add(got), Then::ReadData);
            }
            Ok(DataRead::Drained) => self.go_back(Cause::DrainedInStopCopy),
            Err(code) => self.go_back(Cause::ReadData(code)),
        }
        Ok(Event::ReadData { offered, result })
    }

    fn sent(
        &mut self,
        from: usize,
        to: usize,
        then: Then,
        result: Result<usize, Code>,
    ) -> Result<Event, Misuse> {
        let offered = to.saturating_sub(from);
        match result {
            Ok(0) => self.go_back(Cause::SendClosed),
            Ok(got) if got > offered => return Err(Misuse::TooMany { offered, got }),
            Ok(got) if got < offered => self.go(Step::Send { from: from.saturating_add(got), to, then }),
            Ok(_) => self.go(match then {
                Then::ReadData => Step::ReadData,
                Then::SendConfig => Step::SendConfig,
                Then::Idle(phase) => Step::Idle(phase),
            }),
            Err(code) => self.go_back(Cause::Send(code)),
        }
        Ok(Event::Send { offered, result })
    }

    fn sent_config(&mut self, result: Result<(), Code>) -> Event {
        match result {
            Ok(()) => self.send_end(),
            Err(code) => self.go_back(Cause::SendConfig(code)),
        }
        Event::SendConfig { result }
    }

    fn reset(&mut self, cause: Cause, result: Result<(), Code>) -> Event {
        let device = if result.is_ok() { Left::Reset } else { Left::Unknown };
        self.go(Step::Idle(SourcePhase::Failed(Failure { cause, device })));
        Event::Reset { result }
    }

    /// Ends a payload after which all is copied.
    fn send_end(&mut self) {
        self.put(0, record::encode(Tag::EndOfState));
        self.send(WORD, Then::Idle(SourcePhase::Copied));
    }

    fn send(&mut self, length: usize, then: Then) {
        self.go(Step::Send { from: 0, to: length, then });
    }

    /// Back to the state that the device came from; where a SET was asked for, the device may have left it already.
    fn go_back(&mut self, cause: Cause) {
        let asked_for = matches!(self.step, Step::SetState { .. } | Step::Recover { .. });
        let may_have_left = asked_for || self.at != self.came_from;
        self.go(if may_have_left {
            Step::Recover { state: self.came_from, cause }
        } else {
            Step::Idle(SourcePhase::Failed(Failure { cause, device: Left::At(self.at) }))
        });
    }

    fn go(&mut self, step: Step) {
        self.step = step;
        self.asked = false;
    }

    fn idle(&self) -> Result<SourcePhase, Misuse> {
        if let Step::Idle(phase) = self.step { Ok(phase) } else { Err(Misuse::WrongOrder) }
    }

    /// Writes `bytes` into the buffer at `from`; the smallest buffer has room for all that is ever put.
    fn put<const N: usize>(&mut self, from: usize, bytes: [u8; N]) {
        if let Some(place) = self.buffer.get_mut(from..).and_then(|rest| rest.first_chunk_mut()) {
            *place = bytes;
        }
    }
}

/// Where a chunk of data goes: behind the place of its header, and before that of a terminator.
fn room(buffer: &mut [u8]) -> &mut [u8] {
    let end = buffer.len().saturating_sub(WORD);
    buffer.get_mut(DATA_AT..end).unwrap_or_default()
}
