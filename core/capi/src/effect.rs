//! What a session wants done, how it went, and the event of it, as tagged unions.
//!
//! Both roles have the same three types, so that a caller writes one function that carries effects out. An answer that
//! the role did not ask for is VFIO_STATUS_WRONG_DONE.
//!
//! Deliberately absent: the system calls.

use vfio_migration_core::session::{
    Code, DataRead, DestinationDone, DestinationEffect, Event, SourceDone, SourceEffect,
};

use crate::memory::Plain;
use crate::phase::{state, vfio_phase, vfio_precopy_left};
use crate::status::{numbered, vfio_status};

/// What a session can want, and what was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum vfio_effect_kind {
    /// SET the state `u.state`.
    VFIO_EFFECT_SET_STATE = 1,
    /// Source: ask the data fd for its PRECOPY_INFO, with a zeroed structure. Answer with `u.precopy_left`.
    VFIO_EFFECT_PRECOPY_INFO = 2,
    /// Source: one read of the data fd into `u.room`. Answer with `u.count`; 0 is the end of the data.
    VFIO_EFFECT_READ_DATA = 3,
    /// Source: give `u.bytes` to the link; it may take fewer. Answer with `u.count`; 0 where its other end is gone.
    VFIO_EFFECT_SEND = 4,
    /// Source: give the whole body of the configuration to the link.
    VFIO_EFFECT_SEND_CONFIG = 5,
    /// Destination: take bytes off the link into `u.room`, from the front; fewer will do. Answer with `u.count`; 0
    /// where the link has ended.
    VFIO_EFFECT_RECV = 6,
    /// Destination: one write of `u.bytes` to the data fd; it may take fewer. Answer with `u.count`.
    VFIO_EFFECT_WRITE_DATA = 7,
    /// Destination: take the whole body of the configuration off the link and apply it. Answer with `u.length`.
    VFIO_EFFECT_RECV_CONFIG = 8,
    /// Reset the device, then arm its interrupts again.
    VFIO_EFFECT_RESET = 9,
    /// Nothing: give the next order. `u.phase` is where the session stands.
    VFIO_EFFECT_IDLE = 10,
    /// Never wanted: the answer to VFIO_EFFECT_READ_DATA where the read failed with ENOMSG, "nothing now"; `error` is 0 then.
    VFIO_EFFECT_DRAINED = 11,
}

/// Bytes to read. They are the session's, and stay there up to its next call.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct vfio_bytes {
    /// The first one.
    pub bytes: *const u8,
    /// How many there are.
    pub length: usize,
}

/// Room for bytes. It is the session's, and stays there up to its next call.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct vfio_room {
    /// Where the first one goes.
    pub bytes: *mut u8,
    /// How many there may be.
    pub length: usize,
}

/// What a session wants done.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct vfio_effect {
    /// Of enum vfio_effect_kind; it says which member of `u` has a meaning, if any.
    pub kind: u32,
    /// What belongs to the kind.
    pub u: vfio_effect_of,
}

/// What belongs to an effect.
#[derive(Clone, Copy)]
#[repr(C)]
pub union vfio_effect_of {
    /// VFIO_EFFECT_SET_STATE: of enum vfio_state.
    pub state: u32,
    /// VFIO_EFFECT_READ_DATA and VFIO_EFFECT_RECV.
    pub room: vfio_room,
    /// VFIO_EFFECT_SEND and VFIO_EFFECT_WRITE_DATA.
    pub bytes: vfio_bytes,
    /// VFIO_EFFECT_IDLE.
    pub phase: vfio_phase,
}

/// How an effect went.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct vfio_done {
    /// The effect's own kind, or VFIO_EFFECT_DRAINED.
    pub kind: u32,
    /// 0 where it went well; otherwise the number with which kernel or link refused, an errno on Linux, and `u` is not
    /// looked at.
    pub error: i32,
    /// What belongs to the kind.
    pub u: vfio_done_of,
}

/// What belongs to an answer.
#[derive(Clone, Copy)]
#[repr(C)]
pub union vfio_done_of {
    /// VFIO_EFFECT_READ_DATA, VFIO_EFFECT_SEND, VFIO_EFFECT_RECV and VFIO_EFFECT_WRITE_DATA: bytes that came or were
    /// taken.
    pub count: usize,
    /// VFIO_EFFECT_RECV_CONFIG: the length of the configuration's body, in bytes.
    pub length: u64,
    /// VFIO_EFFECT_PRECOPY_INFO.
    pub precopy_left: vfio_precopy_left,
}

