//! `cargo xtask cross`: core and host built for other machines, host also without std and libc, its program run as
//! theirs, and the test suites run where bytes are in the other order and where pointers are shorter.
//!
//! A target's standard library is used where it is installed, otherwise built from source. What fails does not stop the
//! rest.
//!
//! Deliberately absent: speed. Nothing is measured that an emulator runs.

pub(crate) mod machine;
mod musl;
mod suites;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use clap::builder::PossibleValuesParser;

use self::machine::{MACHINES, Machine};
use crate::command::{Tally, cargo, output, step, target, workspace};
use crate::freestanding::TARGETS;
use crate::sysroot::{self, Crates, How};

/// Options of the task.
#[derive(clap::Args, Default)]
#[command(after_help = AFTER)]
pub(crate) struct Options {
    /// Only this target; may be given several times
    #[arg(long, value_parser = PossibleValuesParser::new(machine::targets()))]
    target: Vec<String>,
    /// Build and run the program, but no test suites
    #[arg(long)]
    skip_tests: bool,
    /// Run the test suites alone
    #[arg(long, conflicts_with = "skip_tests")]
    tests_only: bool,
}

/// Builds and runs everything, and prints a table; each row without tests of its own counts as one.
pub(crate) fn run(options: &Options) -> Result<Tally> {
    let is_wanted = |name: &str| options.target.is_empty() || options.target.iter().any(|one| one == name);
    let bare: Vec<&str> = TARGETS.into_iter().filter(|name| is_wanted(name)).collect();
    let machines = MACHINES.iter().filter(|machine| is_wanted(machine.target));
    let machines: Vec<&Machine> = machines.filter(|machine| machine.tests || !options.tests_only).collect();
    if let Err(error) = machine::provide(&machines) {
        println!("{error:#}");
    }
    let mut rows = Vec::new();
    if !options.tests_only {
        for (at, name) in bare.into_iter().enumerate() {
            rows.extend(cores(name, at == 0)?);
        }
        rows.extend(machines.iter().map(|machine| Row::of(machine.target, PROGRAM, || program(machine))));
        let small = machines.iter().filter(|machine| machine.without_libc);
        rows.extend(small.map(|machine| Row::of(machine.target, "host, no feature", || host(machine))));
    }
    if !options.skip_tests {
        let suites = machines.iter().filter(|machine| machine.tests);
        rows.extend(suites.map(|machine| Row::of(machine.target, "test suites", || tests(machine))));
    }
    ensure!(!rows.is_empty(), "nothing is to be done for {}", options.target.join(" "));
    print(&rows);
    Ok(rows.iter().map(Row::tally).sum())
}

/// The folder that everything is built in.
fn folder() -> Result<PathBuf> {
    Ok(target()?.join("cross"))
}

/// What came of a row's work.
struct Done {
    how: How,
    /// Size of the library or program, in bytes.
    size: Option<u64>,
    /// What ran it, and its tests.
    ran: String,
    tally: Tally,
}

/// A row of the table.
struct Row {
    target: &'static str,
    built: String,
    seconds: f64,
    /// Nothing where it failed; what failed has been printed.
    done: Option<Done>,
}

impl Row {
    /// Does a row's work, and prints why where it fails.
    fn of(target: &'static str, built: impl Into<String>, work: impl FnOnce() -> Result<Done>) -> Self {
        let (built, start) = (built.into(), Instant::now());
        let done = work().inspect_err(|error| println!("{target}, {built}: {error:#}")).ok();
        Self { target, built, seconds: start.elapsed().as_secs_f64(), done }
    }

    fn tally(&self) -> Tally {
        self.done.as_ref().map_or(Tally::FAILED, |done| done.tally)
    }

    /// The row's fields in their order.
    fn fields(&self) -> [String; 6] {
        let result = if self.tally().all_passed() { "ok" } else { "FAILED" };
        let (how, size, ran) = match &self.done {
            Some(done) => (
                done.how.to_string(),
                done.size.map_or_else(|| "-".into(), |size| size.to_string()),
                done.ran.as_str(),
            ),
            None => ("-".into(), "-".into(), ""),
        };
        let built = format!("{} {ran}", self.built).trim_end().to_owned();
        [self.target.into(), result.into(), how, format!("{:.1}", self.seconds), size, built]
    }
}

