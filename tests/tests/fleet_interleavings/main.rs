//! A [`Fleet`] under every order of progress of its devices, with every operation failing at any point.
//!
//! All places of all devices are searched together, each device with a thread of its own. A thread is this much: it asks
//! for the next order, does not wait where that is done already, and goes back where it is told so. In half of the
//! searches an order and its end are one step; in the others it is under way for as long as the search likes, and the
//! fleet is told of its end only. At any time after all data are through the fleet may be committed, and behind that
//! nobody cancels.
//!
//! Deliberately absent: [`Fleet`]'s own idea of what a device may do. What a session does is learnt from the session
//! itself, in `places.rs`, and what may not be is said in states.

mod places;

use std::collections::HashMap;

use vfio_migration_core::device::{Features, State};
use vfio_migration_core::session::fleet::{Fleet, Joining, Order, Verdict};
use vfio_migration_core::session::{DestinationPhase, Failure, Left, SourcePhase};
use vfio_migration_tests::script::ALL;

use places::{Kind, Phase, Place, Role, failed, learn, orders};

/// A device in the search.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Member {
    place: usize,
    /// The order under way, and the number of the edge that it takes.
    way: Option<(&'static str, usize)>,
    /// Whether it has run on.
    done: bool,
}

/// All devices, and what the fleet knows of them.
#[derive(Clone)]
struct World {
    members: Vec<Member>,
    going_back: bool,
    committed: bool,
    /// Whether leave was given to run.
    runs: bool,
    fleet: Fleet<'static, 3>,
}

/// A world that follows another one.
struct After {
    world: World,
    /// The one between the two, where an order and its end are one step.
    midway: Option<World>,
    text: String,
    /// Whether nothing failed and nobody cancelled.
    good: bool,
}

/// What a thread does next.
enum Next {
    Give(&'static str),
    Wait,
    Nothing,
}

struct Search {
    kinds: Vec<Kind>,
    places: Vec<Vec<Place>>,
    /// Whether an order and its end are one step.
    atomic: bool,
    /// Whether operations fail.
    fails: bool,
}

/// What a search has come through.
#[derive(Default)]
struct Found {
    worlds: usize,
    /// Ends at which one device was lost after the commit, and all others are where they should be.
    lost_alone: usize,
}

const NAMES: [&str; 3] = ["a", "b", "c"];

impl Search {
    fn start(&self) -> World {
        let joining = |(kind, name): (&Kind, _)| Joining { name, features: kind.features, now: kind.now };
        let joining: Vec<_> = self.kinds.iter().zip(NAMES).map(joining).collect();
        let member = Member { place: 0, way: None, done: false };
        let members = vec![member; self.kinds.len()];
        let fleet = Fleet::new(&joining).unwrap();
        World { members, going_back: false, committed: false, runs: false, fleet }
    }

    fn place(&self, world: &World, index: usize) -> &Place {
        &self.places[index][world.members[index].place]
    }

