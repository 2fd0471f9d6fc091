//! The test device's module `migtest`, built from `tests/kmod` in a run if its source or the kernel has changed.
//!
//! Deliberately absent: what the module does. `tests/kmod/README.md` says that.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use super::kernel::{self, IOMMUFD_FLAGS, SETS};
use crate::cache::remove;
use crate::command;

/// The module's name.
pub(crate) const NAME: &str = "migtest";

/// Builds the module for each set with a kernel's kit; returns the folder that holds a folder for each set.
pub(crate) fn build(kit: &Path, folder: &Path) -> Result<PathBuf> {
    let source = command::workspace()?.join("tests/kmod");
    let stamp = fs::read_to_string(kit.join("../complete")).context("the kernel's folder is not complete")?;
    let stamp = format!("{}\n{stamp}", kit.display());
    for (set, _) in SETS {
        let place = folder.join(set);
        renew(&place, &stamp)?;
        mirror(&source, &place)?;
        let mut make = kernel::make_modules(kit, &kernel::headers(kit)?, &place)?;
        // Headers of other kernels may have warnings of their own; this one's have none.
        let strict = "KCFLAGS=-Werror";
        make.arg(if set == "iommufd" { format!("{strict} {IOMMUFD_FLAGS}") } else { strict.to_owned() });
        if set == "iommufd" {
            make.arg(format!("KBUILD_EXTRA_SYMBOLS={}", kernel::iommufd_symbols(kit).display()));
        }
        command::output(&mut make)?;
        let module = place.join(NAME).with_extension("ko");
        ensure!(module.is_file(), "the build left no {}", module.display());
    }
    Ok(folder.to_path_buf())
}

/// Empties a folder that was built with another kernel.
fn renew(place: &Path, stamp: &str) -> Result<()> {
    let file = place.join("kernel");
    if fs::read_to_string(&file).is_ok_and(|left| left == stamp) {
        return Ok(());
    }
    remove(place)?;
    fs::create_dir_all(place)?;
    Ok(fs::write(file, stamp)?)
}

/// Makes a folder's source that of another one. Files that are the same stay untouched, so that `make` sees
/// what has changed.
fn mirror(source: &Path, place: &Path) -> Result<()> {
    let is_source = |name: &str| name == "Kbuild" || name.ends_with(".c") || name.ends_with(".h");
    let mut names = Vec::new();
    for entry in fs::read_dir(source).with_context(|| format!("cannot list {}", source.display()))? {
        names.extend(entry?.file_name().into_string().ok().filter(|name| is_source(name)));
    }
    for name in &names {
        let (from, to) = (source.join(name), place.join(name));
        let text = fs::read(&from).with_context(|| format!("cannot read {}", from.display()))?;
        if fs::read(&to).ok().as_ref() != Some(&text) {
            fs::write(&to, text).with_context(|| format!("cannot write {}", to.display()))?;
        }
    }
    let left = fs::read_dir(place)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let gone = left.filter(|name| is_source(name) && !name.ends_with(".mod.c") && !names.contains(name));
    gone.map(|name| place.join(name)).try_for_each(|file| Ok(fs::remove_file(file)?))
}
