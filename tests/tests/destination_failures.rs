//! [`Destination`] when something goes wrong: every operation refused, and cancelled at every point.
//!
//! Deliberately absent: damaged bytes, which are in `records.rs`, and misuse, which is in `destination_misuse.rs`.

use vfio_migration_core::device::{Features, State};
use vfio_migration_core::session::{
    Cause, Destination, DestinationDone, DestinationEffect, DestinationPhase, Event, Failure, Left, Misuse,
    drive,
};
use vfio_migration_core::stream::record::Tag;
use vfio_migration_tests::model::{EIO, Faults, ModelDevice, ModelLink};
use vfio_migration_tests::payload::{DATA, END, SETUP, every_effect};
use vfio_migration_tests::script::{
    ALL, Ends, STOPPED, TEN_BYTES, TO_DATA, TO_RESUMING, order_destination, play_destination,
};

const RESET: &str = "the device was reset to RUNNING, its former content is gone";
const UNKNOWN: &str = "the device refused its reset, its state is unknown";

/// Plays the parts of a script with a device that came from `now`; the link has [`every_effect`].
fn play(now: State, parts: &[&[&str]]) {
    let mut buffer = [0xa5; 64];
    let mut destination = Destination::new(ALL, now, true, &mut buffer).unwrap();
    play_destination(&mut destination, &mut Ends::new(&every_effect()), &parts.concat());
}

#[test]
fn a_refused_resuming_is_followed_by_the_former_state_then_reset_and_the_first_cause_stays() {
    for now in [State::Running, State::Stop] {
        let start = ["> resume", "set RESUMING: error 16"];
        let cause = "failed: the device refused RESUMING: error 16";
        let back = format!("set {now} to recover: ok");
        play(now, &[&start, &[&back, &format!("{cause}; the device is in {now}")]]);
        let refused = format!("set {now} to recover: error 17");
        play(now, &[&start, &[&refused, "reset: ok", &format!("{cause}; {RESET}")]]);
        let pending = format!("set {now}: not yet");
        play(now, &[&start, &[&pending, "> cancel", &back, &format!("{cause}; the device is in {now}")]]);
        play(now, &[&start, &[&refused, "reset: error 18", &format!("{cause}; {UNKNOWN}")]]);
    }
}

/// What goes wrong in RESUMING and after it: the script up to it, and the cause.
const AFTER_RESUME: [(&[&[&str]], &str); 21] = [
    (&[&["> section", "receive 8: error 104"]], "the link failed at byte 0 of the payload: error 104"),
    (
        &[&["> section", "receive 8: 0"]],
        "the stream ended at byte 0 of the payload, wanted 8 more bytes of a record",
    ),
    (
        &[&["> section", "receive 8: 3", "receive 5: 0"]],
        "the stream ended at byte 3 of the payload, wanted 5 more bytes of a record",
    ),
    (
        &[&["> section", "receive 8: 3", "receive 5: error 104"]],
        "the link failed at byte 3 of the payload: error 104",
    ),
    (
        &[&["> section", "receive 8: 8", "receive 8: 7", "receive 1: 0"]],
        "the stream ended at byte 15 of the payload, wanted 1 more bytes of a record",
    ),
    (
        &[TO_DATA, &["receive 10: 0"]],
        "the stream ended at byte 16 of the payload, wanted 10 more bytes of a record",
    ),
    (&[TO_DATA, &["receive 10: error 104"]], "the link failed at byte 16 of the payload: error 104"),
    (
        &[TO_DATA, &["receive 10: 4", "write data 4: 4", "receive 6: 0"]],
        "the stream ended at byte 20 of the payload, wanted 6 more bytes of a record",
    ),
    (
        &[TO_DATA, &["receive 10: 10", "write data 10: error 14"]],
        "the device refused the data at byte 16 of the payload: error 14",
    ),
    (
        &[TO_DATA, &["receive 10: 10", "write data 10: 0"]],
        "the device took nothing of the data at byte 16 of the payload",
    ),
    (
        &[TO_DATA, &["receive 10: 10", "write data 10: 7", "write data 3: error 14"]],
        "the device refused the data at byte 23 of the payload: error 14",
    ),
    (
        &[TO_DATA, &["receive 10: 10", "write data 10: 7", "write data 3: 0"]],
        "the device took nothing of the data at byte 23 of the payload",
    ),
    (
        &[TO_DATA, TEN_BYTES, &["receive 8: 8", "receive configuration: error 22"]],
        "the configuration at byte 34 of the payload was refused: error 22",
    ),
    (
        &[TO_DATA, TEN_BYTES, &["receive 8: 8", "receive configuration: 4", "receive 8: error 104"]],
        "the link failed at byte 38 of the payload: error 104",
    ),
    (
        &[TO_DATA, TEN_BYTES, &["receive 8: 8", "receive configuration: 3", "receive 8: 8"]],
        "wanted END_OF_STATE behind CONFIG at byte 37 of the payload, got 0x66ffffffffef1000",
    ),
    (&[&["> section", "receive 8: 8", "> cancel"]], "cancelled"),
    (&[&["> stop", "set STOP: error 22"]], "the device refused STOP: error 22"),
    (&[STOPPED, &["> run", "set RUNNING: error 5"]], "the device refused RUNNING: error 5"),
    (&[STOPPED, &["> run_p2p", "set RUNNING_P2P: error 5"]], "the device refused RUNNING_P2P: error 5"),
    (&[STOPPED, &["> run_p2p", "set RUNNING_P2P: not yet", "> cancel"]], "cancelled"),
    (
        &[STOPPED, &["> run_p2p", "set RUNNING_P2P: ok", "> run", "set RUNNING: error 5"]],
        "the device refused RUNNING: error 5",
    ),
];

