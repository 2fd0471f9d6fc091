//! Layer 2: QEMU's migration stream around the payloads, as far as a stream of VFIO sections needs it.
//!
//! A stream is the preamble, then items that each begin with a type byte, up to the end byte and the description. A
//! section has no length: its payload ends where its last record does, and a footer with the section's id follows.
//! [`Item::decode`] takes what has been read so far and says how much more it wants, so that a reader never takes a
//! byte past the item.
//! Source: the format that QEMU's `migration/savevm.c` reads and writes; all numbers are big-endian.
//!
//! Deliberately absent: payloads of other devices and of memory. A stream of a whole machine is walked by the host, which
//! knows the layout of memory and can look up the rest in the description.

use core::fmt;

use super::bytes::copy;

/// The first eight bytes of a stream: "QEVM" and version 3.
pub const PREAMBLE: [u8; 8] = [0x51, 0x45, 0x56, 0x4d, 0, 0, 0, 3];

/// The longest name that a section can have, in bytes; its length is one byte on the wire.
pub const NAME_MAX: usize = 255;

/// The command behind which the source has stopped: what is left of each device follows.
#[doc(alias = "MIG_CMD_SWITCHOVER_START")]
pub const SWITCHOVER_START: u16 = 11;

/// The longest item that [`Item::encode`] writes, in bytes: the begin of a section with the longest name.
pub const ITEM_MAX: usize = 14 + NAME_MAX;

/// The length of a section's footer, in bytes.
pub const FOOTER: usize = 5;

/// The two kinds of section that carry a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Begins {
    /// The first of a device's sections, PART and END follow.
    #[doc(alias = "QEMU_VM_SECTION_START")]
    Start,
    /// A section that stands alone.
    #[doc(alias = "QEMU_VM_SECTION_FULL")]
    Full,
}

/// The two kinds of section that refer to a START by its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Continues {
    /// A section between START and END.
    #[doc(alias = "QEMU_VM_SECTION_PART")]
    Part,
    /// The last section of its id but for a FULL.
    #[doc(alias = "QEMU_VM_SECTION_END")]
    End,
}

/// What stands between payloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Item<'a> {
    /// The machine's name, `name_length` bytes, follows.
    #[doc(alias = "QEMU_VM_CONFIGURATION")]
    Configuration {
        /// Bytes of the name; 0 in a stream that holds only VFIO sections.
        name_length: u32,
    },
    /// A part of the configuration that only some machines have; its body follows, whose length its name tells.
    #[doc(alias = "QEMU_VM_SUBSECTION")]
    Subsection {
        /// What it is, for instance `configuration/capabilities`; at most [`NAME_MAX`] bytes.
        name: &'a [u8],
        /// The version of the body's layout.
        version: u32,
    },
    /// A section with a name begins; its payload follows.
    Begin {
        /// START or FULL.
        kind: Begins,
        /// The number by which later sections and the footer refer to it.
        id: u32,
        /// The name (`idstr`), for a VFIO device `<device path>/vfio`; at most [`NAME_MAX`] bytes.
        name: &'a [u8],
        /// Tells sections of one name apart; 0 where there is one.
        instance: u32,
        /// The version of the payload's layout, 1 for VFIO.
        version: u32,
    },
    /// A section that refers to a START; its payload follows.
    Continue {
        /// PART or END.
        kind: Continues,
        /// The id of its START.
        id: u32,
    },
    /// What the source tells the destination between two sections; `length` bytes of data follow.
    #[doc(alias = "QEMU_VM_COMMAND")]
    Command {
        /// Which command it is, for instance [`SWITCHOVER_START`].
        command: u16,
        /// Bytes of its data.
        length: u16,
    },
    /// The end byte: no section follows, at most a description.
    #[doc(alias = "QEMU_VM_EOF")]
    EndOfStream,
    /// The description, `length` bytes of JSON, follows.
    #[doc(alias = "QEMU_VM_VMDESCRIPTION")]
    Description {
        /// Bytes of the description.
        length: u32,
    },
}

