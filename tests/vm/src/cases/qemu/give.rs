//! What `vfio-migrate save --qemu-id` writes is loaded by a QEMU as it is.
//!
//! QEMU stops its machine, and with it the device, before it ends.
//!
//! Deliberately absent: a stream of a whole machine. `splice` has that.

use anyhow::Result;

use super::Scene;
use crate::device::STOP;
use crate::qemu::{DEVICES, Qemu, Setup};
use crate::stream::sections;
use crate::tool::{self, DONE};

/// All of the state in one END section.
pub(super) fn one_end(scene: &Scene) -> Result<String> {
    give(scene, 1, "")
}

/// A part of the state in PART sections.
pub(super) fn parts(scene: &Scene) -> Result<String> {
    give(scene, 1, "--precopy")
}

/// The state with the device's configuration behind it.
pub(super) fn config(scene: &Scene) -> Result<String> {
    give(scene, 1, "--config")
}

/// Two devices of one machine.
pub(super) fn two(scene: &Scene) -> Result<String> {
    give(scene, 2, "")
}

/// Saves the first `count` devices, and lets a QEMU load them into others.
fn give(scene: &Scene, count: usize, options: &str) -> Result<String> {
    let (sources, targets) = (&scene.sources[..count], &scene.targets[..count]);
    let (mut save, mut contents) = (format!("save {options} --output /tmp/state"), Vec::new());
    for ((source, target), name) in sources.iter().zip(targets).zip(DEVICES) {
        contents.push(source.renew()?);
        target.renew()?;
        save += &format!(" {} --qemu-id {name}", source.card().argument()?);
    }
    tool::run(&save)?.expect(&[DONE])?;
    let cards: Vec<_> = targets.iter().map(|target| target.card()).collect();
    Qemu::load(&Setup::waiting(&scene.version, &cards), "file:/tmp/state")?;
    targets.iter().zip(&contents).try_for_each(|(target, content)| target.check(STOP, content))?;
    let kinds: Vec<_> = sections("/tmp/state")?.into_iter().map(|section| section.kind).collect();
    Ok(kinds.join(" "))
}
