//! Large states through a file, a pipe and a move, with the memory that it takes.
//!
//! Deliberately absent: what a VM's own memory would add. The program moves devices alone.

use std::fs;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};

use super::{Folder, LARGE, MIB, Measured, check, device, let_run};
use crate::suite::Bench;
use crate::testdev::TestDevice;
use crate::tool::{self, DONE, vfio_migrate};

/// Each way takes as much memory for a large state as for a small one.
pub(super) fn everything(bench: &Bench) -> Result<()> {
    let mut peaks = Vec::new();
    for size in [SMALL, LARGE] {
        let source = device(bench.source.set(), 1, size)?;
        let destination = device(bench.source.set(), 2, size)?;
        let mut of_size = Vec::new();
        of_size.extend(through_file(&source, &destination, size)?);
        of_size.extend(through_pipe(&source, &destination, size)?);
        of_size.push(by_move(&source, &destination, size)?);
        peaks.push(of_size);
    }
    for (small, large) in peaks[0].iter().zip(&peaks[1]) {
        let grown = large.saturating_sub(*small);
        ensure!(*large < LIMIT && grown < MARGIN, "memory: wanted as much for each size, got {peaks:?}");
    }
    Ok(())
}

fn through_file(source: &TestDevice, destination: &TestDevice, size: u64) -> Result<[u64; 2]> {
    let folder = Folder::new("/tmp/large")?;
    let (content, file) = (source.checksum()?, folder.file());
    let save = Measured::run(&format!("save {} --output {file}", source.argument()?))?;
    let written = fs::metadata(&file).context("what was saved")?.len();
    ensure!(written > size, "wanted more than {size} bytes in the file, got {written}");
    let load = Measured::run(&format!("load {} --input {file}", destination.argument()?))?;
    check(source, content).context("the source")?;
    check(destination, content).context("the destination")?;
    let peaks = [save.peak, load.peak];
    save.expect(&[DONE], &format!("save of {size} bytes, a stream of {written} bytes"))?;
    load.expect(&[DONE], &format!("load of {size} bytes"))?;
    Ok(peaks)
}

fn through_pipe(source: &TestDevice, destination: &TestDevice, size: u64) -> Result<[u64; 2]> {
    let content = source.fill(3)?;
    let save = format!("save {} --output -", source.argument()?);
    let mut save = Measured::start(vfio_migrate(&save).stdin(Stdio::null()).stdout(Stdio::piped()))?;
    let pipe = save.child.stdout.take().context("it is piped")?;
    let load = format!("load {} --input -", destination.argument()?);
    let load = Measured::start(vfio_migrate(&load).stdin(pipe).stdout(Stdio::null()))?.finish()?;
    let save = save.finish()?;
    let peaks = [save.peak, load.peak];
    save.expect(&[DONE], &format!("save of {size} bytes into a pipe"))?;
    load.expect(&[DONE], &format!("load of {size} bytes from a pipe"))?;
    check(source, content).context("the source")?;
    check(destination, content).context("the destination")?;
    Ok(peaks)
}

fn by_move(source: &TestDevice, destination: &TestDevice, size: u64) -> Result<u64> {
    let content = source.fill(4)?;
    let moved = Measured::run(&format!("move {} {}", source.argument()?, destination.argument()?))?;
    let peak = moved.peak;
    moved.expect(&[DONE], &format!("move of {size} bytes"))?;
    check(destination, content).context("the destination")?;
    let_run(source)?;
    check(source, content).context("the source")?;
    Ok(peak)
}

/// Buffers from the smallest to more than the whole state, with and without pre-copy, and where the devices are
/// left.
pub(super) fn buffers(bench: &Bench) -> Result<()> {
    let folder = Folder::new("/tmp/buffers")?;
    for (size, buffer) in [(20_000, "64"), (20_000, "8MiB"), (4 * MIB, "4KiB"), (4 * MIB, "8MiB")] {
        let source = device(bench.source.set(), 1, size)?;
        let destination = device(bench.source.set(), 2, size)?;
        for (options, left) in [("--precopy", "RUNNING"), ("--leave stopped", "STOP")] {
            let (content, file) = (source.checksum()?, folder.file());
            let save = format!("save {} --output {file} --buffer {buffer} {options}", source.argument()?);
            tool::run(&save)?.expect(&[DONE])?;
            let leave = options.strip_prefix("--precopy").unwrap_or(options);
            let load = format!("load {} --input {file} --buffer {buffer} {leave}", destination.argument()?);
            tool::run(&load)?.expect(&[DONE])?;
            for device in [&source, &destination] {
                let got = (device.state()?, device.checksum()?);
                let wanted = (left.to_string(), content);
                ensure!(got == wanted, "{size} bytes, {buffer}, {options}: wanted {wanted:x?}, got {got:x?}");
            }
            destination.fill(9)?;
        }
    }
    Ok(())
}

const SMALL: u64 = 16 * MIB;
/// The most memory that a transfer may take: what the program is, and a few buffers of 1 MiB.
const LIMIT: u64 = 16 * MIB;
/// What else may differ between two runs.
const MARGIN: u64 = 2 * MIB;
