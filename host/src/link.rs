//! Core's `Transport` over a file, a pipe or a socket.
//!
//! Small sends are gathered and leave in one `writev` with the next large one; receiving reads a few bytes ahead, so
//! that a record's header comes with the data before it. A stream of large records costs one system call each.
//!
//! A blocking pipe or socket is asked whether it is ready before each call, so that an interrupt ends a wait there too:
//! `O_NONBLOCK` belongs to the open file description, which other processes may share, and is not ours to set.
//!
//! Deliberately absent: the configuration's body. Its layout belongs to the device that it configures.

#[cfg(feature = "std")]
use std::io;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat};
use rustix::io::{Errno, IoSlice, IoSliceMut, readv, writev};
use rustix::pipe::PIPE_BUF;
use vfio_migration_core::session::{Code, drive};
use vfio_migration_core::stream::record::DATA_HEAD;

use crate::errno::code;
use crate::interrupt::Interrupt;
use crate::wait::until_done;

/// A stream over `Fd`. Use one for one direction.
///
/// What was gathered leaves with the next large send or by [`Link::flush`], never by dropping the link: flush it before
/// you let go of it, or the stream lacks its last bytes.
#[derive(Debug)]
pub struct Link<Fd = OwnedFd> {
    fd: Fd,
    interrupt: Option<Interrupt>,
    gathered: [u8; GATHER],
    gathered_len: usize,
    ahead: [u8; DATA_HEAD],
    ahead_len: usize,
    /// Whether a call could block, and an interrupt is to end that.
    paced: bool,
}

impl<Fd: AsFd> Link<Fd> {
    /// A link over `fd`, blocking or not. What waits for it ends with ECANCELED when `interrupt` is asked.
    pub fn new(fd: Fd, interrupt: Option<Interrupt>) -> Self {
        let paced = interrupt.is_some() && may_block(fd.as_fd());
        Self {
            fd,
            interrupt,
            gathered: [0; GATHER],
            gathered_len: 0,
            ahead: [0; DATA_HEAD],
            ahead_len: 0,
            paced,
        }
    }

    /// A request that ends what waits for the link, beside the one that did before.
    ///
    /// # Errors
    /// The kernel has no file descriptor left for a pipe.
    #[cfg(feature = "std")]
    pub fn interrupt(&mut self) -> io::Result<Interrupt> {
        let interrupt = Interrupt::below(self.interrupt.take())?;
        self.interrupt = Some(interrupt.clone());
        self.paced = may_block(self.fd.as_fd());
        Ok(interrupt)
    }

    /// Gives everything that was gathered to the kernel.
    ///
    /// # Errors
    /// The kernel's answer; EPIPE where the other end takes no more.
    pub fn flush(&mut self) -> Result<(), Code> {
        while self.gathered_len > 0 {
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
        let room = if self.paced { PIPE_BUF.saturating_sub(self.gathered_len) } else { bytes.len() };
        let parts = [
            IoSlice::new(&self.gathered[..self.gathered_len]),
            IoSlice::new(&bytes[..room.min(bytes.len())]),
        ];
        let write =
            || ready(self.fd.as_fd(), self.paced, PollFlags::OUT).and_then(|()| writev(&self.fd, &parts));
        let written =
            until_done(self.interrupt.as_ref(), self.fd.as_fd(), PollFlags::OUT, write).map_err(code)?;
        if written == 0 {
            return Err(code(Errno::PIPE));
        }
        let of_gathered = written.min(self.gathered_len);
        self.gathered.copy_within(of_gathered..self.gathered_len, 0);
        self.gathered_len -= of_gathered;
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
        if let Some(room) = self.gathered[self.gathered_len..].get_mut(..bytes.len()) {
            room.copy_from_slice(bytes);
            self.gathered_len += bytes.len();
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
        let (fd, paced) = (self.fd.as_fd(), self.paced);
        let read = || ready(fd, paced, PollFlags::IN).and_then(|()| readv(fd, &mut parts));
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

/// Whether reads and writes of `fd` may wait in the kernel: not those of a file, nor of what is non-blocking.
fn may_block(fd: BorrowedFd<'_>) -> bool {
    let nonblocking = fcntl_getfl(fd).is_ok_and(|flags| flags.contains(OFlags::NONBLOCK));
    let file = fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile);
    !nonblocking && !file
}

/// EAGAIN where a paced `fd` would make a call wait. A pipe that is ready takes `PIPE_BUF` bytes without waiting.
fn ready(fd: BorrowedFd<'_>, paced: bool, flags: PollFlags) -> rustix::io::Result<()> {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let waits = paced && poll(&mut [PollFd::from_borrowed_fd(fd, flags)], Some(&now))? == 0;
    if waits { Err(Errno::AGAIN) } else { Ok(()) }
}

/// Bytes that are gathered before they are written by themselves: the headers between two large records.
const GATHER: usize = 512;

#[cfg(test)]
mod tests {
    use rustix::pipe::pipe;

    use super::drive::Transport as _;
    use super::*;

    #[test]
    fn small_pieces_leave_with_a_large_one_and_arrive_in_their_order() {
        let (read, write) = pipe().unwrap();
        let (mut from, mut to) = (Link::new(write, None), Link::new(read, None));
        let large = [7; GATHER];
        for (sent, waiting) in [(&b"head"[..], 0), (b"more", 0), (&large, 8 + GATHER), (b"end", 8 + GATHER)] {
            assert_eq!(from.send(sent), Ok(sent.len()));
            let there = rustix::io::ioctl_fionread(to.fd()).unwrap();
            assert_eq!(there, waiting as u64);
        }
        from.flush().unwrap();
        let mut got = [0; 8 + GATHER + 3];
        for piece in got.chunks_mut(5) {
            assert_eq!(to.recv(piece), Ok(piece.len()));
        }
        assert_eq!(
            got.strip_prefix(b"headmore").and_then(|rest| rest.strip_prefix(&large)),
            Some(&b"end"[..])
        );
        drop(from);
        assert_eq!(to.recv(&mut [0; 5]), Ok(0));
    }

    #[test]
    fn gathered_bytes_that_no_longer_have_room_leave_first() {
        let (read, write) = pipe().unwrap();
        let mut link = Link::new(write, None);
        for at in 0..GATHER {
            assert_eq!(link.send(&[at.to_le_bytes()[0]]), Ok(1));
        }
        assert_eq!(link.send(b"x"), Ok(1));
        let mut got = [0; GATHER + 1];
        assert_eq!(rustix::io::read(&read, &mut got), Ok(GATHER + 1));
        assert!(got[..GATHER].iter().enumerate().all(|(at, &byte)| byte == at.to_le_bytes()[0]));
        assert_eq!(got[GATHER], b'x');
    }
}
