//! `session::precopy`: what is left, how long a stop would take, and whether to stop now.
//!
//! The table holds every number; behind it the decision is written once more, without a
//! division. Deliberately absent: what PRECOPY_INFO leads to in a source, which is in `source_precopy.rs`,
//! and the texts, which are in `words.rs`.

use std::time::Duration;

use proptest::prelude::*;
use vfio_migration_core::device::uapi;
use vfio_migration_core::session::precopy::{
    Advice, Backoff, Forecast, Meter, PrecopyInfo, Remaining, advise,
};

const MAX: u64 = u64::MAX;

/// A device with this much initial and dirty data, this MIG_DATA_SIZE, and these rates.
const fn device(
    (initial_bytes, dirty_bytes): (u64, u64),
    data_size: u64,
    (rate, dirty_rate): (u64, u64),
) -> Remaining {
    let left = PrecopyInfo { initial_bytes, dirty_bytes, reinit: false };
    Remaining { left, data_size, rate, dirty_rate }
}

#[test]
fn what_is_left_after_a_read_is_less_initial_data_first() {
    let table = [
        ((0, 0), 0, (0, 0)),
        ((10, 5), 0, (10, 5)),
        ((10, 5), 9, (1, 5)),
        ((10, 5), 10, (0, 5)),
        ((10, 5), 11, (0, 4)),
        ((10, 5), 15, (0, 0)),
        ((10, 5), 16, (0, 0)),
        ((10, 5), MAX, (0, 0)),
        ((0, MAX), 1, (0, MAX - 1)),
        ((MAX, MAX), MAX, (0, MAX)),
    ];
    for reinit in [false, true] {
        for ((initial_bytes, dirty_bytes), read, (initial, dirty)) in table {
            let info = PrecopyInfo { initial_bytes, dirty_bytes, reinit };
            let wanted = PrecopyInfo { initial_bytes: initial, dirty_bytes: dirty, reinit };
            assert_eq!(info.after_reading(read), wanted, "{read} of {info:?}");
        }
    }
}

#[test]
fn what_can_be_read_now_is_both_kinds_together() {
    for (initial, dirty, total) in
        [(0, 0, 0), (24, 0, 24), (0, 7, 7), (24, 7, 31), (MAX, 1, MAX), (MAX, MAX, MAX)]
    {
        assert_eq!(device((initial, dirty), 0, (0, 0)).left.total(), total);
    }
}

#[test]
fn of_the_kernels_answer_the_sizes_and_one_flag_are_taken() {
    for flags in [0, 1, 2, 3, u32::MAX - 1, u32::MAX] {
        for argsz in [0, 24, u32::MAX] {
            let raw = uapi::PrecopyInfo { argsz, flags, initial_bytes: 24, dirty_bytes: MAX };
            let wanted = PrecopyInfo { initial_bytes: 24, dirty_bytes: MAX, reinit: flags % 2 == 1 };
            assert_eq!(PrecopyInfo::from(raw), wanted);
        }
    }
}

#[test]
fn a_stop_moves_the_larger_of_the_two_numbers_and_no_byte_twice() {
    let table = [
        // No estimate, or one that is too small: what is left.
        ((20, 10), 0, 30),
        ((20, 10), 29, 30),
        // All of it is left, or a part.
        ((20, 10), 30, 30),
        ((20, 10), 31, 31),
        ((0, 0), 31, 31),
        ((MAX, MAX), 1, MAX),
        ((0, 0), 0, 0),
    ];
    for (left, data_size, bytes) in table {
        assert_eq!(device(left, data_size, (0, 0)).at_stop(), bytes, "{left:?} and {data_size}");
    }
}

const KEEP: &str = "keep copying";
const STOP: &str = "stop now";
const NEVER: &str = "will not converge";

const MS: u64 = 1000;

/// Devices; the link's rate and the downtime in microseconds; what is advised; the bytes of a stop and those of them
/// that can be copied before it; the rate; how long the stop would take in microseconds.
type Row = (&'static [Remaining], u64, u64, &'static str, (u64, u64), u64, Option<u64>);

