//! One record after the other with nothing around them, for a counter of instructions.
//!
//! Deliberately absent: bytes. Data would be copied by the kernel, whose instructions no counter here sees.

use std::hint::black_box;

use anyhow::{Result, bail, ensure};
use vfio_migration_core::device::{Features, State};
use vfio_migration_core::session::{
    DataRead, Destination, DestinationDone, DestinationEffect, Source, SourceDone, SourceEffect,
};
use vfio_migration_core::stream::record::{DATA_HEAD, Decoder, WORD, encode_data_head};

use crate::migrate::ORDERS;

/// What handles the records.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Path {
    /// The encoder alone
    Encode,
    /// The decoder alone
    Decode,
    /// A source from the read to the send
    Source,
    /// A destination from the first word to the write
    Destination,
}

/// Handles `count` DATA records.
pub(crate) fn run(path: Path, count: u64) -> Result<()> {
    match path {
        Path::Encode => encode(count),
        Path::Decode => decode(count),
        Path::Source => source(count),
        Path::Destination => destination(count),
    }
}

fn encode(count: u64) -> Result<()> {
    for _ in 0..count {
        black_box(encode_data_head(black_box(LENGTH)));
    }
    Ok(())
}

fn decode(count: u64) -> Result<()> {
    let mut decoder = Decoder::new();
    let [tag, length] = words();
    for _ in 0..count {
        decoder.word(black_box(tag))?;
        decoder.word(black_box(length))?;
        decoder.data(black_box(LENGTH));
        black_box(decoder.wanted());
    }
    Ok(())
}

fn source(count: u64) -> Result<()> {
    let mut buffer = [0; BUFFER];
    let mut source = Source::new(Features::default(), State::Running, false, &mut buffer)?;
    for order in ORDERS {
        order(&mut source)?;
        let mut left = count;
        loop {
            let done = match source.poll() {
                SourceEffect::SetState(_) => SourceDone::SetState(Ok(())),
                SourceEffect::ReadData(_) if left == 0 => SourceDone::ReadData(Ok(DataRead::End)),
                SourceEffect::ReadData(room) => {
                    left -= 1;
                    SourceDone::ReadData(Ok(DataRead::Bytes(black_box(room).len())))
                }
                SourceEffect::Send(bytes) => SourceDone::Send(Ok(black_box(bytes).len())),
                SourceEffect::Idle(_) => break,
                effect => bail!("{effect:?} was not expected"),
            };
            black_box(source.complete(done)?);
        }
    }
    Ok(())
}

fn destination(count: u64) -> Result<()> {
    let mut buffer = [0; BUFFER];
    let mut destination = Destination::new(Features::default(), State::Running, false, &mut buffer)?;
    destination.resume()?;
    destination.poll();
    destination.complete(DestinationDone::SetState(Ok(())))?;
    destination.section()?;
    let [tag, length] = words();
    for _ in 0..count {
        for word in [tag, length] {
            let DestinationEffect::Recv(room) = destination.poll() else { bail!("a word was not wanted") };
            ensure!(room.len() == WORD, "wanted room for a word, got {}", room.len());
            room.copy_from_slice(black_box(&word));
            black_box(destination.complete(DestinationDone::Recv(Ok(WORD)))?);
        }
        let DestinationEffect::Recv(room) = destination.poll() else { bail!("data were not wanted") };
        let got = black_box(room).len();
        black_box(destination.complete(DestinationDone::Recv(Ok(got)))?);
        let DestinationEffect::WriteData(bytes) = destination.poll() else { bail!("data were not written") };
        let taken = black_box(bytes).len();
        black_box(destination.complete(DestinationDone::WriteData(Ok(taken)))?);
    }
    Ok(())
}

/// Tag and length of a record that fills a buffer.
fn words() -> [[u8; WORD]; 2] {
    let head = encode_data_head(LENGTH);
    [0, WORD].map(|from| std::array::from_fn(|index| head[from + index]))
}

const BUFFER: usize = 4096;

/// Data bytes of a record.
const LENGTH: u64 = 4072;

const _: () = assert!(BUFFER == 4072 + DATA_HEAD + WORD);
