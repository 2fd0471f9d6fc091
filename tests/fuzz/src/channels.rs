//! Multifd channels that are made of the fuzzer's bytes, and the link of a destination whose section comes by them.
//!
//! Deliberately absent: knowledge of order. What to read next is the receiver's to say.

use vfio_migration_core::session::Code;
use vfio_migration_core::session::drive::Transport;
use vfio_migration_core::stream::multifd::{
    Content, DeviceState, Packet, Piece, RAM_HEAD, Ram, Receiver, Refused, Wanted,
};
use vfio_migration_tests::channels::Line;
use vfio_migration_tests::payload::{CONFIG, END, content, data};

use crate::chance::{Chance, Turn};
use crate::compose::{flip, next, raw, take};
use crate::machine::DEVICE;

/// Channels, and what they hold if nobody has damaged them.
#[derive(Debug)]
pub struct Made {
    /// The channels.
    pub lines: Vec<Line>,
    /// The payload that they hold, where it is whole and nothing is wrong with them.
    pub honest: Option<Vec<u8>>,
}

/// Channels with a model device's state of `rest` bytes and this body of its configuration, or something like it, spread
/// over so many.
#[must_use]
pub fn made(steps: &[u8], channels: usize, rest: usize, config: &[u8]) -> Made {
    let state = content(rest);
    let (mut lines, mut sent) = (vec![Line::default(); channels], 0);
    let (mut index, mut ended, mut honest) = (0, false, true);
    let (mut payload, mut held) = (vec![], vec![]);
    let mut steps = steps.iter();
    while let Some((step, high)) = next(&mut steps) {
        let line = &mut lines[high % channels].bytes;
        match step {
            0 | 1 | 3 | 13 if !ended => {
                let count = match step {
                    1 => raw(&mut steps, 1).first().map_or(0, |&count| count.into()),
                    13 => 0,
                    _ => 8,
                };
                let bytes = take(&state, &mut sent, count);
                payload.extend(data(bytes));
                let packet = packet(index, Content::Data, bytes);
                index += 1;
                if step == 3 { held.push(packet) } else { line.extend(packet) }
            }
            2 if !ended => {
                payload.extend([&CONFIG[..], config, &END].concat());
                line.extend(packet(index, Content::Config, &[config, &END].concat()));
                ended = true;
            }
            4 => line.extend(held.pop().unwrap_or_default()),
            7 => line.extend(memory()),
            _ => {
                honest = false;
                match step {
                    5 => line.extend(packet(index.saturating_sub(1), Content::Data, b"again")),
                    6 => {
                        let index = raw(&mut steps, 1).first().map_or(u32::MAX - 1, |&index| index.into());
                        line.extend(packet(index, Content::Data, raw(&mut steps, high)));
                    }
                    8 => line.extend(raw(&mut steps, high)),
                    9 => line.truncate(line.len().saturating_sub(high)),
                    10 => flip(line, high, &mut steps),
                    _ => line.extend(packet(index, Content::Config, raw(&mut steps, high))),
                }
            }
        }
    }
    let whole = honest && ended && held.is_empty();
    Made { lines, honest: whole.then_some(payload) }
}

/// Channels with these bytes, each behind its length.
#[must_use]
pub fn as_they_are(mut bytes: &[u8], channels: usize) -> Vec<Line> {
    let mut line = || {
        let (length, rest) = bytes.split_first_chunk().unwrap_or((&[0; 2], &[]));
        let (line, rest) = rest.split_at(rest.len().min(u16::from_be_bytes(*length).into()));
        bytes = rest;
        Line::new(line)
    };
    (0..channels).map(|_| line()).collect()
}

/// A packet of a device's state. What is too short for a configuration is written as data.
fn packet(index: u32, content: Content, bytes: &[u8]) -> Vec<u8> {
    let content = if bytes.len() < END.len() { Content::Data } else { content };
    let length = u32::try_from(bytes.len()).expect("few bytes");
    let state = DeviceState { name: DEVICE.as_bytes(), instance: 0, piece: Piece { index, content, length } };
    [&encoded(&Packet::DeviceState(state))[..], bytes].concat()
}

/// A packet of memory without a page, and the place of their offsets.
fn memory() -> Vec<u8> {
    let ram = Ram {
        sync: true,
        pages_alloc: 0,
        normal_pages: 0,
        zero_pages: 0,
        next_packet_size: 0,
        packet_num: 7,
        block: b"pc.ram",
    };
    [encoded(&Packet::Ram(ram)), vec![0; 128 * 8]].concat()
}

