//! What must hold when a command is over in which something went wrong.
//!
//! - It ends with 0 or 3. With 0 everything has arrived, with 3 the message names what went wrong first and, of
//!   two devices, the one with which it did.
//! - Each device is where the message says, as the kernel sees it, and no data session of it is open.
//! - The source runs with its content, unless the message says that it was reset, or that its state is unknown.
//! - No device runs with half a state, and not both run with one, unless nobody knows where the destination is.
//! - A file is there if and only if it is complete.
//!
//! Deliberately absent: which failure leads where. Rules for that are in `tests/src/schedule`.

use anyhow::{Context as _, Result, bail, ensure};

use super::fault::{Fault, Operation};
use super::scene::{Command, Scene, Side};
use crate::tool::{DEVICE_REFUSED, DONE, Outcome};

/// What a message says of where a device is.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    /// In this state.
    At(String),
    /// It was reset.
    Reset,
    /// Nobody knows.
    Unknown,
    /// Nothing: it was not opened.
    Untouched,
}

/// Where a device is, and what it holds.
struct Found {
    state: String,
    content: u64,
}

/// Checks a run of `command` with `fault`.
pub(super) fn check(scene: &Scene, command: Command, fault: Fault, outcome: Outcome) -> Result<()> {
    let outcome = outcome.expect(&[DONE, DEVICE_REFUSED])?;
    let (is_done, said) = (outcome.is_done(), outcome.errors());
    ensure!(is_done || !fault.is_invisible(), "wanted nobody to see it, got {said}");
    if !is_done {
        check_message(scene, command, fault, &said)?;
    }
    let is_loaded = is_done || said.contains("the state has arrived and runs there");
    let mut found = Vec::new();
    for &side in command.sides() {
        let told = if is_done { arrived(command, side) } else { told(scene, command, side, &said)? };
        let device = Found::of(scene, side)?;
        check_device(scene, side, fault, is_loaded, &told, &device)
            .with_context(|| format!("the {}, of which is said: {told:?}", side.name()))?;
        found.push((told, device));
    }
    if let [(_, source), (told, destination)] = &found[..] {
        // A destination that refuses its reset too may be anywhere, and the message says so.
        let both = source.runs() && destination.runs() && *told != Told::Unknown;
        let one = source.content == destination.content && source.content != scene.empty;
        ensure!(!(both && one), "both devices run with {:x}", source.content);
    }
    check_file(scene, command, fault, is_done, &said)
}

impl Found {
    fn of(scene: &Scene, side: Side) -> Result<Self> {
        let device = scene.device(side);
        let sessions = device.sessions()?;
        ensure!(sessions == 0, "open data sessions of the {}: wanted none, got {sessions}", side.name());
        Ok(Self { state: device.state()?, content: device.checksum()? })
    }

    /// Whether a guest can work with it.
    fn runs(&self) -> bool {
        ["RUNNING", "RUNNING_P2P", "PRE_COPY", "PRE_COPY_P2P"].contains(&self.state.as_str())
    }
}

/// Where a device is after a command that went well.
fn arrived(command: Command, side: Side) -> Told {
    let stays = match (command, side) {
        (Command::Move | Command::MoveLive, Side::Source) => "STOP",
        (Command::Save | Command::SaveLive | Command::Load, _) | (_, Side::Destination) => "RUNNING",
    };
    Told::At(stays.to_string())
}

/// The first cause, and whose it is.
fn check_message(scene: &Scene, command: Command, fault: Fault, said: &str) -> Result<()> {
    ensure!(fault.is_named_by(said), "the message does not name what went wrong first: {said}");
    if let [_, _] = command.sides() {
        let device = scene.device(fault.side);
        let (name, argument) = (format!("'{}': ", name(scene, fault.side)), device.argument()?);
        let front = format!("vfio-migrate: {argument}");
        ensure!(
            said.contains(&format!("vfio-migrate: {name}")) || said.contains(&front),
            "the message: wanted it to begin with {name:?} or {argument:?}, got {said}"
        );
    }
    Ok(())
}

/// Where a message of a failure says that a device is.
fn told(scene: &Scene, command: Command, side: Side, said: &str) -> Result<Told> {
    let whose = match command.sides() {
        [_, _] => format!("'{}': ", name(scene, side)),
        _ => String::new(),
    };
    let parts = said.trim_end().split("; ").skip(1);
    let words: Vec<_> = parts.filter_map(|part| part.strip_prefix(&whose)).collect();
    for word in words {
        if let Some(state) = word.strip_prefix("the device is in ") {
            return Ok(Told::At(state.to_string()));
        }
        if word.starts_with("the device was reset to RUNNING, its former content is gone") {
            return Ok(Told::Reset);
        }
        if word.starts_with("the device refused its reset, its state is unknown") {
            return Ok(Told::Unknown);
        }
    }
    if said.contains("state can't be read") {
        return Ok(Told::Untouched);
    }
    bail!("wanted it to say where the {} is, got {said}", side.name())
}

fn check_device(
    scene: &Scene,
    side: Side,
    fault: Fault,
    is_loaded: bool,
    told: &Told,
    found: &Found,
) -> Result<()> {
    let state = match told {
        Told::At(state) => Some(state.as_str()),
        Told::Reset | Told::Untouched => Some("RUNNING"),
        Told::Unknown => None,
    };
    ensure!(state.is_none_or(|state| state == found.state), "the kernel says {}", found.state);
    ensure!(is_loaded || state.is_none_or(|state| state == "RUNNING"), "it does not run");
    let own = if side == Side::Source { scene.good } else { scene.other };
    let mut wanted = match told {
        Told::At(_) if is_loaded => vec![scene.good],
        Told::At(_) | Told::Untouched => vec![own],
        Told::Reset => vec![scene.empty],
        Told::Unknown => vec![own, scene.good, scene.empty],
    };
    let is_copy = is_loaded && side == Side::Destination;
    // A reset of a destination within the SET itself is one that nobody can see.
    let is_seen = is_copy && fault.operation != Operation::Set;
    if fault.is_guest_reset_of(side) && !is_seen || is_copy && fault.is_guest_reset_of(Side::Source) {
        wanted.push(scene.empty);
    }
    let is_half = *told == Told::Unknown && ["RESUMING", "ERROR"].contains(&found.state.as_str());
    let holds = is_half || wanted.contains(&found.content);
    ensure!(holds, "in {}: wanted one of the contents {wanted:x?}, got {:x}", found.state, found.content);
    Ok(())
}

fn check_file(scene: &Scene, command: Command, fault: Fault, is_done: bool, said: &str) -> Result<()> {
    let is_whole = command.writes() && (is_done || said.contains("the stream is whole and can be loaded"));
    let (wanted, got) = (if is_whole { vec!["state".to_string()] } else { Vec::new() }, scene.files()?);
    ensure!(wanted == got, "files: wanted {wanted:?}, got {got:?}");
    if !is_whole {
        return Ok(());
    }
    let mut contents = vec![scene.good];
    if fault.is_guest_reset_of(Side::Source) {
        contents.push(scene.empty);
    }
    scene.check_saved(&contents)
}

/// The name of a device's sections.
fn name(scene: &Scene, side: Side) -> String {
    format!("migtest@{}/vfio", scene.device(side).card().uuid())
}
