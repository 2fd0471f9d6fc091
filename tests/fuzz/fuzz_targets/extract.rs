//! A device taken out of a machine's stream and of multifd's channels that nobody made.
//!
//! - What was taken out is a whole stream of ours that can be loaded; what was not, never looks so.
//! - Channels that hold a whole state are refused only where its pieces lie too far apart.
//! - Each channel is walked to its end, with no more events than bytes.
//! - No more is held than [`BOUND`] bytes, and [`PER_BYTE`] for each that is read.
//!
//! Settings: how stream and channels are made, how many channels, and the length of the state on them. Two bytes say
//! how many of the rest are the stream's. Deliberately absent: a driver's verdict on what was taken out.

#![no_main]

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::os::fd::AsFd as _;

use libfuzzer_sys::fuzz_target;
use vfio_migration_core::stream::multifd::{Init, Refused};
use vfio_migration_fuzz::chance::split;
use vfio_migration_fuzz::channels::Made;
use vfio_migration_fuzz::link::Memory;
use vfio_migration_fuzz::{channels, machine, memory, seeds};
use vfio_migration_host::file::{Entry, Error};
use vfio_migration_host::link::Link;
use vfio_migration_host::qemu::ExtractError::{self, Channels};
use vfio_migration_host::qemu::{Channel, ChannelEvent, ChannelsError, Extract, Walker, Wanted};
use vfio_migration_host::transfer::{self, Reason};
use vfio_migration_tests::machine::walk_file;
use vfio_migration_tests::transfer::{Fleet, Log, holding, temporary};

fuzz_target!(init: seeds::write(seeds::extract), |input: &[u8]| {
    let ([how, count, rest], _, bytes) = split(input);
    let (length, bytes) = bytes.split_first_chunk().unwrap_or((&[0; 2], &[]));
    let (stream, beside) = bytes.split_at(bytes.len().min(u16::from_be_bytes(*length).into()));
    let stream = match how & 9 {
        0 => stream.to_vec(),
        1 => machine::made(stream, true).0,
        _ => machine::made(ELSEWHERE, true).0,
    };
    let count = usize::from(count) % 4;
    let Made { lines, honest } = match how & 2 {
        _ if count == 0 => Made { lines: vec![], honest: None },
        0 => Made { lines: channels::as_they_are(beside, count), honest: None },
        _ => channels::made(beside, count, rest.into(), &machine::config()),
    };
    let begin = |id| if how & 4 > 0 { Init { uuid: [0; 16], id }.encode().to_vec() } else { vec![] };
    let numbered = (0..).zip(&lines);
    let channels: Vec<_> = numbered.map(|(id, line)| [&begin(id)[..], &line.bytes].concat()).collect();
    channels.iter().for_each(|channel| walk(channel));
    let taken = extract(&stream, &channels);
    if honest.is_some() && how & 12 == 12 {
        let is_beyond = |error: &_| matches!(error, Channels(ChannelsError::Pieces(Refused::Beyond { .. })));
        assert!(taken.as_ref().err().is_none_or(is_beyond), "a whole state is refused: {taken:?}");
    }
});

fn extract(stream: &[u8], channels: &[Vec<u8>]) -> Result<Vec<Entry>, ExtractError> {
    let files: Vec<File> = channels.iter().map(|bytes| holding(bytes)).collect();
    let devices = [Wanted { section: machine::DEVICE.into(), driver: "sim".into() }];
    let plan = Extract { devices: &devices, channels: &files, interrupt: None };
    let mut out = temporary();
    let bytes: usize = channels.iter().map(Vec::len).sum::<usize>() + stream.len();
    let taken = memory::within(BOUND + PER_BYTE * bytes, || {
        let walker = Walker::open(holding(stream), None).expect("a file in memory");
        plan.run(walker, Link::new(out.as_fd(), None), |_| ())
    });
    let mut written = Vec::new();
    out.rewind().and_then(|()| out.read_to_end(&mut written)).expect("a file in memory");
    let told = walk_file(&written);
    match &taken {
        Ok(entries) => {
            assert_eq!((told.says(), told.bytes), (String::new(), written.len() as u64));
            assert!(entries[0].data_bytes <= bytes as u64, "more data than there were");
            assert_loadable(&written);
        }
        Err(error) => assert!(told.error.is_some(), "what is not whole looks so: {error}"),
    }
    taken
}

/// What was taken out is loaded by a device of its kind, as far as a dry run can tell; of which kind a configuration is,
/// only that device can tell.
fn assert_loadable(stream: &[u8]) {
    let mut fleet = Fleet::new("destination", &[machine::FUNCTION], 64, &Log::default(), 0);
    let checked = transfer::check(&fleet.members(), Memory::new(stream), true);
    let is_other_config =
        |reason: &_| matches!(reason, Reason::Config { .. } | Reason::Stream(Error::Body { .. }));
    assert!(checked.as_ref().err().is_none_or(is_other_config), "taken out, and refused: {checked:?}");
}

/// Walks a channel to its end.
fn walk(bytes: &[u8]) {
    let mut channel = Channel::new(Memory::new(bytes), 4096);
    let (mut at, mut events) = (0, 0);
    loop {
        match channel.next() {
            Ok(Some(ChannelEvent::Init(_))) => assert_eq!(at, 0),
            Ok(Some(ChannelEvent::Memory(packet))) => assert_eq!(packet.offset, at),
            Ok(Some(ChannelEvent::State(packet))) => assert_eq!(packet.offset, at),
            Ok(Some(ChannelEvent::Bytes { bytes: piece, .. })) => {
                let from = usize::try_from(at).expect("within memory");
                assert!(bytes[from..].starts_with(piece), "other bytes than there are");
            }
            Ok(None) => {
                break assert_eq!(channel.offset(), bytes.len() as u64, "it ended before the last byte");
            }
            Err(error) => break assert!(!error.to_string().is_empty()),
        }
        events += 1;
        assert!(channel.offset() >= at && events <= bytes.len(), "more events than bytes");
        at = channel.offset();
    }
    assert!(matches!(channel.next(), Ok(None)), "it goes on behind its end");
}

/// A machine's stream in which the device's state went by channels: the START sections, a PART with two bytes, the END
/// sections.
const ELSEWHERE: &[u8] = &[0x04, 0x00, 0x21, 1, 2, 0x07, 0x02];

/// How much memory is held at most, in bytes: the longest description, eight packets of 1 MiB, and what is read ahead.
const BOUND: usize = 26 << 20;
/// How much more for each byte that is read.
const PER_BYTE: usize = 64;
