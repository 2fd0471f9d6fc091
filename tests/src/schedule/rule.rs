//! What has to be done after each thing that went wrong: the rule of recovery, written a second time.
//!
//! | what went wrong | what has to follow | where the device is then |
//! |---|---|---|
//! | PRE_COPY was refused | SET RUNNING | there |
//! | a live source's device was to be quiesced, and that was refused | SET RUNNING | there |
//! | STOP_COPY was refused | SET STOP | there |
//! | RESUMING was refused | SET of the state that the device came from | there |
//! | any other state was refused | reset | reset |
//! | data or link, at a source | SET of the state it came from, RUNNING_P2P once quiesced; nothing where it is there | there |
//! | data or link, at a destination | reset | reset |
//! | what had to follow was refused too | reset | reset |
//! | the reset was refused | nothing | unknown |
//! | a source is cancelled | SET of the state it came from; to retreat, RUNNING_P2P once quiesced | there |
//! | a destination is cancelled | nothing before the order to resume, a reset behind it | as it was, or reset |
//!
//! Whatever follows, what went wrong first stays the cause. A cancel after a failure takes the device on to the state
//! it came from, unless it is there, was reset, or will be.
//!
//! Deliberately absent: the device. What is true of it, `check` compares.

use vfio_migration_core::device::State;
use vfio_migration_core::session::{Cause, DestinationPhase, Failure, Left, SourcePhase};

use super::log::{Answer, Ask};
use super::orders::Order;
use super::session::Phase;
use super::setting::{Make, Role};

/// The rule at work on one session.
#[derive(Clone, Debug)]
pub struct Rule {
    role: Role,
    came_from: State,
    /// Where the device is, by all that the session was told.
    at: State,
    quiesced: bool,
    order: Option<Order>,
    /// Whether anything was told since the order.
    told: bool,
    /// What was done and not told yet.
    done: Option<(Ask, Answer)>,
    trouble: Option<Trouble>,
    /// Bytes of the present payload that were received.
    received: u64,
    /// Bytes of them that the device has not taken, while it takes data.
    unwritten: u64,
}

#[derive(Clone, Copy, Debug)]
struct Trouble {
    cause: Cause,
    next: Next,
}

/// What has to follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Set(State),
    Reset,
    Over(Left),
}

/// What was wrong, in words.
pub type Wrong = String;

impl Rule {
    /// The rule for a device that nothing was done with.
    #[must_use]
    pub const fn new(make: &Make) -> Self {
        Self {
            role: make.role,
            came_from: make.state,
            at: make.state,
            quiesced: false,
            order: None,
            told: false,
            done: None,
            trouble: None,
            received: 0,
            unwritten: 0,
        }
    }

    /// The last order but cancel and retreat.
    #[must_use]
    pub const fn order(&self) -> Option<Order> {
        self.order
    }

    /// Where the device is, by all that the session was told.
    #[must_use]
    pub const fn at(&self) -> State {
        self.at
    }

    /// Whether something has gone wrong.
    #[must_use]
    pub const fn failed(&self) -> bool {
        self.trouble.is_some()
    }

    /// An order is given.
    pub fn ordered(&mut self, order: Order) {
        if matches!(order, Order::Cancel | Order::Retreat) {
            self.give_up(order);
            return;
        }
        self.quiesced |= order == Order::Quiesce;
        self.order = Some(order);
        self.told = false;
        (self.received, self.unwritten) = (0, 0);
    }

    /// Something was done.
    ///
    /// # Errors
    /// It was not what had to be done.
    pub fn did(&mut self, ask: Ask, answer: Answer) -> Result<(), Wrong> {
        if let Some((lost, _)) = self.done.filter(|&(_, answer)| answer != Answer::NotDone) {
            return Err(format!("{ask:?} was done while the answer of {lost:?} was not told"));
        }
        let right = match (self.trouble, self.order) {
            (Some(trouble), _) => match trouble.next {
                Next::Set(state) => ask == Ask::Set(state),
                Next::Reset => ask == Ask::Reset,
                Next::Over(_) => false,
            },
            (None, Some(order)) => self.belongs(order, ask),
            (None, None) => false,
        };
        self.done = Some((ask, answer));
        if right { Ok(()) } else { Err(format!("{ask:?} was done, wanted {}", self.wanted())) }
    }