/// Why bytes are not an item, a preamble or a footer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Error {
    /// The item is not whole: at least `wanted` bytes of it are needed, counted from its type byte.
    Short {
        /// Bytes from the type byte on.
        wanted: usize,
    },
    /// No item has this type.
    UnknownType {
        /// The type byte.
        got: u8,
    },
    /// The stream does not begin with [`PREAMBLE`].
    Preamble {
        /// The eight bytes in its place.
        got: [u8; 8],
    },
    /// A section's footer has another mark or another id.
    Footer {
        /// The section's id.
        wanted: u32,
        /// The five bytes in its place.
        got: [u8; FOOTER],
    },
    /// The buffer or the name's length byte can't hold the item.
    NoRoom {
        /// Bytes that the item has.
        wanted: usize,
        /// Bytes that there are.
        got: usize,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Short { wanted } => write!(f, "wanted {wanted} bytes of an item, got fewer"),
            Self::UnknownType { got } => {
                write!(f, "wanted the type byte of a section or of the stream's end, got {got:#04x}")
            }
            Self::Preamble { got } => write!(f, "wanted the preamble {PREAMBLE:02x?}, got {got:02x?}"),
            Self::Footer { wanted, got } => {
                write!(f, "wanted the footer of section {wanted}, {:02x?}, got {got:02x?}", footer(wanted))
            }
            Self::NoRoom { wanted, got } => write!(f, "wanted room for {wanted} bytes, got {got}"),
        }
    }
}

impl core::error::Error for Error {}

impl<'a> Item<'a> {
    /// Writes the item to the front of `out` and returns its length.
    ///
    /// # Errors
    /// [`Error::NoRoom`] when `out` is too short ([`ITEM_MAX`] always suffices) or the name longer than [`NAME_MAX`].
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, Error> {
        let room = out.len();
        let mut put = Put { out, length: 0 };
        let written = match *self {
            Self::Configuration { name_length } => put.u8(CONFIGURATION).and_then(|()| put.u32(name_length)),
            Self::Subsection { name, version } => {
                let length = name_length(name)?;
                put.u8(SUBSECTION)
                    .and_then(|()| put.u8(length))
                    .and_then(|()| put.bytes(name))
                    .and_then(|()| put.u32(version))
            }
            Self::Begin { kind, id, name, instance, version } => {
                let length = name_length(name)?;
                put.u8(kind.type_byte())
                    .and_then(|()| put.u32(id))
                    .and_then(|()| put.u8(length))
                    .and_then(|()| put.bytes(name))
                    .and_then(|()| put.u32(instance))
                    .and_then(|()| put.u32(version))
            }
            Self::Continue { kind, id } => put.u8(kind.type_byte()).and_then(|()| put.u32(id)),
            Self::Command { command, length } => {
                put.u8(COMMAND).and_then(|()| put.u16(command)).and_then(|()| put.u16(length))
            }
            Self::EndOfStream => put.u8(END_OF_STREAM),
            Self::Description { length } => put.u8(DESCRIPTION).and_then(|()| put.u32(length)),
        };
        written.map(|()| put.length).ok_or(Error::NoRoom { wanted: self.length(), got: room })
    }

    /// Takes an item off the front of `bytes`; returns it and its length.
    ///
    /// # Errors
    /// [`Error::Short`] says how many bytes to come back with; read exactly those, none belongs to the next item.
    /// [`Error::UnknownType`] when no known item begins here.
    pub fn decode(bytes: &'a [u8]) -> Result<(Self, usize), Error> {
        let mut take = Take { bytes, taken: 0 };
        let item = match take.u8()? {
            CONFIGURATION => Self::Configuration { name_length: take.u32()? },
            SUBSECTION => Self::Subsection { name: take.name()?, version: take.u32()? },
            START => take.begin(Begins::Start)?,
            FULL => take.begin(Begins::Full)?,
            PART => Self::Continue { kind: Continues::Part, id: take.u32()? },
            END => Self::Continue { kind: Continues::End, id: take.u32()? },
            COMMAND => Self::Command { command: take.u16()?, length: take.u16()? },
            END_OF_STREAM => Self::EndOfStream,
            DESCRIPTION => Self::Description { length: take.u32()? },
            got => return Err(Error::UnknownType { got }),
        };
        Ok((item, take.taken))
    }

