//! [`Fleet`]: who may join, and who may do what when.
//!
//! Deliberately absent: whole migrations, which are in `fleet_interleavings`, what a fleet reports, which is in
//! `fleet_report.rs`, and texts, which are in `words.rs`.

use vfio_migration_core::device::{Features, State};
use vfio_migration_core::session::fleet::{Fleet, Joining, Order, Refused, Verdict};
use vfio_migration_core::session::{Cause, Chunk, DestinationPhase, Failure, Left, SourcePhase};
use vfio_migration_core::stream::record::Terminator;
use vfio_migration_tests::script::ALL;

const P2P: Features = Features { p2p: true, pre_copy: false };
const PRE_COPY: Features = Features { p2p: false, pre_copy: true };
const NEITHER: Features = Features { p2p: false, pre_copy: false };

const ORDERS: [Order; 6] =
    [Order::Quiesce, Order::Stop, Order::Finish, Order::RunP2p, Order::Run, Order::Cancel];

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// Devices called a, b and so on, in this state.
fn joining(features: &[Features], now: State) -> Vec<Joining<'static>> {
    features.iter().zip(NAMES).map(|(&features, name)| Joining { name, features, now }).collect()
}

fn fleet(features: &[Features], now: State) -> Fleet<'static, 4> {
    Fleet::new(&joining(features, now)).unwrap()
}

/// What is answered to an order, which is not counted as given.
fn ask(fleet: &Fleet<'static, 4>, index: usize, order: Order) -> Verdict {
    fleet.clone().may(index, order)
}

const fn pre_copy(init_data_sent: bool) -> SourcePhase {
    SourcePhase::PreCopy(Chunk { bytes: 0, left: None, init_data_sent })
}

const fn failed(device: Left) -> SourcePhase {
    SourcePhase::Failed(Failure { cause: Cause::Cancelled, device })
}

const fn failed_at(state: State) -> SourcePhase {
    failed(Left::At(state))
}

/// Tells of a source in `phase`, and before it of what comes before that.
fn source_comes_to(fleet: &mut Fleet<'_, 4>, index: usize, phase: SourcePhase) {
    if phase == SourcePhase::Ready(State::RunningP2p) {
        fleet.source(index, SourcePhase::Stopped);
    }
    fleet.source(index, phase);
}

/// As [`source_comes_to`], of a destination.
fn destination_comes_to(fleet: &mut Fleet<'_, 4>, index: usize, phase: DestinationPhase) {
    if [DestinationPhase::RunningP2p, DestinationPhase::Running].contains(&phase) {
        fleet.destination(index, DestinationPhase::Stopped);
    }
    fleet.destination(index, phase);
}

#[test]
fn several_devices_without_p2p_are_refused_with_all_their_names() {
    let table: [(&[Features], &[&str]); 6] = [
        (&[NEITHER, NEITHER], &["a", "b"]),
        (&[ALL, PRE_COPY], &["b"]),
        (&[NEITHER, P2P], &["a"]),
        (&[PRE_COPY, ALL, NEITHER], &["a", "c"]),
        (&[NEITHER; 4], &["a", "b", "c", "d"]),
        (&[ALL, P2P, ALL, P2P], &[]),
    ];
    for now in [State::Running, State::Stop] {
        for (features, names) in table {
            let refused = match Fleet::<4>::new(&joining(features, now)) {
                Ok(_) => vec![],
                Err(Refused::NoP2p { names }) => names.to_vec(),
                Err(refused) => panic!("{refused}"),
            };
            assert_eq!(refused, names, "{features:?}");
        }
    }
}

#[test]
fn more_devices_than_there_is_room_for_are_refused_before_all_else() {
    for features in [ALL, NEITHER] {
        let refused = Fleet::<2>::new(&joining(&[features; 3], State::Running)).err();
        assert_eq!(refused, Some(Refused::TooMany { got: 3 }));
        let refused = Fleet::<1>::new(&joining(&[features; 4], State::Running)).err();
        assert_eq!(refused, Some(Refused::TooMany { got: 4 }));
    }
    assert!(Fleet::<2>::new(&joining(&[ALL; 2], State::Running)).is_ok());
    assert!(Fleet::<0>::new(&[]).is_ok());
}

