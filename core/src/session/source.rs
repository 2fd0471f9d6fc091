//! The sending side of one device.
//!
//! Orders on the way of a stop-copy migration: [`Source::setup`], [`Source::stop`], [`Source::copy_rest`], for a PCI
//! device [`Source::config`], then [`Source::finish`]. With pre-copy, [`Source::measure`] and [`Source::copy_chunk`]
//! come before `stop`, as often as the caller likes, and where several devices migrate together [`Source::quiesce`].
//! `setup`, `copy_chunk`, `copy_rest` and `config` each write the payload of one section, the other orders nothing.
//!
//! What goes wrong with the data or the link brings the device back to the state it came from, as [`Source::cancel`]
//! does, or after `quiesce` as far as RUNNING_P2P, as [`Source::retreat`] does; what the kernel refuses is followed by
//! what [`recover`](crate::device::recover) says.
//!
//! Deliberately absent: section headers and footers, the body of the configuration, and waiting. The caller writes
//! them, and waits where a chunk was empty.

mod back;

use super::precopy::{Chunk, PrecopyInfo};
use super::{Cause, Code, DataRead, Event, Failure, Misuse, check_start};
use crate::device::{Features, State};
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
    /// Ask the data fd for its PRECOPY_INFO, with a zeroed structure.
    PrecopyInfo,
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
    /// Answer to [`SourceEffect::PrecopyInfo`].
    PrecopyInfo(Result<PrecopyInfo, Code>),
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
    /// The device is in PRE_COPY and works; this is how far the copy is.
    PreCopy(Chunk),
    /// The device is in RUNNING_P2P or PRE_COPY_P2P: it starts no DMA to other devices.
    Quiesced,
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
    features: Features,
    switchover_ack: bool,
    step: Step,
    /// The state that the last completed step left the device in.
    at: State,
    came_from: State,
    /// Whether the way back leads over RUNNING_P2P.
    lockstep: bool,
    chunk: Chunk,
    /// Whether `poll` has asked for the present step.
    asked: bool,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Idle(SourcePhase),
    SetState { state: State, then: Then },
    PrecopyInfo { then: Then },
    ReadData(Reading),
    Send { from: usize, to: usize, then: Then },
    SendConfig,
    Recover { state: State, cause: Cause },
    Reset { cause: Cause },
}

/// What follows a step that went well: the next step, or a phase by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    ReadRest,
    SendConfig,
    SendStart,
    SendEmptyChunk,
    Ready,
    SetUp,
    PreCopy,
    Quiesced,
    Copying,
    Copied,
    Stopped,
}

/// What a read is for.
#[derive(Clone, Copy, Debug)]
enum Reading {
    /// One PART in PRE_COPY.
    PreCopyChunk,
    /// One PART in STOP_COPY.
    Chunk,
    /// The whole END.
    Rest,
}

