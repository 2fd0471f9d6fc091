//! The description at a stream's end, any JSON and what is none.
//!
//! - What is read is the same once it was written and read again.
//! - What is refused is refused in words, at a byte that is there.
//! - No more is held than [`BOUND`] bytes.
//!
//! Settings: whether the right checksum is put behind the bytes, which gets far, and how many bytes a receive gives.
//! Deliberately absent: the sections that are described; those are in the target `file`.

#![no_main]

use std::io::{Read as _, Seek as _};
use std::os::fd::AsFd as _;

use libfuzzer_sys::fuzz_target;
use vfio_migration_core::stream::section::Item;
use vfio_migration_fuzz::chance::split;
use vfio_migration_fuzz::link::Memory;
use vfio_migration_fuzz::{compose, memory, seeds};
use vfio_migration_host::file::{Description, FORMAT, Reader, Writer};
use vfio_migration_host::link::Link;
use vfio_migration_tests::transfer::temporary;

fuzz_target!(init: seeds::write(seeds::description), |input: &[u8]| {
    let ([how, piece], chance, bytes) = split(input);
    let bytes = if how & 1 > 0 { compose::sealed(&[], bytes) } else { bytes.to_vec() };
    let piece = if piece == 0 { usize::MAX } else { piece.into() };
    let link = Memory::new(&bytes).with(piece, 0, &chance);
    let read = memory::within(BOUND, || {
        let read = Reader::new(link).end();
        read.map_err(|error| (error.to_string(), error.offset()))
    });
    match read {
        Ok(description) => {
            assert!(compose::is_sealed(&bytes) && description.format <= FORMAT);
            assert_eq!(written_and_read(&description), description);
        }
        Err((words, offset)) => {
            assert!(!words.is_empty() && offset.unwrap_or(0) <= bytes.len() as u64, "{words}");
        }
    }
});

fn written_and_read(description: &Description) -> Description {
    let mut file = temporary();
    let mut writer = Writer::begin(Link::new(file.as_fd(), None)).expect("a file in memory");
    writer.end(description).expect("a file in memory");
    let mut bytes = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut bytes)).expect("a file in memory");
    let mut reader = Reader::begin(Memory::new(&bytes)).expect("a beginning of ours");
    assert_eq!(reader.item().expect("an item"), Item::EndOfStream);
    reader.end().expect("a description of ours")
}

/// How much memory reading a description holds at most, in bytes: it has 64 KiB, its strings, and its error's.
const BOUND: usize = 1 << 20;
