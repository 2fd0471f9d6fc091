//! How many reads and writes this process makes, as the kernel counts them.
//!
//! Deliberately absent: ioctl and poll, which the kernel does not count.

use std::fs;

/// Reads and writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Calls {
    pub(super) reads: u64,
    pub(super) writes: u64,
}

/// Does `work`, and counts the system calls meanwhile, of all threads of this process; nothing where the kernel
/// does not count.
pub(super) fn during<T>(work: impl FnOnce() -> T) -> (T, Option<Calls>) {
    // What the question itself adds to the answer.
    let asking = since(so_far());
    let before = so_far();
    let done = work();
    let calls = since(before).zip(asking).map(|(calls, asking)| calls.without(asking));
    (done, calls)
}

fn since(before: Option<Calls>) -> Option<Calls> {
    before.zip(so_far()).map(|(before, now)| now.without(before))
}

fn so_far() -> Option<Calls> {
    parse(&fs::read_to_string("/proc/self/io").ok()?)
}

fn parse(text: &str) -> Option<Calls> {
    let number = |key| text.lines().find_map(|line| line.strip_prefix(key))?.trim().parse().ok();
    Some(Calls { reads: number("syscr:")?, writes: number("syscw:")? })
}

impl Calls {
    fn without(self, other: Self) -> Self {
        Self {
            reads: self.reads.saturating_sub(other.reads),
            writes: self.writes.saturating_sub(other.writes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_numbers_are_found_among_the_others_and_a_file_without_one_has_none() {
        let text = "rchar: 6976\nwchar: 0\nsyscr: 10\nsyscw: 3\nread_bytes: 7\n";
        assert_eq!(parse(text), Some(Calls { reads: 10, writes: 3 }));
        assert_eq!(parse("rchar: 6976\nsyscr: 10\n"), None);
        assert_eq!(parse("syscr: many\nsyscw: 3\n"), None);
    }
}
