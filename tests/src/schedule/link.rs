//! A link in memory, through core's public trait.
//!
//! Deliberately absent: the other side. What is sent is kept, what is received was there before.

use vfio_migration_core::session::Code;
use vfio_migration_core::session::drive::Transport;

use super::bench::Bench;
use super::device::NOT_DONE;
use super::fault::{Kind, Kinds, own_code};
use super::log::{Answer, Ask, Entry};
use super::setting::CONFIG_BODY;

/// The link's answer where a configuration's body is cut.
pub const ECONNRESET: Code = Code(104);

/// The link of one device.
#[derive(Clone, Debug)]
pub struct ModelLink {
    who: usize,
    bench: Bench,
    piece: usize,
    incoming: Vec<u8>,
    taken: usize,
    /// All that was sent.
    pub sent: Vec<u8>,
}

impl ModelLink {
    /// The link of device number `who`, with `incoming` to give, at most `piece` bytes at once.
    #[must_use]
    pub fn new(who: usize, incoming: &[u8], piece: usize, bench: &Bench) -> Self {
        Self { who, bench: bench.clone(), piece, incoming: incoming.to_vec(), taken: 0, sent: vec![] }
    }

    /// One operation on `offered` bytes, of which `whole` can be moved: how many are.
    fn operation(&self, ask: Ask, offered: usize, whole: usize) -> Result<usize, Code> {
        let whole = whole.min(self.piece);
        let is_body = matches!(ask, Ask::SendConfig | Ask::RecvConfig);
        let kinds = Kinds::of(&[Kind::Failed]).with(Kind::Closed, !is_body);
        let (number, fault) = self.bench.begin(ask, kinds.with(Kind::Short, whole > 1 && !is_body));
        let result = match fault {
            Some(Kind::CancelBefore) => Err(NOT_DONE),
            Some(Kind::Failed) => Err(own_code(number)),
            Some(Kind::Closed) => Ok(0),
            Some(Kind::Short) => Ok(1),
            _ => Ok(if is_body { offered } else { whole }),
        };
        let answer = match result {
            Ok(got) => Answer::Count { offered, got },
            Err(NOT_DONE) => Answer::NotDone,
            Err(code) => Answer::Error(code),
        };
        self.bench.note(Entry::Did { who: self.who, number, ask, answer, facts: None });
        result
    }

    fn left(&self) -> usize {
        self.incoming.len() - self.taken
    }
}

impl Transport for ModelLink {
    fn send(&mut self, bytes: &[u8]) -> Result<usize, Code> {
        let count = self.operation(Ask::Send, bytes.len(), bytes.len())?;
        self.sent.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn recv(&mut self, buffer: &mut [u8]) -> Result<usize, Code> {
        let count = self.operation(Ask::Recv, buffer.len(), buffer.len().min(self.left()))?;
        buffer[..count].copy_from_slice(&self.incoming[self.taken..][..count]);
        self.taken += count;
        Ok(count)
    }

    fn send_config(&mut self) -> Result<(), Code> {
        self.operation(Ask::SendConfig, CONFIG_BODY.len(), CONFIG_BODY.len())?;
        self.sent.extend_from_slice(&CONFIG_BODY);
        Ok(())
    }

    fn recv_config(&mut self) -> Result<u64, Code> {
        let count = self.operation(Ask::RecvConfig, CONFIG_BODY.len(), self.left())?;
        if count > self.left() {
            return Err(ECONNRESET);
        }
        self.taken += count;
        Ok(count as u64)
    }
}
