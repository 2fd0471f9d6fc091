//! Device state on QEMU's extra channels: multifd's packets, as far as a device's state needs them.
//!
//! A channel begins with an [`Init`]; packets follow, each a head and what the head announces. A packet of a device's
//! state ([`DeviceState`]) holds what one `read` of the device gave, or its configuration; it carries a number, since
//! the packets of one device go out on any channel. A packet of memory ([`Ram`]) is decoded as far as it takes to pass
//! over it. Decoding takes what has been read so far and says how much more it wants, so that a reader never takes a
//! byte past the head. [`Sender`] numbers the packets of a device, [`Receiver`] puts them in order.
//! Source: the format that QEMU's `migration/multifd.c` and `hw/vfio/migration-multifd.c` read and write, 10.0 to 11.1;
//! all numbers are big-endian. QEMU takes reserved bytes, and those behind a name's NUL, as they come; so does this.
//!
//! Deliberately absent: compressed memory, whose flags are refused. QEMU moves no device's state on such channels.

use core::fmt;

use super::bytes::copy;
use super::record::{self, Tag, WORD};

mod receiver;
mod refused;
mod sender;

pub use self::receiver::{Channel, Receiver, Slot, Wanted};
pub use self::refused::{Misuse, Refused};
pub use self::sender::Sender;

/// The first bytes of a channel.
pub const INIT: usize = 64;

/// What stands before the offsets of a packet of memory, in bytes.
pub const RAM_HEAD: usize = 320;

/// What stands before the data of a packet of device state, in bytes.
pub const DATA_HEAD: usize = DEVICE_HEAD + STATE_HEAD;

/// What stands before the configuration's body in a packet of device state, in bytes: as before data, and its tag.
pub const CONFIG_HEAD: usize = DATA_HEAD + WORD;

/// The longest name that a packet can have, in bytes; a NUL follows it.
pub const NAME_MAX: usize = NAME - 1;

/// The pages of a packet of memory, where pages have 4096 bytes: 512 KiB in all, as for every size of page.
pub const PAGES: u32 = 128;

/// What a channel begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[doc(alias = "MultiFDInit_t")]
pub struct Init {
    /// The machine's uuid, all zero where it has none.
    pub uuid: [u8; 16],
    /// The channel's number, from 0.
    pub id: u8,
}

/// The head of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Packet<'a> {
    /// Of memory, or none at all in a packet that only says SYNC.
    Ram(Ram<'a>),
    /// Of a device's state.
    DeviceState(DeviceState<'a>),
}

/// The head of a packet of memory; offsets and pages follow, [`Ram::rest`] bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[doc(alias = "MultiFDPacket_t")]
pub struct Ram<'a> {
    /// Whether all channels wait for each other here.
    #[doc(alias = "MULTIFD_FLAG_SYNC")]
    pub sync: bool,
    /// The pages that it has room for; 0 where it holds none, though the room is there.
    pub pages_alloc: u32,
    /// Pages that follow as they are.
    pub normal_pages: u32,
    /// Pages of zeros, which do not follow.
    pub zero_pages: u32,
    /// Bytes behind the offsets.
    pub next_packet_size: u32,
    /// The packet's number among those of all channels.
    pub packet_num: u64,
    /// The name of the block of memory, at most [`NAME_MAX`] bytes.
    pub block: &'a [u8],
}

/// The head of a packet of device state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[doc(alias = "MultiFDPacketDeviceState_t")]
pub struct DeviceState<'a> {
    /// The name of the device's section (`idstr`), at most [`NAME_MAX`] bytes.
    pub name: &'a [u8],
    /// The instance of the device's section.
    pub instance: u32,
    /// Which piece of the device's state it holds.
    pub piece: Piece,
}

/// A piece of a device's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[doc(alias = "VFIODeviceStatePacket")]
pub struct Piece {
    /// Its number, from 0 and below 2^32 - 1.
    pub index: u32,
    /// What it is.
    pub content: Content,
    /// The bytes behind the packet's head: the data, or the configuration's body and the END_OF_STATE behind it.
    pub length: u32,
}

