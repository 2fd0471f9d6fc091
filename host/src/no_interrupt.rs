//! What stands for a request to stop where there is no std: nobody can make one.
//!
//! Deliberately absent: any value of [`Interrupt`]. A caller says `None`, and what waits is ended by what it waits for.

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::BorrowedFd;
use rustix::io::{Errno, Result};

/// A request to stop that cannot be made. With the feature `std` it can.
#[derive(Clone, Debug)]
pub enum Interrupt {}

impl Interrupt {
    /// The signal that made the request.
    #[must_use]
    pub const fn asked(&self) -> Option<usize> {
        match *self {}
    }
}

/// Waits until `fd` is ready.
pub(crate) fn wait(_: Option<&Interrupt>, fd: BorrowedFd<'_>, flags: PollFlags) -> Result<()> {
    match poll(&mut [PollFd::from_borrowed_fd(fd, flags)], None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}
