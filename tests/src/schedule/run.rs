//! A run of one session: the orders of its script, and a cancel in the end, whatever became of it.
//!
//! Deliberately absent: judgement. A run leaves a log.

use super::bench::{Bench, Record, Signal};
use super::device::ModelDevice;
use super::fault::Fault;
use super::link::ModelLink;
use super::log::Entry;
use super::mutant::{Layer, Mutant};
use super::orders::Order;
use super::session::{Phase, Session};
use super::setting::Setting;

/// What a run leaves.
#[derive(Debug)]
pub struct Run {
    /// What was done, and what could have gone wrong.
    pub record: Record,
    /// What each device's link has sent.
    pub sent: Vec<Vec<u8>>,
}

/// How a session is driven.
#[derive(Clone, Copy, Debug)]
pub enum Driver {
    /// One operation at a time, so that a cancel can come between, through a wrong variant where there is one.
    Steps(Option<Mutant>),
    /// By core's blocking loop, in which nobody cancels.
    Loop,
}

/// Runs `setting` with these faults.
#[must_use]
pub fn run(setting: &Setting, faults: &[Fault], driver: Driver) -> Run {
    let mutant = if let Driver::Steps(mutant) = driver { mutant } else { None };
    let bench = Bench::new(faults, false);
    let mut buffer = [0xa5; 64];
    let mut solo = Solo {
        session: Session::new(setting, &mut buffer),
        device: ModelDevice::new(0, setting.make, &bench),
        link: ModelLink::new(0, &setting.incoming, setting.make.piece, &bench),
        layer: Layer::new(setting.make, mutant),
        give_up: if setting.retreats { Order::Retreat } else { Order::Cancel },
        bench: bench.clone(),
        driver,
    };
    let _ = setting.script.iter().try_for_each(|&order| solo.follow(order));
    bench.note(Entry::End);
    let _ = solo.end();
    Run { record: bench.record(), sent: vec![solo.link.sent] }
}

/// The run is over.
struct Over;

struct Solo<'b> {
    session: Session<'b>,
    device: ModelDevice,
    link: ModelLink,
    layer: Layer,
    /// How the session is made to give up in the middle.
    give_up: Order,
    bench: Bench,
    driver: Driver,
}

impl Solo<'_> {
    /// Gives an order and carries it out, unless the caller cancels before.
    fn follow(&mut self, order: Order) -> Result<(), Over> {
        let cancels = self.bench.cancels_order();
        self.order(if cancels { self.give_up } else { order })?;
        if self.carry_out()?.failure().is_some() { Err(Over) } else { Ok(()) }
    }

    /// Gives up, whatever has become of the script.
    fn end(&mut self) -> Result<(), Over> {
        if self.give_up == Order::Retreat {
            self.order(Order::Retreat)?;
            self.carry_out()?;
        }
        self.order(Order::Cancel)?;
        self.carry_out().map(|_| ())
    }

    /// Carries out what was ordered, until the session is idle.
    fn carry_out(&mut self) -> Result<Phase, Over> {
        let phase = match self.driver {
            Driver::Steps(_) => self.step_by_step()?,
            Driver::Loop => {
                let told = || self.bench.note(Entry::Told(0));
                let phase = self.session.drive(&mut self.device, &mut self.link, told);
                phase.map_err(|_| self.stuck("the session refuses an answer"))?
            }
        };
        let phase = self.layer.report(phase);
        self.bench.note(Entry::Idle(0, phase, self.device.facts()));
        Ok(phase)
    }

    fn step_by_step(&mut self) -> Result<Phase, Over> {
        loop {
            if let Some(phase) = self.session.idle() {
                return Ok(phase);
            }
            let done = self.session.step(&mut self.device, &mut self.link, &mut self.layer);
            if self.bench.is_endless() {
                return Err(Over);
            }
            if self.bench.signal() != Signal::Tell {
                self.order(self.give_up)?;
            } else if let Some(done) = done {
                self.bench.note(Entry::Told(0));
                self.session.complete(done).map_err(|_| self.stuck("the session refuses an answer"))?;
            }
        }
    }

    fn order(&mut self, order: Order) -> Result<(), Over> {
        self.bench.note(Entry::Order(0, order));
        self.layer.ordered(order);
        self.session.order(order).map_err(|_| self.stuck("the session refuses an order"))
    }

    fn stuck(&self, why: &'static str) -> Over {
        self.bench.note(Entry::Stuck(why));
        Over
    }
}