/// What a piece is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Content {
    /// What one `read` of the device gave.
    Data,
    /// The device's configuration, the last piece. Its tag belongs to the packet's head.
    #[doc(alias = "VFIO_DEVICE_STATE_CONFIG_STATE")]
    Config,
}

/// Why bytes are not what a channel holds, or can't be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Error {
    /// The head is not whole: at least `wanted` bytes of it are needed, counted from its first.
    Short {
        /// Bytes from the head's first on.
        wanted: usize,
    },
    /// No multifd channel begins, or goes on, like this.
    Magic {
        /// The number in its place.
        got: u32,
    },
    /// The channel, or a packet of it, is of another version than 1.
    Version {
        /// The number in its place.
        got: u32,
    },
    /// A packet's flags are none, or of compressed memory, or SYNC of device state.
    Flags {
        /// All flags.
        got: u32,
    },
    /// A name without a NUL in its 256 bytes.
    Unterminated,
    /// More pages than a packet has room for.
    Pages {
        /// Pages that it says it has room for.
        wanted: u32,
        /// Pages that it says it has.
        got: u64,
    },
    /// Room for another number of pages than such a machine has.
    PagesAlloc {
        /// Pages that a packet has room for.
        wanted: u32,
        /// Pages that it says it has room for.
        got: u32,
    },
    /// Fewer bytes behind the head of device state than belong there.
    Length {
        /// The fewest there can be.
        wanted: u32,
        /// Bytes that it announces.
        got: u32,
    },
    /// A piece is of another version than 0.
    StateVersion {
        /// The number in its place.
        got: u32,
    },
    /// A piece has the number that none can have.
    Index,
    /// A piece's flags are none.
    StateFlags {
        /// All flags.
        got: u32,
    },
    /// A piece that is to be the configuration does not begin with its tag.
    NotConfig {
        /// The number in its place.
        got: u64,
    },
    /// The buffer or the name's place can't hold what is to be written.
    NoRoom {
        /// Bytes that there are to write.
        wanted: usize,
        /// Bytes that there is room for.
        got: usize,
    },
    /// A name with a NUL in it can't be written.
    Nul {
        /// Where in the name it is.
        offset: usize,
    },
    /// A packet can't announce so many bytes.
    TooLong {
        /// The most that it can.
        wanted: u32,
        /// Bytes that there are to announce.
        got: u32,
    },
    /// Each number is given away: no data can follow that the configuration could still come behind.
    Full,
    /// The configuration has been sent: nothing can follow.
    Ended,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Short { wanted } => write!(f, "wanted {wanted} bytes of a packet's head, got fewer"),
            Self::Magic { got } => {
                write!(f, "wanted the magic number of a multifd channel, {MAGIC:#010x}, got {got:#010x}")
            }
            Self::Version { got } => write!(f, "wanted version {VERSION} of a multifd channel, got {got}"),
            Self::Flags { got } => write!(
                f,
                "wanted a packet's flags without compression, 0x0, {SYNC:#x} (SYNC) or {DEVICE_STATE:#x} (device \
                 state), got {got:#x}"
            ),
            Self::Unterminated => write!(f, "wanted a name of at most {NAME_MAX} bytes, got no end of one"),
            Self::Pages { wanted, got } => {
                write!(f, "wanted at most {wanted} pages in a packet, got {got}")
            }
            Self::PagesAlloc { wanted, got } => {
                write!(f, "wanted room for {wanted} pages in a packet, got {got}")
            }
            Self::Length { wanted, got } => {
                write!(f, "wanted a packet of device state of at least {wanted} bytes, got {got}")
            }
            Self::StateVersion { got } => write!(f, "wanted version 0 of a piece of device state, got {got}"),
            Self::Index => {
                write!(f, "wanted the number of a piece of device state below {INVALID}, got {INVALID}")
            }
            Self::StateFlags { got } => {
                write!(
                    f,
                    "wanted the flags of a piece of device state, 0x0 or {CONFIG_STATE:#x} (configuration), got \
                 {got:#x}"
                )
            }
            Self::NotConfig { got } => write!(
                f,
                "wanted the tag of CONFIG, {:#018x}, in the packet of the configuration, got {got:#018x}",
                Tag::Config.raw()
            ),
            Self::NoRoom { wanted, got } => write!(f, "wanted room for {wanted} bytes, got {got}"),
            Self::Nul { offset } => write!(f, "wanted a name without NUL, got one at byte {offset}"),
            Self::TooLong { wanted, got } => {
                write!(f, "wanted at most {wanted} bytes of device state in a packet, got {got}")
            }
            Self::Full => {
                write!(f, "wanted at most {} packets of a device's data, got one more", INVALID - 1)
            }
            Self::Ended => {
                f.write_str("wanted nothing behind the configuration, the last packet, got one more")
            }
        }
    }
}