#[test]
fn one_device_alone_needs_no_p2p_waits_for_nobody_and_takes_no_step_for_others() {
    for features in Features::ALL {
        let mut fleet = fleet(&[features], State::Running);
        let told = [
            (SourcePhase::Ready(State::Running), Order::Quiesce, Verdict::Done),
            (SourcePhase::SetUp, Order::Quiesce, Verdict::Done),
            (pre_copy(false), Order::Quiesce, Verdict::Done),
            (pre_copy(false), Order::Stop, Verdict::Go),
            (SourcePhase::SetUp, Order::Stop, Verdict::Go),
            (SourcePhase::Copying, Order::Stop, Verdict::Done),
            (SourcePhase::Copied, Order::Finish, Verdict::Go),
            (SourcePhase::Stopped, Order::RunP2p, Verdict::Done),
            (SourcePhase::Stopped, Order::Run, Verdict::Go),
            (SourcePhase::Ready(State::Running), Order::Run, Verdict::Done),
            (SourcePhase::Copied, Order::Cancel, Verdict::Go),
            (failed_at(State::Stop), Order::Cancel, Verdict::Go),
            (failed_at(State::Stop), Order::Finish, Verdict::GoBack),
        ];
        for (phase, order, verdict) in told {
            fleet.source(0, phase);
            assert_eq!(ask(&fleet, 0, order), verdict, "{order:?} in {phase:?}");
        }
    }
}

/// The phase of the one, its next order, and what it is told beside the other in each phase.
type Row<'a, P> = (P, Order, &'a [(P, Verdict)]);

#[test]
fn a_source_waits_for_the_other_where_it_could_be_reached_or_could_reach_it() {
    use SourcePhase::{Copied, Copying, Quiesced, Ready, SetUp, Stopped};
    use Verdict::{Done, Go, Wait};
    let (running, p2p) = (Ready(State::Running), Ready(State::RunningP2p));
    let table: [Row<'_, SourcePhase>; 11] = [
        (SetUp, Order::Quiesce, &[(running, Go), (SetUp, Go), (pre_copy(true), Go), (Quiesced, Go)]),
        (pre_copy(true), Order::Quiesce, &[(running, Go), (pre_copy(false), Go), (Quiesced, Go)]),
        (Quiesced, Order::Quiesce, &[(running, Done), (Quiesced, Done), (Copying, Done)]),
        // A device that was not quiesced is not stopped, whatever the other does.
        (SetUp, Order::Stop, &[(SetUp, Wait), (Quiesced, Wait)]),
        (pre_copy(true), Order::Stop, &[(pre_copy(true), Wait), (Quiesced, Wait)]),
        (
            Quiesced,
            Order::Stop,
            &[
                (running, Wait),
                (SetUp, Wait),
                (pre_copy(true), Wait),
                (Quiesced, Go),
                (Copying, Go),
                (Copied, Go),
            ],
        ),
        (Copying, Order::Stop, &[(Quiesced, Done), (Copying, Done), (Copied, Done)]),
        (Copied, Order::Finish, &[(Quiesced, Wait), (Copying, Go), (Copied, Go), (Stopped, Go)]),
        (Stopped, Order::RunP2p, &[(Copying, Wait), (Copied, Wait), (Stopped, Go), (p2p, Go)]),
        (p2p, Order::RunP2p, &[(Stopped, Done), (p2p, Done)]),
        (p2p, Order::Run, &[(Copied, Wait), (Stopped, Wait), (p2p, Go), (running, Go)]),
    ];
    for (phase, order, others) in table {
        for &(other, verdict) in others {
            // Which of the two is asked makes no difference, nor does a third that is where the other is.
            for (a, b, features) in [(0, 1, &[ALL; 2][..]), (1, 0, &[P2P; 2]), (0, 1, &[ALL; 3])] {
                let mut fleet = fleet(features, State::Running);
                source_comes_to(&mut fleet, 2, other);
                source_comes_to(&mut fleet, a, phase);
                source_comes_to(&mut fleet, b, other);
                assert_eq!(ask(&fleet, a, order), verdict, "{order:?} in {phase:?} beside {other:?}");
            }
        }
    }
}

