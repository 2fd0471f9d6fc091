//! A destination in the hands of a caller who may do anything, and what must hold of it whatever happens.
//!
//! - The first thing that went wrong is the cause that is reported, at the byte where it did, and stays it.
//! - The device is where the failure says.
//! - It never works, nor stands accepted, with a part of a state ([`Device`] looks after each operation).
//! - An order that is refused and an answer that was not asked for change nothing.
//! - There are no more effects than bytes, orders and decisions ask for.
//!
//! Deliberately absent: sections. The caller says where a payload begins.

use vfio_migration_core::device::State;
use vfio_migration_core::session::drive::{Device as _, Transport};
use vfio_migration_core::session::{
    Cause, Destination, DestinationDone, DestinationEffect, DestinationPhase, Failure, Left, Misuse,
};
use vfio_migration_core::stream::record::WORD;
use vfio_migration_tests::schedule::log::Holds;
use vfio_migration_tests::schedule::setting::Make;

use crate::chance::{Chance, Turn};
use crate::device::Device;

/// An order to a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// [`Destination::resume`].
    Resume,
    /// [`Destination::section`].
    Section,
    /// [`Destination::stop`].
    Stop,
    /// [`Destination::run_p2p`].
    RunP2p,
    /// [`Destination::run`].
    Run,
    /// [`Destination::cancel`].
    Cancel,
}

/// A destination, its device and what happens to both.
#[derive(Debug)]
pub struct Receiving<'b> {
    destination: Destination<'b>,
    device: Device,
    make: Make,
    chance: Chance,
    /// What went wrong first.
    cause: Option<Cause>,
    /// Whether that was a word which can't stand where it does; which cause that is only core knows.
    damaged: bool,
    /// Bytes of the present payload that came.
    received: u64,
    /// Those of them that the device has not taken yet.
    unwritten: u64,
    /// How many effects may still come.
    effects: usize,
}

impl<'b> Receiving<'b> {
    /// A destination for a device of this make, which is fed with so many bytes at most.
    ///
    /// # Panics
    /// When the session refuses the device.
    #[must_use]
    pub fn new(make: Make, agreed: bool, bytes: usize, chance: &Chance, buffer: &'b mut [u8]) -> Self {
        let destination = Destination::new(make.features(), make.state, agreed, buffer);
        Self {
            destination: destination.expect("a device that can migrate"),
            device: Device::new(make, chance),
            make,
            chance: chance.clone(),
            cause: None,
            damaged: false,
            received: 0,
            unwritten: 0,
            effects: 2 * bytes + 2 * chance.count() + SPARE,
        }
    }

    /// The device.
    #[must_use]
    pub const fn device(&self) -> &Device {
        &self.device
    }

    /// Where the idle destination stands.
    ///
    /// # Panics
    /// When it is not idle.
    pub fn phase(&mut self) -> DestinationPhase {
        let DestinationEffect::Idle(phase) = self.destination.poll() else { panic!("an order is under way") };
        phase
    }

    /// The order that leads on from here, where one does. A driver that lets a part of a state pass is stopped only
    /// where all has come: a stream's integrity is the caller's to check.
    pub fn next_order(&mut self, more: bool) -> Option<Order> {
        let may_stop = self.make.strict || self.device.has_all();
        Some(match self.phase() {
            DestinationPhase::Ready(_) => Order::Resume,
            DestinationPhase::Resuming | DestinationPhase::Section(_) if more => Order::Section,
            DestinationPhase::Resuming | DestinationPhase::Section(_) if may_stop => Order::Stop,
            DestinationPhase::Stopped if self.make.features().p2p => Order::RunP2p,
            DestinationPhase::Stopped | DestinationPhase::RunningP2p => Order::Run,
            DestinationPhase::Resuming
            | DestinationPhase::Section(_)
            | DestinationPhase::Running
            | DestinationPhase::Failed(_) => return None,
        })
    }

