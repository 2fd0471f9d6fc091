//! Which step follows, and what an arc does to the data session.
//!
//! The kernel takes the shortest way from the current to the requested state, one step at a time, and skips states
//! that the driver does not have. A state in which data can be read lies on the way only between two such states.
//! STOP_COPY never goes back to PRE_COPY, and ERROR can neither be requested nor left.
//! Source: the comment above `enum vfio_device_mig_state` in the uapi header; the tests hold these functions against
//! the answers of the kernel's own `vfio_mig_get_next_state`.
//!
//! Deliberately absent: what to do when the kernel refuses; that is [`recover`](super::recover).

use heapless::Vec;

use super::{Features, State};

/// The most steps that any arc takes, for instance PRE_COPY → RUNNING → RUNNING_P2P → STOP → RESUMING.
pub const LONGEST_PATH: usize = 4;

/// What an arc does to the data session, the `data_fd` of `VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum DataSession {
    /// Neither end of the arc has a session.
    Absent,
    /// The arc starts a session: the kernel returns a new `data_fd`.
    Opens,
    /// The session goes on with the `data_fd` that is already there; the kernel returns -1.
    Kept,
    /// The session is over: the old `data_fd` answers ENODEV and must be closed.
    Ends,
    /// The old session is over and a new one starts: close the old `data_fd`, take the new one.
    Replaced,
}

impl DataSession {
    /// Whether the kernel returns a new `data_fd` with the arc.
    #[must_use]
    pub const fn returns_data_fd(self) -> bool {
        match self {
            Self::Opens | Self::Replaced => true,
            Self::Absent | Self::Kept | Self::Ends => false,
        }
    }
}

/// The single step that the kernel takes first from `from` towards `to`, `from` itself where they are equal, or
/// nothing where it refuses with EINVAL.
#[doc(alias = "vfio_mig_get_next_state")]
#[must_use]
pub fn next(features: Features, from: State, to: State) -> Option<State> {
    if !features.have(from) || !features.have(to) {
        return None;
    }
    let mut step = full_step(from, to)?;
    while !features.have(step) {
        step = full_step(step, to)?;
    }
    Some(step)
}

/// All steps from `from` to `to`, without `from`; empty where they are equal, nothing where the kernel refuses.
#[must_use]
pub fn path(features: Features, from: State, to: State) -> Option<Vec<State, LONGEST_PATH>> {
    let mut steps = Vec::new();
    let mut current = from;
    loop {
        let step = next(features, current, to)?;
        if step == current {
            return Some(steps);
        }
        steps.push(step).ok()?;
        current = step;
    }
}

/// What the arc from `from` to `to` does to the data session, or nothing where the kernel refuses the arc.
#[must_use]
pub fn data_session(features: Features, from: State, to: State) -> Option<DataSession> {
    next(features, from, to)?;
    Some(match (direction(from), direction(to)) {
        (None, None) => DataSession::Absent,
        (None, Some(_)) => DataSession::Opens,
        (Some(_), None) => DataSession::Ends,
        (Some(old), Some(new)) if old == new => DataSession::Kept,
        (Some(_), Some(_)) => DataSession::Replaced,
    })
}

/// Where data goes in a state that has a session.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Saving,
    Resuming,
}

fn direction(state: State) -> Option<Direction> {
    match state {
        State::PreCopy | State::PreCopyP2p | State::StopCopy => Some(Direction::Saving),
        State::Resuming => Some(Direction::Resuming),
        State::Error | State::Stop | State::Running | State::RunningP2p => None,
    }
}

/// The first step of a device that has every state.
fn full_step(from: State, to: State) -> Option<State> {
    use State::{Error, PreCopy, PreCopyP2p, Resuming, Running, RunningP2p, Stop, StopCopy};
    Some(match (from, to) {
        (Error, _) | (_, Error) | (StopCopy, PreCopy | PreCopyP2p) => return None,
        (from, to) if from == to => to,
        (Stop, StopCopy | Resuming) => to,
        (Stop, _) => RunningP2p,
        (StopCopy | Resuming, _) => Stop,
        (Running, PreCopy) => PreCopy,
        (Running, _) => RunningP2p,
        (RunningP2p, PreCopyP2p) => PreCopyP2p,
        (RunningP2p, Running | PreCopy) => Running,
        (RunningP2p, _) => Stop,
        (PreCopy, PreCopyP2p | StopCopy) => PreCopyP2p,
        (PreCopy, _) => Running,
        (PreCopyP2p, PreCopy | StopCopy) => to,
        (PreCopyP2p, _) => RunningP2p,
    })
}
