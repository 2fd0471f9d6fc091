//! What is left to copy, how long the stop would take, and whether to stop now.
//!
//! Everything here is a calculation from numbers that the caller has: what PRECOPY_INFO and MIG_DATA_SIZE said, and
//! what it measured. The caller decides; [`advise`] only says what the numbers mean.
//!
//! No byte is counted twice. What a device still has for PRE_COPY comes in STOP_COPY if it is not read before, so
//! MIG_DATA_SIZE contains it, and a stop moves the larger of the two, not their sum (drivers report a total, QEMU
//! counts like this since 9.2).
//!
//! Fill a [`Remaining`] for each device after [`measure`](super::Source::measure), which has to come before the first
//! chunk: `left` from the phase's [`Chunk`], MIG_DATA_SIZE, the device's rate from a [`Meter`] that is told of every
//! read (and of every send, where one thread does both in turn), and the dirty rate from a [`Meter`] that is told what
//! an answer has more than was expected by the one before it, and the time between them. Then ask [`advise`].
//!
//! Deliberately absent: a clock, and the time that the kernel needs for the arcs themselves or the other side to load.

use core::fmt;
use core::time::Duration;

use crate::device::uapi;

/// What a device says of its pre-copy data, VFIO_MIG_GET_PRECOPY_INFO.
#[doc(alias = "vfio_precopy_info")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct PrecopyInfo {
    /// Bytes that the destination should have before the switchover for it to be quick.
    pub initial_bytes: u64,
    /// Bytes that have changed since they were read.
    pub dirty_bytes: u64,
    /// The device has started its initial data anew. Only a device that was opted in (feature 12) says so.
    #[doc(alias = "VFIO_PRECOPY_INFO_REINIT")]
    pub reinit: bool,
}

impl PrecopyInfo {
    /// All that can be read now, in bytes.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.initial_bytes.saturating_add(self.dirty_bytes)
    }

    /// What is left after `count` bytes were read: initial data come first.
    #[must_use]
    pub const fn after_reading(self, count: u64) -> Self {
        Self {
            initial_bytes: self.initial_bytes.saturating_sub(count),
            dirty_bytes: self.dirty_bytes.saturating_sub(count.saturating_sub(self.initial_bytes)),
            reinit: self.reinit,
        }
    }
}

impl From<uapi::PrecopyInfo> for PrecopyInfo {
    fn from(raw: uapi::PrecopyInfo) -> Self {
        let uapi::PrecopyInfo { argsz: _, flags, initial_bytes, dirty_bytes } = raw;
        Self { initial_bytes, dirty_bytes, reinit: flags & uapi::PRECOPY_INFO_REINIT != 0 }
    }
}

/// How far the pre-copy of one device is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Chunk {
    /// Bytes of data in the last chunk; 0 where the device had nothing: wait before the next.
    pub bytes: usize,
    /// What the device has left: its last answer less what was read since. Nothing before the first answer.
    pub left: Option<PrecopyInfo>,
    /// Whether INIT_DATA_SENT stands behind all initial data; after a REINIT it has to be sent again.
    pub init_data_sent: bool,
}

impl Chunk {
    pub(super) fn read(&mut self, count: usize) {
        self.bytes = count;
        self.left = self.left.map(|left| left.after_reading(count as u64));
    }

    pub(super) fn answered(&mut self, info: PrecopyInfo) {
        self.left = Some(info);
        self.init_data_sent &= !info.reinit;
    }

    pub(super) fn initial_data_are_read(&self) -> bool {
        self.left.is_some_and(|left| left.initial_bytes == 0)
    }
}

/// What is known of one device in pre-copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Remaining {
    /// What it has to read now: its last answer less what was read since.
    pub left: PrecopyInfo,
    /// Its MIG_DATA_SIZE in bytes; 0 where it has no estimate.
    pub data_size: u64,
    /// How quickly its data can be read, in bytes per second; 0 while that is not known.
    pub rate: u64,
    /// How quickly its guest makes new data, in bytes per second.
    pub dirty_rate: u64,
}

impl Remaining {
    /// The bytes that a stop would have to move.
    #[must_use]
    pub const fn at_stop(&self) -> u64 {
        let left = self.left.total();
        if self.data_size > left { self.data_size } else { left }
    }

    /// Whether its guest makes new data as quickly as they can be read.
    const fn is_outrun(&self) -> bool {
        self.rate > 0 && self.left.total() > 0 && self.dirty_rate >= self.rate
    }
}

/// What to do in pre-copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// A stop would take too long now, and copying makes it shorter.
    KeepCopying(Forecast),
    /// A stop fits into the downtime, or nothing is known and nothing is left to learn it from.
    StopNow(Forecast),
    /// A stop takes too long, and copying on does not change that: what comes in STOP_COPY alone takes too long, or
    /// the guest makes new data as quickly as they are copied.
    WillNotConverge(Forecast),
}

/// The numbers behind an [`Advice`], for all devices together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forecast {
    /// Bytes that a stop would move now.
    pub bytes: u64,
    /// Bytes of them that can be copied before the stop.
    pub left: u64,
    /// How quickly data move: the slower of the link and the devices, in bytes per second; 0 while not known.
    pub rate: u64,
    /// How quickly guests make new data, in bytes per second.
    pub dirty_rate: u64,
    /// How long a stop would take now; nothing while no rate is known.
    pub stop: Option<Duration>,
    /// How long it may take.
    pub downtime: Duration,
}

