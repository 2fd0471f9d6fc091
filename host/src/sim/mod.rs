//! A simulated device that obeys the kernel's rules, for tests, demonstrations and those without hardware.
//!
//! [`Sim`] and [`DataFd`] answer like a driver: the same arcs, the same errors, the same life of the data fd. The arcs
//! are searched in the graph of the uapi's single steps, not taken from `vfio_migration_core::device::arc`, so that
//! each can be held against the other; the tests hold this one against the kernel's own function and against the
//! transcript of mtty, the kernel's sample device. [`Assigned`] is such a device in the hands of a VMM, for sessions.
//!
//! A device is `size` bytes of content. The state that travels is a header of [`HEADER_LEN`] bytes, which is the
//! initial data of PRE_COPY, and the content, which comes in STOP_COPY; with some of the keys below, content comes in
//! PRE_COPY too. `format.rs` has the bytes. What was written becomes content when RESUMING → STOP succeeds and is not
//! visible before.
//!
//! # The text form
//!
//! A [`Config`] is also a text, `size=64MiB,seed=7,flags=7`: each key at most once, but `fail` and `guest-reset` as
//! often as needed.
//!
//! | key | value | default |
//! |---|---|---|
//! | `size` | the content's length | `64MiB` |
//! | `seed` | what the content, and what the guest writes, are made from | `0` |
//! | `flags` | the features: 1, 3, 5 or 7 | `7` |
//! | `initial` | how many bytes of the state are initial data: the header, then content | `24` |
//! | `dirty` | how many bytes of content the guest changes in each round of PRE_COPY | `0` |
//! | `dirty-for` | after how many rounds it changes nothing more | never |
//! | `increment` | a round comes when PRECOPY_INFO (`asked`) or a read (`always`) finds nothing left | `asked` |
//! | `reinit` | after how many rounds the initial data start anew, once in a session | never |
//! | `v2` | whether the kernel has PRECOPY_INFOv2: `yes` or `no` | `yes` |
//! | `drained` | what a read in PRE_COPY says that finds nothing: `enomsg` or `0` | `enomsg` |
//! | `info` | what PRECOPY_INFO sets: every field (`zeroed`), or as mlx5 one of two (`stale`) | `zeroed` |
//! | `data-size` | what MIG_DATA_SIZE says: a length, or `exact` | `exact` |
//! | `pci` | a PCI function with 256 or 4096 bytes of configuration space, and `:VECTORS` in its MSI-X table | none |
//! | `short` | how many bytes a read or a write takes at most | all |
//! | `slow`, `slow-set` | how many microseconds each read and write, each step of a SET takes | `0` |
//! | `fail` | `OPERATION:NTH[:ERRNO[:AFTER]]`: which call fails, with what, and where it leaves the device | nothing |
//! | `guest-reset` | `OPERATION:NTH`: the call just before which the guest resets the device | nothing |
//!
//! OPERATION is `set`, `set-STATE` (for instance `set-stop_copy`), `get`, `read`, `write`, `info`, `reset` or
//! `data-size`. NTH counts its calls from 1, `*` is each. ERRNO is a name or a number, `EIO` by default. AFTER is
//! `old` (the default); for SET also `first`, one step on its way, and `error`; for a reset also `unknown`, which is
//! ERROR. See [`Config`], [`Precopy`], [`Pace`] and [`Fault`] for each.
//!
//! # The kernel's rules, and mtty's
//!
//! Where mtty and the uapi disagree, the uapi is followed:
//! - The end of the data in PRE_COPY is ENOMSG (mtty: 0, which `drained=0` gives).
//! - After a refused write RESUMING → STOP gives EINVAL, and every later write the first one's error: only a reset
//!   leaves (mtty loads a state whose header it has refused, and goes on after ENOMEM).
//!
//! Deliberately absent: a clock. A round comes with a call, never with time, so that the same calls give the same
//! bytes; only `slow` and `slow-set` let time pass. Interrupts, DMA and its logging are absent too.

use std::fmt;
use std::sync::{Arc, OnceLock};

use vfio_migration_core::device::{Features, State};

