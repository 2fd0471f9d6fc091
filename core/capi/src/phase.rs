//! Where a session stands, and how it failed, as plain data.
//!
//! Deliberately absent: the two roles' own types. C has one switch for both, and each phase says whose it is.

use vfio_migration_core::device::State;
use vfio_migration_core::session::{
    Cause, Chunk, Code, DestinationPhase, Failure, Left, PrecopyInfo, SourcePhase,
};
use vfio_migration_core::stream::record;

use crate::memory::Plain;
use crate::record::vfio_tag;
use crate::status::{numbered, vfio_status};

/// A device's migration state, by the uapi's numbers (enum vfio_device_mig_state).
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub enum vfio_state {
    /// The device has failed. Only a reset leaves this state, and it can't be asked for.
    VFIO_STATE_ERROR = 0,
    /// The device does not change its own state and does no DMA.
    VFIO_STATE_STOP = 1,
    /// The device works; the state after open and after a reset.
    VFIO_STATE_RUNNING = 2,
    /// The device is stopped and its state can be read.
    VFIO_STATE_STOP_COPY = 3,
    /// The device is stopped and a state can be written into it.
    VFIO_STATE_RESUMING = 4,
    /// The device works, but starts no peer-to-peer DMA of its own.
    VFIO_STATE_RUNNING_P2P = 5,
    /// The device works and the part of its state that can be copied early can be read.
    VFIO_STATE_PRE_COPY = 6,
    /// As PRE_COPY, without peer-to-peer DMA of its own.
    VFIO_STATE_PRE_COPY_P2P = 7,
}

/// Where an idle session stands.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub enum vfio_phase_kind {
    /// Nothing has begun; the device is in `u.state`.
    VFIO_PHASE_READY = 1,
    /// Source: the START payload is out; the device is as it was.
    VFIO_PHASE_SET_UP = 2,
    /// Source: the device is in PRE_COPY and works; `u.chunk` is how far the copy is.
    VFIO_PHASE_PRE_COPY = 3,
    /// Source: the device is in RUNNING_P2P or PRE_COPY_P2P: it starts no DMA to other devices.
    VFIO_PHASE_QUIESCED = 4,
    /// Source: the device is in STOP_COPY and its data are still in it.
    VFIO_PHASE_COPYING = 5,
    /// Source: the device is in STOP_COPY and all its data are out.
    VFIO_PHASE_COPIED = 6,
    /// The device is in STOP. Source: the migration is over for this side. Destination: the new state is in it.
    VFIO_PHASE_STOPPED = 7,
    /// Destination: the device is in RESUMING and takes its first section.
    VFIO_PHASE_RESUMING = 8,
    /// Destination: the device is in RESUMING; the last section ended with the record `u.tag`.
    VFIO_PHASE_SECTION = 9,
    /// Destination: the device is in RUNNING_P2P: it works, and starts no DMA to other devices.
    VFIO_PHASE_RUNNING_P2P = 10,
    /// Destination: the device runs.
    VFIO_PHASE_RUNNING = 11,
    /// The migration failed: `u.failure`.
    VFIO_PHASE_FAILED = 12,
}

