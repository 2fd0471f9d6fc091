//! The library in the hands of a VMM: on a file descriptor that someone else has opened, in this process and in a
//! child that inherits it.
//!
//! Deliberately absent: a VMM's guest. Memory that a device writes to is mapped by nobody here.

use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};

use anyhow::{Context as _, Result, anyhow, ensure};
use vfio_migration_core::device::State;
use vfio_migration_core::session::Code;
use vfio_migration_core::session::drive::Device as _;
use vfio_migration_host::device::Device;
use vfio_migration_host::ioctl;
use vfio_migration_host::open::{Name, Opened};

use crate::device::{OpenCard, RUNNING, new_text};
use crate::suite::{Bench, Case};
use crate::tool::{self, DONE};

pub(super) const CASES: &[Case] = &[
    ("data_fd_is_closed_on_the_arc_that_ends_it", data_fd_life),
    ("reset_behind_the_library_is_told_and_leaves_no_data_fd", reset_behind),
    ("inherited_file_descriptor_is_saved_and_loaded", inherited),
];

fn data_fd_life(bench: &Bench) -> Result<()> {
    use State::{PreCopy, PreCopyP2p, Resuming, Running, Stop, StopCopy};
    let held = bench.target.open()?;
    let opened = borrow(&held)?;
    let mut device: Device<BorrowedFd<'_>> = Device::new(opened.as_fd())?;
    let way = [(PreCopy, 1), (PreCopyP2p, 1), (StopCopy, 1), (Stop, 0), (Resuming, 1)];
    walk(&mut device, &way)?;
    let refused = device.set_state(Stop);
    ensure!(refused == Err(Code(22)), "RESUMING without data to STOP: wanted EINVAL, got {refused:?}");
    let got = (device.state(), sessions()?);
    ensure!(got == (Resuming, 1), "after it: wanted RESUMING with a data fd, got {got:?}");
    reset(&mut device)?;
    walk(&mut device, &[(StopCopy, 1), (Resuming, 1)])?;
    reset(&mut device)?;
    walk(&mut device, &[(PreCopy, 1), (Running, 0)])
}

fn reset_behind(bench: &Bench) -> Result<()> {
    let held = bench.target.open()?;
    let opened = borrow(&held)?;
    let mut device = Device::new(opened.as_fd())?;
    walk(&mut device, &[(State::PreCopy, 1)])?;
    ioctl::device_reset(&opened)?;
    let told = device.set_state(State::StopCopy);
    ensure!(told == Err(Code(9)), "wanted EBADF, got {told:?}");
    let got = sessions()?;
    ensure!(got == 0, "after it: wanted no data fd, got {got}");
    walk(&mut device, &[(State::Stop, 0), (State::Running, 0)])
}

fn inherited(bench: &Bench) -> Result<()> {
    let text = new_text();
    bench.source.fill(&text)?;
    bench.target.fill("something else")?;
    for (card, command) in [(&bench.source, "save"), (&bench.target, "load")] {
        let held = card.open()?;
        // A duplicate that a child inherits; the card stays open here, as in a VMM.
        let passed = rustix::io::dup(borrow(&held)?.as_fd())?;
        let device = format!("fd:{}", passed.as_raw_fd());
        let file = if command == "save" { "--output" } else { "--input" };
        tool::run(&format!("{command} {device},driver=mtty {file} /tmp/state"))?.expect(&[DONE])?;
    }
    bench.target.check(RUNNING, &text)?;
    bench.source.check(RUNNING, &text).context("the source")
}

/// The descriptor that `held` has, as the library takes it from a VMM.
pub(super) fn borrow(held: &OpenCard) -> Result<Opened> {
    Ok(Name::Fd(held.number().try_into()?, None).open()?)
}

/// SETs one state after the other, and looks how many data sessions this process holds open then.
fn walk<Fd: std::os::fd::AsFd>(device: &mut Device<Fd>, way: &[(State, usize)]) -> Result<()> {
    for &(state, wanted) in way {
        device.set_state(state).map_err(|code| anyhow!("{code}")).with_context(|| state.name())?;
        let got = sessions()?;
        ensure!(got == wanted, "in {state}: wanted {wanted} open data fds, got {got}");
    }
    Ok(())
}

fn reset<Fd: std::os::fd::AsFd>(device: &mut Device<Fd>) -> Result<()> {
    device.reset().map_err(|code| anyhow!("reset: {code}"))?;
    let got = (device.state(), sessions()?);
    ensure!(got == (State::Running, 0), "after a reset: wanted RUNNING without a data fd, got {got:?}");
    Ok(())
}

/// How many data sessions of mtty this process has open.
fn sessions() -> Result<usize> {
    let fds = fs::read_dir("/proc/self/fd")?.flatten();
    Ok(fds
        .filter(|fd| fs::read_link(fd.path()).is_ok_and(|link| link.ends_with("anon_inode:mtty_mig")))
        .count())
}
