//! A process that may make few system calls: any other one ends it.
//!
//! What a program does not need is shown by not letting it have it. `brk`, `mmap` and their like are not among the calls.
//!
//! Deliberately absent: a look at a call's arguments.
#![allow(unsafe_code)]

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::Result;
use rustix::io::Errno;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

/// Lets `command` make no other calls than [`ALLOWED`].
pub(crate) fn confine(mut command: Command) -> Result<Command> {
    let rules = ALLOWED.iter().map(|&(_, number)| (number, Vec::new())).collect();
    let filter =
        SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, TargetArch::x86_64)?;
    let program = BpfProgram::try_from(filter)?;
    let apply = move || seccompiler::apply_filter(&program).map_err(|_| io::Error::from(Errno::PERM));
    // SAFETY: between fork and exec the closure makes two system calls, prctl and seccomp. It takes no lock and
    // allocates nothing, and the filter was made before the fork.
    unsafe { command.pre_exec(apply) };
    Ok(command)
}

/// The calls with their numbers. The first one starts the program.
pub(crate) const ALLOWED: [(&str, libc::c_long); 11] = [
    ("execve", libc::SYS_execve),
    ("rt_sigaction", libc::SYS_rt_sigaction),
    ("open", libc::SYS_open),
    ("close", libc::SYS_close),
    ("ioctl", libc::SYS_ioctl),
    ("fcntl", libc::SYS_fcntl),
    ("read", libc::SYS_read),
    ("readv", libc::SYS_readv),
    ("write", libc::SYS_write),
    ("writev", libc::SYS_writev),
    ("exit_group", libc::SYS_exit_group),
];
