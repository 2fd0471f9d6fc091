//! How one place in a program refers to another: the few instructions by which a call is told from a jump, and both from
//! an address that is taken.
//!
//! Source: the ELF supplements of the five architectures; the numbers of relocations are those of the crate `object`.
//!
//! Deliberately absent: a disassembler. Relocations say where to look, but for calls of a function by itself.

use object::Architecture;
use object::elf::{self, RelocationType};

/// How a place refers to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// It calls it, and goes on behind it.
    Call,
    /// It goes there and does not come back.
    Jump,
    /// It takes the address.
    Address,
}

impl Way {
    /// By a relocation's type or, where that does not tell, by the instruction `at` which it is; nothing for what refers
    /// to no function.
    pub(super) fn of(
        machine: Architecture,
        relocation: RelocationType,
        code: &[u8],
        at: usize,
    ) -> Option<Self> {
        Some(match (machine, relocation) {
            (Architecture::Arm, elf::R_ARM_THM_PC22) => Self::Call,
            (Architecture::Arm, elf::R_ARM_THM_JUMP24 | elf::R_ARM_THM_JUMP19) => Self::Jump,
            (Architecture::Arm, elf::R_ARM_ABS32) if calls_by_register(code, at) => Self::Call,
            (Architecture::Aarch64, elf::R_AARCH64_CALL26) => Self::Call,
            (
                Architecture::Aarch64,
                elf::R_AARCH64_JUMP26 | elf::R_AARCH64_CONDBR19 | elf::R_AARCH64_TSTBR14,
            ) => Self::Jump,
            (Architecture::Riscv32 | Architecture::Riscv64, relocation) => {
                return riscv(relocation, code, at);
            }
            (Architecture::X86_64, _) => x86(code, at),
            _ => Self::Address,
        })
    }
}

/// Whether a function calls itself, seen from its bytes alone.
pub(super) fn calls_itself(machine: Architecture, code: &[u8]) -> bool {
    let to_start = |at: usize, distance: i64| i64::try_from(at).is_ok_and(|at| at + distance == 0);
    let word = |at: usize| code.get(at..).and_then(<[u8]>::first_chunk).map(|word| u32::from_le_bytes(*word));
    let mut places = 0..code.len();
    match machine {
        Architecture::X86_64 => places.any(|at| {
            let distance = word(at + 1).map(|word| i64::from(word.cast_signed()) + 5);
            code[at] == 0xe8 && distance.is_some_and(|distance| to_start(at, distance))
        }),
        Architecture::Aarch64 => places.step_by(4).any(|at| {
            let call = word(at).filter(|word| word >> 26 == 0b10_0101);
            call.is_some_and(|word| to_start(at, i64::from(((word << 6).cast_signed() >> 6) * 4)))
        }),
        Architecture::Riscv32 | Architecture::Riscv64 => places.step_by(2).any(|at| {
            let pair = word(at).zip(word(at + 4)).and_then(|(upper, lower)| riscv_distance(upper, lower));
            pair.is_some_and(|distance| to_start(at, distance))
        }),
        // Arm's short instructions have a relocation for each call.
        _ => false,
    }
}

fn riscv(relocation: RelocationType, code: &[u8], at: usize) -> Option<Way> {
    Some(match relocation {
        elf::R_RISCV_CALL | elf::R_RISCV_CALL_PLT => Way::Call,
        // The link register is the instruction's second field; without one it is a jump.
        elf::R_RISCV_JAL if code.get(at..).is_some_and(links) => Way::Call,
        elf::R_RISCV_JAL | elf::R_RISCV_BRANCH | elf::R_RISCV_RVC_BRANCH | elf::R_RISCV_RVC_JUMP => Way::Jump,
        // Of the instruction that has the upper half of an address; which has its own relocation.
        elf::R_RISCV_PCREL_LO12_I | elf::R_RISCV_PCREL_LO12_S => return None,
        elf::R_RISCV_RELAX | elf::R_RISCV_ALIGN => return None,
        _ => Way::Address,
    })
}

fn links(code: &[u8]) -> bool {
    code.first_chunk().is_some_and(|word| (u32::from_le_bytes(*word) >> 7) & 31 != 0)
}

/// The distance of `auipc` and `jalr` that links, seen from the first.
fn riscv_distance(upper: u32, lower: u32) -> Option<i64> {
    let is_call = upper & 0x7f == 0x17 && lower & 0x707f == 0x67 && (lower >> 7) & 31 != 0;
    let distance = i64::from((upper & 0xffff_f000).cast_signed()) + i64::from(lower.cast_signed() >> 20);
    is_call.then_some(distance)
}