const TABLE: [Row; 35] = [
    // Nothing is left.
    (&[], 0, 0, STOP, (0, 0), 0, None),
    (&[device((0, 0), 0, (0, 9))], 0, 0, STOP, (0, 0), 0, None),
    (&[device((0, 0), 0, (100, 0))], 0, 0, STOP, (0, 0), 100, Some(0)),
    // The stop is exactly as long as it may be, then one byte and one microsecond longer.
    (&[device((30, 0), 30, (100, 0))], 0, 300 * MS, STOP, (30, 30), 100, Some(300 * MS)),
    (&[device((20, 11), 31, (100, 0))], 0, 300 * MS, KEEP, (31, 31), 100, Some(310 * MS)),
    (&[device((0, 30), 0, (100, 0))], 0, 300 * MS - 1, KEEP, (30, 30), 100, Some(300 * MS)),
    // A time that is no whole number is rounded up.
    (&[device((1, 0), 0, (3, 0))], 0, 333_333, KEEP, (1, 1), 3, Some(333_334)),
    (&[device((1, 0), 0, (3, 0))], 0, 333_334, STOP, (1, 1), 3, Some(333_334)),
    // The estimate contains what is left: 100 bytes, not 130.
    (&[device((10, 20), 100, (1000, 0))], 0, 100 * MS, STOP, (100, 30), 1000, Some(100 * MS)),
    // The estimate is missing, or smaller than what is left.
    (&[device((10, 20), 0, (100, 0))], 0, 300 * MS, STOP, (30, 30), 100, Some(300 * MS)),
    (&[device((10, 20), 12, (100, 0))], 0, 299 * MS, KEEP, (30, 30), 100, Some(300 * MS)),
    // What comes in STOP_COPY alone takes as long as a stop may, or longer.
    (&[device((30, 0), 330, (1000, 0))], 0, 300 * MS, KEEP, (330, 30), 1000, Some(330 * MS)),
    (&[device((30, 0), 331, (1000, 0))], 0, 300 * MS, NEVER, (331, 30), 1000, Some(331 * MS)),
    (&[device((0, 0), 301, (1000, 0))], 0, 300 * MS, NEVER, (301, 0), 1000, Some(301 * MS)),
    // The guest is slower than the copy, as quick, and quicker; where a stop fits now, that does not matter.
    (&[device((500, 0), 0, (100, 99))], 0, 300 * MS, KEEP, (500, 500), 100, Some(5000 * MS)),
    (&[device((500, 0), 0, (100, 100))], 0, 300 * MS, NEVER, (500, 500), 100, Some(5000 * MS)),
    (&[device((500, 0), 0, (100, 101))], 0, 5000 * MS, STOP, (500, 500), 100, Some(5000 * MS)),
    // No rate is known: it is learnt from what is left, where anything is.
    (&[device((1, 0), 500, (0, 0))], 0, 300 * MS, KEEP, (500, 1), 0, None),
    (&[device((1, 0), 500, (0, 700))], 0, 300 * MS, KEEP, (500, 1), 0, None),
    (&[device((0, 0), 500, (0, 0))], 0, 300 * MS, STOP, (500, 0), 0, None),
    // The slower of link and device counts; one of them is enough.
    (&[device((100, 0), 0, (1000, 0))], 500, 200 * MS, STOP, (100, 100), 500, Some(200 * MS)),
    (&[device((100, 0), 0, (400, 0))], 500, 249 * MS, KEEP, (100, 100), 400, Some(250 * MS)),
    (&[device((100, 0), 0, (0, 500))], 500, 199 * MS, NEVER, (100, 100), 500, Some(200 * MS)),
    // No downtime at all.
    (&[device((1, 0), 1, (1_000_000_000, 0))], 0, 0, KEEP, (1, 1), 1_000_000_000, Some(1)),
    (&[device((1, 0), 2, (1_000_000_000, 0))], 0, 0, NEVER, (2, 1), 1_000_000_000, Some(1)),
    // Two devices share the link, and each is read at its own rate beside the other.
    (&[DEVICE, DEVICE], 1000, 200 * MS, STOP, (200, 200), 1000, Some(200 * MS)),
    (&[DEVICE, DEVICE], 1000, 199 * MS, KEEP, (200, 200), 1000, Some(200 * MS)),
    (&[DEVICE, DEVICE], 0, 100 * MS, STOP, (200, 200), 2000, Some(100 * MS)),
    // A device whose rate is not known says nothing of the other, but where it has nothing to move.
    (&[DEVICE, device((0, 0), 0, (0, 0))], 0, 100 * MS, STOP, (100, 100), 1000, Some(100 * MS)),
    (&[DEVICE, device((1, 0), 0, (0, 0))], 0, 1000 * MS, KEEP, (101, 101), 1000, None),
    // Each device's estimate holds for itself: 100 and 120 bytes.
    (
        &[device((100, 0), 20, (1000, 0)), device((10, 10), 120, (1000, 0))],
        1000,
        220 * MS,
        STOP,
        (220, 120),
        1000,
        Some(220 * MS),
    ),
    // Their guests' rates add up.
    (&[BUSY, BUSY], 1000, 300 * MS, NEVER, (1000, 1000), 1000, Some(1000 * MS)),
    // The largest numbers.
    (&[device((MAX, MAX), MAX, (1, MAX))], 1, MAX, STOP, (MAX, MAX), 1, Some(MAX)),
    (&[device((MAX, 0), MAX, (MAX, 0))], MAX, 2000 * MS, STOP, (MAX, MAX), MAX, Some(2000 * MS)),
    (&[HUGE, HUGE], 0, 300 * MS, NEVER, (MAX, MAX), MAX, Some(2000 * MS)),
];