impl Advice {
    /// The numbers.
    #[must_use]
    pub const fn forecast(&self) -> &Forecast {
        match self {
            Self::KeepCopying(forecast) | Self::StopNow(forecast) | Self::WillNotConverge(forecast) => {
                forecast
            }
        }
    }
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self {
            Self::KeepCopying(_) => "keep copying",
            Self::StopNow(_) => "stop now",
            Self::WillNotConverge(_) => "will not converge",
        };
        write!(f, "{what}: {}", self.forecast())
    }
}

impl fmt::Display for Forecast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a stop would move {} bytes, {} of which can be copied before it, ",
            self.bytes, self.left
        )?;
        match self.stop {
            Some(stop) => write!(f, "at {} bytes/s in {} ms", self.rate, millis(stop))?,
            None => f.write_str("at a rate that is not known")?,
        }
        write!(f, "; allowed are {} ms", millis(self.downtime))?;
        if self.dirty_rate > 0 {
            write!(f, ", and {} bytes/s are made anew", self.dirty_rate)?;
        }
        Ok(())
    }
}

/// What the numbers of `devices`, which share a link of `link_rate` bytes per second (0 while not known), say of a
/// stop that may take `downtime`.
#[must_use]
pub fn advise(devices: &[Remaining], link_rate: u64, downtime: Duration) -> Advice {
    let bytes = sum(devices, Remaining::at_stop);
    let left = sum(devices, |device| device.left.total());
    let dirty_rate = sum(devices, |device| device.dirty_rate);
    let stop = stop_time(devices, link_rate, Remaining::at_stop);
    let only_stop =
        stop_time(devices, link_rate, |device| device.at_stop().saturating_sub(device.left.total()));
    let rate = slower(link_rate, sum(devices, |device| device.rate));
    let outrun = devices.iter().any(Remaining::is_outrun) || (link_rate > 0 && dirty_rate >= link_rate);
    let forecast = Forecast { bytes, left, rate, dirty_rate, stop, downtime };
    match stop {
        None if left == 0 => Advice::StopNow(forecast),
        Some(stop) if stop <= downtime => Advice::StopNow(forecast),
        None => Advice::KeepCopying(forecast),
        Some(_) if only_stop > Some(downtime) || outrun => Advice::WillNotConverge(forecast),
        Some(_) => Advice::KeepCopying(forecast),
    }
}

/// A rate from what was moved, in which what was long ago counts less.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meter {
    bytes: u64,
    nanos: u64,
}

impl Meter {
    /// So many bytes take a time that says something of their rate. Fewer say more of the calls that move them.
    pub const TELLING: u64 = 64 << 10;

    /// Takes note of `bytes` that were moved in `took`.
    pub fn add(&mut self, bytes: u64, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.bytes = self.bytes.saturating_add(bytes);
        self.nanos = self.nanos.saturating_add(nanos);
        if self.nanos > WINDOW {
            self.bytes /= 2;
            self.nanos /= 2;
        }
    }

    /// Bytes per second, or 0 while fewer than [`Meter::TELLING`] were moved of late.
    #[must_use]
    pub fn known_rate(&self) -> u64 {
        if self.bytes < Self::TELLING { 0 } else { self.rate() }
    }

    /// Bytes per second; 0 while nothing was moved.
    #[must_use]
    pub fn rate(&self) -> u64 {
        let micros = self.nanos.div_ceil(1000).max(1);
        match self.bytes.checked_mul(MICROS) {
            Some(scaled) => scaled.checked_div(micros),
            None => self.bytes.checked_div(micros).map(|rate| rate.saturating_mul(MICROS)),
        }
        .unwrap_or_default()
    }
}

/// How long to wait while a device has nothing: twice as long each time, up to a limit. Most drivers' `poll` is always
/// ready (uapi names it for waiting, one driver has it), so waiting is by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// Waits of `first`, then twice as long each time, up to `longest`.
    #[must_use]
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, next: first }
    }

    /// How long to wait now.
    pub fn wait(&mut self) -> Duration {
        let now = self.next.min(self.longest);
        self.next = now.saturating_mul(2);
        now
    }

    /// There were data: the next wait is the first again.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

/// What `of` says of all devices together.
fn sum(devices: &[Remaining], of: impl Fn(&Remaining) -> u64) -> u64 {
    devices.iter().map(of).fold(0, u64::saturating_add)
}

/// How long it takes to move what `of` says of each device: over the link all of it, from each device its own. Where
/// only the link's rate is known it stands for a device's too; where neither is, nothing can be said.
fn stop_time(devices: &[Remaining], link_rate: u64, of: impl Fn(&Remaining) -> u64) -> Option<Duration> {
    let total = sum(devices, &of);
    let over_link = time(total, link_rate);
    if over_link.is_none() && devices.iter().any(|device| device.rate == 0 && of(device) > 0) {
        return None;
    }
    devices.iter().map(|device| time(of(device), device.rate)).fold(over_link, Option::max)
}

/// How long `bytes` take at `rate` bytes per second, rounded up; nothing where the rate is not known.
fn time(bytes: u64, rate: u64) -> Option<Duration> {
    let micros = match bytes.checked_mul(MICROS) {
        Some(scaled) => scaled.checked_add(rate.saturating_sub(1)).unwrap_or(scaled).checked_div(rate)?,
        None => bytes.checked_div(rate)?.saturating_add(1).saturating_mul(MICROS),
    };
    Some(Duration::from_micros(micros))
}

/// The slower of two rates, of which 0 is not known.
fn slower(a: u64, b: u64) -> u64 {
    if a == 0 || (b != 0 && b < a) { b } else { a }
}

/// Milliseconds for people, rounded up so that what takes time never looks as if it took none.
fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).div_ceil(MICROS)
}

const MICROS: u64 = 1_000_000;
/// When a meter begins to forget, in nanoseconds.
const WINDOW: u64 = 4000 * MICROS;
