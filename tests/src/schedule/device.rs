//! The VMM's side of a model device, through core's public trait.
//!
//! It keeps the data fd in step with the state that it believes in, looks with GET after a refusal, and answers EBADF
//! when a data fd came that it did not expect, or none came where it expected one.
//!
//! Deliberately absent: any knowledge of what went wrong. A guest's reset shows only in what the kernel answers.

use vfio_migration_core::device::State;
use vfio_migration_core::session::drive::Device;
use vfio_migration_core::session::{Code, DataRead, PrecopyInfo};

use super::bench::Bench;
use super::card::{Card, DataFd, Got, data_fd, steps};
use super::fault::{Kind, Kinds, own_code};
use super::log::{Answer, Ask, Entry, Facts, Holds};
use super::setting::Make;

/// The answer without a data fd, and to a data fd that came unexpectedly.
pub const EBADF: Code = Code(9);
/// What an operation seems to answer that was not carried out; nobody is told.
pub const NOT_DONE: Code = Code(-1);

/// A device in memory.
#[derive(Clone, Debug)]
pub struct ModelDevice {
    who: usize,
    card: Card,
    bench: Bench,
    data: Option<DataFd>,
    /// The state that the VMM believes it to be in.
    believed: State,
}

impl ModelDevice {
    /// Device number `who` of the run on `bench`.
    #[must_use]
    pub fn new(who: usize, make: Make, bench: &Bench) -> Self {
        Self { who, card: Card::new(make), bench: bench.clone(), data: None, believed: make.state }
    }

    /// What is true of the device.
    #[must_use]
    pub const fn facts(&self) -> Facts {
        self.card.facts()
    }

    /// Begins an operation. A guest's reset comes before all else.
    fn begin(&mut self, ask: Ask, kinds: impl FnOnce(&Self) -> Kinds) -> Operation {
        self.card.begin();
        let facts = self.card.facts();
        let can_be_reset = (facts.state, facts.holds) != (State::Running, Holds::Lost) && ask != Ask::Reset;
        if can_be_reset && self.bench.guest_resets() {
            self.card.be_reset_by_guest();
        }
        let kinds = kinds(self).with(Kind::GuestReset, can_be_reset);
        let (number, fault) = self.bench.begin(ask, kinds);
        Operation { ask, number, fault, code: own_code(number) }
    }

    fn end(&self, operation: &Operation, answer: Answer) {
        let Operation { ask, number, .. } = *operation;
        let answer = if operation.is_left_out() { Answer::NotDone } else { answer };
        self.bench.note(Entry::Did { who: self.who, number, ask, answer, facts: Some(self.facts()) });
    }

    fn set(&mut self, to: State, operation: &Operation) -> Result<(), Code> {
        let flags = self.card.make().flags;
        let answer = self.card.set(to, operation.fault, operation.code);
        let now = self.card.state();
        let expected = data_fd(flags, self.believed, now);
        self.believed = now;
        let Ok(new) = answer else {
            if expected != Some(false) {
                self.close();
            }
            return answer.map(|_| ());
        };
        if new.is_some() != (expected == Some(true)) {
            self.close();
            new.into_iter().for_each(|fd| self.card.close(fd));
            return Err(EBADF);
        }
        if expected != Some(false) {
            self.close();
            self.data = new;
        }
        Ok(())
    }

    fn read(&mut self, room: usize, operation: &Operation) -> Result<Got, Code> {
        let room = room.min(self.card.make().piece);
        match operation.fault {
            Some(Kind::Failed) => Err(operation.code),
            Some(Kind::Drained) => Ok(Got::Drained),
            Some(Kind::Short) => self.card.read(self.fd()?, room.min(1)),
            _ => self.card.read(self.fd()?, room),
        }
    }

    fn write(&mut self, bytes: &[u8], operation: &Operation) -> Result<usize, Code> {
        let count = bytes.len().min(self.card.make().piece);
        match operation.fault {
            Some(Kind::Failed) => self.card.write(self.fd()?, bytes, Some(operation.code)),
            Some(Kind::Closed) => self.card.write_nothing(self.fd()?),
            Some(Kind::Short) => self.card.write(self.fd()?, &bytes[..count.min(1)], None),
            _ => self.card.write(self.fd()?, &bytes[..count], None),
        }
    }

