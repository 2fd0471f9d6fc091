//! A link that is read in large pieces, for a reader that takes it in small ones.
//!
//! Deliberately absent: leaving off. What was read ahead is lost when the link is used otherwise, so the stream must be
//! read to its end through this.

use rustix::io::Errno;
use vfio_migration_core::session::Code;
use vfio_migration_core::session::drive::Transport;

use crate::errno::code;

/// A link with up to [`AHEAD`] bytes that were read from it and not asked for yet.
#[derive(Debug)]
pub(super) struct Ahead<T> {
    link: T,
    bytes: Box<[u8]>,
    taken: usize,
    have: usize,
}

impl<T: Transport> Ahead<T> {
    pub(super) fn new(link: T) -> Self {
        Self { link, bytes: vec![0; AHEAD].into(), taken: 0, have: 0 }
    }

    /// The next `count` bytes, which stay to be read; fewer where the link ends before, and at most [`AHEAD`].
    ///
    /// # Errors
    /// The link's answer.
    pub(super) fn peek(&mut self, count: usize) -> Result<&[u8], Code> {
        if self.have - self.taken < count {
            self.bytes.copy_within(self.taken..self.have, 0);
            (self.taken, self.have) = (0, self.have - self.taken);
        }
        while self.have - self.taken < count.min(AHEAD) {
            match self.link.recv(&mut self.bytes[self.have..])? {
                0 => break,
                more => self.have += more,
            }
        }
        let peeked = &self.bytes[self.taken..self.have];
        Ok(&peeked[..count.min(peeked.len())])
    }
}

impl<T: Transport> Transport for Ahead<T> {
    fn send(&mut self, _: &[u8]) -> Result<usize, Code> {
        Err(code(Errno::OPNOTSUPP))
    }

    fn recv(&mut self, buffer: &mut [u8]) -> Result<usize, Code> {
        if self.taken == self.have {
            if buffer.len() >= AHEAD {
                return self.link.recv(buffer);
            }
            (self.taken, self.have) = (0, self.link.recv(&mut self.bytes)?);
        }
        let count = buffer.len().min(self.have - self.taken);
        buffer[..count].copy_from_slice(&self.bytes[self.taken..][..count]);
        self.taken += count;
        Ok(count)
    }

    fn send_config(&mut self) -> Result<(), Code> {
        Err(code(Errno::OPNOTSUPP))
    }

    fn recv_config(&mut self) -> Result<u64, Code> {
        Err(code(Errno::OPNOTSUPP))
    }
}

/// Bytes that are read ahead at most.
const AHEAD: usize = 64 * 1024;
