//! Rules about the states: which arcs are taken, which are refused, and what GET says.
//!
//! Deliberately absent: the data fds that come with arcs, which have rules of their own.

use rustix::io::{Errno, Result as Answer};
use vfio_migration_core::device::State;

use super::stream::{PIECE, read_to_end};
use super::trial::{Checked, Trial};
use super::walk::{Impossible, Refused, Walked, refusals, states, walk};
use super::words::{number_of_state, said, state};
use super::{Level, Need, Rule};

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "FSM-01",
        level: Level::Must,
        statement: "every direct arc of the flags is taken",
        source: "enum vfio_device_mig_state: the driver implements the following behavior for the FSM arcs",
        why: "VMMs go through these arcs one by one, several devices in lockstep. Where one is refused, a \
              migration fails after the machine was stopped, or a device can't be put back.",
        remedy: "Handle each pair of neighbouring states that vfio_mig_get_next_state() returns for the \
                 driver's flags.",
        needs: &[Need::StopCopy],
        check: direct,
    },
    Rule {
        id: "FSM-02",
        level: Level::Must,
        statement: "every combined arc of the flags is taken",
        source: "enum vfio_device_mig_state: the remaining possible transitions are combinations of the above",
        why: "A VMM that does not know of P2P or PRE_COPY asks for RUNNING → STOP or STOP_COPY → RUNNING as \
              one SET, and recovery uses whatever leads back. Without combined arcs such a VMM can't use the \
              device at all.",
        remedy: "Step with vfio_mig_get_next_state() in a loop until the wanted state is reached.",
        needs: &[Need::StopCopy],
        check: combined,
    },
    Rule {
        id: "FSM-03",
        level: Level::Must,
        statement: "after a SET, GET says the new state",
        source: "VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE: must fully transition the device before the operation \
                 returns",
        why: "A VMM asks GET after a failure, and tools ask it to find devices that a killed program left. \
              Where the answer is another state, the wrong way back is taken.",
        remedy: "Store the state under the same lock in which the step is done, and return what was stored.",
        needs: &[Need::StopCopy],
        check: get_says_new,
    },
    Rule {
        id: "FSM-04",
        level: Level::Must,
        statement: "a SET of the current state succeeds, gives no data fd and changes nothing",
        source: "vfio_mig_get_next_state(): the path from a state to itself has no arcs",
        why: "VMMs ask for a state without asking first where the device is. Where that is refused they take \
              a working device for a failed one; where it begins a session anew, the data of the old one are \
              lost.",
        remedy: "Compare the wanted state with the current one first, and return NULL for the file if they \
                 are equal.",
        needs: &[Need::StopCopy],
        check: current,
    },
    Rule {
        id: "FSM-05",
        level: Level::Must,
        statement: "STOP_COPY → PRE_COPY and STOP_COPY → PRE_COPY_P2P are refused",
        source: "STOP_COPY -> PRE_COPY, PRE_COPY_P2P: these arcs are not permitted and return error if \
                 requested",
        why: "What is in the stream by then is the state of a stopped device. A VMM that goes on in PRE_COPY \
              would send a mixture of two moments, which loads and is wrong.",
        remedy: "Leave the decision to vfio_mig_get_next_state(), which knows these arcs as errors.",
        needs: &[Need::StopCopy, Need::PreCopy],
        check: back,
    },
    Rule {
        id: "FSM-06",
        level: Level::Must,
        statement: "states outside the flags are refused",
        source: "enum vfio_device_mig_state: optional states cannot be used with SET_STATE if not supported",
        why: "A VMM may try a state to find out. A device that says yes to RUNNING_P2P without having it goes \
              on with peer-to-peer DMA while its neighbours have stopped, and memory is written behind their \
              backs.",
        remedy: "Declare the states in migration_flags, and use vfio_mig_get_next_state(), which checks them.",
        needs: &[Need::StopCopy],
        check: outside_flags,
    },
    Rule {
        id: "FSM-07",
        level: Level::Must,
        statement: "ERROR can't be SET",
        source: "any -> ERROR: ERROR cannot be specified as a device state",
        why: "ERROR says that the device has failed. Where it can be asked for, a mistake in a VMM looks like \
              broken hardware, and only a reset that loses the guest's state ends it.",
        remedy: "Let vfio_mig_get_next_state() refuse it; enter ERROR only when a step has failed for good.",
        needs: &[Need::StopCopy],
        check: error,
    },
    Rule {
        id: "FSM-08",
        level: Level::Must,
        statement: "state numbers that the uapi lacks are refused",
        source: "enum vfio_device_mig_state: VFIO_DEVICE_STATE_NR",
        why: "A later kernel may give these numbers a meaning. A driver that takes them today says yes to a \
              state that it does not know, and a number used as an index reads beyond a table.",
        remedy: "Refuse numbers from VFIO_DEVICE_STATE_NR on with -EINVAL before using them for anything.",
        needs: &[Need::StopCopy],
        check: unknown_states,
    },
    Rule {
        id: "FSM-09",
        level: Level::Should,
        statement: "an impossible SET leaves the device in its state",
        source: "VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE: on failure the original state or one along the path",
        why: "No path leads to an impossible state, so the only state that is left is the original one. A VMM \
              that tried a state to find out would find its device stopped.",
        remedy: "Ask vfio_mig_get_next_state() before the first step is done.",
        needs: &[Need::StopCopy],
        check: impossible_leaves,
    },
    Rule {
        id: "FSM-10",
        level: Level::Should,
        statement: "an impossible SET answers EINVAL",
        source: "vfio_mig_get_next_state(): -EINVAL",
        why: "By EINVAL a VMM tells a state that can't be had from a device that failed. With another answer \
              it reports a hardware error, or tries again what can never work.",
        remedy: "Return what vfio_mig_get_next_state() returns.",
        needs: &[Need::StopCopy],
        check: impossible_is_einval,
    },
    Rule {
        id: "FSM-11",
        level: Level::Must,
        statement: "GET answers a state of the flags in every state",
        source: "VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE: upon GET, get the current migration state",
        why: "A number that a VMM does not know, or an error, leaves it nothing but a reset, which loses the \
              guest's state.",
        remedy: "Return the state of the state machine itself, never a number of the firmware.",
        needs: &[Need::StopCopy],
        check: get_answers,
    },
    Rule {
        id: "FSM-12",
        level: Level::Must,
        statement: "reading data to their end changes no state",
        source: "VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE: no asynchronous state transitions",
        why: "The end of data is no end of the session: a VMM ends it with a SET, and until then relies on \
              the device standing still. A device that runs on by itself runs while its copy starts \
              elsewhere.",
        remedy: "Change the state in migration_set_state and in a reset, and nowhere else.",
        needs: &[Need::StopCopy],
        check: end_changes_nothing,
    },
    Rule {
        id: "FSM-13",
        level: Level::Must,
        statement: "closing the data fd changes no state, and the session's end is still accepted",
        source: "VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE: no transitions outside of manipulation by the user",
        why: "A VMM closes the descriptor whenever it is done with it, before or after the SET that ends the \
              session. A device that starts by that runs with a state that has gone elsewhere.",
        remedy: "Free the session's memory in release(), and do the arc's work in migration_set_state alone.",
        needs: &[Need::StopCopy],
        check: close_changes_nothing,
    },
];

