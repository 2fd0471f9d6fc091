//! The walk through one of multifd's channels, which stand beside the stream of a machine.
//!
//! Deliberately absent: the order of a device's pieces. They are told as they come on one channel; core's `Receiver` puts
//! those of all channels in order.

use std::mem;
use std::os::fd::AsFd;

use vfio_migration_core::session::drive::Transport;
use vfio_migration_core::stream::multifd::{
    self, Content, DeviceState, INIT, Init, PAGES, Packet, RAM_HEAD, Ram,
};

use super::ahead::Ahead;
use super::{PIECE, skip};
use crate::file::{Error, Reader};
use crate::interrupt::Interrupt;
use crate::link::Link;

/// Reads a channel from a link; each call of [`Channel::next`] goes one thing further.
#[derive(Debug)]
pub struct Channel<T> {
    reader: Reader<Ahead<T>>,
    place: Place,
    /// The pages that a packet of memory has room for.
    pages: u32,
    packet: StatePacket,
    bytes: Vec<u8>,
}

/// One thing on a channel. Offsets count from the channel's first byte.
#[derive(Debug)]
pub enum ChannelEvent<'a> {
    /// What the channel begins with.
    Init(Init),
    /// A packet of memory, or one that only says SYNC.
    Memory(MemoryPacket),
    /// The head of a packet of a device's state.
    State(&'a StatePacket),
    /// Bytes of that packet behind its head: data, or a configuration's body and END_OF_STATE.
    Bytes {
        /// The packet.
        packet: &'a StatePacket,
        /// The bytes, at most [`PIECE`].
        bytes: &'a [u8],
        /// Whether the packet ends with them.
        last: bool,
    },
}

/// A packet of memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryPacket {
    /// Where it begins.
    pub offset: u64,
    /// All its bytes.
    pub length: u64,
    /// Whether all channels wait for each other here.
    pub sync: bool,
    /// Pages that follow as they are.
    pub normal_pages: u32,
    /// Pages of zeros.
    pub zero_pages: u32,
    /// The name of the block of memory; empty without pages.
    pub block: String,
}

/// A packet of a device's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatePacket {
    /// Where it begins.
    pub offset: u64,
    /// All its bytes.
    pub length: u64,
    /// The name of the device's section.
    pub idstr: String,
    /// The instance of the device's section.
    pub instance: u32,
    /// Its number among the device's packets.
    pub index: u32,
    /// Data or the configuration.
    pub content: Content,
    /// The bytes behind its head.
    pub bytes: u32,
}

/// What the channel goes on with.
#[derive(Debug)]
enum Place {
    Init,
    Packet,
    /// So many bytes of a device's state.
    State(u64),
    Nothing,
}

impl<Fd: AsFd> Channel<Link<Fd>> {
    /// A walk through the channel that `fd` gives, of a machine with pages of `page_size` bytes.
    /// What waits for it ends with ECANCELED when `interrupt` is asked.
    pub fn open(fd: Fd, page_size: u64, interrupt: Option<Interrupt>) -> Self {
        Self::new(Link::new(fd, interrupt), page_size)
    }
}

impl<T: Transport> Channel<T> {
    /// A walk through the channel that `link` gives, of a machine with pages of `page_size` bytes.
    pub fn new(link: T, page_size: u64) -> Self {
        let pages = u64::from(PAGES) * 4096 / page_size.max(1);
        Self {
            reader: Reader::new(Ahead::new(link)),
            place: Place::Init,
            pages: u32::try_from(pages).unwrap_or(u32::MAX),
            packet: StatePacket::none(),
            bytes: Vec::new(),
        }
    }

