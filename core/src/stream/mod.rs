//! What travels? QEMU's bytes, in two layers: the [records](record) inside a VFIO section, and the
//! [sections](section) of the migration stream around them. On the [return path](return_path) messages go the other
//! way.
//!
//! Deliberately absent: a format of our own. Everything here is QEMU's, bit for bit.

pub mod record;
pub mod return_path;
pub mod section;
