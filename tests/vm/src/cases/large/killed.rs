//! SIGKILL in each phase of a device that is slow enough to be met there, and what brings it back.
//!
//! Deliberately absent: a device that loses its state when it is closed, as those of vfio-pci do. Nothing is
//! left to bring back there.

use std::fs;
use std::io::{self, Write as _};
use std::process::{Child, Stdio};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;

use super::{Folder, MIB, check, device, start};
use crate::suite::Bench;
use crate::testdev::TestDevice;
use crate::tool::{self, DEVICE_REFUSED, DONE, vfio_migrate, wait_until, wait_until_stalled};

/// A phase of a save of two devices.
struct Phase {
    name: &'static str,
    options: &'static str,
    /// What slows the second device down.
    slow: (&'static str, &'static str),
    /// The state in which the first device waits for it.
    waits_in: &'static str,
    /// How many SETs the second device has got then, the one that it is in counted.
    sets: u64,
    /// The states that both are left in: the kernel ends the call that it is in.
    left: [&'static str; 2],
}

const PHASES: [Phase; 5] = [
    Phase {
        name: "in pre-copy",
        options: "--precopy --patience 60s --max-downtime 1ms",
        slow: ("delay_per_mib", "1000"),
        waits_in: "PRE_COPY",
        sets: 1,
        left: ["PRE_COPY", "PRE_COPY"],
    },
    Phase {
        name: "when one is quiet in pre-copy",
        options: "--precopy",
        slow: ("arc_delay", "6 7 2000"),
        waits_in: "PRE_COPY_P2P",
        sets: 2,
        left: ["PRE_COPY_P2P", "PRE_COPY_P2P"],
    },
    Phase {
        name: "when one is quiet",
        options: "",
        slow: ("arc_delay", "2 5 2000"),
        waits_in: "RUNNING_P2P",
        sets: 1,
        left: ["RUNNING_P2P", "RUNNING_P2P"],
    },
    Phase {
        name: "when one has stopped",
        options: "",
        slow: ("arc_delay", "5 1 2000"),
        waits_in: "STOP_COPY",
        sets: 2,
        left: ["STOP_COPY", "STOP_COPY"],
    },
    Phase {
        name: "in stop-copy",
        options: "",
        slow: ("delay_per_mib", "1000"),
        waits_in: "STOP_COPY",
        sets: 2,
        left: ["STOP_COPY", "STOP_COPY"],
    },
];

/// The first device waits for the second, which is slow.
pub(super) fn saves(bench: &Bench) -> Result<()> {
    let devices = [device(bench.source.set(), 1, SIZE)?, device(bench.source.set(), 2, SIZE)?];
    let names = format!("{} {}", devices[0].argument()?, devices[1].argument()?);
    for phase in PHASES {
        let folder = Folder::new("/tmp/killed")?;
        let contents = [devices[0].checksum()?, devices[1].checksum()?];
        let save = format!("save {names} {} --output {}", phase.options, folder.file());
        let (knob, value) = phase.slow;
        devices[1].knob(knob, value)?;
        devices[1].count_anew()?;
        let child = start(&save)?;
        let is_met = || Ok(devices[0].state()? == phase.waits_in && devices[1].calls()?["set"] >= phase.sets);
        wait_until(phase.waits_in, is_met).context(phase.name)?;
        kill(child)?;
        devices[1].knob(knob, if knob == "arc_delay" { "" } else { "0" })?;
        let left = [devices[0].state()?, devices[1].state()?];
        ensure!(left == phase.left, "killed {}: wanted {:?}, got {left:?}", phase.name, phase.left);
        let words = [left[0].as_str(), "wanted RUNNING or STOP", "recover"];
        tool::run(&save)?.expect_refusal(&[(DEVICE_REFUSED, &words)]).context(phase.name)?;
        let said = tool::run(&format!("recover {names}"))?.expect(&[DONE]).context(phase.name)?.errors();
        for (device, content) in devices.iter().zip(contents) {
            check(device, content).context(phase.name)?;
        }
        let said = said.lines().next().unwrap_or_default();
        println!("# a save of two killed {} leaves {left:?}; recover: {said}", phase.name);
        tool::run(&format!("save {names} --output {}", folder.file()))?
            .expect(&[DONE])
            .context(phase.name)?;
    }
    Ok(())
}

/// The destination holds half a state, and is reset; the source still has its own.
pub(super) fn moves(bench: &Bench) -> Result<()> {
    let source = device(bench.source.set(), 1, SIZE)?;
    let destination = device(bench.source.set(), 2, SIZE)?;
    let (from, to) = (source.argument()?, destination.argument()?);
    let content = source.checksum()?;
    let folder = Folder::new("/tmp/killed")?;
    tool::run(&format!("save {from} --output {}", folder.file()))?.expect(&[DONE])?;
    kill_load(&destination, &fs::read(folder.file())?)?;
    check_only_a_reset_helps(&destination)?;
    for (options, left) in [("", "STOP_COPY"), ("--precopy --max-downtime 1ms --patience 60s", "PRE_COPY")] {
        source.knob("delay_per_mib", 1000)?;
        let child = start(&format!("move {from} {to} {options}"))?;
        let is_met = || Ok(source.state()? == left && destination.state()? == "RESUMING");
        wait_until("both are in the middle of it", is_met)?;
        kill(child)?;
        source.knob("delay_per_mib", 0)?;
        let states = (source.state()?, destination.state()?);
        ensure!(states.0 == left && states.1 == "RESUMING", "a killed move: got {states:?}");
        println!("# a killed move {options} leaves {states:?}");
        check_only_a_reset_helps(&destination)?;
        tool::run(&format!("recover {from}"))?.expect(&[DONE])?;
        check(&source, content).context("the source of a killed move")?;
        tool::run(&format!("move {from} {to}"))?.expect(&[DONE])?;
        check(&destination, content).context("the destination afterwards")?;
        super::let_run(&source)?;
    }
    Ok(())
}

/// Kills a load that waits for the second half of its stream.
fn kill_load(destination: &TestDevice, stream: &[u8]) -> Result<()> {
    let (read, mut write) = io::pipe()?;
    let load = format!("load {} --input -", destination.argument()?);
    let child = tool::start(vfio_migrate(&load).stdin(read).stdout(Stdio::null()))?;
    write.write_all(&stream[..stream.len() / 2])?;
    wait_until_stalled(&child)?;
    kill(child)
}

fn check_only_a_reset_helps(device: &TestDevice) -> Result<()> {
    let (name, state) = (device.argument()?, device.state()?);
    ensure!(state == "RESUMING", "wanted RESUMING, got {state}");
    let other = format!("save {name} --output /tmp/not-written");
    tool::run(&other)?.expect_refusal(&[(DEVICE_REFUSED, &["RESUMING", "recover"])])?;
    let recover = format!("recover {name}");
    tool::run(&recover)?.expect_refusal(&[(DEVICE_REFUSED, &["RESUMING", "--reset"])])?;
    tool::run(&format!("{recover} --reset"))?.expect(&[DONE])?;
    let state = device.state()?;
    ensure!(state == "RUNNING", "after the reset: wanted RUNNING, got {state}");
    Ok(())
}

fn kill(child: Child) -> Result<()> {
    tool::signal(&child, Signal::KILL)?;
    tool::finish(child).map(drop)
}

const SIZE: u64 = 16 * MIB;
