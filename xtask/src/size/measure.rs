//! What is measured of a machine: the code of the programs in `tests/size`, the memory of the sessions, and the deepest
//! stack of each function of core that `tests/panic_free` exports.
//!
//! Deliberately absent: what is too much. [`budget`](super::budget) says that.

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use object::{Object as _, ObjectSymbol as _};
use serde::Deserialize;

use super::image::Image;
use super::stack;
use crate::freestanding::{self, Level};
use crate::panic_free;

/// What kind of thing takes bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// Code and constants of a program.
    Code,
    /// A session, beside its caller's buffer.
    Memory,
    /// The deepest stack of a function.
    Stack,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Code => "code",
            Self::Memory => "memory",
            Self::Stack => "stack",
        })
    }
}

/// A measurement.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) kind: Kind,
    pub(crate) target: &'static str,
    pub(crate) entry: String,
    pub(crate) bytes: u64,
    /// What they are made of: functions by size, or from the entry downwards with their frames.
    pub(crate) parts: Vec<(String, u64)>,
}

/// Builds for a machine and measures.
pub(crate) fn measure(target: &'static str) -> Result<Vec<Row>> {
    let folder = freestanding::build(PROGRAMS_OF, target, Level::Small)?;
    let mut rows = Vec::new();
    for name in PROGRAMS {
        rows.push(program(name, target, &folder)?);
    }
    rows.extend(memory(target, &folder, STATIC)?);
    rows.extend(stacks(target)?);
    Ok(rows)
}

/// What must not pass: a program and a session that are too large, under the names of such that have an aim, and a stack
/// that is too deep.
/// Fails where a stack is added up that can't be.
pub(crate) fn controls(target: &'static str) -> Result<Vec<Row>> {
    let folder = freestanding::build(PROGRAMS_OF, target, Level::Small)?;
    let mut large = program(CONTROL, target, &folder)?;
    large.entry = BOTH.into();
    for (name, wanted) in REFUSED {
        let image = Image::read(&panic_free::control(target, Level::Small, name)?)?;
        match stack::deepest(&image, name) {
            Ok(depth) => {
                bail!("{name} on {target} was added up to {} bytes: the sums prove nothing", depth.bytes)
            }
            Err(error) => ensure!(error.to_string().contains(wanted), "{name} on {target}: {error:#}"),
        }
    }
    let name = "proof_control_stack";
    let image = Image::read(&panic_free::control(target, Level::Small, name)?)?;
    let depth = stack::deepest(&image, name)?;
    ensure!(
        (STACK..STACK + 100).contains(&depth.bytes),
        "{name} on {target} has {STACK} bytes on its stack, and was added up to {}",
        depth.bytes
    );
    let mut controls = memory(target, &folder, STATIC_CONTROL)?;
    controls.extend([large, row(Kind::Stack, target, name, depth.bytes, depth.way)]);
    Ok(controls)
}

/// The code of a program, whose parts must make up the whole.
fn program(name: &str, target: &'static str, folder: &Path) -> Result<Row> {
    let image = Image::read(&folder.join(name))?;
    let mut parts: Vec<(String, u64)> =
        image.symbols.iter().map(|symbol| (symbol.name.clone(), symbol.size)).collect();
    parts.push((NAMELESS.into(), image.nameless()?));
    parts.sort_by(|(a, x), (b, y)| y.cmp(x).then_with(|| a.cmp(b)));
    Ok(row(Kind::Code, target, name, image.size(), parts))
}

/// The sizes of the statics that have those of the sessions, whose names begin so.
fn memory(target: &'static str, folder: &Path, begin: &str) -> Result<Vec<Row>> {
    let bytes = fs::read(folder.join(SESSIONS)).with_context(|| format!("cannot read {SESSIONS}"))?;
    let file = object::File::parse(&*bytes)?;
    let of = |symbol: object::Symbol<'_, '_>| {
        let session = symbol.name().ok()?.strip_prefix(begin)?;
        Some(row(Kind::Memory, target, session, symbol.size(), Vec::new()))
    };
    let mut rows: Vec<Row> = file.symbols().filter_map(of).collect();
    ensure!(!rows.is_empty(), "{SESSIONS} has no {begin}*");
    rows.sort_by(|a, b| a.entry.cmp(&b.entry));
    Ok(rows)
}

fn stacks(target: &'static str) -> Result<Vec<Row>> {
    let (program, entries) = panic_free::closed(target, Level::Small)?;
    let image = Image::read(&program)?;
    let of = |entry: &String| {
        let depth =
            stack::deepest(&image, entry).with_context(|| format!("the stack of {entry} on {target}"))?;
        Ok(row(Kind::Stack, target, entry.trim_start_matches(EXPORT), depth.bytes, depth.way))
    };
    entries.iter().map(of).collect()
}

fn row(kind: Kind, target: &'static str, entry: &str, bytes: u64, parts: Vec<(String, u64)>) -> Row {
    let parts = parts.into_iter().map(|(name, bytes)| (shown(&name), bytes)).collect();
    Row { kind, target, entry: entry.into(), bytes, parts }
}

/// A function's name for people, without its hash.
fn shown(name: &str) -> String {
    format!("{:#}", rustc_demangle::demangle(name))
}

const PROGRAMS_OF: &str = "tests/size";
const BOTH: &str = "both";
const PROGRAMS: [&str; 3] = ["save", "load", BOTH];
/// A program that is too large, and the bytes that a function has on its stack which is too deep.
const CONTROL: &str = "control";
const STACK: u64 = 900;
/// Functions whose stacks can't be added up, and what is said of them.
const REFUSED: [(&str, &str); 3] = [
    ("proof_control_recursion", "calls itself"),
    ("proof_control_pointer", "by a pointer"),
    ("proof_control_nameless", "where no function of a known size begins"),
];
const SESSIONS: &str = "sessions";
const STATIC: &str = "size_";
const STATIC_CONTROL: &str = "control_";
const EXPORT: &str = "proof_";
const NAMELESS: &str = "constants without a name, gaps";