#[test]
fn one_of_three_that_is_not_so_far_keeps_the_others_waiting() {
    use SourcePhase::{Copied, Quiesced, Ready, SetUp, Stopped};
    let table = [
        (Quiesced, Order::Stop, SetUp, Quiesced),
        (Copied, Order::Finish, Quiesced, Copied),
        (Stopped, Order::RunP2p, Copied, Stopped),
        (Ready(State::RunningP2p), Order::Run, Stopped, Ready(State::RunningP2p)),
    ];
    for (phase, order, late, then) in table {
        let mut fleet = fleet(&[ALL; 3], State::Running);
        source_comes_to(&mut fleet, 0, phase);
        source_comes_to(&mut fleet, 1, late);
        source_comes_to(&mut fleet, 2, phase);
        assert_eq!([0, 2].map(|index| ask(&fleet, index, order)), [Verdict::Wait; 2], "{order:?}");
        source_comes_to(&mut fleet, 1, then);
        assert_eq!([0, 1, 2].map(|index| ask(&fleet, index, order)), [Verdict::Go; 3], "{order:?}");
    }
}

#[test]
fn a_paused_machines_devices_need_not_be_quiesced() {
    let mut fleet = fleet(&[ALL, P2P], State::Stop);
    for phase in [SourcePhase::Ready(State::Stop), SourcePhase::SetUp] {
        fleet.source(0, phase);
        assert_eq!(ask(&fleet, 0, Order::Quiesce), Verdict::Done);
        assert_eq!(ask(&fleet, 0, Order::Stop), Verdict::Go);
    }
    fleet.source(0, SourcePhase::Copied);
    assert_eq!((ask(&fleet, 0, Order::Stop), ask(&fleet, 0, Order::Finish)), (Verdict::Done, Verdict::Go));
}

#[test]
fn a_destination_starts_no_dma_before_all_are_loaded_and_runs_after_all_are_in_running_p2p() {
    use DestinationPhase::{Ready, Resuming, Running, RunningP2p, Section, Stopped};
    use Verdict::{Done, Go, Wait};
    let end = Section(Terminator::EndOfState);
    let loading = [
        (Ready(State::Running), Wait),
        (Resuming, Wait),
        (end, Wait),
        (Section(Terminator::InitDataSent), Wait),
        (Section(Terminator::ConfigLoadReady), Wait),
    ];
    let table: [Row<'_, DestinationPhase>; 7] = [
        (Stopped, Order::RunP2p, &loading),
        (Stopped, Order::RunP2p, &[(Stopped, Go), (RunningP2p, Go)]),
        (Stopped, Order::Run, &[(Stopped, Wait), (RunningP2p, Wait), (Running, Wait)]),
        (RunningP2p, Order::RunP2p, &[(Stopped, Done), (RunningP2p, Done)]),
        (RunningP2p, Order::Run, &[(end, Wait), (Stopped, Wait), (RunningP2p, Go), (Running, Go)]),
        (Running, Order::Run, &[(RunningP2p, Done), (Running, Done)]),
        (end, Order::Run, &[(Stopped, Wait), (RunningP2p, Wait)]),
    ];
    for (phase, order, others) in table {
        for &(other, verdict) in others {
            for (a, b) in [(0, 1), (1, 0)] {
                let mut fleet = fleet(&[ALL, P2P], State::Running);
                destination_comes_to(&mut fleet, a, phase);
                destination_comes_to(&mut fleet, b, other);
                assert_eq!(ask(&fleet, a, order), verdict, "{order:?} in {phase:?} beside {other:?}");
            }
        }
    }
}

