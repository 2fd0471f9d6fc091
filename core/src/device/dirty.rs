//! DMA logging: what a device is asked to log, in which parts its log is read, and what a bitmap says.
//!
//! A device that logs remembers the pages that it has written to. [`prepare`] makes of a machine's memory the ranges
//! that START takes, [`pieces`] cuts such a range into reports for the caller's bitmap, and [`runs`] walks a bitmap once
//! REPORT has answered.
//! Source: the uapi header's comments on `VFIO_DEVICE_FEATURE_DMA_LOGGING_START` and `_REPORT`; what they leave open or
//! have wrong is from the kernel's `vfio_main.c` and `iova_bitmap.c` and the two drivers that log, mlx5 and pds.
//!
//! Deliberately absent: a memory of what was dirty. REPORT clears what it tells, so each run comes once, and whoever
//! copies pages has to keep it.

use core::fmt;
use core::iter::FusedIterator;

mod ranges;

pub use self::ranges::{LIMIT, prepare};
use super::uapi::DmaLoggingRange;

/// The size of the pages that a log tells apart: a power of two, at least 4096 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct PageSize(u64);

impl PageSize {
    /// A page of so many bytes.
    ///
    /// # Errors
    /// [`Error::PageSize`] where REPORT would answer EINVAL.
    pub const fn new(bytes: u64) -> Result<Self, Error> {
        if bytes.is_power_of_two() && bytes >= 4096 {
            Ok(Self(bytes))
        } else {
            Err(Error::PageSize { got: bytes })
        }
    }

    /// Bytes of a page.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// The pages of a word of a bitmap as one page: 64 times as large, 2^63 bytes at most.
    #[must_use]
    pub const fn word(self) -> Self {
        let bytes = self.0.saturating_mul(BITS);
        Self(if bytes.is_power_of_two() { bytes } else { 1 << 63 })
    }

    /// How many words the bitmap of `length` bytes has.
    #[must_use]
    pub const fn words(self, length: u64) -> u64 {
        self.pages(length).div_ceil(BITS)
    }

    const fn pages(self, length: u64) -> u64 {
        let whole = length.unbounded_shr(self.0.trailing_zeros());
        if length & self.mask() == 0 { whole } else { whole.saturating_add(1) }
    }

    /// The bits of an address within its page.
    const fn mask(self) -> u64 {
        self.0.saturating_sub(1)
    }
}

/// Why a device can't log this, or its log not be read like this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Error {
    /// The page size is no power of two, or below 4096 bytes.
    PageSize {
        /// The number in its place.
        got: u64,
    },
    /// A range has no byte. It is not passed over: 0 is also what is left of 2^64.
    Empty {
        /// Where it begins.
        iova: u64,
    },
    /// A range ends behind the 64-bit address space.
    Overflow {
        /// Where it begins.
        iova: u64,
        /// Its length in bytes.
        length: u64,
    },
    /// The ranges, rounded and joined, are one over all 2^64 bytes, a length that has no place in 64 bits.
    Everything,
    /// The bitmap has no word.
    NoBitmap,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::PageSize { got } => {
                write!(f, "wanted a page size that is a power of two and at least 4096, got {got}")
            }
            Self::Empty { iova } => write!(f, "wanted a range of at least one byte at {iova:#x}, got 0"),
            Self::Overflow { iova, length } => {
                write!(f, "wanted a range within 64-bit addresses, got {length:#x} bytes at {iova:#x}")
            }
            Self::Everything => {
                f.write_str("wanted a range of less than 2^64 bytes, got one over all addresses")
            }
            Self::NoBitmap => f.write_str("wanted a bitmap of at least one word, got none"),
        }
    }
}

impl core::error::Error for Error {}

/// The reports that `range` takes with a bitmap of `words` words, in their order.
///
/// Its pieces are whole pages and, but for the last, as many as whole words have bits for. Let it begin and end with a
/// word that is logged, counted from address 0: pds reads and clears its log by words, and what is in them beside the
/// report is lost. [`prepare`] with [`PageSize::word`] makes such ranges.
///
/// # Errors
/// [`Error::Empty`], [`Error::Overflow`] and [`Error::NoBitmap`].
pub fn pieces(range: DmaLoggingRange, page_size: PageSize, words: usize) -> Result<Pieces, Error> {
    let rest = Some(bounds(range, page_size)?);
    let step = page_size.bytes().saturating_mul(BITS).saturating_mul(words as u64).min(1 << 63);
    let beyond = step.checked_sub(1).ok_or(Error::NoBitmap)?;
    Ok(Pieces { rest, beyond })
}

