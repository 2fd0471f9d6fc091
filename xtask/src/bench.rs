//! `cargo xtask bench`: what core's path costs, in time, instructions, system calls, allocations and memory.
//!
//! The measurements themselves are in `tests/bench`.
//!
//! Deliberately absent: pass and fail. The aim, for reading the table: core's path without checksum at 0.95 of the bare
//! loop or better.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::command::{self, cargo, is_installed, output, target, workspace};

/// Options of the task.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Size of the device's state; three times as much memory is used
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    size: u32,
    /// Pairs of runs in each row
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Folder for the file that stands for the link [default: /dev/shm, or the folder for temporary files]
    #[arg(long)]
    folder: Option<PathBuf>,
}

/// Runs all measurements and prints their tables.
pub(crate) fn run(options: &Options) -> Result<()> {
    let bench = build("vfio-migration-bench")?;
    print_machine();
    copy(options, &bench)?;
    println!();
    show(Command::new(&bench).args(["cost", "--size", &SMALL.to_string()]))?;
    println!();
    for size in [SMALL, options.size] {
        let kib = output(Command::new(&bench).args(["peak", "--size", &size.to_string()]))?;
        println!("peak memory with {size:>4} MiB of state: {} KiB", kib.trim());
    }
    println!();
    instructions(&bench)
}

/// Throughput, in the folder that was given, or in memory.
fn copy(options: &Options, bench: &Path) -> Result<()> {
    let shared = PathBuf::from("/dev/shm");
    let default = if shared.is_dir() { shared } else { std::env::temp_dir() };
    let mut command = Command::new(bench);
    command.args(["copy", "--size", &options.size.to_string(), "--rounds", &options.rounds.to_string()]);
    show(command.arg("--folder").arg(options.folder.as_ref().unwrap_or(&default)))
}

/// Instructions for one record: what twice as many records take more, divided by their number.
fn instructions(bench: &Path) -> Result<()> {
    if !is_installed("valgrind") {
        println!(
            "instructions per record are left out: valgrind is not installed (apt-get install valgrind)"
        );
        return Ok(());
    }
    for path in ["encode", "decode", "source", "destination"] {
        let (once, twice) = (collected(bench, path, RECORDS)?, collected(bench, path, 2 * RECORDS)?);
        println!("instructions per record, {path:<11} {:>5}", twice.saturating_sub(once) / RECORDS);
    }
    Ok(())
}

/// The instructions that callgrind counts for so many records.
fn collected(bench: &Path, path: &str, records: u64) -> Result<u64> {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(bench);
    command.args(["records", path, &records.to_string()]);
    let run = command.output().with_context(|| format!("cannot run {}", command::show(&command)))?;
    let text = String::from_utf8_lossy(&run.stderr);
    let number = text.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
    number
        .with_context(|| format!("{}: {}\n{}", command::show(&command), run.status, command::tail(&text, 20)))
}

/// Builds a package's program of the same name as for a release and returns its path.
fn build(package: &str) -> Result<PathBuf> {
    output(cargo().args(["build", "--quiet", "--release", "--package", package]).current_dir(workspace()?))?;
    Ok(target()?.join("release").join(package))
}

/// Runs a command whose output is for the reader.
fn show(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {}", command::show(command)))?;
    ensure!(status.success(), "{}: {status}", command::show(command));
    Ok(())
}

/// What the numbers depend on; another program that runs at the same time spoils those of the sockets most.
fn print_machine() {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("\t: unknown");
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    let load = read("/proc/loadavg");
    println!(
        "Linux {}, {count} processors, {}, load {} before the first run",
        read("/proc/sys/kernel/osrelease").trim(),
        model.trim_start_matches(['\t', ' ', ':']),
        load.split(' ').next().unwrap_or("unknown"),
    );
}

/// The size that memory and system calls are counted with first, in MiB.
const SMALL: u32 = 64;

/// The records that instructions are counted with first.
const RECORDS: u64 = 1000;
