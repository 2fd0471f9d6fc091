//! An output file that is complete or not there: written beside its name, and renamed at the end.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::stdio::interruptible;

/// An output under way. Dropping it without [`Output::keep`] leaves no file.
pub(crate) struct Output {
    fd: OwnedFd,
    /// The file that is written, and the name that it gets; nothing for what is no regular file.
    rename: Option<(PathBuf, PathBuf)>,
}

impl Output {
    /// What exists at `path` and is no regular file (a pipe, `/dev/null`): it is written as it is. Opening a pipe waits
    /// for its reader.
    pub(crate) fn existing(path: &Path) -> io::Result<Option<Self>> {
        if !fs::metadata(path).is_ok_and(|existing| !existing.is_file()) {
            return Ok(None);
        }
        let fd = OpenOptions::new().write(true).open(path)?.into();
        Ok(Some(Self::of(interruptible(fd, OFlags::WRONLY)?)))
    }

    /// Begins a file that will be called `path`.
    pub(crate) fn begin(path: &Path) -> io::Result<Self> {
        let beside = beside(path);
        let fd = OpenOptions::new().write(true).create_new(true).open(&beside)?.into();
        Ok(Self { fd, rename: Some((beside, path.to_owned())) })
    }

    /// An output that is open already.
    pub(crate) fn of(fd: OwnedFd) -> Self {
        Self { fd, rename: None }
    }

    /// Gives the file its name, once its bytes are on the disk.
    pub(crate) fn keep(mut self) -> io::Result<()> {
        let Some((beside, path)) = &self.rename else { return Ok(()) };
        rustix::fs::fsync(&self.fd)?;
        fs::rename(beside, path)?;
        let folder = folder(path).to_owned();
        self.rename = None;
        File::open(folder)?.sync_all()
    }
}

impl AsFd for &Output {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Some((beside, _)) = &self.rename {
            // Nothing more can be done where the folder has become read-only.
            let _ = fs::remove_file(beside);
        }
    }
}

/// A name in the same folder that no other process uses, and that says what it is.
fn beside(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}.incomplete", std::process::id()));
    path.with_file_name(name)
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
