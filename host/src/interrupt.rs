//! A request to stop that wakes whoever waits for a file descriptor.
//!
//! Deliberately absent: stopping. A read or a write that sees the request fails with ECANCELED, and the session's
//! recovery does the rest; ioctls that recover are never held up by it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

/// A request to stop, shared by all its clones.
#[derive(Clone, Debug)]
pub struct Interrupt {
    signal: Arc<AtomicUsize>,
    woken: Arc<OwnedFd>,
    wake: Arc<OwnedFd>,
}

impl Interrupt {
    /// A request that nobody has made yet.
    ///
    /// # Errors
    /// The kernel has no file descriptor left for a pipe.
    pub fn new() -> io::Result<Self> {
        let (woken, wake) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        Ok(Self { signal: Arc::default(), woken: Arc::new(woken), wake: Arc::new(wake) })
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

    /// The signal that made the request, or nothing while there is none.
    #[must_use]
    pub fn asked(&self) -> Option<usize> {
        Some(self.signal.load(Ordering::Relaxed)).filter(|&signal| signal != 0)
    }
}

/// Repeats `call` until it has an answer: after EINTR at once, after EAGAIN when `fd` is ready for `flags`.
///
/// # Errors
/// The call's own, or ECANCELED as soon as `interrupt` is asked.
pub(crate) fn until_done<T>(
    interrupt: Option<&Interrupt>,
    fd: BorrowedFd<'_>,
    flags: PollFlags,
    mut call: impl FnMut() -> rustix::io::Result<T>,
) -> rustix::io::Result<T> {
    loop {
        if interrupt.is_some_and(|interrupt| interrupt.asked().is_some()) {
            return Err(Errno::CANCELED);
        }
        match call() {
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => wait(interrupt, fd, flags)?,
            answer => return answer,
        }
    }
}

/// Waits until `fd` is ready or `interrupt` is asked.
fn wait(interrupt: Option<&Interrupt>, fd: BorrowedFd<'_>, flags: PollFlags) -> rustix::io::Result<()> {
    let woken = interrupt.map_or(fd, |interrupt| interrupt.woken.as_fd());
    let mut fds = [PollFd::from_borrowed_fd(fd, flags), PollFd::from_borrowed_fd(woken, PollFlags::IN)];
    let count = if interrupt.is_some() { 2 } else { 1 };
    match poll(&mut fds[..count], None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_repeated_after_eintr_and_after_eagain_once_the_fd_is_ready() {
        let (_read, write) = pipe_with(PipeFlags::NONBLOCK).unwrap();
        let mut answers = [Ok(7), Err(Errno::AGAIN), Err(Errno::INTR), Err(Errno::INTR)].to_vec();
        let call = || answers.pop().unwrap_or(Err(Errno::IO));
        assert_eq!(until_done(None, write.as_fd(), PollFlags::OUT, call), Ok(7));
        assert_eq!(answers, []);
    }

    #[test]
    fn an_interrupt_wakes_a_wait_for_an_fd_that_is_never_ready() {
        let (read, _write) = pipe_with(PipeFlags::NONBLOCK).unwrap();
        let interrupt = Interrupt::new().unwrap();
        interrupt.ask(2);
        assert_eq!(wait(Some(&interrupt), read.as_fd(), PollFlags::IN), Ok(()));
    }

    #[test]
    fn an_interrupted_call_is_not_repeated_once_a_stop_is_asked_for() {
        let (_read, write) = pipe_with(PipeFlags::NONBLOCK).unwrap();
        let interrupt = Interrupt::new().unwrap();
        let mut calls = 0;
        let answer = until_done(Some(&interrupt), write.as_fd(), PollFlags::OUT, || {
            calls += 1;
            interrupt.ask(2);
            Err::<(), _>(Errno::INTR)
        });
        assert_eq!((answer, calls), (Err(Errno::CANCELED), 1));
    }
}
