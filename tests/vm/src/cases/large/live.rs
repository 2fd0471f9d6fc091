//! Devices that change while they are copied.
//!
//! Deliberately absent: times. What is asserted is how many bytes were left for the stop, and what was advised.

use std::fs::{self, File};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use vfio_migration_core::session::Event;
use vfio_migration_host::buffer::Buffer;
use vfio_migration_host::device::Device;
use vfio_migration_host::link::Link;
use vfio_migration_host::open::{Name, Opened};
use vfio_migration_host::transfer::{Load, Member, PreCopy, Save, load, save};

use super::{Folder, LARGE, MIB, Measured, check, device, let_run, moved};
use crate::suite::Bench;
use crate::testdev::TestDevice;
use crate::tool::{self, DEVICE_REFUSED, DONE, remove};

/// The content after the stop is what arrives, and most of it was moved before.
pub(super) fn converges(bench: &Bench) -> Result<()> {
    let source = device(bench.source.set(), 1, LARGE)?;
    let destination = device(bench.source.set(), 2, LARGE)?;
    source.knob("dirty_rate", 2 * MIB)?;
    let folder = Folder::new("/tmp/live")?;
    let (before, file) = (source.checksum()?, folder.file());
    let save = format!("save {} --precopy {SHORT} --output {file}", source.argument()?);
    let saved = Measured::run(&save)?.expect(&[DONE], "save --precopy of 256 MiB that change slowly")?;
    check_little_was_left(&saved.errors())?;
    let content = source.checksum()?;
    ensure!(before != content, "the content did not change in pre-copy");
    let load = format!("load {} --input {file}", destination.argument()?);
    Measured::run(&load)?.expect(&[DONE], "load of it")?;
    check(&source, content).context("the source")?;
    check(&destination, content).context("the destination")?;
    drop(folder);
    source.fill(3)?;
    let order = format!("move {} {} --precopy {SHORT}", source.argument()?, destination.argument()?);
    let said = Measured::run(&order)?.expect(&[DONE], "move --precopy of 256 MiB that change slowly")?;
    check_little_was_left(&said.errors())?;
    let content = source.checksum()?;
    let_run(&source)?;
    check(&destination, content).context("the destination of the move")
}

fn check_little_was_left(said: &str) -> Result<()> {
    let (moved, all) = moved(said)?;
    println!("# {moved} of {all} bytes were moved while the device stood still");
    ensure!(moved > 0 && moved * 5 < all, "moved in the stop: wanted a small part of {all}, got {moved}");
    Ok(())
}

/// A device that changes four times as quickly as it can be read.
pub(super) fn does_not_converge(bench: &Bench) -> Result<()> {
    let source = device(bench.source.set(), 1, LARGE)?;
    let destination = device(bench.source.set(), 2, LARGE)?;
    let folder = Folder::new("/tmp/live")?;
    let (from, to, file) = (source.argument()?, destination.argument()?, folder.file());
    for (command, allowed) in [
        (format!("save {from} --precopy --patience 2s --output {file}"), "allowed are 300 ms"),
        (format!("save {from} --precopy --patience 2s {SHORT} --output {file}"), "allowed are 50 ms"),
        (format!("move {from} {to} --precopy --patience 2s {SHORT}"), "allowed are 50 ms"),
    ] {
        source.knob("dirty_per_read", 4 * MIB)?;
        let before = source.checksum()?;
        let refused = Measured::run(&command)?;
        let what = format!("refusal of 256 MiB that change quickly, {allowed}");
        let said = refused.expect(&[DEVICE_REFUSED], &what)?.errors();
        for word in ["will not converge", "allow a longer downtime, or save without pre-copy", allowed] {
            ensure!(said.contains(word), "{command}: wanted the words {word:?}, got {said}");
        }
        folder.check_empty()?;
        let content = source.checksum()?;
        ensure!(content != before, "{command}: what the device changed was undone");
        check(&source, content).context(command)?;
    }
    // The source's guest works on, and the advice is good.
    source.fill(3)?;
    tool::run(&format!("move {from} {to} --precopy --max-downtime 1m"))?.expect(&[DONE])?;
    let content = source.checksum()?;
    let_run(&source)?;
    check(&destination, content)
}