impl core::error::Error for Error {}

impl Init {
    /// The bytes at the front of a channel.
    #[must_use]
    pub fn encode(&self) -> [u8; INIT] {
        let mut bytes = [0; INIT];
        put_u32(&mut bytes, 0, MAGIC);
        put_u32(&mut bytes, 4, VERSION);
        put(&mut bytes, 8, &self.uuid);
        put(&mut bytes, 24, &[self.id]);
        bytes
    }

    /// Takes the front of a channel off `bytes`; returns it and its length, [`INIT`].
    ///
    /// # Errors
    /// [`Error::Short`], [`Error::Magic`] and [`Error::Version`].
    pub fn decode(bytes: &[u8]) -> Result<(Self, usize), Error> {
        let bytes = front(bytes, INIT)?;
        check_begin(bytes)?;
        let [id] = field(bytes, 24);
        Ok((Self { uuid: field(bytes, 8), id }, INIT))
    }
}

impl<'a> Packet<'a> {
    /// Writes the head to the front of `out` and returns its length.
    ///
    /// # Errors
    /// [`Error::NoRoom`] ([`RAM_HEAD`] always suffices), [`Error::Nul`] and, of device state, [`Error::TooLong`] and
    /// [`Error::Index`].
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, Error> {
        match self {
            Self::Ram(ram) => ram.encode(out),
            Self::DeviceState(state) => state.encode(out),
        }
    }

    /// Takes a packet's head off the front of `bytes`; returns it and its length.
    ///
    /// # Errors
    /// [`Error::Short`] says how many bytes to come back with; read exactly those, none is past the head. All others
    /// that are about bytes say why this is no head.
    pub fn decode(bytes: &'a [u8]) -> Result<(Self, usize), Error> {
        let begin = front(bytes, HEAD)?;
        check_begin(begin)?;
        match u32_at(begin, 8) {
            DEVICE_STATE => {
                DeviceState::decode(bytes).map(|(state, length)| (Self::DeviceState(state), length))
            }
            flags @ (NONE | SYNC) => Ok((Self::Ram(Ram::decode(bytes, flags == SYNC)?), RAM_HEAD)),
            got => Err(Error::Flags { got }),
        }
    }
}

impl<'a> Ram<'a> {
    /// The bytes behind the head: an offset for each page that there is room for, also in a packet without pages, and
    /// what follows them. `pages` is how many pages a packet has room for on such a machine: [`PAGES`], or with larger
    /// pages so many times fewer. The packet can't tell: one without pages says 0.
    ///
    /// # Errors
    /// [`Error::PagesAlloc`] where the packet has pages and says another number.
    pub fn rest(&self, pages: u32) -> Result<u64, Error> {
        if self.pages_alloc != 0 && self.pages_alloc != pages {
            return Err(Error::PagesAlloc { wanted: pages, got: self.pages_alloc });
        }
        Ok(u64::from(pages).saturating_mul(OFFSET).saturating_add(u64::from(self.next_packet_size)))
    }

