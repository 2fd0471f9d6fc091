//! The other Linux machines: what links a program for each, what runs it here, and Debian's packages of both.
//!
//! Deliberately absent: containers and whole emulated systems. A program runs on this machine's kernel, its
//! instructions are emulated where they must be.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use super::{PROFILE, folder, musl};
use crate::command::{self, output, step};
use crate::freestanding::TARGETS;
use crate::sysroot::{self, Crates, How};

/// A target with Linux on it.
pub(crate) struct Machine {
    /// The target's name for rustc.
    pub(crate) target: &'static str,
    /// The C compiler that links.
    pub(crate) linker: &'static str,
    /// What runs its programs.
    runner: Runner,
    /// Whether the test suites run there.
    pub(super) tests: bool,
    /// Whether rustix calls the kernel by itself there. Elsewhere it takes libc, and host can't do without.
    pub(super) without_libc: bool,
    /// Programs and files that are needed, and the Debian packages that bring them.
    needs: &'static [(&'static str, &'static str)],
}

/// What runs a program.
enum Runner {
    /// This machine.
    Here,
    /// An emulator, which finds the C library below a folder.
    Emulator(&'static str, &'static str),
    /// The C library's loader below a folder where this machine's kernel takes such programs, otherwise the emulator.
    Loader(&'static str, &'static str),
}

/// All machines. The suites run where bytes are in the other order, and where pointers are shorter.
pub(crate) const MACHINES: [Machine; 5] = [
    Machine {
        target: "aarch64-unknown-linux-gnu",
        linker: "aarch64-linux-gnu-gcc",
        runner: Runner::Emulator("qemu-aarch64", "/usr/aarch64-linux-gnu"),
        tests: false,
        without_libc: true,
        needs: &[
            ("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu"),
            ("/usr/aarch64-linux-gnu/lib/crt1.o", "libc6-dev-arm64-cross"),
            ("qemu-aarch64", "qemu-user"),
        ],
    },
    Machine {
        target: "riscv64gc-unknown-linux-gnu",
        linker: "riscv64-linux-gnu-gcc",
        runner: Runner::Emulator("qemu-riscv64", "/usr/riscv64-linux-gnu"),
        tests: false,
        without_libc: true,
        needs: &[
            ("riscv64-linux-gnu-gcc", "gcc-riscv64-linux-gnu"),
            ("/usr/riscv64-linux-gnu/lib/crt1.o", "libc6-dev-riscv64-cross"),
            ("qemu-riscv64", "qemu-user"),
        ],
    },
    Machine {
        target: "s390x-unknown-linux-gnu",
        linker: "s390x-linux-gnu-gcc",
        runner: Runner::Emulator("qemu-s390x", "/usr/s390x-linux-gnu"),
        tests: true,
        without_libc: false,
        needs: &[
            ("s390x-linux-gnu-gcc", "gcc-s390x-linux-gnu"),
            ("/usr/s390x-linux-gnu/lib/crt1.o", "libc6-dev-s390x-cross"),
            ("qemu-s390x", "qemu-user"),
        ],
    },
    Machine {
        target: "i686-unknown-linux-gnu",
        linker: "i686-linux-gnu-gcc",
        runner: Runner::Loader("qemu-i386", "/usr/i686-linux-gnu"),
        tests: true,
        without_libc: true,
        needs: &[
            ("i686-linux-gnu-gcc", "gcc-i686-linux-gnu"),
            ("/usr/i686-linux-gnu/lib/crt1.o", "libc6-dev-i386-cross"),
            ("qemu-i386", "qemu-user"),
        ],
    },
    Machine {
        target: "x86_64-unknown-linux-musl",
        linker: "musl-gcc",
        runner: Runner::Here,
        tests: false,
        without_libc: true,
        needs: &[("musl-gcc", "musl-tools")],
    },
];

impl Machine {
    /// `cargo SUBCOMMAND` for this machine with all that links and runs its programs.
    pub(super) fn cargo(&self, subcommand: &str) -> Result<(Command, How)> {
        let missing = missing(&[self]);
        if !missing.is_empty() {
            bail!("programs or files are missing: {}", install(&missing));
        }
        let (mut command, how) = sysroot::cargo(subcommand, self.target, Crates::Std)?;
        let name =
            |last: &str| format!("CARGO_TARGET_{}_{last}", self.target.replace('-', "_").to_uppercase());
        command.env(name("LINKER"), self.linker).env_remove(name("RUSTFLAGS"));
        let runner = self.runner();
        if !runner.is_empty() {
            command.env(name("RUNNER"), runner.join(" "));
        }
        if self.target.ends_with("-musl") && how != How::Installed {
            // The other variables for flags are split at spaces.
            command.env("CARGO_ENCODED_RUSTFLAGS", musl::flags(&folder()?.join("musl"))?.join("\x1f"));
        }
        command.args(["--profile", PROFILE, "--target-dir"]).arg(folder()?);
        Ok((command, how))
    }

