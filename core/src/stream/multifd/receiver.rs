//! The pieces of one device's state, from any number of channels, in order.
//!
//! A [`Receiver`] asks for one thing at a time, as the sessions do: for a channel's next head, for a piece to be kept,
//! for bytes to go on. What goes on is one payload of layer 1, a DATA record for each piece of data and a CONFIG record
//! at the end, so that a `Destination` takes it as the section that a stream without multifd has in this place. A piece
//! whose turn it is passes from its channel without being kept.
//!
//! Channels may be ahead of each other. With `n` slots lent, the `n` pieces behind the one that is missing can be kept
//! if they fit into a slot; any other stays unread on its channel, and the channels without a head are read on. Only
//! when each channel that goes on has such a piece at its head is the state refused. Without slots the channels must
//! be in order by themselves. Nothing that a head says makes it take more memory than it was lent.
//!
//! Several devices on the same channels have a receiver each. For one, a channel is idle while another's packet stands
//! at its front: it is ready again when the other receiver has taken that packet.
//!
//! Deliberately absent: heads of other devices and of memory. Who reads the channels passes over them, or gives them
//! to the other device's receiver.

use super::{Content, Misuse, Piece, Refused};
use crate::stream::record::{self, DATA_HEAD, Tag, WORD};

/// What a [`Receiver`] wants.
#[derive(Debug, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// The next head of this device on this channel: answer [`Receiver::head`], [`Receiver::closed`] where the channel
    /// has ended, or [`Receiver::idle`]. Any other channel that is not idle and has no head may be read as well.
    Head {
        /// Which channel.
        channel: usize,
    },
    /// The next bytes of this channel in here, from the front; fewer will do. Answer [`Receiver::took`].
    Keep {
        /// Which channel.
        channel: usize,
        /// Where they go.
        room: &'a mut [u8],
    },
    /// These are the next bytes of the payload: answer [`Receiver::took`] with how many went on.
    Give(&'a [u8]),
    /// The next bytes of the payload stand on this channel: answer [`Receiver::took`] with how many went on.
    Pass {
        /// Which channel.
        channel: usize,
        /// How many there are.
        left: usize,
    },
    /// That one of the idle channels goes on: [`Receiver::ready`], [`Receiver::head`] or [`Receiver::closed`].
    Wait,
    /// Nothing: the payload is whole. A head that comes all the same is refused.
    Nothing,
}

/// The place of a piece that is kept; lent empty by [`Slot::default`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Slot(Option<Piece>);

/// What is known of a channel; lent by [`Channel::default`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Channel(At);

/// Where a channel stands.
#[derive(Clone, Copy, Debug, Default)]
enum At {
    /// Before a head that nobody has read.
    #[default]
    Unread,
    /// Before a head that can't be read now.
    Idle,
    /// Behind the head of this piece, which is to wait.
    Head(Piece),
    /// Behind the head of the piece that is being taken.
    Taken,
    Closed,
}

