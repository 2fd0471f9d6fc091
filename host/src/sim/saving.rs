//! The sending side of a session: which bytes of the state can be read, and in which order.
//!
//! In PRE_COPY there are the initial data, then whatever a round made ready. Every byte that the guest changes while
//! the session lasts is ready with the next round, or in STOP_COPY, even where it has not travelled yet. A record's
//! bytes are the content's when they are read, not when the record began. Content that was neither initial nor changed
//! comes in STOP_COPY.
//!
//! Deliberately absent: errnos; a read that finds nothing is `driver`'s to name.

use std::ops::Range;
use std::sync::Arc;

use vfio_migration_core::device::State;

use super::config::Config;
use super::format::{Layout, RECORD_LEN, copy, generate, header, record};
use super::ranges::Ranges;

#[derive(Debug)]
pub(super) struct Saving {
    size: usize,
    layout: Layout,
    stage: Stage,
    /// What is being read.
    piece: Piece,
    /// What can be read after it.
    ready: Ranges,
    /// What the guest has changed and is not ready yet.
    changed: Ranges,
    /// What neither was ready nor has changed yet.
    unsent: Ranges,
    /// The length of all content in the pieces so far.
    carried: u64,
    rounds: u64,
    /// Where the guest's next round begins.
    place: usize,
    anew: bool,
    /// The initial data have begun anew, and nobody who opted in has been told.
    untold: bool,
}

/// What PRECOPY_INFO counts: together exactly the bytes that can be read before a read finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Left {
    pub(super) initial: u64,
    pub(super) dirty: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    PreCopy,
    StopCopy,
    /// The last piece has begun.
    Last,
}

/// A head and the content behind it, as far as they have not been read.
#[derive(Debug, Default)]
struct Piece {
    head: Vec<u8>,
    body: Range<usize>,
    initial: bool,
}

impl Saving {
    /// A session that begins in `state`.
    pub(super) fn new(config: &Config, state: State) -> Self {
        let stop_copy = state == State::StopCopy;
        let mut saving = Self {
            size: config.size,
            layout: if stop_copy { Layout::Plain } else { config.layout() },
            stage: Stage::PreCopy,
            piece: Piece::default(),
            ready: Ranges::default(),
            changed: Ranges::default(),
            unsent: (0..config.size).into(),
            carried: 0,
            rounds: 0,
            place: 0,
            anew: false,
            untold: false,
        };
        saving.begin(true);
        if stop_copy {
            saving.stop();
        }
        saving
    }

    /// STOP_COPY: nothing changes any more, and all that the other side lacks can be read.
    pub(super) fn stop(&mut self) {
        self.stage = Stage::StopCopy;
        let (changed, unsent) = (std::mem::take(&mut self.changed), std::mem::take(&mut self.unsent));
        self.ready.extend(&changed);
        self.ready.extend(&unsent);
    }

    /// Whether a read that finds nothing has met the end.
    pub(super) fn is_stopped(&self) -> bool {
        self.stage != Stage::PreCopy
    }

    /// Fills as much of `buffer` as there is data for.
    pub(super) fn read(&mut self, content: &[u8], buffer: &mut [u8]) -> usize {
        let mut got = 0;
        while got < buffer.len() && (!self.piece.is_read() || self.next_piece()) {
            got += self.piece.read(content, &mut buffer[got..]);
        }
        got
    }

    /// Whether all that was ready has been read.
    pub(super) fn is_drained(&self) -> bool {
        self.piece.is_read() && self.ready.is_empty()
    }

    pub(super) fn left(&self) -> Left {
        let piece = self.piece.left();
        let ready = self.lengths(&self.ready);
        if self.piece.initial {
            Left { initial: piece, dirty: ready }
        } else {
            Left { initial: 0, dirty: piece + ready }
        }
    }