fn direct(trial: &mut Trial<'_, '_>) -> Checked {
    taken(trial, |steps| steps == 1)
}

fn combined(trial: &mut Trial<'_, '_>) -> Checked {
    taken(trial, |steps| steps > 1)
}

fn taken(trial: &mut Trial<'_, '_>, is_meant: fn(usize) -> bool) -> Checked {
    let walked = walk(trial);
    let mut count = 0;
    for Walked { from, to, seen, .. } in walked.iter().filter(|walked| is_meant(walked.steps)) {
        match seen {
            Ok(seen) => {
                count += 1;
                let answer = &seen.answer;
                trial.expect(answer.is_ok(), || {
                    format!("{from} → {to}: wanted success, got {}", said(answer))
                });
            }
            Err(reason) => trial.missed(reason.clone()),
        }
    }
    trial.tried(format!("{count} arcs"));
    Ok(())
}

fn get_says_new(trial: &mut Trial<'_, '_>) -> Checked {
    let walked = walk(trial);
    for Walked { from, to, seen, .. } in walked.iter().filter(|walked| walked.steps > 0) {
        let Ok(seen) = seen else { continue };
        if seen.answer.is_ok() && is_one_of_them(trial, &seen.after) {
            trial.expect(seen.after == Ok(to.raw()), || {
                format!("{from} → {to}: wanted {to}, got {}", state(&seen.after))
            });
        }
    }
    Ok(())
}

fn current(trial: &mut Trial<'_, '_>) -> Checked {
    let walked = walk(trial);
    for Walked { to, seen, .. } in walked.iter().filter(|walked| walked.steps == 0) {
        let Ok(seen) = seen else { continue };
        let answer = &seen.answer;
        trial.expect(*answer == Ok(false), || {
            let got = answer.map_or_else(|_| said(answer), |_| "a data fd".to_owned());
            format!("{to} → {to}: wanted success without a data fd, got {got}")
        });
        let (before, after) = (&seen.before, &seen.after);
        trial.expect(before == after, || {
            format!("{to} → {to}: GET said {} before, {} after", state(before), state(after))
        });
        trial.expect(seen.old != Some(Err(Errno::NODEV)), || {
            format!("{to} → {to}: the session has ended, its data fd answers ENODEV")
        });
    }
    Ok(())
}

