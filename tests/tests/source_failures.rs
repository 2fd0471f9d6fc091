//! [`Source`] when something goes wrong without pre-copy: what each refusal leads to, and what it is called.
//!
//! Deliberately absent: damaged bytes. A source reads none. Pre-copy and lockstep are in `source_precopy.rs`, misuse is
//! in `source_misuse.rs`, and every operation of every way is refused in `source_exhaustive.rs`.

use vfio_migration_core::device::State;
use vfio_migration_core::session::{
    Cause, Code, Failure, Left, Source, SourceDone, SourceEffect, SourcePhase,
};
use vfio_migration_tests::script::{ALL, COPIED, Ends, FINISHED, SET_UP, TO_COPYING, play_source};

const RESET: &str = "the device was reset to RUNNING, its former content is gone";
const UNKNOWN: &str = "the device refused its reset, its state is unknown";

/// Plays the parts of a script with a device that came from `now`.
fn play(now: State, parts: &[&[&str]]) {
    let mut buffer = [0xa5; 64];
    let mut source = Source::new(ALL, now, false, &mut buffer).unwrap();
    play_source(&mut source, &mut Ends::new(&[0x5a; 256]), &parts.concat());
}

#[test]
fn a_refused_setup_leaves_the_device_alone() {
    let table = [
        ("send 16: error 32", "the link refused bytes: error 32"),
        ("send 16: 0", "the link took no byte, its other end is gone"),
    ];
    for (refused, cause) in table {
        for now in [State::Running, State::Stop] {
            let failed = format!("failed: {cause}; the device is in {now}");
            play(now, &[&["> setup", refused, &failed]]);
            play(now, &[&["> setup", "send 16: 3", &refused.replace("16", "13"), &failed]]);
        }
    }
}

#[test]
fn a_refused_stop_copy_is_followed_by_stop_then_reset_and_the_first_cause_stays() {
    for now in [State::Running, State::Stop] {
        let start = [SET_UP, &["> stop", "set STOP_COPY: error 16"]].concat();
        let cause = "failed: the device refused STOP_COPY: error 16";
        play(now, &[&start, &["set STOP to recover: ok", &format!("{cause}; the device is in STOP")]]);
        let refused = "set STOP to recover: error 17";
        let reset = format!("{cause}; {RESET}");
        play(now, &[&start, &[refused, "reset: ok", &reset]]);
        let unknown = format!("{cause}; {UNKNOWN}");
        play(now, &[&start, &[refused, "reset: error 18", &unknown]]);
    }
}

/// What goes wrong with data or link in STOP_COPY: the script up to it, and the cause.
const IN_STOP_COPY: [(&[&[&str]], &str); 12] = [
    (&[&["> copy_rest", "read data, room for 40: error 5"]], "the device's data could not be read: error 5"),
    (
        &[&["> copy_rest", "read data, room for 40: nothing now"]],
        "the device answered ENOMSG in STOP_COPY, wanted data or the end",
    ),
    (
        &[&["> copy_rest", "read data, room for 40: 9", "send 25: 25", "read data, room for 40: error 5"]],
        "the device's data could not be read: error 5",
    ),
    (
        &[&["> copy_rest", "read data, room for 40: 9", "send 25: error 32"]],
        "the link refused bytes: error 32",
    ),
    (
        &[&["> copy_rest", "read data, room for 40: 9", "send 25: 0"]],
        "the link took no byte, its other end is gone",
    ),
    (
        &[&["> copy_rest", "read data, room for 40: 9", "send 25: 24", "send 1: error 32"]],
        "the link refused bytes: error 32",
    ),
    (
        &[&["> copy_rest", "read data, room for 40: end", "send 8: error 32"]],
        "the link refused bytes: error 32",
    ),
    (&[COPIED, &["> copy_rest", "send 8: error 32"]], "the link refused bytes: error 32"),
    (&[COPIED, &["> config", "send 8: error 32"]], "the link refused bytes: error 32"),
    (
        &[COPIED, &["> config", "send 8: 8", "send configuration: error 71"]],
        "the configuration could not be sent: error 71",
    ),
    (
        &[COPIED, &["> config", "send 8: 8", "send configuration: ok", "send 8: error 32"]],
        "the link refused bytes: error 32",
    ),
    (
        &[COPIED, &["> config", "send 8: 8", "send configuration: ok", "send 8: 5", "send 3: 0"]],
        "the link took no byte, its other end is gone",
    ),
];

#[test]
fn failed_data_or_link_brings_the_device_back_to_where_it_came_from_or_to_a_reset() {
    for now in [State::Running, State::Stop] {
        for (script, cause) in IN_STOP_COPY {
            let script = script.concat();
            let back = format!("set {now} to recover: ok");
            let refused = format!("set {now} to recover: error 17");
            let at = format!("failed: {cause}; the device is in {now}");
            let reset = format!("failed: {cause}; {RESET}");
            let unknown = format!("failed: {cause}; {UNKNOWN}");
            play(now, &[TO_COPYING, &script, &[&back, &at]]);
            play(now, &[TO_COPYING, &script, &[&refused, "reset: ok", &reset]]);
            play(now, &[TO_COPYING, &script, &[&refused, "reset: error 18", &unknown]]);
        }
    }
}

