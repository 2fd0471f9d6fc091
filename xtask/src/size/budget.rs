//! What may be taken: the aims of `tests/size/size-budget.toml`, and what is known to take more.
//!
//! Deliberately absent: what came out. Only an excess that is named with its reason has a number of its own.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::measure::{Kind, Row};

/// The aims.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Budget {
    /// Bytes of a program, by target.
    code: BTreeMap<String, BTreeMap<String, u64>>,
    /// Bytes of a session, on each target.
    memory: BTreeMap<String, u64>,
    /// Bytes of the deepest stack of each function, by target.
    stack: BTreeMap<String, u64>,
    /// What may take more.
    #[serde(default)]
    excess: Vec<Excess>,
}

/// What is known to take more than its aim.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Excess {
    kind: Kind,
    target: String,
    entry: String,
    bytes: u64,
    why: String,
}

impl Budget {
    /// Reads the aims from the workspace.
    pub(crate) fn read(workspace: &Path) -> Result<Self> {
        let path = workspace.join(FILE);
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {FILE}"))?;
        Self::parse(&text).with_context(|| format!("cannot make out {FILE}"))
    }

    /// What is wrong with a measurement: it takes too much, has no aim, or an excess that it does not need.
    pub(crate) fn objection(&self, row: &Row) -> Option<String> {
        let Row { kind, target, entry, bytes, .. } = row;
        let what = format!("{kind} of {entry} on {target}");
        let Some(aim) = self.aim(row) else {
            return Some(format!("{what}: {FILE} has no aim for it, it takes {bytes} bytes"));
        };
        match self.excess(row) {
            Some(excess) if excess.why.trim().is_empty() => Some(format!("{what}: its excess has no reason")),
            Some(_) if *bytes <= aim => {
                Some(format!("{what}: wanted {aim} bytes, got {bytes}; remove its excess"))
            }
            Some(excess) if *bytes > excess.bytes => Some(too_much(&what, excess.bytes, row)),
            None if *bytes > aim => Some(too_much(&what, aim, row)),
            Some(_) | None => None,
        }
    }

    /// The aim, in bytes.
    pub(crate) fn aim(&self, row: &Row) -> Option<u64> {
        match row.kind {
            Kind::Code => self.code.get(row.target)?.get(&row.entry).copied(),
            Kind::Memory => self.memory.get(&row.entry).copied(),
            Kind::Stack => self.stack.get(row.target).copied(),
        }
    }

    /// Excesses on a target of which nothing was measured.
    pub(crate) fn idle(&self, rows: &[Row], target: &str) -> impl Iterator<Item = String> {
        let is_idle =
            move |excess: &&Excess| excess.target == target && !rows.iter().any(|row| excess.is_of(row));
        let idle = self.excess.iter().filter(is_idle);
        idle.map(|excess| {
            format!("{} of {} on {}: nothing such is measured", excess.kind, excess.entry, excess.target)
        })
    }

    fn excess(&self, row: &Row) -> Option<&Excess> {
        self.excess.iter().find(|excess| excess.is_of(row))
    }

    fn parse(text: &str) -> Result<Self> {
        Ok(toml::from_str(text)?)
    }
}

impl Excess {
    fn is_of(&self, row: &Row) -> bool {
        self.kind == row.kind && self.target == row.target && self.entry == row.entry
    }
}

/// What takes too much, and which functions have the most of it.
fn too_much(what: &str, wanted: u64, row: &Row) -> String {
    let mut text = format!("{what}: wanted {wanted} bytes at most, got {}", row.bytes);
    for (function, bytes) in row.parts.iter().take(LARGEST) {
        let _ = write!(text, "\n    {bytes:>6} {function}");
    }
    text
}

/// Where the aims are.
pub(crate) const FILE: &str = "tests/size/size-budget.toml";

/// How many functions are told of what takes too much.
const LARGEST: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    const AIMS: &str = "\
[code.t]
both = 100
[memory]
source = 8
[stack]
t = 50
[[excess]]
kind = 'stack'
target = 't'
entry = 'deep'
bytes = 60
why = 'a map'
";

    fn objection(kind: Kind, entry: &str, bytes: u64) -> Option<String> {
        let parts = vec![("f".into(), bytes)];
        Budget::parse(AIMS).unwrap().objection(&Row { kind, target: "t", entry: entry.into(), bytes, parts })
    }

    #[test]
    fn what_is_within_its_aim_or_its_excess_is_fine() {
        assert_eq!(objection(Kind::Code, "both", 100), None);
        assert_eq!(objection(Kind::Memory, "source", 8), None);
        assert_eq!(objection(Kind::Stack, "poll", 50), None);
        assert_eq!(objection(Kind::Stack, "deep", 60), None);
    }

    #[test]
    fn what_grows_is_told_with_its_largest_functions() {
        let told = "code of both on t: wanted 100 bytes at most, got 101\n       101 f";
        assert_eq!(objection(Kind::Code, "both", 101).as_deref(), Some(told));
        let told = "stack of deep on t: wanted 60 bytes at most, got 61\n        61 f";
        assert_eq!(objection(Kind::Stack, "deep", 61).as_deref(), Some(told));
    }

    #[test]
    fn an_excess_that_is_not_needed_and_an_entry_without_an_aim_are_told() {
        let told = "stack of deep on t: wanted 50 bytes, got 50; remove its excess";
        assert_eq!(objection(Kind::Stack, "deep", 50).as_deref(), Some(told));
        assert!(objection(Kind::Memory, "other", 1).unwrap().contains("has no aim"));
        let idle: Vec<String> = Budget::parse(AIMS).unwrap().idle(&[], "t").collect();
        assert_eq!(idle, ["stack of deep on t: nothing such is measured"]);
    }
}
