//! Core's `Transport` over a file, a pipe or a socket.
//!
//! Small sends are gathered and leave in one `writev` with the next large one; receiving reads a few bytes ahead, so
//! that a record's header comes with the data before it. A stream of large records costs one system call each.
//!
//! Deliberately absent: the configuration's body. Its layout belongs to the device that it configures.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::PollFlags;
use rustix::io::{Errno, readv, writev};
use vfio_migration_core::session::{Code, drive};
use vfio_migration_core::stream::record::DATA_HEAD;

use crate::interrupt::{Interrupt, until_done};
use crate::ioctl::code;

/// A stream over `Fd`. Use one for one direction.
#[derive(Debug)]
pub struct Link<Fd = OwnedFd> {
    fd: Fd,
    interrupt: Option<Interrupt>,
    gathered: Vec<u8>,
    ahead: [u8; DATA_HEAD],
    ahead_len: usize,
}

impl<Fd: AsFd> Link<Fd> {
    /// A link over `fd`. It may be non-blocking, and should be where an interrupt is to end a wait.
    pub fn new(fd: Fd, interrupt: Option<Interrupt>) -> Self {
        Self { fd, interrupt, gathered: Vec::with_capacity(GATHER), ahead: [0; DATA_HEAD], ahead_len: 0 }
    }

    /// Gives everything that was gathered to the kernel.
    ///
    /// # Errors
    /// The kernel's answer; EPIPE where the other end takes no more.
    pub fn flush(&mut self) -> Result<(), Code> {
        while !self.gathered.is_empty() {
            self.write_with(&[])?;
        }
        Ok(())
    }

    /// The file descriptor.
    pub const fn fd(&self) -> &Fd {
        &self.fd
    }

    /// One `writev` of what was gathered and of `bytes`; returns how many of `bytes` were taken.
    fn write_with(&mut self, bytes: &[u8]) -> Result<usize, Code> {
        let parts = [IoSlice::new(&self.gathered), IoSlice::new(bytes)];
        let write = || writev(&self.fd, &parts);
        let written =
            until_done(self.interrupt.as_ref(), self.fd.as_fd(), PollFlags::OUT, write).map_err(code)?;
        if written == 0 {
            return Err(code(Errno::PIPE));
        }
        let of_gathered = written.min(self.gathered.len());
        self.gathered.drain(..of_gathered);
        Ok(written - of_gathered)
    }

    fn take_ahead(&mut self, buffer: &mut [u8]) -> usize {
        let count = self.ahead_len.min(buffer.len());
        buffer[..count].copy_from_slice(&self.ahead[..count]);
        self.ahead.copy_within(count..self.ahead_len, 0);
        self.ahead_len -= count;
        count
    }
}

impl<Fd: AsFd> drive::Transport for Link<Fd> {
    fn send(&mut self, bytes: &[u8]) -> Result<usize, Code> {
        if self.gathered.len() + bytes.len() <= GATHER {
            self.gathered.extend_from_slice(bytes);
            return Ok(bytes.len());
        }
        loop {
            let taken = self.write_with(bytes)?;
            if taken > 0 {
                return Ok(taken);
            }
        }
    }

    fn recv(&mut self, buffer: &mut [u8]) -> Result<usize, Code> {
        let had = self.take_ahead(buffer);
        if had == buffer.len() {
            return Ok(had);
        }
        let rest = &mut buffer[had..];
        let room = rest.len();
        let mut parts = [IoSliceMut::new(rest), IoSliceMut::new(&mut self.ahead)];
        let read = || readv(&self.fd, &mut parts);
        let count =
            until_done(self.interrupt.as_ref(), self.fd.as_fd(), PollFlags::IN, read).map_err(code)?;
        self.ahead_len = count.saturating_sub(room);
        Ok(had + count.min(room))
    }

    fn send_config(&mut self) -> Result<(), Code> {
        Err(code(Errno::OPNOTSUPP))
    }

    fn recv_config(&mut self) -> Result<u64, Code> {
        Err(code(Errno::OPNOTSUPP))
    }
}

/// Bytes that are gathered before they are written by themselves: the headers between two large records.
const GATHER: usize = 512;
