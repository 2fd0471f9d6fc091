//! An output file that is complete or not there: written beside its name, and renamed at the end.
//!
//! Deliberately absent: clearing up after a SIGKILL. The file that is left says in its name that it is incomplete, and
//! nothing here removes it.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::FileType;
use vfio_migration_host::interrupt::Interrupt;

use crate::{Fail, Outcome, interrupt_on_signals, stdio};

/// An output under way. Dropping it without [`Output::keep`] leaves no file.
pub(crate) struct Output {
    fd: OwnedFd,
    /// The file that is written, and the name that it gets; nothing for what is no regular file.
    rename: Option<(PathBuf, PathBuf)>,
    kept: AtomicBool,
}

impl Output {
    /// What exists at `path` and is no regular file (a pipe, `/dev/null`): it is written as it is. Opening a pipe waits
    /// for its reader.
    fn existing(path: &Path) -> Result<Option<Self>, Fail> {
        if !fs::metadata(path).is_ok_and(|existing| !existing.is_file()) {
            return Ok(None);
        }
        let file =
            OpenOptions::new().write(true).open(path).map_err(|error| Fail::io(path.display(), error))?;
        Ok(Some(Self::of(file.into())))
    }

    /// The output that a user calls `path`: standard output for `-`, what is there and is no regular file, or a file that
    /// begins here. From when a file of ours is there, signals end the program through this one's drop.
    pub(crate) fn open(path: &Path, interrupt: &Interrupt) -> Result<Self, Fail> {
        let open = if path.as_os_str() == "-" {
            Some(Self::of(stdio::output("--output -")?))
        } else {
            Self::existing(path)?
        };
        interrupt_on_signals(interrupt)?;
        open.map_or_else(|| Self::begin(path), Ok)
    }

    /// What a user calls `path`, for what is written at once.
    pub(crate) fn at(path: &Path) -> Result<Self, Fail> {
        Self::existing(path)?.map_or_else(|| Self::begin(path), Ok)
    }

    /// Fails where no file could be made that is called `path`.
    pub(crate) fn check(path: &Path) -> Outcome {
        let is_special = fs::metadata(path).is_ok_and(|existing| !existing.is_file());
        if is_special { Ok(()) } else { Self::begin(path).map(drop) }
    }

    /// Begins a file that will be called `path`, or what `path` links to. A new file is its owner's alone: a device's
    /// state may hold a guest's secrets.
    fn begin(path: &Path) -> Result<Self, Fail> {
        if path.as_os_str().as_bytes().ends_with(b"/") {
            return Err(Fail::usage(anyhow::anyhow!(
                "--output: wanted a file, got the folder {}",
                path.display()
            )));
        }
        let path = match fs::canonicalize(path) {
            Ok(real) => real,
            // A new name; a link that leads nowhere, or a name that can't be had, is told before anything is done.
            Err(error) if error.kind() == io::ErrorKind::NotFound && fs::symlink_metadata(path).is_err() => {
                path.to_owned()
            }
            Err(error) => return Err(Fail::io(path.display(), error)),
        };
        let mode = fs::metadata(&path).map_or(0o600, |existing| existing.permissions().mode());
        let (beside, file) = create_beside(&path)?;
        let output =
            Self { fd: file.into(), rename: Some((beside.clone(), path)), kept: AtomicBool::new(false) };
        fs::set_permissions(&beside, Permissions::from_mode(mode))
            .map_err(|error| Fail::io(beside.display(), error))?;
        Ok(output)
    }

    /// An output that is open already.
    pub(crate) fn of(fd: OwnedFd) -> Self {
        Self { fd, rename: None, kept: AtomicBool::new(false) }
    }

    /// Gives the complete file its name, once its bytes are on the disk.
    pub(crate) fn keep(&self) -> io::Result<()> {
        let Some((beside, path)) = &self.rename else { return Ok(()) };
        rustix::fs::fsync(&self.fd)?;
        fs::rename(beside, path)?;
        self.kept.store(true, Ordering::Relaxed);
        // The file has its name; a folder that can't be opened or synced is no reason to take the device back.
        let _ = File::open(folder(path)).and_then(|folder| folder.sync_all());
        Ok(())
    }
}

impl AsFd for &Output {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Some((beside, _)) = self.rename.as_ref().filter(|_| !self.kept.load(Ordering::Relaxed)) {
            // Nothing more can be done where the folder has become read-only.
            let _ = fs::remove_file(beside);
        }
    }
}

/// Fails where `path`, which the command line calls `option`, is one of the files that are read through `inputs`.
pub(crate) fn check_apart<'a>(
    path: &Path,
    option: &str,
    inputs: impl IntoIterator<Item = BorrowedFd<'a>>,
) -> Outcome {
    let Ok(output) = rustix::fs::stat(path) else { return Ok(()) };
    let is_it = |stat: rustix::fs::Stat| {
        let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        is_file && (stat.st_dev, stat.st_ino) == (output.st_dev, output.st_ino)
    };
    if inputs.into_iter().any(|input| rustix::fs::fstat(input).is_ok_and(is_it)) {
        let text = format!("{option}: wanted another file than those that are read, got {}", path.display());
        return Err(Fail::usage(anyhow::anyhow!(text)));
    }
    Ok(())
}

/// A new file in the folder of `path`. A program that is killed may leave it; its name says that it is not complete.
fn create_beside(path: &Path) -> Result<(PathBuf, File), Fail> {
    let mut number = 0;
    loop {
        let name = format!(".vfio-migrate-{}-{number}.incomplete", std::process::id());
        let beside = path.with_file_name(name);
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside) {
            Ok(file) => return Ok((beside, file)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < 1000 => number += 1,
            Err(error) => {
                let what =
                    format!("no file can be made in {} for {}", folder(path).display(), path.display());
                return Err(Fail::io(what, error));
            }
        }
    }
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_program_of_the_same_id_left_is_not_in_the_way() {
        let folder = std::env::temp_dir().join(format!("vfio-migrate-test-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let first = Output::begin(&folder.join("card.state")).unwrap();
        let second = Output::begin(&folder.join("card.state")).unwrap();
        second.keep().unwrap();
        drop(first);
        let left: Vec<_> = fs::read_dir(&folder).unwrap().map(|file| file.unwrap().file_name()).collect();
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(left, ["card.state"]);
    }
}
