//! What must hold of every run, whatever went wrong in it.
//!
//! - What was done is what the [`Rule`] wants, and what is reported is what it says, with the first cause.
//! - The device is in the state that is reported, with what it should hold and no data fd but where it has a session.
//! - No device runs, or stands accepted, with half a state.
//! - What was sent is the beginning of what a run without failures sends.
//! - Of two devices none runs while the other one stands still, unless one of them was reset.
//!
//! Deliberately absent: a run. The log says all.

use vfio_migration_core::device::State;
use vfio_migration_core::session::{DestinationPhase, Left};

use super::fault::Fault;
use super::log::{Entry, Facts, Holds};
use super::orders::Order;
use super::rule::{Rule, Wrong};
use super::run::Run;
use super::session::Phase;
use super::setting::{Role, Setting};

/// What a run is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Against {
    /// The rule, and what is true of the device.
    Both,
    /// What is true of the device, and what was sent. Here a wrong rule could not hide a wrong session.
    DeviceAlone,
}

/// Checks a run of these devices with these faults, whose run without failures has sent `whole`.
///
/// # Errors
/// What does not hold, with the log up to there.
pub fn check(
    settings: &[&Setting],
    faults: &[Fault],
    run: &Run,
    whole: &[Vec<u8>],
    against: Against,
) -> Result<(), Wrong> {
    let mut check = Check {
        rules: settings.iter().map(|setting| Rule::new(&setting.make)).collect(),
        facts: vec![None; settings.len()],
        settings,
        against,
        harmless: faults.iter().all(|fault| fault.kind.is_harmless()),
        ended: false,
    };
    for (at, &entry) in run.record.log.iter().enumerate() {
        check.entry(entry).map_err(|wrong| {
            let log: String = run.record.log[..=at].iter().map(|entry| format!("\n  {entry:?}")).collect();
            format!("{wrong}{log}")
        })?;
    }
    for (sent, whole) in run.sent.iter().zip(whole) {
        if !whole.starts_with(sent) {
            return Err(format!("{sent:x?} was sent, and without failures {whole:x?}"));
        }
    }
    Ok(())
}

struct Check<'a> {
    settings: &'a [&'a Setting],
    rules: Vec<Rule>,
    facts: Vec<Option<Facts>>,
    against: Against,
    /// Whether nothing goes wrong in this run.
    harmless: bool,
    /// Whether all orders were given that could be.
    ended: bool,
}

impl Check<'_> {
    fn entry(&mut self, entry: Entry) -> Result<(), Wrong> {
        match entry {
            Entry::Order(who, order) => self.rules[who].ordered(order),
            Entry::Did { who, ask, answer, facts, .. } => {
                let goes_on = !self.rules[who].failed();
                let right = self.rules[who].did(ask, answer);
                self.hold(right)?;
                if let Some(facts) = facts {
                    self.facts[who] = Some(facts);
                    check_operation(&facts)?;
                    self.check_lockstep(who, goes_on)?;
                }
            }
            Entry::Told(who) => self.rules[who].told(),
            Entry::Idle(who, phase, facts) => {
                self.hold(self.rules[who].idle(phase))?;
                if self.harmless && !self.ended && phase.failure().is_some() {
                    return Err(format!("{phase:?}, and nothing went wrong"));
                }
                check_idle(self.settings[who].make.role, phase, self.rules[who].at(), &facts)?;
            }
            Entry::End => {
                self.ended = true;
                let all = self.settings.iter().zip(&self.facts);
                let mut arrived = all.map(|(setting, facts)| facts.map(|facts| facts.state) == goal(setting));
                if self.harmless && !arrived.all(|arrived| arrived) {
                    return Err("nothing went wrong, and a device is not where its script leads".into());
                }
            }
            Entry::Stuck(why) => return Err(why.into()),
        }
        Ok(())
    }

    /// What the rule says, where it counts.
    fn hold(&self, right: Result<(), Wrong>) -> Result<(), Wrong> {
        if self.against == Against::Both { right } else { Ok(()) }
    }

    /// No device may start DMA of its own while another one stands still.
    fn check_lockstep(&self, who: usize, goes_on: bool) -> Result<(), Wrong> {
        let Some(facts) = &self.facts[who] else { return Ok(()) };
        let passed = passed(facts);
        for other in self.facts.iter().enumerate().filter(|&(other, _)| other != who) {
            let (other, Some(facts_of_other)) = other else { continue };
            let at_other = bit(facts_of_other.state);
            let both_live = is_live(facts) && is_live(facts_of_other);
            if both_live && (passed & ACTIVE > 0 && at_other & STILL > 0) {
                return Err(format!(
                    "device {who} may start DMA while {other} is in {}",
                    facts_of_other.state
                ));
            }
            if both_live && (passed & STILL > 0 && at_other & ACTIVE > 0) {
                return Err(format!(
                    "device {who} stands still while {other} is in {}",
                    facts_of_other.state
                ));
            }
            let finishes =
                goes_on && self.rules[who].order() == Some(Order::Finish) && facts.state == State::Stop;
            if both_live && finishes && !self.rules[other].failed() && at_other & (ACTIVE | QUIET) > 0 {
                return Err(format!("device {who} is finished while {other} is in {}", facts_of_other.state));
            }
        }
        Ok(())
    }
}

