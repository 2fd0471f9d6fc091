//! What to try after the kernel has refused an arc, and when only a reset is left.
//!
//! A refused SET may leave the device in its old state, in any state on the way, or in ERROR (uapi, comment on
//! `VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE`), so the next try names a state that can be reached from all of them.
//! A refused recovery leads to a reset; after a refused reset nothing is known of the device.
//!
//! Deliberately absent: trying the same arc again. A driver that refused once has given its answer.

use super::State;

/// The next thing to ask of a device that has refused an arc.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Recovery {
    /// Ask for this state.
    SetState(State),
    /// Reset the device: it ends in RUNNING, the guest's state in it is gone and its interrupts must be armed again.
    Reset,
}

/// What to try when `wanted` was refused by a device whose migration began in `came_from`. `quiescing` says that the
/// arc was to take a live source's device from peer-to-peer DMA: it goes back to RUNNING then, with its content.
#[must_use]
pub const fn after_refusal(wanted: State, came_from: State, quiescing: bool) -> Recovery {
    match wanted {
        State::RunningP2p | State::PreCopyP2p if quiescing => Recovery::SetState(State::Running),
        State::PreCopy => Recovery::SetState(State::Running),
        State::StopCopy => Recovery::SetState(State::Stop),
        State::Resuming => Recovery::SetState(came_from),
        State::Error | State::Stop | State::Running | State::RunningP2p | State::PreCopyP2p => {
            Recovery::Reset
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_has_its_recovery() {
        use State::{PreCopy, PreCopyP2p, Resuming, Running, RunningP2p, Stop, StopCopy};
        let table = [
            (PreCopy, Running, Recovery::SetState(Running)),
            (PreCopyP2p, Running, Recovery::Reset),
            (StopCopy, Running, Recovery::SetState(Stop)),
            (StopCopy, Stop, Recovery::SetState(Stop)),
            (Resuming, Running, Recovery::SetState(Running)),
            (Resuming, Stop, Recovery::SetState(Stop)),
            (Stop, Running, Recovery::Reset),
            (Running, Running, Recovery::Reset),
            (RunningP2p, Running, Recovery::Reset),
        ];
        for (wanted, came_from, recovery) in table {
            assert_eq!(after_refusal(wanted, came_from, false), recovery, "{wanted} from {came_from}");
        }
        for wanted in [RunningP2p, PreCopyP2p] {
            assert_eq!(
                after_refusal(wanted, Running, true),
                Recovery::SetState(Running),
                "quiescing by {wanted}"
            );
        }
        assert_eq!(after_refusal(Stop, Running, true), Recovery::Reset);
    }
}
