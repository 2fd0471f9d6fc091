//! Four devices in lockstep: each gets its own state, and none may start a DMA while another one stands still.
//!
//! Deliberately absent: a device that does a DMA. What the order is for can't be seen with `mtty`; the order can.

use anyhow::{Context as _, Result, ensure};

use crate::row::Row;
use crate::steps::{KernelLog, check_lockstep, check_order, told};
use crate::suite::{Bench, Case};
use crate::tool::{self, DONE, Outcome, remove};

pub(super) const CASES: &[Case] = &[
    ("four_devices_with_pre_copy_are_saved_and_loaded_in_lockstep", |bench| lockstep(bench, "--precopy")),
    ("four_devices_with_stop_copy_alone_are_saved_and_loaded_in_lockstep", |bench| lockstep(bench, "")),
    ("four_devices_in_another_order_get_their_own_states_back", another_order),
];

fn lockstep(bench: &Bench, pre_copy: &str) -> Result<()> {
    let sources = Row::create(bench.source.set(), '1')?;
    let destinations = Row::create(bench.source.set(), '2')?;
    let texts = sources.fill()?;
    destinations.fill()?;
    let save = format!("save {} {pre_copy} --output /tmp/state", sources.arguments()?.join(" "));
    let saved = watched(&save, sending(pre_copy), false).context("save")?;
    let load = format!("load {} --input /tmp/state", destinations.arguments()?.join(" "));
    let loaded = watched(&load, &["RESUMING", "STOP", "RUNNING_P2P", "RUNNING"], true).context("load")?;
    destinations.check(&texts)?;
    sources.check(&texts).context("the sources")?;
    // All but the headers, which pre-copy has moved before.
    let moved = if pre_copy.is_empty() { "240 of 240" } else { "144 of 240" };
    let said = saved.errors();
    ensure!(said.contains(moved), "data that were moved while the cards stood: wanted {moved}, got {said}");
    for (outcome, words) in [(&saved, "stood still"), (&loaded, "last byte")] {
        let said = outcome.errors();
        let line = said.lines().find(|line| line.contains(words)).context("no word of the downtime")?;
        println!("# four devices{}{pre_copy}: {line}", if pre_copy.is_empty() { "" } else { " with " });
    }
    Ok(())
}

/// The states that the sources are brought to, one after the other.
fn sending(pre_copy: &str) -> &'static [&'static str] {
    match pre_copy {
        "" => &["RUNNING_P2P", "STOP_COPY", "STOP", "RUNNING_P2P", "RUNNING"],
        _ => &["PRE_COPY", "PRE_COPY_P2P", "STOP_COPY", "STOP", "RUNNING_P2P", "RUNNING"],
    }
}

/// Runs a command with four devices, and checks the order of its steps as it tells them and as the kernel saw them.
fn watched(command: &str, states: &[&str], loading: bool) -> Result<Outcome> {
    let log = KernelLog::from_now()?;
    remove("/tmp/trace")?;
    let outcome = tool::run(&format!("{command} -v --trace-json /tmp/trace"))?.expect(&[DONE])?;
    check_order(&told("/tmp/trace")?, 4, states)?;
    check_lockstep(&log.steps()?, 4, loading).context("as the kernel saw it")?;
    let said = outcome.errors();
    let sets = said.lines().filter(|line| line.contains(": set ") && line.contains(": ok in ")).count();
    ensure!(sets == 4 * states.len(), "-v: wanted {} SETs, got {said}", 4 * states.len());
    Ok(outcome)
}

fn another_order(bench: &Bench) -> Result<()> {
    let cards = Row::create(bench.source.set(), '1')?;
    let texts = cards.fill()?;
    let mut devices = cards.arguments()?;
    tool::run(&format!("save {} --precopy --output /tmp/state", devices.join(" ")))?.expect(&[DONE])?;
    cards.fill()?;
    devices.rotate_left(1);
    devices.swap(0, 1);
    tool::run(&format!("load {} --input /tmp/state", devices.join(" ")))?.expect(&[DONE])?;
    cards.check(&texts)
}
