//! A device moved to another one of the same machine: it arrives, or the source goes on as if nothing had been.
//!
//! Deliberately absent: a source or a destination that dies. Both are in one process.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use crate::device::{Card, RUNNING, STOP, STOP_COPY, new_text};
use crate::steps::{KernelLog, Step};
use crate::suite::{Bench, Case};
use crate::tool::{self, DEVICE_REFUSED, DONE};

pub(super) const CASES: &[Case] = &[
    ("moved_device_stops_and_the_other_one_runs_with_its_content", moved),
    ("device_that_the_other_one_refuses_runs_on_with_its_content", refused),
    ("dry_runs_touch_nothing", dry_runs),
];

fn moved(bench: &Bench) -> Result<()> {
    for pre_copy in ["--precopy", ""] {
        let text = new_text();
        bench.source.fill(&text)?;
        bench.target.fill(&new_text())?;
        let log = KernelLog::from_now()?;
        let said = tool::run(&hand_over(bench, &bench.target, pre_copy)?)?.expect(&[DONE])?.errors();
        check_source_waits(bench, &log.steps()?)?;
        bench.source.check_state(STOP).context("the source")?;
        bench.target.check(RUNNING, &text).context(pre_copy)?;
        let line =
            said.lines().find(|line| line.contains("stood still")).context("no word of the downtime")?;
        println!("# move{}{pre_copy}: {line}", if pre_copy.is_empty() { "" } else { " " });
        bench.source.open()?.set_state(RUNNING)?;
    }
    Ok(())
}

/// Fails unless the source kept its state until the destination ran.
fn check_source_waits(bench: &Bench, steps: &[Step]) -> Result<()> {
    let last = |card: &Card| {
        let step = steps.iter().enumerate().rfind(|(_, (name, ..))| name == card.uuid());
        step.map(|(at, (_, from, to))| (at, *from, *to))
            .with_context(|| format!("no step of {}", card.uuid()))
    };
    let (source, destination) = (last(&bench.source)?, last(&bench.target)?);
    let (given_up, runs) = ((source.1, source.2), destination.2);
    let right = given_up == (STOP_COPY, STOP) && runs == RUNNING && destination.0 < source.0;
    ensure!(right, "wanted the destination to run and then the source to leave STOP_COPY, got {steps:?}");
    Ok(())
}

/// A card with two ports refuses the state of a card with one: with pre-copy while the source still works, without it
/// when the source stands.
fn refused(bench: &Bench) -> Result<()> {
    for pre_copy in ["--precopy", ""] {
        let text = new_text();
        bench.source.fill(&text)?;
        let order = hand_over(bench, &bench.two_ports, pre_copy)?;
        let destination = format!("mtty@{}", bench.two_ports.uuid());
        tool::run(&order)?.expect_refusal(&[(DEVICE_REFUSED, &["record DATA", "byte", &destination])])?;
        bench.two_ports.check_state(RUNNING).context("the destination")?;
        bench.source.check(RUNNING, &text).context(order)?;
    }
    Ok(())
}

/// The driver is asked for no step, no file is made, and the contents stay.
fn dry_runs(bench: &Bench) -> Result<()> {
    let (text, other) = (new_text(), new_text());
    bench.source.fill(&text)?;
    let (source, target) = (bench.source.argument()?, bench.target.argument()?);
    let log = KernelLog::from_now()?;
    tool::run(&format!("save {source} --output /tmp/state"))?.expect(&[DONE])?;
    ensure!(!log.steps()?.is_empty(), "wanted steps of a save, the kernel told none");
    bench.target.fill(&other)?;
    let log = KernelLog::from_now()?;
    for command in [
        format!("save {source} --precopy --output /tmp/not-written"),
        format!("load {target} --input /tmp/state"),
        hand_over(bench, &bench.target, "--precopy")?,
    ] {
        let said = tool::run(&format!("{command} --dry-run"))?.expect(&[DONE])?.output();
        ensure!(said.contains("nothing was done"), "{command}: got {said}");
    }
    let steps = log.steps()?;
    ensure!(steps.is_empty(), "wanted no step, the kernel saw {steps:?}");
    ensure!(!fs::exists("/tmp/not-written")?, "/tmp/not-written is there");
    bench.source.check(RUNNING, &text)?;
    bench.target.check(RUNNING, &other)
}

fn hand_over(bench: &Bench, destination: &Card, pre_copy: &str) -> Result<String> {
    Ok(format!("move {} {} {pre_copy}", bench.source.argument()?, destination.argument()?))
}