const DEVICE: Remaining = device((60, 40), 0, (1000, 0));
const BUSY: Remaining = device((500, 0), 0, (1000, 500));
const HUGE: Remaining = device((MAX, 0), MAX, (MAX, MAX));

#[test]
fn every_advice_has_its_numbers() {
    for (devices, link_rate, downtime, wanted, (bytes, left), rate, stop) in TABLE {
        let downtime = Duration::from_micros(downtime);
        let dirty_rate = devices.iter().fold(0, |sum: u64, device| sum.saturating_add(device.dirty_rate));
        let stop = stop.map(Duration::from_micros);
        let forecast = Forecast { bytes, left, rate, dirty_rate, stop, downtime };
        let advice = advise(devices, link_rate, downtime);
        let (word, of_variant) = match advice {
            Advice::KeepCopying(of_variant) => (KEEP, of_variant),
            Advice::StopNow(of_variant) => (STOP, of_variant),
            Advice::WillNotConverge(of_variant) => (NEVER, of_variant),
        };
        assert_eq!((word, of_variant), (wanted, forecast), "{devices:?}, link {link_rate}");
        assert_eq!(*advice.forecast(), forecast);
    }
}

#[test]
fn the_longest_downtime_is_enough_for_all() {
    let advice = advise(&[device((MAX, MAX), MAX, (1, MAX))], 1, Duration::MAX);
    assert!(matches!(advice, Advice::StopNow(_)), "{advice}");
}

/// The decision once more, by multiplication: whether all fits is asked of each limit that is known.
fn decide(devices: &[Remaining], link_rate: u64, micros: u64) -> &'static str {
    let limits = |bytes: &dyn Fn(&Remaining) -> u128| {
        let all: u128 = devices.iter().map(bytes).sum();
        let own = devices.iter().map(|device| (bytes(device), device.rate));
        // Where only the link's rate is known it is the limit; where neither is, nothing can be said.
        let nothing = own.clone().any(|(bytes, rate)| bytes > 0 && rate == 0 && link_rate == 0);
        let known: Vec<_> = own.chain([(all, link_rate)]).filter(|&(_, rate)| rate > 0).collect();
        let fits =
            known.iter().all(|&(bytes, rate)| bytes * 1_000_000 <= u128::from(micros) * u128::from(rate));
        (all, nothing || known.is_empty(), fits)
    };
    let left =
        |device: &Remaining| u128::from(device.left.initial_bytes) + u128::from(device.left.dirty_bytes);
    let at_stop = |device: &Remaining| left(device).max(device.data_size.into());
    let (all, unknown, fits) = limits(&at_stop);
    let (early, ..) = limits(&left);
    let (_, _, rest_fits) = limits(&|device| at_stop(device) - left(device));
    let dirty: u128 = devices.iter().map(|device| u128::from(device.dirty_rate)).sum();
    let behind =
        |device: &Remaining| device.rate == 0 || left(device) == 0 || device.dirty_rate < device.rate;
    let copied_quicker = (link_rate == 0 || dirty < link_rate.into()) && devices.iter().all(behind);
    match (all, unknown) {
        (0, _) => STOP,
        (_, true) if early == 0 => STOP,
        (_, true) => KEEP,
        (_, false) if fits => STOP,
        (_, false) if rest_fits && copied_quicker => KEEP,
        (_, false) => NEVER,
    }
}

fn size() -> impl Strategy<Value = u64> {
    prop_oneof![1 => Just(0), 3 => 0_u64..50, 1 => 0_u64..1 << 40]
}

fn remaining() -> impl Strategy<Value = Remaining> {
    ((size(), size()), size(), (prop_oneof![1 => Just(0), 5 => 1_u64..60], size()))
        .prop_map(|(left, data_size, rates)| device(left, data_size, rates))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn every_advice_is_that_of_the_rule_written_once_more(
        devices in prop::collection::vec(remaining(), 0..4),
        link_rate in prop_oneof![Just(0), 1_u64..60],
        micros in prop_oneof![0_u64..5_000_000, Just(1_000_000), Just(2_000_000)],
    ) {
        let advice = advise(&devices, link_rate, Duration::from_micros(micros));
        let wanted = decide(&devices, link_rate, micros);
        prop_assert!(advice.to_string().starts_with(wanted), "{}, wanted {}: {:?}", advice, wanted, devices);
        let longer = advise(&devices, link_rate, Duration::from_micros(micros + 1));
        prop_assert!(wanted != STOP || matches!(longer, Advice::StopNow(_)), "a longer downtime: {}", longer);
    }

    #[test]
    fn no_number_is_too_large(
        devices in prop::collection::vec((any::<[u64; 5]>(),), 0..4),
        link_rate in any::<u64>(),
        downtime in any::<Duration>(),
    ) {
        let devices: Vec<_> =
            devices.into_iter().map(|([a, b, c, d, e],)| device((a, b), c, (d, e))).collect();
        let advice = advise(&devices, link_rate, downtime);
        let forecast = advice.forecast();
        prop_assert!(forecast.left <= forecast.bytes);
        prop_assert!(!advice.to_string().is_empty());
    }
}

