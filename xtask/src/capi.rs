//! `cargo xtask capi`: the library for hypervisors in C, its header, and the C programs that use both.
//!
//! The header is generated from the library's source and must be the one that is committed. The library's own object,
//! with all exports, must need nothing but the compiler's memory functions, and so no panic: its panic handler calls a
//! function that nobody defines, which the object would need if a panic could be reached. That it then does is shown
//! each time, with an export that holds an index out of bounds. Then the machine's C compiler builds the test programs and
//! the header's example with all warnings as errors, once more with its sanitizers, and runs them.
//!
//! Deliberately absent: a C compiler of our own. The machine's is what a user has.

mod header;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use object::read::archive::ArchiveFile;
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SectionKind};

use crate::command::{Tally, cargo, is_installed, output, step, target, workspace};
use crate::sysroot::{self, Crates};

/// Options of the task.
#[derive(clap::Args, Default)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    /// Write the header anew in the place of checking it
    #[arg(long)]
    bless: bool,
    /// Also build the library for this target, and say how large its code is; may be given several times
    #[arg(long, value_name = "TARGET")]
    target: Vec<String>,
}

/// Checks all of it and returns the tests that the C programs ran.
pub(crate) fn run(options: &Options) -> Result<Tally> {
    header::check(options.bless)?;
    // The control first, since the library takes its place.
    let control = step("building the negative control", || build(&["--features", "control"]))?;
    refute(&control)?;
    let library = step("building the library", || build(&[]))?;
    prove(&library)?;
    compile_as_cpp()?;
    let mut tally = Tally::default();
    for (name, flags) in WAYS {
        let program = step(&format!("compiling the C tests, {name}"), || compile(&library, name, flags))?;
        tally = [tally, run_tests(&program)?].into_iter().sum();
    }
    for target in &options.target {
        build_for(target)?;
    }
    Ok(tally)
}

