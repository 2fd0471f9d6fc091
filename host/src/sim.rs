//! A simulated device that obeys the kernel's rules, for tests, demonstrations and those without hardware.
//!
//! [`Sim`] and [`DataFd`] answer like a driver: the same arcs, the same errors, the same life of the data fd. The arcs
//! are searched in the graph of the uapi's single steps, not taken from `vfio_migration_core::device::arc`, so that
//! each can be held against the other; the tests hold this one against the kernel's own function and against the
//! transcript of mtty, the kernel's sample device. [`Assigned`] is such a device in the hands of a VMM, for sessions.
//!
//! A device is `size` bytes of content. The state that travels is a header of [`HEADER_LEN`] bytes, which is the
//! initial data of PRE_COPY, and the content, which comes in STOP_COPY:
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 8 | `"VFIO-SIM"` |
//! | 8 | 4 | version 1, little-endian like all numbers here |
//! | 12 | 4 | 0 |
//! | 16 | 8 | `size` |
//! | 24 | `size` | the content |
//!
//! A header that is not the receiving device's own gives EFAULT as soon as its last byte is written, a byte past the
//! end ENOMEM. What was written becomes content when RESUMING → STOP succeeds and is never visible before.
//!
//! Where mtty and the uapi disagree, the uapi is followed:
//! - The end of the data in PRE_COPY is ENOMSG (mtty: 0).
//! - After a refused write RESUMING → STOP gives EINVAL, and every later write the first one's error: only a reset
//!   leaves (mtty loads a state whose header it has refused, and goes on after ENOMEM).
//!
//! Deliberately absent: failures that a healthy device does not have, such as ERROR and EIO, and all waiting. A test
//! that wants them puts its own `Device` around [`Assigned`].

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vfio_migration_core::device::arc::{self, DataSession};
use vfio_migration_core::device::uapi::PrecopyInfo;
use vfio_migration_core::device::{Features, State};
use vfio_migration_core::session::drive::Device;
use vfio_migration_core::session::{Code, DataRead};

use crate::errno::{code, data_read};
use crate::size;

pub use rustix::io::Errno;

/// The length of the state's header in bytes.
pub const HEADER_LEN: usize = 24;

/// The largest content in bytes.
pub const SIZE_MAX: u64 = if usize::BITS < 64 { GIB } else { 4 * GIB };

/// What a simulated device is made of. As text: `size=64MiB,seed=7,flags=7`, every key optional.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    size: usize,
    seed: u64,
    features: Features,
}

/// Why a text is no [`Config`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// A part between commas that is no `key=value`, or its key unknown or there for the second time.
    WrongPart {
        /// The part.
        got: String,
    },
    /// A value that its key can't have.
    WrongValue {
        /// The value's key.
        key: &'static str,
        /// What the key can have.
        wanted: &'static str,
        /// The value.
        got: String,
    },
    /// A size above [`SIZE_MAX`].
    TooBig {
        /// The size in bytes.
        got: u64,
    },
}

/// The device as its driver shows it.
pub struct Sim {
    config: Config,
    driver: Arc<Mutex<Driver>>,
    /// Shared with the session of STOP_COPY, in which it can't change.
    content: Arc<Vec<u8>>,
}

/// A data session's fd. After the arc that ends the session it answers ENODEV. Dropping it closes it, which changes
/// nothing in the device. It may be used by another thread than the device.
pub struct DataFd {
    driver: Arc<Mutex<Driver>>,
    session: u64,
    direction: Direction,
}

/// A device as a VMM holds it, together with the current data fd.
pub struct Assigned {
    /// The device. What is done to it here, for instance a reset by its guest, the VMM does not see.
    pub sim: Sim,
    data_fd: Option<DataFd>,
    /// The state after the VMM's last SET or reset.
    believed: State,
}

impl Config {
    /// A device with `size` bytes of content made from `seed`.
    ///
    /// # Errors
    /// [`ConfigError::TooBig`] above [`SIZE_MAX`].
    pub fn new(size: u64, seed: u64, features: Features) -> Result<Self, ConfigError> {
        match usize::try_from(size) {
            Ok(bytes) if size <= SIZE_MAX => Ok(Self { size: bytes, seed, features }),
            _ => Err(ConfigError::TooBig { got: size }),
        }
    }
}

