//! Device and wire, each call a function that nobody knows.
//!
//! Deliberately absent: their insides. An answer below 0 is an error.

use vfio_migration_core::device::State;
use vfio_migration_core::session::drive::{Device, Transport};
use vfio_migration_core::session::{Code, DataRead, Event, PrecopyInfo};

// SAFETY: nobody defines these functions, and the programs that call them never run.
unsafe extern "C" {
    safe fn device_features() -> u64;
    safe fn device_state() -> u32;
    safe fn device_set_state(state: u32) -> i32;
    safe fn device_read(bytes: *mut u8, length: usize) -> isize;
    safe fn device_write(bytes: *const u8, length: usize) -> isize;
    safe fn device_reset() -> i32;
    safe fn wire_send(bytes: *const u8, length: usize) -> isize;
    safe fn wire_recv(bytes: *mut u8, length: usize) -> isize;
    safe fn wire_send_config() -> i32;
    safe fn wire_recv_config() -> i32;
    safe fn wants_to_stop(bytes: usize) -> bool;
    safe fn wants_switchover_ack() -> bool;
}

// SAFETY: as above. By Rust's own convention, since what they are given is Rust's.
unsafe extern "Rust" {
    safe fn device_precopy_info(info: &mut PrecopyInfo) -> i32;
    safe fn observe(event: &Event);
}

/// The device.
pub struct Card;

/// The wire.
pub struct Wire;

/// The flags of the device's features.
#[must_use]
pub fn features() -> u64 {
    device_features()
}

/// The number of the state that the device is in.
#[must_use]
pub fn state() -> u32 {
    device_state()
}

/// Whether the source waits for the destination before it stops the device.
#[must_use]
pub fn switchover_ack() -> bool {
    wants_switchover_ack()
}

/// Whether pre-copy is to end, after a chunk of so many bytes.
#[must_use]
pub fn stop_now(bytes: usize) -> bool {
    wants_to_stop(bytes)
}

/// Gives an event away.
pub fn tell(event: &Event) {
    observe(event);
}

impl Device for Card {
    fn set_state(&mut self, state: State) -> Result<(), Code> {
        answer(device_set_state(state.raw())).map(|_| ())
    }

    fn precopy_info(&mut self) -> Result<PrecopyInfo, Code> {
        let mut info = PrecopyInfo::default();
        answer(device_precopy_info(&mut info)).map(|_| info)
    }

    fn read_data(&mut self, buffer: &mut [u8]) -> Result<DataRead, Code> {
        match count(device_read(buffer.as_mut_ptr(), buffer.len())) {
            Ok(count) => Ok(DataRead::Bytes(count)),
            Err(Code(ENOMSG)) => Ok(DataRead::Drained),
            Err(code) => Err(code),
        }
    }

    fn write_data(&mut self, bytes: &[u8]) -> Result<usize, Code> {
        count(device_write(bytes.as_ptr(), bytes.len()))
    }

    fn reset(&mut self) -> Result<(), Code> {
        answer(device_reset()).map(|_| ())
    }
}

impl Transport for Wire {
    fn send(&mut self, bytes: &[u8]) -> Result<usize, Code> {
        count(wire_send(bytes.as_ptr(), bytes.len()))
    }

    fn recv(&mut self, buffer: &mut [u8]) -> Result<usize, Code> {
        count(wire_recv(buffer.as_mut_ptr(), buffer.len()))
    }

    fn send_config(&mut self) -> Result<(), Code> {
        answer(wire_send_config()).map(|_| ())
    }

    fn recv_config(&mut self) -> Result<u64, Code> {
        answer(wire_recv_config()).map(u64::from)
    }
}

fn answer(answer: i32) -> Result<u32, Code> {
    u32::try_from(answer).map_err(|_| Code(answer.wrapping_neg()))
}

fn count(answer: isize) -> Result<usize, Code> {
    usize::try_from(answer).map_err(|_| Code(i32::try_from(answer.wrapping_neg()).unwrap_or(i32::MAX)))
}

const ENOMSG: i32 = 42;
