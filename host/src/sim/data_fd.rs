//! A data session's file descriptor.
//!
//! Deliberately absent: poll, and everything else that a stream's file has none of.

use std::fmt;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use vfio_migration_core::device::uapi::PrecopyInfo;

use super::driver::{Direction, Shared};
use super::fault::Operation;

/// A data session's fd. After the arc that ends the session it answers ENODEV. Dropping it closes it, which changes
/// nothing in the device. It may be used by another thread than the device.
pub struct DataFd {
    pub(super) shared: Arc<Shared>,
    pub(super) session: u64,
    pub(super) direction: Direction,
}

impl DataFd {
    /// `read`: fills as much of `buffer` as there is data for; 0 is the end.
    ///
    /// # Errors
    /// EBADF on the fd of RESUMING, ENODEV after the session, ENOMSG where PRE_COPY has nothing more (unless it says
    /// 0 there), and what was set up to fail.
    pub fn read(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        if self.direction == Direction::Writing {
            return Err(Errno::BADF);
        }
        pause(self.shared.config.pace.slow);
        let (mut driver, fault) = self.shared.call(Operation::Read);
        if let Some(fault) = fault {
            return Err(fault.errno);
        }
        let len = self.at_most(buffer.len());
        driver.read(&self.shared.config, self.session, &mut buffer[..len])
    }

    /// `write`: takes all of `bytes`, or as many as the device takes at most.
    ///
    /// # Errors
    /// EBADF on an fd that is read, ENODEV after the session, EFAULT for a header that is not this device's or a record
    /// that is none, ENOMEM for bytes past the end of the state or of the content, what was set up to fail, and the
    /// first of these ever after (not after EINTR and EAGAIN).
    pub fn write(&self, bytes: &[u8]) -> Result<usize, Errno> {
        if self.direction == Direction::Reading {
            return Err(Errno::BADF);
        }
        pause(self.shared.config.pace.slow);
        let (mut driver, fault) = self.shared.call(Operation::Write);
        driver.write(self.session, &bytes[..self.at_most(bytes.len())], fault)
    }

    /// `VFIO_MIG_GET_PRECOPY_INFO` into a zeroed structure: how many bytes can be read before a read finds nothing.
    ///
    /// # Errors
    /// As [`DataFd::get_precopy_info`].
    pub fn precopy_info(&self) -> Result<PrecopyInfo, Errno> {
        let mut info = PrecopyInfo { argsz: 24, ..PrecopyInfo::default() };
        self.get_precopy_info(&mut info).map(|()| info)
    }

    /// `VFIO_MIG_GET_PRECOPY_INFO` into the caller's structure, of which the device may leave fields as they are.
    ///
    /// # Errors
    /// ENOTTY on the fd of RESUMING, EINVAL outside PRE_COPY and PRE_COPY_P2P and for an `argsz` below 24, ENODEV in
    /// those states after the fd's session, and what was set up to fail.
    pub fn get_precopy_info(&self, info: &mut PrecopyInfo) -> Result<(), Errno> {
        if self.direction == Direction::Writing {
            return Err(Errno::NOTTY);
        }
        let (mut driver, fault) = self.shared.call(Operation::Info);
        match fault {
            Some(fault) => Err(fault.errno),
            None => driver.precopy_info(&self.shared.config, self.session, info),
        }
    }

    fn at_most(&self, len: usize) -> usize {
        self.shared.config.pace.short.map_or(len, |short| len.min(short.get()))
    }
}

impl fmt::Debug for DataFd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DataFd({:?}, session {})", self.direction, self.session)
    }
}

/// Takes its time, where it takes any.
pub(super) fn pause(time: Duration) {
    if !time.is_zero() {
        thread::sleep(time);
    }
}