    /// What was done is told to the session.
    pub fn told(&mut self) {
        let Some((ask, answer)) = self.done.take() else { return };
        self.told = true;
        let (way_out, cause) = (self.way_out(ask), self.cause(ask, answer));
        match (&mut self.trouble, cause) {
            (Some(trouble), _) => {
                trouble.next = match (ask, answer) {
                    (Ask::Set(state), Answer::Ok) => Next::Over(Left::At(state)),
                    (Ask::Reset, Answer::Ok) => Next::Over(Left::Reset),
                    (Ask::Reset, _) => Next::Over(Left::Unknown),
                    _ => Next::Reset,
                };
            }
            (None, Some(cause)) => self.trouble = Some(Trouble { cause, next: way_out }),
            (None, None) => self.went_well(ask, answer),
        }
    }

    /// The session is idle in this phase.
    ///
    /// # Errors
    /// It is not over, it is not the phase of the order, or the failure is another one.
    pub fn idle(&self, phase: Phase) -> Result<(), Wrong> {
        let right = match (self.trouble, phase.failure()) {
            (Some(Trouble { cause, next: Next::Over(device) }), Some(failure)) => {
                failure == Failure { cause, device }
            }
            (None, None) => self.order.is_some_and(|order| self.ends(order, phase)),
            _ => false,
        };
        if right { Ok(()) } else { Err(format!("idle in {phase:?}, wanted {}", self.wanted())) }
    }

    fn wanted(&self) -> String {
        let Some(Trouble { cause, next }) = self.trouble else {
            return format!("what belongs to {:?} in {}", self.order, self.at);
        };
        format!("{next:?} because: {cause}")
    }

    /// What has to follow when this went wrong first.
    fn way_out(&self, ask: Ask) -> Next {
        match (self.role, ask) {
            (Role::Source, Ask::Set(State::PreCopy)) => Next::Set(State::Running),
            (Role::Source, Ask::Set(_)) if self.order == Some(Order::Quiesce) => Next::Set(State::Running),
            (Role::Source, Ask::Set(State::StopCopy)) => Next::Set(State::Stop),
            (Role::Destination, Ask::Set(State::Resuming)) => Next::Set(self.came_from),
            (_, Ask::Set(_)) | (Role::Destination, _) => Next::Reset,
            (Role::Source, _) => self.back_to(self.way_back(), false),
        }
    }

    fn way_back(&self) -> State {
        if self.quiesced { State::RunningP2p } else { self.came_from }
    }

    fn back_to(&self, state: State, maybe_elsewhere: bool) -> Next {
        if self.at == state && !maybe_elsewhere { Next::Over(Left::At(state)) } else { Next::Set(state) }
    }

    fn give_up(&mut self, order: Order) {
        let lost = self.done.take();
        let to = if order == Order::Retreat { self.way_back() } else { self.came_from };
        let next = match (self.trouble, self.role) {
            (None, Role::Source) => {
                let set_is_out = matches!(lost, Some((Ask::Set(_), _)))
                    || (!self.told && self.order.is_some_and(begins_with_set));
                self.back_to(to, set_is_out)
            }
            (None, Role::Destination) if self.order.is_none() => Next::Over(Left::At(self.came_from)),
            (None, Role::Destination) => Next::Reset,
            (Some(Trouble { next: Next::Set(at) | Next::Over(Left::At(at)), .. }), Role::Source)
                if at != to && at != self.came_from =>
            {
                Next::Set(to)
            }
            (Some(trouble), _) => trouble.next,
        };
        let cause = self.trouble.map_or(Cause::Cancelled, |trouble| trouble.cause);
        self.trouble = Some(Trouble { cause, next });
    }

    fn went_well(&mut self, ask: Ask, answer: Answer) {
        match (ask, answer) {
            (Ask::Set(state), _) => {
                self.at = state;
                if state == State::Running {
                    self.came_from = state;
                    self.quiesced = false;
                }
            }
            (Ask::Recv | Ask::RecvConfig, Answer::Count { got, .. }) => {
                self.received += got as u64;
                self.unwritten = got as u64;
            }
            (Ask::Write, Answer::Count { got, .. }) => self.unwritten -= got as u64,
            _ => {}
        }
    }

