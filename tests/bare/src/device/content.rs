//! What the device holds, and the bytes in which it travels.
//!
//! The layout is that of the simulated device in `host/src/sim/format.rs`, written anew: a header with a version, then in
//! version 1 the content, in version 2 initial content, then records of content with an offset and a length, and one of
//! length 0 at the end whose offset is the sum of all content that travelled. Numbers are little-endian.
//!
//! Deliberately absent: initial data that begin anew. Such a state is refused.

use core::ops::Range;

use crc::{CRC_32_ISCSI, Crc};
use static_cell::ConstStaticCell;
use vfio_migration_core::session::{Code, PrecopyInfo};

/// What a driver answers to a state that is not whole.
pub(crate) const EINVAL: Code = Code(22);

/// A content, and what comes of it or into it in a session.
pub(crate) struct Content {
    size: usize,
    bytes: &'static mut [u8; SIZE_MAX],
    /// What was written, until the whole state was.
    staged: &'static mut [u8; SIZE_MAX],
    saving: Saving,
    loading: Loading,
    /// From which the content was made and the guest's changes are, by splitmix64.
    random: u64,
    questions: u32,
}

/// Which blocks can be read now, which only when the device has stopped, and what is being read.
struct Saving {
    ready: [bool; BLOCKS],
    late: [bool; BLOCKS],
    piece: Piece,
    /// The content in all pieces so far, in bytes.
    carried: u64,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq)]
enum Stage {
    /// No session, or one that only writes.
    Closed,
    PreCopy,
    StopCopy,
    /// The last record has begun.
    Last,
}

/// A head and the content behind it, as far as they have not been read.
struct Piece {
    head: [u8; HEADER],
    left: Range<usize>,
    body: Range<usize>,
    is_initial: bool,
}

/// What comes next in a state that is being written.
enum Loading {
    Header(Head<HEADER>),
    /// Content, up to an end; behind it records, or in version 1 nothing.
    Body {
        place: Range<usize>,
        records: bool,
    },
    Record(Head<RECORD>),
    Whole,
    /// The first refusal, which is every later one's.
    Refused(Code),
}

/// The bytes of a head, as far as they have come.
struct Head<const N: usize> {
    bytes: [u8; N],
    have: usize,
}

impl Content {
    /// `size` bytes of content, made from `seed`. There is memory for one, so this works once.
    pub(crate) fn take(size: usize, seed: u64) -> Self {
        let is_whole = size.is_multiple_of(BLOCK) && (1..=SIZE_MAX).contains(&size);
        assert!(is_whole, "wanted a size of whole blocks of {BLOCK} bytes up to {SIZE_MAX}, got {size}");
        let (bytes, staged) = (BYTES.take(), STAGED.take());
        let (saving, loading) = (Saving::CLOSED, Loading::Whole);
        let mut content = Self { size, bytes, staged, saving, loading, random: seed, questions: 0 };
        content.write_random(0..size);
        content
    }

    /// Its crc32c.
    pub(crate) fn checksum(&self) -> u32 {
        Crc::<u32>::new(&CRC_32_ISCSI).checksum(&self.bytes[..self.size])
    }

    /// Zeros, and no session.
    pub(crate) fn reset(&mut self) {
        self.bytes.fill(0);
        self.end_session();
    }

    /// A session in which the state is read begins.
    pub(crate) fn begin_saving(&mut self) {
        let (blocks, initial) = (self.size / BLOCK, self.size / 4 / BLOCK * BLOCK);
        let early = blocks * 3 / 4;
        self.saving = Saving::CLOSED;
        self.saving.stage = Stage::PreCopy;
        self.saving.ready[initial / BLOCK..early].fill(true);
        self.saving.late[early..blocks].fill(true);
        let mut head = [0; HEADER];
        head[..8].copy_from_slice(MAGIC);
        head[8..12].copy_from_slice(&RECORDS.to_le_bytes());
        head[12..16].copy_from_slice(&u32::try_from(initial).expect("64 KiB at most").to_le_bytes());
        head[16..].copy_from_slice(&(self.size as u64).to_le_bytes());
        self.saving.take(Piece { head, left: 0..HEADER, body: 0..initial, is_initial: true });
    }

    /// The device stands still: all that has not travelled can be read.
    pub(crate) fn stop(&mut self) {
        self.saving.stage = Stage::StopCopy;
        for (ready, late) in self.saving.ready.iter_mut().zip(&mut self.saving.late) {
            *ready |= core::mem::take(late);
        }
    }

