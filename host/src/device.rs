//! A migratable device behind its file descriptor.
//!
//! The data fd never leaves its [`Device`]: it is taken on the arc that opens a session and closed on the arc that
//! ends it. After a refused SET the device is asked where it stands, since it may be anywhere on the way.
//!
//! Deliberately absent: how the file descriptor was opened; that is the module `open`, or a VMM of its own.

#[cfg(feature = "std")]
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use vfio_migration_core::device::arc::{DataSession, data_session};
use vfio_migration_core::device::{Features, State};
use vfio_migration_core::session::drive;
use vfio_migration_core::session::{Code, DataRead, PrecopyInfo};

use crate::errno::{code, data_read};
use crate::interrupt::Interrupt;
use crate::ioctl;
use crate::wait::until_done;

/// A migratable device behind `Fd`: an [`OwnedFd`], a `BorrowedFd` of a VMM's own, or whatever else holds one.
#[derive(Debug)]
pub struct Device<Fd = OwnedFd> {
    fd: Fd,
    features: Features,
    state: State,
    /// Whether the kernel could say so after the last refusal.
    is_known: bool,
    data: Option<OwnedFd>,
    /// Whether the driver was told that REINIT is understood here.
    knows_reinit: bool,
    interrupt: Option<Interrupt>,
    #[cfg(feature = "std")]
    set_took: Duration,
}

/// Why a device behind an open file descriptor can't migrate.
#[derive(Debug, thiserror::Error)]
pub enum Unsupported {
    /// Kernel or driver does not have the feature.
    #[error("the driver has no migration v2, or the kernel is older than 5.18")]
    NoMigration,
    /// The feature could not be asked for.
    #[error("the kernel refused VFIO_DEVICE_FEATURE_MIGRATION: {0}")]
    NotAsked(Errno),
    /// The driver has the feature without STOP_COPY.
    #[error("the driver's migration flags {0:#x} lack STOP_COPY")]
    NoStopCopy(u64),
    /// GET of the state failed.
    #[error("the device's state can't be read (VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE: {0})")]
    NoState(Errno),
    /// GET of the state gave a number that the uapi does not have.
    #[error("the device says that it is in state {0}, wanted one from 0 to 7")]
    UnknownState(u32),
}

impl<Fd: AsFd> Device<Fd> {
    /// Asks the device behind `fd` for its features and its state.
    ///
    /// # Errors
    /// [`Unsupported`] says what the device lacks.
    pub fn new(fd: Fd) -> Result<Self, Unsupported> {
        let flags = ioctl::get_migration(&fd).map_err(|errno| match errno {
            Errno::NOTTY => Unsupported::NoMigration,
            errno => Unsupported::NotAsked(errno),
        })?;
        let features = Features::from_raw(flags).ok_or(Unsupported::NoStopCopy(flags))?;
        let number = ioctl::get_device_state(&fd).map_err(Unsupported::NoState)?;
        let state = State::from_raw(number).ok_or(Unsupported::UnknownState(number))?;
        Ok(Self {
            fd,
            features,
            state,
            is_known: true,
            data: None,
            knows_reinit: false,
            interrupt: None,
            #[cfg(feature = "std")]
            set_took: Duration::ZERO,
        })
    }

    /// Tells the driver that its initial data may begin anew in pre-copy (REINIT, Linux 7.1). A source then sends
    /// INIT_DATA_SENT again, which a QEMU before 11.1 does not take: a choice of the caller, who knows the other side.
    ///
    /// # Errors
    /// The kernel's answer: ENOTTY or EINVAL where kernel or driver does not have it, and nothing has changed.
    pub fn opt_in_precopy_info_v2(&mut self) -> rustix::io::Result<()> {
        ioctl::set_precopy_info_v2(&self.fd)?;
        self.knows_reinit = true;
        Ok(())
    }

    /// Lets `interrupt` end reads and writes of the data fd with ECANCELED.
    pub fn interrupted_by(&mut self, interrupt: Interrupt) {
        self.interrupt = Some(interrupt);
    }

    /// What the driver can do.
    pub const fn features(&self) -> Features {
        self.features
    }

    /// The state after the last SET, reset or GET; ERROR where the kernel refuses to say.
    pub const fn state(&self) -> State {
        self.state
    }

    /// How long the kernel took over the last SET: the ioctl alone, without what is done for its data fd.
    #[cfg(feature = "std")]
    pub const fn set_took(&self) -> Duration {
        self.set_took
    }

