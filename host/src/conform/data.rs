//! A data fd under test, with all that can be called on it.
//!
//! Slow and interrupted calls are a driver's right: EINTR is repeated, EAGAIN is waited out, and
//! reads and writes may be short. Only where nothing comes for long is that an answer, ETIMEDOUT.
//!
//! Deliberately absent: the end of the session. The descriptor is closed when the lab is home again, since what a close
//! in the middle does is a rule of its own.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, SeekFrom, fcntl_getfl, fcntl_setfl};
use rustix::io::{Errno, Result as Answer};
use vfio_migration_core::device::uapi::PrecopyInfo;

use crate::interrupt::Interrupt;
use crate::ioctl;

/// A data fd, open as long as one of its clones is there.
#[derive(Clone, Debug)]
pub(super) struct Data {
    fd: Rc<OwnedFd>,
    interrupt: Interrupt,
}

impl Data {
    /// Takes the descriptor; a driver that looks at O_NONBLOCK answers EAGAIN from then on.
    pub(super) fn new(fd: OwnedFd, interrupt: Interrupt) -> Answer<Self> {
        let flags = fcntl_getfl(&fd)?;
        fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
        Ok(Self { fd: Rc::new(fd), interrupt })
    }

    /// Reads once there is something to read, or an end.
    pub(super) fn read(&self, room: &mut [u8]) -> Answer<usize> {
        self.patiently(|| rustix::io::read(self.fd(), &mut *room))
    }

    /// Reads what is there now; EAGAIN says that nothing is.
    pub(super) fn peek(&self, room: &mut [u8]) -> Answer<usize> {
        self.again_after_eintr(|| rustix::io::read(self.fd(), &mut *room))
    }

    /// Writes once there is room.
    pub(super) fn write(&self, bytes: &[u8]) -> Answer<usize> {
        self.patiently(|| rustix::io::write(self.fd(), bytes))
    }

    /// Reads at an offset.
    pub(super) fn read_at(&self, room: &mut [u8]) -> Answer<usize> {
        self.again_after_eintr(|| rustix::io::pread(self.fd(), &mut *room, 0))
    }

    /// Writes at an offset.
    pub(super) fn write_at(&self, bytes: &[u8]) -> Answer<usize> {
        self.again_after_eintr(|| rustix::io::pwrite(self.fd(), bytes, 0))
    }

    /// Asks where in the stream it is.
    pub(super) fn seek(&self) -> Answer<u64> {
        rustix::fs::seek(self.fd(), SeekFrom::Current(0))
    }

    /// Whether `poll` says within `time` that there is something to read.
    pub(super) fn is_readable(&self, time: Duration) -> Answer<bool> {
        let end = Instant::now() + time;
        loop {
            let mut fds = [PollFd::from_borrowed_fd(self.fd(), PollFlags::IN)];
            match poll(&mut fds, Some(&Timespec::default())) {
                Ok(count) if count > 0 => return Ok(fds[0].revents().contains(PollFlags::IN)),
                Ok(_) | Err(Errno::INTR) if self.is_asked() => return Err(Errno::CANCELED),
                Ok(_) | Err(Errno::INTR) if Instant::now() >= end => return Ok(false),
                Ok(_) | Err(Errno::INTR) => self.interrupt.sleep(MOMENT),
                Err(errno) => return Err(errno),
            }
        }
    }

    /// `VFIO_MIG_GET_PRECOPY_INFO` as a careful VMM calls it.
    pub(super) fn info(&self) -> Answer<PrecopyInfo> {
        ioctl::get_precopy_info(self.fd())
    }

    /// `VFIO_MIG_GET_PRECOPY_INFO` with an argument of this size, and bytes `left` in its fields.
    pub(super) fn info_as(&self, argsz: u32, left: u8) -> Answer<PrecopyInfo> {
        ioctl::get_precopy_info_as(self.fd(), argsz, left)
    }

    /// A request that VFIO does not have.
    pub(super) fn unknown_request(&self) -> Answer<()> {
        ioctl::unknown_request(self.fd())
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn is_asked(&self) -> bool {
        self.interrupt.asked().is_some()
    }

    /// Repeats a call until it has an answer. `poll` is not asked when: that it is right is a rule of its own.
    fn patiently(&self, mut call: impl FnMut() -> Answer<usize>) -> Answer<usize> {
        let end = Instant::now() + PATIENCE;
        loop {
            if self.is_asked() {
                return Err(Errno::CANCELED);
            }
            match self.again_after_eintr(&mut call) {
                Err(Errno::AGAIN) if Instant::now() > end => return Err(Errno::TIMEDOUT),
                Err(Errno::AGAIN) => self.interrupt.sleep(MOMENT),
                answer => return answer,
            }
        }
    }

    /// Repeats a call that was interrupted; a driver that says so again and again is given up.
    fn again_after_eintr(&self, mut call: impl FnMut() -> Answer<usize>) -> Answer<usize> {
        for _ in 0..INTERRUPTIONS {
            match call() {
                Err(Errno::INTR) if self.is_asked() => return Err(Errno::CANCELED),
                Err(Errno::INTR) => {}
                answer => return answer,
            }
        }
        Err(Errno::INTR)
    }
}

/// How long to wait for something that a driver says will come.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long to wait before looking again.
const MOMENT: Duration = Duration::from_millis(1);
/// How often in a row a call may be interrupted.
const INTERRUPTIONS: usize = 1000;

#[cfg(test)]
mod tests {
    use rustix::pipe::pipe;

    use super::*;

    #[test]
    fn interrupted_calls_are_repeated_and_endless_ones_given_up() {
        let interrupt = Interrupt::new().unwrap();
        let data = Data::new(pipe().unwrap().0, interrupt.clone()).unwrap();
        let mut answers = vec![Ok(7), Err(Errno::INTR), Err(Errno::INTR)];
        assert_eq!(data.again_after_eintr(|| answers.pop().unwrap_or(Err(Errno::IO))), Ok(7));
        assert_eq!(data.again_after_eintr(|| Err(Errno::INTR)), Err(Errno::INTR));
        let mut calls = 0;
        let answer = data.again_after_eintr(|| {
            calls += 1;
            interrupt.ask(2);
            Err(Errno::INTR)
        });
        assert_eq!((answer, calls), (Err(Errno::CANCELED), 1));
    }

    #[test]
    fn a_read_that_waits_ends_with_the_interrupt_and_poll_says_what_is_there() {
        let (read, write) = pipe().unwrap();
        let interrupt = Interrupt::new().unwrap();
        let data = Data::new(read, interrupt.clone()).unwrap();
        let mut room = [0; 4];
        assert_eq!(data.peek(&mut room), Err(Errno::AGAIN));
        assert_eq!(data.is_readable(Duration::ZERO), Ok(false));
        rustix::io::write(&write, b"abc").unwrap();
        assert_eq!(data.is_readable(Duration::ZERO), Ok(true));
        assert_eq!(data.read(&mut room), Ok(3));
        interrupt.ask(2);
        assert_eq!(data.read(&mut room), Err(Errno::CANCELED));
    }
}
