//! What a [`Fleet`] reports: the first failure, where each device is, and whether all initial data are there.
//!
//! Deliberately absent: what may be done when, which is in `fleet.rs`.

use vfio_migration_core::device::{Features, State};
use vfio_migration_core::session::fleet::{Fleet, Joining};
use vfio_migration_core::session::{Cause, Chunk, Code, DestinationPhase, Failure, Left, SourcePhase};
use vfio_migration_core::stream::record::Terminator;
use vfio_migration_tests::script::ALL;

const P2P: Features = Features { p2p: true, pre_copy: false };
const NEITHER: Features = Features { p2p: false, pre_copy: false };

/// Devices called a, b and so on, of a running machine.
fn fleet(features: &[Features]) -> Fleet<'static, 4> {
    let joining = |(&features, name)| Joining { name, features, now: State::Running };
    Fleet::new(&features.iter().zip(["a", "b", "c"]).map(joining).collect::<Vec<_>>()).unwrap()
}

const fn pre_copy(init_data_sent: bool) -> SourcePhase {
    SourcePhase::PreCopy(Chunk { bytes: 0, left: None, init_data_sent })
}

#[test]
fn the_first_failure_stays_the_first_and_the_report_says_where_each_device_is_now() {
    let mut fleet = fleet(&[ALL; 3]);
    let report = |fleet: &Fleet<'static, 4>| fleet.report().collect::<Vec<_>>();
    assert_eq!(fleet.first_failure(), None);
    assert_eq!(report(&fleet), [("a", None), ("b", None), ("c", None)]);
    let cause = Cause::Refused { state: State::StopCopy, code: Code(16) };
    let at = |state| Failure { cause, device: Left::At(state) };
    let cancelled = |state| Failure { cause: Cause::Cancelled, device: Left::At(state) };
    fleet.source(1, SourcePhase::Failed(at(State::Stop)));
    assert_eq!(fleet.first_failure(), Some(("b", at(State::Stop))));
    fleet.source(0, SourcePhase::Failed(cancelled(State::RunningP2p)));
    assert_eq!(fleet.first_failure(), Some(("b", at(State::Stop))));
    fleet.source(1, SourcePhase::Failed(at(State::RunningP2p)));
    fleet.source(1, SourcePhase::Failed(at(State::Running)));
    assert_eq!(fleet.first_failure(), Some(("b", at(State::Running))));
    let quiet = Some(cancelled(State::RunningP2p));
    assert_eq!(report(&fleet), [("a", quiet), ("b", Some(at(State::Running))), ("c", None)]);
}

#[test]
fn a_cancel_alone_is_no_failure_of_any_device() {
    let mut fleet = fleet(&[ALL; 2]);
    fleet.cancel();
    assert_eq!(fleet.first_failure(), None);
    assert!(fleet.report().all(|(_, failure)| failure.is_none()));
}

#[test]
fn initial_data_are_there_when_every_source_with_pre_copy_has_sent_them_also_after_it_began_anew() {
    let mut fleet = fleet(&[ALL, P2P, ALL]);
    let told = [
        (0, SourcePhase::Ready(State::Running), false),
        (1, SourcePhase::SetUp, false),
        (0, pre_copy(false), false),
        (0, pre_copy(true), false),
        (2, pre_copy(false), false),
        (2, pre_copy(true), true),
        (2, pre_copy(false), false),
        (2, pre_copy(true), true),
        (0, SourcePhase::Quiesced, true),
        (0, SourcePhase::Copying, true),
    ];
    for (at, (index, phase, there)) in told.into_iter().enumerate() {
        fleet.source(index, phase);
        assert_eq!(fleet.initial_data_there(), there, "{at}: {phase:?}");
    }
}

#[test]
fn a_device_that_goes_without_pre_copy_has_no_initial_data_to_wait_for() {
    assert!(fleet(&[]).initial_data_there());
    assert!(fleet(&[NEITHER]).initial_data_there());
    assert!(fleet(&[P2P, P2P]).initial_data_there());
    let mut fleet = fleet(&[ALL, ALL]);
    for (index, there) in [(0, false), (1, true)] {
        fleet.source(index, SourcePhase::SetUp);
        assert_eq!(fleet.initial_data_there(), there);
    }
}

#[test]
fn initial_data_are_there_when_every_destination_with_pre_copy_was_told_so_once() {
    let mut fleet = fleet(&[ALL, P2P, ALL]);
    let section = DestinationPhase::Section;
    let told = [
        (0, DestinationPhase::Resuming, false),
        (0, section(Terminator::EndOfState), false),
        (0, section(Terminator::ConfigLoadReady), false),
        (0, section(Terminator::InitDataSent), false),
        (1, section(Terminator::EndOfState), false),
        (2, section(Terminator::InitDataSent), true),
        (2, section(Terminator::EndOfState), true),
        (2, section(Terminator::InitDataSent), true),
        (0, DestinationPhase::Stopped, true),
    ];
    for (at, (index, phase, there)) in told.into_iter().enumerate() {
        fleet.destination(index, phase);
        assert_eq!(fleet.initial_data_there(), there, "{at}: {phase:?}");
    }
}