    /// The driver's estimate of the bytes that STOP_COPY will give; some say 0.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn data_size(&self) -> rustix::io::Result<u64> {
        ioctl::get_mig_data_size(&self.fd)
    }

    /// The device's file descriptor.
    pub const fn fd(&self) -> &Fd {
        &self.fd
    }

    /// The ioctl alone, and how long it took where there is a clock.
    fn set(&mut self, state: State) -> rustix::io::Result<Option<OwnedFd>> {
        #[cfg(feature = "std")]
        let began = Instant::now();
        let answer = ioctl::set_device_state(&self.fd, state.raw());
        #[cfg(feature = "std")]
        {
            self.set_took = began.elapsed();
        }
        answer
    }

    fn take_session(&mut self, arc: Option<DataSession>, new: Option<OwnedFd>) -> Result<(), Code> {
        let Some(arc) = arc.filter(|arc| arc.returns_data_fd() == new.is_some()) else {
            // A reset behind our back (a guest's FLR) makes the kernel open a session where we had one, or none.
            self.data = None;
            return Err(code(Errno::BADF));
        };
        match arc {
            DataSession::Kept => {}
            DataSession::Absent | DataSession::Ends => self.data = None,
            DataSession::Opens | DataSession::Replaced => {
                let new = new.map(nonblocking).transpose().map_err(code)?;
                self.data = new;
            }
        }
        Ok(())
    }

    /// Fails unless GET says that the device is where we brought it to.
    fn check_unmoved(&mut self) -> Result<(), Code> {
        let believed = self.state;
        self.look().map_err(code)?;
        if self.state == believed { Ok(()) } else { Err(code(Errno::BADF)) }
    }

    /// Asks where the device is, and whether the session still is.
    fn look(&mut self) -> rustix::io::Result<()> {
        let answer = ioctl::get_device_state(&self.fd);
        let now = answer.ok().and_then(State::from_raw);
        self.is_known = now.is_some();
        let now = now.unwrap_or(State::Error);
        if data_session(self.features, self.state, now) != Some(DataSession::Kept) {
            self.data = None;
        }
        self.state = now;
        answer.map(drop)
    }
}

impl<Fd: AsFd> drive::Device for Device<Fd> {
    fn set_state(&mut self, state: State) -> Result<(), Code> {
        // No SET leads out of ERROR. Drivers ask the kernel's table of steps there, and it warns, which is a panic where
        // `panic_on_warn` is set; this is its answer.
        if self.state == State::Error && self.is_known {
            return Err(code(Errno::INVAL));
        }
        // A reset behind our back ends RESUMING without a word, and the kernel would go on from an empty device.
        if self.state == State::Resuming && state != State::Resuming {
            self.check_unmoved()?;
        }
        let arc = data_session(self.features, self.state, state);
        match self.set(state) {
            Ok(new) => {
                self.state = state;
                if !core::mem::replace(&mut self.is_known, true) {
                    // From where is not known, so neither is whose session it would be; recovery needs none.
                    self.data = None;
                    return Ok(());
                }
                self.take_session(arc, new)
            }
            Err(errno) => {
                let _ = self.look();
                Err(code(errno))
            }
        }
    }

    fn precopy_info(&mut self) -> Result<PrecopyInfo, Code> {
        let data = self.data.as_ref().ok_or(code(Errno::BADF))?;
        let info = PrecopyInfo::from(ioctl::get_precopy_info(data).map_err(code)?);
        Ok(PrecopyInfo { reinit: info.reinit && self.knows_reinit, ..info })
    }

    fn read_data(&mut self, buffer: &mut [u8]) -> Result<DataRead, Code> {
        let data = self.data.as_ref().ok_or(code(Errno::BADF))?;
        let read = || rustix::io::read(data, &mut *buffer);
        data_read(until_done(self.interrupt.as_ref(), data.as_fd(), PollFlags::IN, read))
    }

    fn write_data(&mut self, bytes: &[u8]) -> Result<usize, Code> {
        let data = self.data.as_ref().ok_or(code(Errno::BADF))?;
        let write = || rustix::io::write(data, bytes);
        until_done(self.interrupt.as_ref(), data.as_fd(), PollFlags::OUT, write).map_err(code)
    }

    fn reset(&mut self) -> Result<(), Code> {
        self.data = None;
        let answer = ioctl::device_reset(&self.fd).map_err(code);
        let _ = self.look();
        answer
    }
}

/// A data fd on which a driver that looks at O_NONBLOCK answers EAGAIN instead of blocking, so that an interrupt is
/// seen. Each data fd is a file description of its own: nobody else is affected.
fn nonblocking(fd: OwnedFd) -> rustix::io::Result<OwnedFd> {
    let flags = fcntl_getfl(&fd)?;
    fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
    Ok(fd)
}
