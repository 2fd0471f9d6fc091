//! A link in memory that gives what the fuzzer has.
//!
//! Deliberately absent: sending. What is fuzzed on a link comes from the other side.

use vfio_migration_core::session::Code;
use vfio_migration_core::session::drive::Transport;

use crate::chance::{Chance, Turn};

/// A link with bytes to give.
#[derive(Debug)]
pub struct Memory<'a> {
    bytes: &'a [u8],
    /// How much one receive gives at most.
    piece: usize,
    /// The length of a configuration's body.
    config: usize,
    chance: Chance,
}

impl<'a> Memory<'a> {
    /// A link that gives `bytes`, whole.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, piece: usize::MAX, config: 0, chance: Chance::new(&[]) }
    }

    /// The same in pieces of at most `piece` bytes, with configurations of `config` bytes and what `chance` says.
    #[must_use]
    pub fn with(self, piece: usize, config: usize, chance: &Chance) -> Self {
        Self { piece, config, chance: chance.clone(), ..self }
    }

    /// What was not taken.
    #[must_use]
    pub const fn left(&self) -> &'a [u8] {
        self.bytes
    }
}

impl Transport for Memory<'_> {
    fn send(&mut self, _: &[u8]) -> Result<usize, Code> {
        Err(EPIPE)
    }

    fn recv(&mut self, buffer: &mut [u8]) -> Result<usize, Code> {
        let count = buffer.len().min(self.bytes.len()).min(self.piece);
        let count = match self.chance.turn() {
            Turn::Failed(code) => return Err(code),
            Turn::Closed => return Ok(0),
            Turn::Short(short) => count.min(short),
            _ => count,
        };
        let (given, left) = self.bytes.split_at(count);
        buffer[..count].copy_from_slice(given);
        self.bytes = left;
        Ok(count)
    }

    fn send_config(&mut self) -> Result<(), Code> {
        Err(EPIPE)
    }

    fn recv_config(&mut self) -> Result<u64, Code> {
        if let Turn::Failed(code) = self.chance.turn() {
            return Err(code);
        }
        let (_, left) = self.bytes.split_at_checked(self.config).ok_or(ECONNRESET)?;
        self.bytes = left;
        Ok(self.config as u64)
    }
}

const EPIPE: Code = Code(32);
const ECONNRESET: Code = Code(104);
