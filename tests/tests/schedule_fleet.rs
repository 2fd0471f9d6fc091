//! A [`Fleet`](vfio_migration_core::session::Fleet) of two under every schedule of up to three failures and of turns
//! that another device takes, and a fleet of one.
//!
//! The devices are driven as by a thread each: between an operation and its report, and between a fleet's leave and the
//! operation, the other device may go on.
//!
//! Deliberately absent: more than two devices. Whatever one does, the other is all of the rest.

use vfio_migration_core::device::State::{self, Running, Stop};
use vfio_migration_tests::schedule::check::Against;
use vfio_migration_tests::schedule::explore::{self, Count, Found};
use vfio_migration_tests::schedule::orders::{
    LOAD_END, Order, PAUSED, PAUSED_RUN, QUIESCED, TOGETHER_PRE_COPY,
};
use vfio_migration_tests::schedule::setting::{Make, Setting, end_alone};
use vfio_migration_tests::schedule::team::{Team, Turns};

/// A device without data: they need no lockstep.
fn source(flags: u64, from: State, script: &'static [Order]) -> Setting {
    let setting = Setting::source("source", flags, from, script);
    Setting { make: Make { initial: 0, rest: 0, ..setting.make }, ..setting }
}

fn destination(flags: u64, from: State, strict: bool) -> Setting {
    Setting::destination("destination", Make::destination(flags, from, strict), LOAD_END, end_alone())
}

/// The device that begins, who goes on, and whether the other one retreats in the middle of an order.
type Way = (usize, Turns, bool);

const AS_FAR_AS_IT_GOES: Way = (0, Turns::AsFarAsItGoes, false);
const RIGHT_FIRST: Way = (1, Turns::AsFarAsItGoes, false);
const BY_STEP: Way = (0, Turns::ByStep, false);
const WAYS: [Way; 8] = [
    AS_FAR_AS_IT_GOES,
    RIGHT_FIRST,
    (0, Turns::AsFarAsItGoes, true),
    (1, Turns::AsFarAsItGoes, true),
    BY_STEP,
    (1, Turns::ByStep, false),
    (0, Turns::ByStep, true),
    (1, Turns::ByStep, true),
];

fn team(settings: Vec<Setting>, (first, turns, prompt): Way) -> Team {
    Team { settings, first, turns, prompt }
}

fn with_fleet(team: &Team, most: usize) -> Result<Count, Found> {
    explore::team(team, most, None, Against::Both)
}

fn stop_copy() -> Setting {
    source(3, Running, QUIESCED)
}

fn pre_copy() -> Setting {
    source(7, Running, TOGETHER_PRE_COPY)
}

/// Every pair of devices that migrate together.
fn pairs() -> [Vec<Setting>; 7] {
    [
        vec![stop_copy(), stop_copy()],
        vec![stop_copy(), pre_copy()],
        vec![pre_copy(), pre_copy()],
        vec![source(7, Stop, PAUSED), source(3, Stop, PAUSED)],
        vec![source(7, Stop, PAUSED_RUN), source(3, Stop, PAUSED_RUN)],
        vec![destination(3, Running, false), destination(7, Running, true)],
        vec![destination(7, Stop, true), destination(3, Stop, false)],
    ]
}

#[test]
fn every_schedule_of_two_failures_of_a_fleet_of_two_keeps_lockstep_in_every_way() {
    let all: Vec<_> = pairs().into_iter().flat_map(|pair| WAYS.map(|way| team(pair.clone(), way))).collect();
    let count = explore::all("fleet of two", &all, Team::title, |team| with_fleet(team, 2));
    assert_eq!(count.run, [56, 6000, 156_437, 0], "schedules of 0, 1, 2 and 3 faults");
}

#[test]
fn every_schedule_of_three_failures_of_a_fleet_of_two_keeps_lockstep() {
    let mut all: Vec<_> = pairs().into_iter().map(|pair| team(pair, AS_FAR_AS_IT_GOES)).collect();
    all.extend([RIGHT_FIRST, BY_STEP].map(|way| team(vec![stop_copy(), pre_copy()], way)));
    let count = explore::all("fleet of two", &all, Team::title, |team| with_fleet(team, 3));
    assert_eq!(count.run, [9, 1069, 33_169, 612_989], "schedules of 0, 1, 2 and 3 faults");
}

#[test]
fn every_schedule_of_three_failures_of_a_fleet_of_one_needs_no_p2p() {
    let devices = [
        source(1, Running, QUIESCED),
        source(5, Running, TOGETHER_PRE_COPY),
        source(7, Running, TOGETHER_PRE_COPY),
        source(1, Stop, PAUSED_RUN),
        destination(1, Running, false),
        destination(7, Stop, true),
    ];
    let all = devices.map(|device| team(vec![device], AS_FAR_AS_IT_GOES));
    let count = explore::all("fleet of one", &all, Team::title, |team| with_fleet(team, 3));
    assert_eq!(count.run, [6, 265, 1962, 9099], "schedules of 0, 1, 2 and 3 faults");
}
