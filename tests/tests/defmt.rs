//! Core's events through defmt, with a logger that collects the bytes.
//!
//! Run with `cargo test -p vfio-migration-tests --features defmt --test defmt`. `defmt::println!` has no level, so no
//! `DEFMT_LOG` is needed. Deliberately absent: the text. A decoder needs the program's symbol table for it.

use std::sync::Mutex;
use std::time::Duration;

use vfio_migration_core::device::State;
use vfio_migration_core::session::event::Trace;
use vfio_migration_core::session::{Cause, Code, DataRead, Event, Failure, Left, PrecopyInfo};

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
fn every_event_failure_and_trace_arrives_and_differs_from_the_others() {
    let events = [
        Event::SetState { state: State::StopCopy, recovery: false, result: Ok(()) },
        Event::SetState { state: State::StopCopy, recovery: true, result: Ok(()) },
        Event::SetState { state: State::StopCopy, recovery: true, result: Err(Code(22)) },
        Event::PrecopyInfo { result: Ok(PrecopyInfo { initial_bytes: 24, dirty_bytes: 7, reinit: false }) },
        Event::PrecopyInfo { result: Ok(PrecopyInfo { initial_bytes: 24, dirty_bytes: 7, reinit: true }) },
        Event::PrecopyInfo { result: Err(Code(22)) },
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
    for device in ["nic", "gpu"] {
        for took in [None, Some(Duration::from_micros(0x0987_6543))] {
            let trace = Trace { device, event: events[0], took };
            seen.push(logged(|| defmt::println!("{}", trace)));
        }
    }
    assert!(seen.iter().all(|bytes| !bytes.is_empty()));
    for (at, bytes) in seen.iter().enumerate() {
        assert!(!seen[..at].contains(bytes), "number {at} is like one before it");
    }
    let holds = |at: usize, wanted: &[u8]| seen[at].windows(wanted.len()).any(|window| window == wanted);
    let [send, trace] = [8, events.len() + 4];
    assert!(holds(send, &0x1234_5678_u32.to_le_bytes()), "the number is in the bytes: {:02x?}", seen[send]);
    assert!(holds(trace, b"gpu"), "the name is in the bytes: {:02x?}", seen[trace]);
}
