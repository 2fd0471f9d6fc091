//! VFIO device migration on Linux: the system calls around `vfio-migration-core`.
//!
//! With the feature `std`, which the default `program` brings: `open` opens a device, `transfer` saves and loads one, `qemu`
//! reads the stream of a whole machine, `dirty` which pages a device has written to. `conform` tries the rules of the uapi
//! on a driver, and `sim` stands in for hardware.
//!
//! Without it there is neither std nor an allocator, nor libc where rustix makes the system calls itself (x86, Arm, RISC-V;
//! on s390x and PowerPC it takes libc's), and what stays is system calls and file descriptors:
//! [`ioctl`], [`attach`] for a device's files, [`device`] and [`link`] for core's `Device` and `Transport` over file
//! descriptors, [`frame`] for what stands around the payloads. `tests/without_std` is a program made of these.
//!
//! Deliberately absent: the guest. Its memory is not mapped, its interrupts are not set up and its dirty pages are not
//! copied here; that is the VMM's.

#![cfg_attr(not(feature = "std"), no_std)]

pub mod attach;
pub mod device;
pub mod errno;
pub mod frame;
#[cfg_attr(not(feature = "std"), path = "no_interrupt.rs")]
pub mod interrupt;
pub mod ioctl;
pub mod link;
mod wait;

#[cfg(feature = "std")]
pub mod buffer;
#[cfg(feature = "std")]
pub mod conform;
#[cfg(feature = "std")]
pub mod dirty;
#[cfg(feature = "std")]
pub mod file;
#[cfg(feature = "std")]
pub mod open;
#[cfg(feature = "std")]
pub mod pci;
#[cfg(feature = "std")]
pub mod qemu;
#[cfg(feature = "std")]
pub mod sim;
#[cfg(feature = "std")]
pub mod size;
#[cfg(feature = "std")]
pub mod trace;
#[cfg(feature = "std")]
pub mod transfer;
#[cfg(feature = "std")]
pub mod v1;
