//! The negative controls: what the proof and the sums of stacks must refuse. Nobody asks for them otherwise.
//!
//! Deliberately absent: core. It has none of this.

use core::arch::global_asm;
use core::hint::black_box;

/// An index that can fail.
#[unsafe(no_mangle)]
fn proof_control(bytes: &[u8], index: usize) -> u8 {
    bytes[index]
}

/// Memory of an allocator, by an entry that has the name of Rust's.
#[unsafe(no_mangle)]
fn proof_control_allocator(size: usize) -> *mut u8 {
    allocate(size, 8)
}

#[unsafe(export_name = "__rust_alloc_of_the_control")]
#[inline(never)]
fn allocate(size: usize, align: usize) -> *mut u8 {
    black_box(core::ptr::without_provenance_mut(size & align))
}

/// 900 bytes of stack at least.
#[unsafe(no_mangle)]
fn proof_control_stack() -> u8 {
    let mut bytes = [0; 900];
    black_box(&mut bytes);
    bytes[0]
}

/// Nobody knows how often it calls itself.
#[unsafe(no_mangle)]
fn proof_control_recursion(count: u32) -> u32 {
    if count == 0 { 0 } else { black_box(proof_control_recursion(count - 1)) + 1 }
}

/// Nobody knows what it calls.
#[unsafe(no_mangle)]
fn proof_control_pointer(count: u32) -> u32 {
    let pointer: fn(u32) -> u32 = black_box(proof_control_recursion);
    pointer(count)
}

/// Nobody knows what the function that it calls takes: no symbol says that it is one, nor how long.
#[unsafe(no_mangle)]
fn proof_control_nameless() {
    without_type_and_size();
}

// SAFETY: it is defined below, and no program with it runs.
unsafe extern "C" {
    safe fn without_type_and_size();
}

global_asm!(
    ".pushsection .text.without_type_and_size,\"ax\",%progbits",
    ".globl without_type_and_size",
    "without_type_and_size:",
    ".long 0",
    ".popsection",
);
