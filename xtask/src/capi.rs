//! `cargo xtask capi`: the library for hypervisors in C, its header, and the C programs that use both.
//!
//! The header is generated from the library's source and must be the one that is committed. What the exports reach must
//! need nothing but memcpy and memset, and so no panic: the library's panic handler calls a function that nobody defines.
//! That this would be seen is shown each time and for each machine, with an export that holds an index out of bounds.
//! Then the machine's C compiler builds the test programs and the header's example with all warnings as errors, once more
//! with its sanitizers, and runs them. On other machines with Linux the tests run too.
//!
//! Deliberately absent: a C compiler of our own. The machine's is what a user has.

mod header;
mod own;
mod proof;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use clap::builder::PossibleValuesParser;

use self::own::Own;
use self::proof::{Part, prove, refute};
use crate::command::{self, Tally, cargo, is_installed, output, step, target, workspace};
use crate::cross::machine;
use crate::sysroot::{self, Crates};

/// Options of the task.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    /// Write the header anew in the place of checking it
    #[arg(long)]
    bless: bool,
    /// Also prove and measure the library for this target, and run the tests where it is one of Linux; may be given several
    /// times
    #[arg(long, value_parser = PossibleValuesParser::new(machine::targets()))]
    target: Vec<String>,
}

impl Options {
    /// What CI does: where `others` is set, also a small machine, one whose bytes are in the other order, and one whose
    /// pointers are shorter.
    pub(crate) fn of_ci(others: bool) -> Self {
        let target = OTHERS.iter().filter(|_| others).map(|target| (*target).to_owned()).collect();
        Self { bless: false, target }
    }
}

/// Checks all of it and returns the tests that the C programs ran.
pub(crate) fn run(options: &Options) -> Result<Tally> {
    header::check(options.bless)?;
    let library =
        proved(Part::Whole, |what, features| step(&format!("building {what}"), || build(features)))?;
    compile_as_cpp()?;
    let mut tally = Tally::default();
    for (name, flags) in WAYS {
        let program = folder()?.join(format!("tests-{name}"));
        step(&format!("compiling the C tests, {name}"), || compile("cc", &library, flags, &program))?;
        tally += run_tests(&mut here(&program))?;
    }
    for (at, target) in options.target.iter().enumerate() {
        if !options.target[..at].contains(target) {
            tally += other_machine(target)?;
        }
    }
    Ok(tally)
}

/// The folder that the library and the programs are built in.
pub(crate) fn folder() -> Result<PathBuf> {
    Ok(target()?.join("capi"))
}

/// Builds the negative control and then, in its place, the library; checks both and returns the library's archive.
fn proved(part: Part, build: impl Fn(&str, &[&str]) -> Result<PathBuf>) -> Result<PathBuf> {
    refute(&Own::read(&build("the negative control", &["--features", "control"])?)?, part)?;
    let library = build("the library", &[])?;
    prove(&Own::read(&library)?, part)?;
    Ok(library)
}

/// Builds the library for this machine and returns its archive.
fn build(features: &[&str]) -> Result<PathBuf> {
    let folder = folder()?;
    let mut command = cargo();
    command
        .current_dir(workspace()?.join(LIBRARY))
        .args(["build", "--quiet", "--release", "--locked", "--target-dir"])
        .arg(&folder)
        .args(features)
        .env_remove("CARGO_BUILD_TARGET")
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    output(&mut command)?;
    Ok(folder.join("release").join(ARCHIVE))
}

/// Compiles the header alone as C++, where there is a compiler.
fn compile_as_cpp() -> Result<()> {
    if !is_installed("c++") {
        println!("c++ is not installed: the header was not compiled as C++");
        return Ok(());
    }
    let root = workspace()?;
    let mut command = Command::new("c++");
    command.args(["-std=c++11", "-fsyntax-only"]).args(WARNINGS).args(["-x", "c++"]);
    command.arg("-I").arg(root.join(INCLUDE)).arg(root.join(TESTS).join("header.cpp"));
    step("compiling the header as C++", || output(&mut command)).map(drop)
}

