//! A state on its way out of a device and into one: reading to the end, writing in pieces, comparing.
//!
//! Deliberately absent: what a stream means. It is a driver's own; here it is bytes that are equal or not.

use rustix::io::{Errno, Result as Answer};
use vfio_migration_core::device::State;

use super::data::Data;
use super::lab::Lab;
use super::words::{bytes, name};
use crate::ioctl;

/// How much is moved at once where a rule wants nothing else.
pub(super) const PIECE: usize = 1 << 20;

/// Where the pieces of a state go; it may have no room for one.
pub(super) type Sink<'a> = &'a mut dyn FnMut(&[u8]) -> Result<(), String>;

/// What ended the data of a session in STOP_COPY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// A read of 0 bytes, as it should be.
    Zero,
    /// ENOMSG: that it must not be is a rule of its own.
    Message,
    /// Another errno.
    Failed(Errno),
    /// Nothing: more came than any device has.
    Never,
}

impl End {
    /// Fails unless the data have ended.
    pub(super) fn came(self) -> Result<(), String> {
        match self {
            Self::Zero | Self::Message => Ok(()),
            Self::Failed(errno) => Err(format!("read() in STOP_COPY answered {}", name(errno))),
            Self::Never => Err("the data in STOP_COPY do not end".to_owned()),
        }
    }
}

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
    fn save(&mut self, piece: usize, sink: Sink<'_>) -> Result<u64, String> {
        let refused = |what: &str| {
            let what = what.to_owned();
            move |errno| format!("{what}: {}", name(errno))
        };
        let data = self.set(State::StopCopy).map_err(refused("STOP → STOP_COPY is refused"))?;
        let data = data.ok_or("no data fd came with STOP → STOP_COPY")?;
        let (count, end) = read_to_end(&data, piece, sink)?;
        end.came()?;
        self.set(State::Stop).map_err(refused("STOP_COPY → STOP is refused"))?;
        Ok(count)
    }

    /// The whole state of a device that is in STOP.
    ///
    /// # Errors
    /// What was refused on the way, or that there is no room for so much.
    pub(super) fn hold(&mut self) -> Result<Vec<u8>, String> {
        let mut held = Held::new(self);
        self.save(PIECE, &mut |piece| held.take(piece))?;
        Ok(held.bytes)
    }

    /// Saves a device that is in STOP, and compares its state with one that is held.
    pub(super) fn compare<'w>(&mut self, wanted: &'w [u8]) -> Result<Compare<'w>, String> {
        let mut compare = Compare::with(wanted);
        self.save(PIECE, &mut |piece| {
            compare.take(piece);
            Ok(())
        })?;
        Ok(compare)
    }

    /// Saves a device that is in STOP in pieces of `piece` bytes, of which nothing is held.
    pub(super) fn print(&mut self, piece: usize) -> Result<Print, String> {
        let mut print = Print::default();
        self.save(piece, &mut |piece| {
            print.take(piece);
            Ok(())
        })?;
        Ok(print)
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

/// Reads a session in STOP_COPY to its end, and says how many bytes came.
///
/// # Errors
/// The sink's.
pub(super) fn read_to_end(data: &Data, piece: usize, sink: Sink<'_>) -> Result<(u64, End), String> {
    read_up_to(MOST, data, piece, sink)
}

fn read_up_to(most: u64, data: &Data, piece: usize, sink: Sink<'_>) -> Result<(u64, End), String> {
    let mut room = vec![0; piece.max(1)];
    let mut total = 0;
    while total <= most {
        match data.read(&mut room) {
            Ok(0) => return Ok((total, End::Zero)),
            Ok(count) => {
                sink(room.get(..count).unwrap_or(&room))?;
                total += count as u64;
            }
            Err(Errno::NOMSG) => return Ok((total, End::Message)),
            Err(errno) => return Ok((total, End::Failed(errno))),
        }
    }
    Ok((total, End::Never))
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

/// A state that is held in memory, as far as there is room for it: no more than a multiple of what the driver says
/// that it has, since data without an end must not take all memory.
pub(super) struct Held {
    pub(super) bytes: Vec<u8>,
    most: u64,
}

impl Held {
    /// Nothing of a device's state yet.
    pub(super) fn new(lab: &Lab<'_>) -> Self {
        let estimate = ioctl::get_mig_data_size(lab.fd()).unwrap_or_default();
        Self { bytes: Vec::new(), most: estimate.saturating_mul(16).saturating_add(1 << 30) }
    }

    /// The next piece.
    pub(super) fn take(&mut self, piece: &[u8]) -> Result<(), String> {
        if (self.bytes.len() + piece.len()) as u64 > self.most {
            return Err(format!("the state has more than {} bytes, far above MIG_DATA_SIZE", self.most));
        }
        let room = self.bytes.try_reserve(piece.len());
        room.map_err(|error| format!("the state does not fit into memory: {error}"))?;
        self.bytes.extend_from_slice(piece);
        Ok(())
    }
}

/// Compares a state that comes in pieces with one that is held.
#[derive(Debug)]
pub(super) struct Compare<'a> {
    wanted: &'a [u8],
    pub(super) count: usize,
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

/// No device has more bytes of state.
const MOST: u64 = 64 << 30;

#[cfg(test)]
mod tests {
    use std::fs::File;

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
            let mut got = Held { bytes: Vec::new(), most: 8 };
            let source = Data::new(read, interrupt).unwrap();
            assert_eq!(read_to_end(&source, piece, &mut |piece| got.take(piece)), Ok((8, End::Zero)));
            assert_eq!(got.bytes, b"abcdefgh");
        }
    }

    #[test]
    fn data_without_an_end_are_given_up_and_fill_no_memory() {
        let zeros = || Data::new(File::open("/dev/zero").unwrap().into(), Interrupt::new().unwrap()).unwrap();
        let end = read_up_to(1000, &zeros(), 7, &mut |_| Ok(()));
        assert_eq!(end, Ok((1001, End::Never)));
        let mut held = Held { bytes: Vec::new(), most: 100 };
        let refused = read_up_to(1000, &zeros(), 7, &mut |piece| held.take(piece));
        assert_eq!(refused, Err("the state has more than 100 bytes, far above MIG_DATA_SIZE".to_owned()));
        assert_eq!(held.bytes.len(), 98);
    }

    #[test]
    fn an_errno_that_ends_the_data_is_told_with_what_came_before() {
        let (read, write) = pipe().unwrap();
        let data = Data::new(write, Interrupt::new().unwrap()).unwrap();
        assert_eq!(read_to_end(&data, 1, &mut |_| Ok(())), Ok((0, End::Failed(Errno::BADF))));
        drop(read);
        let words = [End::Zero, End::Message, End::Failed(Errno::IO), End::Never].map(End::came);
        let failed = "read() in STOP_COPY answered EIO".to_owned();
        assert_eq!(words, [Ok(()), Ok(()), Err(failed), Err("the data in STOP_COPY do not end".to_owned())]);
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
