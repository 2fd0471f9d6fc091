//! A request to stop that wakes whoever waits for a file descriptor.
//!
//! Deliberately absent: stopping. A read or a write that sees the request fails with ECANCELED, and the session's
//! recovery does the rest; ioctls that recover are never held up by it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

/// A request to stop, shared by all its clones.
#[derive(Clone, Debug)]
pub struct Interrupt {
    signal: Arc<AtomicUsize>,
    woken: Arc<OwnedFd>,
    wake: Arc<OwnedFd>,
    /// Whose request is this one's as well.
    parent: Option<Box<Interrupt>>,
}

impl Interrupt {
    /// A request that nobody has made yet.
    ///
    /// # Errors
    /// The kernel has no file descriptor left for a pipe.
    pub fn new() -> io::Result<Self> {
        let (woken, wake) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        Ok(Self { signal: Arc::default(), woken: Arc::new(woken), wake: Arc::new(wake), parent: None })
    }

    /// A request that is also made when `parent`'s is.
    ///
    /// # Errors
    /// The kernel has no file descriptor left for a pipe.
    pub fn below(parent: Option<Self>) -> io::Result<Self> {
        Ok(Self { parent: parent.map(Box::new), ..Self::new()? })
    }

    /// From now on each of `signals` makes the request.
    ///
    /// # Errors
    /// A signal can't be caught.
    pub fn on(&self, signals: &[i32]) -> io::Result<()> {
        for &signal in signals {
            let number = usize::try_from(signal).unwrap_or_default();
            signal_hook::flag::register_usize(signal, Arc::clone(&self.signal), number)?;
            signal_hook::low_level::pipe::register(signal, self.wake.try_clone()?)?;
        }
        Ok(())
    }

    /// Makes the request in the name of `signal`.
    pub fn ask(&self, signal: usize) {
        self.signal.store(signal, Ordering::Relaxed);
        // A full pipe has woken everyone already.
        let _ = rustix::io::write(&*self.wake, &[1]);
    }

    /// Sleeps for `time`, or until the request is made.
    pub fn sleep(&self, time: Duration) {
        let time = Timespec::try_from(time).ok();
        let mut fds: Vec<_> = self.wakers().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        // A wait that ends early does no harm: whoever sleeps looks again.
        let _ = poll(&mut fds, time.as_ref());
    }

    /// The signal that made the request, or nothing while there is none.
    #[must_use]
    pub fn asked(&self) -> Option<usize> {
        let own = Some(self.signal.load(Ordering::Relaxed)).filter(|&signal| signal != 0);
        own.or_else(|| self.parent.as_ref()?.asked())
    }

    /// What becomes readable with the request.
    fn wakers(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        std::iter::successors(Some(self), |interrupt| interrupt.parent.as_deref())
            .map(|interrupt| interrupt.woken.as_fd())
    }
}

/// Waits until `fd` is ready or `interrupt` is asked.
pub(crate) fn wait(
    interrupt: Option<&Interrupt>,
    fd: BorrowedFd<'_>,
    flags: PollFlags,
) -> rustix::io::Result<()> {
    let wakers = interrupt.into_iter().flat_map(Interrupt::wakers);
    let wakers = wakers.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
    let mut fds: Vec<_> = [PollFd::from_borrowed_fd(fd, flags)].into_iter().chain(wakers).collect();
    match poll(&mut fds, None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupt_wakes_a_wait_for_an_fd_that_is_never_ready() {
        let (read, _write) = pipe_with(PipeFlags::NONBLOCK).unwrap();
        let interrupt = Interrupt::new().unwrap();
        interrupt.ask(2);
        assert_eq!(wait(Some(&interrupt), read.as_fd(), PollFlags::IN), Ok(()));
    }

    #[test]
    fn a_request_below_another_is_made_with_either() {
        let parent = Interrupt::new().unwrap();
        let [one, other] = [(); 2].map(|()| Interrupt::below(Some(parent.clone())).unwrap());
        one.ask(9);
        assert_eq!((parent.asked(), one.asked(), other.asked()), (None, Some(9), None));
        parent.ask(2);
        assert_eq!((one.asked(), other.asked()), (Some(9), Some(2)));
        let (read, _write) = pipe_with(PipeFlags::NONBLOCK).unwrap();
        assert_eq!(wait(Some(&other), read.as_fd(), PollFlags::IN), Ok(()));
    }
}