/// What went wrong first, whatever recovery met after it. Offsets count from the first byte of the section's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum vfio_cause_kind {
    /// The caller cancelled.
    VFIO_CAUSE_CANCELLED = 1,
    /// The kernel refused `state` with `code`.
    VFIO_CAUSE_REFUSED = 2,
    /// The device could not say how much PRE_COPY has left: `code`.
    VFIO_CAUSE_PRECOPY_INFO = 3,
    /// The device's data could not be read: `code`.
    VFIO_CAUSE_READ_DATA = 4,
    /// The device said "nothing now" in STOP_COPY, where only the end may follow the data.
    VFIO_CAUSE_DRAINED_IN_STOP_COPY = 5,
    /// The link refused bytes: `code`.
    VFIO_CAUSE_SEND = 6,
    /// The link took no byte: its other end is gone.
    VFIO_CAUSE_SEND_CLOSED = 7,
    /// The link refused the configuration's body: `code`.
    VFIO_CAUSE_SEND_CONFIG = 8,
    /// The link gave `code` in the place of the bytes at `offset`.
    VFIO_CAUSE_RECV = 9,
    /// The link ended at `offset`, inside a payload; the record wanted `missing` more bytes.
    VFIO_CAUSE_RECV_CLOSED = 10,
    /// The device refused the data at `offset`: `code`.
    VFIO_CAUSE_WRITE_DATA = 11,
    /// The device took no byte of the data at `offset`.
    VFIO_CAUSE_WRITE_DATA_ZERO = 12,
    /// The configuration's body at `offset` could not be read or is not this device's: `code`.
    VFIO_CAUSE_RECV_CONFIG = 13,
    /// A record's tag was wanted at `offset`, and no tag has the number `got`.
    VFIO_CAUSE_UNKNOWN_TAG = 14,
    /// The record `tag` wants an END_OF_STATE behind it, at `offset`, and there was `got`.
    VFIO_CAUSE_UNTERMINATED = 15,
    /// The record `tag` at `offset` is one that this session was not told to expect.
    VFIO_CAUSE_UNEXPECTED = 16,
}

/// Where a failed session left its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum vfio_left {
    /// In a state that is known.
    VFIO_LEFT_AT = 1,
    /// Reset: RUNNING, but the guest's state in it is gone and its interrupts must be armed again.
    VFIO_LEFT_RESET = 2,
    /// The reset was refused too. Nothing is known of the device.
    VFIO_LEFT_UNKNOWN = 3,
}

/// What a device says of its pre-copy data, VFIO_MIG_GET_PRECOPY_INFO.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct vfio_precopy_left {
    /// Bytes that the destination should have before the switchover for it to be quick.
    pub initial_bytes: u64,
    /// Bytes that have changed since they were read.
    pub dirty_bytes: u64,
    /// Whether the device has started its initial data anew (VFIO_PRECOPY_INFO_REINIT).
    pub reinit: u32,
}

/// How far the pre-copy of one device is.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct vfio_chunk {
    /// Bytes of data in the last chunk; 0 where the device had nothing: wait before the next.
    pub bytes: usize,
    /// What the device has left: its last answer less what was read since.
    pub left: vfio_precopy_left,
    /// Whether `left` is known: not before the first answer.
    pub left_known: u32,
    /// Whether INIT_DATA_SENT stands behind all initial data.
    pub init_data_sent: u32,
}

/// Why a session failed. What its kind does not name is 0.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct vfio_cause {
    /// Of enum vfio_cause_kind.
    pub kind: u32,
    /// Of enum vfio_state.
    pub state: u32,
    /// Of enum vfio_tag.
    pub tag: u32,
    /// The number with which kernel or link refused; an errno on Linux.
    pub code: i32,
    /// Where in the payload it was, in bytes.
    pub offset: u64,
    /// Bytes.
    pub missing: u64,
    /// The eight bytes that were there, as a big-endian number.
    pub got: u64,
}

/// How a session failed.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct vfio_failure {
    /// What went wrong first.
    pub cause: vfio_cause,
    /// Where the device is now, of enum vfio_left.
    pub left: u32,
    /// The device's state for VFIO_LEFT_AT, of enum vfio_state; RUNNING for VFIO_LEFT_RESET, otherwise 0.
    pub state: u32,
}

/// Where a session stands. It borrows nothing.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct vfio_phase {
    /// Of enum vfio_phase_kind; it says which member of `u` has a meaning, if any.
    pub kind: u32,
    /// What belongs to the kind.
    pub u: vfio_phase_of,
}

/// What belongs to a phase.
#[derive(Clone, Copy)]
#[repr(C)]
pub union vfio_phase_of {
    /// VFIO_PHASE_READY: of enum vfio_state.
    pub state: u32,
    /// VFIO_PHASE_PRE_COPY.
    pub chunk: vfio_chunk,
    /// VFIO_PHASE_SECTION: of enum vfio_tag, VFIO_TAG_END_OF_STATE or VFIO_TAG_INIT_DATA_SENT.
    pub tag: u32,
    /// VFIO_PHASE_FAILED.
    pub failure: vfio_failure,
}