/// Compiles the tests and links them with the library.
fn compile(compiler: &str, library: &Path, flags: &[&str], program: &Path) -> Result<()> {
    ensure!(is_installed(compiler), "the C tests need {compiler}: apt-get install gcc libc6-dev");
    let root = workspace()?;
    let mut command = Command::new(compiler);
    command.args(["-std=c11", "-g", "-O1"]).args(WARNINGS).args(flags).arg("-I").arg(root.join(INCLUDE));
    command.args(sources(&root.join(TESTS))?).arg(library).arg("-o").arg(program);
    output(&mut command).map(drop)
}

/// The C files in a folder.
fn sources(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "c") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// What runs a program on this machine. The sanitizer of gcc 12 does not start where addresses are more random than it
/// knows, and it looks for leaks with means that containers forbid; nothing allocates.
fn here(program: &Path) -> Command {
    let bits = fs::read_to_string("/proc/sys/vm/mmap_rnd_bits").ok();
    let is_too_random =
        bits.and_then(|bits| bits.trim().parse::<u32>().ok()).is_some_and(|bits| bits > RANDOM);
    let mut command = Command::new(if is_too_random { "setarch".as_ref() } else { program.as_os_str() });
    if is_too_random {
        command.arg("-R").arg(program);
    }
    command.env("ASAN_OPTIONS", "detect_leaks=0");
    command
}

/// Runs a program of tests, shows what it printed, and reads how many passed from its last line.
fn run_tests(command: &mut Command) -> Result<Tally> {
    command.arg(workspace()?.join(GOLDEN));
    let shown = command::show(command);
    let told = command.output().with_context(|| format!("cannot run {shown}"))?;
    let text = String::from_utf8_lossy(&told.stdout);
    print!("{text}{}", String::from_utf8_lossy(&told.stderr));
    let tally = text.lines().last().and_then(Tally::parse);
    match tally {
        Some(tally) if told.status.success() == (tally.failed == 0) => Ok(tally),
        _ => bail!("{shown}: {}, and its last line does not fit", told.status),
    }
}

/// Proves and measures the library for another machine: one with Linux also runs the tests, one without an operating
/// system gets small code, of which all is proved but the words.
fn other_machine(target: &str) -> Result<Tally> {
    let Some(machine) = machine::MACHINES.iter().find(|machine| machine.target == target) else {
        proved(Part::WithoutWords, |what, features| build_for(target, "z", what, features))?;
        return Ok(Tally::PASSED);
    };
    let library = proved(Part::Whole, |what, features| build_for(target, "3", what, features))?;
    machine::provide(&[machine])?;
    let program = folder()?.join(format!("tests-{target}"));
    let work = || compile(machine.linker, &library, &["-static"], &program);
    step(&format!("compiling the C tests for {target}"), work)?;
    run_tests(&mut machine.run(&program))
}

/// Builds the library for another machine and returns its archive.
fn build_for(target: &str, level: &str, what: &str, features: &[&str]) -> Result<PathBuf> {
    let (mut command, how) = sysroot::cargo("build", target, Crates::Core)?;
    let folder = folder()?.join(format!("opt-level-{level}"));
    command.current_dir(workspace()?.join(LIBRARY)).args(features);
    command.args(["--release", "--locked", "--target-dir"]).arg(&folder);
    command.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", level);
    let what = format!("building {what} for {target}, opt-level {level}, {how}");
    step(&what, || output(&mut command))?;
    Ok(folder.join(target).join("release").join(ARCHIVE))
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask capi                                   # check, compile and run
  cargo xtask capi --bless                           # after a change of the interface: write the header
  cargo xtask capi --target thumbv7em-none-eabihf    # and how large it is there
  cargo xtask capi --target s390x-unknown-linux-gnu  # and the tests with bytes in the other order";

/// The other machines of CI.
const OTHERS: [&str; 3] = ["thumbv7em-none-eabihf", "s390x-unknown-linux-gnu", "i686-unknown-linux-gnu"];

const LIBRARY: &str = "core/capi";
const INCLUDE: &str = "core/capi/include";

const TESTS: &str = "tests/capi";
const GOLDEN: &str = "tests/golden";

const ARCHIVE: &str = "libvfio_migration.a";

/// The bits of an address that the sanitizer allows to be random.
const RANDOM: u32 = 28;

const WARNINGS: [&str; 4] = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"];

/// How the tests are compiled, each with its name.
const WAYS: [(&str, &[&str]); 2] =
    [("plain", &[]), ("sanitized", &["-fsanitize=address,undefined", "-fno-sanitize-recover=all"])];
