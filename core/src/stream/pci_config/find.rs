//! Finds the layout of a body whose device is not at hand.
//!
//! The rule: the version must be [`VERSION`]. The number of vectors is that of the first MSI-X capability
//! in the saved space's list, 0 without one; the capability is in the first 256 bytes, so it is the same whether the
//! space has 256 bytes or 4096. Each of the two lengths fits when, counted with it, the four interrupt states are 0 or 1
//! and behind the body stands END_OF_STATE, or a display's state and then END_OF_STATE. Both are looked at to their end,
//! since what would be the shorter body's END_OF_STATE may be bytes of the longer one that a guest has written.
//! If both fit, nothing in the record tells which it is, and the answer is [`Progress::Ambiguous`]. The caller then knows
//! two places at which a section's footer may stand.
//!
//! A finder keeps the first 260 bytes and looks at the others as they pass. To rule out the longer body it must see bytes
//! that may be behind the record; [`Progress::Beyond`] says when. A caller that can't give back bytes to its reader may
//! stop there and take the shorter one. Where the input ends, [`Finder::end`] settles it.
//!
//! Deliberately absent: a guess. Neither is more likely; real devices of 4096 bytes are only more common.

use core::fmt;

use super::ramfb::{DISPLAY, DISPLAY_HEAD};
use super::space::Space;
use super::{INTERRUPTS_LENGTH, Layout, SpaceLength, VERSION, VERSION_LENGTH};
use crate::stream::record::{self, Tag, WORD};

/// A body that fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Found {
    /// Its layout.
    pub layout: Layout,
    /// Its bytes, with a display's state where it has one. END_OF_STATE is behind them.
    pub length: usize,
}

/// How far a [`Finder`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Progress {
    /// So many more bytes are wanted, all of them of the record.
    Wanted(usize),
    /// The shorter body fits; so many more bytes, which may be behind the record, tell more about the longer one.
    Beyond {
        /// Bytes that are wanted.
        wanted: usize,
        /// The shorter body.
        shorter: Found,
    },
    /// The body is empty, as that of a device that is not PCI.
    Empty,
    /// One body fits.
    Found(Found),
    /// Both fit, the shorter one first.
    Ambiguous([Found; 2]),
}

/// Why no body is found. Offsets count from the body's first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Error {
    /// It begins with a version other than [`VERSION`].
    Version {
        /// The number in its place.
        got: u32,
    },
    /// Neither body fits.
    Neither {
        /// The first byte that does not fit when there are 256 bytes of configuration space.
        conventional: usize,
        /// The first byte that does not fit when there are 4096.
        extended: usize,
    },
    /// The input ended before a body did.
    Cut {
        /// Where it ended.
        offset: usize,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Version { got } => write!(f, "wanted a configuration of version {VERSION}, got {got}"),
            Self::Neither { conventional, extended } => write!(
                f,
                "wanted a configuration, got one that does not fit at byte {conventional} with 256 bytes of \
                 configuration space, and at byte {extended} with 4096"
            ),
            Self::Cut { offset } => write!(f, "wanted a whole configuration, got its first {offset} bytes"),
        }
    }
}

impl core::error::Error for Error {}

/// Looks at a body's bytes as they come, from its first on.
#[derive(Clone, Debug)]
pub struct Finder {
    taken: usize,
    ended: bool,
    head: [u8; HEAD],
    place: Place,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Version,
    EmptyBody,
    Head,
    Bodies([Candidate; 2]),
    Over(Result<Progress, Error>),
}

/// One of the two bodies.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    layout: Layout,
    display: bool,
    fit: Fit,
}

#[derive(Clone, Copy, Debug)]
enum Fit {
    Open,
    Whole,
    Not { offset: usize },
}

impl Finder {
    /// A finder at a body's first byte.
    #[must_use]
    pub const fn new() -> Self {
        Self { taken: 0, ended: false, head: [0; HEAD], place: Place::Version }
    }

    /// Bytes that were taken so far.
    #[must_use]
    pub const fn offset(&self) -> usize {
        self.taken
    }

