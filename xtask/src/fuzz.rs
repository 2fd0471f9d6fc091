//! `cargo xtask fuzz`: hostile bytes for every decoder and for whole sessions, as many as fit into the time.
//!
//! The targets are in `tests/fuzz`. They are built once by cargo-fuzz with a nightly toolchain, and run as many at a time
//! as there are processors. A corpus begins with the golden files, which the target itself writes out, and grows in the
//! target folder from run to run.
//!
//! Deliberately absent: the sanitizers. What is fuzzed has no unsafe code; the targets count their memory themselves.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use crate::command::{self, Tally, cache, cargo, is_installed, nightly, output, step, target, workspace};

/// Options of the task.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The target to run, for instance `file`; all of them where none is named
    target: Option<String>,
    /// How long each target runs, in seconds
    #[arg(long, default_value_t = SHORT)]
    seconds: u64,
    /// Run each target for twenty minutes
    #[arg(long, conflicts_with = "seconds")]
    long: bool,
    /// The number that the inputs are made from; the same ones come again from the same corpus [default: another each time]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    seed: Option<u32>,
    /// Run the target once, on the bytes of this file
    #[arg(long, value_name = "FILE", requires = "target", conflicts_with_all = ["seconds", "long"])]
    replay: Option<PathBuf>,
}

impl Default for Options {
    /// Every target for as long as CI has, with inputs that are the same for every change.
    fn default() -> Self {
        Self { target: None, seconds: SHORT, long: false, seed: Some(1), replay: None }
    }
}

/// Builds the targets, runs them and prints a table; a target without a finding has passed.
pub(crate) fn run(options: &Options) -> Result<Tally> {
    let all = TARGETS.iter().filter(|target| options.target.as_ref().is_none_or(|name| name == target.name));
    let all: Vec<&Target> = all.collect();
    ensure!(!all.is_empty(), "no such target; there are {}", names().join(", "));
    let place = Place { programs: build(options.target.as_deref())?, root: folder()? };
    if let (Some(file), [target]) = (&options.replay, &all[..]) {
        return replay(&place, target, file);
    }
    let time = Time { seconds: if options.long { LONG } else { options.seconds }, seed: options.seed };
    let rows = run_all(&place, all, time)?;
    let executions: u64 = rows.iter().map(|row| row.executions).sum();
    let seconds: f64 = rows.iter().map(|row| row.seconds).sum();
    println!("{executions} executions in {seconds:.0} seconds of all targets together");
    rows.iter().filter_map(|row| row.finding.as_deref()).for_each(|finding| println!("\n{finding}"));
    Ok(rows.iter().map(Row::tally).sum())
}

/// The folder that the targets are built in, with all corpora.
fn folder() -> Result<PathBuf> {
    Ok(target()?.join("fuzz"))
}

/// A fuzz target.
struct Target {
    name: &'static str,
    /// The longest input that is tried, in bytes.
    longest: u32,
}

/// How long a target runs, and what its inputs are made from.
#[derive(Clone, Copy)]
struct Time {
    seconds: u64,
    seed: Option<u32>,
}

/// Where the programs are, and what they read and write.
struct Place {
    programs: PathBuf,
    root: PathBuf,
}

impl Place {
    /// A folder for what belongs to `target`, made where it is not there.
    fn folder(&self, what: &str, target: &Target) -> Result<PathBuf> {
        let folder = self.root.join(what).join(target.name);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(folder)
    }

    fn program(&self, target: &Target) -> Command {
        Command::new(self.programs.join(target.name))
    }
}

/// What came of a target's run.
struct Row {
    name: &'static str,
    executions: u64,
    coverage: u64,
    seconds: f64,
    /// What was found, and how to see it again.
    finding: Option<String>,
}

impl Row {
    fn print(&self) {
        let Self { name, executions, coverage, seconds, finding } = self;
        let result = if finding.is_none() { "ok" } else { "FINDING" };
        println!("{name:<14} {result:<8} {executions:>12} {coverage:>9} {seconds:>8.1}");
    }

    fn tally(&self) -> Tally {
        let failed = u32::from(self.finding.is_some());
        Tally { passed: 1 - failed, failed }
    }
}

