//! The standard library of another target: installed, or built from its source with a nightly toolchain.
//!
//! `rustup target add` installs one, and then it is used with the running toolchain. Where none is installed, cargo
//! builds it: from the toolchain's own source if that has one (`rust-src`), otherwise from Debian's package of it,
//! which is unpacked into the user's cache folder without being installed.
//!
//! Deliberately absent: linkers. What a linked program needs beside Rust is its builder's affair.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use anyhow::{Context as _, Result, ensure};

use crate::apt::Apt;
use crate::cache::{Cache, Recipe};
use crate::command::{self, output, step, workspace};

/// The part of the standard library that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Crates {
    /// core alone, for targets without an operating system.
    Core,
    /// std with both ways to panic, and what tests need.
    Std,
}

/// Where a target's standard library is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// It came with the running toolchain.
    Installed,
    /// It is built by a nightly toolchain.
    FromSource {
        /// The version of the source, such as `1.97.1`.
        version: String,
    },
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Installed => f.write_str("installed"),
            Self::FromSource { version } => write!(f, "from source {version}"),
        }
    }
}

/// `cargo SUBCOMMAND --target TARGET`, run in the workspace and set up so that the target's standard library is there;
/// add the arguments that follow. No `RUSTFLAGS` of the caller is in it.
///
/// The first call for a target without an installed library may fetch the source, which takes a minute. When there is no
/// way to have it, the error names the target and what to install.
pub(crate) fn cargo(subcommand: &str, target: &str, crates: Crates) -> Result<(Command, How)> {
    if is_installed(target, crates)? {
        let command = set_up(command::cargo(), subcommand, target)?;
        return Ok((command, How::Installed));
    }
    cargo_from_source(subcommand, target, crates)
}

/// As [`cargo`], but with the library built from source also where one is installed: by the same options as the rest.
pub(crate) fn cargo_from_source(subcommand: &str, target: &str, crates: Crates) -> Result<(Command, How)> {
    let (nightly, source) = source().with_context(|| {
        format!(
            "there is no standard library for {target}: install it (rustup target add {target}), \
            or a nightly toolchain with its source, from which it is built ({NIGHTLY_WITH_SOURCE})"
        )
    })?;
    // Run by the toolchain's own cargo and rustc, whatever toolchain this task was started by.
    let mut command = Command::new("rustup");
    command.args(["run", &nightly, "cargo"]);
    let mut command = set_up(command, subcommand, target)?;
    command.arg(match crates {
        Crates::Core => "-Zbuild-std=core",
        Crates::Std => "-Zbuild-std=std,panic_abort",
    });
    if let Some(library) = source.library {
        command.env("__CARGO_TESTS_ONLY_SRC_ROOT", library);
    }
    Ok((command, How::FromSource { version: source.version }))
}

/// The arguments that are the same everywhere, and an environment without this task's and the caller's own.
fn set_up(mut command: Command, subcommand: &str, target: &str) -> Result<Command> {
    command.args([subcommand, "--target", target]).current_dir(workspace()?);
    OURS.iter().for_each(|variable| {
        command.env_remove(variable);
    });
    Ok(command)
}

/// Whether the running toolchain has these crates for a target.
fn is_installed(target: &str, crates: Crates) -> Result<bool> {
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    let folder = output(rustc.args(["--print", "target-libdir", "--target", target]))?;
    let name = match crates {
        Crates::Core => "libcore-",
        Crates::Std => "libstd-",
    };
    let files = fs::read_dir(folder.trim()).into_iter().flatten().flatten();
    Ok(files.filter_map(|file| file.file_name().into_string().ok()).any(|file| is_library(&file, name)))
}

/// Whether a file is a library for linking whose name begins so.
fn is_library(file: &str, begin: &str) -> bool {
    file.starts_with(begin) && file.ends_with(".rlib")
}

/// A source of the standard library.
#[derive(Clone)]
struct Source {
    version: String,
    /// Its folder `library`, unless cargo finds it by itself.
    library: Option<PathBuf>,
}

/// The name of a nightly toolchain, and the source that fits it; looked for once.
fn source() -> Result<(String, Source)> {
    static FOUND: Mutex<Option<(String, Source)>> = Mutex::new(None);
    let mut found = FOUND.lock().ok().context("an earlier look for the source broke off")?;
    if let Some(found) = &*found {
        return Ok(found.clone());
    }
    let nightly = command::nightly()?;
    let rustc = |arguments: &[&str]| {
        output(Command::new("rustup").args(["run", &nightly, "rustc"]).args(arguments).env_remove("RUSTC"))
    };
    let told = rustc(&["-vV"])?;
    let release = told.lines().find_map(|line| line.strip_prefix("release: "));
    let release = release.with_context(|| format!("rustc of {nightly} told no release: {told}"))?;
    let own = Path::new(rustc(&["--print", "sysroot"])?.trim()).join("lib/rustlib/src/rust/library");
    let source = if own.join("Cargo.lock").is_file() {
        Source { version: release.into(), library: None }
    } else {
        debian(&nightly, release)?
    };
    Ok(found.insert((nightly, source)).clone())
}

