//! Saves a device.
//!
//! Deliberately absent: memory of its own. The buffer is the caller's.

#![no_std]
#![no_main]

/// Where the linker begins; true when all went well.
#[unsafe(no_mangle)]
pub fn _start(buffer: &mut [u8]) -> bool {
    size::save::save(buffer).is_ok()
}
