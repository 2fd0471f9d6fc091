//! Saves a device, or loads it.
//!
//! Deliberately absent: memory of its own. The buffer is the caller's.

#![no_std]
#![no_main]

/// Where the linker begins; true when all went well.
#[unsafe(no_mangle)]
pub fn _start(saves: bool, buffer: &mut [u8]) -> bool {
    if saves { size::save::save(buffer).is_ok() } else { size::load::load(buffer).is_ok() }
}
