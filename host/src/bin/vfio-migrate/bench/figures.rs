//! What is told of the samples: the JSON object, whose keys `vfio-migrate bench --help` explains.
//!
//! Deliberately absent: means and deviations. Times on a machine that does other things too have no
//! distribution that these would describe.

use std::time::Duration;

use serde::Serialize;

use super::calls::Calls;
use super::measure::{ArcSamples, CopySamples, MoveSamples, Moved, Samples};
use super::pair::{Pair, Side};

/// Everything.
#[derive(Serialize)]
pub(super) struct Figures {
    pub(super) device: DeviceFigures,
    pub(super) target: Option<DeviceFigures>,
    pub(super) rounds: u32,
    pub(super) no_op: Spread,
    pub(super) arcs: Vec<ArcFigures>,
    pub(super) save: Vec<CopyFigures>,
    pub(super) load: Vec<CopyFigures>,
    pub(super) downtime: Vec<MoveFigures>,
}

/// A device.
#[derive(Serialize)]
pub(super) struct DeviceFigures {
    pub(super) name: String,
    driver: String,
    pub(super) flags: u64,
    left: &'static str,
}

/// Times, the middle one of an even number the lower.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Spread {
    pub(super) min_us: f64,
    pub(super) median_us: f64,
    pub(super) max_us: f64,
}

/// An arc.
#[derive(Serialize)]
pub(super) struct ArcFigures {
    pub(super) from: &'static str,
    pub(super) to: &'static str,
    pub(super) on: &'static str,
    #[serde(flatten)]
    pub(super) time: Spread,
    pub(super) ratio_to_no_op: Option<f64>,
}

/// Saves or loads with one size of buffer.
#[derive(Serialize)]
pub(super) struct CopyFigures {
    pub(super) buffer_bytes: u64,
    pub(super) state_bytes: u64,
    #[serde(flatten)]
    pub(super) time: Spread,
    pub(super) median_mib_per_s: f64,
    pub(super) ratio_to_first: Option<f64>,
    pub(super) device_calls: u64,
    pub(super) read_calls: Option<u64>,
    pub(super) write_calls: Option<u64>,
    pub(super) calls_per_mib: Option<f64>,
}

/// Moves with or without pre-copy.
#[derive(Serialize)]
pub(super) struct MoveFigures {
    pub(super) pre_copy: bool,
    pub(super) buffer_bytes: u64,
    /// How many came to a stop; the rest is nothing where none did.
    pub(super) rounds: usize,
    #[serde(flatten)]
    pub(super) parts: MoveParts,
}

/// What there is to tell of moves.
#[derive(Serialize)]
pub(super) struct MoveParts {
    pub(super) state_bytes: Option<u64>,
    pub(super) stopped_bytes: Option<u64>,
    pub(super) total: Option<Spread>,
    pub(super) stop: Option<Spread>,
    pub(super) copy: Option<Spread>,
    pub(super) start: Option<Spread>,
    pub(super) ratio_to_first: Option<f64>,
}

impl Figures {
    /// What is told of the samples, now that the devices are where they are left.
    pub(super) fn new(pair: &Pair<'_>, rounds: u32, samples: &Samples) -> Self {
        Self {
            device: DeviceFigures::of(&pair.source),
            target: pair.target.as_ref().map(DeviceFigures::of),
            rounds,
            no_op: Spread::of(&samples.no_op),
            arcs: samples.arcs.iter().map(|arc| ArcFigures::of(arc, &samples.no_op)).collect(),
            save: CopyFigures::all(&samples.save),
            load: CopyFigures::all(&samples.load),
            downtime: MoveFigures::all(&samples.downtime),
        }
    }
}

impl DeviceFigures {
    fn of(side: &Side) -> Self {
        Self {
            name: side.name().to_owned(),
            driver: side.device.identity.driver.clone(),
            flags: side.device.features().raw(),
            left: side.device.state().name(),
        }
    }
}

