//! From the machine's first instruction to `outcome`, and from `outcome` to the machine's end.
//!
//! Deliberately absent: a firmware's help. Whatever boots a PVH kernel boots this one.

use core::arch::global_asm;
use core::ffi::{CStr, c_char};
use core::hint::black_box;
use core::panic::PanicInfo;

use super::console::say;
use super::interrupts;
use super::ports::Register;
use super::setup::Setup;
use crate::outcome;

global_asm!(include_str!("boot.s"), options(att_syntax));

/// What comes of the machine. QEMU's exit code is twice the number and one more.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(crate) enum Exit {
    /// All was done: QEMU ends with 33.
    Done = 16,
    /// The migration failed, and the device is where it was said to be: QEMU ends with 35.
    Failed = 17,
    /// A panic, which is a mistake in this program or in its command line: QEMU ends with 37.
    Panicked = 18,
    /// The state was sent, and then the device failed: QEMU ends with 39.
    Sent = 19,
    /// An exception, which is a mistake in this program, or a stack that overflowed: QEMU ends with 41.
    Faulted = 20,
}

/// Ends the machine.
pub(crate) fn exit(code: Exit) -> ! {
    Register::Exit.write(code as u8);
    loop {
        x86_64::instructions::hlt();
    }
}

/// Calls itself until the stack overflows, to show what comes of that.
pub(crate) fn overflow(depth: u64) -> u64 {
    let bytes = black_box([depth; 64]);
    if depth == u64::MAX { depth } else { overflow(depth + 1) ^ bytes[0] }
}

/// The beginning of the PVH boot protocol's `hvm_start_info`.
#[repr(C)]
struct StartInfo {
    magic: u32,
    version: u32,
    flags: u32,
    module_count: u32,
    modules: u64,
    command_line: u64,
}

/// Called by `boot.s` with interrupts closed, once.
///
/// # Safety
/// `info` is the address of a `StartInfo` that is mapped and stays as it is.
#[unsafe(no_mangle)]
unsafe extern "C" fn start(info: *const StartInfo) -> ! {
    // SAFETY: the caller's promise: the loader put it below the first GiB, which is mapped onto itself, aligned to 8
    // bytes, and nothing in this program writes outside of its own memory.
    let info = unsafe { &*info };
    assert!(info.magic == MAGIC, "wanted a start info with the mark {MAGIC:#x}, got {:#x}", info.magic);
    assert!(info.command_line != 0, "wanted a command line, got none");
    // SAFETY: the protocol says that it is the address of a string that ends in NUL, and as above it is mapped and
    // stays as it is.
    let words = unsafe { CStr::from_ptr(info.command_line as *const c_char) };
    let setup = Setup::parse(words.to_str().expect("the command line is ASCII"));
    interrupts::set_up();
    outcome::migrate(&setup)
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    x86_64::instructions::interrupts::disable();
    say!("{info}");
    exit(Exit::Panicked)
}

/// `XEN_HVM_START_MAGIC_VALUE`.
const MAGIC: u32 = 0x336e_c578;
