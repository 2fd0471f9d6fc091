//! Message signalled interrupts: the MSI and MSI-X capabilities, and the MSI-X table with its pending bits.
//!
//! Source: the PCI Local Bus Specification 3.0, 6.8; the names are those of the kernel's `pci_regs.h`.
//!
//! Deliberately absent: what a guest's addresses mean. An interrupt controller knows.

use core::iter::FusedIterator;

use super::space::Space;
use crate::stream::bytes::numbers;

/// Bytes of an entry of the MSI-X table.
#[doc(alias = "PCI_MSIX_ENTRY_SIZE")]
pub const ENTRY: usize = 16;

/// The MSI capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Msi {
    /// Whether the device sends messages.
    pub enabled: bool,
    /// How many vectors the device can have: a power of two, 1 to 32, or 64 and 128, which are reserved.
    pub capable: u8,
    /// How many vectors it was given; the same numbers.
    pub vectors: u8,
    /// Whether its address has 64 bits.
    pub wide: bool,
    /// Where a message goes.
    pub address: u64,
    /// What is written there for the first vector.
    pub data: u16,
    /// A bit for each vector that is masked; nothing where vectors can't be masked.
    pub mask: Option<u32>,
    /// A bit for each vector that is pending; nothing where vectors can't be masked.
    pub pending: Option<u32>,
}

/// The MSI-X capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Msix {
    /// Whether the device sends messages by its table.
    pub enabled: bool,
    /// Whether all vectors are masked.
    pub masked: bool,
    /// The entries of the table: 1 to 2048.
    pub vectors: u16,
    /// Where the table is.
    pub table: Place,
    /// Where the pending bits are.
    pub pending: Place,
}

/// A place in a BAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Place {
    /// The number of the BAR: 0 to 5, or 6 and 7, which are reserved.
    pub bar: u8,
    /// Bytes from the BAR's begin.
    pub offset: u32,
}

/// An entry of the MSI-X table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Vector {
    /// Its number, from 0 on.
    pub index: u16,
    /// Where its message goes.
    pub address: u64,
    /// What is written there.
    pub data: u32,
    /// Whether it is masked.
    pub masked: bool,
    /// Whether its message waits for the mask to be lifted.
    pub pending: bool,
}

impl Msi {
    /// The capability at `offset` of a configuration space.
    pub(super) fn at(space: Space<'_>, offset: u16) -> Self {
        let register = |distance| offset.saturating_add(distance);
        let flags = space.u16(register(2));
        let wide = flags & MSI_64BIT != 0;
        let high = if wide { space.u32(register(8)) } else { 0 };
        let (data, mask) = if wide { (12, 16) } else { (8, 12) };
        let maskable = flags & MSI_MASKBIT != 0;
        Self {
            enabled: flags & MSI_ENABLE != 0,
            capable: 1 << (flags >> 1 & 7),
            vectors: 1 << (flags >> 4 & 7),
            wide,
            address: u64::from(high) << 32 | u64::from(space.u32(register(4))),
            data: space.u16(register(data)),
            mask: maskable.then(|| space.u32(register(mask))),
            pending: maskable.then(|| space.u32(register(mask).saturating_add(4))),
        }
    }
}

impl Msix {
    /// The capability at `offset` of a configuration space.
    pub(super) fn at(space: Space<'_>, offset: u16) -> Self {
        let register = |distance| offset.saturating_add(distance);
        let flags = space.u16(register(2));
        Self {
            enabled: flags & MSIX_ENABLE != 0,
            masked: flags & MSIX_MASKALL != 0,
            vectors: (flags & MSIX_QSIZE).saturating_add(1),
            table: Place::from_raw(space.u32(register(4))),
            pending: Place::from_raw(space.u32(register(8))),
        }
    }
}

impl Place {
    const fn from_raw(raw: u32) -> Self {
        let [low, ..] = raw.to_le_bytes();
        Self { bar: low & 7, offset: raw & !7 }
    }
}

/// The vectors of an MSI-X table, in order.
#[derive(Clone, Debug)]
pub struct Vectors<'a> {
    table: &'a [u8],
    pending: &'a [u8],
    index: u16,
}

impl<'a> Vectors<'a> {
    /// The vectors of the whole entries in `table`; a bit that `pending` has not is 0.
    #[must_use]
    pub const fn new(table: &'a [u8], pending: &'a [u8]) -> Self {
        Self { table, pending, index: 0 }
    }
}

impl Iterator for Vectors<'_> {
    type Item = Vector;

    fn next(&mut self) -> Option<Vector> {
        let (entry, rest) = self.table.split_first_chunk::<ENTRY>()?;
        let index = self.index;
        self.index = index.checked_add(1)?;
        self.table = rest;
        let [low, high, data, control] = numbers(entry, u32::from_le_bytes);
        let bits = self.pending.get(usize::from(index / 8)).copied().unwrap_or_default();
        Some(Vector {
            index,
            address: u64::from(high) << 32 | u64::from(low),
            data,
            masked: control & ENTRY_MASKBIT != 0,
            pending: bits >> (index % 8) & 1 != 0,
        })
    }
}