/// Debian's source, fetched unless an earlier run did, and anew when that was for another toolchain.
fn debian(nightly: &str, release: &str) -> Result<Source> {
    let mut kept = made(&Cache::new(PART, false)?.folder(&RUST_SRC)?)?;
    if !fits(&kept.version, release) {
        kept = made(&Cache::new(PART, true)?.folder(&RUST_SRC)?)?;
    }
    ensure!(
        fits(&kept.version, release),
        "Debian's source is of version {}, but the toolchain {nightly} is of {release}: \
        add the toolchain's own with `rustup component add rust-src --toolchain {nightly}`",
        kept.version
    );
    Ok(kept)
}

/// Whether a toolchain can build a source: their first two numbers must be the same.
fn fits(source: &str, release: &str) -> bool {
    let numbers = |version: &str| version.split('.').take(2).map(str::to_owned).collect::<Vec<_>>();
    numbers(source) == numbers(release)
}

/// Fetches Debian's source and keeps what cargo builds a standard library from.
fn fetch(apt: &Apt, work: &Path, folder: &Path) -> Result<()> {
    step("fetching Debian's source of the standard library", || apt.unpack(&["rust-src".into()], work))?;
    let sources = work.join("usr/src");
    let mut entries = fs::read_dir(&sources).with_context(|| format!("no {}", sources.display()))?;
    let name = entries.find_map(|entry| entry.ok()?.file_name().into_string().ok());
    let name = name.filter(|name| name.starts_with(RUSTC));
    let name = name.with_context(|| format!("wanted a folder {RUSTC}* in {}", sources.display()))?;
    let library = sources.join(&name).join("library");
    for part in NOT_BUILT {
        let part = library.join(part);
        fs::remove_dir_all(&part).with_context(|| format!("cannot remove {}", part.display()))?;
    }
    fs::write(folder.join(VERSION), name.trim_start_matches(RUSTC))?;
    fs::rename(&library, folder.join(LIBRARY)).with_context(|| format!("cannot keep {}", library.display()))
}

/// The source that [`fetch`] left in a folder.
fn made(folder: &Path) -> Result<Source> {
    let version = fs::read_to_string(folder.join(VERSION))?;
    Ok(Source { version, library: Some(folder.join(LIBRARY)) })
}

/// How a nightly toolchain is had that has its source.
const NIGHTLY_WITH_SOURCE: &str = "rustup toolchain install nightly --profile minimal --component rust-src";

/// Variables that `cargo xtask` sets for us, or that the caller may have set for builds of this machine's target.
const OURS: [&str; 7] = [
    "CARGO",
    "CARGO_BUILD_TARGET",
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_ENCODED_RUSTFLAGS",
    "RUSTC",
    "RUSTDOC",
    "RUSTFLAGS",
];

/// The part of the cache for what Rust is built from.
pub(crate) const PART: &str = "rust";

/// What is in the folder of the source.
const VERSION: &str = "version";
const LIBRARY: &str = "library";

/// The kept source; the package is the same for all machines.
const RUST_SRC: Recipe = Recipe {
    name: "rust-src",
    suites: &["forky"],
    tools: &[("apt-get", "apt"), ("dpkg", "dpkg")],
    otherwise: "add the toolchain's own with `rustup component add rust-src --toolchain nightly`",
    make: fetch,
};

/// How the folder of the source begins, before the version.
const RUSTC: &str = "rustc-";

/// What no standard library is built from, a third of all: data and tools for the tests of vector instructions.
const NOT_BUILT: [&str; 4] =
    ["stdarch/intrinsics_data", "stdarch/examples", "stdarch/ci", "stdarch/crates/stdarch-verify"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_fits_a_toolchain_of_the_same_two_numbers() {
        assert!(fits("1.97.1", "1.97.0-nightly"));
        assert!(!fits("1.97.1", "1.98.0-nightly"));
        assert!(!fits("1.97.1", "2.97.0-nightly"));
        assert!(!fits("1.9.1", "1.97.0-nightly"));
    }

    #[test]
    fn library_for_linking_is_told_from_one_for_checking() {
        assert!(is_library("libcore-0123.rlib", "libcore-"));
        assert!(!is_library("libcore-0123.rmeta", "libcore-"));
        assert!(!is_library("libcore_arch-0123.rlib", "libcore-"));
    }

    #[test]
    fn own_target_is_used_as_it_is_installed() {
        let (command, how) = cargo("build", "x86_64-unknown-linux-gnu", Crates::Std).unwrap();
        assert_eq!(how, How::Installed);
        assert!(command::show(&command).ends_with("build --target x86_64-unknown-linux-gnu"));
    }

    #[test]
    fn unknown_target_is_an_error_that_names_it() {
        let error = cargo("build", "no-such-target", Crates::Core).unwrap_err().to_string();
        assert!(error.contains("no-such-target"), "{error}");
    }
}
