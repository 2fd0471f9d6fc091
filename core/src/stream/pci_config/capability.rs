//! The two lists of capabilities in a configuration space: ids, offsets, names.
//!
//! A list is a chain of offsets that its device, or whoever damaged the bytes, can lead anywhere. A walk ends at the
//! first offset that can't be followed and says so; each offset is visited once, so a walk is at most 48 capabilities
//! long, and an extended one 960.
//! Source: the PCI Local Bus Specification 3.0, 6.7, and PCI Express 7.9; the names are those of the kernel's
//! `pci_regs.h`.
//!
//! Deliberately absent: what stands in a capability. [`msi`](super::msi) reads the two that a CONFIG record depends on.

use core::fmt;
use core::iter::FusedIterator;

use super::space::Space;

/// What a capability is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Id {
    /// One of the first 256 bytes.
    Conventional(u8),
    /// One behind them.
    Extended {
        /// What it is.
        id: u16,
        /// The version of its layout, 0 to 15.
        version: u8,
    },
}

/// A capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Capability {
    /// Bytes from the begin of the configuration space.
    pub offset: u16,
    /// What it is.
    pub id: Id,
}

/// Why a list goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Broken {
    /// No capability can be at the next offset.
    Outside {
        /// Where the offset stands.
        pointer: u16,
        /// The offset.
        got: u16,
    },
    /// The list leads back to a capability that it has been at.
    Loop {
        /// Where the offset stands.
        pointer: u16,
        /// The offset.
        got: u16,
    },
}

impl Id {
    /// The name in the kernel's header without its prefix, for instance `MSIX`, or nothing where it has none.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        let names = match self {
            Self::Conventional(_) => NAMES,
            Self::Extended { .. } => EXTENDED_NAMES,
        };
        names.iter().find(|(id, _)| *id == self.raw()).map(|(_, name)| *name)
    }

    const fn raw(self) -> u16 {
        match self {
            Self::Conventional(id) => id as u16,
            Self::Extended { id, .. } => id,
        }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.pad(name),
            None => write!(f, "{:#x}", self.raw()),
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {:#x}", self.id, self.offset)
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Outside { pointer, got } => {
                write!(f, "wanted the offset of a capability at {pointer:#x}, got {got:#x}")
            }
            Self::Loop { pointer, got } => {
                write!(f, "wanted the offset of another capability at {pointer:#x}, got {got:#x} again")
            }
        }
    }
}

impl core::error::Error for Broken {}

/// A walk along one of the lists; ends after the first [`Broken`].
#[derive(Clone, Debug)]
pub struct Capabilities<'a> {
    space: Space<'a>,
    extended: bool,
    pointer: u16,
    next: u16,
    seen: [u64; 16],
}

impl<'a> Capabilities<'a> {
    /// The list of the first 256 bytes; empty where the device's status says so.
    pub(super) fn conventional(space: Space<'a>) -> Self {
        let there = space.status().has_capabilities();
        let next = if there { u16::from(space.u8(CAPABILITY_LIST)) } else { 0 };
        Self { space, extended: false, pointer: CAPABILITY_LIST, next, seen: [0; 16] }
    }

    /// The list behind them; empty where the first header says nothing.
    pub(super) fn extended(space: Space<'a>) -> Self {
        let there = !matches!(space.u32(EXTENDED_LIST), 0 | u32::MAX);
        let next = if there { EXTENDED_LIST } else { 0 };
        Self { space, extended: true, pointer: EXTENDED_LIST, next, seen: [0; 16] }
    }

    /// Reads the capability at `offset`, and where the next one is.
    fn read(&mut self, offset: u16) -> Capability {
        if self.extended {
            let [low, high, version, next] = self.space.u32(offset).to_le_bytes();
            self.pointer = offset.saturating_add(2);
            self.next = u16::from(next) << 4 | u16::from(version >> 4);
            let id = Id::Extended { id: u16::from_le_bytes([low, high]), version: version & 0xf };
            return Capability { offset, id };
        }
        self.pointer = offset.saturating_add(1);
        self.next = u16::from(self.space.u8(self.pointer));
        Capability { offset, id: Id::Conventional(self.space.u8(offset)) }
    }

    /// Whether a capability can be at `offset`.
    fn holds(&self, offset: u16) -> bool {
        let (first, behind) = if self.extended { (0x100, 0x1000) } else { (0x40, 0x100) };
        (first..behind).contains(&offset) && usize::from(offset) < self.space.length()
    }

    /// Marks `offset`, a multiple of 4, as seen; false where it was before.
    fn mark(&mut self, offset: u16) -> bool {
        let bit = 1_u64 << (offset / 4 % 64);
        let Some(seen) = self.seen.get_mut(usize::from(offset / 256)) else { return false };
        let new = *seen & bit == 0;
        *seen |= bit;
        new
    }
}

