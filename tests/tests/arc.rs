//! `device::arc` against the kernel's own function and against a real device.
//!
//! Deliberately absent: a table of core's own. The oracle was made by running `vfio_mig_get_next_state`.

use std::collections::BTreeMap;

use vfio_migration_core::device::arc::{self, DataSession, LONGEST_PATH};
use vfio_migration_core::device::{Features, State};
use vfio_migration_tests::kernel::{self, Cell};

/// (flags, current, requested) → the next step, or nothing where the kernel says EINVAL.
type Oracle = BTreeMap<(u64, u32, u32), Option<u32>>;

fn oracle() -> Oracle {
    kernel::steps().map(|row| ((row.flags, row.current, row.requested), row.next)).collect()
}

/// All steps from `from` to `to` as the kernel's driver loop takes them.
fn kernels_path(oracle: &Oracle, features: Features, from: State, to: State) -> Option<Vec<State>> {
    let mut steps = vec![];
    let mut current = from;
    while let Some(next) = oracle[&(features.raw(), current.raw(), to.raw())] {
        if next == current.raw() {
            return Some(steps);
        }
        current = State::from_raw(next).unwrap();
        steps.push(current);
    }
    None
}

fn every_arc() -> impl Iterator<Item = (Features, State, State)> {
    let arcs = State::ALL.into_iter().flat_map(|from| State::ALL.map(|to| (from, to)));
    arcs.flat_map(|(from, to)| Features::ALL.map(|features| (features, from, to)))
}

#[test]
fn every_row_of_the_oracle_is_the_next_step() {
    let mut rows = 0;
    let mut legal = 0;
    for ((flags, current, requested), wanted) in oracle() {
        let ours = Features::from_raw(flags)
            .zip(State::from_raw(current).zip(State::from_raw(requested)))
            .and_then(|(features, (current, requested))| arc::next(features, current, requested))
            .map(State::raw);
        assert_eq!(ours, wanted, "flags {flags}, {current} to {requested}");
        rows += 1;
        legal += usize::from(wanted.is_some());
    }
    assert_eq!((rows, legal), (800, 4 * 4 + 5 * 5 + (5 * 5 - 1) + (7 * 7 - 2)));
}

#[test]
fn flags_without_stop_copy_are_no_features_and_the_kernel_refuses_all_their_arcs() {
    let oracle = oracle();
    for flags in 0..8 {
        let mut of_flags = oracle.iter().filter(|((row, ..), _)| *row == flags);
        let refuses_all = of_flags.all(|(_, next)| next.is_none());
        assert_eq!(Features::from_raw(flags).is_none(), refuses_all, "flags {flags}");
    }
}

#[test]
fn numbers_past_the_last_state_are_no_states_and_the_kernel_refuses_all_their_arcs() {
    let mut rows = 0;
    for ((flags, current, requested), next) in oracle() {
        if current.max(requested) >= 8 {
            assert_eq!(next, None, "flags {flags}, {current} to {requested}");
            assert_eq!(State::from_raw(current.max(requested)), None);
            rows += 1;
        }
    }
    assert_eq!(rows, 8 * (100 - 64));
}

#[test]
fn error_is_never_left_and_never_asked_for() {
    for (features, from, to) in every_arc().filter(|(_, from, to)| [from, to].contains(&&State::Error)) {
        assert_eq!(arc::next(features, from, to), None, "{features}: {from} to {to}");
        assert_eq!(arc::path(features, from, to), None, "{features}: {from} to {to}");
        assert_eq!(arc::data_session(features, from, to), None, "{features}: {from} to {to}");
    }
}

#[test]
fn every_path_is_the_kernels_step_by_step_and_the_longest_has_the_length_that_is_named() {
    let oracle = oracle();
    let mut longest = 0;
    for (features, from, to) in every_arc() {
        let ours = arc::path(features, from, to).map(|steps| steps.to_vec());
        assert_eq!(ours, kernels_path(&oracle, features, from, to), "{features}: {from} to {to}");
        longest = longest.max(ours.map_or(0, |steps| steps.len()));
    }
    assert_eq!(longest, LONGEST_PATH);
}

