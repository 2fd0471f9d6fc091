//! `device::dirty` against rules that are written otherwise: sets of pages in the place of ranges, the kernel's way to
//! combine ranges, and a log that sets its bits as the kernel's does.
//!
//! What is guaranteed of any ranges and bitmaps:
//! - what is logged is what was asked for, in whole pages, and where the limit wants it the smallest gaps between;
//! - the pieces of a range are the range, each as long as the bitmap allows;
//! - the runs of a report are the dirty pages of its piece, or after an error all of them.
//!
//! Deliberately absent: a kernel that answers; `tests/vm` has one.

use std::collections::BTreeSet;
use std::fs::File;

use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use rustix::io::Errno;
use vfio_migration_core::device::dirty::{self, PageSize, pieces, prepare, runs};
use vfio_migration_core::device::uapi::DmaLoggingRange;
use vfio_migration_host::dirty::{Error, Logging};
use vfio_migration_tests::words::check;

/// The size of the pages in bytes; what is tried here does not depend on it.
const PAGE: u64 = 4096;
/// Pages of the part of the address space in which ranges lie.
const SPACE: u64 = 600;
const OK: Result<(), Errno> = Ok(());

fn page() -> PageSize {
    PageSize::new(PAGE).unwrap()
}

/// Where that part begins: at the bottom, somewhere, and at the top.
fn space() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just(0x1234_5000), Just(0u64.wrapping_sub(SPACE * PAGE))]
}

/// Ranges in that part, of any alignment, touching and overlapping.
fn ranges(base: u64) -> impl Strategy<Value = Vec<DmaLoggingRange>> {
    let range = (0..SPACE * PAGE, 1..12 * PAGE).prop_map(move |(from, length)| DmaLoggingRange {
        iova: base + from,
        length: length.min(SPACE * PAGE - from),
    });
    vec(range, 0..40)
}

/// The pages that ranges touch, counted from address 0.
fn pages<'r>(ranges: impl IntoIterator<Item = &'r DmaLoggingRange>) -> BTreeSet<u64> {
    let of = |range: &DmaLoggingRange| range.iova / PAGE..=(range.iova + (range.length - 1)) / PAGE;
    ranges.into_iter().flat_map(of).collect()
}

/// The ranges that hold these pages, each as long as it can be.
fn ranges_of(pages: &BTreeSet<u64>) -> Vec<DmaLoggingRange> {
    let mut ranges: Vec<DmaLoggingRange> = Vec::new();
    for page in pages {
        match ranges.last_mut() {
            Some(last) if last.iova / PAGE + last.length / PAGE == *page => last.length += PAGE,
            _ => ranges.push(DmaLoggingRange { iova: page * PAGE, length: PAGE }),
        }
    }
    ranges
}

/// What the kernel's `vfio_combine_iova_ranges` does for devices with fewer ranges still: one gap after the other.
fn combined(mut ranges: Vec<DmaLoggingRange>, limit: usize) -> Vec<DmaLoggingRange> {
    while ranges.len() > limit {
        let gap = |at: &usize| ranges[at + 1].iova - ranges[*at].iova - ranges[*at].length;
        let smallest = (0..ranges.len() - 1).min_by_key(gap).unwrap();
        let next = ranges.remove(smallest + 1);
        ranges[smallest].length = next.iova - ranges[smallest].iova + next.length;
    }
    ranges
}