    /// What can be read now. With each fourth question the guest has changed a piece.
    pub(crate) fn precopy_info(&mut self) -> PrecopyInfo {
        self.questions += 1;
        if self.questions.is_multiple_of(4) {
            self.guest_writes();
        }
        let (piece, ready) = (self.saving.piece.len(), self.saving.ready_bytes());
        if self.saving.piece.is_initial {
            PrecopyInfo { initial_bytes: piece, dirty_bytes: ready, reinit: false }
        } else {
            PrecopyInfo { initial_bytes: 0, dirty_bytes: piece + ready, reinit: false }
        }
    }

    /// Fills as much of `buffer` as there is data for.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> usize {
        let mut got = 0;
        while got < buffer.len() && (self.saving.piece.len() > 0 || self.saving.next_piece()) {
            got += self.saving.piece.read(self.bytes, &mut buffer[got..]);
        }
        got
    }

    /// A session in which a state is written begins.
    pub(crate) fn begin_loading(&mut self) {
        self.loading = Loading::Header(Head::EMPTY);
        self.saving.carried = 0;
    }

    /// Takes all of `bytes`, or refuses them and all later ones.
    pub(crate) fn write(&mut self, mut bytes: &[u8]) -> Result<(), Code> {
        while !bytes.is_empty() {
            let taken = self.load(bytes);
            if let Err(code) = taken {
                self.loading = Loading::Refused(code);
            }
            bytes = &bytes[taken?..];
        }
        Ok(())
    }

    /// The session is over: what was written becomes the content.
    pub(crate) fn finish_loading(&mut self) -> Result<(), Code> {
        let Loading::Whole = self.loading else { return Err(EINVAL) };
        self.bytes[..self.size].copy_from_slice(&self.staged[..self.size]);
        Ok(())
    }

    /// Forgets the session.
    pub(crate) fn end_session(&mut self) {
        (self.saving, self.loading) = (Saving::CLOSED, Loading::Whole);
    }

    /// Takes the next piece of `bytes`, which are some, and says how long it was.
    fn load(&mut self, bytes: &[u8]) -> Result<usize, Code> {
        match &mut self.loading {
            Loading::Header(head) => {
                let count = head.take(bytes);
                if head.have == HEADER {
                    self.loading = header(self.size, &head.bytes)?;
                }
                Ok(count)
            }
            Loading::Body { place, records } => {
                let count = bytes.len().min(place.len());
                self.staged[place.start..][..count].copy_from_slice(&bytes[..count]);
                self.saving.carried += count as u64;
                place.start += count;
                if place.start == place.end {
                    self.loading = if *records { Loading::Record(Head::EMPTY) } else { Loading::Whole };
                }
                Ok(count)
            }
            Loading::Record(head) => {
                let count = head.take(bytes);
                if head.have == RECORD {
                    self.loading = record(self.size, &head.bytes, self.saving.carried)?;
                }
                Ok(count)
            }
            Loading::Whole => Err(ENOMEM),
            Loading::Refused(code) => Err(*code),
        }
    }

    /// The guest changes two blocks somewhere, and what it changed has to travel again.
    fn guest_writes(&mut self) {
        let blocks = self.size / BLOCK;
        let block = usize::from(self.next_random()[0]) % blocks;
        let end = blocks.min(block + 2);
        self.write_random(block * BLOCK..end * BLOCK);
        for block in block..end {
            self.saving.ready[block] = !self.saving.late[block];
        }
    }

    fn write_random(&mut self, place: Range<usize>) {
        for at in place.step_by(8) {
            let bytes = self.next_random();
            self.bytes[at..][..8].copy_from_slice(&bytes);
        }
    }

    /// The next number of splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
    fn next_random(&mut self) -> [u8; 8] {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)).to_le_bytes()
    }
}

impl Saving {
    const CLOSED: Self = Self {
        ready: [false; BLOCKS],
        late: [false; BLOCKS],
        piece: Piece { head: [0; HEADER], left: 0..0, body: 0..0, is_initial: false },
        carried: 0,
        stage: Stage::Closed,
    };

