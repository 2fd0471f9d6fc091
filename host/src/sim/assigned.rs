//! A simulated device in the hands of a VMM.
//!
//! Deliberately absent: policy. As host's device over a file descriptor, it does what a session asks and keeps the data
//! fd in step.

use std::time::{Duration, Instant};

use rustix::io::Errno;
use vfio_migration_core::device::State;
use vfio_migration_core::device::arc::{self, DataSession};
use vfio_migration_core::session::drive::Device;
use vfio_migration_core::session::precopy::PrecopyInfo;
use vfio_migration_core::session::{Code, DataRead};

use super::{DataFd, Sim};
use crate::errno::{code, data_read};

/// A device as a VMM holds it, together with the current data fd.
pub struct Assigned {
    /// The device. What is done to it here, for instance a reset by its guest, the VMM does not see.
    pub sim: Sim,
    data_fd: Option<DataFd>,
    /// The state after the VMM's last SET, reset or GET.
    believed: State,
    /// Whether the device could say so after the last refusal.
    is_known: bool,
    opted_in: bool,
    set_took: Duration,
}

impl Assigned {
    /// Takes hold of a device that has no session, and opts in to PRECOPY_INFO's flags where it has them.
    #[must_use]
    pub fn new(mut sim: Sim) -> Self {
        let opted_in = sim.opt_in_precopy_info_v2().is_ok();
        let believed = sim.get_state();
        Self { sim, data_fd: None, believed, is_known: true, opted_in, set_took: Duration::ZERO }
    }

    /// How long the device took over the last SET.
    #[must_use]
    pub const fn set_took(&self) -> Duration {
        self.set_took
    }

    /// The device's estimate of the bytes that STOP_COPY will give.
    ///
    /// # Errors
    /// As [`Sim::try_data_size`].
    pub fn data_size(&self) -> Result<u64, Errno> {
        self.sim.try_data_size()
    }

    fn fd(&self) -> Result<&DataFd, Code> {
        self.data_fd.as_ref().ok_or(code(Errno::BADF))
    }

    fn take_session(&mut self, arc: Option<DataSession>, new: Option<DataFd>) -> Result<(), Code> {
        let Some(arc) = arc.filter(|arc| arc.returns_data_fd() == new.is_some()) else {
            self.data_fd = None;
            return Err(code(Errno::BADF));
        };
        if arc != DataSession::Kept {
            self.data_fd = new;
        }
        Ok(())
    }

    /// Asks where the device is, and whether the session still is.
    fn look(&mut self) {
        let now = self.sim.try_get_state();
        self.is_known = now.is_ok();
        let now = now.unwrap_or(State::Error);
        if arc::data_session(self.sim.features(), self.believed, now) != Some(DataSession::Kept) {
            self.data_fd = None;
        }
        self.believed = now;
    }
}

impl Device for Assigned {
    /// As [`Sim::set_state`]; EBADF when a data fd came that the arc does not give, or did not come.
    fn set_state(&mut self, state: State) -> Result<(), Code> {
        // As host's `Device` does: no SET leads out of ERROR, and a reset behind our back ends RESUMING without a word.
        if self.believed == State::Error && self.is_known {
            return Err(code(Errno::INVAL));
        }
        if self.believed == State::Resuming && self.sim.get_state() != State::Resuming {
            self.look();
            return Err(code(Errno::BADF));
        }
        let arc = arc::data_session(self.sim.features(), self.believed, state);
        let began = Instant::now();
        let answer = self.sim.set_state(state.raw());
        self.set_took = began.elapsed();
        match answer {
            Ok(new) => {
                self.believed = state;
                if !std::mem::replace(&mut self.is_known, true) {
                    self.data_fd = None;
                    return Ok(());
                }
                self.take_session(arc, new)
            }
            Err(errno) => {
                self.look();
                Err(code(errno))
            }
        }
    }

    /// As [`DataFd::precopy_info`]; EBADF without a data fd.
    fn precopy_info(&mut self) -> Result<PrecopyInfo, Code> {
        let info = PrecopyInfo::from(self.fd()?.precopy_info().map_err(code)?);
        Ok(PrecopyInfo { reinit: info.reinit && self.opted_in, ..info })
    }

    fn read_data(&mut self, buffer: &mut [u8]) -> Result<DataRead, Code> {
        data_read(self.fd()?.read(buffer))
    }

    fn write_data(&mut self, bytes: &[u8]) -> Result<usize, Code> {
        self.fd()?.write(bytes).map_err(code)
    }

    fn reset(&mut self) -> Result<(), Code> {
        self.data_fd = None;
        let answer = self.sim.try_reset().map_err(code);
        self.look();
        answer
    }
}
