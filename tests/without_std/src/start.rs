//! How the program begins and ends, which is libc's part otherwise.
//!
//! Deliberately absent: constructors, thread-local storage, the environment and the auxiliary vector. Nothing here needs
//! them.

use core::arch::{asm, global_asm};
use core::ffi::{CStr, c_char};
use core::panic::PanicInfo;

use rustix::fd::BorrowedFd;
use rustix::io::fcntl_getfd;
use vfio_migration_core::session::source::HEADERS;
use vfio_migration_host::frame::DESCRIPTION_MAX;

use crate::arguments::Arguments;
use crate::say::{Exit, say};

#[cfg(not(target_arch = "x86_64"))]
compile_error!("wanted x86_64: how a program begins and calls the kernel is written for it alone");

/// All the memory that the program has beside its stack.
pub(crate) struct Memory {
    /// A session's buffer: a piece of data with room for what stands around it.
    pub(crate) piece: [u8; 64 * 1024 + HEADERS],
    /// The longest description.
    pub(crate) description: [u8; DESCRIPTION_MAX as usize],
}

/// One of the three descriptors that every process is given.
#[derive(Clone, Copy)]
pub(crate) enum Standard {
    /// Where a stream comes from.
    Input = 0,
    /// Where a saved stream goes.
    Output = 1,
    /// Where messages go.
    Error = 2,
}

impl Standard {
    const ALL: [Self; 3] = [Self::Input, Self::Output, Self::Error];

    /// The descriptor.
    pub(crate) fn fd(self) -> BorrowedFd<'static> {
        // SAFETY: none of the three numbers is -1. The first use is the question in `begin` whether something is open under
        // each; the kernel says so of any number. Where nothing is, the program ends there, and otherwise nobody closes them.
        unsafe { BorrowedFd::borrow_raw(self as i32) }
    }
}

// The kernel enters with a stack that is aligned to 16 bytes and holds the number of arguments, their addresses, and a
// null. A function expects to be called: `call` pushes an address that is never returned to.
global_asm!(
    ".globl _start",
    "_start:",
    "xor ebp, ebp",
    "mov rdi, rsp",
    "and rsp, -16",
    "call {begin}",
    "ud2",
    begin = sym begin,
);

/// The first function: its argument is the stack as the kernel left it.
///
/// # Safety
/// To be called once, by `_start`.
unsafe extern "C" fn begin(stack: *const *const c_char) -> ! {
    static mut MEMORY: Memory =
        Memory { piece: [0; 64 * 1024 + HEADERS], description: [0; DESCRIPTION_MAX as usize] };
    // A descriptor that is not there would become that of the next file, the device's.
    if let Some(closed) = Standard::ALL.iter().position(|standard| fcntl_getfd(standard.fd()).is_err()) {
        say(format_args!("wanted an open descriptor {closed}, got a closed one"));
        exit(Exit::InputOutput as i32);
    }
    ignore_broken_pipes();
    let memory = &raw mut MEMORY;
    // SAFETY: this function is called once, so that nobody else has a reference.
    let memory = unsafe { &mut *memory };
    // SAFETY: the stack holds a number and so many pointers and a null, of which one is the program's name.
    let words = Words { next: unsafe { stack.add(1) } };
    let done = Arguments::parse(words.skip(1)).and_then(|arguments| crate::main(&arguments, memory));
    exit(done.map_or_else(|code| code as i32, |()| 0));
}

/// The command line, word for word.
struct Words {
    next: *const *const c_char,
}

impl Iterator for Words {
    type Item = &'static CStr;

    fn next(&mut self) -> Option<Self::Item> {
        // SAFETY: `next` points to an address in the array that the kernel made, or to the null behind the last one,
        // beyond which it is never moved.
        let word = unsafe { *self.next };
        if word.is_null() {
            return None;
        }
        // SAFETY: the null was not reached, so that the array goes on.
        self.next = unsafe { self.next.add(1) };
        // SAFETY: the kernel has put a string with its NUL there, which stays for as long as the program and which nobody
        // writes to.
        Some(unsafe { CStr::from_ptr(word) })
    }
}

/// A write to a pipe that nobody reads is to fail with EPIPE, and not to end the program: a device must be put back.
fn ignore_broken_pipes() {
    #[repr(C)]
    struct Action {
        handler: usize,
        flags: u64,
        restorer: usize,
        mask: u64,
    }
    let ignore = Action { handler: 1, flags: 0, restorer: 0, mask: 0 };
    // SAFETY: rt_sigaction (13) of SIGPIPE (13) reads one kernel_sigaction, which has this layout, and stores none at
    // null; with SIG_IGN no code of ours is entered. The kernel clobbers rcx and r11 and answers in rax.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") 13_usize => _,
            in("rdi") 13_usize,
            in("rsi") &raw const ignore,
            in("rdx") 0_usize,
            in("r10") size_of::<u64>(),
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
}

/// Ends the process.
fn exit(code: i32) -> ! {
    // SAFETY: exit_group (231) takes a number and does not return.
    unsafe { asm!("syscall", in("rax") 231_usize, in("edi") code, options(noreturn, nostack)) }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let (file, line) = info.location().map_or(("?", 0), |at| (at.file(), at.line()));
    say(format_args!(
        "a mistake in this program at {file}:{line}; the device may be in the middle of a migration"
    ));
    exit(101)
}
