//! Wrong variants: a layer between a session and its device that does another thing than what recovery asks for, or
//! reports another end.
//!
//! A check that does not notice one of these would not notice core doing the same. Deliberately absent: the wrong
//! variants themselves, which stand in the test as a table.

use vfio_migration_core::session::drive::Device;
use vfio_migration_core::session::{Code, Failure};

use super::device::{ModelDevice, NOT_DONE};
use super::log::Ask;
use super::orders::Order;
use super::session::Phase;
use super::setting::Make;

/// What is done in the place of what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// What was asked for.
    Asked,
    /// Another thing.
    Instead(Ask),
    /// Nothing; the session is told that it went well.
    Nothing,
    /// The same again, where it was refused.
    Again,
    /// What was asked for; the session is told that it went well, whether it did or not.
    Hushed,
}

/// What the layer has seen of a session.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// The device.
    pub make: Make,
    /// The last order.
    pub order: Order,
    /// What went wrong first: the operation, and its code where it has one. A cancel has neither.
    pub trouble: Option<(Option<Ask>, Option<Code>)>,
    /// The code of what was refused last.
    pub last: Option<Code>,
    /// How often the caller cancelled or had it retreat.
    pub cancels: usize,
    /// How many recoveries were asked for before this one.
    pub recoveries: usize,
}

/// A wrong variant.
#[derive(Clone, Copy, Debug)]
pub struct Mutant {
    /// What is wrong with it.
    pub name: &'static str,
    /// What it does where a SET or a reset is asked for.
    pub act: fn(&Seen, Ask) -> Act,
    /// How it reports a failure.
    pub report: fn(&Seen, Failure) -> Failure,
}

/// What stands between one session and its device.
#[derive(Clone, Copy, Debug)]
pub struct Layer {
    mutant: Option<Mutant>,
    seen: Seen,
}

impl Seen {
    /// Whether this is what went wrong first.
    #[must_use]
    pub fn first(&self, ask: Ask) -> bool {
        self.trouble.is_some_and(|(first, _)| first == Some(ask))
    }

    /// Whether data or the link went wrong first.
    #[must_use]
    pub fn data_or_link(&self) -> bool {
        self.trouble.is_some_and(|(ask, _)| ask.is_some_and(|ask| !matches!(ask, Ask::Set(_))))
    }

    /// Whether the caller cancelled, and nothing had gone wrong before.
    #[must_use]
    pub fn cancelled(&self) -> bool {
        self.trouble.is_some_and(|(ask, _)| ask.is_none())
    }
}

impl Layer {
    /// A layer that does what is asked for, or what `mutant` makes of it.
    #[must_use]
    pub const fn new(make: Make, mutant: Option<Mutant>) -> Self {
        let order = Order::Cancel;
        let seen = Seen { make, order, trouble: None, last: None, cancels: 0, recoveries: 0 };
        Self { mutant, seen }
    }

    /// Takes note of an order.
    pub fn ordered(&mut self, order: Order) {
        match order {
            Order::Cancel | Order::Retreat => {
                self.seen.cancels += 1;
                self.seen.trouble = self.seen.trouble.or(Some((None, None)));
            }
            _ => self.seen.order = order,
        }
    }

    /// Carries out a SET or a reset.
    ///
    /// # Errors
    /// What the device answers.
    pub fn carry_out(&mut self, ask: Ask, device: &mut ModelDevice) -> Result<(), Code> {
        let act = self.mutant.map_or(Act::Asked, |mutant| (mutant.act)(&self.seen, ask));
        let result = match act {
            Act::Asked => perform(ask, device),
            Act::Instead(other) => perform(other, device),
            Act::Nothing => Ok(()),
            Act::Again => perform(ask, device).or_else(|_| perform(ask, device)),
            Act::Hushed => perform(ask, device).or(Ok(())),
        };
        self.seen.recoveries += usize::from(self.seen.trouble.is_some());
        self.saw(ask, result)
    }

    /// Takes note of how an operation went.
    ///
    /// # Errors
    /// The operation's own.
    pub fn saw<T>(&mut self, ask: Ask, result: Result<T, Code>) -> Result<T, Code> {
        if let Err(code) = result
            && code != NOT_DONE
        {
            self.seen.last = Some(code);
            self.seen.trouble = self.seen.trouble.or(Some((Some(ask), Some(code))));
        }
        result
    }

    /// The phase as it is reported.
    #[must_use]
    pub fn report(&self, phase: Phase) -> Phase {
        let Some(mutant) = self.mutant else { return phase };
        phase.failed(|failure| (mutant.report)(&self.seen, failure))
    }
}

fn perform(ask: Ask, device: &mut ModelDevice) -> Result<(), Code> {
    match ask {
        Ask::Set(state) => device.set_state(state),
        Ask::Reset => device.reset(),
        Ask::Info | Ask::Read | Ask::Write | Ask::Send | Ask::Recv | Ask::SendConfig | Ask::RecvConfig => {
            Ok(())
        }
    }
}