#[test]
fn a_meter_gives_bytes_per_second_of_what_it_was_told() {
    let second = Duration::from_secs(1);
    let milli = Duration::from_millis(1);
    let table: [(&[(u64, Duration)], u64); 9] = [
        (&[], 0),
        (&[(0, second)], 0),
        (&[(1000, second)], 1000),
        (&[(1000, second), (0, second)], 500),
        (&[(1000, milli), (3000, milli)], 2_000_000),
        (&[(1, Duration::from_secs(3))], 0),
        // Half of all is forgotten past four seconds, not before; the rate is the same.
        (&[(4000, 4 * second)], 1000),
        // What is new counts more than what was long ago.
        (&[(8000, 8 * second), (16_000, 4 * second)], 2500),
        (&[(MAX, Duration::ZERO)], MAX),
    ];
    for (moved, rate) in table {
        let mut meter = Meter::default();
        moved.iter().for_each(|&(bytes, took)| meter.add(bytes, took));
        assert_eq!(meter.rate(), rate, "{moved:?}");
    }
}

#[test]
fn a_rate_is_known_from_64_kib_on() {
    assert_eq!(Meter::TELLING, 65_536);
    for (bytes, known) in [(0, 0), (65_535, 0), (65_536, 65_536), (1 << 40, 1 << 40)] {
        let mut meter = Meter::default();
        meter.add(bytes, Duration::from_secs(1));
        assert_eq!((meter.rate(), meter.known_rate()), (bytes, known));
    }
}

#[test]
fn a_meter_takes_the_largest_numbers() {
    let mut meter = Meter::default();
    for took in [Duration::MAX, Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
        meter.add(MAX, took);
        assert!(meter.rate() > 0, "{took:?}");
    }
}

#[test]
fn a_meter_follows_a_change_of_pace() {
    let second = Duration::from_secs(1);
    let mut meter = Meter::default();
    (0..100).for_each(|_| meter.add(1_000_000, second));
    assert!((999_990..=1_000_000).contains(&meter.rate()), "{}", meter.rate());
    (0..20).for_each(|_| meter.add(3_000_000, second));
    assert!((2_990_000..=3_000_000).contains(&meter.rate()), "{}", meter.rate());
    (0..60).for_each(|_| meter.add(0, second));
    assert!(meter.rate() < 10, "{}", meter.rate());
}

#[test]
fn a_meter_counts_moves_that_are_shorter_than_a_microsecond() {
    let mut meter = Meter::default();
    (0..10_000).for_each(|_| meter.add(900, Duration::from_nanos(900)));
    assert_eq!(meter.rate(), 1_000_000_000);
}

#[test]
fn a_device_whose_rate_is_not_known_is_not_taken_for_an_infinitely_quick_one() {
    // One rate is known, and says nothing of the device that has a terabyte left.
    let devices = [device((10, 0), 10, (100, 0)), device((1 << 40, 0), 1 << 40, (0, 0))];
    let advice = advise(&devices, 0, Duration::from_millis(300));
    assert!(matches!(advice, Advice::KeepCopying(_)), "{advice}");
}

#[test]
fn waits_grow_to_their_limit_and_begin_anew_with_data() {
    let milli = Duration::from_millis;
    let table: [(Duration, Duration, &[Duration]); 5] = [
        (milli(1), milli(5), &[milli(1), milli(2), milli(4), milli(5), milli(5)]),
        (milli(5), milli(5), &[milli(5), milli(5)]),
        (milli(9), milli(5), &[milli(5), milli(5)]),
        (Duration::ZERO, milli(5), &[Duration::ZERO, Duration::ZERO]),
        (
            Duration::MAX / 2,
            Duration::MAX,
            &[Duration::MAX / 2, Duration::MAX - Duration::from_nanos(1), Duration::MAX],
        ),
    ];
    for (first, longest, waits) in table {
        let mut backoff = Backoff::new(first, longest);
        for round in ["first", "after data", "after data again"] {
            for wait in waits {
                assert_eq!(backoff.wait(), *wait, "{round}: {first:?} to {longest:?}");
            }
            backoff.reset();
            assert_eq!(backoff, Backoff::new(first, longest));
        }
    }
}