#[test]
fn a_refused_finish_or_run_leads_to_a_reset() {
    let copied = [TO_COPYING, COPIED].concat();
    let stopped = [&copied, FINISHED].concat();
    let table = [
        (copied, ["> finish", "set STOP: error 16"], "STOP"),
        (stopped, ["> run", "set RUNNING: error 16"], "RUNNING"),
    ];
    for (start, refused, state) in table {
        let cause = format!("failed: the device refused {state}: error 16");
        let reset = format!("{cause}; {RESET}");
        play(State::Running, &[&start, &refused, &["reset: ok", &reset]]);
        let unknown = format!("{cause}; {UNKNOWN}");
        play(State::Running, &[&start, &refused, &["reset: error 18", &unknown]]);
    }
}

#[test]
fn cancel_between_orders_brings_the_device_back_to_where_it_came_from() {
    let cancel = ["> cancel", "> cancel"];
    let copied = [TO_COPYING, COPIED].concat();
    for now in [State::Running, State::Stop] {
        let back = format!("set {now} to recover: ok");
        let at = format!("failed: cancelled; the device is in {now}");
        play(now, &[&cancel, &[&at]]);
        play(now, &[SET_UP, &cancel, &[&at]]);
        play(now, &[TO_COPYING, &cancel, &[&back, &at]]);
        play(now, &[&copied, &cancel, &[&back, &at]]);
    }
    let back = ["set RUNNING to recover: ok", "failed: cancelled; the device is in RUNNING"];
    play(State::Running, &[&copied, FINISHED, &cancel, &back]);
    play(State::Stop, &[&copied, FINISHED, &cancel, &["failed: cancelled; the device is in STOP"]]);
}

#[test]
fn a_refused_way_back_from_a_cancel_leads_to_a_reset_and_a_second_cancel_changes_nothing() {
    let refused = ["> cancel", "set RUNNING to recover: error 16", "> cancel"];
    let failed = format!("failed: cancelled; {RESET}");
    let reset = ["reset: not yet", "> cancel", "reset: ok", &failed, "> cancel", &failed];
    play(State::Running, &[TO_COPYING, &refused, &reset]);
    let failed = format!("failed: cancelled; {UNKNOWN}");
    let unknown = ["reset: error 18", &failed];
    play(State::Running, &[TO_COPYING, &refused, &unknown, &["> cancel"], &unknown[1..]]);
}

#[test]
fn cancel_after_a_failure_that_left_the_device_elsewhere_brings_it_back_and_keeps_the_cause() {
    let failed = [
        "> setup",
        "send 16: 16",
        "> stop",
        "set STOP_COPY: error 16",
        "set STOP to recover: ok",
        "failed: the device refused STOP_COPY: error 16; the device is in STOP",
        "> cancel",
    ];
    let back = [
        "set RUNNING to recover: ok",
        "failed: the device refused STOP_COPY: error 16; the device is in RUNNING",
        "> cancel",
        "failed: the device refused STOP_COPY: error 16; the device is in RUNNING",
    ];
    play(State::Running, &[&failed, &back]);
    let nothing = ["failed: the device refused STOP_COPY: error 16; the device is in STOP"];
    play(State::Stop, &[&failed, &nothing]);
}

#[test]
fn cancel_during_a_recovery_keeps_the_first_cause_and_ends_in_the_state_that_the_device_came_from() {
    let read = ["> copy_rest", "read data, room for 40: error 5", "set RUNNING: not yet", "> cancel"];
    let cause = "failed: the device's data could not be read: error 5";
    let back = format!("{cause}; the device is in RUNNING");
    play(State::Running, &[TO_COPYING, &read, &["set RUNNING to recover: ok", &back]]);
    let reset = format!("{cause}; {RESET}");
    let refused = ["set RUNNING to recover: error 17", "> cancel", "reset: ok", &reset];
    play(State::Running, &[TO_COPYING, &read, &refused]);
    let stop = [SET_UP, &["> stop", "set STOP_COPY: error 16", "set STOP: not yet", "> cancel"]].concat();
    let cause = "failed: the device refused STOP_COPY: error 16";
    for now in [State::Stop, State::Running] {
        let back = format!("set {now} to recover: ok");
        play(now, &[&stop, &[&back, &format!("{cause}; the device is in {now}")]]);
    }
}

#[test]
fn codes_come_through_as_the_kernel_gave_them() {
    for code in [i32::MIN, -1, 0, 1, i32::MAX] {
        let mut buffer = [0xa5; 64];
        let mut source = Source::new(ALL, State::Running, false, &mut buffer).unwrap();
        play_source(&mut source, &mut Ends::default(), &["> setup", "send 16: not yet"]);
        source.complete(SourceDone::Send(Err(Code(code)))).unwrap();
        let wanted = Failure { cause: Cause::Send(Code(code)), device: Left::At(State::Running) };
        assert_eq!(source.poll(), SourceEffect::Idle(SourcePhase::Failed(wanted)));
    }
}
