//! The checks of the schedules notice what they are for: each branch of the rule of recovery, done wrongly on purpose,
//! makes a schedule fail, and done as it is makes none.
//!
//! The wrong variants stand between a session and its device, or between a fleet and its host; core is as it is.
//!
//! Deliberately absent: variants that do the same in the end, as a SET of the state that the device is in.

use vfio_migration_core::device::State::{
    self, PreCopy, PreCopyP2p, Resuming, Running, RunningP2p, Stop, StopCopy,
};
use vfio_migration_core::session::fleet::{Order as Lockstep, Verdict};
use vfio_migration_core::session::{Cause, Code, Failure, Left};
use vfio_migration_tests::schedule::check::Against;
use vfio_migration_tests::schedule::explore::{self, Count, Found};
use vfio_migration_tests::schedule::log::Ask;
use vfio_migration_tests::schedule::mutant::{Act, Mutant, Seen};
use vfio_migration_tests::schedule::orders::{
    LOAD, LOAD_END, LOAD_P2P, Order, PRE_COPY, QUIESCED, QUIESCED_PRE_COPY, STOP_COPY,
};
use vfio_migration_tests::schedule::setting::{Make, Setting, end_alone, part_end, start_end_full};
use vfio_migration_tests::schedule::team::{Team, Turns, Unruly};

/// A variant that does another thing where recovery asks for a SET or a reset.
const fn does(name: &'static str, act: fn(&Seen, Ask) -> Act) -> Mutant {
    Mutant { name, act, report: |_, failure| failure }
}

/// A variant that reports another failure.
const fn reports(name: &'static str, report: fn(&Seen, Failure) -> Failure) -> Mutant {
    Mutant { name, act: |_, _| Act::Asked, report }
}

/// `act` in the place of the first recovery after `first` was refused.
fn after(seen: &Seen, first: Ask, act: Act) -> Act {
    if seen.first(first) && seen.recoveries == 0 { act } else { Act::Asked }
}

/// `act` in the place of the first recovery after a quiesce was refused.
fn after_quiesce(seen: &Seen, act: Act) -> Act {
    let refused = seen.first(Ask::Set(RunningP2p)) || seen.first(Ask::Set(PreCopyP2p));
    if refused && seen.order == Order::Quiesce && seen.recoveries == 0 { act } else { Act::Asked }
}

/// `act` in the place of the first recovery after data or the link failed.
fn after_data(seen: &Seen, act: Act) -> Act {
    if seen.data_or_link() && seen.recoveries == 0 { act } else { Act::Asked }
}

/// `act` in the place of the first recovery after a cancel.
fn after_cancel(seen: &Seen, act: Act) -> Act {
    if seen.cancelled() && seen.recoveries == 0 { act } else { Act::Asked }
}

/// `act` in the place of the reset that follows a refused recovery.
fn after_recovery(seen: &Seen, ask: Ask, act: Act) -> Act {
    if seen.recoveries == 1 && ask == Ask::Reset { act } else { Act::Asked }
}

/// A reset, done otherwise.
fn reset(ask: Ask, act: Act) -> Act {
    if ask == Ask::Reset { act } else { Act::Asked }
}

/// The state that a device did not come from.
fn elsewhere(seen: &Seen) -> State {
    if seen.make.state == Running { Stop } else { Running }
}

const SET_RUNNING: Act = Act::Instead(Ask::Set(Running));
const SET_STOP: Act = Act::Instead(Ask::Set(Stop));
const RESET: Act = Act::Instead(Ask::Reset);