#[test]
fn after_a_cancel_or_a_failure_every_order_on_the_way_out_is_answered_with_go_back() {
    let failures = [
        failed_at(State::Running),
        failed_at(State::RunningP2p),
        failed_at(State::Stop),
        failed(Left::Reset),
        failed(Left::Unknown),
    ];
    let out = [Order::Quiesce, Order::Stop, Order::Finish];
    for phase in [SourcePhase::SetUp, SourcePhase::Quiesced, SourcePhase::Copying, SourcePhase::Copied] {
        let mut cancelled = fleet(&[ALL; 2], State::Running);
        cancelled.source(0, phase);
        cancelled.cancel();
        assert_eq!(out.map(|order| ask(&cancelled, 0, order)), [Verdict::GoBack; 3], "{phase:?}");
        for failure in failures {
            let mut fleet = fleet(&[ALL; 2], State::Running);
            fleet.source(0, phase);
            fleet.source(1, failure);
            assert_eq!(
                out.map(|order| ask(&fleet, 0, order)),
                [Verdict::GoBack; 3],
                "{phase:?}, {failure:?}"
            );
            assert_eq!(out.map(|order| ask(&fleet, 1, order)), [Verdict::GoBack; 3], "the one that failed");
        }
    }
    let mut fleet = fleet(&[ALL; 2], State::Running);
    fleet.destination(0, DestinationPhase::Resuming);
    fleet.destination(1, DestinationPhase::Failed(Failure { cause: Cause::Cancelled, device: Left::Reset }));
    assert_eq!(ask(&fleet, 0, Order::RunP2p), Verdict::GoBack);
}

#[test]
fn who_has_retreated_goes_on_once_no_other_stands_still_or_all_are_home() {
    use SourcePhase::{Copied, Copying, SetUp, Stopped};
    use Verdict::{Go, Wait};
    let running: &[(SourcePhase, Verdict)] = &[
        (Copying, Wait),
        (Copied, Wait),
        (Stopped, Wait),
        (failed_at(State::Stop), Wait),
        (failed_at(State::RunningP2p), Go),
        (failed_at(State::Running), Go),
        // Not waited for.
        (failed(Left::Reset), Go),
        (failed(Left::Unknown), Go),
    ];
    let stopped: &[(SourcePhase, Verdict)] =
        &[(SetUp, Go), (Copying, Wait), (failed_at(State::Stop), Go), (failed(Left::Reset), Go)];
    for (now, retreated, others) in
        [(State::Running, State::RunningP2p, running), (State::Stop, State::Stop, stopped)]
    {
        for &(other, verdict) in others {
            for (a, b) in [(0, 1), (1, 0)] {
                let mut fleet = fleet(&[ALL; 2], now);
                fleet.source(b, other);
                fleet.source(a, failed_at(retreated));
                assert_eq!(ask(&fleet, a, Order::Cancel), verdict, "from {now}, beside {other:?}");
            }
        }
    }
}

#[test]
fn a_stop_that_had_leave_counts_until_its_end_is_told() {
    let quiet = failed_at(State::RunningP2p);
    let ends = [
        (SourcePhase::Copying, Verdict::Wait),
        (failed_at(State::Stop), Verdict::Wait),
        (quiet, Verdict::Go),
        (failed(Left::Reset), Verdict::Go),
    ];
    for (end, verdict) in ends {
        for (has_leave, meanwhile) in [(false, Verdict::Go), (true, Verdict::Wait)] {
            let mut fleet = fleet(&[ALL; 2], State::Running);
            fleet.source(0, SourcePhase::Quiesced);
            fleet.source(1, SourcePhase::Quiesced);
            assert!(!has_leave || fleet.may(0, Order::Stop) == Verdict::Go);
            fleet.source(1, quiet);
            assert_eq!(ask(&fleet, 1, Order::Cancel), meanwhile);
            fleet.source(0, end);
            assert_eq!(ask(&fleet, 1, Order::Cancel), verdict, "{end:?}");
        }
    }
}

