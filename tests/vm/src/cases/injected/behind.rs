//! A guest's reset in the middle of a load, when everything but the stream's end has been taken.
//!
//! Deliberately absent: a reset within a call of the driver. That is one of the faults.

use std::fs;
use std::io::{self, Write as _};
use std::process::Stdio;

use anyhow::{Result, ensure};

use crate::suite::Bench;
use crate::testdev::TestDevice;
use crate::tool::{self, DEVICE_REFUSED, DONE, vfio_migrate, wait_until_stalled};

/// The kernel would take the next states as if the device had never been in RESUMING: it would run empty.
pub(super) fn load(bench: &Bench) -> Result<()> {
    let make =
        |number| TestDevice::create(bench.source.set(), &format!("b0000000-0000-0000-0000-{number:012}"));
    let (source, destination) = (make(1)?, make(2)?);
    let content = source.fill(7)?;
    tool::run(&format!("save {} --output {STATE}", source.argument()?))?.expect(&[DONE])?;
    let bytes = fs::read(STATE)?;
    let (read, mut write) = io::pipe()?;
    let command = format!("load {} --input -", destination.argument()?);
    let child = tool::start(vfio_migrate(&command).stdin(read).stdout(Stdio::null()))?;
    let (first, last) = bytes.split_at(bytes.len() - 10);
    write.write_all(first)?;
    wait_until_stalled(&child)?;
    let got = (destination.state()?, destination.checksum()?);
    ensure!(got == ("RESUMING".into(), content), "before the reset: wanted it to be loaded, got {got:x?}");
    destination.flr()?;
    write.write_all(last)?;
    drop(write);
    let words = ["the device refused STOP", "reset to RUNNING, its former content is gone"];
    tool::finish(child)?.expect_refusal(&[(DEVICE_REFUSED, &words)])?;
    let state = destination.state()?;
    ensure!(state == "RUNNING", "wanted RUNNING, got {state}");
    tool::run(&format!("load {} --input {STATE}", destination.argument()?))?.expect(&[DONE])?;
    ensure!(destination.checksum()? == content, "the next load brought another content");
    Ok(())
}

const STATE: &str = "/tmp/behind.state";
