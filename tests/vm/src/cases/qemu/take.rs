//! What a QEMU saves is loaded by `vfio-migrate load`, device by device.
//!
//! Deliberately absent: the machine around the devices. Its sections are passed over.

use anyhow::{Context as _, Result};
use serde_json::json;

use super::{Scene, Subject, section};
use crate::device::RUNNING;
use crate::qemu::{Qemu, Setup, StandIn};
use crate::stream::sections;
use crate::tool::{self, DONE};

/// The machine runs until QEMU stops it.
pub(super) fn pre_copy(scene: &Scene) -> Result<String> {
    to_file(scene, 1, |_| Ok(()))
}

/// The machine is stopped before, so that the device is never in pre-copy.
pub(super) fn stopped(scene: &Scene) -> Result<String> {
    to_file(scene, 1, Qemu::stop)
}

/// Two devices of one machine.
pub(super) fn two(scene: &Scene) -> Result<String> {
    to_file(scene, 2, |_| Ok(()))
}

/// QEMU stops its machine when the other side has the initial data.
pub(super) fn switchover_ack(scene: &Scene) -> Result<String> {
    to_stand_in(scene, 0, |qemu| qemu.enable(&["return-path", "switchover-ack"]))
}

/// The state goes over two channels of its own.
pub(super) fn multifd(scene: &Scene) -> Result<String> {
    to_stand_in(scene, 2, |qemu| {
        qemu.enable(&["return-path", "multifd"])?;
        qemu.set(json!({"multifd-channels": 2}))
    })
}

/// The same when the other side has the initial data.
pub(super) fn multifd_and_switchover_ack(scene: &Scene) -> Result<String> {
    to_stand_in(scene, 2, |qemu| {
        qemu.enable(&["return-path", "multifd", "switchover-ack"])?;
        qemu.set(json!({"multifd-channels": 2}))
    })
}

/// Lets QEMU save the first `count` devices into a file, and loads them into others at once.
fn to_file(scene: &Scene, count: usize, prepare: fn(&mut Qemu) -> Result<()>) -> Result<String> {
    let sources = &scene.sources[..count];
    let cards: Vec<_> = sources.iter().map(|source| source.card()).collect();
    let contents =
        save(&Setup::running(&scene.version, &cards), sources, &format!("file:{STREAM}"), prepare)?;
    load(&scene.targets[..count], &contents, STREAM, "")?;
    seen(STREAM)
}

/// Lets QEMU save a device over sockets, and loads what came there.
fn to_stand_in(scene: &Scene, others: usize, prepare: fn(&mut Qemu) -> Result<()>) -> Result<String> {
    let sources = &scene.sources[..1];
    let cards = [sources[0].card()];
    let stand_in = StandIn::listen(others)?;
    let setup = Setup { multifd: others > 0, ..Setup::running(&scene.version, &cards) };
    let contents = save(&setup, sources, StandIn::ADDRESS, prepare)?;
    let paths = stand_in.finish(STREAM)?;
    let channels: String = paths[1..].iter().map(|path| format!(" --channel {path}")).collect();
    load(&scene.targets[..1], &contents, &paths[0], &channels)?;
    seen(&paths[0])
}

/// Lets QEMU save its machine; returns its devices' contents.
fn save(
    setup: &Setup,
    sources: &[Box<dyn Subject>],
    to: &str,
    prepare: fn(&mut Qemu) -> Result<()>,
) -> Result<Vec<String>> {
    let mut contents = sources.iter().map(|source| source.renew()).collect::<Result<Vec<_>>>()?;
    Qemu::save(setup, to, |qemu| {
        for (source, content) in sources.iter().zip(&mut contents) {
            *content = source.renew_in_machine(content.clone())?;
        }
        prepare(qemu)
    })?;
    Ok(contents)
}

/// Loads a stream of QEMU's into devices, twice: as it is, and extracted to a file of ours.
fn load(targets: &[Box<dyn Subject>], contents: &[String], stream: &str, channels: &str) -> Result<()> {
    let names: String = (0..targets.len()).map(|place| format!(" --section {}", section(place))).collect();
    let devices =
        targets.iter().map(|target| target.card().argument()).collect::<Result<Vec<_>>>()?.join(" ");
    tool::run(&format!("extract {stream}{names}{channels} --output {EXTRACTED}"))?.expect(&[DONE])?;
    for order in [format!("--input {stream}{names}{channels}"), format!("--input {EXTRACTED} --force")] {
        targets.iter().try_for_each(|target| target.renew().map(drop))?;
        tool::run(&format!("load {devices} {order}"))?.expect(&[DONE]).context(order.clone())?;
        for (target, content) in targets.iter().zip(contents) {
            target.check(RUNNING, content).with_context(|| order.clone())?;
        }
    }
    Ok(())
}

/// The records of the devices' sections.
fn seen(path: &str) -> Result<String> {
    let sections = sections(path)?.into_iter().filter(|section| section.name.ends_with("/vfio"));
    let mut told: Vec<_> =
        sections.map(|section| format!("{} {}", section.kind, section.record_names().join(" "))).collect();
    told.dedup();
    Ok(told.join(", "))
}

const STREAM: &str = "/tmp/qemu";
const EXTRACTED: &str = "/tmp/extracted";