    fn fd(&self) -> Result<DataFd, Code> {
        self.data.ok_or(EBADF)
    }

    fn close(&mut self) {
        if let Some(fd) = self.data.take() {
            self.card.close(fd);
        }
    }
}

impl Device for ModelDevice {
    fn set_state(&mut self, state: State) -> Result<(), Code> {
        let operation = self.begin(Ask::Set(state), |device| device.kinds_of_set(state));
        let answer = if operation.is_left_out() { Err(NOT_DONE) } else { self.set(state, &operation) };
        self.end(&operation, answer.map_or_else(Answer::Error, |()| Answer::Ok));
        answer
    }

    fn precopy_info(&mut self) -> Result<PrecopyInfo, Code> {
        let operation = self.begin(Ask::Info, |_| Kinds::of(&[Kind::Failed]));
        let answer = match operation.fault {
            Some(Kind::CancelBefore) => Err(NOT_DONE),
            Some(Kind::Failed) => Err(operation.code),
            _ => self.fd().and_then(|fd| self.card.precopy_info(fd)),
        };
        self.end(&operation, answer.map_or_else(Answer::Error, |_| Answer::Ok));
        answer
    }

    fn read_data(&mut self, buffer: &mut [u8]) -> Result<DataRead, Code> {
        let operation = self.begin(Ask::Read, Self::kinds_of_read);
        if operation.is_left_out() {
            self.end(&operation, Answer::NotDone);
            return Err(NOT_DONE);
        }
        let answer = self.read(buffer.len(), &operation);
        self.end(
            &operation,
            match &answer {
                Ok(Got::Bytes(bytes)) => Answer::Count { offered: buffer.len(), got: bytes.len() },
                Ok(Got::Drained) => Answer::Drained,
                Err(code) => Answer::Error(*code),
            },
        );
        Ok(match answer? {
            Got::Drained => DataRead::Drained,
            Got::Bytes(bytes) if bytes.is_empty() => DataRead::End,
            Got::Bytes(bytes) => {
                buffer[..bytes.len()].copy_from_slice(&bytes);
                DataRead::Bytes(bytes.len())
            }
        })
    }

    fn write_data(&mut self, bytes: &[u8]) -> Result<usize, Code> {
        let short = bytes.len().min(self.card.make().piece) > 1;
        let kinds = Kinds::of(&[Kind::Failed, Kind::Closed]).with(Kind::Short, short);
        let operation = self.begin(Ask::Write, |_| kinds);
        let answer = if operation.is_left_out() { Err(NOT_DONE) } else { self.write(bytes, &operation) };
        let count = |got| Answer::Count { offered: bytes.len(), got };
        self.end(&operation, answer.map_or_else(Answer::Error, count));
        answer
    }

    fn reset(&mut self) -> Result<(), Code> {
        let operation = self.begin(Ask::Reset, |_| Kinds::of(&[Kind::Failed]));
        if operation.is_left_out() {
            self.end(&operation, Answer::NotDone);
            return Err(NOT_DONE);
        }
        self.close();
        let answer = self.card.reset((operation.fault == Some(Kind::Failed)).then_some(operation.code));
        self.believed = self.card.state();
        self.end(&operation, answer.map_or_else(Answer::Error, |()| Answer::Ok));
        answer
    }
}

impl ModelDevice {
    fn kinds_of_set(&self, to: State) -> Kinds {
        let Some(steps) = steps(self.card.make().flags, self.card.state(), to) else {
            return Kinds::default();
        };
        let refused = (0..=steps).fold(Kinds::default(), |kinds, at| kinds.with(Kind::Refused(at), true));
        refused.with(Kind::Broken, steps > 0)
    }

    fn kinds_of_read(&self) -> Kinds {
        let short = self.card.readable(self.data).min(self.card.make().piece) > 1;
        let kinds = Kinds::of(&[Kind::Failed]).with(Kind::Short, short);
        kinds.with(Kind::Drained, self.card.state() == State::StopCopy && self.data.is_some())
    }
}

/// An operation that has begun.
struct Operation {
    ask: Ask,
    number: usize,
    fault: Option<Kind>,
    code: Code,
}

impl Operation {
    fn is_left_out(&self) -> bool {
        self.fault == Some(Kind::CancelBefore)
    }
}
