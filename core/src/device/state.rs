//! The device states and the migration features, with the uapi's names and numbers.
//!
//! Source: `enum vfio_device_mig_state` and `struct vfio_device_feature_migration` in `include/uapi/linux/vfio.h`.
//! Deliberately absent: which state follows which; that is [`arc`](super::arc).

use core::fmt;

/// A device's migration state, `enum vfio_device_mig_state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u32)]
pub enum State {
    /// The device has failed. Only a reset leaves this state, and it can't be asked for.
    #[doc(alias = "VFIO_DEVICE_STATE_ERROR")]
    Error = 0,
    /// The device does not change its own state and does no DMA.
    #[doc(alias = "VFIO_DEVICE_STATE_STOP")]
    Stop = 1,
    /// The device works; the state after open and after a reset.
    #[doc(alias = "VFIO_DEVICE_STATE_RUNNING")]
    Running = 2,
    /// The device is stopped and its state can be read.
    #[doc(alias = "VFIO_DEVICE_STATE_STOP_COPY")]
    StopCopy = 3,
    /// The device is stopped and a state can be written into it.
    #[doc(alias = "VFIO_DEVICE_STATE_RESUMING")]
    Resuming = 4,
    /// The device works, but starts no peer-to-peer DMA of its own.
    #[doc(alias = "VFIO_DEVICE_STATE_RUNNING_P2P")]
    RunningP2p = 5,
    /// The device works and the part of its state that can be copied early can be read.
    #[doc(alias = "VFIO_DEVICE_STATE_PRE_COPY")]
    PreCopy = 6,
    /// As [`State::PreCopy`], without peer-to-peer DMA of its own.
    #[doc(alias = "VFIO_DEVICE_STATE_PRE_COPY_P2P")]
    PreCopyP2p = 7,
}

impl State {
    /// Every state, in the order of the uapi's numbers.
    pub const ALL: [Self; 8] = [
        Self::Error,
        Self::Stop,
        Self::Running,
        Self::StopCopy,
        Self::Resuming,
        Self::RunningP2p,
        Self::PreCopy,
        Self::PreCopyP2p,
    ];

    /// The state with the uapi's number `raw`, or nothing where this version of the uapi has none.
    #[must_use]
    pub const fn from_raw(raw: u32) -> Option<Self> {
        Some(match raw {
            0 => Self::Error,
            1 => Self::Stop,
            2 => Self::Running,
            3 => Self::StopCopy,
            4 => Self::Resuming,
            5 => Self::RunningP2p,
            6 => Self::PreCopy,
            7 => Self::PreCopyP2p,
            _ => return None,
        })
    }

    /// The uapi's number of this state.
    #[must_use]
    pub const fn raw(self) -> u32 {
        self as u32
    }

    /// The uapi's name without its prefix, for instance `STOP_COPY`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "ERROR",
            Self::Stop => "STOP",
            Self::Running => "RUNNING",
            Self::StopCopy => "STOP_COPY",
            Self::Resuming => "RESUMING",
            Self::RunningP2p => "RUNNING_P2P",
            Self::PreCopy => "PRE_COPY",
            Self::PreCopyP2p => "PRE_COPY_P2P",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What a device's driver can do beside STOP_COPY, which every migratable device has.
#[doc(alias = "vfio_device_feature_migration")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Features {
    /// RUNNING_P2P, and with `pre_copy` also PRE_COPY_P2P.
    #[doc(alias = "VFIO_MIGRATION_P2P")]
    pub p2p: bool,
    /// PRE_COPY.
    #[doc(alias = "VFIO_MIGRATION_PRE_COPY")]
    pub pre_copy: bool,
}

impl Features {
    /// The four legal sets, in the order of their numbers: 1, 3, 5, 7.
    pub const ALL: [Self; 4] = [
        Self { p2p: false, pre_copy: false },
        Self { p2p: true, pre_copy: false },
        Self { p2p: false, pre_copy: true },
        Self { p2p: true, pre_copy: true },
    ];

    /// The features behind the `flags` of `VFIO_DEVICE_FEATURE_MIGRATION`, or nothing where STOP_COPY is missing:
    /// such a device can't be migrated. Bits that this version of the uapi does not have are ignored.
    #[must_use]
    pub const fn from_raw(flags: u64) -> Option<Self> {
        if flags & STOP_COPY == 0 {
            return None;
        }
        Some(Self { p2p: flags & P2P != 0, pre_copy: flags & PRE_COPY != 0 })
    }

    /// The uapi's `flags` of this set.
    #[must_use]
    pub const fn raw(self) -> u64 {
        STOP_COPY | if self.p2p { P2P } else { 0 } | if self.pre_copy { PRE_COPY } else { 0 }
    }

    /// Whether a device with these features has `state`.
    #[must_use]
    pub const fn have(self, state: State) -> bool {
        match state {
            State::Error | State::Stop | State::Running | State::StopCopy | State::Resuming => true,
            State::RunningP2p => self.p2p,
            State::PreCopy => self.pre_copy,
            State::PreCopyP2p => self.p2p && self.pre_copy,
        }
    }
}

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.p2p, self.pre_copy) {
            (false, false) => "STOP_COPY",
            (true, false) => "STOP_COPY P2P",
            (false, true) => "STOP_COPY PRE_COPY",
            (true, true) => "STOP_COPY P2P PRE_COPY",
        })
    }
}

const STOP_COPY: u64 = 1 << 0;
const P2P: u64 = 1 << 1;
const PRE_COPY: u64 = 1 << 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_survives_its_number_and_the_next_number_is_none() {
        for (number, state) in (0..).zip(State::ALL) {
            assert_eq!(state.raw(), number);
            assert_eq!(State::from_raw(number), Some(state));
        }
        assert_eq!(State::from_raw(8), None);
        assert_eq!(State::from_raw(u32::MAX), None);
    }

    #[test]
    fn features_without_stop_copy_are_none_and_unknown_bits_are_ignored() {
        for flags in [0, 2, 4, 6, 1 << 63] {
            assert_eq!(Features::from_raw(flags), None, "{flags:#x}");
        }
        for features in Features::ALL {
            assert_eq!(Features::from_raw(features.raw()), Some(features));
            assert_eq!(Features::from_raw(features.raw() | 0xff00), Some(features));
        }
        assert_eq!(Features::ALL.map(Features::raw), [1, 3, 5, 7]);
    }
}