    /// Begins the next record; returns whether there is one.
    fn next_piece(&mut self) -> bool {
        if let Some(first) = self.ready.iter().position(|ready| *ready) {
            let run = self.ready[first..].iter().take_while(|ready| **ready).count();
            self.ready[first..][..run].fill(false);
            self.take_record(first * BLOCK..(first + run) * BLOCK);
        } else if self.stage == Stage::StopCopy {
            self.stage = Stage::Last;
            let carried = usize::try_from(self.carried).expect("usize has 64 bits here");
            self.take_record(carried..carried);
        } else {
            return false;
        }
        true
    }

    fn take_record(&mut self, body: Range<usize>) {
        let mut head = [0; HEADER];
        head[..8].copy_from_slice(&(body.start as u64).to_le_bytes());
        head[8..RECORD].copy_from_slice(&(body.len() as u64).to_le_bytes());
        self.take(Piece { head, left: 0..RECORD, body, is_initial: false });
    }

    fn take(&mut self, piece: Piece) {
        self.carried += piece.body.len() as u64;
        self.piece = piece;
    }

    /// The length of all records of blocks that are ready.
    fn ready_bytes(&self) -> u64 {
        let blocks = self.ready.iter().filter(|ready| **ready).count() * BLOCK;
        let begins = |block: &usize| self.ready[*block] && (*block == 0 || !self.ready[block - 1]);
        (blocks + (0..BLOCKS).filter(begins).count() * RECORD) as u64
    }
}

impl Piece {
    fn len(&self) -> u64 {
        (self.left.len() + self.body.len()) as u64
    }

    fn read(&mut self, content: &[u8], buffer: &mut [u8]) -> usize {
        let head = buffer.len().min(self.left.len());
        buffer[..head].copy_from_slice(&self.head[self.left.start..][..head]);
        self.left.start += head;
        let body = (buffer.len() - head).min(self.body.len());
        buffer[head..][..body].copy_from_slice(&content[self.body.start..][..body]);
        self.body.start += body;
        head + body
    }
}

impl<const N: usize> Head<N> {
    const EMPTY: Self = Self { bytes: [0; N], have: 0 };

    fn take(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(N - self.have);
        self.bytes[self.have..][..count].copy_from_slice(&bytes[..count]);
        self.have += count;
        count
    }
}

/// What follows a header, where it is that of a device with `size` bytes of content.
fn header(size: usize, bytes: &[u8; HEADER]) -> Result<Loading, Code> {
    let (magic, rest) = bytes.split_at(8);
    let (version, initial) = (number(&rest[..4]), number(&rest[4..8]));
    if magic != MAGIC || number(&rest[8..]) != Some(size) {
        return Err(EFAULT);
    }
    match (version, initial) {
        (Some(1), Some(0)) => Ok(Loading::Body { place: 0..size, records: false }),
        (Some(2), Some(0)) => Ok(Loading::Record(Head::EMPTY)),
        (Some(2), Some(initial)) if initial <= size => Ok(Loading::Body { place: 0..initial, records: true }),
        _ => Err(EFAULT),
    }
}

/// What follows a record's head.
fn record(size: usize, bytes: &[u8; RECORD], carried: u64) -> Result<Loading, Code> {
    let (offset, length) = (number(&bytes[..8]).ok_or(EFAULT)?, number(&bytes[8..]).ok_or(EFAULT)?);
    if length == 0 {
        return if offset as u64 == carried { Ok(Loading::Whole) } else { Err(EFAULT) };
    }
    match offset.checked_add(length) {
        Some(end) if end <= size => Ok(Loading::Body { place: offset..end, records: true }),
        _ => Err(ENOMEM),
    }
}

fn number(bytes: &[u8]) -> Option<usize> {
    let value = bytes.iter().rev().fold(0, |value: u64, byte| value << 8 | u64::from(*byte));
    usize::try_from(value).ok()
}

static BYTES: ConstStaticCell<[u8; SIZE_MAX]> = ConstStaticCell::new([0; SIZE_MAX]);
static STAGED: ConstStaticCell<[u8; SIZE_MAX]> = ConstStaticCell::new([0; SIZE_MAX]);

/// The largest content in bytes.
const SIZE_MAX: usize = 64 << 10;
const MAGIC: &[u8; 8] = b"VFIO-SIM";
/// The version of a state in records.
const RECORDS: u32 = 2;
const HEADER: usize = 24;
const RECORD: usize = 16;
/// The guest changes whole blocks.
const BLOCK: usize = 512;
const BLOCKS: usize = SIZE_MAX / BLOCK;

/// What a driver answers to a header that is not its own, and to bytes past the end.
const EFAULT: Code = Code(14);
const ENOMEM: Code = Code(12);
