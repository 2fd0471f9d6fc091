//! A state on its way out of a device and into one: reading to the end, writing in pieces, comparing.
//!
//! Deliberately absent: what a stream means. It is a driver's own; here it is bytes that are equal or not.

use rustix::io::{Errno, Result as Answer};
use vfio_migration_core::device::State;

use super::data::Data;
use super::lab::Lab;
use super::words::{bytes, name};

/// How much is moved at once where a rule wants nothing else.
pub(super) const PIECE: usize = 1 << 20;

/// What came of writing a state into a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Loaded {
    /// The driver took it: the device is in STOP.
    Taken,
    /// A write was refused, behind so many bytes; RESUMING was not left.
    NotWritten(u64, Answer<usize>),
    /// Everything was written, and RESUMING → STOP was refused.
    NotStopped(Errno),
    /// The device did not get to RESUMING, or gave no data fd.
    NotBegun(String),
}

impl Loaded {
    /// The refusal in words; nothing where the state was taken.
    pub(super) fn refusal(&self) -> Option<String> {
        match self {
            Self::Taken => None,
            Self::NotWritten(at, answer) => {
                Some(format!("after {at} bytes write() answered {}", bytes(answer)))
            }
            Self::NotStopped(errno) => Some(format!("RESUMING → STOP answered {}", name(*errno))),
            Self::NotBegun(reason) => Some(reason.clone()),
        }
    }
}

impl Lab<'_> {
    /// Reads the whole state of a device that is in STOP, in pieces of `piece` bytes, and goes back to STOP.
    ///
    /// # Errors
    /// What was refused on the way, in words.
    pub(super) fn save(&mut self, piece: usize, sink: &mut dyn FnMut(&[u8])) -> Result<u64, String> {
        let refused = |what: &str| {
            let what = what.to_owned();
            move |errno| format!("{what}: {}", name(errno))
        };
        let data = self.set(State::StopCopy).map_err(refused("STOP → STOP_COPY is refused"))?;
        let data = data.ok_or("no data fd came with STOP → STOP_COPY")?;
        let count = read_to_end(&data, piece, sink).map_err(refused("read() in STOP_COPY answered"))?;
        self.set(State::Stop).map_err(refused("STOP_COPY → STOP is refused"))?;
        Ok(count)
    }

    /// Brings the device to RESUMING, writes `parts` one behind the other in pieces of `piece` bytes, and goes to STOP.
    pub(super) fn load(&mut self, parts: &[&[u8]], piece: usize) -> Loaded {
        let data = match self.reach(State::Resuming) {
            Ok(Some(data)) => data,
            Ok(None) => return Loaded::NotBegun("no data fd came with RESUMING".to_owned()),
            Err(reason) => return Loaded::NotBegun(reason),
        };
        if let Err((at, answer)) = write_all(&data, parts, piece) {
            return Loaded::NotWritten(at, answer);
        }
        match self.set(State::Stop) {
            Ok(_) => Loaded::Taken,
            Err(errno) => Loaded::NotStopped(errno),
        }
    }
}

/// Reads a session in STOP_COPY to its end. ENOMSG is an end too: that it must not be is a rule of its own.
pub(super) fn read_to_end(data: &Data, piece: usize, sink: &mut dyn FnMut(&[u8])) -> Answer<u64> {
    let mut room = vec![0; piece.max(1)];
    let mut total = 0;
    loop {
        match data.read(&mut room) {
            Ok(0) | Err(Errno::NOMSG) => return Ok(total),
            Ok(count) => {
                sink(&room[..count.min(piece)]);
                total += count as u64;
            }
            Err(errno) => return Err(errno),
        }
    }
}

/// Writes `parts` one behind the other in pieces of `piece` bytes; or says behind how many bytes what was answered.
pub(super) fn write_all(data: &Data, parts: &[&[u8]], piece: usize) -> Result<(), (u64, Answer<usize>)> {
    let mut done = 0;
    let mut gathered = Vec::new();
    for part in parts {
        let mut rest = *part;
        while !rest.is_empty() {
            let (next, behind) = rest.split_at(rest.len().min(piece - gathered.len()));
            gathered.extend_from_slice(next);
            rest = behind;
            if gathered.len() == piece {
                write_piece(data, &gathered, &mut done)?;
                gathered.clear();
            }
        }
    }
    write_piece(data, &gathered, &mut done)
}