const OF_BOTH: [Mutant; 9] = [
    does("a refused recovery is left at that", |seen, ask| after_recovery(seen, ask, Act::Nothing)),
    does("a refused recovery is followed by SET RUNNING", |seen, ask| after_recovery(seen, ask, SET_RUNNING)),
    does("a refused reset is taken for a reset", |_, ask| reset(ask, Act::Hushed)),
    does("a refused reset is tried again", |_, ask| reset(ask, Act::Again)),
    reports("a refused reset is reported as a reset", |_, failure| match failure.device {
        Left::Unknown => Failure { device: Left::Reset, ..failure },
        Left::At(_) | Left::Reset => failure,
    }),
    reports("a reset is reported as RUNNING", |_, failure| match failure.device {
        Left::Reset => Failure { device: Left::At(Running), ..failure },
        Left::At(_) | Left::Unknown => failure,
    }),
    reports("the last refusal is reported as the cause", |seen, failure| match (failure.cause, seen.last) {
        (Cause::Refused { state, code }, Some(last)) if code != last => {
            Failure { cause: Cause::Refused { state, code: last }, ..failure }
        }
        _ => failure,
    }),
    reports("a cancel after a failure is reported as the cause", |seen, failure| match seen.cancels {
        0 => failure,
        _ => Failure { cause: Cause::Cancelled, ..failure },
    }),
    reports("a cancel is reported as a refusal", |_, failure| match failure.cause {
        Cause::Cancelled => Failure { cause: Cause::Send(Code(125)), ..failure },
        _ => failure,
    }),
];

const OF_SOURCE: [Mutant; 23] = [
    does("refused PRE_COPY: reset", |seen, _| after(seen, Ask::Set(PreCopy), RESET)),
    does("refused PRE_COPY: nothing", |seen, _| after(seen, Ask::Set(PreCopy), Act::Nothing)),
    does("refused PRE_COPY: STOP", |seen, _| after(seen, Ask::Set(PreCopy), SET_STOP)),
    does("refused quiesce: reset", |seen, _| after_quiesce(seen, RESET)),
    does("refused quiesce: nothing", |seen, _| after_quiesce(seen, Act::Nothing)),
    does("refused quiesce: STOP", |seen, _| after_quiesce(seen, SET_STOP)),
    does("refused STOP_COPY: reset", |seen, _| after(seen, Ask::Set(StopCopy), RESET)),
    does("refused STOP_COPY: nothing", |seen, _| after(seen, Ask::Set(StopCopy), Act::Nothing)),
    does("refused STOP_COPY: RUNNING", |seen, _| after(seen, Ask::Set(StopCopy), SET_RUNNING)),
    does("refused STOP: tried again", |seen, _| after(seen, Ask::Set(Stop), SET_STOP)),
    does("refused STOP: RUNNING", |seen, _| after(seen, Ask::Set(Stop), SET_RUNNING)),
    does("refused RUNNING_P2P on the way to run: RUNNING", |seen, _| match seen.order {
        Order::RunP2p => after(seen, Ask::Set(RunningP2p), SET_RUNNING),
        _ => Act::Asked,
    }),
    does("refused RUNNING: tried again", |seen, _| after(seen, Ask::Set(Running), SET_RUNNING)),
    does("data or link: the device stays where it is", |seen, _| after_data(seen, Act::Nothing)),
    does("data or link: the state it did not come from", |seen, _| {
        after_data(seen, Act::Instead(Ask::Set(elsewhere(seen))))
    }),
    does("data or link: reset", |seen, _| after_data(seen, RESET)),
    does("data or link after quiesce: RUNNING at once", |seen, ask| match ask {
        Ask::Set(RunningP2p) => after_data(seen, SET_RUNNING),
        _ => Act::Asked,
    }),
    does("cancel: the device stays where it is", |seen, _| after_cancel(seen, Act::Nothing)),
    does("cancel: the state it did not come from", |seen, _| {
        after_cancel(seen, Act::Instead(Ask::Set(elsewhere(seen))))
    }),
    does("cancel: reset", |seen, _| after_cancel(seen, RESET)),
    does("retreat: RUNNING at once", |seen, ask| match ask {
        Ask::Set(RunningP2p) => after_cancel(seen, SET_RUNNING),
        _ => Act::Asked,
    }),
    does("cancel after a failure: the device stays where it is", |seen, ask| match ask {
        Ask::Set(_) if seen.cancels > 0 && !seen.cancelled() => Act::Nothing,
        _ => Act::Asked,
    }),
    does("refused recovery: tried again", |seen, ask| match seen.make.state {
        Stop => after_recovery(seen, ask, SET_STOP),
        _ => after_recovery(seen, ask, SET_RUNNING),
    }),
];