/// What a session asked for, and how it went. vfio_event_show has it in words.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct vfio_event {
    /// What was done and how it went.
    pub done: vfio_done,
    /// VFIO_EFFECT_SET_STATE: which one, of enum vfio_state; otherwise 0.
    pub state: u32,
    /// VFIO_EFFECT_SET_STATE: whether this was recovery from a failure or a cancel; otherwise 0.
    pub recovery: u32,
    /// Bytes that were offered, where bytes were; otherwise 0.
    pub offered: usize,
}

// SAFETY: repr(C), of integers, raw pointers, and structures and unions of them.
unsafe impl Plain for vfio_effect {}

// SAFETY: repr(C), of integers, and a union of integers and a structure of integers.
unsafe impl Plain for vfio_done {}

// SAFETY: repr(C), of integers and the structure above.
unsafe impl Plain for vfio_event {}

impl From<SourceEffect<'_>> for vfio_effect {
    fn from(effect: SourceEffect<'_>) -> Self {
        use vfio_effect_kind as kind;
        match effect {
            SourceEffect::SetState(state) => Self::set_state(state.raw()),
            SourceEffect::PrecopyInfo => Self::alone(kind::VFIO_EFFECT_PRECOPY_INFO),
            SourceEffect::ReadData(room) => Self::room(kind::VFIO_EFFECT_READ_DATA, room),
            SourceEffect::Send(bytes) => Self::bytes(kind::VFIO_EFFECT_SEND, bytes),
            SourceEffect::SendConfig => Self::alone(kind::VFIO_EFFECT_SEND_CONFIG),
            SourceEffect::Reset => Self::alone(kind::VFIO_EFFECT_RESET),
            SourceEffect::Idle(phase) => Self::idle(vfio_phase::of_source(phase)),
        }
    }
}

impl From<DestinationEffect<'_>> for vfio_effect {
    fn from(effect: DestinationEffect<'_>) -> Self {
        use vfio_effect_kind as kind;
        match effect {
            DestinationEffect::SetState(state) => Self::set_state(state.raw()),
            DestinationEffect::Recv(room) => Self::room(kind::VFIO_EFFECT_RECV, room),
            DestinationEffect::WriteData(bytes) => Self::bytes(kind::VFIO_EFFECT_WRITE_DATA, bytes),
            DestinationEffect::RecvConfig => Self::alone(kind::VFIO_EFFECT_RECV_CONFIG),
            DestinationEffect::Reset => Self::alone(kind::VFIO_EFFECT_RESET),
            DestinationEffect::Idle(phase) => Self::idle(vfio_phase::of_destination(phase)),
        }
    }
}

impl vfio_effect {
    fn new(kind: vfio_effect_kind, u: vfio_effect_of) -> Self {
        Self { kind: kind as u32, u }
    }

    fn alone(kind: vfio_effect_kind) -> Self {
        Self::new(kind, vfio_effect_of { state: 0 })
    }

    fn set_state(state: u32) -> Self {
        Self::new(vfio_effect_kind::VFIO_EFFECT_SET_STATE, vfio_effect_of { state })
    }

    fn idle(phase: vfio_phase) -> Self {
        Self::new(vfio_effect_kind::VFIO_EFFECT_IDLE, vfio_effect_of { phase })
    }

    fn room(kind: vfio_effect_kind, room: &mut [u8]) -> Self {
        let room = vfio_room { bytes: room.as_mut_ptr(), length: room.len() };
        Self::new(kind, vfio_effect_of { room })
    }

    fn bytes(kind: vfio_effect_kind, bytes: &[u8]) -> Self {
        let bytes = vfio_bytes { bytes: bytes.as_ptr(), length: bytes.len() };
        Self::new(kind, vfio_effect_of { bytes })
    }
}

