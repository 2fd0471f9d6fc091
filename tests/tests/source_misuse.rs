//! [`Source`] when its caller makes a mistake: each is a [`Misuse`] and changes nothing.
//!
//! Deliberately absent: mistakes that the types rule out.

use std::mem::discriminant;

use vfio_migration_core::device::State;
use vfio_migration_core::session::{BUFFER_MIN, DataRead, Misuse, Source, SourceDone, SourceEffect};
use vfio_migration_tests::model::EIO;
use vfio_migration_tests::script::{
    COPIED, Ends, FINISHED, SET_UP, SOURCE_ORDERS, TO_COPYING, order_source, play_source,
};

/// Every place that a source can be in: the script that leads there and the orders that it takes there.
const PLACES: [(&[&[&str]], &[&str]); 14] = [
    (&[&["idle Ready(Running)"]], &["setup"]),
    (&[&["> setup", "send 16: not yet"]], &[]),
    (&[&["> setup", "send 16: 9", "send 7: not yet"]], &[]),
    (&[SET_UP, &["idle SetUp"]], &["stop"]),
    (&[SET_UP, &["> stop", "set STOP_COPY: not yet"]], &[]),
    (&[TO_COPYING, &["idle Copying"]], &["copy_rest"]),
    (&[TO_COPYING, &["> copy_rest", "read data, room for 40: not yet"]], &[]),
    (&[TO_COPYING, &["> copy_rest", "read data, room for 40: 3", "send 19: not yet"]], &[]),
    (&[TO_COPYING, COPIED, &["idle Copied"]], &["copy_rest", "config", "finish"]),
    (&[TO_COPYING, COPIED, &["> config", "send 8: 8", "send configuration: not yet"]], &[]),
    (&[TO_COPYING, COPIED, FINISHED, &["idle Stopped"]], &["run"]),
    (&[SET_UP, &["> stop", "set STOP_COPY: error 1", "set STOP: not yet"]], &[]),
    (&[SET_UP, &["> stop", "set STOP_COPY: error 1", "set STOP to recover: error 2", "reset: not yet"]], &[]),
    (&[&["> cancel", "failed: cancelled; the device is in RUNNING"]], &[]),
];

/// Calls `test` with a source at each place, once `poll` has asked for what comes next.
fn at_every_place(mut test: impl FnMut(&mut Source<'_>, &[&str], &[&str])) {
    for (script, orders) in PLACES {
        let script = script.concat();
        let mut buffer = [0xa5; 64];
        let mut source = Source::new(State::Running, &mut buffer).unwrap();
        play_source(&mut source, &mut Ends::new(&[1, 2, 3]), &script);
        test(&mut source, &script, orders);
    }
}

#[test]
fn an_order_in_the_wrong_place_is_misuse_and_changes_nothing() {
    for order in SOURCE_ORDERS {
        at_every_place(|source, place, orders| {
            let before = format!("{source:?}");
            let answer = order_source(source, order);
            if orders.contains(&order) {
                assert_eq!(answer, Ok(()), "{order} after {place:?}");
            } else {
                assert_eq!(answer, Err(Misuse::WrongOrder), "{order} after {place:?}");
                assert_eq!(format!("{source:?}"), before, "{order} after {place:?}");
            }
        });
    }
}

const EVERY_DONE: [SourceDone; 12] = [
    SourceDone::SetState(Ok(())),
    SourceDone::SetState(Err(EIO)),
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
        at_every_place(|source, place, _| {
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
    let mut source = Source::new(State::Running, &mut buffer).unwrap();
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
    let mut source = Source::new(State::Running, &mut buffer).unwrap();
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
fn a_small_buffer_and_a_state_in_which_no_migration_begins_are_misuse() {
    for got in 0..BUFFER_MIN {
        let answer = Source::new(State::Running, &mut vec![0; got]).map(|_| ());
        assert_eq!(answer, Err(Misuse::SmallBuffer { got }));
    }
    for state in State::ALL {
        let answer = Source::new(state, &mut [0; BUFFER_MIN]).map(|_| ());
        let legal = matches!(state, State::Running | State::Stop);
        assert_eq!(answer, if legal { Ok(()) } else { Err(Misuse::WrongState(state)) });
    }
}