/// Parts of a range, from [`pieces`].
#[derive(Clone, Debug)]
#[must_use = "a part that is not reported is not known"]
pub struct Pieces {
    /// The first and the last address of what is left.
    rest: Option<(u64, u64)>,
    /// Bytes of a piece behind its first.
    beyond: u64,
}

impl Iterator for Pieces {
    type Item = DmaLoggingRange;

    fn next(&mut self) -> Option<DmaLoggingRange> {
        let (first, last) = self.rest?;
        let end = first.saturating_add(self.beyond).min(last);
        self.rest = end.checked_add(1).filter(|next| *next <= last).map(|next| (next, last));
        between(first, end).ok()
    }
}

impl FusedIterator for Pieces {}

/// The dirty parts of `piece` after REPORT gave `answer`, each as long as it can be: what `bitmap` says, or after an error
/// all of `piece` ("userspace should assume that the dirty log is corrupted"; what is logged beside it is dirty too).
///
/// Bit n of the bitmap (bit n % 64 of word n / 64) is page n, counted from the piece's begin. What it has beyond the
/// piece is ignored; a page for which it is too short is dirty.
pub fn runs<'b, E>(
    piece: DmaLoggingRange,
    page_size: PageSize,
    bitmap: &'b [u64],
    answer: &Result<(), E>,
) -> Runs<'b> {
    let bitmap = if answer.is_ok() { bitmap } else { &[] };
    Runs { piece, page_size, bitmap, page: 0 }
}

/// Dirty parts of a piece, from [`runs`].
#[derive(Clone, Debug)]
#[must_use = "a run that nobody takes is a page that nobody copies"]
pub struct Runs<'b> {
    piece: DmaLoggingRange,
    page_size: PageSize,
    bitmap: &'b [u64],
    /// Everything before this page is done.
    page: u64,
}

impl Runs<'_> {
    /// The first page from `page` on that is not `dirty`, or the one behind the piece.
    fn pass(&self, mut page: u64, dirty: bool) -> u64 {
        let pages = self.page_size.pages(self.piece.length);
        while page < pages {
            let word = usize::try_from(page / BITS).ok().and_then(|at| self.bitmap.get(at));
            let Some(word) = word else { return if dirty { pages } else { page } };
            let others = if dirty { !word } else { *word };
            let bit = (page % BITS) as u32;
            let alike = others.unbounded_shr(bit).trailing_zeros().min(u64::BITS.saturating_sub(bit));
            page = page.saturating_add(u64::from(alike));
            if bit.saturating_add(alike) < u64::BITS {
                break;
            }
        }
        page.min(pages)
    }
}

impl Iterator for Runs<'_> {
    type Item = DmaLoggingRange;

    fn next(&mut self) -> Option<DmaLoggingRange> {
        let first = self.pass(self.page, false);
        self.page = self.pass(first, true);
        let offset = first.saturating_mul(self.page_size.bytes());
        let rest = self.piece.length.checked_sub(offset).filter(|rest| *rest > 0)?;
        let length = self.page.saturating_sub(first).saturating_mul(self.page_size.bytes()).min(rest);
        Some(DmaLoggingRange { iova: self.piece.iova.wrapping_add(offset), length })
    }
}

impl FusedIterator for Runs<'_> {}

/// The first and the last address of the pages that `range` touches; an end of 2^64 has no number, a last address has.
fn bounds(range: DmaLoggingRange, page_size: PageSize) -> Result<(u64, u64), Error> {
    let DmaLoggingRange { iova, length } = range;
    let beyond = length.checked_sub(1).ok_or(Error::Empty { iova })?;
    let last = iova.checked_add(beyond).ok_or(Error::Overflow { iova, length })?;
    Ok((iova & !page_size.mask(), last | page_size.mask()))
}

/// The range from address `first` to address `last`.
fn between(first: u64, last: u64) -> Result<DmaLoggingRange, Error> {
    let length = last.saturating_sub(first).checked_add(1).ok_or(Error::Everything)?;
    Ok(DmaLoggingRange { iova: first, length })
}