    /// Takes the next bytes of the input, any number of them; once an answer is there they change nothing.
    pub fn take(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if self.is_over() {
                return;
            }
            self.byte(byte);
        }
    }

    /// Says that no more bytes follow: a body that is not whole is none.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// What is wanted or known.
    ///
    /// # Errors
    /// No body fits, or none was whole when the input ended.
    pub fn progress(&self) -> Result<Progress, Error> {
        let cut = Error::Cut { offset: self.taken };
        let more = |length: usize| {
            if self.ended { Err(cut) } else { Ok(Progress::Wanted(length.saturating_sub(self.taken))) }
        };
        match &self.place {
            Place::Version => more(VERSION_LENGTH),
            Place::EmptyBody => more(WORD),
            Place::Head => more(HEAD),
            Place::Over(answer) => *answer,
            Place::Bodies([shorter, longer]) => match (shorter.fit, longer.fit) {
                (Fit::Whole, Fit::Whole) => Ok(Progress::Ambiguous([shorter.found(), longer.found()])),
                (Fit::Whole, Fit::Open) if !self.ended => Ok(Progress::Beyond {
                    wanted: longer.border(self.taken).saturating_sub(self.taken),
                    shorter: shorter.found(),
                }),
                (Fit::Whole, Fit::Open | Fit::Not { .. }) => Ok(Progress::Found(shorter.found())),
                (Fit::Open | Fit::Not { .. }, Fit::Whole) => Ok(Progress::Found(longer.found())),
                (Fit::Not { offset: conventional }, Fit::Not { offset: extended }) => {
                    Err(Error::Neither { conventional, extended })
                }
                (Fit::Not { .. }, Fit::Open) => more(longer.border(self.taken)),
                (Fit::Open, Fit::Not { .. }) => more(shorter.border(self.taken)),
                (Fit::Open, Fit::Open) => more(shorter.border(self.taken).min(longer.border(self.taken))),
            },
        }
    }

    fn is_over(&self) -> bool {
        match &self.place {
            Place::Over(_) => true,
            Place::Bodies(both) => both.iter().all(|one| !matches!(one.fit, Fit::Open)),
            Place::Version | Place::EmptyBody | Place::Head => false,
        }
    }

    fn byte(&mut self, byte: u8) {
        let offset = self.taken;
        self.taken = offset.saturating_add(1);
        if let Some(place) = self.head.get_mut(offset) {
            *place = byte;
        }
        match &mut self.place {
            Place::Version if self.taken == VERSION_LENGTH => self.place = self.after_version(),
            Place::EmptyBody if self.taken == WORD => {
                let empty = self.head.starts_with(&record::encode(Tag::EndOfState));
                let answer = if empty { Ok(Progress::Empty) } else { Err(self.other_version()) };
                self.place = Place::Over(answer);
            }
            Place::Head if self.taken == HEAD => self.place = Place::Bodies(self.candidates()),
            Place::Bodies(both) => both.iter_mut().for_each(|one| one.byte(offset, byte)),
            Place::Version | Place::EmptyBody | Place::Head | Place::Over(_) => {}
        }
    }

    fn after_version(&self) -> Place {
        match self.version() {
            VERSION => Place::Head,
            u32::MAX => Place::EmptyBody,
            _ => Place::Over(Err(self.other_version())),
        }
    }

    fn version(&self) -> u32 {
        self.head.first_chunk::<VERSION_LENGTH>().map_or(0, |bytes| u32::from_be_bytes(*bytes))
    }

    fn other_version(&self) -> Error {
        Error::Version { got: self.version() }
    }

    fn candidates(&self) -> [Candidate; 2] {
        let space = Space::new(self.head.get(VERSION_LENGTH..).unwrap_or_default());
        let msix_vectors = space.msix().map_or(0, |msix| msix.vectors);
        SpaceLength::ALL.map(|space| {
            let layout = Layout { space, msix_vectors };
            Candidate { layout, display: false, fit: Fit::Open }
        })
    }
}

impl Default for Finder {
    fn default() -> Self {
        Self::new()
    }
}

impl Candidate {
    /// Looks at the byte at `offset`.
    fn byte(&mut self, offset: usize, byte: u8) {
        let interrupts = VERSION_LENGTH.saturating_add(self.layout.space.bytes());
        let behind = self.layout.length();
        if !matches!(self.fit, Fit::Open) || offset < interrupts {
            return;
        }
        if offset == behind {
            self.display = DISPLAY_HEAD.first() == Some(&byte);
        }
        let fits = match (offset.checked_sub(behind), offset.saturating_sub(interrupts)) {
            (None, at) if at < INTERRUPTS_LENGTH => byte <= u8::from(at % 4 == 3),
            (None, _) => true,
            (Some(at), _) => self.fits_behind(at, byte),
        };
        if !fits {
            self.fit = Fit::Not { offset };
        } else if offset.saturating_add(1) == self.end() {
            self.fit = Fit::Whole;
        }
    }

