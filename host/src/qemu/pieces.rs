//! The state of one device on the channels of multifd, as the payload that a stream without multifd has in its place.
//!
//! Deliberately absent: waiting. Channels are files, so each is read when its turn comes.

use std::fs::File;

use vfio_migration_core::stream::multifd::{self, Init, Misuse, Piece, Receiver, Refused, Slot, Wanted};

use super::{Channel, ChannelEvent, go_together};
use crate::file;
use crate::interrupt::Interrupt;
use crate::link::Link;

/// Why the channels do not give a device's state.
#[derive(Debug, thiserror::Error)]
pub enum ChannelsError {
    /// A channel can't be read, or is damaged.
    #[error("channel {channel}: {error}")]
    Channel {
        /// Which channel, from 0.
        channel: usize,
        /// What is wrong with it; offsets count from the channel's first byte.
        error: file::Error,
    },
    /// Two channels can't be of one migration.
    #[error(
        "channels {other} and {channel} are not of one migration: wanted numbers of their own and one uuid, got number {id} and {uuid:02x?} second"
    )]
    Alien {
        /// The one that was read first, from 0.
        other: usize,
        /// The one that does not go with it.
        channel: usize,
        /// Its number.
        id: u8,
        /// Its machine.
        uuid: [u8; 16],
    },
    /// The packets of the device are not its whole state.
    #[error("{0}")]
    Pieces(Refused),
    /// The receiver was told what it had not asked for, which is a mistake here and not in the channels.
    #[error("{0}")]
    Misuse(Misuse),
}

/// The channels, for one device.
pub(super) struct Pieces<'f> {
    channels: Vec<Channel<Link<&'f File>>>,
    /// What each of them began with.
    inits: Vec<Option<Init>>,
    name: &'f str,
    instance: u32,
}

impl<'f> Pieces<'f> {
    /// The packets of the device whose section has this name and instance, in a machine with pages of `page_size` bytes.
    /// Each file is read from its present position on.
    pub(super) fn new(
        files: &'f [File],
        name: &'f str,
        instance: u32,
        page_size: u64,
        interrupt: Option<&Interrupt>,
    ) -> Self {
        let open = |file| Channel::open(file, page_size, interrupt.cloned());
        let channels = files.iter().map(open).collect();
        Self { channels, inits: vec![None; files.len()], name, instance }
    }

    /// Gives the payload to `sink`: a record's head at once, a configuration with the END_OF_STATE behind it at once, data
    /// in pieces.
    ///
    /// # Errors
    /// [`ChannelsError`], or what `sink` says.
    pub(super) fn payload<E: From<ChannelsError>>(
        &mut self,
        mut sink: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut storage = vec![0; SLOTS * SLOT];
        let mut slots = [Slot::default(); SLOTS];
        let mut channels = vec![multifd::Channel::default(); self.channels.len()];
        let mut receiver = Receiver::new(&mut storage, &mut slots, &mut channels);
        loop {
            let answered = match receiver.poll().map_err(ChannelsError::Pieces)? {
                Wanted::Head { channel } => match self.head(channel)? {
                    Some(piece) => receiver.head(channel, piece),
                    None => receiver.closed(channel),
                },
                Wanted::Keep { channel, room } => {
                    let bytes = self.bytes(channel)?;
                    let count = bytes.len().min(room.len());
                    room[..count].copy_from_slice(&bytes[..count]);
                    receiver.took(count)
                }
                Wanted::Give(bytes) => {
                    sink(bytes)?;
                    let count = bytes.len();
                    receiver.took(count)
                }
                Wanted::Pass { channel, .. } => {
                    let bytes = self.bytes(channel)?;
                    sink(bytes)?;
                    receiver.took(bytes.len())
                }
                // No channel is ever said to be idle.
                Wanted::Wait => Err(Misuse::WrongDone),
                Wanted::Nothing => return Ok(self.nothing_more(&mut receiver)?),
            };
            answered.map_err(ChannelsError::Misuse)?;
        }
    }

    /// Whether the channels have a packet of the device.
    ///
    /// # Errors
    /// [`ChannelsError`].
    pub(super) fn are_there(&mut self) -> Result<bool, ChannelsError> {
        for channel in 0..self.channels.len() {
            if self.head(channel)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Reads the channels to their ends: a packet of the device that is left on one is refused.
    fn nothing_more(&mut self, receiver: &mut Receiver<'_>) -> Result<(), ChannelsError> {
        for channel in 0..self.channels.len() {
            if let Some(piece) = self.head(channel)? {
                receiver.head(channel, piece).map_err(ChannelsError::Misuse)?;
                receiver.poll().map_err(ChannelsError::Pieces)?;
            }
        }
        Ok(())
    }

    /// The next packet of the device on a channel, or nothing at the channel's end.
    fn head(&mut self, channel: usize) -> Result<Option<Piece>, ChannelsError> {
        let (name, instance) = (self.name, self.instance);
        loop {
            match self.next(channel)? {
                Some(ChannelEvent::State(packet)) if packet.idstr == name && packet.instance == instance => {
                    let (index, content, length) = (packet.index, packet.content, packet.bytes);
                    return Ok(Some(Piece { index, content, length }));
                }
                Some(ChannelEvent::Init(init)) => self.check_init(channel, init)?,
                Some(_) => {}
                None => return Ok(None),
            }
        }
    }

    /// Fails where a channel can't be of one migration with those that were begun before.
    fn check_init(&mut self, channel: usize, init: Init) -> Result<(), ChannelsError> {
        let Init { id, uuid } = init;
        let is_alien = |other: &Option<Init>| other.is_some_and(|other| !go_together(&init, &other));
        if let Some(other) = self.inits.iter().position(is_alien) {
            return Err(ChannelsError::Alien { other, channel, id, uuid });
        }
        self.inits[channel] = Some(init);
        Ok(())
    }

    /// The next bytes of the packet that a channel is in.
    fn bytes(&mut self, channel: usize) -> Result<&[u8], ChannelsError> {
        match self.next(channel)? {
            Some(ChannelEvent::Bytes { bytes, .. }) => Ok(bytes),
            _ => Err(ChannelsError::Misuse(Misuse::WrongDone)),
        }
    }

    fn next(&mut self, channel: usize) -> Result<Option<ChannelEvent<'_>>, ChannelsError> {
        self.channels[channel].next().map_err(|error| ChannelsError::Channel { channel, error })
    }
}

/// Packets that can be kept while an earlier one is missing.
const SLOTS: usize = 8;
/// The bytes of each: what QEMU reads from a device at once.
const SLOT: usize = 1 << 20;
