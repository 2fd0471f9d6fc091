//! SIGKILL in the middle of a transfer of four devices: what is left, and how the devices are brought back.
//!
//! `mtty` keeps its state when it is closed. A device of vfio-pci is reset then, unless someone else holds it.
//!
//! Deliberately absent: a killed `move`, and a phase in which the driver works. Those are in `large`, on a device that
//! can be slow.

use std::fs;

use anyhow::{Context as _, Result};

use crate::device::{PRE_COPY, RESUMING, RUNNING, STOP_COPY, state_name};
use crate::row::{Row, names};
use crate::stalled::{PHASES, Phase, Stalled};
use crate::stream::Places;
use crate::suite::{Bench, Case};
use crate::tool::{self, DEVICE_REFUSED, DONE};

pub(super) const CASES: &[Case] = &[
    ("killed_save_of_four_leaves_the_contents_which_recover_brings_back", saves),
    ("killed_load_of_four_leaves_resuming_and_the_next_load_works", loads),
];

/// Two of the cards are brought back with their contents, the other two are loaded.
fn saves(bench: &Bench) -> Result<()> {
    let cards = Row::create(bench.source.set(), '1')?;
    let devices = cards.arguments()?;
    let loaded = devices[2..].join(" ");
    let good = cards.fill()?;
    tool::run(&format!("save {loaded} --output /tmp/good"))?.expect(&[DONE])?;
    for phase in PHASES {
        let mut texts = cards.fill()?;
        Stalled::save(&cards, phase)?.kill()?;
        let left = left_in(phase);
        cards.check_states(left).context(phase.name())?;
        check_save_is_refused(&devices, left[0])?;
        let said = tool::run(&format!("recover {}", devices[..2].join(" ")))?.expect(&[DONE])?.errors();
        let (left, said) = (names(&left), said.lines().next().unwrap_or_default());
        println!("# a save of four killed {} leaves {left}; recover: {said}", phase.name());
        tool::run(&format!("load {loaded} --input /tmp/good"))?.expect(&[DONE])?;
        texts[2..].clone_from_slice(&good[2..]);
        cards.check(&texts).context(phase.name())?;
    }
    Ok(())
}

/// Two of the cards are reset, the other two are loaded as they are.
fn loads(bench: &Bench) -> Result<()> {
    let cards = Row::create(bench.source.set(), '1')?;
    let texts = cards.fill()?;
    let devices = cards.arguments()?;
    tool::run(&format!("save {} --precopy --output /tmp/state", devices.join(" ")))?.expect(&[DONE])?;
    let bytes = fs::read("/tmp/state")?;
    for (place, at) in Places::of("/tmp/state")?.all() {
        let before = cards.fill()?;
        Stalled::load(&cards, &bytes[..at])?.kill()?;
        let left = if place == Places::STARTS { RUNNING } else { RESUMING };
        cards.check_states([left; 4]).context(place)?;
        println!("# a load of four killed {place} leaves {}", names(&[left; 4]));
        if left == RUNNING {
            cards.check(&before).context(place)?;
        } else {
            check_save_is_refused(&devices, left)?;
            for device in &devices[..2] {
                let recover = format!("recover {device}");
                tool::run(&recover)?.expect_refusal(&[(DEVICE_REFUSED, &["RESUMING", "--reset"])])?;
                tool::run(&format!("{recover} --reset"))?.expect(&[DONE])?;
            }
            cards.check_states([RUNNING, RUNNING, RESUMING, RESUMING]).context(place)?;
        }
        tool::run(&format!("load {} --input /tmp/state", devices.join(" ")))?
            .expect(&[DONE])
            .context(place)?;
        cards.check(&texts).context(place)?;
    }
    Ok(())
}

/// The states of the four cards after a kill; in the START sections the last card has not been touched yet.
fn left_in(phase: Phase) -> [u32; 4] {
    match phase {
        Phase::Start => [PRE_COPY, PRE_COPY, PRE_COPY, RUNNING],
        Phase::PreCopy => [PRE_COPY; 4],
        Phase::StopCopy | Phase::End | Phase::Description => [STOP_COPY; 4],
    }
}

/// Whoever saves such a device is told its state, and what helps.
fn check_save_is_refused(devices: &[String], left: u32) -> Result<()> {
    let words = [&devices[0], state_name(left), "wanted RUNNING or STOP", "recover"];
    let refused = tool::run(&format!("save {} --output /tmp/other", devices.join(" ")))?;
    refused.expect_refusal(&[(DEVICE_REFUSED, &words)])
}
