//! When the pre-copy of several devices is over: what each has left, how quickly data move, and whose word ends it.
//!
//! Deliberately absent: the calculation, which is core's [`precopy`](vfio_migration_core::session::precopy).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tracing::info;
use vfio_migration_core::session::precopy::{Advice, Backoff, Meter, PrecopyInfo, Remaining, advise};

use super::Reason;
use crate::trace::TARGET;

/// How to copy what can be copied while devices work.
#[derive(Clone, Copy, Debug)]
pub struct PreCopy<'a> {
    /// How long the devices may stand still.
    pub downtime: Duration,
    /// How long to go on where a stop would take longer and none that is shorter than before comes in sight.
    pub patience: Duration,
    /// How long to wait while a device has nothing.
    pub backoff: Backoff,
    /// How many INIT_DATA_SENT the destinations have loaded, of all devices: no stop before it is as many as were sent.
    /// The stream has INIT_DATA_SENT then, which its reader must have agreed to.
    pub switchover_ack: Option<&'a AtomicUsize>,
}

impl Default for PreCopy<'_> {
    /// A downtime of 300 ms (QEMU's default too), ten seconds of patience, waits of 1 to 100 ms.
    fn default() -> Self {
        Self {
            downtime: Duration::from_millis(300),
            patience: Duration::from_secs(10),
            backoff: Backoff::new(Duration::from_millis(1), Duration::from_millis(100)),
            switchover_ack: None,
        }
    }
}

/// What all devices' pre-copies add up to.
pub(super) struct Board<'a> {
    plan: PreCopy<'a>,
    devices: Vec<Measured>,
    /// The shortest stop and the fewest bytes for it that were forecast, and since when there was nothing better.
    best: (Option<Duration>, u64),
    since: Instant,
    /// How many INIT_DATA_SENT were sent.
    init_data_sent: usize,
    last: Option<&'static str>,
    over: bool,
}

/// What is known of one device.
struct Measured {
    takes_part: bool,
    left: PrecopyInfo,
    data_size: u64,
    /// How quickly it is read and its data are sent.
    rate: Meter,
    /// How quickly its guest makes new data.
    dirtied: Meter,
    /// When it was asked last.
    asked: Option<Instant>,
}

impl<'a> Board<'a> {
    /// A board for devices of which each has this estimate of its data, and may take part.
    pub(super) fn new(plan: PreCopy<'a>, devices: impl Iterator<Item = (u64, bool)>) -> Self {
        let devices = devices.map(|(data_size, takes_part)| Measured {
            takes_part,
            left: PrecopyInfo::default(),
            data_size,
            rate: Meter::default(),
            dirtied: Meter::default(),
            asked: None,
        });
        let devices = devices.collect();
        let (best, since) = ((None, u64::MAX), Instant::now());
        Self { plan, devices, best, since, init_data_sent: 0, last: None, over: false }
    }

    /// Whether pre-copy is over.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// Takes note of an INIT_DATA_SENT.
    pub(super) fn init_data_sent(&mut self) {
        self.init_data_sent += 1;
    }

    /// Takes note of what device `index` said that it has left, where by its last answer `expected` was to be left, of
    /// its estimate, and of how quickly it is read and sent.
    pub(super) fn measured(
        &mut self,
        index: usize,
        expected: Option<PrecopyInfo>,
        left: PrecopyInfo,
        data_size: u64,
        rate: Meter,
    ) {
        let now = Instant::now();
        let device = &mut self.devices[index];
        if let (Some(expected), Some(asked)) = (expected, device.asked) {
            device.dirtied.add(left.total().saturating_sub(expected.total()), now - asked);
        }
        *device = Measured { left, data_size, rate, asked: Some(now), ..*device };
    }

    /// Ends pre-copy where the numbers say so and the destination is ready. `all_sent` says that INIT_DATA_SENT stands
    /// behind the initial data of every device.
    ///
    /// # Errors
    /// [`Reason::WillNotConverge`] and [`Reason::NotAcknowledged`] where nothing got better for [`PreCopy::patience`].
    pub(super) fn decide(&mut self, link: &Meter, all_sent: bool) -> Result<(), Reason> {
        if self.devices.iter().any(|device| device.takes_part && device.asked.is_none()) {
            return Ok(());
        }
        let advice = self.advice(link);
        self.tell(&advice);
        let forecast = *advice.forecast();
        let loaded = self.plan.switchover_ack.map(|acks| acks.load(Ordering::Acquire));
        let is_stop = matches!(advice, Advice::StopNow(_));
        self.over = is_stop && loaded.is_none_or(|loaded| all_sent && loaded >= self.init_data_sent);
        let (stop, bytes) = self.best;
        let is_shorter = forecast.stop.is_some() && (stop.is_none() || forecast.stop < stop);
        if is_shorter || forecast.bytes < bytes {
            let shorter = if is_shorter { forecast.stop } else { stop };
            self.best = (shorter, forecast.bytes.min(bytes));
            self.since = Instant::now();
        }
        if self.over || self.since.elapsed() < self.plan.patience {
            return Ok(());
        }
        Err(match loaded {
            Some(loaded) if is_stop => Reason::NotAcknowledged { sent: self.init_data_sent, loaded },
            _ => Reason::WillNotConverge(forecast),
        })
    }

    /// What core advises. Where little was moved, its time says more of the calls than of the bytes: it is good enough to
    /// show that a stop is short, and not to show that it is long.
    fn advice(&self, link: &Meter) -> Advice {
        let remaining = self.remaining(Meter::known_rate);
        let bytes = remaining.iter().map(Remaining::at_stop).fold(0, u64::saturating_add);
        let is_known = |bytes, rate| rate > 0 || bytes < Meter::TELLING;
        let of_device = |(device, remaining): (&Measured, &Remaining)| {
            !device.takes_part || is_known(remaining.at_stop(), remaining.rate)
        };
        let all_known =
            is_known(bytes, link.known_rate()) && self.devices.iter().zip(&remaining).all(of_device);
        if all_known {
            return advise(&remaining, link.known_rate(), self.plan.downtime);
        }
        match advise(&self.remaining(Meter::rate), link.rate(), self.plan.downtime) {
            advice @ Advice::StopNow(_) if self.all_were_read() => advice,
            _ => advise(&self.remaining(|_| 0), 0, self.plan.downtime),
        }
    }

    /// Whether of each device that takes part and has something, something was read.
    fn all_were_read(&self) -> bool {
        let was_read =
            |device: &Measured| !device.takes_part || device.rate.rate() > 0 || device.left.total() == 0;
        self.devices.iter().all(was_read)
    }

    fn remaining(&self, rate: fn(&Meter) -> u64) -> Vec<Remaining> {
        let remaining = |device: &Measured| {
            let Measured { left, data_size, dirtied, .. } = *device;
            Remaining { left, data_size, rate: rate(&device.rate), dirty_rate: dirtied.rate() }
        };
        self.devices.iter().map(remaining).collect()
    }

    /// An event where the advice has changed.
    fn tell(&mut self, advice: &Advice) {
        let name = match advice {
            Advice::KeepCopying(_) => "keep_copying",
            Advice::StopNow(_) => "stop_now",
            Advice::WillNotConverge(_) => "will_not_converge",
        };
        if self.last.replace(name) != Some(name) {
            info!(target: TARGET, action = name, "{advice}");
        }
    }
}
