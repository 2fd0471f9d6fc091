//! The decoder of payloads, over any bytes.
//!
//! - Each step takes bytes, and the offset is their number.
//! - What was decoded encodes to the same bytes again.
//! - An error names where the word stands that it is about, and leaves the decoder where it was.
//! - Nothing is allocated.
//!
//! Settings: the length of a configuration's body. Deliberately absent: a session; that is in the target `destination`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vfio_migration_core::stream::record::{
    self, DATA_HEAD, Decoder, Error, Tag, Terminator, WORD, Wanted, Word,
};
use vfio_migration_fuzz::chance::split;
use vfio_migration_fuzz::{memory, seeds};

fuzz_target!(init: seeds::write(seeds::record), |input: &[u8]| {
    let ([config, piece], _, bytes) = split(input);
    memory::within(0, || {
        let mut bytes = bytes;
        while !bytes.is_empty() {
            let taken = payload(bytes, usize::from(config), u64::from(piece).max(1));
            bytes = &bytes[taken.max(1)..];
        }
    });
});

/// Decodes a payload that gives its data in pieces; returns how many bytes it took.
fn payload(bytes: &[u8], config: usize, piece: u64) -> usize {
    let mut decoder = Decoder::new();
    let mut taken = 0;
    loop {
        let left = &bytes[taken..];
        assert_eq!(decoder.offset(), taken as u64);
        let count = match decoder.wanted() {
            Wanted::Word => {
                let Some(word) = left.first_chunk() else { return bytes.len() };
                let was_length = decoder.record() == Some(Tag::Data);
                match decoder.word(*word) {
                    Ok(read) => assert_encodes(read, was_length, word),
                    Err(error) => {
                        assert_names(error, taken as u64, *word);
                        assert_eq!((decoder.wanted(), decoder.offset()), (Wanted::Word, taken as u64));
                        return taken;
                    }
                }
                WORD
            }
            Wanted::Data(wanted) => {
                let count = wanted.min(piece).min(left.len() as u64);
                if count == 0 {
                    return bytes.len();
                }
                decoder.data(count);
                let goes_on = if count == wanted { Wanted::Word } else { Wanted::Data(wanted - count) };
                assert_eq!(decoder.wanted(), goes_on);
                usize::try_from(count).expect("no more than there is")
            }
            Wanted::Config => {
                if left.len() < config {
                    return bytes.len();
                }
                decoder.config(config as u64);
                config
            }
            Wanted::Nothing(terminator) => {
                let tag = match terminator {
                    Terminator::EndOfState => Tag::EndOfState,
                    Terminator::InitDataSent => Tag::InitDataSent,
                    Terminator::ConfigLoadReady => Tag::ConfigLoadReady,
                };
                assert!(bytes[..taken].ends_with(&record::encode(tag)));
                return taken;
            }
        };
        taken += count;
    }
}

fn assert_encodes(read: Word, was_length: bool, word: &[u8; WORD]) {
    match read {
        Word::Tag(tag) => assert_eq!(record::encode(tag), *word),
        Word::DataLength(length) => {
            assert!(was_length);
            assert_eq!(record::encode_data_head(length)[DATA_HEAD - WORD..], *word);
        }
    }
}

fn assert_names(error: Error, at: u64, word: [u8; WORD]) {
    let (Error::UnknownTag { offset, got } | Error::Unterminated { offset, got, .. }) = error;
    assert_eq!((offset, got), (at, u64::from_be_bytes(word)));
    match error {
        Error::UnknownTag { got, .. } => assert_eq!(Tag::from_raw(got), None),
        Error::Unterminated { got, .. } => assert_ne!(got, Tag::EndOfState.raw()),
    }
}
