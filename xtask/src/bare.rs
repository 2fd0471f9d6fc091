//! Programs for machines without an operating system: the targets, and how `tests/panic_free` and `tests/size` are built
//! for them.
//!
//! The compiler notes the frame of each function, and Rust's own library is built from source along with the rest, so
//! that its functions have such notes, too.
//!
//! Deliberately absent: what is made of the programs.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::command::{self, output, target, workspace};
use crate::sysroot::{self, Crates};

/// The machines: Cortex-M4, and Arm, RISC-V and x86 of 64 bits, and RISC-V of 32.
pub(crate) const TARGETS: [&str; 5] = [
    "thumbv7em-none-eabihf",
    "aarch64-unknown-none",
    "riscv64gc-unknown-none-elf",
    "riscv32imac-unknown-none-elf",
    "x86_64-unknown-none",
];

/// What the compiler is to make of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// The quickest code, `opt-level = 3`.
    Quick,
    /// The smallest code, `opt-level = "z"`.
    Small,
}

impl Level {
    pub(crate) const ALL: [Self; 2] = [Self::Quick, Self::Small];

    /// What cargo calls it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Quick => "3",
            Self::Small => "z",
        }
    }
}

/// Builds a package of its own workspace, and returns the folder of what was built.
pub(crate) fn build(package: &str, target: &str, level: Level) -> Result<PathBuf> {
    let folder = folder(level)?;
    output(cargo("build", package, target, level)?.arg("--quiet"))?;
    Ok(folder.join(target).join("release"))
}

/// The compiler that builds them, such as `rustc 1.97.0-nightly (0123456 2026-05-19)`.
pub(crate) fn compiler() -> Result<String> {
    let nightly = command::nightly()?;
    let version =
        output(Command::new("rustup").args(["run", &nightly, "rustc", "--version"]).env_remove("RUSTC"))?;
    Ok(version.trim().to_owned())
}

/// A cargo command for such a package.
fn cargo(subcommand: &str, package: &str, target: &str, level: Level) -> Result<Command> {
    let (mut command, _) = sysroot::cargo_from_source(subcommand, target, Crates::Core)?;
    command
        .args(["--release", "--target-dir"])
        .arg(folder(level)?)
        .current_dir(workspace()?.join(package))
        .env("RUSTFLAGS", FLAGS)
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", level.name());
    Ok(command)
}

fn folder(level: Level) -> Result<PathBuf> {
    Ok(target()?.join(format!("bare-{}", level.name())))
}

const FLAGS: &str = "-Zemit-stack-sizes -Crelocation-model=static";
