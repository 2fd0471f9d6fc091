//! [`Source`] when something goes wrong: every operation refused, and cancelled at every point.
//!
//! Deliberately absent: damaged bytes. A source reads none. Misuse is in `source_misuse.rs`.

use vfio_migration_core::device::State;
use vfio_migration_core::session::drive;
use vfio_migration_core::session::{
    Cause, Code, Event, Failure, Left, Misuse, Source, SourceDone, SourceEffect, SourcePhase,
};
use vfio_migration_tests::model::{EIO, Faults, ModelDevice, ModelLink};
use vfio_migration_tests::script::{COPIED, Ends, FINISHED, SET_UP, TO_COPYING, order_source, play_source};

const RESET: &str = "the device was reset to RUNNING, its former content is gone";
const UNKNOWN: &str = "the device refused its reset, its state is unknown";

/// Plays the parts of a script with a device that came from `now`.
fn play(now: State, parts: &[&[&str]]) {
    let mut buffer = [0xa5; 64];
    let mut source = Source::new(now, &mut buffer).unwrap();
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

/// One save through the blocking loop, up to its end or its failure.
struct Save {
    events: Vec<Event>,
    phase: SourcePhase,
    device: ModelDevice,
}

/// Saves a device that came from `now`; gives up before the effect with number `cancel_at`.
fn save(now: State, breaks: bool, faults: &Faults, cancel_at: Option<(usize, bool)>) -> Save {
    let mut buffer = [0xa5; 64];
    let mut source = Source::new(now, &mut buffer).unwrap();
    let mut device = ModelDevice { breaks, ..ModelDevice::new(now, &[7; 100], faults) };
    let mut link = ModelLink { config: vec![9; 20], ..ModelLink::new(&[], faults) };
    let mut events = vec![];
    let mut phase = SourcePhase::Ready(now);
    for order in ["setup", "stop", "copy_rest", "config", "finish"] {
        order_source(&mut source, order).unwrap();
        phase = match cancel_at {
            None => drive::source(&mut source, &mut device, &mut link, |event| events.push(*event)).unwrap(),
            Some(at) => with_cancel(&mut source, &mut device, &mut link, &mut events, at),
        };
        if let SourcePhase::Failed(_) = phase {
            break;
        }
    }
    Save { events, phase, device }
}

/// The loop of `drive`, cancelled when so many events have been and the next effect has been asked for. With
/// `carried_out` the device or the link has done what was asked for, and only its answer comes too late.
fn with_cancel(
    source: &mut Source<'_>,
    device: &mut ModelDevice,
    link: &mut ModelLink,
    events: &mut Vec<Event>,
    (at, carried_out): (usize, bool),
) -> SourcePhase {
    use vfio_migration_core::session::drive::{Device, Transport};
    loop {
        let now = events.len() == at;
        let done = match source.poll() {
            SourceEffect::Idle(phase) => return phase,
            _ if now && !carried_out => SourceDone::Reset(Ok(())),
            SourceEffect::SetState(state) => SourceDone::SetState(device.set_state(state)),
            SourceEffect::ReadData(buffer) => SourceDone::ReadData(device.read_data(buffer)),
            SourceEffect::Send(bytes) => SourceDone::Send(link.send(bytes)),
            SourceEffect::SendConfig => SourceDone::SendConfig(link.send_config()),
            SourceEffect::Reset => SourceDone::Reset(device.reset()),
        };
        if now {
            source.cancel();
            assert_eq!(source.complete(done), Err(Misuse::WrongDone), "late at event {at}");
            let done = match source.poll() {
                SourceEffect::SetState(state) => SourceDone::SetState(device.set_state(state)),
                SourceEffect::Idle(phase) => return phase,
                effect => panic!("{effect:?} after a cancel"),
            };
            events.push(source.complete(done).unwrap());
        } else {
            events.push(source.complete(done).unwrap());
        }
    }
}

/// The cause that an event is, where it is one.
fn cause_of(event: &Event) -> Option<Cause> {
    match *event {
        Event::SetState { state, result: Err(code), .. } => Some(Cause::Refused { state, code }),
        Event::ReadData { result: Err(code), .. } => Some(Cause::ReadData(code)),
        Event::Send { result: Err(code), .. } => Some(Cause::Send(code)),
        Event::SendConfig { result: Err(code) } => Some(Cause::SendConfig(code)),
        _ => None,
    }
}

/// What must hold after every save, whatever failed.
fn check(save: &Save, now: State, what: &str) {
    let Some(first) = save.events.iter().position(|event| cause_of(event).is_some()) else {
        assert_eq!((save.phase, save.device.state), (SourcePhase::Stopped, State::Stop), "{what}");
        return;
    };
    let SourcePhase::Failed(Failure { cause, device }) = save.phase else { panic!("{what}: no failure") };
    assert_eq!(Some(cause), cause_of(&save.events[first]), "{what}: the first cause");
    let recovery = &save.events[first + 1..];
    let is_recovery = |event: &Event| match event {
        Event::SetState { recovery, .. } => *recovery,
        event => matches!(event, Event::Reset { .. }),
    };
    assert!(recovery.len() <= 2 && recovery.iter().all(is_recovery), "{what}: {recovery:?}");
    match device {
        Left::At(state) => {
            assert_eq!(state, save.device.state, "{what}");
            assert!(state == now || state == State::Stop, "{what}: left in {state}");
        }
        Left::Reset => {
            assert_eq!(recovery.last(), Some(&Event::Reset { result: Ok(()) }), "{what}");
            assert_eq!(save.device.state, State::Running, "{what}");
        }
        Left::Unknown => {
            assert_eq!(recovery.last(), Some(&Event::Reset { result: Err(EIO) }), "{what}");
        }
    }
}

#[test]
fn every_one_two_and_three_failed_operations_end_where_the_failure_says() {
    let whole = Faults::default();
    let good = save(State::Running, false, &whole, None);
    assert_eq!((good.phase, whole.operations()), (SourcePhase::Stopped, 14));
    let mut outcomes = [0; 4];
    for now in [State::Running, State::Stop] {
        for breaks in [false, true] {
            for (i, j, k) in schedules(whole.operations() + 2) {
                let what = format!("from {now}, breaks {breaks}, operations {i}, {j}, {k}");
                let save = save(now, breaks, &Faults::at(&[i, j, k]), None);
                check(&save, now, &what);
                outcomes[match save.phase {
                    SourcePhase::Failed(Failure { device: Left::At(_), .. }) => 0,
                    SourcePhase::Failed(Failure { device: Left::Reset, .. }) => 1,
                    SourcePhase::Failed(Failure { device: Left::Unknown, .. }) => 2,
                    _ => 3,
                }] += 1;
            }
        }
    }
    assert!(outcomes.iter().all(|&count| count > 0), "each outcome is met: {outcomes:?}");
}

/// Every one, two and three of the first `operations`; the same number twice is one fault less.
fn schedules(operations: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..operations)
        .flat_map(move |i| (i..operations).flat_map(move |j| (j..operations).map(move |k| (i, j, k))))
}

#[test]
fn cancel_at_every_effect_ends_in_the_state_that_the_device_came_from() {
    for now in [State::Running, State::Stop] {
        for carried_out in [false, true] {
            for at in 0..14 {
                let save = save(now, false, &Faults::default(), Some((at, carried_out)));
                let wanted = Failure { cause: Cause::Cancelled, device: Left::At(now) };
                assert_eq!(save.phase, SourcePhase::Failed(wanted), "effect {at}, {carried_out}");
                assert_eq!(save.device.state, now, "effect {at}, {carried_out}");
            }
        }
    }
}

#[test]
fn codes_come_through_as_the_kernel_gave_them() {
    for code in [i32::MIN, -1, 0, 1, i32::MAX] {
        let mut buffer = [0xa5; 64];
        let mut source = Source::new(State::Running, &mut buffer).unwrap();
        play_source(&mut source, &mut Ends::default(), &["> setup", "send 16: not yet"]);
        source.complete(SourceDone::Send(Err(Code(code)))).unwrap();
        let wanted = Failure { cause: Cause::Send(Code(code)), device: Left::At(State::Running) };
        assert_eq!(source.poll(), SourceEffect::Idle(SourcePhase::Failed(wanted)));
    }
}