/// Puts the pieces of one device in order, on memory that the caller lends.
///
/// # The caller's loop
///
/// Written out for channels that can be read at any time, such as files:
///
/// ```
/// use std::io::{self, Read};
/// use vfio_migration_core::stream::multifd::{Channel, Piece, Receiver, Slot, Wanted};
///
/// /// Puts the next bytes of the payload into `buffer`, which has room for one at least, as `Transport::recv` does; 0 at
/// /// its end. `next_head` passes over packets that are not of this device, and says nothing at the channel's end.
/// fn recv<R: Read>(
///     receiver: &mut Receiver<'_>,
///     channels: &mut [R],
///     next_head: fn(&mut R) -> io::Result<Option<Piece>>,
///     buffer: &mut [u8],
/// ) -> io::Result<usize> {
///     loop {
///         let (from, count, goes_on) = match receiver.poll().map_err(io::Error::other)? {
///             Wanted::Head { channel } => {
///                 match next_head(&mut channels[channel])? {
///                     Some(piece) => receiver.head(channel, piece),
///                     None => receiver.closed(channel),
///                 }
///                 .map_err(io::Error::other)?;
///                 continue;
///             }
///             Wanted::Keep { channel, room } => (Some(channel), channels[channel].read(room)?, false),
///             Wanted::Give(mut bytes) => (None, bytes.read(buffer)?, true),
///             Wanted::Pass { channel, left } => {
///                 let room = left.min(buffer.len());
///                 (Some(channel), channels[channel].read(&mut buffer[..room])?, true)
///             }
///             Wanted::Wait => return Err(io::ErrorKind::WouldBlock.into()), // only where a channel was called idle
///             Wanted::Nothing => return Ok(0),
///         };
///         match from {
///             Some(ended) if count == 0 => receiver.closed(ended),
///             _ => receiver.took(count),
///         }
///         .map_err(io::Error::other)?;
///         if goes_on && count > 0 {
///             return Ok(count);
///         }
///     }
/// }
/// # use vfio_migration_core::stream::multifd::Packet;
/// # use vfio_migration_core::stream::record::{Tag, encode, encode_data_head};
/// # fn next_head(channel: &mut &[u8]) -> io::Result<Option<Piece>> {
/// #     if channel.is_empty() { return Ok(None); }
/// #     let (packet, length) = Packet::decode(channel).map_err(io::Error::other)?;
/// #     let Packet::DeviceState(state) = packet else { panic!() };
/// #     let piece = state.piece;
/// #     *channel = &channel[length..];
/// #     Ok(Some(piece))
/// # }
/// # let mut sender = vfio_migration_core::stream::multifd::Sender::new(b"nic/vfio", 0).unwrap();
/// # let mut packet = |data: Option<&[u8]>| {
/// #     let mut head = [0; 296];
/// #     let length = match data {
/// #         Some(data) => sender.data(data.len() as u32, &mut head).unwrap(),
/// #         None => sender.config(0, &mut head).unwrap(),
/// #     };
/// #     [&head[..length], data.unwrap_or(&encode(Tag::EndOfState))].concat()
/// # };
/// # let (first, second, last) = (packet(Some(b"abc")), packet(Some(b"de")), packet(None));
/// # let [one, other] = [[second, last].concat(), first];
/// # let mut lines = [&one[..], &other[..]];
///
/// let (mut storage, mut slots, mut channels) = ([0; 4096], [Slot::default(); 4], [Channel::default(); 2]);
/// let mut receiver = Receiver::new(&mut storage, &mut slots, &mut channels);
/// # let mut payload = vec![];
/// # loop {
/// #     let mut buffer = [0; 8];
/// #     let count = recv(&mut receiver, &mut lines, next_head, &mut buffer).unwrap();
/// #     payload.extend_from_slice(&buffer[..count]);
/// #     if count == 0 { break; }
/// # }
/// # let config = [encode(Tag::Config), encode(Tag::EndOfState)].concat();
/// # assert_eq!(payload, [&encode_data_head(3)[..], b"abc", &encode_data_head(2), b"de", &config].concat());
/// ```
#[derive(Debug)]
pub struct Receiver<'s> {
    storage: &'s mut [u8],
    slots: &'s mut [Slot],
    channels: &'s mut [Channel],
    /// The number of the piece whose turn it is.
    next: u32,
    /// The number of the configuration, once it was taken.
    last: Option<u32>,
    step: Step,
    /// Tag and length of a DATA record, or the tag of CONFIG.
    record: [u8; DATA_HEAD],
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Head {
        channel: usize,
    },
    /// The piece's last `left` bytes are still to be kept.
    Keep {
        channel: usize,
        piece: Piece,
        left: usize,
    },
    /// The last `left` bytes of what stands before the piece in its record are to go on.
    Record {
        from: From,
        piece: Piece,
        left: usize,
    },
    /// The piece's last `left` bytes are to go on.
    Piece {
        from: From,
        piece: Piece,
        left: usize,
    },
    Wait,
    Nothing,
    Refused(Refused),
}

/// Where a piece comes from.
#[derive(Clone, Copy, Debug)]
enum From {
    Channel(usize),
    Slot,
}

impl<'s> Receiver<'s> {
    /// A receiver for the pieces of one device on `channels`. It keeps as many pieces as there are `slots`, each of at
    /// most the bytes that `storage` has for every one of them. What the three held before is forgotten.
    pub fn new(storage: &'s mut [u8], slots: &'s mut [Slot], channels: &'s mut [Channel]) -> Self {
        slots.fill(Slot::default());
        channels.fill(Channel::default());
        let (step, record) = (Step::Nothing, [0; DATA_HEAD]);
        let mut receiver = Self { storage, slots, channels, next: 0, last: None, step, record };
        receiver.settle();
        receiver
    }

