//! What the schedules are made of: the model device walks as the kernel does and answers as a real device did, and no
//! schedule is left out.
//!
//! Deliberately absent: core. Nothing here depends on what it does.

use std::collections::HashSet;

use vfio_migration_core::device::State::{self, Resuming, Running};
use vfio_migration_core::session::Code;
use vfio_migration_tests::kernel::{Cell, matrices, steps};
use vfio_migration_tests::payload::content;
use vfio_migration_tests::schedule::bench::Record;
use vfio_migration_tests::schedule::card::{Card, next};
use vfio_migration_tests::schedule::explore::{explore, is_behind};
use vfio_migration_tests::schedule::fault::{Fault, Kind};
use vfio_migration_tests::schedule::orders::{LOAD_END, QUIESCED};
use vfio_migration_tests::schedule::run::{Driver, run};
use vfio_migration_tests::schedule::setting::{Make, Setting, end_alone};

#[test]
fn the_device_of_the_schedules_walks_as_the_kernel_does() {
    let mut rows = 0;
    for row in steps().filter(|row| [1, 3, 5, 7].contains(&row.flags)) {
        let (Some(from), Some(to)) = (State::from_raw(row.current), State::from_raw(row.requested)) else {
            continue;
        };
        assert_eq!(next(row.flags, from, to).map(State::raw), row.next, "{row:?}");
        rows += 1;
    }
    assert_eq!(rows, 4 * 8 * 8);
}

/// A device that was reset and brought to `from`, in RESUMING with `written` in it.
fn brought_to(from: State, written: &[u8]) -> Card {
    let mut card = Card::new(Make::destination(7, Running, true));
    let fd = card.set(from, None, Code(0)).expect("a state");
    if let Some(fd) = fd.filter(|_| !written.is_empty()) {
        card.write(fd, written, None).expect("taken");
    }
    card
}

#[test]
fn the_device_of_the_schedules_answers_as_a_real_one_did() {
    for (cells, written) in matrices().into_iter().zip([vec![], content(5)]) {
        let known = cells.into_iter().filter_map(|cell| Some((cell, State::from_raw(cell.to)?)));
        for (cell @ Cell { from, answer, after, .. }, to) in known {
            let mut card = brought_to(from, if from == Resuming { &written } else { &[] });
            let got = card.set(to, None, Code(0));
            assert_eq!(got.map(|fd| fd.is_some()).map_err(|code| code.0), answer, "{cell:?}");
            assert_eq!(card.state(), after, "{cell:?}");
        }
    }
}

/// Every set of up to two numbers and kinds, whether anything can come of it or not.
fn pairs(numbers: usize) -> impl Iterator<Item = Vec<Fault>> {
    let one = move || (0..numbers).flat_map(|number| Kind::ALL.map(|kind| Fault { number, kind }));
    let two = one().flat_map(move |first| {
        one().filter(move |second| is_behind(*second, first)).map(move |second| vec![first, second])
    });
    [vec![]].into_iter().chain(one().map(|fault| vec![fault])).chain(two)
}

#[test]
fn every_set_of_two_faults_is_a_schedule_that_is_run() {
    let make = Make::destination(3, Running, false);
    let settings = [
        Setting { retreats: true, ..Setting::source("quiesced", 3, Running, QUIESCED) },
        Setting::destination("end alone", make, LOAD_END, end_alone()),
    ];
    for setting in settings {
        let record = |faults: &[Fault]| run(&setting, faults, Driver::Steps(None)).record;
        let mut explored = HashSet::new();
        let mut longest = 0;
        let count = explore(2, &mut |faults| {
            let Record { offers, met, .. } = record(faults);
            longest = longest.max(offers.len());
            assert_eq!(met, faults);
            assert!(explored.insert(faults.to_vec()), "{faults:?} twice");
            Ok(offers)
        });
        let sets: HashSet<_> = pairs(longest + 1).map(|faults| record(&faults).met).collect();
        let mut differ: Vec<_> = sets.symmetric_difference(&explored).collect();
        differ.sort_by_key(|faults| faults.len());
        assert_eq!(differ.first(), None, "{}", setting.title());
        println!(
            "{}: {:?} schedules of all sets of 0, 1, 2 faults",
            setting.title(),
            count.expect("no check").run
        );
    }
}
