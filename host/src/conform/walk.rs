//! Every arc and every impossible SET, once, with what was answered and where the device was before and after.
//!
//! Many rules judge the same walk: on a real device an arc may take long, and some go through a whole load.
//!
//! Deliberately absent: judgement. What is wrong in a walk is for the rules in `fsm` and `fd`.

use std::rc::Rc;

use rustix::io::Result as Answer;
use vfio_migration_core::device::State;
use vfio_migration_core::device::arc::{DataSession, data_session, path};

use super::data::Data;
use super::lab::Lab;
use super::stream::{PIECE, write_all};
use super::trial::{Skip, Trial};
use super::words::said;

/// An arc that was asked for, or one that the device did not come to.
#[derive(Debug)]
pub(super) struct Walked {
    pub(super) from: State,
    pub(super) to: State,
    /// What the uapi says of its session.
    pub(super) session: DataSession,
    /// How many steps it has: 1 is a direct arc, 0 none at all.
    pub(super) steps: usize,
    /// What came of it, or why it was not tried.
    pub(super) seen: Result<Seen, String>,
}

/// What came of a SET.
#[derive(Debug)]
pub(super) struct Seen {
    /// What GET said before it.
    pub(super) before: Answer<u32>,
    /// The answer, and whether a data fd came with it.
    pub(super) answer: Answer<bool>,
    /// What GET said after it.
    pub(super) after: Answer<u32>,
    /// What the data fd from before the SET answered after it: a saving one to a read, a resuming one to a write
    /// where the session goes on.
    pub(super) old: Option<Answer<usize>>,
}

/// A write to a resuming session that a SET has ended.
#[derive(Debug)]
pub(super) struct LateWrite {
    /// Where the SET led.
    pub(super) to: State,
    /// What the uapi says of its session.
    pub(super) session: DataSession,
    /// What the write answered, or why there was none.
    pub(super) answer: Result<Answer<usize>, String>,
}

/// An impossible SET.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) from: State,
    pub(super) number: u32,
    /// Why it is impossible.
    pub(super) why: Impossible,
    pub(super) before: Answer<u32>,
    pub(super) answer: Answer<()>,
    pub(super) after: Answer<u32>,
}

/// Why a SET is impossible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Impossible {
    /// ERROR can't be asked for.
    Error,
    /// The uapi has no such state.
    Unknown,
    /// The driver's flags lack the state.
    Flags,
    /// STOP_COPY does not go back to PRE_COPY.
    Back,
}

/// Walks every arc of the driver's flags, also from each state to itself.
pub(super) fn walk(trial: &mut Trial<'_, '_>) -> Rc<Vec<Walked>> {
    if let Some(known) = &trial.facts.walk {
        return Rc::clone(known);
    }
    let features = trial.features();
    let states: Vec<State> = trial.lab.states().collect();
    let mut walked = Vec::new();
    for (from, to) in states.iter().flat_map(|&from| states.iter().map(move |&to| (from, to))) {
        if trial.lab.interrupt().asked().is_some() {
            break;
        }
        if let (Some(session), Some(steps)) = (data_session(features, from, to), path(features, from, to)) {
            let seen = go(trial, from, to).map_err(|Skip(reason)| format!("{from} → {to}: {reason}"));
            walked.push(Walked { from, to, session, steps: steps.len(), seen });
        }
    }
    let walked = Rc::new(walked);
    trial.facts.walk = Some(Rc::clone(&walked));
    walked
}

/// Writes to resuming sessions that have ended. The few rules that need this alone ask for it, since there are drivers
/// that take the kernel down with them.
pub(super) fn late_writes(trial: &mut Trial<'_, '_>) -> Rc<Vec<LateWrite>> {
    if let Some(known) = &trial.facts.late_writes {
        return Rc::clone(known);
    }
    let features = trial.features();
    let mut writes = Vec::new();
    for to in trial.lab.states().filter(|&to| to != State::Resuming) {
        if trial.lab.interrupt().asked().is_some() {
            break;
        }
        if let Some(session) = data_session(features, State::Resuming, to) {
            let answer =
                late_write(trial, to).map_err(|Skip(reason)| format!("{} → {to}: {reason}", State::Resuming));
            writes.push(LateWrite { to, session, answer });
        }
    }
    let writes = Rc::new(writes);
    trial.facts.late_writes = Some(Rc::clone(&writes));
    writes
}

