//! The test suites of core, of host's library and of the package `tests`, run as programs of another machine.
//!
//! Deliberately absent: the documentation's examples, and the tests of host's program, which start it without an emulator.

use anyhow::{Context as _, Result};

use super::machine::Machine;
use crate::command::{self, Tally, output, step};
use crate::sysroot::How;

/// Builds and runs the suites and shows what they print; with the tally, how the standard library was had.
pub(super) fn run(machine: &Machine) -> Result<(Tally, How)> {
    let left_out = left_out(machine);
    for test in left_out {
        println!("left out on {}: {test}, because {REASON}", machine.target);
    }
    let mut tally = Tally::default();
    let mut had = None;
    for suite in SUITES {
        let (mut build, how) = machine.cargo("test")?;
        build.args(suite).args(["--quiet", "--no-run"]);
        step(&format!("building {} for {}", suite.join(" "), machine.target), || output(&mut build))?;
        let (mut tests, _) = machine.cargo("test")?;
        tests.args(suite).args(["--quiet", "--no-fail-fast", "--", "--exact"]);
        tests.args(left_out.iter().flat_map(|test| ["--skip", test]));
        tally += command::tests(&mut tests)?;
        had = Some(how);
    }
    Ok((tally, had.context("there is a suite")?))
}

/// The names of the tests that are left out on a machine.
pub(super) fn left_out(machine: &Machine) -> &'static [&'static str] {
    if EMULATORS.contains(&machine.runner_name()) { LEFT_OUT } else { &[] }
}

/// Which tests are built and run together.
const SUITES: [&[&str]; 2] = [
    &[
        "--package",
        "vfio-migration-core",
        "--package",
        "vfio-migration-tests",
        "--all-features",
        "--all-targets",
    ],
    &["--package", "vfio-migration-host", "--lib"],
];

/// Every test that is left out under the emulators; no other is, and none elsewhere.
const LEFT_OUT: &[&str] = &[
    "file_that_is_no_device_starts_no_log",
    "attach::tests::files_that_are_not_vfio_s_are_refused_with_the_step_that_failed",
    "dirty::tests::report_that_fails_says_that_all_is_dirty_and_so_do_all_after_it",
    "ioctl::tests::report_that_cannot_be_is_refused_before_the_kernel_is_asked_and_all_bits_are_set_after_any_error",
    "ioctl::tests::what_nobody_has_is_asked_of_nobody",
];

/// The emulators that run test suites.
const EMULATORS: [&str; 2] = ["qemu-s390x", "qemu-i386"];

/// Why tests are left out there.
const REASON: &str = "the emulator knows no ioctl of VFIO, and answers ENOSYS in the kernel's place";

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::command::workspace;

    #[test]
    fn every_test_that_is_left_out_is_there() {
        let folders = ["tests/tests", "host/src"].map(|folder| workspace().unwrap().join(folder));
        let entries = folders.iter().flat_map(|folder| fs::read_dir(folder).unwrap());
        let files = entries.map(|entry| entry.unwrap().path());
        let texts = files.filter(|file| file.is_file()).map(|file| fs::read_to_string(file).unwrap());
        let all: String = texts.collect();
        for test in LEFT_OUT {
            let name = test.rsplit("::").next().unwrap();
            assert_eq!(all.matches(&format!("fn {name}()")).count(), 1, "{test}");
        }
    }
}
