//! The ranges that a device is asked to log.
//!
//! START takes few ranges, aligned and apart from each other; a machine's memory is many, of any kind.
//! Source: `vfio_ioctl_device_feature_logging_start` in the kernel's `vfio_main.c`.
//!
//! Deliberately absent: which memory a device can write to. What is mapped for it is known to whoever mapped it.

use core::cmp::Ordering;
use core::mem::swap;

use super::{Error, PageSize, between, bounds};
use crate::device::uapi::DmaLoggingRange;

/// The most ranges that START takes where the kernel's pages have 4096 bytes; it refuses one more with E2BIG.
pub const LIMIT: usize = 256;

/// Makes of `ranges`, in any order, of any alignment, apart or not, those that START takes, and returns them: whole
/// pages, sorted, apart from each other, `limit` of them at most (at least 1; the kernel's is [`LIMIT`]). What is above
/// the limit is joined over the smallest gaps, so that the device logs the least beyond what was asked for.
///
/// With the device's [`PageSize::word`] in place of its page, reports lose nothing on any driver ([`pieces`] says why).
/// START refuses what is still left to the caller: no range at all (EINVAL), and one that ends at 2^64 (EOVERFLOW).
///
/// [`pieces`]: super::pieces
///
/// # Errors
/// [`Error::Empty`] and [`Error::Overflow`], and `ranges` are as they were; [`Error::Everything`], and they may not be.
pub fn prepare(
    ranges: &mut [DmaLoggingRange],
    page_size: PageSize,
    limit: usize,
) -> Result<&mut [DmaLoggingRange], Error> {
    for range in &*ranges {
        bounds(*range, page_size)?;
    }
    for range in &mut *ranges {
        let (first, last) = bounds(*range, page_size)?;
        *range = between(first, last)?;
    }
    sort(ranges);
    let count = join(ranges, |gap| gap == 0)?;
    let ranges = ranges.get_mut(..count).unwrap_or_default();
    let count = fit(ranges, limit.max(1))?;
    Ok(ranges.get_mut(..count).unwrap_or_default())
}

const fn last(range: DmaLoggingRange) -> u64 {
    range.iova.saturating_add(range.length.saturating_sub(1))
}

/// Bytes between a range and the one that begins next; 0 where they touch or overlap.
const fn gap(range: DmaLoggingRange, next: DmaLoggingRange) -> u64 {
    next.iova.saturating_sub(last(range).saturating_add(1))
}

/// Joins sorted ranges to the ones before them where `joins` says so of the gap; returns how many are left, in front.
fn join(ranges: &mut [DmaLoggingRange], mut joins: impl FnMut(u64) -> bool) -> Result<usize, Error> {
    let mut count = 0_usize;
    for at in 0..ranges.len() {
        let Some(next) = ranges.get(at).copied() else { break };
        match count.checked_sub(1).and_then(|at| ranges.get_mut(at)) {
            Some(before) if joins(gap(*before, next)) => {
                *before = between(before.iova, last(*before).max(last(next)))?;
            }
            Some(_) | None => {
                if let Some(place) = ranges.get_mut(count) {
                    *place = next;
                }
                count = count.saturating_add(1);
            }
        }
    }
    Ok(count)
}

/// Joins ranges over the smallest gaps until `limit` are left, of equal gaps the first ones; returns how many are left.
fn fit(ranges: &mut [DmaLoggingRange], limit: usize) -> Result<usize, Error> {
    let surplus = ranges.len().saturating_sub(limit);
    let up_to = |most: u64| ranges.array_windows().filter(|[range, next]| gap(*range, *next) <= most).count();
    // The smallest number up to which there are enough gaps. Sorting them would take room that nobody lends.
    let (mut low, mut high) = (0, u64::MAX);
    while low < high {
        let middle = u64::midpoint(low, high);
        if up_to(middle) < surplus { low = middle.saturating_add(1) } else { high = middle }
    }
    let mut equal = surplus.saturating_sub(low.checked_sub(1).map_or(0, up_to));
    join(ranges, |gap| match gap.cmp(&low) {
        Ordering::Less => true,
        Ordering::Equal => equal.checked_sub(1).inspect(|left| equal = *left).is_some(),
        Ordering::Greater => false,
    })
}

