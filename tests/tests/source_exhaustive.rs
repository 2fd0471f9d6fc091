//! [`Source`] on every way through a migration: every one, two and three operations refused, and given up at every
//! effect.
//!
//! Deliberately absent: texts. What each failure is called stands in `source_failures.rs`.

use vfio_migration_core::device::State;
use vfio_migration_core::session::drive;
use vfio_migration_core::session::{
    Cause, Event, Failure, Left, Misuse, Source, SourceDone, SourceEffect, SourcePhase,
};
use vfio_migration_tests::model::{EIO, Faults, ModelDevice, ModelLink, nobody};
use vfio_migration_tests::script::{ALL, order_source};

/// Ways through a migration, and how many effects each has when all goes well.
const ROUTES: [(&[&str], usize); 4] = [
    (&["setup", "stop", "copy_rest", "config", "finish"], 14),
    (&["setup", "quiesce", "stop", "copy_chunk", "copy_rest", "finish", "run_p2p", "run"], 14),
    (&["setup pre_copy", "measure", "copy_chunk", "copy_chunk", "stop", "copy_rest", "config", "finish"], 19),
    (
        &[
            "setup pre_copy",
            "copy_chunk",
            "copy_chunk",
            "quiesce",
            "stop",
            "copy_rest",
            "finish",
            "run_p2p",
            "run",
        ],
        18,
    ),
];

/// The ways of a device that came from `now`: only a running one has pre-copy, and only with one does it quiesce.
fn routes(now: State) -> &'static [(&'static [&'static str], usize)] {
    if now == State::Running { &ROUTES } else { &ROUTES[..1] }
}

/// One save through the blocking loop, up to its end or its failure.
struct Save {
    events: Vec<Event>,
    phase: SourcePhase,
    device: ModelDevice,
    /// Whether `quiesce` was among the orders that were given.
    lockstep: bool,
}

/// Gives up before the effect with number `at`, by the order that is named. With `carried_out` the device or the link
/// has done what was asked for, and only its answer comes too late.
#[derive(Clone, Copy, Debug)]
struct GiveUp {
    order: &'static str,
    at: usize,
    carried_out: bool,
}

/// Saves a device that came from `now` by these orders.
fn save(now: State, orders: &[&str], breaks: bool, faults: &Faults, give_up: Option<GiveUp>) -> Save {
    let mut buffer = [0xa5; 64];
    let mut source = Source::new(ALL, now, true, &mut buffer).unwrap();
    let mut device =
        ModelDevice { breaks, early: 30, initial: 30, ..ModelDevice::new(now, &[7; 100], faults) };
    let mut link = ModelLink { config: vec![9; 20], ..ModelLink::new(&[], faults) };
    let mut events = vec![];
    let mut phase = SourcePhase::Ready(now);
    let mut lockstep = false;
    for order in orders {
        lockstep |= *order == "quiesce";
        order_source(&mut source, order).unwrap();
        let observe = |event: &Event| events.push(*event);
        phase = match give_up {
            None => drive::source(&mut source, &mut device, &mut link, observe).unwrap(),
            Some(give_up) => with_give_up(&mut source, &mut device, &mut link, &mut events, give_up),
        };
        if let SourcePhase::Failed(_) = phase {
            break;
        }
    }
    if let (Some(_), SourcePhase::Failed(failure)) = (give_up, phase) {
        let home = Failure { device: Left::At(now), ..failure };
        source.cancel();
        let end = drive::source(&mut source, &mut device, &mut link, nobody).unwrap();
        assert_eq!((end, device.state), (SourcePhase::Failed(home), now), "cancel ends where it began");
    }
    Save { events, phase, device, lockstep }
}

/// The loop of `drive`, which gives up when so many events have been and the next effect has been asked for.
fn with_give_up(
    source: &mut Source<'_>,
    device: &mut ModelDevice,
    link: &mut ModelLink,
    events: &mut Vec<Event>,
    give_up: GiveUp,
) -> SourcePhase {
    loop {
        if events.len() != give_up.at {
            match answer(source, device, link) {
                Ok(done) => events.push(source.complete(done).unwrap()),
                Err(phase) => return phase,
            }
            continue;
        }
        let late = match source.poll() {
            SourceEffect::Idle(phase) => return phase,
            _ if give_up.carried_out => answer(source, device, link).unwrap(),
            _ => SourceDone::Reset(Ok(())),
        };
        order_source(source, give_up.order).unwrap();
        assert_eq!(source.complete(late), Err(Misuse::WrongDone), "late: {give_up:?}");
        let done = match answer(source, device, link) {
            Ok(done @ SourceDone::SetState(Ok(()))) => done,
            Ok(done) => panic!("{done:?}: {give_up:?}"),
            Err(phase) => return phase,
        };
        events.push(source.complete(done).unwrap());
    }
}

/// Carries out what `source` asks for, or says that it is idle.
fn answer(
    source: &mut Source<'_>,
    device: &mut ModelDevice,
    link: &mut ModelLink,
) -> Result<SourceDone, SourcePhase> {
    use vfio_migration_core::session::drive::{Device, Transport};
    Ok(match source.poll() {
        SourceEffect::Idle(phase) => return Err(phase),
        SourceEffect::SetState(state) => SourceDone::SetState(device.set_state(state)),
        SourceEffect::PrecopyInfo => SourceDone::PrecopyInfo(device.precopy_info()),
        SourceEffect::ReadData(buffer) => SourceDone::ReadData(device.read_data(buffer)),
        SourceEffect::Send(bytes) => SourceDone::Send(link.send(bytes)),
        SourceEffect::SendConfig => SourceDone::SendConfig(link.send_config()),
        SourceEffect::Reset => SourceDone::Reset(device.reset()),
    })
}

