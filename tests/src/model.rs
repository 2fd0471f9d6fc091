//! A device and a link in memory, through core's public traits, with operations that fail on schedule.
//!
//! The device keeps the kernel's rules as far as a session can meet them: states by `arc`, data only in the states
//! that have a data session. Deliberately absent: anything of a real device's content. What it gives in PRE_COPY is the
//! front of what it has, and STOP_COPY gives the rest.

use std::cell::RefCell;
use std::rc::Rc;

use vfio_migration_core::device::{Features, State, arc};
use vfio_migration_core::session::drive::{Device, Transport};
use vfio_migration_core::session::{Code, DataRead, Event, PrecopyInfo};

/// What an operation answers that fails on schedule: EIO.
pub const EIO: Code = Code(5);
/// The device's answer to a state that it can't go to.
pub const EINVAL: Code = Code(22);
/// The device's answer to data without a data session.
pub const ENODEV: Code = Code(19);
/// The link's answer where a configuration's body is cut.
pub const ECONNRESET: Code = Code(104);

/// An observer for tests that look at the outcome alone.
pub const fn nobody(_: &Event) {}

/// Which operations fail, by their number. Clones count together, so that a device and a link can share one schedule.
#[derive(Clone, Debug, Default)]
pub struct Faults(Rc<RefCell<(usize, Vec<usize>)>>);

impl Faults {
    /// The operations with these numbers fail; the first has number 0.
    #[must_use]
    pub fn at(numbers: &[usize]) -> Self {
        Self(Rc::new(RefCell::new((0, numbers.to_vec()))))
    }

    /// How many operations there were.
    #[must_use]
    pub fn operations(&self) -> usize {
        self.0.borrow().0
    }

    fn next(&self) -> Result<(), Code> {
        let (count, fail) = &mut *self.0.borrow_mut();
        *count += 1;
        if fail.contains(&(*count - 1)) { Err(EIO) } else { Ok(()) }
    }
}

/// How much of what is offered an operation takes: these numbers in turn, or all where there are none.
#[derive(Clone, Debug, Default)]
pub struct Sizes {
    sizes: Vec<usize>,
    next: usize,
}

impl Sizes {
    /// Takes these many bytes in turn, at least one and at most what is offered.
    #[must_use]
    pub fn new(sizes: &[usize]) -> Self {
        Self { sizes: sizes.to_vec(), next: 0 }
    }

    fn of(&mut self, offered: usize) -> usize {
        let Some(size) = self.sizes.get(self.next % self.sizes.len().max(1)) else { return offered };
        self.next += 1;
        (*size).clamp(1, offered.max(1)).min(offered)
    }
}

/// A device in memory.
#[derive(Clone, Debug)]
pub struct ModelDevice {
    /// Its state.
    pub state: State,
    /// Whether a refused SET leaves it in ERROR instead of its old state.
    pub breaks: bool,
    /// What it gives in PRE_COPY and STOP_COPY, or in the latter alone.
    pub content: Vec<u8>,
    /// How much of it PRE_COPY gives.
    pub early: usize,
    /// How much of that is initial data.
    pub initial: usize,
    /// By how much `early` grows each time that PRECOPY_INFO is asked: some drivers save the next piece then.
    pub grows: usize,
    /// How it says "nothing now" in PRE_COPY.
    pub nothing: DataRead,
    /// How much of it was read.
    pub read: usize,
    /// What was written into it in RESUMING; a reset clears it.
    pub written: Vec<u8>,
    /// All that was ever written into it.
    pub log: Vec<u8>,
    /// How much one read or write takes.
    pub sizes: Sizes,
    /// What fails.
    pub faults: Faults,
}

impl ModelDevice {
    /// A device with every feature in `state`, with `content` to read.
    #[must_use]
    pub fn new(state: State, content: &[u8], faults: &Faults) -> Self {
        Self {
            state,
            breaks: false,
            content: content.to_vec(),
            early: 0,
            initial: 0,
            grows: 0,
            nothing: DataRead::Drained,
            read: 0,
            written: vec![],
            log: vec![],
            sizes: Sizes::default(),
            faults: faults.clone(),
        }
    }
}