    /// What the thread of a device does next. It asks the fleet once, and once more where a step is done already.
    fn next(&self, world: &mut World, index: usize) -> Next {
        let Kind { role, .. } = self.kinds[index];
        let member = world.members[index];
        let place = &self.places[index][member.place];
        let leads_on = |order: &str| place.edges[order][0].to != member.place;
        let mut ask = |asked: Order| {
            let verdict = world.fleet.may(index, asked);
            world.runs |= (asked, verdict) == (Order::Run, Verdict::Go);
            verdict
        };
        let (order, verdict) = match place.phase {
            _ if member.done => return Next::Nothing,
            Phase::Source(SourcePhase::Failed(_)) if leads_on("retreat") => return Next::Give("retreat"),
            Phase::Source(SourcePhase::Failed(_)) if leads_on("cancel") => ("cancel", ask(Order::Cancel)),
            Phase::Source(SourcePhase::Failed(_)) => return Next::Nothing,
            Phase::Source(SourcePhase::Ready(State::RunningP2p)) => ("run", ask(Order::Run)),
            Phase::Source(SourcePhase::Ready(_)) => {
                return Next::Give(orders(self.kinds[index], place.phase)[0]);
            }
            Phase::Source(SourcePhase::SetUp | SourcePhase::PreCopy(_)) => match ask(Order::Quiesce) {
                Verdict::Done => ("stop", ask(Order::Stop)),
                verdict => ("quiesce", verdict),
            },
            Phase::Source(SourcePhase::Quiesced) => ("stop", ask(Order::Stop)),
            Phase::Source(SourcePhase::Copying) => return Next::Give("copy_rest"),
            Phase::Source(SourcePhase::Copied) => ("finish", ask(Order::Finish)),
            // A thread that has left knows by other means that all go back.
            Phase::Source(SourcePhase::Stopped) if role == Role::Leaves => {
                let goes_back = world.fleet.clone().may(index, Order::Finish) == Verdict::GoBack;
                return if goes_back { Next::Give("retreat") } else { Next::Nothing };
            }
            Phase::Source(SourcePhase::Stopped) | Phase::Destination(DestinationPhase::Stopped) => {
                match ask(Order::RunP2p) {
                    Verdict::Done => ("run", ask(Order::Run)),
                    verdict => ("run_p2p", verdict),
                }
            }
            Phase::Destination(DestinationPhase::Ready(_)) => return Next::Give("resume"),
            Phase::Destination(DestinationPhase::Resuming) => return Next::Give("stop"),
            Phase::Destination(DestinationPhase::RunningP2p) => ("run", ask(Order::Run)),
            Phase::Destination(_) => return Next::Nothing,
        };
        match verdict {
            Verdict::GoBack if world.committed => {
                panic!("{order} is answered with a way back after the commit")
            }
            Verdict::Go => Next::Give(order),
            Verdict::Wait => Next::Wait,
            Verdict::GoBack if role == Role::Comes => Next::Give("cancel"),
            Verdict::GoBack => Next::Give("retreat"),
            Verdict::Done => panic!("{order} is done in {:?}", place.phase),
        }
    }

    fn after(&self, world: &World) -> Vec<After> {
        let mut worlds = vec![];
        for (index, member) in world.members.iter().enumerate() {
            let name = NAMES[index];
            if let Some((order, _)) = member.way {
                let text = format!("{name} has done {order}");
                worlds.push(After { world: self.landed(world, index), midway: None, text, good: true });
                continue;
            }
            let mut asked = world.clone();
            let Next::Give(order) = self.next(&mut asked, index) else { continue };
            self.check_order(world, index, order).unwrap();
            let edges = self.place(world, index).edges[order].len();
            for number in 0..if self.fails { edges } else { 1 } {
                let mut midway = asked.clone();
                midway.members[index].way = Some((order, number));
                let good = number == 0;
                let text = format!("{name} begins {order}{}", if good { "" } else { ", which fails" });
                worlds.push(if self.atomic {
                    After { world: self.landed(&midway, index), midway: Some(midway), text, good }
                } else {
                    After { world: midway, midway: None, text, good }
                });
            }
        }
        if !world.going_back && !world.committed && self.is_through(world) {
            let mut world = World { committed: true, ..world.clone() };
            world.fleet.commit();
            worlds.push(After { world, midway: None, text: "committed".into(), good: false });
        }
        if !world.going_back && !world.committed {
            let mut world = World { going_back: true, ..world.clone() };
            world.fleet.cancel();
            worlds.push(After { world, midway: None, text: "cancelled".into(), good: false });
        }
        worlds
    }

    fn landed(&self, world: &World, index: usize) -> World {
        let mut after = world.clone();
        let member = &mut after.members[index];
        let (order, number) = member.way.take().expect("under way");
        member.place = self.places[index][member.place].edges[order][number].to;
        let place = &self.places[index][member.place];
        member.done |= order == "run" && !failed(place.phase);
        match place.phase {
            Phase::Source(phase) => after.fleet.source(index, phase),
            Phase::Destination(phase) => after.fleet.destination(index, phase),
        }
        after.going_back |= failed(place.phase) && !after.committed;
        after
    }

    /// Whether all devices' data are out or loaded, and nobody has failed.
    fn is_through(&self, world: &World) -> bool {
        let mut all =
            (0..self.kinds.len()).map(|index| (world.members[index].done, self.place(world, index)));
        all.all(|(done, place)| match place.phase {
            Phase::Source(phase) => {
                let p2p = SourcePhase::Ready(State::RunningP2p);
                done || [SourcePhase::Copied, SourcePhase::Stopped, p2p].contains(&phase)
            }
            Phase::Destination(phase) => {
                use DestinationPhase::{Running, RunningP2p, Stopped};
                [Stopped, RunningP2p, Running].contains(&phase)
            }
        })
    }