#[test]
fn an_arc_to_the_same_state_takes_no_step() {
    for features in Features::ALL {
        for state in State::ALL.into_iter().filter(|&state| state != State::Error && features.have(state)) {
            assert_eq!(arc::path(features, state, state).map(|steps| steps.len()), Some(0), "{state}");
        }
    }
}

/// What a step does to the data session by the drivers' code: the steps that make an fd, keep it, or disable it.
fn step_of_session(from: State, to: State) -> DataSession {
    use State::{PreCopy, PreCopyP2p, Resuming, Running, RunningP2p, Stop, StopCopy};
    match (from, to) {
        (Running, PreCopy) | (RunningP2p, PreCopyP2p) | (Stop, StopCopy | Resuming) => DataSession::Opens,
        // hisi_acc, which has no P2P, goes from PRE_COPY to STOP_COPY in one step.
        (PreCopy, PreCopyP2p | StopCopy) | (PreCopyP2p, PreCopy | StopCopy) => DataSession::Kept,
        (StopCopy | Resuming, Stop) | (PreCopy, Running) | (PreCopyP2p, RunningP2p) => DataSession::Ends,
        (Stop, Running | RunningP2p) | (Running, Stop | RunningP2p) | (RunningP2p, Stop | Running) => {
            DataSession::Absent
        }
        _ => panic!("no driver has the step {from} to {to}"),
    }
}

#[test]
fn every_arc_does_to_the_session_what_its_steps_do() {
    let oracle = oracle();
    let mut counts = BTreeMap::<String, usize>::new();
    for (features, from, to) in every_arc() {
        let wanted = kernels_path(&oracle, features, from, to).map(|steps| {
            let froms = [from].into_iter().chain(steps.iter().copied());
            let seen: Vec<_> =
                froms.zip(steps.iter().copied()).map(|(from, to)| step_of_session(from, to)).collect();
            let opens = seen.contains(&DataSession::Opens);
            let ends = seen.contains(&DataSession::Ends);
            let has_one =
                [State::PreCopy, State::PreCopyP2p, State::StopCopy, State::Resuming].contains(&from);
            match (opens, ends, has_one) {
                (true, true, _) => DataSession::Replaced,
                (true, false, _) => DataSession::Opens,
                (false, true, _) => DataSession::Ends,
                (false, false, true) => DataSession::Kept,
                (false, false, false) => DataSession::Absent,
            }
        });
        assert_eq!(arc::data_session(features, from, to), wanted, "{features}: {from} to {to}");
        *counts.entry(format!("{wanted:?}")).or_default() += 1;
    }
    assert_eq!(counts.len(), 6, "each kind of arc is met: {counts:?}");
}

#[test]
fn a_real_device_gives_a_data_fd_with_exactly_the_arcs_that_open_or_replace_a_session() {
    let features = Features { p2p: true, pre_copy: true };
    let [first, with_state] = kernel::matrices();
    assert_eq!((first.len(), with_state.len()), (70, 10));
    // Without a complete state the driver itself refuses to leave RESUMING; the second matrix has these arcs.
    let first = first.into_iter().filter(|cell| cell.from != State::Resuming);
    let mut fds = 0;
    for Cell { from, to, answer, after } in first.chain(with_state) {
        let requested = State::from_raw(to);
        let session = requested.and_then(|to| arc::data_session(features, from, to));
        assert_eq!(session.map(DataSession::returns_data_fd), answer.ok(), "{from} to {to}");
        assert_eq!(Some(after), if answer.is_ok() { requested } else { Some(from) }, "{from} to {to}");
        fds += usize::from(answer == Ok(true));
    }
    assert_eq!(fds, 4 + 4 + 1 + 4 + 1 + 1 + 3);
}