impl Device for ModelDevice {
    fn set_state(&mut self, state: State) -> Result<(), Code> {
        let every = Features { p2p: true, pre_copy: true };
        let Some(session) = arc::data_session(every, self.state, state) else { return Err(EINVAL) };
        self.faults.next().inspect_err(|_| {
            if self.breaks {
                self.state = State::Error;
            }
        })?;
        self.state = state;
        if session.returns_data_fd() {
            self.read = 0;
            self.written.clear();
        }
        Ok(())
    }

    fn precopy_info(&mut self) -> Result<PrecopyInfo, Code> {
        self.faults.next()?;
        if !matches!(self.state, State::PreCopy | State::PreCopyP2p) {
            return Err(EINVAL);
        }
        self.early = (self.early + self.grows).min(self.content.len());
        let initial_bytes = self.initial.saturating_sub(self.read) as u64;
        let dirty_bytes = (self.early - self.read) as u64 - initial_bytes;
        Ok(PrecopyInfo { initial_bytes, dirty_bytes, reinit: false })
    }

    fn read_data(&mut self, buffer: &mut [u8]) -> Result<DataRead, Code> {
        self.faults.next()?;
        let (end, nothing) = match self.state {
            State::PreCopy | State::PreCopyP2p => (self.early, self.nothing),
            State::StopCopy => (self.content.len(), DataRead::End),
            _ => return Err(ENODEV),
        };
        let left = &self.content[self.read..end];
        if left.is_empty() {
            return Ok(nothing);
        }
        let count = self.sizes.of(buffer.len().min(left.len()));
        buffer[..count].copy_from_slice(&left[..count]);
        self.read += count;
        Ok(DataRead::Bytes(count))
    }

    fn write_data(&mut self, bytes: &[u8]) -> Result<usize, Code> {
        self.faults.next()?;
        if self.state != State::Resuming {
            return Err(ENODEV);
        }
        let count = self.sizes.of(bytes.len());
        self.written.extend_from_slice(&bytes[..count]);
        self.log.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn reset(&mut self) -> Result<(), Code> {
        self.faults.next()?;
        self.state = State::Running;
        self.written.clear();
        Ok(())
    }
}

/// A link in memory. It gives what it has been sent, or what it was made of.
#[derive(Clone, Debug)]
pub struct ModelLink {
    /// Every byte on it.
    pub bytes: Vec<u8>,
    /// How many of them were taken.
    pub taken: usize,
    /// Offsets that no single `recv` may be asked to cross: a test that asks for a byte past one fails.
    pub borders: Vec<usize>,
    /// The body of the configuration that is sent, and whose length is received.
    pub config: Vec<u8>,
    /// How much one send or receive takes.
    pub sizes: Sizes,
    /// What fails.
    pub faults: Faults,
}

impl ModelLink {
    /// A link with `bytes` to give.
    #[must_use]
    pub fn new(bytes: &[u8], faults: &Faults) -> Self {
        Self {
            bytes: bytes.to_vec(),
            taken: 0,
            borders: vec![],
            config: vec![],
            sizes: Sizes::default(),
            faults: faults.clone(),
        }
    }
}

impl Transport for ModelLink {
    fn send(&mut self, bytes: &[u8]) -> Result<usize, Code> {
        self.faults.next()?;
        let count = self.sizes.of(bytes.len());
        self.bytes.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn recv(&mut self, buffer: &mut [u8]) -> Result<usize, Code> {
        self.faults.next()?;
        let end = self.taken + buffer.len();
        if !self.borders.is_empty() {
            let border = self.borders.iter().find(|&&border| self.taken < border);
            let border = border.expect("bytes were asked for behind the last border");
            assert!(end <= *border, "bytes {}..{end} were asked for, past the border {border}", self.taken);
        }
        let left = &self.bytes[self.taken..];
        let count = self.sizes.of(buffer.len().min(left.len()));
        buffer[..count].copy_from_slice(&left[..count]);
        self.taken += count;
        Ok(count)
    }

    fn send_config(&mut self) -> Result<(), Code> {
        self.faults.next()?;
        self.bytes.extend_from_slice(&self.config);
        Ok(())
    }

    fn recv_config(&mut self) -> Result<u64, Code> {
        self.faults.next()?;
        let end = self.taken + self.config.len();
        if end > self.bytes.len() {
            self.taken = self.bytes.len();
            return Err(ECONNRESET);
        }
        self.taken = end;
        Ok(self.config.len() as u64)
    }
}