    /// The states that a device may be in just now; none where nobody answers for it any more.
    fn states(&self, world: &World, index: usize) -> Vec<State> {
        let place = self.place(world, index);
        let states = match world.members[index].way {
            _ if place.lost => return vec![],
            Some((order, number)) => place.edges[order][number].through.clone(),
            None => vec![place.at],
        };
        // Before a state was loaded into it a device runs for nobody.
        let Phase::Destination(phase) = place.phase else { return states };
        let loaded = [DestinationPhase::Stopped, DestinationPhase::RunningP2p, DestinationPhase::Running];
        states.into_iter().filter(|state| *state != State::Running || loaded.contains(&phase)).collect()
    }

    /// No device can start DMA while another stands still.
    fn check(&self, world: &World) -> Result<(), String> {
        let active = |state: &State| matches!(state, State::Running | State::PreCopy);
        let of = |index| (NAMES[index], self.states(world, index));
        let all: Vec<_> = (0..self.kinds.len()).map(of).collect();
        for (a, of_a) in &all {
            for (b, of_b) in all.iter().filter(|(b, _)| a != b) {
                if of_a.iter().any(active) && of_b.iter().any(still) {
                    return Err(format!("{a} in {of_a:?} while {b} in {of_b:?}"));
                }
            }
        }
        Ok(())
    }

    /// No device may be finished before all stand still, and none goes back after the commit. Who was lost after it
    /// counts no more.
    fn check_order(&self, world: &World, index: usize, order: &str) -> Result<(), String> {
        let counts = |place: &Place| !world.committed || !place.lost;
        let is_early = |place: &Place| counts(place) && !still(&place.at);
        let early = (0..self.kinds.len()).find(|other| is_early(self.place(world, *other)));
        match early {
            _ if world.committed && ["retreat", "cancel"].contains(&order) => {
                Err(format!("{} is ordered to {order} after the commit", NAMES[index]))
            }
            Some(other) if order == "finish" => {
                Err(format!("{} while {} in {}", NAMES[index], NAMES[other], self.place(world, other).at))
            }
            _ => Ok(()),
        }
    }

    /// At an end all have left, or all run, or all are back where they came from but for those that were reset. After
    /// the commit nobody is back.
    fn check_end(&self, world: &World) -> Result<(), String> {
        let has_left = |place: &Place| place.lost || place.phase == Phase::Source(SourcePhase::Stopped);
        let all_left = (0..self.kinds.len()).all(|index| has_left(self.place(world, index)));
        for (index, kind) in self.kinds.iter().enumerate() {
            let place = self.place(world, index);
            let right = match place.phase {
                phase if world.committed && failed(phase) => place.lost,
                Phase::Source(SourcePhase::Failed(Failure { device, .. })) => {
                    world.going_back && (device == Left::At(kind.now) || place.lost)
                }
                Phase::Source(SourcePhase::Stopped) => {
                    kind.role == Role::Leaves && (!world.going_back || all_left)
                }
                Phase::Source(_) => kind.role == Role::RunsOn && world.members[index].done,
                Phase::Destination(DestinationPhase::Failed(_)) => world.going_back,
                Phase::Destination(phase) => phase == DestinationPhase::Running,
            };
            if !right {
                return Err(format!("{} ends as {:?} in {}", NAMES[index], place.phase, place.at));
            }
        }
        Ok(())
    }

    /// Searches every world, and that from each there is a way to an end on which nothing fails.
    fn run(&self) -> Found {
        let mut worlds = vec![self.start()];
        let mut came = vec![(0, String::new())];
        let mut before: Vec<Vec<usize>> = vec![vec![]];
        let mut numbers = HashMap::from([((worlds[0].members.clone(), false, false, false), 0)]);
        let mut ends = vec![];
        let mut next = 0;
        while let Some(world) = worlds.get(next).cloned() {
            let mut indexes = 0..self.kinds.len();
            if indexes.all(|i| {
                world.members[i].way.is_none() && matches!(self.next(&mut world.clone(), i), Next::Nothing)
            }) {
                self.check_end(&world).unwrap_or_else(|wrong| panic!("{wrong}: {}", trace(&came, next)));
                ends.push(next);
            }
            for After { world: after, midway, text, good } in self.after(&world) {
                for world in midway.iter().chain([&after]) {
                    let check = self.check(world);
                    check.unwrap_or_else(|wrong| panic!("{wrong}: {}{text}", trace(&came, next)));
                }
                let key = (after.members.clone(), after.going_back, after.committed, after.runs);
                let number = *numbers.entry(key).or_insert(worlds.len());
                if number == worlds.len() {
                    worlds.push(after);
                    came.push((next, text));
                    before.push(vec![]);
                }
                if good {
                    before[number].push(next);
                }
            }
            next += 1;
        }
        let lost_alone = ends.iter().filter(|end| self.one_is_lost(&worlds[**end])).count();
        let mut ends_well = vec![false; worlds.len()];
        while let Some(number) = ends.pop() {
            if !std::mem::replace(&mut ends_well[number], true) {
                ends.extend(&before[number]);
            }
        }
        let stuck = ends_well.iter().position(|ends| !ends);
        assert_eq!(stuck, None, "stuck: {}", trace(&came, stuck.unwrap_or(0)));
        Found { worlds: worlds.len(), lost_alone }
    }