    /// An order out of turn, as the decisions have it.
    pub fn any_order(&mut self) -> Option<Order> {
        let may_stop = self.make.strict || self.device.has_all();
        Some(match self.chance.byte() {
            224 => Order::Resume,
            225 => Order::Section,
            226 if may_stop => Order::Stop,
            227 => Order::RunP2p,
            228 => Order::Run,
            229 => Order::Cancel,
            _ => return None,
        })
    }

    /// Gives an order and carries it out; one that is refused must change nothing.
    ///
    /// # Panics
    /// When something does not hold.
    pub fn follow(&mut self, order: Order, link: &mut impl Transport) -> DestinationPhase {
        let before = self.phase();
        if self.order(order).is_err() {
            assert_eq!(self.phase(), before, "a refused {order:?} has changed something");
            return before;
        }
        let phase = loop {
            self.effects = self.effects.checked_sub(1).expect("no more effects than there is work");
            if let Some(phase) = self.step(link) {
                break phase;
            }
        };
        self.assert_as_told(phase);
        phase
    }

    fn order(&mut self, order: Order) -> Result<(), Misuse> {
        match order {
            Order::Resume => self.destination.resume(),
            Order::Section => {
                self.destination.section()?;
                (self.received, self.unwritten) = (0, 0);
                Ok(())
            }
            Order::Stop => self.destination.stop(),
            Order::RunP2p => self.destination.run_p2p(),
            Order::Run => self.destination.run(),
            Order::Cancel => {
                self.cancel();
                Ok(())
            }
        }
    }

    fn cancel(&mut self) {
        self.destination.cancel();
        if !self.damaged {
            self.cause.get_or_insert(Cause::Cancelled);
        }
    }

    /// Does what is wanted and tells how it went, or says where the idle destination stands.
    fn step(&mut self, link: &mut impl Transport) -> Option<DestinationPhase> {
        let turn = self.chance.turn();
        if let DestinationEffect::Idle(phase) = self.destination.poll() {
            return Some(phase);
        }
        if turn == Turn::CancelBefore {
            self.cancel();
            return None;
        }
        let device = &mut self.device;
        let done = match self.destination.poll() {
            DestinationEffect::SetState(state) => DestinationDone::SetState(device.set_state(state)),
            DestinationEffect::Recv(buffer) => DestinationDone::Recv(link.recv(buffer)),
            DestinationEffect::WriteData(bytes) => DestinationDone::WriteData(device.write_data(bytes)),
            DestinationEffect::RecvConfig => DestinationDone::RecvConfig(link.recv_config()),
            DestinationEffect::Reset => DestinationDone::Reset(device.reset()),
            DestinationEffect::Idle(phase) => return Some(phase),
        };
        match turn {
            Turn::CancelAfter => self.cancel(),
            Turn::Misreport => {
                let wrong = self.misreport(done);
                self.destination.complete(wrong).expect_err("an answer to something else");
                self.complete(done);
            }
            _ => self.complete(done),
        }
        None
    }

    /// What answers something else, or more than was asked for.
    fn misreport(&mut self, done: DestinationDone) -> DestinationDone {
        match done {
            DestinationDone::Reset(_) => DestinationDone::SetState(Ok(())),
            DestinationDone::Recv(_) if self.chance.byte() > 127 => DestinationDone::Recv(Ok(usize::MAX)),
            DestinationDone::WriteData(_) if self.chance.byte() > 127 => {
                DestinationDone::WriteData(Ok(usize::MAX))
            }
            DestinationDone::SetState(_)
            | DestinationDone::Recv(_)
            | DestinationDone::WriteData(_)
            | DestinationDone::RecvConfig(_) => DestinationDone::Reset(Ok(())),
        }
    }

