//! Every way into `vfio-migration-core`, as an export of a static library whose panic handler can't be linked.
//!
//! `cargo xtask test` links the exports with the unused code left out, for this machine and for bare ones: the link fails
//! exactly when one of them can reach a panic. `cargo xtask size` adds up the deepest stack of each. All inputs come from
//! an unknown caller's memory and all results go back there, so that neither compiler nor linker knows a value: a session
//! stands in any state at all, and numbers and bytes are arbitrary.
//!
//! Each file has the exports of one folder of core, or of a part of one. Deliberately absent: code of its own. An export is one call.

#![no_std]

mod control;
mod device;
mod multifd;
mod pci_config;
mod session;
mod show;
mod stream;
mod together;

use core::panic::PanicInfo;

// SAFETY: nobody defines this function, so no program that calls it can be linked, let alone run.
unsafe extern "C" {
    safe fn a_panic_can_be_reached() -> !;
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    a_panic_can_be_reached()
}
