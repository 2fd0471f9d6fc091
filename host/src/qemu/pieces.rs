//! The state of one device on the channels of multifd, as the payload that a stream without multifd has in its place.
//!
//! Deliberately absent: waiting. Channels are files, so each is read when its turn comes.

use std::fs::File;

use vfio_migration_core::stream::multifd::{
    self, Channel, INIT, Init, PAGES, Packet, Piece, RAM_HEAD, Receiver, Refused, Slot, Wanted,
};

use super::ahead::Ahead;
use super::skip;
use crate::file::{self, Reader};
use crate::link::Link;

/// Why the channels do not give a device's state.
#[derive(Debug, thiserror::Error)]
pub enum ChannelsError {
    /// A channel can't be read, or is cut.
    #[error("channel {channel}: {error}")]
    Read {
        /// Which channel, from 0.
        channel: usize,
        /// What is wrong with it; offsets count from the channel's first byte.
        error: file::Error,
    },
    /// A channel holds something else.
    #[error("channel {channel}, at byte {offset}: {error}")]
    Packet {
        /// Which channel, from 0.
        channel: usize,
        /// Where the packet begins, or the channel.
        offset: u64,
        /// What is wrong with it.
        error: multifd::Error,
    },
    /// The packets of the device are not its whole state.
    #[error("{0}")]
    Pieces(Refused),
}

/// The channels, for one device.
pub(super) struct Pieces<'f> {
    channels: Vec<Reader<Ahead<Link<&'f File>>>>,
    name: &'f [u8],
    instance: u32,
    /// Pages that a packet of memory has room for.
    pages: u32,
}

impl<'f> Pieces<'f> {
    /// The packets of the device whose section has this name and instance, in a machine with pages of `page_size` bytes.
    /// Each file is read from its present position on.
    ///
    /// # Errors
    /// [`ChannelsError`] where a file is no channel.
    pub(super) fn new(
        files: &'f [File],
        name: &'f str,
        instance: u32,
        page_size: u64,
    ) -> Result<Self, ChannelsError> {
        let channels = files.iter().map(|file| Reader::new(Ahead::new(Link::new(file, None)))).collect();
        let pages =
            (u64::from(PAGES) * 4096).checked_div(page_size).and_then(|pages| u32::try_from(pages).ok());
        let mut pieces = Self { channels, name: name.as_bytes(), instance, pages: pages.unwrap_or(PAGES) };
        for channel in 0..files.len() {
            let mut init = [0; INIT];
            pieces.read(channel, &mut init, "what a channel begins with")?;
            Init::decode(&init).map_err(|error| ChannelsError::Packet { channel, offset: 0, error })?;
        }
        Ok(pieces)
    }

    /// Gives the payload to `sink`, in pieces that are whole records' heads or data, to its end.
    ///
    /// # Errors
    /// [`ChannelsError`], or what `sink` says.
    pub(super) fn payload<E: From<ChannelsError>>(
        &mut self,
        mut sink: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut storage = vec![0; SLOTS * SLOT];
        let mut slots = [Slot::default(); SLOTS];
        let mut channels = vec![Channel::default(); self.channels.len()];
        let mut receiver = Receiver::new(&mut storage, &mut slots, &mut channels);
        let mut bytes = vec![0; PIECE];
        loop {
            let count = match receiver.poll().map_err(ChannelsError::Pieces)? {
                Wanted::Head { channel } => {
                    match self.head(channel)? {
                        Some(piece) => receiver.head(channel, piece),
                        None => receiver.closed(channel),
                    }
                    .unwrap_or_else(misused);
                    continue;
                }
                Wanted::Keep { channel, room } => {
                    self.read(channel, room, WHAT)?;
                    room.len()
                }
                Wanted::Give(bytes) => {
                    sink(bytes)?;
                    bytes.len()
                }
                Wanted::Pass { channel, left } => {
                    let count = left.min(PIECE);
                    self.read(channel, &mut bytes[..count], WHAT)?;
                    sink(&bytes[..count])?;
                    count
                }
                // No channel is ever said to be idle.
                Wanted::Wait | Wanted::Nothing => return Ok(()),
            };
            receiver.took(count).unwrap_or_else(misused);
        }
    }

    /// The next packet of the device on a channel, or nothing at the channel's end.
    fn head(&mut self, channel: usize) -> Result<Option<Piece>, ChannelsError> {
        loop {
            let offset = self.channels[channel].offset();
            let refused = |error| ChannelsError::Packet { channel, offset, error };
            let mut head = [0; RAM_HEAD];
            let mut have = 0;
            let rest = loop {
                match Packet::decode(&head[..have]) {
                    Ok((Packet::Ram(ram), _)) => break ram.rest(self.pages).map_err(refused)?,
                    Ok((Packet::DeviceState(state), _)) => {
                        if state.name == self.name && state.instance == self.instance {
                            return Ok(Some(state.piece));
                        }
                        break state.piece.length.into();
                    }
                    Err(multifd::Error::Short { wanted }) => {
                        match self.read(channel, &mut head[have..wanted], "a packet") {
                            Err(ChannelsError::Read {
                                error: file::Error::Ended { offset: at, .. }, ..
                            }) if at == offset => {
                                return Ok(None);
                            }
                            read => read?,
                        }
                        have = wanted;
                    }
                    Err(error) => return Err(refused(error)),
                }
            };
            let skipped = skip(&mut self.channels[channel], rest, "a packet");
            skipped.map_err(|error| ChannelsError::Read { channel, error })?;
        }
    }

    fn read(&mut self, channel: usize, bytes: &mut [u8], what: &'static str) -> Result<(), ChannelsError> {
        let read = self.channels[channel].exact(bytes, what);
        read.map_err(|error| ChannelsError::Read { channel, error })
    }
}

/// The receiver was told what it did not ask for, which is a mistake here.
fn misused(misuse: multifd::Misuse) {
    debug_assert!(false, "{misuse}");
}

const WHAT: &str = "a packet of the device";
/// Packets that can be kept while an earlier one is missing.
const SLOTS: usize = 8;
/// The bytes of each: what QEMU reads from a device at once.
const SLOT: usize = 1 << 20;
/// Bytes that are passed on at once.
const PIECE: usize = 64 << 10;
