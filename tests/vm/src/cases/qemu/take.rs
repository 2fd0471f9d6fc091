//! What a QEMU saves is loaded by `vfio-migrate load`, device by device.
//!
//! Deliberately absent: the machine around the devices. Its sections are passed over.

use anyhow::{Context as _, Result};
use serde_json::json;

use super::{Scene, section};
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
        qemu.enable(&["return-path", "switchover-ack", "multifd"])?;
        qemu.set(json!({"multifd-channels": 2}))
    })
}

fn to_file(scene: &Scene, count: usize, prepare: fn(&mut Qemu) -> Result<()>) -> Result<String> {
    let (sources, targets) = (&scene.sources[..count], &scene.targets[..count]);
    let contents = sources.iter().map(|source| source.renew()).collect::<Result<Vec<_>>>()?;
    let cards: Vec<_> = sources.iter().map(|source| source.card()).collect();
    Qemu::save(&scene.setup(&cards), "file:/tmp/qemu", prepare)?;
    for (place, (target, content)) in targets.iter().zip(&contents).enumerate() {
        target.renew()?;
        let order = format!("--input /tmp/qemu --section {}", section(place));
        tool::run(&format!("load {} {order}", target.card().argument()?))?.expect(&[DONE])?;
        target.check(RUNNING, content).context(order)?;
    }
    seen("/tmp/qemu")
}

fn to_stand_in(scene: &Scene, others: usize, prepare: fn(&mut Qemu) -> Result<()>) -> Result<String> {
    let ([source, _], [target, _]) = (&scene.sources, &scene.targets);
    let content = source.renew()?;
    let stand_in = StandIn::listen(others)?;
    let cards = [source.card()];
    let setup = Setup { multifd: others > 0, ..scene.setup(&cards) };
    Qemu::save(&setup, StandIn::ADDRESS, prepare)?;
    let paths = stand_in.finish("/tmp/qemu")?;
    let channels: String = paths[1..].iter().map(|path| format!(" --channel {path}")).collect();
    target.renew()?;
    let order = format!("--input {} --section {}{channels}", paths[0], section(0));
    tool::run(&format!("load {} {order}", target.card().argument()?))?.expect(&[DONE])?;
    target.check(RUNNING, &content)?;
    seen(&paths[0])
}

/// The records of the devices' sections.
fn seen(path: &str) -> Result<String> {
    let sections = sections(path)?.into_iter().filter(|section| section.name.ends_with("/vfio"));
    let told = sections.map(|section| format!("{} {}", section.kind, section.record_names().join(" ")));
    Ok(told.collect::<Vec<_>>().join(", "))
}