#[test]
fn leave_that_was_refused_does_not_count() {
    let mut fleet = fleet(&[ALL; 2], State::Running);
    fleet.source(0, SourcePhase::Quiesced);
    assert_eq!(fleet.may(0, Order::Stop), Verdict::Wait);
    fleet.source(1, failed_at(State::RunningP2p));
    assert_eq!(fleet.may(0, Order::Stop), Verdict::GoBack);
    assert_eq!(ask(&fleet, 1, Order::Cancel), Verdict::Go);
}

#[test]
fn a_saved_device_of_a_paused_machine_waits_for_those_that_are_not_saved_yet() {
    use SourcePhase::{Copied, Copying, Ready, SetUp, Stopped};
    for other in [Ready(State::Stop), SetUp, Copying, Copied] {
        let mut fleet = fleet(&[ALL, P2P], State::Stop);
        fleet.source(0, Stopped);
        fleet.source(1, other);
        assert_eq!(ask(&fleet, 0, Order::RunP2p), Verdict::Wait, "{other:?}");
        fleet.source(1, Copied);
        assert_eq!(ask(&fleet, 1, Order::Finish), Verdict::Go);
        fleet.source(1, Stopped);
        assert_eq!([0, 1].map(|index| ask(&fleet, index, Order::RunP2p)), [Verdict::Go; 2]);
    }
    let mut fleet = fleet(&[ALL, P2P], State::Stop);
    fleet.destination(0, DestinationPhase::Stopped);
    fleet.destination(1, DestinationPhase::Ready(State::Stop));
    assert_eq!(ask(&fleet, 0, Order::RunP2p), Verdict::Wait);
}

#[test]
fn once_one_of_a_paused_machines_devices_has_leave_to_run_the_others_run_on_too() {
    let p2p = SourcePhase::Ready(State::RunningP2p);
    let to_p2p = || {
        let mut fleet = fleet(&[ALL; 3], State::Stop);
        (0..3).for_each(|index| source_comes_to(&mut fleet, index, p2p));
        fleet
    };
    // Cancelled before: they go back.
    let mut fleet = to_p2p();
    fleet.cancel();
    assert_eq!(fleet.may(0, Order::Run), Verdict::GoBack);
    // Not cancelled: who runs is done.
    let mut fleet = to_p2p();
    assert_eq!(fleet.may(0, Order::Run), Verdict::Go);
    fleet.source(0, SourcePhase::Ready(State::Running));
    assert_eq!([0, 1].map(|index| ask(&fleet, index, Order::Run)), [Verdict::Done, Verdict::Go]);
    // Cancelled, or one of them lost, after it.
    for lost in [false, true] {
        let mut fleet = to_p2p();
        assert_eq!(fleet.may(0, Order::Run), Verdict::Go);
        if lost {
            fleet.source(1, failed(Left::Reset));
        }
        fleet.cancel();
        assert_eq!(fleet.may(2, Order::Run), Verdict::Go);
        fleet.source(0, SourcePhase::Ready(State::Running));
        assert_eq!(ask(&fleet, 2, Order::Run), Verdict::Go);
    }
}