fn back(trial: &mut Trial<'_, '_>) -> Checked {
    refused(trial, Impossible::Back)
}

fn outside_flags(trial: &mut Trial<'_, '_>) -> Checked {
    if trial.features().p2p && trial.features().pre_copy {
        return Err("the flags have every state".into());
    }
    refused(trial, Impossible::Flags)
}

fn error(trial: &mut Trial<'_, '_>) -> Checked {
    refused(trial, Impossible::Error)
}

fn unknown_states(trial: &mut Trial<'_, '_>) -> Checked {
    refused(trial, Impossible::Unknown)
}

fn refused(trial: &mut Trial<'_, '_>, why: Impossible) -> Checked {
    let asked = refusals(trial);
    for Refused { from, number, answer, .. } in asked.iter().filter(|asked| asked.why == why) {
        trial.expect(answer.is_err(), || {
            format!("{from} → {}: wanted a refusal, got success", number_of_state(*number))
        });
    }
    Ok(())
}

fn impossible_leaves(trial: &mut Trial<'_, '_>) -> Checked {
    let asked = refusals(trial);
    for asked in asked.iter().filter(|asked| asked.answer.is_err()) {
        let Refused { from, number, before, after, .. } = asked;
        trial.expect(before == after, || {
            let to = number_of_state(*number);
            format!("{from} → {to}, refused: GET said {} before, {} after", state(before), state(after))
        });
    }
    Ok(())
}

fn impossible_is_einval(trial: &mut Trial<'_, '_>) -> Checked {
    let asked = refusals(trial);
    for Refused { from, number, answer, .. } in asked.iter().filter(|asked| asked.answer.is_err()) {
        trial.expect(*answer == Err(Errno::INVAL), || {
            format!("{from} → {}: wanted EINVAL, got {}", number_of_state(*number), said(answer))
        });
    }
    Ok(())
}

fn get_answers(trial: &mut Trial<'_, '_>) -> Checked {
    for at in states(trial) {
        match trial.lab.reach(at) {
            Ok(_) => {
                let got = trial.lab.get();
                trial.expect(is_one_of_them(trial, &got), || {
                    format!("in {at}: wanted a state of the flags, got {}", state(&got))
                });
            }
            Err(reason) => trial.missed(reason),
        }
    }
    Ok(())
}

fn end_changes_nothing(trial: &mut Trial<'_, '_>) -> Checked {
    let data = trial.session(State::StopCopy)?;
    let before = trial.lab.get();
    let (_, end) = read_to_end(&data, PIECE, &mut |_| Ok(()))?;
    end.came()?;
    let after = trial.lab.get();
    unchanged(trial, State::StopCopy, "the end of data", &before, &after);
    let end = trial.lab.set(State::Stop);
    trial.expect(end.is_ok(), || format!("STOP_COPY → STOP at the end of data is refused: {}", said(&end)));
    Ok(())
}

fn close_changes_nothing(trial: &mut Trial<'_, '_>) -> Checked {
    let ends = [
        (State::StopCopy, State::Stop),
        (State::PreCopy, State::Running),
        (State::PreCopyP2p, State::RunningP2p),
    ];
    for (at, to) in ends.into_iter().filter(|(at, _)| trial.lab.has(*at)).collect::<Vec<_>>() {
        drop(trial.session(at)?);
        let before = trial.lab.get();
        trial.lab.close();
        let after = trial.lab.get();
        unchanged(trial, at, "the close", &before, &after);
        let end = trial.lab.set(to);
        trial.expect(end.is_ok(), || format!("{at} → {to} after the close is refused: {}", said(&end)));
        if before != after {
            trial.lab.is_lost();
        }
    }
    Ok(())
}

fn unchanged(trial: &mut Trial<'_, '_>, at: State, what: &str, before: &Answer<u32>, after: &Answer<u32>) {
    trial.expect(before == after, || {
        format!("in {at}: GET said {} before {what}, {} after", state(before), state(after))
    });
}

/// Whether GET answered a state of the driver's flags; what else it may answer is FSM-11's.
fn is_one_of_them(trial: &Trial<'_, '_>, answer: &Answer<u32>) -> bool {
    let got = answer.ok().and_then(State::from_raw);
    got.is_some_and(|state| trial.lab.has(state))
}