impl Default for Config {
    /// 64 MiB from seed 0, with every feature.
    fn default() -> Self {
        Self { size: 64 << 20, seed: 0, features: Features { p2p: true, pre_copy: true } }
    }
}

impl FromStr for Config {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let (mut size, mut seed, mut features) = (None, None, None);
        for part in text.split(',').filter(|_| !text.is_empty()) {
            match part.split_once('=') {
                Some(("size", value)) if size.is_none() => size = Some(parse_size(value)?),
                Some(("seed", value)) if seed.is_none() => seed = Some(parse_seed(value)?),
                Some(("flags", value)) if features.is_none() => features = Some(parse_flags(value)?),
                _ => return Err(ConfigError::WrongPart { got: part.to_owned() }),
            }
        }
        let default = Self::default();
        let size = size.unwrap_or(default.size as u64);
        Self::new(size, seed.unwrap_or(default.seed), features.unwrap_or(default.features))
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongPart { got } => write!(f, "wanted size=, seed= or flags=, each once, got {got:?}"),
            Self::WrongValue { key, wanted, got } => write!(f, "{key}: wanted {wanted}, got {got:?}"),
            Self::TooBig { got } => write!(f, "size: wanted at most {SIZE_MAX} bytes, got {got}"),
        }
    }
}

impl std::error::Error for ConfigError {}

impl Sim {
    /// A device in RUNNING. Its content is splitmix64 from the seed, each number in little-endian order.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let driver = Driver { size: config.size, state: State::Running, sessions: 0, transfer: None };
        Self {
            config,
            driver: Arc::new(Mutex::new(driver)),
            content: Arc::new(generate(config.seed, config.size)),
        }
    }

    /// The features, `VFIO_DEVICE_FEATURE_MIGRATION`.
    #[must_use]
    pub fn features(&self) -> Features {
        self.config.features
    }

    /// The state, GET of `VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE`.
    #[must_use]
    pub fn get_state(&self) -> State {
        lock(&self.driver).state
    }

    /// The length of the whole state in bytes, `VFIO_DEVICE_FEATURE_MIG_DATA_SIZE`; the same in every state.
    #[must_use]
    pub fn data_size(&self) -> u64 {
        (HEADER_LEN + self.config.size) as u64
    }

    /// SET of `VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE`: takes every step towards the state with the number `raw`, and
    /// returns a data fd where the last of them starts a session.
    ///
    /// # Errors
    /// EINVAL for a state that can't be reached, and for leaving RESUMING before the whole state was written or after a
    /// refused write. The state is then the old one.
    pub fn set_state(&mut self, raw: u32) -> Result<Option<DataFd>, Errno> {
        let to = State::from_raw(raw).ok_or(Errno::INVAL)?;
        let way = steps(self.features(), self.get_state(), to).ok_or(Errno::INVAL)?;
        let mut data_fd = None;
        for state in way {
            data_fd = self.step(state)?;
        }
        Ok(data_fd)
    }

    /// `VFIO_DEVICE_RESET`: RUNNING from any state, no session, and a content of zeros.
    pub fn reset(&mut self) {
        self.content = Arc::new(vec![0; self.config.size]);
        let mut driver = lock(&self.driver);
        driver.state = State::Running;
        driver.transfer = None;
    }

    /// The content as the guest sees it.
    #[must_use]
    pub fn content(&self) -> &[u8] {
        &self.content
    }

    /// Changes the content as a running guest does, from the byte `offset` on.
    ///
    /// # Errors
    /// EBUSY in a state in which the device stands still, EINVAL where the bytes would not all fit.
    pub fn write_content(&mut self, offset: usize, bytes: &[u8]) -> Result<(), Errno> {
        match self.get_state() {
            State::Running | State::RunningP2p | State::PreCopy | State::PreCopyP2p => {}
            State::Error | State::Stop | State::StopCopy | State::Resuming => return Err(Errno::BUSY),
        }
        let end = offset.checked_add(bytes.len()).ok_or(Errno::INVAL)?;
        let place = Arc::make_mut(&mut self.content).get_mut(offset..end).ok_or(Errno::INVAL)?;
        place.copy_from_slice(bytes);
        Ok(())
    }

    /// One step, which is known to be legal.
    fn step(&mut self, to: State) -> Result<Option<DataFd>, Errno> {
        let mut driver = lock(&self.driver);
        if let Some(Transfer::Receiving(receiving)) = &driver.transfer
            && !receiving.is_whole(driver.size)
        {
            return Err(Errno::INVAL);
        }
        let content = (to == State::StopCopy).then(|| Arc::clone(&self.content));
        let (transfer, opens) = match (driver.transfer.take(), to) {
            (Some(Transfer::Sending(Sending { read, .. })), to) if is_saving(to) => {
                (Some(Transfer::Sending(Sending { content, read })), None)
            }
            (_, to) if is_saving(to) => {
                (Some(Transfer::Sending(Sending { content, read: 0 })), Some(Direction::Reading))
            }
            (_, State::Resuming) => {
                (Some(Transfer::Receiving(Receiving::default())), Some(Direction::Writing))
            }
            (Some(Transfer::Receiving(receiving)), _) => {
                self.content = Arc::new(receiving.content);
                (None, None)
            }
            _ => (None, None),
        };
        driver.transfer = transfer;
        driver.state = to;
        driver.sessions += u64::from(opens.is_some());
        let session = driver.sessions;
        Ok(opens.map(|direction| DataFd { driver: Arc::clone(&self.driver), session, direction }))
    }
}