/// Prints the table.
fn print(rows: &[Row]) {
    let line = |[target, result, how, seconds, size, built]: [String; 6]| {
        println!("{target:<29} {result:<7} {how:<19} {seconds:>8} {size:>10}  {built}");
    };
    println!();
    line(["target", "result", "standard library", "seconds", "bytes", "built and run"].map(Into::into));
    rows.iter().for_each(|row| line(row.fields()));
    println!(
        "bytes: of the .rlib for a library, with all that a compiler needs of it, and of the linked program; neither as small as a release"
    );
}

/// Core for a target without an operating system: with all features, and on the first one also with each alone.
fn cores(name: &'static str, is_first: bool) -> Result<Vec<Row>> {
    let manifest = fs::read_to_string(workspace()?.join("core/Cargo.toml"))?;
    let features = features(&manifest);
    let mut sets: Vec<(String, Vec<String>)> = Vec::new();
    if is_first {
        sets.push(("core, no feature".into(), Vec::new()));
        let alone = features.iter().map(|feature| {
            (format!("core, {feature} alone"), vec!["--features".to_owned(), (*feature).to_owned()])
        });
        // A single feature alone is all of them.
        sets.extend(alone.filter(|_| features.len() > 1));
    }
    sets.push((format!("core, all features ({})", features.join(", ")), vec!["--all-features".into()]));
    Ok(sets.into_iter().map(|(built, arguments)| Row::of(name, built, || core(name, &arguments))).collect())
}

/// Builds core.
fn core(name: &str, features: &[String]) -> Result<Done> {
    let (mut command, how) = sysroot::cargo("build", name, Crates::Core)?;
    command.args(["--profile", PROFILE, "--package", "vfio-migration-core", "--no-default-features"]);
    command.args(features).arg("--target-dir").arg(folder()?);
    step(&format!("building core for {name} {}", features.join(" ")), || output(&mut command))?;
    let library = folder()?.join(name).join(PROFILE).join("libvfio_migration_core.rlib");
    Ok(Done { how, size: Some(size(&library)?), ran: String::new(), tally: Tally::PASSED })
}

/// Builds host's program for a machine, and has it move a simulated device.
fn program(machine: &Machine) -> Result<Done> {
    let (mut command, how) = machine.cargo("build")?;
    command.args(["--package", "vfio-migration-host", "--bin", PROGRAM]);
    step(&format!("building {PROGRAM} for {}", machine.target), || output(&mut command))?;
    let program = machine.built(PROGRAM)?;
    let runner = machine.runner_name();
    let said = step(&format!("running it on {runner}"), || output(machine.run(&program).args(DEMO)))?;
    ensure!(said.contains(EQUAL), "wanted '{EQUAL}' of {PROGRAM} {}, got\n{said}", DEMO.join(" "));
    Ok(Done { how, size: Some(size(&program)?), ran: format!("demo on {runner}"), tally: Tally::PASSED })
}

/// Builds host's library without std for a machine, and checks that libc is not in it.
fn host(machine: &Machine) -> Result<Done> {
    let libraries = output(cargo().args(TREE).arg(machine.target).current_dir(workspace()?))?;
    check_libraries(&libraries).with_context(|| format!("of host without std on {}", machine.target))?;
    let (mut command, how) = machine.cargo("build")?;
    command.args(["--package", "vfio-migration-host", "--lib", "--no-default-features"]);
    step(&format!("building host without std for {}", machine.target), || output(&mut command))?;
    let library = machine.built("libvfio_migration_host.rlib")?;
    Ok(Done { how, size: Some(size(&library)?), ran: "without libc".into(), tally: Tally::PASSED })
}

