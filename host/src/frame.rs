//! What stands around the payloads of a stream, with an offset and a checksum kept over every byte.
//!
//! [`Writer`] and [`Reader`] have a stream's preamble, the heads and footers of its sections, and its end: a description
//! that ends in the checksum of all bytes before it. A payload goes through them as through any `Transport`.
//!
//! Deliberately absent: what a description says. It is JSON, and a caller's to make and to read: the module `file` does so
//! where there is std, `tests/without_std` without.

use rustix::fd::AsFd;
use rustix::io::Errno;
use vfio_migration_core::session::Code;
use vfio_migration_core::session::drive::Transport;
use vfio_migration_core::stream::section::{self, FOOTER, ITEM_MAX, Item, PREAMBLE};

use crate::errno::code;
use crate::link::Link;

/// The version of our part of the description.
pub const FORMAT: u32 = 1;

/// The longest description that is read, in bytes.
pub const DESCRIPTION_MAX: u32 = 64 * 1024;

/// How many objects and lists of a description may lie inside of one another: whoever reads one may go down by calls.
pub const NESTED_MAX: usize = 8;

/// Why bytes are not a stream's. Offsets count from the stream's first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The link failed.
    #[error("the stream could not be read at byte {offset}: {code}")]
    Recv {
        /// Where.
        offset: u64,
        /// The kernel's answer.
        code: Code,
    },
    /// The stream ended too early.
    #[error("the stream ended at byte {offset}, wanted {missing} more bytes of {what}")]
    Ended {
        /// Where.
        offset: u64,
        /// Bytes that were wanted.
        missing: u64,
        /// What they belong to.
        what: &'static str,
    },
    /// A preamble, a header or a footer is damaged.
    #[error("at byte {offset}: {error}")]
    Section {
        /// Where it begins.
        offset: u64,
        /// What is wrong with it.
        error: section::Error,
    },
    /// The description does not end in a checksum.
    #[error("at byte {offset}: wanted a description of ours, got one that does not end in a checksum")]
    NoChecksum {
        /// Where its JSON begins.
        offset: u64,
    },
    /// The description's checksum is not that of the bytes before it.
    #[error(
        "the stream is damaged: wanted crc32c {wanted:08x} of its first {covered} bytes, its description has \"{}\"",
        got.strip_suffix(CLOSING).unwrap_or(got).escape_ascii()
    )]
    Checksum {
        /// The checksum of the bytes.
        wanted: u32,
        /// What the description has in its place, with the two bytes that end it.
        got: [u8; CHECKSUM_TAIL],
        /// How many bytes it covers.
        covered: u64,
    },
    /// The description's objects and lists lie too deep inside of one another.
    #[error("at byte {offset}: wanted a description of ours, got one that has more than {NESTED_MAX} levels")]
    Nested {
        /// Where a level too many begins.
        offset: u64,
    },
    /// The description is no JSON.
    #[error("at byte {offset}: wanted a description of ours, got one that has a '{}' in a wrong place", got.escape_ascii())]
    Misplaced {
        /// Where.
        offset: u64,
        /// What stands there, where JSON has none.
        got: u8,
    },
    /// Bytes follow the description.
    #[error("at byte {offset}: wanted the end of the stream behind its description, got more bytes")]
    Trailing {
        /// Where they begin.
        offset: u64,
    },
}

/// Writes a stream to a link and keeps its checksum.
#[derive(Debug)]
pub struct Writer<Fd> {
    link: Link<Fd>,
    crc: u32,
    offset: u64,
}

impl<Fd: AsFd> Writer<Fd> {
    /// Begins a stream: preamble and the CONFIGURATION with an empty name.
    ///
    /// # Errors
    /// The link's answer.
    pub fn begin(link: Link<Fd>) -> Result<Self, Code> {
        let mut writer = Self { link, crc: 0, offset: 0 };
        writer.all(&PREAMBLE)?;
        writer.item(&Item::Configuration { name_length: 0 })?;
        Ok(writer)
    }