// SAFETY: repr(C), of integers alone.
unsafe impl Plain for vfio_cause {}

// SAFETY: repr(C), of integers and a structure of integers.
unsafe impl Plain for vfio_failure {}

impl vfio_phase {
    pub(crate) fn of_source(phase: SourcePhase) -> Self {
        use vfio_phase_kind as kind;
        match phase {
            SourcePhase::Ready(state) => {
                Self::new(kind::VFIO_PHASE_READY, vfio_phase_of { state: state.raw() })
            }
            SourcePhase::SetUp => Self::alone(kind::VFIO_PHASE_SET_UP),
            SourcePhase::PreCopy(chunk) => {
                Self::new(kind::VFIO_PHASE_PRE_COPY, vfio_phase_of { chunk: chunk.into() })
            }
            SourcePhase::Quiesced => Self::alone(kind::VFIO_PHASE_QUIESCED),
            SourcePhase::Copying => Self::alone(kind::VFIO_PHASE_COPYING),
            SourcePhase::Copied => Self::alone(kind::VFIO_PHASE_COPIED),
            SourcePhase::Stopped => Self::alone(kind::VFIO_PHASE_STOPPED),
            SourcePhase::Failed(failure) => Self::failed(failure),
        }
    }

    pub(crate) fn of_destination(phase: DestinationPhase) -> Self {
        use vfio_phase_kind as kind;
        match phase {
            DestinationPhase::Ready(state) => {
                Self::new(kind::VFIO_PHASE_READY, vfio_phase_of { state: state.raw() })
            }
            DestinationPhase::Resuming => Self::alone(kind::VFIO_PHASE_RESUMING),
            DestinationPhase::Section(terminator) => {
                Self::new(kind::VFIO_PHASE_SECTION, vfio_phase_of { tag: vfio_tag::from(terminator) as u32 })
            }
            DestinationPhase::Stopped => Self::alone(kind::VFIO_PHASE_STOPPED),
            DestinationPhase::RunningP2p => Self::alone(kind::VFIO_PHASE_RUNNING_P2P),
            DestinationPhase::Running => Self::alone(kind::VFIO_PHASE_RUNNING),
            DestinationPhase::Failed(failure) => Self::failed(failure),
        }
    }

    fn new(kind: vfio_phase_kind, u: vfio_phase_of) -> Self {
        Self { kind: kind as u32, u }
    }

    fn alone(kind: vfio_phase_kind) -> Self {
        Self::new(kind, vfio_phase_of { state: 0 })
    }

    fn failed(failure: Failure) -> Self {
        Self::new(vfio_phase_kind::VFIO_PHASE_FAILED, vfio_phase_of { failure: failure.into() })
    }
}

impl From<PrecopyInfo> for vfio_precopy_left {
    fn from(info: PrecopyInfo) -> Self {
        let PrecopyInfo { initial_bytes, dirty_bytes, reinit } = info;
        Self { initial_bytes, dirty_bytes, reinit: reinit.into() }
    }
}

impl From<vfio_precopy_left> for PrecopyInfo {
    fn from(left: vfio_precopy_left) -> Self {
        let vfio_precopy_left { initial_bytes, dirty_bytes, reinit } = left;
        Self { initial_bytes, dirty_bytes, reinit: reinit != 0 }
    }
}

impl From<Chunk> for vfio_chunk {
    fn from(chunk: Chunk) -> Self {
        Self {
            bytes: chunk.bytes,
            left: chunk.left.unwrap_or_default().into(),
            left_known: chunk.left.is_some().into(),
            init_data_sent: chunk.init_data_sent.into(),
        }
    }
}

