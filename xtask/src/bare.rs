//! `cargo xtask bare`: a kernel of ours, without an operating system, moves its device's state under QEMU.
//!
//! The kernel is `tests/bare`. Two machines are connected by their serial lines; a machine's stream goes to the program
//! `vfio-migrate`, the program's stream to a machine; and streams are damaged on the way. A machine says what it does on
//! its second port, and how it went by the code with which its QEMU ends. Everything is emulated.
//!
//! Deliberately absent: a network. A serial line is a socket that both QEMUs, or one of them and this task, hold.

mod cases;
mod damage;
mod lab;
mod machine;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use object::{Object as _, ObjectSection as _, SectionKind};

use self::lab::Lab;
use crate::cache::{check_tools, lock, remove};
use crate::command::{self, Tally, cargo, output, step, workspace};
use crate::sysroot::{self, Crates};
use crate::vm;

/// Builds the kernel, boots it in every case and returns how many of them passed.
pub(crate) fn run() -> Result<Tally> {
    check_tools(&[("setpriv", "util-linux")], OTHERWISE)?;
    let qemu = vm::qemu(OTHERWISE)?;
    let kernel = build_kernel()?;
    println!("the kernel has {}", sizes(&kernel)?);
    let programs = step("building vfio-migrate and what looks into its devices", build_programs)?;
    let _lock = lock(&folder()?).context("cannot lock the machines' folder")?;
    let folder = folder()?.join("run");
    remove(&folder)?;
    fs::create_dir_all(&folder)?;
    println!("what the machines say goes to {}", folder.display());
    let lab = Lab::new(qemu, kernel, programs, folder);
    let tally = cases::run(&lab);
    println!("{tally}");
    Ok(tally)
}

/// The folder that the kernel is built in.
fn folder() -> Result<PathBuf> {
    Ok(command::target()?.join("bare"))
}

fn build_kernel() -> Result<PathBuf> {
    let folder = folder()?;
    let (mut command, how) = sysroot::cargo("build", TARGET, Crates::Core)?;
    command.args(["--release", "--manifest-path", "tests/bare/Cargo.toml", "--target-dir"]).arg(&folder);
    step(&format!("building the kernel for {TARGET}, core {how}"), || output(&mut command))?;
    Ok(folder.join(TARGET).join("release/bare"))
}

/// Builds the program and the example, as the step before has built them: with the same features nothing is built anew.
fn build_programs() -> Result<PathBuf> {
    let mut command = cargo();
    command.args([
        "build",
        "--workspace",
        "--all-features",
        "--bin",
        "vfio-migrate",
        "--example",
        "sim_content",
    ]);
    output(command.current_dir(workspace()?))?;
    Ok(command::target()?.join("debug"))
}

/// How large a kernel is: the bytes of its code and constants, which are in its file, and of its memory.
fn sizes(kernel: &Path) -> Result<String> {
    let bytes = fs::read(kernel).with_context(|| format!("cannot read {}", kernel.display()))?;
    let file = object::File::parse(&*bytes).with_context(|| format!("{} is no ELF", kernel.display()))?;
    let [mut code, mut constants, mut memory] = [0; 3];
    for section in file.sections() {
        match section.kind() {
            SectionKind::Text => code += section.size(),
            SectionKind::ReadOnlyData | SectionKind::ReadOnlyString => constants += section.size(),
            SectionKind::Data | SectionKind::UninitializedData => memory += section.size(),
            _ => {}
        }
    }
    Ok(format!("{code} bytes of code, {constants} of constants, {memory} of memory"))
}

const TARGET: &str = "x86_64-unknown-none";

/// What to do where programs are missing.
const OTHERWISE: &str = "leave this task out, as `cargo xtask test --skip-vm` does";
