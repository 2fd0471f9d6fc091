//! VFIO device migration on Linux: the system calls around `vfio-migration-core`.
//!
//! [`open`] opens a device; [`device`] and [`link`] are core's `Device` and `Transport` over file descriptors, and
//! [`transfer`] saves and loads with them. [`qemu`] reads the stream of a whole machine. [`dirty`] reads which pages a
//! device has written to. [`conform`] tries the rules of the uapi on a driver. [`sim`] stands in for hardware.
//!
//! Deliberately absent: the guest. Its memory is not mapped, its interrupts are not set up and its dirty pages are not
//! copied here; that is the VMM's.

pub mod buffer;
pub mod conform;
pub mod device;
pub mod dirty;
pub mod errno;
pub mod file;
pub mod interrupt;
pub mod ioctl;
pub mod link;
pub mod open;
pub mod pci;
pub mod qemu;
pub mod sim;
pub mod size;
pub mod trace;
pub mod transfer;
pub mod v1;