impl Iterator for Capabilities<'_> {
    type Item = Result<Capability, Broken>;

    fn next(&mut self) -> Option<Self::Item> {
        let (pointer, got) = (self.pointer, self.next);
        let offset = got & !3;
        if offset == 0 {
            return None;
        }
        self.next = 0;
        if !self.holds(offset) {
            return Some(Err(Broken::Outside { pointer, got }));
        }
        if !self.mark(offset) {
            return Some(Err(Broken::Loop { pointer, got }));
        }
        Some(Ok(self.read(offset)))
    }
}

impl FusedIterator for Capabilities<'_> {}

/// The ids that a CONFIG record's reader looks for.
pub(super) const MSI: Id = Id::Conventional(0x05);
pub(super) const MSIX: Id = Id::Conventional(0x11);

const CAPABILITY_LIST: u16 = 0x34;
const EXTENDED_LIST: u16 = 0x100;

const NAMES: &[(u16, &str)] = &[
    (0x01, "PM"),
    (0x02, "AGP"),
    (0x03, "VPD"),
    (0x04, "SLOTID"),
    (0x05, "MSI"),
    (0x06, "CHSWP"),
    (0x07, "PCIX"),
    (0x08, "HT"),
    (0x09, "VNDR"),
    (0x0a, "DBG"),
    (0x0b, "CCRC"),
    (0x0c, "SHPC"),
    (0x0d, "SSVID"),
    (0x0e, "AGP3"),
    (0x0f, "SECDEV"),
    (0x10, "EXP"),
    (0x11, "MSIX"),
    (0x12, "SATA"),
    (0x13, "AF"),
    (0x14, "EA"),
];

const EXTENDED_NAMES: &[(u16, &str)] = &[
    (0x01, "ERR"),
    (0x02, "VC"),
    (0x03, "DSN"),
    (0x04, "PWR"),
    (0x05, "RCLD"),
    (0x06, "RCILC"),
    (0x07, "RCEC"),
    (0x08, "MFVC"),
    (0x09, "VC9"),
    (0x0a, "RCRB"),
    (0x0b, "VNDR"),
    (0x0c, "CAC"),
    (0x0d, "ACS"),
    (0x0e, "ARI"),
    (0x0f, "ATS"),
    (0x10, "SRIOV"),
    (0x11, "MRIOV"),
    (0x12, "MCAST"),
    (0x13, "PRI"),
    (0x14, "AMD_XXX"),
    (0x15, "REBAR"),
    (0x16, "DPA"),
    (0x17, "TPH"),
    (0x18, "LTR"),
    (0x19, "SECPCI"),
    (0x1a, "PMUX"),
    (0x1b, "PASID"),
    (0x1d, "DPC"),
    (0x1e, "L1SS"),
    (0x1f, "PTM"),
    (0x23, "DVSEC"),
    (0x24, "VF_REBAR"),
    (0x25, "DLF"),
    (0x26, "PL_16GT"),
    (0x29, "NPEM"),
    (0x2a, "PL_32GT"),
    (0x2e, "DOE"),
    (0x2f, "DEV3"),
    (0x30, "IDE"),
    (0x31, "PL_64GT"),
];

#[cfg(test)]
mod tests {
    use super::*;

    type Walk = heapless::Vec<Result<Capability, Broken>, 1024>;

    /// A space of 256 bytes with a list from 0x40 on, in which each of `chain` is an offset, an id and the next offset.
    fn conventional(chain: &[(u8, u8, u8)]) -> [u8; 256] {
        let mut bytes = [0; 256];
        bytes[0x06] = 0x10;
        bytes[0x34] = 0x40;
        for &(offset, id, next) in chain {
            bytes[usize::from(offset)] = id;
            bytes[usize::from(offset) + 1] = next;
        }
        bytes
    }

    fn walk(bytes: &[u8]) -> Walk {
        Space::new(bytes).capabilities().collect()
    }

    fn capability(offset: u16, id: u8) -> Result<Capability, Broken> {
        Ok(Capability { offset, id: Id::Conventional(id) })
    }

    #[test]
    fn a_list_is_walked_to_its_end_in_its_own_order() {
        let bytes = conventional(&[(0x40, 0x10, 0xf8), (0xf8, 0x05, 0x6b), (0x68, 0x11, 0)]);
        assert_eq!(
            walk(&bytes)[..],
            [capability(0x40, 0x10), capability(0xf8, 0x05), capability(0x68, 0x11)],
            "the two low bits of an offset are none of it"
        );
    }

