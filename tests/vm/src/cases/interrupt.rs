//! Signals while the other end of a pipe says nothing: the device runs again.
//!
//! Deliberately absent: a signal while the driver works. `mtty` is never busy long enough to be met there; the test
//! device is, in `large`.

use std::fs;
use std::io::{self, Write as _};
use std::process::Stdio;

use anyhow::Result;
use rustix::process::Signal;

use super::{check_target_works, save};
use crate::device::{RUNNING, new_text};
use crate::stream::data_records;
use crate::suite::{Bench, Case};
use crate::tool::{self, vfio_migrate, wait_until_stalled};

pub(super) const CASES: &[Case] = &[
    ("interrupt_while_loading_leaves_the_device_running", |bench| {
        signal_while_loading(bench, Signal::INT, 130)
    }),
    ("termination_while_loading_leaves_the_device_running", |bench| {
        signal_while_loading(bench, Signal::TERM, 143)
    }),
    ("interrupt_while_saving_leaves_the_content", |bench| signal_while_saving(bench, Signal::INT, 130)),
    ("termination_while_saving_leaves_the_content", |bench| signal_while_saving(bench, Signal::TERM, 143)),
];

/// The pipe gives the first data record and then nothing more.
fn signal_while_loading(bench: &Bench, signal: Signal, code: i32) -> Result<()> {
    save(bench, "/tmp/state")?;
    let bytes = fs::read("/tmp/state")?;
    let data = data_records("/tmp/state")?;
    let (read, mut write) = io::pipe()?;
    write.write_all(&bytes[..data[0].end])?;
    let load = format!("load {} --input -", bench.target.argument()?);
    let child = tool::start(vfio_migrate(&load).stdin(read).stdout(Stdio::null()))?;
    wait_until_stalled(&child)?;
    tool::signal(&child, signal)?;
    tool::finish(child)?.expect(&[code])?;
    check_target_works(bench)
}

/// The pipe is full from the start, and nobody reads it.
fn signal_while_saving(bench: &Bench, signal: Signal, code: i32) -> Result<()> {
    let text = new_text();
    bench.source.fill(&text)?;
    let (read, mut write) = io::pipe()?;
    let capacity = rustix::pipe::fcntl_getpipe_size(&write)?;
    write.write_all(&vec![0; capacity])?;
    let save = format!("save {} --output -", bench.source.argument()?);
    let child = tool::start(vfio_migrate(&save).stdout(write))?;
    wait_until_stalled(&child)?;
    tool::signal(&child, signal)?;
    tool::finish(child)?.expect(&[code])?;
    drop(read);
    bench.source.check(RUNNING, &text)
}
