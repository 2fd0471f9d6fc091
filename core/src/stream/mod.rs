//! What travels? QEMU's bytes, in two layers: the [records](record) inside a VFIO section, and the
//! [sections](section) of the migration stream around them. [`pci_config`] is what a PCI device's CONFIG record holds.
//!
//! Deliberately absent: a format of our own. Everything here is QEMU's, bit for bit.

pub mod pci_config;
pub mod record;
pub mod section;
