//! A set of byte ranges, none of which touches another.
//!
//! Deliberately absent: what the bytes are.

use std::collections::BTreeMap;
use std::ops::Range;

/// Ranges by their beginning.
#[derive(Clone, Debug, Default)]
pub(super) struct Ranges(BTreeMap<usize, usize>);

impl Ranges {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Range<usize>> {
        self.0.iter().map(|(start, end)| *start..*end)
    }

    pub(super) fn pop_first(&mut self) -> Option<Range<usize>> {
        self.0.pop_first().map(|(start, end)| start..end)
    }

    pub(super) fn insert(&mut self, range: Range<usize>) {
        let Range { mut start, mut end } = range;
        if start >= end {
            return;
        }
        while let Some((from, to)) = self.0.range(..=end).next_back().map(|(from, to)| (*from, *to))
            && to >= start
        {
            self.0.remove(&from);
            (start, end) = (start.min(from), end.max(to));
        }
        self.0.insert(start, end);
    }

    pub(super) fn remove(&mut self, range: Range<usize>) {
        let Range { start, end } = range;
        while let Some((from, to)) = self.0.range(..end).next_back().map(|(from, to)| (*from, *to))
            && to > start
            && start < end
        {
            self.0.remove(&from);
            self.insert(from..start);
            self.insert(end..to);
        }
    }

    pub(super) fn extend(&mut self, other: &Self) {
        other.iter().for_each(|range| self.insert(range));
    }
}

impl From<Range<usize>> for Ranges {
    fn from(range: Range<usize>) -> Self {
        let mut ranges = Self::default();
        ranges.insert(range);
        ranges
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_insertion_and_removal_leaves_the_bytes_that_a_list_of_flags_has() {
        let mut ranges = Ranges::default();
        let mut flags = [false; 12];
        let mut number = 7_u64;
        let thirteenth = |number: u64| usize::try_from(number % 13).unwrap();
        for _ in 0..20_000 {
            number = number.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(11);
            let (start, end) = (thirteenth(number >> 20), thirteenth(number >> 40));
            let insert = (number >> 60) & 1 == 0;
            if insert {
                ranges.insert(start..end);
            } else {
                ranges.remove(start..end);
            }
            flags.iter_mut().take(end).skip(start).for_each(|flag| *flag = insert);
            for (at, flag) in flags.iter().enumerate() {
                assert_eq!(ranges.iter().any(|range| range.contains(&at)), *flag, "{start}..{end}, {at}");
            }
            let all: Vec<_> = ranges.iter().collect();
            assert!(all.windows(2).all(|pair| pair[0].end < pair[1].start), "{all:?}");
            assert!(all.iter().all(|range| !range.is_empty()), "{all:?}");
        }
    }
}
