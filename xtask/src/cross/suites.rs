//! The test suites of core, of host's library and of the package `tests`, run as programs of another machine.
//!
//! Deliberately absent: the documentation's examples, and the tests of host's program, which start it without an emulator.

use anyhow::{Context as _, Result};

use super::machine::Machine;
use crate::command::{self, Tally, output, step};
use crate::sysroot::How;

/// Builds and runs the suites and shows what they print; with the tally, how the standard library was had.
pub(super) fn run(machine: &Machine) -> Result<(Tally, How)> {
    let left_out: Vec<&LeftOut> = left_out(machine).collect();
    for LeftOut { test, reason, .. } in &left_out {
        println!("left out on {}: {test}, because {reason}", machine.target);
    }
    let mut tally = Tally::default();
    let mut had = None;
    for suite in SUITES {
        let (mut build, how) = machine.cargo("test")?;
        build.args(suite).args(["--quiet", "--no-run"]);
        step(&format!("building {} for {}", suite.join(" "), machine.target), || output(&mut build))?;
        let (mut tests, _) = machine.cargo("test")?;
        tests.args(suite).args(["--quiet", "--no-fail-fast", "--", "--exact"]);
        tests.args(left_out.iter().flat_map(|left_out| ["--skip", left_out.test]));
        tally = [tally, command::tests(&mut tests)?].into_iter().sum();
        had = Some(how);
    }
    Ok((tally, had.context("there is a suite")?))
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

/// Every test that is left out anywhere; no other is.
const LEFT_OUT: &[LeftOut] = &[
    LeftOut { test: "file_that_is_no_device_starts_no_log", runners: EMULATORS, reason: NO_IOCTL },
    LeftOut {
        test: "attach::tests::files_that_are_not_vfio_s_are_refused_with_the_step_that_failed",
        runners: EMULATORS,
        reason: NO_IOCTL,
    },
    LeftOut {
        test: "dirty::tests::report_that_fails_says_that_all_is_dirty_and_so_do_all_after_it",
        runners: EMULATORS,
        reason: NO_IOCTL,
    },
    LeftOut {
        test: "ioctl::tests::report_that_cannot_be_is_refused_before_the_kernel_is_asked_and_all_bits_are_set_after_any_error",
        runners: EMULATORS,
        reason: NO_IOCTL,
    },
    LeftOut {
        test: "ioctl::tests::what_nobody_has_is_asked_of_nobody",
        runners: EMULATORS,
        reason: NO_IOCTL,
    },
];

/// The emulators that run test suites.
const EMULATORS: &[&str] = &["qemu-s390x", "qemu-i386"];

const NO_IOCTL: &str = "the emulator knows no ioctl of VFIO, and answers ENOSYS in the kernel's place";

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
        for left_out in LEFT_OUT {
            let name = left_out.test.rsplit("::").next().unwrap();
            assert_eq!(all.matches(&format!("fn {name}()")).count(), 1, "{}", left_out.test);
        }
    }
}