/// Sorts by address: a heap sort, since the standard library's may panic.
fn sort(ranges: &mut [DmaLoggingRange]) {
    for root in (0..ranges.len() / 2).rev() {
        sift(ranges, root);
    }
    let mut heap = ranges;
    while let Some((end, rest)) = heap.split_last_mut() {
        if let Some(first) = rest.first_mut() {
            swap(first, end);
        }
        sift(rest, 0);
        heap = rest;
    }
}

/// Lets what stands at `root` sink below the larger ones of its heap.
fn sift(heap: &mut [DmaLoggingRange], mut root: usize) {
    loop {
        let left = root.saturating_mul(2).saturating_add(1);
        let right = left.saturating_add(1);
        let iova = |at: usize| heap.get(at).map(|range| range.iova);
        let child = if iova(right) > iova(left) { right } else { left };
        let Ok([above, below]) = heap.get_disjoint_mut([root, child]) else { return };
        if above.iova >= below.iova {
            return;
        }
        swap(above, below);
        root = child;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: PageSize = PageSize(4096);
    /// The first address of the last page.
    const TOP: u64 = 0u64.wrapping_sub(4096);

    fn ranges<const N: usize>(table: [(u64, u64); N]) -> [DmaLoggingRange; N] {
        table.map(|(iova, length)| DmaLoggingRange { iova, length })
    }

    #[track_caller]
    fn prepared<const N: usize, const M: usize>(
        limit: usize,
        given: [(u64, u64); N],
        wanted: [(u64, u64); M],
    ) {
        assert_eq!(prepare(&mut ranges(given), PAGE, limit), Ok(&mut ranges(wanted)[..]), "{given:x?}");
    }

    #[test]
    fn ranges_are_rounded_outward_sorted_and_joined_where_they_touch_or_overlap() {
        prepared(9, [], []);
        prepared(9, [(0x1fff, 2)], [(0x1000, 0x2000)]);
        prepared(9, [(0x5000, 1), (0x1000, 1)], [(0x1000, 0x1000), (0x5000, 0x1000)]);
        prepared(9, [(0x2000, 0x1000), (0x1000, 0x1000)], [(0x1000, 0x2000)]);
        prepared(9, [(0x1000, 0x9000), (0x3000, 1), (0x9fff, 2)], [(0x1000, 0xa000)]);
        prepared(9, [(0, 1), (0, 0x3000), (0, 0x1000)], [(0, 0x3000)]);
    }

    #[test]
    fn ranges_above_the_limit_are_joined_over_the_smallest_gaps_the_first_of_equal_ones_first() {
        let given = [(0, 1), (0x3000, 1), (0x5000, 1), (0x7000, 1), (0x20000, 1)];
        prepared(4, given, [(0, 0x1000), (0x3000, 0x3000), (0x7000, 0x1000), (0x20000, 0x1000)]);
        prepared(3, given, [(0, 0x1000), (0x3000, 0x5000), (0x20000, 0x1000)]);
        prepared(2, given, [(0, 0x8000), (0x20000, 0x1000)]);
        prepared(1, given, [(0, 0x21000)]);
        prepared(0, given, [(0, 0x21000)]);
    }

    #[test]
    fn ranges_may_end_at_the_top_of_the_address_space_but_not_fill_it() {
        prepared(9, [(u64::MAX, 1), (0, 1)], [(0, 0x1000), (TOP, 0x1000)]);
        prepared(9, [(0x1000, TOP)], [(0x1000, TOP)]);
        prepared(9, [(1 << 63, 1 << 63), (TOP, 7)], [(1 << 63, 1 << 63)]);
        for mut given in [ranges([(0, u64::MAX), (0, 1)]), ranges([(1 << 63, 1 << 63), (0, 1 << 63)])] {
            assert_eq!(prepare(&mut given, PAGE, 9), Err(Error::Everything));
        }
        assert_eq!(prepare(&mut ranges([(0, 1), (TOP, 1)]), PAGE, 1), Err(Error::Everything));
    }

    #[test]
    fn a_range_that_cannot_be_is_an_error_and_changes_nothing() {
        let table = [
            ((0x9001, 0), Error::Empty { iova: 0x9001 }),
            ((u64::MAX, 2), Error::Overflow { iova: u64::MAX, length: 2 }),
            ((2, u64::MAX), Error::Overflow { iova: 2, length: u64::MAX }),
        ];
        for (bad, error) in table {
            let given = ranges([(0x5001, 1), (0x1001, 1), bad]);
            let mut ranges = given;
            assert_eq!(prepare(&mut ranges, PAGE, 9), Err(error));
            assert_eq!(ranges, given);
        }
    }
}