    /// Writes a section's header or the end byte.
    ///
    /// # Errors
    /// The link's answer.
    pub fn item(&mut self, item: &Item<'_>) -> Result<(), Code> {
        let mut bytes = [0; ITEM_MAX];
        let length = item.encode(&mut bytes).map_err(|_| code(Errno::NAMETOOLONG))?;
        self.all(&bytes[..length])
    }

    /// Writes the footer of section `id`.
    ///
    /// # Errors
    /// The link's answer.
    pub fn footer(&mut self, id: u32) -> Result<(), Code> {
        self.all(&section::footer(id))
    }

    /// Writes the end byte, the description and the checksum, and gives everything to the kernel. `json` is an object
    /// that is not empty, without the brace that closes it.
    ///
    /// # Errors
    /// The link's answer.
    pub fn end_with(&mut self, json: &[u8]) -> Result<(), Code> {
        let length = json.len() + CHECKSUM_KEY.len() + CHECKSUM_TAIL;
        let length = u32::try_from(length).map_err(|_| code(Errno::MSGSIZE))?;
        self.item(&Item::EndOfStream)?;
        self.item(&Item::Description { length })?;
        self.all(json)?;
        self.all(CHECKSUM_KEY)?;
        self.all(&checksum_tail(self.crc))?;
        self.link.flush()
    }

    /// Gives everything that was gathered to the kernel: before a wait, so that the other side has it.
    ///
    /// # Errors
    /// The link's answer.
    pub fn flush(&mut self) -> Result<(), Code> {
        self.link.flush()
    }

    /// The bytes of the stream so far.
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// The link's answer.
    pub(crate) fn all(&mut self, mut bytes: &[u8]) -> Result<(), Code> {
        while !bytes.is_empty() {
            let count = self.send(bytes)?;
            bytes = &bytes[count..];
        }
        Ok(())
    }
}

impl<Fd: AsFd> Transport for Writer<Fd> {
    fn send(&mut self, bytes: &[u8]) -> Result<usize, Code> {
        let count = self.link.send(bytes)?;
        self.crc = checksum(self.crc, &bytes[..count]);
        self.offset += count as u64;
        Ok(count)
    }

    fn recv(&mut self, buffer: &mut [u8]) -> Result<usize, Code> {
        self.link.recv(buffer)
    }

    fn send_config(&mut self) -> Result<(), Code> {
        self.link.send_config()
    }

    fn recv_config(&mut self) -> Result<u64, Code> {
        self.link.recv_config()
    }
}

/// Reads a stream from a link and keeps its checksum.
#[derive(Debug)]
pub struct Reader<T> {
    link: T,
    crc: u32,
    offset: u64,
    header: [u8; ITEM_MAX],
    /// The length of the item in `header`, which is to be given once more.
    again: Option<usize>,
    last: usize,
}

impl<T: Transport> Reader<T> {
    /// A reader at a stream's first byte.
    pub const fn new(link: T) -> Self {
        Self { link, crc: 0, offset: 0, header: [0; ITEM_MAX], again: None, last: 0 }
    }

    /// Reads the stream's preamble.
    ///
    /// # Errors
    /// [`Error`].
    pub fn preamble(&mut self) -> Result<(), Error> {
        let offset = self.offset;
        let mut preamble = PREAMBLE;
        self.exact(&mut preamble, "the preamble")?;
        section::decode_preamble(preamble).map_err(|error| Error::Section { offset, error })
    }

