//! A run of one or two devices in lockstep, as a host with a thread for each of them would do it.
//!
//! One thread plays them all: a device has the turn until it has to wait, then the other one has it. A schedule takes
//! the turn away before an operation or between it and its report; with [`Turns::ByStep`] both go step by step.
//!
//! Of the fleet's answers only those are judged that nothing would come of: leave for what a device has done or is not
//! ready for, and a wait for nobody. Deliberately absent: any other judgement. The answers are followed.

use vfio_migration_core::device::State;
use vfio_migration_core::session::Fleet;
use vfio_migration_core::session::fleet::{self, Verdict};

use super::bench::{Bench, Signal};
use super::fault::Fault;
use super::log::Entry;
use super::orders::Order;
use super::run::Run;
use super::seat::{NAMES, Seat, Way};
use super::session::{Done, Phase};
use super::setting::Role;
use super::team::{Team, Turns, Unruly};

/// Runs `team` with these faults.
#[must_use]
pub fn run(team: &Team, faults: &[Fault], unruly: Option<Unruly>) -> Run {
    let bench = Bench::new(faults, team.settings.len() > 1 && team.turns == Turns::AsFarAsItGoes);
    let mut buffers = vec![[0xa5; 64]; team.settings.len()];
    let seats = team.settings.iter().zip(&mut buffers).enumerate();
    let seats: Vec<_> =
        seats.map(|(who, (setting, buffer))| Seat::new(who, setting, buffer, &bench)).collect();
    let joining: Vec<_> = seats.iter().enumerate().map(Seat::joining).collect();
    let Ok(fleet) = Fleet::new(&joining) else {
        bench.note(Entry::Stuck("the fleet refuses a device"));
        return Run { record: bench.record(), sent: vec![] };
    };
    let mut table =
        Table { team, fleet, seats, bench: bench.clone(), going_back: false, first_failed: None, unruly };
    table.play();
    Run { record: bench.record(), sent: table.seats.into_iter().map(|seat| seat.link.sent).collect() }
}

/// Room for more devices than any team has.
const ROOM: usize = 3;

struct Table<'t, 'b> {
    team: &'t Team,
    fleet: Fleet<'t, ROOM>,
    seats: Vec<Seat<'t, 'b>>,
    bench: Bench,
    going_back: bool,
    /// The device that the fleet was first told to have failed.
    first_failed: Option<usize>,
    unruly: Option<Unruly>,
}

/// What came of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Moved,
    /// The turn goes to the other device, and this one could go on.
    Gave,
    /// It has to wait, or has arrived.
    Waits,
}

/// The run can't go on.
struct Over;

impl Table<'_, '_> {
    fn play(&mut self) {
        let (mut who, mut waiting) = (self.team.first, 0);
        while waiting < self.seats.len() {
            let Ok(turn) = self.turn(who) else { return };
            if self.bench.is_endless() {
                return;
            }
            waiting = if turn == Turn::Waits { waiting + 1 } else { 0 };
            if turn != Turn::Moved || self.team.turns == Turns::ByStep {
                who = (who + 1) % self.seats.len();
            }
        }
        if !self.seats.iter().all(Seat::has_arrived) {
            self.bench.note(Entry::Stuck("each device waits for the other"));
        }
        self.check_report();
        self.bench.note(Entry::End);
    }

    /// One device does one thing.
    fn turn(&mut self, who: usize) -> Result<Turn, Over> {
        if self.seats[who].busy { self.go_on(who) } else { self.next_order(who) }
    }

    /// An order is being carried out.
    fn go_on(&mut self, who: usize) -> Result<Turn, Over> {
        let out = self.seats[who].way == Way::Out;
        if self.team.prompt && self.going_back && out && self.turns_back(who) {
            return self.go_back(who);
        }
        let seat = &mut self.seats[who];
        if let Some(done) = seat.held.take() {
            self.tell(who, done)?;
        } else if seat.session.idle().is_none() {
            return self.operate(who);
        }
        self.look(who);
        Ok(Turn::Moved)
    }

