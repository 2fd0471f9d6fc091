//! Calls by a register in Arm's short instructions.
//!
//! In small code the compiler makes of three calls of one function: the load of its address into a register that calls
//! leave alone, and calls by that register, of which the last may be a jump. Such an address is called and not taken only
//! where, behind each of its loads to the end of the function, nothing else reads or writes the register, but for what
//! brings back the caller's.
//!
//! Deliberately absent: the way that a program takes. Instructions are read in the order of their addresses.

use std::collections::BTreeSet;
use std::ops::Range;

use yaxpeax_arch::{Decoder as _, U8Reader};
use yaxpeax_arm::armv7::InstDecoder;

/// The instructions of a section.
pub(super) struct Thumb {
    code: Vec<u8>,
}

impl Thumb {
    /// Of a section's bytes, and where among them there is data.
    pub(super) fn new(mut code: Vec<u8>, data: &[Range<usize>]) -> Self {
        for range in data {
            let halves = code.get_mut(range.clone()).unwrap_or_default().chunks_exact_mut(2);
            halves.for_each(|half| half.copy_from_slice(&NOP.to_le_bytes()));
        }
        Self { code }
    }

    /// Where the address `at` a place behind a function is called by it; nothing where it may be more than called.
    pub(super) fn calls_of(&self, function: Range<usize>, at: usize) -> Option<BTreeSet<usize>> {
        let instructions = self.instructions(function);
        let mut calls = BTreeSet::new();
        for (index, load) in instructions.iter().enumerate() {
            if let Some(register) = load.loads_from(at) {
                calls.extend(calls_alone(register, instructions.get(index + 1..)?)?);
            }
        }
        (!calls.is_empty()).then_some(calls)
    }

    /// Where a function calls or jumps to what a register or memory has.
    pub(super) fn by_register(&self, function: Range<usize>) -> BTreeSet<usize> {
        let instructions = self.instructions(function).into_iter();
        instructions.filter(Instruction::goes_by_register).map(|instruction| instruction.at).collect()
    }

    fn instructions(&self, function: Range<usize>) -> Vec<Instruction> {
        let (mut at, mut instructions) = (function.start, Vec::new());
        while let Some(first) = self.half(at).filter(|_| at < function.end) {
            let second = if first >> 11 > 0b11100 { self.half(at + 2) } else { None };
            let bytes = self.code.get(at..).unwrap_or_default();
            let decoded = InstDecoder::default_thumb().decode(&mut U8Reader::new(bytes));
            instructions.push(Instruction { at, first, second, text: decoded.ok().map(|it| it.to_string()) });
            at += if second.is_some() { 4 } else { 2 };
        }
        instructions
    }

    fn half(&self, at: usize) -> Option<u16> {
        self.code.get(at..).and_then(<[u8]>::first_chunk).map(|half| u16::from_le_bytes(*half))
    }
}

/// An instruction, its place and its halves.
struct Instruction {
    at: usize,
    first: u16,
    second: Option<u16>,
    /// As an assembler has it; nothing for what the decoder does not know.
    text: Option<String>,
}

impl Instruction {
    /// The register that the word `at` a place is loaded into.
    fn loads_from(&self, at: usize) -> Option<u16> {
        let base = (self.at + 4) & !3;
        let (register, distance) = match (self.first, self.second) {
            (short, None) if short & 0xf800 == 0x4800 => (short >> 8 & 7, (short & 0xff) * 4),
            (0xf8df, Some(rest)) => (rest >> 12, rest & 0xfff),
            _ => return None,
        };
        (base + usize::from(distance) == at).then_some(register)
    }

    fn calls_or_jumps_to(&self, register: u16) -> bool {
        [0x4780, 0x4700].contains(&(self.first & !0x78)) && self.first >> 3 & 15 == register
    }

    fn goes_by_register(&self) -> bool {
        let is_return = self.calls_or_jumps_to(LINK);
        let by_register = [0x4780, 0x4700].contains(&(self.first & !0x78)) || self.first & !0x78 == 0x4687;
        // A load of the program counter is a return where it is from the stack.
        let into_counter = self.first & 0xff70 == 0xf850 && self.second.is_some_and(|rest| rest >> 12 == 15);
        by_register && !is_return || into_counter && self.first & 15 != STACK
    }

    /// Whether it may read or write a register.
    fn mentions(&self, register: u16) -> bool {
        let is_name = |word: &str| NAMES.iter().any(|&(number, name)| number == register && name == word);
        let words = |text: &String| text.split(|end: char| !end.is_alphanumeric()).any(is_name);
        self.text.as_ref().is_none_or(words)
    }

    fn begins(&self, with: &[&str]) -> bool {
        self.text.as_ref().is_some_and(|text| with.iter().any(|with| text.starts_with(with)))
    }
}

