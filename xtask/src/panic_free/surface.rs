//! What core offers its callers, read from its source, and whether each of it is called by an export.
//!
//! Deliberately absent: types. A call that is there for each function of a name is enough to notice a new one; which of
//! them it calls is for the eye.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

/// Fails unless the exports call as many functions of each name as core has public ones.
pub(super) fn check(exports: &str, core: &str) -> Result<()> {
    let mut public = BTreeMap::new();
    for name in functions(core) {
        *public.entry(name).or_insert(0) += 1;
    }
    ensure!(!public.is_empty(), "core has no public function");
    let missing: Vec<String> = public
        .into_iter()
        .map(|(name, wanted)| (name, wanted, calls(exports, name)))
        .filter(|&(_, wanted, got)| got < wanted)
        .map(|(name, wanted, got)| format!("{name} (wanted {wanted} calls, got {got})"))
        .collect();
    ensure!(missing.is_empty(), "core has functions without an export: {}", missing.join(", "));
    Ok(())
}

/// The text of all Rust files in a folder and the folders in it, each without its tests, which come last.
pub(super) fn source(folder: &Path) -> Result<String> {
    let mut all = String::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            all += &source(&path)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text =
                fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            all += text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        }
    }
    Ok(all)
}

/// The names of the public functions, and of those that a public type has by a trait.
fn functions(core: &str) -> Vec<&str> {
    let types: Vec<&str> = core.lines().filter_map(type_of).collect();
    let mut names = Vec::new();
    let mut by_trait = false;
    for line in core.lines() {
        if line.starts_with("impl") {
            by_trait = line.split_once(" for ").is_some_and(|(_, of)| types.contains(&word(of)));
        }
        let text = line.trim_start();
        let public = text.strip_prefix("pub fn ").or_else(|| text.strip_prefix("pub const fn "));
        let from_trait = line.strip_prefix("    fn ").filter(|_| by_trait);
        names.extend(public.or(from_trait).map(word));
        by_trait &= line.starts_with(' ') || !line.ends_with('}');
    }
    names
}

/// The name of the public type that a line begins.
fn type_of(line: &str) -> Option<&str> {
    line.strip_prefix("pub enum ").or_else(|| line.strip_prefix("pub struct ")).map(word)
}

/// The name at the front of a text.
fn word(text: &str) -> &str {
    text.split(|end: char| !end.is_alphanumeric() && end != '_').next().unwrap_or_default()
}

/// How often a function or method of this name is called.
fn calls(text: &str, name: &str) -> usize {
    [".", "::"].iter().map(|before| text.matches(&format!("{before}{name}(")).count()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CORE: &str = "\
pub struct Shown<T>(T);
struct Hidden;

impl Shown<u8> {
    pub const fn new(byte: u8) -> Self {
    pub fn get<T>(&self) -> T {
    fn private(&self) {}
    pub(crate) fn inside(&self) {}
}

impl fmt::Display for Shown<u8> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
}

impl fmt::Display for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
}

impl Error for Shown<u8> {}

pub trait Asked {
    fn ask(&self);
}

fn alone() {}
pub fn new() {}
";

    #[test]
    fn functions_are_those_that_a_caller_can_reach() {
        assert_eq!(functions(CORE), ["new", "get", "fmt", "new"]);
    }

    #[test]
    fn each_function_of_a_name_wants_a_call() {
        let exports = "a::new(0); x.get(); x.fmt(f); renew(1)";
        let error = check(exports, CORE).unwrap_err().to_string();
        assert_eq!(error, "core has functions without an export: new (wanted 2 calls, got 1)");
        check(&format!("{exports}; b::new()"), CORE).unwrap();
    }
}