    /// Does what the session wants, and tells it, now or later.
    fn operate(&mut self, who: usize) -> Result<Turn, Over> {
        if self.bench.pauses() {
            return Ok(Turn::Gave);
        }
        let seat = &mut self.seats[who];
        let Some(done) = seat.session.step(&mut seat.device, &mut seat.link, &mut seat.layer) else {
            return Ok(Turn::Moved);
        };
        let signal = self.bench.signal();
        match signal {
            Signal::CancelBefore | Signal::CancelAfter => {
                self.cancel();
                let way = self.seats[who].way;
                match way {
                    Way::Out if self.turns_back(who) => return self.go_back(who),
                    Way::Out if signal == Signal::CancelAfter => self.seats[who].held = Some(done),
                    Way::Out => {}
                    Way::Back => return self.order(who, Order::Retreat),
                    Way::Home => return self.order(who, Order::Cancel),
                }
                Ok(Turn::Moved)
            }
            Signal::Late => {
                self.seats[who].held = Some(done);
                Ok(Turn::Gave)
            }
            Signal::Tell if self.team.turns == Turns::ByStep => {
                self.seats[who].held = Some(done);
                Ok(Turn::Moved)
            }
            Signal::Tell => {
                self.tell(who, done)?;
                self.look(who);
                Ok(Turn::Moved)
            }
        }
    }

    fn tell(&mut self, who: usize, done: Done) -> Result<(), Over> {
        self.bench.note(Entry::Told(who));
        self.seats[who].session.complete(done).map_err(|_| self.stuck("the session refuses an answer"))
    }

    /// Tells the fleet where the session is, once it is idle.
    fn look(&mut self, who: usize) {
        let seat = &mut self.seats[who];
        let Some(phase) = seat.session.idle() else { return };
        seat.busy = false;
        seat.phase = Some(phase);
        seat.may_stop = false;
        self.bench.note(Entry::Idle(who, phase, seat.device.facts()));
        if phase.failure().is_some() {
            self.going_back = true;
            self.first_failed = self.first_failed.or(Some(who));
        }
        match phase {
            Phase::Source(phase) => self.fleet.source(who, phase),
            Phase::Destination(phase) => self.fleet.destination(who, phase),
        }
        self.check_done(who);
    }

    /// A device that is not quiet yet may neither stop nor run.
    fn check_ahead(&mut self, who: usize, next: Order) {
        let ahead = match next {
            Order::Quiesce => fleet::Order::Stop,
            Order::RunP2p => fleet::Order::Run,
            _ => return,
        };
        let active = self.seats[who].device.facts().state == State::Running;
        let skips = next == Order::Quiesce && !active;
        if self.seats.len() > 1 && !skips && self.fleet.may(who, ahead) == Verdict::Go {
            self.bench.note(Entry::Stuck("the fleet lets a device go further than it is"));
        }
    }

    /// A device on its way back waits for somebody.
    fn check_wait(&self, who: usize) {
        let mut others = self.seats.iter().enumerate().filter(|&(other, _)| other != who);
        if self.unruly.is_none() && !others.any(|(_, other)| other.holds_others()) {
            self.bench.note(Entry::Stuck("the fleet has a device wait for nobody"));
        }
    }

    /// What was done needs no leave a second time. Of a finish the fleet does not know that.
    fn check_done(&mut self, who: usize) {
        let seat = &self.seats[who];
        let order = seat.order.filter(|&order| order != Order::Finish);
        let order = order.and_then(|order| seat.lockstep(order));
        if let Some(order) = order
            && !self.going_back
            && self.fleet.may(who, order) != Verdict::Done
        {
            self.bench.note(Entry::Stuck("the fleet does not know that an order was carried out"));
        }
    }

