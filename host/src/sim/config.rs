//! What a simulated device is made of.
//!
//! Deliberately absent: the text form; that is `text`'s.

use std::num::NonZeroUsize;
use std::time::Duration;

use vfio_migration_core::device::Features;

use super::fault::{Call, Fault};
use super::format::{HEADER_LEN, Layout};
use super::space::Pci;
use super::text::ConfigError;

/// The largest content in bytes.
pub const SIZE_MAX: u64 = if usize::BITS < 64 { GIB } else { 4 * GIB };

/// What a simulated device is made of. As text: `size=64MiB,seed=7,flags=7`; the table of keys is at
/// [`sim`](super).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub(super) size: usize,
    pub(super) seed: u64,
    pub(super) features: Features,
    /// How the device behaves in PRE_COPY, where it has it.
    pub precopy: Precopy,
    /// What MIG_DATA_SIZE says, in bytes; nothing for the exact size.
    pub data_size: Option<u64>,
    /// Which PCI function the device is; nothing for one that is none.
    pub pci: Option<Pci>,
    /// How quick the device is.
    pub pace: Pace,
    /// What fails.
    pub faults: Vec<Fault>,
    /// The calls just before which the guest resets the device.
    pub guest_resets: Vec<Call>,
}

/// How a device behaves in PRE_COPY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Precopy {
    /// How many bytes of the state are initial data: the header and then content. Fewer than [`HEADER_LEN`] mean the
    /// header alone, more than the state has mean all of it (up to 4 GiB).
    pub initial: u64,
    /// How many bytes of content the guest changes in each round, at most all of them. The first round begins at the
    /// content's beginning, each later one where the last has ended, and round at the end. The changes come from the
    /// seed and leave no byte as it was.
    pub dirty: u64,
    /// After how many rounds the guest changes nothing more; nothing: never.
    pub dirty_for: Option<u64>,
    /// When the next round comes.
    pub increment: Increment,
    /// After how many rounds the device starts its initial data anew, once in a session, in the place of a round.
    pub reinit: Option<u64>,
    /// Whether the kernel knows `VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2`.
    pub v2: bool,
    /// What a read says that finds nothing now.
    pub drained: Drained,
    /// What PRECOPY_INFO does with its caller's structure.
    pub info: Info,
}

/// When a round comes: the guest changes content, and whatever has changed since the last round can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Increment {
    /// With each PRECOPY_INFO that finds nothing left to read, as mlx5 and virtio do: it counts what it has just made
    /// ready, and without it no more data ever come.
    Asked,
    /// With each read that finds nothing and says so. PRECOPY_INFO starts nothing.
    Always,
}

/// What a read in PRE_COPY says that finds nothing now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// ENOMSG, as the uapi wants it.
    NoMsg,
    /// 0, as three drivers of Linux do.
    Zero,
}

/// What PRECOPY_INFO does with its caller's structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Info {
    /// It sets every field.
    Zeroed,
    /// As mlx5: it sets `initial_bytes` while there are some, else `dirty_bytes`, and leaves the other one; `flags` it
    /// leaves unless it was opted in.
    Stale,
}

/// How quick a device is. The time passes for real.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// How many bytes a read or a write takes at most; nothing: all.
    pub short: Option<NonZeroUsize>,
    /// How long each read and each write takes.
    pub slow: Duration,
    /// How long each step of a SET takes, in which the device answers nothing else.
    pub slow_set: Duration,
}

impl Config {
    /// A healthy device with `size` bytes of content made from `seed`, and with the header alone in PRE_COPY.
    ///
    /// # Errors
    /// [`ConfigError::TooBig`] above [`SIZE_MAX`].
    pub fn new(size: u64, seed: u64, features: Features) -> Result<Self, ConfigError> {
        let too_big = ConfigError::TooBig { got: size };
        let bytes = usize::try_from(size).ok().filter(|_| size <= SIZE_MAX).ok_or(too_big)?;
        Ok(Self { size: bytes, seed, features, ..Self::default() })
    }

    /// How the state is laid out that a session gives from PRE_COPY on. One that begins in STOP_COPY is plain.
    pub(super) fn layout(&self) -> Layout {
        let Precopy { initial, dirty, reinit, .. } = self.precopy;
        if initial <= HEADER_LEN as u64 && dirty == 0 && reinit.is_none() {
            return Layout::Plain;
        }
        let wanted = initial.saturating_sub(HEADER_LEN as u64).min(u64::from(u32::MAX));
        Layout::Records { initial: self.within(wanted) }
    }

    /// `wanted` bytes of content, or as many as there are.
    pub(super) fn within(&self, wanted: u64) -> usize {
        usize::try_from(wanted).map_or(self.size, |wanted| wanted.min(self.size))
    }
}

impl Default for Config {
    /// 64 MiB from seed 0, with every feature.
    fn default() -> Self {
        Self {
            size: 64 << 20,
            seed: 0,
            features: Features { p2p: true, pre_copy: true },
            precopy: Precopy::default(),
            data_size: None,
            pci: None,
            pace: Pace::default(),
            faults: Vec::new(),
            guest_resets: Vec::new(),
        }
    }
}

impl Default for Precopy {
    /// The header, and a guest that changes nothing.
    fn default() -> Self {
        Self {
            initial: HEADER_LEN as u64,
            dirty: 0,
            dirty_for: None,
            increment: Increment::Asked,
            reinit: None,
            v2: true,
            drained: Drained::NoMsg,
            info: Info::Zeroed,
        }
    }
}

const GIB: u64 = 1 << 30;
