//! [`Source`] when its caller makes a mistake: each is a [`Misuse`] and changes nothing.
//!
//! Deliberately absent: mistakes that the types rule out.

use std::mem::discriminant;

use vfio_migration_core::device::{Features, State};
use vfio_migration_core::session::{
    BUFFER_MIN, DataRead, Misuse, PrecopyInfo, Source, SourceDone, SourceEffect,
};
use vfio_migration_tests::model::EIO;
use vfio_migration_tests::script::{
    ALL, COPIED, Ends, FINISHED, SET_UP, SOURCE_ORDERS, TO_COPYING, TO_PRE_COPY, order_source, play_source,
};

/// In PRE_COPY, after an answer that leaves nothing.
const MEASURED: &[&str] = &["> measure", "precopy info: initial 0, dirty 0"];
/// A source in PRE_COPY leaves off DMA to other devices.
const QUIESCED: &[&str] = &["> quiesce", "set PRE_COPY_P2P: ok"];
/// A finished source in RUNNING_P2P.
const RUNS_P2P: &[&str] = &["> run_p2p", "set RUNNING_P2P: ok"];

/// The state that a source came from, the script that leads to where it is, and the orders that it takes there.
type Place = (State, &'static [&'static [&'static str]], &'static [&'static str]);

/// Every place that a source can be in.
const PLACES: [Place; 33] = [
    (State::Running, &[&["idle Ready(Running)"]], &["setup", "setup pre_copy"]),
    (State::Running, &[&["> setup", "send 16: not yet"]], &[]),
    (State::Running, &[&["> setup", "send 16: 9", "send 7: not yet"]], &[]),
    (State::Running, &[SET_UP, &["idle SetUp"]], &["quiesce", "stop"]),
    (State::Running, &[SET_UP, &["> stop", "set STOP_COPY: not yet"]], &[]),
    (State::Running, &[TO_COPYING, &["idle Copying"]], &["copy_chunk", "copy_rest"]),
    (State::Running, &[TO_COPYING, &["> copy_rest", "read data, room for 40: not yet"]], &[]),
    (State::Running, &[TO_COPYING, &["> copy_rest", "read data, room for 40: 3", "send 19: not yet"]], &[]),
    (State::Running, &[TO_COPYING, &["> copy_chunk", "read data, room for 40: not yet"]], &[]),
    (State::Running, &[TO_COPYING, &["> copy_chunk", "read data, room for 40: 3", "send 27: not yet"]], &[]),
    (State::Running, &[TO_COPYING, COPIED, &["idle Copied"]], &["copy_rest", "config", "finish"]),
    (State::Running, &[TO_COPYING, COPIED, &["> config", "send 8: 8", "send configuration: not yet"]], &[]),
    (State::Running, &[TO_COPYING, COPIED, FINISHED, &["idle Stopped"]], &["run_p2p", "run"]),
    (State::Running, &[TO_COPYING, COPIED, FINISHED, RUNS_P2P, &["idle Ready(RunningP2p)"]], &["run"]),
    (
        State::Running,
        &[TO_COPYING, COPIED, FINISHED, RUNS_P2P, &["> run", "set RUNNING: ok", "idle Ready(Running)"]],
        &["setup", "setup pre_copy"],
    ),
    (State::Running, &[SET_UP, &["> stop", "set STOP_COPY: error 1", "set STOP: not yet"]], &[]),
    (
        State::Running,
        &[SET_UP, &["> stop", "set STOP_COPY: error 1", "set STOP to recover: error 2", "reset: not yet"]],
        &[],
    ),
    (State::Running, &[&["> cancel", "failed: cancelled; the device is in RUNNING"]], &[]),
    (State::Running, &[&["> setup pre_copy", "set PRE_COPY: not yet"]], &[]),
    (
        State::Running,
        &[TO_PRE_COPY, &["idle PreCopy: 0 read, nothing known"]],
        &["measure", "copy_chunk", "quiesce", "stop"],
    ),
    (State::Running, &[TO_PRE_COPY, &["> measure", "precopy info: not yet"]], &[]),
    (
        State::Running,
        &[TO_PRE_COPY, MEASURED, &["idle PreCopy: 0 read, initial 0, dirty 0"]],
        &["measure", "copy_chunk", "quiesce", "stop"],
    ),
    (State::Running, &[TO_PRE_COPY, &["> copy_chunk", "read data, room for 40: not yet"]], &[]),
    (
        State::Running,
        &[TO_PRE_COPY, &["> copy_chunk", "read data, room for 40: nothing now", "precopy info: not yet"]],
        &[],
    ),
    (State::Running, &[TO_PRE_COPY, &["> quiesce", "set PRE_COPY_P2P: not yet"]], &[]),
    (State::Running, &[TO_PRE_COPY, QUIESCED, &["idle Quiesced"]], &["stop"]),
    (State::Running, &[SET_UP, &["> quiesce", "set RUNNING_P2P: ok", "idle Quiesced"]], &["stop"]),
    (State::Running, &[TO_PRE_COPY, QUIESCED, &["> retreat", "set RUNNING_P2P: not yet"]], &[]),
    (
        State::Running,
        &[
            TO_PRE_COPY,
            QUIESCED,
            &["> retreat", "set RUNNING_P2P to recover: ok"],
            &["failed: cancelled; the device is in RUNNING_P2P"],
        ],
        &[],
    ),
    (State::Stop, &[&["idle Ready(Stop)"]], &["setup"]),
    (State::Stop, &[SET_UP, &["idle SetUp"]], &["stop"]),
    (State::Stop, &[TO_COPYING, &["idle Copying"]], &["copy_chunk", "copy_rest"]),
    (State::Stop, &[TO_COPYING, COPIED, FINISHED, &["idle Stopped"]], &["run_p2p", "run"]),
];

/// Calls `test` with a source of a driver with `features` at each place that it comes to, once `poll` has asked for what
/// comes next.
fn at_every_place(features: Features, mut test: impl FnMut(&mut Source<'_>, &[&str], &[&str])) {
    for (now, script, orders) in PLACES {
        let script = script.concat();
        if script.iter().any(|line| is_missing(features, line)) {
            continue;
        }
        let mut buffer = [0xa5; 64];
        let mut source = Source::new(features, now, false, &mut buffer).unwrap();
        play_source(&mut source, &mut Ends::new(&[1, 2, 3]), &script);
        test(&mut source, &script, orders);
    }
}

/// Whether a line of a script asks for a state that a driver with `features` lacks.
fn is_missing(features: Features, line: &str) -> bool {
    let state = line.strip_prefix("set ").and_then(|rest| rest.split([':', ' ']).next());
    State::ALL.into_iter().any(|each| Some(each.name()) == state && !features.have(each))
}

/// The state that an order goes to, where not every driver has it.
fn wanted(order: &str, place: &[&str]) -> Option<State> {
    match order {
        "setup pre_copy" => Some(State::PreCopy),
        "quiesce" if place.contains(&"> setup pre_copy") => Some(State::PreCopyP2p),
        "quiesce" | "run_p2p" => Some(State::RunningP2p),
        _ => None,
    }
}

#[test]
fn an_order_in_the_wrong_place_or_to_a_state_that_the_driver_lacks_is_misuse_and_changes_nothing() {
    let mut lacked = vec![];
    for (features, order) in
        Features::ALL.into_iter().flat_map(|features| SOURCE_ORDERS.map(|order| (features, order)))
    {
        at_every_place(features, |source, place, orders| {
            let before = format!("{source:?}");
            let answer = order_source(source, order);
            let lacks = wanted(order, place).filter(|&state| !features.have(state));
            let right = match lacks {
                _ if !orders.contains(&order) => Err(Misuse::WrongOrder),
                Some(state) => Err(Misuse::NoState(state)),
                None => Ok(()),
            };
            assert_eq!(answer, right, "{features}: {order} after {place:?}");
            if let Err(misuse) = answer {
                assert_eq!(format!("{source:?}"), before, "{features}: {order} after {place:?}");
                lacked.extend((misuse != Misuse::WrongOrder).then_some((features.raw(), order, lacks)));
            }
        });
    }
    lacked.sort_unstable_by_key(|(features, order, _)| (*features, *order));
    lacked.dedup();
    let (pre_copy, p2p) = (Some(State::PreCopy), Some(State::RunningP2p));
    let wanted = [
        (1, "quiesce", p2p),
        (1, "run_p2p", p2p),
        (1, "setup pre_copy", pre_copy),
        (3, "setup pre_copy", pre_copy),
        (5, "quiesce", p2p),
        (5, "quiesce", Some(State::PreCopyP2p)),
        (5, "run_p2p", p2p),
    ];
    assert_eq!(lacked, wanted);
}

const EVERY_DONE: [SourceDone; 14] = [
    SourceDone::SetState(Ok(())),
    SourceDone::SetState(Err(EIO)),
    SourceDone::PrecopyInfo(Ok(PrecopyInfo { initial_bytes: 1, dirty_bytes: 2, reinit: false })),
    SourceDone::PrecopyInfo(Err(EIO)),
    SourceDone::ReadData(Ok(DataRead::Bytes(1))),
    SourceDone::ReadData(Ok(DataRead::Drained)),
    SourceDone::ReadData(Ok(DataRead::End)),
    SourceDone::ReadData(Err(EIO)),
    SourceDone::Send(Ok(1)),
    SourceDone::Send(Err(EIO)),
    SourceDone::SendConfig(Ok(())),
    SourceDone::SendConfig(Err(EIO)),
    SourceDone::Reset(Ok(())),
    SourceDone::Reset(Err(EIO)),
];

/// An answer of the kind that `source` asks for, where it asks for anything.
fn right_done(source: &mut Source<'_>) -> Option<SourceDone> {
    Some(match source.poll() {
        SourceEffect::SetState(_) => SourceDone::SetState(Ok(())),
        SourceEffect::PrecopyInfo => SourceDone::PrecopyInfo(Ok(PrecopyInfo::default())),
        SourceEffect::ReadData(_) => SourceDone::ReadData(Ok(DataRead::End)),
        SourceEffect::Send(_) => SourceDone::Send(Ok(1)),
        SourceEffect::SendConfig => SourceDone::SendConfig(Ok(())),
        SourceEffect::Reset => SourceDone::Reset(Ok(())),
        SourceEffect::Idle(_) => return None,
    })
}

#[test]
fn an_answer_of_another_kind_is_misuse_and_changes_nothing() {
    for done in EVERY_DONE {
        at_every_place(ALL, |source, place, _| {
            let before = format!("{source:?}");
            let right = right_done(source).map(|right| discriminant(&right));
            let answer = source.complete(done);
            if right == Some(discriminant(&done)) {
                answer.unwrap();
            } else {
                assert_eq!(answer, Err(Misuse::WrongDone), "{done:?} after {place:?}");
                assert_eq!(format!("{source:?}"), before, "{done:?} after {place:?}");
            }
        });
    }
}

#[test]
fn an_answer_before_the_question_is_misuse_and_changes_nothing() {
    let mut buffer = [0xa5; 64];
    let mut source = Source::new(ALL, State::Running, false, &mut buffer).unwrap();
    for (start, order, done) in [
        (&[][..], "setup", SourceDone::Send(Ok(16))),
        (&["send 16: 16"], "stop", SourceDone::SetState(Ok(()))),
        (&["set STOP_COPY: ok"], "copy_rest", SourceDone::ReadData(Ok(DataRead::End))),
    ] {
        play_source(&mut source, &mut Ends::default(), start);
        order_source(&mut source, order).unwrap();
        let before = format!("{source:?}");
        assert_eq!(source.complete(done), Err(Misuse::WrongDone), "{order}");
        assert_eq!(format!("{source:?}"), before, "{order}");
    }
    play_source(&mut source, &mut Ends::default(), &["read data, room for 40: end"]);
    assert_eq!(source.complete(SourceDone::Send(Ok(8))), Err(Misuse::WrongDone), "between two effects");
    play_source(&mut source, &mut Ends::default(), &["send 8: 8", "idle Copied"]);
}

#[test]
fn more_bytes_than_were_offered_are_misuse_and_the_right_answer_is_still_taken() {
    let mut buffer = [0xa5; 64];
    let mut source = Source::new(ALL, State::Running, false, &mut buffer).unwrap();
    play_source(&mut source, &mut Ends::default(), &["> setup", "send 16: not yet"]);
    for got in [17, usize::MAX] {
        let before = format!("{source:?}");
        assert_eq!(source.complete(SourceDone::Send(Ok(got))), Err(Misuse::TooMany { offered: 16, got }));
        assert_eq!(format!("{source:?}"), before);
    }
    source.complete(SourceDone::Send(Ok(16))).unwrap();
    let read = ["> stop", "set STOP_COPY: ok", "> copy_rest", "read data, room for 40: not yet"];
    play_source(&mut source, &mut Ends::default(), &read);
    for got in [41, usize::MAX] {
        let before = format!("{source:?}");
        let done = SourceDone::ReadData(Ok(DataRead::Bytes(got)));
        assert_eq!(source.complete(done), Err(Misuse::TooMany { offered: 40, got }));
        assert_eq!(format!("{source:?}"), before);
    }
    source.complete(SourceDone::ReadData(Ok(DataRead::Bytes(40)))).unwrap();
    play_source(&mut source, &mut Ends::default(), &["send 56: 56"]);
}

#[test]
fn more_bytes_than_were_offered_to_a_chunk_are_misuse_and_are_not_counted() {
    let mut buffer = [0xa5; 64];
    let mut source = Source::new(ALL, State::Running, true, &mut buffer).unwrap();
    let script = [TO_PRE_COPY, &["> measure", "precopy info: initial 41, dirty 0", "> copy_chunk"]];
    play_source(&mut source, &mut Ends::default(), &script.concat());
    play_source(&mut source, &mut Ends::default(), &["read data, room for 40: not yet"]);
    for got in [41, usize::MAX] {
        let before = format!("{source:?}");
        let done = SourceDone::ReadData(Ok(DataRead::Bytes(got)));
        assert_eq!(source.complete(done), Err(Misuse::TooMany { offered: 40, got }));
        assert_eq!(format!("{source:?}"), before);
    }
    let rest = ["read data, room for 40: 40", "send 64: 64", "idle PreCopy: 40 read, initial 1, dirty 0"];
    play_source(&mut source, &mut Ends::new(&[7; 40]), &rest);
}

#[test]
fn a_small_buffer_and_a_state_in_which_no_migration_begins_are_misuse() {
    for got in 0..BUFFER_MIN {
        let answer = Source::new(ALL, State::Running, false, &mut vec![0; got]).map(|_| ());
        assert_eq!(answer, Err(Misuse::SmallBuffer { got }));
    }
    for state in State::ALL {
        let answer = Source::new(ALL, state, false, &mut [0; BUFFER_MIN]).map(|_| ());
        let legal = matches!(state, State::Running | State::Stop);
        assert_eq!(answer, if legal { Ok(()) } else { Err(Misuse::WrongState(state)) });
    }
}
