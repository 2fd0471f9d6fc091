//! [`Destination`] when its caller makes a mistake: each is a [`Misuse`] and changes nothing.
//!
//! Deliberately absent: mistakes that the types rule out.

use std::mem::discriminant;

use vfio_migration_core::device::{Features, State};
use vfio_migration_core::session::{BUFFER_MIN, Destination, DestinationDone, DestinationEffect, Misuse};
use vfio_migration_tests::model::EIO;
use vfio_migration_tests::payload::{DATA, every_effect};
use vfio_migration_tests::script::{
    ALL, DESTINATION_ORDERS, Ends, STOPPED, TEN_BYTES, TO_DATA, TO_RESUMING, order_destination,
    play_destination,
};

/// Every place that a destination can be in: the script that leads there and the orders that it takes there.
const PLACES: [(&[&[&str]], &[&str]); 16] = [
    (&[&["idle Ready(Running)"]], &["resume"]),
    (&[&["> resume", "set RESUMING: not yet"]], &[]),
    (&[TO_RESUMING, &["idle Resuming"]], &["section", "stop"]),
    (&[TO_RESUMING, &["> section", "receive 8: not yet"]], &[]),
    (&[TO_RESUMING, &["> section", "receive 8: 5", "receive 3: not yet"]], &[]),
    (&[TO_RESUMING, TO_DATA, &["receive 10: not yet"]], &[]),
    (&[TO_RESUMING, TO_DATA, &["receive 10: 10", "write data 10: not yet"]], &[]),
    (&[TO_RESUMING, TO_DATA, TEN_BYTES, &["receive 8: 8", "receive configuration: not yet"]], &[]),
    (
        &[
            TO_RESUMING,
            TO_DATA,
            TEN_BYTES,
            &["receive 8: 8", "receive configuration: 4", "receive 8: 8", "idle Section(EndOfState)"],
        ],
        &["section", "stop"],
    ),
    (&[TO_RESUMING, STOPPED, &["idle Stopped"]], &["run_p2p", "run"]),
    (&[TO_RESUMING, STOPPED, &["> run_p2p", "set RUNNING_P2P: not yet"]], &[]),
    (&[TO_RESUMING, STOPPED, &["> run_p2p", "set RUNNING_P2P: ok", "idle RunningP2p"]], &["run"]),
    (
        &[
            TO_RESUMING,
            STOPPED,
            &["> run_p2p", "set RUNNING_P2P: ok", "> run", "set RUNNING: ok", "idle Running"],
        ],
        &[],
    ),
    (&[TO_RESUMING, STOPPED, &["> run", "set RUNNING: ok", "idle Running"]], &[]),
    (&[TO_RESUMING, &["> cancel", "reset: not yet"]], &[]),
    (&[&["> cancel", "failed: cancelled; the device is in RUNNING"]], &[]),
];

