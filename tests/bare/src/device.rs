//! The device that migrates: simulated, and slow. What it is asked for is begun at once and finished by an interrupt.
//!
//! It obeys the kernel's rules for states and data sessions, and its data are those of the simulated device of
//! `vfio-migrate`, so that either loads what the other one saved.
//!
//! Deliberately absent: a data fd. There is no kernel, and one session at a time.

use core::sync::atomic::{AtomicU32, Ordering};
use core::task::Poll;

use vfio_migration_core::device::arc::{self, DataSession};
use vfio_migration_core::device::{Features, State};
use vfio_migration_core::session::{Code, DataRead, PrecopyInfo};

use self::content::{Content, EINVAL};
use crate::machine::setup::Setup;

mod content;

/// The kind of device, which a stream's sections are named after.
pub(crate) const DRIVER: &str = "sim";

/// The answer of a device that is no PCI function to whoever wants its configuration; EOPNOTSUPP.
pub(crate) const NO_CONFIG: Code = Code(95);

/// The machine's only device.
pub(crate) struct Device {
    features: Features,
    state: State,
    refused: [bool; State::ALL.len()],
    content: Content,
    /// The bytes of data that were read or written in this session.
    moved: u64,
}

impl Device {
    /// The device as `setup` wants it, in RUNNING. There is one, so this works once.
    pub(crate) fn take(setup: &Setup) -> Self {
        let content = Content::take(setup.size, setup.seed);
        Self { features: setup.features, state: State::Running, refused: setup.refused, content, moved: 0 }
    }

    /// What its driver can do.
    pub(crate) const fn features(&self) -> Features {
        self.features
    }

    /// Where it is.
    pub(crate) const fn state(&self) -> State {
        self.state
    }

    /// The bytes of data that went through this session.
    pub(crate) const fn moved(&self) -> u64 {
        self.moved
    }

    /// The crc32c of its content.
    pub(crate) fn checksum(&self) -> u32 {
        self.content.checksum()
    }

    /// SET of a state.
    pub(crate) fn set_state(&mut self, state: State) -> Poll<Result<(), Code>> {
        self.later(|device| device.set(state))
    }

    /// PRECOPY_INFO. Its guest, which works on meanwhile, changes content now and then.
    pub(crate) fn precopy_info(&mut self) -> Poll<Result<PrecopyInfo, Code>> {
        self.later(|device| Ok(device.content.precopy_info()))
    }

    /// One read of its data.
    pub(crate) fn read_data(&mut self, buffer: &mut [u8]) -> Poll<Result<DataRead, Code>> {
        self.later(|device| {
            let count = device.content.read(buffer);
            device.moved += count as u64;
            Ok(match (count, device.state) {
                (0, State::StopCopy) => DataRead::End,
                (0, _) => DataRead::Drained,
                (count, _) => DataRead::Bytes(count),
            })
        })
    }

    /// One write of its data.
    pub(crate) fn write_data(&mut self, bytes: &[u8]) -> Poll<Result<usize, Code>> {
        self.later(|device| {
            device.content.write(bytes)?;
            device.moved += bytes.len() as u64;
            Ok(bytes.len())
        })
    }

    /// A reset: RUNNING, and a content of zeros.
    pub(crate) fn reset(&mut self) -> Poll<Result<(), Code>> {
        self.later(|device| {
            device.state = State::Running;
            device.content.reset();
            Ok(())
        })
    }

    /// Begins the operation, or looks whether its interrupt has come; if so, `answer` has the outcome.
    fn later<T>(&mut self, answer: impl FnOnce(&mut Self) -> T) -> Poll<T> {
        OPERATION.poll().map(|()| answer(self))
    }

    fn set(&mut self, to: State) -> Result<(), Code> {
        if self.refused[to as usize] {
            return Err(EIO);
        }
        for step in arc::path(self.features, self.state, to).ok_or(EINVAL)? {
            self.step(step)?;
        }
        Ok(())
    }

    fn step(&mut self, to: State) -> Result<(), Code> {
        let session = arc::data_session(self.features, self.state, to).ok_or(EINVAL)?;
        if self.state == State::Resuming {
            self.content.finish_loading()?;
        }
        if session.returns_data_fd() {
            self.moved = 0;
            if to == State::Resuming { self.content.begin_loading() } else { self.content.begin_saving() }
        }
        if to == State::StopCopy {
            self.content.stop();
        }
        if session == DataSession::Ends {
            self.content.end_session();
        }
        self.state = to;
        Ok(())
    }
}

/// The device's interrupt, which comes with the timer's: a millisecond of its operation is over.
pub(crate) fn interrupt() {
    OPERATION.work();
}

/// What the device is at: one operation at a time, which takes a millisecond or two.
struct Operation {
    /// [`NOTHING`], [`FINISHED`], or how many timer interrupts it still takes.
    left: AtomicU32,
}

impl Operation {
    /// Begins an operation, or says whether it is finished; then the next one may begin.
    fn poll(&self) -> Poll<()> {
        match self.left.load(Ordering::Relaxed) {
            NOTHING => self.left.store(TAKES, Ordering::Relaxed),
            FINISHED => {
                self.left.store(NOTHING, Ordering::Relaxed);
                return Poll::Ready(());
            }
            _ => {}
        }
        Poll::Pending
    }

    /// The interrupt's part. It changes nothing while no operation is under way, and [`Operation::poll`] nothing while
    /// one is, so neither can undo what the other one did.
    fn work(&self) {
        match self.left.load(Ordering::Relaxed) {
            NOTHING | FINISHED => {}
            1 => self.left.store(FINISHED, Ordering::Relaxed),
            left => self.left.store(left - 1, Ordering::Relaxed),
        }
    }
}

static OPERATION: Operation = Operation { left: AtomicU32::new(NOTHING) };

const NOTHING: u32 = 0;
const FINISHED: u32 = u32::MAX;
/// Timer interrupts from an operation's begin to its end. Two, so that it takes one millisecond at least.
const TAKES: u32 = 2;

/// What the device answers where it was told to refuse.
const EIO: Code = Code(5);
