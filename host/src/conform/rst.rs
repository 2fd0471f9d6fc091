//! Rules about the reset, the last way out of everything.
//!
//! Deliberately absent: whether a reset clears the device's content. That is between the device and its guest.

use vfio_migration_core::device::State;

use super::lab::says_reset;
use super::stream::{Loaded, PIECE};
use super::trial::{Checked, Skip, Trial};
use super::words::{name, said, state};
use super::{Level, Need, Rule};

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "RST-01",
        level: Level::Must,
        statement: "a reset leads to RUNNING from every state",
        source: "any -> ERROR: VFIO_DEVICE_RESET must be used to return the device_state back to RUNNING",
        why: "A VMM resets a device and lets its guest run. Where the device stays stopped the guest hangs, \
              and nobody asks the device again.",
        remedy: "Set the state to RUNNING in the reset handler, whatever it was.",
        needs: &[Need::StopCopy, Need::Reset],
        check: to_running,
    },
    Rule {
        id: "RST-02",
        level: Level::Should,
        statement: "VFIO_DEVICE_GET_INFO says FLAGS_RESET where a reset works",
        source: "VFIO_DEVICE_GET_INFO: VFIO_DEVICE_FLAGS_RESET: device supports reset",
        why: "A VMM that looks at the flag first believes that it can't abort a load, and gives the device up \
              or refuses to migrate into it.",
        remedy: "Set VFIO_DEVICE_FLAGS_RESET in the answer to VFIO_DEVICE_GET_INFO.",
        needs: &[Need::Reset],
        check: says_so,
    },
    Rule {
        id: "RST-03",
        level: Level::Must,
        statement: "after a reset from any state the device can be saved and loaded",
        source: "any -> ERROR: VFIO_DEVICE_RESET must be used to return the device_state back to RUNNING",
        why: "A reset ends a failed migration, and the next one must work. Where something of the old session \
              stays, the device can't be migrated until it is closed, which its guest does not do.",
        remedy: "Free everything of the session in the reset handler, as if the device had just been opened.",
        needs: &[Need::StopCopy, Need::Reset, Need::State],
        check: works_after,
    },
    Rule {
        id: "RST-04",
        level: Level::Must,
        statement: "a reset succeeds",
        source: "RESUMING -> STOP: to abort a RESUMING session the device must be reset",
        why: "Without a reset a load that failed can't be ended, nor can ERROR be left: the device is lost to \
              its guest until it is closed. A device that is busy for a moment may say EAGAIN.",
        remedy: "Implement VFIO_DEVICE_RESET, and let it end any session first.",
        needs: &[Need::StopCopy],
        check: succeeds,
    },
];

fn to_running(trial: &mut Trial<'_, '_>) -> Checked {
    for at in reset_in_each(trial)? {
        trial.go_on()?;
        trial.lab.reach(at)?;
        if !trial.resets_in(at) {
            continue;
        }
        let got = trial.lab.get();
        match got.ok().and_then(State::from_raw) {
            None => trial.missed(format!("after the reset in {at} GET answered {}", state(&got))),
            Some(after) => trial.expect(after == State::Running, || {
                format!("after a reset in {at}: wanted RUNNING, got {after}")
            }),
        }
    }
    end_with_a_reset(trial)
}

fn says_so(trial: &mut Trial<'_, '_>) -> Checked {
    let says = says_reset(trial.lab).map_err(|errno| Skip(format!("GET_INFO answers {}", name(errno))))?;
    trial.expect(says, || "a reset works, and FLAGS_RESET is not set".to_owned());
    Ok(())
}

fn works_after(trial: &mut Trial<'_, '_>) -> Checked {
    let held = trial.held()?;
    let mut states = reset_in_each(trial)?;
    if trial.facts.is_large() {
        states.retain(|at| [State::Stop, State::StopCopy].contains(at));
    }
    for &at in &states {
        trial.go_on()?;
        trial.lab.reach(at)?;
        if !trial.resets_in(at) {
            continue;
        }
        // A device that was reset may have nothing to tell.
        let saved = trial.lab.stop().and_then(|()| trial.lab.print(PIECE));
        trial.expect(saved.is_ok(), || {
            format!("a save after a reset in {at}: {}", saved.err().unwrap_or_default())
        });
        let loaded = trial.lab.load(&[&held], PIECE);
        trial.expect(loaded == Loaded::Taken, || {
            format!("a load after a reset in {at}: {}", loaded.refusal().unwrap_or_default())
        });
    }
    trial.tried(format!("resets in {} states", states.len()));
    end_with_a_reset(trial)
}

fn succeeds(trial: &mut Trial<'_, '_>) -> Checked {
    let running = trial.lab.reset();
    trial.expect(running.is_ok(), || format!("in RUNNING: wanted success, got {}", said(&running)));
    if running.is_err() {
        return Ok(());
    }
    for at in reset_in_each(trial)? {
        trial.go_on()?;
        trial.lab.reach(at)?;
        let reset = trial.lab.reset();
        trial.expect(reset.is_ok(), || format!("in {at}: wanted success, got {}", said(&reset)));
        if reset.is_err() {
            break;
        }
    }
    Ok(())
}

/// The states in which a reset is tried.
fn reset_in_each(trial: &mut Trial<'_, '_>) -> Result<Vec<State>, Skip> {
    trial.home()?;
    Ok(trial.lab.states().collect())
}

/// What a reset in another state has left behind must not reach the next rule.
fn end_with_a_reset(trial: &mut Trial<'_, '_>) -> Checked {
    trial.home()?;
    // That it works is what this rule has just tried.
    let _ = trial.lab.reset();
    trial.home()
}