#[test]
fn whatever_fails_after_resume_ends_in_a_reset_and_nothing_else() {
    for now in [State::Running, State::Stop] {
        for (script, cause) in AFTER_RESUME {
            let script = script.concat();
            let reset = format!("failed: {cause}; {RESET}");
            play(now, &[TO_RESUMING, &script, &["reset: not yet", "reset: ok", &reset, "> cancel", &reset]]);
            let unknown = format!("failed: {cause}; {UNKNOWN}");
            play(now, &[TO_RESUMING, &script, &["reset: error 18", &unknown, "> cancel", &unknown]]);
        }
    }
}

#[test]
fn terminators_that_were_not_agreed_on_end_in_a_reset() {
    let no_pre_copy = Features { p2p: true, pre_copy: false };
    let refused = [
        (ALL, false, Tag::InitDataSent),
        (no_pre_copy, true, Tag::InitDataSent),
        (no_pre_copy, false, Tag::InitDataSent),
        (ALL, true, Tag::ConfigLoadReady),
        (ALL, false, Tag::ConfigLoadReady),
    ];
    for (features, ack, tag) in refused {
        let mut link = DATA.to_vec();
        link.extend([0; 8]);
        link.extend(tag.raw().to_be_bytes());
        let mut buffer = [0xa5; 64];
        let mut destination = Destination::new(features, State::Running, ack, &mut buffer).unwrap();
        let failed = format!(
            "failed: wanted a record that was agreed on at byte 16 of the payload, got {tag}; {RESET}"
        );
        let script = [TO_RESUMING, TO_DATA, &["receive 8: 8", "reset: ok", &failed]].concat();
        play_destination(&mut destination, &mut Ends::new(&link), &script);
    }
}

#[test]
fn cancel_before_resume_leaves_the_device_alone_and_after_it_resets_in_every_phase() {
    for now in [State::Running, State::Stop] {
        let at = format!("failed: cancelled; the device is in {now}");
        play(now, &[&["> cancel", &at, "> cancel", &at]]);
        let reset = ["> cancel", "> cancel", "reset: ok", &format!("failed: cancelled; {RESET}")];
        let phases: [&[&[&str]]; 7] = [
            &[&["> resume"]],
            &[&["> resume", "set RESUMING: not yet"]],
            &[TO_RESUMING, &["idle Resuming"]],
            &[TO_RESUMING, STOPPED, &["idle Stopped"]],
            &[TO_RESUMING, STOPPED, &["> run_p2p"]],
            &[TO_RESUMING, STOPPED, &["> run_p2p", "set RUNNING_P2P: ok", "idle RunningP2p"]],
            &[TO_RESUMING, STOPPED, &["> run", "set RUNNING: ok", "idle Running"]],
        ];
        for phase in phases {
            play(now, &[&phase.concat(), &reset]);
        }
    }
}

/// One load through the blocking loop, up to its end or its failure.
struct Load {
    events: Vec<Event>,
    phase: DestinationPhase,
    device: ModelDevice,
}

const ORDERS: [&str; 6] = ["resume", "section", "section", "stop", "run_p2p", "run"];

/// Loads a device that came from `now`: a START payload, then [`every_effect`].
fn load(now: State, breaks: bool, faults: &Faults) -> Load {
    let mut buffer = [0xa5; 64];
    let mut destination = Destination::new(ALL, now, false, &mut buffer).unwrap();
    let mut device = ModelDevice { breaks, ..ModelDevice::new(now, &[], faults) };
    let bytes = [&SETUP[..], &END, &every_effect()].concat();
    let mut link = ModelLink { config: vec![0; 4], ..ModelLink::new(&bytes, faults) };
    let mut events = vec![];
    let mut phase = DestinationPhase::Ready(now);
    for order in ORDERS {
        order_destination(&mut destination, order).unwrap();
        let observe = |event: &Event| events.push(*event);
        phase = drive::destination(&mut destination, &mut device, &mut link, observe).unwrap();
        if let DestinationPhase::Failed(_) = phase {
            break;
        }
    }
    Load { events, phase, device }
}