impl<'b> Source<'b> {
    /// A source for a device with `features` that GET says is in state `now`: RUNNING, or STOP for a paused machine's
    /// device. With `switchover_ack` it sends INIT_DATA_SENT, which the destination must have agreed to. The buffer's
    /// length less [`HEADERS`] is the largest piece of data that is read at once.
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
            features,
            switchover_ack,
            step: Step::Idle(SourcePhase::Ready(now)),
            at: now,
            came_from: now,
            lockstep: false,
            chunk: Chunk::default(),
            asked: false,
        })
    }

    /// Writes a START payload: SETUP, END_OF_STATE. With `pre_copy` the device is brought to PRE_COPY before.
    ///
    /// # Errors
    /// [`Misuse::WrongOrder`] unless the phase is [`SourcePhase::Ready`] in RUNNING or STOP, and for `pre_copy` in
    /// RUNNING: a stopped device can't enter PRE_COPY without running. [`Misuse::NoState`] where it has no PRE_COPY.
    pub fn setup(&mut self, pre_copy: bool) -> Result<(), Misuse> {
        let &SourcePhase::Ready(now) = self.idle()? else { return Err(Misuse::WrongOrder) };
        if now == State::RunningP2p || (pre_copy && now != State::Running) {
            return Err(Misuse::WrongOrder);
        }
        if pre_copy {
            self.check(State::PreCopy)?;
        }
        self.chunk = Chunk::default();
        if pre_copy {
            self.go(Step::SetState { state: State::PreCopy, then: Then::SendStart });
        } else {
            self.send_start(Then::SetUp);
        }
        Ok(())
    }

    /// Asks how much PRE_COPY has left; writes nothing. For some drivers the question itself starts the next piece.
    ///
    /// # Errors
    /// [`Misuse::WrongOrder`] unless the phase is [`SourcePhase::PreCopy`].
    pub fn measure(&mut self) -> Result<(), Misuse> {
        let SourcePhase::PreCopy(_) = self.idle()? else { return Err(Misuse::WrongOrder) };
        self.go(Step::PrecopyInfo { then: Then::PreCopy });
        Ok(())
    }

    /// Writes a PART payload: one DATA where the device has one, and END_OF_STATE, or in PRE_COPY INIT_DATA_SENT once
    /// the initial data are through. Where PRE_COPY has nothing now, [`Source::measure`] is done as well; where
    /// STOP_COPY has no more, the phase becomes [`SourcePhase::Copied`].
    ///
    /// # Errors
    /// [`Misuse::WrongOrder`] unless the phase is [`SourcePhase::PreCopy`] or [`SourcePhase::Copying`].
    pub fn copy_chunk(&mut self) -> Result<(), Misuse> {
        let reading = match self.idle()? {
            SourcePhase::PreCopy(_) => Reading::PreCopyChunk,
            SourcePhase::Copying => Reading::Chunk,
            SourcePhase::Ready(_)
            | SourcePhase::SetUp
            | SourcePhase::Quiesced
            | SourcePhase::Copied
            | SourcePhase::Stopped
            | SourcePhase::Failed(_) => return Err(Misuse::WrongOrder),
        };
        self.go(Step::ReadData(reading));
        Ok(())
    }

    /// Keeps the device from starting DMA to others: RUNNING_P2P, or PRE_COPY_P2P in pre-copy. From here on what goes
    /// wrong leads back to RUNNING_P2P alone, and [`Source::cancel`] to RUNNING.
    ///
    /// # Errors
    /// [`Misuse::WrongOrder`] unless the device runs and the phase is [`SourcePhase::SetUp`] or
    /// [`SourcePhase::PreCopy`]; [`Misuse::NoState`] where it has no P2P.
    pub fn quiesce(&mut self) -> Result<(), Misuse> {
        let state = match self.idle()? {
            SourcePhase::PreCopy(_) => State::PreCopyP2p,
            SourcePhase::SetUp if self.at == State::Running => State::RunningP2p,
            SourcePhase::Ready(_)
            | SourcePhase::SetUp
            | SourcePhase::Quiesced
            | SourcePhase::Copying
            | SourcePhase::Copied
            | SourcePhase::Stopped
            | SourcePhase::Failed(_) => return Err(Misuse::WrongOrder),
        };
        self.check(state)?;
        self.lockstep = true;
        self.go(Step::SetState { state, then: Then::Quiesced });
        Ok(())
    }

    /// Brings the device to STOP_COPY, from PRE_COPY with the data session that is there. The machine's processors must
    /// have stopped.
    ///
    /// # Errors
    /// [`Misuse::WrongOrder`] unless the phase is [`SourcePhase::SetUp`], [`SourcePhase::PreCopy`] or
    /// [`SourcePhase::Quiesced`].
    pub fn stop(&mut self) -> Result<(), Misuse> {
        let (SourcePhase::SetUp | SourcePhase::PreCopy(_) | SourcePhase::Quiesced) = self.idle()? else {
            return Err(Misuse::WrongOrder);
        };
        self.go(Step::SetState { state: State::StopCopy, then: Then::Copying });
        Ok(())
    }

    /// Writes an END payload: DATA until the device has no more, END_OF_STATE; the latter alone where all is copied.
    ///
    /// # Errors
    /// [`Misuse::WrongOrder`] unless the phase is [`SourcePhase::Copying`] or [`SourcePhase::Copied`].
    pub fn copy_rest(&mut self) -> Result<(), Misuse> {
        match self.idle()? {
            SourcePhase::Copying => self.go(Step::ReadData(Reading::Rest)),
            SourcePhase::Copied => self.send_end(),
            SourcePhase::Ready(_)
            | SourcePhase::SetUp
            | SourcePhase::PreCopy(_)
            | SourcePhase::Quiesced
            | SourcePhase::Stopped
            | SourcePhase::Failed(_) => return Err(Misuse::WrongOrder),
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
        self.go(Step::SetState { state: State::Stop, then: Then::Stopped });
        Ok(())
    }

    /// Brings a finished device to RUNNING_P2P, where several devices of a machine go on together.
    ///
    /// # Errors
    /// [`Misuse::WrongOrder`] unless the phase is [`SourcePhase::Stopped`]; [`Misuse::NoState`] where it has no P2P.
    pub fn run_p2p(&mut self) -> Result<(), Misuse> {
        let SourcePhase::Stopped = self.idle()? else { return Err(Misuse::WrongOrder) };
        self.check(State::RunningP2p)?;
        self.go(Step::SetState { state: State::RunningP2p, then: Then::Ready });
        Ok(())
    }

    /// Brings a finished device back to RUNNING, for a machine that goes on after its state was saved.
    ///
    /// # Errors
    /// [`Misuse::WrongOrder`] unless the phase is [`SourcePhase::Stopped`], or [`SourcePhase::Ready`] in RUNNING_P2P.
    pub fn run(&mut self) -> Result<(), Misuse> {
        let (SourcePhase::Stopped | SourcePhase::Ready(State::RunningP2p)) = self.idle()? else {
            return Err(Misuse::WrongOrder);
        };
        self.go(Step::SetState { state: State::Running, then: Then::Ready });
        Ok(())
    }

    /// Gives up: the device goes back to the state it came from. Possible at any time, also after a failure that left
    /// the device in another state. What was asked for last must not be in progress any more. A payload that was
    /// begun stays cut: close the link.
    pub fn cancel(&mut self) {
        self.give_up(self.came_from);
    }

    /// As [`Source::cancel`], but after [`Source::quiesce`] the device goes back to RUNNING_P2P, and stays there until
    /// `cancel` takes it on: other devices may still stand.
    pub fn retreat(&mut self) {
        self.give_up(self.way_back());
    }

    /// What is wanted now. Asking twice changes nothing; "not yet" is said by not completing.
    pub fn poll(&mut self) -> SourceEffect<'_> {
        self.asked = true;
        match self.step {
            Step::Idle(phase) => SourceEffect::Idle(phase),
            Step::SetState { state, .. } | Step::Recover { state, .. } => SourceEffect::SetState(state),
            Step::PrecopyInfo { .. } => SourceEffect::PrecopyInfo,
            Step::ReadData(_) => SourceEffect::ReadData(room(self.buffer)),
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
            Step::PrecopyInfo { then } => {
                let SourceDone::PrecopyInfo(result) = done else { return Err(Misuse::WrongDone) };
                Ok(self.measured(then, result))
            }
            Step::ReadData(reading) => {
                let SourceDone::ReadData(result) = done else { return Err(Misuse::WrongDone) };
                self.read(reading, result)
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

    fn set(&mut self, state: State, then: Then, result: Result<(), Code>) -> Event {
        match result {
            Ok(()) => {
                self.at = state;
                if state == State::Running {
                    self.came_from = state;
                    self.lockstep = false;
                }
                self.go_on(then);
            }
            Err(code) => self.refused(state, then, code),
        }
        Event::SetState { state, recovery: false, result }
    }

    fn measured(&mut self, then: Then, result: Result<PrecopyInfo, Code>) -> Event {
        match result {
            Ok(info) => {
                self.chunk.answered(info);
                self.go_on(then);
            }
            Err(code) => self.go_back(Cause::PrecopyInfo(code)),
        }
        Event::PrecopyInfo { result }
    }

    fn read(&mut self, reading: Reading, result: Result<DataRead, Code>) -> Result<Event, Misuse> {
        let offered = room(self.buffer).len();
        match (result, reading) {
            (Ok(DataRead::Bytes(got)), _) if got > offered => return Err(Misuse::TooMany { offered, got }),
            (Ok(DataRead::Bytes(0) | DataRead::End | DataRead::Drained), Reading::PreCopyChunk) => {
                self.chunk.read(0);
                self.go(Step::PrecopyInfo { then: Then::SendEmptyChunk });
            }
            (Ok(DataRead::Bytes(0) | DataRead::End), Reading::Chunk | Reading::Rest) => self.send_end(),
            (Ok(DataRead::Drained), Reading::Chunk | Reading::Rest) => {
                self.go_back(Cause::DrainedInStopCopy);
            }
            (Ok(DataRead::Bytes(got)), reading) => self.send_data(got, reading),
            (Err(code), _) => self.go_back(Cause::ReadData(code)),
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
            Ok(_) => self.go_on(then),
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

    /// Puts the head of a DATA record before `count` bytes that were read, and sends it as `reading` wants.
    fn send_data(&mut self, count: usize, reading: Reading) {
        self.put(0, record::encode_data_head(count as u64));
        let end = DATA_HEAD.saturating_add(count);
        match reading {
            Reading::Rest => self.send(end, Then::ReadRest),
            Reading::Chunk => {
                self.put(end, record::encode(Tag::EndOfState));
                self.send(end.saturating_add(WORD), Then::Copying);
            }
            Reading::PreCopyChunk => {
                self.chunk.read(count);
                let terminator = self.terminator();
                self.put(end, record::encode(terminator));
                self.send(end.saturating_add(WORD), Then::PreCopy);
            }
        }
    }

    /// What ends a PART in PRE_COPY: INIT_DATA_SENT once, as soon as all initial data were read.
    fn terminator(&mut self) -> Tag {
        if !self.switchover_ack || self.chunk.init_data_sent || !self.chunk.initial_data_are_read() {
            return Tag::EndOfState;
        }
        self.chunk.init_data_sent = true;
        Tag::InitDataSent
    }

    fn send_start(&mut self, then: Then) {
        self.put(0, record::encode(Tag::Setup));
        self.put(WORD, record::encode(Tag::EndOfState));
        self.send(2 * WORD, then);
    }

    /// Ends a payload after which all is copied.
    fn send_end(&mut self) {
        self.put(0, record::encode(Tag::EndOfState));
        self.send(WORD, Then::Copied);
    }

    fn send(&mut self, length: usize, then: Then) {
        self.go(Step::Send { from: 0, to: length, then });
    }

    fn go_on(&mut self, then: Then) {
        let phase = match then {
            Then::ReadRest => return self.go(Step::ReadData(Reading::Rest)),
            Then::SendConfig => return self.go(Step::SendConfig),
            Then::SendStart => return self.send_start(Then::PreCopy),
            Then::SendEmptyChunk => {
                let terminator = self.terminator();
                self.put(0, record::encode(terminator));
                return self.send(WORD, Then::PreCopy);
            }
            Then::Ready => SourcePhase::Ready(self.at),
            Then::SetUp => SourcePhase::SetUp,
            Then::PreCopy => SourcePhase::PreCopy(self.chunk),
            Then::Quiesced => SourcePhase::Quiesced,
            Then::Copying => SourcePhase::Copying,
            Then::Copied => SourcePhase::Copied,
            Then::Stopped => SourcePhase::Stopped,
        };
        self.go(Step::Idle(phase));
    }

    fn go(&mut self, step: Step) {
        self.step = step;
        self.asked = false;
    }

    fn idle(&self) -> Result<&SourcePhase, Misuse> {
        if let Step::Idle(phase) = &self.step { Ok(phase) } else { Err(Misuse::WrongOrder) }
    }

    fn check(&self, state: State) -> Result<(), Misuse> {
        if self.features.have(state) { Ok(()) } else { Err(Misuse::NoState(state)) }
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