impl vfio_done {
    /// What a source is told.
    pub(crate) fn for_source(&self) -> Result<SourceDone, vfio_status> {
        use vfio_effect_kind as of;
        Ok(match of::from_raw(self.kind)? {
            of::VFIO_EFFECT_SET_STATE => SourceDone::SetState(self.outcome(())),
            of::VFIO_EFFECT_PRECOPY_INFO => {
                SourceDone::PrecopyInfo(self.result(Self::precopy_left).map(Into::into))
            }
            of::VFIO_EFFECT_READ_DATA => SourceDone::ReadData(self.result(Self::count).map(data_read)),
            of::VFIO_EFFECT_DRAINED => SourceDone::ReadData(self.outcome(DataRead::Drained)),
            of::VFIO_EFFECT_SEND => SourceDone::Send(self.result(Self::count)),
            of::VFIO_EFFECT_SEND_CONFIG => SourceDone::SendConfig(self.outcome(())),
            of::VFIO_EFFECT_RESET => SourceDone::Reset(self.outcome(())),
            of::VFIO_EFFECT_RECV
            | of::VFIO_EFFECT_WRITE_DATA
            | of::VFIO_EFFECT_RECV_CONFIG
            | of::VFIO_EFFECT_IDLE => return Err(vfio_status::VFIO_STATUS_WRONG_DONE),
        })
    }

    /// What a destination is told.
    pub(crate) fn for_destination(&self) -> Result<DestinationDone, vfio_status> {
        use vfio_effect_kind as of;
        Ok(match of::from_raw(self.kind)? {
            of::VFIO_EFFECT_SET_STATE => DestinationDone::SetState(self.outcome(())),
            of::VFIO_EFFECT_RECV => DestinationDone::Recv(self.result(Self::count)),
            of::VFIO_EFFECT_WRITE_DATA => DestinationDone::WriteData(self.result(Self::count)),
            of::VFIO_EFFECT_RECV_CONFIG => DestinationDone::RecvConfig(self.result(Self::length)),
            of::VFIO_EFFECT_RESET => DestinationDone::Reset(self.outcome(())),
            of::VFIO_EFFECT_PRECOPY_INFO
            | of::VFIO_EFFECT_READ_DATA
            | of::VFIO_EFFECT_DRAINED
            | of::VFIO_EFFECT_SEND
            | of::VFIO_EFFECT_SEND_CONFIG
            | of::VFIO_EFFECT_IDLE => return Err(vfio_status::VFIO_STATUS_WRONG_DONE),
        })
    }

    fn outcome<T>(&self, value: T) -> Result<T, Code> {
        self.result(|_| value)
    }

    fn result<T>(&self, value: impl FnOnce(&Self) -> T) -> Result<T, Code> {
        if self.error == 0 { Ok(value(self)) } else { Err(Code(self.error)) }
    }

    fn count(&self) -> usize {
        // SAFETY: every value of the bytes is one of an integer. A caller that sets no count breaks the contract.
        unsafe { self.u.count }
    }

    fn length(&self) -> u64 {
        // SAFETY: every value of the bytes is one of an integer. A caller that sets no length breaks the contract.
        unsafe { self.u.length }
    }

    fn precopy_left(&self) -> vfio_precopy_left {
        // SAFETY: every value of the bytes is one of three integers. A caller that does not set them breaks the contract.
        unsafe { self.u.precopy_left }
    }

    fn new<T>(kind: vfio_effect_kind, result: Result<T, Code>, u: impl FnOnce(T) -> vfio_done_of) -> Self {
        let nothing =
            vfio_done_of { precopy_left: vfio_precopy_left { initial_bytes: 0, dirty_bytes: 0, reinit: 0 } };
        match result {
            Ok(value) => Self { kind: kind as u32, error: 0, u: u(value) },
            Err(Code(error)) => Self { kind: kind as u32, error, u: nothing },
        }
    }
}