    fn complete(&mut self, done: DestinationDone) {
        let state =
            if let DestinationEffect::SetState(state) = self.destination.poll() { Some(state) } else { None };
        if let Some(cause) = self.cause_of(done, state) {
            self.cause.get_or_insert(cause);
        }
        match done {
            DestinationDone::Recv(Ok(count)) => {
                self.received += count as u64;
                self.unwritten = count as u64;
            }
            DestinationDone::RecvConfig(Ok(count)) => self.received += count,
            DestinationDone::WriteData(Ok(count)) => self.unwritten -= count as u64,
            _ => {}
        }
        self.destination.complete(done).expect("an answer to what was asked");
        let resets = matches!(self.destination.poll(), DestinationEffect::Reset);
        self.damaged |= resets && self.cause.is_none();
    }

    /// The cause that an answer is, where it is one and nothing went wrong before.
    fn cause_of(&self, done: DestinationDone, state: Option<State>) -> Option<Cause> {
        let offset = self.received;
        let written = self.received - self.unwritten;
        Some(match done {
            DestinationDone::SetState(Err(code)) => Cause::Refused { state: state?, code },
            DestinationDone::Recv(Err(code)) => Cause::Recv { offset, code },
            DestinationDone::Recv(Ok(0)) => Cause::RecvClosed { offset, missing: 0 },
            DestinationDone::WriteData(Err(code)) => Cause::WriteData { offset: written, code },
            DestinationDone::WriteData(Ok(0)) => Cause::WriteDataZero { offset: written },
            DestinationDone::RecvConfig(Err(code)) => Cause::RecvConfig { offset, code },
            DestinationDone::SetState(Ok(()))
            | DestinationDone::Recv(Ok(_))
            | DestinationDone::WriteData(Ok(_))
            | DestinationDone::RecvConfig(Ok(_))
            | DestinationDone::Reset(_) => return None,
        })
    }

    fn assert_as_told(&mut self, phase: DestinationPhase) {
        let facts = self.device.facts();
        if let DestinationPhase::Failed(Failure { cause, device }) = phase {
            self.assert_cause(cause);
            let state = match device {
                Left::At(state) => Some(state),
                Left::Reset => Some(State::Running),
                Left::Unknown => None,
            };
            assert!(
                state.is_none_or(|state| state == facts.state) || facts.reset_behind,
                "{phase:?}: {facts:?}"
            );
            assert!(device != Left::Reset || facts.holds == Holds::Lost, "{phase:?}: {facts:?}");
            assert_eq!(device == Left::Unknown, facts.refused_reset, "{phase:?}: {facts:?}");
            return;
        }
        assert_eq!((self.cause, self.damaged), (None, false), "{phase:?}, and something went wrong");
        let accepted = matches!(
            phase,
            DestinationPhase::Stopped | DestinationPhase::RunningP2p | DestinationPhase::Running
        );
        assert!(!accepted || facts.holds == Holds::Guests || facts.reset_by_guest, "{phase:?}: {facts:?}");
    }

    /// The reported cause is the first one. A word that can't stand where it does is the last that came.
    fn assert_cause(&mut self, cause: Cause) {
        let Some(first) = self.cause else {
            let damaged = matches!(cause, Cause::Record(_) | Cause::Unexpected { .. });
            assert!(damaged && self.damaged, "nothing went wrong, and {cause:?} is reported");
            assert_eq!(cause.offset(), self.received.checked_sub(WORD as u64), "{cause:?}");
            self.cause = Some(cause);
            return;
        };
        match (first, cause) {
            (Cause::RecvClosed { offset: first, missing: 0 }, Cause::RecvClosed { offset, missing }) => {
                assert!(offset == first && missing > 0, "{cause:?} at byte {first}");
            }
            _ => assert_eq!(cause, first, "another cause than the first is reported"),
        }
    }
}

/// How many effects there may be beside those of bytes and decisions: of at most [`ORDERS`] orders and of one failure.
const SPARE: usize = 3 * ORDERS;
/// How many orders a destination is given at most.
pub const ORDERS: usize = 100;
