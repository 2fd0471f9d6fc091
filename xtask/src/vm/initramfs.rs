//! The guest's whole file system: an uncompressed newc archive that the kernel unpacks into memory.
//!
//! Deliberately absent: what goes into it. `cargo xtask vm` says that in its own file.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result};
use cpio::newc::{Builder, ModeFileType, trailer};

/// An archive that is being written.
pub(crate) struct Initramfs {
    archive: BufWriter<File>,
    folders: BTreeSet<String>,
}

impl Initramfs {
    /// Begins an archive with the device that the kernel opens as the first process's console.
    pub(crate) fn new(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
        let mut initramfs = Self { archive: BufWriter::new(file), folders: BTreeSet::new() };
        initramfs.folders_of("dev/console")?;
        let console = Builder::new("dev/console").mode(0o600).rdev_major(5).rdev_minor(1);
        console.set_mode_file_type(ModeFileType::Char).write(&mut initramfs.archive, 0).finish()?;
        Ok(initramfs)
    }

    /// Adds a file, which anyone may read and run, and the folders above it.
    pub(crate) fn add(&mut self, name: &str, source: &Path) -> Result<()> {
        self.folders_of(name)?;
        let mut file = File::open(source).with_context(|| format!("cannot open {}", source.display()))?;
        let size = u32::try_from(file.metadata()?.len()).with_context(|| format!("{name} is too large"))?;
        let entry = Builder::new(name).mode(0o755).set_mode_file_type(ModeFileType::Regular);
        let mut entry = entry.write(&mut self.archive, size);
        io::copy(&mut file, &mut entry)?;
        entry.finish()?;
        Ok(())
    }

    /// Ends the archive.
    pub(crate) fn finish(self) -> Result<()> {
        Ok(trailer(self.archive)?.flush()?)
    }

    /// Adds the folders above `name` that are not there yet, the outermost first.
    fn folders_of(&mut self, name: &str) -> Result<()> {
        for (end, _) in name.match_indices('/') {
            let folder = &name[..end];
            if self.folders.insert(folder.to_string()) {
                let entry = Builder::new(folder).mode(0o755).set_mode_file_type(ModeFileType::Directory);
                entry.write(&mut self.archive, 0).finish()?;
            }
        }
        Ok(())
    }
}