impl DataFd {
    /// `read`: fills as much of `buffer` as there is data for; 0 is the end.
    ///
    /// # Errors
    /// EBADF on the fd of RESUMING, ENODEV after the session, ENOMSG where PRE_COPY has nothing more.
    pub fn read(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        if self.direction == Direction::Writing {
            return Err(Errno::BADF);
        }
        let mut driver = lock(&self.driver);
        let size = driver.size;
        match driver.transfer_of(self.session)? {
            Transfer::Sending(sending) => sending.read(size, buffer),
            Transfer::Receiving(_) => Err(Errno::NODEV),
        }
    }

    /// `write`: takes all of `bytes`.
    ///
    /// # Errors
    /// EBADF on an fd that is read, ENODEV after the session, EFAULT for a header that is not this device's, ENOMEM for
    /// bytes past the end of the state, and the first refused write's error ever after.
    pub fn write(&self, bytes: &[u8]) -> Result<usize, Errno> {
        if self.direction == Direction::Reading {
            return Err(Errno::BADF);
        }
        let mut driver = lock(&self.driver);
        let size = driver.size;
        match driver.transfer_of(self.session)? {
            Transfer::Receiving(receiving) => receiving.write(size, bytes),
            Transfer::Sending(_) => Err(Errno::NODEV),
        }
    }

    /// `VFIO_MIG_GET_PRECOPY_INFO`: what is left of the header; nothing is ever dirty.
    ///
    /// # Errors
    /// ENOTTY on the fd of RESUMING, EINVAL outside PRE_COPY and PRE_COPY_P2P, ENODEV in them after the fd's session.
    pub fn precopy_info(&self) -> Result<PrecopyInfo, Errno> {
        if self.direction == Direction::Writing {
            return Err(Errno::NOTTY);
        }
        let mut driver = lock(&self.driver);
        if !matches!(driver.state, State::PreCopy | State::PreCopyP2p) {
            return Err(Errno::INVAL);
        }
        let Transfer::Sending(sending) = driver.transfer_of(self.session)? else {
            return Err(Errno::NODEV);
        };
        let initial_bytes = HEADER_LEN.saturating_sub(sending.read) as u64;
        Ok(PrecopyInfo { argsz: 24, flags: 0, initial_bytes, dirty_bytes: 0 })
    }
}

impl fmt::Debug for DataFd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DataFd({:?}, session {})", self.direction, self.session)
    }
}

impl Assigned {
    /// Takes hold of a device that has no session.
    #[must_use]
    pub fn new(sim: Sim) -> Self {
        let believed = sim.get_state();
        Self { sim, data_fd: None, believed }
    }

    /// `VFIO_MIG_GET_PRECOPY_INFO` on the current data fd.
    ///
    /// # Errors
    /// As [`DataFd::precopy_info`]; EBADF without a data fd.
    pub fn precopy_info(&self) -> Result<PrecopyInfo, Code> {
        self.fd()?.precopy_info().map_err(code)
    }