/// The cause that an event is, where it is one.
fn cause_of(event: &Event) -> Option<Cause> {
    match *event {
        Event::SetState { state, result: Err(code), .. } => Some(Cause::Refused { state, code }),
        Event::PrecopyInfo { result: Err(code) } => Some(Cause::PrecopyInfo(code)),
        Event::ReadData { result: Err(code), .. } => Some(Cause::ReadData(code)),
        Event::Send { result: Err(code), .. } => Some(Cause::Send(code)),
        Event::SendConfig { result: Err(code) } => Some(Cause::SendConfig(code)),
        _ => None,
    }
}

/// The state that the last SET left a device in, where there was one.
fn last_state(events: &[Event]) -> Option<State> {
    events.iter().rev().find_map(|event| match event {
        Event::SetState { state, .. } => Some(*state),
        _ => None,
    })
}

/// The state that is tried when `cause` is the first thing that went wrong, after `before`; nothing where it is a reset.
fn way_back(cause: Cause, before: &[Event], now: State) -> Option<State> {
    let was = |wanted: State| {
        before.iter().any(|event| matches!(event, Event::SetState { state, .. } if *state == wanted))
    };
    match cause {
        Cause::Refused { state: State::PreCopy, .. } => Some(State::Running),
        Cause::Refused { state: State::StopCopy, .. } => Some(State::Stop),
        Cause::Refused { state: State::RunningP2p | State::PreCopyP2p, .. } if !was(State::Stop) => {
            Some(State::Running)
        }
        Cause::Refused { .. } => None,
        _ if was(State::RunningP2p) || was(State::PreCopyP2p) => Some(State::RunningP2p),
        _ => Some(now),
    }
}

/// What must hold after every save, whatever failed: the first cause is reported, each recovery is tried in its turn,
/// and the device is where the failure says.
fn check(save: &Save, now: State, what: &str) {
    let Some(first) = save.events.iter().position(|event| cause_of(event).is_some()) else {
        let end = last_state(&save.events).unwrap();
        let phase = if end == State::Stop { SourcePhase::Stopped } else { SourcePhase::Ready(end) };
        assert_eq!((save.phase, save.device.state), (phase, end), "{what}");
        return;
    };
    let cause = cause_of(&save.events[first]).unwrap();
    let (before, mut rest) = (&save.events[..first], &save.events[first + 1..]);
    let stood = last_state(before).unwrap_or(now);
    let mut left = None;
    match (way_back(cause, before, now), rest) {
        (None, _) => {}
        (Some(state), _) if state == stood && !matches!(cause, Cause::Refused { .. }) => {
            left = Some(Left::At(state));
        }
        (Some(state), [Event::SetState { state: tried, recovery: true, result }, after @ ..])
            if *tried == state =>
        {
            left = result.is_ok().then_some(Left::At(state));
            rest = after;
        }
        (Some(state), _) => panic!("{what}: {rest:?}, wanted a way back to {state}"),
    }
    let left = match (left, rest) {
        (Some(left), []) => left,
        (None, [Event::Reset { result: Ok(()) }]) => Left::Reset,
        (None, [Event::Reset { result: Err(EIO) }]) => Left::Unknown,
        _ => panic!("{what}: {rest:?}, wanted a reset"),
    };
    assert_eq!(save.phase, SourcePhase::Failed(Failure { cause, device: left }), "{what}");
    match left {
        Left::At(state) => assert_eq!(save.device.state, state, "{what}"),
        Left::Reset => assert_eq!(save.device.state, State::Running, "{what}"),
        Left::Unknown => {}
    }
}

#[test]
fn every_one_two_and_three_failed_operations_end_where_the_failure_says() {
    let mut outcomes = [0; 4];
    for now in [State::Running, State::Stop] {
        for &(orders, operations) in routes(now) {
            let whole = Faults::default();
            save(now, orders, false, &whole, None);
            assert_eq!(whole.operations(), operations, "{orders:?}");
            for breaks in [false, true] {
                for (i, j, k) in schedules(operations + 2) {
                    let what = format!("{orders:?} from {now}, breaks {breaks}, operations {i}, {j}, {k}");
                    let save = save(now, orders, breaks, &Faults::at(&[i, j, k]), None);
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
    }
    assert!(outcomes.iter().all(|&count| count > 0), "each outcome is met: {outcomes:?}");
}

/// Every one, two and three of the first `operations`; the same number twice is one fault less.
fn schedules(operations: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..operations)
        .flat_map(move |i| (i..operations).flat_map(move |j| (j..operations).map(move |k| (i, j, k))))
}

#[test]
fn cancel_at_every_effect_ends_where_the_device_came_from_and_retreat_in_running_p2p_once_it_quiesces() {
    for now in [State::Running, State::Stop] {
        for &(orders, operations) in routes(now) {
            for at in 0..operations {
                for (order, carried_out) in
                    [("cancel", false), ("cancel", true), ("retreat", false), ("retreat", true)]
                {
                    let give_up = GiveUp { order, at, carried_out };
                    let save = save(now, orders, false, &Faults::default(), Some(give_up));
                    let p2p = order == "retreat" && save.lockstep;
                    let device = Left::At(if p2p { State::RunningP2p } else { now });
                    let wanted = Failure { cause: Cause::Cancelled, device };
                    assert_eq!(save.phase, SourcePhase::Failed(wanted), "{orders:?}, {give_up:?}");
                }
            }
        }
    }
}