    /// What there is to read from now on if the device stops now, or nothing where the size of a plain state says it.
    pub(super) fn left_at_stop(&self) -> Option<u64> {
        let Layout::Records { .. } = self.layout else { return None };
        let mut all = self.ready.clone();
        all.extend(&self.changed);
        all.extend(&self.unsent);
        let end = if self.stage == Stage::Last { 0 } else { RECORD_LEN as u64 };
        Some(self.piece.left() + self.lengths(&all) + end)
    }

    /// Takes note that the guest has changed `range`.
    pub(super) fn change(&mut self, range: Range<usize>) {
        if let Layout::Records { .. } = self.layout {
            self.unsent.remove(range.clone());
            self.changed.insert(range);
        }
    }

    /// The next round. What the guest changes in it, and has changed before it, is ready; or the initial data are anew.
    /// Those are called initial data for who opted in, and dirty ones for others.
    pub(super) fn round(&mut self, config: &Config, opted_in: bool, content: &mut Arc<Vec<u8>>) {
        let Layout::Records { initial } = self.layout else { return };
        if config.precopy.reinit == Some(self.rounds) && !self.anew {
            (self.anew, self.untold) = (true, opted_in);
            self.changed.remove(0..initial);
            return self.begin(opted_in);
        }
        if config.precopy.dirty_for.is_none_or(|rounds| self.rounds < rounds) {
            self.guest_writes(config, content);
        }
        self.rounds += 1;
        self.ready = std::mem::take(&mut self.changed);
    }

    /// Whether the initial data have begun anew since this was asked last.
    pub(super) fn take_reinit(&mut self) -> bool {
        std::mem::take(&mut self.untold)
    }

    /// The header and the content that comes with it.
    fn begin(&mut self, initial: bool) {
        let body = match self.layout {
            Layout::Plain => 0..0,
            Layout::Records { initial } => 0..initial,
        };
        self.unsent.remove(body.clone());
        self.carried += body.len() as u64;
        self.piece = Piece { head: header(self.size, self.layout).to_vec(), body, initial };
    }

    /// Returns whether there is one.
    fn next_piece(&mut self) -> bool {
        let body = self.ready.pop_first();
        let head = match (&body, self.layout, self.stage) {
            (Some(_), Layout::Plain, _) => vec![],
            (Some(body), Layout::Records { .. }, _) => record(body.start as u64, body.len() as u64).to_vec(),
            (None, Layout::Records { .. }, Stage::StopCopy) => {
                self.stage = Stage::Last;
                record(self.carried, 0).to_vec()
            }
            (None, ..) => return false,
        };
        let body = body.unwrap_or_default();
        self.carried += body.len() as u64;
        self.piece = Piece { head, body, initial: false };
        true
    }

    /// Changes every byte of the round's share of the content.
    fn guest_writes(&mut self, config: &Config, content: &mut Arc<Vec<u8>>) {
        let content = Arc::make_mut(content);
        let pattern = generate(!config.seed ^ self.rounds, config.within(config.precopy.dirty));
        let to_end = pattern.len().min(self.size - self.place);
        let (first, second) = pattern.split_at(to_end);
        for (start, pattern) in [(self.place, first), (0, second)] {
            let range = start..start + pattern.len();
            content[range.clone()].iter_mut().zip(pattern).for_each(|(byte, pattern)| *byte ^= pattern | 1);
            self.change(range.clone());
            if !range.is_empty() {
                self.place = range.end % self.size;
            }
        }
    }

    /// How many bytes it takes to send these ranges.
    fn lengths(&self, ranges: &Ranges) -> u64 {
        let head = match self.layout {
            Layout::Plain => 0,
            Layout::Records { .. } => RECORD_LEN,
        };
        ranges.iter().map(|range| (head + range.len()) as u64).sum()
    }
}

impl Piece {
    fn left(&self) -> u64 {
        (self.head.len() + self.body.len()) as u64
    }

    fn is_read(&self) -> bool {
        self.left() == 0
    }

    fn read(&mut self, content: &[u8], buffer: &mut [u8]) -> usize {
        let head = copy(&self.head, buffer);
        self.head.drain(..head);
        let body = copy(&content[self.body.clone()], &mut buffer[head..]);
        self.body.start += body;
        head + body
    }
}
