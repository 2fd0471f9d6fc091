//! What a user sees while data moves: a bar on a terminal, unless every step is printed.
//!
//! Deliberately absent: the time that is left. A driver's estimate of its state may be 0 or far off.

use std::time::{Duration, Instant};

use indicatif::{BinaryBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};
use vfio_migration_core::session::{DataRead, Event};
use vfio_migration_host::transfer::{PreCopy, Report, Watch};

/// Counts the data that an event moved, and shows it.
pub(crate) struct Progress {
    bar: ProgressBar,
    began: Instant,
}

impl Progress {
    /// Progress towards `estimate` bytes of state, which a driver may not know.
    pub(crate) fn new(what: &'static str, estimate: Option<u64>, hidden: bool) -> Self {
        let target = if hidden { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(estimate.filter(|&bytes| bytes > 0), target);
        let template = "{msg} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}";
        bar.set_style(
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        bar.set_message(what);
        Self { bar, began: Instant::now() }
    }

    /// A watch that counts what is read alone, where the same bytes are written as well.
    pub(crate) fn of_reads(&self) -> impl Fn(&Event) + Sync {
        |event| {
            if let Event::ReadData { .. } = event {
                self.event("", event);
            }
        }
    }

    /// Shows that `bytes` are done in all.
    pub(crate) fn at(&self, bytes: u64) {
        self.bar.set_position(bytes);
    }

    /// Takes the bar away and returns how long it took.
    pub(crate) fn finish(&self) -> Duration {
        self.bar.finish_and_clear();
        self.began.elapsed()
    }
}

impl Watch for Progress {
    fn event(&self, _: &str, event: &Event) {
        if let Event::ReadData { result: Ok(DataRead::Bytes(count)), .. }
        | Event::WriteData { result: Ok(count), .. } = event
        {
            self.bar.inc(*count as u64);
        }
    }
}

/// How long the devices of a transfer stood still, and how much was moved in that time.
pub(crate) fn stood_still(report: &Report, pre_copy: Option<PreCopy<'_>>) -> String {
    let all: u64 = report.entries.iter().map(|entry| entry.data_bytes).sum();
    let (downtime, moved) = (milliseconds(report.downtime), report.downtime_bytes);
    let longer = match pre_copy.map(|plan| plan.downtime).filter(|allowed| report.downtime > *allowed) {
        Some(allowed) => format!("; that is longer than the {} that were allowed", milliseconds(allowed)),
        None => String::new(),
    };
    format!("stood still for {downtime}, in which {moved} of {all} bytes of state were moved{longer}")
}

/// A time in milliseconds.
pub(crate) fn milliseconds(time: Duration) -> String {
    format!("{:.3} ms", time.as_secs_f64() * 1e3)
}

/// An amount with its time and rate, for people.
pub(crate) fn amount(bytes: u64, time: Duration) -> String {
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    // for people
    let rate = (bytes as f64 / time.as_secs_f64().max(1e-9)) as u64;
    format!("{} in {:.3} s ({}/s)", BinaryBytes(bytes), time.as_secs_f64(), BinaryBytes(rate))
}