mod assigned;
mod config;
mod data_fd;
mod driver;
mod fault;
mod format;
mod ranges;
mod resuming;
mod saving;
mod space;
mod steps;
mod text;

use data_fd::pause;
use driver::{Driver, Shared};

pub use assigned::Assigned;
pub use config::{Config, Drained, Increment, Info, Pace, Precopy, SIZE_MAX};
pub use data_fd::DataFd;
pub use fault::{After, Call, Fault, Operation};
pub use format::HEADER_LEN;
pub use rustix::io::Errno;
pub use space::Pci;
pub use steps::steps;
pub use text::ConfigError;

/// The device as its driver shows it.
pub struct Sim {
    shared: Arc<Shared>,
    seen: OnceLock<Box<Seen>>,
}

/// A content that was asked for through a shared reference, and the one that was asked for after it had changed.
struct Seen {
    content: Arc<Vec<u8>>,
    later: OnceLock<Box<Seen>>,
}

impl Sim {
    /// A device in RUNNING. Its content is splitmix64 from the seed, each number in little-endian order.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { shared: Arc::new(Shared::new(config)), seen: OnceLock::new() }
    }

    /// The features, `VFIO_DEVICE_FEATURE_MIGRATION`.
    #[must_use]
    pub fn features(&self) -> Features {
        self.shared.config.features
    }

    /// The state, looked at from outside: no call, so that nothing counts it and nothing fails it.
    #[must_use]
    pub fn get_state(&self) -> State {
        self.shared.lock().state
    }

    /// GET of `VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE`.
    ///
    /// # Errors
    /// What was set up to fail.
    pub fn try_get_state(&self) -> Result<State, Errno> {
        let (driver, fault) = self.shared.call(Operation::Get);
        fault.map_or(Ok(driver.state), |fault| Err(fault.errno))
    }

    /// What `VFIO_DEVICE_FEATURE_MIG_DATA_SIZE` says, looked at from outside.
    ///
    /// The exact size is that of a plain state, the same in every state; in a session that gives content in PRE_COPY,
    /// it is what would still be to read if the device stopped now.
    #[must_use]
    pub fn data_size(&self) -> u64 {
        let config = &self.shared.config;
        config.data_size.unwrap_or_else(|| self.shared.lock().data_size(config))
    }

    /// GET of `VFIO_DEVICE_FEATURE_MIG_DATA_SIZE`.
    ///
    /// # Errors
    /// What was set up to fail.
    pub fn try_data_size(&self) -> Result<u64, Errno> {
        let (driver, fault) = self.shared.call(Operation::DataSize);
        drop(driver);
        fault.map_or_else(|| Ok(self.data_size()), |fault| Err(fault.errno))
    }

    /// The configuration space of a PCI function.
    #[must_use]
    pub fn config_space(&self) -> Option<Vec<u8>> {
        self.shared.lock().space.clone()
    }

    /// Writes the command register of a PCI function; a reset clears it.
    pub fn write_command(&mut self, command: u16) {
        let mut driver = self.shared.lock();
        let register = driver.space.as_mut().and_then(|space| space.get_mut(4..6));
        if let Some(register) = register {
            register.copy_from_slice(&command.to_le_bytes());
        }
    }

    /// SET of `VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2`: PRECOPY_INFO says from now on when initial data start anew,
    /// and counts them as such. A reset does not undo it.
    ///
    /// # Errors
    /// ENOTTY where the kernel does not know the feature, EINVAL for a device without PRE_COPY.
    pub fn opt_in_precopy_info_v2(&mut self) -> Result<(), Errno> {
        if !self.shared.config.precopy.v2 {
            return Err(Errno::NOTTY);
        }
        if !self.features().pre_copy {
            return Err(Errno::INVAL);
        }
        self.shared.lock().opted_in = true;
        Ok(())
    }

    /// SET of `VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE`: takes every step towards the state with the number `raw`, and
    /// returns a data fd where the last of them starts a session.
    ///
    /// # Errors
    /// EINVAL for a state that can't be reached (none can from ERROR), and for leaving RESUMING before the whole state
    /// was written or after a refused write. The state is then the old one. And what was set up to fail, which says
    /// where it leaves the device.
    pub fn set_state(&mut self, raw: u32) -> Result<Option<DataFd>, Errno> {
        self.seen.take();
        let to = State::from_raw(raw);
        let config = &self.shared.config;
        let (mut driver, fault) = self.shared.call(to.map_or(Operation::Set, Operation::SetTo));
        let way = to.and_then(|to| steps(config.features, driver.state, to));
        if let Some(fault) = fault {
            refuse_set(&mut driver, config, fault, &way.unwrap_or_default());
            return Err(fault.errno);
        }
        let mut opened = None;
        for state in way.ok_or(Errno::INVAL)? {
            pause(config.pace.slow_set);
            opened = driver.step(config, state)?;
        }
        let session = driver.sessions;
        Ok(opened.map(|direction| DataFd { shared: Arc::clone(&self.shared), session, direction }))
    }

    /// The guest resets the device, or nothing stands in the way of a reset: RUNNING from any state, no session, and a
    /// content of zeros.
    pub fn reset(&mut self) {
        self.seen.take();
        self.shared.lock().reset(&self.shared.config);
    }

    /// `VFIO_DEVICE_RESET`: as [`Sim::reset`].
    ///
    /// # Errors
    /// What was set up to fail; the device is then where it was, or in ERROR.
    pub fn try_reset(&mut self) -> Result<(), Errno> {
        self.seen.take();
        let (mut driver, fault) = self.shared.call(Operation::Reset);
        match fault {
            None => driver.reset(&self.shared.config),
            Some(Fault { after: After::Error, .. }) => driver.fail(),
            Some(Fault { after: After::Old | After::First, .. }) => {}
        }
        fault.map_or(Ok(()), |fault| Err(fault.errno))
    }

    /// Lets a call fail, counted from now on, beside what already does.
    pub fn fail(&mut self, fault: Fault) {
        self.shared.lock().schedule.add_fault(fault);
    }

    /// Lets the guest reset the device just before a call, counted from now on.
    pub fn guest_resets_before(&mut self, call: Call) {
        self.shared.lock().schedule.add_reset(call);
    }

    /// The content as the guest sees it now. What the slice holds stays as it is: one that is asked for later has what
    /// has changed through the data fd. Each that differs is kept until the next SET, reset or write.
    #[must_use]
    pub fn content(&self) -> &[u8] {
        let now = Arc::clone(&self.shared.lock().content);
        let mut place = &self.seen;
        loop {
            let first = || Box::new(Seen { content: Arc::clone(&now), later: OnceLock::new() });
            let seen = place.get_or_init(first);
            if Arc::ptr_eq(&seen.content, &now) {
                return &seen.content;
            }
            place = &seen.later;
        }
    }

    /// Changes the content as a running guest does, from the byte `offset` on. It travels to the other side whenever a
    /// session is open: with the next round where the session gives content in PRE_COPY, else in STOP_COPY.
    ///
    /// # Errors
    /// EBUSY in a state in which the device stands still, EINVAL where the bytes would not all fit.
    pub fn write_content(&mut self, offset: usize, bytes: &[u8]) -> Result<(), Errno> {
        self.seen.take();
        let mut driver = self.shared.lock();
        match driver.state {
            State::Running | State::RunningP2p | State::PreCopy | State::PreCopyP2p => {}
            State::Error | State::Stop | State::StopCopy | State::Resuming => return Err(Errno::BUSY),
        }
        driver.write_content(offset, bytes)
    }
}

impl fmt::Debug for Sim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sim({:?})", self.shared)
    }
}

/// Leaves the device where `fault` says. A step that the device refuses by itself is not taken.
fn refuse_set(driver: &mut Driver, config: &Config, fault: Fault, way: &[State]) {
    match (fault.after, way.first()) {
        (After::Old, _) | (After::First, None) => {}
        (After::First, Some(state)) => {
            pause(config.pace.slow_set);
            let _ = driver.step(config, *state);
        }
        (After::Error, _) => driver.fail(),
    }
}
