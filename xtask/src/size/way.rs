//! How one place in a program refers to another: the few instructions by which a call is told from a jump, and both from
//! an address that is taken.
//!
//! Source: the ELF supplements of the five architectures; the numbers of relocations are those of the crate `object`.
//!
//! Deliberately absent: a disassembler. Relocations say where to look, but for calls of a function by itself, and for calls
//! by a register, which are in [`thumb`](super::thumb).

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
            (Architecture::Aarch64, elf::R_AARCH64_CALL26) => Self::Call,
            (
                Architecture::Aarch64,
                elf::R_AARCH64_JUMP26 | elf::R_AARCH64_CONDBR19 | elf::R_AARCH64_TSTBR14,
            ) => Self::Jump,
            (Architecture::Riscv32 | Architecture::Riscv64, relocation) => {
                return riscv(machine, relocation, code, at);
            }
            // Any other is of no distance, and stands behind the same bytes by chance alone.
            (
                Architecture::X86_64,
                elf::R_X86_64_PC32
                | elf::R_X86_64_PLT32
                | elf::R_X86_64_GOTPCREL
                | elf::R_X86_64_GOTPCRELX
                | elf::R_X86_64_REX_GOTPCRELX,
            ) => x86(code, at),
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

fn riscv(machine: Architecture, relocation: RelocationType, code: &[u8], at: usize) -> Option<Way> {
    Some(match relocation {
        elf::R_RISCV_CALL | elf::R_RISCV_CALL_PLT => Way::Call,
        // The link register is the instruction's second field; without one it is a jump.
        elf::R_RISCV_JAL if code.get(at..).is_some_and(links) => Way::Call,
        // In two bytes a machine of 32 bits can call, too.
        elf::R_RISCV_RVC_JUMP if machine == Architecture::Riscv32 && links_shortly(code, at) => Way::Call,
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

/// Whether the two bytes are `c.jal`, and not `c.j`.
fn links_shortly(code: &[u8], at: usize) -> bool {
    code.get(at + 1).is_some_and(|upper| upper >> 5 == 0b001)
}

/// The distance of `auipc` and `jalr` that links, seen from the first.
fn riscv_distance(upper: u32, lower: u32) -> Option<i64> {
    let is_call = upper & 0x7f == 0x17 && lower & 0x707f == 0x67 && (lower >> 7) & 31 != 0;
    let distance = i64::from((upper & 0xffff_f000).cast_signed()) + i64::from(lower.cast_signed() >> 20);
    is_call.then_some(distance)
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
    fn relocation_that_is_no_distance_is_an_address_whatever_stands_before_it() {
        // mov qword ptr [rsp - 24], offset f
        let store = [0x48, 0xc7, 0x44, 0x24, 0xe8];
        let way = |relocation| Way::of(Architecture::X86_64, relocation, &store, store.len());
        assert_eq!(way(elf::R_X86_64_32S), Some(Way::Address));
        assert_eq!(way(elf::R_X86_64_64), Some(Way::Address));
        let load = |relocation| Way::of(Architecture::X86_64, relocation, &[0xff, 0x15], 2);
        assert_eq!(load(elf::R_X86_64_GOTPCREL), Some(Way::Call));
        assert_eq!(load(elf::R_X86_64_REX_GOTPCRELX), Some(Way::Call));
    }

    #[test]
    fn two_bytes_call_where_a_machine_has_such_a_call() {
        let way = |machine, half: u16| Way::of(machine, elf::R_RISCV_RVC_JUMP, &half.to_le_bytes(), 0);
        assert_eq!(way(Architecture::Riscv32, 0x2001), Some(Way::Call)); // c.jal
        assert_eq!(way(Architecture::Riscv32, 0xa001), Some(Way::Jump)); // c.j
        assert_eq!(way(Architecture::Riscv64, 0xa001), Some(Way::Jump));
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
