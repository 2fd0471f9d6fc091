//! The processor's interrupts: who is called, and how to wait for one.
//!
//! Interrupts come in only while the processor sleeps in [`wait`]. So nothing that was found unfinished can be finished
//! between the look and the sleep, and no wakeup is lost.
//!
//! Deliberately absent: a second processor, and interrupts inside interrupts.

use core::cell::RefCell;
use core::sync::atomic::{AtomicU32, Ordering, compiler_fence};
use core::task::Poll;

use critical_section::Mutex;
use x86_64::VirtAddr;
use x86_64::instructions::interrupts;
use x86_64::registers::control::Cr2;
use x86_64::structures::idt::InterruptDescriptorTable;

use super::boot::{Exit, exit};
use super::console::say;
use super::ports::Register;
use super::{serial, trace};
use crate::device;

/// Milliseconds since the machine began; goes round after 49 days.
pub(crate) fn now() -> u32 {
    TICKS.load(Ordering::Relaxed)
}

/// Sleeps until an interrupt has come, for a session whose answer is not there yet.
pub(crate) fn wait() {
    trace::waited();
    sleep();
}

/// Asks again after each interrupt until there is an answer, for what is no session's.
pub(crate) fn wait_for<T>(mut poll: impl FnMut() -> Poll<T>) -> T {
    loop {
        match poll() {
            Poll::Ready(answer) => return answer,
            Poll::Pending => sleep(),
        }
    }
}

/// Names the functions, starts the timer and lets its interrupts and those of the serial line come.
pub(crate) fn set_up() {
    critical_section::with(|section| {
        let mut table = TABLE.borrow_ref_mut(section);
        fill(&mut table);
        // SAFETY: the table is a static, and nobody but this function, which runs once, changes it; its entries are
        // functions of `boot.s` that return with `iretq` or not at all.
        unsafe { table.load_unsafe() };
    });
    for (register, value) in CONTROLLERS {
        register.write(value);
    }
    Register::TimerMode.write(RATE_GENERATOR);
    for byte in TIMER_COUNT.to_le_bytes() {
        Register::TimerCount.write(byte);
    }
    serial::set_up();
}

/// Lets interrupts in and sleeps until one has come. The processor lets them in only behind the instruction that follows,
/// which is the sleep, so one that waits already ends it. To the compiler neither has to do with memory, hence the fence:
/// what was written before is there for the interrupt's function.
fn sleep() {
    compiler_fence(Ordering::SeqCst);
    interrupts::enable_and_hlt();
    interrupts::disable();
}

fn fill(table: &mut InterruptDescriptorTable) {
    let address = |entry: unsafe extern "C" fn()| VirtAddr::new(entry as usize as u64);
    // SAFETY: all three addresses are those of entries in `boot.s`, which save what they change, hold to the layout of
    // the stack that the processor makes, and return with `iretq`. Those for exceptions never return, so that it does
    // not matter which of them push an error code, nor that they share a stack, which `boot.s` names in the task state.
    unsafe {
        table.invalid_opcode.set_handler_addr(address(exception_entry)).set_stack_index(EXCEPTIONS);
        table.double_fault.set_handler_addr(address(exception_entry)).set_stack_index(EXCEPTIONS);
        table.general_protection_fault.set_handler_addr(address(exception_entry)).set_stack_index(EXCEPTIONS);
        table.page_fault.set_handler_addr(address(exception_entry)).set_stack_index(EXCEPTIONS);
        table[FIRST + TIMER].set_handler_addr(address(timer_entry));
        table[FIRST + SERIAL].set_handler_addr(address(serial_entry));
    }
}

/// The timer's interrupt: a millisecond is over.
#[unsafe(no_mangle)]
extern "C" fn timer_interrupt() {
    TICKS.fetch_add(1, Ordering::Relaxed);
    device::interrupt();
    Register::PicCommand.write(END_OF_INTERRUPT);
}

/// The serial line's interrupt: bytes came or went.
#[unsafe(no_mangle)]
extern "C" fn serial_interrupt() {
    serial::interrupt();
    Register::PicCommand.write(END_OF_INTERRUPT);
}

/// An exception, which is a mistake in this program: says so and ends the machine.
#[unsafe(no_mangle)]
extern "C" fn exception() -> ! {
    let address = Cr2::read_raw();
    let guard = (&raw const stack_guard).addr() as u64;
    if (guard..guard + PAGE as u64).contains(&address) {
        say!("the stack overflowed: byte {} of the page below it was touched", address - guard);
    } else {
        say!("the processor met an exception; if it was a page that is not there, then that of {address:#x}");
    }
    exit(Exit::Faulted)
}

unsafe extern "C" {
    fn timer_entry();
    fn serial_entry();
    fn exception_entry();
    static stack_guard: [u8; PAGE];
}

/// One processor, so what closes its interrupts is a critical section.
struct Processor;

critical_section::set_impl!(Processor);

// SAFETY: there is one processor and no other thread, so between `acquire` and `release` nothing else runs, once
// interrupts are closed; `release` opens them only where they were open, so that sections may lie inside each other. No
// access to memory leaves a section: to the compiler the instruction that closes interrupts may touch any memory, so what
// follows stays behind it, and the fence in `release`, which is there also where nothing is opened, holds back what comes
// before. The processor itself keeps to its own order.
unsafe impl critical_section::Impl for Processor {
    unsafe fn acquire() -> bool {
        let were_open = interrupts::are_enabled();
        interrupts::disable();
        were_open
    }

    unsafe fn release(were_open: bool) {
        compiler_fence(Ordering::SeqCst);
        if were_open {
            interrupts::enable();
        }
    }
}

static TABLE: Mutex<RefCell<InterruptDescriptorTable>> =
    Mutex::new(RefCell::new(InterruptDescriptorTable::new()));
static TICKS: AtomicU32 = AtomicU32::new(0);

/// The vector of the first controller's first interrupt, behind those of exceptions.
const FIRST: u8 = 32;
/// The number of the stack for exceptions, from 0 on.
const EXCEPTIONS: u16 = 0;
/// The bytes of a page.
const PAGE: usize = 4096;
const TIMER: u8 = 0;
const SERIAL: u8 = 4;

/// Both controllers: begin, in cascade; vectors from 32 and 40 on; 8086 mode; all masked but ours.
const CONTROLLERS: [(Register, u8); 10] = [
    (Register::PicCommand, 0x11),
    (Register::PicMask, FIRST),
    (Register::PicMask, 4),
    (Register::PicMask, 1),
    (Register::SecondPicCommand, 0x11),
    (Register::SecondPicMask, FIRST + 8),
    (Register::SecondPicMask, 2),
    (Register::SecondPicMask, 1),
    (Register::PicMask, !(1 << TIMER | 1 << SERIAL)),
    (Register::SecondPicMask, 0xff),
];
const END_OF_INTERRUPT: u8 = 0x20;

/// The timer's first channel, low byte and high byte, an interrupt each time that the count is through.
const RATE_GENERATOR: u8 = 0x34;
/// A millisecond in periods of its clock, 1.193182 MHz.
const TIMER_COUNT: u16 = 1193;
