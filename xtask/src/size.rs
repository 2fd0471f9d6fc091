//! `cargo xtask size`: what core takes of a machine without an operating system: code, memory for a session, stack.
//!
//! For each of the [bare machines](TARGETS) the programs in `tests/size` are built as small as the compiler can make them,
//! and each byte of them is counted. The deepest stack of each function of core is added up along the calls of a linked
//! program. All is held against the aims in `tests/size/size-budget.toml`, and the table in README.md against all; a
//! program, a session and a stack that are too large on purpose show each time that the check fails when it must.
//!
//! Deliberately absent: a run. Everything is read from files, whatever machine they are for.

mod budget;
mod image;
mod measure;
mod report;
mod stack;
mod thumb;
mod way;

use anyhow::{Context as _, Result, ensure};

use self::budget::Budget;
use self::measure::{Kind, Row};
use crate::command::{Tally, workspace};
use crate::freestanding::{self, TARGETS};

/// Options of the task.
#[derive(Debug, Default, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    /// Measure this machine alone; may be given several times
    #[arg(long, value_parser = TARGETS)]
    target: Vec<String>,
    /// Print each program by function, and each function's deepest stack with the calls on the way there
    #[arg(long)]
    by_function: bool,
    /// Print the table as README.md has it
    #[arg(long, conflicts_with = "target")]
    markdown: bool,
    /// Write the table into README.md
    #[arg(long, conflicts_with = "target")]
    bless: bool,
}

/// Measures, prints, and holds all against the aims; each machine is a test, and the table.
pub(crate) fn run(options: &Options) -> Result<Tally> {
    let budget = Budget::read(&workspace()?)?;
    let wanted =
        |target: &&str| options.target.is_empty() || options.target.iter().any(|name| name == target);
    let (mut rows, mut tally) = (Vec::new(), Tally::default());
    for target in TARGETS.into_iter().filter(wanted) {
        let measured = measure::measure(target).and_then(|measured| {
            measured.iter().for_each(|row| print(row, options.by_function));
            rows.extend_from_slice(&measured);
            check(&budget, target, &measured)
        });
        tally += told(target, measured);
    }
    if options.target.is_empty() && tally.failed == 0 {
        tally += told("table", table(&budget, &rows, options));
    }
    Ok(tally)
}

/// Fails with all that is not as the aims want it, and where a control is.
fn check(budget: &Budget, target: &'static str, rows: &[Row]) -> Result<String> {
    let mut objections: Vec<String> = rows.iter().filter_map(|row| budget.objection(row)).collect();
    objections.extend(budget.idle(rows, target));
    ensure!(objections.is_empty(), "{}", objections.join("\n  "));
    for control in measure::controls(target)? {
        let what = format!("{} of {} bytes, which is too much on purpose,", control.kind, control.bytes);
        let objection = budget.objection(&control);
        let objection =
            objection.with_context(|| format!("{what} was not refused: the check proves nothing"))?;
        ensure!(objection.contains(" at most"), "{what} was refused for another reason: {objection}");
    }
    let stacks = rows.iter().filter(|row| row.kind == Kind::Stack).count();
    Ok(format!(
        "{} measurements are within their aims, {stacks} of them stacks; the controls are not",
        rows.len()
    ))
}

fn table(budget: &Budget, rows: &[Row], options: &Options) -> Result<String> {
    let compiler = freestanding::compiler()?;
    let table = report::markdown(rows, &compiler, budget)?;
    if options.markdown {
        println!("\n{table}");
    }
    report::settle(&workspace()?, &table, &compiler, options.bless)
}

/// Prints a measurement: programs and sessions, and of stacks those that are deep.
fn print(row: &Row, by_function: bool) {
    let Row { kind, target, entry, bytes, parts } = row;
    if *kind == Kind::Stack && *bytes < DEEP && !by_function {
        return;
    }
    println!("{bytes:>6} {kind} of {entry} on {target}");
    if by_function {
        parts.iter().for_each(|(function, bytes)| println!("       {bytes:>6} {function}"));
    }
}

/// Prints how a test ended.
fn told(what: &str, result: Result<String>) -> Tally {
    match result {
        Ok(text) => {
            println!("  ok {what}: {text}");
            Tally::PASSED
        }
        Err(error) => {
            println!("  not ok {what}: {error:#}");
            Tally::FAILED
        }
    }
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask size                                     all machines, against the aims
  cargo xtask size --target thumbv7em-none-eabihf --by-function
                                                       a Cortex-M4: which functions make up code and stack
  cargo xtask size --markdown                          with the table that README.md has
  cargo xtask size --bless                             writes that table";

/// From how many bytes on a stack is worth a line.
const DEEP: u64 = 256;