    /// Whether one of several devices was lost after the commit.
    fn one_is_lost(&self, world: &World) -> bool {
        let lost = (0..self.kinds.len()).filter(|index| self.place(world, *index).lost).count();
        world.committed && lost == 1 && self.kinds.len() > 1
    }
}

fn still(state: &State) -> bool {
    matches!(state, State::Stop | State::StopCopy | State::Resuming)
}

/// What happened up to a world.
fn trace(came: &[(usize, String)], number: usize) -> String {
    if number == 0 { String::new() } else { trace(came, came[number].0) + &came[number].1 + "; " }
}

/// Searches fleets of up to three devices, with pre-copy and without it.
fn search(role: Role, now: State, atomic: bool) -> Found {
    let kind = |features| Kind { role, features, now };
    let (a, b) = (kind(ALL), kind(Features { p2p: true, pre_copy: false }));
    let alone = Features::ALL.map(|features| vec![kind(features)]);
    // Three whose orders are under way at once and fail would be too many worlds.
    let (pairs, threes) = ([vec![a, a], vec![a, b], vec![b, b]], [vec![a, a, b], vec![b; 3]]);
    let few = alone.into_iter().chain(pairs).map(|kinds| (kinds, true));
    let fleets = few.chain(threes.into_iter().map(|kinds| (kinds, atomic)));
    let searches = fleets.map(|(kinds, fails)| {
        let places = kinds.iter().map(|kind| learn(*kind)).collect();
        Search { kinds, places, atomic, fails }.run()
    });
    searches.fold(Found::default(), |sum, found| Found {
        worlds: sum.worlds + found.worlds,
        lost_alone: sum.lost_alone + found.lost_alone,
    })
}

#[test]
fn a_running_machines_devices_leave_together_or_go_back_from_everywhere() {
    assert!(search(Role::Leaves, State::Running, true).worlds > 10_000);
}

#[test]
fn a_running_machines_devices_are_saved_together_and_run_on_or_go_back_from_everywhere() {
    assert!(search(Role::RunsOn, State::Running, true).worlds > 10_000);
}

#[test]
fn a_paused_machines_devices_leave_together_or_go_back_from_everywhere() {
    for atomic in [true, false] {
        assert!(search(Role::Leaves, State::Stop, atomic).worlds > 1000);
    }
}

#[test]
fn devices_come_together_and_none_runs_before_all_are_there() {
    for (now, atomic) in
        [(State::Running, true), (State::Running, false), (State::Stop, true), (State::Stop, false)]
    {
        assert!(search(Role::Comes, now, atomic).worlds > 1000);
    }
}

#[test]
fn no_device_runs_again_while_the_stop_of_another_is_under_way() {
    for role in [Role::Leaves, Role::RunsOn] {
        assert!(search(role, State::Running, false).worlds > 10_000);
    }
}

#[test]
fn a_paused_machines_devices_are_saved_together_and_run_on_or_go_back_from_everywhere() {
    for atomic in [true, false] {
        assert!(search(Role::RunsOn, State::Stop, atomic).worlds > 1000);
    }
}

#[test]
fn after_the_commit_the_others_of_a_device_that_is_lost_arrive_all_the_same() {
    for now in [State::Running, State::Stop] {
        for role in [Role::Leaves, Role::RunsOn, Role::Comes] {
            assert!(search(role, now, true).lost_alone > 10, "from {now}");
        }
    }
}
