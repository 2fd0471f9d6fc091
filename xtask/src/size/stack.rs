//! The deepest stack of a function: its frame and those of all that it calls, along the deepest of all ways.
//!
//! A sum is given only where all of it is known. A function that calls itself, directly or over others, one whose frame
//! the compiler did not note, and one whose address is taken anywhere in the program, so that it may be called by a
//! pointer, are errors that name it; so is one that goes to a place where no function is known.
//!
//! Deliberately absent: what the caller of an entry hands over as code, a device or a place to print; a program in which
//! such entries are is not added up.

use anyhow::{Context as _, Result, bail, ensure};
use object::Architecture;

use super::image::{Image, Symbol};

/// The deepest stack of a function.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Depth {
    /// Bytes, with what calls put there.
    pub(crate) bytes: u64,
    /// The functions on the way there with their frames, the deepest last.
    pub(crate) way: Vec<(String, u64)>,
}

/// The deepest stack of `entry`, from its call on.
pub(crate) fn deepest(image: &Image, entry: &str) -> Result<Depth> {
    if let Some((taken, by)) = image.taken.iter().next() {
        bail!("{taken} may be called by a pointer, its address is in {by}: nobody knows how deep that goes");
    }
    if let Some(lost) = image.lost.values().next() {
        bail!("{lost}: nobody knows how deep that goes");
    }
    let start = image.function(entry).with_context(|| format!("{entry} is not in the linked program"))?;
    let mut known = vec![None; image.symbols.len()];
    descend(image, start, &mut known, &mut Vec::new())?;
    let mut depth = Depth { bytes: known[start].map_or(0, |(bytes, _)| bytes), way: Vec::new() };
    let mut at = Some(start);
    while let Some(index) = at {
        depth.way.push((image.symbols[index].name.clone(), frame(image, &image.symbols[index])?));
        at = known[index].and_then(|(_, next)| next);
    }
    Ok(depth)
}

/// The depth of a function, and the function on its deepest way.
type Known = Option<(u64, Option<usize>)>;

fn descend(image: &Image, index: usize, known: &mut [Known], above: &mut Vec<usize>) -> Result<u64> {
    if let Some((bytes, _)) = known[index] {
        return Ok(bytes);
    }
    let symbol = &image.symbols[index];
    ensure!(!above.contains(&index), "{} calls itself: nobody knows how deep that goes", symbol.name);
    above.push(index);
    let (mut below, mut next) = (0, None);
    for &callee in &symbol.calls {
        let bytes = descend(image, callee, known, above)?;
        if next.is_none() || bytes > below {
            (below, next) = (bytes, Some(callee));
        }
    }
    above.pop();
    let bytes = frame(image, symbol)?.saturating_add(below.max(unnoted(image.machine)));
    known[index] = Some((bytes, next));
    Ok(bytes)
}

/// What a function takes of the stack from its call on.
fn frame(image: &Image, symbol: &Symbol) -> Result<u64> {
    if symbol.name.starts_with(MOVED) {
        return Ok(moved(image.machine));
    }
    let noted = symbol.frame.or_else(|| assembly(&symbol.name));
    let noted = noted.with_context(|| format!("the compiler noted no frame for {}", symbol.name))?;
    Ok(noted.saturating_add(call(image.machine)))
}

/// What a call puts onto the stack by itself.
const fn call(machine: Architecture) -> u64 {
    if matches!(machine, Architecture::X86_64) { 8 } else { 0 }
}

/// What a function may have on its stack for a moment beside the frame that is noted. In x86's small code a constant gets
/// into a register by way of the stack, `push` and `pop`; nothing is called in between.
const fn unnoted(machine: Architecture) -> u64 {
    if matches!(machine, Architecture::X86_64) { 8 } else { 0 }
}

/// What code takes that the compiler found in several functions and moved out of them after it had noted their frames.
/// Arm's calls keep the way back in a register, which may have to go onto the stack around the call, and in the moved code
/// around each call there: the most that both can take. RISC-V has a second register for it, and x86 no such code.
const fn moved(machine: Architecture) -> u64 {
    match machine {
        Architecture::Arm => 2 * 8,
        Architecture::Aarch64 => 2 * 16,
        _ => call(machine),
    }
}

/// Frames of functions that are written in assembly, for which there is no note, by their code in `compiler_builtins`.
fn assembly(name: &str) -> Option<u64> {
    ASSEMBLY.iter().find(|(known, _)| *known == name).map(|&(_, frame)| frame)
}

/// It pushes two registers, and has 16 bytes for a remainder and its address.
const ASSEMBLY: [(&str, u64); 1] = [("__aeabi_uldivmod", 24)];

/// How names of moved code begin.
const MOVED: &str = "OUTLINED_FUNCTION_";

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    /// Functions by name, frame and what they call.
    fn program(functions: &[(&str, Option<u64>, &[usize])]) -> Image {
        let symbol = |&(name, frame, calls): &(&str, Option<u64>, &[usize])| Symbol {
            name: name.into(),
            is_function: true,
            frame,
            calls: BTreeSet::from_iter(calls.iter().copied()),
            ..Symbol::default()
        };
        Image {
            machine: Architecture::Arm,
            sections: BTreeMap::new(),
            symbols: functions.iter().map(symbol).collect(),
            taken: BTreeMap::new(),
            lost: BTreeMap::new(),
        }
    }

    #[test]
    fn the_deepest_of_all_ways_counts() {
        let functions: [(&str, _, &[usize]); 4] =
            [("a", Some(8), &[1, 2]), ("b", Some(100), &[]), ("c", Some(16), &[3]), ("d", Some(96), &[])];
        let mut program = program(&functions);
        let depth = deepest(&program, "a").unwrap();
        assert_eq!(depth.bytes, 120);
        assert_eq!(depth.way, [("a".into(), 8), ("c".into(), 16), ("d".into(), 96)]);
        program.machine = Architecture::X86_64;
        assert_eq!(deepest(&program, "a").unwrap().bytes, 120 + 3 * 8 + 8);
        assert_eq!(deepest(&program, "b").unwrap().bytes, 100 + 8 + 8);
    }

    #[test]
    fn what_cannot_be_added_up_is_an_error_that_names_the_function() {
        let error = |program: &Image| deepest(program, "a").unwrap_err().to_string();
        let circle = program(&[("a", Some(8), &[1]), ("b", Some(8), &[2]), ("c", Some(8), &[1])]);
        assert_eq!(error(&circle), "b calls itself: nobody knows how deep that goes");
        let unknown = program(&[("a", Some(8), &[1]), ("b", None, &[])]);
        assert_eq!(error(&unknown), "the compiler noted no frame for b");
        let mut pointer = program(&[("a", Some(8), &[])]);
        pointer.taken.insert("b".into(), "a".into());
        let wanted = "b may be called by a pointer, its address is in a: nobody knows how deep that goes";
        assert_eq!(error(&pointer), wanted);
        let mut lost = program(&[("a", Some(8), &[])]);
        lost.lost.insert(4, "a goes to 0x10".into());
        assert_eq!(error(&lost), "a goes to 0x10: nobody knows how deep that goes");
    }
}