#[test]
fn a_running_machines_devices_and_destinations_go_back_also_when_one_has_leave_to_run() {
    let mut sources = fleet(&[ALL; 2], State::Running);
    (0..2).for_each(|index| source_comes_to(&mut sources, index, SourcePhase::Ready(State::RunningP2p)));
    assert_eq!(sources.may(0, Order::Run), Verdict::Go);
    sources.cancel();
    assert_eq!(ask(&sources, 1, Order::Run), Verdict::GoBack);
    for now in [State::Running, State::Stop] {
        let mut fleet = fleet(&[ALL; 2], now);
        (0..2).for_each(|index| destination_comes_to(&mut fleet, index, DestinationPhase::RunningP2p));
        assert_eq!(fleet.may(0, Order::Run), Verdict::Go);
        fleet.cancel();
        assert_eq!(ask(&fleet, 1, Order::Run), Verdict::GoBack, "from {now}");
    }
}

/// What is answered to every order, each of [`ORDERS`] in its place.
fn answers(fleet: &Fleet<'static, 4>, index: usize) -> [Verdict; 6] {
    ORDERS.map(|order| ask(fleet, index, order))
}

#[test]
fn a_committed_source_finishes_and_runs_on_in_lockstep_without_the_lost_and_never_goes_back() {
    use SourcePhase::{Copied, Quiesced, Ready, Stopped};
    use Verdict::{Done, Go, Wait};
    let (running, p2p) = (Ready(State::Running), Ready(State::RunningP2p));
    let (reset, unknown) = (failed(Left::Reset), failed(Left::Unknown));
    // Finish, RunP2p and Run.
    let table: [(SourcePhase, SourcePhase, [Verdict; 3]); 19] = [
        (Copied, Copied, [Go, Wait, Wait]),
        (Copied, Stopped, [Go, Go, Wait]),
        (Copied, reset, [Go, Go, Wait]),
        (Copied, unknown, [Go, Go, Wait]),
        (Copied, failed_at(State::Stop), [Go, Wait, Wait]),
        (Copied, Quiesced, [Wait, Go, Wait]),
        (Stopped, Copied, [Done, Wait, Wait]),
        (Stopped, Stopped, [Done, Go, Wait]),
        (Stopped, p2p, [Done, Go, Wait]),
        (Stopped, reset, [Done, Go, Wait]),
        (Stopped, unknown, [Done, Go, Wait]),
        (Stopped, failed_at(State::Stop), [Done, Wait, Wait]),
        (p2p, Stopped, [Go, Done, Wait]),
        (p2p, p2p, [Wait, Done, Go]),
        (p2p, running, [Wait, Done, Go]),
        (p2p, reset, [Go, Done, Go]),
        (p2p, unknown, [Go, Done, Go]),
        (running, p2p, [Wait, Go, Done]),
        (running, reset, [Go, Go, Done]),
    ];
    for (phase, other, [finish, run_p2p, run]) in table {
        let wanted = [Done, Done, finish, run_p2p, run, Done];
        for (a, b, features) in [(0, 1, &[ALL; 2][..]), (1, 0, &[P2P; 2]), (0, 1, &[ALL; 3])] {
            for (now, early) in [(State::Running, false), (State::Stop, false), (State::Running, true)] {
                let mut fleet = fleet(features, now);
                let all = |fleet: &mut _| (0..3).for_each(|index| source_comes_to(fleet, index, Copied));
                all(&mut fleet);
                // A failure before the commit counts no more than one after it.
                if early {
                    source_comes_to(&mut fleet, b, other);
                }
                fleet.commit();
                source_comes_to(&mut fleet, 2, other);
                source_comes_to(&mut fleet, a, phase);
                source_comes_to(&mut fleet, b, other);
                assert_eq!(answers(&fleet, a), wanted, "{phase:?} beside {other:?}, from {now}");
                fleet.cancel();
                assert_eq!(answers(&fleet, a), wanted, "cancelled, {phase:?} beside {other:?}");
            }
        }
    }
}

