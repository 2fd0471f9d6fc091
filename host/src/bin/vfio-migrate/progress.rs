//! What a user sees while data moves: a bar on a terminal, or every event with `--trace`.
//!
//! Deliberately absent: the time that is left. A driver's estimate of its state may be 0 or far off.

use std::time::{Duration, Instant};

use indicatif::{BinaryBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};
use vfio_migration_core::session::{DataRead, Event};

use crate::stdio::say;

/// Counts the data that an event moved, and shows it.
pub(crate) struct Progress {
    bar: ProgressBar,
    trace: bool,
    began: Instant,
}

impl Progress {
    /// Progress towards `estimate` bytes of state, which a driver may not know.
    pub(crate) fn new(what: &'static str, estimate: Option<u64>, trace: bool) -> Self {
        let target = if trace { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(estimate.filter(|&bytes| bytes > 0), target);
        let template = "{msg} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}";
        bar.set_style(
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        bar.set_message(what);
        Self { bar, trace, began: Instant::now() }
    }

    /// Takes note of an event.
    pub(crate) fn event(&self, event: &Event) {
        if self.trace {
            say(format_args!("{:>10.6} {event}", self.began.elapsed().as_secs_f64()));
        }
        match event {
            Event::ReadData { result: Ok(DataRead::Bytes(count)), .. }
            | Event::WriteData { result: Ok(count), .. } => {
                self.bar.inc(*count as u64);
            }
            _ => {}
        }
    }

    /// Takes the bar away and returns how long it took.
    pub(crate) fn finish(&self) -> Duration {
        self.bar.finish_and_clear();
        self.began.elapsed()
    }
}

/// An amount with its time and rate, for people.
pub(crate) fn amount(bytes: u64, time: Duration) -> String {
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    // for people
    let rate = (bytes as f64 / time.as_secs_f64().max(1e-9)) as u64;
    format!("{} in {:.3} s ({}/s)", BinaryBytes(bytes), time.as_secs_f64(), BinaryBytes(rate))
}