/// Calls `test` with a destination at each place, once `poll` has asked for what comes next.
fn at_every_place(mut test: impl FnMut(&mut Destination<'_>, &[&str], &[&str])) {
    for (script, orders) in PLACES {
        let script = script.concat();
        let mut buffer = [0xa5; 64];
        let mut destination = Destination::new(ALL, State::Running, true, &mut buffer).unwrap();
        play_destination(&mut destination, &mut Ends::new(&every_effect()), &script);
        test(&mut destination, &script, orders);
    }
}

#[test]
fn an_order_in_the_wrong_place_is_misuse_and_changes_nothing() {
    for order in DESTINATION_ORDERS {
        at_every_place(|destination, place, orders| {
            let before = format!("{destination:?}");
            let answer = order_destination(destination, order);
            if orders.contains(&order) {
                assert_eq!(answer, Ok(()), "{order} after {place:?}");
            } else {
                assert_eq!(answer, Err(Misuse::WrongOrder), "{order} after {place:?}");
                assert_eq!(format!("{destination:?}"), before, "{order} after {place:?}");
            }
        });
    }
}

#[test]
fn run_p2p_without_p2p_is_misuse_in_its_place_alone_and_changes_nothing() {
    for features in Features::ALL.into_iter().filter(|features| !features.p2p) {
        for (script, orders) in PLACES {
            let script = script.concat();
            if script.contains(&"> run_p2p") {
                continue;
            }
            let mut buffer = [0xa5; 64];
            let mut destination = Destination::new(features, State::Running, true, &mut buffer).unwrap();
            play_destination(&mut destination, &mut Ends::new(&every_effect()), &script);
            let before = format!("{destination:?}");
            let right = if orders.contains(&"run_p2p") {
                Misuse::NoState(State::RunningP2p)
            } else {
                Misuse::WrongOrder
            };
            assert_eq!(destination.run_p2p(), Err(right), "{features}: after {script:?}");
            assert_eq!(format!("{destination:?}"), before, "{features}: after {script:?}");
        }
    }
}

const EVERY_DONE: [DestinationDone; 10] = [
    DestinationDone::SetState(Ok(())),
    DestinationDone::SetState(Err(EIO)),
    DestinationDone::Recv(Ok(1)),
    DestinationDone::Recv(Err(EIO)),
    DestinationDone::WriteData(Ok(1)),
    DestinationDone::WriteData(Err(EIO)),
    DestinationDone::RecvConfig(Ok(4)),
    DestinationDone::RecvConfig(Err(EIO)),
    DestinationDone::Reset(Ok(())),
    DestinationDone::Reset(Err(EIO)),
];

/// An answer of the kind that `destination` asks for, where it asks for anything.
fn right_done(destination: &mut Destination<'_>) -> Option<DestinationDone> {
    Some(match destination.poll() {
        DestinationEffect::SetState(_) => DestinationDone::SetState(Ok(())),
        DestinationEffect::Recv(_) => DestinationDone::Recv(Ok(1)),
        DestinationEffect::WriteData(_) => DestinationDone::WriteData(Ok(1)),
        DestinationEffect::RecvConfig => DestinationDone::RecvConfig(Ok(4)),
        DestinationEffect::Reset => DestinationDone::Reset(Ok(())),
        DestinationEffect::Idle(_) => return None,
    })
}

#[test]
fn an_answer_of_another_kind_is_misuse_and_changes_nothing() {
    for done in EVERY_DONE {
        at_every_place(|destination, place, _| {
            let before = format!("{destination:?}");
            let right = right_done(destination).map(|right| discriminant(&right));
            let answer = destination.complete(done);
            if right == Some(discriminant(&done)) {
                answer.unwrap();
            } else {
                assert_eq!(answer, Err(Misuse::WrongDone), "{done:?} after {place:?}");
                assert_eq!(format!("{destination:?}"), before, "{done:?} after {place:?}");
            }
        });
    }
}

#[test]
fn an_answer_before_the_question_is_misuse_and_changes_nothing() {
    let mut buffer = [0xa5; 64];
    let mut destination = Destination::new(ALL, State::Running, true, &mut buffer).unwrap();
    for (order, done, answer) in [
        ("resume", DestinationDone::SetState(Ok(())), "set RESUMING: ok"),
        ("section", DestinationDone::Recv(Ok(8)), "receive 8: 8"),
    ] {
        order_destination(&mut destination, order).unwrap();
        let before = format!("{destination:?}");
        assert_eq!(destination.complete(done), Err(Misuse::WrongDone), "{order}");
        assert_eq!(format!("{destination:?}"), before, "{order}");
        play_destination(&mut destination, &mut Ends::new(&DATA), &[answer]);
    }
    assert_eq!(destination.complete(DestinationDone::Recv(Ok(8))), Err(Misuse::WrongDone), "between two");
}

#[test]
fn more_bytes_than_were_offered_are_misuse_and_the_right_answer_is_still_taken() {
    let mut buffer = [0xa5; 64];
    let mut destination = Destination::new(ALL, State::Running, true, &mut buffer).unwrap();
    let mut ends = Ends::new(&every_effect());
    play_destination(&mut destination, &mut ends, TO_RESUMING);
    order_destination(&mut destination, "section").unwrap();
    let table = [
        (["receive 8: not yet", "receive 8: 8"], 8),
        (["receive 8: not yet", "receive 8: 8"], 8),
        (["receive 10: not yet", "receive 10: 10"], 10),
        (["write data 10: not yet", "write data 10: 10"], 10),
    ];
    for ([question, answer], offered) in table {
        play_destination(&mut destination, &mut ends, &[question]);
        for got in [offered + 1, usize::MAX] {
            let before = format!("{destination:?}");
            let done = match destination.poll() {
                DestinationEffect::WriteData(_) => DestinationDone::WriteData(Ok(got)),
                _ => DestinationDone::Recv(Ok(got)),
            };
            assert_eq!(destination.complete(done), Err(Misuse::TooMany { offered, got }), "{question}");
            assert_eq!(format!("{destination:?}"), before, "{question}");
        }
        play_destination(&mut destination, &mut ends, &[answer]);
    }
}

#[test]
fn a_small_buffer_and_a_state_in_which_no_migration_begins_are_misuse() {
    for got in 0..BUFFER_MIN {
        let answer = Destination::new(ALL, State::Running, true, &mut vec![0; got]).map(|_| ());
        assert_eq!(answer, Err(Misuse::SmallBuffer { got }));
    }
    for state in State::ALL {
        let answer = Destination::new(ALL, state, true, &mut [0; BUFFER_MIN]).map(|_| ());
        let legal = matches!(state, State::Running | State::Stop);
        assert_eq!(answer, if legal { Ok(()) } else { Err(Misuse::WrongState(state)) });
    }
}
