//! SIGINT while the driver works: at data that come slowly, and inside of one call.
//!
//! Deliberately absent: a call that never ends. A process in it can't even be killed.

use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;

use super::{Folder, MIB, check, device, start};
use crate::suite::Bench;
use crate::testdev::TestDevice;
use crate::tool::{self, wait_until};

/// The state is made on demand or all at once, and given at 10 MiB a second: 6 s for all of it.
pub(super) fn interrupted(bench: &Bench) -> Result<()> {
    let source = device(bench.source.set(), 1, SIZE)?;
    let destination = device(bench.source.set(), 2, SIZE)?;
    source.knob("delay_per_mib", 100)?;
    for (whole, pre_copy) in [(0, ""), (0, "--precopy"), (1, ""), (1, "--precopy")] {
        source.knob("whole", whole)?;
        let folder = Folder::new("/tmp/slow")?;
        let save = format!("save {} {pre_copy} --output {}", source.argument()?, folder.file());
        let took = interrupt(&source, &save)?;
        println!(
            "# SIGINT of `save {pre_copy}` of a slow device, whole {whole}: over in {} ms",
            took.as_millis()
        );
        ensure!(took < SOON, "wanted it to end soon, it took {took:?}");
        folder.check_empty()?;
    }
    let order = format!("move {} {}", source.argument()?, destination.argument()?);
    let took = interrupt(&source, &order)?;
    ensure!(took < SOON, "wanted the move to end soon, it took {took:?}");
    let state = destination.state()?;
    ensure!(state == "RUNNING", "the destination: wanted RUNNING, got {state}");
    Ok(())
}

/// A driver that blocks all the same is waited for, as is one that works in a SET: the request is seen after
/// the call.
pub(super) fn blocking(bench: &Bench) -> Result<()> {
    let source = device(bench.source.set(), 1, SIZE)?;
    let folder = Folder::new("/tmp/slow")?;
    let save = format!("save {} --output {}", source.argument()?, folder.file());
    source.knob("delay_per_mib", 60_000)?;
    source.knob("ignore_nonblock", 1)?;
    let took = interrupt(&source, &save).context("of a driver that does not look at O_NONBLOCK")?;
    println!(
        "# SIGINT of a save of a driver that blocks 234 ms for each page: over in {} ms",
        took.as_millis()
    );
    ensure!(took < SOON, "wanted it to end behind the call, it took {took:?}");
    source.knob("delay_per_mib", 0)?;
    source.knob("arc_delay", "1 3 2000")?;
    let before = source.checksum()?;
    let child = start(&save)?;
    wait_until("the device stops", || Ok(source.state()? == "STOP"))?;
    let took = end(child)?;
    println!("# SIGINT of a save while a SET takes 2 s: over in {} ms", took.as_millis());
    ensure!(took < SOON, "wanted it to end behind the SET, it took {took:?}");
    check(&source, before)?;
    folder.check_empty()
}

/// Runs a command up to when the device has given some data, and interrupts it then; returns how long it took
/// to end. The device runs afterwards, with its content.
fn interrupt(source: &TestDevice, command: &str) -> Result<Duration> {
    let before = source.checksum()?;
    source.count_anew()?;
    let child = start(command)?;
    wait_until("the device is read", || Ok(source.calls()?["read"] >= 2))?;
    let took = end(child)?;
    check(source, before)?;
    let sessions = source.sessions()?;
    ensure!(sessions == 0, "open data sessions: wanted none, got {sessions}");
    Ok(took)
}

fn end(child: Child) -> Result<Duration> {
    let began = Instant::now();
    tool::signal(&child, Signal::INT)?;
    let said = tool::finish(child)?.expect(&[INTERRUPTED])?.errors();
    let took = began.elapsed();
    ensure!(said.contains("signal 2") && said.contains("the device is in RUNNING"), "got {said}");
    Ok(took)
}

const SIZE: u64 = 64 * MIB;
const INTERRUPTED: i32 = 130;
/// Shorter than the shortest of the transfers, which take 6 s at least.
const SOON: Duration = Duration::from_secs(5);
