//! `Source` under every schedule of up to three failures, with all features, from RUNNING and from STOP.
//!
//! Deliberately absent: names of failures. `source_failures.rs` and `source_precopy_failures.rs` play the ones that
//! people talk about.

use vfio_migration_core::device::State::{Running, Stop};
use vfio_migration_tests::payload::{CONFIG, END, INIT_DATA_SENT, SETUP, content, data};
use vfio_migration_tests::schedule::explore;
use vfio_migration_tests::schedule::log::Entry;
use vfio_migration_tests::schedule::orders::{
    IN_CHUNKS, PRE_COPY, QUIESCED, QUIESCED_PRE_COPY, REINIT, STOP_COPY, TWICE,
};
use vfio_migration_tests::schedule::run::{Driver, run};
use vfio_migration_tests::schedule::setting::{CONFIG_BODY, Make, Setting};

/// Every source, and how many operations it takes when nothing goes wrong.
fn sources() -> Vec<(Setting, usize)> {
    let source = Setting::source;
    let mut all = vec![];
    for from in [Running, Stop] {
        for flags in [1, 3, 5, 7] {
            all.push((source("stop-copy", flags, from, STOP_COPY), 11));
        }
        all.push((source("in chunks", 1, from, IN_CHUNKS), 8));
        all.push((source("saved twice", 3, from, TWICE), 15));
    }
    for flags in [5, 7] {
        all.push((source("pre-copy", flags, Running, PRE_COPY), 14));
        all.push((reinit(flags), 13));
    }
    for retreats in [false, true] {
        for flags in [3, 7] {
            all.push((Setting { retreats, ..source("quiesced", flags, Running, QUIESCED) }, 10));
        }
        let quiesced = source("quiesced in pre-copy", 7, Running, QUIESCED_PRE_COPY);
        all.push((Setting { retreats, ..quiesced }, 14));
    }
    all.push((byte_by_byte(), 117));
    all
}

/// A device that begins its initial data anew, and says 0 where it has none.
fn reinit(flags: u64) -> Setting {
    let setting = Setting::source("begun anew", flags, Running, REINIT);
    Setting { make: Make { reinit: true, enomsg: false, ..setting.make }, ..setting }
}

/// A device and a link that take one byte at a time.
fn byte_by_byte() -> Setting {
    let setting = Setting::source("byte by byte", 3, Running, STOP_COPY);
    Setting { make: Make { piece: 1, ..setting.make }, ..setting }
}

#[test]
fn every_schedule_of_three_failures_of_a_source_ends_where_the_rule_says() {
    let sources: Vec<_> = sources().into_iter().map(|(setting, _)| setting).collect();
    let count = explore::all("source", &sources, Setting::title, |setting| explore::solo(setting, 3));
    assert_eq!(count.run, [23, 2068, 20_710, 128_450], "schedules of 0, 1, 2 and 3 faults");
}

#[test]
fn a_schedule_without_failures_has_the_operations_of_its_orders() {
    for (setting, operations) in sources() {
        let log = run(&setting, &[], Driver::Steps(None)).record.log;
        let script = log.iter().take_while(|entry| !matches!(entry, Entry::End));
        let done = script.filter(|entry| matches!(entry, Entry::Did { .. })).count();
        assert_eq!(done, operations, "{}", setting.title());
    }
}

#[test]
fn a_schedule_without_failures_sends_these_bytes() {
    let whole = content(9);
    let start = [&SETUP[..], &END].concat();
    let last = |bytes: &[u8]| [&data(bytes)[..], &END].concat();
    let config = [&CONFIG[..], &CONFIG_BODY, &END].concat();
    let initial = [&data(&whole[..3])[..], &INIT_DATA_SENT].concat();
    let table = [
        ("stop-copy", [&start[..], &last(&whole[..4]), &config].concat()),
        ("in chunks", [&start[..], &last(&whole[..4]), &END, &END].concat()),
        ("saved twice", [&start[..], &last(&whole[..4]), &start, &last(&whole[4..8])].concat()),
        ("pre-copy", [&start[..], &initial, &END, &last(&whole[3..])].concat()),
        (
            "begun anew",
            [&start[..], &initial, &data(&whole[3..5]), &INIT_DATA_SENT, &last(&whole[5..])].concat(),
        ),
        ("quiesced", [&start[..], &last(&whole[..4])].concat()),
        ("quiesced in pre-copy", [&start[..], &initial, &last(&whole[3..7])].concat()),
        (
            "byte by byte",
            [&start[..], &[0, 1, 2, 3].map(|at| data(&whole[at..=at])).concat(), &END, &config].concat(),
        ),
    ];
    for (setting, _) in sources() {
        let sent = run(&setting, &[], Driver::Steps(None)).sent.concat();
        let (_, bytes) = table.iter().find(|(name, _)| *name == setting.name).expect("a line of the table");
        assert_eq!(sent.escape_ascii().to_string(), bytes.escape_ascii().to_string(), "{}", setting.title());
    }
}

#[test]
fn the_blocking_loop_does_the_same_under_every_schedule_of_two_failures_without_a_cancel() {
    for (setting, _) in sources() {
        let count = explore::by_both_drivers(&setting, 2).expect("the same log");
        println!("source: {}: {:?} schedules by both drivers", setting.title(), count.run);
        assert!(count.run[2] > 50, "{}", setting.title());
    }
}