/// Whether the event's operation failed.
fn failed(event: &Event) -> bool {
    event.to_string().contains(": error ")
}

/// What must hold after every load, whatever failed.
fn check(load: &Load, now: State, what: &str) {
    let Some(first) = load.events.iter().position(failed) else {
        assert_eq!((load.phase, load.device.state), (DestinationPhase::Running, State::Running), "{what}");
        assert_eq!(load.device.written, b"0123456789", "{what}");
        return;
    };
    let DestinationPhase::Failed(Failure { cause, device }) = load.phase else {
        panic!("{what}: no failure")
    };
    let same = match (load.events[first], cause) {
        (Event::SetState { state, .. }, Cause::Refused { state: refused, .. }) => state == refused,
        (Event::Recv { .. }, Cause::Recv { .. })
        | (Event::WriteData { .. }, Cause::WriteData { .. })
        | (Event::RecvConfig { .. }, Cause::RecvConfig { .. }) => true,
        _ => false,
    };
    assert!(same, "{what}: {cause} is the first cause");
    let recovery = &load.events[first + 1..];
    match device {
        Left::At(state) => {
            assert_eq!((state, load.device.state), (now, now), "{what}");
            assert_eq!(
                (first, recovery.len()),
                (0, 1),
                "{what}: only a refused RESUMING has another way out"
            );
        }
        Left::Reset => {
            assert_eq!(recovery.last(), Some(&Event::Reset { result: Ok(()) }), "{what}");
            assert_eq!(load.device.state, State::Running, "{what}");
        }
        Left::Unknown => assert_eq!(recovery.last(), Some(&Event::Reset { result: Err(EIO) }), "{what}"),
    }
    assert!(recovery.len() <= if first == 0 { 2 } else { 1 }, "{what}: {recovery:?}");
}

#[test]
fn every_one_two_and_three_failed_operations_end_where_the_failure_says() {
    let whole = Faults::default();
    load(State::Running, false, &whole);
    let operations = whole.operations();
    assert_eq!(operations, 1 + 2 + 7 + 3);
    for now in [State::Running, State::Stop] {
        for breaks in [false, true] {
            for i in 0..operations + 2 {
                for j in i..operations + 2 {
                    for k in j..operations + 2 {
                        let load = load(now, breaks, &Faults::at(&[i, j, k]));
                        check(&load, now, &format!("from {now}, breaks {breaks}, operations {i}, {j}, {k}"));
                    }
                }
            }
        }
    }
}

#[test]
fn cancel_at_every_effect_ends_in_a_reset_and_the_late_answer_is_misuse() {
    let bytes = [&SETUP[..], &END, &every_effect()].concat();
    for at in 0..13 {
        let mut ends = ModelLink { config: vec![0; 4], ..ModelLink::new(&bytes, &Faults::default()) };
        let mut buffer = [0xa5; 64];
        let mut destination = Destination::new(ALL, State::Running, false, &mut buffer).unwrap();
        let mut orders = ORDERS.iter();
        let mut left = at;
        let late = loop {
            let Some(done) = right_done(&mut destination, &mut ends) else {
                order_destination(&mut destination, orders.next().unwrap()).unwrap();
                continue;
            };
            if left == 0 {
                break done;
            }
            left -= 1;
            destination.complete(done).unwrap();
        };
        destination.cancel();
        assert_eq!(destination.complete(late), Err(Misuse::WrongDone), "effect {at}");
        let reset = ["reset: ok", &format!("failed: cancelled; {RESET}")];
        play_destination(&mut destination, &mut Ends::default(), &reset);
    }
}

/// A good answer to what `destination` asks for, where it asks for anything.
fn right_done(destination: &mut Destination<'_>, link: &mut ModelLink) -> Option<DestinationDone> {
    use vfio_migration_core::session::drive::Transport;
    Some(match destination.poll() {
        DestinationEffect::SetState(_) => DestinationDone::SetState(Ok(())),
        DestinationEffect::Recv(buffer) => DestinationDone::Recv(link.recv(buffer)),
        DestinationEffect::WriteData(bytes) => DestinationDone::WriteData(Ok(bytes.len())),
        DestinationEffect::RecvConfig => DestinationDone::RecvConfig(link.recv_config()),
        DestinationEffect::Reset => DestinationDone::Reset(Ok(())),
        DestinationEffect::Idle(_) => return None,
    })
}
