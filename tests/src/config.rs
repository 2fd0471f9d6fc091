//! Bodies of CONFIG records: those of the golden files, and others that are put together by a second, plainer rule.
//!
//! Deliberately absent: core's encoder, which is tested against them.

use vfio_migration_core::stream::pci_config::find::Found;
use vfio_migration_core::stream::pci_config::ramfb::Ramfb;
use vfio_migration_core::stream::pci_config::{Body, Layout};
use vfio_migration_core::stream::record::WORD;

use crate::golden::*;

/// The CONFIG bodies of real QEMUs, each with its END_OF_STATE.
#[must_use]
pub fn golden() -> [&'static [u8]; 4] {
    let body = |section: &'static [u8], at: usize| &section[at..at + CONFIG_BODY + WORD];
    let parts = PARTS_THEN_EMPTY_END.len() - ONE_END_SECTION.len() + 198;
    [
        body(PRECOPY_FULL, BEGIN_HEADER + WORD),
        body(PAUSED_FULL, BEGIN_HEADER + WORD),
        body(ONE_END_SECTION, 198),
        body(PARTS_THEN_EMPTY_END, parts),
    ]
}

/// A body put together by hand.
#[derive(Clone, Debug, PartialEq)]
pub struct Made {
    /// Bytes of its configuration space, 256 or 4096.
    pub region: usize,
    /// Entries of its MSI-X table.
    pub vectors: u16,
    /// Whether a display's state is there.
    pub display: bool,
    /// Its bytes and those of END_OF_STATE.
    pub bytes: Vec<u8>,
}

impl Made {
    /// The version, a space of `region` bytes with an MSI-X capability behind another one, INTB held, a table whose
    /// bytes count up, pending bits, and END_OF_STATE.
    #[must_use]
    pub fn new(region: usize, vectors: u16, display: bool) -> Self {
        let mut space = vec![0; region];
        space[..4].copy_from_slice(&[0xf4, 0x1a, 0x41, 0x10]);
        if vectors > 0 {
            let [low, high] = (vectors - 1).to_le_bytes();
            space[0x06] = 0x10;
            space[0x34] = 0x98;
            space[0x98..0x9a].copy_from_slice(&[0x09, 0x40]);
            space[0x40..0x4c].copy_from_slice(&[0x11, 0, low, high | 0x80, 1, 0, 0, 0, 1, 0x80, 0, 0]);
        }
        let mut bytes = vec![0, 0, 0, 2];
        bytes.extend(space);
        bytes.extend([0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend((0_u8..=250).cycle().take(16 * usize::from(vectors)));
        bytes.extend((0_u8..=250).rev().cycle().take(usize::from(vectors).div_ceil(8)));
        bytes.extend(if display { SUBSECTION } else { &[] });
        bytes.extend(END);
        Self { region, vectors, display, bytes }
    }

    /// Bodies of every kind.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let mut all = vec![];
        for region in [256, 4096] {
            for vectors in [0, 1, 8, 9, 2048] {
                all.extend([false, true].map(|display| Self::new(region, vectors, display)));
            }
        }
        all
    }

    /// Those that are small enough to be damaged byte by byte.
    pub fn small() -> impl Iterator<Item = Self> {
        Self::all().into_iter().filter(|made| made.vectors < 2048)
    }

    /// The layout that it has.
    ///
    /// # Panics
    /// With more than 2048 vectors.
    #[must_use]
    pub fn layout(&self) -> Layout {
        Layout::new(self.region as u64, self.vectors).unwrap()
    }

    /// Bytes before END_OF_STATE.
    #[must_use]
    pub fn length(&self) -> usize {
        self.bytes.len() - WORD
    }

    /// What a finder makes of it.
    #[must_use]
    pub fn found(&self) -> Found {
        Found { layout: self.layout(), length: self.length() }
    }

    /// The parts that decoding must give.
    #[must_use]
    pub fn body(&self) -> Body<'_> {
        let table = 4 + self.region + 16;
        let pending = table + 16 * usize::from(self.vectors);
        let behind = self.length() - if self.display { SUBSECTION.len() } else { 0 };
        Body {
            space: &self.bytes[4..4 + self.region],
            interrupts: [false, true, false, false],
            msix_table: &self.bytes[table..pending],
            pending: &self.bytes[pending..behind],
            display: self.display.then_some(RAMFB),
        }
    }
}

/// END_OF_STATE.
pub const END: [u8; WORD] = [0xff, 0xff, 0xff, 0xff, 0xef, 0x10, 0x00, 0x01];

/// The framebuffer of a [`Made`] with a display.
pub const RAMFB: Ramfb =
    Ramfb { address: 0x7f00_1000, fourcc: 0x3432_5258, flags: 0, width: 1024, height: 768, stride: 4096 };

/// What QEMU writes for [`RAMFB`].
pub const SUBSECTION: &[u8] = b"\x05\x19VFIOPCIDevice/VFIODisplay\0\0\0\x01\
    \0\0\0\0\x7f\0\x10\x0042RX\0\0\0\0\0\0\x04\0\0\0\x03\0\0\0\x10\0";