/// What the kernel does to a bitmap for each page in its log.
fn report(log: &BTreeSet<u64>, piece: DmaLoggingRange, bitmap: &mut [u64]) {
    bitmap.fill(0);
    for page in pages([&piece]).intersection(log) {
        let bit = usize::try_from(page - piece.iova / PAGE).unwrap();
        bitmap[bit / 64] |= 1 << (bit % 64);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn ranges_of_any_kind_become_whole_pages_sorted_and_apart(
        given in space().prop_flat_map(ranges),
    ) {
        let wanted = ranges_of(&pages(&given));
        let mut given = given;
        prop_assert_eq!(&*prepare(&mut given, page(), usize::MAX).unwrap(), wanted);
    }

    #[test]
    fn ranges_above_the_limit_are_combined_as_the_kernel_would(
        given in space().prop_flat_map(ranges),
        limit in 1_usize..20,
    ) {
        let wanted = combined(ranges_of(&pages(&given)), limit);
        let mut given = given;
        let got = prepare(&mut given, page(), limit).unwrap();
        prop_assert_eq!(&*got, wanted);
        let mut again = got.to_vec();
        prop_assert_eq!(prepare(&mut again, page(), limit).unwrap(), got, "prepared twice");
    }

    #[test]
    fn pieces_are_the_range_and_as_long_as_the_bitmap_allows(
        (base, from, length) in (space(), 0..SPACE * PAGE / 2, 1..SPACE * PAGE / 2),
        words in 1_usize..12,
    ) {
        let range = DmaLoggingRange { iova: base + from, length };
        let pieces: Vec<DmaLoggingRange> = pieces(range, page(), words).unwrap().collect();
        prop_assert_eq!(ranges_of(&pages(&pieces)), ranges_of(&pages([&range])));
        let (last, others) = pieces.split_last().unwrap();
        prop_assert!(others.iter().all(|piece| piece.length == words as u64 * 64 * PAGE));
        prop_assert!(last.length <= words as u64 * 64 * PAGE);
        prop_assert!(pieces.windows(2).all(|pair| pair[0].iova + pair[0].length == pair[1].iova));
    }

    #[test]
    fn runs_are_the_pages_whose_bits_are_set(
        bitmap in vec(prop_oneof![Just(0), Just(u64::MAX), any::<u64>(), Just(1), Just(1 << 63)], 0..9),
        (base, count) in (space(), 1..SPACE),
    ) {
        let piece = DmaLoggingRange { iova: base, length: count * PAGE };
        let bits = bitmap.iter().flat_map(|word| (0..64).map(move |bit| word >> bit & 1 == 1));
        let bits = bits.chain(std::iter::repeat(true)).zip(base / PAGE..base / PAGE + count);
        let wanted = bits.filter_map(|(dirty, page)| dirty.then_some(page)).collect();
        let got: Vec<DmaLoggingRange> = runs(piece, page(), &bitmap, &OK).collect();
        prop_assert_eq!(got, ranges_of(&wanted));
    }

    #[test]
    fn log_that_is_read_in_pieces_loses_no_page_also_where_one_report_fails(
        base in space(),
        log in btree_set(0..SPACE, 0..200),
        (words, fails) in (1_usize..4, 0_usize..12),
    ) {
        let log: BTreeSet<u64> = log.into_iter().map(|at| base / PAGE + at).collect();
        let range = DmaLoggingRange { iova: base, length: SPACE * PAGE };
        let mut bitmap = vec![0; words];
        let (mut got, mut wanted) = (Vec::new(), log.clone());
        for (at, piece) in pieces(range, page(), words).unwrap().enumerate() {
            report(&log, piece, &mut bitmap);
            let answer = if at == fails { Err(Errno::IO) } else { OK };
            got.extend(runs(piece, page(), &bitmap, &answer));
            wanted.extend(pages([&piece]).into_iter().filter(|_| answer.is_err()));
        }
        prop_assert_eq!(pages(&got), wanted);
    }
}

#[test]
fn many_ranges_in_falling_order_are_sorted_and_fit() {
    let range = |at: u64| DmaLoggingRange { iova: at * 3 * PAGE, length: PAGE };
    let mut given: Vec<DmaLoggingRange> = (0..100_000).rev().map(range).collect();
    let got = prepare(&mut given, page(), dirty::LIMIT).unwrap();
    assert_eq!(got.len(), dirty::LIMIT);
    assert_eq!((got[0].iova, got[0].length), (0, (100_000 - 256) * 3 * PAGE + PAGE));
    assert_eq!(got[1..], (99_745..100_000).map(range).collect::<Vec<_>>());
}

#[test]
fn file_that_is_no_device_starts_no_log() {
    let ranges = [DmaLoggingRange { iova: 0, length: PAGE }];
    let started = Logging::start(File::open("/dev/null").unwrap(), PAGE, &ranges);
    assert!(matches!(started, Err(Error::NotStarted(Errno::NOTTY))), "{started:?}");
    let started = Logging::start(File::open("/dev/null").unwrap(), PAGE - 1, &ranges);
    assert!(matches!(started, Err(Error::Wrong(dirty::Error::PageSize { got: 4095 }))), "{started:?}");
}

#[test]
fn every_error_of_a_log_says_what_was_wanted_and_what_the_kernel_said() {
    let table = [
        (
            Error::Wrong(dirty::Error::PageSize { got: 0 }),
            "wanted a page size that is a power of two and at least 4096, got 0",
        ),
        (
            Error::NotStarted(Errno::NOTTY),
            "the kernel refused VFIO_DEVICE_FEATURE_DMA_LOGGING_START: Inappropriate ioctl for device (os error 25)",
        ),
        (
            Error::NotStopped(Errno::INVAL),
            "the kernel refused VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP: Invalid argument (os error 22)",
        ),
        (
            Error::NotReported(Errno::OPNOTSUPP),
            "the kernel refused VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT, so all is dirty: Operation not supported (os \
             error 95)",
        ),
        (
            Error::NotLogged { iova: 0x1000, length: 0x3000 },
            "wanted a report of 0x3000 bytes at 0x1000, which are not all in one range that is logged",
        ),
    ];
    let variants = match table[0].0 {
        Error::Wrong(_)
        | Error::NotStarted(_)
        | Error::NotStopped(_)
        | Error::NotReported(_)
        | Error::NotLogged { .. } => 5,
    };
    check(&table, variants);
}