    /// The cause that an answer is, where it is one.
    fn cause(&self, ask: Ask, answer: Answer) -> Option<Cause> {
        let offset = self.received;
        let written = self.received - self.unwritten;
        Some(match (ask, answer) {
            (Ask::Set(state), Answer::Error(code)) => Cause::Refused { state, code },
            (Ask::Info, Answer::Error(code)) => Cause::PrecopyInfo(code),
            (Ask::Read, Answer::Error(code)) => Cause::ReadData(code),
            (Ask::Read, Answer::Drained) if self.at == State::StopCopy => Cause::DrainedInStopCopy,
            (Ask::Send, Answer::Error(code)) => Cause::Send(code),
            (Ask::Send, Answer::Count { got: 0, .. }) => Cause::SendClosed,
            (Ask::SendConfig, Answer::Error(code)) => Cause::SendConfig(code),
            (Ask::Recv, Answer::Error(code)) => Cause::Recv { offset, code },
            (Ask::Recv, Answer::Count { offered, got: 0 }) => {
                Cause::RecvClosed { offset, missing: offered as u64 }
            }
            (Ask::Write, Answer::Error(code)) => Cause::WriteData { offset: written, code },
            (Ask::Write, Answer::Count { got: 0, .. }) => Cause::WriteDataZero { offset: written },
            (Ask::RecvConfig, Answer::Error(code)) => Cause::RecvConfig { offset, code },
            _ => return None,
        })
    }

    fn belongs(&self, order: Order, ask: Ask) -> bool {
        use Order::{
            Cancel, Chunk, Config, Finish, Measure, Quiesce, Rest, Resume, Retreat, Run, RunP2p, Section,
            Setup, SetupPreCopy, Stop,
        };
        match order {
            Setup => ask == Ask::Send,
            SetupPreCopy => ask == if self.told { Ask::Send } else { Ask::Set(State::PreCopy) },
            Measure => ask == Ask::Info,
            Chunk => matches!(ask, Ask::Read | Ask::Info | Ask::Send),
            Quiesce if self.at == State::PreCopy => ask == Ask::Set(State::PreCopyP2p),
            Quiesce => ask == Ask::Set(State::RunningP2p),
            Rest => matches!(ask, Ask::Read | Ask::Send),
            Config => matches!(ask, Ask::Send | Ask::SendConfig),
            Finish => ask == Ask::Set(State::Stop),
            Resume => ask == Ask::Set(State::Resuming),
            Section => matches!(ask, Ask::Recv | Ask::Write | Ask::RecvConfig),
            Stop if self.role == Role::Source => ask == Ask::Set(State::StopCopy),
            Stop => ask == Ask::Set(State::Stop),
            RunP2p => ask == Ask::Set(State::RunningP2p),
            Run => ask == Ask::Set(State::Running),
            Cancel | Retreat => false,
        }
    }

    fn ends(&self, order: Order, phase: Phase) -> bool {
        use DestinationPhase as D;
        use SourcePhase as S;
        match phase {
            Phase::Source(phase) => match phase {
                S::Ready(State::RunningP2p) => order == Order::RunP2p,
                S::Ready(State::Running) => order == Order::Run,
                S::SetUp => order == Order::Setup,
                S::PreCopy(_) => {
                    matches!(order, Order::SetupPreCopy | Order::Measure | Order::Chunk)
                        && self.at == State::PreCopy
                }
                S::Quiesced => order == Order::Quiesce,
                S::Copying => matches!(order, Order::Stop | Order::Chunk) && self.at == State::StopCopy,
                S::Copied => {
                    matches!(order, Order::Chunk | Order::Rest | Order::Config) && self.at == State::StopCopy
                }
                S::Stopped => order == Order::Finish,
                S::Ready(_) | S::Failed(_) => false,
            },
            Phase::Destination(phase) => match phase {
                D::Resuming => order == Order::Resume,
                D::Section(_) => order == Order::Section,
                D::Stopped => order == Order::Stop,
                D::RunningP2p => order == Order::RunP2p,
                D::Running => order == Order::Run,
                D::Ready(_) | D::Failed(_) => false,
            },
        }
    }
}

fn begins_with_set(order: Order) -> bool {
    use Order::{Finish, Quiesce, Resume, Run, RunP2p, SetupPreCopy, Stop};
    matches!(order, SetupPreCopy | Quiesce | Stop | Finish | RunP2p | Run | Resume)
}