impl From<Failure> for vfio_failure {
    fn from(failure: Failure) -> Self {
        let (left, state) = match failure.device {
            Left::At(state) => (vfio_left::VFIO_LEFT_AT, state.raw()),
            Left::Reset => (vfio_left::VFIO_LEFT_RESET, State::Running.raw()),
            Left::Unknown => (vfio_left::VFIO_LEFT_UNKNOWN, 0),
        };
        Self { cause: failure.cause.into(), left: left as u32, state }
    }
}

impl TryFrom<vfio_failure> for Failure {
    type Error = vfio_status;

    fn try_from(raw: vfio_failure) -> Result<Self, vfio_status> {
        let device = match vfio_left::from_raw(raw.left)? {
            vfio_left::VFIO_LEFT_AT => Left::At(state(raw.state)?),
            vfio_left::VFIO_LEFT_RESET => Left::Reset,
            vfio_left::VFIO_LEFT_UNKNOWN => Left::Unknown,
        };
        Ok(Self { cause: raw.cause.try_into()?, device })
    }
}

impl From<Cause> for vfio_cause {
    fn from(cause: Cause) -> Self {
        use vfio_cause_kind as kind;
        let code = cause.code().map_or(0, |code| code.0);
        let offset = cause.offset().unwrap_or(0);
        let of = |kind: vfio_cause_kind| Self { code, offset, ..Self::new(kind) };
        match cause {
            Cause::Cancelled => of(kind::VFIO_CAUSE_CANCELLED),
            Cause::Refused { state, .. } => Self { state: state.raw(), ..of(kind::VFIO_CAUSE_REFUSED) },
            Cause::PrecopyInfo(_) => of(kind::VFIO_CAUSE_PRECOPY_INFO),
            Cause::ReadData(_) => of(kind::VFIO_CAUSE_READ_DATA),
            Cause::DrainedInStopCopy => of(kind::VFIO_CAUSE_DRAINED_IN_STOP_COPY),
            Cause::Send(_) => of(kind::VFIO_CAUSE_SEND),
            Cause::SendClosed => of(kind::VFIO_CAUSE_SEND_CLOSED),
            Cause::SendConfig(_) => of(kind::VFIO_CAUSE_SEND_CONFIG),
            Cause::Recv { .. } => of(kind::VFIO_CAUSE_RECV),
            Cause::RecvClosed { missing, .. } => Self { missing, ..of(kind::VFIO_CAUSE_RECV_CLOSED) },
            Cause::WriteData { .. } => of(kind::VFIO_CAUSE_WRITE_DATA),
            Cause::WriteDataZero { .. } => of(kind::VFIO_CAUSE_WRITE_DATA_ZERO),
            Cause::RecvConfig { .. } => of(kind::VFIO_CAUSE_RECV_CONFIG),
            Cause::Record(error) => error.into(),
            Cause::Unexpected { tag, .. } => {
                Self { tag: vfio_tag::from(tag) as u32, ..of(kind::VFIO_CAUSE_UNEXPECTED) }
            }
        }
    }
}

impl From<record::Error> for vfio_cause {
    fn from(error: record::Error) -> Self {
        match error {
            record::Error::UnknownTag { offset, got } => {
                Self { offset, got, ..Self::new(vfio_cause_kind::VFIO_CAUSE_UNKNOWN_TAG) }
            }
            record::Error::Unterminated { after, offset, got } => {
                let tag = vfio_tag::from(after) as u32;
                Self { tag, offset, got, ..Self::new(vfio_cause_kind::VFIO_CAUSE_UNTERMINATED) }
            }
        }
    }
}

impl vfio_cause {
    const fn new(kind: vfio_cause_kind) -> Self {
        Self { kind: kind as u32, state: 0, tag: 0, code: 0, offset: 0, missing: 0, got: 0 }
    }
}

impl TryFrom<vfio_cause> for Cause {
    type Error = vfio_status;

