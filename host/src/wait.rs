//! Calls that are repeated until they have an answer.
//!
//! Deliberately absent: a limit. Who waits too long asks an [`Interrupt`].

use rustix::event::PollFlags;
use rustix::fd::BorrowedFd;
use rustix::io::{Errno, Result};

use crate::interrupt::{Interrupt, wait};

/// Repeats `call` until it has an answer: after EINTR at once, after EAGAIN when `fd` is ready for `flags`.
///
/// # Errors
/// The call's own, or ECANCELED as soon as `interrupt` is asked.
pub(crate) fn until_done<T>(
    interrupt: Option<&Interrupt>,
    fd: BorrowedFd<'_>,
    flags: PollFlags,
    mut call: impl FnMut() -> Result<T>,
) -> Result<T> {
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

#[cfg(test)]
mod tests {
    use rustix::fd::AsFd as _;
    use rustix::pipe::{PipeFlags, pipe_with};

    use super::*;

    #[test]
    fn a_call_is_repeated_after_eintr_and_after_eagain_once_the_fd_is_ready() {
        let (_read, write) = pipe_with(PipeFlags::NONBLOCK).unwrap();
        let mut answers = [Ok(7), Err(Errno::AGAIN), Err(Errno::INTR), Err(Errno::INTR)].to_vec();
        let call = || answers.pop().unwrap_or(Err(Errno::IO));
        assert_eq!(until_done(None, write.as_fd(), PollFlags::OUT, call), Ok(7));
        assert_eq!(answers, []);
    }

    #[cfg(feature = "std")]
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