impl Spread {
    fn of(times: &[Duration]) -> Self {
        let sorted = sorted(times.iter().map(|time| time.as_nanos()));
        // Nothing is lost below 104 days.
        #[allow(clippy::cast_precision_loss)]
        let micros = |nanos: Option<&u128>| nanos.copied().unwrap_or_default() as f64 / 1e3;
        Self {
            min_us: micros(sorted.first()),
            median_us: micros(middle(&sorted)),
            max_us: micros(sorted.last()),
        }
    }
}

impl ArcFigures {
    fn of(arc: &ArcSamples, no_op: &[Duration]) -> Self {
        Self {
            from: arc.from.name(),
            to: arc.to.name(),
            on: if arc.is_of_target() { "target" } else { "device" },
            time: Spread::of(&arc.times),
            ratio_to_no_op: ratio(&arc.times, no_op),
        }
    }
}

impl CopyFigures {
    fn all(rows: &[CopySamples]) -> Vec<Self> {
        let times = |row: &CopySamples| row.copies.iter().map(|copied| copied.time).collect::<Vec<_>>();
        let first = rows.first().map(times).unwrap_or_default();
        rows.iter().map(|row| Self::of(row, &times(row), &first)).collect()
    }

    fn of(row: &CopySamples, times: &[Duration], first: &[Duration]) -> Self {
        let median = |number: fn(&super::measure::Copied) -> u64| median(row.copies.iter().map(number));
        let counts = |number: fn(Calls) -> u64| {
            let counts: Option<Vec<_>> = row.copies.iter().map(|copied| copied.calls.map(number)).collect();
            counts.and_then(|counts| middle(&sorted(counts.into_iter())).copied())
        };
        let state_bytes = median(|copied| copied.bytes);
        let all_calls = counts(|calls| calls.reads + calls.writes);
        let time = Spread::of(times);
        #[allow(clippy::cast_precision_loss)] // for people
        let mib = state_bytes as f64 / f64::from(1 << 20);
        #[allow(clippy::cast_precision_loss)] // for people
        let calls_per_mib = all_calls.filter(|_| state_bytes > 0).map(|calls| calls as f64 / mib);
        Self {
            buffer_bytes: row.buffer,
            state_bytes,
            median_mib_per_s: mib / (time.median_us / 1e6).max(1e-9),
            time,
            ratio_to_first: ratio(first, times),
            device_calls: median(|copied| copied.device_calls),
            read_calls: counts(|calls| calls.reads),
            write_calls: counts(|calls| calls.writes),
            calls_per_mib,
        }
    }
}

impl MoveFigures {
    fn all(rows: &[MoveSamples]) -> Vec<Self> {
        let first = rows.first().map(|row| totals(&row.moves)).unwrap_or_default();
        rows.iter().map(|row| Self::of(row, &first)).collect()
    }

    fn of(row: &MoveSamples, first: &[Duration]) -> Self {
        let MoveSamples { pre_copy, buffer, moves } = row;
        let spread = |time: fn(&Moved) -> Duration| {
            (!moves.is_empty()).then(|| Spread::of(&moves.iter().map(time).collect::<Vec<_>>()))
        };
        let bytes = |number: fn(&Moved) -> u64| (!moves.is_empty()).then(|| median(moves.iter().map(number)));
        let parts = MoveParts {
            state_bytes: bytes(|moved| moved.bytes),
            stopped_bytes: bytes(|moved| moved.stopped_bytes),
            total: spread(Moved::total),
            stop: spread(|moved| moved.stop),
            copy: spread(|moved| moved.copy),
            start: spread(|moved| moved.start),
            ratio_to_first: ratio(&totals(moves), first),
        };
        Self { pre_copy: *pre_copy, buffer_bytes: *buffer, rounds: moves.len(), parts }
    }
}

fn totals(moves: &[Moved]) -> Vec<Duration> {
    moves.iter().map(Moved::total).collect()
}

/// The median of what `times` is to `others`, round by round; nothing where one of the others took no time.
fn ratio(times: &[Duration], others: &[Duration]) -> Option<f64> {
    let ratios = times.iter().zip(others).map(|(time, other)| time.as_secs_f64() / other.as_secs_f64());
    let mut ratios: Vec<f64> = ratios.collect();
    ratios.sort_by(f64::total_cmp);
    middle(&ratios).copied().filter(|ratio| ratio.is_finite())
}