    fn encode(&self, out: &mut [u8]) -> Result<usize, Error> {
        check_name(self.block)?;
        let out = room(out, RAM_HEAD)?;
        put_begin(out, if self.sync { SYNC } else { NONE });
        put_u32(out, 12, self.pages_alloc);
        put_u32(out, 16, self.normal_pages);
        put_u32(out, 20, self.next_packet_size);
        put(out, 24, &self.packet_num.to_be_bytes());
        put_u32(out, 32, self.zero_pages);
        put(out, BLOCK, self.block);
        Ok(RAM_HEAD)
    }

    fn decode(bytes: &'a [u8], sync: bool) -> Result<Self, Error> {
        let bytes = front(bytes, RAM_HEAD)?;
        let (pages_alloc, normal_pages, zero_pages) =
            (u32_at(bytes, 12), u32_at(bytes, 16), u32_at(bytes, 32));
        let pages = u64::from(normal_pages).saturating_add(u64::from(zero_pages));
        if pages > u64::from(pages_alloc) {
            return Err(Error::Pages { wanted: pages_alloc, got: pages });
        }
        Ok(Self {
            sync,
            pages_alloc,
            normal_pages,
            zero_pages,
            next_packet_size: u32_at(bytes, 20),
            packet_num: u64::from_be_bytes(field(bytes, 24)),
            block: name_at(bytes, BLOCK)?,
        })
    }
}

impl<'a> DeviceState<'a> {
    fn encode(&self, out: &mut [u8]) -> Result<usize, Error> {
        let Piece { index, content, length } = self.piece;
        check_name(self.name)?;
        if index == INVALID {
            return Err(Error::Index);
        }
        let most = u32::MAX.saturating_sub(content.in_head());
        let size =
            length.checked_add(content.in_head()).ok_or(Error::TooLong { wanted: most, got: length })?;
        let head = content.head();
        let out = room(out, head)?;
        put_begin(out, DEVICE_STATE);
        put(out, HEAD, self.name);
        put_u32(out, 268, self.instance);
        put_u32(out, 272, size);
        put_u32(out, 280, index);
        put_u32(out, 284, content.flags());
        match content {
            Content::Data => {}
            Content::Config => put(out, DATA_HEAD, &record::encode(Tag::Config)),
        }
        Ok(head)
    }

    /// A packet's head whose first bytes are known to be of device state.
    fn decode(bytes: &'a [u8]) -> Result<(Self, usize), Error> {
        let packet = front(bytes, DEVICE_HEAD)?;
        let (name, instance, size) = (name_at(packet, HEAD)?, u32_at(packet, 268), u32_at(packet, 272));
        check_size(Content::Data, size)?;
        let state = front(bytes, DATA_HEAD)?;
        let (version, index) = (u32_at(state, 276), u32_at(state, 280));
        if version != 0 {
            return Err(Error::StateVersion { got: version });
        }
        if index == INVALID {
            return Err(Error::Index);
        }
        let content = match u32_at(state, 284) {
            NONE => Content::Data,
            CONFIG_STATE => Content::Config,
            got => return Err(Error::StateFlags { got }),
        };
        let length = check_size(content, size)?;
        let whole = front(bytes, content.head())?;
        match content {
            Content::Data => {}
            Content::Config => check_tag(u64::from_be_bytes(field(whole, DATA_HEAD)))?,
        }
        Ok((Self { name, instance, piece: Piece { index, content, length } }, content.head()))
    }
}

impl Content {
    const fn flags(self) -> u32 {
        match self {
            Self::Data => NONE,
            Self::Config => CONFIG_STATE,
        }
    }

    /// The bytes of the packet's head.
    const fn head(self) -> usize {
        match self {
            Self::Data => DATA_HEAD,
            Self::Config => CONFIG_HEAD,
        }
    }