impl From<Event> for vfio_event {
    fn from(event: Event) -> Self {
        use vfio_effect_kind as of;
        let count = |count| vfio_done_of { count };
        let nothing = |()| vfio_done_of { count: 0 };
        let alone = |done| Self { done, state: 0, recovery: 0, offered: 0 };
        match event {
            Event::SetState { state, recovery, result } => {
                let done = vfio_done::new(of::VFIO_EFFECT_SET_STATE, result, nothing);
                Self { done, state: state.raw(), recovery: recovery.into(), offered: 0 }
            }
            Event::PrecopyInfo { result } => {
                alone(vfio_done::new(of::VFIO_EFFECT_PRECOPY_INFO, result, |info| vfio_done_of {
                    precopy_left: info.into(),
                }))
            }
            Event::ReadData { offered, result } => {
                let kind = if result == Ok(DataRead::Drained) {
                    of::VFIO_EFFECT_DRAINED
                } else {
                    of::VFIO_EFFECT_READ_DATA
                };
                Self { offered, ..alone(vfio_done::new(kind, result, |read| count(bytes_read(read)))) }
            }
            Event::Send { offered, result } => {
                Self { offered, ..alone(vfio_done::new(of::VFIO_EFFECT_SEND, result, count)) }
            }
            Event::SendConfig { result } => {
                alone(vfio_done::new(of::VFIO_EFFECT_SEND_CONFIG, result, nothing))
            }
            Event::Recv { offered, result } => {
                Self { offered, ..alone(vfio_done::new(of::VFIO_EFFECT_RECV, result, count)) }
            }
            Event::WriteData { offered, result } => {
                Self { offered, ..alone(vfio_done::new(of::VFIO_EFFECT_WRITE_DATA, result, count)) }
            }
            Event::RecvConfig { result } => {
                alone(vfio_done::new(of::VFIO_EFFECT_RECV_CONFIG, result, |length| vfio_done_of { length }))
            }
            Event::Reset { result } => alone(vfio_done::new(of::VFIO_EFFECT_RESET, result, nothing)),
        }
    }
}

impl TryFrom<vfio_event> for Event {
    type Error = vfio_status;

    fn try_from(raw: vfio_event) -> Result<Self, vfio_status> {
        use vfio_effect_kind as of;
        let vfio_event { done, offered, .. } = raw;
        Ok(match of::from_raw(done.kind)? {
            of::VFIO_EFFECT_SET_STATE => Self::SetState {
                state: state(raw.state)?,
                recovery: raw.recovery != 0,
                result: done.outcome(()),
            },
            of::VFIO_EFFECT_PRECOPY_INFO => {
                Self::PrecopyInfo { result: done.result(vfio_done::precopy_left).map(Into::into) }
            }
            of::VFIO_EFFECT_READ_DATA => {
                Self::ReadData { offered, result: done.result(vfio_done::count).map(data_read) }
            }
            of::VFIO_EFFECT_DRAINED => Self::ReadData { offered, result: done.outcome(DataRead::Drained) },
            of::VFIO_EFFECT_SEND => Self::Send { offered, result: done.result(vfio_done::count) },
            of::VFIO_EFFECT_SEND_CONFIG => Self::SendConfig { result: done.outcome(()) },
            of::VFIO_EFFECT_RECV => Self::Recv { offered, result: done.result(vfio_done::count) },
            of::VFIO_EFFECT_WRITE_DATA => Self::WriteData { offered, result: done.result(vfio_done::count) },
            of::VFIO_EFFECT_RECV_CONFIG => Self::RecvConfig { result: done.result(vfio_done::length) },
            of::VFIO_EFFECT_RESET => Self::Reset { result: done.outcome(()) },
            of::VFIO_EFFECT_IDLE => return Err(vfio_status::VFIO_STATUS_UNKNOWN_VALUE),
        })
    }
}

/// What a read gave, by its count: 0 is the end.
fn data_read(count: usize) -> DataRead {
    if count == 0 { DataRead::End } else { DataRead::Bytes(count) }
}

fn bytes_read(read: DataRead) -> usize {
    match read {
        DataRead::Bytes(count) => count,
        DataRead::Drained | DataRead::End => 0,
    }
}

numbered!(vfio_effect_kind {
    VFIO_EFFECT_SET_STATE,
    VFIO_EFFECT_PRECOPY_INFO,
    VFIO_EFFECT_READ_DATA,
    VFIO_EFFECT_SEND,
    VFIO_EFFECT_SEND_CONFIG,
    VFIO_EFFECT_RECV,
    VFIO_EFFECT_WRITE_DATA,
    VFIO_EFFECT_RECV_CONFIG,
    VFIO_EFFECT_RESET,
    VFIO_EFFECT_IDLE,
    VFIO_EFFECT_DRAINED,
});
