//! The test suites of core and of the package `tests`, run as programs of another machine.
//!
//! Deliberately absent: the documentation's examples, and host's own tests, which start its program without an emulator.

use std::process::Command;

use anyhow::Result;

use super::machine::Machine;
use crate::command::{self, Tally, output, step};
use crate::sysroot::How;

/// Builds and runs the suites and shows what they print; with the tally, how the standard library was had.
pub(super) fn run(machine: &Machine) -> Result<(Tally, How)> {
    let cargo = || -> Result<(Command, How)> {
        let (mut command, how) = machine.cargo("test")?;
        command.args(["--quiet", "--package", "vfio-migration-core", "--package", "vfio-migration-tests"]);
        command.args(["--all-features", "--all-targets"]);
        Ok((command, how))
    };
    let (mut build, how) = cargo()?;
    step(&format!("building the test suites for {}", machine.target), || output(build.arg("--no-run")))?;
    let (mut tests, _) = cargo()?;
    tests.args(["--no-fail-fast", "--", "--exact"]);
    for left_out in left_out(machine) {
        println!("left out on {}: {}, because {}", machine.target, left_out.test, left_out.reason);
        tests.args(["--skip", left_out.test]);
    }
    Ok((command::tests(&mut tests)?, how))
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::command::workspace;

    #[test]
    fn every_test_that_is_left_out_is_there() {
        let folder = workspace().unwrap().join("tests/tests");
        let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let texts = files.filter(|file| file.is_file()).map(|file| fs::read_to_string(file).unwrap());
        let all: String = texts.collect();
        for left_out in LEFT_OUT {
            assert_eq!(all.matches(&format!("fn {}()", left_out.test)).count(), 1, "{}", left_out.test);
        }
    }
}