    /// The command that runs a program of this machine.
    pub(crate) fn run(&self, program: &Path) -> Command {
        let mut words = self.runner().into_iter();
        let Some(first) = words.next() else { return Command::new(program) };
        let mut command = Command::new(first);
        command.args(words).arg(program);
        command
    }

    /// Where a program is that cargo has built.
    pub(super) fn built(&self, program: &str) -> Result<PathBuf> {
        Ok(folder()?.join(self.target).join(PROFILE).join(program))
    }

    /// The name of what runs its programs, for the table.
    pub(super) fn runner_name(&self) -> &'static str {
        match &self.runner {
            Runner::Emulator(emulator, _) => emulator,
            Runner::Loader(emulator, root) if loader(root).is_none() => emulator,
            Runner::Here | Runner::Loader(..) => "this kernel",
        }
    }

    /// The words before a program's path.
    fn runner(&self) -> Vec<String> {
        let emulated = |emulator: &str, root: &str| vec![emulator.into(), "-L".into(), root.into()];
        match &self.runner {
            Runner::Here => Vec::new(),
            Runner::Emulator(emulator, root) => emulated(emulator, root),
            Runner::Loader(emulator, root) => loader(root).unwrap_or_else(|| emulated(emulator, root)),
        }
    }
}

/// Installs what these machines need and is missing, where that is allowed: as root, on Debian.
pub(crate) fn provide(machines: &[&Machine]) -> Result<()> {
    let missing = missing(machines);
    if missing.is_empty() {
        return Ok(());
    }
    let is_root = output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0");
    if !is_root || !command::is_installed("apt-get") {
        bail!("the machines' compilers or emulators are missing: {}", install(&missing));
    }
    step(&format!("installing {}", missing.join(" ")), || {
        output(&mut apt_get(&["update"]))?;
        output(&mut apt_get(&[INSTALL, &missing].concat())).map(drop)
    })
}

/// The packages of what is not there, each once.
fn missing(machines: &[&Machine]) -> Vec<&'static str> {
    let is_there = |need: &str| {
        if need.starts_with('/') { Path::new(need).exists() } else { command::is_installed(need) }
    };
    let needs = machines.iter().flat_map(|machine| machine.needs);
    let mut packages: Vec<_> =
        needs.filter(|(need, _)| !is_there(need)).map(|(_, package)| *package).collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

/// The names of all targets: those without an operating system, then the Linux machines'.
pub(crate) fn targets() -> Vec<&'static str> {
    TARGETS.into_iter().chain(MACHINES.iter().map(|machine| machine.target)).collect()
}

/// The line that installs packages.
fn install(packages: &[&str]) -> String {
    format!("apt-get {} {}", INSTALL.join(" "), packages.join(" "))
}

fn apt_get(arguments: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C");
    command
}

/// The words that start a 32-bit program on this machine's kernel, if it takes such programs. That is faster than
/// the emulator, and the system calls are the real ones.
fn loader(root: &str) -> Option<Vec<String>> {
    let loader = format!("{root}/lib/ld-linux.so.2");
    output(Command::new(&loader).arg("--version")).ok()?;
    Some(vec![loader, "--library-path".into(), format!("{root}/lib")])
}

/// The words with which apt-get installs packages.
const INSTALL: &[&str] = &["install", "--yes", "--no-install-recommends"];

#[cfg(test)]
mod tests {
    use super::*;

    const ABSENT: Machine = Machine {
        target: "x86_64-unknown-linux-gnu",
        linker: "cc",
        runner: Runner::Emulator("no-such-emulator", "/no-such-folder"),
        tests: false,
        without_libc: false,
        needs: &[
            ("no-such-emulator", "b"),
            ("/no-such-folder/crt1.o", "a"),
            ("/no-such-file", "b"),
            ("/", "c"),
        ],
    };

    #[test]
    fn missing_packages_are_named_once() {
        assert_eq!(missing(&[&ABSENT, &ABSENT]), ["a", "b"]);
    }

    #[test]
    fn machine_without_its_packages_is_told_the_line_that_installs_them() {
        let error = ABSENT.cargo("build").unwrap_err().to_string();
        assert!(error.ends_with("apt-get install --yes --no-install-recommends a b"), "{error}");
    }

    #[test]
    fn program_runs_behind_the_words_of_its_runner() {
        let command = ABSENT.run(Path::new("/program"));
        assert_eq!(command::show(&command), "no-such-emulator -L /no-such-folder /program");
    }

    #[test]
    fn kernel_or_folder_without_a_loader_is_no_error() {
        assert_eq!(loader("/no-such-folder"), None);
    }
}
