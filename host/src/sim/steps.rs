//! The steps between two states, searched in the graph of the uapi's single steps.
//!
//! Deliberately absent: what a step does to a data session, and `vfio_migration_core::device::arc`, against which the
//! tests hold this.

use std::collections::VecDeque;

use vfio_migration_core::device::{Features, State};

/// The states from `from` to `to`, without `from`, or nothing where the kernel answers EINVAL.
///
/// The uapi's rules: the shortest way; no saving state inside it unless both of its ends are; never back from STOP_COPY
/// to pre-copy; a state that the device does not have is skipped. With ERROR no way begins or ends.
#[must_use]
pub fn steps(features: Features, from: State, to: State) -> Option<Vec<State>> {
    let back = from == State::StopCopy && matches!(to, State::PreCopy | State::PreCopyP2p);
    if back || !exists(features, from) || !exists(features, to) {
        return None;
    }
    let may_pass = |state| state == to || !is_saving(state) || (is_saving(from) && is_saving(to));
    let mut ways = VecDeque::from([(from, Vec::new())]);
    while let Some((end, way)) = ways.pop_front() {
        if end == to {
            return Some(way.into_iter().filter(|state| exists(features, *state)).collect());
        }
        for next in ahead(end).iter().filter(|next| may_pass(**next) && !way.contains(next)) {
            ways.push_back((*next, [&way[..], &[*next]].concat()));
        }
    }
    None
}

pub(super) fn is_saving(state: State) -> bool {
    matches!(state, State::PreCopy | State::PreCopyP2p | State::StopCopy)
}

/// The single steps of a device that has every state (uapi, comment above `enum vfio_device_mig_state`). Their order
/// decides nothing.
fn ahead(state: State) -> &'static [State] {
    match state {
        State::Error => &[],
        State::Stop => &[State::RunningP2p, State::Resuming, State::StopCopy],
        State::Running => &[State::PreCopy, State::RunningP2p],
        State::StopCopy | State::Resuming => &[State::Stop],
        State::RunningP2p => &[State::PreCopyP2p, State::Running, State::Stop],
        State::PreCopy => &[State::PreCopyP2p, State::Running],
        State::PreCopyP2p => &[State::PreCopy, State::RunningP2p, State::StopCopy],
    }
}

/// The `state_flags_table` of the kernel's `vfio_mig_get_next_state`.
fn exists(features: Features, state: State) -> bool {
    let needed = match state {
        State::Error => u64::MAX,
        State::Stop | State::Running | State::StopCopy | State::Resuming => 1,
        State::RunningP2p => 1 | 2,
        State::PreCopy => 1 | 4,
        State::PreCopyP2p => 1 | 2 | 4,
    };
    features.raw() & needed == needed
}
