//! VFIO device migration, protocol v2, for hypervisors in C: state machine and QEMU's stream, without allocator and
//! without I/O.
//!
//! A session, a `vfio_source` or a `vfio_destination`, takes an order, then says one effect at a time that it wants
//! done, and is told how it went, until it is idle. The caller makes the system calls. There is no callback.
//!
//! Memory. The caller gives a session its storage and lends it a buffer; both may be static. From `_init` until its last
//! call a session owns both: storage must not be copied or moved (a copy is answered with
//! `VFIO_STATUS_NOT_INITIALISED`), and of the buffer only what the last `_poll` has handed out may be touched, through
//! the pointer that it handed out and no other, up to the next `_poll`, `_complete` or order. There is nothing to free: a
//! session that is called no more is over. Its device is not: leave a session in the middle with `_cancel`, and carry
//! that out.
//!
//! Threads. One call at a time for each session, from wherever; sessions know nothing of each other.
//!
//! Mistakes. Every function returns a `vfio_status`; but for `VFIO_STATUS_OK` nothing has changed, save where it says
//! otherwise. NULL, misaligned pointers, storage without a session and numbers that name nothing are answered so. What
//! can't be told, and is undefined as elsewhere in C: pointers to memory that is not there, is shorter than was said, or
//! that another thread uses; and values that were never set, of which storage that is not static and was not begun is one.
//! Numbers that name something are `uint32_t` in all structures; each says of which enumeration it takes one. What is yes
//! or no is a `uint32_t` too, 0 for no and anything else for yes.
//!
//! Linking. `cargo build --release --manifest-path core/capi/Cargo.toml --target-dir target/capi`, for another machine with
//! `--target`, makes `libvfio_migration.a`, which needs memcpy and memset and nothing else; for machines without an
//! operating system it has them within. A panic of it would call `vfio_migration_panicked`, which nobody defines: a
//! program that links can't panic. With `opt-level = "z"` Rust's own printing of numbers keeps checks that the compiler
//! does not see through; leave the functions ending in `_show` out then (`--gc-sections`), or define that function so
//! that it does not return.
//!
//! Deliberately absent: I/O, a clock, and policy: when to migrate, when to stop copying, how long to wait.

#![no_std]
#![expect(non_camel_case_types, reason = "the names are those of the header")]
#![expect(clippy::missing_safety_doc, reason = "what all pointers must be is said once, above")]

pub mod arc;
pub mod destination;
pub mod effect;
pub mod item;
pub mod message;
pub mod phase;
pub mod record;
pub mod show;
pub mod source;
pub mod status;

mod memory;

use core::panic::PanicInfo;

// SAFETY: the function takes nothing and never returns, so that it has one signature only; where nobody defines it, no
// program with a call of it links, and who defines it keeps to the front page.
unsafe extern "C" {
    /// Must not return. Nobody defines it here, see above.
    safe fn vfio_migration_panicked() -> !;
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    vfio_migration_panicked()
}

/// The negative control of the proof: an index that can fail.
#[cfg(feature = "control")]
#[unsafe(no_mangle)]
pub extern "C" fn vfio_control(index: usize) -> u8 {
    [1, 2, 3][index]
}
