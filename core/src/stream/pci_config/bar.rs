//! Base address registers: what a device maps, and where.
//!
//! Source: the PCI Local Bus Specification 3.0, 6.2.5.
//!
//! Deliberately absent: sizes. A device tells them only when it is asked, and a saved space does not hold them.

use core::fmt;
use core::iter::FusedIterator;

use super::space::{HeaderType, Space};

/// A base address register that is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Bar {
    /// Its number, 0 to 5; one of 64 bits takes two.
    pub index: u8,
    /// What it maps.
    pub kind: BarKind,
    /// Where, in the space that it maps to.
    pub base: u64,
}

/// What a base address register maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum BarKind {
    /// Ports.
    Io,
    /// Memory below 4 GiB.
    Mem32 {
        /// Whether reads have no side effect.
        prefetchable: bool,
    },
    /// Memory below 1 MiB, no longer in use.
    Mem1M {
        /// Whether reads have no side effect.
        prefetchable: bool,
    },
    /// Memory anywhere. As the last register it lacks its upper half.
    Mem64 {
        /// Whether reads have no side effect.
        prefetchable: bool,
    },
    /// Memory of a type that is reserved.
    Reserved {
        /// Whether reads have no side effect.
        prefetchable: bool,
    },
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {:#x}", self.kind, self.base)
    }
}

impl BarKind {
    /// The kind of memory or ports, for instance `mem64`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Io => "io",
            Self::Mem32 { .. } => "mem32",
            Self::Mem1M { .. } => "mem1m",
            Self::Mem64 { .. } => "mem64",
            Self::Reserved { .. } => "reserved",
        }
    }

    /// Whether it is memory whose reads have no side effect.
    #[must_use]
    pub const fn is_prefetchable(self) -> bool {
        match self {
            Self::Io => false,
            Self::Mem32 { prefetchable }
            | Self::Mem1M { prefetchable }
            | Self::Mem64 { prefetchable }
            | Self::Reserved { prefetchable } => prefetchable,
        }
    }

    const fn from_raw(raw: u32) -> Self {
        let prefetchable = raw & 8 != 0;
        match raw & 7 {
            0 => Self::Mem32 { prefetchable },
            2 => Self::Mem1M { prefetchable },
            4 => Self::Mem64 { prefetchable },
            6 => Self::Reserved { prefetchable },
            _ => Self::Io,
        }
    }
}

impl fmt::Display for BarKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        f.write_str(if self.is_prefetchable() { " prefetchable" } else { "" })
    }
}

/// The BARs that are in use, in order.
#[derive(Clone, Debug)]
pub struct Bars<'a> {
    space: Space<'a>,
    index: u8,
    behind: u8,
}

impl<'a> Bars<'a> {
    /// The BARs of a header of its type.
    pub(super) fn new(space: Space<'a>) -> Self {
        let behind = match space.header_type() {
            Some(HeaderType::Normal) => 6,
            Some(HeaderType::Bridge) => 2,
            Some(HeaderType::CardBus) | None => 0,
        };
        Self { space, index: 0, behind }
    }

    /// The next register's value, or nothing behind the last.
    fn register(&mut self) -> Option<u32> {
        if self.index >= self.behind {
            return None;
        }
        let offset = 0x10_u16.saturating_add(u16::from(self.index).saturating_mul(4));
        self.index = self.index.saturating_add(1);
        Some(self.space.u32(offset))
    }
}

impl Iterator for Bars<'_> {
    type Item = Bar;

    fn next(&mut self) -> Option<Bar> {
        loop {
            let index = self.index;
            let raw = self.register()?;
            let kind = BarKind::from_raw(raw);
            let (mask, high) = match kind {
                BarKind::Io => (!3, 0),
                BarKind::Mem64 { .. } => (!0xf, self.register().unwrap_or_default()),
                BarKind::Mem32 { .. } | BarKind::Mem1M { .. } | BarKind::Reserved { .. } => (!0xf, 0),
            };
            if raw != 0 {
                return Some(Bar { index, kind, base: u64::from(high) << 32 | u64::from(raw & mask) });
            }
        }
    }
}

impl FusedIterator for Bars<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header with BARs of each kind.
    const HEADER: [u8; 0x28] = [
        0xf4, 0x1a, 0x41, 0x10, 0x07, 0x05, 0x10, 0x00, 0x01, 0x00, 0x00, 0x02, 0x00, 0x00, 0x80,
        0x00, // 00
        0x05, 0xc0, 0x00, 0x00, 0x00, 0x10, 0xa0, 0xfe, 0x00, 0x00, 0x00, 0x00, 0x08, 0x00, 0x00,
        0xf0, // 10
        0x0c, 0x40, 0x00, 0x00, 0x80, 0x03, 0x00, 0x00, // 20
    ];

    #[test]
    fn bars_are_read_in_one_or_two_registers_and_unused_ones_left_out() {
        let bars: heapless::Vec<Bar, 6> = Space::new(&HEADER).bars().collect();
        let wanted = [
            Bar { index: 0, kind: BarKind::Io, base: 0xc004 },
            Bar { index: 1, kind: BarKind::Mem32 { prefetchable: false }, base: 0xfea0_1000 },
            Bar { index: 3, kind: BarKind::Mem32 { prefetchable: true }, base: 0xf000_0000 },
            Bar { index: 4, kind: BarKind::Mem64 { prefetchable: true }, base: 0x380_0000_4000 },
        ];
        assert_eq!(bars, wanted);
    }

    #[test]
    fn a_bar_of_64_bits_in_the_last_register_has_no_upper_half() {
        let mut header = HEADER;
        header[0x20..0x28].copy_from_slice(&[0x02, 0, 0, 0x10, 0x04, 0x50, 0, 0]);
        let bars: heapless::Vec<Bar, 6> = Space::new(&header).bars().skip(3).collect();
        let wanted = [
            Bar { index: 4, kind: BarKind::Mem1M { prefetchable: false }, base: 0x1000_0000 },
            Bar { index: 5, kind: BarKind::Mem64 { prefetchable: false }, base: 0x5000 },
        ];
        assert_eq!(bars, wanted);
    }
}