    fn fd(&self) -> Result<&DataFd, Code> {
        self.data_fd.as_ref().ok_or(code(Errno::BADF))
    }
}

impl Device for Assigned {
    /// As [`Sim::set_state`]; EBADF when a data fd came that the arc does not give, or did not come.
    fn set_state(&mut self, state: State) -> Result<(), Code> {
        let answer = self.sim.set_state(state.raw());
        let before = std::mem::replace(&mut self.believed, self.sim.get_state());
        if !is_saving(self.believed) && self.believed != State::Resuming {
            self.data_fd = None;
        }
        let given = answer.map_err(code)?;
        let session = arc::data_session(self.sim.features(), before, state);
        if session.is_some_and(DataSession::returns_data_fd) != given.is_some() {
            self.data_fd = None;
            return Err(code(Errno::BADF));
        }
        if given.is_some() {
            self.data_fd = given;
        }
        Ok(())
    }

    fn read_data(&mut self, buffer: &mut [u8]) -> Result<DataRead, Code> {
        data_read(self.fd()?.read(buffer))
    }

    fn write_data(&mut self, bytes: &[u8]) -> Result<usize, Code> {
        self.fd()?.write(bytes).map_err(code)
    }

    fn reset(&mut self) -> Result<(), Code> {
        self.sim.reset();
        self.data_fd = None;
        self.believed = self.sim.get_state();
        Ok(())
    }
}

/// The states from `from` to `to`, without `from`, or nothing where the kernel answers EINVAL.
///
/// The uapi's rules: the shortest way; no saving state inside it unless both of its ends are; never back from STOP_COPY
/// to pre-copy; a state that the device does not have is skipped. With ERROR no way begins or ends.
#[must_use]
pub fn steps(features: Features, from: State, to: State) -> Option<Vec<State>> {
    let back = from == State::StopCopy && matches!(to, State::PreCopy | State::PreCopyP2p);
    if back || !exists(features, from) || !exists(features, to) {
        return None;
    }
    let may_pass = |state| state == to || !is_saving(state) || (is_saving(from) && is_saving(to));
    let mut ways = VecDeque::from([(from, Vec::new())]);
    while let Some((end, way)) = ways.pop_front() {
        if end == to {
            return Some(way.into_iter().filter(|state| exists(features, *state)).collect());
        }
        for next in ahead(end).iter().filter(|next| may_pass(**next) && !way.contains(next)) {
            ways.push_back((*next, [&way[..], &[*next]].concat()));
        }
    }
    None
}

/// What `Sim` and its data fds share.
struct Driver {
    size: usize,
    state: State,
    /// How many sessions there were; the last one's number is its data fd's.
    sessions: u64,
    transfer: Option<Transfer>,
}

impl Driver {
    fn transfer_of(&mut self, session: u64) -> Result<&mut Transfer, Errno> {
        if self.sessions != session {
            return Err(Errno::NODEV);
        }
        self.transfer.as_mut().ok_or(Errno::NODEV)
    }
}

/// The access mode of a data fd: `O_RDONLY` or `O_WRONLY`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Reading,
    Writing,
}

enum Transfer {
    Sending(Sending),
    Receiving(Receiving),
}

struct Sending {
    /// There in STOP_COPY.
    content: Option<Arc<Vec<u8>>>,
    /// How many bytes of the state have been read.
    read: usize,
}

impl Sending {
    fn read(&mut self, size: usize, buffer: &mut [u8]) -> Result<usize, Errno> {
        let header = header(size);
        let content = self.content.as_ref().map_or(&[][..], |content| content);
        let mut got = copy(&header[self.read.min(HEADER_LEN)..], buffer);
        got += copy(&content[self.read.saturating_sub(HEADER_LEN)..], &mut buffer[got..]);
        if got == 0 && !buffer.is_empty() && self.content.is_none() {
            return Err(Errno::NOMSG);
        }
        self.read += got;
        Ok(got)
    }
}

#[derive(Default)]
struct Receiving {
    header: Vec<u8>,
    content: Vec<u8>,
    /// The answer to the first write that was refused.
    refused: Option<Errno>,
}