    /// Whether a byte fits that stands `at` bytes behind the fixed part.
    fn fits_behind(&self, at: usize, byte: u8) -> bool {
        let (head, state): (&[u8], _) = if self.display { (DISPLAY_HEAD, DISPLAY) } else { (&[], 0) };
        match (head.get(at), at.checked_sub(state)) {
            (Some(wanted), _) => byte == *wanted,
            (None, None) => true,
            (None, Some(at)) => record::encode(Tag::EndOfState).get(at) == Some(&byte),
        }
    }

    /// The body as it would be.
    fn found(&self) -> Found {
        let display = if self.display { DISPLAY } else { 0 };
        Found { layout: self.layout, length: self.layout.length().saturating_add(display) }
    }

    /// Where its END_OF_STATE ends, as far as is known.
    fn end(&self) -> usize {
        self.found().length.saturating_add(WORD)
    }

    /// The first place behind `taken` at which more is known.
    fn border(&self, taken: usize) -> usize {
        let interrupts =
            VERSION_LENGTH.saturating_add(self.layout.space.bytes()).saturating_add(INTERRUPTS_LENGTH);
        if taken < interrupts { interrupts } else { self.end() }
    }
}

/// Version and the first 256 bytes of configuration space.
const HEAD: usize = VERSION_LENGTH + 256;

#[cfg(test)]
mod tests {
    use super::*;

    /// A body of 256 or 4096 bytes of configuration space, all 0, and its END_OF_STATE; then zeros.
    fn body(space: usize) -> [u8; 4200] {
        let mut bytes = [0; 4200];
        bytes[3] = 2;
        bytes[4 + space + 16..][..WORD].copy_from_slice(&record::encode(Tag::EndOfState));
        bytes
    }

    fn found(region_length: u64) -> Found {
        let layout = Layout::new(region_length, 0).unwrap();
        Found { layout, length: layout.length() }
    }

    #[test]
    fn the_longer_body_is_found_by_its_borders() {
        let bytes = body(4096);
        let mut finder = Finder::new();
        for wanted in [4, 256, 16, 8, 3832, 8] {
            assert_eq!(finder.progress(), Ok(Progress::Wanted(wanted)));
            finder.take(&bytes[finder.offset()..][..wanted]);
        }
        assert_eq!(finder.progress(), Ok(Progress::Found(found(4096))));
        assert_eq!(finder.offset(), 4 + 4096 + 16 + 8);
    }

    #[test]
    fn the_shorter_body_is_found_once_the_longer_one_is_out_or_the_input_ends() {
        let bytes = body(256);
        let mut finder = Finder::new();
        finder.take(&bytes[..284]);
        let shorter = found(256);
        assert_eq!(finder.progress(), Ok(Progress::Beyond { wanted: 3832, shorter }));
        let mut ended = finder.clone();
        ended.end();
        assert_eq!(ended.progress(), Ok(Progress::Found(shorter)));
        finder.take(&bytes[284..4116]);
        assert_eq!(finder.progress(), Ok(Progress::Beyond { wanted: 8, shorter }));
        finder.take(&bytes[4116..]);
        assert_eq!(finder.progress(), Ok(Progress::Found(shorter)));
        assert_eq!(finder.offset(), 4117, "the first byte that is not END_OF_STATE's");
    }

    #[test]
    fn two_bodies_that_fit_are_ambiguous() {
        let mut bytes = body(256);
        bytes[4116..][..WORD].copy_from_slice(&record::encode(Tag::EndOfState));
        let mut finder = Finder::new();
        finder.take(&bytes);
        assert_eq!(finder.progress(), Ok(Progress::Ambiguous([found(256), found(4096)])));
    }

    #[test]
    fn an_empty_body_is_nothing_but_its_end() {
        let mut finder = Finder::new();
        finder.take(&record::encode(Tag::EndOfState));
        assert_eq!((finder.progress(), finder.offset()), (Ok(Progress::Empty), 8));
        let mut finder = Finder::new();
        finder.take(&record::encode(Tag::Setup));
        assert_eq!(finder.progress(), Err(Error::Version { got: u32::MAX }));
    }
}
