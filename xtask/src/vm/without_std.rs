//! The program of `tests/without_std`, which must be small and need nobody.
//!
//! Deliberately absent: what it does. The guest's tests run it on devices.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use object::elf::{PT_DYNAMIC, PT_INTERP};
use object::read::elf::{ElfFile64, ProgramHeader as _};

use super::TARGET;
use crate::command;

/// Builds the program with the stable toolchain's own `core`, says how large it is, and returns its file.
///
/// # Errors
/// It can't be built, is larger than [`LIMIT`], or wants a loader.
pub(super) fn build() -> Result<PathBuf> {
    let folder = folder()?;
    let file = command::step("building the program without std", || compile(&folder))?;
    let bytes = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
    check_size(bytes.len())?;
    check_alone(&bytes)?;
    println!("{}: {} bytes of at most {LIMIT}, static, no libc", file.display(), bytes.len());
    Ok(file)
}

/// The folder that it is built in.
fn folder() -> Result<PathBuf> {
    Ok(command::target()?.join("without-std"))
}

fn compile(folder: &Path) -> Result<PathBuf> {
    let mut build = command::cargo();
    build.current_dir(command::workspace()?.join("tests/without_std"));
    build.args(["build", "--quiet", "--release", "--target", TARGET, "--target-dir"]).arg(folder);
    build.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    command::output(&mut build)?;
    Ok(folder.join(TARGET).join("release/without-std"))
}

/// Fails where the program has grown too large.
fn check_size(got: usize) -> Result<()> {
    ensure!(got <= LIMIT, "the program without std: wanted at most {LIMIT} bytes, got {got}");
    Ok(())
}

/// Fails where the kernel or a loader would bring something else into its memory.
fn check_alone(bytes: &[u8]) -> Result<()> {
    let file = ElfFile64::<object::Endianness>::parse(bytes)?;
    for header in file.elf_program_headers() {
        let kind = header.p_type(file.endian());
        ensure!(
            kind != PT_INTERP && kind != PT_DYNAMIC,
            "wanted a static program, got a segment of type {kind}"
        );
    }
    Ok(())
}

/// The largest that it may be, in bytes.
const LIMIT: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn program_of_a_byte_too_many_is_refused() {
        check_size(LIMIT).unwrap();
        let refused = check_size(LIMIT + 1).unwrap_err().to_string();
        assert!(refused.ends_with("wanted at most 65536 bytes, got 65537"), "{refused}");
    }

    #[test]
    fn program_with_a_loader_is_not_alone() {
        let own = fs::read(std::env::current_exe().unwrap()).unwrap();
        let refused = check_alone(&own).unwrap_err().to_string();
        assert!(refused.contains("wanted a static program"), "{refused}");
    }
}
