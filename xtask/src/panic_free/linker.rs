//! The linker that comes with the toolchain, and its refusals. It links for all machines.
//!
//! Deliberately absent: a place in memory for the program. It never runs.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::command::{self, output};

/// The linker.
pub(super) struct Linker {
    /// This machine's target.
    pub(super) host: String,
    path: PathBuf,
}

impl Linker {
    /// Finds the toolchain's.
    pub(super) fn find() -> Result<Self> {
        let rustc = || Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
        let host = output(rustc().args(["--print", "host-tuple"]))?.trim().to_owned();
        let sysroot = PathBuf::from(output(rustc().args(["--print", "sysroot"]))?.trim());
        let path = sysroot.join("lib/rustlib").join(&host).join("bin/rust-lld");
        ensure!(
            path.is_file(),
            "the toolchain has no {}; rustup's toolchains bring it, some distributions' leave it out",
            path.display()
        );
        Ok(Self { host, path })
    }

    /// Links `library` with nothing but what `exports` reach, and takes the functions `known` for defined; the inner
    /// error is the linker's refusal. Relocations stay in the program.
    pub(super) fn link(
        &self,
        library: &Path,
        exports: &[String],
        known: &[&str],
        program: &Path,
    ) -> Result<Result<(), Undefined>> {
        let mut command = Command::new(&self.path);
        command.args(["-flavor", "gnu", "--gc-sections", "--emit-relocs", "--error-limit=0", "-o"]);
        command.arg(program).args(["-e", "0"]);
        command.args(known.iter().map(|name| format!("--defsym={name}=0")));
        command.args(exports.iter().flat_map(|name| ["-u", name]));
        let output = command
            .arg(library)
            .output()
            .with_context(|| format!("cannot run {}", command::show(&command)))?;
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        Ok(if output.status.success() { Ok(()) } else { Err(Undefined { message }) })
    }
}

/// The linker's refusal.
pub(super) struct Undefined {
    pub(super) message: String,
}

impl Undefined {
    /// Whether the panic is the only thing that is missing.
    pub(super) fn is_panic(&self) -> bool {
        let mut errors = self.message.lines().filter(|line| line.contains("error:")).peekable();
        errors.peek().is_some() && errors.all(|line| line.ends_with(&format!("undefined symbol: {PANIC}")))
    }
}

/// What the panic handler calls.
pub(super) const PANIC: &str = "a_panic_can_be_reached";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusal_is_a_panic_only_when_nothing_else_is_missing() {
        let refusal = |names: &[&str]| {
            let lines =
                names.iter().map(|name| format!("rust-lld: error: undefined symbol: {name}\n>>> by x\n"));
            Undefined { message: lines.collect() }
        };
        assert!(refusal(&[PANIC]).is_panic());
        assert!(!refusal(&[PANIC, "malloc"]).is_panic());
        assert!(!refusal(&[]).is_panic());
    }
}
