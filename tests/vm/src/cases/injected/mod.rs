//! Failures in the kernel: calls of each kind, from the first to the last one, in every command that migrates.
//!
//! Deliberately absent: schedules of several failures, and devices in lockstep. Both are in `tests/tests`,
//! where a run costs no process.

mod behind;
mod fault;
mod library;
mod scene;
mod verdict;

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use self::fault::Fault;
use self::scene::{Command, Scene, Side, Size};
use crate::modules::Set;
use crate::suite::{Bench, Case};
use crate::tool::{self, DONE};

pub(super) const CASES: &[Case] = &[
    ("failing_calls_of_a_save_leave_the_device_running_and_no_half_file", |bench| all(bench, Command::Save)),
    ("failing_calls_of_a_save_with_pre_copy_leave_the_device_running_and_no_half_file", |bench| {
        all(bench, Command::SaveLive)
    }),
    ("failing_calls_of_a_load_leave_no_device_with_half_a_state", |bench| all(bench, Command::Load)),
    ("failing_calls_of_a_move_leave_one_device_with_the_content", |bench| all(bench, Command::Move)),
    ("failing_calls_of_a_move_with_pre_copy_leave_one_device_with_the_content", |bench| {
        all(bench, Command::MoveLive)
    }),
    ("failing_transfers_of_a_large_move_leave_one_device_with_the_content", large),
    ("failing_load_whose_device_is_reset_by_its_guest_before_the_end_says_so", behind::load),
    ("device_in_error_is_asked_for_no_state_and_reset", library::error),
    ("device_whose_state_cannot_be_read_is_brought_back_by_name", library::unknown),
];

/// Runs a command with everything that may go wrong in it, one thing at a time, on devices with each set of
/// migration flags. How devices are opened has nothing to do with their flags: where they are opened by file,
/// they have all.
fn all(bench: &Bench, command: Command) -> Result<()> {
    let flags: &[u32] = match (bench.source.set(), command.is_live()) {
        (Set::Iommufd, _) => &[7],
        (Set::Stock, true) => &[7, 5],
        (Set::Stock, false) => &[7, 5, 3, 1],
    };
    flags.iter().try_for_each(|&flags| {
        let scene = Scene::create(bench.source.set(), flags, &Size::SMALL)?;
        let faults = faults(&scene, command)?;
        each(&scene, command, &faults).with_context(|| format!("migration flags {flags}"))
    })
}

/// The first, the middle and the last read and write of a state of the size that real devices have.
fn large(bench: &Bench) -> Result<()> {
    let scene = Scene::create(bench.source.set(), 7, &Size::LARGE)?;
    let mut faults = faults(&scene, Command::Move)?;
    faults.retain(Fault::is_of_data);
    ensure!(faults.len() == 6, "wanted three places of reads and of writes, got {}", faults.len());
    each(&scene, Command::Move, &faults)
}

fn each(scene: &Scene, command: Command, faults: &[Fault]) -> Result<()> {
    let began = Instant::now();
    let mut wrong = Vec::new();
    let mut missed = 0;
    for &fault in faults {
        match one(scene, command, fault) {
            Ok(was_reached) => missed += usize::from(!was_reached),
            Err(error) => wrong.push(format!("{fault}: {error:#}")),
        }
    }
    println!(
        "# {}: {} runs with a fault in {:.1} s, {missed} of which were over before it",
        command.name(),
        faults.len(),
        began.elapsed().as_secs_f64()
    );
    ensure!(wrong.is_empty(), "{} of {} runs: {}", wrong.len(), faults.len(), wrong.join("\n"));
    let are_met = missed * 5 <= faults.len();
    ensure!(are_met, "wanted most faults to be met, {missed} of {} were not", faults.len());
    Ok(())
}

/// What may go wrong, by what a run without faults does.
fn faults(scene: &Scene, command: Command) -> Result<Vec<Fault>> {
    let mut faults = Vec::new();
    for (side, calls) in works(scene, command).context("without faults")? {
        faults.extend(Fault::all(side, &calls));
    }
    Ok(faults)
}

/// One run; returns whether the call that goes wrong was made.
fn one(scene: &Scene, command: Command, fault: Fault) -> Result<bool> {
    scene.begin()?;
    scene.device(fault.side).knob("fault", fault.lines())?;
    let outcome = scene.run(command)?;
    let calls = scene.device(fault.side).calls()?[fault.operation.name()];
    scene.device(fault.side).knob("fault", "")?;
    let was_reached = calls >= fault.nth;
    ensure!(was_reached || !command.is_exact(), "wanted {} calls, got {calls}", fault.nth);
    let said = outcome.errors();
    let verdict = verdict::check(scene, command, fault, outcome);
    let verdict = verdict.with_context(|| said.trim_end().to_string());
    for &side in command.sides() {
        bring_back(scene, side).context("brought back")?;
    }
    verdict?;
    works(scene, command).context("afterwards")?;
    Ok(was_reached)
}

/// Brings a device to RUNNING as an operator would.
fn bring_back(scene: &Scene, side: Side) -> Result<()> {
    let device = scene.device(side);
    let (state, content) = (device.state()?, device.checksum()?);
    let recover = format!("recover {}", device.argument()?);
    let keeps = match state.as_str() {
        "RUNNING" => return Ok(()),
        "ERROR" | "RESUMING" => false,
        _ => true,
    };
    let recover = if keeps { recover } else { format!("{recover} --reset") };
    tool::run(&recover)?.expect(&[DONE])?;
    let (now, wanted) = (device.state()?, if keeps { content } else { scene.empty });
    ensure!(now == "RUNNING" && device.checksum()? == wanted, "from {state} to {now}");
    Ok(())
}

/// The calls that the devices have got.
type Calls = Vec<(Side, BTreeMap<String, u64>)>;

/// Shows that a command works when nothing goes wrong, and leaves both devices running.
fn works(scene: &Scene, command: Command) -> Result<Calls> {
    scene.begin()?;
    scene.run(command)?.expect(&[DONE])?;
    let calls = command.sides().iter().map(|&side| Ok((side, scene.device(side).calls()?)));
    let calls: Calls = calls.collect::<Result<_>>()?;
    for &side in command.sides() {
        let (device, got) = (scene.device(side), scene.device(side).checksum()?);
        ensure!(got == scene.good, "the {}: wanted the content {:x}, got {got:x}", side.name(), scene.good);
        if device.state()? == "STOP" {
            device.open()?.set_state(crate::device::RUNNING)?;
        }
    }
    let files = scene.files()?;
    ensure!(files.len() == usize::from(command.writes()), "files: got {files:?}");
    Ok(calls)
}
