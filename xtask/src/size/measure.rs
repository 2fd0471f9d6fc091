//! What is measured of one target: code, sessions, stacks.
//!
//! Deliberately absent: what is too much. Budgets say that.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use object::{Object as _, ObjectSymbol as _};

use super::image::Image;
use super::stack::{self, Depth};
use crate::bare::{self, Level};
use crate::panic_free;

/// All of one target.
pub(crate) struct Measured {
    pub(crate) target: &'static str,
    pub(crate) programs: Vec<Program>,
    /// Each session's name and its size in memory.
    pub(crate) memory: Vec<(String, u64)>,
    /// Each entry's name and its deepest stack.
    pub(crate) stacks: Vec<(String, Depth)>,
}

/// The code of a program.
pub(crate) struct Program {
    pub(crate) name: &'static str,
    /// Sections with their sizes.
    pub(crate) sections: Vec<(String, u64)>,
    /// Bytes by function or constant, the largest first; those without a name together.
    pub(crate) parts: Vec<(String, u64)>,
}

impl Program {
    /// All bytes of code and constants.
    pub(crate) fn bytes(&self) -> u64 {
        self.sections.iter().map(|(_, bytes)| bytes).sum()
    }
}

/// Builds and measures.
pub(crate) fn measure(target: &'static str) -> Result<Measured> {
    let folder = bare::build(PROGRAMS_OF, target, Level::Small)?;
    let programs = PROGRAMS.into_iter().map(|name| program(name, &folder)).collect::<Result<_>>()?;
    Ok(Measured { target, programs, memory: memory(&folder)?, stacks: stacks(target)? })
}

fn program(name: &'static str, folder: &Path) -> Result<Program> {
    let image = Image::read(&folder.join(name))?;
    let mut parts: Vec<(String, u64)> =
        image.symbols.iter().map(|symbol| (shown(&symbol.name), symbol.size)).collect();
    parts.push((NAMELESS.into(), image.nameless()?));
    parts.sort_by(|(a, x), (b, y)| y.cmp(x).then_with(|| a.cmp(b)));
    let program = Program { name, sections: image.sections.into_iter().collect(), parts };
    let sum: u64 = program.parts.iter().map(|(_, bytes)| bytes).sum();
    ensure!(sum == program.bytes(), "{name} has {} bytes, its parts {sum}", program.bytes());
    Ok(program)
}

/// The sizes of the statics that have those of the sessions.
fn memory(folder: &Path) -> Result<Vec<(String, u64)>> {
    let bytes = std::fs::read(folder.join(SESSIONS))?;
    let file = object::File::parse(&*bytes)?;
    let mut memory: Vec<(String, u64)> = file
        .symbols()
        .filter_map(|symbol| Some((symbol.name().ok()?.strip_prefix(STATIC)?.to_owned(), symbol.size())))
        .collect();
    ensure!(!memory.is_empty(), "{SESSIONS} has no {STATIC}*");
    memory.sort();
    Ok(memory)
}

/// Each export of the proof that calls nothing of its caller's.
fn stacks(target: &'static str) -> Result<Vec<(String, Depth)>> {
    let program = panic_free::closed(target, Level::Small)?;
    let image = Image::read(&program.0)?;
    program
        .1
        .iter()
        .map(|entry| {
            let depth = stack::deepest(&image, entry).with_context(|| format!("{entry} on {target}"))?;
            Ok((entry.trim_start_matches("proof_").to_owned(), depth))
        })
        .collect()
}

/// A function's name for people, without its hash.
pub(crate) fn shown(name: &str) -> String {
    format!("{:#}", rustc_demangle::demangle(name))
}

const PROGRAMS_OF: &str = "tests/size";
const PROGRAMS: [&str; 3] = ["save", "load", "both"];
const SESSIONS: &str = "sessions";
const STATIC: &str = "size_";
const NAMELESS: &str = "constants without a name, gaps";

#[allow(unused)]
type Path_ = PathBuf;