/// What must hold of a device after each operation.
fn check_operation(facts: &Facts) -> Result<(), Wrong> {
    let passed = passed(facts);
    if facts.holds == Holds::Half && passed & (ACTIVE | QUIET | bit(State::Stop)) > 0 {
        return Err(format!("half a state is in {}", facts.state));
    }
    if facts.right_bytes { Ok(()) } else { Err("other bytes were written than came".into()) }
}

/// What must hold of a device whose session is idle, and believes it to be in `at`.
fn check_idle(role: Role, phase: Phase, at: State, facts: &Facts) -> Result<(), Wrong> {
    let left = phase.failure().map_or(Left::At(at), |failure| failure.device);
    let state = match left {
        Left::At(state) => Some(state),
        Left::Reset => Some(State::Running),
        Left::Unknown => None,
    };
    let behind = facts.reset_behind && facts.state == State::Running;
    if state.is_some_and(|state| state != facts.state) && !behind {
        return Err(format!("{phase:?} is reported, the device is in {}", facts.state));
    }
    let has_session = state.is_some_and(|state| bit(state) & WITH_DATA > 0);
    if has_session != facts.data_fd {
        return Err(format!("a data fd is open: {}, in {phase:?}", facts.data_fd));
    }
    let holds: &[Holds] = match (left, role, phase) {
        (Left::Reset, _, _) => &[Holds::Lost],
        (Left::Unknown, _, _) => return Ok(()),
        (Left::At(_), _, _) if facts.reset_by_guest => &[Holds::Lost, Holds::Nothing],
        (Left::At(_), Role::Source, _) => &[Holds::Guests],
        (Left::At(_), _, Phase::Destination(DestinationPhase::Section(_))) => &[Holds::Nothing, Holds::Half],
        (Left::At(_), Role::Destination, phase) if is_loaded(phase) => &[Holds::Guests],
        (Left::At(_), Role::Destination, _) => &[Holds::Nothing],
    };
    if holds.contains(&facts.holds) {
        return Ok(());
    }
    Err(format!("the device holds {:?}, wanted {holds:?} in {phase:?}", facts.holds))
}

/// The state that a script leads to.
fn goal(setting: &Setting) -> Option<State> {
    setting.script.last().map(|order| match order {
        Order::Run => State::Running,
        Order::Finish => State::Stop,
        _ => State::StopCopy,
    })
}

fn is_loaded(phase: Phase) -> bool {
    use DestinationPhase::{Running, RunningP2p, Stopped};
    matches!(phase, Phase::Destination(Stopped | RunningP2p | Running))
}

/// Whether a device can do harm or be harmed: it has a guest's state, and the kernel's word on where it is.
fn is_live(facts: &Facts) -> bool {
    matches!(facts.holds, Holds::Guests | Holds::Half) && !facts.refused_reset
}

/// The states that an operation led through, with the one it ended in.
const fn passed(facts: &Facts) -> u8 {
    facts.passed | bit(facts.state)
}

const fn bit(state: State) -> u8 {
    1 << state.raw()
}

/// Where a device may start DMA to others.
const ACTIVE: u8 = bit(State::Running) | bit(State::PreCopy);
/// Where it starts none, and others may reach it.
const QUIET: u8 = bit(State::RunningP2p) | bit(State::PreCopyP2p);
/// Where nobody may reach it.
const STILL: u8 = bit(State::Stop) | bit(State::StopCopy) | bit(State::Resuming);
/// Where it has a data session.
const WITH_DATA: u8 =
    bit(State::PreCopy) | bit(State::PreCopyP2p) | bit(State::StopCopy) | bit(State::Resuming);