    /// Reads a section's header, the end byte or the description's head.
    ///
    /// # Errors
    /// [`Error`].
    pub fn item(&mut self) -> Result<Item<'_>, Error> {
        let offset = self.offset;
        let mut header = [0; ITEM_MAX];
        let mut have = 0;
        if let Some(length) = self.again.take() {
            self.offset += length as u64;
            header = self.header;
            have = length;
        }
        while let Err(error) = Item::decode(&header[..have]) {
            let section::Error::Short { wanted } = error else {
                return Err(Error::Section { offset, error });
            };
            self.exact(&mut header[have..wanted], "a section's header")?;
            have = wanted;
        }
        self.header = header;
        self.last = have;
        Item::decode(&self.header[..have])
            .map(|(item, _)| item)
            .map_err(|error| Error::Section { offset, error })
    }

    /// Puts the last item back: [`Reader::item`] gives it again. Nothing may have been read since.
    pub fn unread(&mut self) {
        self.offset -= self.last as u64;
        self.again = Some(self.last);
    }

    /// Reads the footer of section `id`.
    ///
    /// # Errors
    /// [`Error`].
    pub fn footer(&mut self, id: u32) -> Result<(), Error> {
        let offset = self.offset;
        let mut bytes = [0; FOOTER];
        self.exact(&mut bytes, "a section's footer")?;
        section::decode_footer(id, bytes).map_err(|error| Error::Section { offset, error })
    }

    /// Reads a description into `json`, which has its length, checks the checksum, that nothing follows, and that a parser
    /// has no more than [`NESTED_MAX`] levels to go down.
    ///
    /// # Errors
    /// [`Error`].
    pub fn description(&mut self, json: &mut [u8]) -> Result<(), Error> {
        let offset = self.offset;
        let (covered, tail) = json.split_at_mut(json.len().saturating_sub(CHECKSUM_TAIL));
        self.exact(covered, "the description")?;
        let wanted = self.crc;
        self.exact(tail, "the description")?;
        self.nothing_more()?;
        let Some(got) = tail.first_chunk().filter(|_| covered.ends_with(CHECKSUM_KEY)) else {
            return Err(Error::NoChecksum { offset });
        };
        if *got != checksum_tail(wanted) {
            return Err(Error::Checksum { wanted, got: *got, covered: offset + covered.len() as u64 });
        }
        check_nesting(json, offset)
    }

    /// The bytes of the stream that were read so far.
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// The link, for a look at what comes; what is read from it past the reader is missing from the checksum.
    #[cfg(feature = "std")]
    pub(crate) const fn link(&mut self) -> &mut T {
        &mut self.link
    }

    /// Checks that the stream has ended.
    ///
    /// # Errors
    /// [`Error::Trailing`] where it goes on, and [`Error::Recv`].
    pub(crate) fn nothing_more(&mut self) -> Result<(), Error> {
        let offset = self.offset;
        match self.recv(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(Error::Trailing { offset }),
            Err(code) => Err(Error::Recv { offset, code }),
        }
    }

    /// Fills `buffer`, which belongs to `what`.
    ///
    /// # Errors
    /// [`Error::Recv`] and [`Error::Ended`].
    pub fn exact(&mut self, buffer: &mut [u8], what: &'static str) -> Result<(), Error> {
        let mut have = 0;
        while have < buffer.len() {
            let offset = self.offset;
            match self.recv(&mut buffer[have..]) {
                Ok(0) => return Err(Error::Ended { offset, missing: (buffer.len() - have) as u64, what }),
                Ok(count) => have += count,
                Err(code) => return Err(Error::Recv { offset, code }),
            }
        }
        Ok(())
    }
}

impl<T: Transport> Transport for Reader<T> {
    fn send(&mut self, bytes: &[u8]) -> Result<usize, Code> {
        self.link.send(bytes)
    }

    fn recv(&mut self, buffer: &mut [u8]) -> Result<usize, Code> {
        let count = self.link.recv(buffer)?;
        self.crc = checksum(self.crc, &buffer[..count]);
        self.offset += count as u64;
        Ok(count)
    }

    fn send_config(&mut self) -> Result<(), Code> {
        self.link.send_config()
    }

    fn recv_config(&mut self) -> Result<u64, Code> {
        self.link.recv_config()
    }
}

/// The checksum of bytes whose checksum was `crc` and of `bytes` behind them, with the processor's own instruction.
#[cfg(feature = "std")]
fn checksum(crc: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc, bytes)
}

#[cfg(not(feature = "std"))]
use checksum_in_software as checksum;

/// The same with a table of 1 KiB, on any machine.
#[cfg_attr(feature = "std", allow(dead_code))]
fn checksum_in_software(crc: u32, bytes: &[u8]) -> u32 {
    // The crate wants the register as it is before its bits are reversed.
    let mut digest = CRC32C.digest_with_initial((!crc).reverse_bits());
    digest.update(bytes);
    digest.finalize()
}