#[test]
fn a_committed_destination_runs_in_lockstep_without_the_lost() {
    use DestinationPhase::{Failed, Running, RunningP2p, Stopped};
    use Verdict::{Done, Go, Wait};
    let lost = |device| Failed(Failure { cause: Cause::Cancelled, device });
    let table: [(DestinationPhase, DestinationPhase, [Verdict; 2]); 8] = [
        (Stopped, Stopped, [Go, Wait]),
        (Stopped, RunningP2p, [Go, Wait]),
        (Stopped, lost(Left::Reset), [Go, Wait]),
        (Stopped, lost(Left::Unknown), [Go, Wait]),
        (RunningP2p, Stopped, [Done, Wait]),
        (RunningP2p, lost(Left::Reset), [Done, Go]),
        (RunningP2p, lost(Left::Unknown), [Done, Go]),
        (RunningP2p, Running, [Done, Go]),
    ];
    for (phase, other, verdicts) in table {
        for (a, b) in [(0, 1), (1, 0)] {
            let mut fleet = fleet(&[ALL, P2P], State::Running);
            (0..2).for_each(|index| destination_comes_to(&mut fleet, index, Stopped));
            fleet.commit();
            destination_comes_to(&mut fleet, a, phase);
            destination_comes_to(&mut fleet, b, other);
            let asked = [Order::RunP2p, Order::Run].map(|order| ask(&fleet, a, order));
            assert_eq!(asked, verdicts, "{phase:?} beside {other:?}");
        }
    }
}

#[test]
fn a_committed_device_alone_waits_for_nobody() {
    use Verdict::{Done, Go};
    let table = [
        (SourcePhase::Copied, [Done, Done, Go, Done, Go, Done]),
        (SourcePhase::Stopped, [Done, Done, Done, Done, Go, Done]),
        (SourcePhase::Ready(State::Running), [Done, Done, Go, Done, Done, Done]),
    ];
    for features in Features::ALL {
        for (phase, wanted) in table {
            let mut fleet = fleet(&[features], State::Running);
            fleet.source(0, SourcePhase::Copied);
            fleet.commit();
            fleet.source(0, phase);
            assert_eq!(answers(&fleet, 0), wanted, "{phase:?}");
        }
    }
}

#[test]
fn a_finish_that_is_refused_turns_all_back_before_the_commit_and_nobody_after_it() {
    for (committed, verdict) in [(false, Verdict::GoBack), (true, Verdict::Go)] {
        let mut fleet = fleet(&[ALL; 3], State::Running);
        (0..3).for_each(|index| fleet.source(index, SourcePhase::Copied));
        if committed {
            fleet.commit();
        }
        assert_eq!(fleet.may(0, Order::Finish), Verdict::Go);
        fleet.source(0, failed(Left::Reset));
        assert_eq!([1, 2].map(|index| ask(&fleet, index, Order::Finish)), [verdict; 2]);
        // The failure is reported all the same.
        assert_eq!(fleet.first_failure().map(|(name, _)| name), Some("a"));
    }
}

#[test]
fn a_commit_ends_a_way_back_and_a_cancel_after_it_begins_none() {
    let mut fleet = fleet(&[ALL; 2], State::Running);
    (0..2).for_each(|index| fleet.source(index, SourcePhase::Copied));
    fleet.cancel();
    assert_eq!(ask(&fleet, 0, Order::Finish), Verdict::GoBack);
    fleet.commit();
    let before = format!("{fleet:?}");
    assert_eq!(ask(&fleet, 0, Order::Finish), Verdict::Go);
    fleet.cancel();
    fleet.commit();
    assert_eq!(format!("{fleet:?}"), before);
}

#[test]
fn a_number_past_the_last_device_waits_for_ever_and_changes_nothing() {
    let mut fleet = fleet(&[ALL; 2], State::Running);
    let before = format!("{fleet:?}");
    for index in [2, 4, usize::MAX] {
        fleet.source(index, SourcePhase::Copied);
        fleet.source(index, failed(Left::Unknown));
        fleet.destination(index, DestinationPhase::Running);
        assert_eq!(ORDERS.map(|order| ask(&fleet, index, order)), [Verdict::Wait; 6]);
    }
    assert_eq!(format!("{fleet:?}"), before);
}