fn median(numbers: impl Iterator<Item = u64>) -> u64 {
    middle(&sorted(numbers)).copied().unwrap_or_default()
}

fn sorted<T: Ord>(numbers: impl Iterator<Item = T>) -> Vec<T> {
    let mut numbers: Vec<T> = numbers.collect();
    numbers.sort();
    numbers
}

/// The middle of sorted numbers, of an even count the lower one.
fn middle<T>(sorted: &[T]) -> Option<&T> {
    sorted.get(sorted.len().saturating_sub(1) / 2)
}

#[cfg(test)]
mod tests {
    use super::super::measure::Copied;
    use super::*;

    fn micros<const N: usize>(times: [u64; N]) -> Vec<Duration> {
        times.map(Duration::from_micros).to_vec()
    }

    #[test]
    fn a_spread_has_the_smallest_the_middle_and_the_largest_in_microseconds() {
        let odd = Spread { min_us: 1.0, median_us: 5.0, max_us: 9.0 };
        assert_eq!(Spread::of(&micros([9, 1, 5])), odd);
        let even = Spread { min_us: 1.0, median_us: 2.0, max_us: 9.0 };
        assert_eq!(Spread::of(&micros([9, 2, 1, 5])), even);
        let nanos = Spread { min_us: 0.25, median_us: 0.25, max_us: 0.25 };
        assert_eq!(Spread::of(&[Duration::from_nanos(250)]), nanos);
    }

    #[test]
    fn a_ratio_is_the_middle_of_those_within_a_round() {
        assert_eq!(ratio(&micros([10, 400, 30]), &micros([5, 100, 10])), Some(3.0));
        assert_eq!(ratio(&micros([10]), &micros([0])), None);
        assert_eq!(ratio(&[], &micros([1])), None);
    }

    #[test]
    fn throughput_and_calls_are_per_mebibyte_and_the_ratio_is_one_of_throughputs() {
        let row = |buffer, micros| {
            let calls = Some(Calls { reads: 5, writes: 4 });
            let time = Duration::from_micros(micros);
            CopySamples { buffer, copies: vec![Copied { bytes: 3 << 20, time, device_calls: 5, calls }] }
        };
        let rows = CopyFigures::all(&[row(4096, 3_000_000), row(8192, 1_500_000)]);
        let told = |row: &CopyFigures| (row.median_mib_per_s, row.ratio_to_first, row.calls_per_mib);
        assert_eq!(told(&rows[0]), (1.0, Some(1.0), Some(3.0)));
        assert_eq!(told(&rows[1]), (2.0, Some(2.0), Some(3.0)));
    }

    #[test]
    fn a_state_of_no_bytes_and_a_kernel_that_does_not_count_have_no_calls_per_mebibyte() {
        let row = |bytes, calls| {
            let copied = Copied { bytes, time: Duration::from_micros(7), device_calls: 1, calls };
            CopySamples { buffer: 4096, copies: vec![copied] }
        };
        let calls = Some(Calls { reads: 1, writes: 1 });
        let rows = CopyFigures::all(&[row(0, calls), row(4096, None)]);
        assert_eq!((rows[0].calls_per_mib, rows[0].read_calls), (None, Some(1)));
        assert_eq!((rows[1].calls_per_mib, rows[1].read_calls), (None, None));
    }

    #[test]
    fn a_downtime_is_the_sum_of_its_parts_and_one_that_never_came_has_none() {
        let part = Duration::from_micros;
        let moved = Moved { bytes: 9, stopped_bytes: 4, stop: part(1), copy: part(20), start: part(300) };
        let row = |pre_copy, moves| MoveSamples { pre_copy, buffer: 4096, moves };
        let rows = MoveFigures::all(&[row(false, vec![moved]), row(true, Vec::new())]);
        let total = rows[0].parts.total.as_ref().map(|total| total.median_us);
        assert_eq!((total, rows[0].parts.ratio_to_first), (Some(321.0), Some(1.0)));
        assert_eq!(
            (rows[1].rounds, rows[1].parts.state_bytes, rows[1].parts.ratio_to_first),
            (0, None, None)
        );
        assert!(rows[1].parts.total.is_none());
    }
}
