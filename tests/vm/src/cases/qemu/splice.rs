//! The stream of a whole machine, in which the sections of a device are ours.
//!
//! Deliberately absent: a second walker of streams. `vfio-migrate inspect` says where the sections are.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use super::{Scene, section};
use crate::device::STOP;
use crate::qemu::{DEVICES, Qemu, Setup};
use crate::stream::{Section, sections};
use crate::tool::{self, DONE};

/// QEMU saves its machine with a device, and loads it with the state of another device, which we saved.
pub(super) fn ours(scene: &Scene) -> Result<String> {
    let ([source, other], [target, _]) = (&scene.sources, &scene.targets);
    source.renew()?;
    Qemu::save(&Setup::running(&scene.version, &[source.card()]), "file:/tmp/qemu", |_| Ok(()))?;
    let content = other.renew()?;
    let save = format!("save {} --qemu-id {} --precopy --config", other.card().argument()?, DEVICES[0]);
    tool::run(&format!("{save} --output /tmp/state"))?.expect(&[DONE])?;
    let stream = splice("/tmp/qemu", "/tmp/state")?;
    fs::write("/tmp/spliced", &stream)?;
    target.renew()?;
    Qemu::load(&Setup::waiting(&scene.version, &[target.card()]), "file:/tmp/spliced")?;
    target.check(STOP, &content)?;
    Ok(format!("{} sections of a machine", sections("/tmp/spliced")?.len()))
}

/// The machine's stream with our sections in the places of the first device's: START and FULL in those of START and
/// FULL, all others in that of END.
fn splice(machine: &str, ours: &str) -> Result<Vec<u8>> {
    let (stream, file) = (fs::read(machine)?, fs::read(ours)?);
    let device: Vec<_> = sections(machine)?.into_iter().filter(|theirs| theirs.name == section(0)).collect();
    let first = device.first().with_context(|| format!("no section {} in {machine}", section(0)))?;
    let id = &stream[first.place.start + 1..][..4];
    let ours = sections(ours)?;
    let renamed = |section: &Section| {
        let mut bytes = file[section.place.clone()].to_vec();
        bytes[1..5].copy_from_slice(id);
        let footer = bytes.len() - 4;
        bytes[footer..].copy_from_slice(id);
        bytes
    };
    let (mut spliced, mut end) = (Vec::new(), 0);
    for theirs in &device {
        spliced.extend_from_slice(&stream[end..theirs.place.start]);
        end = theirs.place.end;
        let kinds: &[&str] = match theirs.kind.as_str() {
            "PART" => continue,
            "END" => &["PART", "END"],
            kind => &[kind],
        };
        let new: Vec<_> = ours.iter().filter(|section| kinds.contains(&section.kind.as_str())).collect();
        ensure!(!new.is_empty(), "we have no section {}", theirs.kind);
        new.into_iter().for_each(|section| spliced.extend(renamed(section)));
    }
    spliced.extend_from_slice(&stream[end..]);
    Ok(spliced)
}