    /// What is wanted now. Asking twice changes nothing; "not yet" is said by not answering.
    ///
    /// # Errors
    /// [`Refused`], for good: the state is not whole, and can't be.
    pub fn poll(&mut self) -> Result<Wanted<'_>, Refused> {
        match self.step {
            Step::Head { channel } => Ok(Wanted::Head { channel }),
            Step::Keep { channel, piece, left } => {
                Ok(Wanted::Keep { channel, room: rest(self.place(piece), left) })
            }
            Step::Record { left, .. } => Ok(Wanted::Give(rest(&mut self.record, left))),
            Step::Piece { from: From::Channel(channel), left, .. } => Ok(Wanted::Pass { channel, left }),
            Step::Piece { from: From::Slot, piece, left } => Ok(Wanted::Give(rest(self.place(piece), left))),
            Step::Wait => Ok(Wanted::Wait),
            Step::Nothing => Ok(Wanted::Nothing),
            Step::Refused(refused) => Err(refused),
        }
    }

    /// The next head on a channel is of this device, and of this piece.
    ///
    /// # Errors
    /// [`Misuse::NoChannel`]; [`Misuse::WrongDone`] where the channel has a head already, or has ended.
    pub fn head(&mut self, channel: usize, piece: Piece) -> Result<(), Misuse> {
        match self.at(channel)? {
            At::Unread | At::Idle => self.put(channel, At::Head(piece)),
            At::Head(_) | At::Taken | At::Closed => return Err(Misuse::WrongDone),
        }
        self.go_on();
        Ok(())
    }

    /// A channel can't be read now, because nothing has come, or a head of another device. Others are asked for then.
    ///
    /// # Errors
    /// [`Misuse::NoChannel`]; [`Misuse::WrongDone`] where the channel has a head already, or has ended.
    pub fn idle(&mut self, channel: usize) -> Result<(), Misuse> {
        match self.at(channel)? {
            At::Unread | At::Idle => self.put(channel, At::Idle),
            At::Head(_) | At::Taken | At::Closed => return Err(Misuse::WrongDone),
        }
        self.go_on();
        Ok(())
    }

    /// An idle channel can be read again.
    ///
    /// # Errors
    /// [`Misuse::NoChannel`]; [`Misuse::WrongDone`] where the channel is not idle.
    pub fn ready(&mut self, channel: usize) -> Result<(), Misuse> {
        match self.at(channel)? {
            At::Idle => self.put(channel, At::Unread),
            At::Unread | At::Head(_) | At::Taken | At::Closed => return Err(Misuse::WrongDone),
        }
        self.go_on();
        Ok(())
    }

    /// A channel has ended.
    ///
    /// # Errors
    /// [`Misuse::NoChannel`]; [`Misuse::WrongDone`] where the channel has ended before, or its head waits and nothing
    /// behind it was asked for.
    pub fn closed(&mut self, channel: usize) -> Result<(), Misuse> {
        match self.at(channel)? {
            At::Unread | At::Idle | At::Taken => self.put(channel, At::Closed),
            At::Head(_) | At::Closed => return Err(Misuse::WrongDone),
        }
        self.cut(channel);
        self.go_on();
        Ok(())
    }

    /// So many bytes were kept, or went on.
    ///
    /// # Errors
    /// [`Misuse::WrongDone`] and [`Misuse::TooMany`].
    pub fn took(&mut self, count: usize) -> Result<(), Misuse> {
        match self.step {
            Step::Keep { channel, piece, left } => match less(left, count)? {
                0 => self.keep(channel, piece),
                left => self.step = Step::Keep { channel, piece, left },
            },
            Step::Record { from, piece, left } => match less(left, count)? {
                0 if piece.length == 0 => self.end(from, piece),
                0 => self.step = Step::Piece { from, piece, left: length(piece) },
                left => self.step = Step::Record { from, piece, left },
            },
            Step::Piece { from, piece, left } => match less(left, count)? {
                0 => self.end(from, piece),
                left => self.step = Step::Piece { from, piece, left },
            },
            Step::Head { .. } | Step::Wait | Step::Nothing | Step::Refused(_) => {
                return Err(Misuse::WrongDone);
            }
        }
        Ok(())
    }

    /// The next step where none is in progress.
    fn go_on(&mut self) {
        match self.step {
            Step::Head { .. } | Step::Wait | Step::Nothing => self.settle(),
            Step::Keep { .. } | Step::Record { .. } | Step::Piece { .. } | Step::Refused(_) => {}
        }
    }

    /// Finds the next step: what goes on at once; else a head to read, since its turn may be next; else a piece to keep,
    /// so that its channel can be read on.
    fn settle(&mut self) {
        if let Some(refused) = self.wrong() {
            self.step = Step::Refused(refused);
        } else if self.last.is_some_and(|last| self.next > last) {
            self.step = Step::Nothing;
        } else if let Some(piece) = self.stored(self.next) {
            self.record(From::Slot, piece);
        } else if let Some((channel, piece)) = self.waits(|piece| piece.index == self.next) {
            self.put(channel, At::Taken);
            self.record(From::Channel(channel), piece);
        } else if let Some(channel) = self.channels.iter().position(|Channel(at)| matches!(at, At::Unread)) {
            self.step = Step::Head { channel };
        } else if let Some((channel, piece)) = self.waits(|piece| self.fits(piece)) {
            self.take(channel, piece);
        } else {
            self.step = self.stuck();
        }
    }

    /// Where no channel has anything that could be used.
    fn stuck(&self) -> Step {
        if self.channels.iter().any(|Channel(at)| matches!(at, At::Idle)) {
            return Step::Wait;
        }
        let nearest = self.waiting().map(|(_, piece)| piece).min_by_key(|piece| piece.index);
        Step::Refused(match nearest {
            Some(Piece { index: nearest, length, .. }) => {
                let (slots, slot) = (self.slots.len(), self.slot_size());
                Refused::Beyond { next: self.next, nearest, length, slots, slot }
            }
            None => Refused::Missing { next: self.next },
        })
    }

    /// What is wrong with the first head that can't be of this state.
    fn wrong(&self) -> Option<Refused> {
        self.waiting().find_map(|(_, piece)| self.check(piece))
    }

    /// The first waiting piece of which `what` is true, with its channel.
    fn waits(&self, what: impl Fn(Piece) -> bool) -> Option<(usize, Piece)> {
        self.waiting().find(|&(_, piece)| what(piece))
    }

    fn waiting(&self) -> impl Iterator<Item = (usize, Piece)> {
        let heads = self.channels.iter().enumerate();
        heads.filter_map(|(channel, Channel(at))| match *at {
            At::Head(piece) => Some((channel, piece)),
            At::Unread | At::Idle | At::Taken | At::Closed => None,
        })
    }

    /// Whether a piece can't be of this state, by its number.
    fn check(&self, Piece { index, content, .. }: Piece) -> Option<Refused> {
        if index < self.next || self.stored(index).is_some() {
            return Some(Refused::Twice { index });
        }
        let stored = || self.slots.iter().filter_map(|Slot(piece)| piece.map(|piece| piece.index));
        match (content, self.last) {
            (Content::Config, Some(last)) => {
                Some(Refused::BeyondLast { last: index.min(last), got: index.max(last) })
            }
            (Content::Config, None) => {
                let got = stored().find(|&stored| stored > index)?;
                Some(Refused::BeyondLast { last: index, got })
            }
            (Content::Data, Some(last)) if index > last => Some(Refused::BeyondLast { last, got: index }),
            (Content::Data, _) => None,
        }
    }

    /// Whether a piece, whose turn it is not, can be kept: its slot is free then, since no other of those pieces has it.
    fn fits(&self, piece: Piece) -> bool {
        let ahead = size(piece.index.saturating_sub(self.next));
        ahead <= self.slots.len() && length(piece) <= self.slot_size()
    }

    /// The kept piece with this number.
    fn stored(&self, index: u32) -> Option<Piece> {
        let Slot(kept) = self.slots.get(self.slot_of(index))?;
        kept.filter(|piece| piece.index == index)
    }

    /// Begins to keep a piece; an empty one is kept at once.
    fn take(&mut self, channel: usize, piece: Piece) {
        self.note_last(piece);
        self.put(channel, At::Taken);
        self.step = Step::Keep { channel, piece, left: length(piece) };
        if piece.length == 0 {
            self.fill(piece.index, Some(piece));
            self.put(channel, At::Unread);
            self.step = Step::Head { channel };
        }
    }

    /// A piece is kept.
    fn keep(&mut self, channel: usize, piece: Piece) {
        self.fill(piece.index, Some(piece));
        self.put(channel, At::Unread);
        self.settle();
    }

    /// A piece's turn has come; what stands before it in its record goes on first.
    fn record(&mut self, from: From, piece: Piece) {
        self.note_last(piece);
        // At the array's back, since what goes on next is always the rest of something.
        let left = match piece.content {
            Content::Data => {
                self.record = record::encode_data_head(u64::from(piece.length));
                DATA_HEAD
            }
            Content::Config => {
                if let Some(tag) = self.record.last_chunk_mut() {
                    *tag = record::encode(Tag::Config);
                }
                WORD
            }
        };
        self.step = Step::Record { from, piece, left };
    }

    /// A piece has gone on as a whole.
    fn end(&mut self, from: From, piece: Piece) {
        match from {
            From::Channel(channel) => self.put(channel, At::Unread),
            From::Slot => self.fill(piece.index, None),
        }
        self.next = self.next.saturating_add(1);
        self.settle();
    }

    /// Refuses the piece that comes from a channel that has ended.
    fn cut(&mut self, ended: usize) {
        let (piece, missing) = match self.step {
            Step::Keep { channel, piece, left } if channel == ended => (piece, left),
            Step::Record { from: From::Channel(channel), piece, .. } if channel == ended => {
                (piece, length(piece))
            }
            Step::Piece { from: From::Channel(channel), piece, left } if channel == ended => (piece, left),
            Step::Head { .. }
            | Step::Keep { .. }
            | Step::Record { .. }
            | Step::Piece { .. }
            | Step::Wait
            | Step::Nothing
            | Step::Refused(_) => return,
        };
        self.step = Step::Refused(Refused::Cut { index: piece.index, missing });
    }

    const fn note_last(&mut self, piece: Piece) {
        match piece.content {
            Content::Data => {}
            Content::Config => self.last = Some(piece.index),
        }
    }

    fn at(&self, channel: usize) -> Result<At, Misuse> {
        let missing = Misuse::NoChannel { wanted: self.channels.len(), got: channel };
        self.channels.get(channel).map(|Channel(at)| *at).ok_or(missing)
    }

    fn put(&mut self, channel: usize, at: At) {
        if let Some(place) = self.channels.get_mut(channel) {
            *place = Channel(at);
        }
    }

    fn fill(&mut self, index: u32, piece: Option<Piece>) {
        let slot = self.slot_of(index);
        if let Some(place) = self.slots.get_mut(slot) {
            *place = Slot(piece);
        }
    }

    /// The slot for a piece: no two of those that can be kept at the same time have the same.
    fn slot_of(&self, index: u32) -> usize {
        size(index).checked_rem(self.slots.len()).unwrap_or_default()
    }

    /// The bytes of a slot.
    fn slot_size(&self) -> usize {
        self.storage.len().checked_div(self.slots.len()).unwrap_or_default()
    }

    /// Where a piece is kept.
    fn place(&mut self, piece: Piece) -> &mut [u8] {
        let start = self.slot_of(piece.index).saturating_mul(self.slot_size());
        self.storage.get_mut(start..start.saturating_add(length(piece))).unwrap_or_default()
    }
}

fn length(piece: Piece) -> usize {
    size(piece.length)
}

/// A number on the wire as one of memory; where it is none, it is more than any memory has.
fn size(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// What is left of what was offered.
fn less(offered: usize, got: usize) -> Result<usize, Misuse> {
    offered.checked_sub(got).ok_or(Misuse::TooMany { offered, got })
}

fn rest(bytes: &mut [u8], left: usize) -> &mut [u8] {
    let start = bytes.len().saturating_sub(left);
    bytes.get_mut(start..).unwrap_or_default()
}
