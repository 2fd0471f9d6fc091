//! The VMM's side of the model device, with decisions in the place of a schedule.
//!
//! The device is the schedules' [`Card`], which obeys the kernel's table. Deliberately absent: any knowledge of what
//! goes wrong. A guest's reset shows only in what the kernel answers.

use vfio_migration_core::device::State;
use vfio_migration_core::session::drive;
use vfio_migration_core::session::{Code, DataRead, PrecopyInfo};
use vfio_migration_tests::payload::content;
use vfio_migration_tests::schedule::card::{Card, DataFd, Got, data_fd};
use vfio_migration_tests::schedule::fault::Kind;
use vfio_migration_tests::schedule::log::{Facts, Holds};
use vfio_migration_tests::schedule::setting::Make;

use crate::chance::{Chance, Turn};

/// A device in memory.
#[derive(Debug)]
pub struct Device {
    card: Card,
    chance: Chance,
    data: Option<DataFd>,
    /// The state that the VMM believes it to be in.
    believed: State,
    /// What was written into it since RESUMING.
    written: Vec<u8>,
}

impl Device {
    /// A device to which happens what `chance` says.
    #[must_use]
    pub fn new(make: Make, chance: &Chance) -> Self {
        let chance = chance.clone();
        Self { card: Card::new(make), chance, data: None, believed: make.state, written: vec![] }
    }

    /// What is true of it.
    #[must_use]
    pub const fn facts(&self) -> Facts {
        self.card.facts()
    }

    /// Whether the whole state was written into it, and nothing else.
    #[must_use]
    pub fn has_all(&self) -> bool {
        self.written == content(self.card.make().rest)
    }

    /// Holds it against what must be true after every operation.
    ///
    /// # Panics
    /// When it works, or stands accepted, with a part of a state.
    pub fn assert_whole_where_it_works(&self) {
        let Facts { state, passed, holds, .. } = self.facts();
        let through = passed | 1 << state.raw();
        assert!(holds != Holds::Half || through & ACCEPTED == 0, "half a state is in {state}");
    }

    fn begin(&mut self) -> Turn {
        self.card.begin();
        let turn = self.chance.turn();
        if turn == Turn::GuestReset {
            self.card.be_reset_by_guest();
        }
        turn
    }

    fn set(&mut self, to: State, turn: Turn) -> Result<(), Code> {
        let (fault, code) = match turn {
            Turn::Refused(steps, code) => (Some(Kind::Refused(steps)), code),
            Turn::Failed(code) => (Some(Kind::Refused(0)), code),
            Turn::Broken(code) => (Some(Kind::Broken), code),
            _ => (None, Code(0)),
        };
        let answer = self.card.set(to, fault, code);
        let now = self.card.state();
        let expected = data_fd(self.card.make().flags, self.believed, now);
        self.believed = now;
        let new = answer.as_ref().ok().copied().flatten();
        let as_expected = answer.is_err() || new.is_some() == (expected == Some(true));
        if expected != Some(false) || !as_expected {
            self.close();
        }
        if !as_expected {
            new.into_iter().for_each(|fd| self.card.close(fd));
            return Err(EBADF);
        }
        self.data = new.or(self.data);
        answer.map(drop)
    }

    fn fd(&self) -> Result<DataFd, Code> {
        self.data.ok_or(EBADF)
    }

    fn close(&mut self) {
        if let Some(fd) = self.data.take() {
            self.card.close(fd);
        }
    }
}

impl drive::Device for Device {
    fn set_state(&mut self, state: State) -> Result<(), Code> {
        let turn = self.begin();
        let answer = self.set(state, turn);
        if state == State::Resuming && answer.is_ok() {
            self.written.clear();
        }
        self.assert_whole_where_it_works();
        answer
    }

    fn precopy_info(&mut self) -> Result<PrecopyInfo, Code> {
        match self.begin() {
            Turn::Failed(code) => Err(code),
            _ => self.card.precopy_info(self.fd()?),
        }
    }

    fn read_data(&mut self, buffer: &mut [u8]) -> Result<DataRead, Code> {
        let room = buffer.len().min(self.card.make().piece);
        let room = match self.begin() {
            Turn::Failed(code) => return Err(code),
            Turn::Short(count) => room.min(count),
            _ => room,
        };
        Ok(match self.card.read(self.fd()?, room)? {
            Got::Drained => DataRead::Drained,
            Got::Bytes(bytes) if bytes.is_empty() => DataRead::End,
            Got::Bytes(bytes) => {
                buffer[..bytes.len()].copy_from_slice(&bytes);
                DataRead::Bytes(bytes.len())
            }
        })
    }

    fn write_data(&mut self, bytes: &[u8]) -> Result<usize, Code> {
        let count = bytes.len().min(self.card.make().piece);
        let count = match self.begin() {
            Turn::Failed(code) => return self.card.write(self.fd()?, bytes, Some(code)),
            Turn::Closed => return self.card.write_nothing(self.fd()?),
            Turn::Short(short) => count.min(short),
            _ => count,
        };
        let count = self.card.write(self.fd()?, &bytes[..count], None)?;
        self.written.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn reset(&mut self) -> Result<(), Code> {
        let turn = self.begin();
        self.close();
        let refused = if let Turn::Failed(code) = turn { Some(code) } else { None };
        let answer = self.card.reset(refused);
        self.believed = self.card.state();
        self.assert_whole_where_it_works();
        answer
    }
}

/// The answer without a data fd, and to a data fd that came unexpectedly.
const EBADF: Code = Code(9);

/// Where a device works, or stands accepted, one bit each.
const ACCEPTED: u8 = 1 << State::Running.raw()
    | 1 << State::RunningP2p.raw()
    | 1 << State::PreCopy.raw()
    | 1 << State::PreCopyP2p.raw()
    | 1 << State::StopCopy.raw()
    | 1 << State::Stop.raw();
