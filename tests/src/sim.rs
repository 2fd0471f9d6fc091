//! Simulated devices for several tests. One of 36 bytes has a state of 60, as mtty has, so that its numbers are mtty's.
//!
//! Deliberately absent: a device of the tests' own making. All of them are host's [`Sim`]; one that fails on schedule
//! is in [`model`](crate::model).

use vfio_migration_core::device::{Features, State};
use vfio_migration_host::sim::{Config, DataFd, Errno, Sim};

/// The content of a device whose state is as long as mtty's, in bytes.
pub const MTTY_CONTENT: u64 = 36;

/// A device in RUNNING whose state is as long as mtty's.
pub fn mtty_like() -> Sim {
    Sim::new(Config::new(MTTY_CONTENT, 7, Features::ALL[3]).unwrap())
}

/// The state of such a device.
pub fn whole_state() -> Vec<u8> {
    state_of(mtty_like())
}

/// All that STOP_COPY gives of a device.
pub fn state_of(mut sim: Sim) -> Vec<u8> {
    let data_fd = sim.set_state(State::StopCopy.raw()).unwrap().unwrap();
    read_up_to(&data_fd, 1000, Ok(0))
}

/// Writes bytes that the device must take whole.
pub fn write_all(data_fd: &DataFd, bytes: &[u8]) {
    assert_eq!(data_fd.write(bytes), Ok(bytes.len()));
}

/// Reads until `end` is answered.
pub fn read_up_to(data_fd: &DataFd, piece: usize, end: Result<usize, Errno>) -> Vec<u8> {
    let mut data = Vec::new();
    loop {
        let mut buffer = vec![0xa5; piece];
        match data_fd.read(&mut buffer) {
            answer if answer == end => return data,
            Ok(got @ 1..) => data.extend_from_slice(&buffer[..got]),
            other => panic!("wanted data or {end:?}, got {other:?}"),
        }
    }
}