fn write_piece(data: &Data, mut piece: &[u8], done: &mut u64) -> Result<(), (u64, Answer<usize>)> {
    while !piece.is_empty() {
        match data.write(piece) {
            Ok(count) if (1..=piece.len()).contains(&count) => {
                *done += count as u64;
                piece = &piece[count..];
            }
            answer => return Err((*done, answer)),
        }
    }
    Ok(())
}

/// Compares a state that comes in pieces with one that is held.
#[derive(Debug)]
pub(super) struct Compare<'a> {
    wanted: &'a [u8],
    count: usize,
    differs: Option<usize>,
}

impl<'a> Compare<'a> {
    /// Compares with `wanted`.
    pub(super) const fn with(wanted: &'a [u8]) -> Self {
        Self { wanted, count: 0, differs: None }
    }

    /// The next piece.
    pub(super) fn take(&mut self, piece: &[u8]) {
        let rest = self.wanted.get(self.count..).unwrap_or_default();
        let first = piece.iter().zip(rest).position(|(got, wanted)| got != wanted);
        self.differs = self.differs.or(first.map(|offset| self.count + offset));
        self.count += piece.len();
    }

    /// What is different; nothing where all is equal.
    pub(super) fn difference(&self) -> Option<String> {
        let (wanted, got) = (self.wanted.len(), self.count);
        match self.differs {
            Some(at) => Some(format!("byte {at} of {wanted} is another one")),
            None if wanted != got => Some(format!("wanted {wanted} bytes, got {got}")),
            None => None,
        }
    }
}

/// A state's length and checksum, where it is not held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Print {
    pub(super) bytes: u64,
    crc32c: u32,
}

impl Print {
    /// The next piece.
    pub(super) fn take(&mut self, piece: &[u8]) {
        self.bytes += piece.len() as u64;
        self.crc32c = crc32c::crc32c_append(self.crc32c, piece);
    }
}

#[cfg(test)]
mod tests {
    use rustix::pipe::pipe;

    use super::*;
    use crate::interrupt::Interrupt;

    #[test]
    fn a_comparison_names_the_first_byte_or_the_lengths() {
        let compare = |pieces: &[&[u8]]| {
            let mut compare = Compare::with(b"abcdef");
            pieces.iter().for_each(|piece| compare.take(piece));
            compare.difference()
        };
        assert_eq!(compare(&[b"ab", b"", b"cdef"]), None);
        assert_eq!(compare(&[b"abc", b"dXY"]), Some("byte 4 of 6 is another one".to_owned()));
        assert_eq!(compare(&[b"abc"]), Some("wanted 6 bytes, got 3".to_owned()));
        assert_eq!(compare(&[b"abcdef", b"gh"]), Some("wanted 6 bytes, got 8".to_owned()));
    }

    #[test]
    fn parts_are_written_in_pieces_of_one_size_and_read_back() {
        for piece in [1, 3, 7, 100] {
            let (read, write) = pipe().unwrap();
            let interrupt = Interrupt::new().unwrap();
            let sink = Data::new(write, interrupt.clone()).unwrap();
            assert_eq!(write_all(&sink, &[b"abc", b"", b"defgh"], piece), Ok(()));
            drop(sink);
            let mut got = Vec::new();
            let source = Data::new(read, interrupt).unwrap();
            assert_eq!(read_to_end(&source, piece, &mut |piece| got.extend_from_slice(piece)), Ok(8));
            assert_eq!(got, b"abcdefgh");
        }
    }

    #[test]
    fn a_refused_write_says_behind_how_many_bytes() {
        let (read, write) = pipe().unwrap();
        drop(write);
        let data = Data::new(read, Interrupt::new().unwrap()).unwrap();
        assert_eq!(write_all(&data, &[b"abc"], 2), Err((0, Err(Errno::BADF))));
        let words = Loaded::NotWritten(0, Err(Errno::BADF)).refusal();
        assert_eq!(words, Some("after 0 bytes write() answered EBADF".to_owned()));
    }
}
