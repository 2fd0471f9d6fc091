//! What the compiler takes for granted: copying, filling and comparing memory, which are libc's otherwise.
//!
//! Copying and filling are single instructions, so that the compiler can't make a call of the very function out of its loop.
//! Data of devices are not copied by them: the kernel reads and writes where they lie.
//!
//! Deliberately absent: speed, and unwinding. `tests/tests/memory.rs` tries these functions under other names than C's.

use core::arch::asm;
use core::ffi::{c_char, c_int, c_void};

/// # Safety
/// As in C: both areas have `count` bytes and do not overlap.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn memcpy(to: *mut c_void, from: *const c_void, count: usize) -> *mut c_void {
    // SAFETY: the caller's promise; the direction flag is clear, as the ABI wants it.
    unsafe {
        asm!(
            "rep movsb",
            inout("rcx") count => _,
            inout("rdi") to => _,
            inout("rsi") from => _,
            options(nostack, preserves_flags),
        );
    }
    to
}

/// # Safety
/// As in C: both areas have `count` bytes.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn memmove(to: *mut c_void, from: *const c_void, count: usize) -> *mut c_void {
    if to.addr().wrapping_sub(from.addr()) >= count {
        // SAFETY: the caller's promise. The beginning of `to` is not within `from`: forward no byte is read after it was
        // written over.
        return unsafe { memcpy(to, from, count) };
    }
    // SAFETY: the caller's promise; `count` is not 0 here. Backward, from the last bytes on, no byte is read after it was
    // written over. The direction flag is cleared again.
    unsafe {
        asm!(
            "std",
            "rep movsb",
            "cld",
            inout("rcx") count => _,
            inout("rdi") to.byte_add(count - 1) => _,
            inout("rsi") from.byte_add(count - 1) => _,
            options(nostack),
        );
    }
    to
}

/// # Safety
/// As in C: the area has `count` bytes.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn memset(to: *mut c_void, byte: c_int, count: usize) -> *mut c_void {
    // SAFETY: the caller's promise; the direction flag is clear, as the ABI wants it. The byte is the lowest of eax.
    unsafe {
        asm!(
            "rep stosb",
            inout("rcx") count => _,
            inout("rdi") to => _,
            in("eax") byte,
            options(nostack, preserves_flags),
        );
    }
    to
}

/// # Safety
/// As in C: both areas have `count` bytes.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn memcmp(one: *const c_void, other: *const c_void, count: usize) -> c_int {
    for at in 0..count {
        // SAFETY: the caller's promise, and `at` is below `count`.
        let (one, other) = unsafe { (*one.cast::<u8>().add(at), *other.cast::<u8>().add(at)) };
        if one != other {
            return c_int::from(one) - c_int::from(other);
        }
    }
    0
}

/// # Safety
/// As for [`memcmp`].
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn bcmp(one: *const c_void, other: *const c_void, count: usize) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { memcmp(one, other, count) }
}

/// # Safety
/// As in C: a NUL follows.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn strlen(text: *const c_char) -> usize {
    let mut length = 0;
    // SAFETY: the caller's promise: no byte before this one is the NUL. Volatile, so that the loop does not become a call
    // of this very function.
    while unsafe { text.add(length).read_volatile() } != 0 {
        length += 1;
    }
    length
}

/// The tables for unwinding name this function; with `panic = "abort"` nobody calls it.
#[cfg_attr(not(test), unsafe(no_mangle))]
extern "C" fn rust_eh_personality() {}
