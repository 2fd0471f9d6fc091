//! Running the cases and saying how each went; one that fails does not stop the others. One in which the kernel warned
//! has failed.
//!
//! Deliberately absent: a time limit. What a case waits for has one in `tool`, and `cargo xtask vm` ends the VM.

use std::fs;
use std::panic::catch_unwind;

use anyhow::{Result, anyhow, ensure};

use crate::cases;
use crate::device::Card;
use crate::modules::Set;

/// The cards that the cases work with.
pub(crate) struct Bench {
    /// A card with one port, mostly the one that is saved.
    pub(crate) source: Card,
    /// A card with one port, mostly the one that is loaded into.
    pub(crate) target: Card,
    /// A card with two ports, whose state has another size.
    pub(crate) two_ports: Card,
}

impl Bench {
    fn new(set: Set) -> Result<Self> {
        Ok(Self {
            source: Card::create(set, "mtty-1", "11111111-1111-1111-1111-111111111111")?,
            target: Card::create(set, "mtty-1", "22222222-2222-2222-2222-222222222222")?,
            two_ports: Card::create(set, "mtty-2", "33333333-3333-3333-3333-333333333333")?,
        })
    }
}

/// A case: its name says the situation and the outcome.
pub(crate) type Case = (&'static str, fn(&Bench) -> Result<()>);

/// Counts what passed and what failed.
pub(crate) struct Suite {
    filter: String,
    /// Whether the long cases are run too.
    all: bool,
    cases: u32,
    passed: u32,
    failed: u32,
    /// What the kernel has warned of so far.
    taint: u64,
}

impl Suite {
    /// A suite of the cases whose names contain `filter`; the long ones are among them with `all`.
    pub(crate) fn new(filter: &str, all: bool) -> Self {
        Self { filter: filter.to_string(), all, cases: 0, passed: 0, failed: 0, taint: 0 }
    }

    /// Loads a set of modules, runs all cases on it, each with new cards, and unloads it.
    pub(crate) fn run_with(&mut self, set: Set) {
        let name = set.name();
        match set.load() {
            Ok(()) => cases::all(set, self.all)
                .for_each(|(case, run)| self.run(&format!("{name}/{case}"), set, run)),
            Err(error) => self.report(&format!("{name}/modules_are_loaded"), Err(error)),
        }
        self.report(&format!("{name}/modules_are_unloaded"), set.unload());
    }

    /// Prints the tally alone on the last line. A suite in which no case was run has failed.
    pub(crate) fn finish(mut self) {
        if self.cases == 0 {
            let none = anyhow!("wanted a case whose name contains {:?}, got none", self.filter);
            self.report("cases_are_run", Err(none));
        }
        println!("{} passed, {} failed", self.passed, self.failed);
    }

    fn run(&mut self, name: &str, set: Set, case: fn(&Bench) -> Result<()>) {
        if name.contains(&self.filter) {
            self.cases += 1;
            let outcome = catch_unwind(|| case(&Bench::new(set)?));
            let outcome = outcome.unwrap_or_else(|_| Err(anyhow!("panicked")));
            let kernel = self.look_at_kernel();
            self.report(name, outcome.and(kernel));
        }
    }

    /// Fails when the kernel has warned of something since the last look. Its log is too short to be asked for that.
    fn look_at_kernel(&mut self) -> Result<()> {
        let taint = fs::read_to_string("/proc/sys/kernel/tainted")?.trim().parse::<u64>()? & WARNED;
        let new = taint & !std::mem::replace(&mut self.taint, taint);
        ensure!(new == 0, "the kernel warned, it has the taint flags {new:#x}");
        Ok(())
    }

    fn report(&mut self, name: &str, outcome: Result<()>) {
        match outcome {
            Ok(()) => {
                self.passed += 1;
                println!("ok {name}");
            }
            Err(error) => {
                self.failed += 1;
                let reason = format!("{error:#}").replace('\n', "\n# ");
                println!("not ok {name}: {reason}");
            }
        }
    }
}

/// Flags of `/proc/sys/kernel/tainted`: the kernel oopsed, warned, or found a processor that was held up.
const WARNED: u64 = 1 << 7 | 1 << 9 | 1 << 14;
