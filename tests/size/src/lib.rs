//! A hypervisor in the small, whose code is measured: it saves a device, loads one, or both.
//!
//! `cargo xtask size` builds the programs in `bin/` for bare machines, as small as the compiler can make them. Device and
//! wire are functions that the compiler knows nothing of, events go to such a function too, and what a session begins with
//! comes from such ones: nothing of its way through core can be left out. Constants are the section's name and numbers
//! alone. No program runs, and none can be linked that reaches a panic, or memory of an allocator.
//!
//! Deliberately absent: a machine. What the programs call is for the linker an address.

#![no_std]

pub mod load;
pub mod machine;
pub mod save;

use core::panic::PanicInfo;

// SAFETY: nobody defines this function, so no program that calls it can be linked, let alone run.
unsafe extern "C" {
    safe fn a_panic_can_be_reached() -> !;
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    a_panic_can_be_reached()
}

/// What went wrong; the hypervisor has been told by events.
pub struct Failed;

/// The name of the device's section, as a QEMU has it.
const NAME: &[u8] = b"0000:00:02.0/vfio";
/// By this number the sections refer to each other.
const ID: u32 = 1;