/// Whether the word `at` which there is an address among Arm's short instructions is loaded for calls alone. In small code
/// the compiler makes so of three calls of the same function, of which the last may be a jump: the register is one that
/// calls leave alone, and is called twice at least behind its load.
fn calls_by_register(code: &[u8], at: usize) -> bool {
    let half = |at: usize| code.get(at..).and_then(<[u8]>::first_chunk).map(|half| u16::from_le_bytes(*half));
    (at.saturating_sub(4096)..at).step_by(2).any(|load| {
        let base = (load + 4) & !3;
        let (register, distance) = match (half(load), half(load + 2)) {
            (Some(short), _) if short & 0xf800 == 0x4800 => (short >> 8 & 7, (short & 0xff) * 4),
            (Some(0xf8df), Some(rest)) => (rest >> 12, rest & 0xfff),
            _ => return false,
        };
        let is_call = |at: usize| half(at) == Some(0x4780 | register << 3);
        let is_kept = (4..=11).contains(&register);
        base + usize::from(distance) == at
            && is_kept
            && (load..at).step_by(2).filter(|&at| is_call(at)).count() > 1
    })
}

fn x86(code: &[u8], at: usize) -> Way {
    let before = |count: usize| at.checked_sub(count).and_then(|at| code.get(at)).copied();
    match (before(2), before(1)) {
        (Some(0xff), Some(0x15)) => Way::Call,
        (Some(0xff), Some(0x25)) => Way::Jump,
        (Some(0x0f), Some(0x80..=0x8f)) => Way::Jump,
        (_, Some(0xe8)) => Way::Call,
        (_, Some(0xe9)) => Way::Jump,
        _ => Way::Address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn call_is_told_from_jump_and_address_by_type_or_instruction() {
        let x86 = |code: &[u8]| Way::of(Architecture::X86_64, elf::R_X86_64_PC32, code, code.len());
        assert_eq!(x86(&[0xe8]), Some(Way::Call));
        assert_eq!(x86(&[0xe9]), Some(Way::Jump));
        assert_eq!(x86(&[0x0f, 0x84]), Some(Way::Jump));
        assert_eq!(x86(&[0x48, 0x8d, 0x05]), Some(Way::Address));
        let arm = |relocation| Way::of(Architecture::Arm, relocation, &[], 0);
        assert_eq!(arm(elf::R_ARM_THM_PC22), Some(Way::Call));
        assert_eq!(arm(elf::R_ARM_THM_JUMP24), Some(Way::Jump));
        assert_eq!(arm(elf::R_ARM_ABS32), Some(Way::Address));
        let jal = |word: u32| Way::of(Architecture::Riscv32, elf::R_RISCV_JAL, &word.to_le_bytes(), 0);
        assert_eq!((jal(0x0000_00ef), jal(0x0000_006f)), (Some(Way::Call), Some(Way::Jump)));
    }

    #[test]
    fn address_that_is_loaded_into_a_register_and_called_is_a_call() {
        // ldr r4 or r1, [pc, #4]; CALL; CALL; nop; the address
        let code = |load, calls: [u16; 2]| {
            [load, calls[0], calls[1], 0xbf00, 0x1235, 0].map(u16::to_le_bytes).concat()
        };
        let way = |load, calls| Way::of(Architecture::Arm, elf::R_ARM_ABS32, &code(load, calls), 8);
        assert_eq!(way(0x4c01, [0x47a0, 0x47a0]), Some(Way::Call)); // blx r4, twice
        assert_eq!(way(0x4c01, [0x47a0, 0x4620]), Some(Way::Address)); // blx r4; mov r0, r4
        assert_eq!(way(0x4c01, [0x4788, 0x4788]), Some(Way::Address)); // blx r1, which has another one
        assert_eq!(way(0x4901, [0x4788, 0x4788]), Some(Way::Address)); // blx r1, which calls do not leave alone
    }

    #[test]
    fn own_call_is_found_in_the_bytes() {
        // nop; call the nop
        assert!(calls_itself(Architecture::X86_64, &[0x90, 0xe8, 0xfa, 0xff, 0xff, 0xff]));
        assert!(!calls_itself(Architecture::X86_64, &[0x90, 0xe8, 0xfb, 0xff, 0xff, 0xff]));
        // nop; bl -4
        let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
        assert!(calls_itself(Architecture::Aarch64, &words(&[0xd503_201f, 0x97ff_ffff])));
        assert!(!calls_itself(Architecture::Aarch64, &words(&[0xd503_201f, 0x17ff_ffff])));
        // nop; auipc ra, 0; jalr ra, -4(ra)
        assert!(calls_itself(Architecture::Riscv64, &words(&[0x13, 0x0000_0097, 0xffc0_80e7])));
        assert!(!calls_itself(Architecture::Riscv64, &words(&[0x13, 0x0000_0317, 0xffc3_0067])));
    }
}