impl Receiving {
    fn is_whole(&self, size: usize) -> bool {
        self.refused.is_none() && self.header.len() == HEADER_LEN && self.content.len() == size
    }

    fn write(&mut self, size: usize, bytes: &[u8]) -> Result<usize, Errno> {
        if bytes.is_empty() {
            return Ok(0);
        }
        if self.refused.is_none() {
            self.refused = self.take(size, bytes).err();
        }
        self.refused.map_or(Ok(bytes.len()), Err)
    }

    fn take(&mut self, size: usize, bytes: &[u8]) -> Result<(), Errno> {
        let missing = HEADER_LEN - self.header.len();
        if bytes.len() > missing + (size - self.content.len()) {
            return Err(Errno::NOMEM);
        }
        let (head, rest) = bytes.split_at(missing.min(bytes.len()));
        self.header.extend_from_slice(head);
        if self.header.len() == HEADER_LEN && self.header != header(size) {
            return Err(Errno::FAULT);
        }
        self.content.extend_from_slice(rest);
        Ok(())
    }
}

fn header(size: usize) -> [u8; HEADER_LEN] {
    let mut bytes = [0; HEADER_LEN];
    bytes[..8].copy_from_slice(b"VFIO-SIM");
    bytes[8..12].copy_from_slice(&1u32.to_le_bytes());
    bytes[16..].copy_from_slice(&(size as u64).to_le_bytes());
    bytes
}

/// Copies as much as both have room for; returns how much.
fn copy(from: &[u8], to: &mut [u8]) -> usize {
    let len = from.len().min(to.len());
    to[..len].copy_from_slice(&from[..len]);
    len
}

/// splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
fn generate(seed: u64, size: usize) -> Vec<u8> {
    let mut content = vec![0; size];
    let mut state = seed;
    for place in content.chunks_mut(8) {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        copy(&(mixed ^ (mixed >> 31)).to_le_bytes(), place);
    }
    content
}

/// The single steps of a device that has every state (uapi, comment above `enum vfio_device_mig_state`). Their order
/// decides nothing.
fn ahead(state: State) -> &'static [State] {
    match state {
        State::Error => &[],
        State::Stop => &[State::RunningP2p, State::Resuming, State::StopCopy],
        State::Running => &[State::PreCopy, State::RunningP2p],
        State::StopCopy | State::Resuming => &[State::Stop],
        State::RunningP2p => &[State::PreCopyP2p, State::Running, State::Stop],
        State::PreCopy => &[State::PreCopyP2p, State::Running],
        State::PreCopyP2p => &[State::PreCopy, State::RunningP2p, State::StopCopy],
    }
}

fn is_saving(state: State) -> bool {
    matches!(state, State::PreCopy | State::PreCopyP2p | State::StopCopy)
}

/// The `state_flags_table` of the kernel's `vfio_mig_get_next_state`.
fn exists(features: Features, state: State) -> bool {
    let needed = match state {
        State::Error => u64::MAX,
        State::Stop | State::Running | State::StopCopy | State::Resuming => 1,
        State::RunningP2p => 1 | 2,
        State::PreCopy => 1 | 4,
        State::PreCopyP2p => 1 | 2 | 4,
    };
    features.raw() & needed == needed
}

fn parse_size(value: &str) -> Result<u64, ConfigError> {
    size::parse_size(value).ok_or_else(|| wrong_value("size", size::WANTED, value))
}

fn parse_seed(value: &str) -> Result<u64, ConfigError> {
    value.parse().map_err(|_| wrong_value("seed", "a number below 2^64", value))
}

fn parse_flags(value: &str) -> Result<Features, ConfigError> {
    let found = Features::ALL.into_iter().find(|features| Ok(features.raw()) == value.parse());
    found.ok_or_else(|| wrong_value("flags", "1, 3, 5 or 7", value))
}

fn wrong_value(key: &'static str, wanted: &'static str, got: &str) -> ConfigError {
    ConfigError::WrongValue { key, wanted, got: got.to_owned() }
}

/// A thread that panicked while it held the lock can't have left half a change.
fn lock(driver: &Mutex<Driver>) -> MutexGuard<'_, Driver> {
    driver.lock().unwrap_or_else(PoisonError::into_inner)
}

const GIB: u64 = 1 << 30;
