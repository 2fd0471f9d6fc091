//! Multifd channels in memory, and a link that gives a destination the payload that a [`Receiver`] makes of them.
//!
//! Deliberately absent: knowledge of order. What to read next is the receiver's to say.

use vfio_migration_core::session::Code;
use vfio_migration_core::session::drive::Transport;
use vfio_migration_core::stream::multifd::{
    Error, INIT, Init, PAGES, Packet, Piece, Receiver, Refused, Sender, Wanted,
};

use crate::model::{ECONNRESET, EINVAL};
use crate::payload::END;

/// One channel: all of its bytes, and how many were taken.
#[derive(Clone, Debug, Default)]
pub struct Line {
    /// Every byte on it.
    pub bytes: Vec<u8>,
    /// How many of them were taken.
    pub taken: usize,
}

impl Line {
    /// A channel that holds these bytes.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        Self { bytes: bytes.to_vec(), taken: 0 }
    }

    /// Takes bytes off the front, as many as there are for `room`.
    pub fn read(&mut self, room: &mut [u8]) -> usize {
        let left = &self.bytes[self.taken..];
        let count = left.len().min(room.len());
        room[..count].copy_from_slice(&left[..count]);
        self.taken += count;
        count
    }

    /// Takes what the channel begins with.
    ///
    /// # Errors
    /// What the bytes are instead.
    pub fn init(&mut self) -> Result<Init, Error> {
        let (init, length) = Init::decode(&self.bytes[self.taken..])?;
        self.taken += length;
        assert_eq!(length, INIT);
        Ok(init)
    }

    /// Takes heads, and memory behind them, up to the head of a device's state or, with nothing, to the end. It takes
    /// exactly the bytes that decoding asks for.
    ///
    /// # Errors
    /// What the bytes are instead.
    pub fn head(&mut self) -> Result<Option<(Vec<u8>, u32, Piece)>, Error> {
        while self.taken < self.bytes.len() {
            match self.packet()? {
                (Packet::DeviceState(state), length) => {
                    let (name, instance, piece) = (state.name.to_vec(), state.instance, state.piece);
                    self.taken += length;
                    return Ok(Some((name, instance, piece)));
                }
                (Packet::Ram(ram), length) => {
                    let whole = length + usize::try_from(ram.rest(PAGES)?).expect("fits into memory");
                    let there = self.bytes.len() - self.taken;
                    if whole > there {
                        return Err(Error::Short { wanted: whole });
                    }
                    self.taken += whole;
                }
            }
        }
        Ok(None)
    }

    fn packet(&self) -> Result<(Packet<'_>, usize), Error> {
        let left = &self.bytes[self.taken..];
        let mut have = 0;
        loop {
            match Packet::decode(left.get(..have).ok_or(Error::Short { wanted: have })?) {
                Err(Error::Short { wanted }) => {
                    assert!(wanted > have, "{wanted} wanted, {have} there");
                    have = wanted;
                }
                Ok((packet, length)) => {
                    assert_eq!(length, have, "a byte past the head was asked for");
                    return Ok((packet, length));
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// The link of a destination whose section came by multifd.
#[derive(Debug)]
pub struct Multifd<'s> {
    /// The channels, each before a packet.
    pub lines: Vec<Line>,
    /// What puts their pieces in order.
    pub receiver: Receiver<'s>,
    /// How long the configuration's body is.
    pub config: usize,
    /// Why the last `recv` failed.
    pub refused: Option<Refused>,
}

impl Multifd<'_> {
    /// Reads on to the end of every channel, which nothing of the device may stand before.
    ///
    /// # Errors
    /// What the receiver makes of a head that comes late.
    pub fn finish(&mut self) -> Result<(), Refused> {
        for (channel, line) in self.lines.iter_mut().enumerate() {
            if let Ok(Some((_, _, piece))) = line.head() {
                self.receiver.head(channel, piece).expect("it has no head yet");
            }
        }
        assert_eq!(self.receiver.poll()?, Wanted::Nothing);
        Ok(())
    }

    fn head(&mut self, channel: usize) -> Result<(), Code> {
        let head = self.lines[channel].head().map_err(|_| EINVAL)?;
        let answer = match head {
            Some((_, _, piece)) => self.receiver.head(channel, piece),
            None => self.receiver.closed(channel),
        };
        answer.expect("it was asked for");
        Ok(())
    }
}

impl Transport for Multifd<'_> {
    fn send(&mut self, _: &[u8]) -> Result<usize, Code> {
        Err(EINVAL)
    }

    fn recv(&mut self, buffer: &mut [u8]) -> Result<usize, Code> {
        loop {
            let wanted = self.receiver.poll().map_err(|refused| {
                self.refused = Some(refused);
                EINVAL
            });
            let (channel, count, gone) = match wanted? {
                Wanted::Head { channel } => {
                    self.head(channel)?;
                    continue;
                }
                Wanted::Keep { channel, room } => (Some(channel), self.lines[channel].read(room), false),
                Wanted::Give(bytes) => {
                    let count = bytes.len().min(buffer.len());
                    buffer[..count].copy_from_slice(&bytes[..count]);
                    (None, count, true)
                }
                Wanted::Pass { channel, left } => {
                    let room = left.min(buffer.len());
                    (Some(channel), self.lines[channel].read(&mut buffer[..room]), true)
                }
                Wanted::Wait => panic!("no channel was called idle"),
                Wanted::Nothing => return Ok(0),
            };
            match channel.filter(|_| count == 0) {
                Some(ended) => self.receiver.closed(ended).expect("it is read from"),
                None => self.receiver.took(count).expect("no more than was offered"),
            }
            if gone && count > 0 {
                return Ok(count);
            }
        }
    }

    fn send_config(&mut self) -> Result<(), Code> {
        Err(EINVAL)
    }

    fn recv_config(&mut self) -> Result<u64, Code> {
        let mut body = vec![0; self.config];
        let mut have = 0;
        while have < body.len() {
            match self.recv(&mut body[have..])? {
                0 => return Err(ECONNRESET),
                count => have += count,
            }
        }
        Ok(body.len() as u64)
    }
}

/// The packets that a sender makes of `data`, one for each item, and of the configuration's body.
///
/// # Panics
/// When the sender refuses.
#[must_use]
pub fn packets(name: &[u8], data: &[Vec<u8>], config: &[u8]) -> Vec<Vec<u8>> {
    let mut sender = Sender::new(name, 0).unwrap();
    let mut out = [0xa5; 512];
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap();
    let mut packets: Vec<_> = data
        .iter()
        .map(|data| {
            let head = sender.data(length(data), &mut out).unwrap();
            [&out[..head], data].concat()
        })
        .collect();
    let head = sender.config(length(config), &mut out).unwrap();
    packets.push([&out[..head], config, &END].concat());
    packets
}
