//! Several large devices at once, and large streams that must not be believed.
//!
//! Deliberately absent: each byte of a stream. Those of a small one are all damaged in `refusal`.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use super::{Folder, MIB, Measured, check, device};
use crate::steps::{check_order, told};
use crate::stream::data_records;
use crate::suite::Bench;
use crate::testdev::TestDevice;
use crate::tool::{self, DEVICE_REFUSED, DONE, Refusal, STREAM_REFUSED, remove};

/// Four devices of 64 MiB each.
pub(super) fn lockstep(bench: &Bench) -> Result<()> {
    let make = |number| device(bench.source.set(), number, 64 * MIB);
    let sources: Vec<_> = (1..5).map(make).collect::<Result<_>>()?;
    let destinations: Vec<_> = (5..9).map(make).collect::<Result<_>>()?;
    let folder = Folder::new("/tmp/several")?;
    for source in &sources {
        source.knob("dirty_rate", MIB)?;
    }
    let save = format!("save {} --precopy --output {}", names(&sources)?, folder.file());
    watched(&save, &["PRE_COPY", "PRE_COPY_P2P", "STOP_COPY", "STOP", "RUNNING_P2P", "RUNNING"])?;
    let load = format!("load {} --input {}", names(&destinations)?, folder.file());
    watched(&load, &["RESUMING", "STOP", "RUNNING_P2P", "RUNNING"])?;
    for (source, destination) in sources.iter().zip(&destinations) {
        let content = source.checksum()?;
        check(source, content).context("a source")?;
        check(destination, content).context("a destination")?;
    }
    Ok(())
}

/// Runs a command with four devices, and checks the order of its steps.
fn watched(command: &str, states: &[&str]) -> Result<()> {
    remove("/tmp/trace")?;
    let run = Measured::run(&format!("{command} --trace-json /tmp/trace"))?;
    let said = run.expect(&[DONE], "four devices of 64 MiB")?.errors();
    check_order(&told("/tmp/trace")?, 4, states)?;
    println!("# {}", said.lines().last().unwrap_or_default());
    Ok(())
}

fn names(devices: &[TestDevice]) -> Result<String> {
    let names: Vec<_> = devices.iter().map(TestDevice::argument).collect::<Result<_>>()?;
    Ok(names.join(" "))
}

/// Afterwards the device runs, is empty where its driver was given data, and takes a good state.
pub(super) fn refusals(bench: &Bench) -> Result<()> {
    let source = device(bench.source.set(), 1, SIZE)?;
    let destination = device(bench.source.set(), 2, SIZE)?;
    let folder = Folder::new("/tmp/refused")?;
    let (good, bad) = (folder.file(), format!("{}.bad", folder.file()));
    let content = source.checksum()?;
    tool::run(&format!("save {} --output {good}", source.argument()?))?.expect(&[DONE])?;
    let bytes = fs::read(&good)?;
    let load = format!("load {} --input", destination.argument()?);
    for cut in [10, bytes.len() / 3, bytes.len() / 2, bytes.len() - 1] {
        fs::write(&bad, &bytes[..cut])?;
        tool::run(&format!("{load} {bad}"))?
            .expect_refusal(&[CUT])
            .with_context(|| format!("cut at {cut}"))?;
    }
    let data = data_records(&good)?;
    for at in [data[0].start + 20, data[data.len() / 2].end - 1, bytes.len() - 10] {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        fs::write(&bad, &damaged)?;
        tool::run(&format!("{load} {bad}"))?
            .expect_refusal(&[CUT, REFUSED])
            .with_context(|| format!("damaged at {at}"))?;
    }
    tool::run(&format!("save sim:size=4096,seed=7 --output {bad}"))?.expect(&[DONE])?;
    tool::run(&format!("{load} {bad}"))?
        .expect_refusal(&[(STREAM_REFUSED, &["sim", "migtest", "wanted"])])?;
    tool::run(&format!("{load} {bad} --force"))?.expect_refusal(&[REFUSED]).context("by force")?;
    let state = destination.state()?;
    ensure!(state == "RUNNING", "wanted RUNNING, got {state}");
    tool::run(&format!("{load} {good}"))?.expect(&[DONE])?;
    check(&destination, content)
}

/// What is said of bytes that are missing or other ones.
const CUT: Refusal<'_> = (STREAM_REFUSED, &["wanted", "byte"]);
/// What is said of data that the driver did not take.
const REFUSED: Refusal<'_> = (DEVICE_REFUSED, &["section", "record", "byte"]);

const SIZE: u64 = 16 * MIB;