/// With feature 12 a driver may begin its initial data anew: once more they are told to be through, in a stream
/// whose reader has agreed to that, and the content arrives.
pub(super) fn begins_anew(bench: &Bench) -> Result<()> {
    let source = device(bench.source.set(), 1, 4 * MIB)?;
    let destination = device(bench.source.set(), 2, 4 * MIB)?;
    source.knob("initial", MIB)?;
    source.knob("reinit_after", 3 * MIB)?;
    source.knob("dirty_per_read", 64 << 10)?;
    let folder = Folder::new("/tmp/anew")?;
    save_with_acknowledgement(&source, &folder.file())?;
    let sent = init_data_sent(&folder.file())?;
    ensure!(sent == 2, "INIT_DATA_SENT in the stream: wanted 2, got {sent}");
    load_with_agreement(&destination, &folder.file())?;
    let content = source.checksum()?;
    check(&source, content)?;
    check(&destination, content).context("the destination")?;
    let content = source.fill(3)?;
    source.knob("initial", 4 * MIB)?;
    source.knob("reinit_after", MIB)?;
    source.knob("dirty_per_read", 0)?;
    remove(TRACE)?;
    let order = format!("move {} {} --precopy", source.argument()?, destination.argument()?);
    let said = tool::run(&format!("{order} --trace-json {TRACE}"))?.expect(&[DONE])?.errors();
    let trace = fs::read_to_string(TRACE)?;
    ensure!(trace.contains("\"reinit\":true"), "wanted initial data to begin anew, got {said}");
    let (_, all) = moved(&said)?;
    ensure!(all > 5 * MIB, "wanted 1 MiB and then all 4 MiB to be moved, got {all} bytes");
    let_run(&source)?;
    check(&destination, content).context("the destination of the move")
}

/// Saves with pre-copy for a reader that acknowledges initial data as soon as they began anew.
fn save_with_acknowledgement(card: &TestDevice, path: &str) -> Result<()> {
    let acknowledged = AtomicUsize::new(0);
    let pre_copy = PreCopy { switchover_ack: Some(&acknowledged), ..PreCopy::default() };
    let plan = Save { pre_copy: Some(pre_copy), ..Save::default() };
    let watch = |event: &Event| {
        if let Event::PrecopyInfo { result: Ok(info) } = event
            && info.reinit
        {
            acknowledged.store(2, Ordering::Relaxed);
        }
    };
    with(card, |member| {
        let link = Link::new(File::create(path)?, None);
        Ok(save(vec![member], link, &plan, || Ok(()), &watch).map(drop)?)
    })
}

fn load_with_agreement(card: &TestDevice, path: &str) -> Result<()> {
    let plan = Load { switchover_ack: true, ..Load::default() };
    with(card, |member| {
        let link = Link::new(File::open(path)?, None);
        Ok(load(vec![member], link, &plan, &|_: &Event| {}).map(drop)?)
    })
}

/// Opens a card through the library for one transfer.
fn with(card: &TestDevice, work: impl FnOnce(Member<'_, Device<Opened>>) -> Result<()>) -> Result<()> {
    let name: Name = card.argument()?.parse()?;
    let identity = name.identify()?;
    let mut device = Device::new(name.open()?)?;
    device.opt_in_precopy_info_v2()?;
    let (features, now, idstr) = (device.features(), device.state(), identity.idstr());
    let mut buffer = Buffer::for_source(64 << 10)?;
    let buffer = buffer.bytes();
    work(Member { device: &mut device, features, now, identity: &identity, idstr, buffer })
}

/// How many INIT_DATA_SENT are in a saved file.
fn init_data_sent(path: &str) -> Result<usize> {
    let text = tool::run(&format!("inspect {path} --json"))?.expect(&[DONE])?.output();
    let contents: Value = serde_json::from_str(&text)?;
    let sections = contents["sections"].as_array().context("no sections")?;
    let records = sections.iter().flat_map(|section| section["records"].as_array().into_iter().flatten());
    Ok(records.filter(|record| record["record"] == "INIT_DATA_SENT").count())
}

/// A downtime in which a small part of a large state can be moved.
const SHORT: &str = "--max-downtime 50ms";
const TRACE: &str = "/tmp/trace";
