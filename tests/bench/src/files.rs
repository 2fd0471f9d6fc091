//! Files in memory, and plain loops over them.
//!
//! Deliberately absent: `std::io::copy`, which copies inside the kernel where it can.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use rustix::fs::{MemfdFlags, SeekFrom, memfd_create, seek};
use rustix::io::{read, write};

/// A memfd without content.
pub(crate) fn memory() -> Result<File> {
    Ok(memfd_create("state", MemfdFlags::CLOEXEC).context("cannot create a memfd")?.into())
}

/// A file in `folder` that has no name and so goes when it is closed.
pub(crate) fn nameless(folder: &Path) -> Result<File> {
    let path = folder.join(format!("vfio-migration-bench-{}", std::process::id()));
    let file = File::options().read(true).write(true).create_new(true).open(&path);
    let file = file.with_context(|| format!("cannot create {}", path.display()))?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

/// Fills `file` from its start with `size` MiB of which no two blocks are equal.
pub(crate) fn fill(file: &File, size: u32) -> Result<()> {
    rewind(file)?;
    let mut block = vec![0; 1 << 20];
    let mut number = 1_u64;
    for _ in 0..size {
        for word in block.chunks_exact_mut(8) {
            number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            word.copy_from_slice(&number.to_ne_bytes());
        }
        write_all(file, &block)?;
    }
    rewind(file)
}

/// The bare loop: everything from `from` to `to` through `buffer`.
pub(crate) fn pump(from: impl AsFd, to: impl AsFd, buffer: &mut [u8]) -> Result<()> {
    loop {
        let count = read(&from, &mut *buffer)?;
        if count == 0 {
            return Ok(());
        }
        write_all(&to, &buffer[..count])?;
    }
}

/// Reads to the end and throws the bytes away.
pub(crate) fn drain(from: impl AsFd, buffer: &mut [u8]) -> Result<()> {
    while read(&from, &mut *buffer)? > 0 {}
    Ok(())
}

/// Fails unless both files hold the same bytes.
pub(crate) fn same(one: &File, other: &File) -> Result<()> {
    rewind(one)?;
    rewind(other)?;
    let (mut left, mut right) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    loop {
        let (count, other_count) = (read(one, &mut left)?, read(other, &mut right)?);
        ensure!(count == other_count && left == right, "the copy differs from the original");
        if count == 0 {
            return Ok(());
        }
    }
}

/// Back to the first byte.
pub(crate) fn rewind(file: &File) -> Result<()> {
    seek(file, SeekFrom::Start(0))?;
    Ok(())
}

fn write_all(to: impl AsFd, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        let count = write(&to, bytes)?;
        ensure!(count > 0, "a write took no byte");
        bytes = &bytes[count..];
    }
    Ok(())
}
