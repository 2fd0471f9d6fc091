//! The user's cache folder: what was fetched and built once stays there, and is used again only as it was left.
//!
//! Deliberately absent: age. What is kept stays until the recipe changes or `--refresh` asks for it anew.

use std::collections::HashSet;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::apt::Apt;
use crate::command::{self, step};

/// A part of the cache folder, which is this run's alone until it is dropped.
pub(crate) struct Cache {
    root: PathBuf,
    refresh: bool,
    _lock: File,
}

/// How a folder of the cache is made.
pub(crate) struct Recipe {
    /// The folder's name.
    pub(crate) name: &'static str,
    /// The suites of Debian that its packages come from.
    pub(crate) suites: &'static [&'static str],
    /// Programs that making it needs, and their Debian packages.
    pub(crate) tools: &'static [(&'static str, &'static str)],
    /// What to do where such a program can't be installed.
    pub(crate) otherwise: &'static str,
    /// Makes the content (the last argument) with a folder for what is thrown away afterwards.
    pub(crate) make: fn(&Apt, &Path, &Path) -> Result<()>,
}

impl Cache {
    /// Takes a part of the cache, and waits for a run that has it. With `refresh` nothing in it is used again.
    pub(crate) fn new(part: &str, refresh: bool) -> Result<Self> {
        let root = command::cache()?.join(part);
        let lock = lock(&root).with_context(|| format!("cannot lock {}", root.display()))?;
        Ok(Self { root, refresh, _lock: lock })
    }

    /// A folder of the cache, made now unless an earlier run has made it and nothing of it has changed since.
    pub(crate) fn folder(&self, recipe: &Recipe) -> Result<PathBuf> {
        let folder = self.root.join(recipe.name);
        let complete = folder.join(COMPLETE);
        if let (false, Ok(left)) = (self.refresh, fs::read_to_string(&complete)) {
            match changed(&left, &inventory(&folder)?) {
                None => return Ok(folder),
                Some(line) => println!("{} is made anew, it is not as it was left: {line}", folder.display()),
            }
        }
        check_tools(recipe.tools, recipe.otherwise)?;
        let work = self.root.join("work");
        for place in [&folder, &work] {
            remove(place)?;
            fs::create_dir_all(place)?;
        }
        let apt = step("reading Debian's package lists", || Apt::new(&self.root.join("apt"), recipe.suites))?;
        (recipe.make)(&apt, &work, &folder)?;
        for place in [work, self.root.join("apt")] {
            remove(&place)?;
        }
        fs::write(complete, inventory(&folder)?)?;
        Ok(folder)
    }
}

/// Makes a folder this run's alone for as long as the file is open, and waits for a run that has it.
pub(crate) fn lock(root: &Path) -> Result<File> {
    fs::create_dir_all(root)?;
    let file = File::create(root.join("lock"))?;
    if let Err(TryLockError::WouldBlock) = file.try_lock() {
        println!("another run of this task is under way; waiting for its end");
    }
    file.lock()?;
    Ok(file)
}

/// What is in a folder: the recipe, then a line for each file with its length, its checksum and its path.
fn inventory(folder: &Path) -> Result<String> {
    let mut lines = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(inner) = folders.pop() {
        for entry in fs::read_dir(&inner).with_context(|| format!("cannot list {}", inner.display()))? {
            let entry = entry?;
            let (path, kind) = (entry.path(), entry.file_type()?);
            if kind.is_dir() {
                folders.push(path);
                continue;
            }
            let content = if kind.is_symlink() {
                fs::read_link(&path).map(|target| target.into_os_string().into_encoded_bytes())
            } else {
                fs::read(&path)
            };
            let content = content.with_context(|| format!("cannot read {}", path.display()))?;
            let name = path.strip_prefix(folder)?.display();
            lines.push(format!("{name}: {} bytes, crc32c {:08x}", content.len(), crc32c::crc32c(&content)));
        }
    }
    lines.retain(|line| !line.starts_with(&format!("{COMPLETE}:")));
    lines.sort();
    Ok(format!("recipe {RECIPE}\n{}\n", lines.join("\n")))
}

/// The first line in which a folder differs from what was left there.
fn changed(left: &str, got: &str) -> Option<String> {
    let (was, is): (HashSet<&str>, HashSet<&str>) = (left.lines().collect(), got.lines().collect());
    let missing = left.lines().find(|line| !is.contains(line));
    let added = || got.lines().find(|line| !was.contains(line));
    let missing = missing.map(|line| format!("'{line}' is not so any more"));
    missing.or_else(|| Some(format!("'{}' was not so", added()?)))
}

/// Says at once what programs are missing, rather than one after another; `otherwise` does without them.
pub(crate) fn check_tools(tools: &[(&str, &str)], otherwise: &str) -> Result<()> {
    let missing: Vec<_> = tools.iter().filter(|(program, _)| !command::is_installed(program)).collect();
    let packages: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
    ensure!(
        missing.is_empty(),
        "programs are missing: install the Debian packages {} or {otherwise}",
        packages.join(" ")
    );
    Ok(())
}

/// Removes a folder that may not be there.
pub(crate) fn remove(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    Ok(())
}

/// How the folders are made; a new number makes all of them anew.
const RECIPE: u32 = 3;

/// The file with a folder's inventory, there once the folder is complete.
const COMPLETE: &str = "complete";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inventory_shows_every_kind_of_change() {
        let folder = std::env::temp_dir().join(format!("vfio-migration-inventory-{}", std::process::id()));
        remove(&folder).unwrap();
        fs::create_dir_all(folder.join("inner")).unwrap();
        fs::write(folder.join("inner/file"), "content").unwrap();
        fs::write(folder.join(COMPLETE), "is not a part of it").unwrap();
        let left = inventory(&folder).unwrap();
        assert_eq!(left, "recipe 3\ninner/file: 7 bytes, crc32c 61af7533\n");
        let seen = || changed(&left, &inventory(&folder).unwrap());
        assert_eq!(seen(), None);
        for content in ["conten", "c0ntent"] {
            fs::write(folder.join("inner/file"), content).unwrap();
            assert!(seen().unwrap().starts_with("'inner/file: 7 bytes"), "{content}");
        }
        fs::write(folder.join("inner/file"), "content").unwrap();
        std::os::unix::fs::symlink("file", folder.join("inner/other")).unwrap();
        assert!(seen().unwrap().starts_with("'inner/other: 4 bytes"));
        remove(&folder).unwrap();
    }
}