/// Pages that a word of a bitmap has bits for.
const BITS: u64 = u64::BITS as u64;

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: PageSize = PageSize(4096);
    /// The first address of the last page.
    const TOP: u64 = 0u64.wrapping_sub(4096);

    fn ranges<const N: usize>(table: [(u64, u64); N]) -> [DmaLoggingRange; N] {
        table.map(|(iova, length)| DmaLoggingRange { iova, length })
    }

    fn range(iova: u64, length: u64) -> DmaLoggingRange {
        DmaLoggingRange { iova, length }
    }

    #[test]
    fn page_sizes_are_powers_of_two_from_4096_on() {
        for bytes in [4096, 8192, 1 << 21, 1 << 63] {
            assert_eq!(PageSize::new(bytes).map(PageSize::bytes), Ok(bytes));
        }
        for got in [0, 1, 2048, 4095, 4097, 12288, u64::MAX] {
            assert_eq!(PageSize::new(got), Err(Error::PageSize { got }));
        }
    }

    #[test]
    fn bitmaps_have_a_bit_for_each_page_that_is_begun() {
        let table = [(0, 0), (1, 1), (64 << 12, 1), ((64 << 12) + 1, 2), (u64::MAX, 1 << 46)];
        for (length, words) in table {
            assert_eq!(PAGE.words(length), words, "{length}");
        }
        assert_eq!(PageSize(1 << 63).words(u64::MAX), 1);
        assert_eq!(
            [4096, 1 << 57, 1 << 58, 1 << 63].map(|bytes| PageSize(bytes).word().0),
            [1 << 18, 1 << 63, 1 << 63, 1 << 63]
        );
    }

    #[test]
    fn a_range_that_cannot_be_is_an_error() {
        let table = [
            (range(0x9001, 0), Error::Empty { iova: 0x9001 }),
            (range(u64::MAX, 2), Error::Overflow { iova: u64::MAX, length: 2 }),
            (range(2, u64::MAX), Error::Overflow { iova: 2, length: u64::MAX }),
        ];
        for (bad, error) in table {
            assert_eq!(pieces(bad, PAGE, 1).err(), Some(error));
        }
        assert_eq!(pieces(range(0, 1), PAGE, 0).err(), Some(Error::NoBitmap));
    }

    #[test]
    fn pieces_are_whole_words_but_for_the_last() {
        let cut = |iova, length, words| pieces(range(iova, length), PAGE, words).unwrap();
        assert!(cut(0x7000, 0x3001, 1).eq(ranges([(0x7000, 0x4000)])));
        assert!(cut(0x7001, 0x80000, 1).eq(ranges([
            (0x7000, 0x40000),
            (0x47000, 0x40000),
            (0x87000, 0x1000)
        ])));
        assert!(cut(0x7000, 0x80000, 2).eq(ranges([(0x7000, 0x80000)])));
        assert!(cut(TOP - 0x40000, 0x41000, 1).eq(ranges([(TOP - 0x40000, 0x40000), (TOP, 0x1000)])));
        // The longest piece is half of all addresses, where a bitmap can be so long.
        let longest = 0x40000_u64.saturating_mul(usize::MAX as u64).min(1 << 63);
        assert_eq!(cut(0, u64::MAX, usize::MAX).next(), Some(range(0, longest)));
        let lengths = cut(0, u64::MAX, usize::MAX).map(|piece| u128::from(piece.length));
        assert_eq!(lengths.sum::<u128>(), 1 << 64);
    }

    #[test]
    fn runs_are_what_the_bitmap_says_within_the_piece() {
        let told = |iova, length, bitmap: &[u64], wanted: &[(u64, u64)]| {
            let got = runs(range(iova, length), PAGE, bitmap, &Ok::<(), ()>(()));
            let wanted = wanted.iter().map(|&(iova, length)| range(iova, length));
            assert!(got.clone().eq(wanted), "{length:#x} of {bitmap:x?}: {got:?}");
        };
        told(0x8000, 0x80000, &[0, 0], &[]);
        told(0x8000, 0x4000, &[0b0101], &[(0x8000, 0x1000), (0xa000, 0x1000)]);
        told(0x8000, 0x80000, &[1 << 63, 1], &[(0x47000, 0x2000)]);
        told(0x8000, 0x80000, &[u64::MAX, u64::MAX], &[(0x8000, 0x80000)]);
        told(0x8000, 0x3000, &[0b1100, 1], &[(0xa000, 0x1000)]);
        told(0x8000, 0x2001, &[0b1100], &[(0xa000, 1)]);
        told(0x8000, 0, &[1], &[]);
        told(TOP, 0x1000, &[u64::MAX], &[(TOP, 0x1000)]);
        told(0x8000, 0x80000, &[0b10], &[(0x9000, 0x1000), (0x48000, 0x40000)]);
    }

    #[test]
    fn after_an_error_all_is_dirty_whatever_the_bitmap_says() {
        for piece in [range(0x8000, 0x3000), range(0, 1 << 63), range(0, u64::MAX), range(TOP, 0x1000)] {
            assert!(runs(piece, PAGE, &[0; 4], &Err(95)).eq([piece]));
        }
    }
}