/// The calls by a register behind its load, unless something else may use it there.
fn calls_alone(register: u16, behind: &[Instruction]) -> Option<BTreeSet<usize>> {
    NAMES.iter().find(|&&(number, _)| number == register)?;
    let (mut calls, mut is_moved) = (BTreeSet::new(), false);
    for instruction in behind {
        if instruction.calls_or_jumps_to(register) || is_moved && instruction.calls_or_jumps_to(SCRATCH) {
            calls.insert(instruction.at);
            is_moved = false;
        } else if instruction.first == 0x4684 | register << 3 {
            is_moved = true;
        } else if instruction.begins(&["pop"]) {
            // The caller's comes back.
        } else if instruction.mentions(register) || is_moved && !instruction.begins(&["add sp"]) {
            return None;
        }
    }
    (!is_moved).then_some(calls)
}

/// The registers that calls leave alone, as the decoder names them.
const NAMES: [(u16, &str); 8] =
    [(4, "r4"), (5, "r5"), (6, "r6"), (7, "r7"), (8, "r8"), (9, "sb"), (10, "r10"), (11, "fp")];

/// The register that a jump may use which the caller's registers are brought back before, the stack, and the way back.
const SCRATCH: u16 = 12;
const STACK: u16 = 13;
const LINK: u16 = 14;

const NOP: u16 = 0xbf00;

#[cfg(test)]
mod tests {
    use super::*;

    /// A function of these halves with a nop where they end at an odd one, and an address behind it.
    fn thumb(halves: &[u16]) -> (Thumb, usize) {
        let mut halves = halves.to_vec();
        halves.resize(halves.len().next_multiple_of(2), NOP);
        let end = halves.len() * 2;
        // As an instruction the address would be strb r4, [r6, #8].
        halves.extend([0x7234, 2]);
        let data = end..end + 4;
        (Thumb::new(halves.iter().flat_map(|half| half.to_le_bytes()).collect(), &[data]), end)
    }

    /// The places of calls when a load of the address into the register stands before these halves.
    fn calls(register: u16, halves: &[u16]) -> Option<Vec<usize>> {
        let distance = u16::try_from((halves.len() + 1).div_ceil(2) - 1).unwrap();
        let (thumb, at) = thumb(&[&[0x4800 | register << 8 | distance][..], halves].concat());
        thumb.calls_of(0..at + 4, at).map(Vec::from_iter)
    }

    #[test]
    fn address_that_is_only_called_is_found_with_its_calls() {
        assert_eq!(calls(4, &[0x47a0, 0x47a0, 0xbd10]), Some(vec![2, 4])); // blx r4, twice; pop {r4, pc}
        // blx r4; mov ip, r4; pop.w {r4, r5, r6, r7, lr}; bx ip
        assert_eq!(calls(4, &[0x47a0, 0x46a4, 0xe8bd, 0x40f0, 0x4760]), Some(vec![2, 10]));
        // The 8 of mov.w r2, #272 is no register: ldr.w r8, [pc, #8]; blx r8; it; blx r8
        let (thumb, at) = thumb(&[0xf8df, 0x8008, 0x47c0, 0xf44f, 0x7288, 0x47c0]);
        assert_eq!(thumb.calls_of(0..at + 4, at).map(Vec::from_iter), Some(vec![4, 10]));
    }

    #[test]
    fn address_that_is_also_used_otherwise_is_none_that_is_called() {
        assert_eq!(calls(4, &[0x47a0, 0x47a0, 0x4620]), None); // blx r4, twice; mov r0, r4
        assert_eq!(calls(4, &[0x47a0, 0x6804, 0x47a0]), None); // blx r4; ldr r4, [r0]; blx r4
        assert_eq!(calls(4, &[0x47a0, 0x46a4, 0x4660, 0x4760]), None); // blx r4; mov ip, r4; mov r0, ip; bx ip
        assert_eq!(calls(4, &[0x47a0, 0xee10, 0x4a10]), None); // blx r4; vmov r4, s0, which is not decoded
        assert_eq!(calls(1, &[0x4788, 0x4788]), None); // blx r1, which calls do not leave alone
        assert_eq!(calls(4, &[0x4788, 0x4788]), None); // blx r1, which has another address
        assert_eq!(calls(4, &[0x47a0, 0x4800]), None); // blx r4; ldr r0 from the same place
    }

    #[test]
    fn each_way_by_a_register_is_found_but_no_return() {
        // blx r4; bx r12; mov pc, r3; ldr.w pc, [r0, #4]; bx lr; pop {pc}; ldr.w pc, [sp], #4
        let halves = [0x47a0, 0x4760, 0x469f, 0xf8d0, 0xf004, 0x4770, 0xbd00, 0xf85d, 0xfb04];
        let (thumb, at) = thumb(&halves);
        assert_eq!(Vec::from_iter(thumb.by_register(0..at + 4)), [0, 2, 4, 6]);
    }
}
