//! What may be taken: the aims of `tests/size/size-budget.toml`, and what is known to take more.
//!
//! Deliberately absent: what came out. Only an excess that is named with its reason has a number of its own.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use super::measure::{Kind, Row};
use crate::freestanding::TARGETS;

/// The aims.
#[derive(Debug, Default, Deserialize)]
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

    /// Aims and excesses on a target of which nothing was measured.
    pub(crate) fn idle(&self, rows: &[Row], target: &str) -> Vec<String> {
        let has = |kind: Kind, entry: &str| rows.iter().any(|row| row.kind == kind && row.entry == entry);
        let mut idle = Vec::new();
        let mut want = |kind: Kind, entry: &str| {
            if !has(kind, entry) {
                idle.push(format!(
                    "{kind} of {entry} on {target}: {FILE} names it, and nothing such is measured"
                ));
            }
        };
        self.code.get(target).into_iter().flatten().for_each(|(entry, _)| want(Kind::Code, entry));
        self.memory.keys().for_each(|entry| want(Kind::Memory, entry));
        let excesses = self.excess.iter().filter(|excess| excess.target == target);
        excesses.for_each(|excess| want(excess.kind, &excess.entry));
        if self.stack.contains_key(target) && !rows.iter().any(|row| row.kind == Kind::Stack) {
            idle.push(format!("stack on {target}: {FILE} has an aim, and no stack is measured"));
        }
        idle
    }

    fn excess(&self, row: &Row) -> Option<&Excess> {
        self.excess.iter().find(|excess| excess.is_of(row))
    }

    fn parse(text: &str) -> Result<Self> {
        let budget: Self = toml::from_str(text)?;
        let excesses = || budget.excess.iter();
        let named =
            budget.code.keys().chain(budget.stack.keys()).chain(excesses().map(|excess| &excess.target));
        for target in named {
            let known = TARGETS.join(", ");
            ensure!(TARGETS.contains(&target.as_str()), "no target is called {target}; there are {known}");
        }
        for excess in excesses() {
            let Excess { kind, target, entry, .. } = excess;
            let same = excesses()
                .filter(|other| (other.kind, &other.target, &other.entry) == (*kind, target, entry));
            ensure!(same.count() == 1, "{kind} of {entry} on {target} has more than one excess");
        }
        Ok(budget)
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
[code.x86_64-unknown-none]
both = 100
[memory]
source = 8
[stack]
x86_64-unknown-none = 50
[[excess]]
kind = 'stack'
target = 'x86_64-unknown-none'
entry = 'deep'
bytes = 60
why = 'a map'
";

    const TARGET: &str = "x86_64-unknown-none";

    fn row(kind: Kind, entry: &str, bytes: u64) -> Row {
        Row { kind, target: TARGET, entry: entry.into(), bytes, parts: vec![("f".into(), bytes)] }
    }

    fn objection(kind: Kind, entry: &str, bytes: u64) -> Option<String> {
        Budget::parse(AIMS).unwrap().objection(&row(kind, entry, bytes))
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
        let told = "code of both on x86_64-unknown-none: wanted 100 bytes at most, got 101\n       101 f";
        assert_eq!(objection(Kind::Code, "both", 101).as_deref(), Some(told));
        let told = "stack of deep on x86_64-unknown-none: wanted 60 bytes at most, got 61\n        61 f";
        assert_eq!(objection(Kind::Stack, "deep", 61).as_deref(), Some(told));
    }

    #[test]
    fn an_excess_that_is_not_needed_and_an_entry_without_an_aim_are_told() {
        let told = "stack of deep on x86_64-unknown-none: wanted 50 bytes, got 50; remove its excess";
        assert_eq!(objection(Kind::Stack, "deep", 50).as_deref(), Some(told));
        assert!(objection(Kind::Memory, "other", 1).unwrap().contains("has no aim"));
    }

    #[test]
    fn each_aim_and_excess_of_which_nothing_is_measured_is_told() {
        let budget = Budget::parse(AIMS).unwrap();
        let mut rows =
            vec![row(Kind::Code, "both", 1), row(Kind::Memory, "source", 1), row(Kind::Stack, "deep", 60)];
        assert_eq!(budget.idle(&rows, TARGET), [""; 0]);
        rows[2].entry = "flat".into();
        let named = |what: &str| format!("{what}: {FILE} names it, and nothing such is measured");
        assert_eq!(budget.idle(&rows, TARGET), [named("stack of deep on x86_64-unknown-none")]);
        let mut wanted = ["code of both", "memory of source", "stack of deep"]
            .map(|what| named(&format!("{what} on {TARGET}")))
            .to_vec();
        wanted.push(format!("stack on {TARGET}: {FILE} has an aim, and no stack is measured"));
        assert_eq!(budget.idle(&[], TARGET), wanted);
    }

    #[test]
    fn target_that_there_is_not_and_a_second_excess_are_refused() {
        let refused = |aims: &str| Budget::parse(aims).unwrap_err().to_string();
        for place in ["[code.x86_64", "[stack]\nx86_64", "target = 'x86_64"] {
            let told = refused(&AIMS.replace(place, &place.replace("x86", "x68")));
            assert!(
                told.starts_with("no target is called x68_64-unknown-none; there are thumbv7em"),
                "{told}"
            );
        }
        let (_, excess) = AIMS.split_once("[[").unwrap();
        let told = refused(&format!("{AIMS}[[{excess}"));
        assert_eq!(told, "stack of deep on x86_64-unknown-none has more than one excess");
    }
}