/// Runs the targets, as many at a time as there are processors; prints and returns what came of each once it is there.
fn run_all(place: &Place, targets: Vec<&Target>, time: Time) -> Result<Vec<Row>> {
    let at_once = thread::available_parallelism().map_or(1, usize::from).min(targets.len());
    println!("{} targets run for {} seconds each, {at_once} at a time", targets.len(), time.seconds);
    println!("\n{:<14} {:<8} {:>12} {:>9} {:>8}", "target", "result", "executions", "coverage", "seconds");
    let waiting: Mutex<VecDeque<_>> = Mutex::new(targets.into());
    let next = || waiting.lock().ok().and_then(|mut waiting| waiting.pop_front());
    let (done, rows) = mpsc::channel();
    thread::scope(|scope| {
        for done in vec![done; at_once] {
            scope.spawn(move || {
                while let Some(target) = next() {
                    // Nobody waits for it any more where another target could not be run.
                    let _ = done.send(fuzz(place, target, time));
                }
            });
        }
        rows.into_iter().map(|row| row.inspect(Row::print)).collect()
    })
}

/// Runs one target for its time, on the corpus that earlier runs have left.
fn fuzz(place: &Place, target: &Target, time: Time) -> Result<Row> {
    let (corpus, findings) = (place.folder("corpus", target)?, place.folder("findings", target)?);
    let log = place.folder("log", target)?.join("last");
    let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut command = place.program(target);
    command.arg(format!("-max_total_time={}", time.seconds)).arg(format!("-max_len={}", target.longest));
    command.args(time.seed.map(|seed| format!("-seed={seed}")));
    command.arg(format!("-artifact_prefix={}/", findings.display()));
    command.arg(format!("-dict={}", workspace()?.join(FUZZ).join("dictionary").display()));
    command
        .env("RUST_BACKTRACE", "0")
        .args(LIMITS)
        .arg("-print_final_stats=1")
        .arg(corpus)
        .arg(seeds(place, target)?);
    let began = Instant::now();
    let status = command
        .stdout(file.try_clone()?)
        .stderr(file)
        .status()
        .with_context(|| format!("cannot run {}", command::show(&command)))?;
    let text = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
    let row = Row {
        name: target.name,
        executions: number(&text, "stat::number_of_executed_units:").unwrap_or(0),
        coverage: number(&text, " cov:").unwrap_or(0),
        seconds: began.elapsed().as_secs_f64(),
        finding: (!status.success()).then(|| finding(target, &text)),
    };
    ensure!(row.finding.is_some() || row.executions > 0, "{}: nothing was executed", command::show(&command));
    Ok(row)
}

/// Has the target write its seeds, and returns their folder.
fn seeds(place: &Place, target: &Target) -> Result<PathBuf> {
    let folder = place.folder("seeds", target)?;
    output(place.program(target).env("FUZZ_SEEDS", &folder))?;
    Ok(folder)
}

/// Runs the target once, on one input, and shows what it says.
fn replay(place: &Place, target: &Target, file: &Path) -> Result<Tally> {
    ensure!(file.is_file(), "there is no file {}", file.display());
    let mut command = place.program(target);
    let findings = place.folder("findings", target)?;
    command.arg(format!("-artifact_prefix={}/", findings.display())).args(LIMITS).arg(file);
    let status = command.status().with_context(|| format!("cannot run {}", command::show(&command)))?;
    Ok(if status.success() { Tally::PASSED } else { Tally::FAILED })
}

/// What a run found: the end of its log, the input, and how to run it again.
fn finding(target: &Target, log: &str) -> String {
    let input = log.lines().find_map(|line| Some(line.split_once(WRITTEN)?.1.trim()));
    let again = match input {
        Some(input) => format!("see it again: cargo xtask fuzz {} --replay {input}", target.name),
        None => "no input was written".into(),
    };
    let lines = log.lines().skip_while(|line| !is_begin(line)).take(25).collect::<Vec<_>>();
    let text = if lines.is_empty() { command::tail(log, 25) } else { lines.join("\n") };
    format!("{}: a finding\n{text}\n{again}", target.name)
}

/// Whether a line of the log is where a finding's text begins.
fn is_begin(line: &str) -> bool {
    line.contains("panicked at") || line.contains("ERROR: libFuzzer")
}

/// The last number in the log behind `name`.
fn number(log: &str, name: &str) -> Option<u64> {
    let behind = log.lines().rev().find_map(|line| Some(line.split_once(name)?.1))?;
    behind.split_whitespace().next()?.parse().ok()
}