/// The bytes of a head.
///
/// # Panics
/// When it can't be written.
#[must_use]
pub fn encoded(packet: &Packet<'_>) -> Vec<u8> {
    let mut out = [0xa5; RAM_HEAD];
    let length = packet.encode(&mut out).expect("a head that can be written");
    out[..length].to_vec()
}

/// The link of a destination whose section comes by multifd.
#[derive(Debug)]
pub struct Channels<'s> {
    lines: Vec<Line>,
    receiver: Receiver<'s>,
    /// The length of a configuration's body.
    config: usize,
    chance: Chance,
    /// The channels that are said to have nothing now.
    idle: Vec<usize>,
    /// All that was given to the destination.
    pub given: Vec<u8>,
    /// Why there is no more.
    pub refused: Option<Refused>,
    /// Whether a head could not be read.
    pub is_damaged: bool,
}

impl<'s> Channels<'s> {
    /// The link over these channels, which `receiver` puts in order.
    #[must_use]
    pub fn new(lines: Vec<Line>, receiver: Receiver<'s>, config: usize, chance: &Chance) -> Self {
        let (idle, given) = (vec![], vec![]);
        Self {
            lines,
            receiver,
            config,
            chance: chance.clone(),
            idle,
            given,
            refused: None,
            is_damaged: false,
        }
    }

    /// Whether the payload is whole and has gone on, and nothing of it stands on a channel.
    #[must_use]
    pub fn is_whole(&mut self) -> bool {
        matches!(self.receiver.poll(), Ok(Wanted::Nothing))
    }

    /// Answers a question for a head, or says that the channel has nothing now.
    fn head(&mut self, channel: usize) -> Result<(), Code> {
        if matches!(self.chance.turn(), Turn::Short(_)) {
            self.idle.push(channel);
            self.receiver.idle(channel).expect("it was asked for");
            return Ok(());
        }
        let head = self.lines[channel].head().map_err(|_| {
            self.is_damaged = true;
            EINVAL
        })?;
        let answer = match head {
            Some((_, _, piece)) => self.receiver.head(channel, piece),
            None => self.receiver.closed(channel),
        };
        answer.expect("it was asked for");
        Ok(())
    }

    /// Answers that don't fit: they must change nothing.
    fn misreport(&mut self) {
        let asked = format!("{:?}", self.receiver.poll());
        assert!(self.receiver.took(usize::MAX).is_err());
        assert!(self.receiver.head(self.lines.len(), PIECE).is_err());
        assert!(self.receiver.ready(usize::MAX).is_err());
        assert_eq!(format!("{:?}", self.receiver.poll()), asked);
    }

    /// Goes one step; bytes that go on are put to the front of `buffer`, and counted.
    fn step(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, Code> {
        if self.chance.turn() == Turn::Misreport {
            self.misreport();
        }
        let wanted = self.receiver.poll().map_err(|refused| {
            self.refused = Some(refused);
            EINVAL
        });
        let (channel, count, goes_on) = match wanted? {
            Wanted::Head { channel } => return self.head(channel).map(|()| None),
            Wanted::Wait => {
                let channel = self.idle.pop().expect("a channel was said to be idle");
                self.receiver.ready(channel).expect("a channel was said to be idle");
                return Ok(None);
            }
            Wanted::Nothing => return Ok(Some(0)),
            Wanted::Keep { channel, room } => {
                assert!(!room.is_empty(), "nothing is to be kept");
                (Some(channel), self.lines[channel].read(room), false)
            }
            Wanted::Give(bytes) => {
                let count = bytes.len().min(buffer.len());
                buffer[..count].copy_from_slice(&bytes[..count]);
                (None, count, true)
            }
            Wanted::Pass { channel, left } => {
                let room = left.min(buffer.len());
                (Some(channel), self.lines[channel].read(&mut buffer[..room]), true)
            }
        };
        match channel.filter(|_| count == 0) {
            Some(ended) => self.receiver.closed(ended).expect("it is read from"),
            None => self.receiver.took(count).expect("no more than was offered"),
        }
        Ok((goes_on && count > 0).then_some(count))
    }
}

impl Transport for Channels<'_> {
    fn send(&mut self, _: &[u8]) -> Result<usize, Code> {
        Err(EINVAL)
    }

    fn recv(&mut self, buffer: &mut [u8]) -> Result<usize, Code> {
        let room = match self.chance.turn() {
            Turn::Failed(code) => return Err(code),
            Turn::Short(count) => buffer.len().min(count),
            _ => buffer.len(),
        };
        loop {
            if let Some(count) = self.step(&mut buffer[..room])? {
                self.given.extend_from_slice(&buffer[..count]);
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

const EINVAL: Code = Code(22);
const ECONNRESET: Code = Code(104);
const PIECE: Piece = Piece { index: 0, content: Content::Data, length: 0 };
