//! SIGINT in the middle of a transfer of four devices: they run again, with what they held as far as nothing was
//! loaded over it.
//!
//! Deliberately absent: one device alone, and other signals; those are in `interrupt`.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;

use crate::device::RUNNING;
use crate::row::Row;
use crate::stalled::{PHASES, Stalled};
use crate::stream::Places;
use crate::suite::{Bench, Case};
use crate::tool::{self, DONE};

pub(super) const CASES: &[Case] = &[
    ("interrupt_of_a_save_of_four_leaves_them_running_with_their_contents", saves),
    ("interrupt_of_a_load_of_four_leaves_them_running", loads),
];

fn saves(bench: &Bench) -> Result<()> {
    let cards = Row::create(bench.source.set(), '1')?;
    for phase in PHASES {
        let texts = cards.fill()?;
        let said = Stalled::save(&cards, phase)?.end(Signal::INT)?.expect(&[INTERRUPTED])?.errors();
        ensure!(
            said.matches("RUNNING").count() == 4,
            "{}: wanted all in RUNNING, it said {said}",
            phase.name()
        );
        cards.check(&texts).context(phase.name())?;
    }
    Ok(())
}

/// Up to the end of the START sections nothing was done to the cards.
fn loads(bench: &Bench) -> Result<()> {
    let cards = Row::create(bench.source.set(), '1')?;
    let texts = cards.fill()?;
    let devices = cards.arguments()?.join(" ");
    tool::run(&format!("save {devices} --precopy --output /tmp/state"))?.expect(&[DONE])?;
    let bytes = fs::read("/tmp/state")?;
    for (place, at) in Places::of("/tmp/state")?.all() {
        let before = cards.fill()?;
        let said = Stalled::load(&cards, &bytes[..at])?.end(Signal::INT)?.expect(&[INTERRUPTED])?.errors();
        ensure!(said.contains("signal 2"), "{place}: got {said}");
        cards.check_states([RUNNING; 4]).context(place)?;
        if place == Places::STARTS {
            cards.check(&before).context(place)?;
        }
        tool::run(&format!("load {devices} --input /tmp/state"))?.expect(&[DONE]).context(place)?;
        cards.check(&texts).context(place)?;
    }
    Ok(())
}

const INTERRUPTED: i32 = 130;
