//! Standard input and output as links, and pipes that an interrupt can end.

use std::io::IsTerminal;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, fstat, open};

use crate::Fail;

/// Standard input, for a stream.
pub(crate) fn input() -> Result<OwnedFd, Fail> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        return Err(Fail::usage(anyhow::anyhow!("--input -: wanted a pipe or a file, got a terminal")));
    }
    let fd = stdin.as_fd().try_clone_to_owned().map_err(|error| Fail::io("standard input", error))?;
    interruptible(fd, OFlags::RDONLY).map_err(|error| Fail::io("standard input", error))
}

/// Standard output, for a stream.
pub(crate) fn output() -> Result<OwnedFd, Fail> {
    let stdout = std::io::stdout();
    if stdout.is_terminal() {
        return Err(Fail::usage(anyhow::anyhow!("--output -: wanted a pipe or a file, got a terminal")));
    }
    let fd = stdout.as_fd().try_clone_to_owned().map_err(|error| Fail::io("standard output", error))?;
    interruptible(fd, OFlags::WRONLY).map_err(|error| Fail::io("standard output", error))
}

/// The same pipe, non-blocking. O_NONBLOCK belongs to the open file description, which other processes share, so a
/// pipe is opened anew. What is no pipe stays as it is: files do not block.
pub(crate) fn interruptible(fd: OwnedFd, access: OFlags) -> std::io::Result<OwnedFd> {
    if FileType::from_raw_mode(fstat(&fd)?.st_mode) != FileType::Fifo {
        return Ok(fd);
    }
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd));
    Ok(open(path, access | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?)
}
