//! The memory functions of the program without std, beside what Rust's own do.
//!
//! Deliberately absent: large areas. A mistake in the ends or in the direction shows in small ones.
#![cfg(target_arch = "x86_64")]
#![allow(unsafe_code)]

#[expect(dead_code, reason = "what only the linker wants")]
#[path = "../without_std/src/memory.rs"]
mod memory;

use std::cmp::Ordering;

#[test]
fn moved_bytes_are_those_of_copy_within_for_every_overlap() {
    for (from, to, count) in places() {
        let mut bytes: [u8; SIZE] = std::array::from_fn(|at| at.to_le_bytes()[0]);
        let mut wanted = bytes;
        wanted.copy_within(from..from + count, to);
        let start = bytes.as_mut_ptr();
        // SAFETY: both areas lie within the array.
        let end = unsafe { memory::memmove(start.add(to).cast(), start.add(from).cast(), count) };
        assert_eq!((bytes, end.addr()), (wanted, start.addr() + to), "{count} bytes from {from} to {to}");
    }
}

#[test]
fn copied_and_filled_bytes_stay_within_their_area() {
    for (at, _, count) in places() {
        let from: [u8; SIZE] = std::array::from_fn(|at| at.to_le_bytes()[0]);
        let [mut copied, mut filled] = [[0xa5; SIZE]; 2];
        let mut wanted = [copied; 2];
        wanted[0][at..at + count].copy_from_slice(&from[..count]);
        wanted[1][at..at + count].fill(0x7f);
        // SAFETY: all areas lie within their arrays, and no two of one call are in the same.
        unsafe {
            memory::memcpy(copied.as_mut_ptr().add(at).cast(), from.as_ptr().cast(), count);
            // Of the number only the lowest byte counts.
            memory::memset(filled.as_mut_ptr().add(at).cast(), 0x1_237f, count);
        }
        assert_eq!([copied, filled], wanted, "{count} bytes at {at}");
    }
}

#[test]
fn compared_bytes_are_ordered_as_slices_are() {
    let words: [&[u8]; 6] = [b"", b"a\0b", b"a\0c", b"a\xffb", b"b\0b", b"a\0b"];
    for (one, other) in words.iter().flat_map(|one| words.iter().map(move |other| (one, other))) {
        let count = one.len().min(other.len());
        // SAFETY: both areas have `count` bytes.
        let got = unsafe {
            let (one, other) = (one.as_ptr().cast(), other.as_ptr().cast());
            (memory::memcmp(one, other, count).cmp(&0), memory::bcmp(one, other, count) == 0)
        };
        let wanted = one[..count].cmp(&other[..count]);
        assert_eq!(got, (wanted, wanted == Ordering::Equal), "{one:?} and {other:?}");
    }
}

#[test]
fn text_is_as_long_as_its_bytes_before_the_nul() {
    for text in [c"", c"x", c"/dev/vfio/devices/vfio0"] {
        // SAFETY: a CStr ends in its NUL.
        assert_eq!(unsafe { memory::strlen(text.as_ptr()) }, text.count_bytes());
    }
}

/// Two places and a length that fit an array of [`SIZE`] bytes, all of them.
fn places() -> impl Iterator<Item = (usize, usize, usize)> {
    let fitting =
        |at: usize| (0..SIZE).flat_map(move |to| (0..=SIZE - at.max(to)).map(move |count| (at, to, count)));
    (0..SIZE).flat_map(fitting)
}

const SIZE: usize = 20;
