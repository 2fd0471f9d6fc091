//! A session's buffer, laid out so that each piece of data lies on whole pages.
//!
//! Drivers copy page by page, and a copy between two places whose lowest address bits differ by a few bytes takes up to
//! twice as long on some processors: a header in front of the data would do that to every page.
//!
//! Deliberately absent: huge pages and registered memory. Whoever needs them lends memory of their own.

use std::collections::TryReserveError;

use vfio_migration_core::session::source::{DATA_AT, HEADERS};

/// Memory for one session.
#[derive(Debug)]
pub struct Buffer {
    memory: Vec<u8>,
    from: usize,
    length: usize,
}

impl Buffer {
    /// For a source that reads up to `piece` bytes at once.
    ///
    /// # Errors
    /// There is not so much memory.
    pub fn for_source(piece: usize) -> Result<Self, TryReserveError> {
        Self::new(piece.saturating_add(HEADERS), DATA_AT)
    }

    /// For a destination that writes up to `piece` bytes at once.
    ///
    /// # Errors
    /// There is not so much memory.
    pub fn for_destination(piece: usize) -> Result<Self, TryReserveError> {
        Self::new(piece, 0)
    }

    /// The memory that a session is lent.
    pub fn bytes(&mut self) -> &mut [u8] {
        &mut self.memory[self.from..][..self.length]
    }

    /// `length` bytes of which those from `data_at` on begin with a page.
    fn new(length: usize, data_at: usize) -> Result<Self, TryReserveError> {
        let room = length.saturating_add(2 * PAGE);
        // Asked for first, since a failed allocation would end the process without a word.
        Vec::<u8>::new().try_reserve_exact(room)?;
        let memory = vec![0; room];
        let from = memory.as_ptr().align_offset(PAGE) + PAGE - data_at;
        Ok(Self { memory, from, length })
    }
}

/// The size of a page where pages are smallest.
const PAGE: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_begin_with_a_page_and_the_length_is_what_a_session_wants() {
        for piece in [64, 4096, 1 << 20] {
            let mut source = Buffer::for_source(piece).unwrap();
            let bytes = source.bytes();
            assert_eq!((bytes.len(), bytes[DATA_AT..].as_ptr().align_offset(PAGE)), (piece + HEADERS, 0));
            let mut destination = Buffer::for_destination(piece).unwrap();
            let bytes = destination.bytes();
            assert_eq!((bytes.len(), bytes.as_ptr().align_offset(PAGE)), (piece, 0));
        }
    }

    #[test]
    fn more_memory_than_there_is_is_refused() {
        assert!(Buffer::for_source(usize::MAX).is_err());
    }
}
