//! Saves a device, or loads it, and has a table that is larger than all programs may be: the check must refuse it.
//!
//! Deliberately absent: a use for the table.

#![no_std]
#![no_main]

static TABLE: [u8; 16 << 10] = [1; 16 << 10];

/// Where the linker begins; true when all went well.
#[unsafe(no_mangle)]
pub fn _start(place: usize, saves: bool, buffer: &mut [u8]) -> bool {
    let is_one = TABLE.get(place) == Some(&1);
    is_one && if saves { size::save::save(buffer).is_ok() } else { size::load::load(buffer).is_ok() }
}