const OF_DESTINATION: [Mutant; 15] = [
    does("refused RESUMING: reset", |seen, _| after(seen, Ask::Set(Resuming), RESET)),
    does("refused RESUMING: nothing", |seen, _| after(seen, Ask::Set(Resuming), Act::Nothing)),
    does("refused RESUMING: the state it did not come from", |seen, _| {
        after(seen, Ask::Set(Resuming), Act::Instead(Ask::Set(elsewhere(seen))))
    }),
    does("refused STOP: tried again", |seen, _| after(seen, Ask::Set(Stop), SET_STOP)),
    does("refused RUNNING_P2P: RUNNING", |seen, _| after(seen, Ask::Set(RunningP2p), SET_RUNNING)),
    does("refused RUNNING: tried again", |seen, _| after(seen, Ask::Set(Running), SET_RUNNING)),
    does("refused write: STOP", |seen, _| after(seen, Ask::Write, SET_STOP)),
    does("refused write: RUNNING", |seen, _| after(seen, Ask::Write, SET_RUNNING)),
    does("refused write: nothing", |seen, _| after(seen, Ask::Write, Act::Nothing)),
    does("link: STOP", |seen, _| after(seen, Ask::Recv, SET_STOP)),
    does("link: nothing", |seen, _| after(seen, Ask::Recv, Act::Nothing)),
    does("configuration: STOP", |seen, _| after(seen, Ask::RecvConfig, SET_STOP)),
    does("cancel: STOP", |seen, _| after_cancel(seen, SET_STOP)),
    does("cancel: RUNNING", |seen, _| after_cancel(seen, SET_RUNNING)),
    does("cancel: nothing", |seen, _| after_cancel(seen, Act::Nothing)),
];

const fn hears(name: &'static str, hears: fn(Lockstep, Verdict) -> Verdict) -> Unruly {
    Unruly { name, hears, retreats: true }
}

const UNRULY: [Unruly; 12] = [
    hears("quiesce is skipped", |order, verdict| match (order, verdict) {
        (Lockstep::Quiesce, Verdict::Go) => Verdict::Done,
        _ => verdict,
    }),
    hears("stop does not wait", |order, verdict| impatient(Lockstep::Stop, order, verdict)),
    hears("finish does not wait", |order, verdict| impatient(Lockstep::Finish, order, verdict)),
    hears("RUNNING_P2P does not wait", |order, verdict| impatient(Lockstep::RunP2p, order, verdict)),
    hears("run does not wait", |order, verdict| impatient(Lockstep::Run, order, verdict)),
    hears("cancel does not wait", |order, verdict| impatient(Lockstep::Cancel, order, verdict)),
    hears("RUNNING_P2P is skipped", |order, verdict| match (order, verdict) {
        (Lockstep::RunP2p, Verdict::Go) => Verdict::Done,
        _ => verdict,
    }),
    hears("run is skipped", |order, verdict| match (order, verdict) {
        (Lockstep::Run, Verdict::Go) => Verdict::Done,
        _ => verdict,
    }),
    hears("nobody goes back", |_, verdict| match verdict {
        Verdict::GoBack => Verdict::Wait,
        _ => verdict,
    }),
    hears("all goes on after a failure", |_, verdict| match verdict {
        Verdict::GoBack => Verdict::Go,
        _ => verdict,
    }),
    hears("cancel waits for ever", |order, verdict| match (order, verdict) {
        (Lockstep::Cancel, Verdict::Go) => Verdict::Wait,
        _ => verdict,
    }),
    Unruly { name: "cancel without a retreat", hears: |_, verdict| verdict, retreats: false },
];

fn impatient(which: Lockstep, order: Lockstep, verdict: Verdict) -> Verdict {
    if order == which && verdict == Verdict::Wait { Verdict::Go } else { verdict }
}

fn sources() -> Vec<Setting> {
    let quiesced = Setting::source("quiesced", 3, Running, QUIESCED);
    vec![
        Setting::source("stop-copy", 3, Running, STOP_COPY),
        Setting::source("stop-copy", 3, Stop, STOP_COPY),
        Setting::source("pre-copy", 7, Running, PRE_COPY),
        Setting { retreats: true, ..quiesced.clone() },
        quiesced,
        Setting::source("quiesced in pre-copy", 7, Running, QUIESCED_PRE_COPY),
    ]
}