    /// The next thing, or nothing behind the last byte and behind an error.
    ///
    /// # Errors
    /// [`Error`], behind which nothing more can be told.
    #[expect(clippy::should_implement_trait, reason = "what it gives borrows from the walk")]
    pub fn next(&mut self) -> Result<Option<ChannelEvent<'_>>, Error> {
        match mem::replace(&mut self.place, Place::Nothing) {
            Place::Init => self.init().map(Some),
            Place::Packet => self.packet(),
            Place::State(left) => self.state(left).map(Some),
            Place::Nothing => Ok(None),
        }
    }

    /// The bytes that were read so far.
    pub const fn offset(&self) -> u64 {
        self.reader.offset()
    }

    fn init(&mut self) -> Result<ChannelEvent<'_>, Error> {
        let mut bytes = [0; INIT];
        self.reader.exact(&mut bytes, "what a channel begins with")?;
        let (init, _) = Init::decode(&bytes).map_err(|error| Error::Channel { offset: 0, error })?;
        self.place = Place::Packet;
        Ok(ChannelEvent::Init(init))
    }

    /// Reads the head of the next packet, and memory whole.
    fn packet(&mut self) -> Result<Option<ChannelEvent<'_>>, Error> {
        let offset = self.reader.offset();
        let refuse = |error| Error::Channel { offset, error };
        if self.reader.link().peek(1).map_err(|code| Error::Recv { offset, code })?.is_empty() {
            return Ok(None);
        }
        let (mut head, mut have) = ([0; HEAD_MAX], 0);
        let packet = loop {
            match Packet::decode(&head[..have]) {
                Ok((packet, _)) => break packet,
                Err(multifd::Error::Short { wanted }) if wanted <= head.len() => {
                    self.reader.exact(&mut head[have..wanted], "a packet's head")?;
                    have = wanted;
                }
                Err(error) => return Err(refuse(error)),
            }
        };
        match packet {
            Packet::Ram(ram) => {
                let rest = ram.rest(self.pages).map_err(refuse)?;
                skip(&mut self.reader, rest, "a packet of memory")?;
                self.place = Place::Packet;
                Ok(Some(ChannelEvent::Memory(MemoryPacket::new(offset, have as u64 + rest, &ram))))
            }
            Packet::DeviceState(state) => {
                self.packet = StatePacket::new(offset, have as u64, &state);
                self.place = Place::State(state.piece.length.into());
                Ok(Some(ChannelEvent::State(&self.packet)))
            }
        }
    }

    fn state(&mut self, left: u64) -> Result<ChannelEvent<'_>, Error> {
        let count = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
        let beyond = left - count as u64;
        self.bytes.resize(count, 0);
        self.reader
            .exact(&mut self.bytes, "a packet of a device's state")
            .map_err(|error| error.with_more(beyond))?;
        let last = beyond == 0;
        self.place = if last { Place::Packet } else { Place::State(beyond) };
        Ok(ChannelEvent::Bytes { packet: &self.packet, bytes: &self.bytes, last })
    }
}

impl MemoryPacket {
    fn new(offset: u64, length: u64, ram: &Ram<'_>) -> Self {
        Self {
            offset,
            length,
            sync: ram.sync,
            normal_pages: ram.normal_pages,
            zero_pages: ram.zero_pages,
            block: String::from_utf8_lossy(ram.block).into_owned(),
        }
    }
}

/// Whether two channels can be of one migration: each has a number of its own, and all are of one machine.
#[must_use]
pub fn go_together(one: &Init, other: &Init) -> bool {
    one.id != other.id && one.uuid == other.uuid
}

impl StatePacket {
    fn new(offset: u64, head: u64, state: &DeviceState<'_>) -> Self {
        Self {
            offset,
            length: head + u64::from(state.piece.length),
            idstr: String::from_utf8_lossy(state.name).into_owned(),
            instance: state.instance,
            index: state.piece.index,
            content: state.piece.content,
            bytes: state.piece.length,
        }
    }

    /// What stands in the place of a packet where there was none yet.
    const fn none() -> Self {
        Self {
            offset: 0,
            length: 0,
            idstr: String::new(),
            instance: 0,
            index: 0,
            content: Content::Data,
            bytes: 0,
        }
    }
}

/// The longest head of a packet.
const HEAD_MAX: usize = RAM_HEAD;
