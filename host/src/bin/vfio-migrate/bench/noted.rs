//! A device that takes note of what is asked of it, and when.
//!
//! Deliberately absent: what is answered, beside success. A refusal ends the measurement, and whoever asked
//! tells of it.

use std::time::{Duration, Instant};

use vfio_migration_core::device::{Features, State};
use vfio_migration_core::session::drive::Device;
use vfio_migration_core::session::{Code, DataRead, PrecopyInfo};
use vfio_migration_host::open::Identity;
use vfio_migration_host::transfer::{Member, Migratable};

use crate::target::Held;

/// A device of a transfer, with notes.
pub(super) struct Noted<'a> {
    device: &'a mut Held,
    sets: Vec<Set>,
    data_calls: u64,
}

/// A SET that went well.
#[derive(Clone, Copy)]
pub(super) struct Set {
    pub(super) state: State,
    /// When the transfer asked for it, and when it had the answer.
    pub(super) began: Instant,
    pub(super) ended: Instant,
    /// How long the ioctl took.
    pub(super) took: Duration,
}

/// What a transfer has to know of a device, beside the device.
pub(super) struct About<'a> {
    features: Features,
    now: State,
    identity: &'a Identity,
    idstr: String,
    buffer: &'a mut [u8],
}

impl<'a> Noted<'a> {
    /// The device of `member`, without notes so far, and the rest of it.
    pub(super) fn of(member: Member<'a, Held>) -> (Self, About<'a>) {
        let Member { device, features, now, identity, idstr, buffer } = member;
        let about = About { features, now, identity, idstr, buffer };
        (Self { device, sets: Vec::new(), data_calls: 0 }, about)
    }

    /// The first SET of `state`.
    pub(super) fn set(&self, state: State) -> Option<Set> {
        self.sets.iter().find(|set| set.state == state).copied()
    }

    /// How many reads and writes of the data fd there were.
    pub(super) fn data_calls(&self) -> u64 {
        self.data_calls
    }
}

impl<'a> About<'a> {
    /// The member of a transfer.
    pub(super) fn member<'b>(self, device: &'b mut Noted<'a>) -> Member<'b, Noted<'a>>
    where
        'a: 'b,
    {
        let Self { features, now, identity, idstr, buffer } = self;
        Member { device, features, now, identity, idstr, buffer }
    }
}

impl Migratable for Noted<'_> {
    fn data_size(&self) -> Option<u64> {
        self.device.data_size()
    }
}

impl Device for Noted<'_> {
    fn set_state(&mut self, state: State) -> Result<(), Code> {
        let began = Instant::now();
        self.device.set_state(state)?;
        let (ended, took) = (Instant::now(), self.device.set_took());
        self.sets.push(Set { state, began, ended, took });
        Ok(())
    }

    fn precopy_info(&mut self) -> Result<PrecopyInfo, Code> {
        self.device.precopy_info()
    }

    fn read_data(&mut self, buffer: &mut [u8]) -> Result<DataRead, Code> {
        self.data_calls += 1;
        self.device.read_data(buffer)
    }

    fn write_data(&mut self, bytes: &[u8]) -> Result<usize, Code> {
        self.data_calls += 1;
        self.device.write_data(bytes)
    }

    fn reset(&mut self) -> Result<(), Code> {
        self.device.reset()
    }
}
