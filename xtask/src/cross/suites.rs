//! The test suites of core and of the package `tests`, run as programs of another machine.
//!
//! Deliberately absent: the documentation's examples, and host's own tests, which start its program without an emulator.

use anyhow::Result;

use super::machine::Machine;
use crate::command::{self, Tally};
use crate::sysroot::How;

/// Runs the suites and shows what they print; with the tally, how the standard library was had.
pub(super) fn run(machine: &Machine) -> Result<(Tally, How)> {
    let (mut command, how) = machine.cargo("test")?;
    command.args(["--quiet", "--package", "vfio-migration-core", "--package", "vfio-migration-tests"]);
    command.args(["--all-features", "--all-targets", "--no-fail-fast", "--", "--exact"]);
    for left_out in left_out(machine) {
        println!("left out on {}: {}, because {}", machine.target, left_out.test, left_out.reason);
        command.args(["--skip", left_out.test]);
    }
    Ok((command::tests(&mut command)?, how))
}

/// The tests that are left out on a machine.
pub(super) fn left_out(machine: &Machine) -> impl Iterator<Item = &'static LeftOut> {
    let emulator = machine.runner_name();
    LEFT_OUT.iter().filter(move |left_out| left_out.runners.contains(&emulator))
}

/// A test that can't run everywhere.
pub(super) struct LeftOut {
    /// Its whole name.
    test: &'static str,
    /// What can't run it.
    runners: &'static [&'static str],
    /// Why.
    reason: &'static str,
}

/// Every test that is left out anywhere; no other is.
const LEFT_OUT: &[LeftOut] = &[LeftOut {
    test: "file_that_is_no_device_starts_no_log",
    runners: &["qemu-s390x", "qemu-i386"],
    reason: "the emulator knows no ioctl of VFIO, and answers ENOSYS in the kernel's place",
}];
