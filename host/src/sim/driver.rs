//! What a device and its data fds share: the content, the state, and the session.
//!
//! Deliberately absent: the way from one state to another, of which this takes one step at a time, and sleeping.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;
use vfio_migration_core::device::State;
use vfio_migration_core::device::uapi::{PRECOPY_INFO_REINIT, PrecopyInfo};

use super::config::{Config, Drained, Increment, Info};
use super::fault::{Fault, Operation, Schedule};
use super::format::{HEADER_LEN, generate};
use super::resuming::Resuming;
use super::saving::{Left, Saving};
use super::space::Pci;
use super::steps::is_saving;

pub(super) struct Shared {
    pub(super) config: Config,
    driver: Mutex<Driver>,
}

pub(super) struct Driver {
    pub(super) state: State,
    pub(super) content: Arc<Vec<u8>>,
    pub(super) schedule: Schedule,
    /// `VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2` was set.
    pub(super) opted_in: bool,
    /// The configuration space of a PCI function.
    pub(super) space: Option<Vec<u8>>,
    /// How many sessions there were; the last one's number is its data fd's.
    pub(super) sessions: u64,
    transfer: Option<Transfer>,
}

/// The access mode of a data fd: `O_RDONLY` or `O_WRONLY`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Reading,
    Writing,
}

enum Transfer {
    Saving(Saving),
    Resuming(Resuming),
}

impl Shared {
    pub(super) fn new(config: Config) -> Self {
        let driver = Driver {
            state: State::Running,
            content: Arc::new(generate(config.seed, config.size)),
            schedule: Schedule::new(&config.faults, &config.guest_resets),
            opted_in: false,
            space: config.pci.map(Pci::space),
            sessions: 0,
            transfer: None,
        };
        Self { config, driver: Mutex::new(driver) }
    }

    /// A thread that panicked while it held the lock can't have left half a change.
    pub(super) fn lock(&self) -> MutexGuard<'_, Driver> {
        self.driver.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a call: counts it, lets the guest reset the device if that is due, and returns the fault that is due.
    pub(super) fn call(&self, operation: Operation) -> (MutexGuard<'_, Driver>, Option<Fault>) {
        let mut driver = self.lock();
        let due = driver.schedule.call(operation);
        if due.guest_reset {
            driver.reset(&self.config);
        }
        (driver, due.fault)
    }
}

impl Driver {
    /// RUNNING, no session, and a content of zeros.
    pub(super) fn reset(&mut self, config: &Config) {
        self.content = Arc::new(vec![0; config.size]);
        self.state = State::Running;
        self.space = config.pci.map(Pci::space);
        self.transfer = None;
    }

    /// ERROR, in which there is no session either.
    pub(super) fn fail(&mut self) {
        self.state = State::Error;
        self.transfer = None;
    }

    /// One step, which is known to be legal. Returns the direction of the session that it opens.
    pub(super) fn step(&mut self, config: &Config, to: State) -> Result<Option<Direction>, Errno> {
        if let Some(Transfer::Resuming(resuming)) = &mut self.transfer {
            self.content = Arc::new(resuming.content().ok_or(Errno::INVAL)?);
        }
        let (transfer, opens) = match self.transfer.take() {
            Some(Transfer::Saving(mut saving)) if is_saving(to) => {
                if to == State::StopCopy {
                    saving.stop();
                }
                (Some(Transfer::Saving(saving)), None)
            }
            _ if is_saving(to) => (Some(Transfer::Saving(Saving::new(config, to))), Some(Direction::Reading)),
            _ if to == State::Resuming => {
                (Some(Transfer::Resuming(Resuming::new(config.size))), Some(Direction::Writing))
            }
            _ => (None, None),
        };
        self.transfer = transfer;
        self.state = to;
        self.sessions += u64::from(opens.is_some());
        Ok(opens)
    }

    pub(super) fn read(&mut self, config: &Config, session: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
        let Self { content, opted_in, .. } = self;
        let saving = saving(&mut self.transfer, self.sessions == session)?;
        let got = saving.read(content, buffer);
        if got > 0 || buffer.is_empty() || saving.is_stopped() {
            return Ok(got);
        }
        if config.precopy.increment == Increment::Always {
            saving.round(config, *opted_in, content);
        }
        match config.precopy.drained {
            Drained::NoMsg => Err(Errno::NOMSG),
            Drained::Zero => Ok(0),
        }
    }

    /// Takes all of `bytes`, unless `fault` is due.
    pub(super) fn write(&mut self, session: u64, bytes: &[u8], fault: Option<Fault>) -> Result<usize, Errno> {
        let Some(Transfer::Resuming(resuming)) = self.transfer.as_mut().filter(|_| self.sessions == session)
        else {
            return Err(fault.map_or(Errno::NODEV, |fault| fault.errno));
        };
        let Some(fault) = fault else { return resuming.write(bytes) };
        resuming.fail(fault.errno);
        Err(fault.errno)
    }

    pub(super) fn precopy_info(
        &mut self,
        config: &Config,
        session: u64,
        info: &mut PrecopyInfo,
    ) -> Result<(), Errno> {
        if !matches!(self.state, State::PreCopy | State::PreCopyP2p) || info.argsz < 24 {
            return Err(Errno::INVAL);
        }
        let Self { content, opted_in, .. } = self;
        let saving = saving(&mut self.transfer, self.sessions == session)?;
        if config.precopy.increment == Increment::Asked && saving.is_drained() {
            saving.round(config, *opted_in, content);
        }
        let Left { initial, dirty } = saving.left();
        let sets_all = config.precopy.info == Info::Zeroed;
        if *opted_in || sets_all {
            info.flags = if saving.take_reinit() { PRECOPY_INFO_REINIT } else { 0 };
        }
        if initial > 0 || sets_all {
            info.initial_bytes = initial;
        }
        if initial == 0 || sets_all {
            info.dirty_bytes = dirty;
        }
        Ok(())
    }

    /// What STOP_COPY will give, in bytes.
    pub(super) fn data_size(&self, config: &Config) -> u64 {
        let whole = (HEADER_LEN + config.size) as u64;
        match &self.transfer {
            Some(Transfer::Saving(saving)) => saving.left_at_stop().unwrap_or(whole),
            Some(Transfer::Resuming(_)) | None => whole,
        }
    }

    /// The guest writes `bytes`, which fit, at `offset`.
    pub(super) fn write_content(&mut self, offset: usize, bytes: &[u8]) -> Result<(), Errno> {
        let end = offset.checked_add(bytes.len()).filter(|end| *end <= self.content.len());
        let range = offset..end.ok_or(Errno::INVAL)?;
        Arc::make_mut(&mut self.content)[range.clone()].copy_from_slice(bytes);
        if let Some(Transfer::Saving(saving)) = &mut self.transfer {
            saving.change(range);
        }
        Ok(())
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let driver = self.lock();
        write!(f, "{} after {} sessions", driver.state, driver.sessions)
    }
}

/// The sending side, where `is_current` is.
fn saving(transfer: &mut Option<Transfer>, is_current: bool) -> Result<&mut Saving, Errno> {
    match transfer {
        Some(Transfer::Saving(saving)) if is_current => Ok(saving),
        _ => Err(Errno::NODEV),
    }
}
