//! What `--dry-run` says: the devices, the steps of each, and what is known of the time they take.
//!
//! What would be refused before anything is done is refused before this. Deliberately absent: what only a driver knows,
//! and a stop's real length.

use std::io::{self, Write};
use std::path::Path;

use vfio_migration_core::device::{State, arc};
use vfio_migration_host::file::Entry;
use vfio_migration_host::transfer::{Leave, Save};

use crate::progress::milliseconds;
use crate::target::Target;
use crate::{Outcome, stdout_failed};

/// What `save` would do.
pub(crate) fn save(targets: &[Target], plan: &Save<'_>, output: &Path) -> Outcome {
    let mut out = io::stdout().lock();
    let configured = |out: &mut io::StdoutLock<'_>| match plan.config {
        true => writeln!(out, "  the configuration of each PCI function goes out"),
        false => Ok(()),
    };
    sources(&mut out, targets, plan)
        .and_then(|()| configured(&mut out))
        .and_then(|()| writeln!(out, "  {} is complete", output.display()))
        .and_then(|()| finish(&mut out, targets, plan.leave.unwrap_or_else(|| as_found(targets))))
        .and_then(|()| writeln!(out, "nothing was done"))
        .map_err(stdout_failed)
}

/// What `move` would do.
pub(crate) fn hand_over(source: &Target, destination: &Target, plan: &Save<'_>) -> Outcome {
    let mut out = io::stdout().lock();
    let sources_first = sources(&mut out, std::slice::from_ref(source), plan);
    sources_first
        .and_then(|()| destinations(&mut out, std::slice::from_ref(destination), Leave::Running))
        .and_then(|()| step(&mut out, source, State::StopCopy, State::Stop))
        .and_then(|()| writeln!(out, "nothing was done"))
        .map_err(stdout_failed)
}

/// What `load` would do with a stream that was checked.
pub(crate) fn load(entries: &[Entry], targets: &[Target], leave: Leave, input: &str) -> Outcome {
    let mut out = io::stdout().lock();
    let mut say = || {
        writeln!(out, "{input} is whole and undamaged")?;
        for (entry, target) in entries.iter().zip(targets) {
            let bytes = entry.data_bytes;
            writeln!(out, "  {} gets the {bytes} bytes of '{}'", target.identity.idstr(), entry.idstr)?;
        }
        destinations(&mut out, targets, leave)?;
        writeln!(out, "nothing was done")
    };
    say().map_err(stdout_failed)
}

/// The sources, and their steps up to the end of the stream.
fn sources(out: &mut impl Write, targets: &[Target], plan: &Save<'_>) -> io::Result<()> {
    for target in targets {
        let size = match target.data_size() {
            Some(bytes) if bytes > 0 => format!("state of {bytes} bytes by the driver's estimate"),
            _ => "state of a size that the driver does not tell".into(),
        };
        writeln!(out, "{}: in {}, {}, {size}", target.identity.idstr(), target.state(), target.features())?;
    }
    let copies = |target: &Target| {
        plan.pre_copy.is_some() && target.features().pre_copy && target.state() == State::Running
    };
    for target in targets.iter().filter(|target| copies(target)) {
        step(out, target, State::Running, State::PreCopy)?;
    }
    if plan.pre_copy.is_some() && !targets.iter().any(copies) {
        writeln!(out, "  no pre-copy: no device runs and has PRE_COPY")?;
    } else if let Some(pre_copy) = plan.pre_copy {
        let downtime = milliseconds(pre_copy.downtime);
        writeln!(out, "  pre-copy until a stop would take at most {downtime}")?;
    }
    let during = |target: &Target| if copies(target) { State::PreCopy } else { target.state() };
    let quiet = |target: &Target| if copies(target) { State::PreCopyP2p } else { State::RunningP2p };
    let in_lockstep = |target: &Target| targets.len() > 1 && target.state() == State::Running;
    for target in targets.iter().filter(|target| in_lockstep(target)) {
        step(out, target, during(target), quiet(target))?;
    }
    for target in targets {
        let from = if in_lockstep(target) { quiet(target) } else { during(target) };
        step(out, target, from, State::StopCopy)?;
    }
    writeln!(out, "  all data that are left go out")
}

/// Where devices are left that are left as they were found.
fn as_found(targets: &[Target]) -> Leave {
    let all_run = targets.iter().all(|target| target.state() == State::Running);
    if all_run { Leave::Running } else { Leave::Stopped }
}

/// The sources' steps behind the end of the stream.
fn finish(out: &mut impl Write, targets: &[Target], leave: Leave) -> io::Result<()> {
    for target in targets {
        step(out, target, State::StopCopy, State::Stop)?;
    }
    run(out, targets, leave)
}

/// The destinations' steps.
fn destinations(out: &mut impl Write, targets: &[Target], leave: Leave) -> io::Result<()> {
    for target in targets {
        if matches!(target.state(), State::Running | State::Stop) {
            step(out, target, target.state(), State::Resuming)?;
        } else {
            let name = target.identity.idstr();
            writeln!(out, "  {name}: {} → reset → RUNNING", target.state())?;
            step(out, target, State::Running, State::Resuming)?;
        }
    }
    for target in targets {
        step(out, target, State::Resuming, State::Stop)?;
    }
    run(out, targets, leave)
}

fn run(out: &mut impl Write, targets: &[Target], leave: Leave) -> io::Result<()> {
    if leave == Leave::Stopped {
        return Ok(());
    }
    let from = if targets.len() > 1 { State::RunningP2p } else { State::Stop };
    for target in targets.iter().filter(|_| targets.len() > 1) {
        step(out, target, State::Stop, State::RunningP2p)?;
    }
    targets.iter().try_for_each(|target| step(out, target, from, State::Running))
}

/// One SET, with the states that the kernel goes through.
fn step(out: &mut impl Write, target: &Target, from: State, to: State) -> io::Result<()> {
    let states = arc::path(target.features(), from, to).unwrap_or_default();
    let way: String = states.iter().map(|state| format!(" → {state}")).collect();
    writeln!(out, "  {}: {from}{way}", target.identity.idstr())
}
