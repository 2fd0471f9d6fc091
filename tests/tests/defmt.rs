//! Core's events through defmt, with a logger that collects the bytes.
//!
//! Run with `cargo test -p vfio-migration-tests --features defmt --test defmt`. `defmt::println!` has no level, so no
//! `DEFMT_LOG` is needed. Deliberately absent: the text. A decoder needs the program's symbol table for it.

use std::sync::Mutex;

use vfio_migration_core::device::State;
use vfio_migration_core::session::{Cause, Code, DataRead, Event, Failure, Left};

static BYTES: Mutex<Vec<u8>> = Mutex::new(Vec::new());

#[defmt::global_logger]
struct Collector;

// SAFETY: `acquire` must keep other threads out until `release`; the one test of this program logs from one thread.
// `write` is called between the two only, and locks the bytes for itself.
#[allow(unsafe_code)]
unsafe impl defmt::Logger for Collector {
    fn acquire() {}

    unsafe fn flush() {}

    unsafe fn release() {}

    unsafe fn write(bytes: &[u8]) {
        BYTES.lock().unwrap().extend_from_slice(bytes);
    }
}

defmt::timestamp!("");

#[defmt::panic_handler]
fn panic() -> ! {
    std::process::abort()
}

/// The bytes that `log` writes.
fn logged(log: impl FnOnce()) -> Vec<u8> {
    BYTES.lock().unwrap().clear();
    log();
    std::mem::take(&mut *BYTES.lock().unwrap())
}

#[test]
fn every_event_and_failure_arrives_and_differs_from_the_others() {
    let events = [
        Event::SetState { state: State::StopCopy, recovery: false, result: Ok(()) },
        Event::SetState { state: State::StopCopy, recovery: true, result: Ok(()) },
        Event::SetState { state: State::StopCopy, recovery: true, result: Err(Code(22)) },
        Event::ReadData { offered: 40, result: Ok(DataRead::Bytes(7)) },
        Event::ReadData { offered: 40, result: Ok(DataRead::Drained) },
        Event::Send { offered: 56, result: Ok(0x1234_5678) },
        Event::SendConfig { result: Ok(()) },
        Event::Recv { offered: 8, result: Ok(8) },
        Event::WriteData { offered: 8, result: Err(Code(14)) },
        Event::RecvConfig { result: Ok(4116) },
        Event::Reset { result: Ok(()) },
    ];
    let mut seen = events.map(|event| logged(|| defmt::println!("{}", event))).to_vec();
    let failure = Failure { cause: Cause::RecvClosed { offset: 9, missing: 3 }, device: Left::Reset };
    seen.push(logged(|| defmt::println!("{}", failure)));
    assert!(seen.iter().all(|bytes| !bytes.is_empty()));
    for (at, bytes) in seen.iter().enumerate() {
        assert!(!seen[..at].contains(bytes), "number {at} is like one before it");
    }
    let count = 0x1234_5678_u32.to_le_bytes();
    assert!(
        seen[5].windows(4).any(|window| window == count),
        "the numbers are in the bytes: {:02x?}",
        seen[5]
    );
}