    fn next_order(&mut self, who: usize) -> Result<Turn, Over> {
        let failed = self.seats[who].failure().is_some();
        match self.seats[who].way {
            Way::Home => Ok(Turn::Waits),
            Way::Back => match self.may(who, fleet::Order::Cancel) {
                Verdict::Go => self.go_home(who),
                Verdict::Wait => {
                    self.check_wait(who);
                    Ok(Turn::Waits)
                }
                Verdict::Done | Verdict::GoBack => Err(self.stuck("no answer to a cancel")),
            },
            Way::Out if failed => self.go_back(who),
            Way::Out => match self.seats[who].next_order() {
                None if self.going_back => self.go_back(who),
                None => Ok(Turn::Waits),
                Some(order) => self.go_out(who, order),
            },
        }
    }

    fn go_out(&mut self, who: usize, order: Order) -> Result<Turn, Over> {
        self.check_ahead(who, order);
        let in_lockstep = self.seats[who].lockstep(order);
        let verdict = in_lockstep.map_or(Verdict::Go, |order| self.may(who, order));
        match verdict {
            Verdict::Go => {
                self.seats[who].may_stop |= order == Order::Stop;
                if self.bench.cancels_order() {
                    self.cancel();
                    if self.turns_back(who) {
                        return self.go_back(who);
                    }
                }
                self.seats[who].next += 1;
                self.order(who, order)
            }
            Verdict::Done => {
                self.seats[who].next += 1;
                Ok(Turn::Moved)
            }
            Verdict::Wait => Ok(Turn::Waits),
            Verdict::GoBack => self.go_back(who),
        }
    }

    /// Whether a device turns back once somebody has failed or cancelled, in the middle of an order or before one. One
    /// of a paused machine may have to go on, where another one runs already.
    fn turns_back(&mut self, who: usize) -> bool {
        let seat = &self.seats[who];
        let order = if seat.busy { seat.order } else { seat.next_order() };
        let order = order.and_then(|order| seat.lockstep(order));
        order.is_none_or(|order| self.may(who, order) == Verdict::GoBack)
    }

    fn may(&mut self, who: usize, order: fleet::Order) -> Verdict {
        let verdict = self.fleet.may(who, order);
        self.unruly.map_or(verdict, |unruly| (unruly.hears)(order, verdict))
    }

    /// A source retreats, a destination is reset at once.
    fn go_back(&mut self, who: usize) -> Result<Turn, Over> {
        let retreats = self.unruly.is_none_or(|unruly| unruly.retreats);
        if self.seats[who].setting.make.role == Role::Destination || !retreats {
            return self.go_home(who);
        }
        self.seats[who].way = Way::Back;
        self.seats[who].held = None;
        self.order(who, Order::Retreat)
    }

    fn go_home(&mut self, who: usize) -> Result<Turn, Over> {
        self.seats[who].way = Way::Home;
        self.seats[who].held = None;
        self.order(who, Order::Cancel)
    }

    fn order(&mut self, who: usize, order: Order) -> Result<Turn, Over> {
        self.bench.note(Entry::Order(who, order));
        let seat = &mut self.seats[who];
        seat.busy = true;
        seat.order = Some(order);
        seat.layer.ordered(order);
        seat.session.order(order).map_err(|_| self.stuck("the session refuses an order"))?;
        Ok(Turn::Moved)
    }

    fn cancel(&mut self) {
        self.fleet.cancel();
        self.going_back = true;
    }

    /// The fleet must name the device that failed first, and say of each how it failed.
    fn check_report(&mut self) {
        let failures: Vec<_> = self.seats.iter_mut().map(Seat::failure).collect();
        let first = self.first_failed.and_then(|who| Some((NAMES[who], failures[who]?)));
        let report: Vec<_> = NAMES.into_iter().zip(failures).collect();
        if self.fleet.first_failure() != first || !self.fleet.report().eq(report) {
            self.bench.note(Entry::Stuck("the fleet reports other failures"));
        }
    }

    fn stuck(&self, why: &'static str) -> Over {
        self.bench.note(Entry::Stuck(why));
        Over
    }
}
