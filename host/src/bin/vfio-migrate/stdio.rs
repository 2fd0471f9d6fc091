//! Standard input and output as ends of a stream, and words for people that may get lost.
//!
//! Deliberately absent: the standard library's buffers. A stream goes through the file descriptor alone, and `Link`
//! gathers what is small.

use std::fmt;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat};
use serde::Serialize;

use crate::Fail;

/// The file at `path`, or for `-` standard input, which the command line calls `option`.
pub(crate) fn input(path: &Path, option: &str) -> Result<OwnedFd, Fail> {
    if path.as_os_str() == "-" {
        return stream(std::io::stdin(), option);
    }
    File::open(path).map(OwnedFd::from).map_err(|error| Fail::io(path.display(), error))
}

/// Standard output, for a stream that the command line calls `option`.
pub(crate) fn output(option: &str) -> Result<OwnedFd, Fail> {
    stream(std::io::stdout(), option)
}

/// Prints one JSON object, for other programs.
pub(crate) fn json(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    writeln!(out)
}

/// Says a line to whoever reads standard error. A terminal that is gone must not keep the device from being put back.
pub(crate) fn say(line: impl fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn stream(end: impl AsFd + IsTerminal, option: &str) -> Result<OwnedFd, Fail> {
    let wrong = |got| Fail::usage(anyhow::anyhow!("{option}: wanted a pipe or a file, got {got}"));
    if end.is_terminal() {
        return Err(wrong("a terminal"));
    }
    if was_closed(&end) {
        return Err(wrong("a closed file descriptor, or /dev/null in its place"));
    }
    end.as_fd().try_clone_to_owned().map_err(|error| Fail::io(option, error))
}

/// Whether the program was started without this end: the runtime then puts `/dev/null` there, open for both ways.
fn was_closed(end: &impl AsFd) -> bool {
    let both_ways = fcntl_getfl(end).is_ok_and(|flags| flags.contains(OFlags::RDWR));
    let device = |stat: rustix::fs::Stat| {
        (FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice).then_some(stat.st_rdev)
    };
    let this = fstat(end).ok().and_then(device);
    both_ways && this.is_some() && this == rustix::fs::stat("/dev/null").ok().and_then(device)
}
