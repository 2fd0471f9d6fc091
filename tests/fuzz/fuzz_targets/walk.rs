//! The walk through the stream of a whole machine, from a file and from a pipe.
//!
//! - It ends, with no more events than there are bytes, at the stream's last byte or with an error, and says nothing
//!   more then.
//! - Each event lies where the one before it ended, and the bytes of a payload are those of the stream.
//! - A stream in which nothing is wrong is walked to its end from a file.
//! - No more is held than [`BOUND`] bytes, and [`PER_BYTE`] for each of the stream's.
//!
//! Settings: how the stream is made and given; the bytes of a receive. Deliberately absent: what is printed of it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vfio_migration_core::session::drive::Transport;
use vfio_migration_fuzz::chance::split;
use vfio_migration_fuzz::link::Memory;
use vfio_migration_fuzz::{machine, memory, seeds};
use vfio_migration_host::qemu::{DESCRIPTION_MAX, Event, PIECE, Walker};
use vfio_migration_tests::transfer::holding;

fuzz_target!(init: seeds::write(seeds::walk), |input: &[u8]| {
    let ([how, piece], chance, bytes) = split(input);
    let (stream, honest) = match how & 1 {
        0 => (bytes.to_vec(), false),
        _ => machine::made(bytes, how & 4 == 0),
    };
    memory::within(BOUND + PER_BYTE * stream.len(), || {
        if how & 2 > 0 {
            let walker = Walker::open(holding(&stream), None).expect("a file in memory");
            walk(walker, &stream, honest, || false);
        } else {
            let piece = if piece == 0 { usize::MAX } else { piece.into() };
            let link = Memory::new(&stream).with(piece, 0, &chance);
            walk(Walker::new(link, None), &stream, false, || chance.has_closed());
        }
    });
});

/// Walks to the end; `was_cut` says whether the link closed before it.
fn walk<T: Transport>(mut walker: Walker<T>, stream: &[u8], honest: bool, was_cut: impl Fn() -> bool) {
    let (mut at, mut events) = (0, 0);
    let error = loop {
        match walker.next() {
            Ok(Some(event)) => assert_in_place(&event, at, stream),
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
        events += 1;
        assert!(events <= stream.len(), "more events than bytes");
        assert!(walker.offset() >= at && walker.offset() <= stream.len() as u64);
        at = walker.offset();
    };
    match error {
        Some(error) => assert!(!error.to_string().is_empty() && !honest, "{error}"),
        None => {
            // A description may be missing: a link that closes behind the end byte has given a whole stream.
            let is_end = || was_cut() && part(stream, walker.offset() - 1, 1) == [0];
            let is_last = walker.offset() == stream.len() as u64;
            assert!(is_last || is_end(), "it ended at {} of {} bytes", walker.offset(), stream.len());
        }
    }
    assert!(matches!(walker.next(), Ok(None)), "it goes on behind its end");
}

/// The event is of the bytes from `at` on.
fn assert_in_place(event: &Event<'_>, at: u64, stream: &[u8]) {
    match event {
        Event::Configuration { .. } => assert_eq!(at, 0),
        Event::Section(section) => assert!(section.offset == at && section.payload > at, "{section:?}"),
        Event::Payload { offset, bytes, record, .. } => {
            // An empty configuration has no bytes and ends all the same.
            assert!(
                *offset == at && (!bytes.is_empty() || record.is_some()),
                "{} bytes at {offset}",
                bytes.len()
            );
            assert!(bytes.len() <= PIECE && *bytes == part(stream, at, bytes.len()), "other bytes at {at}");
        }
        Event::SectionEnd { footer, .. } => assert!(*footer >= at),
        Event::Command { offset, .. } | Event::EndOfStream { offset } | Event::Description { offset, .. } => {
            assert_eq!(*offset, at);
        }
    }
}

fn part(stream: &[u8], offset: u64, length: usize) -> &[u8] {
    let from = usize::try_from(offset).unwrap_or(usize::MAX);
    stream.get(from..from.saturating_add(length)).unwrap_or_default()
}

/// How much memory a walk holds at most, in bytes: the longest description, and what is read ahead.
const BOUND: usize = (16 << 20) + (1 << 20);
const _: () = assert!(DESCRIPTION_MAX == 16 << 20);
/// How much more for each byte of the stream: sections, blocks and what is described are kept with their names.
const PER_BYTE: usize = 64;