/// Refuses the libraries that need libc or bring it along: these are all of a build, a line for each.
fn check_libraries(libraries: &str) -> Result<()> {
    let has = |name: &str| libraries.lines().any(|line| line.split_whitespace().next() == Some(name));
    ensure!(has("rustix"), "wanted rustix among the libraries, got\n{libraries}");
    ensure!(!has("libc"), "wanted no libc among the libraries, got\n{libraries}");
    Ok(())
}

/// Runs the test suites of a machine.
fn tests(machine: &Machine) -> Result<Done> {
    let runner = machine.runner_name();
    let (tally, how) = suites::run(machine)?;
    let left_out = suites::left_out(machine).len();
    Ok(Done { how, size: None, ran: format!("on {runner}: {tally}, {left_out} left out"), tally })
}

/// The size of what was built, in bytes.
fn size(file: &Path) -> Result<u64> {
    Ok(fs::metadata(file).with_context(|| format!("nothing was built: no {}", file.display()))?.len())
}

/// The names in the table `features` of a manifest, but for the default.
fn features(manifest: &str) -> Vec<&str> {
    let lines = manifest.lines().skip_while(|line| *line != "[features]").skip(1);
    let names = lines.take_while(|line| !line.starts_with('[')).filter_map(|line| line.split_once('='));
    names.map(|(name, _)| name.trim()).filter(|name| *name != "default" && !name.starts_with('#')).collect()
}

const AFTER: &str = "\
Examples:
  cargo xtask cross --skip-tests
  cargo xtask cross --target s390x-unknown-linux-gnu --tests-only
  cargo xtask cross --target thumbv7em-none-eabihf --target x86_64-unknown-linux-musl";

/// The profile that everything is built with, in the workspace's Cargo.toml: for the builds' speed.
const PROFILE: &str = "cross";

/// Host's program.
const PROGRAM: &str = "vfio-migrate";

/// Its arguments for moving a simulated device, a small one for the emulators, and what it says once that is moved.
const DEMO: [&str; 3] = ["demo", "--size", "1MiB"];
const EQUAL: &str = "the destination's content equals the source's, byte for byte";

/// What lists the libraries of host without std, by their names in Rust, for the target that follows.
const TREE: [&str; 11] = [
    "tree",
    "--package",
    "vfio-migration-host",
    "--no-default-features",
    "--edges",
    "normal",
    "--prefix",
    "none",
    "--format",
    "{lib}",
    "--target",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_the_names_of_their_table() {
        let manifest = "[package]\nname = \"x\"\n[features]\n# a = comment\ndefault = [\"a\"]\na = [\n    \"b\",\n]\nb = []\n\n[dependencies]\nc = \"1\"\n";
        assert_eq!(features(manifest), ["a", "b"]);
    }

    #[test]
    fn row_that_failed_shows_so_and_counts_as_a_failure() {
        let row = Row::of("a-target", "core", || anyhow::bail!("no compiler"));
        assert_eq!(row.tally(), Tally { passed: 0, failed: 1 });
        let [target, result, how, _, size, built] = row.fields();
        assert_eq!([target, result, how, size, built], ["a-target", "FAILED", "-", "-", "core"]);
    }

    #[test]
    fn row_whose_tests_failed_shows_so() {
        let tally = Tally { passed: 2, failed: 1 };
        let done = Done { how: How::Installed, size: Some(7), ran: "there".into(), tally };
        let row = Row::of("a-target", "program", || Ok(done));
        assert_eq!(row.tally(), tally);
        let [_, result, how, _, size, built] = row.fields();
        assert_eq!([result, how, size, built], ["FAILED", "installed", "7", "program there"]);
    }

    #[test]
    fn libraries_with_libc_are_refused() {
        check_libraries("vfio_migration_host\nrustix\nlibc_print").unwrap();
        let error = check_libraries("rustix\nerrno\nlibc (*)\n").unwrap_err().to_string();
        assert!(error.starts_with("wanted no libc among the libraries, got\nrustix\n"), "{error}");
        check_libraries("").unwrap_err();
    }
}
