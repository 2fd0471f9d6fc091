//! `cargo xtask cross`: the workspace's crates built for other machines.
//!
//! Deliberately absent: speed. Nothing is measured on a machine that is emulated.

use anyhow::Result;

use crate::command::{output, step, target};
use crate::sysroot::{self, Crates};

/// Options of the task.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The target to build for; may be given several times
    #[arg(long, required = true)]
    target: Vec<String>,
}

/// Builds the library for each target: host's on Linux, core elsewhere.
pub(crate) fn run(options: &Options) -> Result<()> {
    for name in &options.target {
        let (package, crates) = if name.contains("-linux-") {
            ("vfio-migration-host", Crates::Std)
        } else {
            ("vfio-migration-core", Crates::Core)
        };
        let (mut command, how) = sysroot::cargo("build", name, crates)?;
        command.args(["--package", package, "--lib", "--all-features", "--target-dir"]);
        command.arg(target()?.join("cross"));
        step(&format!("building {package} for {name}, {how}"), || output(&mut command))?;
    }
    Ok(())
}
