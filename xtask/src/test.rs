//! `cargo xtask test`: every check of the project, one after the other, and all failures at once.
//!
//! The output of a check is shown as it comes; the table at the end repeats nothing of it.
//!
//! Deliberately absent: measurements. `cargo xtask bench` makes them, and nothing fails by them.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use crate::command::{self, Tally, cargo, workspace};
use crate::{capi, cross, fuzz, panic_free, size, vm};

/// Options of the task.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Leave the virtual machine out
    #[arg(long)]
    skip_vm: bool,
    /// Leave the fuzz targets out
    #[arg(long)]
    skip_fuzz: bool,
    /// Leave the builds and tests for other machines out
    #[arg(long)]
    skip_cross: bool,
}

/// Runs all steps, prints their table and the sum of their tests; true when nothing failed.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let rows: Vec<Row> = steps(options).into_iter().map(Row::run).collect();
    println!("\n{:<16} {:<7} {:>7}  tests", "step", "result", "seconds");
    rows.iter().for_each(Row::print);
    println!("{}", rows.iter().map(|row| row.tally).sum::<Tally>());
    Ok(rows.iter().all(|row| row.tally.all_passed()))
}

/// A step's name and what it does; it returns its tests, and counts as one where it has none.
type Step = (&'static str, Box<dyn FnOnce() -> Result<Tally>>);

/// The steps in their order, the quick ones first.
fn steps(options: &Options) -> Vec<Step> {
    let others = !options.skip_cross;
    let mut steps: Vec<Step> = vec![
        ("format", Box::new(|| check(&["fmt", "--all", "--", "--check"]))),
        ("lints", Box::new(|| check(CLIPPY))),
        ("format, proof", Box::new(|| check(PROOF_FORMAT))),
        ("lints, proof", Box::new(proof_lints)),
        ("format, sizes", Box::new(|| check(SIZE_FORMAT))),
        ("lints, sizes", Box::new(size_lints)),
        ("format, C", Box::new(|| check(C_FORMAT))),
        ("lints, C", Box::new(c_lints)),
        ("format, fuzzing", Box::new(|| check(FUZZ_FORMAT))),
        ("lints, fuzzing", Box::new(fuzz_lints)),
        (
            "tests",
            Box::new(|| tests(&["test", "--workspace", "--all-features", "--all-targets", "--no-fail-fast"])),
        ),
        (
            "doc tests",
            Box::new(|| tests(&["test", "--workspace", "--all-features", "--doc", "--no-fail-fast"])),
        ),
        ("no panic", Box::new(|| panic_free::run(&panic_free::Options::default()))),
        ("sizes", Box::new(|| size::run(&size::Options::default()))),
        ("C interface", Box::new(move || capi::run(&capi::Options::of_ci(others)))),
        ("documentation", Box::new(|| check(&["doc", "--workspace", "--all-features", "--no-deps"]))),
    ];
    if !options.skip_cross {
        steps.push(("other machines", Box::new(|| cross::run(&cross::Options::default()))));
    }
    if !options.skip_fuzz {
        steps.push(("fuzzing", Box::new(|| fuzz::run(&fuzz::Options::default()))));
    }
    if !options.skip_vm {
        steps.push(("virtual machine", Box::new(|| vm::run(&vm::Options::default()))));
    }
    steps
}

/// What came of a step.
struct Row {
    name: &'static str,
    seconds: f64,
    tally: Tally,
}

impl Row {
    fn run((name, step): Step) -> Self {
        println!("\n== {name}");
        let start = Instant::now();
        let result = step().and_then(|tally| {
            ensure!(tally != Tally::default(), "no test ran");
            Ok(tally)
        });
        if let Err(error) = &result {
            println!("{name}: {error:#}");
        }
        let tally = result.unwrap_or(FAILED);
        Self { name, seconds: start.elapsed().as_secs_f64(), tally }
    }

    fn print(&self) {
        let result = if self.tally.all_passed() { "ok" } else { "FAILED" };
        println!("{:<16} {result:<7} {:>7.1}  {}", self.name, self.seconds, self.tally);
    }
}

/// Runs a cargo command that has no tests.
fn check(arguments: &[&str]) -> Result<Tally> {
    let mut command = command_of(arguments)?;
    let status = command.status().with_context(|| format!("cannot run {}", command::show(&command)))?;
    ensure!(status.success(), "{}: {status}", command::show(&command));
    Ok(PASSED)
}

/// Lints the proof's crate in the folder that the proof is built in.
fn proof_lints() -> Result<Tally> {
    let folder = panic_free::folder()?;
    let folder = folder.to_str().context("the path of the target folder is not UTF-8")?;
    check(&[PROOF_CLIPPY, &["--target-dir", folder, "--", "-D", "warnings"]].concat())
}

/// Lints the programs whose sizes are measured, in the folder of the proof for this machine.
fn size_lints() -> Result<Tally> {
    let folder = panic_free::folder()?;
    let folder = folder.to_str().context("the path of the target folder is not UTF-8")?;
    check(&[SIZE_CLIPPY, &["--target-dir", folder, "--", "-D", "warnings"]].concat())
}

/// Lints the library for C in the folder that it is built in.
fn c_lints() -> Result<Tally> {
    let folder = capi::folder()?;
    let folder = folder.to_str().context("the path of the target folder is not UTF-8")?;
    check(&[C_CLIPPY, &["--target-dir", folder, "--", "-D", "warnings"]].concat())
}

/// Lints the fuzz targets, without the fuzzer itself.
fn fuzz_lints() -> Result<Tally> {
    let folder = fuzz::folder()?.join("lints");
    let folder = folder.to_str().context("the path of the target folder is not UTF-8")?;
    check(&[FUZZ_CLIPPY, &["--target-dir", folder, "--", "-D", "warnings"]].concat())
}

/// Runs tests and adds up their `test result:` lines; a build that fails is an error.
fn tests(arguments: &[&str]) -> Result<Tally> {
    command::tests(&mut command_of(arguments)?)
}

fn command_of(arguments: &[&str]) -> Result<Command> {
    let mut command = cargo();
    command.args(arguments).env("RUSTDOCFLAGS", "-D warnings").current_dir(workspace()?);
    Ok(command)
}

/// What a step counts that has no tests of its own.
const PASSED: Tally = Tally { passed: 1, failed: 0 };
/// What a step counts that broke off.
const FAILED: Tally = Tally { passed: 0, failed: 1 };

const CLIPPY: &[&str] = &["clippy", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"];

// The proof's crate, the programs whose sizes are measured, the library for C and the fuzz targets are workspaces of their
// own.
const PROOF_FORMAT: &[&str] = &["fmt", "--manifest-path", "tests/panic_free/Cargo.toml", "--", "--check"];
const PROOF_CLIPPY: &[&str] = &["clippy", "--release", "--manifest-path", "tests/panic_free/Cargo.toml"];
const SIZE_FORMAT: &[&str] = &["fmt", "--manifest-path", "tests/size/Cargo.toml", "--", "--check"];
const SIZE_CLIPPY: &[&str] = &["clippy", "--release", "--manifest-path", "tests/size/Cargo.toml"];
const C_FORMAT: &[&str] = &["fmt", "--manifest-path", "core/capi/Cargo.toml", "--", "--check"];
const C_CLIPPY: &[&str] =
    &["clippy", "--release", "--all-features", "--manifest-path", "core/capi/Cargo.toml"];
const FUZZ_FORMAT: &[&str] = &["fmt", "--manifest-path", "tests/fuzz/Cargo.toml", "--", "--check"];
const FUZZ_CLIPPY: &[&str] =
    &["clippy", "--no-default-features", "--all-targets", "--manifest-path", "tests/fuzz/Cargo.toml"];