    fn try_from(raw: vfio_cause) -> Result<Self, vfio_status> {
        use vfio_cause_kind as of;
        let vfio_cause { offset, missing, got, .. } = raw;
        let code = Code(raw.code);
        Ok(match of::from_raw(raw.kind)? {
            of::VFIO_CAUSE_CANCELLED => Self::Cancelled,
            of::VFIO_CAUSE_REFUSED => Self::Refused { state: state(raw.state)?, code },
            of::VFIO_CAUSE_PRECOPY_INFO => Self::PrecopyInfo(code),
            of::VFIO_CAUSE_READ_DATA => Self::ReadData(code),
            of::VFIO_CAUSE_DRAINED_IN_STOP_COPY => Self::DrainedInStopCopy,
            of::VFIO_CAUSE_SEND => Self::Send(code),
            of::VFIO_CAUSE_SEND_CLOSED => Self::SendClosed,
            of::VFIO_CAUSE_SEND_CONFIG => Self::SendConfig(code),
            of::VFIO_CAUSE_RECV => Self::Recv { offset, code },
            of::VFIO_CAUSE_RECV_CLOSED => Self::RecvClosed { offset, missing },
            of::VFIO_CAUSE_WRITE_DATA => Self::WriteData { offset, code },
            of::VFIO_CAUSE_WRITE_DATA_ZERO => Self::WriteDataZero { offset },
            of::VFIO_CAUSE_RECV_CONFIG => Self::RecvConfig { offset, code },
            of::VFIO_CAUSE_UNKNOWN_TAG => Self::Record(record::Error::UnknownTag { offset, got }),
            of::VFIO_CAUSE_UNTERMINATED => {
                let after = vfio_tag::from_raw(raw.tag)?.into();
                Self::Record(record::Error::Unterminated { after, offset, got })
            }
            of::VFIO_CAUSE_UNEXPECTED => {
                Self::Unexpected { tag: vfio_tag::from_raw(raw.tag)?.into(), offset }
            }
        })
    }
}

/// The state with a number.
pub(crate) fn state(raw: u32) -> Result<State, vfio_status> {
    State::from_raw(raw).ok_or(vfio_status::VFIO_STATUS_UNKNOWN_VALUE)
}

numbered!(vfio_cause_kind {
    VFIO_CAUSE_CANCELLED,
    VFIO_CAUSE_REFUSED,
    VFIO_CAUSE_PRECOPY_INFO,
    VFIO_CAUSE_READ_DATA,
    VFIO_CAUSE_DRAINED_IN_STOP_COPY,
    VFIO_CAUSE_SEND,
    VFIO_CAUSE_SEND_CLOSED,
    VFIO_CAUSE_SEND_CONFIG,
    VFIO_CAUSE_RECV,
    VFIO_CAUSE_RECV_CLOSED,
    VFIO_CAUSE_WRITE_DATA,
    VFIO_CAUSE_WRITE_DATA_ZERO,
    VFIO_CAUSE_RECV_CONFIG,
    VFIO_CAUSE_UNKNOWN_TAG,
    VFIO_CAUSE_UNTERMINATED,
    VFIO_CAUSE_UNEXPECTED,
});

numbered!(vfio_left { VFIO_LEFT_AT, VFIO_LEFT_RESET, VFIO_LEFT_UNKNOWN });

// The numbers of the states are the uapi's, and so are core's.
const _: () = {
    use vfio_state as of;
    assert!(of::VFIO_STATE_ERROR as u32 == State::Error.raw());
    assert!(of::VFIO_STATE_STOP as u32 == State::Stop.raw());
    assert!(of::VFIO_STATE_RUNNING as u32 == State::Running.raw());
    assert!(of::VFIO_STATE_STOP_COPY as u32 == State::StopCopy.raw());
    assert!(of::VFIO_STATE_RESUMING as u32 == State::Resuming.raw());
    assert!(of::VFIO_STATE_RUNNING_P2P as u32 == State::RunningP2p.raw());
    assert!(of::VFIO_STATE_PRE_COPY as u32 == State::PreCopy.raw());
    assert!(of::VFIO_STATE_PRE_COPY_P2P as u32 == State::PreCopyP2p.raw());
};