/// The folder that the library and the programs are built in.
pub(crate) fn folder() -> Result<PathBuf> {
    Ok(target()?.join("capi"))
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

/// Checks that the library exports what its source does, and needs nothing but the compiler's memory functions.
fn prove(library: &Path) -> Result<()> {
    let object = Own::read(library)?;
    let written = header::exports()?;
    ensure!(
        object.exports == written,
        "wanted the exports {written:?}, the library has {:?}",
        object.exports
    );
    ensure!(
        !object.needs.iter().any(|name| name == PANIC),
        "an export can reach a panic: the library needs {PANIC}"
    );
    let more: Vec<&String> = object.needs.iter().filter(|name| !MEMORY.contains(&name.as_str())).collect();
    ensure!(more.is_empty(), "the library needs {more:?}, wanted nothing but {MEMORY:?}");
    let (count, needs) = (written.len(), object.needs.join(" and "));
    println!("{count} exports, {} bytes; none can reach a panic, and they need {needs} alone", object.size);
    Ok(())
}

/// Checks that the negative control needs the panic, and nothing else that the library does not.
fn refute(control: &Path) -> Result<()> {
    let object = Own::read(control)?;
    ensure!(
        object.exports.iter().any(|name| name == CONTROL),
        "there is no {CONTROL} in {}",
        control.display()
    );
    let panics = object.needs.iter().any(|name| name == PANIC);
    ensure!(panics, "{CONTROL} can panic and does not need {PANIC}: the proof proves nothing");
    println!("the negative control, an index that can fail, needs {PANIC} as it must");
    Ok(())
}

/// What is in the library's own object.
struct Own {
    /// The functions that it exports, in their order.
    exports: Vec<String>,
    /// The functions that it needs, in their order.
    needs: Vec<String>,
    /// Bytes of code and constants.
    size: u64,
}

impl Own {
    fn read(library: &Path) -> Result<Self> {
        let bytes = fs::read(library).with_context(|| format!("cannot read {}", library.display()))?;
        let archive = ArchiveFile::parse(&*bytes)?;
        let mut own = Self { exports: Vec::new(), needs: Vec::new(), size: 0 };
        for member in archive.members() {
            let member = member?;
            if member.name().starts_with(OBJECT.as_bytes()) {
                own.add(&object::File::parse(member.data(&*bytes)?)?)?;
            }
        }
        ensure!(!own.exports.is_empty(), "no object {OBJECT} with exports in {}", library.display());
        own.exports.sort();
        own.needs.sort();
        Ok(own)
    }

    fn add(&mut self, file: &object::File<'_>) -> Result<()> {
        for symbol in file.symbols().filter(|symbol| symbol.is_global()) {
            let names = if symbol.is_undefined() { &mut self.needs } else { &mut self.exports };
            names.push(symbol.name()?.to_owned());
        }
        let held =
            [SectionKind::Text, SectionKind::ReadOnlyData, SectionKind::ReadOnlyString, SectionKind::Data];
        self.size += file
            .sections()
            .filter(|section| held.contains(&section.kind()))
            .map(|section| section.size())
            .sum::<u64>();
        Ok(())
    }
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

/// Compiles the tests and the example, and links them with the library.
fn compile(library: &Path, name: &str, flags: &[&str]) -> Result<PathBuf> {
    ensure!(is_installed("cc"), "the C tests need a C compiler: apt-get install gcc libc6-dev");
    let root = workspace()?;
    let program = folder()?.join(format!("tests-{name}"));
    let mut command = Command::new("cc");
    command.args(["-std=c11", "-g", "-O1"]).args(WARNINGS).args(flags).arg("-I").arg(root.join(INCLUDE));
    command.args(sources(&root.join(TESTS))?).arg(library).arg("-o").arg(&program);
    output(&mut command)?;
    Ok(program)
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

/// Runs a program of tests, shows what it printed, and reads how many passed from its last line.
fn run_tests(program: &Path) -> Result<Tally> {
    let told = Command::new(program)
        .arg(workspace()?.join(GOLDEN))
        .output()
        .with_context(|| format!("cannot run {}", program.display()))?;
    let text = String::from_utf8_lossy(&told.stdout);
    print!("{text}{}", String::from_utf8_lossy(&told.stderr));
    let tally = text.lines().last().and_then(Tally::parse);
    match tally {
        Some(tally) if told.status.success() == (tally.failed == 0) => Ok(tally),
        _ => bail!("{}: {}, and its last line does not fit", program.display(), told.status),
    }
}

/// Builds the library for a target and says how large the code and constants of its own object are there.
fn build_for(target: &str) -> Result<()> {
    let (mut command, how) = sysroot::cargo("build", target, Crates::Core)?;
    command.current_dir(workspace()?.join(LIBRARY));
    command.args(["--release", "--locked", "--target-dir"]).arg(folder()?);
    step(&format!("building the library for {target}, {how}"), || output(&mut command))?;
    let object = Own::read(&folder()?.join(target).join("release").join(ARCHIVE))?;
    println!(
        "{target}: {} exports, {} bytes, needs {}",
        object.exports.len(),
        object.size,
        object.needs.join(" and ")
    );
    Ok(())
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask capi                                   # check, compile and run
  cargo xtask capi --bless                           # after a change of the interface: write the header
  cargo xtask capi --target thumbv7em-none-eabihf    # and say how large it is there";

const LIBRARY: &str = "core/capi";
const INCLUDE: &str = "core/capi/include";

const TESTS: &str = "tests/capi";
const GOLDEN: &str = "tests/golden";

const ARCHIVE: &str = "libvfio_migration.a";
/// How the library's own object begins in the archive; the others are the compiler's.
const OBJECT: &str = "vfio_migration";

/// What the panic handler calls.
const PANIC: &str = "vfio_migration_panicked";
/// The export that can panic, there with the feature `control` only.
const CONTROL: &str = "vfio_control";

/// Functions that the compiler takes for granted.
const MEMORY: [&str; 5] = ["memcpy", "memmove", "memset", "memcmp", "bcmp"];

const WARNINGS: [&str; 4] = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"];

/// How the tests are compiled, each with its name.
const WAYS: [(&str, &[&str]); 2] =
    [("plain", &[]), ("sanitized", &["-fsanitize=address,undefined", "-fno-sanitize-recover=all"])];
