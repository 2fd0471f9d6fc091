//! Running other programs: quietly while they succeed, with their last lines when they fail.
//!
//! Deliberately absent: a shell. Arguments go to a program as they are.

use std::fmt;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};

/// How many tests passed and how many failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Tests that passed.
    pub(crate) passed: u32,
    /// Tests that failed.
    pub(crate) failed: u32,
}

impl Tally {
    /// One that passed: what a check counts that has no tests of its own.
    pub(crate) const PASSED: Self = Self { passed: 1, failed: 0 };
    /// One that failed: what counts that broke off.
    pub(crate) const FAILED: Self = Self { passed: 0, failed: 1 };

    /// True when tests ran and none failed: a run without any test proves nothing.
    pub(crate) fn all_passed(self) -> bool {
        self.passed > 0 && self.failed == 0
    }

    /// Reads "3 passed" and "1 failed" out of a line, whatever stands around them.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split([' ', ',', ';', '.']).filter(|word| !word.is_empty()).collect();
        let before =
            |name| words.windows(2).find(|pair| pair[1] == name).and_then(|pair| pair[0].parse().ok());
        Some(Self { passed: before("passed")?, failed: before("failed")? })
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        *self = [*self, other].into_iter().sum();
    }
}

impl std::iter::Sum for Tally {
    fn sum<I: Iterator<Item = Self>>(tallies: I) -> Self {
        tallies.fold(Self::default(), |sum, one| Self {
            passed: sum.passed + one.passed,
            failed: sum.failed + one.failed,
        })
    }
}

/// Says what is being done, does it, and says how long it took.
pub(crate) fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    print!("{what} ... ");
    std::io::stdout().flush()?;
    let start = Instant::now();
    let result = work();
    println!("{} ({:.1} s)", if result.is_ok() { "done" } else { "FAILED" }, start.elapsed().as_secs_f64());
    result
}

/// Runs a command to its end and returns what it printed to its standard output.
///
/// When it can't be started or fails, the error holds the command line and its last lines of output.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let shown = show(command);
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {shown}"))?;
    if !output.status.success() {
        let both = [output.stdout, output.stderr].concat();
        bail!("{shown}: {}\n{}", output.status, tail(&String::from_utf8_lossy(&both), 20));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a `cargo test`, shows what it prints and adds up its `test result:` lines; a build that fails is an error.
pub(crate) fn tests(command: &mut Command) -> Result<Tally> {
    let shown = show(command);
    let child = command.stdout(Stdio::piped()).spawn();
    let mut child = child.with_context(|| format!("cannot run {shown}"))?;
    let mut tally = Tally::default();
    for line in BufReader::new(child.stdout.take().context("the output is piped")?).lines() {
        let line = line?;
        println!("{line}");
        if let Some(result) = line.starts_with("test result:").then(|| Tally::parse(&line)).flatten() {
            tally += result;
        }
    }
    let status = child.wait()?;
    ensure!(status.success() || tally.failed > 0, "{shown}: {status}");
    Ok(tally)
}

/// The command as one would type it.
pub(crate) fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// The last lines of a text.
pub(crate) fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// True when a program of this name is on the search path.
pub(crate) fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// The folder of the workspace.
pub(crate) fn workspace() -> Result<PathBuf> {
    let own = std::env::var_os("CARGO_MANIFEST_DIR").context("start the tasks with `cargo xtask`")?;
    Ok(Path::new(&own).parent().context("the package xtask has no parent folder")?.to_path_buf())
}

/// The folder that cargo builds into.
pub(crate) fn target() -> Result<PathBuf> {
    Ok(workspace()?.join(std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into())))
}

/// The project's folder in the user's cache.
pub(crate) fn cache() -> Result<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || Some(Path::new(&std::env::var_os("HOME")?).join(".cache"));
    let base = cache.or_else(home).context("neither XDG_CACHE_HOME nor HOME is set")?;
    Ok(base.join("vfio-migration"))
}

/// The cargo that started us.
pub(crate) fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// The name of a nightly toolchain.
pub(crate) fn nightly() -> Result<String> {
    let wanted = "wanted a nightly toolchain: rustup toolchain install nightly --profile minimal";
    let list = output(Command::new("rustup").args(["toolchain", "list"])).context(wanted)?;
    let names = list.lines().filter_map(|line| line.split_whitespace().next());
    names.into_iter().find(|name| name.starts_with("nightly")).map(str::to_owned).context(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tally_is_read_from_the_line_of_cargo_test() {
        let line = "test result: FAILED. 12 passed; 3 failed; 0 ignored; 0 measured; finished in 0.01s";
        assert_eq!(Tally::parse(line), Some(Tally { passed: 12, failed: 3 }));
    }

    #[test]
    fn tally_is_read_from_its_own_line() {
        let tally = Tally { passed: 40, failed: 0 };
        assert_eq!(Tally::parse(&tally.to_string()), Some(tally));
    }

    #[test]
    fn line_without_both_numbers_is_no_tally() {
        assert_eq!(Tally::parse("ok stream_with_3 passed"), None);
    }

    #[test]
    fn run_without_tests_has_not_passed() {
        assert!(!Tally::default().all_passed());
    }
}