    #[test]
    fn a_device_that_has_no_list_has_no_capabilities() {
        let mut bytes = conventional(&[(0x40, 0x10, 0)]);
        bytes[0x06] = 0;
        assert!(walk(&bytes).is_empty());
        assert!(walk(&[]).is_empty());
    }

    #[test]
    fn a_loop_and_an_offset_to_nowhere_end_the_list_as_broken() {
        let bytes = conventional(&[(0x40, 0x10, 0x50), (0x50, 0x05, 0x41)]);
        let again = Err(Broken::Loop { pointer: 0x51, got: 0x41 });
        assert_eq!(walk(&bytes)[..], [capability(0x40, 0x10), capability(0x50, 0x05), again]);
        let bytes = conventional(&[(0x40, 0x10, 0x3c)]);
        let outside = Err(Broken::Outside { pointer: 0x41, got: 0x3c });
        assert_eq!(walk(&bytes)[..], [capability(0x40, 0x10), outside]);
        assert_eq!(walk(&bytes[..0x40])[..], [Err(Broken::Outside { pointer: 0x34, got: 0x40 })], "cut off");
    }

    #[test]
    fn an_extended_list_that_leads_to_the_first_256_bytes_or_says_nothing_is_none() {
        let mut bytes = [0; 4096];
        bytes[0x100..0x108].copy_from_slice(&[0x01, 0x00, 0x42, 0x10, 0x10, 0x00, 0x01, 0x0f]);
        let first = Ok(Capability { offset: 0x100, id: Id::Extended { id: 1, version: 2 } });
        let second = Ok(Capability { offset: 0x104, id: Id::Extended { id: 0x10, version: 1 } });
        let outside = Err(Broken::Outside { pointer: 0x106, got: 0xf0 });
        let walk: Walk = Space::new(&bytes).extended_capabilities().collect();
        assert_eq!(walk[..], [first, second, outside]);
        for nothing in [0, u8::MAX] {
            bytes[0x100..0x104].fill(nothing);
            assert_eq!(Space::new(&bytes).extended_capabilities().next(), None);
        }
        assert_eq!(Space::new(&bytes[..256]).extended_capabilities().next(), None);
    }

    #[test]
    fn the_longest_lists_have_48_and_960_capabilities() {
        let mut bytes = [0; 4096];
        bytes[0x06] = 0x10;
        bytes[0x34] = 0x40;
        for offset in (0x40_u8..=0xfc).step_by(4) {
            bytes[usize::from(offset) + 1] = offset.wrapping_add(4);
        }
        for offset in (0x100_u16..0x1000).step_by(4) {
            let next = if offset == 0xffc { 0x100 } else { offset + 4 };
            let [low, high] = (next << 4 | 1).to_le_bytes();
            bytes[usize::from(offset)..][..4].copy_from_slice(&[0x0b, 0x00, low, high]);
        }
        assert_eq!(walk(&bytes).iter().filter(|capability| capability.is_ok()).count(), 48);
        let extended: Walk = Space::new(&bytes).extended_capabilities().collect();
        assert_eq!(extended.len(), 961);
        assert_eq!(extended[960], Err(Broken::Loop { pointer: 0xffe, got: 0x100 }));
        let id = Id::Extended { id: 0x0b, version: 1 };
        assert_eq!(extended[959], Ok(Capability { offset: 0xffc, id }));
    }

    #[test]
    fn ids_have_the_kernels_names() {
        let table = [
            (Id::Conventional(0x01), Some("PM")),
            (Id::Conventional(0x05), Some("MSI")),
            (Id::Conventional(0x10), Some("EXP")),
            (Id::Conventional(0x11), Some("MSIX")),
            (Id::Conventional(0x14), Some("EA")),
            (Id::Conventional(0x00), None),
            (Id::Conventional(0x15), None),
            (Id::Extended { id: 0x0001, version: 2 }, Some("ERR")),
            (Id::Extended { id: 0x0010, version: 1 }, Some("SRIOV")),
            (Id::Extended { id: 0x001b, version: 1 }, Some("PASID")),
            (Id::Extended { id: 0x001d, version: 1 }, Some("DPC")),
            (Id::Extended { id: 0x0023, version: 1 }, Some("DVSEC")),
            (Id::Extended { id: 0x0026, version: 1 }, Some("PL_16GT")),
            (Id::Extended { id: 0x002a, version: 1 }, Some("PL_32GT")),
            (Id::Extended { id: 0x002e, version: 1 }, Some("DOE")),
            (Id::Extended { id: 0x0031, version: 1 }, Some("PL_64GT")),
            (Id::Extended { id: 0x001c, version: 1 }, None),
            (Id::Extended { id: 0xffff, version: 15 }, None),
        ];
        for (id, name) in table {
            assert_eq!(id.name(), name, "{id:?}");
        }
    }
}
