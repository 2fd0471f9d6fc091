//! How much memory a piece of code holds at most.
//!
//! Deliberately absent: the fuzzer's own memory, which Rust's allocator does not see.

#![expect(unsafe_code, reason = "an allocator can't be written without")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Does `work`, which may hold `bound` bytes more at any time than were held before.
///
/// # Panics
/// When it held more.
pub fn within<T>(bound: usize, work: impl FnOnce() -> T) -> T {
    let before = LIVE.load(Relaxed);
    PEAK.store(before, Relaxed);
    let result = work();
    let peak = PEAK.load(Relaxed).saturating_sub(before);
    assert!(peak <= bound, "{peak} bytes of memory were held, wanted at most {bound}");
    result
}

/// The system's allocator, and a count of what it has given out.
struct Counting;

impl Counting {
    fn count(&self, memory: *mut u8, size: usize) -> *mut u8 {
        if !memory.is_null() {
            let live = LIVE.fetch_add(size, Relaxed) + size;
            PEAK.fetch_max(live, Relaxed);
        }
        memory
    }
}

// SAFETY: each call is handed on to the system's allocator as it is, whose guarantees are therefore these. What is not
// written out here is made of the two by `GlobalAlloc`.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the rules of `GlobalAlloc::alloc`, which are the system's.
        self.count(unsafe { System.alloc(layout) }, layout.size())
    }

    /// Not left to `alloc`: large memory comes zeroed from the kernel, and is often not used.
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the rules of `GlobalAlloc::alloc_zeroed`, which are the system's.
        self.count(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller keeps the rules of `GlobalAlloc::dealloc`, and `memory` came from the system.
        unsafe { System.dealloc(memory, layout) };
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
