//! `Destination` under every schedule of up to three failures, with all features, from RUNNING and from STOP, with a
//! driver that refuses half a state and one that lets it pass.
//!
//! Deliberately absent: damaged bytes, which are in `records.rs`.

use vfio_migration_core::device::State::{Running, Stop};
use vfio_migration_tests::schedule::explore;
use vfio_migration_tests::schedule::log::{Entry, Holds};
use vfio_migration_tests::schedule::orders::{LOAD, LOAD_P2P};
use vfio_migration_tests::schedule::run::{Driver, run};
use vfio_migration_tests::schedule::setting::{Make, Setting, part_end, start_end_full};

/// Every destination, and how many operations it takes when nothing goes wrong.
fn destinations() -> Vec<(Setting, usize)> {
    let destination = Setting::destination;
    let mut all = vec![];
    for strict in [false, true] {
        for from in [Running, Stop] {
            for flags in [1, 3, 5, 7] {
                let make = Make::destination(flags, from, strict);
                all.push((destination("stop-copy", make, LOAD, start_end_full()), 13));
            }
            let make = Make::destination(7, from, strict);
            all.push((destination("pre-copy", make, LOAD_P2P, part_end()), 14));
        }
        let make = Make { piece: 1, ..Make::destination(7, Running, strict) };
        all.push((destination("byte by byte", make, LOAD_P2P, part_end()), 62));
    }
    all
}

#[test]
fn every_schedule_of_three_failures_of_a_destination_ends_where_the_rule_says() {
    let all: Vec<_> = destinations().into_iter().map(|(setting, _)| setting).collect();
    let count = explore::all("destination", &all, Setting::title, |setting| explore::solo(setting, 3));
    assert_eq!(count.run, [22, 2124, 17_603, 96_925], "schedules of 0, 1, 2 and 3 faults");
}

#[test]
fn a_schedule_without_failures_has_the_operations_of_its_orders_and_loads_the_whole_state() {
    for (setting, operations) in destinations() {
        let log = run(&setting, &[], Driver::Steps(None)).record.log;
        let end = log.iter().position(|entry| *entry == Entry::End).expect("an end");
        let done = log[..end].iter().filter(|entry| matches!(entry, Entry::Did { .. })).count();
        assert_eq!(done, operations, "{}", setting.title());
        let Entry::Idle(_, _, facts) = log[end - 1] else { panic!("an idle session before the end") };
        assert_eq!((facts.state, facts.holds), (Running, Holds::Guests), "{}", setting.title());
    }
}

#[test]
fn the_blocking_loop_does_the_same_under_every_schedule_of_two_failures_without_a_cancel() {
    for (setting, _) in destinations() {
        let count = explore::by_both_drivers(&setting, 2).expect("the same log");
        println!("destination: {}: {:?} schedules by both drivers", setting.title(), count.run);
        assert!(count.run[2] > 50, "{}", setting.title());
    }
}