fn destinations() -> Vec<Setting> {
    let all = [(Running, false), (Stop, false), (Running, true)].map(|(from, strict)| {
        let make = Make::destination(7, from, strict);
        let stop_copy = Setting::destination("stop-copy", make, LOAD, start_end_full());
        [stop_copy, Setting::destination("pre-copy", make, LOAD_P2P, part_end())]
    });
    all.concat()
}

fn teams() -> Vec<Team> {
    let source = Setting::source("source", 3, Running, QUIESCED);
    let make = Make::destination(3, Running, false);
    let destination = Setting::destination("destination", make, LOAD_END, end_alone());
    let pairs = [vec![source.clone(), source], vec![destination.clone(), destination]];
    let turns = Turns::AsFarAsItGoes;
    pairs.into_iter().map(|settings| Team { settings, first: 0, turns, prompt: false }).collect()
}

/// The first schedule of up to two faults that a variant makes fail, held against `against`.
fn first_of<S>(
    settings: &[S],
    against: Against,
    explore_one: impl Fn(&S, usize, Against) -> Result<Count, Found>,
) -> Option<(&S, Found)> {
    let all = (0..=2).flat_map(|most| settings.iter().map(move |setting| (most, setting)));
    let mut all = all.map(|(most, setting)| (setting, explore_one(setting, most, against)));
    all.find_map(|(setting, result)| Some((setting, result.err()?)))
}

/// Prints a line of the table of variants: the schedule that fails, and what does not hold by the device alone. Says
/// whether there is such a schedule.
fn caught<S>(
    name: &str,
    settings: &[S],
    title: impl Fn(&S) -> String,
    explore_one: impl Fn(&S, usize, Against) -> Result<Count, Found> + Copy,
) -> bool {
    let Some((setting, Found { faults, wrong })) = first_of(settings, Against::Both, explore_one) else {
        println!("| {name} | no schedule fails | |");
        return false;
    };
    let faults: Vec<_> = faults.iter().map(|fault| format!("{:?} at {}", fault.kind, fault.number)).collect();
    let wrong = wrong.lines().next().unwrap_or_default();
    let alone = first_of(settings, Against::DeviceAlone, explore_one);
    let alone = alone.as_ref().and_then(|(_, found)| found.wrong.lines().next()).unwrap_or("all holds");
    println!("| {name} | {}: {}: {wrong} | {alone} |", title(setting), faults.join(", "));
    true
}

fn assert_caught(mutants: &[Mutant], settings: &[Setting]) {
    let caught = |mutant: &Mutant| {
        let explore_one =
            |setting: &Setting, most, against| explore::mutated(setting, most, Some(*mutant), against);
        caught(mutant.name, settings, Setting::title, explore_one)
    };
    assert!(!caught(&does("as it is", |_, _| Act::Asked)));
    let missed: Vec<_> = mutants.iter().filter(|mutant| !caught(mutant)).map(|mutant| mutant.name).collect();
    assert!(missed.is_empty(), "{missed:?}");
}

#[test]
fn each_wrong_variant_of_a_source_makes_a_schedule_fail() {
    assert_caught(&[&OF_BOTH[..], &OF_SOURCE].concat(), &sources());
}

#[test]
fn each_wrong_variant_of_a_destination_makes_a_schedule_fail() {
    assert_caught(&[&OF_BOTH[..], &OF_DESTINATION].concat(), &destinations());
}

#[test]
fn each_host_that_does_not_do_as_its_fleet_says_makes_a_schedule_fail() {
    let caught = |unruly: &Unruly| {
        let explore_one = |team: &Team, most, against| explore::team(team, most, Some(*unruly), against);
        caught(unruly.name, &teams(), Team::title, explore_one)
    };
    assert!(!caught(&hears("as it is", |_, verdict| verdict)));
    let missed: Vec<_> = UNRULY.iter().filter(|unruly| !caught(unruly)).map(|unruly| unruly.name).collect();
    assert!(missed.is_empty(), "{missed:?}");
}