impl FusedIterator for Vectors<'_> {}

const MSI_ENABLE: u16 = 0x0001;
const MSI_64BIT: u16 = 0x0080;
const MSI_MASKBIT: u16 = 0x0100;
const MSIX_QSIZE: u16 = 0x07ff;
const MSIX_MASKALL: u16 = 0x4000;
const MSIX_ENABLE: u16 = 0x8000;
const ENTRY_MASKBIT: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    /// A space of 0x60 bytes that has one capability, at 0x40.
    fn space(capability: &[u8]) -> [u8; 0x60] {
        let mut bytes = [0; 0x60];
        bytes[0x06] = 0x10;
        bytes[0x34] = 0x40;
        bytes[0x40..][..capability.len()].copy_from_slice(capability);
        bytes
    }

    #[test]
    fn msi_of_32_bits_without_a_mask_is_read() {
        let bytes = space(&[0x05, 0, 0x11, 0x00, 0x00, 0x10, 0xe0, 0xfe, 0x41, 0x40]);
        let wanted = Msi {
            enabled: true,
            capable: 1,
            vectors: 2,
            wide: false,
            address: 0xfee0_1000,
            data: 0x4041,
            mask: None,
            pending: None,
        };
        assert_eq!(Space::new(&bytes).msi(), Some(wanted));
        assert_eq!(Space::new(&bytes).msix(), None);
    }

    #[test]
    fn msi_of_64_bits_with_a_mask_is_read() {
        let bytes = space(&[
            0x05, 0, 0x8a, 0x01, 0x00, 0x10, 0xe0, 0xfe, 0x02, 0, 0, 0, 0x41, 0x40, 0, 0, 3, 0, 0, 0, 2, 0,
            0, 0,
        ]);
        let wanted = Msi {
            enabled: false,
            capable: 32,
            vectors: 1,
            wide: true,
            address: 0x2_fee0_1000,
            data: 0x4041,
            mask: Some(3),
            pending: Some(2),
        };
        assert_eq!(Space::new(&bytes).msi(), Some(wanted));
    }

    #[test]
    fn msi_of_32_bits_with_a_mask_has_it_behind_its_data() {
        let bytes = space(&[0x05, 0, 0x01, 0x01, 0, 0, 0xe0, 0xfe, 0x41, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0x80]);
        let msi = Space::new(&bytes).msi().unwrap();
        assert_eq!((msi.address, msi.data), (0xfee0_0000, 0x41));
        assert_eq!((msi.mask, msi.pending), (Some(1), Some(0x8000_0000)));
    }

    #[test]
    fn msix_of_every_size_is_read() {
        for (low, high, enabled, masked, vectors) in [
            (0x00, 0x00, false, false, 1),
            (0x07, 0x80, true, false, 8),
            (0x08, 0xc0, true, true, 9),
            (0xff, 0x47, false, true, 2048),
        ] {
            let bytes = space(&[0x11, 0, low, high, 0x03, 0x20, 0, 0, 0x04, 0x30, 0, 0x10]);
            let table = Place { bar: 3, offset: 0x2000 };
            let pending = Place { bar: 4, offset: 0x1000_3000 };
            assert_eq!(Space::new(&bytes).msix(), Some(Msix { enabled, masked, vectors, table, pending }));
        }
    }

    #[test]
    fn vectors_have_their_own_pending_bit() {
        let mut table = [0; ENTRY * 10];
        table[ENTRY..][..ENTRY]
            .copy_from_slice(&[0x00, 0x10, 0xe0, 0xfe, 1, 0, 0, 0, 0x42, 0x40, 0, 0, 1, 0, 0, 0]);
        let second = Vector { index: 1, address: 0x1_fee0_1000, data: 0x4042, masked: true, pending: false };
        let vectors: heapless::Vec<Vector, 16> = Vectors::new(&table, &[0x84, 0x02]).collect();
        assert_eq!(vectors.len(), 10);
        assert_eq!(vectors[1], second);
        let pending: heapless::Vec<u16, 16> =
            vectors.iter().filter(|vector| vector.pending).map(|vector| vector.index).collect();
        assert_eq!(pending[..], [2, 7, 9]);
    }

    #[test]
    fn what_is_no_whole_entry_is_no_vector_and_a_missing_bit_is_not_pending() {
        let table = [0xff; ENTRY * 2 - 1];
        let [only] = Vectors::new(&table, &[]).collect::<heapless::Vec<Vector, 2>>()[..] else { panic!() };
        assert_eq!((only.masked, only.pending), (true, false));
    }
}
