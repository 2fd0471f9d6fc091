//! `cargo xtask test`: every check of the project, one after the other, and all failures at once.
//!
//! The output of a check is shown as it comes; the table at the end repeats nothing of it.
//!
//! Deliberately absent: measurements. `cargo xtask bench` makes them, and nothing fails by them.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use crate::command::{self, Tally, cargo, target, workspace};
use crate::{bare, capi, cross, fuzz, panic_free, size, vm};

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
        ("lints, no std", Box::new(|| check(NO_STD_CLIPPY))),
        ("lints, std alone", Box::new(|| check(STD_CLIPPY))),
    ];
    steps.extend(APART.iter().map(|apart| -> Step { (apart.name, Box::new(|| apart.check())) }));
    steps.extend::<Vec<Step>>(vec![
        ("examples", Box::new(|| check(&["build", "--workspace", "--all-features", "--examples"]))),
        ("tests", Box::new(|| tests(TESTS))),
        (
            "doc tests",
            Box::new(|| tests(&["test", "--workspace", "--all-features", "--doc", "--no-fail-fast"])),
        ),
        ("tests, no std", Box::new(|| tests(NO_STD_TESTS))),
        ("no panic", Box::new(|| panic_free::run(&panic_free::Options::default()))),
        ("sizes", Box::new(|| size::run(&size::Options::default()))),
        ("C interface", Box::new(move || capi::run(&capi::Options::of_ci(others)))),
        ("documentation", Box::new(documentation)),
    ]);
    if !options.skip_cross {
        steps.push(("other machines", Box::new(|| cross::run(&cross::Options::default()))));
    }
    if !options.skip_fuzz {
        steps.push(("fuzzing", Box::new(|| fuzz::run(&fuzz::Options::default()))));
    }
    if !options.skip_vm {
        steps.push(("bare metal", Box::new(bare::run)));
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
        let tally = result.unwrap_or(Tally::FAILED);
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
    Ok(Tally::PASSED)
}

/// Builds the documentation of all features, and that of host without std.
fn documentation() -> Result<Tally> {
    let whole = check(&["doc", "--workspace", "--all-features", "--no-deps"])?;
    let no_std = check(&["doc", "--package", HOST, "--no-default-features", "--no-deps"])?;
    Ok([whole, no_std].into_iter().sum())
}

/// A package that is a workspace of its own: it has a panic handler, or another toolchain builds it.
struct Apart {
    name: &'static str,
    /// Its folder.
    package: &'static str,
    /// Which of its targets are linted with which features.
    clippy: &'static [&'static str],
}

impl Apart {
    /// Checks its format and its lints.
    fn check(&self) -> Result<Tally> {
        let manifest = format!("{}/Cargo.toml", self.package);
        let format = check(&["fmt", "--manifest-path", &manifest, "--", "--check"])?;
        let folder = target()?.join("lints");
        let folder = folder.to_str().context("the path of the target folder is not UTF-8")?;
        // Its lock file is to be current: no build may write into the checkout.
        let clippy = ["clippy", "--locked", "--manifest-path", &manifest, "--target-dir", folder];
        let lints = check(&[&clippy[..], self.clippy, &["--", "-D", "warnings"]].concat())?;
        Ok([format, lints].into_iter().sum())
    }
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

const CLIPPY: &[&str] = &["clippy", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"];

/// Those of the examples, too; as programs, which other tests run, these were built before.
const TESTS: &[&str] = &["test", "--workspace", "--all-features", "--all-targets", "--no-fail-fast"];

// One package at a time: within a workspace the features of all that is built are on.
const NO_STD_CLIPPY: &[&str] =
    &["clippy", "--package", HOST, "--no-default-features", "--", "-D", "warnings"];
const STD_CLIPPY: &[&str] =
    &["clippy", "--package", HOST, "--no-default-features", "--features", "std", "--", "-D", "warnings"];
const NO_STD_TESTS: &[&str] =
    &["test", "--package", HOST, "--no-default-features", "--lib", "--no-fail-fast"];
const HOST: &str = "vfio-migration-host";

/// What has panic handlers is linted as a release: without unwinding, and for our own machine, whose core is there.
const RELEASE: &[&str] = &["--release"];

const APART: [Apart; 6] = [
    Apart { name: "lints, proof", package: "tests/panic_free", clippy: RELEASE },
    Apart { name: "lints, sizes", package: "tests/size", clippy: RELEASE },
    Apart { name: "lints, bare", package: "tests/bare", clippy: RELEASE },
    Apart { name: "lints, program", package: "tests/without_std", clippy: RELEASE },
    Apart { name: "lints, C", package: "core/capi", clippy: &["--release", "--all-features"] },
    // Without the fuzzer itself.
    Apart {
        name: "lints, fuzzing",
        package: "tests/fuzz",
        clippy: &["--no-default-features", "--all-targets"],
    },
];
