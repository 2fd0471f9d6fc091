//! The configuration space of a simulated device that is a PCI function.
//!
//! Deliberately absent: what writes to it do. A loader sets the command register, and a reset clears it.

use vfio_migration_core::stream::pci_config::SpaceLength;

/// What kind of PCI function a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pci {
    /// How much configuration space it has.
    pub space: SpaceLength,
    /// The entries of its MSI-X table, 0 without MSI-X and 2048 at most.
    pub vectors: u16,
}

impl Pci {
    /// The space after a reset.
    pub(super) fn space(self) -> Vec<u8> {
        let mut space = vec![0; self.space.bytes()];
        let mut put = |at: usize, bytes: &[u8]| space[at..at + bytes.len()].copy_from_slice(bytes);
        put(0x00, &IDENTITY);
        put(0x2c, &SUBSYSTEM);
        if let Some(last) = self.vectors.checked_sub(1) {
            put(0x06, &[0x10]);
            put(0x34, &[MSIX_AT]);
            let (table, pending) = (u32::from(TABLE_BAR), u32::from(PENDING_BAR));
            put(MSIX_AT.into(), &[0x11, 0]);
            put(usize::from(MSIX_AT) + 2, &last.to_le_bytes());
            put(usize::from(MSIX_AT) + 4, &table.to_le_bytes());
            put(usize::from(MSIX_AT) + 8, &pending.to_le_bytes());
        }
        space
    }
}

/// Vendor and device, which nobody has, command and status, revision 1, class "other".
const IDENTITY: [u8; 12] = [0xfe, 0xff, 0x05, 0x51, 0, 0, 0, 0, 1, 0, 0, 0xff];
const SUBSYSTEM: [u8; 4] = [0xfe, 0xff, 1, 0];
const MSIX_AT: u8 = 0x40;
const TABLE_BAR: u8 = 2;
const PENDING_BAR: u8 = 4;
