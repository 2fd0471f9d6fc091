//! Payloads that are read to their end without a session.
//!
//! Deliberately absent: what a payload means. It is walked to find its end, and not a byte more is taken.

use vfio_migration_core::session::drive::Transport;
use vfio_migration_core::stream::pci_config::{self, Body, Layout};
use vfio_migration_core::stream::record::{Decoder, Terminator, WORD, Wanted};

use crate::file::{Error, Reader};

/// How a payload ended.
pub(super) struct Walked {
    /// Bytes of its DATA records, without their heads.
    pub(super) data_bytes: u64,
    /// What stood at its end.
    pub(super) terminator: Terminator,
}

/// Reads one payload in pieces of about `piece` bytes at most, and gives each to `sink`, which takes its bytes or leaves
/// them: what it leaves is cleared. `layout` is that of the device's configuration.
///
/// # Errors
/// [`Error`]; without a layout a CONFIG record, whose length only its device knows, is refused.
pub(super) fn payload(
    reader: &mut Reader<impl Transport>,
    piece: usize,
    layout: Option<Layout>,
    mut sink: impl FnMut(&mut Vec<u8>),
) -> Result<Walked, Error> {
    let payload = reader.offset();
    let mut decoder = Decoder::new();
    let (mut bytes, mut data_bytes) = (Vec::new(), 0);
    let mut give = |bytes: &mut Vec<u8>| {
        sink(bytes);
        bytes.clear();
    };
    loop {
        match decoder.wanted() {
            Wanted::Word => {
                let mut word = [0; WORD];
                reader.exact(&mut word, "a record")?;
                bytes.extend_from_slice(&word);
                decoder.word(word).map_err(|error| Error::Record { payload, error })?;
                if bytes.len() >= piece {
                    give(&mut bytes);
                }
            }
            Wanted::Data(left) => {
                let from = bytes.len();
                let count = usize::try_from(left).unwrap_or(piece).min(piece);
                bytes.resize(from + count, 0);
                let beyond = left - count as u64;
                reader.exact(&mut bytes[from..], "a record").map_err(|error| error.with_more(beyond))?;
                decoder.data(count as u64);
                data_bytes += count as u64;
                give(&mut bytes);
            }
            Wanted::Config => {
                let Some(layout) = layout else {
                    let (offset, wanted) = (reader.offset(), "DATA or the end of the payload");
                    return Err(Error::Unexpected { offset, wanted, got: "CONFIG".into() });
                };
                let from = bytes.len();
                let length = body(reader, layout, &mut bytes)?;
                decoder.config(length as u64);
                let word = bytes[from + length..].first_chunk().copied().unwrap_or_default();
                decoder.word(word).map_err(|error| Error::Record { payload, error })?;
            }
            Wanted::Nothing(terminator) => {
                give(&mut bytes);
                return Ok(Walked { data_bytes, terminator });
            }
        }
    }
}

/// Reads the body of a CONFIG record and the word behind it to the end of `bytes`; returns the body's length.
fn body(reader: &mut Reader<impl Transport>, layout: Layout, bytes: &mut Vec<u8>) -> Result<usize, Error> {
    let (offset, from) = (reader.offset(), bytes.len());
    loop {
        let wanted = match Body::decode(layout, &bytes[from..]) {
            Ok((_, length)) => return Ok(length),
            Err(pci_config::Error::Short { wanted }) => wanted,
            Err(error) => return Err(Error::Config { offset, error }),
        };
        let have = bytes.len();
        bytes.resize(from + wanted, 0);
        reader.exact(&mut bytes[have..], "a configuration")?;
    }
}
