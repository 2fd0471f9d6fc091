//! What travels? QEMU's bytes, in two layers: the [records](record) inside a VFIO section, and the
//! [sections](section) of the migration stream around them. [`pci_config`] is what a PCI device's CONFIG record holds.
//! Beside the stream there may be [multifd]'s channels, which carry devices' state in packets, and the
//! [return path](return_path), whose messages go the other way.
//!
//! Deliberately absent: a format of our own. Everything here is QEMU's, bit for bit.

mod bytes;
pub mod multifd;
pub mod pci_config;
pub mod record;
pub mod return_path;
pub mod section;