/// Builds the targets, or one of them, and returns the folder of the programs.
fn build(name: Option<&str>) -> Result<PathBuf> {
    ensure!(is_installed("c++"), "fuzzing needs a C++ compiler: apt-get install g++");
    let (nightly, cargo_fuzz, root) = (nightly()?, cargo_fuzz()?, folder()?);
    // Run by the toolchain's own cargo and rustc, whatever toolchain this task was started by.
    let mut command = Command::new("rustup");
    command.args(["run", &nightly]).arg(cargo_fuzz).args([
        "build",
        "--fuzz-dir",
        "fuzz",
        "--sanitizer",
        "none",
    ]);
    command.arg("--target-dir").arg(&root).args(name).current_dir(workspace()?.join("tests"));
    for variable in ["CARGO", "RUSTC", "RUSTDOC", "CARGO_TARGET_DIR", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"]
    {
        command.env_remove(variable);
    }
    step(&format!("building the fuzz targets with {nightly}"), || output(&mut command))?;
    let version = output(Command::new("rustup").args(["run", &nightly, "rustc", "--print", "host-tuple"]))?;
    Ok(root.join(version.trim()).join("release"))
}

/// cargo-fuzz, which is installed into the cache folder where it is not there.
fn cargo_fuzz() -> Result<PathBuf> {
    let root = cache()?.join("fuzz").join(format!("cargo-fuzz-{CARGO_FUZZ}"));
    let program = root.join("bin/cargo-fuzz");
    if !program.is_file() {
        let mut command = cargo();
        command.args(["install", "cargo-fuzz", "--locked", "--version", CARGO_FUZZ, "--root"]).arg(&root);
        step("installing cargo-fuzz", || output(&mut command))?;
    }
    ensure!(program.is_file(), "there is no {}", program.display());
    Ok(program)
}

fn names() -> Vec<&'static str> {
    TARGETS.iter().map(|target| target.name).collect()
}

const FUZZ: &str = "tests/fuzz";

/// Every target; those whose inputs are whole files take longer ones.
const TARGETS: &[Target] = &[
    Target { name: "section", longest: 600 },
    Target { name: "record", longest: 600 },
    Target { name: "destination", longest: 600 },
    Target { name: "source", longest: 30 },
    Target { name: "file", longest: 5000 },
    Target { name: "description", longest: 4000 },
    Target { name: "pci_config", longest: 5000 },
    Target { name: "packet", longest: 3000 },
    Target { name: "multifd", longest: 5000 },
    Target { name: "walk", longest: 5000 },
    Target { name: "extract", longest: 5000 },
];

/// An input that takes ten seconds hangs, and one that takes a gigabyte is a finding too.
const LIMITS: [&str; 2] = ["-timeout=10", "-rss_limit_mb=1024"];

/// How long a target runs in CI, in seconds.
const SHORT: u64 = 60;
/// How long a target runs in the long run, in seconds.
const LONG: u64 = 20 * 60;

/// The version that is installed.
const CARGO_FUZZ: &str = "0.13.1";

/// What stands before the path of an input that was kept.
const WRITTEN: &str = "Test unit written to ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_targets_folder_is_run() {
        let folder = workspace().unwrap().join(FUZZ).join("fuzz_targets");
        let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = files.map(|file| file.file_stem().unwrap().to_owned()).collect();
        files.sort();
        let mut names = names();
        names.sort_unstable();
        assert_eq!(files, names);
    }

    #[test]
    fn executions_and_coverage_are_the_last_that_a_log_tells() {
        let log = "#2\tINITED cov: 7 ft: 8\n#9\tDONE   cov: 67 ft: 319 corp: 76\nstat::number_of_executed_units: 611520\n";
        assert_eq!(number(log, " cov:"), Some(67));
        assert_eq!(number(log, "stat::number_of_executed_units:"), Some(611_520));
        assert_eq!(number("", " cov:"), None);
    }

    #[test]
    fn finding_tells_what_failed_and_how_to_run_it_again() {
        let log = "#5 NEW\nthread '<unnamed>' panicked at a.rs:1:2:\nno\nTest unit written to /t/crash-1\n";
        let told = finding(&TARGETS[0], log);
        assert!(told.starts_with("section: a finding\nthread '<unnamed>' panicked"), "{told}");
        assert!(told.ends_with("cargo xtask fuzz section --replay /t/crash-1"), "{told}");
    }
}