    /// The bytes of the item.
    const fn length(&self) -> usize {
        match *self {
            Self::Configuration { .. }
            | Self::Continue { .. }
            | Self::Command { .. }
            | Self::Description { .. } => 5,
            Self::Subsection { name, .. } => 6usize.saturating_add(name.len()),
            Self::Begin { name, .. } => 14usize.saturating_add(name.len()),
            Self::EndOfStream => 1,
        }
    }
}

impl Begins {
    /// The name in QEMU's source without its prefix.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Start => "START",
            Self::Full => "FULL",
        }
    }

    const fn type_byte(self) -> u8 {
        match self {
            Self::Start => START,
            Self::Full => FULL,
        }
    }
}

impl Continues {
    /// The name in QEMU's source without its prefix.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Part => "PART",
            Self::End => "END",
        }
    }

    const fn type_byte(self) -> u8 {
        match self {
            Self::Part => PART,
            Self::End => END,
        }
    }
}

/// Checks the first eight bytes of a stream.
///
/// # Errors
/// [`Error::Preamble`] when they are not [`PREAMBLE`].
pub fn decode_preamble(bytes: [u8; 8]) -> Result<(), Error> {
    if bytes == PREAMBLE { Ok(()) } else { Err(Error::Preamble { got: bytes }) }
}

/// The bytes behind the payload of section `id`.
#[must_use]
pub fn footer(id: u32) -> [u8; FOOTER] {
    let [a, b, c, d] = id.to_be_bytes();
    [SECTION_FOOTER, a, b, c, d]
}

/// Checks the bytes behind the payload of section `id`.
///
/// # Errors
/// [`Error::Footer`] when they are not its footer.
pub fn decode_footer(id: u32, bytes: [u8; FOOTER]) -> Result<(), Error> {
    if bytes == footer(id) { Ok(()) } else { Err(Error::Footer { wanted: id, got: bytes }) }
}

/// The byte that says how long a name is.
fn name_length(name: &[u8]) -> Result<u8, Error> {
    u8::try_from(name.len()).map_err(|_| Error::NoRoom { wanted: name.len(), got: NAME_MAX })
}

/// Writes to the front of a buffer; nothing where there is no room.
struct Put<'o> {
    out: &'o mut [u8],
    length: usize,
}

impl Put<'_> {
    fn bytes(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.length.checked_add(bytes.len())?;
        copy(self.out.get_mut(self.length..end)?, bytes);
        self.length = end;
        Some(())
    }

    fn u8(&mut self, value: u8) -> Option<()> {
        self.bytes(&[value])
    }

    fn u16(&mut self, value: u16) -> Option<()> {
        self.bytes(&value.to_be_bytes())
    }

    fn u32(&mut self, value: u32) -> Option<()> {
        self.bytes(&value.to_be_bytes())
    }
}

/// Takes from the front of a buffer.
struct Take<'a> {
    bytes: &'a [u8],
    taken: usize,
}

impl<'a> Take<'a> {
    fn bytes(&mut self, count: usize) -> Result<&'a [u8], Error> {
        let end = self.taken.saturating_add(count);
        let bytes = self.bytes.get(self.taken..end).ok_or(Error::Short { wanted: end })?;
        self.taken = end;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let wanted = self.taken.saturating_add(N);
        self.bytes(N)?.try_into().map_err(|_| Error::Short { wanted })
    }

    fn u8(&mut self) -> Result<u8, Error> {
        self.array().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Result<u16, Error> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, Error> {
        self.array().map(u32::from_be_bytes)
    }

    fn name(&mut self) -> Result<&'a [u8], Error> {
        let length = self.u8()?;
        self.bytes(usize::from(length))
    }

    fn begin(&mut self, kind: Begins) -> Result<Item<'a>, Error> {
        let id = self.u32()?;
        let name = self.name()?;
        Ok(Item::Begin { kind, id, name, instance: self.u32()?, version: self.u32()? })
    }
}