    /// How many of the bytes that the packet announces belong to its head.
    const fn in_head(self) -> u32 {
        match self {
            Self::Data => 12,
            Self::Config => 20,
        }
    }

    /// The fewest bytes that such a packet announces: a configuration's END_OF_STATE must follow.
    const fn least(self) -> u32 {
        match self {
            Self::Data => 12,
            Self::Config => 28,
        }
    }
}

/// Magic number and version, with which a channel and each of its packets begin.
fn check_begin(bytes: &[u8]) -> Result<(), Error> {
    match (u32_at(bytes, 0), u32_at(bytes, 4)) {
        (MAGIC, VERSION) => Ok(()),
        (MAGIC, got) => Err(Error::Version { got }),
        (got, _) => Err(Error::Magic { got }),
    }
}

fn put_begin(out: &mut [u8], flags: u32) {
    put_u32(out, 0, MAGIC);
    put_u32(out, 4, VERSION);
    put_u32(out, 8, flags);
}

/// The bytes behind the head of device state that announces `size`.
fn check_size(content: Content, size: u32) -> Result<u32, Error> {
    if size < content.least() {
        return Err(Error::Length { wanted: content.least(), got: size });
    }
    Ok(size.saturating_sub(content.in_head()))
}

fn check_tag(got: u64) -> Result<(), Error> {
    if got == Tag::Config.raw() { Ok(()) } else { Err(Error::NotConfig { got }) }
}

/// A name that can be written with a NUL behind it.
fn check_name(name: &[u8]) -> Result<(), Error> {
    if name.len() > NAME_MAX {
        return Err(Error::NoRoom { wanted: name.len(), got: NAME_MAX });
    }
    name.iter().position(|&byte| byte == 0).map_or(Ok(()), |offset| Err(Error::Nul { offset }))
}

/// The name up to its NUL.
fn name_at(bytes: &[u8], at: usize) -> Result<&[u8], Error> {
    let place = bytes.get(at..at.saturating_add(NAME)).unwrap_or_default();
    let end = place.iter().position(|&byte| byte == 0).ok_or(Error::Unterminated)?;
    Ok(place.get(..end).unwrap_or_default())
}

fn front(bytes: &[u8], wanted: usize) -> Result<&[u8], Error> {
    bytes.get(..wanted).ok_or(Error::Short { wanted })
}

/// The front of a buffer, all zero.
fn room(out: &mut [u8], wanted: usize) -> Result<&mut [u8], Error> {
    let got = out.len();
    let room = out.get_mut(..wanted).ok_or(Error::NoRoom { wanted, got })?;
    room.fill(0);
    Ok(room)
}

/// What is at this place, which is there: each caller has seen to it that its bytes are as long as their layout.
fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..).and_then(<[u8]>::first_chunk).copied().unwrap_or([0; N])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(field(bytes, at))
}

fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = out.get_mut(at..).and_then(|out| out.get_mut(..bytes.len())) {
        copy(place, bytes);
    }
}

fn put_u32(out: &mut [u8], at: usize, value: u32) {
    put(out, at, &value.to_be_bytes());
}

const MAGIC: u32 = 0x1122_3344;
const VERSION: u32 = 1;
/// Magic number, version and flags.
const HEAD: usize = 12;
/// The head of a packet of device state without that of the piece.
const DEVICE_HEAD: usize = 276;
/// The head of a piece.
const STATE_HEAD: usize = 12;
/// The place of a name.
const NAME: usize = 256;
/// Where the name of a block of memory is.
const BLOCK: usize = 64;
/// The bytes of a page's offset.
const OFFSET: u64 = 8;

const NONE: u32 = 0;
const SYNC: u32 = 1 << 0;
const DEVICE_STATE: u32 = 1 << 6;
const CONFIG_STATE: u32 = 1 << 0;
/// The number that no piece can have.
const INVALID: u32 = u32::MAX;
