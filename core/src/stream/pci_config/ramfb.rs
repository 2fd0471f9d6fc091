//! The state of a display: a framebuffer in the guest's memory, in a subsection behind the body.
//!
//! QEMU writes it for a device with `ramfb=on` (`x-ramfb-migrate`), 8.2 and later.
//! Source: QEMU's `hw/vfio/pci.c`, `hw/vfio/display.c` and `hw/display/ramfb.c`.
//!
//! Deliberately absent: the picture. It is in the guest's memory.

use super::{Error, end_of_state, put};
use crate::stream::bytes::numbers;
use crate::stream::record::WORD;

/// A framebuffer in the guest's memory, as the guest has set it up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[doc(alias = "RAMFBCfg")]
pub struct Ramfb {
    /// Where it is in the guest's memory.
    pub address: u64,
    /// The format of its pixels, as DRM has them.
    pub fourcc: u32,
    /// None is defined.
    pub flags: u32,
    /// Pixels of a line.
    pub width: u32,
    /// Lines.
    pub height: u32,
    /// Bytes from line to line, or 0.
    pub stride: u32,
}

impl Ramfb {
    /// The state in the bytes that begin behind the body's fixed part, at `offset`; nothing where END_OF_STATE is there.
    pub(super) fn behind(bytes: &[u8], offset: usize) -> Result<Option<Self>, Error> {
        let short = |wanted| Error::Short { wanted: offset.saturating_add(wanted) };
        let word: &[u8; WORD] = bytes.first_chunk().ok_or(short(WORD))?;
        if !DISPLAY_HEAD.starts_with(word) {
            return end_of_state(word, offset).map(|()| None);
        }
        let (state, word): (_, &[u8; WORD]) = bytes
            .split_at_checked(DISPLAY)
            .and_then(|(state, rest)| Some((state, rest.first_chunk()?)))
            .ok_or(short(DISPLAY.saturating_add(WORD)))?;
        if let Some((at, (&got, _))) =
            state.iter().zip(DISPLAY_HEAD).enumerate().find(|(_, (got, wanted))| got != wanted)
        {
            return Err(Error::Display { offset: offset.saturating_add(at), got });
        }
        end_of_state(word, offset.saturating_add(DISPLAY))?;
        Ok(state.last_chunk().map(Self::from_bytes))
    }

    fn from_bytes(bytes: &[u8; CFG]) -> Self {
        let [high, low, fourcc, flags, width, height, stride] = numbers(bytes, u32::from_be_bytes);
        let address = u64::from(high) << 32 | u64::from(low);
        Self { address, fourcc, flags, width, height, stride }
    }

    /// Writes the state to the front of `out`, behind its name and version.
    pub(super) fn put(self, out: &mut &mut [u8]) -> Option<()> {
        put(out, DISPLAY_HEAD)?;
        put(out, &self.address.to_be_bytes())?;
        let rest = [self.fourcc, self.flags, self.width, self.height, self.stride];
        rest.into_iter().try_for_each(|number| put(out, &number.to_be_bytes()))
    }
}

/// What stands before the state of a display: the mark of a subsection, its name's length, its name, version 1.
pub(super) const DISPLAY_HEAD: &[u8; 31] = b"\x05\x19VFIOPCIDevice/VFIODisplay\0\0\0\x01";
/// The whole subsection.
pub(super) const DISPLAY: usize = DISPLAY_HEAD.len() + CFG;

const CFG: usize = 28;