const END_OF_STREAM: u8 = 0x00;
const START: u8 = 0x01;
const PART: u8 = 0x02;
const END: u8 = 0x03;
const FULL: u8 = 0x04;
const SUBSECTION: u8 = 0x05;
const DESCRIPTION: u8 = 0x06;
const CONFIGURATION: u8 = 0x07;
const COMMAND: u8 = 0x08;
const SECTION_FOOTER: u8 = 0x7e;

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &[u8] = b"0000:00:02.0/vfio";
    const BEGIN: Item<'_> = Item::Begin { kind: Begins::Start, id: 38, name: NAME, instance: 0, version: 1 };
    const BEGIN_BYTES: &[u8] = b"\x01\0\0\0\x26\x110000:00:02.0/vfio\0\0\0\0\0\0\0\x01";

    #[test]
    fn each_item_is_its_bytes() {
        let subsection = Item::Subsection { name: b"configuration/uuid", version: 1 };
        let table: [(Item<'_>, &[u8]); 8] = [
            (Item::Configuration { name_length: 0 }, &[7, 0, 0, 0, 0]),
            (subsection, b"\x05\x12configuration/uuid\0\0\0\x01"),
            (BEGIN, BEGIN_BYTES),
            (Item::Continue { kind: Continues::Part, id: 38 }, &[2, 0, 0, 0, 38]),
            (Item::Continue { kind: Continues::End, id: 38 }, &[3, 0, 0, 0, 38]),
            (Item::Command { command: SWITCHOVER_START, length: 0 }, &[8, 0, 11, 0, 0]),
            (Item::EndOfStream, &[0]),
            (Item::Description { length: 67 }, &[6, 0, 0, 0, 67]),
        ];
        for (item, bytes) in table {
            let mut out = [0xa5; ITEM_MAX];
            assert_eq!(item.encode(&mut out), Ok(bytes.len()), "{item:?}");
            assert_eq!(&out[..bytes.len()], bytes, "{item:?}");
            assert!(out[bytes.len()..].iter().all(|&byte| byte == 0xa5), "{item:?} wrote past its end");
        }
    }

    #[test]
    fn a_section_begin_wants_exactly_its_bytes_one_field_at_a_time() {
        let mut have = 0;
        let mut asked = std_vec();
        let item = loop {
            match Item::decode(&BEGIN_BYTES[..have]) {
                Ok((item, length)) => {
                    assert_eq!(length, BEGIN_BYTES.len());
                    break item;
                }
                Err(Error::Short { wanted }) => {
                    asked.push(wanted).unwrap();
                    have = wanted;
                }
                Err(error) => panic!("{error}"),
            }
        };
        assert_eq!(item, BEGIN);
        assert_eq!(asked.as_slice(), [1, 5, 6, 23, 27, 31]);
    }

    #[test]
    fn an_unknown_type_is_refused() {
        assert_eq!(Item::decode(&[0x42, 1, 2, 3]), Err(Error::UnknownType { got: 0x42 }));
    }

    #[test]
    fn a_short_buffer_and_a_long_name_are_refused() {
        for room in 0..BEGIN_BYTES.len() {
            let mut out = [0; 64];
            assert_eq!(
                BEGIN.encode(&mut out[..room]),
                Err(Error::NoRoom { wanted: BEGIN_BYTES.len(), got: room })
            );
        }
        let long = Item::Begin { kind: Begins::Full, id: 0, name: &[b'x'; 256], instance: 0, version: 1 };
        assert_eq!(long.encode(&mut [0; 512]), Err(Error::NoRoom { wanted: 256, got: NAME_MAX }));
    }

    #[test]
    fn preamble_and_footer_are_their_bytes_and_nothing_else() {
        assert_eq!(&PREAMBLE, b"QEVM\0\0\0\x03");
        assert_eq!(decode_preamble(*b"QEVM\0\0\0\x02"), Err(Error::Preamble { got: *b"QEVM\0\0\0\x02" }));
        assert_eq!(footer(38), [0x7e, 0, 0, 0, 38]);
        assert_eq!(decode_footer(38, [0x7e, 0, 0, 0, 38]), Ok(()));
        assert_eq!(
            decode_footer(38, [0x7e, 0, 0, 0, 39]),
            Err(Error::Footer { wanted: 38, got: [0x7e, 0, 0, 0, 39] })
        );
    }

    fn std_vec() -> heapless::Vec<usize, 8> {
        heapless::Vec::new()
    }
}