fn late_write(trial: &mut Trial<'_, '_>, to: State) -> Result<Answer<usize>, Skip> {
    if !may_enter(trial, State::Resuming) {
        return Err("RESUMING ends by a reset, which is refused".into());
    }
    let data = trial.session(State::Resuming)?;
    give_all(trial, &data, to)?;
    let ended = trial.lab.set(to);
    if ended.is_err() {
        return Err(format!("is refused: {}", said(&ended)).into());
    }
    Ok(data.write(trial.beginning()?.as_slice()))
}

/// Asks in every state for everything impossible.
pub(super) fn refusals(trial: &mut Trial<'_, '_>) -> Rc<Vec<Refused>> {
    if let Some(known) = &trial.facts.refusals {
        return Rc::clone(known);
    }
    let mut refused = Vec::new();
    for from in states(trial) {
        for (number, why) in impossible(trial.lab, from) {
            let is_there = trial.lab.state() == Some(from) || trial.lab.reach(from).is_ok();
            if !is_there || trial.lab.interrupt().asked().is_some() {
                break;
            }
            let before = trial.lab.get();
            let answer = trial.lab.set_number(number).map(drop);
            let after = trial.lab.get();
            if answer.is_ok() {
                trial.lab.is_lost();
            }
            refused.push(Refused { from, number, why, before, answer, after });
        }
    }
    let refused = Rc::new(refused);
    trial.facts.refusals = Some(Rc::clone(&refused));
    refused
}

/// The states of the driver that can be entered and left again.
pub(super) fn states(trial: &Trial<'_, '_>) -> Vec<State> {
    trial.lab.states().filter(|&state| may_enter(trial, state)).collect()
}

/// RESUMING is entered only where a reset can end it.
pub(super) fn may_enter(trial: &Trial<'_, '_>, state: State) -> bool {
    state != State::Resuming || trial.facts.resets.is_ok()
}

fn impossible(lab: &Lab<'_>, from: State) -> Vec<(u32, Impossible)> {
    let absent = State::ALL.into_iter().filter(|&state| state != State::Error && !lab.has(state));
    let back = [State::PreCopy, State::PreCopyP2p].into_iter();
    let back = back.filter(|&to| from == State::StopCopy && lab.has(to));
    [(State::Error.raw(), Impossible::Error)]
        .into_iter()
        .chain([8, 9, u32::MAX].map(|number| (number, Impossible::Unknown)))
        .chain(absent.map(|state| (state.raw(), Impossible::Flags)))
        .chain(back.map(|state| (state.raw(), Impossible::Back)))
        .collect()
}

/// One arc, from a known place.
fn go(trial: &mut Trial<'_, '_>, from: State, to: State) -> Result<Seen, Skip> {
    if !(may_enter(trial, from) && may_enter(trial, to)) {
        return Err("RESUMING ends by a reset, which is refused".into());
    }
    let old = trial.lab.reach(from)?;
    if from == State::Resuming && to != from {
        give_all(trial, old.as_ref().ok_or("no data fd came with RESUMING")?, to)?;
    }
    let before = trial.lab.get();
    let answer = trial.lab.set(to).map(|data| data.is_some());
    let after = trial.lab.get();
    let old = match old {
        Some(old) if from != State::Resuming => Some(old.peek(&mut [0; 4096])),
        Some(old) if to == from => trial.beginning().ok().map(|beginning| old.write(&beginning)),
        _ => None,
    };
    Ok(Seen { before, answer, after, old })
}

/// RESUMING is left with a whole state alone.
fn give_all(trial: &Trial<'_, '_>, data: &Data, to: State) -> Result<(), Skip> {
    if trial.facts.is_large() && !matches!(to, State::Stop | State::StopCopy) {
        return Err("a large state is loaded for few arcs".into());
    }
    let held = trial.held()?;
    match write_all(data, &[&held], PIECE) {
        Ok(()) => Ok(()),
        Err((at, _)) => Err(Skip(format!("its own state is refused behind {at} bytes"))),
    }
}
