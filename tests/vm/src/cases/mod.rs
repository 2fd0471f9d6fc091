//! What is tried on each set of modules; a file is a group of situations.
//!
//! Deliberately absent: what needs no kernel. Damage of every kind and schedules of several failures are tried in
//! `tests/tests`, on simulated devices.

mod access;
mod bench;
mod cancel;
mod conform;
mod dirty;
mod injected;
mod interrupt;
mod kill;
mod large;
mod library;
mod live;
mod moving;
mod qemu;
mod refusal;
mod rounds;
mod testdev;
mod testdev_pci;
mod together;
mod transfer;
mod without_std;

use anyhow::{Context as _, Result};

use crate::device::{RUNNING, new_text};
use crate::modules::Set;
use crate::suite::{Bench, Case};
use crate::tool::{self, DONE};

/// All cases of a set of modules in their order; those that take long are among them with `long`.
pub(crate) fn all(set: Set, long: bool) -> impl Iterator<Item = Case> {
    [
        transfer::CASES,
        qemu::CASES,
        &if long { qemu::long(set) } else { Vec::new() },
        together::CASES,
        moving::CASES,
        live::CASES,
        library::CASES,
        without_std::CASES,
        dirty::CASES,
        access::CASES,
        refusal::CASES,
        interrupt::CASES,
        cancel::CASES,
        kill::CASES,
        rounds::CASES,
        bench::CASES,
        &testdev::cases(),
        testdev_pci::CASES,
        large::CASES,
        injected::CASES,
        &conform::cases(),
    ]
    .concat()
    .into_iter()
}

/// Fills the source card and saves it to `path`; returns its text.
fn save(bench: &Bench, path: &str) -> Result<String> {
    let text = new_text();
    bench.source.fill(&text)?;
    tool::run(&format!("save {} --output {path}", bench.source.argument()?))?.expect(&[DONE])?;
    Ok(text)
}

/// Shows that the target card still works: it runs, takes a good state, and gives it back.
fn check_target_works(bench: &Bench) -> Result<()> {
    bench.target.check_state(RUNNING).context("after it")?;
    let target = bench.target.argument()?;
    let text = save(bench, "/tmp/good").context("after it")?;
    for command in [format!("load {target} --input /tmp/good"), format!("save {target} --output /tmp/back")] {
        tool::run(&command)?.expect(&[DONE]).context("after it")?;
    }
    bench.source.fill("something else")?;
    tool::run(&format!("load {} --input /tmp/back", bench.source.argument()?))?.expect(&[DONE])?;
    bench.target.check(RUNNING, &text).context("after it")?;
    bench.source.check(RUNNING, &text).context("after it, given back")
}