/// Checks that a parser that goes down by calls needs no more than [`NESTED_MAX`] of them, for a JSON that begins at
/// `offset` of the stream. Such parsers skip what they do not know up to a comma or a bracket, whatever stands there, and so
/// may take for nesting what lies in a string, as in `[0",[[["]`: a quote, a colon or a bracket where JSON has none is
/// refused.
fn check_nesting(json: &[u8], offset: u64) -> Result<(), Error> {
    let (mut depth, mut before) = (0_usize, b',');
    let mut bytes = (offset..).zip(json.iter().copied());
    while let Some((offset, byte)) = bytes.next() {
        match (byte, before) {
            (b' ' | b'\t' | b'\n' | b'\r', _) => continue,
            (b'"', b'{' | b'[' | b',' | b':') => skip_string(&mut bytes),
            (b'{' | b'[', _) if depth == NESTED_MAX => return Err(Error::Nested { offset }),
            (b'{' | b'[', b'[' | b',' | b':') => depth += 1,
            (b'}' | b']', _) => depth = depth.saturating_sub(1),
            (b':', b'"') => {}
            (b'"' | b'{' | b'[' | b':', _) => return Err(Error::Misplaced { offset, got: byte }),
            _ => {}
        }
        before = byte;
    }
    Ok(())
}

/// Goes on behind a string's last quote; a backslash takes the byte behind it along.
fn skip_string(bytes: &mut impl Iterator<Item = (u64, u8)>) {
    while let Some((_, byte)) = bytes.next() {
        match byte {
            b'"' => return,
            b'\\' => drop(bytes.next()),
            _ => {}
        }
    }
}

/// What follows the bytes that the checksum covers.
fn checksum_tail(checksum: u32) -> [u8; CHECKSUM_TAIL] {
    let mut tail = *b"00000000\"}";
    for (digit, at) in tail.iter_mut().zip((0..8).rev()) {
        *digit = DIGITS[(checksum >> (4 * at) & 0xf) as usize];
    }
    tail
}

const CRC32C: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI);
const DIGITS: &[u8; 16] = b"0123456789abcdef";
const CHECKSUM_KEY: &[u8] = b",\"crc32c\":\"";
const CHECKSUM_TAIL: usize = 10;
/// What stands behind the checksum's digits.
const CLOSING: &[u8] = b"\"}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_checksums_are_the_same_over_any_pieces() {
        assert_eq!(checksum_in_software(0, b"123456789"), 0xe306_9283);
        let bytes: [u8; 300] = core::array::from_fn(|at| (at * 7).to_le_bytes()[0]);
        for cut in 0..bytes.len() {
            let (front, back) = bytes.split_at(cut);
            let got = checksum_in_software(checksum_in_software(0, front), back);
            assert_eq!(got, checksum(checksum(0, front), back), "{cut}");
        }
    }

    #[test]
    fn brackets_are_counted_wherever_a_parser_may_take_them_for_nesting() {
        let nested = |offset| Err(Error::Nested { offset });
        let misplaced = |offset, got| Err(Error::Misplaced { offset, got });
        let table: [(&[u8], Result<(), Error>); 9] = [
            (b"", Ok(())),
            (br#"{"a" : [1, {"b": 2}], "c": [[]]}"#, Ok(())),
            (br#"{"a":"[[[[[[[[[","b":"\"[[[[[[[[["}"#, Ok(())),
            (b"[[[[[[[[]]]]]]]]", Ok(())),
            (b"[[[[[[[[[", nested(108)),
            (br#"{"a":"]]]]",":b":[[[[[[[[[["#, nested(124)),
            (br#"{"x":[0",[[[["#, misplaced(107, b'"')),
            (b"{1:[[", misplaced(102, b':')),
            (b"[1[[", misplaced(102, b'[')),
        ];
        for (json, wanted) in table {
            assert_eq!(check_nesting(json, 100), wanted, "{}", json.escape_ascii());
        }
    }

    #[test]
    fn tail_has_all_digits_of_the_checksum() {
        assert_eq!(&checksum_tail(0x986b_6c47), b"986b6c47\"}");
        assert_eq!(&checksum_tail(0x0000_0abc), b"00000abc\"}");
    }
}
